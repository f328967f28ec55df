# SPDX-License-Identifier: Apache-2.0
"""What goes unsent: batches whose time ended, and those the disk has no room for.

Law:
  - the quota counts all flows together; the flow most over an equal share drops its oldest first,
    core flows last;
  - what age and quota drop is declared in a gap in the same transaction.

Limits: a batch the broker has and the backend has not confirmed yet may be among them; its gap then
tells of readings that did arrive. The backend sees that from the sequence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from agent.spool import gaps as declared
from agent.spool.erasure import drop_if_empty
from agent.spool.lanes import Lanes
from agent.spool.records import Dropped
from agent.spool.schema import NEVER, STREAM_SHIFT
from assent.header import GapCause

# Bytes a batch costs on disk besides its message: two rows, one index entry, half a page
# (tests/agent/test_spool.py measures it).
OVERHEAD: Final = 600
# Batches read per query; bounds the memory of a large drop.
_CHUNK: Final = 500

_COLUMNS: Final = "id, lane, readings, bytes, first, last"
_Row: TypeAlias = tuple[int, int, int, int, int, int]


class Retention(Lanes):
    """Dropping batches that are too old or too many."""

    _next_expiry: int | None = None
    """When the next batch expires, or None while nobody has looked."""

    def expire(self, now_ms: int) -> tuple[Dropped, ...]:
        """Drops batches whose time to live on the gateway has ended, and declares the gaps.

        Costs nothing while none is due. Only a trusted clock may call this.

        Args:
            now_ms: wall time.

        Returns:
            What was dropped, by flow.

        Raises:
            SpoolError: the disk refuses; nothing was dropped.
        """
        if self._next_expiry is not None and now_ms < self._next_expiry:
            if self._uncut:
                self._shrink()
            return ()
        with self._writing() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM batch WHERE expires <= ? ORDER BY id",  # noqa: S608 - no input
                (now_ms,),
            ).fetchall()
            dropped = _drop(db, rows, GapCause.AGE)
            soonest = db.execute("SELECT min(expires) FROM batch").fetchone()[0]
        self._next_expiry = NEVER if soonest is None else int(soonest)
        self._shrink()
        return dropped

    def enforce_quota(self, max_bytes: int) -> tuple[Dropped, ...]:
        """Drops the oldest of the flow most over an equal share until all fits; core flows last.

        Each batch counts with its message and `OVERHEAD`. What is dropped is declared in a gap.

        Args:
            max_bytes: of waiting batches, all flows together.

        Returns:
            What was dropped, by flow.

        Raises:
            SpoolError: the disk refuses; nothing was dropped.
        """
        weight = f"bytes + batches * {OVERHEAD}"
        query = f"SELECT id, core, {weight} FROM lane WHERE batches > 0"  # noqa: S608 - no input
        with self._reading() as db:
            held = db.execute(query).fetchall()
        if sum(size for _, _, size in held) <= max_bytes:
            return ()
        with self._writing() as db:
            sizes = {lane: (bool(core), size) for lane, core, size in db.execute(query).fetchall()}
            doomed = _over_quota(db, sizes, max_bytes)
            dropped = _drop(db, doomed, GapCause.QUOTA)
        self._shrink()
        return dropped

    def _expires(self, expires_ms: int) -> None:
        if self._next_expiry is not None:
            self._next_expiry = min(self._next_expiry, expires_ms)


def _over_quota(
    db: sqlite3.Connection, sizes: dict[int, tuple[bool, int]], max_bytes: int
) -> list[_Row]:
    oldest = {lane: _from_oldest(db, lane) for lane in sizes}
    doomed: list[_Row] = []
    total = sum(size for _, size in sizes.values())
    while total > max_bytes:
        # Equal shares are the same for all, so the flow most over its share is the largest one.
        lane = max(sizes, key=lambda one: (not sizes[one][0], sizes[one][1]))
        row = next(oldest[lane], None)
        if row is None:
            del sizes[lane]
            if not sizes:
                break
            continue
        weight = row[3] + OVERHEAD
        sizes[lane] = (sizes[lane][0], sizes[lane][1] - weight)
        total -= weight
        doomed.append(row)
    return doomed


def _drop(db: sqlite3.Connection, rows: Sequence[_Row], cause: GapCause) -> tuple[Dropped, ...]:
    keys = [(row[0],) for row in rows]
    db.executemany("DELETE FROM batch WHERE id=?", keys)
    db.executemany("DELETE FROM payload WHERE id=?", keys)
    by_stream: dict[int, list[_Row]] = {}
    for row in rows:
        by_stream.setdefault(row[0] >> STREAM_SHIFT, []).append(row)
    dropped: dict[str, list[int]] = {}
    for number, part in by_stream.items():
        flow, lane, stream, present = db.execute(
            "SELECT flow, lane.id, stream.id, lane.stream FROM stream JOIN lane"
            " ON lane.id = stream.lane WHERE number=?",
            (number,),
        ).fetchone()
        readings, size = sum(row[2] for row in part), sum(row[3] for row in part)
        subtract(db, lane, len(part), readings, size)
        declared.declare(
            db,
            (flow, stream, cause),
            min(row[4] for row in part),
            max(row[5] for row in part),
            readings,
        )
        if number != present:
            drop_if_empty(db, number)
        sums = dropped.setdefault(flow, [0, 0, 0])
        sums[0] += len(part)
        sums[1] += readings
        sums[2] += size
    return tuple(Dropped(flow, *sums) for flow, sums in sorted(dropped.items()))


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


def _from_oldest(db: sqlite3.Connection, lane: int, chunk: int = _CHUNK) -> Iterator[_Row]:
    streams = db.execute("SELECT number FROM stream WHERE lane=? ORDER BY number", (lane,))
    for (number,) in streams.fetchall():
        after, end = (number << STREAM_SHIFT) - 1, (number + 1) << STREAM_SHIFT
        while rows := db.execute(
            f"SELECT {_COLUMNS} FROM batch WHERE id > ? AND id < ? ORDER BY id LIMIT {chunk}",  # noqa: S608 - no input
            (after, end),
        ).fetchall():
            yield from rows
            after = rows[-1][0]


def oldest_ms(db: sqlite3.Connection, lane: int) -> int | None:
    """Gives the earliest instant in the oldest batch of a lane.

    Args:
        db: a connection.
        lane: row of the lane.

    Returns:
        Milliseconds since 1970, or None when nothing waits.
    """
    return next((row[4] for row in _from_oldest(db, lane, chunk=1)), None)
