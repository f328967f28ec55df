# SPDX-License-Identifier: Apache-2.0
"""What is no batch: targets, control messages out, the inbox, the uplink's health.

Law:
  - nobody is dialled for the sake of a courtesy, and none leaves while no lane of its recipient is
    open; the last lane to be shut takes those that wait with it (`agent/spool/lanes.py`).

Security: what lies in the inbox comes from the network, unread; its count and size are bounded
here, its signature is checked by the collecting side.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from agent.spool.floor import IS_OPEN, Floors
from agent.spool.records import ClockTrust, Health, Inbound, LaneState, LinkState, Target
from assent.errors import SpoolError

# Messages the inbox holds per recipient; an acknowledgement covers hundreds of batches.
INBOX_MESSAGES: Final = 256
# Bytes the inbox holds per recipient: some thirty of the largest messages.
INBOX_BYTES: Final = 4_000_000
# Control messages that wait per recipient; a status and a few requests are all there should be.
CONTROL_MESSAGES: Final = 256


class Mail(Floors):
    """Targets, control, inbox and health; the first three are the collecting side's."""

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Says which brokers there are; replaces what was said before.

        What the uplink said of a recipient that is no target any more is forgotten.

        Args:
            targets: one per recipient.

        Raises:
            SpoolError: the disk refuses.
        """
        wanted = {
            one.recipient: (
                one.broker,
                one.mailbox,
                one.ca_pem,
                one.cert_path,
                one.key_path,
                int(one.briefly),
                int(one.clock),
            )
            for one in targets
        }
        with self._writing(rings=True) as db:
            rows = db.execute("SELECT * FROM target").fetchall()
            if {row[0]: row[1:] for row in rows} == wanted:
                return  # nothing to write, nothing to wake the uplink for
            db.execute("DELETE FROM target")
            gone = [(row[0],) for row in rows if row[0] not in wanted]
            db.executemany("DELETE FROM health WHERE recipient=?", gone)
            db.executemany(
                "INSERT INTO target VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(recipient, *rest) for recipient, rest in wanted.items()],
            )

    def targets(self, now_ms: int, *, boot_ms: int = 0) -> tuple[Target, ...]:
        """Gives the brokers, and whether a connection to each is wanted now.

        Args:
            now_ms: wall time; a lane whose end has passed does not count as open.
            boot_ms: time since boot, for the floor below which no clock is believed.

        Returns:
            One target per recipient, in the order of their ids.
        """
        with self._reading() as db:
            rows = db.execute("SELECT * FROM target ORDER BY recipient").fetchall()
            return tuple(
                Target(
                    recipient=recipient,
                    broker=broker,
                    mailbox=mailbox,
                    ca_pem=ca_pem,
                    cert_path=cert_path,
                    key_path=key_path,
                    briefly=bool(briefly),
                    clock=ClockTrust(clock),
                    wanted=_is_wanted(db, recipient, now_ms, boot_ms),
                )
                for (
                    recipient,
                    broker,
                    mailbox,
                    ca_pem,
                    cert_path,
                    key_path,
                    briefly,
                    clock,
                ) in rows
            )

    def put_control(
        self, recipient: str, data: bytes, *, courtesy: bool = False, question: bool = False
    ) -> int | None:
        """Stores a message that needs no permit; sent once, forgotten when the broker has it.

        Args:
            recipient: id of the recipient.
            data: sealed or signed bytes.
            courtesy: whether nobody asked for it: then it leaves beside an open lane only, and is
                not even stored where none of the recipient's is open.
            question: whether its answer is of use to this life of the collecting side only.

        Returns:
            What `drop_control` takes; None where it was not stored.

        Raises:
            SpoolError: too many wait already, or the disk refuses.
        """
        with self._writing(rings=True) as db:
            count, is_met = db.execute(
                "SELECT (SELECT count(*) FROM control WHERE recipient=?1),"
                " EXISTS (SELECT 1 FROM lane WHERE recipient=?1 AND state=?2)",
                (recipient, LaneState.OPEN),
            ).fetchone()
            if courtesy and not is_met:
                return None
            if count >= CONTROL_MESSAGES:
                raise SpoolError(f"{count} control messages wait already, no more are taken")
            rows = db.execute(
                "INSERT INTO control VALUES (NULL, ?, ?, ?) RETURNING id",
                (recipient, data, courtesy),
            ).fetchall()
            if question:
                db.executemany("INSERT INTO question VALUES (?)", rows)
            return int(rows[0][0])

    def drop_questions(self) -> None:
        """Forgets what an earlier life asked and nobody has sent: nobody waits for the answer.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._reading() as db:
            if db.execute("SELECT 1 FROM question LIMIT 1").fetchone() is None:
                return
        with self._writing() as db:
            db.execute("DELETE FROM control WHERE id IN (SELECT control FROM question)")
            db.execute("DELETE FROM question")

    def drop_control(self, key: int) -> None:
        """Forgets a control message that is of no use any more; one that left is no matter.

        Args:
            key: of `put_control`.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            db.execute("DELETE FROM control WHERE id=?", (key,))
            db.execute("DELETE FROM question WHERE control=?", (key,))

    def take_inbox(self, limit: int) -> list[Inbound]:
        """Gives the oldest inbound messages; they stay until `drop_inbox`.

        Args:
            limit: how many at most.

        Returns:
            The messages, oldest first.
        """
        with self._reading() as db:
            rows = db.execute("SELECT * FROM inbox ORDER BY id LIMIT ?", (limit,)).fetchall()
        return [Inbound(*row) for row in rows]

    def drop_inbox(self, ids: Sequence[int]) -> None:
        """Forgets inbound messages that were dealt with.

        Args:
            ids: of messages from `take_inbox`.

        Raises:
            SpoolError: the disk refuses; they are given again.
        """
        if not ids:
            return
        with self._writing(rings=True) as db:
            db.executemany("DELETE FROM inbox WHERE id=?", [(one,) for one in ids])

    def health(self) -> dict[str, Health]:
        """Tells how the uplink stands with each recipient.

        Returns:
            By recipient; empty while no uplink ever ran.
        """
        with self._reading() as db:
            rows = db.execute("SELECT * FROM health ORDER BY recipient").fetchall()
            return {
                recipient: Health(LinkState(state), since, detail)
                for recipient, state, since, detail in rows
            }


def _is_wanted(db: sqlite3.Connection, recipient: str, now_ms: int, boot_ms: int) -> bool:
    row = db.execute(
        f"SELECT EXISTS (SELECT 1 FROM lane WHERE recipient=:r AND {IS_OPEN})"  # noqa: S608 - no input
        " OR EXISTS (SELECT 1 FROM control WHERE recipient=:r AND NOT courtesy)",
        {"r": recipient, "now": now_ms, "boot": boot_ms},
    ).fetchone()
    return bool(row[0])
