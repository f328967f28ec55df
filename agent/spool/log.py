# SPDX-License-Identifier: Apache-2.0
"""The log of what left: when, flow, recipient, readings, bytes, digest; for the household.

Law:
  - a batch enters when a broker takes it for the first time (`Carrier.delivered`), and is not
    entered again when it is sent again;
  - it holds no value and no identifier; a digest lets the household match what a recipient shows.

Limits: the newest KEPT entries; a power cut may lose the last few.
"""

from __future__ import annotations

from typing import Final

from agent.spool.records import Sent
from agent.spool.store import Store

# Some 130 bytes each. A household-day of the example policy is 400 batches: this is seven weeks.
KEPT: Final = 20_000


class SentLog(Store):
    """Reading and trimming the log."""

    def sent(self, limit: int, flow: str | None = None) -> tuple[Sent, ...]:
        """Tells what left, the newest first.

        Args:
            limit: how many entries at most.
            flow: id of a flow, or None for all.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT at, flow, recipient, readings, bytes, digest FROM sent"
                " WHERE ?1 IS NULL OR flow=?1 ORDER BY id DESC LIMIT ?2",
                (flow, limit),
            ).fetchall()
        return tuple(Sent(*row) for row in rows)

    def trim_sent(self, kept: int = KEPT) -> None:
        """Forgets all but the newest entries; costs one look-up while there are none too many."""
        with self._reading() as db:
            span = db.execute("SELECT min(id), max(id) FROM sent").fetchone()
        if span[0] is None or span[1] - span[0] < kept:
            return
        with self._writing(durable=False) as db:
            db.execute("DELETE FROM sent WHERE id <= ?", (span[1] - kept,))
