# SPDX-License-Identifier: Apache-2.0
"""What waited of flows that have ended: deleted part by part, after the no was answered.

Law:
  - it begins when the lane row is closed, so that nothing of it can leave, however long it takes;
  - a part is short: whoever says the next no, and the readings of the other flows, wait no longer;
  - what a crash leaves of it, the next start deletes, because a closed lane holds it.
"""

from __future__ import annotations

from agent.spool import Purged, Spool
from assent.errors import SpoolError


class Purging:
    """Flows whose lane is closed and whose batches are still to be deleted; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._flows: list[str] = []
        self._is_refused = False

    def __contains__(self, flow: str) -> bool:
        return flow in self._flows

    @property
    def is_due(self) -> bool:
        """Whether there is something to delete, and the disk did not refuse it just now."""
        return bool(self._flows) and not self._is_refused

    def begin(self, flow: str) -> Purged:
        """Takes on a flow whose lane is closed.

        Returns:
            What will be deleted; nothing for a flow that was taken on before.
        """
        if flow in self._flows:
            return Purged(0, 0, 0)
        self._flows.append(flow)
        waiting = self._spool.waiting().get(flow)
        if waiting is None:
            return Purged(0, 0, 0)
        unconfirmed = self._spool.unconfirmed(flow)
        return Purged(waiting.batches, waiting.readings, waiting.bytes, unconfirmed)

    def cancel(self, flow: str) -> None:
        """Leaves a flow alone: its lane was emptied and opened again."""
        if flow in self._flows:
            self._flows.remove(flow)

    def part(self) -> None:
        """Deletes some of it.

        Raises:
            SpoolError: the disk refuses; `again` lets it be tried again.
        """
        try:
            if self._flows and not self._spool.purge_in_part(self._flows[0]):
                self._flows.pop(0)
        except SpoolError:
            self._is_refused = True
            raise

    def again(self) -> None:
        """Lets what the disk refused be tried again."""
        self._is_refused = False

    def all(self) -> None:
        """Deletes all of it; raises what `part` raises."""
        while self._flows:
            self.part()
