# SPDX-License-Identifier: Apache-2.0
"""What the world knows of the lives of the collecting program, and which gaps that explains.

Instants are milliseconds since 1970 by the world's clock, whatever the gateway's says.

Law:
  - a crash explains what a commit interval and the edges of its gap take before a death, and the
    time until a later life is at work; nothing before, nothing after, and no gap without a death;
  - an outage is explained by a stop that was ordered, until a later life is at work, or by a yes
    that was said while nobody was at work;
  - every other cause is explained by the life in which something happened that can have it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from tests.faults.holdings import CLOCK, CRASH, LOST, OUTAGE, SLACK_MS, UNSEALED, Gap

SPAN = 1_000_000
"""More numbers than any recording has."""
STEP_MS = 20

LOOK_MS = 1_000
"""A commit that is due is seen by the next look of the owner, every 250 ms, and then takes its time
on a busy machine: so much later at most is it on the disk."""
EDGE_MS = 3_000
"""A gap begins 2 s before what the journal held last and ends 2 s after the start, for what was at
the door or has to be opened again (agent/pipeline/recovery.py); both are told as whole seconds."""
LATE_MS = 3_000
"""So long after it answers a life has opened its lanes, on a busy machine."""
OPEN_MS = 25_000
"""A batch stays open for so long: what a disk did not take may have been read before a life."""

NEAR_MS = 60_000
"""A gap that begins so near before a step belongs to it: it begins before what it is of, and steps
lie hours apart."""

Span = tuple[float, float]


@dataclasses.dataclass(slots=True)
class Life:
    """One life of the collecting program.

    Attributes:
        rows: how many numbers its recording has.
        began_ms: when it was started.
        answered_ms: when it answered first; 0 where it never did, or nobody asked.
        told_ms: when it was told to stop; 0 where it was not.
        ended_ms: when it ended.
        polite: whether it stopped because it was told to.
        starved_ms: for how long it had no processor in the time before its end that counts.
        least: how many it has read at least, when it ended politely.
        explains: causes of gaps that the faults of this life explain.
        end: what ended it, for a person.
        knows_boot: whether it is known when its boot began; else what is stored of it lies between
            bounds, and its stored instants say little.
    """

    rows: int
    began_ms: int = 0
    answered_ms: int = 0
    told_ms: int = 0
    ended_ms: int = 0
    polite: bool = False
    starved_ms: int = 0
    least: int = 0
    explains: frozenset[int] = frozenset()
    end: str = ""
    knows_boot: bool = True

    def lose_boot(self) -> None:
        """Its boot has ended, and nobody has known the time in it."""
        self.knows_boot = False
        self.explains |= {CLOCK}

    @property
    def is_dead(self) -> bool:
        """Whether it ended, and not because it was told to."""
        return self.ended_ms > 0 and not self.polite

    @property
    def is_kept(self) -> bool:
        """Whether its journal was: a disk that refuses keeps nothing meanwhile."""
        return not self.explains & {UNSEALED, LOST}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """From an instant on the gateway's clock was so much ahead of the world's."""

    since_ms: int
    ahead_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """All lives of a world.

    Attributes:
        lives: in order.
        yeses: when the household said yes.
        commit_ms: the commit interval.
        steps: of the gateway's clock, in order; none where it is right all the time.
    """

    lives: Sequence[Life]
    yeses: Sequence[int] = ()
    commit_ms: int = 1_000
    steps: Sequence[Step] = ()

    @property
    def bound_ms(self) -> int:
        """So much of a life a crash may take."""
        return self.commit_ms + LOOK_MS

    def bound_of(self, life: Life) -> int:
        """The same of a life that had to do without a processor for a while before its end."""
        return self.bound_ms + life.starved_ms

    def reads_from(self, life: Life) -> int:
        """Since when a life that answered has read at the latest."""
        return life.answered_ms + LATE_MS

    def real(self, at_ms: int, near_ms: int = EDGE_MS) -> int | None:
        """An instant of the gateway's clock by the world's; None where it stood nowhere near."""
        if not self.steps:
            return at_ms
        ends = [one.since_ms for one in self.steps[1:]]
        for step, until_ms in zip(self.steps, [*ends, math.inf], strict=True):
            real_ms = at_ms - step.ahead_ms
            if step.since_ms - near_ms <= real_ms <= until_ms + near_ms:
                return real_ms
        return None

    def explains(self, gap: Gap) -> bool:
        """Whether something happened that has such a gap."""
        since, until = gap.first_ms + SLACK_MS, gap.last_ms - SLACK_MS
        if not any(low <= since and until <= high for low, high in self._windows(gap.cause)):
            return False
        deaths = [life.ended_ms for life in self.lives if life.is_dead]
        return gap.cause != CRASH or any(gap.covers(at_ms) for at_ms in deaths)

    @property
    def causes(self) -> frozenset[int]:
        """Causes that some gap of this world may have."""
        found = {cause for life in self.lives for cause in life.explains}
        return frozenset(found.union(one for one in (CRASH, OUTAGE) if self._windows(one)))

    def _windows(self, cause: int) -> list[Span]:
        """The times in which something of a cause may be missing; what touches is one."""
        found: list[Span] = []
        for life in self.lives:
            until = self._at_work_after(life.ended_ms) if life.ended_ms else math.inf
            if cause == CRASH and life.is_dead:
                kept_ms = (
                    life.ended_ms - self.bound_of(life) if life.is_kept else life.began_ms - OPEN_MS
                )
                found.append((kept_ms - EDGE_MS, until))
            if cause == OUTAGE and life.polite:
                found.append((life.told_ms - EDGE_MS, until))
            if cause in life.explains:
                found.append((life.began_ms - OPEN_MS, until))
        if cause == OUTAGE:
            found += [(yes - EDGE_MS, self._at_work_after(yes)) for yes in self.yeses]
        return _merged(found)

    def _at_work_after(self, at_ms: int) -> float:
        """When a life was at work for so long that it has declared what is missing until then."""
        for life in self.lives:
            first_ms = max(at_ms, life.answered_ms)
            end_ms = life.ended_ms or math.inf
            if life.answered_ms and end_ms - first_ms >= LATE_MS:
                return first_ms + LATE_MS + EDGE_MS
        return math.inf


def _merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((since, until))
    return found
