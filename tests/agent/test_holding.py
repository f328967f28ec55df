# SPDX-License-Identifier: Apache-2.0
"""What comes before the time is known: sealed and held, then released with its place, or purged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lane import Lane
from agent.path import Pending
from agent.spool import LaneState
from assent.envelope import ClockQuality, Gap, GapCause, Opened
from assent.messages import StreamAck
from firmware_bridge.sample import Sample
from tests.agent.installed import (
    ADVICE,
    CORE,
    DAY,
    DIAGNOSIS,
    FLOWS,
    HOUR,
    MINUTE,
    NO,
    POWER,
    SECOND,
    WASHER,
    YES,
    House,
    copied,
    living,
    readings,
    values,
)
from tests.simulators.clock import START_MS, ManualClock

SECOND_BOOT = "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """A household that said yes to everything an hour ago, on a clock that was trusted then."""
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.decide(YES)
        house.clock.advance(HOUR)
        house.turn()
        yield house


def loses_the_time(house: House) -> None:
    """From now on the clock stands at 1970 and is not trusted."""
    house.clock.step(-house.clock.now().wall_ms)
    house.clock.trusted = False
    house.turn()


def finds_the_time(house: House, wall_ms: int) -> None:
    house.clock.step(wall_ms - house.clock.now().wall_ms)
    house.clock.trusted = True
    house.turn()


def boots_again(house: House, boot_id: str) -> House:
    """The power was away: another boot, whose clock stands at 1970."""
    house.close()
    clock = ManualClock(0, mono_ms=20 * SECOND, trusted=False, boot_id=boot_id)
    return House(house.directory, clock).start()


def of_the_boot(batches: list[Opened]) -> list[Opened]:
    return [one for one in batches if one.header.clock is ClockQuality.UNTRUSTED]


def began(house: House) -> int:
    now = house.clock.now()
    return now.wall_ms - now.mono_ms


def declared(house: House, flow: str, cause: GapCause) -> list[Gap]:
    return [gap for gap in house.spool.gaps_for(flow) if gap.cause is cause]


def test_without_the_time_everything_is_sealed_and_nothing_leaves(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2, 3)
    house.pipeline.flush()
    assert set(house.on().values()) == {"held until the time is known"}
    lanes = house.spool.lanes()
    assert {lanes[flow].state for flow in FLOWS} == {LaneState.HELD}
    assert house.waiting(DIAGNOSIS) == 1
    assert house.leaving("maker") == house.leaving("energy-advice") == []
    (status,) = [one for one in house.desk.status()["flows"] if one["flow"] == DIAGNOSIS]
    assert status["held"] == {"batches": 1, "readings": 3, "unresolved": 1}
    with house.carrier() as carrier:
        assert not any(target.wanted for target in carrier.targets(0, boot_ms=1 << 40))


def test_the_twin_with_the_time_it_leaves_and_says_when_its_boot_began(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2, 3)
    at = house.clock.now().mono_ms
    finds_the_time(house, START_MS + 2 * HOUR)
    house.connect("maker")
    house.powers(4)
    house.pipeline.flush()
    held, after = house.batches(DIAGNOSIS)
    assert values([held, after], POWER) == [1, 2, 3, 4]
    assert held.header.clock is ClockQuality.UNTRUSTED
    began_ms = began(house)
    (boot,) = [gap for gap in after.header.gaps if gap.cause is GapCause.BOOT]
    assert (boot.stream, boot.first_ms, boot.last_ms) == (held.header.stream, began_ms, began_ms)
    assert [one.ms for one in readings([held], POWER)] == [
        (at - ago) // SECOND * SECOND for ago in (2 * SECOND, SECOND, 0)
    ]


def test_where_the_boot_began_is_told_until_that_was_acknowledged(house: House) -> None:
    loses_the_time(house)
    house.powers(1)
    finds_the_time(house, START_MS + 2 * HOUR)
    house.connect("maker")
    told = []
    for watts in (2, 3, 4):
        house.powers(watts)
        house.pipeline.flush()
        newest = house.batches(DIAGNOSIS)[-1].header
        told.append(GapCause.BOOT in {gap.cause for gap in newest.gaps})
        if watts == 3:
            stored = StreamAck(newest.stream, newest.sequence + 1)
            house.receive("maker", house.acknowledgement("maker", [stored]))
            house.turn()
    assert told == [True, True, False]


def test_a_held_stream_shares_no_epoch_and_no_pseudonym_with_any_other(house: House) -> None:
    house.powers(1)
    loses_the_time(house)
    house.powers(2)
    finds_the_time(house, START_MS + 2 * HOUR)
    house.powers(3)
    loses_the_time(house)
    house.powers(4)
    finds_the_time(house, START_MS + 3 * HOUR)
    house.pipeline.flush()
    batches = house.batches(DIAGNOSIS)
    devices = [table.device for one in batches for table in one.tables]
    assert len(batches) == 4
    assert devices[0] == devices[2]
    assert len(set(devices)) == 3
    assert len({one.header.epoch for one in batches}) == 3


def test_an_end_comes_by_the_time_since_a_trusted_clock_told_it(house: House) -> None:
    house.decide({DIAGNOSIS: '{ decision = "given", until = 2026-11-23 }'})
    loses_the_time(house)
    house.powers(1)
    house.pipeline.flush()
    assert house.waiting(DIAGNOSIS) == 1
    house.clock.advance(DAY)
    house.turn()
    assert house.on()[DIAGNOSIS] == "expired"
    assert house.waiting(DIAGNOSIS) == 0


def test_an_end_that_came_meanwhile_ends_the_flow_and_takes_what_was_held(house: House) -> None:
    house.decide({DIAGNOSIS: '{ decision = "given", until = 2026-11-23 }'})
    loses_the_time(house)
    house.powers(1)
    finds_the_time(house, START_MS + 2 * DAY)
    assert house.on() == {CORE: None, DIAGNOSIS: "expired", ADVICE: None}
    assert (house.waiting(DIAGNOSIS), house.batches(DIAGNOSIS)) == (0, [])


def test_a_no_purges_what_is_held(house: House) -> None:
    loses_the_time(house)
    house.powers(1)
    house.pipeline.flush()
    told = house.desk.say_no(DIAGNOSIS)
    assert told.purged.readings == 1
    house.turn()
    assert house.waiting(DIAGNOSIS) == 0
    assert DIAGNOSIS not in house.spool.held()
    finds_the_time(house, START_MS + 2 * HOUR)
    assert house.batches(DIAGNOSIS) == []


def test_a_yes_without_the_time_waits_for_it_and_covers_nothing_before(house: House) -> None:
    house.decide(NO)
    loses_the_time(house)
    (house.directory / "consent.toml").write_text(_later_yes())
    house.reload()
    house.powers(1)
    assert house.on()[DIAGNOSIS] == "withdrawn"
    assert house.waiting(DIAGNOSIS) == 0
    finds_the_time(house, START_MS + 6 * HOUR)
    house.reload()  # as the service does
    assert house.on()[DIAGNOSIS] is None
    house.powers(2)
    house.pipeline.flush()
    assert values(house.batches(DIAGNOSIS), POWER) == [2]


def _later_yes() -> str:
    return (
        'policy = "2026-11-01"\ndecided_by = "owner"\nrecorded_by = "installer 4711"\n'
        'recorded_at = 2026-11-22T05:00:00Z\nmethod = "signed form 7"\n[decisions]\n'
        'remote-diagnosis = { decision = "given", on = 2026-11-22T05:00:00Z }\n'
    )


def test_a_boot_that_never_learnt_the_time_leaves_with_its_bounds(house: House) -> None:
    loses_the_time(house)
    floor_ms = house.site.floor.past_ms(house.clock.now()) - house.clock.now().mono_ms
    house.powers(1, 2)
    lasted_ms = house.clock.now().mono_ms // SECOND * SECOND
    later = boots_again(house, SECOND_BOOT)
    try:
        later.powers(3)
        later.pipeline.flush()
        assert later.spool.held()[DIAGNOSIS].unresolved == 2
        finds_the_time(later, START_MS + 5 * HOUR)
        later.connect("maker")
        later.powers(4)
        later.pipeline.flush()
        batches = later.batches(DIAGNOSIS)
        assert values(batches, POWER) == [1, 2, 3, 4]
        boots = [gap for gap in batches[-1].header.gaps if gap.cause is GapCause.BOOT]
        assert [gap.stream for gap in boots] == [one.header.stream for one in batches[:2]]
        began_ms = began(later)
        first, second = boots
        assert (first.first_ms, first.last_ms) == (floor_ms, began_ms - lasted_ms)
        assert first.first_ms < first.last_ms
        assert (second.first_ms, second.last_ms) == (began_ms, began_ms)
    finally:
        later.close()


def test_a_floor_that_is_ahead_of_the_time_resolves_no_other_boot(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2)
    later = boots_again(house, SECOND_BOOT)
    try:
        finds_the_time(later, START_MS + 10 * MINUTE)  # before what a trusted clock told
        assert later.waiting(DIAGNOSIS) == 0
        assert sum(gap.readings for gap in declared(later, DIAGNOSIS, GapCause.CLOCK)) == 2
    finally:
        later.close()


def test_what_is_held_for_longer_than_the_flow_keeps_it_goes(house: House) -> None:
    loses_the_time(house)
    house.powers(1)
    house.pipeline.flush()
    house.clock.advance(7 * DAY - MINUTE)
    house.turn()
    assert house.waiting(DIAGNOSIS) == 1
    house.clock.advance(MINUTE)
    house.turn()
    assert house.waiting(DIAGNOSIS) == 0
    (gap,) = declared(house, DIAGNOSIS, GapCause.AGE)
    finds_the_time(house, START_MS + 8 * DAY)
    (gap,) = declared(house, DIAGNOSIS, GapCause.AGE)
    assert START_MS < gap.first_ms <= gap.last_ms < START_MS + 8 * DAY


def test_what_comes_while_the_time_is_found_is_not_lost(house: House) -> None:
    loses_the_time(house)
    before = Sample(WASHER, house.clock.now(), (POWER,), (1.0,))
    house.clock.step(START_MS + 2 * HOUR)
    house.clock.trusted = True
    after = Sample(WASHER, house.clock.now(), (POWER,), (2.0,))
    house.pipeline.deliver([before])
    house.pipeline.deliver([after])
    house.turn()
    house.pipeline.flush()
    held, open_ = house.batches(DIAGNOSIS)
    assert (values([held], POWER), values([open_], POWER)) == ([1], [2])


def test_a_lane_of_a_pending_permit_is_held_and_one_of_a_permit_is_not(house: House) -> None:
    loses_the_time(house)
    (pending,) = [
        one
        for flow, one in house.pipeline.verdicts.items()
        if flow == DIAGNOSIS and isinstance(one, Pending)
    ]
    assert Lane(pending, bytes(32), 7).clock is ClockQuality.UNTRUSTED
    assert Lane(pending, bytes(32), 7, 0, ClockQuality.TRUSTED).is_by_boot
    assert Lane(pending.permit, bytes(32), 7, 0).clock is ClockQuality.TRUSTED


@pytest.mark.parametrize(
    "step_ms", [DAY, -HOUR, -10 * MINUTE], ids=["a day on", "an hour back", "ten minutes back"]
)
def test_a_clock_that_is_set_cuts_windows_and_loses_no_reading(house: House, step_ms: int) -> None:
    house.powers(*range(1, 100))
    house.clock.step(step_ms)
    house.powers(*range(100, 400))
    house.clock.advance(3 * MINUTE)
    house.turn()
    house.pipeline.flush()
    assert values(house.batches(DIAGNOSIS), POWER) == list(range(1, 400))
    dropped = {flow["flow"]: flow["dropped"] for flow in house.desk.status()["flows"]}
    assert "late" not in dropped[ADVICE]
    windows = readings(house.batches(ADVICE), POWER)
    assert len(windows) >= 4
    streams = [one.header.stream for one in house.batches(DIAGNOSIS)]
    assert len(set(streams)) == 2


def test_the_twin_a_clock_that_only_runs_cuts_nothing(house: House) -> None:
    house.powers(*range(1, 400))
    house.pipeline.flush()
    assert len({one.header.stream for one in house.batches(DIAGNOSIS)}) == 1


def test_a_trust_that_flaps_loses_nothing_and_sends_nothing_twice(house: House) -> None:
    for number in range(1, 13):
        house.clock.trusted = number % 2 == 0
        house.powers(number)
    house.clock.trusted = True
    house.turn()
    house.pipeline.flush()
    assert sorted(values(house.batches(DIAGNOSIS), POWER)) == list(range(1, 13))


def test_a_week_ahead_for_a_moment_drops_nothing(house: House) -> None:
    house.powers(1)
    house.pipeline.flush()
    house.clock.step(8 * DAY)
    house.turn()
    house.clock.step(-8 * DAY)
    house.turn()
    assert values(house.batches(DIAGNOSIS), POWER) == [1]
    # The twin: a clock that stays there is right.
    house.clock.step(8 * DAY)
    house.turn()
    house.turn(11 * MINUTE)
    assert house.batches(DIAGNOSIS) == []


def dies(house: House, boot_id: str | None = None) -> House:
    """As after kill -9, what the journal was told beside it; then the next start, in a boot."""
    house.turn(6 * SECOND)
    house.vanish()
    clock = house.clock
    if boot_id is not None:
        clock = ManualClock(0, mono_ms=20 * SECOND, trusted=False, boot_id=boot_id)
    return House(house.directory, clock).start()


def test_a_crash_without_the_time_goes_on_in_its_stream(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2)
    stream = house.spool.lanes()[DIAGNOSIS].stream
    later = dies(house)
    try:
        assert later.spool.lanes()[DIAGNOSIS].stream == stream
        later.powers(3)
        finds_the_time(later, START_MS + 3 * HOUR)
        held = of_the_boot(later.batches(DIAGNOSIS))
        assert values(held, POWER) == [1, 2, 3]
        (gap,) = declared(later, DIAGNOSIS, GapCause.CRASH)
        assert START_MS < gap.first_ms < gap.last_ms < START_MS + 3 * HOUR + 4 * SECOND
    finally:
        later.close()


def test_a_power_cut_without_the_time_leaves_what_was_kept_to_the_boot_it_is_of(
    house: House,
) -> None:
    loses_the_time(house)
    house.powers(1, 2)
    stream = house.spool.lanes()[DIAGNOSIS].stream
    later = dies(house, SECOND_BOOT)
    try:
        later.powers(3)
        assert later.leaving("maker") == []
        finds_the_time(later, START_MS + 5 * HOUR)
        first, second = of_the_boot(later.batches(DIAGNOSIS))
        assert (values([first], POWER), values([second], POWER)) == ([1, 2], [3])
        assert first.header.stream == stream != second.header.stream
        boots = {gap.stream: gap for gap in declared(later, DIAGNOSIS, GapCause.BOOT)}
        assert boots[first.header.stream].first_ms < boots[first.header.stream].last_ms
        assert boots[second.header.stream].first_ms == began(later)
    finally:
        later.close()


def test_a_power_cut_with_the_time_before_and_without_it_after_keeps_both_apart(
    house: House,
) -> None:
    house.powers(1, 2)
    later = dies(house, SECOND_BOOT)
    try:
        later.powers(3)
        assert later.leaving("maker") == []
        finds_the_time(later, START_MS + 5 * HOUR)
        first, second = later.batches(DIAGNOSIS)
        assert (values([first], POWER), values([second], POWER)) == ([1, 2], [3])
        assert first.header.clock is not ClockQuality.UNTRUSTED
        assert second.header.clock is ClockQuality.UNTRUSTED
    finally:
        later.close()


def test_a_crash_while_held_and_a_start_that_knows_the_time_release_at_once(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2)
    house.turn(6 * SECOND)
    house.vanish()
    house.clock.step(START_MS + 3 * HOUR - house.clock.now().wall_ms)
    house.clock.trusted = True
    later = House(house.directory, house.clock).start()
    try:
        (held,) = later.batches(DIAGNOSIS)
        assert values([held], POWER) == [1, 2]
        (boot,) = declared(later, DIAGNOSIS, GapCause.BOOT)
        assert boot.first_ms == boot.last_ms == began(later)
    finally:
        later.close()


def test_a_no_after_a_crash_takes_what_the_journal_held_by_the_boot(house: House) -> None:
    loses_the_time(house)
    house.powers(1, 2)
    house.spool.close_lane(DIAGNOSIS)
    later = dies(house, SECOND_BOOT)
    try:
        finds_the_time(later, START_MS + 5 * HOUR)
        assert of_the_boot(later.batches(DIAGNOSIS)) == []
    finally:
        later.close()
