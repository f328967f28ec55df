# SPDX-License-Identifier: Apache-2.0
"""What a trusted clock has told is past, whatever the clock, the power and the disk do later."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.floor import KEEP_EVERY_MS, Floor
from agent.halves import MAX_BYTES, Halves
from agent.path import Reason
from agent.site import FLOOR, LEDGER
from assent import durable
from firmware_bridge.sample import Instant
from tests.agent.installed import CORE, DIAGNOSIS, POWER, YES, House, copied, newer
from tests.simulators.clock import START_MS, ManualClock

HOUR, DAY = 3_600_000, 86_400_000
BOOT = 60_000
NOW = Instant(START_MS, BOOT, trusted=True)
END_MS = START_MS // DAY * DAY + DAY
"""The midnight after START_MS."""
UNTIL = {DIAGNOSIS: '{ decision = "given", until = 2026-11-23 }'}


def at(wall_ms: int, boot_ms: int, *, trusted: bool = True) -> Instant:
    return Instant(wall_ms, boot_ms, trusted=trusted)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "floor.json"


@pytest.mark.parametrize(
    ("now", "past_ms"),
    [
        (at(START_MS + 9, BOOT + 9), START_MS + 9),
        (at(START_MS + DAY, BOOT + 9), START_MS + DAY),
        (at(START_MS - DAY, BOOT + 9), START_MS + 9),
        (at(START_MS + DAY, BOOT + 9, trusted=False), START_MS + 9),
        (at(0, 9, trusted=False), START_MS + 9),
    ],
    ids=[
        "time passes",
        "a trusted clock jumps ahead",
        "a trusted clock is set back",
        "a clock that is not trusted is ahead",
        "a later boot knows no time but its own age",
    ],
)
def test_what_is_past_never_goes_back(path: Path, now: Instant, past_ms: int) -> None:
    assert Floor.open(path, NOW).note(NOW)
    assert Floor.open(path, now).past_ms(now) == past_ms


def test_a_clock_that_is_not_trusted_makes_nothing_past(path: Path) -> None:
    floor = Floor.open(path, NOW)
    assert not floor.note(at(START_MS, BOOT, trusted=False))
    assert floor.past_ms(at(START_MS, BOOT, trusted=False)) == 0
    assert not path.exists()


def test_it_is_written_once_in_ten_minutes_as_long_as_nothing_happens(path: Path) -> None:
    floor = Floor.open(path, NOW)
    written = [
        ms for ms in range(0, HOUR, 250) if floor.note(at(START_MS + ms, BOOT + ms), [END_MS])
    ]
    assert written == list(range(0, HOUR, KEEP_EVERY_MS))


@pytest.mark.parametrize(
    ("wall_ms", "boot_ms", "ends", "is_written"),
    [
        (START_MS + 999, BOOT + 999, [START_MS + 1_000], False),
        (START_MS + 1_000, BOOT + 1_000, [START_MS + 1_000], True),
        (START_MS + 1_000, BOOT + 1_000, [START_MS, END_MS], False),
        (START_MS + 2_000, BOOT + 1_000, [], True),
        (START_MS - HOUR, BOOT + 1_000, [], False),
        (START_MS - HOUR, 5, [], True),
    ],
    ids=[
        "not before an end",
        "at an end",
        "not between two ends",
        "after a jump",
        "not when the clock is set back",
        "in a later boot",
    ],
)
def test_it_is_written_at_once(
    path: Path, wall_ms: int, boot_ms: int, ends: list[int], is_written: bool
) -> None:
    Floor.open(path, NOW).note(NOW)
    now = at(wall_ms, boot_ms)
    assert Floor.open(path, now).note(now, ends) == is_written


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}\n",
        b"[" * 2 * MAX_BYTES,
        b'{"at_ms": 1, "boot_ms": 1}\n',
        b"\xff" * 200_000,
    ],
    ids=["empty", "cut", "nothing", "deep", "no half", "large"],
)
def test_a_damaged_file_counts_as_lost(path: Path, data: bytes) -> None:
    Floor.open(path, NOW).note(NOW)
    assert not Floor.open(path, NOW).is_lost  # the twin
    path.write_bytes(data)
    floor = Floor.open(path, NOW)
    assert floor.is_lost
    floor.raise_to(START_MS + DAY, NOW)
    floor.raise_to(START_MS, NOW)
    assert floor.past_ms(NOW) == START_MS + DAY
    assert floor.note(NOW)
    assert Floor.open(path, NOW).past_ms(NOW) == START_MS + DAY


@pytest.mark.parametrize(
    "told",
    [{}, {"at_ms": 1}, {"at_ms": "1", "boot_ms": 1}, {"at_ms": True, "boot_ms": 1}],
    ids=repr,
)
def test_a_sound_file_that_tells_no_instant_counts_as_lost(
    path: Path, told: dict[str, object]
) -> None:
    Halves(path).write({"at_ms": 1, "boot_ms": 1})
    assert not Floor.open(path, NOW).is_lost  # the twin
    Halves(path).write(told)
    assert Floor.open(path, NOW).is_lost


def test_a_disk_that_refuses_is_told_once_and_the_floor_stands_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    floor = Floor.open(path, NOW)
    monkeypatch.setattr(durable, "write", full)
    with caplog.at_level(logging.ERROR):
        assert not any(floor.note(at(START_MS + ms, BOOT + ms)) for ms in range(5))
    assert caplog.text.count("floor of time not written") == 1
    assert floor.past_ms(at(0, BOOT + 9)) == START_MS + 9
    monkeypatch.undo()
    assert floor.note(at(START_MS, BOOT + 9))


# --- a household -----------------------------------------------------------------------------


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def house(gateway: Path, clock: ManualClock) -> Iterator[House]:
    """A household that said yes to all, to one flow until the next midnight."""
    house = House(gateway, clock).start()
    house.decide(YES | UNTIL)
    yield house
    house.close()


def again(house: House, clock: ManualClock) -> House:
    house.close()
    return House(house.directory, clock).start()


def reason(house: House) -> str | None:
    house.turn()
    return house.on()[DIAGNOSIS]


def set_back(clock: ManualClock) -> ManualClock:
    clock.step(-2 * DAY)
    return clock


def not_trusted(clock: ManualClock) -> ManualClock:
    clock.trusted = False
    return clock


def set_back_and_not_trusted(clock: ManualClock) -> ManualClock:
    return not_trusted(set_back(clock))


WRONG = pytest.mark.parametrize(
    "wrong",
    [set_back, not_trusted, set_back_and_not_trusted],
    ids=["set back", "not trusted", "set back and not trusted"],
)


@pytest.mark.clause("C28")
@WRONG
def test_what_has_ended_stays_ended_when_the_clock_is(
    house: House, clock: ManualClock, wrong: object
) -> None:
    assert callable(wrong)
    clock.advance(END_MS - START_MS - 1_000)
    assert reason(house) is None  # the twin: an hour before, all is well
    clock.advance(1_000)
    assert reason(house) == Reason.EXPIRED.value
    wrong(clock)
    assert reason(house) == Reason.EXPIRED.value
    assert not house.waiting(DIAGNOSIS)
    house = again(house, clock)
    assert reason(house) == Reason.EXPIRED.value
    house.close()


@pytest.mark.clause("C28")
@WRONG
def test_what_had_ended_before_a_power_cut_stays_ended_after_it(
    house: House, clock: ManualClock, wrong: object
) -> None:
    assert callable(wrong)
    clock.advance(END_MS - START_MS)
    assert reason(house) == Reason.EXPIRED.value
    house.vanish()  # nobody says goodbye
    started = ManualClock(clock.now().wall_ms + HOUR, mono_ms=10)
    wrong(started)
    after = House(house.directory, started).start()
    assert reason(after) == Reason.EXPIRED.value
    after.close()


@pytest.mark.clause("C28")
def test_an_end_that_comes_after_the_clock_was_set_back_comes_when_it_should(
    house: House, clock: ManualClock
) -> None:
    clock.step(-2 * DAY)
    clock.advance(END_MS - START_MS - 1_000)
    assert reason(house) is None
    clock.advance(1_000)
    assert reason(house) == Reason.EXPIRED.value


@pytest.mark.clause("C28")
def test_an_end_that_nobody_had_to_decide_about_is_remembered_too(
    house: House, clock: ManualClock
) -> None:
    form = house.directory / "consent.toml"
    form.write_text("[decisions")
    house.reload()
    clock.advance(END_MS - START_MS)
    assert reason(house) == Reason.FORM_BROKEN.value
    house.vanish()  # nobody says goodbye
    form.unlink()
    after = House(house.directory, ManualClock(START_MS, mono_ms=10)).start()
    assert reason(after) == Reason.EXPIRED.value
    after.close()


def test_the_floor_is_on_the_disk_before_an_end_takes_effect(
    house: House, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.powers(5)
    house.pipeline.flush()
    assert house.waiting(DIAGNOSIS)
    found: list[int] = []
    close_lane = type(house.spool).close_lane

    def closing(spool: object, flow: str) -> None:
        later = at(0, 0, trusted=False)
        found.append(Floor.open(house.directory / "state" / FLOOR, later).past_ms(later))
        close_lane(house.spool, flow)

    monkeypatch.setattr(type(house.spool), "close_lane", closing)
    clock.advance(END_MS - clock.now().wall_ms + 1)
    assert reason(house) == Reason.EXPIRED.value
    assert found != []
    assert min(found) >= END_MS


@pytest.mark.clause("C28")
@WRONG
@pytest.mark.parametrize(
    ("lost", "is_known"),
    [
        ([FLOOR], True),
        (["spool/spool.db"], True),
        ([FLOOR, LEDGER], True),
        ([FLOOR, "spool/spool.db"], False),
    ],
    ids=["the file of the floor", "the spool", "the file and the ledger", "the file and the spool"],
)
def test_a_floor_that_is_lost_is_known_from_elsewhere(
    house: House, clock: ManualClock, wrong: object, lost: list[str], is_known: bool
) -> None:
    assert callable(wrong)
    clock.advance(END_MS - START_MS)
    assert reason(house) == Reason.EXPIRED.value
    house.close()
    for name in lost:
        (house.directory / "state" / name).unlink()
    after = House(house.directory, wrong(clock)).start()
    floor_ms = after.site.floor.past_ms(at(0, clock.now().mono_ms, trusted=False))
    assert (floor_ms >= END_MS) == is_known
    assert floor_ms >= START_MS  # the ledger took a yes then, or the spool says so
    after.close()


@pytest.mark.clause("C28")
@pytest.mark.parametrize("decays", [True, False], ids=["its newest half decays", "it is sound"])
def test_a_floor_of_which_the_older_half_is_left_is_known_from_elsewhere(
    house: House, clock: ManualClock, decays: bool
) -> None:
    """Red where the older half is believed alone: what has ended goes on."""
    clock.advance(END_MS - START_MS)
    assert reason(house) == Reason.EXPIRED.value
    house.vanish()  # an orderly end may write both halves
    path = house.directory / "state" / FLOOR
    if decays:
        sound = path.read_bytes()
        assert Floor.open(path, at(0, 0, trusted=False)).at(0) >= END_MS
        half = len(sound) // 2
        path.write_bytes(sound[: half + 40] + b"\0" + sound[half + 41 :])
        assert Floor.open(path, at(0, 0, trusted=False)).at(0) < END_MS
    after = House(house.directory, ManualClock(END_MS - HOUR, mono_ms=10)).start()
    assert reason(after) == Reason.EXPIRED.value
    assert after.site.floor.past_ms(at(0, 10, trusted=False)) >= END_MS
    assert after.spool.floor_ms(10) >= END_MS
    after.close()


@pytest.mark.clause("C28")
def test_the_second_gate_is_told_the_floor(house: House, clock: ManualClock) -> None:
    house.bring({"appliance.fault": "door-lock", POWER: 5})
    house.pipeline.flush()
    assert {one.flow for one in house.leases("maker")} == {CORE, DIAGNOSIS}
    clock.advance(END_MS - clock.now().wall_ms)  # and no turn of the owner, who may be dead
    clock.step(-2 * DAY)
    now = clock.now()
    with house.carrier() as carrier:
        leased = carrier.lease("maker", 99, now.wall_ms, boot_ms=now.mono_ms)
    assert {one.flow for one in leased} == {CORE}


@pytest.mark.clause("C28")
def test_a_no_on_a_clock_that_is_behind_is_not_older_than_a_yes_before_it(
    house: House, clock: ManualClock
) -> None:
    left_over = '{ decision = "given", on = 2026-11-22T02:30:00Z }'
    clock.advance(HOUR)
    clock.trusted = False
    clock.step(-100 * DAY)
    house.desk.say_no(DIAGNOSIS)
    clock.step(100 * DAY)
    clock.trusted = True
    house.decide({DIAGNOSIS: left_over}, method="a form that was written before the no")
    assert reason(house) == Reason.WITHDRAWN.value
    clock.advance(HOUR)
    later = '{ decision = "given", on = 2026-11-22T03:30:00Z }'  # the twin
    house.decide({DIAGNOSIS: later})
    assert reason(house) is None


def test_a_clock_that_was_wrongly_a_year_ahead_locks_nobody_out_and_is_told(
    house: House, clock: ManualClock
) -> None:
    assert house.desk.status()["notices"] == []
    clock.step(365 * DAY)
    assert reason(house) == Reason.EXPIRED.value
    clock.step(-365 * DAY)
    assert reason(house) == Reason.EXPIRED.value
    (told,) = house.desk.status()["notices"]
    assert "trusted as 2027-11-22T02:15:00Z before, and as 2026-11-22T02:15:00Z now" in told
    assert "a new yes without an end" in told
    assert house.on()[CORE] is None  # what has no end goes on
    house.decide(UNTIL)
    assert reason(house) == Reason.EXPIRED.value
    (flow,) = (one for one in house.desk.status()["flows"] if one["flow"] == DIAGNOSIS)
    assert flow["detail"] == "by a time that was trusted before"
    clock.advance(HOUR)
    house.decide({DIAGNOSIS: '"given"'})
    assert reason(house) is None
    house.powers(5)
    house.pipeline.flush()
    assert house.waiting(DIAGNOSIS)


@pytest.mark.parametrize("behind_ms", [0, 59_000])
def test_a_clock_that_was_put_right_a_little_is_nothing_to_tell(
    house: House, clock: ManualClock, behind_ms: int
) -> None:
    clock.step(-behind_ms)
    house.turn(0)
    assert house.desk.status()["notices"] == []


@pytest.mark.clause("C33")
def test_a_policy_that_has_ended_stays_ended_when_the_clock_is_set_back(
    house: House, clock: ManualClock
) -> None:
    def with_an_end(text: str) -> str:
        return newer(text).replace("[policy]\n", "[policy]\nnot_after = 2026-11-22\n", 1)

    house.publish(with_an_end)
    house.reload()
    assert set(house.on().values()) == {None}
    clock.advance(END_MS - START_MS)
    house.turn()
    assert set(house.on().values()) == {Reason.POLICY_UNUSABLE.value}
    house.close()
    started = ManualClock(START_MS, mono_ms=10)
    after = House(house.directory, started).start()
    assert set(after.on().values()) == {Reason.POLICY_UNUSABLE.value}
    after.close()
