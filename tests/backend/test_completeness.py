# SPDX-License-Identifier: Apache-2.0
"""What is missing is told with its cause, or told to have none; in a real store."""

from __future__ import annotations

import datetime as dt
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assent.backend.ingest import judge
from assent.backend.store import Store, Taken
from assent.backend.store.completeness import Day, Hole, days, holes
from assent.backend.store.hearing import State
from assent.columns import Column, Kind, Table
from assent.cosekey import SealPrivateKey
from assent.envelope import Gap, GapCause
from tests.backend.parts import NOW_MS, PSEUDONYM, START_MS, TENTH, Hand, desk

OURS = SealPrivateKey.generate(classical=True)
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)
FLOW = "remote-diagnosis"
ROWS = 3
"""Readings in each batch here."""
STEP_MS = 60_000
DAY_MS = 86_400_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def batch(
    stream: int, sequence: int, at_ms: int, gaps: Sequence[Gap] = (), hand: Hand = HAND
) -> Taken:
    """A batch of three readings, one a second."""
    times = tuple(at_ms + 1_000 * row for row in range(ROWS))
    column = Column("appliance.power", Kind.NUMBER, (1_000,) * ROWS, TENTH)
    table = Table(PSEUDONYM, times, (column,))
    data = hand.batch(OURS.public, [table], stream=stream, sequence=sequence, gaps=tuple(gaps))
    return Taken(judge(hand.topic, data, DESK), data, NOW_MS)


def missing(store: Store) -> list[Hole]:
    (chain,) = store.chains.all(FLOW)
    return holes(chain)


def gap(cause: GapCause, stream: int, **more: int) -> Gap:
    told = {"id": 1, "first_ms": START_MS, "last_ms": START_MS + STEP_MS, "readings": 0}
    return Gap(cause=cause, stream=stream, **{**told, **more})


def ended(stream: int, following: int) -> Gap:
    return Gap(99, stream, GapCause.ENDED, 0, 0, 0, following, following)


def test_what_came_whole_is_complete(store: Store) -> None:
    """In any order, twice, and over two streams."""
    first = [batch(1, n, START_MS + n * STEP_MS) for n in range(4)]
    second = [batch(2, 0, START_MS + 4 * STEP_MS, [ended(1, 4)])]
    store.put([*reversed(second), *reversed(first), *first])
    assert missing(store) == []


def test_a_number_that_never_came_is_unexplained_and_lies_between_its_neighbours(
    store: Store,
) -> None:
    store.put([batch(1, n, START_MS + n * STEP_MS) for n in (0, 1, 4)])
    (hole,) = missing(store)
    assert (hole.cause, hole.stream, hole.numbers) == (None, 1, (2, 4))
    assert hole.span == (START_MS + STEP_MS + 2_000, START_MS + 4 * STEP_MS)


def test_the_last_batches_of_a_stream_are_missed_once_its_end_is_told(store: Store) -> None:
    """Red without ends: what is lost at the end of a stream is never missed."""
    store.put([batch(1, 0, START_MS), batch(2, 0, START_MS + STEP_MS, [ended(1, 3)])])
    (hole,) = missing(store)
    assert (hole.cause, hole.stream, hole.numbers) == (None, 1, (1, 3))


def test_a_stream_that_was_never_heard_of_is_missed_once_its_end_is_told(store: Store) -> None:
    store.put([batch(2, 0, START_MS, [ended(1, 2)])])
    (hole,) = missing(store)
    assert (hole.cause, hole.stream, hole.numbers, hole.span) == (None, 1, (0, 2), (None, START_MS))


def test_an_older_stream_whose_end_nobody_told_may_lack_anything(store: Store) -> None:
    store.put([batch(1, 0, START_MS)])
    assert missing(store) == []  # it goes on
    store.put([batch(2, 0, START_MS + STEP_MS)])
    (hole,) = missing(store)
    assert (hole.cause, hole.stream, hole.numbers) == (None, 1, (1, None))


def test_more_numbers_than_a_stream_ever_gave_are_an_old_copy(store: Store) -> None:
    first = [batch(1, n, START_MS + n * STEP_MS) for n in range(4)]
    store.put([*first, batch(2, 0, START_MS + 9 * STEP_MS, [ended(1, 2)])])
    (hole,) = missing(store)
    assert (hole.cause, hole.stream, hole.numbers) == (None, 1, (2, None))


