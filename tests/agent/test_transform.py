# SPDX-License-Identifier: Apache-2.0
"""Transforms: exact rounding, closed sets, keyed pseudonyms, coarse places, honest series."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.transform import (
    DEVICE_KIND,
    DropReason,
    canonical,
    compile_transform,
    device_pseudonym,
    identifier_kind,
    pseudonym,
    pseudonym_key,
)
from agent.transform.personal import is_personal
from agent.transform.places import grid, prefix
from agent.transform.readers import (
    MAX_UNITS,
    Reader,
    booleans,
    identifiers,
    integers,
    numbers,
    texts,
)
from agent.transform.series import Delta, Window, half_even
from assent.columns import Kind, Quantum
from assent.errors import PolicyError
from firmware_bridge.sample import Device
from tests.agent.flow_parts import (
    ADDRESS,
    DOOR,
    ENERGY,
    FAULT,
    FRIDGE,
    METER,
    OTHER_SECRET,
    PLACE,
    POWER,
    SECRET,
    SERIAL,
    attribute,
    carried,
)

TENTH = Quantum.of(0.1)
QUARTER_HOUR = 900_000


def nearest(value: Fraction) -> int:
    """Half to even, spelled out."""
    below = math.floor(value)
    rest = value - below
    if rest == Fraction(1, 2):
        return below if below % 2 == 0 else below + 1
    return below if rest < Fraction(1, 2) else below + 1


@settings(max_examples=150)
@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    st.sampled_from([0.001, 0.1, 0.25, 0.5, 1.0, 3.0, 20.0, 1e-9]),
)
def test_numbers_are_the_nearest_units_half_to_even(values: list[float], quantum: float) -> None:
    step = Fraction(repr(quantum))
    cells, clean = numbers(Quantum.of(quantum)).read(values)
    expected = [nearest(Fraction(value) / step) for value in values]
    assert (cells, clean) == (
        [e if abs(e) <= MAX_UNITS else DropReason.OUT_OF_RANGE for e in expected],
        all(abs(e) <= MAX_UNITS for e in expected),
    )


@pytest.mark.parametrize(
    ("quantum", "value", "units"),
    [
        (0.5, 0.25, 0),
        (0.5, 0.75, 2),
        (0.5, -0.25, 0),
        (0.5, -0.75, -2),
        (2.0, 5, 2),
        (2.0, 7, 4),
        (0.1, 0.15, 1),  # the float is below the tie
        (0.1, 0.25, 2),  # the float is the tie
        (0.1, 230.04999999999998, 2300),
        (1.0, 2**53 + 1, 2**53 + 1),
    ],
)
def test_ties_go_to_the_even_unit(quantum: float, value: float, units: int) -> None:
    assert numbers(Quantum.of(quantum)).read([value]) == ([units], True)


@pytest.mark.parametrize(
    ("quantum", "transform", "expected"),
    [
        (0.1, "keep", Quantum(1, 10)),
        (0.1, "round(5)", Quantum(5, 1)),
        (10.0, "round(5)", Quantum(10, 1)),
        (0.1, "window(15m, mean)", Quantum(1, 10)),
        (0.1, "window(15m, count)", None),
    ],
    ids=[
        "keep has the sensor's own",
        "a coarser transform wins",
        "a coarser sensor wins",
        "a mean has the sensor's own",
        "a count counts",
    ],
)
def test_a_column_has_the_coarser_of_quantum_and_transform(
    quantum: float, transform: str, expected: Quantum | None
) -> None:
    compiled = compile_transform(
        carried("appliance.power", transform, attribute(quantum=quantum)), SECRET, 0
    )
    assert (compiled.kind, compiled.quantum) == (Kind.NUMBER, expected)


@settings(max_examples=100)
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_a_mean_is_rounded_once_half_to_even(total: int, count: int) -> None:
    assert half_even(total, count) == nearest(Fraction(total, count))


@pytest.mark.parametrize(
    ("reader", "value", "reason"),
    [
        (numbers(TENTH), math.nan, DropReason.NOT_FINITE),
        (numbers(TENTH), math.inf, DropReason.NOT_FINITE),
        (numbers(TENTH), -math.inf, DropReason.NOT_FINITE),
        (numbers(TENTH), True, DropReason.WRONG_TYPE),
        (numbers(TENTH), "230.1", DropReason.WRONG_TYPE),
        (numbers(TENTH), None, DropReason.WRONG_TYPE),
        (numbers(TENTH), [1], DropReason.WRONG_TYPE),
        (numbers(TENTH), 10**400, DropReason.OUT_OF_RANGE),
        (numbers(TENTH), 1e300, DropReason.OUT_OF_RANGE),
        (integers(None), 1.5, DropReason.WRONG_TYPE),
        (integers(None), math.nan, DropReason.NOT_FINITE),
        (integers(None), math.inf, DropReason.NOT_FINITE),
        (integers(None), True, DropReason.WRONG_TYPE),
        (integers(None), 2**62, DropReason.OUT_OF_RANGE),
        (booleans(), 1, DropReason.WRONG_TYPE),
        (booleans(), "true", DropReason.WRONG_TYPE),
        (texts(["E1"]), "E3", DropReason.NOT_LISTED),
        (texts(["E1"]), 1, DropReason.WRONG_TYPE),
        (texts(["E1"]), [], DropReason.WRONG_TYPE),
        (texts(["E1"]), "alice@example.com", DropReason.PERSONAL_TEXT),
        (identifiers(SECRET, "mac"), "not a mac", DropReason.MALFORMED),
        (identifiers(SECRET, "serial"), "  ", DropReason.MALFORMED),
        (identifiers(SECRET, "serial"), 4711, DropReason.WRONG_TYPE),
        (grid(10), (91.0, 0.0), DropReason.OUT_OF_RANGE),
        (grid(10), (0.0, -181.0), DropReason.OUT_OF_RANGE),
        (grid(10), (math.nan, 0.0), DropReason.NOT_FINITE),
        (grid(10), (math.inf, 0.0), DropReason.OUT_OF_RANGE),
        (grid(10), (1.0,), DropReason.WRONG_TYPE),
        (grid(10), ("1", "2"), DropReason.WRONG_TYPE),
        (grid(10), 1.0, DropReason.WRONG_TYPE),
        (prefix(24), "192.0.2.256", DropReason.MALFORMED),
        (prefix(24), "gateway.example.com", DropReason.MALFORMED),
        (prefix(24), 3221225985, DropReason.WRONG_TYPE),
    ],
)
def test_a_bad_value_is_a_reason_and_its_neighbours_stay(
    reader: Reader, value: object, reason: DropReason
) -> None:
    good = {
        Kind.NUMBER: 7,
        Kind.BOOLEAN: True,
        Kind.POSITION: (47.1, 8.5),
        Kind.BYTES: "00:00:5E:00:53:01",
    }.get(reader.kind, "E1" if reader.one("E1") == "E1" else "192.0.2.7")
    (before, bad, after), clean = reader.read([good, value, good])
    assert bad is reason
    assert not clean
    assert before == after
    assert not isinstance(before, DropReason)
    assert reader.read([good]) == ([before], True)


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["E1", "E2", 1, 2.0, 10**400, 1e308]),
    st.lists(st.integers(), max_size=1),
)


@settings(max_examples=150)
@given(st.lists(ANY, min_size=1, max_size=6))
def test_a_column_reads_as_its_values_read_one_by_one(values: list[object]) -> None:
    every = [
        numbers(TENTH),
        integers(None),
        integers(Quantum(5, 1)),
        booleans(),
        texts(["E1", "E2"]),
    ]
    for reader in every:
        cells, clean = reader.read(values)
        assert cells == [reader.one(value) for value in values]
        assert clean == (not any(isinstance(cell, DropReason) for cell in cells))


def test_a_whole_number_spelled_as_a_float_is_an_integer() -> None:
    assert integers(None).read([3.0, 4, 5.0]) == ([3, 4, 5], True)
    assert integers(Quantum(5, 1)).read([12.0, 13]) == ([2, 3], True)


@pytest.mark.parametrize(
    ("op", "entry"),
    [
        ("keep", SERIAL),
        ("prefix(24)", SERIAL),
        ("keep", ENERGY),
        ("window(15m, sum)", ENERGY),
        ("delta", POWER),
        ("keep", PLACE),
        ("round(1)", PLACE),
        ("keep", ADDRESS),
        ("grid(10)", POWER),
        ("pseudonym", POWER),
        ("pseudonym", ADDRESS),
        ("round(1)", FAULT),
        ("round(1)", DOOR),
        ("window(15m, mean)", FAULT),
        ("window(15m, mean)", DOOR),
        ("enum(a, b)", POWER),
        ("prefix(24)", POWER),
        ("keep", attribute(quantum=None)),
    ],
    ids=[
        "an identifier is not kept",
        "an identifier is not cut",
        "a counter is not kept",
        "a counter has no window",
        "what goes up and down has no delta",
        "a position is not kept",
        "a position is not rounded",
        "an open text is not kept",
        "a number has no grid",
        "a number is no identifier",
        "an address is no identifier",
        "a text is not rounded",
        "a boolean is not rounded",
        "a text has no mean",
        "a boolean has no mean",
        "a number is no choice",
        "a number has no prefix",
        "a number without a quantum has no units",
    ],
)
@pytest.mark.clause("C05")
@pytest.mark.clause("C06")
def test_what_does_not_fit_has_no_lane(op: str, entry: object) -> None:
    with pytest.raises(PolicyError) as refused:
        compile_transform(carried("device.serial", op, entry), SECRET, 0)  # type: ignore[arg-type]
    assert "does not fit" in refused.value.message


@pytest.mark.parametrize(
    ("op", "entry", "kind"),
    [
        ("pseudonym", SERIAL, Kind.BYTES),
        ("delta", ENERGY, Kind.NUMBER),
        ("grid(10)", PLACE, Kind.POSITION),
        ("prefix(24)", ADDRESS, Kind.TEXT),
        ("keep", FAULT, Kind.TEXT),
        ("keep", DOOR, Kind.BOOLEAN),
        ("enum(E1)", FAULT, Kind.TEXT),
        ("window(15m, count)", DOOR, Kind.NUMBER),
        ("window(15m, last)", FAULT, Kind.TEXT),
        ("keep", attribute(kind="event", type="time"), Kind.NUMBER),
        ("keep", attribute(type="integer"), Kind.NUMBER),
    ],
)
def test_what_fits_compiles(op: str, entry: object, kind: Kind) -> None:
    assert compile_transform(carried("device.serial", op, entry), SECRET, 0).kind is kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quantum", "op", "step"),
    [
        (None, "keep", 1_000),
        (10.0, "keep", 1_000),
        (10.0, "round(60000)", 60_000),
        (3_600_000.0, "keep", 3_600_000),
    ],
    ids=["nothing is said", "a finer sensor", "a coarser transform", "a coarser sensor"],
)
def test_an_instant_is_whole_seconds_or_coarser(quantum: float | None, op: str, step: int) -> None:
    entry = attribute(kind="event", type="time", quantum=quantum)
    compiled = compile_transform(carried("device.restart", op, entry), SECRET, 0)
    assert compiled.quantum == Quantum(step, 1)
    assert compiled.reader.read([5 * step, 6.5 * step, 7.5 * step]) == ([5, 6, 8], True)


PERSONAL = {
    "an e-mail address": "alice@example.com",
    "an e-mail address in brackets": "Alice <alice@example.com>",
    "an international number": "+49 30 901820",
    "a national number": "030 901820-17",
    "an American number": "(555) 010-0199",
    "a number with dots": "555.010.0199",
    "a Chinese mobile number": "13800138000",
    "a link": "https://example.com/u/1",
    "a link without scheme": "www.example.com",
    "a mail link": "mailto:alice",
    "a name field": "name: Alice",
    "a name field as JSON": '{"name": "Alice"}',
    "a user name field": "user_name=alice",
    "a Chinese name field": "姓名:王",
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    "a bearer token": "Bearer abcdefgh1234",
    "a secret of a service": "ghp_abcdefghijklmnop",
    "a UUID": "123e4567-e89b-12d3-a456-426614174000",
    "random hexadecimal": "9f86d081884c7d659a2feaa0c55ad015",
    "random base64": "dGhpcyBpcyBhIHRva2VuMTIzNDU2",
}
HARMLESS = [
    "E1",
    "none",
    "idle",
    "door-open-too-long",
    "compressor over temperature",
    "2026-11-01",
    "10.0.19041.1234",
    "linux 6.18.2",
    "46000",
    "zh-CN",
    "firmware-update-failed-2",
    "UNSUPPORTED_CONFIGURATION_OF_PUMP",
    "名称",
]


@pytest.mark.parametrize("text", PERSONAL.values(), ids=PERSONAL.keys())
@pytest.mark.clause("C35")
def test_a_text_shaped_like_a_persons_is_refused_even_when_listed(text: str) -> None:
    reader = texts([text, "E1"])
    assert reader.read(["E1", text]) == (["E1", DropReason.PERSONAL_TEXT], False)


@pytest.mark.parametrize("part", ["a", "1", "a.", "x@"])
@pytest.mark.clause("C35")
def test_a_text_without_end_is_refused_at_once(part: str) -> None:
    began = time.process_time()
    assert texts(["E1"]).read([part * 50_000]) == ([DropReason.PERSONAL_TEXT], False)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("text", HARMLESS)
@pytest.mark.clause("C35")
def test_a_word_of_the_appliance_is_not_refused(text: str) -> None:
    assert not is_personal(text)
    assert texts([text]).read([text]) == ([text], True)


@pytest.mark.clause("C08")
def test_an_enum_lets_through_what_both_sets_have() -> None:
    compiled = compile_transform(carried("appliance.fault", "enum(E1, E9)", FAULT), SECRET, 0)
    cells, _ = compiled.reader.read(["E1", "E2", "E9"])
    assert cells == ["E1", DropReason.NOT_LISTED, DropReason.NOT_LISTED]


def hmac_by_hand(key: bytes, message: bytes) -> bytes:
    """RFC 2104 §2, spelled out."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(k ^ 0x36 for k in key) + message).digest()
    return hashlib.sha256(bytes(k ^ 0x5C for k in key) + inner).digest()


