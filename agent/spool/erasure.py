# SPDX-License-Identifier: Apache-2.0
"""Deleting inside a transaction what must not leave: a whole lane, or what began too early.

Law:
  - batch, payload, counts and gaps go together; the generation of the lane rises, so that what was
    leased of it is revoked, and so does the fence;
  - what was deleted is named by its streams alone, and only after a later yes (`choice`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from agent.spool.boots import IS_UNRESOLVED
from agent.spool.choice import keep_back, keep_back_before
from agent.spool.records import Purged
from agent.spool.schema import STREAM_SHIFT, ids_of

# Batches and bytes that one transaction deletes: 20 ms here, and the bytes once more in the log.
PART: Final = 500
PART_BYTES: Final = 4 << 20

_Row = TypeVar("_Row", bound=tuple[Any, ...])


class Room:
    """How much a transaction may still delete, so that nobody waits long for it, nor memory grows.

    Attributes:
        batches: how many.
        bytes: of messages; the last one may be larger than what is left.
    """

    def __init__(self) -> None:
        self.batches = PART
        self.bytes = PART_BYTES

    @property
    def is_full(self) -> bool:
        """Whether it ended before everything was looked at, or with the last of it."""
        return self.batches <= 0 or self.bytes <= 0

    def take(self, rows: Iterable[_Row]) -> list[_Row]:
        """Takes the first of some rows, as many as there is room for.

        Args:
            rows: id, readings and bytes of batches, and whatever else.

        Returns:
            Those that are to be deleted.
        """
        taken: list[_Row] = []
        for row in rows:
            if self.is_full:
                break
            taken.append(row)
            self.batches -= 1
            self.bytes -= row[2]
        return taken


def fits(*, batches: int, size: int) -> bool:
    """Says whether so much may be deleted in one transaction.

    Args:
        batches: how many.
        size: bytes of their messages.
    """
    return batches <= PART and size <= PART_BYTES


def drop_if_empty(db: sqlite3.Connection, number: int) -> None:
    """Forgets a stream of which nothing waits; the caller knows that it is not the present one.

    Args:
        db: inside a transaction.
        number: number of the stream.
    """
    db.execute(
        "DELETE FROM stream WHERE number=? AND NOT EXISTS"
        " (SELECT 1 FROM batch WHERE id BETWEEN ? AND ?)",
        (number, *ids_of(number)),
    )


def subtract(db: sqlite3.Connection, lane: int, batches: int, readings: int, size: int) -> None:
    """Takes deleted batches off the counts of a lane.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        batches: how many were deleted.
        readings: how many values they held.
        size: how many bytes of messages.
    """
    db.execute(
        "UPDATE lane SET batches=batches-?, readings=readings-?, bytes=bytes-? WHERE id=?",
        (batches, readings, size, lane),
    )


def delete_before(db: sqlite3.Connection, lane: int, not_before_ms: int) -> Purged:
    """Deletes what begins before an instant, with the gaps that do; leases of the lane are revoked.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        not_before_ms: the instant.

    Returns:
        What was deleted.
    """
    keep_back_before(db, lane, not_before_ms)
    rows = db.execute(
        f"DELETE FROM batch WHERE lane=? AND first<? AND NOT {IS_UNRESOLVED}"  # noqa: S608 - no input
        " RETURNING id, readings, bytes",
        (lane, not_before_ms),
    ).fetchall()
    if not rows:
        return Purged(0, 0, 0)
    db.executemany("DELETE FROM payload WHERE id=?", [(key,) for key, _, _ in rows])
    purged = Purged(len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows))
    subtract(db, lane, purged.batches, purged.readings, purged.bytes)
    db.execute("UPDATE lane SET generation=generation+1 WHERE id=?", (lane,))
    for number in sorted({key >> STREAM_SHIFT for key, _, _ in rows}):
        present = db.execute("SELECT 1 FROM lane WHERE stream=?", (number,)).fetchone()
        if present is None:
            drop_if_empty(db, number)
    db.execute("UPDATE spool SET fence=fence+1")
    return purged


def empty_in_part(db: sqlite3.Connection, lane: int) -> None:
    """Deletes some of the batches of a lane that was closed: nothing of it is leased any more.

    Args:
        db: inside a transaction.
        lane: row of the lane.
    """
    rows: list[tuple[int, int, int]] = Room().take(
        db.execute(
            "SELECT id, readings, bytes FROM batch WHERE lane=? LIMIT ?", (lane, PART)
        ).fetchall()
    )
    keys = [(key,) for key, _, _ in rows]
    db.executemany("DELETE FROM batch WHERE id=?", keys)
    db.executemany("DELETE FROM payload WHERE id=?", keys)
    subtract(db, lane, len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows))


def empty(db: sqlite3.Connection, lane: int, flow: str) -> Purged:
    """Deletes all that waits of a lane, with its streams and gaps; its leases are revoked.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        flow: id of its flow.

    Returns:
        What was deleted.
    """
    row = db.execute("SELECT batches, readings, bytes FROM lane WHERE id=?", (lane,)).fetchone()
    for (number,) in db.execute("SELECT number FROM stream WHERE lane=?", (lane,)).fetchall():
        db.execute("DELETE FROM payload WHERE id BETWEEN ? AND ?", ids_of(number))
        db.execute("DELETE FROM batch WHERE id BETWEEN ? AND ?", ids_of(number))
    keep_back(db, lane, flow)
    db.execute("DELETE FROM stream WHERE lane=?", (lane,))
    db.execute("DELETE FROM held WHERE lane=?", (lane,))
    db.execute(
        "UPDATE lane SET stream=NULL, next=0, batches=0, readings=0, bytes=0,"
        " generation=generation+1 WHERE id=?",
        (lane,),
    )
    db.execute("UPDATE spool SET fence=fence+1")
    return Purged(*row)
