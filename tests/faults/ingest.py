# SPDX-License-Identifier: Apache-2.0
"""Rounds in which the power of a recipient's backend goes, at steps of its two files.

The gateway goes on meanwhile: what the backend acknowledged it deletes, what it did not comes again.
A cut falls while the backend starts, while it stores, and while it ends and writes its logs into
their files; it counts as those of `tests.faults.power` do.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence

from tests.faults.kinds import BACKEND, RECIPIENT, pause
from tests.faults.power import Fault
from tests.faults.rounds import QUICK, Outcome
from tests.faults.world import World
from tests.simulators.orders import Order

LOGS = ("backend readings log", "backend custody log")
FILES = ("backend readings", "backend custody")
_CALLS = {"drop": ("write", "fsync"), "reorder": ("fsync",), "torn": ("fsync",)}
# Of a log: its first sync has nothing but a head. A file is synced once, when its log is written in.
_NUMBERS = {
    (True, "write"): (2, 24),
    (True, "fsync"): (2, 8),
    (False, "write"): (1, 3),
    (False, "fsync"): (1, 1),
}
_LIFE_S = (1.5, 4.0)


def faults(rng: random.Random) -> list[Fault]:
    """Every way of a cut in every file, at a step and in an order that chance gives."""
    found = [
        Fault(room, call, rng.randint(*_NUMBERS[room in LOGS, call]), way)
        for room in (*LOGS, *FILES)
        for way, calls in _CALLS.items()
        for call in calls
    ]
    rng.shuffle(found)
    return found


def ingest(world: World, name: str, rng: random.Random, chain: Sequence[Fault]) -> Outcome:
    """One life of the backend after the other; in each its power goes.

    Args:
        world: settled, with the backend on a disk of its own.
        name: of the round.
        rng: chance.
        chain: what strikes, in that order.
    """
    outcome = Outcome(name)
    settled(world)
    world.mend()
    outcome.recovers(world, "the start")
    for at, fault in enumerate(chain):
        strike(world, outcome, fault, rng)
        world.mend()
        if at % 4 == 3:
            outcome.recovers(world, f"{fault} at {fault.call} {fault.number}", QUICK)
    return outcome.close(world)


def settled(world: World) -> None:
    """Whatever the backend's directory holds by now is on its disk: a policy was copied there."""
    for path in world.backend_directory(RECIPIENT).rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def strike(world: World, outcome: Outcome, fault: Fault, rng: random.Random) -> None:
    """One life of the backend with one cut; afterwards it does not run.

    Args:
        world: with the backend on a disk of its own.
        outcome: takes note.
        fault: what strikes.
        rng: chance.
    """
    assert world.disk is not None
    world.kill(BACKEND)
    world.disk.order(fault.order(rng.randrange(1 << 30)))
    world.start_backend(RECIPIENT)
    world.excuse(BACKEND)
    program = world.programs[BACKEND]
    end = time.monotonic() + rng.uniform(*_LIFE_S)
    while program.poll() is None and time.monotonic() < end:
        pause(0.02)
    program.send_signal(signal.SIGTERM)  # it writes its logs into their files
    world.buried(BACKEND)
    told = world.disk.told()
    world.disk.order(Order(""))  # it is on again
    outcome.count(str(fault), struck=fault.has_struck(told))
