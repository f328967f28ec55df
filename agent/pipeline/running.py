# SPDX-License-Identifier: Apache-2.0
"""The lanes that run now: opened for permits, closed into the spool, ended by a no.

Law:
  - a lane runs only for the permit the gate gives now, in the epoch of now;
  - a no, an end, wider terms: the lane row is closed first, then the open batch is forgotten, then
    what waits is purged;
  - a pause (broken form, unusable policy, clock) closes the batch into the spool and lets nothing
    out: nobody took anything back;
  - narrower terms or attributes purge what waits under the wider ones; a renewed yes does not;
  - what a crash left in the journal is taken up again before a lane is opened, in its stream, or is
    out of it (`recovery`);
  - nothing from before the unbroken yes of the permit leaves.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping

from agent.lane import Lane, Snapshot
from agent.path import Permit, Refusal
from agent.pipeline.accord import basis, has_ended, is_amended, is_the_same
from agent.pipeline.courtesy import targets_of
from agent.pipeline.keeping import Keeping
from agent.pipeline.outgoing import Outgoing
from agent.pipeline.parcel import Parcel
from agent.pipeline.purging import Purging
from agent.pipeline.recovery import (
    Missing,
    erase_refused,
    is_pause,
    last_of_gap_ms,
    recover,
    unread,
)
from agent.pipeline.telling import Telling
from agent.router import Router
from agent.site import Site
from agent.spool import LaneState, Purged, Spool
from assent.envelope import ClockQuality, GapCause
from firmware_bridge.sample import Instant, Sample

log = logging.getLogger(__name__)


class Running:
    """The running lanes with their router and sealer; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
        keeping: tells the journal what the lanes hold.
        telling: declares what they missed.
    """

    def __init__(self, spool: Spool, keeping: Keeping, telling: Telling) -> None:
        self.keeping = keeping
        self.telling = telling
        self._outgoing = Outgoing(spool, keeping.stored, telling.unsealed)
        self.tallies = self._outgoing.tallies
        self.lost = self._outgoing.lost
        """Readings that could not be sealed or stored, by flow."""
        self.shut_by_others = self._outgoing.shut_by_others
        """Flows whose lane row is not as it was left: somebody without the lock said no."""
        self.purging = Purging(spool)
        self._spool = spool
        self._lanes: dict[str, Lane] = {}
        self._router = Router(())
        self._clock = ClockQuality.TRUSTED
        self._undeclared: list[Missing] = []
        self._is_unread = keeping.damaged_ms is not None

    def wanted(self) -> frozenset[str]:
        """Names of the attributes that any running flow carries."""
        return self._router.wanted()

    def lanes(self) -> Mapping[str, Lane]:
        """The running lanes by flow."""
        return self._lanes

    def follow(self, site: Site, verdicts: Mapping[str, Permit | Refusal], now: Instant) -> None:
        """Makes the lanes what the gate says; durable when this returns."""
        self._take_up(site, verdicts, now)
        rows = self._spool.lanes()
        for flow in sorted(rows.keys() | self._lanes.keys()):
            verdict = verdicts.get(flow)
            lane = self._lanes.get(flow)
            if isinstance(verdict, Permit):
                if lane is not None and not is_the_same(lane, verdict, now):
                    self._change(lane, verdict, now)
            elif site.policy is None or is_pause(verdict):
                self._pause(flow, now)
            elif lane is not None or rows[flow].state is not LaneState.CLOSED or self._waits(flow):
                self.end(flow, now)
        self._outgoing.seal_for(site)
        self._clock = ClockQuality.SYSTEM if site.settings.clock_is_system else ClockQuality.TRUSTED
        for permit in verdicts.values():
            if isinstance(permit, Permit) and permit.flow not in self._lanes:
                self._open(site, permit, now)
        self._router = Router(self._lanes.values())
        self._spool.set_targets(targets_of(site))
        self._declare(now)
        self.keep(now)

    def keep(self, now: Instant) -> None:
        """Tells the journal what is new; durable when this returns, unless the disk refuses."""
        lanes = self._lanes.values()
        if not self.keeping.commit(lanes, self._outgoing.number, now):
            self.flush()  # an open batch has outgrown the journal
            self.keeping.commit(lanes, self._outgoing.number, now)

    def take(self, samples: list[Sample]) -> None:
        """Routes samples to the lanes; closes the batches that are due by them."""
        due = self._router.route(samples)
        while due:
            self._close(due)
            due = self._router.route(())

    def is_outdated(self, now: Instant, past_ms: int) -> bool:
        """Whether an end of an epoch, or of consent by what is past, came since the gate spoke."""
        return any(
            not is_the_same(lane, lane.permit, now) or has_ended(lane.permit, past_ms)
            for lane in self._lanes.values()
        )

    def close_due(self, now: Instant) -> None:
        """Closes the batches that are old."""
        self._close([lane for lane in self._lanes.values() if lane.due(now.wall_ms)])

    def flush(self) -> None:
        """Closes the open batches into the spool; windows that have not ended stay open."""
        self._close(self._lanes.values())

    def finish(self, now: Instant) -> None:
        """Closes every lane's last batch into the spool; the lanes take nothing more."""
        for lane in self._lanes.values():
            self._drain(lane, now)
        self.telling.finish(self._lanes, now)
        if not self._outgoing.has_unstored():
            self.keeping.clean()

    def end_refused(self, site: Site, verdicts: Mapping[str, Permit | Refusal]) -> None:
        """Ends what the gate refuses, and opens nothing: for a command while no agent runs.

        What a permit no longer covers goes too, before another permit covers it again.
        """
        erase_refused(self.keeping, self._spool, verdicts, has_policy=site.policy is not None)
        for flow, row in self._spool.lanes().items():
            verdict = verdicts.get(flow)
            if isinstance(verdict, Permit):
                self._trim(verdict)
                continue
            if site.policy is None or is_pause(verdict):
                continue
            if row.state is not LaneState.CLOSED or self._waits(flow):
                self.end(flow)

    def doomed(self, site: Site, verdicts: Mapping[str, Permit | Refusal]) -> list[str]:
        """Names the flows that the gate refuses, and whose rows are not closed yet."""
        return [
            flow
            for flow, row in self._spool.lanes().items()
            if site.policy is not None
            and row.state is not LaneState.CLOSED
            and not isinstance(verdict := verdicts.get(flow), Permit)
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

    def is_stuck(self) -> bool:
        """Whether the disk refuses so much that nothing more should be taken."""
        return self._outgoing.is_stuck()

    def store_again(self) -> None:
        """Tries once more to store what the disk refused."""
        self._outgoing.store([])

    def _take_up(self, site: Site, verdicts: Mapping[str, Permit | Refusal], now: Instant) -> None:
        """Goes on in the lanes of an earlier life."""
        if self._is_unread and self.keeping.damaged_ms is not None:
            policy = site.policy.policy if site.policy else None
            self._undeclared += unread(self.keeping.damaged_ms, self._spool, policy)
            self._is_unread = False
        has_policy = site.policy is not None
        found = recover(self.keeping, self._spool, verdicts, has_policy=has_policy)
        if found and not self._lanes:
            self._outgoing.seal_for(site)  # nothing is open that was to be sealed as before
        for one in found:
            head = one.part.head
            if one.state is not None and one.permit.flow not in self._lanes:
                secret = site.keys.flow_secret(one.permit.recipient, one.permit.flow)
                lane = Lane(one.permit, secret, head.stream, head.epoch, ClockQuality(head.clock))
                lane.take_up(Snapshot(one.state.tables(), tuple(one.state.memory.values())))
                self._enter(lane)
                self.telling.opened(lane, now)
                log.info("lane taken up flow=%s readings=%d", head.flow, lane.readings)
            self._undeclared.append(one.missing)

    def _declare(self, now: Instant) -> None:
        """Declares what may be missing of the lanes that a crash ended."""
        last_ms = last_of_gap_ms(now.wall_ms)
        while self._undeclared and now.trusted:
            one = self._undeclared[-1]
            self._spool.add_gap(
                one.flow,
                one.stream,
                GapCause.CRASH,
                first_ms=min(one.first_ms, last_ms),
                last_ms=last_ms,
                readings=0,
            )
            self._undeclared.pop()

    def _trim(self, permit: Permit) -> None:
        purged = self._spool.trim_lane(
            permit.flow, basis=basis(permit), not_before_ms=permit.not_before_ms
        )
        if purged.batches:
            self._outgoing.add_purged(permit.flow, purged)
            log.info("lane trimmed flow=%s purged_batches=%d", permit.flow, purged.batches)

    def _waits(self, flow: str) -> bool:
        waiting = self._spool.waiting().get(flow)
        return flow not in self.purging and waiting is not None and waiting.batches > 0

    def _open(self, site: Site, permit: Permit, now: Instant) -> None:
        secret = site.keys.flow_secret(permit.recipient, permit.flow)
        stream = secrets.randbits(64)
        epoch = now.wall_ms // permit.epoch_ms
        lane = Lane(permit, secret, stream, epoch, self._clock)
        opening = self.telling.opening(site, permit, now)
        self._enter(lane, opening.off)
        self.telling.opened(lane, now, opening)
        log.info("lane opened flow=%s recipient=%s", permit.flow, permit.recipient)

    def _enter(self, lane: Lane, off: tuple[int, int] | None = None) -> None:
        permit = lane.permit
        sequence = self._spool.open_lane(
            permit.flow,
            permit.recipient,
            lane.stream,
            permit.not_after_ms,
            core=permit.core,
            basis=basis(permit),
            not_before_ms=permit.not_before_ms,
            off=off,
        )
        self._outgoing.enter(lane.stream, sequence)
        self._lanes[permit.flow] = lane
        self.purging.cancel(permit.flow)  # a lane that was closed is emptied as it is opened

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

    def _pause(self, flow: str, now: Instant) -> None:
        lane = self._lanes.get(flow)
        if lane is not None:
            self._drain(lane, now)
            self._forget(lane)
            self.telling.stopped(flow, now)
            log.info("lane paused flow=%s", flow)
        self._spool.pause_lane(flow)

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
            self.telling.ended(flow, lane, now)
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

    def _forget(self, lane: Lane, *, by_choice: bool = False) -> None:
        flow = lane.permit.flow
        self._lanes.pop(flow, None)
        # What it held is behind no route any more, whatever happens next.
        self._router = Router(self._lanes.values())
        self._outgoing.forget(flow, lane.stream, by_choice=by_choice)
        self.keeping.end(lane.stream)

    def _drain(self, lane: Lane, now: Instant) -> None:
        sealed: list[Parcel] = []
        while True:
            batch = lane.close(self._outgoing.gaps_for(lane), final=True, now_ms=now.wall_ms)
            if batch is None:
                break
            sealed += self._outgoing.seal(batch)
        self.keeping.turn_over([lane], self._outgoing.number)
        self._outgoing.store(sealed)

    def _close(self, lanes: Iterable[Lane]) -> None:
        sealed: list[Parcel] = []
        closed: list[Lane] = []
        for lane in lanes:
            batch = lane.close(self._outgoing.gaps_for(lane))
            if batch is not None:
                closed.append(lane)
                sealed += self._outgoing.seal(batch)
        self.keeping.turn_over(closed, self._outgoing.number)
        self._outgoing.store(sealed)
