# SPDX-License-Identifier: Apache-2.0
"""What waits: batches come in, and go when the backend has confirmed them.

Law:
  - a batch enters an open lane only, in its present stream, with the next sequence; the sequence
    moves in the same transaction, so that no number is used twice or left out;
  - a batch leaves the disk because the backend confirmed it, gave up on it, its time to live
    ended, the quota needed its room, or its flow was purged; or because the broker confirmed it,
    where the technician asked for no more (`carrier`); nothing else;
  - one that the backend gave up on is declared, and blocks nothing;
  - a backend that has numbers which were never given knows another life of this gateway: what
    waits under numbers of that one will never be stored, and is declared.

Limits: an acknowledgement is applied as it stands; that it is the recipient's is checked before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.spool import gaps as declared
from agent.spool.erasure import Room, drop_if_empty, subtract
from agent.spool.records import Acknowledged, LaneState, Waiting
from agent.spool.retention import Retention, oldest_ms
from agent.spool.schema import LAST_SEQUENCE, NEVER, STREAM_SHIFT
from agent.spool.streams import signed, unsigned
from assent.errors import SpoolError
from assent.header import Gap, GapCause

if TYPE_CHECKING:  # the uplink's process never loads the envelope and its cryptography
    from agent.path import Sealed
    from assent.messages import StreamAck

# docs/wire.md, refusal-reason. Under this one the backend holds another batch of the number.
_FORK: Final = 0


class _Gone(NamedTuple):
    """A batch that is deleted, and the gaps it carried."""

    id: int
    readings: int
    bytes: int
    gaps: str | None
    first_ms: int
    last_ms: int


class Queue(Retention):
    """Putting and acknowledging batches."""

    def put(self, batches: Sequence[Sealed], gaps: Sequence[Gap] = ()) -> None:
        """Stores batches, all or none; durable when this returns.

        Args:
            batches: in the order of their sequences, of any flows.
            gaps: the declared gaps that every one of these batches carries, each in the batches of
                its own flow.

        Raises:
            SpoolError: a lane is not open, a stream is not its lane's, a sequence is not the next,
                or the disk refuses; nothing was stored.
        """
        if not batches:
            return
        with self._writing(rings=True) as db:
            tickets: dict[str, _Ticket] = {}
            meta = []
            payload = []
            for batch in batches:
                ticket = tickets.get(batch.flow)
                if ticket is None:
                    ticket = tickets[batch.flow] = _Ticket(db, batch.flow, gaps)
                key = ticket.take(batch)
                meta.append(
                    (
                        key,
                        ticket.lane,
                        batch.readings,
                        len(batch.data),
                        batch.first_ms,
                        batch.last_ms,
                        batch.expires_ms,
                        ticket.carried,
                        batch.digest,
                    )
                )
                payload.append((key, batch.data))
            db.executemany("INSERT INTO batch VALUES (?, ?, 0, 0, ?, ?, ?, ?, ?, ?, ?)", meta)
            db.executemany("INSERT INTO payload VALUES (?, ?)", payload)
            for ticket in tickets.values():
                ticket.settle(db)
        self._expires(min(batch.expires_ms for batch in batches))

    def acknowledge(
        self, recipient: str, acks: Iterable[StreamAck], now_ms: int = 0, read: Sequence[int] = ()
    ) -> Acknowledged:
        """Deletes what the backend has stored, or gave up on; durable when this returns.

        Of very much a part: where `Acknowledged.more` says so, the same is to be said again, and
        the messages that said it stay.
        A batch that is refused with retry stays and is sent again when it is due. Streams of other
        recipients, and unknown ones, are counted and change nothing.

        Args:
            recipient: whose signature was verified.
            acks: what it says of each stream.
            now_ms: wall time for `last_acknowledged_ms`; 0 leaves that as it is.
            read: ids of the inbound messages that said so, which go with what they are about.

        Returns:
            What was deleted.

        Raises:
            SpoolError: the disk refuses; nothing was deleted.
        """
        with self._writing(rings=bool(read)) as db:
            settlement = _Settlement(db, now_ms)
            for ack in acks:
                row = db.execute(
                    "SELECT number, lane.id, lane.stream, lane.flow, lane.next"
                    " FROM stream JOIN lane ON lane.id = stream.lane"
                    " WHERE stream.id=? AND lane.recipient=?",
                    (signed(ack.stream), recipient),
                ).fetchone()
                settlement.stream(row, ack)
            told = settlement.told()
            if not told.more:
                db.executemany("DELETE FROM inbox WHERE id=?", [(one,) for one in read])
        self._shrink()
        return told

    def waiting(self) -> dict[str, Waiting]:
        """Counts what waits; the cost grows with flows and streams, not with batches.

        Returns:
            Every flow that ever had a lane.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT flow, id, batches, readings, bytes, acknowledged FROM lane"
            ).fetchall()
            return {
                flow: Waiting(
                    batches=batches,
                    readings=readings,
                    bytes=size,
                    oldest_ms=oldest_ms(db, lane) if batches else None,
                    last_acknowledged_ms=acknowledged,
                    too_large=db.execute(
                        "SELECT count(*) FROM batch WHERE lane=? AND due=?", (lane, NEVER)
                    ).fetchone()[0],
                )
                for flow, lane, batches, readings, size, acknowledged in rows
            }

    def unacknowledged(self, recipient: str, limit: int) -> tuple[int, ...]:
        """Names streams of which batches were sent and not acknowledged.

        Args:
            recipient: id of the recipient.
            limit: how many at most.

        Returns:
            Stream ids, ascending.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT stream.id FROM stream JOIN lane ON lane.id = stream.lane"
                " WHERE recipient=?1 AND EXISTS (SELECT 1 FROM batch WHERE batch.lane=lane.id"
                " AND due > 0 AND attempts > 0"
                " AND batch.id BETWEEN stream.number << ?2 AND (stream.number + 1 << ?2) - 1)"
                " LIMIT ?3",
                (recipient, STREAM_SHIFT, limit),
            ).fetchall()
        return tuple(sorted(unsigned(stream) for (stream,) in rows))


class _Ticket:
    """What one put needs to know of a lane, and adds to it."""

    def __init__(self, db: sqlite3.Connection, flow: str, gaps: Sequence[Gap]) -> None:
        row = db.execute(
            "SELECT lane.id, recipient, state, number, stream.id, next FROM lane"
            " LEFT JOIN stream ON stream.number = lane.stream WHERE flow=?",
            (flow,),
        ).fetchone()
        if row is None or row[2] not in {LaneState.OPEN, LaneState.HELD}:
            raise SpoolError("the lane is not open; its batches do not enter")
        self.lane: int = row[0]
        self._recipient, self._stream, self._next = row[1], row[4], row[5]
        self._base = (row[3] or 0) << STREAM_SHIFT
        self.carried = declared.mark_carried(db, flow, gaps) if gaps else None
        self._added = [0, 0, 0]
        self._first_ms = NEVER

    def take(self, batch: Sealed) -> int:
        if batch.recipient != self._recipient:
            raise SpoolError("the batch is sealed for another recipient than its lane's")
        if self._stream is None or signed(batch.stream) != self._stream:
            raise SpoolError("the batch belongs to a stream that is not its lane's present one")
        if batch.sequence != self._next or self._next >= LAST_SEQUENCE:
            raise SpoolError(f"expected sequence {self._next}, got {batch.sequence}")
        self._next += 1
        self._added[0] += 1
        self._added[1] += batch.readings
        self._added[2] += len(batch.data)
        self._first_ms = min(self._first_ms, batch.first_ms)
        return self._base + batch.sequence

    def settle(self, db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE lane SET next=?, batches=batches+?, readings=readings+?, bytes=bytes+?,"
            " not_before=iif(stream IN (SELECT number FROM held), not_before, min(not_before, ?))"
            " WHERE id=?",
            (self._next, *self._added, max(0, self._first_ms), self.lane),
        )


class _Settlement:
    """What one acknowledgement deletes, in one transaction."""

    def __init__(self, db: sqlite3.Connection, now_ms: int) -> None:
        self._db = db
        self._now_ms = now_ms
        self._room = Room()
        self._batches = self._readings = self._refused = self._retried = self._unknown = 0
        self._forked: set[str] = set()

    def stream(self, row: tuple[int, int, int | None, str, int] | None, ack: StreamAck) -> None:
        if row is None:
            self._unknown += 1
            return
        db = self._db
        number, lane, present, flow, following = row
        base = number << STREAM_SHIFT
        is_of_another = number == present and _beyond(ack) > following
        if is_of_another:
            self._declare_used(flow, base, ack)
            self._forked.add(flow)
        refused = self._give_up(flow, base, ack, is_present=number == present)
        stored = self._delete(base, base + min(ack.watermark, LAST_SEQUENCE) - 1)
        for first, last in ack.ranges:
            stored += self._delete(base + max(first, 0), base + min(last, LAST_SEQUENCE))
        if not is_of_another:
            declared.forget(db, flow, (one.gaps for one in stored if one.gaps is not None))
        _confirm(db, base, {one.id for one in stored})
        gone = refused + stored
        readings, size = sum(one.readings for one in gone), sum(one.bytes for one in gone)
        subtract(db, lane, len(gone), readings, size)
        if self._now_ms:
            db.execute("UPDATE lane SET acknowledged=? WHERE id=?", (self._now_ms, lane))
        if number != present:
            drop_if_empty(db, number)
        self._batches += len(stored)
        self._readings += sum(one.readings for one in stored)
        self._refused += len(refused)

    def told(self) -> Acknowledged:
        return Acknowledged(
            batches=self._batches,
            readings=self._readings,
            refused=self._refused,
            retried=self._retried,
            unknown=self._unknown,
            more=self._room.is_full,
            forked=frozenset(self._forked),
        )

    def _give_up(self, flow: str, base: int, ack: StreamAck, *, is_present: bool) -> list[_Gone]:
        """Deletes and declares what the backend gave up on; notes where its stream forked."""
        given_up: list[_Gone] = []
        for refusal in ack.refused:
            if refusal.retry:
                self._retried += 1  # it stays and is due when it would have been: no ping-pong
                continue
            key = base + min(max(refusal.sequence, 0), LAST_SEQUENCE)
            gone = self._delete(key, key)
            given_up += gone
            is_fork = refusal.reason == _FORK
            self._declare(flow, ack.stream, gone, is_fork=is_fork)
            if is_fork and gone and is_present:
                self._forked.add(flow)
        return given_up

    def _declare(self, flow: str, stream: int, gone: list[_Gone], *, is_fork: bool) -> None:
        for one in gone:
            number = one.id & LAST_SEQUENCE
            numbers = (0, 0) if is_fork else (number, number + 1)
            same = (flow, signed(stream), GapCause.REFUSED)
            span = (one.first_ms, one.last_ms)
            declared.declare(self._db, same, span, one.readings, numbers)

    def _declare_used(self, flow: str, base: int, ack: StreamAck) -> None:
        """Declares what waits under numbers that another life has used; before any of it goes."""
        first_ms, last_ms, readings = self._db.execute(
            "SELECT min(first), max(last), sum(readings) FROM batch WHERE id >= ? AND id < ?",
            (base, base + min(_beyond(ack), LAST_SEQUENCE)),
        ).fetchone()
        if first_ms is not None:
            same = (flow, signed(ack.stream), GapCause.REFUSED)
            declared.declare(self._db, same, (first_ms, last_ms), readings)

    def _delete(self, low: int, high: int) -> list[_Gone]:
        rows = self._room.take(
            self._db.execute(
                "SELECT id, readings, bytes, gaps, first, last FROM batch"
                " WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                (low, high, self._room.batches),
            ).fetchall()
        )
        gone = [_Gone(*row) for row in rows]
        if gone:
            span = (low, gone[-1].id)
            self._db.execute("DELETE FROM batch WHERE id BETWEEN ? AND ?", span)
            self._db.execute("DELETE FROM payload WHERE id BETWEEN ? AND ?", span)
        return gone


def _beyond(ack: StreamAck) -> int:
    """The first number that the backend knows nothing of."""
    return max([ack.watermark, *(last + 1 for _, last in ack.ranges)])


def _confirm(db: sqlite3.Connection, base: int, stored: set[int]) -> None:
    """Enters into the log of what left whose confirmation by the broker was lost."""
    rows = db.execute(
        "SELECT batch FROM handed WHERE batch BETWEEN ? AND ?", (base, base + LAST_SEQUENCE)
    ).fetchall()
    confirmed = [row for row in rows if row[0] in stored]
    db.executemany(
        "INSERT INTO sent SELECT NULL, at, flow, recipient, readings, bytes, digest FROM handed"
        " WHERE batch=?",
        confirmed,
    )
    db.executemany("DELETE FROM handed WHERE batch=?", confirmed)
