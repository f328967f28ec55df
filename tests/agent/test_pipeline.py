# SPDX-License-Identifier: Apache-2.0
"""The path, wired: samples in, sealed batches out, and what stops them, each by itself."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import queue
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.path import Permit
from agent.pipeline.courtesy import targets_of
from agent.spool import LaneState
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import ClockQuality, Control, GapCause, Opened, open_up
from assent.envelope import Kind as MessageKind
from assent.errors import CannotOpenError, SpoolError
from assent.messages import (
    Acknowledgement,
    RefusalReason,
    Refused,
    Status,
    StreamAck,
    decode_status,
)
from firmware_bridge.sample import Device, Sample
from tests.agent.installed import (
    ADVICE,
    CORE,
    DAY,
    DIAGNOSIS,
    ENERGY,
    FAULT,
    FLOWS,
    HOUR,
    MAKER,
    MINUTE,
    POWER,
    SECOND,
    WASHER_SERIAL,
    YES,
    House,
    copied,
    form,
    full_disk,
    living,
    newer,
    read_only,
    readings,
    replaced,
    unreadable,
    values,
)
from tests.simulators.clock import START_MS, ManualClock
from tests.simulators.conditions import eventually

EPOCH = 30 * DAY


@pytest.fixture
def waiting(agreed: House) -> House:
    """Every flow is on, one sealed batch of the diagnosis waits, and two readings are open."""
    agreed.powers(1, 2, 3)
    agreed.turn(2 * MINUTE)
    agreed.powers(4, 5)
    assert powers_of(agreed) == [1, 2, 3]
    return agreed


def states(house: House) -> dict[str, LaneState]:
    return {flow: lane.state for flow, lane in house.spool.lanes().items()}


def powers_of(house: House) -> list[float]:
    """What the maker would read of the power now."""
    return values(house.batches(DIAGNOSIS), POWER)


def flushed(house: House) -> list[float]:
    house.pipeline.flush()
    return powers_of(house)


# Samples in, batches out.


def test_a_permit_opens_a_lane_row_in_the_spool_and_no_permit_none(house: House) -> None:
    assert states(house) == {}
    house.decide({CORE: '"accepted"', DIAGNOSIS: '"refused"'})
    assert states(house) == {CORE: LaneState.OPEN}
    lane = house.spool.lanes()[CORE]
    assert (lane.recipient, lane.core, lane.not_after_ms) == ("maker", True, None)


@pytest.mark.clause("C01")
def test_without_a_yes_nothing_that_comes_in_goes_out(house: House) -> None:
    house.decide({CORE: '"accepted"'})
    house.bring({POWER: 1.0, ENERGY: 5, FAULT: "heater"})
    house.turn(2 * MINUTE)
    house.pipeline.flush()
    assert house.batches(DIAGNOSIS) == house.batches(ADVICE) == []
    # The twin: the flow that is agreed to carries its attribute of the same sample.
    assert values(house.batches(CORE), FAULT) == ["heater"]


def test_what_comes_in_comes_out_transformed_and_exactly_so(agreed: House) -> None:
    begun = agreed.clock.now().wall_ms
    agreed.powers(1.2, 2.5, 3.5, -0.5, 99.9)
    agreed.pipeline.flush()
    found = readings(agreed.batches(DIAGNOSIS), POWER)
    # Rounded half to even, to whole watts, each at its instant.
    assert [one.value for one in found] == [1, 2, 4, 0, 100]
    assert [one.ms for one in found] == [begun + (1 + at) * SECOND for at in range(5)]


def test_windows_leave_when_they_have_ended_stamped_at_their_start(agreed: House) -> None:
    start = agreed.clock.now().wall_ms // MINUTE * MINUTE + MINUTE
    agreed.clock.advance(start - agreed.clock.now().wall_ms)
    agreed.powers(*range(100))
    agreed.turn(2 * HOUR)
    found = readings(agreed.batches(ADVICE), POWER)
    # A reading at the second 60 belongs to the second window.
    assert [(one.ms, one.value) for one in found] == [
        (start, sum(range(59)) / 59),
        (start + MINUTE, sum(range(59, 100)) / 41),
    ]


def test_counters_leave_as_their_increase(agreed: House) -> None:
    agreed.bring({ENERGY: 412_345}, {ENERGY: 412_346}, {ENERGY: 412_350})
    agreed.pipeline.flush()
    assert values(agreed.batches(ADVICE), ENERGY) == [1, 4]


@pytest.mark.clause("C15")
@pytest.mark.parametrize(
    "key",
    [MAKER.recipients["energy-advice"].seal, SealPrivateKey.generate()],
    ids=["the other recipient", "a stranger"],
)
def test_nobody_but_the_recipient_of_a_flow_opens_it(waiting: House, key: SealPrivateKey) -> None:
    (lease,) = waiting.leases("maker")
    gateway = waiting.site.keys.gateway("maker")

    def read_with(which: SealPrivateKey) -> Opened | Control:
        return open_up(
            lease.data,
            key=which,
            signer=gateway.sign.public,
            mailbox=gateway.mailbox,
            recipient="maker",
        )

    with pytest.raises(CannotOpenError):
        read_with(key)
    assert isinstance(read_with(MAKER.recipients["maker"].seal), Opened)
    assert waiting.leases("energy-advice") == []


def test_a_batch_names_flow_terms_record_and_stream(waiting: House) -> None:
    (batch,) = waiting.batches(DIAGNOSIS)
    permit = waiting.pipeline.verdicts[DIAGNOSIS]
    record = waiting.site.ledger.newest(DIAGNOSIS)
    assert isinstance(permit, Permit)
    assert record is not None
    header = batch.header
    assert (header.flow, header.recipient) == (DIAGNOSIS, "maker")
    assert (header.terms, header.record) == (permit.terms_hash, record.id)
    assert (header.stream, header.sequence) == (waiting.spool.lanes()[DIAGNOSIS].stream, 0)
    assert header.epoch == START_MS // EPOCH
    assert header.clock is ClockQuality.SYSTEM


@pytest.mark.clause("C05")
def test_an_identifier_leaves_as_a_pseudonym_only(agreed: House) -> None:
    agreed.bring({POWER: 1.0, "device.serial": WASHER_SERIAL})
    agreed.pipeline.flush()
    (serial,) = values(agreed.batches(DIAGNOSIS), "device.serial")
    assert len(serial) == 16
    (lease,) = agreed.leases("maker")
    assert WASHER_SERIAL.encode() not in lease.data


def test_an_urgent_event_leaves_with_the_sample_that_brought_it(agreed: House) -> None:
    agreed.powers(1, 2)
    assert agreed.waiting(DIAGNOSIS) == 0
    agreed.bring({FAULT: "leak"})
    assert values(agreed.batches(DIAGNOSIS), FAULT) == ["leak"]
    assert powers_of(agreed) == [1, 2]


# The first closes at a share of that age that is drawn, from a half to the whole.
@pytest.mark.parametrize(("ms", "batches"), [(29_000, 0), (60_000, 1)], ids=["young", "old"])
def test_a_batch_closes_when_its_oldest_reading_is_as_old_as_the_policy_says(
    agreed: House, ms: int, batches: int
) -> None:
    agreed.powers(1)
    agreed.turn(ms)
    assert agreed.waiting(DIAGNOSIS) == batches


def test_a_full_batch_closes_with_the_reading_that_filled_it(
    installed: Path, tmp_path: Path
) -> None:
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.publish(replaced('age = "1m", urgent', 'readings = 4, age = "1m", urgent'))
        house.reload()
        house.decide(YES, policy="2026-12-01")
        house.powers(*range(12))
        sizes = [len(values([one], POWER)) for one in house.batches(DIAGNOSIS)]
        # The first is a share of four that is drawn, from a half to the whole.
        assert sizes[0] in {2, 3, 4}
        assert sizes[1:] == [4, 4]
        assert powers_of(house) == list(range(sum(sizes)))


def test_a_text_that_is_none_of_the_closed_set_stays_and_takes_nothing_with_it(
    agreed: House,
) -> None:
    agreed.bring({POWER: 1.0, FAULT: "canary.resident@example.com"}, {POWER: 2.0, FAULT: "leak"})
    agreed.pipeline.flush()
    assert values(agreed.batches(DIAGNOSIS), FAULT) == ["leak"]
    assert powers_of(agreed) == [1, 2]
    assert sum(agreed.pipeline.running.lanes()[DIAGNOSIS].dropped.values()) == 1


def test_at_the_end_open_batches_are_closed_into_the_spool(waiting: House) -> None:
    waiting.close()
    with living(waiting.directory, waiting.clock) as again:
        assert powers_of(again) == [1, 2, 3, 4, 5]


def test_what_stands_at_the_door_at_the_end_is_taken_in(agreed: House) -> None:
    now = agreed.clock.now()
    agreed.pipeline.deliver([Sample(Device("w", "washing-machine"), now, (POWER,), (6.0,))])
    agreed.close()
    with living(agreed.directory, agreed.clock) as again:
        assert powers_of(again) == [6]


def test_a_restart_goes_on_in_a_new_stream_and_leaves_what_waits(waiting: House) -> None:
    before = waiting.batches(DIAGNOSIS)[0].header
    waiting.close()
    with living(waiting.directory, waiting.clock) as again:
        again.powers(6)
        again.pipeline.flush()
        found = again.batches(DIAGNOSIS)
        streams = [one.header.stream for one in found]
        assert streams[:2] == [before.stream, before.stream]
        assert streams[2] != before.stream
        assert [one.header.sequence for one in found] == [0, 1, 0]
        assert values(found, POWER) == [1, 2, 3, 4, 5, 6]


# Withdrawal.


@pytest.mark.clause("C28")
def test_the_lane_row_is_durably_closed_before_the_open_batch_and_the_spool_are_emptied(
    waiting: House,
) -> None:
    lane = waiting.pipeline.running.lanes()[DIAGNOSIS]
    marks = {"UPDATE lane SET state": "closed", "COMMIT": "durable", "DELETE FROM payload": "gone"}
    seen: list[tuple[str, int]] = []

    def note(statement: str) -> None:
        for begin, mark in marks.items():
            if statement.startswith(begin):
                seen.append((mark, lane.readings))

    waiting.spool._db.set_trace_callback(note)
    waiting.desk.say_no(DIAGNOSIS)
    assert "gone" not in dict(seen)
    waiting.turn()
    waiting.spool._db.set_trace_callback(None)
    closed = seen.index(("closed", 2))
    assert [seen[closed], seen[closed + 1]] == [("closed", 2), ("durable", 2)]
    assert next(one for one in seen if one[0] == "gone") == ("gone", 0)
    assert closed < seen.index(("gone", 0))


@pytest.fixture
def much_waiting(agreed: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Seven sealed batches of the diagnosis wait, and a part of a purge takes three."""
    monkeypatch.setattr("agent.spool.erasure.PART", 3)
    for number in range(7):
        agreed.powers(number)
        agreed.pipeline.flush()
    assert agreed.waiting(DIAGNOSIS) == 7
    return agreed


