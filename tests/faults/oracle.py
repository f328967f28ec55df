# SPDX-License-Identifier: Apache-2.0
"""What must hold after any fault: every number is stored once, or lies in a declared gap.

It holds what a backend has (`holdings`) against what the world knows (`history`), and believes
neither a counter nor a gap of the product. What was there to be stored it knows from the world:
every life of the collecting program reads a recording of its own, whose numbers are `life * SPAN`,
`life * SPAN + 1`, … in steps of `STEP_MS`.

Law:
  - a number is stored at most once, and only numbers that were in a recording are;
  - a gap that no fault explains, by its cause and by its time, is a violation and covers nothing;
    so is one that claims more of what is stored than its edges take;
  - numbers that are missing between two stored ones of one life lie in a gap of that flow, each at
    its own instant;
  - between the last stored number of one life and the first of the next, every instant lies in a
    gap, and there is one even where that time is short;
  - of a life that ended politely all is stored that it has read; of one that was killed, all but
    what came since the last commit;
  - the numbers of batches are without holes in each stream, or declared; a stream that is not the
    last has told its end, and it is that.

Limits: instants are stored to the second, so that an edge of a gap may be `SLACK_MS` off.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from tests.faults.history import EDGE_MS, NEAR_MS, SPAN, STEP_MS, History
from tests.faults.holdings import CAUSES, LOST, SLACK_MS, Gap, Stored


@dataclasses.dataclass(slots=True)
class Judgement:
    """What the oracle found of one flow; all but `stored` and the last four must be nothing.

    Attributes:
        stored: different numbers that are stored.
        lost: numbers that are missing and in no gap, and crashes that took too much.
        doubled: rows that are there once too often.
        foreign: rows with a number that nobody read, or of no time at which it was read.
        undeclared: times in which something may be missing and no gap says so, and batches.
        false: gaps that claim what is stored, or that nothing explains.
        wrong: each violation in words.
        gaps: how many were declared, by cause.
        longest_loss_ms: of all crashes, from the last stored number to the kill.
        bound_ms: so much it may be.
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
    bound_ms: int = 0

    def complain(self, sentence: str) -> None:
        """Notes a violation."""
        self.wrong.append(sentence)


