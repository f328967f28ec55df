# SPDX-License-Identifier: Apache-2.0
"""One look at every batch of a flow: when it came, of when it is, whether it is still here.

Path: custody, counted readings → **Muster** → Chain.
Law:
  - a batch is dated where its gateway vouched for the instants and they can be: not after their
    arrival, not older than a gateway keeps anything;
  - what is not dated makes no day known: it waits for the word about its boot, lies between two
    bounds of one, or was stamped by a clock that was wrong;
  - what a stream's position says was stored has to be in custody, and its readings in the data.

Security: this is custody.
Limits: a batch that was deleted in both files together with its stream has never been.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator, Mapping

from assent.backend.store.completeness import Hole, Span, Strand
from assent.backend.store.hearing import AHEAD_MS, Rhythm, State
from assent.backend.store.positions import Numbers, Position, Range


def dated(rhythm: Rhythm) -> str:
    """The SQL that says of a row of custody whether it is known of when it is."""
    return (
        f"(first_ms IS NOT NULL AND last_ms <= received_ms + {AHEAD_MS}"  # noqa: S608 - no input
        f" AND first_ms >= received_ms - {rhythm.oldest_ms} AND NOT EXISTS"
        " (SELECT 1 FROM boots WHERE boots.signer = custody.signer"
        " AND boots.stream = custody.stream AND low_ms < high_ms))"
    )


class Muster:
    """What one look has shown.

    Attributes:
        spans: the first and the last instant of each stream that has any.
        heard_ms: when something of it arrived last.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        key: tuple[bytes, str],
        rhythm: Rhythm,
        kept: Mapping[bytes, int] | None,
    ) -> None:
        """Looks.

        Args:
            connection: to `custody.db`.
            key: signer and flow.
            rhythm: of the flow.
            kept: how many readings of each batch are in the data; None to take them as they came.
        """
        self.spans: dict[int, tuple[int, int]] = {}
        self.heard_ms: int | None = None
        self._known_ms: int | None = None
        self._here: dict[int, list[Range]] = {}
        self._undated = 0
        self._short: list[Hole] = []
        self._late_ms = rhythm.late_ms
        rows = connection.execute(
            "SELECT stream, sequence, batch_ref, readings, first_ms, last_ms, received_ms,"  # noqa: S608 - no input
            f" {dated(rhythm)}, batch_ref IN (SELECT batch_ref FROM waiting) FROM custody"
            " WHERE signer = ? AND flow = ? ORDER BY stream, sequence",
            key,
        )
        for name, sequence, reference, readings, *times, is_dated, waits in rows:
            stream = int.from_bytes(name, "big")
            self._present(stream, sequence)
            span: Span = (None, None)
            if is_dated:
                span = self._date(stream, *times)
            else:
                self._undated += readings
            missing = 0 if kept is None or waits else readings - kept.get(reference, 0)
            if missing > 0:
                numbers = (sequence, sequence + 1)
                self._lack(Hole(State.GONE, span, missing, stream, numbers))
            self.heard_ms = max(times[2], self.heard_ms or 0)

    @property
    def streams(self) -> set[int]:
        """The streams of which there are batches."""
        return set(self._here)

    @property
    def span(self) -> Span:
        """The first instant of the flow, and the last that is proven."""
        first_ms = min((first for first, _ in self.spans.values()), default=None)
        if first_ms is None or self._known_ms is None:
            return None, None
        return first_ms, max(first_ms, self._known_ms - self._late_ms)

    def apart(
        self, strands: Mapping[int, Strand], around: Callable[[int, Numbers], Span]
    ) -> Iterator[Hole]:
        """Gives what came and is gone, and what is of no known day.

        Args:
            strands: the streams of the flow.
            around: tells between which instants some numbers of a stream lie.
        """
        for stream, strand in sorted(strands.items()):
            here = Strand(Position(0, tuple(self._here.get(stream, ()))))
            for first, following in strand.position.stored:
                for gone in here.lacks(first, following):
                    yield Hole(State.GONE, around(stream, gone), None, stream, gone)
        yield from self._short
        if self._undated:
            yield Hole(State.UNDATED, (None, None), self._undated)

    def _present(self, stream: int, sequence: int) -> None:
        here = self._here.setdefault(stream, [])
        if here and here[-1][1] == sequence - 1:
            here[-1] = (here[-1][0], sequence)
        else:
            here.append((sequence, sequence))

    def _date(self, stream: int, first_ms: int, last_ms: int, received_ms: int) -> Span:
        first, last = self.spans.get(stream, (first_ms, last_ms))
        self.spans[stream] = (min(first, first_ms), max(last, last_ms))
        # It says nothing of what came after it.
        self._known_ms = max(self._known_ms or 0, min(last_ms, received_ms))
        return first_ms, last_ms

    def _lack(self, gone: Hole) -> None:
        """Notes that readings of a batch are gone, in one with those of the batch before it."""
        joined = _joined(self._short[-1], gone) if self._short else None
        self._short[-1:] = [joined] if joined else [*self._short[-1:], gone]


def _joined(one: Hole, other: Hole) -> Hole | None:
    """One hole of two whose numbers follow each other and whose times are known, else None."""
    (since, until), (first, last) = one.span, other.span
    if one.stream != other.stream or one.numbers is None or other.numbers is None:
        return None
    if one.numbers[1] != other.numbers[0]:
        return None
    if since is None or until is None or first is None or last is None:
        return None
    return dataclasses.replace(
        one,
        span=(min(since, first), max(until, last)),
        readings=(one.readings or 0) + (other.readings or 0),
        numbers=(one.numbers[0], other.numbers[1]),
    )