@pytest.mark.clause("C28")
def test_what_waited_is_deleted_in_parts_after_the_answer(much_waiting: House) -> None:
    told = much_waiting.desk.say_no(DIAGNOSIS)
    assert (told.purged.batches, much_waiting.waiting(DIAGNOSIS)) == (7, 7)
    assert much_waiting.batches(DIAGNOSIS) == []
    left = []
    for _ in range(3):
        much_waiting.turn()
        left.append(much_waiting.waiting(DIAGNOSIS))
    assert left == [4, 1, 0]
    assert much_waiting.desk.say_no(DIAGNOSIS).purged.batches == 0
    assert much_waiting.pipeline.running.tallies[DIAGNOSIS].purged.batches == 7


@pytest.mark.clause("C28")
def test_a_second_no_is_heard_between_two_parts_and_counts_nothing_twice(
    much_waiting: House,
) -> None:
    much_waiting.desk.say_no(DIAGNOSIS)
    much_waiting.turn()
    assert much_waiting.desk.say_no(ADVICE).decision == "withdrawn"
    assert much_waiting.waiting(DIAGNOSIS) == 4
    assert much_waiting.desk.say_no(DIAGNOSIS).purged.batches == 0
    for _ in range(4):
        much_waiting.turn()
    assert much_waiting.waiting(DIAGNOSIS) == much_waiting.waiting(ADVICE) == 0


@pytest.mark.clause("C28")
def test_a_start_goes_on_with_a_purge_that_was_cut_off(much_waiting: House, tmp_path: Path) -> None:
    much_waiting.desk.say_no(DIAGNOSIS)
    much_waiting.turn()
    left = copied(much_waiting.directory, tmp_path / "left")  # as a kill leaves it
    with living(left, much_waiting.clock) as again:
        assert again.waiting(DIAGNOSIS) == 4
        assert again.batches(DIAGNOSIS) == []
        for _ in range(3):
            again.turn()
        assert again.waiting(DIAGNOSIS) == 0


@pytest.mark.clause("C28")
def test_a_yes_in_the_middle_of_a_purge_brings_nothing_back_and_loses_nothing_new(
    much_waiting: House,
) -> None:
    much_waiting.desk.say_no(DIAGNOSIS)
    much_waiting.turn()
    much_waiting.clock.advance(HOUR)
    on = "2026-11-22T03:15:00Z"
    much_waiting.decide({DIAGNOSIS: f'{{ decision = "given", on = {on} }}'})
    much_waiting.powers(20)
    much_waiting.pipeline.flush()
    for _ in range(3):
        much_waiting.turn()
    assert powers_of(much_waiting) == [20]


def test_a_purge_that_the_disk_refuses_is_tried_again(much_waiting: House) -> None:
    much_waiting.desk.say_no(DIAGNOSIS)
    with read_only(much_waiting.spool):
        much_waiting.turn()
        much_waiting.turn()
    assert much_waiting.waiting(DIAGNOSIS) == 7
    for _ in range(4):
        much_waiting.turn()
    assert much_waiting.waiting(DIAGNOSIS) == 0


