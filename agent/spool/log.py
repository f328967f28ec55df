# SPDX-License-Identifier: Apache-2.0
"""The log of what left: when, flow, recipient, readings, bytes, digest; for the household.

Law:
  - a batch enters when a broker takes it for the first time (`Carrier.delivered`), and is not
    entered again when it is sent again;
  - what was given to a broker that had not confirmed it when the connection ended is told as
    unconfirmed, until a broker or the backend confirms it (`Carrier.handed_over`);
  - it holds no value and no identifier; a digest lets the household match what a recipient shows.

Limits: the newest KEPT entries, and HANDED of those unconfirmed; a power cut, or the end of an
uplink that did not answer, may lose the last few.
"""

from __future__ import annotations

from typing import Final

from agent.spool.records import Sent
from agent.spool.store import Store

# Some 130 bytes each. A household-day of the example policy is 400 batches: this is seven weeks.
KEPT: Final = 20_000
HANDED: Final = 1_000


class SentLog(Store):
    """Reading and trimming the log."""

    def sent(self, limit: int, flow: str | None = None) -> tuple[Sent, ...]:
        """Tells what left, the newest first.

        Args:
            limit: how many entries at most.
            flow: id of a flow, or None for all.
        """
        with self._reading() as db:
            taken = db.execute(
                "SELECT at, flow, recipient, readings, bytes, digest, 1 FROM sent"
                " WHERE ?1 IS NULL OR flow=?1 ORDER BY id DESC LIMIT ?2",
                (flow, limit),
            ).fetchall()
            handed = db.execute(
                "SELECT at, flow, recipient, readings, bytes, digest, 0 FROM handed"
                " WHERE ?1 IS NULL OR flow=?1 ORDER BY batch DESC LIMIT ?2",
                (flow, limit),
            ).fetchall()
        told = [
            Sent(at, name, recipient, readings, size, digest, bool(sure))
            for at, name, recipient, readings, size, digest, sure in [*taken, *handed]
        ]
        return tuple(sorted(told, key=lambda one: one.at_ms, reverse=True)[:limit])

    def unconfirmed(self, flow: str) -> int:
        """Counts what waits of a flow and was given to a broker that did not confirm it.

        Args:
            flow: id of the flow.
        """
        with self._reading() as db:
            return int(
                db.execute(
                    "SELECT count(*) FROM handed JOIN batch ON batch.id=handed.batch WHERE flow=?",
                    (flow,),
                ).fetchone()[0]
            )

    def trim_sent(self, kept: int = KEPT) -> None:
        """Forgets all but the newest entries; costs one look-up while there are none too many."""
        with self._reading() as db:
            # Together in one question they would read the whole log.
            first = db.execute("SELECT min(id) FROM sent").fetchone()[0]
            last = db.execute("SELECT max(id) FROM sent").fetchone()[0]
            handed = db.execute("SELECT count(*) FROM handed").fetchone()[0]
        if (first is None or last - first < kept) and handed <= HANDED:
            return
        with self._writing(durable=False) as db:
            db.execute("DELETE FROM sent WHERE id <= ?", ((last or 0) - kept,))
            db.execute(
                "DELETE FROM handed WHERE batch NOT IN"
                " (SELECT batch FROM handed ORDER BY at DESC, batch DESC LIMIT ?)",
                (HANDED,),
            )
