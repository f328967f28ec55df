# SPDX-License-Identifier: Apache-2.0
"""Declared gaps: what is missing, kept until the backend has been told.

Law:
  - a gap is offered with every batch of its flow until one that carried it is acknowledged;
  - what was carried once does not change; what was not yet, grows, so that a week of drops is a few
    gaps and not thousands;
  - a gap grows by what touches it, in its numbers or, where it has none, in time: it takes no
    number that is not missing. Only where very many lie apart they grow together all the same;
  - the end of a stream is told like a gap, and takes nothing;
  - what a no has taken is named by its streams alone. It is kept here and told to nobody before a
    later yes (`agent/spool/choice.py`);
  - at most `OFFERED` are offered at a time, oldest first: the header of a batch stays small, the
    rest waits for its turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from agent.spool.choice import KEPT_BACK, whole_seconds
from agent.spool.store import Store
from agent.spool.streams import signed, unsigned
from assent.header import Gap, GapCause

OFFERED: Final = 16
# Gaps are kept apart up to this many per flow, stream and cause, then they grow together.
_APART: Final = 64


class Gaps(Store):
    """Adding and offering gaps."""

    def add_gap(
        self,
        flow: str,
        stream: int,
        cause: GapCause,
        *,
        first_ms: int,
        last_ms: int,
        readings: int,
    ) -> None:
        """Declares that readings of a flow are missing; durable when this returns.

        Args:
            flow: id of the flow.
            stream: the stream they would have been in.
            cause: why.
            first_ms: start of the time they are missing in.
            last_ms: end of it.
            readings: how many are missing, 0 when nobody knows.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            declare(db, (flow, signed(stream), cause), (first_ms, last_ms), readings)

    def gaps_for(self, flow: str) -> tuple[Gap, ...]:
        """Gives the gaps the next batch of a flow carries; pass them on to `put`.

        Args:
            flow: id of the flow.

        Returns:
            At most `OFFERED` gaps that no acknowledged batch has carried, oldest first.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, stream, cause, first, last, readings, low, high FROM gap"
                " WHERE flow=? AND carried<? ORDER BY id LIMIT ?",
                (flow, KEPT_BACK, OFFERED),
            ).fetchall()
            return tuple(
                Gap(
                    id=key,
                    stream=unsigned(stream),
                    cause=GapCause(cause),
                    first_ms=first,
                    last_ms=last,
                    readings=readings,
                    begin=low,
                    end=high,
                )
                for key, stream, cause, first, last, readings, low, high in rows
            )


def declare(
    db: sqlite3.Connection,
    same: tuple[str, int, GapCause],
    span: tuple[int, int],
    readings: int = 0,
    numbers: tuple[int, int] = (0, 0),
) -> None:
    """Adds a gap inside a transaction, or lets one that was not carried yet grow.

    Args:
        db: inside a transaction.
        same: flow, stream (signed) and cause.
        span: start and end in ms; told are the second it begins in, and the one it ends by.
        readings: how many are missing.
        numbers: the first sequence that will not come, and the one after the last.
    """
    span = whole_seconds(span)
    grown = _growing(db, same, span, numbers)
    if grown is None:
        db.execute(
            "INSERT INTO gap VALUES (NULL, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
            (*same, *span, readings, *numbers),
        )
        return
    db.execute(
        "UPDATE gap SET first=min(first, ?), last=max(last, ?), readings=readings+?,"
        " low=min(low, ?), high=max(high, ?) WHERE id=?",
        (*span, readings, *numbers, grown),
    )


def _growing(
    db: sqlite3.Connection,
    same: tuple[str, int, GapCause],
    span: tuple[int, int],
    numbers: tuple[int, int],
) -> int | None:
    """Finds the gap that grows by another one: what it touches, or the newest of too many."""
    has_numbers = numbers[0] < numbers[1]
    one, columns = (numbers, "low, high") if has_numbers else (span, "first, last")
    rows = db.execute(
        f"SELECT id, {columns} FROM gap WHERE flow=? AND stream=? AND cause=? AND carried=0"  # noqa: S608 - no input
        " AND (low < high)=? ORDER BY id DESC LIMIT ?",
        (*same, has_numbers, _APART),
    ).fetchall()
    touching = [key for key, low, high in rows if low <= one[1] and one[0] <= high]
    if touching:
        return int(touching[0])
    return int(rows[0][0]) if len(rows) == _APART else None


def mark_carried(db: sqlite3.Connection, flow: str, gaps: Sequence[Gap]) -> str | None:
    """Notes inside a transaction that batches of a flow carry gaps.

    Args:
        db: inside a transaction.
        flow: id of the flow.
        gaps: what the batches carry, of any flow.

    Returns:
        What `forget` takes: the ids that are still exactly as they are carried, or None.
    """
    carried = []
    for gap in gaps:
        found = db.execute(
            "UPDATE gap SET carried=1 WHERE id=? AND flow=? AND first=? AND last=? AND readings=?"
            " AND low=? AND high=? AND carried<?",
            (
                gap.id,
                flow,
                gap.first_ms,
                gap.last_ms,
                gap.readings,
                gap.begin,
                gap.end,
                KEPT_BACK,
            ),
        )
        if found.rowcount:
            carried.append(str(gap.id))
    return " ".join(carried) or None


def forget(db: sqlite3.Connection, flow: str, carried: Iterable[str]) -> None:
    """Deletes inside a transaction the gaps that acknowledged batches carried.

    Args:
        db: inside a transaction.
        flow: id of the flow.
        carried: what `mark_carried` returned for each of the batches.
    """
    known = {int(key) for text in carried for key in text.split()}
    db.executemany("DELETE FROM gap WHERE id=? AND flow=?", [(key, flow) for key in sorted(known)])