def test_an_act_is_heard_in_the_middle_of_a_long_list_of_samples(agreed: House) -> None:
    now = agreed.clock.now()
    agreed.pipeline.deliver([Sample(Device("w", "washing-machine"), now, (POWER,), (1.0,))] * 1_000)
    taken: list[int] = []
    lane = agreed.pipeline.running.lanes()[DIAGNOSIS]
    agreed.pipeline.act(lambda: taken.append(lane.readings))
    agreed.pipeline.turn(0)
    assert 0 < taken[0] < 500
    for _ in range(20):
        agreed.pipeline.turn(0)
    assert lane.readings == 1_000


@pytest.mark.clause("C28")
def test_a_no_to_one_flow_leaves_the_others_as_they_are(agreed: House) -> None:
    agreed.bring({POWER: 1.0, FAULT: "leak"})
    agreed.desk.say_no(ADVICE)
    agreed.bring({POWER: 2.0, FAULT: "motor"})
    agreed.pipeline.flush()
    assert powers_of(agreed) == [1, 2]
    assert values(agreed.batches(CORE), FAULT) == ["leak", "motor"]


@pytest.mark.clause("C28")
def test_a_later_yes_brings_nothing_back_of_what_was_before_the_no(waiting: House) -> None:
    before = waiting.spool.lanes()[DIAGNOSIS].stream
    waiting.desk.say_no(DIAGNOSIS)
    waiting.powers(6)
    waiting.clock.advance(HOUR)
    on = "2026-11-22T03:15:00Z"
    waiting.decide({DIAGNOSIS: f'{{ decision = "given", on = {on} }}'})
    assert waiting.on()[DIAGNOSIS] is None
    waiting.powers(7, 8)
    assert flushed(waiting) == [7, 8]
    assert waiting.spool.lanes()[DIAGNOSIS].stream != before


def test_a_sample_from_before_the_yes_stays_out(agreed: House) -> None:
    early = ManualClock(START_MS - HOUR).now()
    agreed.pipeline.deliver([Sample(Device("w", "washing-machine"), early, (POWER,), (1.0,))])
    agreed.pipeline.turn(0)
    agreed.powers(2)
    assert flushed(agreed) == [2]


# Pause.


def broken_form(house: House) -> None:
    (house.directory / "consent.toml").write_text("policy = ")


def mended_form(house: House) -> None:
    (house.directory / "consent.toml").write_text(form({}))


def unsigned_policy(house: House) -> None:
    (house.directory / "policy.toml.cose").rename(house.directory / "away")


def signed_policy(house: House) -> None:
    (house.directory / "away").rename(house.directory / "policy.toml.cose")


def expelled(house: House) -> None:
    tls = house.directory / "state/keys/tls"
    (tls / "maker.pem").rename(tls / "away")


def admitted(house: House) -> None:
    tls = house.directory / "state/keys/tls"
    (tls / "away").rename(tls / "maker.pem")


@pytest.mark.parametrize(
    ("pause", "resume"),
    [
        (broken_form, mended_form),
        (unsigned_policy, signed_policy),
        (expelled, admitted),
    ],
    ids=["a broken form", "an unusable policy", "no admission"],
)
def test_a_pause_keeps_what_waits_and_lets_none_of_it_out(
    waiting: House, pause: Any, resume: Any
) -> None:
    pause(waiting)
    waiting.reload()
    assert states(waiting)[DIAGNOSIS] is LaneState.PAUSED
    assert waiting.batches(DIAGNOSIS) == []
    assert waiting.waiting(DIAGNOSIS) == 2
    waiting.powers(6)
    waiting.turn(2 * MINUTE)
    assert waiting.waiting(DIAGNOSIS) == 2
    # The twin: what waited leaves as soon as the pause is over, and what came meanwhile does not.
    resume(waiting)
    waiting.reload()
    waiting.powers(7)
    assert flushed(waiting) == [1, 2, 3, 4, 5, 7]


def test_a_clock_that_loses_its_trust_holds_everything_at_the_next_look(waiting: House) -> None:
    waiting.clock.trusted = False
    waiting.turn()
    assert set(waiting.on().values()) == {"held until the time is known"}
    assert set(states(waiting).values()) == {LaneState.HELD}
    assert waiting.leases("maker") == waiting.leases("energy-advice") == []
    waiting.clock.trusted = True
    waiting.turn()
    assert waiting.on() == dict.fromkeys(FLOWS)
    assert powers_of(waiting) == [1, 2, 3, 4, 5]


def test_a_sample_whose_instant_is_not_trusted_stays_out_of_an_open_lane(agreed: House) -> None:
    now = msgspec.structs.replace(agreed.clock.now(), trusted=False)
    agreed.pipeline.deliver([Sample(Device("w", "washing-machine"), now, (POWER,), (1.0,))])
    agreed.pipeline.turn(0)
    agreed.powers(2)
    assert flushed(agreed) == [2]


# Other terms.


def test_a_renewed_yes_keeps_what_waits(waiting: House) -> None:
    waiting.clock.advance(HOUR)
    waiting.decide({DIAGNOSIS: '{ decision = "given", until = 2027-11-22 }'})
    waiting.powers(6)
    assert flushed(waiting) == [1, 2, 3, 4, 5, 6]
    record = waiting.site.ledger.newest(DIAGNOSIS)
    assert record is not None
    first, *_, last = (one.header.record for one in waiting.batches(DIAGNOSIS))
    assert first != last == record.id
    assert waiting.pipeline.running.tallies[DIAGNOSIS].purged.batches == 0


@pytest.mark.clause("C33")
def test_leaving_an_attribute_out_purges_what_waits_with_it(waiting: House) -> None:
    waiting.clock.advance(HOUR)
    waiting.decide({DIAGNOSIS: f'{{ decision = "given", without = ["{FAULT}"] }}'})
    assert waiting.waiting(DIAGNOSIS) == 0
    assert waiting.pipeline.running.tallies[DIAGNOSIS].purged.readings == 5
    waiting.bring({POWER: 6.0, FAULT: "leak"})
    assert flushed(waiting) == [6]
    assert values(waiting.batches(DIAGNOSIS), FAULT) == []


def said_while_nothing_ran(house: House, *forms: str) -> None:
    """Applies forms to the diagnosis with no agent running, a minute apart, then starts again."""
    house.close()
    for answer in forms:
        house.clock.advance(MINUTE)
        office = House(house.directory, house.clock)
        now = dt.datetime.fromtimestamp(house.clock.now().wall_ms // 1000, dt.UTC)
        office.decide({DIAGNOSIS: answer.replace("NOW", f"{now:%Y-%m-%dT%H:%M:%SZ}")})
        office.close()
    house.clock.advance(MINUTE)


@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    ("forms", "left"),
    [
        (('"given"',), [1, 2, 3, 4, 5]),
        ((f'{{ decision = "given", without = ["{POWER}"] }}', '"given"'), []),
        (('"withdrawn"', '{ decision = "given", on = NOW }'), []),
    ],
    ids=["renewed", "narrowed and widened again", "withdrawn and given again"],
)
def test_what_the_forms_took_back_while_nothing_ran_does_not_leave_on_a_newer_yes(
    waiting: House, forms: tuple[str, ...], left: list[int]
) -> None:
    """Red when only the basis of the last form counts: it is equal again."""
    said_while_nothing_ran(waiting, *forms)
    with living(waiting.directory, waiting.clock) as again:
        assert again.on()[DIAGNOSIS] is None
        assert powers_of(again) == left
        again.powers(6)
        assert flushed(again) == [*left, 6]


