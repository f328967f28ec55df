# SPDX-License-Identifier: Apache-2.0
"""Rounds: one world each, some faults, the end, and what the oracle says.

  - `mixed`: faults of tests/faults/kinds.py at random times, alone or two at once;
  - `steps`: one program is killed before the N-th of a call, again and again, each life another N;
  - `errors`: the disk says ENOSPC or EIO to a call on one room's files, once, a few times or on;
  - `power`: the gateway's state lies on a disk that forgets what was not synced, and is cut;
  - `clock`: the wall clock of the gateway is stepped.

A fault counts when it struck. What a round found wrong carries the round's name and seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from assent.errors import AssentError
from demo.stage import StageError, wait_until
from tests.faults.kinds import BACKEND, KINDS, RECIPIENT, Kind, pause, strikes
from tests.faults.oracle import Judgement
from tests.faults.world import FLOWS, World
from tests.simulators import lossy
from tests.simulators.steps import Step, counted, killed_before, tracer

Worlds = Callable[..., World]

_LIFE_S = 4.0
"""How long a traced life goes on: some batches of each flow."""
_ROOMS = (
    ("journal", re.compile(r"/state/[^>]*journal")),
    ("spool", re.compile(r"/state/spool/")),
    ("ledger", re.compile(r"/state/(ledger|floor|account|witness)|/state/\.tmp-")),
    ("keys", re.compile(r"/state/keys/")),
    ("backend store", re.compile(r"/(store|custody)\.db")),
)
_UNDONE = re.compile(r"= \?$|<unfinished \.\.\.>$")
ERRORS = ("ENOSPC", "EIO")


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

    def close(self, world: World, *, timed: bool = True) -> Outcome:
        """Drains the world and asks the oracle."""
        try:
            world.drain()
        except StageError as exc:
            world.wrong.append(f"it does not end: {exc}")
        self.judged = world.judge(timed=timed)
        self.wrong += world.wrong
        for flow, judgement in self.judged.items():
            self.wrong += [f"{flow}: {one}" for one in judgement.wrong]
        return self

    def recovers(self, world: World, what: str, flows: Sequence[str] = ()) -> None:
        """Waits until readings arrive again, and notes how long that took."""
        began = time.monotonic()
        world.wait_for_more(what, flows)
        took = (round(time.monotonic() - began, 1), what)
        self.longest_recovery_s = max(self.longest_recovery_s, took)


def mixed(
    world: World, name: str, rng: random.Random, kinds: Iterable[str], *, often: float = 0.3
) -> Outcome:
    """Faults from outside in the order given, some with another one within.

    Args:
        world: settled.
        name: of the round.
        rng: chance.
        kinds: names of KINDS.
        often: how often another one strikes within.
    """
    outcome = Outcome(name)
    world.start_all()
    outcome.recovers(world, "the start")
    waiting = list(kinds)
    while waiting:
        first = waiting.pop(0)
        with contextlib.ExitStack() as healing:
            _strike(world, rng, outcome, first, healing)
            other = next((one for one in waiting if _meets(first, one)), None)
            if other is not None and rng.random() < often:
                waiting.remove(other)
                _strike(world, rng, outcome, other, healing)
        world.mend()
        outcome.recovers(world, first)
        pause(rng.uniform(0, 0.5))
    return outcome.close(world)


def _strike(
    world: World, rng: random.Random, outcome: Outcome, name: str, healing: contextlib.ExitStack
) -> None:
    kind: Kind = KINDS[name]
    struck = healing.enter_context(kind.strike(world, rng))
    outcome.count(name, struck=strikes(struck))
    pause(rng.uniform(0, kind.holds_s))


def _meets(one: str, other: str) -> bool:
    return KINDS[one].part != KINDS[other].part


# Killed before the N-th of a call.


def reckon(world: World, victim: str) -> Counter[str]:
    """Counts the calls of one unharmed life of a program, from its start; then everything stops."""
    log = world.root / "steps"
    world.start_all()
    _begin(world, victim, tracer(log))
    _act(world, victim)
    world.stop(victim)
    return counted(log)


def steps(world: World, name: str, victim: str, chain: Sequence[Step]) -> Outcome:
    """One life after the other, each killed at another step; then the end.

    Args:
        world: settled; runs already or not.
        name: of the round.
        victim: `collect`, `uplink` or the maker's backend.
        chain: where.
    """
    world.mend()
    outcome = killed_at(world, name, victim, chain)
    outcome.recovers(world, f"{victim} after the last step")
    return outcome.close(world)


def killed_at(world: World, name: str, victim: str, chain: Sequence[Step]) -> Outcome:
    """The same, without its end."""
    outcome = Outcome(name)
    log = world.root / "steps"
    for at, step in enumerate(chain):
        _begin(world, victim, tracer(log, inject=f"{step.call}:signal=KILL:when={step.number}"))
        program = world.programs[victim]
        _act(world, victim)
        with contextlib.suppress(StageError):
            wait_until(lambda program=program: program.poll() is not None, "it dies", _LIFE_S)  # type: ignore[misc]
        was_struck = program.poll() == -signal.SIGKILL
        world.kill(victim)
        call = _before(log, step.call) if was_struck else ""
        outcome.count(f"{victim} killed at a step of {_room(call)}", struck=was_struck)
        if at % 8 == 7:
            world.mend()
            outcome.recovers(
                world, f"{victim} {step} ({call})", list(FLOWS) if at % 16 == 15 else ()
            )
    world.mend()
    return outcome


def _begin(world: World, victim: str, under: list[str]) -> None:
    """Has a program begin anew, under a tracer."""
    if victim in world.programs:
        world.kill(victim)
    if victim == "collect":
        world.start_collect(under, waits=False)
    elif victim == "uplink":
        world.start_uplink(under)
    else:
        world.start_backend(RECIPIENT, under)


def _act(world: World, victim: str) -> None:
    """A life of a few seconds; in that of collect, the household says its yes once more."""
    program = world.programs[victim]
    if victim == "collect":
        with contextlib.suppress(StageError, AssentError):
            world.wait_for_answer()
            world.agree()
    end = time.monotonic() + _LIFE_S
    while program.poll() is None and time.monotonic() < end:
        pause(0.05)


def _before(log: Path, call: str) -> str:
    """The call that a kill fell before, with its file; waits until the tracer has ended too."""
    end = time.monotonic() + 2
    while killed_before(log) is None and time.monotonic() < end:
        pause(0.02)
    lines = [line for line in log.read_text(errors="replace").splitlines() if f" {call}(" in line]
    return next((line for line in reversed(lines) if _UNDONE.search(line)), "")


def _room(call: str) -> str:
    return next((room for room, pattern in _ROOMS if pattern.search(call)), "another file")


# Killed while it is enrolled.


def enrolment(world: World, name: str, rng: random.Random, count: int) -> Outcome:
    """Commands of a new gateway are killed at their steps, and typed again: keys and ledger.

    The gateway begins anew for each fault; the last one is then used.

    Args:
        world: settled; nothing runs.
        name: of the round.
        rng: chance.
        count: how many faults.
    """
    outcome = Outcome(name)
    log = world.root / "steps"
    for _ in range(count):
        world.begin()
        verb = rng.choice(("bundle", "admission", "form"))
        call, most = rng.choice((("write", 30), ("fsync", 14), ("rename", 8)))
        step = Step(call, rng.randint(1, most))
        under = tracer(log, inject=f"{step.call}:signal=KILL:when={step.number}")
        world.take_in(under if verb == "bundle" else ())
        world.be_admitted(under if verb == "admission" else ())
        world.agree(under if verb == "form" else ())
        found = _before(log, step.call) if killed_before(log) else ""
        outcome.count(f"{verb} killed at a step of {_room(found)}", struck=bool(found))
    world.start_all()
    outcome.recovers(world, "the enrolment", list(FLOWS))
    return outcome.close(world)


# The disk says no.


def errors(world: World, name: str, victim: str, rng: random.Random, count: int) -> Outcome:
    """The disk refuses calls on the files of one room after the other.

    Args:
        world: settled.
        name: of the round.
        victim: whose calls.
        rng: chance.
        count: how many faults.
    """
    outcome = Outcome(name)
    world.mend()
    outcome.recovers(world, "the start", list(FLOWS))
    log = world.root / "steps"
    for _ in range(count):
        room, call, paths = _target(world, victim, rng)
        code, first = rng.choice(ERRORS), rng.choice((1, 1, 2, 3, 5, 8, 13, 21))
        last = rng.choice((f"{first}", f"{first}..{first + 5}", f"{first}+"))
        _begin(world, victim, tracer(log, inject=f"{call}:error={code}:when={last}", paths=paths))
        _act(world, victim)
        was_struck = "(INJECTED)" in log.read_text(errors="replace")
        outcome.count(f"{code} on {room}", struck=was_struck)
        ended = world.programs[victim].poll()
        world.kill(victim)
        if ended is not None and ended < 0:
            world.wrong.append(f"{victim} died of {code} on {call} {last} of {room}: {ended}")
        world.mend()
        if rng.random() < 0.5:
            outcome.recovers(world, f"{code} at {call} {last} of {room} in {victim}")
    outcome.recovers(world, "the last", list(FLOWS))
    return outcome.close(world)


def _target(world: World, victim: str, rng: random.Random) -> tuple[str, str, list[Path]]:
    """A room of a program, a call that it makes there, and the room's files."""
    if victim == BACKEND:
        directory = world.backend_directory(RECIPIENT)
        paths = [
            directory / f"{name}.db{suffix}"
            for name in ("store", "custody")
            for suffix in ("", "-wal", "-shm")
        ]
        return "backend store", rng.choice(("pwrite64", "fdatasync", "ftruncate")), paths
    spool = [world.state / "spool" / f"spool.db{suffix}" for suffix in ("", "-wal", "-shm")]
    rooms: list[tuple[str, tuple[str, ...], list[Path]]] = [
        ("spool", ("pwrite64", "fdatasync", "ftruncate"), spool)
    ]
    if victim != "uplink":
        rooms.append(("ledger and keys", ("fsync", "rename", "unlink"), []))
        journal = [path for path in world.state.rglob("*journal*") if path.is_file()]
        if journal:
            rooms.append(("journal", ("write", "pwrite64", "fsync", "fdatasync"), journal))
    room, calls, paths = rng.choice(rooms)
    return room, rng.choice(calls), paths


