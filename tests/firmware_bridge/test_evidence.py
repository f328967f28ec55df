# SPDX-License-Identifier: Apache-2.0
"""Which files vouch for the wall clock, and when a clock with a battery does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge.clock import Clock
from firmware_bridge.evidence import Doubt, Finding, HardwareClock, Services, Witness
from tests.simulators import rtc
from tests.simulators.clock import START_MS
from tests.simulators.rtc import touched

TIMESYNCD, ANOTHER = "run/systemd/timesync/synchronized", "run/assent-clock/synchronised"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
UP_MS = 10 * MINUTE
BOOTED_MS = START_MS - UP_MS
DEAD_MS = 946_684_800_000  # 2000-01-01


@pytest.mark.parametrize(
    ("name", "witness"),
    [(TIMESYNCD, Witness.TIMESYNCD), (ANOTHER, Witness.SERVICE)],
    ids=["systemd-timesyncd", "the wait for another time service"],
)
@pytest.mark.parametrize(
    ("at_ms", "counts"),
    [
        (BOOTED_MS + 20_000, True),
        (START_MS, True),
        (BOOTED_MS - 2_000, False),
        (START_MS - DAY, False),
        (START_MS + HOUR, False),
    ],
    ids=[
        "some seconds after the boot",
        "just now",
        "before the boot",
        "a day before",
        "an hour from now, so that the clock was set back since",
    ],
)
def test_a_file_vouches_when_it_was_touched_in_this_boot(
    tmp_path: Path, name: str, witness: Witness, at_ms: int, counts: bool
) -> None:
    touched(tmp_path, name, at_ms)
    assert Services(tmp_path).look(START_MS, UP_MS) is (witness if counts else Doubt.STALE)


def test_without_a_file_nobody_vouches_and_one_good_file_is_enough(tmp_path: Path) -> None:
    assert Services(tmp_path).look(START_MS, UP_MS) is Doubt.NOBODY
    touched(tmp_path, TIMESYNCD, START_MS - DAY)
    touched(tmp_path, ANOTHER, START_MS)
    assert Services(tmp_path).look(START_MS, UP_MS) is Witness.SERVICE


def test_a_clock_that_is_stepped_by_hand_loses_the_trust_of_the_other_service_too(
    tmp_path: Path,
) -> None:
    touched(tmp_path, ANOTHER, START_MS - MINUTE)
    services = Services(tmp_path)
    assert services.look(START_MS, UP_MS) is Witness.SERVICE
    for step in (-HOUR, -50_000, -3_000, 3_000, 50_000, HOUR):
        assert services.look(START_MS + step, UP_MS + MINUTE) is Doubt.STALE
        assert services.look(START_MS + 2 * MINUTE, UP_MS + 2 * MINUTE) is Witness.SERVICE
        services = Services(tmp_path)
        assert services.look(START_MS, UP_MS) is Witness.SERVICE


def test_a_step_of_the_service_itself_is_followed_by_its_touch_and_a_leap_second_is_none(
    tmp_path: Path,
) -> None:
    touched(tmp_path, TIMESYNCD, START_MS - MINUTE)
    services = Services(tmp_path)
    assert services.look(START_MS, UP_MS) is Witness.TIMESYNCD
    assert services.look(START_MS + 59_000, UP_MS + MINUTE) is Witness.TIMESYNCD
    assert services.look(START_MS + 3 * MINUTE, UP_MS + 2 * MINUTE) is Doubt.STALE
    touched(tmp_path, TIMESYNCD, START_MS + 3 * MINUTE)
    assert services.look(START_MS + 4 * MINUTE, UP_MS + 3 * MINUTE) is Witness.TIMESYNCD


def test_the_files_are_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    touched(tmp_path, ANOTHER, START_MS)
    services = Services(tmp_path)
    assert services.look(START_MS, UP_MS) is Witness.SERVICE
    (tmp_path / ANOTHER).unlink()
    assert services.look(START_MS + 999, UP_MS + 999) is Witness.SERVICE
    assert services.look(START_MS + 1_000, UP_MS + 1_000) is Doubt.NOBODY


class House:
    """A hardware clock, the room that judges it, and the two clocks it is judged by."""

    def __init__(self, root: Path, floor_ms: int = START_MS - HOUR) -> None:
        self.root = root
        self.rtc = rtc.HardwareClock(root)
        self.rtc.tells(START_MS)
        self.judge = HardwareClock(root)
        self.judge.stand_on(lambda mono_ms: floor_ms + mono_ms - UP_MS)

    def look(self, *, after: int = 0, step: int = 0) -> Finding:
        """What is found so many ms later, by a wall clock that was stepped."""
        return self.judge.look(START_MS + after + step, UP_MS + after)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_hardware_clock_that_set_the_time_and_agrees_vouches_for_it(house: House) -> None:
    assert house.look() is Witness.RTC


@pytest.mark.parametrize("floor_ms", [None, 0], ids=["no floor is known", "the floor is at zero"])
def test_before_the_floor_is_known_it_vouches_for_nothing(
    tmp_path: Path, floor_ms: int | None
) -> None:
    House(tmp_path)
    judge = HardwareClock(tmp_path)
    if floor_ms is not None:
        judge.stand_on(lambda _: 0)
    assert judge.look(START_MS, UP_MS) is (Doubt.UNASKED if floor_ms is None else Witness.RTC)


def test_the_clock_that_set_the_time_is_asked_and_no_other(tmp_path: Path) -> None:
    house = House(tmp_path)
    rtc.HardwareClock(tmp_path, number=0, hctosys=False).tells(START_MS)
    assert house.look() is Doubt.NO_RTC
    rtc.HardwareClock(tmp_path, number=1).tells(START_MS)
    assert house.look(after=MINUTE) is Doubt.APART
    rtc.HardwareClock(tmp_path, number=1).tells(START_MS + 2 * MINUTE)
    assert house.look(after=2 * MINUTE) is Witness.RTC


@pytest.mark.parametrize(
    ("spoil", "doubt"),
    [
        (lambda house: house.rtc.is_gone(), Doubt.NO_RTC),
        (lambda house: house.rtc.refuses(), Doubt.SILENT),
        (lambda house: house.rtc.says(""), Doubt.SILENT),
        (lambda house: house.rtc.says("yesterday\n"), Doubt.SILENT),
        (lambda house: house.rtc.says("-1\n"), Doubt.SILENT),
        (lambda house: house.rtc.says(f"{START_MS // 1000}\n" * 9), Doubt.SILENT),
        (lambda house: house.rtc.tells(START_MS + 3_000), Doubt.APART),
        (lambda house: house.rtc.tells(START_MS - 4_000), Doubt.APART),
        (lambda house: house.rtc.tells(START_MS + 8 * HOUR), Doubt.APART),
        (lambda house: house.rtc.tells(DEAD_MS), Doubt.APART),
    ],
    ids=[
        "there is none",
        "its driver answers with an error",
        "it says nothing",
        "it says words",
        "it is before 1970",
        "it says too much",
        "it is three seconds ahead",
        "it is more than three seconds behind",
        "it keeps local time",
        "its battery is empty, and something else has set the wall clock on",
    ],
)
def test_it_is_not_believed_when(
    house: House, spoil: Callable[[House], None], doubt: Doubt
) -> None:
    spoil(house)
    assert house.look() is doubt
    # The twin, at the next look: it is put right.
    house.rtc = rtc.HardwareClock(house.root)
    house.rtc.tells(START_MS + MINUTE)
    assert house.look(after=MINUTE) is Witness.RTC


@pytest.mark.parametrize(
    ("at_ms", "floor_ms", "finding"),
    [
        (DEAD_MS, START_MS, Doubt.PAST),
        (DEAD_MS, 0, Doubt.PAST),
        (UP_MS, 0, Doubt.PAST),
        (START_MS - 2 * HOUR, START_MS, Doubt.PAST),
        (START_MS - HOUR // 2, START_MS, Witness.RTC),
        (START_MS + 7 * DAY, START_MS, Witness.RTC),
    ],
    ids=[
        "it began anew at 2000",
        "it began anew at 2000, and no floor was ever written",
        "it began anew at 1970",
        "it lost two hours",
        "it went slower than the machine's own crystal for half a year",
        "it was off for a week",
    ],
)
def test_a_wall_clock_that_was_set_from_it_is_measured_by_what_is_past(
    tmp_path: Path, at_ms: int, floor_ms: int, finding: Finding
) -> None:
    house = House(tmp_path, floor_ms)
    house.rtc.tells(at_ms)
    assert house.judge.look(at_ms, UP_MS) is finding


@pytest.mark.parametrize(
    ("up_ms", "apart_ms", "agrees"),
    [
        (UP_MS, 1_400, True),
        (DAY, 11_500, True),
        (DAY, 14_000, False),
        (100 * DAY, 1_000_000, True),
        (100 * DAY, 1_100_000, False),
    ],
    ids=[
        "a second and a bit after a boot",
        "eleven seconds after a day",
        "fourteen seconds after a day",
        "a quarter of an hour after a hundred days",
        "more after a hundred days",
    ],
)
def test_two_crystals_may_drift_apart_by_120_parts_in_a_million(
    tmp_path: Path, up_ms: int, apart_ms: int, agrees: bool
) -> None:
    house = House(tmp_path, 0)
    for sign in (-1, 1):
        house.rtc.tells(START_MS + sign * apart_ms)
        house.judge = HardwareClock(tmp_path)
        house.judge.stand_on(lambda _: 0)
        found = house.judge.look(START_MS, up_ms)
        assert found is (Witness.RTC if agrees else Doubt.APART)


def test_it_is_read_once_a_minute_at_most(house: House) -> None:
    assert house.look() is Witness.RTC
    house.rtc.tells(DEAD_MS)
    assert house.look(after=MINUTE - 1) is Witness.RTC
    assert house.look(after=MINUTE) is Doubt.APART


def test_a_clock_that_is_stepped_by_hand_is_not_trusted_from_that_moment(house: House) -> None:
    for step in (-HOUR, -3_000, 3_000, HOUR):
        assert house.look() is Witness.RTC
        assert house.look(after=1, step=step) is Doubt.SET
        # The twin: one that is moved by less than what a look forgives, as a leap second does.
        assert house.look(after=2, step=1_000) is Witness.RTC
    # At the next look it stays so; and put back, it is trusted again.
    house.rtc.tells(START_MS + MINUTE)
    assert house.look(after=MINUTE, step=HOUR) is Doubt.APART
    house.rtc.tells(START_MS + 2 * MINUTE)
    assert house.look(after=2 * MINUTE) is Witness.RTC


@pytest.mark.parametrize(
    "fail",
    [lambda house: house.rtc.refuses(), lambda house: house.rtc.is_gone()],
    ids=["its bus fails", "it is taken away"],
)
def test_a_look_that_fails_later_leaves_the_trust_until_the_clock_is_set(
    house: House, fail: Callable[[House], None]
) -> None:
    assert house.look() is Witness.RTC
    fail(house)
    for minutes in (1, 2, 60, 60 * 24 * 30):
        assert house.look(after=minutes * MINUTE) is Witness.RTC
    assert house.look(after=60 * 24 * 30 * MINUTE + 1, step=HOUR) is Doubt.SET
    # The twin: where it never agreed in this life of the program, it vouches for nothing.
    later = HardwareClock(house.root)
    later.stand_on(lambda _: 0)
    assert isinstance(later.look(START_MS, UP_MS), Doubt)


def test_only_the_technicians_word_has_the_hardware_clock_count(tmp_path: Path) -> None:
    with rtc.HardwareClock(tmp_path).running():
        clock, other = Clock(trust="rtc", root=tmp_path), Clock(root=tmp_path)
        assert not clock.now().trusted
        for one in (clock, other):
            one.stand_on(lambda _: 0)
        assert clock.now().trusted
        assert clock.grounds() == Witness.RTC.value
        assert not other.now().trusted
        assert other.grounds() == Doubt.NOBODY.value
        assert Clock(trust="system", root=tmp_path).grounds() == ""


def test_a_time_service_counts_beside_an_empty_battery(tmp_path: Path) -> None:
    rtc.HardwareClock(tmp_path).tells(DEAD_MS)
    clock = Clock(trust="rtc", root=tmp_path)
    clock.stand_on(lambda _: 0)
    assert not clock.now().trusted
    assert clock.grounds() == Doubt.APART.value
    touched(tmp_path, ANOTHER, time.time_ns() // 1_000_000)
    again = Clock(trust="rtc", root=tmp_path)
    assert again.now().trusted
    assert again.grounds() == Witness.SERVICE.value
