# SPDX-License-Identifier: Apache-2.0
"""Streams that count from a boot, inside the transactions of the spool.

Law:
  - of such a stream nothing is compared with an instant of the wall clock before it is resolved;
  - what is in one that nobody released does not outlive the opening of its lane.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from agent.spool.records import Boot
from agent.spool.schema import LAST_SEQUENCE, STREAM_SHIFT, ids_of

IS_UNRESOLVED: Final = (
    f"(batch.id >> {STREAM_SHIFT} IN (SELECT number FROM held WHERE high IS NULL))"  # noqa: S608 - no input
)
"""Whether a batch counts from a boot of which nobody knows when it was, as SQL."""

IN_STREAM: Final = (
    f"batch.id BETWEEN number << {STREAM_SHIFT} AND (number << {STREAM_SHIFT}) + {LAST_SEQUENCE}"
)
"""Whether a batch is in the stream whose number stands beside it, as SQL: they lie together."""


def begin_stream(db: sqlite3.Connection, lane: int, boot: Boot) -> None:
    """Notes that the present stream of a lane counts from a boot.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        boot: which.
    """
    db.execute(
        "INSERT INTO held SELECT number, stream.id, lane.id, ?, ?, NULL FROM lane"
        " JOIN stream ON number = lane.stream WHERE lane.id=?",
        (boot.id, boot.low_ms, lane),
    )


def drop_unjudged(db: sqlite3.Connection, lane: int) -> None:
    """Deletes what nobody released: a lane that opens is rid of it.

    Args:
        db: inside a transaction.
        lane: row of the lane.
    """
    streams = db.execute("DELETE FROM held WHERE lane=? RETURNING number", (lane,)).fetchall()
    for (number,) in streams:
        gone = db.execute(
            "DELETE FROM batch WHERE id BETWEEN ? AND ? RETURNING id, readings, bytes",
            ids_of(number),
        ).fetchall()
        db.executemany("DELETE FROM payload WHERE id=?", [(key,) for key, _, _ in gone])
        db.execute(
            "UPDATE lane SET batches=batches-?, readings=readings-?, bytes=bytes-? WHERE id=?",
            (len(gone), sum(row[1] for row in gone), sum(row[2] for row in gone), lane),
        )
