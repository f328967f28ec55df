# SPDX-License-Identifier: Apache-2.0
"""A meter on a serial line is stored as it was recorded: through faults, and shaped for two."""

from __future__ import annotations

import datetime as dt
import struct
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import pytest

from agent.spool import Spool
from demo.stage import Stage, wait_until
from tests.journeys.parts import Enrolled, fast, moved
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
MORE = """
[[field]]
attribute = "appliance.energy"
table = "input"
address = 72
type = "float32"
scale = 1000

[[field]]
attribute = "appliance.temperature"
table = "input"
address = 20
type = "int16"
scale = 0.1
"""
PARTNER = "partner-energy-advice"
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
def gateway(enrolled: Enrolled, tmp_path: Path) -> Iterator[Stage]:
    stage = moved(enrolled(fast), Stage(tmp_path / "stage"))
    stage.add_devices(DEVICE.format(port=tmp_path / "port"))
    (stage.gateway / "profiles" / "washer-bus.toml").write_text(PROFILE)
    yield stage
    stage.close()


def stored(
    stage: Stage, attribute: str, recipient: str = "maker", flow: str = FLOW
) -> list[tuple[str, float | str]]:
    """(second, value) of one attribute, second by second."""
    rows = stage.show(recipient, "data", "--flow", flow, "--limit", "100000")
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
    gateway.decide(DECISIONS)
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
        wait_until(lambda: state(gateway) == "silent", "the silence is noticed")
        washer.alarm = True
        line.vanish()
        line.appear()
        line.unplugged.clear()
        more = len(powers(line)) + 5
        wait_until(lambda: len(powers(line)) > more, "the meter is read again")
        wait_until(lambda: len(set(powers(line))) > 10, "it has said different things")
        assert state(gateway) == "running"

        line.unplugged.add(1)
        wait_until(lambda: state(gateway) == "silent", "the meter is quiet")
        expected = powers(line)
        assert len(expected) < len(washer.served), "no power was spoilt"
        assert line.functions == {3, 4}
        wait_until(lambda: is_stored_as(gateway, expected), "everything is stored as it was said")
        events = [value for _, value in stored(gateway, "appliance.fault")]
        assert events == ["drain-blocked"]
    serial = b"TEST-WM-0001"
    assert any(serial in answer for answer in line.passed)
    assert serial not in (gateway.backend_directory("maker") / "store.db").read_bytes()
    assert "TEST-WM-0001" not in gateway.log("agent")


def answered(line: Meters, address: int) -> list[tuple[float, float, Fraction]]:
    """Between which two requests input register `address` was read, and what it said, off the wire.

    The agent stamps an answer after it was asked for and before it asks on.
    """
    found = []
    talk = [*line.talk]
    for (asked_s, asked), (_, answer), (on_s, _) in zip(talk, talk[1:], talk[2:], strict=False):
        is_answered = answer[:3] == b"\x01\x04\x04"  # or the unit was quiet
        if asked[:4] == bytes([1, 4, 0, address]) and is_answered:
            found.append((asked_s, on_s, Fraction(struct.unpack(">f", answer[3:7])[0])))
    return found


def means(line: Meters) -> dict[str, float | None]:
    """The mean of each second's powers in tenths, to a tenth; None where one came at its edge."""
    seconds: dict[int, list[int]] = {}
    blurred = set()
    for asked_s, on_s, value in answered(line, 12):
        seconds.setdefault(int(asked_s), []).append(round(value * 10))
        if int(asked_s) != int(on_s):
            blurred |= {*range(int(asked_s), int(on_s) + 1)}
    return {
        dt.datetime.fromtimestamp(second, dt.UTC).isoformat(timespec="seconds")[:19]: (
            None if second in blurred else round(Fraction(sum(tenths), len(tenths))) / 10
        )
        for second, tenths in seconds.items()
    }


def sharp_means(line: Meters) -> dict[str, float]:
    """Those that are known for certain."""
    windows = list(means(line).items())
    # The yes may have been read within the first one; the last waits for a reading after its end.
    return {second: mean for second, mean in windows[1:-1] if mean is not None}


