# SPDX-License-Identifier: Apache-2.0
"""A broker that loses its store: nothing is lost, or a hole that nobody explains."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.stage import Stage, wait_until
from tests.journeys import parts
from tests.journeys.parts import Enrolled, fast, moved
from tests.journeys.test_meter import DEVICE, PROFILE
from tests.simulators.meter import Meters, Washer

pytestmark = pytest.mark.journey

FLOW = "remote-diagnosis"
MISSING = {"declared", "unexplained", "gone"}
DECISIONS = {"service": '"refused"', FLOW: '"given"', "partner-energy-advice": '"refused"'}


class Place:
    """A gateway with a washing machine on a line, one recipient, and what that one can prove."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.state = stage.gateway / "state"

    def stored(self, flow: str = FLOW) -> int:
        """How many batches of a flow the maker has."""
        return len(parts.custody(self.stage.backend_directory("maker"), flow))

    def waits(self) -> int:
        """How many batches of the flow wait on the gateway."""
        return int(self.spool("SELECT batches FROM lane WHERE flow=?", FLOW)[0][0])

    def spool(self, question: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.state / "spool" / "spool.db")) as db:
            return db.execute(question, values).fetchall()

    def more(self, flow: str = FLOW) -> None:
        """More of a flow arrives."""
        before = self.stored(flow)
        wait_until(lambda: self.stored(flow) > before + 1, f"more of {flow} arrives")

    def gaps(self, flow: str = FLOW) -> tuple[int, list[dict[str, Any]]]:
        """What the maker can prove of a flow: exit code, and a row for each day and hole."""
        program = Path(sys.executable).with_name("assent-backend")
        directory = self.stage.backend_directory("maker")
        words = [str(program), "show", str(directory), "gaps", "--flow", flow, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return done.returncode, json.loads(done.stdout)

    def causes(self, flow: str = FLOW) -> Counter[str | None]:
        """The causes of the holes of a flow; None for one that nothing explains."""
        return Counter(row["cause"] for row in self.gaps(flow)[1] if row["state"] in MISSING)

    def is_single(self) -> bool:
        """Whether what is stored is what the batches in custody held, each once."""
        held = []
        for file, question in (
            ("store.db", "SELECT count(*) FROM data WHERE flow=?"),
            ("custody.db", "SELECT sum(readings) FROM custody WHERE flow=?"),
        ):
            path = self.stage.backend_directory("maker") / file
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                held.append(db.execute(question, (FLOW,)).fetchone()[0])
        return held[0] == held[1] > 0


@pytest.fixture
def place(enrolled: Enrolled, tmp_path: Path) -> Iterator[Place]:
    stage = moved(enrolled(fast), Stage(tmp_path / "stage"))
    stage.add_devices(DEVICE.format(port=tmp_path / "port"))
    (stage.gateway / "profiles" / "washer-bus.toml").write_text(PROFILE)
    with Meters(tmp_path / "port", [Washer(1, start=600)]):
        stage.start_broker("maker")
        stage.start_backend("maker")
        yield Place(stage)
        stage.close()


@pytest.mark.parametrize("until", ["backend", "broker"])
def test_a_broker_that_loses_its_store_costs_what_was_kept_for_it_only(
    place: Place, until: str
) -> None:
    path = place.stage.gateway / "agent.toml"
    uplink = (
        f'[uplink.maker]\nbroker = "{place.stage.broker_url("maker")}"\nkeep_until = "{until}"\n'
    )
    path.write_text(path.read_text().replace("[[device]]", f"{uplink}\n[[device]]", 1))
    place.stage.decide(DECISIONS)
    place.stage.start_agent()
    place.more()
    place.stage.end("backend-maker", signal.SIGKILL)
    sent = place.spool("SELECT count(*) FROM sent")[0][0]
    wait_until(
        lambda: place.spool("SELECT count(*) FROM sent")[0][0] > sent + 4, "the broker takes more"
    )
    if until == "backend":
        assert place.waits() > 2
    else:  # nobody acknowledges: what is kept for the backend would stay
        wait_until(lambda: place.waits() < 3, "the broker's word was enough")
    place.stage.end("broker-maker", signal.SIGKILL)
    for store in (place.stage.root / "brokers" / "maker").rglob("mosquitto.db*"):
        store.unlink()
    place.stage.start_broker("maker")
    place.stage.start_backend("maker")
    place.more()
    if until == "backend":
        wait_until(lambda: place.gaps()[0] == 0, "all of it has come", patience_s=60)
        assert place.causes() == Counter()
    else:
        place.more()
        assert place.gaps()[0] == 1
        assert set(place.causes()) == {None}
    place.stage.end("backend-maker")
    assert place.is_single()
