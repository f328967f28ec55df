# SPDX-License-Identifier: Apache-2.0
"""The spool is damaged between two lives: what came of it is told, and nobody needs a shell.

A file that SQLite itself calls broken is moved aside at the next start, and status names it. What
waited in it is declared as lost: nothing is missing without a gap.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

from tests.faults.holdings import LOST
from tests.faults.household import FLOWS
from tests.faults.kinds import KINDS, pause
from tests.faults.rounds import Outcome
from tests.faults.world import World

WAYS = ("cut short", "a page overwritten", "head overwritten", "emptied")
_PAGE = 4_096
_HEAD = 100


def damaged(world: World, name: str, rng: random.Random, count: int) -> Outcome:
    """One life after the other, and before each the spool is damaged, with something in it or not.

    Args:
        world: settled; runs already or not.
        name: of the round.
        rng: chance.
        count: how often.
    """
    outcome = Outcome(name)
    world.mend()
    outcome.recovers(world, "the start", list(FLOWS))
    for at in range(count):
        strike(world, outcome, WAYS[at % len(WAYS)], rng)
        outcome.recovers(world, f"spool damaged: {WAYS[at % len(WAYS)]}", list(FLOWS))
    return outcome.close(world)


def strike(world: World, outcome: Outcome, way: str, rng: random.Random) -> None:
    """Ends the gateway, damages its spool, starts it again.

    Args:
        world: runs.
        outcome: takes note.
        way: of WAYS.
        rng: chance.
    """
    with contextlib.ExitStack() as healing:
        if rng.random() < 0.7:  # what is sealed stays, and is lost
            healing.enter_context(KINDS["broker stopped"].strike(world, rng, "maker"))
        pause(rng.uniform(0.5, 2.5))
        is_broken = _damage(world, way, rng)
        world.start_gateway()
    world.explain(f"the spool was damaged: {way}", LOST)
    said = [one for one in world.ask("status")["notices"] if "the spool was damaged" in one]
    outcome.count(f"spool damaged: {way}", struck=bool(said) or way == "emptied")
    if is_broken and not said:
        world.wrong.append(f"{way}: the spool is broken, and status does not say so")


def _damage(world: World, way: str, rng: random.Random) -> bool:
    """Ends the gateway as a power cut does and damages its spool; whether SQLite finds it broken."""
    for one in world.gateway_programs:
        world.kill(one)
    world.explain(f"killed, then the spool was damaged: {way}", LOST)
    path = world.state / "spool" / "spool.db"
    with contextlib.closing(sqlite3.connect(path)) as db:  # what lies in its log is in the file
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        if way == "emptied":
            file.truncate(0)
        elif way == "cut short":
            file.truncate(rng.randrange(1, size))
        elif way == "head overwritten":
            file.write(rng.randbytes(_HEAD))
    if way == "a page overwritten":
        return _overwrite_a_page(path, rng)
    return way != "emptied" and _is_broken(path)


def _overwrite_a_page(path: Path, rng: random.Random) -> bool:
    """Overwrites a page that matters; one that is free keeps nothing, and nobody could find it."""
    whole = path.read_bytes()
    pages = list(range(1, len(whole) // _PAGE))
    rng.shuffle(pages)
    for page in pages:
        at = page * _PAGE
        path.write_bytes(whole[:at] + rng.randbytes(_PAGE) + whole[at + _PAGE :])
        if _is_broken(path):
            return True
    return False


def _is_broken(path: Path) -> bool:
    """What SQLite says of a copy of it."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    try:
        with contextlib.closing(sqlite3.connect(copy)) as db:
            return bool(db.execute("PRAGMA integrity_check").fetchone() != ("ok",))
    except sqlite3.DatabaseError:
        return True
    finally:
        for one in path.parent.glob("copy.db*"):
            one.unlink()
