# SPDX-License-Identifier: Apache-2.0
"""What a sort of rounds walks through: every step, counted in a world without a fault."""

from __future__ import annotations

import random
from typing import TypeAlias

from tests.faults import papers, power
from tests.faults.world import World
from tests.simulators.steps import Step

Point: TypeAlias = Step | power.Fault | papers.Paper

WALKED = ("power", "papers", "enrolment")
_CUT = ("journal", "spool", "spool log", "ledger")  # a life that is enrolled writes no keys


def walk(sort: str, world: World, rng: random.Random) -> list[Point]:
    """Counts the steps there are; all faults at all of them, in an order that chance gives.

    Args:
        sort: of WALKED.
        world: settled; of no use afterwards.
        rng: chance.
    """
    if sort == "enrolment":
        return [*papers.steps(papers.reckon_steps(world), rng)]
    if sort == "papers":
        return [*papers.chain(papers.reckon(world), rng)]
    counted = power.reckon(world)
    found: list[Point] = [*power.faults(counted, _CUT, rng)]
    found += power.refusals(counted, ("ledger",), rng)
    rng.shuffle(found)
    return found
