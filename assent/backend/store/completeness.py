# SPDX-License-Identifier: Apache-2.0
"""What is missing of a flow, and why: numbers and times held against what gateways declare.

Path: store → Chain → **holes, days** → report.
Law:
  - what is stored is not missing, whatever a gap says of it;
  - a number that is missing is explained by a gap that names it, or by a choice that took the rest
    of its stream; else by nothing, and then that is said;
  - a stream ends where its gateway says so. The last one goes on; of any other whose end was not
    told nobody knows what it held, unless a lost spool explains it;
  - a gap without numbers is a hole as it stands: what it tells of never had a number;
  - one that comes twice, late or before its time says the same;
  - what came and is no longer here is told apart from what never came;
  - a day is complete where nothing is missing of it and all of it lies before the last instant that
    is proven (`assent.backend.store.hearing`);
  - no I/O of its own: a `Chain` brings the questions that custody answers.

Standards: docs/wire.md, *Gaps*. Days are those of UTC: each has 24 hours, and no summer time.
Limits: whether a gateway declares what it lost rests on its word; what its numbers tell does not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from assent.backend.store.hearing import Rhythm, State, since_then
from assent.backend.store.positions import Numbers, Position
from assent.envelope import Gap, GapCause

Span = tuple[int | None, int | None]
"""Since when and until when, in ms since 1970 UTC, as far as that is known."""

_DAY_MS: Final = 86_400_000
_NOTHING: Final = Position()
# What such a gap tells of was in a batch, or was to be, and its end is the instant of a row.
_OF_ROWS: Final = frozenset({GapCause.UNSEALED, GapCause.REFUSED})


@dataclasses.dataclass(frozen=True, slots=True)
class Strand:
    """One stream as it is held.

    Attributes:
        position: which of its numbers are stored.
        end: the number it never gave, or None while its end was not told.
        first_ms: earliest instant in it, or None where nothing of it has a date.
        last_ms: latest instant in it.
        told_ms: it ended before this instant, or None where that is not known.
        heard_ms: when something of it arrived last, or None where that is not known.
    """

    position: Position = _NOTHING
    end: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    told_ms: int | None = None
    heard_ms: int | None = None

    @property
    def following(self) -> int:
        """The number after the highest that is stored."""
        ranges = self.position.ranges
        return ranges[-1][1] + 1 if ranges else self.position.watermark

    def lacks(self, low: int, high: int) -> list[Numbers]:
        """The numbers from `low` to below `high` that are not stored."""
        found: list[Numbers] = []
        at = max(low, self.position.watermark)
        for first, last in self.position.ranges:
            if first > at:
                found.append((at, min(first, high)))
            at = max(at, last + 1)
            if at >= high:
                break
        if at < high:
            found.append((at, high))
        return [(begin, end) for begin, end in found if begin < end]


@dataclasses.dataclass(frozen=True, slots=True)
class Hole:
    """Something that is missing, or not proven.

    Attributes:
        state: what is said of its time.
        span: since when and until when.
        readings: how many; None when that is not known or not said.
        stream: where, when it had numbers.
        numbers: the missing numbers (first, next); the next is None where the end was not told.
        cause: why, where it is declared; else None.
    """

    state: State
    span: Span
    readings: int | None = None
    stream: int | None = None
    numbers: tuple[int, int | None] | None = None
    cause: GapCause | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """One flow of one gateway.

    Attributes:
        mailbox: of the gateway.
        flow: id of the flow.
        strands: its streams.
        gaps: every gap that was declared, each once.
        around: tells between which instants some missing numbers of a stream lie.
        held: tells how many readings are stored under some numbers of a stream.
        span: the first instant that is stored, and the last that is proven.
        heard_ms: when something of it arrived last.
        met_ms: when anything of its gateway did.
        rhythm: what is known of the flow's times.
        apart: what came and is gone, and what has no date.
        unreadable: its streams of which nobody can say any more what is stored.
    """

    mailbox: str
    flow: str
    strands: Mapping[int, Strand]
    gaps: frozenset[Gap]
    around: Callable[[int, Numbers], Span]
    held: Callable[[int, Numbers], int]
    span: Span
    heard_ms: int | None
    met_ms: int | None
    rhythm: Rhythm
    apart: tuple[Hole, ...] = ()
    unreadable: tuple[int, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether its gateway has told the end of each of its streams, and nothing came after."""
        return bool(self.strands) and all(
            one.end is not None and one.following <= one.end for one in self.strands.values()
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """One day of a flow, UTC.

    Attributes:
        day: which; None for holes of which no instant is known.
        holes: what is missing of it; empty when it is complete.
    """

    day: dt.date | None
    holes: tuple[Hole, ...]


def holes(chain: Chain) -> list[Hole]:
    """Finds everything that is missing of a flow.

    Args:
        chain: the flow, as its gateway sent it.

    Returns:
        What is explained first, then what nothing explains.
    """
    told = sorted((gap for gap in chain.gaps if gap.cause.is_hole), key=_place)
    found = [hole for gap in told for hole in _declared(chain, gap)]
    explained: dict[int, list[Numbers]] = {}
    for gap in chain.gaps:
        explained.setdefault(gap.stream, []).append((gap.begin, gap.end))
    taken = {gap.stream for gap in chain.gaps if gap.cause is GapCause.PURGE}
    for stream, strand in sorted(chain.strands.items()):
        if stream not in taken:
            found += _unexplained(chain, stream, strand, explained.get(stream, []))
    return [*dict.fromkeys(found), *_endless(chain, taken), *chain.apart]


def _is_lost(chain: Chain, stream: int, strand: Strand) -> bool:
    """Whether a spool that was lost, or put back, explains what its end does not tell."""
    return any(
        gap.cause is GapCause.LOST
        and gap.stream != stream
        and strand.last_ms is not None
        and strand.last_ms <= gap.last_ms
        for gap in chain.gaps
    )


def days(found: Iterable[Hole], span: Span) -> list[Day]:
    """Divides holes by the days they touch.

    Args:
        found: the holes of a flow.
        span: the first and the last instant of which anything is known.

    Returns:
        Every day from the first to the last, the complete ones too; those of a hole that spans
        several hold it each, cut to the day, with its readings on the first.
    """
    by_day: dict[dt.date | None, list[Hole]] = {}
    first, last = span
    if first is not None and last is not None:
        by_day = {_date(number): [] for number in range(first // _DAY_MS, last // _DAY_MS + 1)}
    for hole in found:
        for day, part in _cut(hole):
            by_day.setdefault(day, []).append(part)
    known = sorted(day for day in by_day if day is not None)
    rest = [Day(None, tuple(by_day[None]))] if None in by_day else []
    return [Day(day, tuple(by_day[day])) for day in known] + rest


def judge(chain: Chain, now_ms: int) -> list[Day]:
    """Judges every day of a flow, up to now.

    Args:
        chain: the flow, as its gateway sent it.
        now_ms: now, by the clock of this machine.

    Returns:
        Every day from the first that is stored; one without anything beside it is complete. Of
        a flow with a stream that is unreadable nothing is proven, and no day is given.
    """
    if chain.unreadable:
        found = [Hole(State.UNREADABLE, (None, None), None, one) for one in chain.unreadable]
        return [Day(None, tuple(found))]
    _, known_ms = chain.span
    if chain.has_ended:
        rest = Hole(State.ENDED, (known_ms, None))
    else:
        rest = Hole(*since_then(chain.rhythm, known_ms, chain.heard_ms, now_ms))
    # What has arrived is past, whatever the clock here was set back to.
    latest_ms = max(now_ms, chain.heard_ms or now_ms)
    return days([*(_until(hole, latest_ms) for hole in holes(chain)), rest], chain.span)


def _until(hole: Hole, now_ms: int) -> Hole:
    """A hole without what of it lies after now, which is no day to be judged."""
    since, until = (None if ms is None else min(ms, now_ms) for ms in hole.span)
    return dataclasses.replace(hole, span=(since, until))


def _place(gap: Gap) -> tuple[int, int, int]:
    return gap.first_ms, gap.last_ms, gap.id


def _declared(chain: Chain, gap: Gap) -> Iterator[Hole]:
    span = (gap.first_ms, gap.last_ms)
    if gap.begin == gap.end:
        yield Hole(State.DECLARED, span, gap.readings or None, cause=gap.cause)
        return
    strand = chain.strands.get(gap.stream, Strand())
    missing = strand.lacks(gap.begin, gap.end)
    if missing:
        arrived = chain.held(gap.stream, (gap.begin, gap.end))
        readings = max(0, gap.readings - arrived) if gap.readings else None
        numbers = (missing[0][0], missing[-1][1])
        yield Hole(State.DECLARED, span, readings, gap.stream, numbers, gap.cause)


def _unexplained(
    chain: Chain, stream: int, strand: Strand, explained: list[Numbers]
) -> Iterator[Hole]:
    end = strand.following if strand.end is None else strand.end
    for missing in _without(strand.lacks(0, end), explained):
        span = chain.around(stream, missing)
        yield Hole(State.UNEXPLAINED, span, None, stream, missing)
    if strand.following > end and not _is_lost(chain, stream, strand):
        # More came than its gateway says it ever gave: that was an old copy of it.
        yield Hole(State.UNEXPLAINED, (strand.last_ms, None), None, stream, (end, None))


def _without(ranges: Iterable[Numbers], others: Iterable[Numbers]) -> list[Numbers]:
    left = list(ranges)
    for begin, end in others:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, begin)), (max(first, end), last))
            if part[0] < part[1]
        ]
    return left


