# SPDX-License-Identifier: Apache-2.0
"""How the state machines of spool and journal are run, and what counts as having lived.

Everyday each is run twice: once from fixed choices, where it is counted what happened, so that a
machine that runs empty is red; and once from choices of its own. `make models` runs them for long
(`MODELS_MINUTES`, `MODELS_SEED`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, Protocol

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

# The machines make their crashes themselves, and need no disk for them.
MEMORY = Path("/dev/shm")
SEEDS: Final = range(8)
"""Of the runs each of which finds what is broken on purpose."""


class Machine(RuleBasedStateMachine):
    """A state machine that says what it did.

    Attributes:
        lived: how often what happened, since `lives` began.
    """

    lived: ClassVar[Counter[str]] = Counter()

    @classmethod
    def count(cls, what: str, times: int = 1) -> None:
        """Counts what happened."""
        cls.lived[what] += times


class Mortal(Protocol):
    """A machine that has seen every death in its first moments."""

    def begin_by_dying(self, seed: int) -> None:
        """Every life has seen it all, whatever is chosen later."""

    def teardown(self) -> None:
        """It is over."""


def new_directory() -> Path:
    """A directory that `drop` removes."""
    return Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))


def drop(directory: Path) -> None:
    """Removes a directory and all that is in it."""
    shutil.rmtree(directory)


def chosen(examples: int, steps: int) -> settings:
    """How a machine is run from choices of its own."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def lives(machine: type[Machine], examples: int, steps: int, seed: int | None = None) -> None:
    """Runs a machine; a failure is raised as it is, without a search for a shorter one.

    Args:
        machine: the machine; its counts begin anew.
        examples: how many lives.
        steps: of each.
        seed: what its choices come from; None for the same ones each time.
    """
    machine.lived = Counter()
    how = settings(
        chosen(examples, steps),
        database=None,
        derandomize=seed is None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    mine = type(machine.__name__, (machine,), {})
    if seed is not None:
        hypothesis.seed(seed)(mine)
    run_state_machine_as_test(mine, settings=how)


def finds(machine: type[Machine], examples: int, steps: int, seed: int) -> bool:
    """Whether a machine fails, from choices of its own."""
    try:
        lives(machine, examples, steps, seed)
    except AssertionError:
        return True
    return False


def is_found(life: Mortal, seed: int) -> bool:
    """Whether a machine fails in the first moments of its life."""
    try:
        life.begin_by_dying(seed)
    except AssertionError:
        return True
    finally:
        life.teardown()
    return False


def too_few(machine: type[Machine], least: Mapping[str, int]) -> dict[str, int]:
    """What has happened less often than it must; all that has is printed."""
    print(dict(machine.lived))
    return {what: machine.lived[what] for what in least if machine.lived[what] < least[what]}
