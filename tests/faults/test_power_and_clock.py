# SPDX-License-Identifier: Apache-2.0
"""A sample of `make faults`: the power goes, the clock is set or not known; nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from demo.stage import Stage
from tests.faults import clocks, rounds
from tests.faults.sample import SEED, holds, world_for

pytestmark = pytest.mark.journey


def test_nothing_is_lost_to_a_power_cut(recipients: Stage, tmp_path: Path) -> None:
    with world_for("power", recipients, tmp_path) as world:
        holds(rounds.power(world, "power", random.Random(SEED), 3))


def test_nothing_is_lost_to_a_clock_that_is_set(recipients: Stage, tmp_path: Path) -> None:
    with world_for("clock", recipients, tmp_path) as world:
        holds(clocks.clock(world, "clock", random.Random(SEED), 3))


def test_nothing_is_lost_to_a_start_without_the_time(recipients: Stage, tmp_path: Path) -> None:
    with world_for("held", recipients, tmp_path) as world:
        holds(clocks.held(world, "held", random.Random(SEED), 3))
