# SPDX-License-Identifier: Apache-2.0
"""What the tests that sample `make faults` have in common. The seed is fixed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import Stage
from tests.faults.campaign import Job, refusals, settled
from tests.faults.rounds import Outcome
from tests.faults.world import World

SEED = 20261122


@contextlib.contextmanager
def world_for(sort: str, recipients: Stage, root: Path) -> Iterator[World]:
    """A settled world for a sort of rounds; skips where this machine has none."""
    if (why := refusals().get(sort)) is not None:
        pytest.skip(why)
    with settled(recipients, root / "world", Job(sort, SEED)) as made:
        yield made


def holds(outcome: Outcome) -> None:
    """Nothing is wrong, and every fault that was set has struck at least once."""
    print(f"seed {SEED}: {dict(outcome.struck)}", *outcome.wrong, sep="\n")
    assert outcome.wrong == []
    assert outcome.total("stored") > 0
    assert {kind for kind in outcome.injected if not outcome.struck[kind]} == set()
