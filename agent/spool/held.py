# SPDX-License-Identifier: Apache-2.0
"""What waits for the time: streams that count from a boot; resolved, judged, released or purged.

Path: lane by the boot → seal → **held** → the time is known → the gate's permit → open lane.

Law:
  - nothing of it leaves before it was resolved and lies wholly within the permit of then;
  - in the boot that learnt the time its beginning is known; one that ended before lies between two
    bounds: the floor before it, and the boot that learnt the time less what it lasted itself;
  - what may lie outside the permit is purged, and declared as a gap of cause *clock*;
  - what is released is told with the bounds of its boot, in a gap of cause *boot*, until a batch
    that carried it was acknowledged;
  - what was kept for as long as the flow allows goes, by the time since its own boot.

Limits: bounds that contradict each other (a floor that was ahead) resolve nothing: it is purged.
"""

from __future__ import annotations

import sqlite3
from typing import Final, TypeAlias

from agent.spool.boots import IN_STREAM, IS_UNRESOLVED
from agent.spool.records import Dropped, Held
from agent.spool.retention import COLUMNS, Retention, Sums, drop, told
from agent.spool.schema import STREAM_SHIFT, ids_of
from assent.header import GapCause

# Gaps whose instants are those of batches, and count as they do.
_OF_BATCHES: Final = f"({GapCause.QUOTA.value}, {GapCause.AGE.value}, {GapCause.UNSEALED.value})"

# To the millisecond, which no other gap is: it moves whole streams, and each of them once.
_TELL: Final = "INSERT INTO gap VALUES (NULL, ?, ?, ?, ?, ?, 0, 0, 0, 0)"

_Stream: TypeAlias = tuple[int, int, int, int]  # number, id, low, high