@pytest.mark.clause("C28")
def test_what_an_expired_yes_collected_does_not_leave_on_a_newer_one(house: House) -> None:
    """Red without `not_before_ms`: the new yes has the same basis."""
    end = dt.datetime.fromtimestamp((house.clock.now().wall_ms + DAY) / 1000, dt.UTC).date()
    house.decide({DIAGNOSIS: f'{{ decision = "given", until = {end} }}'})
    house.powers(1, 2, 3)
    house.close()
    house.clock.advance(2 * DAY)
    form_text = form({DIAGNOSIS: '"given"'}, house.clock.now().wall_ms)
    (house.directory / "consent.toml").write_text(form_text)  # read by the start, not by a command
    house.clock.advance(MINUTE)
    with living(house.directory, house.clock) as again:
        assert again.on()[DIAGNOSIS] is None
        assert powers_of(again) == []
        again.powers(4)
        assert flushed(again) == [4]


@pytest.mark.clause("C03")
def test_an_old_spool_that_was_put_back_does_not_undo_a_withdrawal(waiting: House) -> None:
    files = [waiting.spool.path.with_name(waiting.spool.path.name + end) for end in ("", "-wal")]
    waiting.pipeline.flush()
    kept = {path: path.read_bytes() for path in files if path.exists()}
    said_while_nothing_ran(waiting, '"withdrawn"', '{ decision = "given", on = NOW }')
    for path, data in kept.items():
        path.write_bytes(data)
    with living(waiting.directory, waiting.clock) as again:
        assert again.on()[DIAGNOSIS] is None
        assert powers_of(again) == []


@pytest.mark.clause("C33")
def test_a_policy_of_narrower_terms_goes_on_and_purges_what_waits_under_the_wider(
    waiting: House,
) -> None:
    waiting.publish(replaced('"appliance.power" = "round(1)"', '"appliance.power" = "round(10)"'))
    waiting.reload()
    assert waiting.on()[DIAGNOSIS] is None
    assert waiting.waiting(DIAGNOSIS) == 0
    waiting.powers(16)
    assert flushed(waiting) == [20]


@pytest.mark.clause("C33")
def test_a_policy_of_wider_terms_stops_the_flow_and_purges_what_waits(waiting: House) -> None:
    waiting.publish(replaced('"appliance.power" = "round(1)"', '"appliance.power" = "keep"'))
    waiting.reload()
    assert waiting.on()[DIAGNOSIS] == "requested"
    waiting.turn()
    assert (waiting.waiting(DIAGNOSIS), states(waiting)[DIAGNOSIS]) == (0, LaneState.CLOSED)


def test_a_policy_of_the_same_terms_keeps_what_waits(waiting: House) -> None:
    waiting.publish(newer)
    waiting.reload()
    waiting.powers(6)
    assert flushed(waiting) == [1, 2, 3, 4, 5, 6]


def test_a_flow_that_a_policy_no_longer_has_is_purged(waiting: House) -> None:
    def without(text: str) -> str:
        begin, end = (text.index(f"[flows.{flow}]") for flow in (DIAGNOSIS, ADVICE))
        return newer(text[:begin] + text[end:])

    waiting.publish(without)
    waiting.reload()
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 0
    assert states(waiting)[DIAGNOSIS] is LaneState.CLOSED


# Ends and epochs.


@pytest.mark.clause("C20")
def test_at_its_end_a_yes_closes_and_purges_at_the_next_look(house: House) -> None:
    house.decide({DIAGNOSIS: '{ decision = "given", until = 2026-11-23 }', CORE: '"accepted"'})
    end_ms = 1_795_392_000_000  # 2026-11-23T00:00:00Z
    house.powers(1, 2)
    house.turn(2 * MINUTE)
    house.clock.advance(end_ms - house.clock.now().wall_ms - 10 * SECOND)
    house.powers(3, 4)
    house.turn(0)
    house.pipeline.flush()
    assert powers_of(house) == [1, 2, 3, 4]
    house.clock.advance(end_ms - house.clock.now().wall_ms)
    # The uplink needs nobody to tell it.
    assert house.batches(DIAGNOSIS) == []
    house.turn(1_000)
    assert house.on() == {CORE: None, DIAGNOSIS: "expired", ADVICE: "not decided"}
    assert states(house) == {CORE: LaneState.OPEN, DIAGNOSIS: LaneState.CLOSED}
    assert house.waiting(DIAGNOSIS) == 0


def test_an_end_that_passed_while_the_agent_was_off_purges_at_the_start(house: House) -> None:
    house.decide({DIAGNOSIS: '{ decision = "given", until = 2026-11-23 }'})
    house.powers(1, 2)
    house.close()
    assert house.clock.now().wall_ms < START_MS + DAY
    house.clock.advance(DAY)
    with living(house.directory, house.clock) as again:
        assert again.on()[DIAGNOSIS] == "expired"
        again.turn()
        assert again.waiting(DIAGNOSIS) == 0


