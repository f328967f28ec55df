# SPDX-License-Identifier: Apache-2.0
"""Batches that count from a boot, until their gateway has told when that boot began.

Path: Accepted (clock untrusted) → **waiting** → word about the boot → rows of readings.
Law:
  - a batch waits sealed, as it came, and is acknowledged: it is durable here;
  - the first word about a stream counts, whether it comes before the batch or after it, from the
    gateway that signed both;
  - a batch is among those that wait or in the data, never in both: it leaves here in the
    transaction that its rows are told by (`Custody.knows`).

Security: this is custody. The bytes are opened again only to become rows.
Limits: a word that never comes (the household said no meanwhile) leaves them sealed here for ever;
`show DIR held` counts them.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable
from typing import Final

from assent.columns import Table
from assent.header import Gap, GapCause

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS waiting (
  batch_ref BLOB PRIMARY KEY, signer BLOB NOT NULL, stream BLOB NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting_stream ON waiting (signer, stream);
CREATE TABLE IF NOT EXISTS boots (
  signer BLOB NOT NULL, stream BLOB NOT NULL, low_ms INTEGER NOT NULL, high_ms INTEGER NOT NULL,
  PRIMARY KEY (signer, stream)
) WITHOUT ROWID;
"""
_SECOND: Final = 1_000
_LATEST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last a calendar here knows


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """Between which instants a boot began, in ms since 1970 UTC; equal where it is known."""

    low_ms: int
    high_ms: int

    def place(self, tables: Iterable[Table]) -> tuple[Table, ...] | None:
        """Moves readings from their boot to the wall clock: to the earliest they can be.

        Returns:
            The tables, in whole seconds; None when an instant lies in no calendar.
        """
        placed = tuple(
            Table(table.device, [self._second(time) for time in table.times], table.columns)
            for table in tables
        )
        latest = max((max(table.times) for table in placed), default=0)
        return None if latest + self.high_ms - self.low_ms > _LATEST_MS else placed

    def _second(self, time_ms: int) -> int:
        # Up: it was rounded down by the boot, and nothing may come to lie before a yes.
        return -(-(time_ms + self.low_ms) // _SECOND) * _SECOND


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """A batch of which it is known now when it was.

    Attributes:
        reference: what custody knows it by.
        mailbox: where it came in.
        data: as it came.
        bounds: of its boot.
    """

    reference: bytes
    mailbox: str
    data: bytes
    bounds: Bounds


class Waiting:
    """The tables of what waits, in `custody.db`; the Store owns its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def learn(self, signer: bytes, gaps: Iterable[Gap]) -> None:
        """Takes in what a batch says of boots; the first word about a stream counts."""
        self._db.executemany(
            "INSERT OR IGNORE INTO boots VALUES (?,?,?,?)",
            [
                (signer, gap.stream.to_bytes(8, "big"), gap.first_ms, gap.last_ms)
                for gap in gaps
                if gap.cause is GapCause.BOOT and gap.last_ms <= _LATEST_MS
            ],
        )

    def keep(self, reference: bytes, signer: bytes, stream: int, data: bytes) -> None:
        """Keeps a batch until its boot is known."""
        self._db.execute(
            "INSERT INTO waiting VALUES (?,?,?,?)",
            (reference, signer, stream.to_bytes(8, "big"), data),
        )

    def due(self, limit: int) -> list[Due]:
        """Gives batches of which it is known now when they were; a decayed row lets none go."""
        found = self._db.execute(
            "SELECT batch_ref, mailbox, data, low_ms, high_ms FROM waiting"
            " JOIN boots USING (signer, stream) JOIN custody USING (batch_ref)"
            " WHERE typeof(low_ms) = 'integer' AND typeof(high_ms) = 'integer'"
            " AND typeof(data) = 'blob' LIMIT ?",
            (limit,),
        )
        return [
            Due(reference, box, data, Bounds(*bounds)) for reference, box, data, *bounds in found
        ]

    def release(self, reference: bytes, first_ms: int, last_ms: int) -> bool:
        """Lets a batch go into the data; whether it waited."""
        gone = self._db.execute("DELETE FROM waiting WHERE batch_ref = ?", (reference,)).rowcount
        self._db.execute(
            "UPDATE custody SET first_ms = ?, last_ms = ? WHERE batch_ref = ?",
            (first_ms, last_ms, reference),
        )
        return bool(gone)

    def counted(self, flow: str | None) -> list[tuple[str, str, int, int, int]]:
        """Counts what waits: (mailbox, flow, batches, readings, received first)."""
        return self._db.execute(
            "SELECT mailbox, flow, count(*), sum(readings), min(received_ms) FROM waiting"
            " JOIN custody USING (batch_ref) WHERE ?1 IS NULL OR flow = ?1"
            " GROUP BY mailbox, flow ORDER BY mailbox, flow",
            (flow,),
        ).fetchall()
