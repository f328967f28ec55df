# SPDX-License-Identifier: Apache-2.0
"""Declared gaps: what is missing, kept until the backend has been told.

Law:
  - a gap is offered with every batch of its flow until one that carried it is acknowledged;
  - what was carried once does not change; what was not yet, grows, so that a week of drops is a few
    gaps and not thousands;
  - at most `OFFERED` are offered at a time, oldest first: the header of a batch stays small, the
    rest waits for its turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from agent.spool.lanes import signed, unsigned
from agent.spool.store import Store
from assent.header import Gap, GapCause

OFFERED: Final = 16
# Gaps of other causes are kept apart up to this many per flow and cause, then they grow together.
_APART: Final = 64
# Causes that are nothing but a count: they always grow together.
_COUNTS: Final = frozenset({GapCause.QUOTA, GapCause.AGE})


class Gaps(Store):
    """Adding and offering gaps."""

    def add_gap(
        self, flow: str, stream: int, cause: GapCause, *, first_ms: int, last_ms: int, readings: int
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
            declare(db, (flow, signed(stream), cause), first_ms, last_ms, readings)

    def gaps_for(self, flow: str) -> tuple[Gap, ...]:
        """Gives the gaps the next batch of a flow carries; pass them on to `put`.

        Args:
            flow: id of the flow.

        Returns:
            At most `OFFERED` gaps that no acknowledged batch has carried, oldest first.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, stream, cause, first, last, readings FROM gap WHERE flow=?"
                " ORDER BY id LIMIT ?",
                (flow, OFFERED),
            ).fetchall()
            return tuple(
                Gap(
                    id=key,
                    stream=unsigned(stream),
                    cause=GapCause(cause),
                    first_ms=first,
                    last_ms=last,
                    readings=readings,
                )
                for key, stream, cause, first, last, readings in rows
            )


def declare(
    db: sqlite3.Connection, same: tuple[str, int, GapCause], first: int, last: int, readings: int
) -> None:
    """Adds a gap inside a transaction, or lets one that was not carried yet grow.

    Args:
        db: inside a transaction.
        same: flow, stream (signed) and cause.
        first: start in ms.
        last: end in ms.
        readings: how many are missing.
    """
    count, newest = db.execute(
        "SELECT count(*), max(id) FROM gap WHERE flow=? AND stream=? AND cause=? AND carried=0",
        same,
    ).fetchone()
    if count and (same[2] in _COUNTS or count >= _APART):
        db.execute(
            "UPDATE gap SET first=min(first, ?), last=max(last, ?), readings=readings+? WHERE id=?",
            (first, last, readings, newest),
        )
        return
    db.execute("INSERT INTO gap VALUES (NULL, ?, ?, ?, ?, ?, ?, 0)", (*same, first, last, readings))


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
            "UPDATE gap SET carried=1 WHERE id=? AND flow=? AND first=? AND last=? AND readings=?",
            (gap.id, flow, gap.first_ms, gap.last_ms, gap.readings),
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
