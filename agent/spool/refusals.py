# SPDX-License-Identifier: Apache-2.0
"""A no that was said while the collecting side did not answer: written here, recorded later.

Law:
  - it needs no instance lock: anybody who may write the spool can say it;
  - the lane is closed in the same transaction, so that it acts at once;
  - where another process holds the spool it is left beside it, and acts as well;
  - it stays until the ledger has it, and is asked for before anything else is done.
"""

from __future__ import annotations

import os
import sqlite3

from agent.spool import noes
from agent.spool.lanes import Lanes, shut
from agent.spool.records import LaneState
from assent.errors import SpoolError


class Refusals(Lanes):
    """Noes that wait for the ledger."""

    def refuse(self, flow: str, now_ms: int) -> None:
        """Closes a lane and notes that a person said no; durable when this returns.

        Args:
            flow: id of the flow; it need not have a lane.
            now_ms: when it was said.

        Raises:
            SpoolError: the disk refuses, or another process holds the file.
        """
        with self._writing(rings=True) as db:
            db.execute(
                "INSERT INTO refusal VALUES (?1, ?2)"
                " ON CONFLICT (flow) DO UPDATE SET said=max(said, ?2)",
                (flow, now_ms),
            )
            shut(db, flow, LaneState.CLOSED)

    def refuse_beside(self, flow: str, now_ms: int) -> None:
        """Leaves a no beside a spool that is held: nothing of the flow is leased from now on.

        What was leased before may still leave. Durable when this returns.

        Args:
            flow: id of the flow.
            now_ms: when it was said.

        Raises:
            SpoolError: the directory refuses.
        """
        try:
            noes.leave(self.path, flow, now_ms)
        except UnicodeEncodeError as exc:
            raise SpoolError("the no cannot be left: its flow is no text") from exc
        except OSError as exc:
            raise SpoolError(f"the no cannot be left: {os.strerror(exc.errno or 0)}") from exc

    def refusals(self) -> dict[str, int]:
        """Gives the noes the ledger does not have yet: flow to the instant, in ms since 1970."""
        try:  # one statement sees one state by itself
            rows = self._db.execute("SELECT flow, said FROM refusal ORDER BY flow").fetchall()
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        found: dict[str, int] = dict(rows)
        for flow, said_ms in self._noes.left().items():
            found[flow] = max(said_ms, found.get(flow, 0))
        return found

    def drop_refusal(self, flow: str, said_ms: int) -> None:
        """Forgets a no that the ledger has; one that was said again since stays.

        Args:
            flow: id of the flow.
            said_ms: as `refusals` gave it.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            db.execute("DELETE FROM refusal WHERE flow=? AND said<=?", (flow, said_ms))
        if self._noes.left().get(flow, said_ms + 1) <= said_ms:
            try:
                noes.take_away(self.path, flow)
            except OSError as exc:
                raise SpoolError("a no that was left cannot be removed") from exc
