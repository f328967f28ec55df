# SPDX-License-Identifier: Apache-2.0
"""The oracle bites: what is lost, doubled, foreign or undeclared is found, and nothing else is.

A gap counts only where the world knows of something that has it: a crash, a stop, a yes that nobody
was there to carry out, a disk that refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from tests.faults.history import SPAN, STEP_MS, History, Life, Step
from tests.faults.holdings import CRASH, OUTAGE, QUOTA, UNSEALED, Gap, Stored, Stream
from tests.faults.oracle import Judgement, judge

START_MS = 1_795_313_700_000
SECOND_MS = 10_000
"""The second life begins so long after the first; the first left 150 numbers, 3 s."""


def killed(**changes: object) -> Life:
    life = Life(rows=5_000, began_ms=START_MS - 500, answered_ms=START_MS)
    life.ended_ms = START_MS + 4_000
    for name, value in changes.items():
        setattr(life, name, value)
    return life


def stopped(**changes: object) -> Life:
    times = {"told_ms": START_MS + 3_000, "ended_ms": START_MS + 3_200, "least": 140}
    return killed(polite=True, **times | changes)


def second() -> Life:
    began_ms = START_MS + SECOND_MS - 200
    life = Life(rows=5_000, began_ms=began_ms, answered_ms=began_ms + 200, polite=True, least=990)
    life.told_ms, life.ended_ms = began_ms + 20_200, began_ms + 20_300
    return life


CRASHED = Gap(CRASH, START_MS + 1_000, START_MS + SECOND_MS + 2_000, 0)
STOOD = Gap(OUTAGE, START_MS + 3_000, START_MS + SECOND_MS, 0)

Rows = list[tuple[int, int]]
Change = Callable[[Rows], Rows]


def rows(second_life_ms: int = SECOND_MS, first: int = 150) -> Rows:
    def second(began: int, at: int) -> int:
        return (START_MS + began + at * STEP_MS) // 1000 * 1000

    return [(at, second(0, at)) for at in range(first)] + [
        (SPAN + at, second(second_life_ms, at)) for at in range(1_000)
    ]


def same(rows: Rows) -> Rows:
    return rows


def without(*numbers: int) -> Change:
    return lambda rows: [row for row in rows if row[0] not in numbers]


def judged(change: Change = same, *gaps: Gap, lives: Sequence[Life] | None = None) -> Judgement:
    return judge(Stored(change(rows()), gaps), History(lives or (killed(), second())))


def figures(found: Judgement) -> dict[str, int]:
    names = ("lost", "doubled", "foreign", "undeclared", "false")
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def test_what_is_stored_or_declared_is_in_order() -> None:
    found = judged(same, CRASHED)
    assert found.wrong == []
    assert found.stored == 1_150
    assert found.longest_loss_ms == pytest.approx(1_020, abs=STEP_MS)
    assert judged(same, STOOD, lives=(stopped(), second())).wrong == []


def gap(cause: int, first: int, last: int) -> Gap:
    return Gap(cause, START_MS + first, START_MS + last, 0)


VIOLATIONS = {
    "a number is missing in the middle": (without(SPAN + 600), (CRASHED,), {"lost": 1}),
    "the last numbers of a polite life are missing": (
        without(*range(SPAN + 950, SPAN + 1_000)),
        (CRASHED,),
        {"lost": 40},
    ),
    "a number is stored twice": (lambda rows: [*rows, rows[3]], (CRASHED,), {"doubled": 1}),
    "a number that no recording had": (
        lambda rows: [*rows, (5_000, START_MS)],
        (CRASHED,),
        {"foreign": 1},
    ),
    "nobody says that the program was down": (same, (), {"undeclared": 1}),
    "the gap ends too early": (same, (gap(CRASH, 1_000, 7_000),), {"undeclared": 1}),
    "the gap begins too late": (same, (gap(CRASH, 6_000, 12_000),), {"false": 1, "undeclared": 1}),
    "a gap claims what is stored": (
        same,
        (CRASHED, gap(CRASH, -40_000, SECOND_MS)),
        {"false": 1},
    ),
    "a gap has a cause that nothing explains": (
        same,
        (gap(QUOTA, 2_900, SECOND_MS),),
        {"false": 1, "undeclared": 1},
    ),
}


@pytest.mark.parametrize(("change", "gaps", "what"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_found_and_named(
    change: Change, gaps: tuple[Gap, ...], what: dict[str, int]
) -> None:
    found = judged(change, *gaps)
    assert figures(found) == what
    assert found.wrong


# Gaps that tell of no fault.

LONG = Life(
    rows=5_000,
    began_ms=START_MS - 500,
    answered_ms=START_MS,
    told_ms=START_MS + 80_000,
    ended_ms=START_MS + 80_100,
    polite=True,
    least=3_000,
)
"""One polite life of 80 s."""


def of_one_life(*gaps: Gap, missing: range, life: Life = LONG) -> Judgement:
    stored = [row for row in rows(first=4_000) if row[0] < SPAN and row[0] not in missing]
    return judge(Stored(stored, gaps), History([life]))


@pytest.mark.parametrize("cause", [CRASH, OUTAGE])
def test_a_gap_without_its_fault_excuses_nothing(cause: int) -> None:
    hole = range(1_000, 3_000)  # 40 s in the middle
    found = of_one_life(gap(cause, 20_000, 60_000), missing=hole)
    assert figures(found) == {"lost": 2_000, "false": 1}
    assert of_one_life(missing=range(0)).wrong == []


@pytest.mark.parametrize(("taken_ms", "is_too_much"), [(1_900, False), (2_200, True)])
def test_a_crash_takes_a_commit_interval_and_no_more(taken_ms: int, is_too_much: bool) -> None:
    lives = (killed(ended_ms=START_MS + 2_980 + taken_ms), second())
    assert bool(judged(same, CRASHED, lives=lives).lost) is is_too_much


def test_a_crash_that_takes_forty_seconds_is_found_behind_a_gap_of_forty_seconds() -> None:
    life = dataclasses.replace(LONG, polite=False, told_ms=0)
    found = of_one_life(gap(CRASH, 40_000, 82_000), missing=range(2_000, 4_000), life=life)
    assert found.lost > 1_800
    assert found.false == 1
    assert found.longest_loss_ms == pytest.approx(40_100, abs=2 * STEP_MS)


def test_a_crash_may_take_more_of_what_had_no_processor_and_no_more_than_that() -> None:
    """Its commit was due, and nobody let it run; the last stored number is 3 s before the end."""
    late = [killed(starved_ms=ms, ended_ms=START_MS + 5_980) for ms in (0, 900, 1_100)]
    found = [judged(same, CRASHED, lives=(life, second())) for life in late]
    assert [one.lost > 0 for one in found] == [True, True, False]


def test_a_life_of_which_nothing_is_stored_took_too_much() -> None:
    dead = (killed(began_ms=START_MS - 90_000, answered_ms=START_MS - 89_000), second())
    found = judged(without(*range(150)), gap(CRASH, -1_000, SECOND_MS), lives=dead)
    assert found.lost > 0


def test_a_gap_of_one_life_is_not_explained_by_the_fault_of_another() -> None:
    lives = (killed(explains=frozenset({UNSEALED})), second())
    early, late = gap(UNSEALED, 1_000, 2_000), gap(UNSEALED, 22_000, 23_000)
    assert judged(same, CRASHED, early, lives=lives).wrong == []
    assert figures(judged(same, CRASHED, late, lives=lives)) == {"false": 1}


def test_a_crash_is_no_stop_and_a_stop_is_no_crash() -> None:
    assert judged(same, STOOD).false == 1
    assert judged(same, gap(CRASH, 1_000, SECOND_MS), lives=(stopped(), second())).false == 1


def test_a_yes_while_nobody_is_at_work_is_an_outage_until_somebody_is() -> None:
    late = gap(OUTAGE, 5_000, SECOND_MS)
    stored = Stored(rows(), (CRASHED, late))
    assert judge(stored, History((killed(), second()), [START_MS + 5_000])).wrong == []
    assert judge(stored, History((killed(), second()))).false == 1


def test_a_disk_that_refuses_may_keep_nothing_meanwhile() -> None:
    refused = killed(ended_ms=START_MS + 9_000, explains=frozenset({UNSEALED}))
    assert judged(same, CRASHED, lives=(refused, second())).wrong == []
    assert judged(same, CRASHED, lives=(killed(ended_ms=START_MS + 9_000), second())).lost > 0


# Numbers of batches.


def of_streams(*streams: Stream, gaps: tuple[Gap, ...] = ()) -> Judgement:
    stored = Stored(rows(), (CRASHED, *gaps), dict(enumerate(streams)))
    lives = (killed(explains=frozenset({QUOTA})), second())
    return judge(stored, History(lives))


def test_batches_are_without_holes_or_declared() -> None:
    holed = Stream([0, 1, 4])
    assert of_streams(Stream([0, 1, 2], 3), Stream([0, 1])).wrong == []
    assert of_streams(holed).undeclared == 2
    dropped = Gap(QUOTA, START_MS, START_MS + 1_000, 40, (2, 4), stream=0)
    assert of_streams(holed, gaps=(dropped,)).wrong == []
    assert of_streams(holed, gaps=(dataclasses.replace(dropped, stream=1),)).undeclared == 2


def test_a_stream_ends_where_it_says_and_only_the_last_goes_on() -> None:
    assert of_streams(Stream([0, 1], 3), Stream([0])).undeclared == 1
    assert of_streams(Stream([0, 1], 1), Stream([0])).undeclared == 1
    assert of_streams(Stream([0, 1]), Stream([0])).undeclared == 1


# Edges.


def test_a_restart_too_short_to_be_seen_must_be_declared_as_well() -> None:
    lives = (killed(ended_ms=START_MS + 3_020), second())
    assert judge(Stored(rows(3_400), ()), History(lives)).undeclared == 1
    told = gap(CRASH, 1_000, 4_000)
    assert judge(Stored(rows(3_400), (told,)), History(lives)).wrong == []


def test_a_first_life_that_left_nothing_is_declared_as_well() -> None:
    late = [row for row in rows() if row[0] >= SPAN]
    lives = (killed(answered_ms=0), second())
    assert judge(Stored(late, ()), History(lives)).undeclared == 1
    assert judge(Stored(late, (gap(CRASH, 0, SECOND_MS + 2_000),)), History(lives)).wrong == []


def test_a_clock_that_was_set_is_reckoned_with() -> None:
    """It stood an hour ahead from the beginning, and was put right between the two lives."""
    ahead_ms = 3_600_000
    steps = (Step(START_MS - 1_000, ahead_ms), Step(START_MS + 6_000, 0))
    stored = [(n, at + ahead_ms if n < SPAN else at) for n, at in rows()]
    history = History((killed(), second()), steps=steps)
    told = Gap(CRASH, CRASHED.first_ms + ahead_ms, CRASHED.last_ms, 0)
    assert judge(Stored(stored, (told,)), history).wrong == []
    assert judge(Stored(stored, ()), history).undeclared == 1
    unmoved = judge(Stored(rows(), (told,)), history)
    assert unmoved.foreign == 150
    assert unmoved.stored == 1_000


def test_what_lies_between_bounds_is_not_dated_by_what_is_stored() -> None:
    """The boot of the first life began at any time: its numbers are stored as of an hour before."""
    stored = [(n, at - 3_600_000 if n < SPAN else at) for n, at in rows()]
    lost = killed()
    lost.lose_boot()
    assert judge(Stored(stored, (CRASHED,)), History((lost, second()))).wrong == []
    assert judge(Stored(stored, (CRASHED,)), History((killed(), second()))).wrong != []
