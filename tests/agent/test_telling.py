# SPDX-License-Identifier: Apache-2.0
"""What a flow missed is told by its lane: when it stood still, by choice, or with its spool."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.halves import Halves
from agent.records import Record, State
from agent.records.unbroken import ended_before
from agent.site import SPOOL
from agent.spool import Spool
from agent.twin import NAME, Twin
from assent.envelope import Gap, GapCause
from assent.errors import PolicyError
from assent.messages import RefusalReason, Refused, StreamAck
from tests.agent.installed import (
    ADVICE,
    CORE,
    DAY,
    DIAGNOSIS,
    FAULT,
    HOUR,
    MINUTE,
    POWER,
    SECOND,
    YES,
    House,
    copied,
    form,
    living,
    read_only,
    replaced,
    values,
)
from tests.simulators.clock import START_MS, ManualClock


@pytest.fixture
def agreed(house: House) -> House:
    """Every flow is on, and has stored and sealed some readings."""
    house.decide(YES)
    house.powers(1, 2, 3)
    house.pipeline.flush()
    return house


def told(house: House, flow: str = DIAGNOSIS) -> list[tuple[GapCause, int, int]]:
    """What is to be told of a flow but the ends of streams: cause, from and to."""
    return [
        (gap.cause, gap.first_ms, gap.last_ms)
        for gap in house.spool.gaps_for(flow)
        if gap.cause is not GapCause.ENDED
    ]


def gaps(house: House, cause: GapCause, flow: str = DIAGNOSIS) -> list[Gap]:
    return [gap for gap in house.spool.gaps_for(flow) if gap.cause is cause]


def say_yes(house: House) -> None:
    """A yes after a no: with an instant of its own."""
    moment = dt.datetime.fromtimestamp(house.clock.now().wall_ms // SECOND, dt.UTC)
    house.decide({DIAGNOSIS: f'{{ decision = "given", on = {moment:%Y-%m-%dT%H:%M:%SZ} }}'})


def whole(ms: int, *, up: bool = False) -> int:
    return -(-ms // SECOND) * SECOND if up else ms // SECOND * SECOND


def later(house: House, ms: int, then: Callable[[Path], None] = lambda _: None) -> House:
    """Stops a house in order, lets time pass and something happen, and starts it again."""
    house.close()
    house.clock.advance(ms)
    then(house.directory)
    return House(house.directory, house.clock).start()


# The gateway stands still.


def test_a_stop_that_was_ordered_is_an_outage_until_the_next_start(agreed: House) -> None:
    agreed.turn()
    stopped_ms = agreed.clock.now().wall_ms
    again = later(agreed, HOUR)
    try:
        began_ms = again.clock.now().wall_ms
        for flow in (CORE, DIAGNOSIS, ADVICE):
            assert told(again, flow) == [
                (GapCause.OUTAGE, whole(stopped_ms), whole(began_ms, up=True))
            ]
        assert again.spool.absences() == {}
    finally:
        again.close()


def test_a_pause_is_an_outage_for_the_flows_it_holds_back_and_for_no_other(agreed: House) -> None:
    form = agreed.directory / "consent.toml"
    form.write_text("nonsense")
    agreed.reload()
    paused_ms = agreed.clock.now().wall_ms
    agreed.turn(HOUR)
    assert told(agreed) == []
    form.unlink()
    agreed.reload()
    assert told(agreed) == [
        (GapCause.OUTAGE, whole(paused_ms), whole(agreed.clock.now().wall_ms, up=True))
    ]
    assert told(agreed, CORE) == []


def test_a_yes_that_nobody_was_there_to_carry_out_is_an_outage_until_its_lane_opens(
    house: House,
) -> None:
    house.close()
    house.clock.advance(HOUR)
    with living(house.directory, house.clock) as first:
        first.decide(YES)
        said_ms = first.clock.now().wall_ms
        assert told(first) == []  # it was opened at once
        (first.directory / "state" / SPOOL).unlink()  # and nobody ever was there to do so
        (first.directory / "state" / NAME).unlink(missing_ok=True)
        first.pipeline.stop = lambda: None  # type: ignore[method-assign]
    house.clock.advance(HOUR)
    (house.directory / "state" / NAME).unlink(missing_ok=True)
    with living(house.directory, house.clock) as again:
        outage = next(one for one in told(again) if one[0] is GapCause.OUTAGE)
        assert outage == (
            GapCause.OUTAGE,
            whole(said_ms),
            whole(again.clock.now().wall_ms, up=True),
        )


# By choice.


@pytest.mark.clause("C28")
def test_what_a_no_took_is_told_after_a_later_yes_from_the_one_to_the_other(
    agreed: House,
) -> None:
    streams = {agreed.spool.lanes()[DIAGNOSIS].stream}
    agreed.turn(MINUTE)
    agreed.decide({DIAGNOSIS: '"refused"'})
    no_ms = agreed.clock.now().wall_ms
    agreed.turn(DAY)
    assert agreed.spool.gaps_for(DIAGNOSIS) == ()
    say_yes(agreed)
    yes_ms = agreed.clock.now().wall_ms
    streams.add(agreed.spool.lanes()[DIAGNOSIS].stream)
    found = gaps(agreed, GapCause.PURGE)
    assert {(gap.first_ms, gap.last_ms) for gap in found} == {
        (whole(no_ms), whole(yes_ms, up=True))
    }
    assert {gap.stream for gap in found} == streams
    assert {(gap.readings, gap.begin, gap.end) for gap in found} == {(0, 0, 0)}
    assert gaps(agreed, GapCause.ENDED) == []  # it would tell how much was deleted
    assert told(agreed, CORE) == []


def test_the_span_of_a_choice_is_the_ledgers_where_nobody_was_there(agreed: House) -> None:
    """A no and a yes while the agent stands still: the ledger dates both."""
    agreed.turn(MINUTE)
    agreed.close()
    agreed.clock.advance(HOUR)
    offline = House(agreed.directory, agreed.clock)
    offline.desk._running = False
    offline.decide({DIAGNOSIS: '"refused"'})
    no_ms = offline.clock.now().wall_ms
    offline.clock.advance(HOUR)
    say_yes(offline)
    yes_ms = offline.clock.now().wall_ms
    offline.spool.close()
    again = later(offline, HOUR)
    try:
        found = told(again)
        assert (GapCause.PURGE, whole(no_ms), whole(yes_ms, up=True)) in found
        began_ms = again.clock.now().wall_ms
        assert (GapCause.OUTAGE, whole(yes_ms), whole(began_ms, up=True)) in found
    finally:
        again.close()


def test_a_narrowing_is_told_from_the_oldest_that_it_deleted(agreed: House) -> None:
    oldest_ms = agreed.spool.waiting()[DIAGNOSIS].oldest_ms
    assert oldest_ms is not None
    agreed.turn(MINUTE)
    agreed.decide({DIAGNOSIS: '{ decision = "given", without = ["device.serial"] }'})
    narrowed_ms = agreed.clock.now().wall_ms
    found = gaps(agreed, GapCause.PURGE)
    assert {(gap.first_ms, gap.last_ms) for gap in found} == {
        (whole(oldest_ms), whole(narrowed_ms, up=True))
    }


@pytest.mark.clause("C33")
@pytest.mark.parametrize("how", ["a command", "its form", "its policy"])
def test_a_narrowing_while_the_gateway_stands_still_is_told_from_the_oldest_that_it_deleted(
    agreed: House, how: str
) -> None:
    """Red where only a lane that runs tells what is taken of it: numbers are missing for ever."""
    oldest_ms = agreed.spool.waiting()[DIAGNOSIS].oldest_ms
    assert oldest_ms is not None
    streams = {agreed.spool.lanes()[DIAGNOSIS].stream}
    narrower = {DIAGNOSIS: '{ decision = "given", without = ["device.serial"] }'}
    agreed.close()
    agreed.clock.advance(HOUR)
    again = House(agreed.directory, agreed.clock)
    if how == "a command":
        again.desk._running = False
        again.decide(narrower)
        again.spool.close()
        again = House(agreed.directory, agreed.clock)
    elif how == "its form":
        text = form(narrower, again.clock.now().wall_ms)
        (again.directory / "consent.toml").write_text(text)
    else:
        again.spool.close()
        again.publish(replaced('"appliance.power" = "round(1)"', '"appliance.power" = "round(10)"'))
        again = House(agreed.directory, agreed.clock)
    again.start()
    try:
        assert again.waiting(DIAGNOSIS) == 0
        found = gaps(again, GapCause.PURGE)
        began_ms = again.clock.now().wall_ms
        assert {(gap.first_ms, gap.last_ms) for gap in found} == {
            (whole(oldest_ms), whole(began_ms, up=True))
        }
        assert streams < {gap.stream for gap in found}
        assert again.spool.absences() == {}
    finally:
        again.close()


def test_a_narrowing_of_a_lane_that_held_nothing_is_told_from_its_stop_on(house: House) -> None:
    """Red where it starts with the narrowing: the stop is forgotten with all else of the flow."""
    house.decide(YES)
    stopped_ms = house.clock.now().wall_ms
    house.close()
    house.clock.advance(HOUR)
    offline = House(house.directory, house.clock)
    offline.desk._running = False
    offline.decide({DIAGNOSIS: '{ decision = "given", without = ["device.serial"] }'})
    offline.spool.close()
    with living(house.directory, house.clock) as again:
        assert {gap.first_ms for gap in gaps(again, GapCause.PURGE)} == {whole(stopped_ms)}


@pytest.mark.clause("C33")
def test_a_narrowing_that_comes_with_the_time_is_told_from_the_oldest_that_it_deleted(
    agreed: House,
) -> None:
    """Red where a lane that was held until then tells nothing: its numbers are missing for ever."""
    oldest_ms = agreed.spool.waiting()[DIAGNOSIS].oldest_ms
    assert oldest_ms is not None
    streams = {agreed.spool.lanes()[DIAGNOSIS].stream}
    agreed.close()
    narrower = {DIAGNOSIS: '{ decision = "given", without = ["device.serial"] }'}
    text = form(narrower, agreed.clock.now().wall_ms)
    (agreed.directory / "consent.toml").write_text(text)
    clock = ManualClock(0, mono_ms=SECOND, trusted=False, boot_id="another")
    with living(agreed.directory, clock) as again:
        again.powers(7, 8)
        again.pipeline.flush()
        streams.add(again.spool.lanes()[DIAGNOSIS].stream)
        clock.step(START_MS + 3 * HOUR)
        clock.trusted = True
        again.reload()
        assert again.waiting(DIAGNOSIS) == 0
        found = gaps(again, GapCause.PURGE)
        began_ms = clock.now().wall_ms
        assert {(gap.first_ms, gap.last_ms) for gap in found} == {
            (whole(oldest_ms), whole(began_ms, up=True))
        }
        assert streams < {gap.stream for gap in found}
        assert again.spool.absences() == {}


def test_a_lane_that_was_shut_and_nobody_lived_to_note_it_tells_what_was_taken(
    agreed: House,
) -> None:
    """Red where only what was noted is told: a crash between two writings hides what is missing."""
    oldest_ms = agreed.spool.waiting()[DIAGNOSIS].oldest_ms
    assert oldest_ms is not None
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    agreed.spool.close_lane(DIAGNOSIS)
    agreed.vanish()
    agreed.clock.advance(HOUR)
    with living(agreed.directory, agreed.clock) as again:
        found = gaps(again, GapCause.PURGE)
        assert stream in {gap.stream for gap in found}
        assert {gap.first_ms for gap in found} == {whole(oldest_ms)}


def test_a_later_start_tells_of_a_choice_no_second_time(agreed: House) -> None:
    agreed.decide({DIAGNOSIS: '"refused"'})
    agreed.turn(HOUR)
    say_yes(agreed)
    first = {gap.id for gap in gaps(agreed, GapCause.PURGE)}
    assert first
    again = later(agreed, HOUR)
    try:
        assert {gap.id for gap in gaps(again, GapCause.PURGE)} == first
    finally:
        again.close()


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], None),
        ([("yes", 10)], None),
        ([("yes", 10), ("no", 20)], 20),
        ([("yes", 10), ("no", 20), ("no", 30)], 20),
        ([("yes until 15", 10), ("no", 20)], 15),
        ([("yes until 15", 10)], 15),
        ([("no", 10)], None),
        ([("yes", 10), ("no", 20), ("yes", 50)], 20),
        ([("yes", 10), ("no", 20), ("yes", 25), ("no", 30), ("yes", 50)], 30),
    ],
    ids=[
        "nobody said anything",
        "a yes that is the unbroken one's own elder",
        "a no",
        "two noes: the first",
        "an end before the no",
        "an end alone",
        "never a yes",
        "the yes itself does not count",
        "the last of two",
    ],
)
def test_a_yes_ended_where_the_ledger_says(
    records: list[tuple[str, int]], expected: int | None
) -> None:
    since_ms = 50 if records != [("yes", 10)] else 10
    assert ended_before([_record(*one) for one in records], since_ms) == expected


def _record(word: str, at_ms: int) -> Record:
    until = int(word.rpartition(" ")[2]) if "until" in word else None
    return Record(
        flow=DIAGNOSIS,
        state=State.GIVEN if word.startswith("yes") else State.WITHDRAWN,
        terms=None,
        policy_version="1",
        decided_by="owner",
        recorded_by="owner",
        method="test",
        decided_ms=at_ms,
        until_ms=until,
        id=bytes(16),
        at_ms=at_ms,
    )


# The spool is gone.


def _drop_spool(directory: Path) -> None:
    (directory / "state" / SPOOL).unlink()


def _damage_spool(directory: Path) -> None:
    (directory / "state" / SPOOL).write_bytes(b"no spool " * 1_000)


@pytest.mark.parametrize("happens", [_drop_spool, _damage_spool], ids=["deleted", "damaged"])
def test_a_spool_that_was_lost_is_declared_by_each_flow_that_had_a_lane(
    agreed: House, happens: Callable[[Path], None]
) -> None:
    oldest_ms = agreed.spool.waiting()[DIAGNOSIS].oldest_ms
    assert oldest_ms is not None
    before = agreed.spool.lanes()[DIAGNOSIS].stream
    again = later(agreed, HOUR, happens)
    try:
        began_ms = again.clock.now().wall_ms
        (gap,) = gaps(again, GapCause.LOST)
        assert (gap.first_ms, gap.last_ms) == (whole(oldest_ms), whole(began_ms, up=True))
        assert gap.stream == again.spool.lanes()[DIAGNOSIS].stream != before
        assert GapCause.OUTAGE not in {cause for cause, _, _ in told(again)}
        again.turn(2 * SECOND)
    finally:
        again.close()
    third = later(again, HOUR)
    try:
        assert len(gaps(third, GapCause.LOST)) == 1  # told once
    finally:
        third.close()


def test_an_old_spool_that_was_put_back_is_declared_as_lost(agreed: House, tmp_path: Path) -> None:
    """Red without the count: its batches were sent, and what came after them is missed by nobody."""
    again = later(agreed, MINUTE)
    again.turn(2 * SECOND)
    again.close()
    kept = copied(again.directory / "state" / "spool", tmp_path / "kept")
    third = later(again, MINUTE)
    third.powers(4, 5)
    third.close()

    def put_back(directory: Path) -> None:
        shutil.rmtree(directory / "state" / "spool")
        shutil.copytree(kept, directory / "state" / "spool")

    fourth = later(third, MINUTE, put_back)
    try:
        assert len(gaps(fourth, GapCause.LOST)) == 1
    finally:
        fourth.close()


def test_a_lost_spool_is_told_from_the_oldest_that_a_lane_held_when_it_was_noted(
    agreed: House,
) -> None:
    """Red where a batch that was open when the twin was written counts from the writing."""
    noted = (agreed.directory / "state" / NAME).read_bytes
    agreed.turn(10 * MINUTE)  # it was written just now
    before = noted()
    agreed.turn(10 * MINUTE - 20 * SECOND)
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    agreed.spool.acknowledge("maker", [StreamAck(stream, 1, (), ())])
    agreed.powers(4)
    taken_ms = agreed.clock.now().wall_ms
    assert noted() == before
    agreed.turn(30 * SECOND)
    assert noted() != before
    assert agreed.waiting(DIAGNOSIS) == 0
    agreed.pipeline.flush()
    assert agreed.waiting(DIAGNOSIS) == 1
    agreed.vanish()  # and the power is gone
    again = House(*_lost(agreed)).start()
    try:
        (gap,) = gaps(again, GapCause.LOST)
        assert gap.first_ms <= taken_ms
    finally:
        again.close()


def _lost(house: House) -> tuple[Path, ManualClock]:
    shutil.rmtree((house.directory / "state" / SPOOL).parent)
    house.clock.advance(MINUTE)
    return house.directory, house.clock


def test_a_gap_that_nobody_was_told_of_is_not_lost_with_its_spool(agreed: House) -> None:
    """Red where only batches count as what waits: the gap is gone, and the loss begins later."""
    stream = agreed.spool.lanes()[DIAGNOSIS].stream or 0
    agreed.vanish()
    since_ms = agreed.clock.now().wall_ms
    agreed.clock.advance(HOUR)
    house = House(agreed.directory, agreed.clock).start()
    house.spool.acknowledge("maker", [StreamAck(stream, 1)])
    assert house.waiting(DIAGNOSIS) == 0
    assert len(gaps(house, GapCause.CRASH)) == 1
    house.turn(HOUR)
    house.close()
    for path in house.path.parent.glob("spool.db*"):
        path.unlink()
    house = House(house.directory, house.clock).start()
    (gap,) = gaps(house, GapCause.LOST)
    assert gap.first_ms <= since_ms
    house.close()


def test_a_pause_that_began_while_it_was_held_is_an_outage_until_its_lane_opens(
    agreed: House,
) -> None:
    """Red where it counts as held until then: what came since is said to be kept."""
    paper = agreed.directory / "consent.toml"
    agreed.clock.trusted = False
    agreed.turn(MINUTE)
    paper.write_text("no form")
    agreed.reload()
    paused_ms = agreed.clock.now().wall_ms
    agreed.turn(HOUR)
    agreed.clock.trusted = True
    agreed.turn(MINUTE)
    paper.unlink()
    agreed.reload()
    opened_ms = agreed.clock.now().wall_ms
    (gap,) = gaps(agreed, GapCause.OUTAGE)
    assert gap.first_ms <= paused_ms
    assert opened_ms <= gap.last_ms


def test_a_restart_alone_loses_nothing(agreed: House) -> None:
    """The twin of the two above."""
    agreed.turn(2 * SECOND)
    again = later(agreed, MINUTE)
    try:
        again.turn(2 * SECOND)
        assert gaps(again, GapCause.LOST) == []
        assert again.waiting(DIAGNOSIS) == 1
    finally:
        again.close()


def test_a_crash_between_the_two_writings_of_the_count_loses_nothing(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.db")
    spool.open_lane(DIAGNOSIS, "maker", 7, None)
    Twin(tmp_path / NAME, spool).note(START_MS)
    spool.count_up()  # and the power is gone
    assert Twin(tmp_path / NAME, spool).lost == {}
    spool._db.execute("UPDATE twin SET count=0")
    assert Twin(tmp_path / NAME, spool).lost == {DIAGNOSIS: START_MS}
    spool.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "[]\n",
        '{"spool": 1, "count": "x"}\n',
        '{"spool": "1", "count": 1e999, "since": {}, "lost": {}}\n',
    ],
    ids=repr,
)
def test_a_twin_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    spool = Spool.open(tmp_path / "spool.db")
    twin = Twin(tmp_path / NAME, spool)
    assert twin.lost == {}
    twin.note(START_MS)
    told = Halves(tmp_path / NAME).read()
    assert isinstance(told, dict)
    assert told["count"] == 1
    spool.close()


def test_a_fork_ends_its_stream_and_costs_no_other_flow_its_own(agreed: House) -> None:
    """Red without `renew`: an old copy goes on under numbers that were used up, and loses it all."""
    before = {flow: row.stream for flow, row in agreed.spool.lanes().items()}
    stream = before[DIAGNOSIS]
    assert stream is not None
    agreed.powers(7)  # in the open batch
    refused = (Refused(0, RefusalReason.FORK, retry=False),)
    agreed.receive("maker", agreed.acknowledgement("maker", [StreamAck(stream, 0, (), refused)]))
    agreed.turn()
    after = {flow: row.stream for flow, row in agreed.spool.lanes().items()}
    assert {flow for flow in after if after[flow] != before[flow]} == {DIAGNOSIS}
    agreed.powers(8)
    agreed.pipeline.flush()
    old, new = agreed.batches(DIAGNOSIS)
    assert (old.header.stream, old.header.sequence) == (stream, 1)
    assert (new.header.stream, new.header.sequence) == (after[DIAGNOSIS], 0)
    assert values([old, new], POWER) == [7, 8]
    (gap,) = gaps(agreed, GapCause.REFUSED)
    assert (gap.readings, gap.begin, gap.end) == (3, 0, 0)


# What could not be sealed or stored.


def test_what_could_not_be_sealed_is_declared_with_its_readings(
    agreed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealer = agreed.pipeline.running._outgoing._sealer
    assert sealer is not None

    def refuse(*_: object) -> None:
        raise PolicyError("no key")

    with monkeypatch.context() as patched:
        patched.setattr(sealer, "_key", refuse)
        agreed.powers(7, 8)
        agreed.pipeline.flush()
    (gap,) = gaps(agreed, GapCause.UNSEALED)
    assert gap.readings == agreed.pipeline.running.lost[DIAGNOSIS] == 2
    assert gap.last_ms == whole(agreed.clock.now().wall_ms, up=True)
    agreed.powers(9)
    agreed.pipeline.flush()
    sequences = [batch.header.sequence for batch in agreed.batches(DIAGNOSIS)]
    assert sequences == [0, 1]  # no number went with it


def test_what_the_disk_refused_until_its_stream_ended_is_declared_when_it_takes_it(
    agreed: House,
) -> None:
    with read_only(agreed.spool):
        agreed.bring(*[{FAULT: "leak"}] * 8)
        lost = sum(
            one.sealed.readings
            for one in agreed.pipeline.running._outgoing._unstored
            if one.sealed.flow == DIAGNOSIS
        )
        assert lost > 0
        stream = agreed.spool.lanes()[DIAGNOSIS].stream
        assert stream is not None
        agreed.pipeline.running._outgoing.forget(DIAGNOSIS, stream)
        agreed.pipeline.running._outgoing.enter(stream, 0)
        assert gaps(agreed, GapCause.UNSEALED) == []
    agreed.turn()
    (gap,) = gaps(agreed, GapCause.UNSEALED)
    assert gap.readings == lost


def test_what_the_disk_refused_of_a_boot_is_dated_with_the_rest_of_it(agreed: House) -> None:
    """Red where it is declared after its stream was resolved: it is of 1970 then."""
    agreed.clock.trusted = False
    agreed.turn()
    taken_ms = agreed.clock.now().wall_ms
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    with read_only(agreed.spool):
        agreed.bring({FAULT: "leak"})
        agreed.pipeline.running._outgoing.forget(DIAGNOSIS, stream)
        agreed.pipeline.running._outgoing.enter(stream, 0)
    agreed.clock.trusted = True
    agreed.turn()
    (gap,) = gaps(agreed, GapCause.UNSEALED)
    assert taken_ms <= gap.last_ms <= agreed.clock.now().wall_ms + SECOND


# Nobody knows the time.


def test_what_is_held_until_the_time_is_known_is_no_outage(agreed: House) -> None:
    """Red without `held`: the time is known after an hour, and the hour counts as missed."""
    agreed.turn()
    stopped_ms = agreed.clock.now().wall_ms
    agreed.close()
    agreed.clock.advance(HOUR)
    agreed.clock.trusted = False
    began_ms = agreed.clock.now().wall_ms
    with living(agreed.directory, agreed.clock) as again:
        again.turn(HOUR)
        assert told(again) == []
        again.clock.trusted = True
        again.turn(SECOND)
        assert (GapCause.OUTAGE, whole(stopped_ms), whole(began_ms, up=True)) in told(again)
        assert {cause for cause, _, _ in told(again)} == {GapCause.OUTAGE}


def test_what_is_held_over_a_crash_is_no_outage(agreed: House) -> None:
    """Red where a lane that is taken up does not note that it is held: the hour counts as missed."""
    agreed.turn()
    agreed.close()
    agreed.clock.advance(HOUR)
    agreed.clock.trusted = False
    dead = House(agreed.directory, agreed.clock).start()
    dead.powers(4)
    dead.turn(10 * SECOND)
    dead.vanish()
    again_ms = agreed.clock.now().wall_ms
    with living(agreed.directory, agreed.clock) as again:
        again.powers(5)
        again.turn(HOUR)
        again.clock.trusted = True
        again.turn(SECOND)
        (gap,) = gaps(again, GapCause.OUTAGE)
        assert gap.last_ms <= whole(again_ms + SECOND, up=True)


# A clock that was set back.


@pytest.mark.parametrize("how", ["while it runs", "between two lives", "and a life ends meanwhile"])
def test_what_a_clock_before_the_yes_leaves_out_is_declared_when_it_is_right_again(
    agreed: House, how: str
) -> None:
    house = agreed
    if how == "between two lives":
        house.close()
    since_ms = house.clock.now().wall_ms
    house.clock.step(-HOUR)
    if how == "between two lives":
        house = House(house.directory, house.clock).start()
    house.powers(4, 5)
    house.turn(10 * MINUTE)
    if how == "and a life ends meanwhile":
        house.close()
        house.clock.advance(MINUTE)
        house = House(house.directory, house.clock).start()
        house.powers(6)
    assert gaps(house, GapCause.CLOCK) == []
    house.clock.step(HOUR)
    house.turn(SECOND)
    until_ms = house.clock.now().wall_ms
    house.powers(8, 9)
    house.pipeline.flush()
    assert values(house.batches(DIAGNOSIS), POWER) == [1, 2, 3, 8, 9]
    (gap,) = gaps(house, GapCause.CLOCK)
    assert since_ms - 3 * SECOND <= gap.first_ms <= since_ms
    assert until_ms <= gap.last_ms <= until_ms + 3 * SECOND
    house.turn(MINUTE)
    assert gaps(house, GapCause.CLOCK) == [gap]
    house.close()


def test_the_twin_a_clock_that_is_set_back_to_after_the_yes_leaves_nothing_out(
    agreed: House,
) -> None:
    agreed.turn(2 * HOUR)
    agreed.clock.step(-HOUR)
    agreed.powers(4, 5)
    agreed.clock.step(HOUR)
    agreed.powers(6)
    agreed.pipeline.flush()
    assert sorted(values(agreed.batches(DIAGNOSIS), POWER)) == [1, 2, 3, 4, 5, 6]
    assert gaps(agreed, GapCause.CLOCK) == []


def test_a_no_while_the_clock_stands_before_the_yes_forgets_of_it(agreed: House) -> None:
    agreed.clock.step(-HOUR)
    agreed.turn(SECOND)
    assert (DIAGNOSIS, GapCause.CLOCK) in agreed.spool.absences()
    agreed.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
    agreed.turn(SECOND)
    assert (DIAGNOSIS, GapCause.CLOCK) not in agreed.spool.absences()
