# SPDX-License-Identifier: Apache-2.0
"""A policy that comes down: what is believed, what it changes, and what it leaves alone."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.answers import Consent, History, Status, read
from agent.arrival import FILE, Arrival, judge, keep
from agent.cli import consent as consent_cli
from agent.cli import status as status_cli
from agent.enrol import enrol
from agent.inbox import UNEXPECTED, Rejected, read_inbound
from agent.inspection import inspect
from agent.keys import Keys
from agent.spool import Inbound, LaneState
from assent.cosekey import SealPrivateKey, SigningKey
from assent.enrolment import Bundle, decode_bundle, encode_bundle
from assent.envelope import Control, Kind, Opened, seal, sign_detached, sign_message
from assent.errors import AssentError, CannotOpenError
from assent.messages import StreamAck, decode_status
from assent.policy import signing
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    ENERGY,
    FLOWS,
    HOUR,
    MAKER,
    MINUTE,
    POWER,
    SECOND,
    SERIAL,
    YES,
    Edit,
    House,
    Json,
    Recipient,
    copied,
    form,
    living,
    newer,
    no_room,
    replaced,
    values,
)

ON = dict.fromkeys(FLOWS)


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """Every flow is on."""
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.decide(YES)
        assert house.on() == ON
        yield house


def send(house: House, bundle: bytes, sender: str = "maker") -> None:
    house.receive(sender, house.message(sender, Kind.POLICY, bundle))
    house.turn()


def serial(house: House) -> int | None:
    return house.site.policy.serial if house.site.policy else None


def kept(house: House) -> Path:
    return house.directory / "state" / FILE


def later(text: str, by: int = 2) -> str:
    return newer(text).replace(f"serial = {SERIAL + 1}", f"serial = {SERIAL + by}")


def removed(text: str) -> str:
    """A newer policy without the partner's flow."""
    return newer(text[: text.index(f"[flows.{ADVICE}]")])


def added(text: str) -> str:
    """A newer policy with one flow more."""
    flow = text[text.index(f"[flows.{DIAGNOSIS}]") : text.index(f"[flows.{ADVICE}]")]
    more = flow.replace(DIAGNOSIS, "product-improvement")
    more = more.replace('purpose = "fault-diagnosis"', 'purpose = "improvement"')
    notice = 'notice = { en = "Build better appliances.", zh = "制造更好的电器。" }'
    return newer(text) + re.sub(r"notice = .*", notice, more)


WIDER = replaced('"appliance.power" = "round(1)"', '"appliance.power" = "keep"')
NARROWER = replaced('"appliance.power" = "round(1)"', '"appliance.power" = "round(10)"')


# What is believed.


@pytest.mark.clause("C11")
def test_a_newer_policy_of_the_maker_comes_into_force_whoever_brings_it(house: House) -> None:
    for by, sender in enumerate(MAKER.recipients, 1):
        send(house, MAKER.bundle(lambda text, by=by: later(text, by)), sender)  # type: ignore[misc]
        assert serial(house) == house.site.ledger.highest_serial == SERIAL + by
        assert house.pipeline.rejected == {}
    assert house.on() == ON
    assert house.spool.take_inbox(10) == []
    assert kept(house).stat().st_mode & 0o777 == 0o600


def signed_by_another(_house: House) -> bytes:
    key = SigningKey.generate()
    text, signature = MAKER.policy(newer, key=key)
    return encode_bundle(Bundle(text, signature, key.public.encode(), MAKER.files))


def signed_by_another_under_our_key(_house: House) -> bytes:
    text, signature = MAKER.policy(newer, key=SigningKey.generate())
    return encode_bundle(Bundle(text, signature, MAKER.key.public.encode(), MAKER.files))


def signed_by_ours_under_another_key(_house: House) -> bytes:
    text, signature = MAKER.policy(newer)
    other = SigningKey.generate().public.encode()
    return encode_bundle(Bundle(text, signature, other, MAKER.files))


def signed_by_the_recipient(_house: House) -> bytes:
    key = MAKER.recipients["maker"].ack
    text, signature = MAKER.policy(newer, key=key)
    return encode_bundle(Bundle(text, signature, key.public.encode(), MAKER.files))


def replayed(house: House) -> bytes:
    send(house, MAKER.bundle(later))
    assert serial(house) == SERIAL + 2
    return MAKER.bundle(newer)


