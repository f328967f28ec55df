# SPDX-License-Identifier: Apache-2.0
"""Rounds: one world each, some faults, the end, and what the oracle says.

  - `mixed`: faults of tests/faults/kinds.py at random times, alone or two at once.

Those that need a tracer are in `tests.faults.traced`, those on a disk of our own in
`tests.faults.power`, `tests.faults.papers` and, of a backend, `tests.faults.ingest`, those of the
clock in `tests.faults.clocks`.

A fault counts when it struck. What a round found wrong carries the round's name and seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from demo.stage import RECIPIENTS, StageError
from tests.faults.kinds import KINDS, Kind, pause, strikes
from tests.faults.oracle import Judgement
from tests.faults.world import World

QUICK = ("remote-diagnosis", "partner-energy-advice")
"""One flow of each recipient, whose batches do not stay open for long."""
_OUTSIDE = tuple(
    name
    for name, kind in KINDS.items()
    if kind.part in {"broker", "backend"} and not kind.needs_traffic and name != "broker frozen"
)
"""What strikes whatever the gateway does meanwhile."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What came of a round.

    Attributes:
        name: of the round, with its seed.
        injected: faults that were set, by kind.
        struck: those that struck.
        judged: what the oracle says, by flow.
        wrong: what else does not hold.
        longest_recovery_s: from a fault's end until readings arrive again, and after which.
    """

    name: str
    injected: Counter[str] = dataclasses.field(default_factory=Counter)
    struck: Counter[str] = dataclasses.field(default_factory=Counter)
    judged: dict[str, Judgement] = dataclasses.field(default_factory=dict)
    wrong: list[str] = dataclasses.field(default_factory=list)
    longest_recovery_s: tuple[float, str] = (0.0, "")

    def count(self, kind: str, *, struck: bool) -> None:
        """Notes a fault."""
        self.injected[kind] += 1
        self.struck[kind] += struck

    def total(self, what: str) -> int:
        """Sums a figure of the oracle over the flows."""
        return sum(getattr(one, what) for one in self.judged.values())

    def close(self, world: World) -> Outcome:
        """Drains the world and asks the oracle."""
        try:
            world.drain()
        except StageError as exc:
            world.wrong.append(f"it does not end: {exc}")
        self.judged = world.judge()
        self.wrong += world.wrong
        for flow, judgement in self.judged.items():
            self.wrong += [f"{flow}: {one}" for one in judgement.wrong]
        return self

    def recovers(self, world: World, what: str, flows: Sequence[str] = QUICK) -> None:
        """Waits until readings arrive again, and notes how long that took."""
        began = time.monotonic()
        world.wait_for_more(what, flows)
        took = (round(time.monotonic() - began, 1), what)
        self.longest_recovery_s = max(self.longest_recovery_s, took)


def mixed(
    world: World,
    name: str,
    rng: random.Random,
    kinds: Iterable[str],
    *,
    often: float = 0.3,
    hurries: bool = False,
) -> Outcome:
    """Faults from outside in the order given, some with another one within.

    Args:
        world: settled; runs already or not.
        name: of the round.
        rng: chance.
        kinds: names of KINDS.
        often: how often another one strikes within.
        hurries: waits for the world to go on after the last one only.
    """
    outcome = Outcome(name)
    world.mend()
    outcome.recovers(world, "the start")
    waiting = list(kinds)
    while waiting:
        first = waiting.pop(0)
        with contextlib.ExitStack() as healing:
            _strike(world, rng, outcome, first, healing)
            other = next((one for one in waiting if KINDS[first].takes_in(KINDS[one])), None)
            if other is not None and rng.random() < often:
                waiting.remove(other)
                _strike(world, rng, outcome, other, healing)
        world.mend()
        if not (hurries and waiting):
            outcome.recovers(world, first)
            pause(rng.uniform(0, 0.5))
    return outcome.close(world)


def _strike(
    world: World, rng: random.Random, outcome: Outcome, name: str, healing: contextlib.ExitStack
) -> None:
    kind: Kind = KINDS[name]
    struck = healing.enter_context(kind.strike(world, rng, rng.choice(RECIPIENTS)))
    outcome.count(name, struck=strikes(struck))
    pause(rng.uniform(0, kind.holds_s))


@contextlib.contextmanager
def outside(world: World, rng: random.Random, outcome: Outcome, often: float) -> Iterator[None]:
    """Something outside the gateway is broken for as long as the block, sometimes.

    Args:
        world: runs.
        rng: chance.
        outcome: takes note.
        often: how often.
    """
    if rng.random() >= often:
        yield
        return
    name, recipient = rng.choice(_OUTSIDE), rng.choice(RECIPIENTS)
    with KINDS[name].strike(world, rng, recipient) as struck:
        yield
        outcome.count(name, struck=struck())
