# SPDX-License-Identifier: Apache-2.0
"""A new gateway's bundle, admission and form, each struck at a step, then typed again.

- `papers`: on a disk of our own: the power goes at the N-th step of ledger or keys, or that step is
  refused;
- `killed`: under a tracer: the command is killed before the N-th of a call.

Steps are counted first, and then all of them are walked. A command that is refused a step says so
in a sentence and fails, or has done what it says; one that was interrupted is typed again, and then
the gateway is what it would have been.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.faults import power
from tests.faults.household import FLOWS
from tests.faults.rounds import Outcome
from tests.faults.traced import room_of
from tests.faults.world import World
from tests.simulators.orders import Order
from tests.simulators.steps import Step, counted, killed_before, tracer

VERBS = ("bundle", "admission", "form")
ROOMS = ("ledger", "keys")


class Paper(NamedTuple):
    """One command and what befalls it.

    Attributes:
        verb: of VERBS.
        fault: of its disk, or the step before which it is killed.
    """

    verb: str
    fault: power.Fault | Step


def _take(world: World, verb: str, under: Sequence[str] | None) -> None:
    """Types the command of a verb; twice where it is given what to type it under."""
    match verb:
        case "bundle":
            world.take_in(under)
        case "admission":
            world.be_admitted(under)
        case _:
            world.agree(under)


def _afresh(world: World) -> None:
    """A gateway that nobody has enrolled, in the place of the last."""
    if world.disk is not None:
        world.disk.unmount()
        world.disk.mount()
    world.begin()


# On a disk of our own.


def reckon(world: World) -> dict[str, Counter[str]]:
    """Counts the calls of each command by room; afterwards the gateway is enrolled and agreed."""
    assert world.disk is not None
    _afresh(world)
    found = {}
    for verb in VERBS:
        world.disk.order(Order(power.ALL_ROOMS))
        _take(world, verb, None)
        found[verb] = world.disk.told().counted
    return found


def chain(counted: dict[str, Counter[str]], rng: random.Random) -> list[Paper]:
    """Every fault at every step of every command, in an order that chance gives."""
    found = []
    for verb, counts in counted.items():
        faults = power.faults(counts, ROOMS, rng) + power.refusals(counts, ROOMS, rng)
        found += [Paper(verb, fault) for fault in faults]
    rng.shuffle(found)
    return found


def papers(world: World, name: str, rng: random.Random, some: Sequence[Paper]) -> Outcome:
    """One new gateway after the other, each struck once; the last one is then used.

    Args:
        world: settled on a disk of its own; nothing runs.
        name: of the round.
        rng: chance.
        some: what strikes.
    """
    outcome = Outcome(name)
    for one in some:
        strike(world, outcome, one, rng)
    world.start_all()
    outcome.recovers(world, "the enrolment", list(FLOWS))
    return outcome.close(world)


def strike(world: World, outcome: Outcome, paper: Paper, rng: random.Random) -> None:
    """One new gateway, struck once.

    Args:
        world: settled on a disk of its own; nothing runs.
        outcome: takes note.
        paper: the command and its fault.
        rng: chance.
    """
    fault = paper.fault
    assert isinstance(fault, power.Fault)
    _afresh(world)
    for verb in VERBS:
        if verb == paper.verb:
            with _struck(world, outcome, verb, fault, rng):
                _take(world, verb, ())
        else:
            _take(world, verb, None)
    _is_whole(world, f"{fault} during {paper.verb}")


@contextlib.contextmanager
def _struck(
    world: World, outcome: Outcome, verb: str, fault: power.Fault, rng: random.Random
) -> Iterator[None]:
    disk = world.disk
    assert disk is not None

    def look() -> None:
        told = disk.told()
        disk.order(Order(power.ALL_ROOMS))  # it is on again
        has_struck = fault.has_struck(told)
        outcome.count(f"{fault}, during {verb}", struck=has_struck)
        _complain(world, f"{fault} at {fault.call} {fault.number} during {verb}", fault, has_struck)

    disk.order(fault.order(rng.randrange(1 << 30)))
    world.has_been_typed = look
    try:
        yield
    finally:
        world.has_been_typed = None


def _complain(world: World, what: str, fault: power.Fault, has_struck: bool) -> None:
    """What a command that was struck must not do."""
    assert world.typed is not None
    code, said = world.typed.returncode, world.typed.stderr
    if "Traceback" in said or (code < 0 and not fault.is_cut):
        world.wrong.append(f"{what}: it ended with {code}: {said[-400:]}")
    if fault.is_cut and has_struck and code >= 0:
        world.wrong.append(f"{what}: it ended with {code} although its power was gone")


def _is_whole(world: World, what: str) -> None:
    """Whether the gateway is what it would have been without a fault."""
    status = world.status()
    flows = [one["flow"] for one in status["flows"] if one["on"]]
    if not status["enrolled"] or sorted(flows) != sorted(FLOWS):
        world.wrong.append(f"{what}: enrolled {status['enrolled']}, on are {flows}")


# Under a tracer.

_CALLS = ("write", "fsync", "rename", "unlink")


def reckon_steps(world: World) -> dict[str, Counter[str]]:
    """Counts the steps of each command."""
    log = world.root / "steps"
    _afresh(world)
    found = {}
    for verb in VERBS:
        _take(world, verb, tracer(log))
        found[verb] = counted(log)
    return found


def steps(counts: dict[str, Counter[str]], rng: random.Random) -> list[Paper]:
    """Every step of every command, in an order that chance gives."""
    found = [
        Paper(verb, Step(call, number))
        for verb, calls in counts.items()
        for call in _CALLS
        for number in range(1, calls[call] + 1)
    ]
    rng.shuffle(found)
    return found


def killed(world: World, name: str, some: Sequence[Paper]) -> Outcome:
    """One new gateway after the other, each command killed once; the last one is then used.

    Args:
        world: settled; nothing runs.
        name: of the round.
        some: where.
    """
    outcome = Outcome(name)
    log = world.root / "steps"
    for verb, step in some:
        assert isinstance(step, Step)
        _afresh(world)
        under = tracer(log, inject=f"{step.call}:signal=KILL:when={step.number}")
        for one in VERBS:
            _take(world, one, under if one == verb else None)
        found = killed_before(log)
        outcome.count(f"{verb} killed at a step of {room_of(found or '')}", struck=bool(found))
        _is_whole(world, f"{verb} killed before {step}")
    world.start_all()
    outcome.recovers(world, "the enrolment", list(FLOWS))
    return outcome.close(world)
