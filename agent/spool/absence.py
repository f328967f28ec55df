# SPDX-License-Identifier: Apache-2.0
"""Absences that go on: since when a flow gets nothing that it should, kept until it is told.

Law:
  - an absence is one a flow and a cause, whatever is absent and how many: what is told names no
    device and counts none;
  - it is on the disk from its beginning, so that one in which everything ends, the power too, is
    told by the next start;
  - while it lasts it is told in parts, each a gap up to then; what was told is not told again.
"""

from __future__ import annotations

import sqlite3

from agent.spool.gaps import declare
from agent.spool.store import Store
from agent.spool.streams import signed
from assent.header import GapCause


def begin(db: sqlite3.Connection, flow: str, cause: GapCause, since_ms: int) -> None:
    """Notes that a flow gets nothing from now on, inside a transaction; as `begin_absence`."""
    db.execute(
        "INSERT INTO absence VALUES (?, ?, ?)"
        " ON CONFLICT (flow, cause) DO UPDATE SET since=min(since, excluded.since)",
        (flow, cause, since_ms),
    )


class Absences(Store):
    """Beginning, telling and ending absences; the collecting side's."""

    def begin_absence(self, flow: str, cause: GapCause, since_ms: int) -> None:
        """Notes that a flow gets nothing from now on; durable when this returns.

        Args:
            flow: id of the flow.
            cause: why.
            since_ms: since when, in ms since 1970. Of one that goes on the earlier one counts.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            begin(db, flow, cause, since_ms)

    def tell_absence(
        self, flow: str, cause: GapCause, stream: int, until_ms: int, *, is_over: bool = False
    ) -> None:
        """Declares an absence up to a moment; durable when this returns.

        Args:
            flow: id of the flow. One without such an absence stays as it is.
            cause: why.
            stream: the stream of the flow now.
            until_ms: up to when.
            is_over: whether it ends there; else it goes on from there.

        Raises:
            SpoolError: the disk refuses; it goes on as it was.
        """
        if (flow, cause) not in self.absences():
            return
        with self._writing() as db:
            row = db.execute(
                "DELETE FROM absence WHERE flow=? AND cause=? RETURNING since", (flow, cause)
            ).fetchone()
            since = row[0]
            if until_ms > since:
                declare(db, (flow, signed(stream), cause), (since, until_ms))
            if not is_over:
                going_on = (flow, cause, max(since, until_ms))
                db.execute("INSERT INTO absence VALUES (?, ?, ?)", going_on)

    def absences(self) -> dict[tuple[str, GapCause], int]:
        """Tells what goes on.

        Returns:
            Since when nothing was told, in ms since 1970, by flow and cause.
        """
        with self._reading() as db:
            rows = db.execute("SELECT flow, cause, since FROM absence").fetchall()
            return {(flow, GapCause(cause)): since for flow, cause, since in rows}
