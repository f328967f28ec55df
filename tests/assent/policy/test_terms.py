# SPDX-License-Identifier: Apache-2.0
"""Terms are written in one way, and nothing wider ever passes as covered."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import cbor
from assent.errors import MalformedError, NotCanonicalError, PolicyError, TooLargeError, WireError
from assent.policy.expressions import parse
from assent.policy.model import Keep
from assent.policy.terms import (
    AttributeTerms,
    Relation,
    Terms,
    compare,
    covers,
    decode_terms,
    terms_of,
)
from assent.units import Duration
from tests.assent.policy.drafts import policy

SAME, NARROWER, WIDER = Relation.SAME, Relation.NARROWER, Relation.WIDER

# The same values in the words of docs/terms.md: what another language has to write.
ADVICE: list[cbor.Encodable] = [
    1,
    "Example Appliances Co.",
    "optional",
    "energy-advice",
    "consent",
    ["advice", "partner", "DE"],
    [
        ["area", "location", "position", [], None, None, "sensitive", "grid(10)"],
        ["ip", "connection", "text", [], None, None, "personal", "prefix(24)"],
        ["power", "sensor", "number", [], "W", 0.1, "personal", "window(15m, mean)"],
        ["serial", "identifier", "text", [], None, None, "personal", "pseudonym"],
    ],
    [604_800_000, 2_592_000_000, "anonymise"],
    864_000_000,
    ["devices"],
    True,
    "stop",
]


def advice(*edits: tuple[str, str]) -> Terms:
    return terms_of(policy(edits), "advice")


def service(*edits: tuple[str, str]) -> Terms:
    return terms_of(policy(edits), "service")


def test_terms_are_the_array_that_the_wire_format_gives() -> None:
    assert advice().encode() == cbor.encode(ADVICE)
    assert advice().hash == hashlib.sha256(cbor.encode(ADVICE)).digest()


def test_terms_have_the_hash_they_had_when_the_format_was_fixed() -> None:
    assert advice().hash.hex() == (
        "e82595d676c1af0066b699ffebaa359cc65e464caf649b734672ad016678f672"
    )


def test_the_closed_set_of_a_text_stands_in_its_terms() -> None:
    (_, _, fault) = service().attributes
    assert fault.name == "fault"
    assert fault.choices == ("heater", "leak", "motor")


NO_TERMS = {
    "another notice": ("Advice on energy.", "Other words."),
    "another notice's language": ('zh = "节能建议。"', 'de = "Rat."'),
    "another key": ("D" * 43, "G" * 43),
    "another file": ("keys/advice.cose", "keys/advice-2.cose"),
    "another broker": ("mqtts://192.0.2.7", "mqtts://192.0.2.8"),
    "another batch": ("separate = true", 'separate = true\nbatch = { readings = 5, age = "1h" }'),
    "a key of the flow's own": (
        "separate = true",
        f'separate = true\nkey = {{ file = "a.cose", thumbprint = "{"x" * 43}" }}',
    ),
    "another version": ('"2026-11-01"', '"2027-01-01"'),
    "a higher serial": ("serial = 17", "serial = 18"),
    "another review": ('review = "2027-11-30"', 'review = "2028-11-30"'),
    "another owner": ("energy team", "power team"),
    "another explanation": ("Electric power drawn", "Power drawn"),
    "an attribute the flow does not carry": ('"leak", "motor"', '"leak"'),
    "the same window in other words": ("window(15m, mean)", "window(900s,mean)"),
    "the same links twice": ('["devices"]', '["devices", "devices"]'),
}


@pytest.mark.parametrize("edit", NO_TERMS.values(), ids=NO_TERMS.keys())
def test_what_is_no_term_changes_no_term(edit: tuple[str, str]) -> None:
    assert advice(edit) == advice()
    assert advice(edit).hash == advice().hash
    assert compare(advice(), advice(edit)).relation is SAME


CHANGES: dict[str, tuple[tuple[str, str], Relation, Relation]] = {
    # an edit of the draft; the relation there, and the one back
    "another controller": (("Example Appliances Co.", "New Owner Ltd."), WIDER, WIDER),
    "core in place of optional": (('"optional"', '"core"'), WIDER, WIDER),
    "another purpose": (('"energy-advice"', '"advertising"'), WIDER, WIDER),
    "another basis": (('"consent"', '"contract"'), WIDER, WIDER),
    "another recipient": (('recipient = "advice"', 'recipient = "maker"'), WIDER, WIDER),
    "another role": (('"partner"', '"processor"'), WIDER, WIDER),
    "another region": (('"DE"', '"US"'), WIDER, WIDER),
    "no yes of its own": (("separate = true", "separate = false"), WIDER, WIDER),
    "another kind": (('kind = "connection"', 'kind = "attribute"'), WIDER, WIDER),
    "another type": (('type = "number"', 'type = "integer"'), WIDER, WIDER),
    "another unit": (('unit = "W"', 'unit = "kW"'), WIDER, WIDER),
    "another sensitivity": (('"sensitive"', '"personal"'), WIDER, WIDER),
    "a coarser sensor": (("quantum = 0.1", "quantum = 0.5"), NARROWER, WIDER),
    "a sensor of other steps": (("quantum = 0.1", "quantum = 0.25"), WIDER, WIDER),
    "a longer window": (("window(15m", "window(1h"), NARROWER, WIDER),
    "a coarser grid": (("grid(10)", "grid(50)"), NARROWER, WIDER),
    "a shorter prefix": (("prefix(24)", "prefix(16)"), NARROWER, WIDER),
    "another transform": (("window(15m, mean)", "round(1)"), WIDER, WIDER),
    "an attribute less": (('ip = "prefix(24)"\n', ""), NARROWER, WIDER),
    "a shorter life on the gateway": (('gateway = "7d", recipient = "30d"', 'gateway = "1d", recipient = "30d"'), NARROWER, WIDER),
    "a shorter life at the recipient": (('recipient = "30d"', 'recipient = "29d"'), NARROWER, WIDER),
    "delete in place of anonymise": (('"anonymise"', '"delete"'), NARROWER, WIDER),
    "a shorter epoch that divides": (('epoch = "10d"', 'epoch = "5d"'), NARROWER, WIDER),
    "a shorter epoch that does not": (('epoch = "10d"', 'epoch = "7d"'), WIDER, WIDER),
    "no links": (('["devices"]', "[]"), NARROWER, WIDER),
    "other links": (('["devices"]', '["account"]'), WIDER, WIDER),
    "a withdrawal that also erases": (('"stop"', '"stop+erase"'), NARROWER, WIDER),
}  # fmt: skip


@pytest.mark.clause("C33")
@pytest.mark.parametrize(("edit", "there", "back"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_wider_unless_it_is_provably_less(
    edit: tuple[str, str], there: Relation, back: Relation
) -> None:
    old, new = advice(), advice(edit)
    assert compare(old, new).relation is there
    assert compare(new, old).relation is back
    assert covers(old, new) is (there is not WIDER)
    assert len(compare(old, new).differences) >= 1
    assert old.hash != new.hash


@pytest.mark.clause("C18")
def test_another_controller_voids_what_was_agreed() -> None:
    assert not covers(advice(), advice(("Example Appliances Co.", "New Owner Ltd.")))
    assert covers(advice(), advice(("Example Appliances Co.", "Example Appliances Co.")))


@pytest.mark.clause("C17")
def test_another_region_is_another_consent() -> None:
    assert not covers(advice(), advice(('"DE"', '"DE-BY"')))


@pytest.mark.clause("C10")
def test_a_link_more_is_asked_for() -> None:
    assert not covers(advice(), advice(('["devices"]', '["devices", "account"]')))
    assert covers(advice(), advice(('["devices"]', "[]")))


def test_a_larger_closed_set_is_wider_and_a_smaller_one_narrower() -> None:
    more = service(('"motor"]', '"motor", "pump"]'))
    assert compare(service(), more).relation is WIDER
    assert compare(more, service()).relation is NARROWER


def test_an_enum_pins_what_a_larger_closed_set_adds() -> None:
    pinned = ('fault = "keep"', 'fault = "enum(leak)"')
    assert covers(service(), service(pinned))
    assert not covers(service(pinned), service())


def test_one_wider_change_outweighs_any_number_of_narrower_ones() -> None:
    new = advice(("window(15m", "window(1h"), ("grid(10)", "grid(50)"), ('"DE"', '"US"'))
    found = compare(advice(), new)
    assert found.relation is WIDER
    assert [(one.what, one.wider) for one in found.differences] == [
        ("region", True),
        ("area transform", False),
        ("power transform", False),
    ]


def test_a_difference_is_said_in_words() -> None:
    new = advice(
        ('recipient = "30d"', 'recipient = "90d"'), ('ip = "prefix(24)"\n', ""), ('["devices"]', "[]")
    )  # fmt: skip
    said = {one.what: (one.agreed, one.current) for one in compare(advice(), new).differences}
    assert said == {
        "keep recipient": ("30d", "90d"),
        "links": ("devices", ""),
        "ip": ("prefix(24)", ""),
    }


def test_a_flow_that_is_not_there_has_no_terms() -> None:
    with pytest.raises(PolicyError, match="no 'other'"):
        terms_of(policy(), "other")
    with pytest.raises(PolicyError, match="no 'makr', which 'service' needs"):
        service(('recipient = "maker"', 'recipient = "makr"'))
    with pytest.raises(PolicyError, match="no 'falt'"):
        service(('fault = "keep"', 'falt = "keep"'))


TRANSFORMS = ["keep", "round(1)", "round(10)", "round(3)", "window(1m, mean)", "window(1h, mean)", "pseudonym",
              "delta", "enum(a)", "enum(a, b)", "grid(1)", "grid(2)", "prefix(8)", "prefix(24)"]  # fmt: skip


def attributes(name: str) -> st.SearchStrategy[AttributeTerms]:
    return st.builds(
        AttributeTerms,
        name=st.just(name),
        kind=st.sampled_from(["sensor", "event"]),
        type=st.just("number"),
        choices=st.sampled_from([(), ("a",), ("a", "b")]),
        unit=st.sampled_from([None, "W"]),
        quantum=st.sampled_from([None, 0.1, 0.3, 1.0]),
        sensitivity=st.just("personal"),
        transform=st.sampled_from(TRANSFORMS).map(parse),
    )


def durations(*texts: str) -> st.SearchStrategy[Duration]:
    return st.sampled_from(texts).map(Duration.parse)


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    names = draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3))
    return Terms(
        controller=draw(st.sampled_from(["x", "x", "x", "y"])),
        function="optional",
        purpose="p",
        basis="consent",
        recipient="r",
        role="partner",
        region=draw(st.sampled_from(["CN", "CN", "CN", "DE"])),
        attributes=tuple(draw(attributes(name)) for name in sorted(names)),
        keep=Keep(
            draw(durations("1d", "7d")),
            draw(durations("30d", "90d")),
            draw(st.sampled_from(["delete", "anonymise"])),
        ),
        epoch=draw(durations("1d", "2d", "3d", "6d")),
        links=draw(st.sampled_from([(), ("account",), ("account", "devices")])),
        separate=True,
        on_withdraw=draw(st.sampled_from(["stop", "stop+erase"])),
    )


replace = msgspec.structs.replace


@st.composite
def narrowed(draw: st.DrawFn, wide: Terms) -> Terms:
    """One step less than some terms; where there is no such step, the same."""
    match draw(st.sampled_from(["drop", "keep", "then", "epoch", "links", "transform"])):
        case "drop":
            return replace(wide, attributes=wide.attributes[1:])
        case "transform":
            less = draw(st.sampled_from(TRANSFORMS).map(parse))
            kept = parse("keep")
            return replace(
                wide,
                attributes=tuple(
                    replace(one, transform=less) if one.transform == kept else one
                    for one in wide.attributes
                ),
            )
        case "keep":
            shorter = Duration(wide.keep.recipient // 2)
            return replace(wide, keep=replace(wide.keep, recipient=shorter))
        case "then":
            return replace(wide, keep=replace(wide.keep, then="delete"))
        case "epoch":
            return replace(wide, epoch=Duration(wide.epoch // 2))
        case _:
            return replace(wide, links=wide.links[:-1])


@given(terms())
def test_terms_are_the_same_as_themselves(one: Terms) -> None:
    assert compare(one, one) == compare(one, decode_terms(one.encode()))
    assert compare(one, one).relation is SAME
    assert not compare(one, one).differences


@given(terms(), terms())
def test_only_equal_terms_are_the_same(one: Terms, other: Terms) -> None:
    assert (compare(one, other).relation is SAME) is (one == other)


@given(terms(), st.data())
def test_a_step_less_is_never_wider_and_never_narrower_both_ways(
    wide: Terms, data: st.DataObject
) -> None:
    less = data.draw(narrowed(wide))
    assert covers(wide, less)
    assert compare(wide, less).relation is (SAME if wide == less else NARROWER)
    assert compare(less, wide).relation is (SAME if wide == less else WIDER)


@given(terms(), terms())
def test_no_two_terms_are_narrower_than_each_other(one: Terms, other: Terms) -> None:
    there, back = compare(one, other).relation, compare(other, one).relation
    assert not (there is NARROWER and back is NARROWER)
    assert (there is SAME) is (back is SAME)


@settings(max_examples=60)
@given(terms(), st.data())
def test_what_covers_carries_over(wide: Terms, data: st.DataObject) -> None:
    middle = data.draw(narrowed(wide))
    least = data.draw(narrowed(middle))
    group = (wide, middle, least, data.draw(terms()))
    for a, b, c in itertools.product(group, repeat=3):
        if covers(a, b) and covers(b, c):
            assert covers(a, c)


@given(terms(), terms())
def test_hashes_are_equal_exactly_when_encodings_and_terms_are(one: Terms, other: Terms) -> None:
    assert (one.hash == other.hash) is (one.encode() == other.encode()) is (one == other)
    assert len(one.hash) == 32


@given(terms())
def test_terms_read_back_as_themselves(one: Terms) -> None:
    assert decode_terms(one.encode()) == one
    assert decode_terms(one.encode()).encode() == one.encode()


def spoilt(*path: int, by: object) -> bytes:
    """The array of the draft with one member replaced."""
    array = cbor.decode(cbor.encode(ADVICE), max_bytes=10_000)
    here = array
    for index in path[:-1]:
        assert isinstance(here, list)
        here = here[index]
    assert isinstance(here, list)
    here[path[-1]] = by  # type: ignore[call-overload]
    return cbor.encode(array)


SPOILT: dict[str, tuple[bytes, type[WireError]]] = {
    "another format": (spoilt(0, by=2), MalformedError),
    "a function of no closed set": (spoilt(2, by="extra"), MalformedError),
    "a transform of no closed set": (spoilt(6, 2, 7, by="hash"), MalformedError),
    "a transform in another spelling": (spoilt(6, 2, 7, by="window(900s, mean)"), MalformedError),
    "a quantum that is a whole number": (spoilt(6, 2, 5, by=1), MalformedError),
    "attributes out of order": (spoilt(6, 0, 0, by="zone"), MalformedError),
    "an attribute twice": (spoilt(6, 0, 0, by="ip"), MalformedError),
    "links out of order": (spoilt(9, by=["devices", "account"]), MalformedError),
    "a link twice": (spoilt(9, by=["devices", "devices"]), MalformedError),
    "choices out of order": (spoilt(6, 1, 3, by=["b", "a"]), MalformedError),
    "an epoch below nothing": (spoilt(8, by=-1), MalformedError),
    "a truth that is a number": (spoilt(10, by=1), MalformedError),
    "a member more": (cbor.encode([*ADVICE, 1]), MalformedError),
    "a member less": (cbor.encode(ADVICE[:-1]), MalformedError),
    "a map": (cbor.encode({1: 1}), MalformedError),
    "no CBOR": (b"\xff", NotCanonicalError),
    "bytes that follow": (cbor.encode(ADVICE) + b"\0", NotCanonicalError),
    "more than a policy has": (bytes(2_000_000), TooLargeError),
}


@pytest.mark.parametrize(("data", "error"), SPOILT.values(), ids=SPOILT.keys())
def test_bytes_that_are_no_terms_are_refused(data: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        decode_terms(data)


def test_another_format_is_named() -> None:
    with pytest.raises(MalformedError, match="expected terms of format 1, got 2"):
        decode_terms(spoilt(0, by=2))


def test_the_array_that_is_spoilt_above_is_right_by_itself() -> None:
    assert decode_terms(spoilt(0, by=1)) == advice()


@given(st.one_of(st.binary(max_size=100), st.data()))
def test_any_bytes_are_terms_or_a_wire_error(made: bytes | st.DataObject) -> None:
    data = made if isinstance(made, bytes) else _changed(made)
    try:
        read = decode_terms(data)
    except WireError:
        return
    assert read.encode() == data


def _changed(data: st.DataObject) -> bytes:
    array = bytearray(cbor.encode(ADVICE))
    array[data.draw(st.integers(0, len(array) - 1))] = data.draw(st.integers(0, 255))
    return bytes(array)
