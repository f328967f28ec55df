# SPDX-License-Identifier: Apache-2.0
"""A meter on a serial line, read through faults and a pulled plug, is stored as it was recorded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from demo.stage import Stage, wait_until
from tests.journeys.parts import fast
from tests.simulators import meter
from tests.simulators.meter import Meters, Washer

pytestmark = pytest.mark.journey

FLOW = "remote-diagnosis"
DEVICE = """\
[[device]]
id = "washer"
kind = "washing-machine"
source = "modbus"
port = "{port}"
unit_id = 1
profile = "washer-bus"
every = "100ms"
"""
PROFILE = """\
[profile]
source = "modbus"
about = "a washing machine with a bus"
facts = "tests/simulators/meter.py"
requests = { timeout = "300ms" }

[[field]]
attribute = "appliance.power"
table = "input"
address = 12
type = "float32"
absent = ["nan"]

[[field]]
attribute = "appliance.fault"
table = "input"
address = 31
type = "bits"
events = { 0 = "drain-blocked" }

[[field]]
attribute = "device.serial"
table = "holding"
address = 0
type = "text"
length = 8
"""
DECISIONS = {
    "service": '"refused"',
    FLOW: '"given"',
    "partner-energy-advice": '"refused"',
}


@pytest.fixture
def washer() -> Washer:
    """It heats, so that its power wanders."""
    return Washer(1, start=600)


@pytest.fixture
def gateway(recipients: Stage, tmp_path: Path) -> Iterator[Stage]:
    stage = recipients.copied(tmp_path / "stage")
    bundle = stage.publish(fast)
    stage.make_gateway(DEVICE.format(port=tmp_path / "port"))
    (stage.gateway / "profiles").mkdir(exist_ok=True)
    (stage.gateway / "profiles" / "washer-bus.toml").write_text(PROFILE)
    stage.enrol(bundle)
    stage.decide(DECISIONS)
    yield stage
    stage.close()


def stored(stage: Stage, attribute: str) -> list[tuple[str, float | str]]:
    """(second, value) of one attribute, second by second."""
    rows = stage.show("maker", "data", "--flow", FLOW, "--limit", "100000")
    return sorted((row["time"], row["value"]) for row in rows if row["attribute"] == attribute)


def powers(line: Meters) -> list[int]:
    """What went over the wire as power, read with nothing of ours, as `round(1)` leaves it."""
    answers = [answer for answer in line.passed if answer[:3] == b"\x01\x04\x04"]
    values = [struct.unpack(">f", answer[3:7])[0] for answer in answers]
    return [round(value) for value in values if value == value]  # nan is equal to nothing


def is_stored_as(stage: Stage, expected: list[int]) -> bool:
    """Whether these values were stored in this order; within a second the order is lost."""
    seconds: dict[str, list[float]] = {}
    for second, value in stored(stage, "appliance.power"):
        seconds.setdefault(second, []).append(float(value))
    left = iter(expected)
    same = all(sorted(islice(left, len(values))) == values for values in seconds.values())
    return same and next(left, None) is None


def state(stage: Stage) -> str:
    return str(stage.status()["devices"][0]["state"])


def test_what_a_meter_said_is_stored_through_faults_and_a_pulled_plug(
    gateway: Stage, washer: Washer, tmp_path: Path
) -> None:
    gateway.start_broker("maker")
    gateway.start_backend("maker")
    with Meters(tmp_path / "port", [washer]) as line:
        gateway.start_agent()
        wait_until(lambda: len(powers(line)) > 5, "the meter is read")
        spoilt = [meter.silence, meter.bad_checksum, meter.noise(b"\xff\0U"), meter.cut(4)]
        line.faults.extend(spoilt * 3)
        wait_until(lambda: line.struck == 3 * len(spoilt), "each fault has struck")
        more = len(powers(line)) + 5
        wait_until(lambda: len(powers(line)) > more, "the meter is read on")

        line.unplugged.add(1)  # quiet first, so that no answer is on its way
        wait_until(lambda: state(gateway) == "failed", "the silence is noticed")
        washer.alarm = True
        line.vanish()
        line.appear()
        line.unplugged.clear()
        more = len(powers(line)) + 5
        wait_until(lambda: len(powers(line)) > more, "the meter is read again")
        assert state(gateway) == "running"

        line.unplugged.add(1)
        wait_until(lambda: state(gateway) == "failed", "the meter is quiet")
        expected = powers(line)
        assert len(expected) < len(washer.served), "no power was spoilt"
        assert len(set(expected)) > 10
        assert line.functions == {3, 4}
        wait_until(lambda: is_stored_as(gateway, expected), "everything is stored as it was said")
        events = [value for _, value in stored(gateway, "appliance.fault")]
        assert events == ["drain-blocked"]
    serial = b"TEST-WM-0001"
    assert any(serial in answer for answer in line.passed)
    assert serial not in (gateway.backend_directory("maker") / "store.db").read_bytes()
    assert "TEST-WM-0001" not in gateway.log("agent")
