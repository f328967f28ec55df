# SPDX-License-Identifier: Apache-2.0
"""What leaves the disk as soon as its broker has confirmed it, where the technician asked for that.

Law: only batches for a recipient whose target says so; the gaps they carried count as told.

Limits: what the broker then loses is lost. The backend sees a number that nobody declared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from agent.spool.erasure import drop_if_empty, subtract
from agent.spool.gaps import forget
from agent.spool.schema import STREAM_SHIFT


def let_go(db: sqlite3.Connection, keys: Iterable[int]) -> None:
    """Deletes those of some batches that are kept for their broker only.

    Args:
        db: inside a transaction.
        keys: ids of batches that their broker has confirmed.
    """
    for key in keys:
        row = db.execute(
            "SELECT lane.id, flow, stream, batch.readings, batch.bytes, gaps FROM batch"
            " JOIN lane ON lane.id = batch.lane JOIN target USING (recipient)"
            " WHERE batch.id=? AND briefly",
            (key,),
        ).fetchone()
        if row is None:
            continue
        lane, flow, present, readings, size, gaps = row
        db.execute("DELETE FROM batch WHERE id=?", (key,))
        db.execute("DELETE FROM payload WHERE id=?", (key,))
        subtract(db, lane, 1, readings, size)
        forget(db, flow, [gaps] if gaps is not None else [])
        if key >> STREAM_SHIFT != present:
            drop_if_empty(db, key >> STREAM_SHIFT)
