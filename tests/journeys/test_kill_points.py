# SPDX-License-Identifier: Apache-2.0
"""Killed between two steps: a sample of `make kills`, with its twins.

`tests/journeys/killed.py` says what must hold; `benchmarks/results/kills.json` has every step.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.spool import LaneState
from demo.stage import Stage, wait_until
from tests.journeys.kill_points import at, points
from tests.journeys.killed import (
    ENDED,
    Act,
    Expiry,
    FormApplied,
    Household,
    Point,
    TooLateError,
)
from tests.simulators.steps import Step, Watch, refusal
from tests.simulators.tap import Line

pytestmark = pytest.mark.journey

# Act, victim, the call before which it is killed: between which two steps that is.
SAMPLE = {
    "a withdrawal before the ledger has it": ("withdrawal", "collect", Step("rename", 2)),
    "a withdrawal in the ledger and not in the spool": (
        "withdrawal",
        "collect",
        Step("pwrite64", 1),
    ),
    "a withdrawal while the uplink answers it": ("withdrawal", "uplink", Step("pwrite64", 2)),
    "a withdrawal by a command that is alone": ("withdrawal", "command", Step("pwrite64", 3)),
    "a form before the log is cut": ("form", "collect", Step("ftruncate", 1)),
    "a policy in force and not carried out": ("policy", "collect", Step("pwrite64", 1)),
    "a permit's end with both in one process": ("expiry", "run", Step("pwrite64", 2)),
}

Makes = Callable[..., Point]


@pytest.fixture(scope="module")
def household(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Household:
    if (why := refusal()) is not None:
        pytest.skip(why)
    return Household(recipients, tmp_path_factory.mktemp("killed"))


@contextmanager
def started(household: Household, root: Path, act: Act | None) -> Iterator[Point]:
    with Point(household, root / "point", act) as point:
        point.start()
        yield point


@pytest.mark.clause("C28")
@pytest.mark.parametrize(("act", "victim", "strike"), SAMPLE.values(), ids=SAMPLE)
def test_nothing_of_it_leaves_and_nothing_else_is_lost(
    household: Household, act: str, victim: str, strike: Step
) -> None:
    outcome = at(household, act, victim, strike)
    assert outcome.struck is not None
    assert outcome.wrong == ()


def test_nor_at_a_step_that_chance_picks(household: Household, chance: random.Random) -> None:
    unharmed = at(household, "withdrawal", "collect", None)
    assert (unharmed.done, unharmed.struck, unharmed.wrong) == (True, None, ())
    steps = points(unharmed.counted, 1, chance)
    assert len(steps) > 50
    step = chance.choice(steps[: len(steps) * 3 // 4])  # a run may make some fewer
    outcome = at(household, "withdrawal", "collect", step)
    print(f"{step}: {outcome.struck}")
    assert outcome.wrong == ()


def test_the_twin_in_which_nobody_says_no_delivers_all_of_it(
    household: Household, tmp_path: Path
) -> None:
    with started(household, tmp_path, None) as point:
        before = point.in_flight()
        for name in ("collect", "uplink"):
            point.programs[name].kill()
            point.programs[name].wait()
        point.start()
        point._deliver(before, None)
        point._examine()
        assert point.wrong == []
        assert sum(flow == ENDED for _, flow, _, _ in point.backend.came) > 0


def hangs(point: Point) -> None:
    point.programs["uplink"].send_signal(signal.SIGSTOP)


def is_ended(point: Point) -> bool:
    return point.programs["uplink"].poll() == -signal.SIGKILL


@contextmanager
def recorded_and_not_carried_out(
    household: Household, root: Path
) -> Iterator[tuple[Point, list[Line]]]:
    """A no that is in the ledger, its lane still open, and nobody who collects."""
    for attempt in range(5):
        act = FormApplied()
        with started(household, root / str(attempt), act) as point:
            before = point.in_flight()
            collect, ledger = point.programs["collect"], point.state / "ledger.json"
            known = ledger.read_bytes()
            watch = Watch(root / "steps", pid=collect.pid, strike=Step("pwrite64", 1))
            is_done = act.perform(point)
            watch.leave()
            assert collect.wait(10) == -signal.SIGKILL
            is_open = point._row()[0] is LaneState.OPEN
            if is_done or not is_open or ledger.read_bytes() == known:
                continue  # it struck a write of something else, before the act
            yield point, before
            return
    pytest.fail("no kill fell between the ledger and the row")


@pytest.mark.clause("C28")
def test_a_start_that_finds_a_no_ends_an_uplink_that_does_not_answer(
    household: Household, tmp_path: Path
) -> None:
    with recorded_and_not_carried_out(household, tmp_path) as (point, before):
        hangs(point)
        point.start("collect")
        assert point.state_of_flow() == "withdrawn"
        assert is_ended(point)
        had = [line.received for line in before]
        point.tap.rest(before)
        assert [line.taken for line in before] == had


@pytest.mark.clause("C28")
def test_an_end_date_ends_an_uplink_that_does_not_answer(
    household: Household, tmp_path: Path
) -> None:
    for attempt in range(3):
        act = Expiry()
        act.after_s *= 2**attempt
        with (
            contextlib.suppress(TooLateError),
            started(household, tmp_path / str(attempt), act) as point,
        ):
            before = point.in_flight()
            hangs(point)
            if time.time() * 1000 > point.until_ms:
                raise TooLateError
            wait_until(lambda point=point: is_ended(point), "it is ended", 12 * 2**attempt)  # type: ignore[misc]
            had = [line.received for line in before]
            assert sum(point.tap.rest(before)) > 0
            assert [line.taken for line in before] == had
            return
    pytest.fail("the permit ended too early three times")


def test_the_twin_that_hangs_and_whose_permit_goes_on_is_left_alone(
    household: Household, tmp_path: Path
) -> None:
    with started(household, tmp_path, None) as point:
        before = point.in_flight()
        hangs(point)
        had = [line.received for line in before]
        point.tap.rest(before)
        assert not is_ended(point)
        assert [line.taken for line in before] > had  # its kernel goes on sending
