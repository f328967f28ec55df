# SPDX-License-Identifier: Apache-2.0
"""The oracle bites: what is lost, doubled, foreign or undeclared is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.oracle import (
    CRASH,
    QUOTA,
    SPAN,
    STEP_MS,
    Gap,
    Judgement,
    Life,
    Stored,
    judge,
)

START_MS = 1_795_313_700_000
LIVES = (
    Life(rows=1_000, ended_ms=START_MS + 4_000),
    Life(rows=1_000, ended_ms=START_MS + 30_000, polite=True, least=990),
)
SECOND_MS = 10_000
"""The second life begins so long after the first; the first left 150 numbers, 3 s."""
CRASHED = Gap(CRASH, START_MS + 2_900, START_MS + SECOND_MS, 0)

Rows = list[tuple[int, int]]


def rows(second_life_ms: int = SECOND_MS) -> Rows:
    def second(began: int, at: int) -> int:
        return (START_MS + began + at * STEP_MS) // 1000 * 1000

    first = [(at, second(0, at)) for at in range(150)]
    return first + [(SPAN + at, second(second_life_ms, at)) for at in range(1_000)]


def without(*numbers: int) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if row[0] not in numbers]


def judged(change: Callable[[Rows], Rows] = lambda rows: rows, *gaps: Gap) -> Judgement:
    return judge(Stored(change(rows()), gaps), LIVES)


def test_what_is_stored_or_declared_is_in_order() -> None:
    found = judged(lambda rows: rows, CRASHED)
    assert found.wrong == []
    assert found.stored == 1_150
    assert found.longest_loss_ms == pytest.approx(1_020, abs=STEP_MS)


VIOLATIONS = {
    "a number is missing in the middle": (without(70), CRASHED, "lost", 1),
    "the first numbers of a life are missing": (without(0, 1, 2), CRASHED, "lost", 3),
    "the last numbers of a polite life are missing": (
        without(*range(SPAN + 950, SPAN + 1_000)),
        CRASHED,
        "lost",
        40,
    ),
    "a number is stored twice": (lambda rows: [*rows, rows[3]], CRASHED, "doubled", 1),
    "a number that no recording had": (
        lambda rows: [*rows, (5_000, START_MS)],
        CRASHED,
        "foreign",
        1,
    ),
    "nobody says that the program was down": (lambda rows: rows, None, "undeclared", 1),
    "the gap ends too early": (
        lambda rows: rows,
        Gap(CRASH, START_MS + 2_900, START_MS + 7_000, 0),
        "undeclared",
        1,
    ),
    "the gap begins too late": (
        lambda rows: rows,
        Gap(CRASH, START_MS + 6_000, START_MS + SECOND_MS, 0),
        "undeclared",
        1,
    ),
    "a gap claims what is stored": (
        lambda rows: rows,
        Gap(CRASH, START_MS, START_MS + SECOND_MS + 10_000, 0),
        "false",
        1,
    ),
    "a gap has a cause that nothing explains": (
        lambda rows: rows,
        Gap(QUOTA, START_MS + 2_900, START_MS + SECOND_MS, 0),
        "false",
        1,
    ),
}


@pytest.mark.parametrize(("change", "gap", "what", "count"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_found_and_named(
    change: Callable[[Rows], Rows], gap: Gap | None, what: str, count: int
) -> None:
    found = judged(change, *([gap] if gap else []))
    figures = {
        name: getattr(found, name) for name in ("lost", "doubled", "foreign", "undeclared", "false")
    }
    assert figures == dict.fromkeys(figures, 0) | {what: count}
    assert found.wrong


def test_a_restart_too_short_to_be_seen_must_be_declared_as_well() -> None:
    soon = rows(3_400)
    lives = (Life(rows=1_000, ended_ms=START_MS + 3_020), LIVES[1])
    assert judge(Stored(soon, ()), lives).undeclared == 1
    gap = Gap(CRASH, START_MS + 2_000, START_MS + 4_000, 0)
    assert judge(Stored(soon, (gap,)), lives).wrong == []


def test_a_first_life_that_left_nothing_is_declared_as_well() -> None:
    late = [row for row in rows() if row[0] >= SPAN]
    assert judge(Stored(late, ()), LIVES).undeclared == 1
    gap = Gap(CRASH, START_MS, START_MS + SECOND_MS + 2_000, 0)
    assert judge(Stored(late, (gap,)), LIVES).wrong == []


def test_a_gap_that_names_batches_may_cover_one_that_came() -> None:
    named = Gap(CRASH, START_MS, START_MS + SECOND_MS + 10_000, 0, (3, 9))
    assert judged(lambda rows: rows, named).wrong == []


def test_where_the_clock_was_stepped_no_gap_excuses_a_missing_number() -> None:
    stored = Stored(without(70)(rows()), (Gap(CRASH, 0, START_MS * 2, 0),))
    assert judge(stored, LIVES, timed=False).lost == 1
    assert judge(Stored(rows(), ()), LIVES, timed=False).wrong == []