def to_the_next_epoch(house: House) -> None:
    now = house.clock.now().wall_ms
    house.clock.advance((now // EPOCH + 1) * EPOCH - now - 3 * SECOND)


def test_a_new_epoch_is_a_new_stream_and_never_shares_a_batch(agreed: House) -> None:
    to_the_next_epoch(agreed)
    agreed.powers(1, 2, 3, 4, 5)
    agreed.turn(2 * MINUTE)
    agreed.pipeline.flush()
    old, new = agreed.batches(DIAGNOSIS)
    assert (values([old], POWER), values([new], POWER)) == ([1, 2], [3, 4, 5])
    assert new.header.epoch == old.header.epoch + 1
    assert new.header.stream != old.header.stream
    assert (old.header.sequence, new.header.sequence) == (0, 0)
    for batch in (old, new):
        instants = [one.ms for one in readings([batch], POWER)]
        assert {ms // EPOCH for ms in instants} == {batch.header.epoch}


@pytest.mark.clause("C10")
def test_a_device_has_another_pseudonym_in_another_epoch_and_another_flow(agreed: House) -> None:
    to_the_next_epoch(agreed)
    agreed.bring(*({POWER: 1.0, ENERGY: at, FAULT: "leak"} for at in range(6)))
    agreed.turn(2 * MINUTE)
    agreed.pipeline.flush()
    batches = [batch for flow in FLOWS for batch in agreed.batches(flow)]
    devices = {
        (batch.header.flow, batch.header.epoch, table.device)
        for batch in batches
        for table in batch.tables
    }
    assert len({(flow, epoch) for flow, epoch, _ in devices}) == 6
    assert len({device for _, _, device in devices}) == 6


def test_a_clock_that_is_set_back_an_epoch_does_not_stop_the_flow(agreed: House) -> None:
    agreed.powers(1)
    agreed.clock.step(2 * EPOCH)
    agreed.turn()
    agreed.powers(2)
    agreed.clock.step(-2 * EPOCH)
    agreed.turn()
    agreed.powers(3)
    agreed.pipeline.flush()
    # What was of the first epoch was two months old for a moment, and is still there.
    epochs = [batch.header.epoch - START_MS // EPOCH for batch in agreed.batches(DIAGNOSIS)]
    assert epochs == [0, 2, 0]
    assert powers_of(agreed) == [1, 2, 3]


@pytest.mark.clause("C10")
@pytest.mark.parametrize("ahead_ms", [EPOCH, -EPOCH], ids=["ahead", "behind"])
def test_a_clock_that_is_not_trusted_turns_no_epoch(agreed: House, ahead_ms: int) -> None:
    agreed.powers(1)
    agreed.clock.trusted = False
    agreed.clock.step(ahead_ms)
    agreed.turn()
    agreed.powers(2)
    agreed.clock.step(-ahead_ms)
    agreed.clock.trusted = True
    agreed.turn()
    agreed.powers(3)
    agreed.pipeline.flush()
    first, held, last = agreed.batches(DIAGNOSIS)
    assert values([first, held, last], POWER) == [1, 2, 3]
    assert first.header.epoch == last.header.epoch == START_MS // EPOCH
    assert held.header.epoch == held.header.stream >> 1
    devices = [{table.device for table in one.tables} for one in (first, held, last)]
    assert devices[0] == devices[2] != devices[1]


@pytest.mark.clause("C10")
def test_the_twin_a_trusted_clock_turns_it_and_every_flow_has_another_stream(agreed: House) -> None:
    before = {flow: lane.stream for flow, lane in agreed.spool.lanes().items()}
    agreed.clock.step(EPOCH)
    agreed.turn()
    after = {flow: lane.stream for flow, lane in agreed.spool.lanes().items()}
    assert before.keys() == after.keys() == set(FLOWS)
    assert not set(before.values()) & set(after.values())
    agreed.powers(1)
    agreed.pipeline.flush()
    (batch,) = agreed.batches(DIAGNOSIS)
    assert (batch.header.epoch, batch.header.sequence) == (START_MS // EPOCH + 1, 0)


@pytest.mark.clause("C20")
def test_what_waited_longer_than_the_policy_allows_is_dropped_and_declared(
    waiting: House,
) -> None:
    waiting.turn(7 * DAY)
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 0
    waiting.connect("maker")
    waiting.powers(6)
    waiting.pipeline.flush()
    (batch,) = waiting.batches(DIAGNOSIS)
    assert [(gap.cause, gap.readings) for gap in batch.header.gaps] == [(GapCause.AGE, 5)]
    assert powers_of(waiting) == [6]


def test_with_an_untrusted_clock_nothing_is_dropped_for_its_age(waiting: House) -> None:
    waiting.clock.trusted = False
    waiting.turn(8 * DAY)
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 2


def test_the_quota_of_agent_toml_holds(agreed: House) -> None:
    text = (agreed.directory / "agent.toml").read_text()
    (agreed.directory / "agent.toml").write_text(
        text.replace('state = "state"', 'state = "state"\nquota = "1 MB"')
    )
    agreed.reload()
    for _ in range(350):
        agreed.bring({FAULT: "leak"})
    agreed.turn()
    held = agreed.spool.waiting()
    assert 900_000 < sum(one.bytes + 600 * one.batches for one in held.values()) < 1_000_000
    # The core flow is the last to drop anything.
    assert held[CORE].batches == 350 > held[DIAGNOSIS].batches
    # Nobody was reached meanwhile, so all of it is one gap; then it is told.
    (gap,) = agreed.spool.gaps_for(DIAGNOSIS)
    assert (gap.cause, gap.readings) == (GapCause.QUOTA, 350 - held[DIAGNOSIS].batches)
    assert {batch.header.gaps for batch in agreed.batches(DIAGNOSIS)} == {()}
    agreed.connect("maker")
    agreed.bring({FAULT: "leak"})
    assert agreed.batches(DIAGNOSIS)[-1].header.gaps[0] == gap


# Gaps.


def test_a_gap_is_repeated_until_a_batch_that_carried_it_is_acknowledged(waiting: House) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    waiting.spool.add_gap(
        DIAGNOSIS, stream, GapCause.SILENT, first_ms=START_MS, last_ms=START_MS + 9, readings=9
    )
    waiting.connect("maker")
    for watts in (6, 7):
        waiting.powers(watts)
        waiting.pipeline.flush()
    told = [len(batch.header.gaps) for batch in waiting.batches(DIAGNOSIS)]
    assert told == [0, 1, 1]
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 1)]))
    waiting.turn()
    waiting.powers(8)
    waiting.pipeline.flush()
    assert len(waiting.batches(DIAGNOSIS)[-1].header.gaps) == 1
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 2)]))
    waiting.turn()
    waiting.powers(9)
    waiting.pipeline.flush()
    assert waiting.batches(DIAGNOSIS)[-1].header.gaps == ()


def test_a_gap_that_only_one_of_two_batches_stored_together_carries_is_not_forgotten_by_the_other(
    waiting: House,
) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    waiting.connect("maker")
    waiting.turn()
    with full_disk(waiting.spool):
        waiting.bring(*[{FAULT: "leak"}] * 6)
        with waiting.carrier() as other:
            other.add_gap(
                DIAGNOSIS, stream, GapCause.SILENT, first_ms=START_MS, last_ms=START_MS, readings=1
            )
        waiting.bring({FAULT: "leak"})
        unstored = [one.sealed.sequence for one in waiting.pipeline.running._outgoing._unstored]
        assert {6, 7} <= set(unstored)
    waiting.turn()
    assert [len(one.header.gaps) for one in waiting.batches(DIAGNOSIS)] == [0] * 7 + [1]
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 7)]))
    waiting.turn()
    assert len(waiting.spool.gaps_for(DIAGNOSIS)) == 1
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 8)]))
    waiting.turn()
    waiting.bring({FAULT: "leak"})
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 9)]))
    waiting.turn()
    assert waiting.spool.gaps_for(DIAGNOSIS) == ()


# A disk that refuses.


def refusals() -> dict[str, Any]:
    return {"full": full_disk, "read-only": read_only}