def judge(stored: Stored, history: History) -> Judgement:
    """Holds what is stored against what was read.

    Args:
        stored: of one flow.
        history: of the world.
    """
    found = Judgement(gaps=Counter(gap.cause for gap in stored.gaps), bound_ms=history.bound_ms)
    rows = _known(stored.rows, history, found)
    counted = Counter(number for number, _ in rows)
    for number, count in counted.items():
        if count > 1:
            found.doubled += count - 1
            found.complain(f"number {number} is stored {count} times")
    found.stored = len(counted)
    times = _Times(rows, history)
    held = [sorted(n for n in counted if n // SPAN == at) for at in range(len(history.lives))]
    gaps = _explained(stored.gaps, history, found)
    _claims(gaps, held, times, history, found)
    for life, numbers in enumerate(held):
        _inside(life, numbers, times, gaps, found)
    _ends(held, times, history, found)
    _between(held, times, gaps, history, found)
    _streams(stored, history, found)
    return found


def _known(
    rows: Iterable[tuple[int, int]], history: History, found: Judgement
) -> list[tuple[int, int]]:
    """Leaves out the numbers that nobody read, complains of them, and moves the rest to our time."""
    known = []
    for number, second in rows:
        life, at = divmod(number, SPAN)
        real_ms = history.real(second)
        if not (0 <= life < len(history.lives) and at < history.lives[life].rows):
            found.foreign += 1
            found.complain(f"number {number} was never read")
        elif real_ms is None:
            found.foreign += 1
            found.complain(f"number {number} is stored at {second}, where the clock never stood")
        else:
            known.append((number, real_ms))
    return known


class _Times:
    """When a number was read, as far as the stored seconds tell."""

    def __init__(self, rows: Iterable[tuple[int, int]], history: History) -> None:
        """Each stored second bounds the beginning of its life; all of them bound it well."""
        self._began = {
            at: float(life.answered_ms or life.began_ms)
            for at, life in enumerate(history.lives)
            if not life.knows_boot
        }
        bootless = frozenset(self._began)
        for number, second in rows:
            life, at = divmod(number, SPAN)
            if life in bootless:
                continue
            # A row is stored at the second it was read in: it cannot have begun later than this.
            bound = second + 1_000 - at * STEP_MS
            self._began[life] = min(self._began.get(life, bound), bound)

    def of(self, number: int) -> float:
        life, at = divmod(number, SPAN)
        return self._began[life] + at * STEP_MS


def _explained(gaps: Iterable[Gap], history: History, found: Judgement) -> list[Gap]:
    """Gaps that a fault explains, at our time; the others are complained of."""
    known = []
    for gap in gaps:
        first, last = (history.real(at, NEAR_MS) for at in (gap.first_ms, gap.last_ms))
        real = None
        if first is not None and last is not None:
            real = dataclasses.replace(gap, first_ms=first, last_ms=last)
        if real is not None and history.explains(real):
            known.append(real)
            continue
        found.false += 1
        ends = [
            round((life.ended_ms - (first or gap.first_ms)) / 1000, 1) for life in history.lives
        ]
        found.complain(
            f"nothing explains a gap of cause {CAUSES[gap.cause]} of"
            f" {(gap.last_ms - gap.first_ms) / 1000} s from {first or gap.first_ms};"
            f" lives end {ends} s after that"
        )
    return known


def _claims(
    gaps: Iterable[Gap],
    held: Sequence[Sequence[int]],
    times: _Times,
    history: History,
    found: Judgement,
) -> None:
    """No gap claims more of what is stored, before and after a hole, than its edges take.

    Gaps that touch are told as one, so that it may have edges on both sides of what is stored.
    """
    edge_ms = history.bound_ms + EDGE_MS + SLACK_MS
    instants = sorted(times.of(number) for numbers in held for number in numbers)
    ends = (instants[0], instants[-1]) if instants else ()
    edges = sorted([*ends, *(at for one in _holes(instants) for at in one)])
    for gap in gaps:
        low = bisect.bisect_right(instants, gap.first_ms)
        high = bisect.bisect_left(instants, gap.last_ms)
        claimed = sum(_is_far(at, edges, edge_ms) for at in instants[low:high])
        if claimed and not gap.names_batches:
            found.false += 1
            found.complain(
                f"a gap of cause {CAUSES[gap.cause]} of {(gap.last_ms - gap.first_ms) / 1000} s"
                f" claims {claimed} stored numbers"
            )


def _inside(
    life: int, numbers: Sequence[int], times: _Times, gaps: Sequence[Gap], found: Judgement
) -> None:
    """What is missing within one life, and before its first stored number."""
    before = life * SPAN - 1
    for number in numbers:
        bare = [n for n in range(before + 1, number) if not _is_covered(times.of(n), gaps)]
        before = number
        if bare:
            found.lost += len(bare)
            found.complain(f"life {life}: {len(bare)} numbers are missing before {number}")


def _between(
    held: Sequence[Sequence[int]],
    times: _Times,
    gaps: Sequence[Gap],
    history: History,
    found: Judgement,
) -> None:
    """The time between the last number of a life and the first of the next that left any."""
    lives = history.lives
    left = [life for life, numbers in enumerate(held) if numbers]
    if left and left[0] > 0:
        since, until = float(lives[left[0] - 1].ended_ms), times.of(held[left[0]][0])
        if any(not _is_covered(at, gaps) for at in _slots(since, until)) or not gaps:
            found.undeclared += 1
            found.complain(f"nothing of the first {left[0]} lives is stored, and no gap says so")
    for one, other in itertools.pairwise(left):
        last, first = held[one][-1], held[other][0]
        since, until = times.of(last), times.of(first)
        said = [gap for gap in gaps if gap.first_ms < until and gap.last_ms > since]
        bare = [at for at in _slots(since, until) if not _is_covered(at, gaps)]
        if bare or (not said and until - since > STEP_MS):
            found.undeclared += 1
            ends = ", then ".join(life.end or "killed" for life in lives[one:other])
            found.complain(
                f"between {last} and {first} {(until - since) / 1000:.1f} s are missing,"
                f" {len(bare) * STEP_MS / 1000:.1f} s of it undeclared (the end was"
                f" {(lives[one].ended_ms - since) / 1000:.1f} s after the former: {ends})"
            )


def _ends(held: Sequence[Sequence[int]], times: _Times, history: History, found: Judgement) -> None:
    """What a life has read is stored, but for what a crash may take."""
    for at, (numbers, life) in enumerate(zip(held, history.lives, strict=True)):
        had = numbers[-1] % SPAN + 1 if numbers else 0
        if life.polite and had < life.least:
            found.lost += life.least - had
            found.complain(f"life {at}: at least {life.least} were read, the last is {had - 1}")
        if not (life.is_dead and life.is_kept):
            continue
        if not numbers and not life.answered_ms:
            continue  # nobody knows whether it has read anything
        since = times.of(numbers[-1]) if numbers else history.reads_from(life)
        loss = int(life.ended_ms - since)
        found.longest_loss_ms = max(found.longest_loss_ms, loss)
        if loss > (bound_ms := history.bound_of(life)):
            found.lost += (loss - bound_ms) // STEP_MS
            found.complain(
                f"life {at}: its end took {loss / 1000:.1f} s, more than {bound_ms / 1000} s"
                f" ({life.end or 'killed'})"
            )


def _streams(stored: Stored, history: History, found: Judgement) -> None:
    """The batches of each stream are there or declared, and every stream but the last has ended."""
    told: dict[int, set[int]] = {}
    for gap in stored.gaps:
        if gap.names_batches:
            told.setdefault(gap.stream, set()).update(range(*gap.numbers))
    endless = []
    for name, stream in stored.streams.items():
        known = told.get(name, set()).union(stream.numbers)
        missing = sorted(set(range(max(stream.numbers) + 1)) - known)
        if missing:
            found.undeclared += len(missing)
            found.complain(f"a stream of {len(stream.numbers)} batches lacks {missing[:5]}")
        if stream.following is None:
            endless.append(name)
        elif stream.following != max(known) + 1 and LOST not in history.causes:
            found.undeclared += 1
            found.complain(f"a stream ends before {stream.following}, its last is {max(known)}")
    if len(endless) > 1 and LOST not in history.causes:
        found.undeclared += 1
        found.complain(f"{len(endless)} of {len(stored.streams)} streams have told no end")


def _holes(instants: Sequence[float]) -> list[tuple[float, float]]:
    """Where something is missing: between two stored instants that are not a step apart."""
    pairs = itertools.pairwise(instants)
    return [(one, other) for one, other in pairs if other - one > 2 * STEP_MS]


def _is_far(at_ms: float, edges: Sequence[float], edge_ms: float) -> bool:
    """Whether an instant is not near the edge of any hole."""
    place = bisect.bisect(edges, at_ms)
    near = (edges[one] for one in (place - 1, place) if 0 <= one < len(edges))
    return all(abs(edge - at_ms) > edge_ms for edge in near)


def _is_covered(at_ms: float, gaps: Collection[Gap]) -> bool:
    return any(gap.covers(at_ms) for gap in gaps)


def _slots(since: float, until: float) -> list[float]:
    """The instants at which numbers were due between two instants."""
    count = max(0, int((until - since - 1) // STEP_MS))
    return [since + (at + 1) * STEP_MS for at in range(count)]
