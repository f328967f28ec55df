# SPDX-License-Identifier: Apache-2.0
"""The uplink's end of the spool: lease, report the outcome, bring bytes back.

Law:
  - a lease covers lanes that are open now and whose end has not passed, in one snapshot; the end
    is held against the floor too, so that a clock that was set back opens nothing again, and a no
    that lies beside the spool counts;
  - what is leased is known to this connection only. When its process dies, it is leased again;
  - a PUBACK deletes no batch: it becomes due again (`agent/spool/order.py`) until the backend's
    acknowledgement deletes it; unless the technician asked for no more (`briefly`);
  - `revoked` names what was leased and must not leave any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.spool.briefly import let_go
from agent.spool.floor import IS_OPEN
from agent.spool.mail import INBOX_BYTES, INBOX_MESSAGES
from agent.spool.order import RESEND_MAX_MS, RESEND_MS, OpenLane, Order
from agent.spool.records import Health, Lease
from agent.spool.schema import NEVER
from assent.errors import SpoolError
from assent.wire import MAX_MESSAGE


class Carrier(Order):
    """Leasing and reporting; the state of leases lives in this object."""

    def lease(
        self,
        recipient: str,
        limit: int,
        now_ms: int,
        *,
        late: int | None = None,
        resends: int | None = None,
        max_bytes: int | None = None,
        boot_ms: int = 0,
    ) -> list[Lease]:
        """Gives messages that may leave now, in the order of `agent/spool/order.py`.

        Args:
            recipient: id of the recipient.
            limit: how many at most.
            now_ms: wall time.
            late: how many of them at most may have waited before `note_arrears`, or None for no
                limit.
            resends: how many of them at most may be sent again, or None for no limit.
            max_bytes: how many bytes of batches at most, or None for no limit; the first is given
                however large it is.
            boot_ms: time since boot, for the floor below which no clock is believed.

        Returns:
            The messages; each is given once until `returned`, `delivered` or `set_aside`.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._reading() as db:
            lanes = db.execute(
                f"SELECT id, flow, generation, batches > 0 FROM lane WHERE recipient=:r"  # noqa: S608 - no input
                f" AND {IS_OPEN} ORDER BY id",
                {"r": recipient, "now": now_ms, "boot": boot_ms},
            ).fetchall()
            refused = self._noes.left()
            lanes = [lane for lane in lanes if lane[1] not in refused]
            picked = self._control(db, recipient, limit, courtesies=bool(lanes))
            if len(picked) < limit:
                room = limit - len(picked)
                picked += self._batches(
                    db,
                    [OpenLane(*lane[:3]) for lane in lanes if lane[3]],
                    now_ms,
                    room=room,
                    late=room if late is None else late,
                    again=room if resends is None else resends,
                    max_bytes=max_bytes,
                )
        return picked

    def delivered(self, ids: Iterable[int], now_ms: int) -> None:
        """Notes that the broker has taken messages: batches wait on, control is forgotten.

        The first time a batch is taken, it enters the log of what left. A power cut may lose the
        newest such notes; the messages are then sent twice.

        Args:
            ids: of leases.
            now_ms: wall time.

        Raises:
            SpoolError: the disk refuses; they count as not leased.
        """
        done = [key for key in ids if self._leased.pop(key, None) is not None]
        if not done:
            return
        with self._writing(durable=False) as db:
            db.executemany(
                "INSERT INTO sent SELECT NULL, ?, lane.flow, lane.recipient, batch.readings,"
                " batch.bytes, digest FROM batch JOIN lane ON lane.id = batch.lane"
                " WHERE batch.id=? AND attempts=0",
                [(now_ms, key) for key in done if key > 0],
            )
            db.executemany(
                "UPDATE batch SET due = ? + min(?, ? << min(attempts, 8)), attempts = attempts + 1"
                " WHERE id=?",
                [(now_ms, RESEND_MAX_MS, RESEND_MS, key) for key in done if key > 0],
            )
            db.executemany("DELETE FROM handed WHERE batch=?", [(key,) for key in done])
            let_go(db, [key for key in done if key > 0])
            db.executemany("DELETE FROM control WHERE id=?", [(-key,) for key in done if key < 0])

    def returned(self, ids: Iterable[int]) -> None:
        """Gives leases back that did not arrive: they may be leased again at once.

        Args:
            ids: of leases.
        """
        for key in ids:
            self._leased.pop(key, None)

    def handed_over(self, ids: Iterable[int], now_ms: int) -> None:
        """Notes batches that were published and not confirmed when their connection ended.

        They may arrive, also when nothing of them leaves any more. To be told before a fence is
        answered: what had to stop is deleted after that.

        Args:
            ids: of leases; of control nothing is noted, nor of what was in the log before.
            now_ms: wall time.

        Raises:
            SpoolError: the disk refuses.
        """
        batches = [key for key in ids if key > 0]
        if not batches:
            return
        with self._writing(durable=False) as db:
            db.executemany(
                "INSERT OR IGNORE INTO handed SELECT batch.id, ?, lane.flow, lane.recipient,"
                " batch.readings, batch.bytes, digest FROM batch JOIN lane ON lane.id = batch.lane"
                " WHERE batch.id=? AND attempts=0",
                [(now_ms, key) for key in batches],
            )

    def postpone(self, ids: Iterable[int], due_ms: int) -> None:
        """Has messages wait that did not arrive and are in the way; control messages are dropped.

        Args:
            ids: of leases.
            due_ms: when they may be leased again, in ms since 1970.

        Raises:
            SpoolError: the disk refuses; they count as not leased.
        """
        done = [key for key in ids if self._leased.pop(key, None) is not None]
        with self._writing(durable=False) as db:
            db.executemany("UPDATE batch SET due=? WHERE id=?", [(due_ms, one) for one in done])
            db.executemany("DELETE FROM control WHERE id=?", [(-one,) for one in done if one < 0])

    def set_aside(self, ids: Iterable[int]) -> None:
        """Notes that messages are too large for the broker; control messages are dropped.

        Batches stay until they expire, and are counted in `waiting`.

        Args:
            ids: of leases.

        Raises:
            SpoolError: the disk refuses; they count as not leased.
        """
        done = [key for key in ids if self._leased.pop(key, None) is not None]
        with self._writing() as db:
            db.executemany("UPDATE batch SET due=? WHERE id=?", [(NEVER, one) for one in done])
            db.executemany("DELETE FROM control WHERE id=?", [(-one,) for one in done if one < 0])

    def reconsider(self, recipient: str, max_bytes: int) -> int:
        """Makes messages due again that were too large for an earlier limit of the broker.

        Args:
            recipient: id of the recipient.
            max_bytes: the largest message the broker takes now.

        Returns:
            How many are due again.

        Raises:
            SpoolError: the disk refuses.
        """
        found = (
            " FROM batch WHERE lane IN (SELECT id FROM lane WHERE recipient=?)"
            " AND due=? AND bytes<=?"
        )
        values = (recipient, NEVER, max_bytes)
        with self._reading() as db:
            if db.execute(f"SELECT 1{found} LIMIT 1", values).fetchone() is None:
                return 0
        with self._writing() as db:
            return db.execute(
                f"UPDATE batch SET due=0 WHERE id IN (SELECT id{found})",  # noqa: S608 - no input
                values,
            ).rowcount

    def revoked(self, now_ms: int, *, boot_ms: int = 0) -> frozenset[int]:
        """Names the leases that must not leave any more: their lane was shut or has ended.

        Args:
            now_ms: wall time.
            boot_ms: time since boot, for the floor below which no clock is believed.

        Returns:
            Their ids; still leased until `returned`.
        """
        if not self._leased:
            return frozenset()
        with self._reading() as db:
            valid = set(
                db.execute(
                    f"SELECT flow, generation FROM lane WHERE {IS_OPEN}",  # noqa: S608 - no input
                    {"now": now_ms, "boot": boot_ms},
                ).fetchall()
            )
        refused = self._noes.left()
        valid = {("", 0)} | {lane for lane in valid if lane[0] not in refused}
        return frozenset(key for key, lane in self._leased.items() if lane not in valid)

    def answer_fence(self, fence: int) -> None:
        """Tells the collecting side that nothing older than a fence can leave any more.

        Args:
            fence: from `fence`, read before `revoked`.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._reading() as db:
            if db.execute("SELECT answered >= ? FROM spool", (fence,)).fetchone()[0]:
                return
        with self._writing(durable=False) as db:
            db.execute("UPDATE spool SET answered=max(answered, ?)", (fence,))

    def receive(self, recipient: str, data: bytes, now_ms: int) -> bool:
        """Stores a message from a recipient unread; durable when this returns True.

        Args:
            recipient: whose broker brought it.
            data: the message.
            now_ms: wall time.

        Returns:
            Whether there was room: False leaves it with the broker.

        Raises:
            SpoolError: larger than any message of the wire, or the disk refuses.
        """
        if len(data) > MAX_MESSAGE:
            raise SpoolError(f"expected at most {MAX_MESSAGE} bytes, got {len(data)}")
        with self._writing() as db:
            count, size = db.execute(
                "SELECT count(*), total(length(data)) FROM inbox WHERE recipient=?", (recipient,)
            ).fetchone()
            if count >= INBOX_MESSAGES or size + len(data) > INBOX_BYTES:
                return False
            db.execute("INSERT INTO inbox VALUES (NULL, ?, ?, ?)", (recipient, data, now_ms))
        return True

    def report(self, recipient: str, health: Health) -> None:
        """Says how the uplink stands with a recipient.

        Args:
            recipient: id of the recipient.
            health: replaces what was said before. Of a recipient that is no target any more
                nothing is kept.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing(durable=False) as db:
            db.execute(
                "INSERT INTO health SELECT recipient, ?2, ?3, ?4 FROM target WHERE recipient=?1"
                " ON CONFLICT (recipient) DO UPDATE SET state=excluded.state,"
                " since=excluded.since, detail=excluded.detail",
                (recipient, health.state.value, health.since_ms, health.detail),
            )