def of_the_serial_in_force_with_another_text(_house: House) -> bytes:
    return MAKER.bundle(replaced('"90d"', '"30d"', then=str))


def of_another_id(_house: House) -> bytes:
    return MAKER.bundle(replaced('id = "example-appliances"', 'id = "example-heating"'))


def with_an_error(_house: House) -> bytes:
    good = MAKER.policy(newer)[0]
    text = good.replace(b"mqtts://", b"mqtt://", 1)
    assert text != good
    signature = sign_detached(text, MAKER.key, signing._AAD)
    return encode_bundle(Bundle(text, signature, MAKER.key.public.encode(), MAKER.files))


def without_a_file(_house: House) -> bytes:
    brought = decode_bundle(MAKER.bundle(newer))
    files = {name: data for name, data in brought.files.items() if "maker-ca" not in name}
    return encode_bundle(with_files(brought, files))


def with_another_file(_house: House) -> bytes:
    brought = decode_bundle(MAKER.bundle(newer))
    key = SealPrivateKey.generate().public.encode()
    return encode_bundle(with_files(brought, brought.files | {"keys/maker-2026.cose": key}))


def with_files(bundle: Bundle, files: dict[str, bytes]) -> Bundle:
    return Bundle(bundle.policy, bundle.signature, bundle.policy_key, files)


REFUSED: dict[str, tuple[Callable[[House], bytes], str]] = {
    "another maker signed it": (signed_by_another, "policy-signature"),
    "another signed it in our maker's name": (signed_by_another_under_our_key, "policy-signature"),
    "our maker signed it for another key": (signed_by_ours_under_another_key, "policy-signature"),
    "the recipient signed it itself": (signed_by_the_recipient, "policy-signature"),
    "it is older than the one in force": (replayed, "policy-serial"),
    "its serial is taken": (of_the_serial_in_force_with_another_text, "policy-serial"),
    "it is another policy": (of_another_id, "policy-other"),
    "it has an error": (with_an_error, "config"),
    "a file of it is missing": (without_a_file, "policy-file"),
    "a file of it is another": (with_another_file, "policy-file"),
    "it is no bundle": (lambda _house: b"\x80", "malformed"),
    "it is garbage": (lambda _house: b"\xff" * 300, "not-canonical"),
    "it is empty": (lambda _house: b"", "not-canonical"),
}


