# SPDX-License-Identifier: Apache-2.0
"""Rounds on a disk of our own: its power goes at the N-th step of a room, or it refuses that step.

The gateway collects, and while it does the household says its yes once more.

A cut counts only when a write or a name of the room that was meant was lost, and in the way that
was meant; a refusal, when it was a path of that room. What was told as done is done: acts in the
ledger do not become fewer. Commands under the same faults are in `tests.faults.papers`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from assent.errors import AssentError
from demo.stage import StageError
from tests.faults.household import FLOWS
from tests.faults.kinds import pause
from tests.faults.rounds import Outcome, outside
from tests.faults.world import World
from tests.simulators.lossy import Told
from tests.simulators.orders import EVER, Order
from tests.simulators.unsynced import Loss

_TEMPORARY = r"(?:\.tmp-[0-9a-f]{16}-)?"
ROOMS = {
    "journal": rf"^/{_TEMPORARY}journal",
    "spool": r"^/spool/spool\.db$",
    "spool log": r"^/spool/spool\.db-wal$",
    "ledger": rf"^/{_TEMPORARY}ledger[^/]*$",
    "keys": r"^/keys/",
    "backend readings": r"^/store\.db$",
    "backend readings log": r"^/store\.db-wal$",
    "backend custody": r"^/custody\.db$",
    "backend custody log": r"^/custody\.db-wal$",
}
"""Paths of each durable room, below the state directory, or below a backend's."""
ALL_ROOMS = "|".join(f"(?P<{room.replace(' ', '_')}>{pattern})" for room, pattern in ROOMS.items())
CODES = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}

_LIFE_S = 4.0


class Fault(NamedTuple):
    """What befalls a room.

    Attributes:
        room: of ROOMS.
        call: of a room.
        number: which.
        way: in which a power cut loses writes; or what the disk says, of CODES.
        last: how many calls are refused.
    """

    room: str
    call: str
    number: int
    way: str
    last: int = 1

    @property
    def is_cut(self) -> bool:
        """Whether the power goes."""
        return self.way not in CODES

    def __str__(self) -> str:
        return (
            f"power cut: {self.room}: {self.way}" if self.is_cut else f"{self.way} on {self.room}"
        )

    def order(self, seed: int) -> Order:
        """What the disk is told."""
        if self.is_cut:
            return Order(ROOMS[self.room], "cut", self.call, self.number, way=self.way, seed=seed)
        error = CODES[self.way]
        return Order(ROOMS[self.room], "refuse", self.call, self.number, self.last, error=error)

    def has_struck(self, told: Told) -> bool:
        """Whether it did what it was for."""
        if not self.is_cut:
            return bool(told.struck)
        return lost_of(self.room, told.lost).is_in(self.way)


def lost_of(room: str, lost: dict[str, Loss]) -> Loss:
    """What a cut took from a room."""
    found = Loss()
    for path, loss in lost.items():
        if re.search(ROOMS[room], path):
            found = found.plus(loss)
    return found


# What there is to strike.

_WAYS = {
    "journal": ("drop", "torn"),  # one write and one sync a commit: nothing to reorder
    "spool": ("drop", "reorder", "torn"),
    "spool log": ("drop", "reorder", "torn"),
    "ledger": ("drop", "torn"),
    "keys": ("drop", "torn"),
}
_CUT_AT = ("write", "fsync")
_MOST = 40  # steps of one call: of more, every K-th
REFUSED = ("open", "write", "fsync", "rename")


def reckon(world: World) -> Counter[str]:
    """Counts the calls of one unharmed life by room, from its start; then everything stops."""
    assert world.disk is not None
    world.mend()
    world.kill("collect")
    world.disk.order(Order(ALL_ROOMS))
    world.start_collect(waits=False)
    _live(world)
    counted = world.disk.told().counted
    world.stop("collect")
    return counted


def faults(counted: Counter[str], rooms: Sequence[str], rng: random.Random) -> list[Fault]:
    """Every cut at every step, and every refusal of every call, in an order that chance gives."""
    found = []
    for room in rooms:
        name = room.replace(" ", "_")
        for way in _WAYS[room]:
            for call in _CUT_AT:
                count = counted[f"{name} {call}"]
                numbers = range(rng.randint(1, 1 + count // _MOST), count + 1, 1 + count // _MOST)
                found += [Fault(room, call, number, way) for number in numbers]
    rng.shuffle(found)
    return found


def refusals(counted: Counter[str], rooms: Sequence[str], rng: random.Random) -> list[Fault]:
    """Every refusal of every call, likewise; one, some, or all from then on."""
    found = []
    for room in rooms:
        for call in REFUSED:
            count = counted[f"{room.replace(' ', '_')} {call}"]
            for number in range(1, count + 1):
                last = rng.choice((1, 1, 5, EVER))
                found += [Fault(room, call, number, code, last) for code in CODES]
    rng.shuffle(found)
    return found


# The rounds.


def power(
    world: World, name: str, rng: random.Random, chain: Sequence[Fault], *, often: float = 0.5
) -> Outcome:
    """One life after the other; in each the power goes at some step, or a call is refused.

    Args:
        world: settled on a disk of its own.
        name: of the round.
        rng: chance.
        chain: what strikes, in that order.
        often: how often something else is broken outside at the same time.
    """
    outcome = Outcome(name)
    world.mend()
    outcome.recovers(world, "the start", list(FLOWS))
    for at, fault in enumerate(chain):
        with outside(world, rng, outcome, often):
            strike(world, outcome, fault, rng.randrange(1 << 30))
        world.mend()
        if at % 4 == 3:
            outcome.recovers(world, f"{fault} at {fault.call} {fault.number}", list(FLOWS))
    return outcome.close(world)


def strike(
    world: World, outcome: Outcome, fault: Fault, seed: int, life_s: float = _LIFE_S
) -> None:
    """One life of the gateway with one fault; afterwards nothing of it runs.

    Args:
        world: on a disk of its own.
        outcome: takes note.
        fault: what strikes.
        seed: of the chance in a cut.
        life_s: how long a life goes on that no cut has ended.
    """
    assert world.disk is not None
    for one in world.gateway_programs:
        if one in world.programs:
            world.kill(one)
    world.disk.order(fault.order(seed))
    world.start_collect(waits=False)
    if not world.together:
        world.start_uplink()
    for one in world.gateway_programs:
        world.excuse(one)
    acts = _live(world, life_s)
    ended = world.programs["collect"].poll()
    world.explain(f"{fault} at {fault.call} {fault.number}")
    for one in world.gateway_programs:
        world.kill(one)
    told = world.disk.told()
    world.disk.order(Order(ALL_ROOMS))  # it is on again
    outcome.count(str(fault), struck=fault.has_struck(told))
    if not fault.is_cut and ended is not None and ended < 0:
        world.wrong.append(f"collect died of {fault} at {fault.call} {fault.number}: {ended}")
    if (left := _acts(world)) < acts:
        world.wrong.append(f"{fault}: of {acts} acts in the ledger {left} are left")


def _live(world: World, life_s: float = _LIFE_S) -> int:
    """A life of a few seconds, in which the household says its yes; acts that are sure by now."""
    acts = _acts(world)
    program = world.programs["collect"]
    with contextlib.suppress(StageError, AssentError):
        world.wait_for_answer()
        world.agree()
        acts = _acts(world)
    end = time.monotonic() + life_s
    while program.poll() is None and time.monotonic() < end:
        pause(0.02)
    return acts


def _acts(world: World) -> int:
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((world.state / "ledger.json").read_bytes())
        return len(told["tables"]["entries"])
    return 0
