# SPDX-License-Identifier: Apache-2.0
"""Closed batches on their way into the spool: sealed, numbered, stored, and kept while it refuses.

Path: lane → Batch → **outgoing** → seal → spool.
Law:
  - a number of a stream is given once, in the order of its batches;
  - what the disk refuses waits in memory, bounded, and is tried again; what can never be stored is
    counted as lost, and the lane it came from is told;
  - while the spool cannot be read a batch declares nothing, and nothing that waits is given up.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from agent.lane import Lane
from agent.path import Batch, Permit, Sealed
from agent.pipeline.parcel import Parcel, carried_by_all
from agent.pipeline.tally import Tally
from agent.seal import Sealer
from agent.site import Site
from agent.spool import LaneState, LinkState, Purged, Spool
from agent.spool.schema import DamagedError
from assent.envelope import Gap, GapCause
from assent.errors import AssentError, SpoolError

# Sealed messages kept in memory while the disk refuses: 64 of at most 120 kB.
_UNSTORED: Final = 64

Unsealed = Callable[[str, int, tuple[int, int], int], None]

log = logging.getLogger(__name__)


class Outgoing:
    """Seals batches and stores them; owned by the lanes' thread.

    Args:
        spool: the collecting side's end of the spool.
        stored: told stream and number of each message that is on the disk.
        unsealed: told flow, stream, span and number of readings that never will be.
    """

    def __init__(
        self, spool: Spool, stored: Callable[[int, int], None], unsealed: Unsealed
    ) -> None:
        self.tallies: dict[str, Tally] = {}
        self.lost: Counter[str] = Counter()
        """Readings that could not be sealed or stored, by flow."""
        self.shut_by_others: set[str] = set()
        """Flows whose lane row is not as it was left: somebody without the lock said no."""
        self._spool = spool
        self._stored = stored
        self._unsealed = unsealed
        self._next: dict[int, int] = {}
        self._sealer: Sealer | None = None
        self._unstored: list[Parcel] = []
        self._refusal: str | None = None
        self._unread: str | None = None

    def seal_for(self, site: Site) -> None:
        """Seals from now on with the keys of the policy in force; without one, nothing."""
        self._sealer = Sealer(site.keys, site.policy) if site.policy else None

    def enter(self, stream: int, sequence: int) -> None:
        """Takes on a stream whose next batch has this number; one that goes on keeps its own."""
        # A lane that goes on may hold sealed messages that the disk has refused until now.
        self._next.setdefault(stream, sequence)

    def number(self, stream: int) -> int:
        """The number of the next batch of a stream."""
        return self._next[stream]

    def forget(self, flow: str, stream: int, *, by_choice: bool = False) -> None:
        """Ends a stream: what the spool has not taken of it, it would refuse for ever.

        Args:
            flow: id of the flow.
            stream: the stream.
            by_choice: whether it ends because it may not run: then nothing is declared.
        """
        self._next.pop(stream, None)
        left = [one.sealed for one in self._unstored if one.sealed.flow == flow]
        self._unstored = [one for one in self._unstored if one.sealed.flow != flow]
        if left:
            readings = sum(one.readings for one in left)
            self.lost[flow] += readings
            if not by_choice:
                span = (min(one.first_ms for one in left), max(one.last_ms for one in left))
                self._unsealed(flow, stream, span, readings)

    def has_unstored(self) -> bool:
        """Whether anything waits in memory, because the disk refused it."""
        return bool(self._unstored)

    def is_stuck(self) -> bool:
        """Whether the disk refuses so much that nothing more should be taken."""
        return len(self._unstored) >= _UNSTORED

    def add_purged(self, flow: str, purged: Purged) -> None:
        """Counts what was deleted unsent."""
        self._tally(flow).add_purged(purged)

    def gaps_for(self, lane: Lane) -> tuple[Gap, ...]:
        """What a batch declares now.

        While nobody is reached it declares the ends of streams alone, so that the drops of a week
        grow into one gap: a gap that a batch carries does not grow any more. A batch that waits for
        the time declares nothing.

        Raises:
            DamagedError: the spool is not sound, or another.
        """
        if lane.is_by_boot:
            return ()
        try:
            gaps = self._offered(lane.permit)
        except DamagedError:
            raise  # as where a batch is put
        except SpoolError as exc:
            if exc.message != self._unread:
                log.error("gaps not read, left to a later batch reason=%s", exc.message)
            self._unread = exc.message
            return ()
        self._unread = None
        return gaps

    def _offered(self, permit: Permit) -> tuple[Gap, ...]:
        gaps = self._spool.gaps_for(permit.flow)
        link = self._spool.health().get(permit.recipient) if gaps else None
        if link is not None and link.state is LinkState.CONNECTED:
            return gaps
        return tuple(gap for gap in gaps if gap.cause is GapCause.ENDED)

    def seal(self, batch: Batch) -> list[Parcel]:
        """Seals a batch into messages with the next numbers of its stream; none when it cannot."""
        if self._sealer is None:
            return []
        flow, left_out = batch.permit.flow, self._sealer.left_out
        sealed: list[Sealed] = []
        lost = batch.readings
        try:
            sealed = self._sealer.seal(batch, self._next[batch.stream])
            lost = self._sealer.left_out - left_out
        except AssentError as exc:
            log.error("batch not sealed flow=%s reason=%s", flow, exc.code)
        self._next[batch.stream] += len(sealed)
        if lost:
            self.lost[flow] += lost
            self._unsealed(flow, batch.stream, (batch.first_ms, batch.last_ms), lost)
        return [Parcel(one, batch.gaps) for one in sealed]

    def store(self, sealed: list[Parcel]) -> None:
        """Stores messages after those that were refused before; an empty list tries these again."""
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
        try:
            self._spool.state()  # an older copy that was put back is no no
            row = self._spool.lanes().get(first.flow)
        except DamagedError:
            raise
        except SpoolError:
            return True  # nobody knows
        found = (row.state, row.stream, row.next_sequence) if row else None
        if found in {
            (state, first.stream, first.sequence) for state in (LaneState.OPEN, LaneState.HELD)
        }:
            return True
        if found is not None and found[0] is not LaneState.CLOSED and found[1] == first.stream:
            self._spool.give_up()  # its numbers are not those we gave it
        self.lost[first.flow] += sum(one.sealed.readings for one in part)
        self.shut_by_others.add(first.flow)
        log.error("lane shut by another flow=%s", first.flow)
        return False

    def _put(self, parcels: list[Parcel]) -> bool:
        sealed = [parcel.sealed for parcel in parcels]
        try:
            self._spool.put(sealed, carried_by_all(parcels))
        except DamagedError:
            raise  # the next start moves the file aside, or decides about the one that lies there
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
            self._stored(one.stream, one.sequence)
        return True

    def _tally(self, flow: str) -> Tally:
        return self.tallies.setdefault(flow, Tally())
