# SPDX-License-Identifier: Apache-2.0
"""A crash between two batches: what was held is taken up once, declared, or erased, never doubled."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.journal import Journal, areas
from agent.pipeline.keeping import Keeping
from agent.pipeline.recovery import Missed, Missing
from agent.site import JOURNAL
from agent.spool import LaneState, Spool
from assent.envelope import GapCause
from assent.errors import SpoolError
from firmware_bridge.sample import Sample
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    ENERGY,
    MINUTE,
    NOBODY,
    POWER,
    SECOND,
    WASHER,
    WASHER_SERIAL,
    YES,
    House,
    copied,
    form,
    living,
    newer,
    read_only,
    readings,
    values,
)
from tests.simulators.clock import START_MS, ManualClock
from tests.simulators.power import PowerCut

COMMIT = 5 * SECOND
EPOCH = 30 * 24 * 60 * MINUTE


@contextlib.contextmanager
def next_life(house: House, down_ms: int = 30 * SECOND) -> Iterator[House]:
    """What starts after the process is gone and a while has passed."""
    house.vanish()
    house.clock.advance(down_ms)
    with living(house.directory, house.clock) as again:
        yield again


def powers_of(house: House) -> list[float]:
    """What the maker would read of the power now."""
    house.pipeline.flush()
    return values(house.batches(DIAGNOSIS), POWER)


def crashes(house: House) -> dict[str, list[tuple[int, int]]]:
    """The crashes that are declared, from and to, by flow."""
    found: dict[str, list[tuple[int, int]]] = {}
    for flow in house.spool.lanes():
        for gap in house.spool.gaps_for(flow):
            if gap.cause is GapCause.CRASH:
                found.setdefault(flow, []).append((gap.first_ms, gap.last_ms))
    return found


def journal(house: House) -> Journal:
    """What the file holds, as the next life will read it."""
    path = house.directory / "state" / JOURNAL
    return Journal(path, house.site.keys.journal_key, house.spool.id)


def told_of(house: House) -> set[str]:
    return {part.head.flow for part in journal(house).parts()}


# Taken up.


def test_a_crash_loses_no_reading_that_was_committed(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.powers(4)  # not committed
    with next_life(agreed) as again:
        again.powers(5)
        assert powers_of(again) == [1, 2, 3, 5]


def test_what_is_taken_up_goes_on_in_its_stream_and_leaves_in_one_batch(agreed: House) -> None:
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    with next_life(agreed) as again:
        again.powers(3)
        again.pipeline.flush()
        (batch,) = again.batches(DIAGNOSIS)
        assert (batch.header.stream, batch.header.sequence) == (stream, 0)
        assert values([batch], POWER) == [1, 2, 3]


def test_a_crash_is_declared_for_each_flow_that_was_running(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    committed = agreed.clock.now().wall_ms
    agreed.powers(4, 5)
    with next_life(agreed) as again:
        found = crashes(again)
        assert found.keys() == {CORE, DIAGNOSIS, ADVICE}
        for (first, last), *more in found.values():
            assert more == []
            assert committed - 2 * SECOND <= first <= committed
            assert again.clock.now().wall_ms <= last <= again.clock.now().wall_ms + 2 * SECOND


def test_an_orderly_end_leaves_the_journal_empty_and_no_gap(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    assert told_of(agreed) == {CORE, DIAGNOSIS, ADVICE}
    agreed.close()
    with living(agreed.directory, agreed.clock) as again:
        assert crashes(again) == {}
        assert powers_of(again) == [1, 2, 3]


def test_a_crash_right_after_a_batch_was_put_doubles_nothing(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.powers(4)
    agreed.pipeline.flush()
    with next_life(agreed) as again:
        again.powers(5)
        assert powers_of(again) == [1, 2, 3, 4, 5]
        sequences = [one.header.sequence for one in again.batches(DIAGNOSIS)]
        assert sequences == [0, 1]


def test_a_crash_right_after_the_yes_is_declared_from_the_yes_on(house: House) -> None:
    """Before it nothing was to come; a stream with such a gap would count as taken by a choice."""
    house.close()
    agent = house.directory / "agent.toml"
    agent.write_text(agent.read_text().replace("[gateway]", '[gateway]\ncommit = "1s"'))
    dying = House(house.directory, house.clock).start()
    dying.decide(YES)
    dying.powers(1)
    assert told_of(dying)
    dying.vanish()
    house.clock.trusted = False
    house.clock.boot_id = "00000000-0000-4000-8000-000000000002"
    with living(house.directory, house.clock) as again:
        again.turn(SECOND)
        house.clock.trusted = True
        again.turn(SECOND)
        row = again.spool.lanes()[DIAGNOSIS]
        ((first_ms, _),) = crashes(again)[DIAGNOSIS]
        assert first_ms == row.not_before_ms


def test_a_batch_that_is_put_right_after_a_start_knows_since_when_it_is_told(agreed: House) -> None:
    """Red where a commit that finds nothing new does not count: the next gap begins with the yes."""
    agreed.turn(10 * MINUTE)
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    with next_life(agreed) as again:
        again.pipeline.flush()  # what was taken up; nothing has come since
        with next_life(again) as last:
            firsts = {first for flow in crashes(last) for first, _ in crashes(last)[flow]}
            assert min(firsts) >= START_MS + 10 * MINUTE


@pytest.mark.parametrize("is_in_order", [False, True], ids=["by a crash", "in order"])
def test_a_crash_is_declared_though_a_life_without_the_time_ended_in_between(
    agreed: House, *, is_in_order: bool
) -> None:
    """Red where what is missing waits for the time in memory."""
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    committed = agreed.clock.now().wall_ms
    agreed.powers(4)  # lost
    agreed.vanish()
    _boot_again(agreed, 2)
    timeless = House(agreed.directory, agreed.clock).start()
    for _ in range(30):
        timeless.turn(MINUTE)
    if is_in_order:
        timeless.close()
    else:
        timeless.vanish()
    _boot_again(agreed, 3)
    with living(agreed.directory, agreed.clock) as again:
        began = again.clock.now().wall_ms
        again.turn(10 * MINUTE)
        again.clock.trusted = True
        again.turn(SECOND)
        for spans in (crashes(again)[flow] for flow in (CORE, DIAGNOSIS, ADVICE)):
            assert min(first for first, _ in spans) <= committed
            assert max(last for _, last in spans) <= began + MINUTE  # what was held is not missing


def _boot_again(house: House, number: int) -> None:
    house.clock.advance(30 * 60 * MINUTE)
    house.clock.trusted = False
    house.clock.boot_id = f"00000000-0000-4000-8000-{number:012}"


@pytest.mark.parametrize(
    "is_known", [True, False], ids=["at once", "after a while without the time"]
)
@pytest.mark.parametrize("ahead_s", [1, 3, 5, 6, 7, 60, 3_600])
def test_a_crash_is_declared_though_the_clock_was_ahead_before_it(
    agreed: House, ahead_s: int, *, is_known: bool
) -> None:
    """Red where a crash that began after now is taken for none, or what came then ends with now."""
    agreed.clock.step(ahead_s * SECOND)
    agreed.turn()
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.clock.advance(3 * SECOND)
    agreed.powers(4)  # lost
    taken = agreed.clock.now().wall_ms // SECOND * SECOND
    agreed.vanish()
    agreed.clock.step(-ahead_s * SECOND)
    agreed.clock.advance(SECOND)
    agreed.clock.trusted = is_known
    with living(agreed.directory, agreed.clock) as again:
        again.turn(SECOND)
        again.clock.trusted = True
        again.turn(SECOND)
        for spans in (crashes(again)[flow] for flow in (CORE, DIAGNOSIS, ADVICE)):
            assert any(first <= taken <= last for first, last in spans)
        assert powers_of(again) == [1, 2, 3]


def test_a_crash_that_the_disk_refused_to_declare_lasts_as_long_when_it_takes_it(
    agreed: House,
) -> None:
    """Red where it is forgotten until when it may be missing: it ends with the start then."""
    missed = Missed(agreed.spool, agreed.pipeline.running.keeping)
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    agreed.clock.trusted = False
    began_ms = agreed.clock.now().wall_ms
    missed.declare(agreed.clock.now())
    agreed.clock.advance(2 * MINUTE)
    missed.add(Missing(DIAGNOSIS, stream, began_ms))
    missed.declare(agreed.clock.now())
    agreed.clock.trusted = True
    with read_only(agreed.spool), pytest.raises(SpoolError):
        missed.declare(agreed.clock.now())
    missed.declare(agreed.clock.now())
    ((first_ms, last_ms),) = crashes(agreed)[DIAGNOSIS]
    assert first_ms <= began_ms
    assert began_ms + 2 * MINUTE <= last_ms <= began_ms + 3 * MINUTE


def test_a_crash_is_declared_though_no_journal_could_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red where only what the journal tells of is missed."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        house.decide(YES)
        house.powers(1, 2)
        house.pipeline.flush()
        taken = house.clock.now().wall_ms
        house.powers(3)  # lost
        house.turn(COMMIT)
        assert told_of(house) == set()
        house.vanish()
    house.clock.advance(60 * MINUTE)
    with living(house.directory, house.clock) as again:
        found = crashes(again)
        assert found.keys() == {CORE, DIAGNOSIS, ADVICE}
        assert all(first <= taken and last >= taken for ((first, last),) in found.values())
        assert powers_of(again) == [1, 2]


@pytest.mark.parametrize("is_older", [True, False], ids=["an older journal", "its own journal"])
def test_a_crash_while_a_crash_is_looked_at_is_declared_once_more(
    agreed: House, monkeypatch: pytest.MonkeyPatch, *, is_older: bool
) -> None:
    """Red where the journal forgets what it held before that is declared."""
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    committed = agreed.clock.now().wall_ms
    path = agreed.directory / "state" / JOURNAL
    before = path.read_bytes()
    agreed.pipeline.flush()
    if is_older:
        agreed.powers(4)
        agreed.pipeline.flush()
        path.write_bytes(before)
    choose = Keeping.choose

    def choose_and_die(*given: Any) -> None:
        choose(*given)
        raise PowerCut

    agreed.vanish()
    agreed.clock.advance(30 * SECOND)
    with monkeypatch.context() as patch:
        patch.setattr(Keeping, "choose", choose_and_die)
        dying = House(agreed.directory, agreed.clock, NOBODY)
        with pytest.raises(PowerCut):
            dying.start()
    with next_life(dying) as again:
        found = crashes(again)
        assert found.keys() == {CORE, DIAGNOSIS, ADVICE}
        assert all(min(first for first, _ in spans) <= committed for spans in found.values())
        assert powers_of(again) == [1, 2, 3, *([4] if is_older else [])]


def test_a_crash_before_a_batch_was_put_loses_nothing_that_was_committed(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    with read_only(agreed.spool):
        agreed.pipeline.flush()
        assert agreed.batches(DIAGNOSIS) == []
    with next_life(agreed) as again:
        assert powers_of(again) == [1, 2, 3]


def test_many_crashes_lose_and_double_nothing(agreed: House) -> None:
    with contextlib.ExitStack() as lives:
        house = agreed
        for life in range(5):
            house.powers(10 * life + 1, 10 * life + 2)
            house.turn(COMMIT)
            if life % 2:
                house.pipeline.flush()
            house = lives.enter_context(next_life(house))
        assert powers_of(house) == [1, 2, 11, 12, 21, 22, 31, 32, 41, 42]
        assert len(crashes(house)[DIAGNOSIS]) == 5


def test_a_window_and_a_counter_go_on_over_a_crash(agreed: House) -> None:
    start = agreed.clock.now().wall_ms // MINUTE * MINUTE + MINUTE
    agreed.clock.advance(start - agreed.clock.now().wall_ms)
    for at in range(1, 11):
        agreed.bring({POWER: float(at), ENERGY: 100 + at})
    agreed.turn(COMMIT)
    with next_life(agreed, 10 * SECOND) as again:
        again.bring({POWER: 110.0, ENERGY: 150})
        again.turn(2 * 60 * MINUTE)
        again.pipeline.flush()
        found = readings(again.batches(ADVICE), POWER)
        assert [(one.ms, one.value) for one in found] == [(start, (sum(range(1, 11)) + 110) / 11)]
        assert values(again.batches(ADVICE), ENERGY) == [1] * 9 + [40]


def test_what_waits_over_the_end_of_an_epoch_leaves_in_its_own(agreed: House) -> None:
    old = agreed.clock.now().wall_ms // EPOCH
    agreed.turn((old + 1) * EPOCH - agreed.clock.now().wall_ms - MINUTE)
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    with next_life(agreed, 2 * MINUTE) as again:
        again.powers(3)
        assert powers_of(again) == [1, 2, 3]
        assert [one.header.epoch for one in again.batches(DIAGNOSIS)] == [old, old + 1]


def test_a_flow_that_pauses_at_the_start_keeps_what_it_held(agreed: House) -> None:
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    agreed.clock.trusted = False
    with next_life(agreed) as again:
        assert DIAGNOSIS in told_of(again)
        again.turn(COMMIT)
        again.clock.trusted = True
        again.turn(SECOND)
        again.powers(3)
        assert powers_of(again) == [1, 2, 3]


@pytest.mark.parametrize("lost", ["nothing", "at the crash", "while it pauses"])
def test_a_flow_that_pauses_from_a_crash_on_declares_all_of_it(agreed: House, lost: str) -> None:
    """Red without `was_open`: the pause is not told. Red without PAUSED: the open batch is not."""
    began = agreed.clock.now().wall_ms
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.vanish()
    path, paper = agreed.directory / "state" / JOURNAL, agreed.directory / "consent.toml"
    if lost == "at the crash":
        path.unlink()
    paper.write_text("no form")
    agreed.clock.advance(30 * SECOND)
    paused = House(agreed.directory, agreed.clock).start()
    paused.turn(MINUTE)
    paused.vanish()
    if lost == "while it pauses":
        path.write_bytes(b"noise")
        os.utime(path, (paused.clock.now().wall_ms / 1000,) * 2)
    agreed.clock.advance(MINUTE)
    with living(agreed.directory, agreed.clock) as again:
        again.turn(60 * MINUTE)
        paper.unlink()
        again.reload()
        opened = again.clock.now().wall_ms
        again.powers(4)
        assert powers_of(again) == ([1, 2, 3, 4] if lost == "nothing" else [4])
        committed = began + 3 * SECOND + COMMIT if lost == "nothing" else began + SECOND
        told = sorted(
            (gap.first_ms, gap.last_ms)
            for gap in again.spool.gaps_for(DIAGNOSIS)
            if gap.cause in {GapCause.CRASH, GapCause.OUTAGE}
        )
        assert told[0][0] <= committed
        assert max(last for _, last in told) >= opened
        assert all(one[1] >= other[0] for one, other in itertools.pairwise(told))


@pytest.mark.parametrize("goes_on", [False, True], ids=["it is over", "it goes on"])
def test_a_pause_that_nobody_lived_to_note_is_declared(agreed: House, goes_on: bool) -> None:
    """Red where only an open lane was running: a disk that refused the note hides a pause."""
    paper = agreed.directory / "consent.toml"
    agreed.powers(1, 2, 3)
    agreed.pipeline.flush()
    agreed.turn(COMMIT)
    paused = agreed.clock.now().wall_ms
    agreed.spool.pause_lane(DIAGNOSIS)
    agreed.vanish()
    (agreed.directory / "state" / JOURNAL).unlink()  # it does not tell of a lane that was paused
    if goes_on:
        paper.write_text("no form")
    agreed.clock.advance(60 * MINUTE)
    with living(agreed.directory, agreed.clock) as again:
        if goes_on:
            again.turn(60 * MINUTE)
            paper.unlink()
            again.reload()
        told = sorted(
            (gap.first_ms, gap.last_ms)
            for gap in again.spool.gaps_for(DIAGNOSIS)
            if gap.cause in {GapCause.CRASH, GapCause.OUTAGE}
        )
        assert told[0][0] <= paused
        assert max(last for _, last in told) >= again.clock.now().wall_ms
        assert all(one[1] >= other[0] for one, other in itertools.pairwise(told))


def test_the_twin_an_orderly_pause_declares_an_outage_alone(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    (agreed.directory / "consent.toml").write_text("no form")
    agreed.reload()
    with next_life(agreed) as again:
        (again.directory / "consent.toml").unlink()
        again.reload()
        again.powers(4)
        assert powers_of(again) == [1, 2, 3, 4]
        assert DIAGNOSIS not in crashes(again)


# Erased.


def searched(house: House) -> bytes:
    """All that the journal's file shows to who has its key, and without it."""
    raw = (house.directory / "state" / JOURNAL).read_bytes()
    found = areas.Areas(house.directory / "state" / JOURNAL, house.site.keys.journal_key)
    return raw + b"".join(map(zlib.decompress, found.read()))