def test_windows_and_growth_of_a_meter_are_stored_by_the_partner_as_the_wire_had_them(
    gateway: Stage, washer: Washer, tmp_path: Path
) -> None:
    (gateway.gateway / "profiles" / "washer-bus.toml").write_text(PROFILE + MORE)
    gateway.decide(DECISIONS | {PARTNER: '"given"'})
    for recipient in ("maker", "energy-advice"):
        gateway.start_broker(recipient)
        gateway.start_backend(recipient)

    def partners(attribute: str) -> list[tuple[str, float | str]]:
        return stored(gateway, attribute, "energy-advice", PARTNER)

    with Meters(tmp_path / "port", [washer]) as line:
        gateway.start_agent()
        wait_until(lambda: len({*sharp_means(line).values()}) > 3, "there are windows to compare")
        line.unplugged.add(1)
        wait_until(lambda: state(gateway) == "silent", "the meter is quiet")
        counts = [round(value * 1000) for _, _, value in answered(line, 72)]
        grown = Counter(later - earlier for earlier, later in pairwise(counts))
        sharp = sharp_means(line)

        def told() -> dict[str, float | str]:
            return {second[:19]: value for second, value in partners("appliance.power")}

        def grew() -> Counter[int]:
            return Counter(int(value) for _, value in partners("appliance.energy"))

        wait_until(lambda: sharp.keys() <= told().keys(), "every window is there")
        wait_until(lambda: grew().total() == grown.total(), "every growth is there")
        assert grew() == grown
        assert len(grown) > 1
        assert {second: told()[second] for second in sharp} == sharp

        expected = powers_of(line)
        wait_until(lambda: is_stored_as(gateway, expected), "the maker has every value, rounded")
        asked = {int.from_bytes(frame[2:4]) for frame in line.asked if frame[1] == 4}
    assert asked == {12, 31, 72}, "what no flow lists is not even asked for"
    both = [gateway.backend_directory(name) / "store.db" for name in ("maker", "energy-advice")]
    assert not any(b"TEST-WM-0001" in path.read_bytes() for path in both)


def powers_of(line: Meters) -> list[int]:
    """Each power off the wire as `round(1)` leaves it."""
    return [round(value) for _, _, value in answered(line, 12)]


@pytest.mark.parametrize("how", ["silent", "gone"])
def test_a_meter_that_falls_silent_is_told_apart_from_one_that_is_gone(
    gateway: Stage, washer: Washer, tmp_path: Path, how: str
) -> None:
    """Nothing is left of a silent one but its open port; of one that is gone, not even that."""
    settings = gateway.gateway / "agent.toml"
    settings.write_text(settings.read_text() + 'fresh = "2s"\n')
    profile = gateway.gateway / "profiles" / "washer-bus.toml"
    profile.write_text(PROFILE.replace("300ms", "100ms"))  # it gives up before that
    gateway.decide(DECISIONS)
    gateway.start_broker("maker")
    gateway.start_backend("maker")
    with Meters(tmp_path / "port", [washer]) as line:
        gateway.start_agent()
        wait_until(lambda: len(stored(gateway, "appliance.power")) > 5, "the meter is read")
        assert causes(gateway) == set()
        if how == "silent":
            line.unplugged.add(1)
        else:
            line.vanish()
        wait_until(lambda: is_absent(gateway), "it is missed")
        assert (tmp_path / "port").is_symlink() == (how == "silent")
        if how == "silent":
            line.unplugged.clear()
        else:
            line.appear()
        cause = "silent" if how == "silent" else "outage"
        wait_until(lambda: cause in causes(gateway), "the backend is told")
        assert causes(gateway) == {cause}


def is_absent(stage: Stage) -> bool:
    spool = Spool.open(stage.gateway / "state" / "spool" / "spool.db", create=False)
    absences = spool.absences()
    spool.close()
    return bool(absences)


def causes(stage: Stage) -> set[str]:
    """Of what the gateway says is missing, as the backend's own command tells it."""
    rows = stage.show("maker", "gaps", "--flow", FLOW)
    return {row["cause"] for row in rows} - {None}
