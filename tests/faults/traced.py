# SPDX-License-Identifier: Apache-2.0
"""Rounds under a tracer: a program is killed at one of its steps, or the disk refuses it a call.

- `steps`: one program is killed before the N-th of a call, again and again, each life another N;
- `errors`: the disk says ENOSPC or EIO to calls on one room's files, once, a few times, or from
  then on.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from assent.errors import AssentError
from demo.stage import StageError, wait_until
from tests.faults.holdings import UNSEALED
from tests.faults.household import FLOWS
from tests.faults.kinds import BACKEND, RECIPIENT, pause
from tests.faults.rounds import Outcome, outside
from tests.faults.world import World
from tests.simulators.steps import Step, counted, killed_before, tracer

_LIFE_S = 4.0
"""How long a traced life goes on: some batches of each flow."""
_ROOMS = (
    ("journal", re.compile(r"/state/[^>]*journal")),
    ("spool", re.compile(r"/state/spool")),
    ("keys", re.compile(r"/state/keys/")),
    ("ledger", re.compile(r"/state/(ledger|floor|\.tmp-)")),
    ("backend store", re.compile(r"/(store|custody)\.db")),
)
_UNDONE = re.compile(r"= \?$|<unfinished \.\.\.>$")
ERRORS = ("ENOSPC", "EIO")
_ENDS = ("", "-wal", "-shm")
_MOST = {"pwrite64": 60, "fdatasync": 12, "ftruncate": 2}
"""Of each call, how many a life makes in a room that makes any: the first refused is one of them."""


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
        if victim == "collect":
            world.explain(call or "killed")
        outcome.count(f"{victim} killed at a step of {room_of(call)}", struck=was_struck)
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


def _act(world: World, victim: str, life_s: float = _LIFE_S) -> None:
    """A life of a few seconds; in that of collect, the household says its yes once more."""
    program = world.programs[victim]
    if victim == "collect":
        with contextlib.suppress(StageError, AssentError):
            world.wait_for_answer()
            world.agree()
    end = time.monotonic() + life_s
    while program.poll() is None and time.monotonic() < end:
        pause(0.05)


def _before(log: Path, call: str) -> str:
    """The call that a kill fell before, with its file; waits until the tracer has ended too."""
    end = time.monotonic() + 2
    while killed_before(log) is None and time.monotonic() < end:
        pause(0.02)
    lines = [line for line in log.read_text(errors="replace").splitlines() if f" {call}(" in line]
    return next((line for line in reversed(lines) if _UNDONE.search(line)), "")


def room_of(call: str) -> str:
    """The room that a call is of, as the tracer told it."""
    return next((room for room, pattern in _ROOMS if pattern.search(call)), "another file")


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
    for _ in range(count):
        room = rng.choice(sorted(_rooms(world, victim)))
        last = rng.choice(("", "..+5", "+"))
        with outside(world, rng, outcome, 0.0 if victim == BACKEND else 0.4):
            refuse(world, outcome, victim, room, rng.choice(ERRORS), rng=rng, last=last)
        world.mend()
        if rng.random() < 0.5:
            outcome.recovers(world, f"{room} of {victim}")
    outcome.recovers(world, "the last", list(FLOWS))
    return outcome.close(world)


def refuse(
    world: World,
    outcome: Outcome,
    victim: str,
    room: str,
    code: str,
    *,
    rng: random.Random | None = None,
    first: int = 0,
    last: str = "+",
    life_s: float = _LIFE_S,
) -> None:
    """One life of a program in which the disk refuses a call on a room's files; then it is gone.

    Args:
        world: runs.
        outcome: takes note.
        victim: whose calls.
        room: whose files.
        code: what the disk says.
        rng: chooses the call, and the first that is refused; else it is the commonest.
        first: the first that is refused, where chance does not say.
        last: `+` for all that follow, `..+5` for five of them, or nothing.
        life_s: how long the program goes on with it.
    """
    calls, paths = _rooms(world, victim)[room]
    call = rng.choice(calls) if rng else calls[0]
    number = rng.randint(1, _MOST[call]) if rng else first
    when = f"{number}{last.replace('+5', str(number + 5))}"
    log = world.root / "steps"
    _begin(world, victim, tracer(log, inject=f"{call}:error={code}:when={when}", paths=paths))
    _act(world, victim, life_s)
    outcome.count(f"{code} on {room}", struck="(INJECTED)" in log.read_text(errors="replace"))
    ended = world.programs[victim].poll()
    if ended is not None and ended < 0:
        world.wrong.append(f"{victim} died of {code} at {call} {when} of {room}: {ended}")
    if victim == "collect":  # what the disk does not take for long is given up, and told
        world.explain(f"{code} at {call} {when} of {room}", UNSEALED)
    world.kill(victim)


_Room = tuple[tuple[str, ...], list[Path]]


def _rooms(world: World, victim: str) -> dict[str, _Room]:
    """The rooms of a program: the calls that it makes there, the commonest first, and the files."""
    if victim == BACKEND:
        directory = world.backend_directory(RECIPIENT)
        files = [directory / f"{name}.db{end}" for name in ("store", "custody") for end in _ENDS]
        return {"backend store": (("pwrite64", "fdatasync", "ftruncate"), files)}
    spool = [world.state / "spool" / f"spool.db{end}" for end in _ENDS]
    rooms: dict[str, _Room] = {"spool": (("pwrite64", "fdatasync", "ftruncate"), spool)}
    if victim == "collect":
        journal = [world.state / "journal"]
        rooms["journal"] = (("pwrite64", "fdatasync"), journal)
    return rooms
