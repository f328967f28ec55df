# SPDX-License-Identifier: Apache-2.0
"""What an earlier life left in the journal: judged, erased where it must be, taken up once.

Law:
  - what may not run now on the same basis is erased first: a closed lane row, a refusal, other
    terms; a pause keeps it;
  - a state is taken up when it is of this spool, of the stream the lane row names, and stands under
    the number the spool expects; else the spool was lost, or is another than the journal knew, and
    nothing is taken up, because it may have been stored;
  - before a lane goes on from a state, every other state is out of the file: none can be taken for
    it after another crash;
  - each flow that was running declares a gap: from what the journal held last to now. While nobody
    knows the time it lies in the spool, so that another end loses nothing of it.

Limits: a device that gives nothing for longer than `_EDGE_MS` after a start, and for less than its
`fresh`, is told of by nobody (`silence`); after an orderly end neither.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from agent.journal import Part, State
from agent.path import Pending, Permit, Verdict, permit_of
from agent.pipeline.accord import basis, is_pause, reach
from agent.pipeline.keeping import Keeping
from agent.spool import LaneState, LaneView, Spool
from assent.errors import WireError
from assent.header import GapCause
from assent.policy.model import Policy
from firmware_bridge.sample import Instant

# A reading may stand at the door for a moment before a lane has it, and most devices take a moment
# to be opened again; instants leave as whole seconds.
_EDGE_MS: Final = 2_000

log = logging.getLogger(__name__)

Verdicts = Mapping[str, Verdict]


class Missing(NamedTuple):
    """A time in which readings of a flow may be missing, up to now."""

    flow: str
    stream: int
    first_ms: int


class Found(NamedTuple):
    """What was found of one running lane: its part, and the number of the state to take up."""

    permit: Permit
    part: Part
    number: int | None

    @property
    def state(self) -> State | None:
        """What to take up."""
        return None if self.number is None else self.part.states[self.number]

    @property
    def missing(self) -> Missing:
        """Since when readings of it may be missing."""
        head, state = self.part.head, self.state
        first_ms = self._oldest_ms - reach(self.permit) if state is None else state.at_ms
        return Missing(head.flow, head.stream, max(self.permit.not_before_ms, first_ms - _EDGE_MS))

    @property
    def _oldest_ms(self) -> int:
        """The oldest row that the part may hold; where its rows tell no date, as old as can be."""
        if not self.part.head.boot:
            with contextlib.suppress(WireError):
                return self.part.oldest_ms
        return self.part.at_ms - self.permit.max_age_ms


def unread(damaged_ms: int, spool: Spool, policy: Policy | None) -> list[Missing]:
    """Gives what may be missing when a journal cannot be read: the open batches of all lanes.

    It may have kept one of a lane that was paused by the start after a crash, from before then.

    Args:
        damaged_ms: when it was written last.
        spool: whose rows say which lanes were open.
        policy: says how old an open batch could be.
    """
    absences, missing = spool.absences(), []
    for row, stream in _in(spool, {LaneState.OPEN, LaneState.HELD, LaneState.PAUSED}):
        last_ms = damaged_ms
        if row.state is LaneState.PAUSED:
            last_ms = min(last_ms, absences.get((row.flow, GapCause.OUTAGE), last_ms))
        first_ms = last_ms - _reach(policy, row.flow) - _EDGE_MS
        missing.append(Missing(row.flow, stream, max(row.not_before_ms, first_ms)))
    return missing


def untold(keeping: Keeping, spool: Spool, policy: Policy | None) -> list[Missing]:
    """Gives what may be missing of lanes that were open, of which no journal tells and no stop.

    One that was paused, and nobody lived to note it, was open too.

    A lane that ends in order notes when it stopped. What it put and was not acknowledged waits, so
    that what is lost is no older than that, or than an open batch was at the last acknowledgement.

    Args:
        keeping: knows which flows the journal tells of.
        spool: whose rows say which lanes were open.
        policy: says how old an open batch could be.
    """
    journalled, absences, waiting = keeping.flows, spool.absences(), spool.waiting()
    missing = []
    for row, stream in _in(spool, {LaneState.OPEN, LaneState.HELD, LaneState.PAUSED}):
        if row.flow in journalled or (row.flow, GapCause.OUTAGE) in absences:
            continue
        one = waiting[row.flow]
        known = [row.not_before_ms]
        if one.oldest_ms is not None:
            known.append(one.oldest_ms - _EDGE_MS)
        elif one.last_acknowledged_ms is not None:
            known.append(one.last_acknowledged_ms - _reach(policy, row.flow) - _EDGE_MS)
        missing.append(Missing(row.flow, stream, max(known)))
    return missing


def _in(spool: Spool, states: AbstractSet[LaneState]) -> Iterator[tuple[LaneView, int]]:
    for row in spool.lanes().values():
        if row.state in states and row.stream is not None:
            yield row, row.stream


def _reach(policy: Policy | None, flow: str) -> int:
    """How old, in ms, what an open batch holds may be; nothing where nobody knows."""
    known = policy.flows.get(flow) if policy else None
    if known is None:
        return 0
    windows = [int(transform.duration or 0) for transform in known.attributes.values()]
    return int(known.batch.age) + max(windows, default=0)


class Missed:
    """What a crash may have taken, until it is declared; owned by the lanes' thread.

    Args:
        spool: where it is declared.
        keeping: says what was journalled, and whether that could not be read.
    """

    def __init__(self, spool: Spool, keeping: Keeping) -> None:
        self._spool = spool
        self._keeping = keeping
        self._has_looked = False
        self._undeclared: list[Missing] = []
        self._found_ms: dict[str, int] = {}
        """Up to when it may be missing what waits for the time, in ms since boot, by flow."""
        self._began_ms: int | None = None

    def look(self, policy: Policy | None) -> None:
        """Takes in once what was open and is not in a journal that can be read."""
        if self._has_looked:
            return
        if self._keeping.damaged_ms is not None:
            self._undeclared += unread(self._keeping.damaged_ms, self._spool, policy)
        else:
            self._undeclared += untold(self._keeping, self._spool, policy)
        self._has_looked = True

    def add(self, missing: Missing) -> None:
        """Takes in what is missing of a lane."""
        self._undeclared.append(missing)

    def declare(self, now: Instant) -> None:
        """Declares it all, or has the spool keep it until the time is known.

        Raises:
            SpoolError: the disk refuses; what it did not take is kept.
        """
        if self._began_ms is None:
            self._began_ms = now.mono_ms
        if now.trusted:
            self._declare_all(now, self._began_ms)
        while self._undeclared and not now.trusted:
            one = self._undeclared[-1]
            self._spool.begin_absence(one.flow, GapCause.CRASH, one.first_ms)
            self._found_ms[one.flow] = now.mono_ms
            self._undeclared.pop()

    def _declare_all(self, now: Instant, began_ms: int) -> None:
        rows = self._spool.lanes()
        for (flow, cause), first_ms in self._spool.absences().items():
            if cause is GapCause.CRASH:
                # What came after it was held, and is dated now.
                found_ms = self._found_ms.get(flow, began_ms)
                last_ms = self._last_ms(first_ms, now.wall_ms - now.mono_ms + found_ms)
                stream = (rows[flow].stream if flow in rows else None) or 0
                self._spool.tell_absence(flow, cause, stream, last_ms, is_over=True)
                self._found_ms.pop(flow, None)
        while self._undeclared:
            one = self._undeclared[-1]
            self._spool.add_gap(
                one.flow,
                one.stream,
                GapCause.CRASH,
                first_ms=one.first_ms,
                last_ms=self._last_ms(one.first_ms, now.wall_ms),
                readings=0,
            )
            self._undeclared.pop()

    def _last_ms(self, first_ms: int, until_ms: int) -> int:
        """Up to when something may be missing: what was not told to the journal is dated before.

        By a clock that was set back since, it may lie after now: a commit interval is missing.
        """
        return max(until_ms + _EDGE_MS, first_ms + self._keeping.every_ms + 2 * _EDGE_MS)


def erase_refused(
    keeping: Keeping, spool: Spool, verdicts: Verdicts, *, has_policy: bool
) -> list[Part]:
    """Erases what may not run now on the same basis.

    Args:
        keeping: the journal's.
        spool: whose rows say what was closed.
        verdicts: of the gate.
        has_policy: whether there is a policy that could refuse anything.

    Returns:
        What is left.
    """
    if not keeping.left:
        return []
    rows, parts = spool.lanes(), keeping.parts()
    refused = {
        part.head.flow
        for part in parts
        if _is_refused(part, rows, verdicts.get(part.head.flow), has_policy=has_policy)
    }
    if refused:
        keeping.erase(refused)
        log.info("journal erased flows=%d", len(refused))
    return [part for part in parts if part.head.flow not in refused]


def recover(
    keeping: Keeping,
    spool: Spool,
    verdicts: Verdicts,
    missed: Missed,
    now: Instant,
    *,
    has_policy: bool,
) -> list[Found]:
    """Finds what may be taken up now; what waits for the end of a pause stays where it is.

    What is missing is declared before the journal forgets of it: another crash then finds one of
    the two.

    Returns:
        One for each lane that was running, all others out of the journal.
    """
    left = erase_refused(keeping, spool, verdicts, has_policy=has_policy)
    rows = spool.lanes()
    found = [
        Found(permit_of(verdict), part, _number_of(part, rows.get(part.head.flow), keeping, spool))
        for part in left
        if isinstance(verdict := verdicts.get(part.head.flow), Permit | Pending)
    ]
    if not found:
        return []
    for one in found:
        missed.add(one.missing)
    missed.declare(now)
    numbers = {one.part.head.stream: one.number for one in found}
    states = {stream: number for stream, number in numbers.items() if number is not None}
    if not keeping.choose(states, numbers.keys() - states.keys()):
        # Nothing is taken up, so that all that it held is missing, too.
        found = [one._replace(number=None) for one in found]
        for one in found:
            missed.add(one.missing)
    return found


def _is_refused(
    part: Part,
    rows: Mapping[str, LaneView],
    verdict: Verdict | None,
    *,
    has_policy: bool,
) -> bool:
    row = rows.get(part.head.flow)
    if row is not None and row.state is LaneState.CLOSED:
        return True
    if isinstance(verdict, Permit | Pending):
        return basis(permit_of(verdict)) != part.head.basis
    return has_policy and not is_pause(verdict)


def _number_of(part: Part, row: LaneView | None, keeping: Keeping, spool: Spool) -> int | None:
    if row is None or row.stream != part.head.stream or not keeping.is_of(spool.id):
        return None
    return row.next_sequence if row.next_sequence in part.states else None