@pytest.mark.clause("C28")
def test_a_withdrawal_erases_the_part_of_its_flow_before_it_returns(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    assert b"remote-diagnosis" in searched(agreed)  # the search finds what is there
    used = sum(map(bool, (agreed.directory / "state" / JOURNAL).read_bytes()))
    agreed.desk.say_no(DIAGNOSIS)
    assert b"remote-diagnosis" not in searched(agreed)
    assert b"partner-energy-advice" in searched(agreed)
    # What was live before is overwritten, not left to lie there under a key that is gone.
    assert sum(map(bool, (agreed.directory / "state" / JOURNAL).read_bytes())) < used * 1.5
    with next_life(agreed) as again:
        assert crashes(again).keys() == {CORE, ADVICE}
        assert powers_of(again) == []


@pytest.mark.parametrize("how", ["closed past the agent", "refused in a form"])
def test_a_no_that_was_said_to_a_dead_agent_erases_first(agreed: House, how: str) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    agreed.vanish()
    if how == "closed past the agent":
        with contextlib.closing(Spool.open(agreed.path)) as spool:
            spool.close_lane(DIAGNOSIS)
    else:
        now = agreed.clock.now().wall_ms
        text = form({**YES, DIAGNOSIS: '"refused"'}, now)
        (agreed.directory / "consent.toml").write_text(text)
    with living(agreed.directory, agreed.clock) as again:
        assert {CORE, ADVICE} <= told_of(again)
        assert stream not in journal(again).streams
        assert DIAGNOSIS not in crashes(again)
        assert powers_of(again) == []


def test_a_narrowing_that_was_said_to_a_dead_agent_erases_what_it_no_longer_covers(
    agreed: House,
) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    agreed.vanish()
    command = House(agreed.directory, agreed.clock)  # a command, while no agent runs
    agreed.clock.advance(SECOND)
    narrow = '{ decision = "given", without = ["appliance.fault"] }'
    command.decide({**YES, DIAGNOSIS: narrow})
    assert stream not in journal(command).streams
    command.vanish()
    with living(agreed.directory, agreed.clock) as again:
        again.powers(4)
        assert powers_of(again) == [4]


def test_no_identifier_of_a_device_is_in_the_journal(agreed: House) -> None:
    agreed.bring({POWER: 1.0, ENERGY: 100})
    agreed.turn(COMMIT)
    found = searched(agreed)
    for canary in (WASHER_SERIAL.encode(), b"washer"):
        assert canary not in found
    assert b"appliance.energy" in found  # the twin: what is remembered is named


# Told apart.


def test_an_older_journal_beside_a_newer_spool_doubles_nothing(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    path = agreed.directory / "state" / JOURNAL
    older = path.read_bytes()
    agreed.pipeline.flush()
    agreed.powers(4)
    agreed.pipeline.flush()
    agreed.vanish()
    path.write_bytes(older)
    with living(agreed.directory, agreed.clock) as again:
        assert powers_of(again) == [1, 2, 3, 4]
        assert crashes(again)[DIAGNOSIS]


def test_a_lost_spool_lets_nothing_be_stored_twice(agreed: House) -> None:
    begun = agreed.clock.now().wall_ms
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.vanish()
    for one in agreed.path.parent.glob("spool.db*"):
        one.unlink()
    with living(agreed.directory, agreed.clock) as again:
        again.powers(4)
        assert powers_of(again) == [4]
        ((first, last),) = crashes(again)[DIAGNOSIS]
        assert first <= begun + SECOND
        assert last >= again.clock.now().wall_ms - SECOND


@pytest.mark.parametrize("how", ["cut", "noise", "other key"])
def test_a_journal_that_cannot_be_read_stops_nothing_and_is_told(agreed: House, how: str) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    agreed.vanish()
    path = agreed.directory / "state" / JOURNAL
    match how:
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "noise":
            path.write_bytes(bytes(range(256)) * 8_192)
        case "other key":
            (agreed.directory / "state" / "keys" / "journal.key").unlink()
    with living(agreed.directory, agreed.clock) as again:
        assert any("could not be read" in one for one in again.desk.status()["notices"])
        assert crashes(again).keys() == {CORE, DIAGNOSIS, ADVICE}
        again.powers(4)
        again.turn(COMMIT)
        with next_life(again) as third:
            assert powers_of(third) == [4]


def small(text: str) -> str:
    """A newer policy in which the advice travels in batches of two."""
    return newer(text).replace('batch = { age = "1m" }', 'batch = { readings = 2, age = "1m" }')


def test_a_window_that_has_ended_and_did_not_fit_into_its_batch_is_not_lost(agreed: House) -> None:
    agreed.publish(small)
    agreed.reload()
    start = agreed.clock.now().wall_ms // MINUTE * MINUTE + MINUTE
    agreed.clock.advance(start - agreed.clock.now().wall_ms)
    agreed.bring({POWER: 10.0}, {POWER: 20.0})
    agreed.bring(*({ENERGY: 100 + at} for at in range(5)))  # full batches, each to its end
    agreed.turn(COMMIT)
    agreed.pipeline.flush()
    agreed.turn(COMMIT)
    agreed.bring(*({ENERGY: 105 + at} for at in range(4)))
    agreed.turn(COMMIT)
    agreed.clock.advance(MINUTE)
    # In one go: two increases, and the reading that ends the window.
    now = agreed.clock.now()
    energies = [Sample(WASHER, now, (ENERGY,), (110 + at,)) for at in range(2)]
    agreed.pipeline.deliver([*energies, Sample(WASHER, now, (POWER,), (30.0,))])
    agreed.pipeline.turn(0)
    with next_life(agreed, SECOND) as again:
        again.pipeline.flush()
        found = readings(again.batches(ADVICE), POWER)
        assert [(one.ms, one.value) for one in found] == [(start, 15.0)]
        assert sum(values(again.batches(ADVICE), ENERGY)) == 11


# While the disk refuses.


def refuse(*_: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_journal_that_cannot_be_written_is_told_once_and_tried_again(
    agreed: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(os, "fdatasync", refuse)
        for watt in (1, 2, 3):
            agreed.powers(watt)
            agreed.turn(COMMIT)
        assert caplog.text.count("journal not written") == 1
        assert any("journal cannot be written" in one for one in agreed.desk.status()["notices"])
    agreed.powers(4)
    agreed.turn(COMMIT)
    assert not any("journal" in one for one in agreed.desk.status()["notices"])
    with next_life(agreed) as again:
        assert powers_of(again) == [1, 2, 3, 4]


def test_what_a_journal_missed_while_it_refused_is_told_whole(
    agreed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = agreed.clock.now().wall_ms // MINUTE * MINUTE + MINUTE
    agreed.clock.advance(start - agreed.clock.now().wall_ms)
    agreed.bring({POWER: 10.0, ENERGY: 1}, {ENERGY: 2})
    agreed.turn(COMMIT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        agreed.pipeline.flush()
        assert values(agreed.batches(ADVICE), ENERGY) == [1]
    agreed.turn(COMMIT)
    with next_life(agreed, SECOND) as again:
        again.bring({POWER: 20.0})
        again.turn(2 * 60 * MINUTE)
        again.pipeline.flush()
        found = readings(again.batches(ADVICE), POWER)
        assert [(one.ms, one.value) for one in found] == [(start, 15.0)]


def test_a_window_that_cannot_be_taken_up_is_declared_from_its_start(
    agreed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red where only the rows of an open batch count: a window leaves at its start."""
    start = agreed.clock.now().wall_ms // MINUTE * MINUTE + MINUTE
    agreed.clock.advance(start - agreed.clock.now().wall_ms)
    agreed.powers(*range(1, 31))
    agreed.turn(COMMIT)
    monkeypatch.setattr(os, "fdatasync", refuse)
    with next_life(agreed, SECOND) as again:
        assert min(first for first, _ in crashes(again)[ADVICE]) <= start


def test_an_open_batch_that_outgrows_the_journal_is_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(areas, "AREA", 8_192)
    with next_life(house) as agreed:
        agreed.decide(YES)
        watts = [float(n * n % 7919) for n in range(8_000)]
        for begin in range(0, len(watts), 2_000):
            for watt in watts[begin : begin + 2_000]:
                agreed.clock.advance(1)
                sample = Sample(WASHER, agreed.clock.now(), (POWER,), (watt,))
                agreed.pipeline.running.take([sample])
            agreed.turn(COMMIT)
        assert agreed.waiting(DIAGNOSIS) > 0
        assert (agreed.directory / "state" / JOURNAL).stat().st_size == 2 * 8_192
        with next_life(agreed) as again:
            assert sorted(powers_of(again)) == sorted(watts)


def test_a_clock_of_another_boot_takes_up_the_same(agreed: House) -> None:
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    agreed.vanish()
    later = ManualClock(agreed.clock.now().wall_ms + MINUTE, mono_ms=5_000, boot_id="b" * 36)
    with living(agreed.directory, later) as again:
        assert again.spool.lanes()[DIAGNOSIS].state is LaneState.OPEN
        assert powers_of(again) == [1, 2]


def test_a_copy_of_the_whole_state_goes_on_as_the_original(agreed: House, tmp_path: Path) -> None:
    agreed.powers(1, 2)
    agreed.turn(COMMIT)
    # As a power cut leaves it: without anything that was only in memory.
    copy = copied(agreed.directory, tmp_path / "copy")
    with living(copy, ManualClock(agreed.clock.now().wall_ms)) as again:
        assert powers_of(again) == [1, 2]
