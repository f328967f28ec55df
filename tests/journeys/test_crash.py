# SPDX-License-Identifier: Apache-2.0
"""A killed agent loses what came since its last commit, says so, and stores nothing twice."""

from __future__ import annotations

import datetime as dt
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.site import JOURNAL
from agent.spool import Spool
from assent.header import GapCause
from demo.stage import Stage, wait_until
from tests.journeys.parts import Enrolled, moved

pytestmark = pytest.mark.journey

FLOW = "remote-diagnosis"
ATTRIBUTE = "appliance.power"
RATE = 20
"""Readings a second."""
# A commit interval, a quarter of a second until it is looked at, and a slow machine.
MOST_LOST = 3 * RATE

DEVICE = """\
[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "{port}"
profile = "replay-washing-machine"
every = "50ms"
speed = {rate}
"""
DECISIONS = {
    "service": '"refused"',
    "remote-diagnosis": '"given"',
    "partner-energy-advice": '"refused"',
}


def numbered(path: Path, first: int) -> Path:
    """A recording whose power is a number of its own in each row."""
    begin = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    rows = [
        f"{(begin + dt.timedelta(seconds=at)):%Y-%m-%dT%H:%M:%SZ},{first + at},,,,,,"
        for at in range(4_000)
    ]
    path.write_text("time,power,energy,water,door,program,fault,serial\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def gateway(enrolled: Enrolled, tmp_path: Path) -> Iterator[Stage]:
    stage = moved(enrolled(str), Stage(tmp_path / "stage"))
    stage.add_devices(DEVICE.format(port=numbered(tmp_path / "one.csv", 0), rate=RATE))
    settings = stage.gateway / "agent.toml"
    settings.write_text(settings.read_text().replace('commit = "5s"', 'commit = "1s"', 1))
    stage.decide(DECISIONS)
    yield stage
    stage.close()


def life(stage: Stage, seconds: float) -> float:
    """Lets the agent read for a while, then kills it; when that was."""
    stage.start_agent()
    wait_until(lambda: taken(stage) > RATE, "readings are taken")
    for _ in range(2):  # a write that was under way may be without them, the next is not
        before = written(stage)
        wait_until(lambda before=before: written(stage) != before, "readings are committed")
    time.sleep(seconds)  # any moment between two commits is as good as another
    killed = time.time()
    stage.end("agent", signal.SIGKILL)
    return killed


def taken(stage: Stage) -> int:
    """How many readings the appliance has given in this life."""
    return int(stage.status()["devices"][0]["samples"])


def written(stage: Stage) -> int:
    """When the journal was written last."""
    journal = stage.gateway / "state" / JOURNAL
    return journal.stat().st_mtime_ns if journal.exists() else 0


def read_on(stage: Stage, first: int) -> None:
    """The next life reads other numbers."""
    numbered(stage.root.parent / "one.csv", first)


def last_life(stage: Stage) -> None:
    """Starts the agent once more, with somebody there who stores what it has."""
    read_on(stage, 20_000)
    stage.start_broker("maker")
    stage.start_backend("maker")
    stage.start_agent()


def stored(stage: Stage) -> list[tuple[int, float]]:
    """Number and instant of every reading that the maker stored."""
    rows = stage.show("maker", "data", "--flow", FLOW, "--limit", "100000")
    return sorted(
        (round(row["value"]), dt.datetime.fromisoformat(row["time"]).timestamp())
        for row in rows
        if row["attribute"] == ATTRIBUTE
    )


def crashes(stage: Stage) -> list[tuple[float, float]]:
    """The crashes that the gateway declares, from and to, in seconds."""
    spool = Spool.open(stage.gateway / "state" / "spool" / "spool.db", create=False)
    gaps = spool.gaps_for(FLOW)
    spool.close()
    return [
        (gap.first_ms / 1000, gap.last_ms / 1000) for gap in gaps if gap.cause is GapCause.CRASH
    ]


def delivered(stage: Stage, last: int) -> list[tuple[int, float]]:
    """What is stored once everything up to a number of the last life has arrived."""

    def is_stored() -> bool:
        stage.assent("flush")
        return any(one >= last for one, _ in stored(stage))

    wait_until(is_stored, "the last life is stored")
    wait_until(lambda: waits(stage) == 0, "nothing waits that came before")
    return stored(stage)


def waits(stage: Stage) -> int:
    """How many batches the gateway holds."""
    flows = stage.status()["flows"]
    return int(next(flow["waiting"]["batches"] for flow in flows if flow["flow"] == FLOW))


def test_a_killed_agent_loses_a_commit_interval_at_most_and_declares_it(
    gateway: Stage, chance: random.Random
) -> None:
    killed = []
    for number in range(2):
        read_on(gateway, 10_000 * number)
        killed.append(life(gateway, chance.uniform(0.0, 1.5)))
    assert gateway.status()["running"] is False
    last_life(gateway)
    gaps = crashes(gateway)
    found = delivered(gateway, 20_000)

    numbers = [one for one, _ in found]
    assert len(numbers) == len(set(numbers))  # nothing is doubled
    for number in range(2):
        first = 10_000 * number
        mine = [(one, at) for one, at in found if first <= one < first + 10_000]
        assert [one for one, _ in mine] == list(range(first, first + len(mine)))  # no hole in it
        assert len(mine) > RATE // 2
        lost_s = killed[number] - mine[-1][1]
        assert lost_s * RATE <= MOST_LOST + RATE  # instants are whole seconds
        # What came after the last that is stored lies in a gap; two that touch are one.
        assert any(begin <= mine[-1][1] + 1 and end >= killed[number] for begin, end in gaps)


def test_without_its_journal_a_killed_agent_loses_the_open_batch(gateway: Stage) -> None:
    """The twin: it is the journal that keeps the readings of the test above."""
    life(gateway, 0.5)
    (gateway.gateway / "state" / JOURNAL).unlink()
    last_life(gateway)
    found = delivered(gateway, 20_000)
    assert all(one >= 20_000 for one, _ in found)
