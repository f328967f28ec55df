# SPDX-License-Identifier: Apache-2.0
"""A clock that stands before the yes of a flow that runs: what is read by it is left out, and told.

Path: clock, floor → **astray** → spool's absences → gaps.
Law:
  - a clock that is trusted may be set back all the same; what it dates before the yes enters no
    lane, so that the flow gets nothing until the clock is past its yes again;
  - the gap has the instants of the clock that was before, which the floor keeps, and of the one
    that comes after; the clock in between dates nothing.

Limits: where the yes itself was given by a clock that was ahead, nothing of its flow is collected
before that time has come, and nothing is told of it till then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.lane import Lane
from agent.spool import Spool
from assent.header import GapCause
from firmware_bridge.sample import Instant

# A turn may be late, and instants leave as whole seconds.
_EDGE_MS: Final = 2_000


class Astray:
    """Which flows get nothing because of the clock; owned by the lanes' thread.

    Args:
        spool: where absences are kept.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._goes_on = True

    def look(self, now: Instant, lanes: Mapping[str, Lane], past_ms: int) -> None:
        """Begins and ends absences.

        Args:
            now: now, by a trusted clock.
            lanes: those that run, by flow.
            past_ms: the latest instant that is known to be past.

        Raises:
            SpoolError: the disk refuses; the next look tries again.
        """
        astray = {flow for flow, lane in lanes.items() if now.wall_ms < lane.permit.not_before_ms}
        if not (astray or self._goes_on):
            return
        known = {flow for flow, why in self._spool.absences() if why is GapCause.CLOCK}
        for flow in astray - known:
            since_ms = max(lanes[flow].permit.not_before_ms, past_ms - _EDGE_MS)
            self._spool.begin_absence(flow, GapCause.CLOCK, since_ms)
        for flow in lanes.keys() & known - astray:
            stream, until_ms = lanes[flow].stream, now.wall_ms + _EDGE_MS
            self._spool.tell_absence(flow, GapCause.CLOCK, stream, until_ms, is_over=True)
        self._goes_on = bool(astray | known - lanes.keys())
