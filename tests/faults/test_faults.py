# SPDX-License-Identifier: Apache-2.0
"""A sample of `make faults`: every kind of fault once, and the oracle finds nothing wrong.

The seed is fixed. benchmarks/results/faults.json has the long form.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import Stage
from tests.faults import rounds, traced
from tests.faults.campaign import Job, refusals, settled
from tests.faults.household import FLOWS
from tests.faults.kinds import BACKEND, KINDS
from tests.faults.rounds import Outcome
from tests.faults.world import World
from tests.simulators.steps import Step

pytestmark = pytest.mark.journey
SEED = 20261122

STEPS = {
    "collect": (Step("fdatasync", 9), Step("rename", 1)),
    "uplink": (Step("fdatasync", 3),),
    BACKEND: (Step("fdatasync", 6),),
}


@pytest.fixture(scope="module")
def recipients(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("faults") / "recipients")
    stage.make_recipients()
    return stage


@contextlib.contextmanager
def world_for(sort: str, recipients: Stage, root: Path) -> Iterator[World]:
    if (why := refusals().get(sort)) is not None:
        pytest.skip(why)
    with settled(recipients, root / "world", Job(sort, SEED)) as made:
        yield made


def holds(outcome: Outcome) -> None:
    print(f"seed {SEED}: {dict(outcome.struck)}")
    assert outcome.wrong == []
    assert outcome.total("stored") > 0
    assert {kind for kind in outcome.injected if not outcome.struck[kind]} == set()


def test_nothing_is_lost_to_kills_brokers_and_networks(recipients: Stage, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    kinds = sorted(KINDS)
    rng.shuffle(kinds)
    with world_for("mixed", recipients, tmp_path) as world:
        outcome = rounds.mixed(world, "mixed", rng, kinds, often=1.0)
        holds(outcome)
        assert outcome.struck.keys() == KINDS.keys()
        assert any(one.gaps.total() for one in outcome.judged.values())
        # The twin: what is taken out of the store, or put there twice, is found.
        store = world.backend_directory("maker") / "store.db"
        with contextlib.closing(sqlite3.connect(store)) as db, db:
            middle = db.execute("SELECT avg(number) FROM reading WHERE number < 1000").fetchone()
            taken = db.execute("DELETE FROM reading WHERE number = round(?)", middle).rowcount
            again = db.execute(
                "INSERT INTO reading (series, time_ms, batch_ref, again, number)"
                " SELECT series, time_ms, batch_ref, again + 1000, number FROM reading"
                " WHERE number = 1 + round(?)",
                middle,
            ).rowcount
        found = world.judge()
        assert taken == again == 2  # in both of the maker's flows
        for flow, recipient in FLOWS.items():
            is_maker = recipient == "maker"
            assert (found[flow].lost, found[flow].doubled) == (is_maker, is_maker)


def test_nothing_is_lost_to_a_kill_at_a_step_or_a_disk_that_refuses(
    recipients: Stage, tmp_path: Path
) -> None:
    with world_for("steps", recipients, tmp_path) as world:
        world.start_all()
        outcome = Outcome("steps")
        for victim, chain in STEPS.items():
            one = traced.killed_at(world, f"steps of {victim}", victim, chain)
            outcome.injected += one.injected
            outcome.struck += one.struck
        for room, code in (("spool", "ENOSPC"), ("journal", "EIO"), ("ledger and keys", "EIO")):
            traced.refuse(world, outcome, "collect", room, code, first=1)
        outcome.recovers(world, "the last", list(FLOWS))
        holds(outcome.close(world))


def test_nothing_is_lost_to_a_power_cut(recipients: Stage, tmp_path: Path) -> None:
    with world_for("power", recipients, tmp_path) as world:
        holds(rounds.power(world, "power", random.Random(SEED), 3))


def test_nothing_is_lost_to_a_clock_that_is_set(recipients: Stage, tmp_path: Path) -> None:
    with world_for("clock", recipients, tmp_path) as world:
        holds(rounds.clock(world, "clock", random.Random(SEED), 3))


def test_nothing_is_lost_to_a_start_without_the_time(recipients: Stage, tmp_path: Path) -> None:
    with world_for("held", recipients, tmp_path) as world:
        holds(rounds.held(world, "held", random.Random(SEED), 3))
