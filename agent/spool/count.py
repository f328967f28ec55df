# SPDX-License-Identifier: Apache-2.0
"""What the twin notes of its spool: a count that only rises, and since when it owes word of a gap.

Law: the count rises before the twin's does, so that a crash in between leaves it ahead; where it is
behind, an old spool was put back (`agent/twin.py`).
"""

from __future__ import annotations

from agent.spool.store import Store
from assent.header import GapCause


class Counted(Store):
    """Reading the count, letting it rise, and what is not told yet; the collecting side's."""

    def count(self) -> int:
        """How often it rose; 0 in a new spool."""
        with self._reading() as db:
            return int(db.execute("SELECT ifnull(max(count), 0) FROM twin").fetchone()[0])

    def untold(self) -> dict[str, int]:
        """Since when something is missing, or undated, of which only this spool knows, by flow.

        Returns:
            The earliest instant in ms since 1970; what counts from an unknown boot is left out.
        """
        with self._reading() as db:
            return dict(
                db.execute(
                    "SELECT flow, min(since) FROM (SELECT flow, first AS since FROM gap"
                    " WHERE cause != ? AND stream NOT IN (SELECT id FROM held WHERE high IS NULL)"
                    " UNION ALL SELECT flow, since FROM absence) GROUP BY flow",
                    (GapCause.ENDED,),
                ).fetchall()
            )

    def count_up(self) -> int:
        """Lets it rise by one; durable when this returns.

        Returns:
            The new count.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            (following,) = db.execute("SELECT ifnull(max(count), 0) + 1 FROM twin").fetchone()
            db.execute("DELETE FROM twin")
            db.execute("INSERT INTO twin VALUES (?)", (following,))
        return int(following)
