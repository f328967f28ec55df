# SPDX-License-Identifier: Apache-2.0
"""The lanes that run now: opened for permits, closed into the spool, ended by a no.

Law:
  - a lane runs only for the permit the gate gives now, in the epoch of now;
  - a no, an end, wider terms: the lane row is closed first, then the open batch is forgotten, then
    what waits is purged;
  - a pause (broken form, unusable policy, clock) closes the batch into the spool and lets nothing
    out: nobody took anything back;
  - narrower terms or attributes purge what waits under the wider ones; a renewed yes does not;
  - nothing from before the unbroken yes of the permit leaves.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from agent.lane import Lane
from agent.path import Batch, Permit, Reason, Refusal
from agent.pipeline.accord import basis, has_ended, is_amended, is_the_same
from agent.pipeline.courtesy import targets_of
from agent.pipeline.parcel import Parcel, carried_by_all
from agent.pipeline.purging import Purging
from agent.pipeline.tally import Tally
from agent.router import Router
from agent.seal import Sealer
from agent.site import Site
from agent.spool import LaneState, LinkState, Purged, Spool
from agent.spool.schema import DamagedError
from assent.envelope import ClockQuality, Gap
from assent.errors import AssentError, SpoolError
from firmware_bridge.sample import Instant, Sample

PAUSES: Final = frozenset(
    {Reason.FORM_BROKEN, Reason.POLICY_UNUSABLE, Reason.CLOCK_UNTRUSTED, Reason.NOT_ENROLLED}
)
"""Reasons for which nobody took anything back: what waits is kept, and none of it leaves."""

# Sealed messages kept in memory while the disk refuses: 64 of at most 120 kB.
_UNSTORED: Final = 64

log = logging.getLogger(__name__)


class Running:
    """The running lanes with their router and sealer; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self.tallies: dict[str, Tally] = {}
        self.lost: Counter[str] = Counter()
        """Readings that could not be sealed or stored, by flow."""
        self.shut_by_others: set[str] = set()
        """Flows whose lane row is not as it was left: somebody without the lock said no."""
        self.purging = Purging(spool)
        self._spool = spool
        self._lanes: dict[str, Lane] = {}
        self._next: dict[int, int] = {}
        self._router = Router(())
        self._sealer: Sealer | None = None
        self._unstored: list[Parcel] = []
        self._refusal: str | None = None
        self._clock = ClockQuality.TRUSTED

    def wanted(self) -> frozenset[str]:
        """Names of the attributes that any running flow carries."""
        return self._router.wanted()

    def lanes(self) -> Mapping[str, Lane]:
        """The running lanes by flow."""
        return self._lanes

    def follow(self, site: Site, verdicts: Mapping[str, Permit | Refusal], now: Instant) -> None:
        """Makes the lanes what the gate says; durable when this returns."""
        rows = self._spool.lanes()
        for flow in sorted(rows.keys() | self._lanes.keys()):
            verdict = verdicts.get(flow)
            lane = self._lanes.get(flow)
            if isinstance(verdict, Permit):
                if lane is not None and not is_the_same(lane, verdict, now):
                    self._change(lane, verdict, now)
            elif site.policy is None or _is_pause(verdict):
                self._pause(flow, now)
            elif lane is not None or rows[flow].state is not LaneState.CLOSED or self._waits(flow):
                self.end(flow)
        self._sealer = Sealer(site.keys, site.policy) if site.policy else None
        self._clock = ClockQuality.SYSTEM if site.settings.clock_is_system else ClockQuality.TRUSTED
        for permit in verdicts.values():
            if isinstance(permit, Permit) and permit.flow not in self._lanes:
                self._open(site, permit, now)
        self._router = Router(self._lanes.values())
        self._spool.set_targets(targets_of(site))

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

    def end_refused(self, site: Site, verdicts: Mapping[str, Permit | Refusal]) -> None:
        """Ends what the gate refuses, and opens nothing: for a command while no agent runs.

        What a permit no longer covers goes too, before another permit covers it again.
        """
        for flow, row in self._spool.lanes().items():
            verdict = verdicts.get(flow)
            if isinstance(verdict, Permit):
                self._trim(verdict)
                continue
            if site.policy is None or _is_pause(verdict):
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
            and not _is_pause(verdict)
        ]

    def is_stuck(self) -> bool:
        """Whether the disk refuses so much that nothing more should be taken."""
        return len(self._unstored) >= _UNSTORED

    def store_again(self) -> None:
        """Tries once more to store what the disk refused."""
        self._store([])

    def _trim(self, permit: Permit) -> None:
        purged = self._spool.trim_lane(
            permit.flow, basis=basis(permit), not_before_ms=permit.not_before_ms
        )
        if purged.batches:
            self._tally(permit.flow).add_purged(purged)
            log.info("lane trimmed flow=%s purged_batches=%d", permit.flow, purged.batches)

    def _waits(self, flow: str) -> bool:
        waiting = self._spool.waiting().get(flow)
        return flow not in self.purging and waiting is not None and waiting.batches > 0

    def _open(self, site: Site, permit: Permit, now: Instant) -> None:
        secret = site.keys.flow_secret(permit.recipient, permit.flow)
        stream = secrets.randbits(64)
        epoch = now.wall_ms // permit.epoch_ms
        lane = Lane(permit, secret, stream, epoch, self._clock)
        self._enter(lane)
        log.info("lane opened flow=%s recipient=%s", permit.flow, permit.recipient)

    def _enter(self, lane: Lane) -> None:
        permit = lane.permit
        sequence = self._spool.open_lane(
            permit.flow,
            permit.recipient,
            lane.stream,
            permit.not_after_ms,
            core=permit.core,
            basis=basis(permit),
            not_before_ms=permit.not_before_ms,
        )
        # A lane that goes on may hold sealed messages that the disk has refused until now.
        self._next.setdefault(lane.stream, sequence)
        self._lanes[permit.flow] = lane
        self.purging.cancel(permit.flow)  # a lane that was closed is emptied as it is opened

    def _change(self, lane: Lane, permit: Permit, now: Instant) -> None:
        """Ends a lane whose permit or epoch is another now; what waits stays if it may."""
        restarted = permit.not_before_ms > lane.permit.not_before_ms
        if restarted or basis(permit) != basis(lane.permit):
            self.end(permit.flow)
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
            log.info("lane paused flow=%s", flow)
        self._spool.pause_lane(flow)

    def end(self, flow: str) -> Purged:
        """Ends a flow: lane row closed, open batch forgotten, what waits to be purged after.

        Returns:
            What goes unsent, with the readings of the open batch and of open windows.
        """
        self._spool.close_lane(flow)
        lane = self._lanes.get(flow)
        waited = 0
        if lane is not None:
            waited = lane.readings + lane.absorbed
            lane.discard()
            self._forget(lane)
        sealed = self.purging.begin(flow)
        readings = sealed.readings + waited
        purged = Purged(sealed.batches, readings, sealed.bytes, sealed.unconfirmed)
        self._tally(flow).add_purged(purged)
        log.info("lane closed flow=%s purged_batches=%d", flow, purged.batches)
        return purged

    def _forget(self, lane: Lane) -> None:
        flow = lane.permit.flow
        self._lanes.pop(flow, None)
        self._next.pop(lane.stream, None)
        # What it held is behind no route any more, whatever happens next.
        self._router = Router(self._lanes.values())
        left = [one for one in self._unstored if one.sealed.flow == flow]
        if left:
            # Their stream has ended: the spool would refuse them for ever.
            self.lost[flow] += sum(one.sealed.readings for one in left)
            self._unstored = [one for one in self._unstored if one.sealed.flow != flow]

    def _drain(self, lane: Lane, now: Instant) -> None:
        sealed: list[Parcel] = []
        while True:
            batch = lane.close(self._gaps_for(lane), final=True, now_ms=now.wall_ms)
            if batch is None:
                break
            sealed += self._seal(batch)
        self._store(sealed)

    def _close(self, lanes: Iterable[Lane]) -> None:
        sealed: list[Parcel] = []
        for lane in lanes:
            batch = lane.close(self._gaps_for(lane))
            if batch is not None:
                sealed += self._seal(batch)
        self._store(sealed)

    def _gaps_for(self, lane: Lane) -> tuple[Gap, ...]:
        """What a batch declares now.

        While nobody is reached it declares nothing, so that the drops of a week grow into one gap:
        a gap that a batch carries does not grow any more.
        """
        gaps = self._spool.gaps_for(lane.permit.flow)
        link = self._spool.health().get(lane.permit.recipient) if gaps else None
        return gaps if link is not None and link.state is LinkState.CONNECTED else ()

    def _seal(self, batch: Batch) -> list[Parcel]:
        if self._sealer is None:
            return []
        flow, left_out = batch.permit.flow, self._sealer.left_out
        try:
            sealed = self._sealer.seal(batch, self._next[batch.stream])
        except AssentError as exc:
            self.lost[flow] += batch.readings
            log.error("batch not sealed flow=%s reason=%s", flow, exc.code)
            return []
        self._next[batch.stream] += len(sealed)
        self.lost[flow] += self._sealer.left_out - left_out
        return [Parcel(one, batch.gaps) for one in sealed]

    def _store(self, sealed: list[Parcel]) -> None:
        waiting = self._unstored + sealed
        if not waiting or self._put(waiting):
            self._unstored = []
            return
        # One flow that the spool refuses does not hold up the others.
        flows = sorted({one.sealed.flow for one in waiting})
        parts = [[one for one in waiting if one.sealed.flow == flow] for flow in flows]
        refused = [part for part in parts if len(parts) == 1 or not self._put(part)]
        self._unstored = [one for part in refused if self._keeps(part) for one in part]

    def _keeps(self, part: list[Parcel]) -> bool:
        """Whether the spool may take them another time; else they are lost, and the lane is."""
        first = part[0].sealed
        row = self._spool.lanes().get(first.flow)
        found = (row.state, row.stream, row.next_sequence) if row else None
        if found == (LaneState.OPEN, first.stream, first.sequence):
            return True
        self.lost[first.flow] += sum(one.sealed.readings for one in part)
        self.shut_by_others.add(first.flow)
        log.error("lane shut by another flow=%s", first.flow)
        return False

    def _put(self, parcels: list[Parcel]) -> bool:
        sealed = [parcel.sealed for parcel in parcels]
        try:
            self._spool.put(sealed, carried_by_all(parcels))
        except DamagedError:
            raise  # the next start moves the file aside
        except SpoolError as exc:
            if exc.message != self._refusal:
                log.error("batches not stored, kept in memory reason=%s", exc.message)
            self._refusal = exc.message
            return False
        if self._refusal is not None:
            log.info("batches stored again")
        self._refusal = None
        for one in sealed:
            self._tally(one.flow).add_stored(one)
        return True

    def _tally(self, flow: str) -> Tally:
        return self.tallies.setdefault(flow, Tally())


def _is_pause(verdict: Refusal | None) -> bool:
    return verdict is not None and verdict.reason in PAUSES
