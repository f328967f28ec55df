# SPDX-License-Identifier: Apache-2.0
"""Every batch once in the spool is stored once, whatever is killed in between."""

from __future__ import annotations

import csv
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from demo.stage import Stage, wait_until
from tests.journeys import parts
from tests.journeys.parts import RECORDING, Batch, Enrolled, fast, moved

pytestmark = pytest.mark.journey

FLOW = "remote-diagnosis"
ATTRIBUTE = "appliance.power"
# Some eight seconds, five hundred batches; one test plays the whole recording.
ROWS = 2_000

DEVICE = """\
[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "{port}"
profile = "replay-washing-machine"
every = "100ms"
speed = {speed}
"""
DECISIONS = {
    "service": '"refused"',
    "remote-diagnosis": '"given"',
    "partner-energy-advice": '"refused"',
}


def small(text: str) -> str:
    """Batches of four readings, so that there are many in transfer."""
    return fast(text).replace("readings = 10000", "readings = 4")


def recording(stage: Stage) -> Path:
    """What the appliance plays."""
    return stage.root.parent / "recording.csv"


def recorded(stage: Stage) -> list[int]:
    """The power readings of the recording, as `round(1)` leaves them (half to even)."""
    with recording(stage).open(newline="") as file:
        return [round(float(row["power"])) for row in csv.DictReader(file) if row["power"]]


def in_store(stage: Stage) -> list[list[int]]:
    """The power readings the maker stored, second by second; at 240 a second their order is lost."""
    rows = stage.show("maker", "data", "--flow", FLOW, "--limit", "100000")
    seconds: dict[str, list[int]] = {}
    for row in rows:
        if row["attribute"] == ATTRIBUTE:
            assert row["time"].endswith(".000Z")
            seconds.setdefault(row["time"], []).append(round(row["value"]))
    return [sorted(seconds[second]) for second in sorted(seconds)]


def readings(stage: Stage) -> int:
    """How many of them there are."""
    return sum(map(len, in_store(stage)))


def stored_as(stage: Stage, expected: list[int]) -> bool:
    """Whether these very values were stored, in this order from second to second."""
    left = iter(expected)
    same = all(sorted(islice(left, len(values))) == values for values in in_store(stage))
    return same and next(left, None) is None


@pytest.fixture
def delivery(enrolled: Enrolled, tmp_path: Path) -> Iterator[Stage]:
    stage = moved(enrolled(small), Stage(tmp_path / "stage"))
    lines = RECORDING.read_text().splitlines(keepends=True)
    recording(stage).write_text("".join(lines[:ROWS]))
    stage.add_devices(DEVICE.format(port=recording(stage), speed=240.0))
    stage.decide(DECISIONS)
    yield stage
    stage.close()


def the_maker_listens(stage: Stage) -> None:
    """Starts its programs; what is sent from now on is stored at once."""
    stage.start_broker("maker")
    stage.start_backend("maker")
    wait_until(lambda: "subscribed at" in stage.log("backend-maker"), "the maker listens")


def waiting(stage: Stage) -> int:
    flows = stage.status()["flows"]
    return int(next(flow["waiting"]["batches"] for flow in flows if flow["flow"] == FLOW))


def ended(stage: Stage) -> bool:
    device = stage.status()["devices"][0]
    return bool(device["state"] == "ended")


def custody(stage: Stage) -> Counter[Batch]:
    """How often each batch is in custody."""
    return parts.custody(stage.backend_directory("maker"))


def drained(stage: Stage) -> None:
    wait_until(lambda: ended(stage), "the recording has ended", 60.0)
    # The last batch is open for a second more.
    wait_until(lambda: readings(stage) >= len(recorded(stage)), "as much is stored as read", 60.0)
    wait_until(lambda: waiting(stage) == 0, "nothing waits any more", 60.0)


def test_every_reading_arrives_with_its_value(delivery: Stage) -> None:
    shutil.copy(RECORDING, recording(delivery))
    the_maker_listens(delivery)
    delivery.start_agent()
    drained(delivery)
    assert stored_as(delivery, recorded(delivery))


def test_a_broker_that_stops_and_comes_back_loses_nothing(delivery: Stage) -> None:
    """It is killed with what it had confirmed: red without `recall`, for 15 minutes."""
    the_maker_listens(delivery)
    delivery.start_agent()
    wait_until(lambda: bool(custody(delivery)), "something is stored")
    delivery.send("backend-maker", signal.SIGSTOP)
    wait_until(lambda: waiting(delivery) > 50, "the broker has what nobody read")
    delivery.end("broker-maker", signal.SIGKILL)
    delivery.send("backend-maker", signal.SIGCONT)
    wait_until(lambda: waiting(delivery) > 100, "batches wait for the broker")
    delivery.start_broker("maker")
    drained(delivery)
    assert stored_as(delivery, recorded(delivery))


def test_a_backend_killed_in_mid_transfer_stores_everything_once(
    delivery: Stage, chance: random.Random
) -> None:
    whole = len(recorded(delivery)) // 4
    the_maker_listens(delivery)
    delivery.start_agent()
    struck = 0
    # A backend that is slow to start finds much that waits, and is past the next moment at once.
    for moment in sorted(chance.sample(range(5, whole // 2), 4)):
        wait_until(lambda moment=moment: len(custody(delivery)) >= moment, "more is stored")
        delivery.end("backend-maker", signal.SIGKILL)
        struck += len(custody(delivery)) < whole
        delivery.start_backend("maker")
    drained(delivery)
    assert struck > 1, "the kills came too late to strike"
    assert set(custody(delivery).values()) == {1}
    assert stored_as(delivery, recorded(delivery))


def test_an_agent_killed_in_mid_transfer_loses_nothing_that_was_in_the_spool(
    delivery: Stage,
) -> None:
    delivery.start_agent()
    wait_until(lambda: waiting(delivery) >= 400, "batches wait, with no broker there")
    delivery.end("agent", signal.SIGKILL)
    spooled = spooled_batches(delivery)
    assert len(spooled) >= 400
    # What is read after the restart is another recording's beginning: keep it out.
    agent = delivery.gateway / "agent.toml"
    agent.write_text(agent.read_text().split("[[device]]")[0])
    the_maker_listens(delivery)
    delivery.start_agent()
    wait_until(lambda: len(custody(delivery)) > 3, "some are stored")
    delivery.end("agent", signal.SIGKILL)
    left = len(spooled_batches(delivery))
    assert left > 0, "the kill came too late to strike"
    delivery.start_agent()
    wait_until(lambda: waiting(delivery) == 0, "nothing waits any more", 60.0)
    stored = custody(delivery)
    assert set(stored.values()) == {1}
    assert set(stored) in (spooled, spooled | {following(spooled)})
    assert stored_as(delivery, recorded(delivery)[: readings(delivery)])


def following(spooled: set[Batch]) -> Batch:
    """The batch that was open at the kill: the journal gives it back, if it was committed there."""
    (stream,) = {stream for stream, _ in spooled}
    return stream, max(sequence for _, sequence in spooled) + 1


def spooled_batches(stage: Stage) -> set[Batch]:
    """Every batch in the gateway's spool, read without the agent."""
    return parts.spooled(stage.gateway / "state")