@pytest.mark.parametrize("cause", [GapCause.QUOTA, GapCause.AGE, GapCause.REFUSED])
def test_numbers_that_a_gap_names_are_explained_with_their_readings(
    store: Store, cause: GapCause
) -> None:
    told = gap(cause, 1, readings=2 * ROWS, begin=1, end=3)
    store.put([batch(1, 0, START_MS), batch(1, 3, START_MS + 3 * STEP_MS, [told])])
    (hole,) = missing(store)
    assert (hole.cause, hole.readings, hole.numbers) == (cause, 2 * ROWS, (1, 3))
    assert hole.span == (told.first_ms, told.last_ms)


def test_a_gap_explains_no_number_but_its_own(store: Store) -> None:
    told = gap(GapCause.QUOTA, 1, readings=ROWS, begin=1, end=2)
    store.put([batch(1, 0, START_MS), batch(1, 3, START_MS + 3 * STEP_MS, [told])])
    assert [(hole.cause, hole.numbers) for hole in missing(store)] == [
        (GapCause.QUOTA, (1, 2)),
        (None, (2, 3)),
    ]


def test_a_batch_that_came_all_the_same_is_not_missing(store: Store) -> None:
    told = gap(GapCause.QUOTA, 1, readings=2 * ROWS, begin=1, end=3)
    store.put([batch(1, 0, START_MS), batch(1, 3, START_MS + 3 * STEP_MS, [told])])
    store.put([batch(1, 1, START_MS + STEP_MS)])
    (hole,) = missing(store)
    assert (hole.readings, hole.numbers) == (ROWS, (2, 3))
    store.put([batch(1, 2, START_MS + 2 * STEP_MS)])
    assert missing(store) == []


def test_a_choice_explains_whatever_its_stream_lacks_and_nothing_of_another(store: Store) -> None:
    told = gap(GapCause.PURGE, 1)
    store.put([batch(1, 0, START_MS), batch(1, 2, START_MS + STEP_MS)])
    store.put([batch(3, 0, START_MS + 2 * STEP_MS), batch(2, 0, START_MS + 9 * STEP_MS, [told])])
    assert [(hole.cause, hole.stream, hole.readings) for hole in missing(store)] == [
        (GapCause.PURGE, None, None),
        (None, 3, None),
    ]


def test_a_lost_spool_explains_ends_that_were_not_told_and_no_number_in_between(
    store: Store,
) -> None:
    lost = gap(GapCause.LOST, 2, last_ms=START_MS + 8 * STEP_MS)
    store.put([batch(1, 0, START_MS), batch(1, 2, START_MS + STEP_MS)])
    store.put([batch(3, n, START_MS + (3 + n) * STEP_MS) for n in range(3)])
    store.put([batch(2, 0, START_MS + 9 * STEP_MS, [lost, ended(3, 1)])])
    assert [(hole.cause, hole.stream, hole.numbers) for hole in missing(store)] == [
        (GapCause.LOST, None, None),
        (None, 1, (1, 2)),
    ]


def test_a_gap_of_another_gateway_or_another_flow_explains_nothing(store: Store) -> None:
    told = gap(GapCause.QUOTA, 1, readings=ROWS, begin=1, end=2)
    store.put([batch(1, 0, START_MS), batch(1, 2, START_MS + STEP_MS)])
    store.put([batch(7, 0, START_MS, [told, ended(1, 1)], hand=OTHER)])
    mine = next(one for one in store.chains.all(FLOW) if one.mailbox == HAND.mailbox)
    assert [(hole.cause, hole.numbers) for hole in holes(mine)] == [(None, (1, 2))]


def test_the_word_about_a_boot_is_no_hole(store: Store) -> None:
    store.put([batch(1, 0, START_MS, [gap(GapCause.BOOT, 7)])])
    assert missing(store) == []


def test_days_are_cut_at_midnight_and_count_readings_once() -> None:
    midnight = START_MS + DAY_MS
    span = (midnight - 1_000, midnight + DAY_MS)
    hole = Hole(State.DECLARED, span, 7, cause=GapCause.SILENT)
    undated = Hole(State.UNDATED, (None, None))
    found = days([hole, undated], (START_MS - DAY_MS, midnight + 2 * DAY_MS - 1))
    first = dt.date(2026, 11, 21)
    assert [(one.day, [part.readings for part in one.holes]) for one in found] == [
        (first, []),
        (first + dt.timedelta(1), [7]),
        (first + dt.timedelta(2), [None]),
        (first + dt.timedelta(3), []),
        (None, [None]),
    ]
    assert found[1].holes[0].span == (midnight - 1_000, midnight)
    assert found[2] == Day(
        first + dt.timedelta(2),
        (Hole(State.DECLARED, (midnight, midnight + DAY_MS), cause=GapCause.SILENT),),
    )


