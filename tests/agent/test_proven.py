# SPDX-License-Identifier: Apache-2.0
"""What a recipient can prove of a gateway that lives, falls silent, stops or hears a no."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.backend.proof import gaps
from tests.agent.installed import (
    DIAGNOSIS,
    MINUTE,
    NO,
    YES,
    House,
)
from tests.agent.test_put_back import Backend, finish, measure

DAY = 86_400_000
AGES = {DIAGNOSIS: 10 * MINUTE}


@pytest.fixture
def house(house: House) -> House:
    """Every flow is on."""
    house.decide(YES)
    return house


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    opened = Backend(tmp_path / "backend")
    yield opened
    opened.store.close()


def states(house: House, backend: Backend) -> list[tuple[int, str, str | None]]:
    """How many days ago, what is said of it and why."""
    now_ms = house.clock.now().wall_ms
    today = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date()
    report = gaps(backend.store, DIAGNOSIS, now_ms, AGES)
    found = []
    for row in report.json():
        assert isinstance(row, dict)
        ago = (today - dt.date.fromisoformat(str(row["day"]))).days
        cause = None if row["cause"] is None else str(row["cause"])
        found.append((ago, str(row["state"]), cause))
    assert not report.doubtful
    return found


def test_a_gateway_that_was_heard_just_now_is_open(house: House, backend: Backend) -> None:
    measure(house, 1, 2)
    backend.hear(house)
    assert states(house, backend) == [(0, "open", None)]


def test_a_gateway_that_stands_still_is_unknown_until_it_tells_of_an_outage(
    house: House, backend: Backend
) -> None:
    measure(house, 1, 2)
    backend.hear(house)
    house.close()
    house.clock.advance(3 * DAY)
    assert states(house, backend) == [(ago, "unknown", None) for ago in (3, 2, 1, 0)]
    again = House(house.directory, house.clock).start()
    finish(again, backend, 3, 4)
    assert {(3, "declared", "outage"), (2, "declared", "outage"), (0, "open", None)} <= set(
        states(house, backend)
    )
    assert "unknown" not in {state for _, state, _ in states(house, backend)}


def test_a_no_is_unknown_to_a_recipient_until_a_later_yes(house: House, backend: Backend) -> None:
    """While a flow is off nothing is told: it looks like a gateway that has died."""
    measure(house, 1, 2)
    backend.hear(house)
    house.decide(NO)
    house.clock.advance(3 * DAY)
    house.turn()
    backend.hear(house)
    assert states(house, backend) == [(ago, "unknown", None) for ago in (3, 2, 1, 0)]
    decided = f"{dt.datetime.fromtimestamp(house.clock.now().wall_ms // 1000, dt.UTC):%FT%TZ}"
    house.clock.advance(MINUTE)
    house.decide({**NO, DIAGNOSIS: f'{{ decision = "given", on = {decided} }}'})
    finish(house, backend, 3, 4)
    told = states(house, backend)
    assert [(ago, "declared", "purge") for ago in (3, 2, 1, 0)] == [
        one for one in told if one[1] == "declared"
    ]
    assert "unknown" not in {state for _, state, _ in told}
