# SPDX-License-Identifier: Apache-2.0
"""A maker publishes a newer policy, and a running gateway takes it from the broker, flow by flow."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.site import SPOOL
from demo.stage import RECIPIENTS, Stage, wait_until
from tests.journeys import parts
from tests.journeys.parts import YES, Enrolled, fast, moved

pytestmark = pytest.mark.journey

SAME, NARROWED, WIDENED = "remote-diagnosis", "service", "partner-energy-advice"
SERIAL = 17

# Three minutes of numbers: it goes on for as long as anything takes here.
DEVICES = """\
[[device]]
id = "gateway"
kind = "gateway"
source = "host"
every = "200ms"

[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "NUMBERS"
profile = "replay-washing-machine"
every = "100ms"
speed = 20.0
"""


def numbers() -> str:
    """A recording whose power is each row's own number; a fault comes and goes all the time."""
    begin = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    rows = ["time,power,energy,water,door,program,fault,serial"]
    for at in range(4_000):
        moment = f"{begin + dt.timedelta(seconds=at):%Y-%m-%dT%H:%M:%SZ}"
        rows.append(f"{moment},{at},,,,,{'heater' if at // 20 % 2 else ''},")
    return "\n".join(rows) + "\n"


def newer(text: str) -> str:
    """The next policy: one flow as it was, one with less, one with more."""
    for old, new in (
        ('version = "2026-11-01"', 'version = "2026-12-01"'),
        (f"serial = {SERIAL}", f"serial = {SERIAL + 1}"),
        (', "host.uptime" = "delta"', ""),
        ('"appliance.power" = "window(1s, mean)"', '"appliance.power" = "round(1)"'),
        # Prose is no term: nobody is asked because of it.
        ('about = "Electric power', 'about = "The electric power'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


class Maker:
    """A stage in which every flow is on, with both recipients at work."""

    def __init__(self, stage: Stage, *, two: bool) -> None:
        self.stage = stage
        self._two = two

    def begin(self) -> None:
        recording = self.stage.root / "numbers.csv"
        recording.write_text(numbers())
        self.stage.add_devices(DEVICES.replace("NUMBERS", str(recording)))
        self.stage.decide(YES)
        for recipient in RECIPIENTS:
            self.stage.start_broker(recipient)
            self.stage.start_backend(recipient)
        self.start()

    def start(self) -> None:
        if not self._two:
            self.stage.start_agent()
            return
        self.stage.start_two()

    def publish(self, edit: Callable[[str], str]) -> None:
        """As the maker does: signs, bundles, publishes; the backends run."""
        bundle = self.stage.publish(edit)
        directories = [str(self.stage.backend_directory(one)) for one in RECIPIENTS]
        self.stage.backend("publish", str(bundle), *directories)

    def serial(self) -> int:
        policy = self.stage.status()["policy"]
        return int(policy["serial"]) if policy else 0

    def state_of(self, flow: str) -> str:
        found = next(one for one in self.stage.status()["flows"] if one["flow"] == flow)
        return "on" if found["on"] else str(found["reason"])

    def custody(self, flow: str) -> dict[bytes, list[int]]:
        """The sequences that are stored of a flow, by stream."""
        found: dict[bytes, list[int]] = defaultdict(list)
        for recipient in RECIPIENTS:
            directory = self.stage.backend_directory(recipient)
            for stream, sequence in sorted(parts.custody(directory, flow)):
                found[stream].append(sequence)
        return found

    def stored(self, flow: str) -> int:
        return sum(map(len, self.custody(flow).values()))

    def came(self, flow: str) -> set[bytes]:
        """The digests of what is stored of a flow."""
        rows: list[tuple[bytes]] = []
        for recipient in RECIPIENTS:
            path = self.stage.backend_directory(recipient) / "custody.db"
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                rows += db.execute("SELECT digest FROM custody WHERE flow=?", (flow,))
        return {digest for (digest,) in rows}

    def left(self, flow: str) -> set[bytes]:
        """The digests of what the gateway says that it let go of, arrived or not."""
        path = self.stage.gateway / "state" / SPOOL
        query = "SELECT digest FROM {} WHERE flow=?"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            rows = [
                row for one in ("sent", "handed") for row in db.execute(query.format(one), (flow,))
            ]
        return {digest for (digest,) in rows}

    def told(self, recipient: str) -> int:
        """The serial that the gateway has told a recipient."""
        (row,) = self.stage.show(recipient, "gateways")
        return int(row["serial"] or 0)


@pytest.fixture
def maker(request: pytest.FixtureRequest, enrolled: Enrolled, tmp_path: Path) -> Iterator[Maker]:
    stage = moved(enrolled(fast), Stage(tmp_path / "stage"))
    try:
        maker = Maker(stage, two=request.param == "two programs")
        maker.begin()
        yield maker
    finally:
        stage.close()


one_process = pytest.mark.parametrize("maker", ["one process"], indirect=True)
two_programs = pytest.mark.parametrize("maker", ["two programs"], indirect=True)


def in_store(maker: Maker) -> list[int]:
    """The numbers that are stored as power."""
    rows = maker.stage.show("maker", "data", "--flow", SAME, "--limit", "100000")
    return sorted(round(row["value"]) for row in rows if row["attribute"] == "appliance.power")


@two_programs
@pytest.mark.clause("C04")
@pytest.mark.clause("C33")
def test_a_published_policy_arrives_and_changes_each_flow_by_its_terms(maker: Maker) -> None:
    for flow in (SAME, NARROWED, WIDENED):
        wait_until(lambda flow=flow: maker.stored(flow) > 0, f"{flow} arrives")
    wait_until(lambda: maker.told("maker") == SERIAL, "the backend knows what is in force")

    before, numbers = set(maker.custody(NARROWED)), len(in_store(maker))
    maker.publish(lambda text: newer(fast(text)))
    wait_until(lambda: maker.serial() == SERIAL + 1, "the newer policy is in force")
    assert maker.state_of(SAME) == maker.state_of(NARROWED) == "on"
    assert maker.state_of(WIDENED) == "requested"
    wait_until(lambda: maker.told("maker") == SERIAL + 1, "the backend is told")

    # Nothing more of the widened one, while the others go on.
    left, others = maker.left(WIDENED), maker.stored(SAME)
    wait_until(lambda: maker.stored(SAME) > others + 3, "the same one goes on")
    wait_until(lambda: set(maker.custody(NARROWED)) > before, "the narrowed one goes on, anew")
    assert maker.came(WIDENED) <= left

    # The same one lost nothing and never broke off.
    found = in_store(maker)
    assert found == list(range(len(found)))
    assert len(found) > numbers
    ((_, sequences),) = maker.custody(SAME).items()
    assert sequences == list(range(len(sequences)))
    assert maker.stage.status()["rejected"] == {}

    # What was narrowed brings less, under terms of its own.
    with sqlite3.connect(maker.stage.backend_directory("maker") / "custody.db") as db:
        terms = db.execute("SELECT DISTINCT terms FROM custody WHERE flow=?", (NARROWED,))
        assert len(terms.fetchall()) == 2
    db.close()


@one_process
def test_a_policy_that_was_published_while_the_gateway_was_away_waits_for_it(
    maker: Maker,
) -> None:
    wait_until(lambda: maker.stored(SAME) > 0, "it arrives")
    for name in list(maker.stage.programs):
        if name in {"agent", "uplink"}:
            maker.stage.end(name)
    maker.publish(lambda text: newer(fast(text)))
    assert maker.serial() == SERIAL
    maker.start()
    wait_until(lambda: maker.serial() == SERIAL + 1, "the newer policy is in force")
    assert maker.state_of(WIDENED) == "requested"
    assert maker.state_of(SAME) == "on"
