# SPDX-License-Identifier: Apache-2.0
"""What goes unsent: batches whose time ended, and those the disk has no room for.

Law:
  - the quota counts all flows together; the flow most over an equal share drops its oldest first,
    core flows last;
  - what age and quota drop is declared in the same transaction, with the numbers it had;
  - a week's worth of it goes in parts, and a call does a few: what is left goes with the next ones,
    and whoever says a no meanwhile is heard in between.

Limits: a batch the broker has and the backend has not confirmed yet may be among them; its gap then
tells of readings that did arrive. The backend sees that from the sequence.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from agent.spool import gaps as declared
from agent.spool.boots import IS_UNRESOLVED
from agent.spool.erasure import PART, Room, drop_if_empty, subtract
from agent.spool.lanes import Lanes
from agent.spool.records import Dropped
from agent.spool.schema import LAST_SEQUENCE, NEVER, STREAM_SHIFT
from assent.header import GapCause

# Bytes a batch costs on disk besides its message: two rows, one index entry, half a page
# (tests/agent/test_spool.py measures it).
OVERHEAD: Final = 600
# Batches read per query; most calls drop one.
_CHUNK: Final = 20
# Parts of one call. With four calls a second it drops faster than a machine can put.
_PARTS: Final = 4

COLUMNS: Final = "id, readings, bytes, first, last"
"""What `drop` needs to know of a batch."""
_Row: TypeAlias = tuple[int, int, int, int, int]
Sums: TypeAlias = list[int]
"""Batches, readings, bytes."""


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
            What was dropped, by flow. Where it was very much, the next call goes on.

        Raises:
            SpoolError: the disk refuses.
        """
        if self._next_expiry is not None and now_ms < self._next_expiry:
            if self._uncut:
                self._shrink()
            return ()
        dropped: dict[str, Sums] = {}
        for _ in range(_PARTS):
            with self._writing() as db:
                old = db.execute(
                    f"SELECT {COLUMNS} FROM batch WHERE expires <= ? AND NOT {IS_UNRESOLVED}"  # noqa: S608 - no input
                    f" ORDER BY expires LIMIT {PART}",
                    (now_ms,),
                )
                drop(db, Room().take(old.fetchall()), GapCause.AGE, dropped)
                soonest = db.execute(
                    f"SELECT min(expires) FROM batch WHERE NOT {IS_UNRESOLVED}"  # noqa: S608 - no input
                ).fetchone()[0]
            self._next_expiry = NEVER if soonest is None else int(soonest)
            if self._next_expiry > now_ms:
                break
        self._shrink()
        return told(dropped)

    def enforce_quota(self, max_bytes: int) -> tuple[Dropped, ...]:
        """Drops the oldest of the flow most over an equal share until all fits; core flows last.

        Each batch counts with its message and `OVERHEAD`. What is dropped is declared in a gap.

        Args:
            max_bytes: of waiting batches, all flows together.

        Returns:
            What was dropped, by flow. Where it was very much, the next call goes on.

        Raises:
            SpoolError: the disk refuses.
        """
        dropped: dict[str, Sums] = {}
        for _ in range(_PARTS):
            with self._reading() as db:
                if sum(size for _, _, size in _held(db)) <= max_bytes:
                    break
            with self._writing() as db:
                doomed = _over_quota(db, max_bytes)
                drop(db, Room().take(doomed), GapCause.QUOTA, dropped)
        if dropped:
            self._shrink()
        return told(dropped)

    def _expires(self, expires_ms: int) -> None:
        if self._next_expiry is not None:
            self._next_expiry = min(self._next_expiry, expires_ms)


def _held(db: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Lane, whether it is core, and what the quota counts of it."""
    weight = f"bytes + batches * {OVERHEAD}"
    return db.execute(f"SELECT id, core, {weight} FROM lane WHERE batches > 0").fetchall()  # noqa: S608 - no input


def _over_quota(db: sqlite3.Connection, max_bytes: int) -> Iterator[_Row]:
    sizes = {lane: (bool(core), size) for lane, core, size in _held(db)}
    oldest = {lane: _from_oldest(db, lane) for lane in sizes}
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
        weight = row[2] + OVERHEAD
        sizes[lane] = (sizes[lane][0], sizes[lane][1] - weight)
        total -= weight
        yield row


def drop(
    db: sqlite3.Connection, rows: Sequence[_Row], cause: GapCause, dropped: dict[str, Sums]
) -> None:
    """Deletes batches and declares the gaps.

    Args:
        db: inside a transaction.
        rows: their `COLUMNS`.
        cause: why.
        dropped: where to add them up, by flow.
    """
    keys = [(row[0],) for row in rows]
    db.executemany("DELETE FROM batch WHERE id=?", keys)
    db.executemany("DELETE FROM payload WHERE id=?", keys)
    by_stream: dict[int, list[_Row]] = {}
    for row in rows:
        by_stream.setdefault(row[0] >> STREAM_SHIFT, []).append(row)
    for number, part in by_stream.items():
        flow, lane, stream, present = db.execute(
            "SELECT flow, lane.id, stream.id, lane.stream FROM stream JOIN lane"
            " ON lane.id = stream.lane WHERE number=?",
            (number,),
        ).fetchone()
        readings, size = sum(row[1] for row in part), sum(row[2] for row in part)
        subtract(db, lane, len(part), readings, size)
        _declare(db, (flow, stream, cause), part)
        if number != present:
            drop_if_empty(db, number)
        sums = dropped.setdefault(flow, [0, 0, 0])
        sums[0] += len(part)
        sums[1] += readings
        sums[2] += size


def _declare(db: sqlite3.Connection, same: tuple[str, int, GapCause], rows: Sequence[_Row]) -> None:
    # By runs of numbers: what lies between two of them is not missing.
    ordered = sorted(rows)
    for _, group in itertools.groupby(enumerate(ordered), lambda one: one[1][0] - one[0]):
        run = [row for _, row in group]
        declared.declare(
            db,
            same,
            (min(row[3] for row in run), max(row[4] for row in run)),
            sum(row[1] for row in run),
            (run[0][0] & LAST_SEQUENCE, (run[-1][0] & LAST_SEQUENCE) + 1),
        )


def told(dropped: dict[str, Sums]) -> tuple[Dropped, ...]:
    """Tells what was added up, by flow."""
    return tuple(Dropped(flow, *sums) for flow, sums in sorted(dropped.items()))


def _from_oldest(db: sqlite3.Connection, lane: int, chunk: int = _CHUNK) -> Iterator[_Row]:
    streams = db.execute("SELECT number FROM stream WHERE lane=? ORDER BY number", (lane,))
    for (number,) in streams.fetchall():
        after, end = (number << STREAM_SHIFT) - 1, (number + 1) << STREAM_SHIFT
        while rows := db.execute(
            f"SELECT {COLUMNS} FROM batch WHERE id > ? AND id < ? ORDER BY id LIMIT {chunk}",  # noqa: S608 - no input
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
        Milliseconds since 1970, or None when nothing waits; of what counts from a boot of which
        nobody knows when it was, the earliest that it can be.
    """
    row = next(_from_oldest(db, lane, chunk=1), None)
    if row is None:
        return None
    held = db.execute(
        "SELECT low FROM held WHERE number=? AND high IS NULL", (row[0] >> STREAM_SHIFT,)
    ).fetchone()
    return row[3] + (held[0] if held else 0)
