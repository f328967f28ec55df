# SPDX-License-Identifier: Apache-2.0
"""A sample of `make faults`: the power goes, the clock is set or not known; nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from demo.stage import Stage
from tests.faults import clocks, damage, papers, power
from tests.faults.household import FLOWS
from tests.faults.papers import Paper
from tests.faults.power import Fault
from tests.faults.rounds import Outcome
from tests.faults.sample import SEED, holds, world_for

pytestmark = pytest.mark.journey

LIVES = (
    Fault("journal", "write", 16, "drop"),
    Fault("spool log", "fsync", 6, "reorder"),
    Fault("ledger", "write", 2, "ENOSPC"),
)
PAPERS = (
    Paper("bundle", Fault("keys", "fsync", 3, "drop")),
    Paper("form", Fault("ledger", "write", 2, "torn")),
    Paper("bundle", Fault("keys", "open", 2, "EIO")),
)


def test_nothing_is_lost_to_a_power_cut_or_a_damaged_spool(
    recipients: Stage, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    outcome = Outcome("a disk")
    with world_for("power", recipients, tmp_path) as world:
        for paper in PAPERS:
            papers.strike(world, outcome, paper, rng)
        world.start_all()
        outcome.recovers(world, "the enrolment", list(FLOWS))
        for fault in LIVES:
            life_s = 15.0 if fault.is_cut else 1.0  # a cut ends it, a refusal is lived with
            power.strike(world, outcome, fault, rng.randrange(1 << 30), life_s)
        world.mend()
        outcome.recovers(world, "the power cuts", list(FLOWS))
        damage.strike(world, outcome, "a page overwritten", rng)
        outcome.recovers(world, "the damage", list(FLOWS))
        holds(outcome.close(world))
    assert outcome.struck.total() >= len(LIVES) + len(PAPERS) + 1


def test_nothing_is_lost_to_a_clock_that_is_set(recipients: Stage, tmp_path: Path) -> None:
    with world_for("clock", recipients, tmp_path) as world:
        outcome = clocks.clock(world, "clock", random.Random(SEED), 3)
    holds(outcome)
    assert outcome.struck.total() >= 3


def test_nothing_is_lost_to_a_start_without_the_time(recipients: Stage, tmp_path: Path) -> None:
    with world_for("held", recipients, tmp_path) as world:
        outcome = clocks.held(world, "held", random.Random(SEED), 3, often=0, patience_s=15.0)
    holds(outcome)
    assert outcome.struck.total() >= 3