@pytest.mark.parametrize(
    ("cause", "numbers"),
    [
        (GapCause.QUOTA, (1, 2)),
        (GapCause.UNSEALED, (1, 1)),
        (GapCause.REFUSED, (1, 1)),
    ],
    ids=["dropped", "never sealed", "forked"],
)
def test_a_day_of_which_only_the_first_second_is_missing_is_not_complete(
    store: Store, cause: GapCause, numbers: tuple[int, int]
) -> None:
    """What is missing had its last row at midnight, as the day's first window has it."""
    begin, following = numbers
    span = {"first_ms": START_MS - 2_000, "last_ms": START_MS, "begin": begin, "end": following}
    lost = gap(cause, 1, readings=ROWS, **span)
    store.put([batch(1, 0, START_MS - STEP_MS), batch(1, following, START_MS + 1_000, [lost])])
    (chain,) = store.chains.all(FLOW)
    found = days(holes(chain), chain.span)
    assert [(one.day, [part.readings for part in one.holes]) for one in found] == [
        (dt.date(2026, 11, 21), [ROWS]),
        (dt.date(2026, 11, 22), [None]),
    ]


def test_a_time_that_ends_at_midnight_is_none_of_the_next_day() -> None:
    outage = Hole(State.DECLARED, (START_MS - 1_000, START_MS), cause=GapCause.OUTAGE)
    before, after = days([outage], (START_MS - STEP_MS, START_MS + STEP_MS))
    assert (len(before.holes), len(after.holes)) == (1, 0)


# --- anything lost, anything declared, against plain rules ------------------------------------------


class Fate:
    """What became of one batch."""

    STORED, LOST, DROPPED, BOTH = range(4)


STREAMS = st.lists(st.lists(st.sampled_from(range(4)), max_size=6), min_size=1, max_size=4)


@given(fates=STREAMS, draw=st.randoms(use_true_random=False))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_lost_and_declared_the_holes_are_what_plain_rules_say(
    fates: list[list[int]],
    draw: random.Random,
) -> None:
    came = [
        (stream, n)
        for stream, row in enumerate(fates)
        for n, fate in enumerate(row)
        if fate in {Fate.STORED, Fate.BOTH}
    ]
    told = [ended(stream, len(row)) for stream, row in enumerate(fates[:-1]) if row]
    for stream, row in enumerate(fates):
        for n, fate in enumerate(row):
            if fate in {Fate.DROPPED, Fate.BOTH}:
                told.append(gap(GapCause.QUOTA, stream, id=n, readings=ROWS, begin=n, end=n + 1))
    carried: dict[tuple[int, int], list[Gap]] = {one: [] for one in came}
    heard = set()
    for one in told:
        for place in draw.sample(came, draw.randint(0, len(came))):
            carried[place].append(one)
            heard.add(one)
    taken = [
        batch(stream, n, START_MS + (10 * stream + n) * STEP_MS, carried[stream, n])
        for stream, n in came
    ]
    draw.shuffle(taken)
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory))
        for arrived in taken:
            store.put([arrived])
        found = [hole for chain in store.chains.all() for hole in holes(chain)]
        store.close()
    assert _told(found) == _by_rules(fates, set(came), heard)
    assert came or found == []


_Missing = tuple[set[Any], set[Any], int, set[Any]]
"""Numbers that nothing explains, those dropped, readings in these, streams without an end."""


def _by_rules(fates: list[list[int]], came: set[tuple[int, int]], heard: set[Gap]) -> _Missing:
    ends = {one.stream: one.begin for one in heard if one.cause is GapCause.ENDED}
    named = {(one.stream, one.begin) for one in heard if one.cause is GapCause.QUOTA}
    reach = {stream: max(n for s, n in came if s == stream) + 1 for stream, _ in came}
    known = {
        (stream, n)
        for stream in range(len(fates))
        for n in range(ends.get(stream, reach.get(stream, 0)))
    }
    dropped = {(stream, (n, n + 1)) for stream, n in named - came}
    open_ended = {stream for stream in reach if stream not in ends}
    open_ended -= {max(open_ended, default=None)}
    return known - came - named, dropped, ROWS * len(dropped), open_ended


def _told(found: list[Hole]) -> _Missing:
    bare = {
        (hole.stream, n)
        for hole in found
        if hole.cause is None and hole.numbers and hole.numbers[1] is not None
        for n in range(hole.numbers[0], hole.numbers[1])
    }
    declared = [hole for hole in found if hole.cause is GapCause.QUOTA]
    dropped = {(hole.stream, hole.numbers) for hole in declared}
    open_ended = {hole.stream for hole in found if hole.numbers and hole.numbers[1] is None}
    return bare, dropped, sum(hole.readings or 0 for hole in declared), open_ended
