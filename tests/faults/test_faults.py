# SPDX-License-Identifier: Apache-2.0
"""A sample of `make faults`: programs, brokers, networks, disks that refuse; nothing is lost.

`test_power_and_clock.py` has the rest, benchmarks/results/faults.json the long form.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator

import pytest

from demo.stage import Stage
from tests.faults import rounds, traced
from tests.faults.campaign import refusals
from tests.faults.household import FLOWS
from tests.faults.kinds import BACKEND, KINDS
from tests.faults.rounds import Outcome
from tests.faults.sample import SEED, holds, world_for
from tests.faults.world import World
from tests.simulators.steps import Step

pytestmark = pytest.mark.journey

EARLY = 20
"""A number of the first life, long before its end: no gap is near."""

STEPS = {
    "collect": (Step("fdatasync", 9), Step("rename", 1)),
    "uplink": (Step("fdatasync", 3),),
    BACKEND: (Step("fdatasync", 6),),
}


@pytest.fixture(scope="module")
def world(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world through the tests that need nothing of their own; each leaves it drained."""
    with world_for("mixed", recipients, tmp_path_factory.mktemp("mixed")) as made:
        made.start_all()
        yield made


def test_nothing_is_lost_to_kills_brokers_and_networks(world: World) -> None:
    rng = random.Random(SEED)
    kinds = sorted(KINDS)
    rng.shuffle(kinds)
    outcome = rounds.mixed(world, "mixed", rng, kinds, often=1.0, hurries=True)
    holds(outcome)
    assert outcome.struck.keys() == KINDS.keys()
    assert any(one.gaps.total() for one in outcome.judged.values())


def test_nothing_is_lost_to_a_kill_at_a_step_or_a_disk_that_refuses(world: World) -> None:
    if (why := refusals().get("steps")) is not None:
        pytest.skip(why)
    world.mend()
    outcome = Outcome("steps")
    for victim, chain in STEPS.items():
        one = traced.killed_at(world, f"steps of {victim}", victim, chain)
        outcome.injected += one.injected
        outcome.struck += one.struck
    for room, code in (("spool", "ENOSPC"), ("journal", "EIO")):
        traced.refuse(world, outcome, "collect", room, code, first=1, life_s=1.0)
    world.mend()
    outcome.recovers(world, "the last", list(FLOWS))
    holds(outcome.close(world))
    assert outcome.struck.total() >= len(STEPS) + 2


def test_the_twin_in_which_the_store_loses_and_doubles_a_number_is_found(world: World) -> None:
    assert all(one.wrong == [] for one in world.judge().values())
    store = world.backend_directory("maker") / "store.db"
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        taken = db.execute("DELETE FROM reading WHERE number = ?", (EARLY,)).rowcount
    shown = [flow for flow, one in world.judge().items() if "show gaps" in "".join(one.wrong)]
    assert shown == [flow for flow, to in FLOWS.items() if to == "maker"]
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        again = db.execute(
            "INSERT INTO reading (series, time_ms, batch_ref, again, number)"
            " SELECT series, time_ms, batch_ref, again + 1000, number FROM reading"
            " WHERE number = 1 + ?",
            (EARLY,),
        ).rowcount
    assert taken == again == 2  # in both of the maker's flows
    found = {flow: (one.lost, one.doubled) for flow, one in world.judge().items()}
    assert found == {flow: (to == "maker",) * 2 for flow, to in FLOWS.items()}
