# SPDX-License-Identifier: Apache-2.0
"""A broker that has stopped reading, with as much of a flow on its way to it as there ever is.

What the broker's machine had received when the call returned is counted at its door: not one byte
more of that connection reaches it, also when it reads again.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import Stage, wait_until
from tests.agent.test_fence import unsent
from tests.journeys.killed import (
    ENDED,
    FULL,
    OTHERS,
    Household,
    Point,
    Withdrawal,
    three_flows,
)
from tests.simulators.tap import Line, steady

pytestmark = pytest.mark.journey

# Of ciphertext, in the kernel of the gateway alone: most of what the uplink has on its way at once
# (`agent/uplink/protocol.py`).
MUCH = 90_000
# Some 7 bytes each, in batches of at most 900: twenty messages are what the uplink sends at once.
READINGS = 36_000
BATCH = """
batch = { readings = 900, age = "10m" }
"""

TOGETHER = pytest.mark.parametrize(
    "together", [False, True], ids=["as two programs", "as one program"]
)


class Laden(Household):
    """A household with large batches of one flow, and few of the others."""

    @staticmethod
    def policy(text: str) -> str:
        carries = 'attributes = { "appliance.power" = "keep" }'
        return three_flows(text).replace(carries, carries + BATCH.rstrip())

    @staticmethod
    def batches() -> Iterator[dict[str, list[float]]]:
        rng = random.Random(1)
        of_it = [rng.randrange(1 << 52) / 10 for _ in range(READINGS)]
        yield {ENDED: of_it} | {flow: [20.0] for flow in OTHERS}


@pytest.fixture(scope="module")
def laden(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Laden:
    return Laden(recipients, tmp_path_factory.mktemp("laden"))


@pytest.fixture
def point(laden: Laden, tmp_path: Path, together: bool) -> Iterator[Point]:
    with Point(laden, tmp_path / "point", None, together=together) as point:
        yield point


def stalled(point: Point) -> list[Line]:
    """Starts everything; the lines on which a window of messages waits in vain."""
    point.start()
    lines = steady(point.tap, FULL)
    wait_until(lambda: held(point) > MUCH, "a window of it is in flight", 10)
    return lines


def held(point: Point) -> int:
    """Bytes that the kernel holds for the broker on the gateway's side."""
    return sum(unsent(point.tap.port).values())


def came(point: Point, flow: str) -> int:
    return len({digest for _, one, digest, _ in point.backend.came if one == flow})


def nothing_more_of_it(point: Point, lines: list[Line]) -> None:
    """Reads again; not one byte more than had been received, and the other flows arrive."""
    had = [line.received for line in lines]
    assert held(point) < MUCH // 10
    read = point.tap.rest(lines)
    print(f"received before the return {had}, of these read afterwards {read}")
    assert sum(read) > 0
    assert [line.taken for line in lines] == had
    before = came(point, ENDED)
    point.tap.pass_on()
    wait_until(lambda: all(came(point, flow) == 1 for flow in OTHERS), "the others arrive")
    assert came(point, ENDED) == before


@pytest.mark.clause("C28")
@TOGETHER
def test_no_byte_of_it_arrives_once_the_call_has_returned(point: Point) -> None:
    lines = stalled(point)
    assert Withdrawal().perform(point)
    nothing_more_of_it(point, lines)


@TOGETHER
def test_the_twin_without_a_no_arrives_when_the_broker_reads_again(point: Point) -> None:
    lines = stalled(point)
    had = sum(line.received for line in lines)
    point.tap.pass_on()
    wait_until(lambda: came(point, ENDED) == len(point.household.ciphertext), "all of it arrives")
    assert sum(line.received for line in lines) > had + MUCH


@pytest.mark.clause("C28")
@pytest.mark.parametrize("together", [False], ids=["as two programs"])
def test_nor_of_an_uplink_that_hangs(point: Point) -> None:
    lines = stalled(point)
    point.programs["uplink"].send_signal(signal.SIGSTOP)
    assert Withdrawal().perform(point)
    assert point.programs["uplink"].wait(5) == -signal.SIGKILL
    point.start("uplink")
    nothing_more_of_it(point, lines)


@pytest.mark.clause("C28")
@pytest.mark.parametrize("together", [False], ids=["as two programs"])
def test_nor_of_an_uplink_that_is_killed(point: Point) -> None:
    lines = stalled(point)
    point.programs["uplink"].kill()
    point.programs["uplink"].wait()
    assert Withdrawal().perform(point)
    point.start("uplink")
    nothing_more_of_it(point, lines)
