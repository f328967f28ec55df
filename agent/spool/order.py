# SPDX-License-Identifier: Apache-2.0
"""Which messages leave next, and when one that the broker took is due again.

Law:
  - control goes first, then the open lanes in turns;
  - within a lane what is new and what waited before the connection take turns, oldest first, and
    both go before what is sent again: a week of arrears does not stand in the way of this minute;
  - a batch that the broker took is due again after 15 minutes, doubling to 6 hours;
  - a broker that has lost our session has most likely lost what it took: then a batch is due after
    5 seconds, doubling with every time it was sent (docs/decisions/0017). A reconnect alone makes
    nothing due.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

from agent.spool.mail import Mail
from agent.spool.records import Lease
from agent.spool.schema import NEVER, STREAM_SHIFT

# Sent again after 15 minutes, doubling to 6 hours.
RESEND_MS: Final = 15 * 60_000
RESEND_MAX_MS: Final = 6 * 3_600_000
# After a session was lost. The backend has to come back to the same broker first, and an
# acknowledgement that was on its way may arrive. Doubled 13 times it is more than 6 hours.
RECALL_MS: Final = 5_000
_RECALL_DOUBLINGS: Final = 13
_RECALLED: Final = f":now + ({RECALL_MS} << min(attempts - 1, {_RECALL_DOUBLINGS}))"
# Batches recalled in one transaction: some 10 ms, so that a no does not wait for them.
RECALL_PART: Final = 500

_NEWEST: Final = 1 << 62


class OpenLane(NamedTuple):
    """As much of an open lane as leasing needs."""

    id: int
    flow: str
    generation: int


class _Ready(NamedTuple):
    id: int
    lane: OpenLane
    late: bool = False
    again: bool = False


class Order(Mail):
    """Choosing what leaves; the state of leases lives in this object."""

    _leased: dict[int, tuple[str, int]]
    """Id → (flow, generation of its lane); control has ("", 0)."""
    _arrears: dict[int, int]
    """Lane → id of the newest batch that waited when the connection came about."""
    _turn: int = 0

    def note_arrears(self, recipient: str) -> None:
        """Notes what waits for a recipient now: until the next call it counts as late.

        Args:
            recipient: id of the recipient.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, (SELECT max(id) FROM batch WHERE lane=lane.id AND due=0) FROM lane"
                " WHERE recipient=?",
                (recipient,),
            ).fetchall()
        for lane, newest in rows:
            self._arrears[lane] = -1 if newest is None else newest

    def recall(self, recipient: str, now_ms: int) -> bool:
        """Makes due what a broker took that has lost our session; a part of it at a time.

        Args:
            recipient: id of the recipient.
            now_ms: wall time.

        Returns:
            Whether there may be more.

        Raises:
            SpoolError: the disk refuses.
        """
        ids: list[tuple[int]] = []
        with self._reading() as db:
            lanes = db.execute("SELECT id FROM lane WHERE recipient=?", (recipient,)).fetchall()
            for (lane,) in lanes:
                # From the far end, because what was recalled a moment ago is at the near one.
                ids += db.execute(
                    f"SELECT id FROM batch WHERE lane=:lane AND due > :now + {RECALL_MS}"  # noqa: S608 - no input
                    f" AND due < {NEVER} AND attempts > 0 AND due > {_RECALLED}"
                    " ORDER BY due DESC LIMIT :room",
                    {"lane": lane, "now": now_ms, "room": RECALL_PART - len(ids)},
                ).fetchall()
        if ids:
            with self._writing(durable=False) as db:
                db.executemany(
                    f"UPDATE batch SET due = {_RECALLED} WHERE id=:id",  # noqa: S608 - no input
                    [{"id": key, "now": now_ms} for (key,) in ids],
                )
        return len(ids) == RECALL_PART

    def _control(
        self, db: sqlite3.Connection, recipient: str, limit: int, *, courtesies: bool
    ) -> list[Lease]:
        rows = db.execute(
            "SELECT -id, data FROM control WHERE recipient=? AND courtesy <= ? ORDER BY id",
            (recipient, courtesies),
        )
        picked: list[Lease] = []
        for key, data in rows.fetchall():
            if key not in self._leased and len(picked) < limit:
                self._leased[key] = ("", 0)
                picked.append(Lease(key, data, None))
        return picked

    def _batches(
        self,
        db: sqlite3.Connection,
        lanes: Sequence[OpenLane],
        now_ms: int,
        *,
        room: int,
        late: int,
        again: int,
        max_bytes: int | None,
    ) -> list[Lease]:
        self._turn += 1
        queues = []
        for place in range(len(lanes)):
            lane = lanes[(self._turn + place) % len(lanes)]
            queues.append(self._queue(db, lane, now_ms, room=room, late=late, again=again))
        picked: list[Lease] = []
        size = 0
        for one in _in_turns(queues):
            if len(picked) == room:
                break
            if (one.late and late == 0) or (one.again and again == 0):
                continue
            # A row that says it is of a lane and is in another's stream is damage: it stays.
            data = db.execute(
                "SELECT data FROM payload JOIN stream ON number = payload.id >> ?"
                " WHERE payload.id=? AND stream.lane=?",
                (STREAM_SHIFT, one.id, one.lane.id),
            ).fetchone()[0]
            size += len(data)
            if picked and max_bytes is not None and size > max_bytes:
                break
            late -= one.late
            again -= one.again
            self._leased[one.id] = (one.lane.flow, one.lane.generation)
            picked.append(Lease(one.id, data, one.lane.flow, again=one.again, late=one.late))
        return picked

    def _queue(
        self,
        db: sqlite3.Connection,
        lane: OpenLane,
        now_ms: int,
        *,
        room: int,
        late: int,
        again: int,
    ) -> list[_Ready]:
        mark = self._arrears.get(lane.id, -1)
        new = [_Ready(key, lane) for key in self._unsent(db, lane, (mark, _NEWEST), room)]
        old = self._unsent(db, lane, (-1, mark), min(room, late)) if mark >= 0 else []
        keys = list(_in_turns([new, [_Ready(key, lane, late=True) for key in old]]))[:room]
        # The wall clock may have been set back: nothing is due later than one longest interval.
        for span in ((0, now_ms), (now_ms + RESEND_MAX_MS, NEVER - 1)):
            left = min(room - len(keys), again)
            if left > 0:
                found = self._sent(db, lane, span, left)
                keys += [_Ready(key, lane, again=True) for key in found]
        return keys

    def _unsent(
        self, db: sqlite3.Connection, lane: OpenLane, ids: tuple[int, int], limit: int
    ) -> list[int]:
        return self._free(
            db.execute(
                "SELECT id FROM batch WHERE lane=? AND due=0 AND id>? AND id<=?"
                " ORDER BY id LIMIT ?",
                (lane.id, *ids, limit + len(self._leased)),
            ),
            limit,
        )

    def _sent(
        self, db: sqlite3.Connection, lane: OpenLane, due: tuple[int, int], limit: int
    ) -> list[int]:
        return self._free(
            db.execute(
                "SELECT id FROM batch WHERE lane=? AND due>? AND due<=? ORDER BY due, id LIMIT ?",
                (lane.id, *due, limit + len(self._leased)),
            ),
            limit,
        )

    def _free(self, rows: sqlite3.Cursor, limit: int) -> list[int]:
        # What is leased may be among the first, so the rows reach that much further.
        return [key for (key,) in rows.fetchall() if key not in self._leased][:limit]


def _in_turns(queues: Sequence[Sequence[_Ready]]) -> Iterator[_Ready]:
    for round_ in zip_longest(*queues):
        yield from (entry for entry in round_ if entry is not None)