@pytest.mark.clause("C11")
@pytest.mark.parametrize(("made", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_may_not_come_into_force_is_counted_and_changes_nothing(
    house: House, made: Callable[[House], bytes], reason: str
) -> None:
    bundle = made(house)
    before = serial(house), house.spool.lanes(), kept(house).exists()
    send(house, bundle)
    assert house.desk.status()["rejected"] == {reason: 1}
    assert (serial(house), house.spool.lanes(), kept(house).exists()) == before
    assert house.spool.take_inbox(10) == []
    assert house.site.keys.policy_key is not None
    assert house.site.keys.policy_key.thumbprint == MAKER.key.public.thumbprint
    # The twin: nothing that was refused stands in the way of the right one.
    send(house, MAKER.bundle(lambda text: later(text, 3)))
    assert serial(house) == SERIAL + 3


@pytest.mark.clause("C11")
def test_a_good_policy_of_somebody_else_is_not_even_read(house: House) -> None:
    bundle = MAKER.bundle(newer)
    for signer in (SigningKey.generate(), MAKER.key, MAKER.recipients["energy-advice"].ack):
        house.receive("maker", house.message("maker", Kind.POLICY, bundle, signer))
    house.receive("nobody", house.message("maker", Kind.POLICY, bundle))
    house.turn()
    assert house.desk.status()["rejected"] == {"bad-signature": 3, "stranger": 1}
    assert serial(house) == SERIAL


@pytest.mark.clause("C11")
def test_a_recipient_that_a_newer_policy_left_out_brings_no_policy_any_more(house: House) -> None:
    def without_the_partner(text: str) -> str:
        text = removed(text)
        start = text.index("[recipients.energy-advice]")
        return text[:start] + text[text.index("\n[", start) + 1 :]

    send(house, MAKER.bundle(without_the_partner))
    assert serial(house) == SERIAL + 1
    send(house, MAKER.bundle(later), "energy-advice")
    assert house.desk.status()["rejected"] == {"stranger": 1}
    assert serial(house) == SERIAL + 1
    # The twin: from the maker the same bundle is taken.
    send(house, MAKER.bundle(later))
    assert serial(house) == SERIAL + 2


def test_one_that_is_longer_than_a_message_is_not_opened(house: House) -> None:
    gateway = house.site.keys.gateway("maker")
    body = bytes(130_000)
    signed = sign_message(Kind.POLICY, body, MAKER.recipients["maker"].ack, gateway.mailbox)
    data = seal(signed, gateway.seal.public, gateway.mailbox, max_bytes=200_000)
    found = read_inbound(Inbound(1, "maker", data, 0), house.site.keys, house.site.policy)
    assert found == Rejected("too-large")


def test_a_bundle_changed_or_cut_anywhere_is_rejected_by_a_name(house: House) -> None:
    key, current = house.site.keys.policy_key, house.site.policy
    assert key is not None
    assert current is not None
    whole = MAKER.bundle(newer)
    for at in range(0, len(whole), 61):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        for data in (bytes(flipped), whole[:at], whole + whole[: at + 1]):
            with pytest.raises(AssentError) as caught:
                judge(data, key, current)
            assert caught.value.code.replace("-", "").isalpha()
    assert isinstance(judge(whole, key, current), Arrival)


def test_the_policy_in_force_once_more_says_nothing(house: House) -> None:
    bundle = MAKER.bundle(newer)
    send(house, bundle)
    before = len(house.site.ledger.entries)
    send(house, bundle)
    send(house, bundle, "energy-advice")
    assert house.desk.status()["rejected"] == {}
    assert len(house.site.ledger.entries) == before
    data = house.message("maker", Kind.POLICY, bundle)
    assert read_inbound(Inbound(1, "maker", data, 0), house.site.keys, house.site.policy) is None


# What it changes.


def taken_in(house: House) -> None:
    """Readings of which one batch waits and two are open, in each flow."""
    house.bring({POWER: 11.4, ENERGY: 1}, {POWER: 12.4, ENERGY: 3})
    house.pipeline.flush()
    house.bring({POWER: 13.4}, {POWER: 14.4})


def bring_on(house: House) -> None:
    house.bring({POWER: 15.4}, {POWER: 16.4})
    house.pipeline.flush()


def sequences(house: House, flow: str) -> list[tuple[int, int]]:
    return [(one.header.stream, one.header.sequence) for one in house.batches(flow)]


def shown(house: House, flow: str) -> Json:
    flows: list[Json] = house.desk.answer({"verb": "consent"})["flows"]
    return next(one for one in flows if one["flow"] == flow)


def reworded(text: str) -> str:
    """The same terms in other words."""
    return replaced('about = "Electric power', 'about = "The electric power')(text)


def with_other_batches(text: str) -> str:
    """The same terms in batches of other sizes, and other things urgent."""
    return newer(text.replace('batch = { age = "1m"', 'batch = { readings = 900, age = "2m"'))


def with_an_end(text: str) -> str:
    """The same terms for as long as the policy lasts."""
    return replaced('controller = "', 'not_after = 2027-12-31\ncontroller = "')(text)


@pytest.mark.clause("C33")
@pytest.mark.parametrize("edit", [newer, reworded, with_other_batches, with_an_end])
def test_flows_with_the_same_terms_go_on_in_their_streams_and_lose_nothing(
    house: House, edit: Edit
) -> None:
    taken_in(house)
    send(house, MAKER.bundle(edit))
    assert serial(house) == SERIAL + 1
    bring_on(house)
    assert values(house.batches(DIAGNOSIS), POWER) == [11, 12, 13, 14, 15, 16]
    found = sequences(house, DIAGNOSIS)
    assert [number for _, number in found] == list(range(len(found)))
    assert len({stream for stream, _ in found}) == 1
    # A minute that had begun before is one window, of everything in it.
    house.clock.advance(2 * MINUTE)
    house.bring({POWER: 0.0})
    house.pipeline.flush()
    assert values(house.batches(ADVICE), POWER) == [pytest.approx(13.9)]
    assert len({stream for stream, _ in sequences(house, ADVICE)}) == 1
    assert not any(house.pipeline.running.lost.values())


def test_an_end_of_the_policy_is_also_the_end_in_the_spool(house: House) -> None:
    assert {one.not_after_ms for one in house.spool.lanes().values()} == {None}
    send(house, MAKER.bundle(with_an_end))
    end_ms = 1_830_297_600_000  # 2028-01-01T00:00Z
    assert {one.not_after_ms for one in house.spool.lanes().values()} == {end_ms}
    send(house, MAKER.bundle(later))
    assert {one.not_after_ms for one in house.spool.lanes().values()} == {None}


@pytest.mark.clause("C28")
def test_a_no_that_was_said_past_the_agent_is_heard_before_a_policy_opens_anything(
    house: House,
) -> None:
    taken_in(house)
    with house.carrier() as past:  # as `assent consent withdraw` does when no agent answers
        past.refuse(DIAGNOSIS, house.clock.now().wall_ms)
    send(house, MAKER.bundle(with_an_end))
    assert house.on() == ON | {DIAGNOSIS: "withdrawn"}
    assert house.batches(DIAGNOSIS) == []
    assert house.spool.lanes()[DIAGNOSIS].state is LaneState.CLOSED


@pytest.mark.clause("C04")
@pytest.mark.clause("C33")
def test_a_wider_flow_is_requested_and_what_waited_of_it_is_gone(house: House) -> None:
    taken_in(house)
    assert values(house.batches(DIAGNOSIS), POWER) == [11, 12]
    send(house, MAKER.bundle(WIDER))
    assert house.on() == ON | {DIAGNOSIS: "requested"}
    bring_on(house)
    assert house.batches(DIAGNOSIS) == []
    assert house.spool.lanes()[DIAGNOSIS].state is LaneState.CLOSED
    told = shown(house, DIAGNOSIS)
    assert told["differences"] == [
        {
            "what": f"{POWER} transform",
            "agreed": "round(1)",
            "current": "keep",
            "wider": True,
        }
    ]
    # The twin: the household says yes to it, and it runs.
    house.clock.advance(HOUR)
    house.decide({DIAGNOSIS: '"given"'}, policy="2026-12-01")
    bring_on(house)
    assert values(house.batches(DIAGNOSIS), POWER) == [15.4, 16.4]


@pytest.mark.clause("C33")
def test_a_narrower_flow_goes_on_and_what_waited_of_it_is_gone(house: House) -> None:
    taken_in(house)
    before = {stream for stream, _ in sequences(house, DIAGNOSIS)}
    send(house, MAKER.bundle(NARROWER))
    assert house.on() == ON
    bring_on(house)
    assert values(house.batches(DIAGNOSIS), POWER) == [20, 20]
    assert not before & {stream for stream, _ in sequences(house, DIAGNOSIS)}
    (told,) = shown(house, DIAGNOSIS)["differences"]
    assert (told["current"], told["wider"]) == ("round(10)", False)


@pytest.mark.clause("C33")
def test_a_flow_that_is_gone_ends_and_is_purged(house: House) -> None:
    taken_in(house)
    house.clock.advance(2 * MINUTE)
    house.bring({POWER: 1.0})
    house.pipeline.flush()
    assert house.waiting(ADVICE) > 0
    send(house, MAKER.bundle(removed))
    assert house.on() == {CORE: None, DIAGNOSIS: None}
    assert house.waiting(ADVICE) == 0
    assert house.spool.lanes()[ADVICE].state is LaneState.CLOSED


@pytest.mark.clause("C04")
def test_a_new_flow_is_requested(house: House) -> None:
    send(house, MAKER.bundle(added))
    assert house.on() == ON | {"product-improvement": "requested"}
    assert "asked" in shown(house, "product-improvement")["detail"]


def test_the_others_lose_nothing_while_one_is_widened(house: House) -> None:
    taken_in(house)
    send(house, MAKER.bundle(WIDER))
    bring_on(house)
    house.clock.advance(2 * MINUTE)
    house.bring({POWER: 0.0})
    house.pipeline.flush()
    assert values(house.batches(ADVICE), POWER) == [pytest.approx(13.9)]


def test_a_form_that_waited_for_this_policy_acts_when_it_comes(house: House) -> None:
    text = form({DIAGNOSIS: '"given"'}, house.clock.now().wall_ms + SECOND, policy="2026-12-01")
    (house.directory / "consent.toml").write_text(text)
    house.clock.advance(HOUR)
    house.reload()
    send(house, MAKER.bundle(WIDER))
    house.let_settle()
    assert house.on() == ON


def test_the_recipients_are_told_again_which_policy_is_in_force(house: House) -> None:
    house.connect("maker")
    house.turn()
    send(house, MAKER.bundle(newer))
    for _ in range(3):
        house.turn()
    told = [one for one in house.leaving("maker") if isinstance(one, Control)]
    statuses = [decode_status(one.body) for one in told if one.kind is Kind.STATUS]
    assert sorted(one.policy_serial for one in statuses) == [SERIAL, SERIAL + 1]


def test_other_brokers_and_keys_take_effect(house: House) -> None:
    other = copy.copy(MAKER)
    recipient = copy.copy(MAKER.recipients["maker"])
    recipient.seal = SealPrivateKey.generate()
    other.recipients = MAKER.recipients | {"maker": recipient}
    moved = replaced("mqtts://ingest.example.com:8883", "mqtts://second.example.com:8883")
    taken_in(house)
    assert len(house.batches(DIAGNOSIS)) == 1
    send(house, other.bundle(moved))
    now_ms = house.clock.now().wall_ms
    brokers = {one.recipient: one.broker for one in house.spool.targets(now_ms)}
    assert brokers["maker"] == "mqtts://second.example.com:8883"
    bring_on(house)
    # What was open when it came is sealed to the key of the policy it was taken under.
    by_key: dict[str, list[Opened]] = {"old": [], "new": []}
    for lease in house.leases("maker"):
        house.maker = MAKER
        try:
            opened, key = house.opened("maker", lease.data), "old"
        except CannotOpenError:
            house.maker = other
            opened, key = house.opened("maker", lease.data), "new"
        if isinstance(opened, Opened) and opened.header.flow == DIAGNOSIS:
            by_key[key].append(opened)
    assert values(by_key["old"], POWER) == [11, 12, 13, 14]
    assert values(by_key["new"], POWER) == [15, 16]


def test_a_recipient_that_came_with_a_policy_can_be_asked_and_gets_nothing_before(
    house: House,
) -> None:
    other = copy.copy(MAKER)
    second = Recipient("second-advice", classical=True)
    other.recipients = MAKER.recipients | {second.id: second}

    def moved(text: str) -> str:
        start = text.index("[recipients.energy-advice]")
        table = text[start : text.index("\n[", start) + 1]
        assert "ingest.example.net" in table
        more = table.replace("energy-advice", second.id).replace("ingest", "second")
        flow = text.replace('recipient = "energy-advice"', f'recipient = "{second.id}"')
        return newer(flow.replace(table, table + more))

    send(house, other.bundle(moved))
    assert house.on() == ON | {ADVICE: "requested"}
    house.clock.advance(HOUR)
    house.decide({ADVICE: '"given"'}, policy="2026-12-01")
    assert house.on() == ON | {ADVICE: "not enrolled"}
    assert second.id not in {one.recipient for one in house.spool.targets(0)}
    # The twin: it is asked, and admits the gateway.
    request = base64.b64decode(
        house.desk.answer({"verb": "renew", "recipient": second.id})["request"]
    )
    answer = base64.b64encode(second.admission(request)).decode()
    house.desk.answer({"verb": "admission", "data": answer})
    assert house.on() == ON
    assert second.id in {one.recipient for one in house.spool.targets(0)}


def test_an_acknowledgement_before_it_counts_before_it(house: House) -> None:
    taken_in(house)
    stream = house.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    house.receive("maker", house.acknowledgement("maker", [StreamAck(stream, 1)]))
    send(house, MAKER.bundle(WIDER))
    tally = house.pipeline.running.tallies[DIAGNOSIS]
    assert tally.purged.batches == 1  # the one that the flush closed; the acknowledged one is sent


# What is kept.


def test_after_a_restart_it_is_still_in_force_and_says_so(house: House) -> None:
    send(house, MAKER.bundle(WIDER))
    house.close()
    with living(house.directory, house.clock) as again:
        assert serial(again) == SERIAL + 1
        assert again.on() == ON | {DIAGNOSIS: "requested"}
        assert any("came down" in one for one in again.desk.status()["notices"])
        again.reload()
        assert serial(again) == SERIAL + 1


def test_history_tells_each_policy_and_when(house: House) -> None:
    send(house, MAKER.bundle(newer))
    house.clock.advance(HOUR)
    send(house, MAKER.bundle(later))
    policies = house.desk.answer({"verb": "history"})["policies"]
    assert [one["serial"] for one in policies] == [SERIAL, SERIAL + 1, SERIAL + 2]
    assert policies[1]["at"] < policies[2]["at"]


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def changed(path: Path) -> None:
    data = path.read_bytes()
    assert b"round(1)" in data
    path.write_bytes(data.replace(b"round(1)", b"round(9)", 1))


def made_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [deleted, emptied, cut, changed, made_a_directory])
def test_without_the_file_nothing_runs_and_status_says_what_to_do(
    house: House, spoil: Callable[[Path], None]
) -> None:
    bundle = MAKER.bundle(newer)
    send(house, bundle)
    house.close()
    spoil(kept(house))
    with living(house.directory, house.clock) as again:
        assert again.site.policy is None
        told = again.desk.status()["policy_trouble"]
        assert told.endswith("take in the maker's newest bundle with assent enrol")
        assert spoil is deleted or str(kept(house)) in told
        again.powers(1, 2)
        again.pipeline.flush()
        assert again.leases("maker") == []
    # The older one beside agent.toml stays refused; the newest, taken in by hand, mends it.
    with pytest.raises(signing.PolicySerialError):
        enrol(house.directory, MAKER.bundle())
    enrol(house.directory, bundle)
    with living(house.directory, house.clock) as mended:
        assert serial(mended) == SERIAL + 1
        assert mended.on() == ON


def test_a_newer_one_that_is_taken_in_by_hand_wins(house: House) -> None:
    send(house, MAKER.bundle(newer))
    house.close()
    enrol(house.directory, MAKER.bundle(later))
    cut(kept(house))  # whatever becomes of the older one then
    with living(house.directory, house.clock) as again:
        assert serial(again) == SERIAL + 2
        assert again.desk.status()["policy_trouble"] is None
        assert not any("came down" in one for one in again.desk.status()["notices"])
        send(again, MAKER.bundle(lambda text: later(text, 3)))
        assert serial(again) == SERIAL + 3


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken"])
def test_of_two_policies_the_one_of_the_higher_serial_runs_when_the_files_are_read(
    house: House, whole: bool
) -> None:
    send(house, MAKER.bundle(newer))
    house.publish(later)
    house.reload()
    assert serial(house) == SERIAL + 2
    if not whole:  # then it is the one that was in force that is told of
        (house.directory / "policy.toml").write_bytes(b"[policy]\n")
        house.reload()
        told = house.desk.status()["policy_trouble"]
        assert "trusted policy key" in told
        assert str(kept(house)) not in told


def test_a_newer_one_that_is_laid_beside_and_broken_leaves_this_one_in_force(house: House) -> None:
    send(house, MAKER.bundle(newer))
    house.publish(later)
    (house.directory / "policy.toml").write_bytes(b"[policy]\n")
    house.reload()
    assert serial(house) == SERIAL + 1
    assert house.on() == ON


@pytest.mark.parametrize("steps", ["kept", "kept and recorded", "kept, recorded and in force"])
def test_a_crash_between_two_steps_leaves_the_new_one_in_force_at_the_start(
    house: House, steps: str
) -> None:
    taken_in(house)
    bundle = MAKER.bundle(WIDER)
    message = house.message("maker", Kind.POLICY, bundle)
    house.receive("maker", message)
    state = house.directory / "state"
    if steps == "kept, recorded and in force":
        house.turn()
        house.receive("maker", message)  # as if it had not been dropped
    else:
        keep(state, bundle)
    if steps == "kept and recorded":
        digest = hashlib.sha256(decode_bundle(bundle).policy).digest()
        house.site.ledger.append_policy(SERIAL + 1, digest, house.clock.now().wall_ms)
    house.vanish()
    with living(house.directory, house.clock) as again:
        assert serial(again) == SERIAL + 1
        assert again.on() == ON | {DIAGNOSIS: "requested"}
        assert again.batches(DIAGNOSIS) == []
        again.turn()
        assert again.desk.status()["rejected"] == {}
        assert again.spool.take_inbox(10) == []


def test_a_crash_before_it_is_kept_leaves_the_old_one_until_the_message_is_read(
    house: House,
) -> None:
    house.receive("maker", house.message("maker", Kind.POLICY, MAKER.bundle(newer)))
    house.vanish()
    with living(house.directory, house.clock) as again:
        assert serial(again) == SERIAL
        again.turn()
        assert serial(again) == SERIAL + 1


def test_a_disk_without_room_keeps_the_old_one_and_the_recipient_may_try_again(
    house: House,
) -> None:
    house.receive("maker", house.message("maker", Kind.POLICY, MAKER.bundle(newer)))
    with no_room():
        house.turn()
    assert serial(house) == SERIAL
    assert house.on() == ON
    assert not kept(house).exists()
    assert house.desk.status()["rejected"]["policy-not-kept"] >= 1
    house.turn()  # the message could not be dropped either
    send(house, MAKER.bundle(newer))
    assert serial(house) == SERIAL + 1


def test_a_ledger_that_cannot_remember_it_keeps_the_old_one(house: House) -> None:
    ledger = house.directory / "state" / "ledger.json"
    away = ledger.rename(ledger.with_suffix(".away"))
    (ledger / "in the way").mkdir(parents=True)
    send(house, MAKER.bundle(newer))
    assert serial(house) == SERIAL
    assert house.on() == ON
    assert house.desk.status()["rejected"] == {"policy-not-recorded": 1}
    assert not kept(house).exists()
    (ledger / "in the way").rmdir()
    ledger.rmdir()
    away.rename(ledger)
    send(house, MAKER.bundle(newer))
    assert serial(house) == SERIAL + 1


def test_a_policy_that_comes_down_enrols_nobody(house: House) -> None:
    data = house.message("maker", Kind.POLICY, MAKER.bundle(newer))
    keys = Path(shutil.copytree(house.directory / "state/keys", house.directory / "keys-alone"))
    trusting = read_inbound(Inbound(1, "maker", data, 0), Keys.open(keys), house.site.policy)
    assert isinstance(trusting, Arrival)
    (keys / "policy.key").unlink()
    nobodys = Keys.open(keys)
    found = read_inbound(Inbound(1, "maker", data, 0), nobodys, house.site.policy)
    assert found == Rejected(UNEXPECTED)
    assert nobodys.policy_key is None


# What a person reads.


def test_a_person_reads_what_differs_and_which_policy_was_in_force_when(house: House) -> None:
    send(house, MAKER.bundle(WIDER))
    lines = consent_cli._show(read(house.desk.answer({"verb": "consent"}), Consent))
    at = lines.index("  now       off: requested")
    assert lines[at - 1] == f"  changed   {POWER} transform: round(1) → keep"
    past = consent_cli._history(read(house.desk.answer({"verb": "history"}), History))
    assert sum("policy of serial" in line for line in past) == 2


def test_a_person_reads_that_a_narrower_one_is_less_and_that_a_new_one_was_not_asked(
    house: House,
) -> None:
    def both(text: str) -> str:
        return added(
            text.replace('"appliance.power" = "round(1)"', '"appliance.power" = "round(10)"')
        )

    send(house, MAKER.bundle(both))
    lines = "\n".join(consent_cli._show(read(house.desk.answer({"verb": "consent"}), Consent)))
    assert f"  changed   {POWER} transform: round(1) → round(10), which is less" in lines
    assert "  now       off: requested (nobody was asked under this policy)" in lines


def test_a_person_reads_what_was_refused_from_below(house: House) -> None:
    assert not any(
        "from below" in line for line in status_cli._lines(read(house.desk.status(), Status))
    )
    send(house, of_another_id(house))
    send(house, b"\x80")
    said = "refused   from below: 1 malformed, 1 policy-other"
    assert said in status_cli._lines(read(house.desk.status(), Status))


def test_a_form_is_checked_against_the_newer_policy_that_came_down(house: House) -> None:
    def found() -> list[str]:
        now = dt.datetime.fromtimestamp(house.clock.now().wall_ms / 1000, dt.UTC)
        return [one.message for one in inspect(house.directory, now) if "consent" in one.file]

    text = form({"product-improvement": '"given"'}, policy="2026-12-01")
    (house.directory / "consent.toml").write_text(text)
    before = found()
    assert "in force is 2026-11-01" in before[0]
    send(house, MAKER.bundle(added))
    assert found() == []
    cut(kept(house))
    assert found() == before
