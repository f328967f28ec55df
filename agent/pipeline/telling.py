# SPDX-License-Identifier: Apache-2.0
"""What a lane has to tell of the time before it, and of what it could not keep.

Path: lanes, ledger, spool's absences → **telling** → spool's gaps.
Law:
  - what a flow missed while the gateway stood still, or was held back, is an outage: from the stop
    that was ordered, or the yes that nobody was there to carry out, until its lane is open again;
  - what was not collected by choice is told after a later yes only: from the end of the earlier
    one, by the ledger, to the beginning of the new one; while the flow is off nothing is told;
  - what was narrowed is told from the oldest that was deleted for it until the lane is open again;
  - a spool that was lost or put back is told by each flow that had a lane in it;
  - what could not be sealed or stored is told as soon as the disk takes it.

Limits: a crash that comes while the disk refuses takes what is still to be told of the unsealed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from agent.lane import Lane
from agent.path import Permit
from agent.pipeline.accord import reach
from agent.pipeline.astray import Astray
from agent.pipeline.hardware import Hardware
from agent.pipeline.silence import Silence
from agent.site import Site
from agent.spool import LaneState, Spool
from agent.spool.place import ReplacedError
from agent.spool.voucher import Voucher
from agent.twin import NAME, Twin
from assent.errors import SpoolError
from assent.header import GapCause
from firmware_bridge.sample import Instant

# A lane that is opened so soon after its yes has missed nothing worth telling.
_PROMPT_MS: Final = 10_000
# The twin is written this often while nothing else makes it worth it.
_NOTE_MS: Final = 600_000

log = logging.getLogger(__name__)


class Opening(NamedTuple):
    """What is to be told by a lane that is about to be opened.

    Attributes:
        off: since when and until when nothing was collected by choice, or None.
        missed_ms: since when its yes stands and nobody collected, or None.
    """

    off: tuple[int, int] | None = None
    missed_ms: int | None = None


NOTHING: Final = Opening()
"""What a lane has to tell that goes on where it was."""


class _Owed(NamedTuple):
    """A gap that the disk has not taken yet."""

    flow: str
    stream: int
    first_ms: int
    last_ms: int
    readings: int


class Telling:
    """Declares gaps of lanes; owned by the lanes' thread.

    Args:
        spool: the collecting side's end of the spool.
        state: the state directory, in which the spool's twin lies.
    """

    def __init__(self, spool: Spool, state: Path) -> None:
        self._spool = spool
        self._twin = Twin(state / NAME, spool)
        self._voucher = Voucher(state)
        self._astray = Astray(spool)
        self._silence = Silence(spool)
        self._owed: list[_Owed] = []
        self._held_since_ms: dict[str, int] = {}
        """Since when lanes are held, by the boot."""
        self._note_ms = 0

    def opening(self, site: Site, permit: Permit, now: Instant) -> Opening:
        """Finds what a lane will have to tell; to be asked before it is opened."""
        flow, begin_ms = permit.flow, permit.not_before_ms
        row = self._spool.lanes().get(flow)
        if row is not None and row.stream is None and not row.not_before_ms:
            row = None  # a no that was said before any lane
        is_new = row is None or row.not_before_ms != begin_ms
        since_ms = self._spool.absences().get((flow, GapCause.PURGE))
        ended_ms = site.ledger.ended_before(flow, begin_ms)
        if not is_new:
            if since_ms is None and row is not None and row.state is LaneState.CLOSED:
                since_ms = self.taken_since_ms(flow, now)  # shut, and nobody lived to note it
            off = None if since_ms is None else (since_ms, max(since_ms, now.wall_ms))
            return Opening(off)
        known = [ms for ms in (ended_ms, since_ms) if ms is not None and ms <= begin_ms]
        off = (known[0], begin_ms) if known else None
        is_late = now.wall_ms - begin_ms > _PROMPT_MS and flow not in self._twin.lost
        return Opening(off, begin_ms if is_late else None)

    def opened(self, lane: Lane, now: Instant, opening: Opening = NOTHING) -> None:
        """Declares what a lane missed before it was opened; durable when this returns.

        Raises:
            SpoolError: the disk refuses.
        """
        flow, stream = lane.permit.flow, lane.stream
        # While it was held it missed nothing: what was collected then is dated now.
        began_ms = now.wall_ms - now.mono_ms + self._held_since_ms.pop(flow, now.mono_ms)
        for cause in (GapCause.OUTAGE, GapCause.SILENT):
            self._spool.tell_absence(flow, cause, stream, began_ms, is_over=True)
        self._silence.forget(flow)
        if opening.missed_ms is not None and began_ms > opening.missed_ms:
            self._add(flow, stream, GapCause.OUTAGE, (opening.missed_ms, began_ms))
        lost_ms = self._twin.lost.get(flow)
        if lost_ms is not None:
            first_ms = max(lost_ms, lane.permit.not_before_ms)
            self._add(flow, stream, GapCause.LOST, (min(first_ms, began_ms), began_ms))
            self._twin.settle(flow)
        self._note_ms = 0

    def held(self, flow: str, now: Instant) -> None:
        """Notes that a lane is held from now on, until the time is known and it is opened."""
        self._held_since_ms.setdefault(flow, now.mono_ms)

    def stopped(self, flow: str, now: Instant) -> None:
        """Notes that a flow that runs, or is held, is not collected from now on."""
        self._held_since_ms.pop(flow, None)
        try:
            self._spool.begin_absence(flow, GapCause.OUTAGE, now.wall_ms)
        except SpoolError as exc:
            log.error("stop not noted flow=%s reason=%s", flow, exc.message)

    def ended(self, flow: str, lane: Lane | None, now: Instant) -> None:
        """Notes since when a flow that is ended by the gate is not collected, or not kept."""
        self._twin.settle(flow)
        waiting = self._spool.waiting().get(flow)
        known = [now.wall_ms, waiting.oldest_ms if waiting else None]
        known.append(lane.oldest_ms if lane else None)
        try:
            since_ms = min(ms for ms in known if ms is not None)
            self._spool.begin_absence(flow, GapCause.PURGE, since_ms)
        except SpoolError as exc:
            log.error("end not noted flow=%s reason=%s", flow, exc.message)

    def taken_since_ms(self, flow: str, now: Instant) -> int:
        """Since when a flow that nobody runs lacks what is deleted of it now."""
        waiting = self._spool.waiting().get(flow)
        stopped_ms = self._spool.absences().get((flow, GapCause.OUTAGE))
        known = (now.wall_ms, stopped_ms, waiting.oldest_ms if waiting else None)
        return min(ms for ms in known if ms is not None)

    def unsealed(self, flow: str, stream: int, span: tuple[int, int], readings: int) -> None:
        """Declares readings that could not be sealed or stored, now or when the disk takes it."""
        self._owed.append(_Owed(flow, stream, *span, readings))
        self.pay()

    def pay(self) -> None:
        """Declares what the disk has not taken yet."""
        while self._owed:
            one = self._owed[0]
            try:
                self._spool.add_gap(
                    one.flow,
                    one.stream,
                    GapCause.UNSEALED,
                    first_ms=one.first_ms,
                    last_ms=one.last_ms,
                    readings=one.readings,
                )
            except SpoolError:
                return
            self._owed.pop(0)

    def look(self, now: Instant, lanes: Mapping[str, Lane], hardware: Hardware, site: Site) -> None:
        """Looks for silent devices and a clock that stands wrong, and keeps the twin.

        Raises:
            SpoolError: the disk refuses; the next look tries again.
        """
        self._astray.look(now, lanes, site.floor.past_ms(now))
        self._silence.look(now, lanes, hardware, site.settings)
        if now.mono_ms >= self._note_ms:
            self._note(now, lanes)

    def vouch(self) -> bool:
        """Tells the uplink that the lanes are as the gate says; where that is known, does nothing.

        Returns:
            Whether it is told; else it is to be tried again.

        Raises:
            SpoolError: the spool refuses.
        """
        return self._voucher.give(self._spool)

    def disown(self) -> None:
        """Notes that the spool was replaced, so that the next start tells what was lost with it."""
        self._twin.disown()

    def finish(self, lanes: Mapping[str, Lane], now: Instant) -> None:
        """Notes that the gateway stops, so that the next start can tell for how long it stood.

        Raises:
            ReplacedError: another spool lies there.
        """
        self.pay()
        for flow in lanes:
            self.stopped(flow, now)
        try:
            self._note(now, {})  # they hold nothing any more
        except ReplacedError:
            raise
        except SpoolError as exc:
            log.error("twin of the spool not written reason=%s", exc.message)

    def _note(self, now: Instant, lanes: Mapping[str, Lane]) -> None:
        self._note_ms = now.mono_ms + _NOTE_MS
        # A window that is open is stamped at its start when it ends.
        opened = {
            flow: min(now.wall_ms, lane.oldest_ms or now.wall_ms) - reach(lane.permit)
            for flow, lane in lanes.items()
            if not lane.is_by_boot
        }
        self._twin.note(now.wall_ms, opened)

    def _add(self, flow: str, stream: int, cause: GapCause, span: tuple[int, int]) -> None:
        first_ms, last_ms = span
        self._spool.add_gap(flow, stream, cause, first_ms=first_ms, last_ms=last_ms, readings=0)