class HeldStreams(Retention):
    """Resolving, judging and counting what is held; the collecting side's."""

    def held(self) -> dict[str, Held]:
        """Counts what waits for the time.

        Returns:
            By flow; a flow without any is absent.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT flow, count(*), total(batch.readings), sum(held.high IS NULL) FROM held"  # noqa: S608 - no input
                " CROSS JOIN lane ON lane.id = held.lane"
                f" CROSS JOIN batch ON batch.lane = lane.id AND {IN_STREAM} GROUP BY flow"
            ).fetchall()
        return {
            flow: Held(batches, int(readings), unresolved)
            for flow, batches, readings, unresolved in rows
        }

    def resolve(self, boot: str, offset_ms: int) -> int:
        """Gives each held stream its place in time, or its bounds; durable when this returns.

        Only a trusted clock may call this.

        Args:
            boot: the boot that knows the time now.
            offset_ms: when it began, in ms since 1970.

        Returns:
            How many streams have one now that had none.

        Raises:
            SpoolError: the disk refuses; nothing was changed.
        """
        with self._reading() as db:
            if db.execute("SELECT 1 FROM held WHERE high IS NULL LIMIT 1").fetchone() is None:
                return 0
        dropped: dict[str, Sums] = {}
        with self._writing() as db:
            lasted = dict(
                db.execute(
                    "SELECT boot, max(last) FROM held CROSS JOIN batch"  # noqa: S608 - no input
                    f" ON {IN_STREAM} WHERE high IS NULL GROUP BY boot"
                ).fetchall()
            )
            streams = db.execute(
                "SELECT number, held.id, boot, low FROM held WHERE high IS NULL"
            ).fetchall()
            for number, stream, of, low in streams:
                bounds = (offset_ms, offset_ms)
                if of != boot:
                    bounds = (low, offset_ms - lasted.get(of, 0))
                _place(db, number, stream, bounds, dropped)
        self._next_expiry = None
        return len(streams)

    def judge(
        self, flow: str, *, not_before_ms: int, not_after_ms: int | None, reach_ms: int
    ) -> tuple[Dropped, ...]:
        """Releases what lies within a permit, and purges the rest; durable when this returns.

        Args:
            flow: id of the flow.
            not_before_ms: start of the unbroken yes in ms since 1970.
            not_after_ms: first instant after it, or None.
            reach_ms: how long after its instant a value may still tell of something.

        Returns:
            What was purged; each is declared.

        Raises:
            SpoolError: the disk refuses; nothing was released.
        """
        dropped: dict[str, Sums] = {}
        with self._reading() as db:
            if not _resolved(db, flow):
                return ()
        with self._writing() as db:
            bound = "UPDATE lane SET not_before=min(not_before, ?) WHERE flow=?"
            db.execute(bound, (not_before_ms, flow))
            for number, stream, low, high in _resolved(db, flow):
                span = ids_of(number)
                rows = db.execute(
                    f"SELECT {COLUMNS} FROM batch WHERE id BETWEEN ? AND ? AND"  # noqa: S608 - no input
                    " (first < ? OR last + ? > ifnull(?, last + ?))",
                    (*span, not_before_ms, reach_ms, not_after_ms, reach_ms),
                ).fetchall()
                drop(db, rows, GapCause.CLOCK, dropped)
                db.execute("DELETE FROM held WHERE number=?", (number,))
                left = db.execute("SELECT 1 FROM batch WHERE id BETWEEN ? AND ? LIMIT 1", span)
                if left.fetchone() is not None:
                    db.execute(_TELL, (flow, stream, GapCause.BOOT, low, high))
        return told(dropped)

    def expire_held(self, boot: str, boot_ms: int) -> tuple[Dropped, ...]:
        """Drops what this boot holds for longer than its flow keeps it here, and declares it.

        Args:
            boot: the present one.
            boot_ms: time since it began.

        Returns:
            What was dropped, by flow.

        Raises:
            SpoolError: the disk refuses.
        """
        found = (
            f"SELECT {COLUMNS} FROM batch WHERE expires <= ? AND {IS_UNRESOLVED} AND"  # noqa: S608 - no input
            f" batch.id >> {STREAM_SHIFT} IN (SELECT number FROM held WHERE boot=?) LIMIT 500"
        )
        with self._reading() as db:
            if db.execute(found, (boot_ms, boot)).fetchone() is None:
                return ()
        dropped: dict[str, Sums] = {}
        with self._writing() as db:
            drop(db, db.execute(found, (boot_ms, boot)).fetchall(), GapCause.AGE, dropped)
        self._shrink()
        return told(dropped)


def _resolved(db: sqlite3.Connection, flow: str) -> list[_Stream]:
    return db.execute(
        "SELECT number, held.id, low, high FROM held JOIN lane ON lane.id = held.lane"
        " WHERE flow=? AND high IS NOT NULL ORDER BY number",
        (flow,),
    ).fetchall()


def _place(
    db: sqlite3.Connection,
    number: int,
    stream: int,
    bounds: tuple[int, int],
    dropped: dict[str, Sums],
) -> None:
    """Moves a stream from its boot to the wall clock; one whose bounds cross is purged."""
    low, high = max(0, min(bounds)), max(0, *bounds)
    db.execute(
        "UPDATE batch SET first=first+?, last=last+?, expires=expires+? WHERE id BETWEEN ? AND ?",
        (low, high, high, *ids_of(number)),
    )
    db.execute(
        f"UPDATE gap SET first=first+?, last=last+? WHERE stream=? AND cause IN {_OF_BATCHES}",  # noqa: S608 - no input
        (low, high, stream),
    )
    db.execute("UPDATE held SET low=?, high=? WHERE number=?", (low, high, number))
    if bounds[0] > bounds[1]:
        rows = db.execute(
            f"SELECT {COLUMNS} FROM batch WHERE id BETWEEN ? AND ?",  # noqa: S608 - no input
            ids_of(number),
        ).fetchall()
        drop(db, rows, GapCause.CLOCK, dropped)