@pytest.mark.parametrize("how", refusals().values(), ids=refusals().keys())
def test_a_disk_that_refuses_loses_nothing_up_to_the_bound(
    agreed: House, how: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with how(agreed.spool), caplog.at_level(logging.INFO):
        for watts in range(20):
            agreed.bring({POWER: watts, FAULT: "leak"})
        agreed.turn()
        # A page may be left when it fills.
        assert agreed.waiting(DIAGNOSIS) + agreed.waiting(CORE) < 4
        assert len(agreed.pipeline.running._outgoing._unstored) > 36
    with caplog.at_level(logging.INFO):
        agreed.turn(2 * MINUTE)
    agreed.powers(20)
    assert flushed(agreed) == list(range(21))
    assert values(agreed.batches(CORE), FAULT) == ["leak"] * 20
    assert agreed.pipeline.running.lost.total() == 0
    assert caplog.text.count("kept in memory") == 1
    assert caplog.text.count("batches stored again") == 1


def test_behind_the_bound_the_door_stays_shut_and_nothing_more_is_taken(agreed: House) -> None:
    running = agreed.pipeline.running
    with full_disk(agreed.spool):
        taken = 0
        while not running.is_stuck():
            agreed.bring({FAULT: "leak"})
            taken += 1
        assert taken >= 32  # two flows, 64 messages
        now = agreed.clock.now()
        agreed.pipeline.deliver([Sample(Device("w", "washing-machine"), now, (POWER,), (7.0,))])
        for _ in range(3):
            agreed.pipeline.turn(0)
        assert running.lanes()[DIAGNOSIS].readings == 0
    agreed.pipeline.turn(0)
    agreed.pipeline.turn(0)
    assert not running.is_stuck()
    assert flushed(agreed) == [7]
    assert len(values(agreed.batches(DIAGNOSIS), FAULT)) == taken
    assert running.lost.total() == 0


@pytest.mark.clause("C28")
def test_a_no_is_heard_while_the_disk_refuses_and_the_door_is_full(agreed: House) -> None:
    done = threading.Event()
    with full_disk(agreed.spool):
        while not agreed.pipeline.running.is_stuck():
            agreed.bring({FAULT: "leak"})
        now = agreed.clock.now()
        sample = Sample(Device("w", "washing-machine"), now, (POWER,), (7.0,))
        with contextlib.suppress(queue.Full):
            while True:
                agreed.pipeline._door.put_nowait([sample])
        asking = threading.Thread(target=agreed.pipeline.act, args=(done.set,))
        asking.start()
        asking.join(5)
        assert not asking.is_alive()
        agreed.pipeline.turn(0)
        assert done.is_set()


@pytest.mark.parametrize(
    ("tables", "stored"), [((), 1), (("gap",), 3)], ids=["all of it", "its gaps alone"]
)
def test_a_spool_that_cannot_be_read_when_a_batch_ends_costs_nothing(
    waiting: House, tables: tuple[str, ...], stored: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Red where that ends the agent, or where a batch that it refused is taken for one of a no."""
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    waiting.spool.add_gap(
        DIAGNOSIS, stream, GapCause.SILENT, first_ms=START_MS, last_ms=START_MS + 9, readings=9
    )
    waiting.connect("maker")
    with unreadable(waiting.spool, *tables), caplog.at_level(logging.INFO):
        waiting.turn(2 * MINUTE)
        waiting.bring({FAULT: "leak"})
        assert waiting.pipeline.running.lanes()[DIAGNOSIS].readings == 0
        assert caplog.text.count("gaps not read") == 1
    assert waiting.waiting(DIAGNOSIS) == stored
    waiting.turn()
    assert waiting.pipeline.running.lost.total() == 0
    assert flushed(waiting) == [1, 2, 3, 4, 5]
    assert values(waiting.batches(DIAGNOSIS), FAULT) == ["leak"]
    # What could not be told then is told by the next one that is closed.
    waiting.powers(6)
    waiting.pipeline.flush()
    told = [[gap.readings for gap in one.header.gaps] for one in waiting.batches(DIAGNOSIS)]
    assert told == [[], [], [], [9]]


def test_the_twin_a_spool_that_is_damaged_when_a_batch_ends_ends_the_agent(waiting: House) -> None:
    waiting.spool.add_gap(
        DIAGNOSIS, 7, GapCause.SILENT, first_ms=START_MS, last_ms=START_MS, readings=9
    )
    waiting.spool._db.execute("UPDATE gap SET cause=99")
    with pytest.raises(SpoolError, match="damaged"):
        waiting.pipeline.flush()
    assert waiting.path.with_name(waiting.path.name + ".fault").exists()
    waiting.vanish()


def test_a_no_on_record_tells_its_own_reason_also_where_the_lane_was_found_shut(
    agreed: House,
) -> None:
    agreed.pipeline.denied.add(DIAGNOSIS)
    agreed.pipeline.decide()
    assert DIAGNOSIS not in agreed.pipeline.verdicts
    agreed.desk.say_no(DIAGNOSIS)
    agreed.pipeline.denied.add(DIAGNOSIS)
    agreed.pipeline.decide()
    assert agreed.pipeline.verdicts[DIAGNOSIS].reason.value == "withdrawn"


def test_a_lane_that_another_process_shut_is_off_and_does_not_hold_up_the_others(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    agreed.bring({FAULT: "leak"})
    with agreed.carrier() as other:
        other.close_lane(DIAGNOSIS)
    with caplog.at_level(logging.INFO):
        for _ in range(80):
            agreed.bring({FAULT: "leak"})
    assert not agreed.pipeline.running.is_stuck()
    assert len(values(agreed.batches(CORE), FAULT)) == 81
    assert agreed.batches(DIAGNOSIS) == []
    assert agreed.waiting(DIAGNOSIS) == 0
    assert agreed.pipeline.running.lost[DIAGNOSIS] == 1
    assert DIAGNOSIS not in agreed.pipeline.running.lanes()
    assert [one["on"] for one in agreed.desk.status()["flows"]] == [True, False, True]
    assert caplog.text.count("lane shut by another flow=remote-diagnosis") == 1
    # It stays off at a reload; a later word of the household counts again.
    agreed.reload()
    assert states(agreed)[DIAGNOSIS] is LaneState.CLOSED
    agreed.clock.advance(HOUR)
    agreed.decide({DIAGNOSIS: '{ decision = "given", until = 2027-11-22 }'})
    agreed.bring({FAULT: "motor"})
    assert values(agreed.batches(DIAGNOSIS), FAULT) == ["motor"]


def test_a_spool_that_is_busy_when_it_is_tended_is_tended_later(
    waiting: House, caplog: pytest.LogCaptureFixture
) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 1)]))
    with read_only(waiting.spool), caplog.at_level(logging.INFO):
        waiting.turn()
        waiting.turn()
    assert caplog.text.count("spool not tended") == 1
    assert waiting.waiting(DIAGNOSIS) == 1
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 0


def test_a_damaged_spool_ends_the_agent_and_the_next_start_moves_it_aside(agreed: House) -> None:
    for _ in range(200):
        agreed.bring({FAULT: "leak"})
    agreed.close()
    house = House(agreed.directory, agreed.clock).start()
    size = house.path.stat().st_size
    assert size > 600_000  # more than SQLite caches
    with house.path.open("r+b") as file:
        for page in range(2, size // 4_096):
            file.seek(page * 4_096)
            file.write(b"\xa5" * 8)
    with pytest.raises(SpoolError, match="damaged"):
        house.turn()
    with pytest.raises(SpoolError, match="damaged"):  # noqa: PT012 - by the act, or its carrying out
        house.desk.say_no(DIAGNOSIS)
        house.turn()
    house.spool.close()
    with living(agreed.directory, agreed.clock) as again:
        assert again.spool.moved_aside is not None
        assert again.on() == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: None}
        again.bring({FAULT: "motor"})
        assert values(again.batches(CORE), FAULT) == ["motor"]
        notices = again.desk.status()["notices"]
        assert any("the spool was damaged" in notice for notice in notices)


def test_a_batch_that_cannot_be_sealed_is_counted_and_the_others_go_on(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = agreed.directory / "state/keys/gateways/energy-advice.key"
    kept = gateway.read_bytes()
    gateway.write_bytes(b"\x00" * len(kept))
    agreed.site.keys._gateways.clear()
    agreed.bring({ENERGY: 1, POWER: 1.0}, {ENERGY: 2, POWER: 2.0}, {ENERGY: 4, POWER: 3.0})
    with caplog.at_level(logging.INFO):
        agreed.pipeline.flush()
    assert agreed.pipeline.running.lost[ADVICE] == 2
    assert "batch not sealed flow=partner-energy-advice reason=keys" in caplog.text
    assert powers_of(agreed) == [1, 2, 3]
    # The twin: with the key back, what comes later leaves.
    gateway.write_bytes(kept)
    agreed.bring({ENERGY: 9})
    agreed.pipeline.flush()
    assert values(agreed.batches(ADVICE), ENERGY) == [5]


# What comes down.


def test_an_acknowledgement_deletes_what_it_covers_and_nothing_else(waiting: House) -> None:
    waiting.pipeline.flush()
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 1)]))
    assert waiting.waiting(DIAGNOSIS) == 2
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 1
    assert powers_of(waiting) == [4, 5]
    flow = next(one for one in waiting.desk.status()["flows"] if one["flow"] == DIAGNOSIS)
    assert flow["last_acknowledged"] is not None


def test_an_acknowledgement_of_more_than_a_turn_deletes_is_read_until_it_is_done(
    waiting: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.bring(*[{FAULT: "leak"}] * 9)
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    count = waiting.waiting(DIAGNOSIS)
    assert count > 6
    monkeypatch.setattr("agent.spool.erasure.PART", 4)
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, count - 1)]))
    waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == count - 4
    assert len(waiting.spool.take_inbox(9)) == 1
    for _ in range(count):
        waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 1
    assert waiting.spool.take_inbox(9) == []


def test_a_batch_that_the_recipient_gave_up_on_is_deleted_and_one_to_be_retried_stays(
    waiting: House,
) -> None:
    waiting.pipeline.flush()
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    refused = (
        Refused(0, RefusalReason.STORE, retry=True),
        Refused(1, RefusalReason.COLUMNS, retry=False),
    )
    waiting.receive("maker", waiting.acknowledgement("maker", [StreamAck(stream, 0, (), refused)]))
    waiting.turn()
    assert powers_of(waiting) == [1, 2, 3]


def test_what_does_not_verify_is_counted_dropped_and_changes_nothing(
    waiting: House, caplog: pytest.LogCaptureFixture
) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    body = Acknowledgement((StreamAck(stream, 9),)).encode()
    forged = waiting.message("maker", MessageKind.ACKNOWLEDGEMENT, body, SigningKey.generate())
    theirs = waiting.acknowledgement("energy-advice", [StreamAck(stream, 9)])
    with caplog.at_level(logging.WARNING):
        for data in (forged, theirs, b"garbage", b""):
            waiting.receive("maker", data)
        waiting.receive("nobody", forged)
        waiting.turn()
    assert waiting.waiting(DIAGNOSIS) == 1
    assert waiting.spool.take_inbox(10) == []
    assert sum(waiting.pipeline.rejected.values()) == 5
    assert waiting.pipeline.rejected["bad-signature"] == 1
    assert waiting.pipeline.rejected["stranger"] == 1
    told = [one.message for one in caplog.records if "from below" in one.message]
    assert len(told) == len(waiting.pipeline.rejected)
    assert "message from below refused reason=bad-signature count=1" in told


def test_a_flood_of_what_is_not_believed_is_told_once_an_hour_and_counted(
    waiting: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Red with a line for each: whoever may write to our topic fills the log."""

    def told() -> list[str]:
        return [one.message for one in caplog.records if "from below" in one.message]

    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            waiting.receive("maker", b"garbage")
            waiting.turn()
        first = "message from below refused reason=malformed count=1"
        assert told() == [first]
        waiting.turn(HOUR)
        assert told() == [first, "message from below refused reason=malformed count=49"]
        waiting.turn(HOUR)
        assert len(told()) == 2
        waiting.receive("nobody", b"garbage")
        waiting.turn()
    assert told()[2:] == ["message from below refused reason=stranger count=1"]
    assert waiting.pipeline.rejected == {"malformed": 50, "stranger": 1}


def test_one_recipient_cannot_acknowledge_the_batches_of_another(waiting: House) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    data = waiting.acknowledgement("energy-advice", [StreamAck(stream, 9)])
    waiting.receive("energy-advice", data)
    waiting.turn()
    assert waiting.pipeline.rejected == {}
    assert waiting.waiting(DIAGNOSIS) == 1


def test_without_a_policy_everybody_is_a_stranger(waiting: House) -> None:
    stream = waiting.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    data = waiting.acknowledgement("maker", [StreamAck(stream, 9)])
    unsigned_policy(waiting)
    waiting.reload()
    waiting.receive("maker", data)
    waiting.turn()
    assert waiting.pipeline.rejected == {"stranger": 1}
    assert waiting.waiting(DIAGNOSIS) == 2


# Courtesy.


def controls(house: House, recipient: str) -> list[Control]:
    return [one for one in house.leaving(recipient) if isinstance(one, Control)]


def greetings(house: House, recipient: str) -> list[Status]:
    return [
        decode_status(one.body)
        for one in controls(house, recipient)
        if one.kind is MessageKind.STATUS
    ]


def test_a_recipient_is_told_once_a_connection_which_policy_is_in_force(agreed: House) -> None:
    agreed.turn()
    assert greetings(agreed, "maker") == []
    agreed.connect("maker")
    for _ in range(4):
        agreed.turn()
    (told,) = greetings(agreed, "maker")
    assert (told.policy_id, told.policy_serial) == ("example-appliances", 17)
    assert greetings(agreed, "energy-advice") == []
    agreed.clock.advance(HOUR)
    agreed.connect("maker")
    for _ in range(4):
        agreed.turn()
    assert len(greetings(agreed, "maker")) == 2


@pytest.mark.clause("C01")
def test_a_connection_of_an_earlier_life_is_not_greeted(agreed: House) -> None:
    agreed.connect("maker")
    agreed.desk.say_no(CORE)
    agreed.desk.say_no(DIAGNOSIS)
    agreed.desk.say_no(ADVICE)
    # Killed here: what it said of its connection is still in the spool.
    agreed.close()
    with living(agreed.directory, agreed.clock) as again:
        again.turn()
        with again.carrier() as carrier:
            wanted = [
                one.recipient for one in carrier.targets(again.clock.now().wall_ms) if one.wanted
            ]
        assert wanted == []


def test_targets_are_those_who_admitted_us_at_the_policys_brokers(agreed: House) -> None:
    targets = {target.recipient: target for target in targets_of(agreed.site, agreed.clock.now())}
    assert set(targets) == {"maker", "energy-advice"}
    for name, target in targets.items():
        gateway = agreed.site.keys.gateway(name)
        assert target.mailbox == gateway.mailbox
        assert target.ca_pem.encode() == MAKER.recipients[name].ca
        assert Path(target.cert_path).is_file()
    assert targets["maker"].broker == "mqtts://ingest.example.com:8883"
    assert targets["maker"].mailbox != targets["energy-advice"].mailbox


@pytest.mark.clause("C14")
@pytest.mark.parametrize("why", ["another broker", "not admitted", "no policy"])
def test_nobody_else_is_a_target(agreed: House, why: str) -> None:
    if why == "another broker":
        with (agreed.directory / "agent.toml").open("a") as file:
            file.write('[uplink.maker]\nbroker = "mqtts://elsewhere.example.com:8883"\n')
    elif why == "not admitted":
        expelled(agreed)
    else:
        unsigned_policy(agreed)
    agreed.reload()
    left = {"energy-advice"} if why != "no policy" else set()
    assert {target.recipient for target in targets_of(agreed.site, agreed.clock.now())} == left
    with agreed.carrier() as carrier:
        assert {one.recipient for one in carrier.targets(agreed.clock.now().wall_ms)} == left


# The door.


def test_a_source_that_is_faster_than_the_owner_waits_at_the_door(agreed: House) -> None:
    now = agreed.clock.now()
    lists = [
        [Sample(Device("w", "washing-machine"), now, (POWER,), (float(watts),))]
        for watts in range(40)
    ]

    def source() -> None:
        for samples in lists:
            agreed.pipeline.deliver(samples)

    thread = threading.Thread(target=source)
    thread.start()
    eventually(agreed.pipeline._door.full)
    assert thread.is_alive()
    while thread.is_alive() or not agreed.pipeline._door.empty():
        agreed.pipeline.turn(0.01)
    thread.join()
    assert flushed(agreed) == list(range(40))


def test_a_source_that_waits_at_the_door_is_let_go_when_the_house_closes(agreed: House) -> None:
    now = agreed.clock.now()
    samples = [Sample(Device("w", "washing-machine"), now, (POWER,), (1.0,))]

    def source() -> None:
        for _ in range(1_000):
            agreed.pipeline.deliver(samples)

    thread = threading.Thread(target=source)
    thread.start()
    eventually(agreed.pipeline._door.full)
    agreed.close()
    thread.join(10)
    assert not thread.is_alive()


def test_an_act_wakes_an_owner_who_waits_at_the_door(agreed: House) -> None:
    done = threading.Event()
    owner = threading.Thread(target=agreed.pipeline.turn, args=(60.0,))
    owner.start()
    agreed.pipeline.act(done.set)
    assert done.wait(10)
    owner.join(10)
    assert not owner.is_alive()


def test_an_act_at_the_end_is_done_and_opens_no_hardware(installed: Path, tmp_path: Path) -> None:
    directory = copied(installed, tmp_path / "gateway")
    with (directory / "agent.toml").open("a") as file:
        file.write('[[device]]\nid = "host"\nkind = "gateway"\nsource = "host"\n')
    with living(directory, ManualClock(flowing=True)) as house:
        house.decide(YES)
        assert len(house.pipeline.health()) == 1

        def no() -> None:
            house.desk.say_no(DIAGNOSIS)

        house.pipeline.act(no)
        house.close()
        assert house.pipeline.health() == []
        assert not [one for one in threading.enumerate() if one.name == "source-host"]
    with living(directory, house.clock) as again:
        assert again.on()[DIAGNOSIS] == "withdrawn"


def test_what_arrives_is_what_was_sent_whatever_the_batches(agreed: House) -> None:
    sent = [((at * 37) % 100) / 10 for at in range(300)]
    for at, watts in enumerate(sent):
        agreed.powers(watts)
        if at % 7 == 0:
            agreed.pipeline.flush()
        if at % 61 == 0:
            agreed.reload()
    found = flushed(agreed)
    assert found == [round(watts) for watts in sent]
    streams = {one.header.stream for one in agreed.batches(DIAGNOSIS)}
    sequences = [one.header.sequence for one in agreed.batches(DIAGNOSIS)]
    assert len(streams) == 1
    assert sequences == list(range(len(sequences)))


@pytest.mark.clause("C08")
def test_no_log_line_holds_a_value_or_an_identifier(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        agreed.bring({POWER: 4321.0, "device.serial": WASHER_SERIAL, FAULT: "overheat"})
        agreed.turn(2 * MINUTE)
        agreed.desk.say_no(DIAGNOSIS)
        with full_disk(agreed.spool):
            agreed.bring({FAULT: "overheat"})
        agreed.turn()
    assert "lane closed flow=remote-diagnosis" in caplog.text
    secrets = (WASHER_SERIAL, "4321", "overheat", agreed.site.keys.gateway("maker").mailbox)
    assert [secret for secret in secrets if secret in caplog.text] == []


@pytest.mark.clause("C28")
def test_a_turn_reads_a_part_of_what_came_so_that_a_no_waits_for_no_recipient(
    waiting: House,
) -> None:
    lanes = waiting.spool.lanes().values()
    streams = sorted(lane.stream or 0 for lane in lanes if lane.recipient == "maker")
    ranges = tuple((10 + 4 * number, 11 + 4 * number) for number in range(1_024))
    refused = tuple(Refused(2**20 + n, RefusalReason.TERMS, retry=False) for n in range(1_024))
    heavy = waiting.acknowledgement("maker", [StreamAck(s, 0, ranges, refused) for s in streams])
    for _ in range(6):
        waiting.receive("maker", heavy)
    waiting.turn()
    left = len(waiting.spool.take_inbox(100))
    assert 2 < left < 6
    waiting.receive(
        "maker", waiting.acknowledgement("maker", [StreamAck(s, 2**31) for s in streams])
    )
    for _ in range(6):
        waiting.turn()
    assert waiting.spool.take_inbox(100) == []
    assert waiting.waiting(CORE) == waiting.waiting(DIAGNOSIS) == 0


def test_the_twin_light_messages_are_read_in_one_turn(waiting: House) -> None:
    light = waiting.acknowledgement("maker", [StreamAck(1, 5)])
    for _ in range(6):
        waiting.receive("maker", light)
    waiting.turn()
    assert waiting.spool.take_inbox(100) == []
