# SPDX-License-Identifier: Apache-2.0
"""Deleting inside a transaction what must not leave: a whole lane, or what began too early.

Law:
  - batch, payload, counts and gaps go together; the generation of the lane rises, so that what was
    leased of it is revoked, and so does the fence;
  - no gap declares it: that would tell of a time nobody said yes to.
"""

from __future__ import annotations

import sqlite3

from agent.spool.records import Purged
from agent.spool.schema import STREAM_SHIFT


def drop_if_empty(db: sqlite3.Connection, number: int) -> None:
    """Forgets a stream of which nothing waits; the caller knows that it is not the present one.

    Args:
        db: inside a transaction.
        number: number of the stream.
    """
    low = number << STREAM_SHIFT
    db.execute(
        "DELETE FROM stream WHERE number=? AND NOT EXISTS"
        " (SELECT 1 FROM batch WHERE id BETWEEN ? AND ?)",
        (number, low, low + (1 << STREAM_SHIFT) - 1),
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
    db.execute(
        "DELETE FROM gap WHERE flow=(SELECT flow FROM lane WHERE id=?) AND first<?",
        (lane, not_before_ms),
    )
    rows = db.execute(
        "DELETE FROM batch WHERE lane=? AND first<? RETURNING id, readings, bytes",
        (lane, not_before_ms),
    ).fetchall()
    if not rows:
        return Purged(0, 0, 0)
    db.executemany("DELETE FROM payload WHERE id=?", [(key,) for key, _, _ in rows])
    purged = Purged(len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows))
    db.execute(
        "UPDATE lane SET batches=batches-?, readings=readings-?, bytes=bytes-?,"
        " generation=generation+1 WHERE id=?",
        (purged.batches, purged.readings, purged.bytes, lane),
    )
    for number in sorted({key >> STREAM_SHIFT for key, _, _ in rows}):
        present = db.execute("SELECT 1 FROM lane WHERE stream=?", (number,)).fetchone()
        if present is None:
            drop_if_empty(db, number)
    db.execute("UPDATE spool SET fence=fence+1")
    return purged


def empty_in_part(db: sqlite3.Connection, lane: int, limit: int) -> None:
    """Deletes some of the batches of a lane that was closed: nothing of it is leased any more.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        limit: how many at most.
    """
    rows = db.execute(
        "DELETE FROM batch WHERE id IN (SELECT id FROM batch WHERE lane=? LIMIT ?)"
        " RETURNING id, readings, bytes",
        (lane, limit),
    ).fetchall()
    db.executemany("DELETE FROM payload WHERE id=?", [(key,) for key, _, _ in rows])
    db.execute(
        "UPDATE lane SET batches=batches-?, readings=readings-?, bytes=bytes-? WHERE id=?",
        (len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows), lane),
    )


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
        low = number << STREAM_SHIFT
        span = (low, low + (1 << STREAM_SHIFT) - 1)
        db.execute("DELETE FROM payload WHERE id BETWEEN ? AND ?", span)
        db.execute("DELETE FROM batch WHERE id BETWEEN ? AND ?", span)
    db.execute("DELETE FROM stream WHERE lane=?", (lane,))
    db.execute("DELETE FROM gap WHERE flow=?", (flow,))
    db.execute(
        "UPDATE lane SET stream=NULL, next=0, batches=0, readings=0, bytes=0,"
        " generation=generation+1 WHERE id=?",
        (lane,),
    )
    db.execute("UPDATE spool SET fence=fence+1")
    return Purged(*row)
