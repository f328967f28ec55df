# SPDX-License-Identifier: Apache-2.0
"""What must hold after any fault: every number is stored once, or lies in a declared gap.

It reads the backend's two files with SQL of its own and believes no counter of the product. What
was there to be stored it knows from the world: every life of the collecting program reads a
recording of its own, whose numbers are `life * SPAN`, `life * SPAN + 1`, … in steps of `STEP_MS`.

Law:
  - a number is stored at most once, and only numbers that were in a recording are;
  - numbers that are missing between two stored ones of one life lie in a gap of that flow, each at
    its own instant;
  - between the last stored number of one life and the first of the next, every instant lies in a
    gap, and there is one even where that time is short;
  - of a life that ended politely all is stored that it has read;
  - a gap that no fault explains is a violation, and so is one that claims more of what is stored
    than its edges take.

Limits: instants are stored to the second, so that an edge of a gap may be `SLACK_MS` off.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

SPAN = 1_000_000
"""More numbers than any recording has."""
STEP_MS = 20
SLACK_MS = 1_100
"""An instant is stored to the second; the rest is a timer that is late."""

CLAIM_MS = 6_000
"""A crash gap may claim so much of what is stored before and after a hole: a commit interval of 1 s,
2 s for what was at the door or has to be opened again (agent/pipeline/recovery.py), seconds that
are rounded away from it, and the time that a busy machine takes. Gaps that touch are told as one."""

CRASH, OUTAGE, QUOTA, SILENT, CLOCK, PURGE, AGE, ENDED, LOST, UNSEALED, REFUSED = range(11)
"""Causes as docs/wire.md numbers them; not imported, so that a mistake there is seen here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """One declared gap, as the backend keeps it."""

    cause: int
    first_ms: int
    last_ms: int
    readings: int
    numbers: tuple[int, ...] = ()

    @property
    def names_batches(self) -> bool:
        """Whether it names batches that will not come; those that came all the same are stored."""
        return len(self.numbers) == 2 and self.numbers[0] < self.numbers[1]

    def covers(self, at_ms: float) -> bool:
        """Whether an instant lies in it, give or take the slack."""
        return self.first_ms - SLACK_MS <= at_ms <= self.last_ms + SLACK_MS


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What a backend holds of one flow.

    Attributes:
        rows: (number, second in ms) of each row.
        gaps: the newest form of each declared gap.
        batches: how many are in custody.
        refused: how many messages are in quarantine.
    """

    rows: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    batches: int = 0
    refused: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Life:
    """One life of the collecting program.

    Attributes:
        rows: how many numbers its recording has.
        ended_ms: when it ended.
        polite: whether it was told to stop, and did.
        least: how many it has read at least, when it ended politely.
        explains: causes of gaps that the faults of this life explain within it.
        end: what ended it, for a person.
    """

    rows: int
    ended_ms: int = 0
    polite: bool = False
    least: int = 0
    explains: frozenset[int] = frozenset()
    end: str = ""


@dataclasses.dataclass(slots=True)
class Judgement:
    """What the oracle found of one flow; all but `stored` and the last three must be nothing.

    Attributes:
        stored: different numbers that are stored.
        lost: numbers that are missing and in no gap.
        doubled: rows that are there once too often.
        foreign: rows with a number that nobody read.
        undeclared: times in which something may be missing and no gap says so.
        false: gaps that claim what is stored, or have a cause that nothing explains.
        wrong: each violation in words.
        gaps: how many were declared, by cause.
        longest_loss_ms: of all crashes, from the last stored number to the kill.
    """

    stored: int = 0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    undeclared: int = 0
    false: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    gaps: Counter[int] = dataclasses.field(default_factory=Counter)
    longest_loss_ms: int = 0

    def complain(self, sentence: str) -> None:
        """Notes a violation."""
        self.wrong.append(sentence)


def read(directory: Path, flow: str, attribute: str) -> Stored:
    """Reads what a backend has of a flow.

    Args:
        directory: of the backend.
        flow: id of the flow.
        attribute: whose values are the numbers.
    """
    with contextlib.closing(_look(directory / "store.db")) as db:
        rows = db.execute(
            "SELECT number, time_ms FROM data WHERE flow=? AND attribute=?", (flow, attribute)
        ).fetchall()
    with contextlib.closing(_look(directory / "custody.db")) as db:
        kept = db.execute("SELECT gaps, received_ms FROM custody WHERE flow=?", (flow,)).fetchall()
        (refused,) = db.execute("SELECT count(*) FROM quarantine").fetchone()
    newest: dict[tuple[int, int], Gap] = {}
    for text, _ in sorted(kept, key=lambda row: row[1]):
        for number, stream, cause, first, last, readings, *numbers in json.loads(text):
            if cause != ENDED:  # the end of a stream is no hole
                newest[number, stream] = Gap(cause, first, last, readings, tuple(numbers))
    return Stored([(int(n), t) for n, t in rows], list(newest.values()), len(kept), refused)


def judge(stored: Stored, lives: Sequence[Life], *, timed: bool = True) -> Judgement:
    """Holds what is stored against what was read.

    Args:
        stored: of one flow.
        lives: all of the world, in order.
        timed: whether instants mean anything; where the clock was stepped they do not, and then
            no gap excuses a missing number.
    """
    found = Judgement(gaps=Counter(gap.cause for gap in stored.gaps))
    rows = _known(stored.rows, lives, found)
    counted = Counter(number for number, _ in rows)
    for number, count in counted.items():
        if count > 1:
            found.doubled += count - 1
            found.complain(f"number {number} is stored {count} times")
    found.stored = len(counted)
    times = _times(rows)
    held = [sorted(n for n in counted if n // SPAN == life) for life in range(len(lives))]
    for life, numbers in enumerate(held):
        _inside(life, numbers, times, stored.gaps, found, timed=timed)
    _ends(held, lives, found)
    if timed:
        _between(held, times, stored.gaps, lives, found)
        _explained(stored.gaps, held, times, lives, found)
    return found


def _known(
    rows: Iterable[tuple[int, int]], lives: Sequence[Life], found: Judgement
) -> list[tuple[int, int]]:
    """Leaves out the numbers that nobody read, and complains of them."""
    known = []
    for number, second in rows:
        life, at = divmod(number, SPAN)
        if 0 <= life < len(lives) and at < lives[life].rows:
            known.append((number, second))
        else:
            found.foreign += 1
            found.complain(f"number {number} was never read")
    return known


class _Times:
    """When a number was read, as far as the stored seconds tell."""

    def __init__(self, began: dict[int, float]) -> None:
        self._began = began

    def of(self, number: int) -> float:
        life, at = divmod(number, SPAN)
        return self._began[life] + at * STEP_MS


def _times(rows: Iterable[tuple[int, int]]) -> _Times:
    """Each stored second bounds the beginning of its life; all of them bound it well."""
    latest: dict[int, float] = {}
    for number, second in rows:
        life, at = divmod(number, SPAN)
        # A row is stored at the second it was read in: it cannot have begun later than this.
        bound = second + 1_000 - at * STEP_MS
        latest[life] = min(latest.get(life, bound), bound)
    return _Times(latest)


def _inside(
    life: int,
    numbers: Sequence[int],
    times: _Times,
    gaps: Sequence[Gap],
    found: Judgement,
    *,
    timed: bool,
) -> None:
    """What is missing within one life, and before its first stored number."""
    before = life * SPAN - 1
    for number in numbers:
        missing = range(before + 1, number)
        before = number
        bare = [n for n in missing if not (timed and _is_covered(times.of(n), gaps))]
        if bare:
            found.lost += len(bare)
            found.complain(f"life {life}: {len(bare)} numbers are missing before {number}")


def _between(
    held: Sequence[Sequence[int]],
    times: _Times,
    gaps: Sequence[Gap],
    lives: Sequence[Life],
    found: Judgement,
) -> None:
    """The time between the last number of a life and the first of the next that left any."""
    left = [life for life, numbers in enumerate(held) if numbers]
    if left and left[0] > 0:
        since, until = float(lives[left[0] - 1].ended_ms), times.of(held[left[0]][0])
        if any(not _is_covered(at, gaps) for at in _slots(since, until)) or not gaps:
            found.undeclared += 1
            found.complain(f"nothing of the first {left[0]} lives is stored, and no gap says so")
    for one, other in itertools.pairwise(left):
        last, first = held[one][-1], held[other][0]
        since, until = times.of(last), times.of(first)
        loss = int(lives[one].ended_ms - since)
        if not lives[one].polite:
            found.longest_loss_ms = max(found.longest_loss_ms, loss)
        said = [gap for gap in gaps if gap.first_ms < until and gap.last_ms > since]
        bare = [at for at in _slots(since, until) if not _is_covered(at, gaps)]
        if bare or (not said and until - since > STEP_MS):
            found.undeclared += 1
            found.complain(
                f"between {last} and {first} {(until - since) / 1000:.1f} s are missing,"
                f" {len(bare) * STEP_MS / 1000:.1f} s of it undeclared"
                f" (the end was {loss / 1000:.1f} s after the former: {_ends_of(lives, one, other)})"
            )


def _ends_of(lives: Sequence[Life], one: int, other: int) -> str:
    return ", then ".join(life.end or "killed" for life in lives[one:other])


def _ends(held: Sequence[Sequence[int]], lives: Sequence[Life], found: Judgement) -> None:
    """A life that ended politely has stored what it read."""
    for life, (numbers, told) in enumerate(zip(held, lives, strict=True)):
        had = numbers[-1] % SPAN + 1 if numbers else 0
        if told.polite and had < told.least:
            found.lost += told.least - had
            found.complain(f"life {life}: at least {told.least} were read, the last is {had - 1}")


def _explained(
    gaps: Sequence[Gap],
    held: Sequence[Sequence[int]],
    times: _Times,
    lives: Sequence[Life],
    found: Judgement,
) -> None:
    """No gap claims much of what is stored, and each has a cause that some fault explains."""
    instants = sorted(times.of(number) for numbers in held for number in numbers)
    ends = (instants[0], instants[-1]) if instants else ()
    edges = sorted([*ends, *(at for one in _holes(instants) for at in one)])
    causes = {CRASH, OUTAGE}.union(*(life.explains for life in lives))
    for gap in gaps:
        low = bisect.bisect_right(instants, gap.first_ms)
        high = bisect.bisect_left(instants, gap.last_ms)
        claimed = sum(_is_far(at, edges) for at in instants[low:high])
        if gap.cause not in causes:
            found.false += 1
            found.complain(f"nothing explains a gap of cause {gap.cause}")
        elif claimed and not gap.names_batches:
            found.false += 1
            deaths = [round((life.ended_ms - gap.first_ms) / 1000, 1) for life in lives]
            found.complain(
                f"a gap of cause {gap.cause} of {(gap.last_ms - gap.first_ms) / 1000} s claims"
                f" {claimed} stored numbers; lives end at {deaths} of it"
            )


def _holes(instants: Sequence[float]) -> list[tuple[float, float]]:
    """Where something is missing: between two stored instants that are not a step apart."""
    pairs = itertools.pairwise(instants)
    return [(one, other) for one, other in pairs if other - one > 2 * STEP_MS]


def _is_far(at_ms: float, edges: Sequence[float]) -> bool:
    """Whether an instant is not near the edge of any hole."""
    place = bisect.bisect(edges, at_ms)
    near = (edges[one] for one in (place - 1, place) if 0 <= one < len(edges))
    return all(abs(edge - at_ms) > CLAIM_MS for edge in near)


def _is_covered(at_ms: float, gaps: Collection[Gap]) -> bool:
    return any(gap.covers(at_ms) for gap in gaps)


def _slots(since: float, until: float) -> list[float]:
    """The instants at which numbers were due between two instants."""
    count = max(0, int((until - since - 1) // STEP_MS))
    return [since + (at + 1) * STEP_MS for at in range(count)]


def _look(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
