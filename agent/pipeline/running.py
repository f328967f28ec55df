# SPDX-License-Identifier: Apache-2.0
"""The lanes that run now: opened for permits, closed into the spool, ended by a no.

Law:
  - a lane runs only for the permit the gate gives now, in the epoch of now;
  - a no, an end, wider terms: the lane row is closed first, then the open batch is forgotten, then
    what waits is purged;
  - a pause (broken form, unusable policy) closes the batch into the spool and lets nothing out:
    nobody took anything back;
  - without a trusted clock a lane runs by the boot and is held; when time is known, what it held is
    resolved and judged before anything of its flow leaves;
  - narrower terms or attributes purge what waits under the wider ones; a renewed yes does not;
  - what a crash left in the journal is taken up again before a lane is opened, in its stream, or is
    out of it (`recovery`);
  - nothing from before the unbroken yes of the permit leaves.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from agent.lane import Lane, Snapshot
from agent.path import Pending, Permit, Verdict, permit_of
from agent.pipeline.accord import (
    basis,
    has_ended,
    is_amended,
    is_pause,
    is_the_same,
    is_unreadable,
)
from agent.pipeline.courtesy import targets_of
from agent.pipeline.holding import dated, release
from agent.pipeline.keeping import Keeping
from agent.pipeline.lanes import Lanes
from agent.pipeline.recovery import Missed, erase_refused, recover
from agent.pipeline.telling import Telling
from agent.router import Router
from agent.site import Site
from agent.spool import Boot, LaneState, LaneView, Purged, Spool
from assent.envelope import ClockQuality, GapCause
from firmware_bridge.sample import Instant

# A key file that could not be read is looked at again this often.
_AGAIN_MS: Final = 60_000

log = logging.getLogger(__name__)


class Running(Lanes):
    """The running lanes as the gate has them; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
        keeping: tells the journal what the lanes hold.
        telling: declares what they missed.
    """

    def __init__(self, spool: Spool, keeping: Keeping, telling: Telling) -> None:
        super().__init__(spool, keeping, telling)
        self._clock = ClockQuality.TRUSTED
        self._missed = Missed(spool, keeping)
        self._again_ms: int | None = None

    def follow(self, site: Site, verdicts: Mapping[str, Verdict], now: Instant) -> None:
        """Makes the lanes what the gate says; durable when this returns."""
        self._boot = Boot(self._boot.id, max(0, site.floor.past_ms(now) - now.mono_ms))
        if self.reckoning.has_stepped(now):
            self._cut(self.reckoning.at(now))
        self._take_up(site, verdicts, now)
        rows = self._spool.lanes()
        for flow in sorted(rows.keys() | self._lanes.keys()):
            verdict = verdicts.get(flow)
            lane = self._lanes.get(flow)
            if isinstance(verdict, Permit | Pending):
                if lane is not None:
                    self._go_on(lane, verdict, now)
                is_same_yes = rows[flow].not_before_ms == permit_of(verdict).not_before_ms
                if flow not in self._lanes and is_same_yes:
                    self._trim(permit_of(verdict), now)  # narrowed; a new yes is told by its lane
            elif site.policy is None or is_pause(verdict):
                self._pause(flow, rows.get(flow), now)
            elif lane is not None or rows[flow].state is not LaneState.CLOSED or self._waits(flow):
                self.end(flow, now)
        self._outgoing.seal_for(site)
        self._clock = ClockQuality.SYSTEM if site.settings.clock_is_system else ClockQuality.TRUSTED
        if now.trusted:
            self.telling.pay()  # what counts from a boot is moved with the rest of its stream
            self._spool.resolve(self._boot.id, now.wall_ms - now.mono_ms)
        for flow, verdict in verdicts.items():
            if isinstance(verdict, Permit | Pending) and flow not in self._lanes:
                self._open(site, verdict, now)
        self._router = Router(self._lanes.values())
        self._spool.set_targets(targets_of(site, now))
        self._missed.declare(now)
        self.keep(now)
        self.telling.vouch()
        is_shut = any(is_unreadable(verdict) for verdict in verdicts.values())
        self._again_ms = now.mono_ms + _AGAIN_MS if is_shut else None
        self.reckoning = self.reckoning.after(now)

    def is_outdated(self, now: Instant, past_ms: int) -> bool:
        """Whether an end of an epoch, or of consent by what is past, came since the gate spoke.

        Or a key that could not be read then may be there again.
        """
        if self._again_ms is not None and now.mono_ms >= self._again_ms:
            return True
        return any(
            not is_the_same(lane, lane.permit, now) or has_ended(lane.permit, past_ms)
            for lane in self._lanes.values()
        )

    def end_refused(self, site: Site, verdicts: Mapping[str, Verdict], now: Instant) -> None:
        """Ends what the gate refuses, and opens nothing: for a command while no agent runs.

        What a permit no longer covers goes too, before another permit covers it again.
        """
        erase_refused(self.keeping, self._spool, verdicts, has_policy=site.policy is not None)
        for flow, row in self._spool.lanes().items():
            verdict = verdicts.get(flow)
            if isinstance(verdict, Permit | Pending):
                self._trim(permit_of(verdict), now)
                continue
            if site.policy is None or is_pause(verdict):
                continue
            if row.state is not LaneState.CLOSED or self._waits(flow):
                self.end(flow)
        self.telling.vouch()

    def doomed(self, site: Site, verdicts: Mapping[str, Verdict]) -> list[str]:
        """Names the flows that the gate refuses, and whose rows are not closed yet."""
        return [
            flow
            for flow, row in self._spool.lanes().items()
            if site.policy is not None
            and row.state is not LaneState.CLOSED
            and not isinstance(verdict := verdicts.get(flow), Permit | Pending)
            and not is_pause(verdict)
        ]

    def renew(self, flows: Iterable[str], now: Instant) -> None:
        """Goes on in new streams: the numbers of the present ones hold other batches elsewhere."""
        for lane in [self._lanes[flow] for flow in flows if flow in self._lanes]:
            self._drain(lane, now)
            self._forget(lane)
            self._enter(lane.successor(secrets.randbits(64), lane.epoch))
            self._router = Router(self._lanes.values())
            log.warning("stream forked, begun anew flow=%s", lane.permit.flow)

    def _take_up(self, site: Site, verdicts: Mapping[str, Verdict], now: Instant) -> None:
        """Goes on in the lanes of an earlier life; `_go_on` ends those that count by another clock.

        Those of another boot have ended: what they held is put where it belongs, in their streams.
        """
        self._missed.look(site.policy.policy if site.policy else None)
        has_policy = site.policy is not None
        found = recover(
            self.keeping, self._spool, verdicts, self._missed, now, has_policy=has_policy
        )
        if found and not self._lanes:
            self._outgoing.seal_for(site)  # nothing is open that was to be sealed as before
        for one in found:
            head = one.part.head
            if one.state is not None and one.permit.flow not in self._lanes:
                secret = site.keys.flow_secret(one.permit.recipient, one.permit.flow)
                lane = Lane(one.permit, secret, head.stream, head.epoch, ClockQuality(head.clock))
                lane.take_up(Snapshot(one.state.tables(), tuple(one.state.memory.values())))
                self._enter(lane, held=isinstance(verdicts.get(head.flow), Pending))
                if now.trusted:
                    self.telling.opened(lane, now)
                elif lane.is_by_boot:
                    self.telling.held(head.flow, now)
                log.info("lane taken up flow=%s readings=%d", head.flow, lane.readings)
                if head.boot not in {"", self._boot.id}:
                    self._drain(lane, Instant(0, 0, trusted=False))
                    self._forget(lane)

    def _trim(self, permit: Permit, now: Instant) -> None:
        """Deletes of a lane that does not run what its permit no longer covers, to be told."""
        purged = self._spool.trim_lane(
            permit.flow,
            basis=basis(permit),
            not_before_ms=permit.not_before_ms,
            since_ms=self.telling.taken_since_ms(permit.flow, dated(now, self._boot)),
        )
        if purged.batches:
            self._outgoing.add_purged(permit.flow, purged)
            log.info("lane trimmed flow=%s purged_batches=%d", permit.flow, purged.batches)

    def _waits(self, flow: str) -> bool:
        waiting = self._spool.waiting().get(flow)
        return flow not in self.purging and waiting is not None and waiting.batches > 0

    def _open(self, site: Site, verdict: Permit | Pending, now: Instant) -> None:
        permit = permit_of(verdict)
        secret = site.keys.flow_secret(permit.recipient, permit.flow)
        stream = secrets.randbits(64)
        if isinstance(verdict, Pending):
            self._enter(Lane(verdict, secret, stream))
            self.telling.held(permit.flow, now)
            log.info("lane held flow=%s recipient=%s", permit.flow, permit.recipient)
            return
        lane = Lane(permit, secret, stream, now.wall_ms // permit.epoch_ms, self._clock)
        self._outgoing.add_purged(permit.flow, release(self._spool, permit))
        opening = self.telling.opening(site, permit, now)
        self._enter(lane, opening.off)
        self.telling.opened(lane, now, opening)
        log.info("lane opened flow=%s recipient=%s", permit.flow, permit.recipient)

    def _go_on(self, lane: Lane, verdict: Permit | Pending, now: Instant) -> None:
        if lane.is_by_boot is not isinstance(verdict, Pending):
            self._leave(lane.permit.flow, now)  # it counts in another way from now on
        elif not is_the_same(lane, permit_of(verdict), now):
            self._change(lane, permit_of(verdict), now)

    def _change(self, lane: Lane, permit: Permit, now: Instant) -> None:
        """Ends a lane whose permit or epoch is another now; what waits stays if it may."""
        restarted = permit.not_before_ms > lane.permit.not_before_ms
        if restarted or basis(permit) != basis(lane.permit):
            self.end(permit.flow, now)
            return
        if is_amended(lane, permit, now):
            has_another_end = lane.permit.not_after_ms != permit.not_after_ms
            lane.amend(permit)
            if has_another_end:
                self._enter(lane)
            return
        self._drain(lane, now)
        epoch = now.wall_ms // permit.epoch_ms
        if permit == lane.permit and epoch > lane.epoch:
            self._forget(lane)
            self._enter(lane.successor(secrets.randbits(64), epoch))
            return
        self._forget(lane)

    def _cut(self, then: Instant) -> None:
        """Ends every stream where the clock was set: no two times stand in one."""
        for lane in list(self._lanes.values()):
            self._drain(lane, then)
            self._forget(lane)
        log.info("lanes cut, the clock was set")

    def _pause(self, flow: str, row: LaneView | None, now: Instant) -> None:
        # After a crash nothing runs, and nobody has noted yet that it stands still.
        running = {LaneState.OPEN, LaneState.HELD}
        if (flow, GapCause.OUTAGE) not in self._spool.absences():
            running.add(LaneState.PAUSED)
        was_open = row is not None and row.state in running
        if self._leave(flow, now) or was_open:
            self.telling.stopped(flow, dated(now, self._boot))
            log.info("lane paused flow=%s", flow)

    def _leave(self, flow: str, now: Instant) -> bool:
        """Closes the batch of a lane into the spool and lets nothing out; whether it ran."""
        lane = self._lanes.get(flow)
        if lane is not None:
            self._drain(lane, now)
            self._forget(lane)
        self._spool.pause_lane(flow)
        return lane is not None

    def end(self, flow: str, now: Instant | None = None) -> Purged:
        """Ends a flow: lane row closed, open batch forgotten, what waits to be purged after.

        Args:
            flow: id of the flow.
            now: now, where the gate ended it; the ledger knows when a person did.

        Returns:
            What goes unsent, with the readings of the open batch and of open windows.
        """
        self._spool.close_lane(flow)
        lane = self._lanes.get(flow)
        if now is not None:
            counted = None if lane is None or lane.is_by_boot else lane
            self.telling.ended(flow, counted, dated(now, self._boot))
        waited = 0
        if lane is not None:
            waited = lane.readings + lane.absorbed
            lane.discard()
            self._forget(lane, by_choice=True)
        self.keeping.erase({flow})
        sealed = self.purging.begin(flow)
        readings = sealed.readings + waited
        purged = Purged(sealed.batches, readings, sealed.bytes, sealed.unconfirmed)
        self._outgoing.add_purged(flow, purged)
        log.info("lane closed flow=%s purged_batches=%d", flow, purged.batches)
        return purged