def hkdf_by_hand(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 §2, spelled out."""
    extracted = hmac_by_hand(salt or bytes(32), secret)
    out, block = b"", b""
    for count in itertools.count(1):
        if len(out) >= length:
            return out[:length]
        block = hmac_by_hand(extracted, block + info + bytes([count]))
        out += block
    raise AssertionError


def test_the_hand_written_hmac_and_hkdf_agree_with_their_rfcs() -> None:
    # RFC 4231 §4.3, test case 2
    assert hmac_by_hand(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    # RFC 5869 A.1 and A.3
    assert hkdf_by_hand(
        b"\x0b" * 22, bytes.fromhex("000102030405060708090a0b0c"),
        bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42,
    ).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )  # fmt: skip
    assert hkdf_by_hand(b"\x0b" * 22, b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@settings(max_examples=40)
@given(
    st.binary(min_size=32, max_size=32),
    st.sampled_from(["device", "serial", "mac"]),
    st.integers(0, 2**40),
    st.text(min_size=1, max_size=20),
)
def test_a_pseudonym_is_the_hmac_that_the_design_says(
    secret: bytes, kind: str, epoch: int, identifier: str
) -> None:
    info = b"assent/1 pseudonym\0" + kind.encode() + b"\0" + epoch.to_bytes(8, "big")
    key = hkdf_by_hand(secret, b"", info, 32)
    assert pseudonym_key(secret, kind, epoch) == key
    assert pseudonym(key, identifier) == hmac_by_hand(key, identifier.encode())[:16]


@pytest.mark.clause("C05")
def test_unrelated_secrets_kinds_and_epochs_give_unrelated_pseudonyms() -> None:
    given_ = itertools.product((SECRET, OTHER_SECRET), ("device", "serial"), (689, 690))
    found = {pseudonym(pseudonym_key(s, k, e), "TEST-0001") for s, k, e in given_}
    assert len(found) == 8


def test_a_secret_of_another_length_makes_no_key() -> None:
    with pytest.raises(ValueError, match="32 bytes, got 16"):
        pseudonym_key(bytes(16), "device", 0)


@pytest.mark.parametrize(
    ("kind", "spellings", "written"),
    [
        (
            "mac",
            ["00:00:5E:00:53:AF", "00-00-5e-00-53-af", "0000.5e00.53af", " 00005E0053AF "],
            "00005e0053af",
        ),
        ("serial", ["test-0001", " TEST-0001\n", "Test-0001"], "TEST-0001"),
        ("imei", ["49-015420-323751-8", "490154203237518"], "490154203237518"),
    ],
)
def test_spellings_of_one_identifier_are_one(kind: str, spellings: list[str], written: str) -> None:
    assert {canonical(kind, text) for text in spellings} == {written}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("mac", "00:00:5E:00:53"), ("mac", ""), ("serial", " \t"), ("imei", "none"), ("imei", "")],
)
def test_what_is_no_identifier_has_no_pseudonym(kind: str, text: str) -> None:
    assert canonical(kind, text) is None


def test_the_kind_of_an_identifier_is_the_last_word_of_its_name() -> None:
    names = ["device.serial", "host.wifi-mac", "modem.imei"]
    assert [identifier_kind(name) for name in names] == ["serial", "mac", "imei"]


def test_a_device_is_known_by_its_serial_else_by_its_id() -> None:
    key = pseudonym_key(SECRET, DEVICE_KIND, 3)
    moved = Device("meter-cellar", "electricity-meter", " test-0001 ")
    nameless = Device("fridge", "refrigerator", "  ")
    assert (
        device_pseudonym(key, METER) == device_pseudonym(key, moved) == pseudonym(key, "TEST-0001")
    )
    assert (
        device_pseudonym(key, FRIDGE)
        == device_pseudonym(key, nameless)
        == pseudonym(key, "id:fridge")
    )
    # A serial that spells an id is not that id.
    assert device_pseudonym(key, Device("x", "y", "id:fridge")) != device_pseudonym(key, FRIDGE)


LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)
KM_PER_DEGREE = 111.195


def degrees(reader: Reader, cell: object) -> tuple[float, float]:
    assert isinstance(cell, tuple)
    assert reader.quantum is not None
    return reader.quantum.value(cell[0]), reader.quantum.value(cell[1])


@settings(max_examples=150)
@given(LATITUDES, LONGITUDES, st.sampled_from([1, 2.5, 10, 100, 3000]))
@pytest.mark.clause("C06")
def test_the_centre_of_a_cell_lies_in_that_cell(
    latitude: float, longitude: float, km: float
) -> None:
    reader = grid(km)
    ([cell], clean) = reader.read([(latitude, longitude)])
    assert clean
    centre = degrees(reader, cell)
    assert reader.read([centre])[0] == [cell]


@settings(max_examples=150)
@given(LATITUDES, LONGITUDES, st.sampled_from([1, 10, 100]))
@pytest.mark.clause("C06")
def test_a_cell_is_about_its_kilometres_at_every_latitude(
    latitude: float, longitude: float, km: float
) -> None:
    reader = grid(km)
    own = reader.one((latitude, longitude))
    here = degrees(reader, own)
    high, wide = km / KM_PER_DEGREE, km / KM_PER_DEGREE / max(math.cos(math.radians(here[0])), 1e-9)
    # A little less than half a cell from the centre is the same cell ...
    near = 0.45
    for up, right in itertools.product((-near, near), (-near, near)):
        place = (here[0] + up * high, here[1] + right * min(wide, 350))
        if -90 <= place[0] <= 90 and -180 <= place[1] <= 180:
            assert reader.one(place) == own
    # ... and away from poles and antimeridian three cells off is another.
    if abs(here[0]) < 80 and abs(here[1]) < 170:
        assert reader.one((here[0] + 3 * high, here[1])) != own
        assert reader.one((here[0], here[1] + 5 * wide)) != own


@settings(max_examples=150)
@given(LATITUDES, LONGITUDES, st.sampled_from([1, 5, 10]), st.sampled_from([2, 3, 10]))
def test_a_coarser_grid_tells_no_more_than_a_finer(
    latitude: float, longitude: float, km: float, times: int
) -> None:
    fine, coarse = grid(km), grid(km * times)
    there = degrees(fine, fine.one((latitude, longitude)))
    assert coarse.one(there) == coarse.one((latitude, longitude))


def test_coarser_cells_lie_edge_on_edge_with_finer_ones_wherever_their_width_changes() -> None:
    for km, times in ((50, 2), (50, 3), (100, 5)):
        fine, coarse = grid(km), grid(km * times)
        cells: dict[object, set[object]] = {}
        for latitude, longitude in itertools.product(range(-89, 90, 3), range(-1795, 1800, 77)):
            place = (latitude + 0.37, longitude / 10)
            cells.setdefault(fine.one(place), set()).add(coarse.one(place))
            cells[fine.one(place)].add(coarse.one(degrees(fine, fine.one(place))))
        assert {len(within) for within in cells.values()} == {1}


@pytest.mark.parametrize(
    ("bits", "text", "network"),
    [
        (24, "192.0.2.77", "192.0.2.0/24"),
        (16, "192.0.2.77", "192.0.0.0/16"),
        (24, " 192.0.2.77 ", "192.0.2.0/24"),
        (32, "192.0.2.77", "192.0.2.0/24"),
        (48, "2001:db8:1:2::3", "2001:db8:1::/48"),
        (128, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        (24, "::ffff:192.0.2.77", "192.0.2.0/24"),
        (64, "2002:c000:24d:1::1", "192.0.2.0/24"),
        (16, "2002:c000:24d::1", "192.0.0.0/16"),
        (64, "2001:0:c633:6401:8000:f227:3fff:fdb2", "192.0.2.0/24"),
        (64, "2001:1:c633:6401:8000:f227:3fff:fdb2", "2001:1:c633:6401::/64"),
        (64, "fe80::1%eth0", "fe80::/64"),
    ],
    ids=[
        "a /24",
        "a /16",
        "blanks do not matter",
        "the host part of IPv4 never leaves",
        "a /48",
        "the host part of IPv6 never leaves",
        "an IPv4 address in IPv6 clothes is an IPv4 address",
        "an IPv4 address that 6to4 carries is an IPv4 address",
        "a coarse one, too",
        "an IPv4 address behind Teredo is an IPv4 address",
        "the twin: a neighbour of Teredo is an IPv6 address",
        "the name of an interface does not leave",
    ],
)
@pytest.mark.clause("C07")
def test_an_address_leaves_as_its_network(bits: int, text: str, network: str) -> None:
    assert prefix(bits).read([text]) == ([network], True)


def rising() -> st.SearchStrategy[list[int]]:
    start = 1_793_491_200_000
    return st.lists(st.integers(0, 400_000), min_size=1, max_size=30).map(
        lambda gaps: [start + total for total in itertools.accumulate(gaps)]
    )


def chunks(data: st.DataObject, count: int) -> list[slice]:
    marks = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=4))) if count > 1 else []
    return [slice(a, b) for a, b in itertools.pairwise([0, *marks, count])]


@settings(max_examples=150)
@given(st.data(), rising())
def test_deltas_agree_with_a_loop(data: st.DataObject, times: list[int]) -> None:
    kinds = st.one_of(st.integers(0, 50), st.just(DropReason.NOT_FINITE))
    cells = data.draw(st.lists(kinds, min_size=len(times), max_size=len(times)))
    expected, last = [], None
    for cell in cells:
        if isinstance(cell, DropReason):
            expected.append(cell)
        elif last is None:
            expected.append(DropReason.FIRST_OF_COUNTER)
            last = cell
        else:
            expected.append(cell - last if cell >= last else DropReason.COUNTER_RESET)
            last = cell
    delta, found = Delta(), []
    for part in chunks(data, len(times)):
        clean = not any(isinstance(cell, DropReason) for cell in cells[part])
        found += delta.steps(times[part], cells[part], clean=clean)
    assert found == expected


def test_the_increases_of_a_counter_sum_to_its_whole_increase() -> None:
    counter = list(itertools.accumulate(range(1, 200)))
    steps = Delta().steps(list(range(len(counter))), counter, clean=True)
    assert sum(step for step in steps if isinstance(step, int)) == counter[-1] - counter[0]


def test_an_old_reading_does_not_count_twice() -> None:
    delta = Delta()
    assert delta.steps([10, 20], [100, 110], clean=True) == [DropReason.FIRST_OF_COUNTER, 10]
    assert delta.steps([15], [105], clean=True) == [DropReason.LATE]
    assert delta.steps([19], [112], clean=True) == [DropReason.LATE]
    assert delta.steps([30], [130], clean=True) == [20]


def test_a_counter_that_went_back_starts_again() -> None:
    steps = Delta().steps([1, 2, 3, 4], [100, 110, 3, 8], clean=True)
    assert steps == [DropReason.FIRST_OF_COUNTER, 10, DropReason.COUNTER_RESET, 5]


def naive_windows(
    times: list[int], values: list[int], aggregate: str, now_ms: int | None
) -> tuple[dict[int, int], int]:
    """Windows that ended, and how many readings are in the last one when it has not."""
    groups: dict[int, list[int]] = {}
    for ms, value in zip(times, values, strict=True):
        groups.setdefault(ms // QUARTER_HOUR * QUARTER_HOUR, []).append(value)
    open_count = 0
    last = max(groups)
    if now_ms is None or last + QUARTER_HOUR > now_ms:
        open_count = len(groups.pop(last))
    make = {
        "mean": lambda got: nearest(Fraction(sum(got), len(got))),
        "min": min,
        "max": max,
        "last": lambda got: got[-1],
        "sum": sum,
        "count": len,
    }[aggregate]
    return {start: make(got) for start, got in groups.items()}, open_count


@settings(max_examples=200)
@given(st.data(), rising(), st.sampled_from(["mean", "min", "max", "last", "sum", "count"]))
def test_windows_agree_with_grouping(data: st.DataObject, times: list[int], aggregate: str) -> None:
    values = data.draw(st.lists(st.integers(-99, 99), min_size=len(times), max_size=len(times)))
    window = Window(QUARTER_HOUR, aggregate, 0, None)  # type: ignore[arg-type]
    dropped: Counter[DropReason] = Counter()
    found: list[tuple[int, object]] = []
    for part in chunks(data, len(times)):
        found += window.absorb(times[part], values[part], dropped)
    expected, still_open = naive_windows(times, values, aggregate, None)
    assert dict(found) == expected
    assert len(found) == len(expected)
    assert window.readings == still_open
    end = times[-1] // QUARTER_HOUR * QUARTER_HOUR + QUARTER_HOUR
    assert window.end_by(end - 1, dropped) == []
    last = naive_windows(times, values, aggregate, end)[0]
    assert window.end_by(end, dropped) == [(max(last), last[max(last)])]
    assert not dropped


def test_a_reading_of_a_window_that_has_left_is_late() -> None:
    window, dropped = Window(1000, "sum", 0, None), Counter()
    assert window.absorb([500, 1500], [1, 2], dropped) == [(0, 1)]
    assert window.absorb([600], [9], dropped) == []
    assert window.end_by(2000, dropped) == [(1000, 2)]
    assert window.absorb([1900], [9], dropped) == []
    assert dropped == {DropReason.LATE: 2}


def test_the_last_of_a_window_is_the_newest_not_the_last_to_come() -> None:
    window, dropped = Window(1000, "last", 0, None), Counter()
    window.absorb([100, 800], [1, 2], dropped)
    window.absorb([300], [9], dropped)
    assert window.end_by(1000, dropped) == [(0, 2)]


def test_windows_that_begin_or_end_outside_the_span_are_cut() -> None:
    window, dropped = Window(1000, "count", 1500, 3500), Counter()
    ended = window.absorb([1600, 2000, 2100, 3000, 3400], [1, 1, 1, 1, 1], dropped)
    ended += window.end_by(9000, dropped)
    assert ended == [(2000, 2)]
    assert dropped == {DropReason.CUT_WINDOW: 3}


def test_a_window_given_up_is_counted_and_does_not_leave() -> None:
    window, dropped = Window(1000, "mean", 0, None), Counter()
    window.absorb([100, 200], [1, 2], dropped)
    window.drop(dropped)
    assert window.end_by(9000, dropped) == []
    assert dropped == {DropReason.OPEN_WINDOW: 2}


def test_a_sum_that_no_column_holds_is_dropped() -> None:
    window, dropped = Window(1000, "sum", 0, None), Counter()
    window.absorb([1, 2], [MAX_UNITS, MAX_UNITS], dropped)
    assert window.end_by(1000, dropped) == []
    assert dropped == {DropReason.OUT_OF_RANGE: 2}
