# SPDX-License-Identifier: Apache-2.0
"""A device that should speak and does not is told in the flows that carry it, and in no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.envelope import GapCause
from firmware_bridge.health import State
from tests.agent.installed import (
    ADVICE,
    AGENT,
    CORE,
    DIAGNOSIS,
    MINUTE,
    SECOND,
    YES,
    House,
    copied,
    living,
)
from tests.simulators.conditions import eventually
from tests.simulators.meter import Meters, Washer

FRESH = 30 * SECOND
STEP = 10 * SECOND
METER = """
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "{port}"
profile = "eastron-sdm120"
every = "1s"
"""


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """Every flow is on; the meter of two of them is not plugged in."""
    directory = copied(installed, tmp_path / "gateway")
    (directory / "agent.toml").write_text(AGENT + METER.format(port=tmp_path / "port"))
    with living(directory) as house:
        house.decide(YES)
        eventually(lambda: state(house) is State.FAILED)
        yield house


def state(house: House) -> State:
    return house.pipeline.health()[0].state


def absent(house: House) -> dict[str, int]:
    """Since when each flow misses something."""
    return {
        flow: since
        for (flow, cause), since in house.spool.absences().items()
        if cause is GapCause.OUTAGE
    }


def told(house: House, flow: str) -> list[tuple[int, int]]:
    with house.carrier() as spool:  # the house may be closed
        return [
            (gap.first_ms, gap.last_ms)
            for gap in spool.gaps_for(flow)
            if gap.cause is GapCause.OUTAGE
        ]


def lasts_ms(house: House) -> int:
    """For how long the source has been called, by the house's clock; its thread is a real one."""
    supervisor = house.pipeline._hardware._supervisor
    assert supervisor is not None
    called_ms = supervisor._keepers[0]._called_ms
    return 0 if called_ms is None else house.clock.now().mono_ms - called_ms


def passes(house: House, duration_ms: int) -> None:
    """Time passes in steps that are shorter than a call into a source may last."""
    for _ in range(duration_ms // STEP):
        house.turn(STEP)
        eventually(lambda: lasts_ms(house) == 0)


def test_it_is_absent_once_it_was_not_heard_for_longer_than_its_fresh(house: House) -> None:
    house.turn(FRESH - 2 * SECOND)
    assert absent(house) == {}
    house.turn(4 * SECOND)
    assert absent(house).keys() == {DIAGNOSIS, ADVICE}  # the core flow carries nothing of it
    assert told(house, DIAGNOSIS) == []


def test_while_it_lasts_it_is_told_in_parts_that_touch(house: House) -> None:
    passes(house, 25 * MINUTE)
    assert CORE not in absent(house)
    first, last = told(house, DIAGNOSIS)[0]
    assert last - first >= 19 * MINUTE  # grown, because nobody has carried it
    house.connect("maker")
    house.powers(1)
    house.pipeline.flush()
    assert told(house, DIAGNOSIS) == [(first, last)]
    passes(house, 11 * MINUTE)
    assert told(house, DIAGNOSIS)[0] == (first, last)  # it was carried
    assert told(house, DIAGNOSIS)[1][0] == last


def test_it_is_over_with_its_next_sample(house: House, tmp_path: Path) -> None:
    passes(house, FRESH + STEP)
    since = absent(house)[DIAGNOSIS]

    def returned() -> bool:
        if lasts_ms(house) < STEP:
            house.turn(SECOND)
        return state(house) is State.RUNNING and not absent(house)

    with Meters(tmp_path / "port", [Washer(1)], baudrate=2400):
        eventually(returned)
        now_ms = house.clock.now().wall_ms
        house.close()
    for flow in (DIAGNOSIS, ADVICE):
        ((first, last),) = told(house, flow)
        assert first == since // SECOND * SECOND
        assert now_ms - 5 * SECOND <= last <= now_ms + SECOND
    assert told(house, CORE) == []


def test_a_crash_in_the_middle_of_it_is_told_up_to_the_next_start(house: House) -> None:
    passes(house, FRESH + STEP)
    since = absent(house)[DIAGNOSIS]
    house.pipeline._hardware.stop()
    house.vanish()
    house.clock.advance(5 * MINUTE)
    with living(house.directory, house.clock) as again:
        (span, *_) = told(again, DIAGNOSIS)
        assert span[0] == since // SECOND * SECOND
        assert span[1] >= again.clock.now().wall_ms - SECOND
