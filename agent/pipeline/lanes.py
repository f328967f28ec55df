# SPDX-License-Identifier: Apache-2.0
"""Lanes at work: samples in, batches into the spool, what is open into the journal.

Path: router → lanes → outgoing → spool; lanes → keeping → journal.
Law:
  - what a lane held is behind no route any more once it is forgotten;
  - a lane is known to the spool before it takes anything, held or open as its batches are to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.lane import Lane
from agent.pipeline.accord import basis
from agent.pipeline.holding import dated
from agent.pipeline.keeping import Keeping
from agent.pipeline.outgoing import Outgoing
from agent.pipeline.parcel import Parcel
from agent.pipeline.purging import Purging
from agent.pipeline.reckoning import Reckoning
from agent.pipeline.telling import Telling
from agent.router import Router
from agent.spool import Boot, Spool
from agent.spool.place import ReplacedError
from firmware_bridge.sample import Instant, Sample


class Lanes:
    """The running lanes with their router and sealer; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
        keeping: tells the journal what the lanes hold.
        telling: declares what they missed.
    """

    def __init__(self, spool: Spool, keeping: Keeping, telling: Telling) -> None:
        self.keeping = keeping
        self.telling = telling
        self.reckoning = Reckoning()
        """By what clock the lanes count."""
        self._boot = Boot(keeping.boot_id, 0)
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

    def wanted(self) -> frozenset[str]:
        """Names of the attributes that any running flow carries."""
        return self._router.wanted()

    def lanes(self) -> Mapping[str, Lane]:
        """The running lanes by flow."""
        return self._lanes

    def keep(self, now: Instant) -> None:
        """Tells the journal what is new; durable when this returns, unless the disk refuses."""
        lanes, now = self._lanes.values(), dated(now, self._boot)
        if not self.keeping.commit(lanes, self._outgoing.number, now):
            self.flush()  # an open batch has outgrown the journal
            self.keeping.commit(lanes, self._outgoing.number, now)

    def take(self, samples: list[Sample]) -> None:
        """Routes samples to the lanes; closes the batches that are due by them."""
        due = self._router.route(samples)
        while due:
            self._close(due)
            due = self._router.route(())

    def close_due(self, now: Instant) -> None:
        """Closes the batches that are old."""
        self._close([lane for lane in self._lanes.values() if lane.due(lane.ms_of(now))])

    def flush(self) -> None:
        """Closes the open batches into the spool; windows that have not ended stay open."""
        self._close(self._lanes.values())

    def finish(self, now: Instant) -> None:
        """Closes every lane's last batch into the spool; the lanes take nothing more.

        Raises:
            ReplacedError: another spool lies there; what the lanes hold stays in the journal.
        """
        try:
            for lane in self._lanes.values():
                self._drain(lane, now)
            self.telling.finish(self._lanes, dated(now, self._boot))
        except ReplacedError:
            self.telling.disown()
            raise
        if not self._outgoing.has_unstored():
            self.keeping.clean()

    def is_stuck(self) -> bool:
        """Whether the disk refuses so much that nothing more should be taken."""
        return self._outgoing.is_stuck()

    def store_again(self) -> None:
        """Tries once more to store what the disk refused."""
        self._outgoing.store([])

    def _enter(self, lane: Lane, off: tuple[int, int] | None = None, *, held: bool = False) -> None:
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
            boot=self._boot if held or lane.is_by_boot else None,
        )
        self._outgoing.enter(lane.stream, sequence)
        self._lanes[permit.flow] = lane
        self.purging.cancel(permit.flow)  # a lane that was closed is emptied as it is opened

    def _forget(self, lane: Lane, *, by_choice: bool = False) -> None:
        flow = lane.permit.flow
        self._lanes.pop(flow, None)
        # What it held is behind no route any more, whatever happens next.
        self._router = Router(one for one in self._router.lanes if one is not lane)
        self._outgoing.forget(flow, lane.stream, by_choice=by_choice)
        self.keeping.end(lane.stream)

    def _drain(self, lane: Lane, now: Instant) -> None:
        sealed: list[Parcel] = []
        while True:
            batch = lane.close(self._outgoing.gaps_for(lane), final=True, now_ms=lane.ms_of(now))
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
