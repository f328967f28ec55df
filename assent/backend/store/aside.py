# SPDX-License-Identifier: Apache-2.0
"""Messages that can be neither stored nor refused, for a lack of ours: kept apart, as they came.

Path: Aside (ingest, store) → **aside** → ingest, again and again → stored or refused.
Law:
  - what lies here is neither stored nor refused: its gateway is told nothing of it, keeps it, and
    sends it again. It is tried again here, too, for a gateway that believes its broker;
  - the broker may forget it all the same: what it cannot be rid of fills its window of messages
    that are under way, and would stop every other gateway;
  - it leaves in the transaction that stores or refuses it; the same bytes lie here once;
  - it is bounded. What finds no room is counted, and still its gateway's to keep.

Security: this is custody. The bytes may be sealed readings.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Final, NamedTuple

from assent.backend.outcomes import Aside

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS aside (
  id INTEGER PRIMARY KEY, mailbox TEXT NOT NULL, digest BLOB NOT NULL,
  lack TEXT NOT NULL, flow TEXT, stream BLOB, received_ms INTEGER NOT NULL, data BLOB NOT NULL,
  UNIQUE (mailbox, digest)
);
"""
MAX_ROWS: Final = 1_000  # at most some 120 MB; hours of a stream's batches


class Laid(NamedTuple):
    """One message that was laid aside."""

    id: int
    mailbox: str
    data: bytes


class Asides:
    """The table, in `custody.db`; the Store owns its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def lay(self, aside: Aside, data: bytes, received_ms: int) -> bool | None:
        """Keeps a message.

        Returns:
            Whether it is new here; None when there is no room for it.
        """
        digest, header = hashlib.sha256(data).digest(), aside.header
        known = self._db.execute(
            "SELECT 1 FROM aside WHERE mailbox = ? AND digest = ?", (aside.mailbox, digest)
        ).fetchone()
        if known:
            return False
        (rows,) = self._db.execute("SELECT count(*) FROM aside").fetchone()
        if rows >= MAX_ROWS:
            return None
        self._db.execute(
            "INSERT INTO aside (mailbox, digest, lack, flow, stream, received_ms, data)"
            " VALUES (?,?,?,?,?,?,?)",
            (
                aside.mailbox,
                digest,
                aside.lack.value,
                header and header.flow,
                header and header.stream.to_bytes(8, "big"),
                received_ms,
                data,
            ),
        )
        return True

    def forget(self, mailbox: str, data: bytes) -> None:
        """Lets a message go that was settled after all."""
        self._db.execute(
            "DELETE FROM aside WHERE mailbox = ? AND digest = ?",
            (mailbox, hashlib.sha256(data).digest()),
        )

    def after(self, number: int, limit: int) -> list[Laid]:
        """Gives what was laid aside after one of them, in the order in which it came.

        What has decayed here, too, is left to its gateway.
        """
        found = self._db.execute(
            "SELECT id, mailbox, data FROM aside WHERE id > ? AND typeof(data) = 'blob'"
            " ORDER BY id LIMIT ?",
            (number, limit),
        )
        return [Laid(*row) for row in found]

    def counted(self, flow: str | None) -> list[tuple[str, str | None, str | None, str, int, int]]:
        """Counts what lies here: (mailbox, flow, stream, lack, messages, received first)."""
        return self._db.execute(
            "SELECT mailbox, flow, iif(stream IS NULL, NULL, lower(hex(stream))), lack, count(*),"
            " min(received_ms) FROM aside WHERE ?1 IS NULL OR flow = ?1"
            " GROUP BY mailbox, flow, stream, lack ORDER BY mailbox, flow, stream, lack",
            (flow,),
        ).fetchall()