def _endless(chain: Chain, taken: set[int]) -> Iterator[Hole]:
    """What may be missing at the end of streams whose end was never told."""
    endless = sorted(
        (strand.last_ms, strand.first_ms or 0, stream)
        for stream, strand in chain.strands.items()
        if strand.end is None and strand.last_ms is not None
    )
    for at, (last_ms, _, stream) in enumerate(endless[:-1]):
        if stream not in taken and not _is_lost(chain, stream, chain.strands[stream]):
            until = endless[at + 1][1]
            span = (last_ms - chain.rhythm.late_ms, max(last_ms, until))
            numbers = (chain.strands[stream].following, None)
            yield Hole(State.UNEXPLAINED, span, None, stream, numbers)


def _cut(hole: Hole) -> Iterator[tuple[dt.date | None, Hole]]:
    since, until = hole.span
    if since is None or until is None:
        known = until if since is None else since
        yield (None if known is None else _date(known // _DAY_MS)), hole
        return
    # An end at midnight is the end of the day before; but a batch may end with the first second of
    # the next one.
    has_rows = hole.cause in _OF_ROWS or (hole.cause is not None and hole.numbers is not None)
    last = (until if has_rows else max(since, until - 1)) // _DAY_MS
    for number in range(since // _DAY_MS, last + 1):
        span = (max(since, number * _DAY_MS), min(until, (number + 1) * _DAY_MS))
        readings = hole.readings if number == since // _DAY_MS else None
        yield _date(number), dataclasses.replace(hole, span=span, readings=readings)


def _date(number: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(number)