# The power goes.


def power(world: World, name: str, rng: random.Random, count: int) -> Outcome:
    """The power goes while everything runs, again and again.

    Args:
        world: settled on a disk of its own.
        name: of the round.
        rng: chance.
        count: how often.
    """
    outcome = Outcome(name)
    assert world.disk is not None
    world.start_all()
    outcome.recovers(world, "the start", list(FLOWS))
    for at in range(count):
        way = lossy.WAYS[at % len(lossy.WAYS)]
        if rng.random() < 0.3:
            with contextlib.suppress(StageError):
                world.agree()
        pause(rng.uniform(0, 2.0))
        killed = [world.kill(one) for one in world.gateway_programs]
        lost = world.disk.cut(way, rng.randrange(1 << 30))
        outcome.count(f"power cut: {way}", struck=all(killed) and lost > 0)
        world.start_gateway()
        outcome.recovers(world, f"power cut {at} ({way})", list(FLOWS) if at % 5 == 4 else ())
    return outcome.close(world)


# The clock is set.

STEPS_MS = {
    "clock set to 1970": None,
    "clock an hour back": -3_600_000,
    "clock a day on": 86_400_000,
    "clock right again": 0,
}


def clock(world: World, name: str, rng: random.Random, count: int) -> Outcome:
    """The wall clock is set while everything runs.

    Args:
        world: settled, with a clock that can be set.
        name: of the round.
        rng: chance.
        count: how often.
    """
    outcome = Outcome(name)
    world.start_all()
    outcome.recovers(world, "the start", list(FLOWS))
    names = [*STEPS_MS]
    for at in range(count):
        kind = names[at % len(names)]
        shift = STEPS_MS[kind]
        world.set_clock(-int(time.time() * 1000) + 60_000 if shift is None else shift)
        outcome.count(kind, struck=True)
        pause(rng.uniform(0.5, 2.0))
        outcome.recovers(world, kind, list(FLOWS) if at % 4 == 3 else ())
    world.set_clock(0)
    return outcome.close(world, timed=False)
