# SPDX-License-Identifier: Apache-2.0
"""Which devices are opened: those that deliver something wanted, each by itself."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.pipeline.hardware import Hardware
from agent.settings import Settings, load_settings
from firmware_bridge.clock import Clock
from firmware_bridge.health import Health, State
from firmware_bridge.sample import Sample
from tests.agent.installed import (
    AGENT,
    DIAGNOSIS,
    FAULT,
    POWER,
    REPO,
    YES,
    House,
    copied,
    living,
    values,
)
from tests.simulators.conditions import eventually
from tests.simulators.meter import Meters, Washer

RECORDING = "time,power,energy,water,door,program,fault,serial\n" + "".join(
    f"2026-11-01T08:00:{second:02}Z,{second}.0,412345,21.0,1,idle,,TEST-WM-CANARY-0001\n"
    for second in range(60)
)
WASHER = """
[[device]]
id = "{id}"
kind = "washing-machine"
source = "replay"
port = "{port}"
profile = "{profile}"
every = "20ms"
speed = {speed}
"""
METER = """
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "{port}"
profile = "eastron-sdm120"
every = "20ms"
"""
HOST = """
[[device]]
id = "host"
kind = "gateway"
source = "host"
port = "root"
every = "20ms"
"""


class Bench:
    """A configuration directory, the hardware room, and what it delivered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        shutil.copytree(REPO / "config" / "profiles", directory / "profiles")
        (directory / "recording.csv").write_text(RECORDING)
        (directory / "root" / "proc").mkdir(parents=True)
        (directory / "root" / "proc" / "uptime").write_text("46901.13 46856.66\n")
        self.samples: list[Sample] = []
        self.hardware = Hardware(Clock(trust="system"), self.deliver)

    def deliver(self, samples: list[Sample], ended: threading.Event) -> None:
        self.samples += samples

    def settings(self, devices: str) -> Settings:
        (self.directory / "agent.toml").write_text(AGENT + devices)
        return load_settings(self.directory)

    def follow(self, devices: str, *wanted: str) -> None:
        self.hardware.follow(self.settings(devices), frozenset(wanted))

    def health(self) -> dict[str, Health]:
        return {one.device_id: one for one in self.hardware.health()}

    def reaches(self, **states: State) -> dict[str, Health]:
        def there() -> bool:
            found = self.health()
            return {name: found[name].state for name in states} == states

        eventually(there)
        return self.health()

    def said(self, name: str, device: str = "washer") -> list[object]:
        return [
            sample.values[sample.names.index(name)]
            for sample in list(self.samples)
            if name in sample.names and sample.device.id == device
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "gateway")
    yield bench
    bench.hardware.stop()


def washer(name: str = "washer", **fields: object) -> str:
    known = {"port": "recording.csv", "profile": "replay-washing-machine", "speed": 0.0}
    return WASHER.format(id=name, **(known | fields))


@pytest.mark.clause("C01")
def test_a_device_nobody_wants_is_not_opened(bench: Bench) -> None:
    # A recording that is not there: whoever opened it would fail.
    bench.follow(washer(port="nowhere.csv") + HOST, "host.uptime")
    found = bench.reaches(washer=State.IDLE, host=State.RUNNING)
    assert found["washer"].error is None
    assert found["washer"].failures == 0


def test_the_twin_a_wanted_one_is_opened(bench: Bench) -> None:
    bench.follow(washer(port="nowhere.csv") + HOST, POWER)
    found = bench.reaches(washer=State.FAILED, host=State.IDLE)
    assert found["washer"].error == "expected the path of a recording, got no file there"
    assert bench.said("host.uptime", "host") == []


def test_an_attribute_that_the_device_cannot_deliver_opens_nothing(bench: Bench) -> None:
    bench.follow(washer() + HOST, "location.area")
    bench.reaches(washer=State.IDLE, host=State.IDLE)
    assert bench.samples == []


@pytest.mark.clause("C01")
def test_a_register_that_no_flow_wants_is_not_read_unless_somebody_looks(
    bench: Bench, tmp_path: Path
) -> None:
    def asked() -> set[int]:
        return {int.from_bytes(frame[2:4]) for frame in list(line.asked)}

    with Meters(tmp_path / "port", [Washer(1)], baudrate=2400) as line:
        devices = METER.format(port=tmp_path / "port")
        bench.follow(devices, POWER)
        eventually(lambda: len(bench.said(POWER, "meter")) > 2)
        assert asked() == {12}
        bench.hardware.follow(bench.settings(devices), frozenset({POWER}), frozenset({"meter"}))
        eventually(lambda: bench.said("appliance.voltage", "meter"))
        assert asked() > {12}
        bench.follow(devices, POWER)
        bench.samples.clear()
        eventually(lambda: len(bench.said(POWER, "meter")) > 2)
        line.asked.clear()
        eventually(lambda: len(line.asked) > 5)
        assert asked() == {12}
        bench.hardware.stop()


def test_a_wanted_device_is_read_to_its_end(bench: Bench) -> None:
    bench.follow(washer(), POWER)
    found = bench.reaches(washer=State.ENDED)
    assert bench.said(POWER) == [float(watts) for watts in range(60)]
    assert found["washer"].samples == 60


def test_what_is_no_longer_wanted_is_closed_and_goes_on_when_it_is_wanted_again(
    bench: Bench,
) -> None:
    slow, is_unwanted = washer(speed=100.0), threading.Event()

    def deliver(samples: list[Sample], ended: threading.Event) -> None:
        bench.deliver(samples, ended)
        if len(bench.samples) > 5:
            assert is_unwanted.wait(10)  # it does not end before

    bench.hardware = Hardware(Clock(trust="system"), deliver)
    bench.follow(slow, POWER)
    eventually(lambda: len(bench.said(POWER)) > 5)
    bench.follow(slow)
    is_unwanted.set()
    bench.reaches(washer=State.IDLE)
    held = len(bench.said(POWER))
    assert held < 60
    bench.follow(slow, POWER)
    bench.reaches(washer=State.ENDED)
    said = bench.said(POWER)
    assert said[:held] == [float(watts) for watts in range(held)]
    assert len(said) == len(set(said)) <= 60
    assert said[-1] == 59.0


def test_the_same_devices_are_not_opened_anew(bench: Bench) -> None:
    slow = washer(speed=100.0)
    for _ in range(10):
        bench.follow(slow, POWER)
        bench.hardware.reread(bench.settings(slow))
    bench.reaches(washer=State.ENDED)
    assert bench.said(POWER) == [float(watts) for watts in range(60)]


def test_other_devices_replace_all(bench: Bench) -> None:
    bench.follow(washer("one"), POWER)
    bench.reaches(one=State.ENDED)
    bench.follow(washer("two") + HOST, POWER, "host.uptime")
    bench.reaches(two=State.ENDED, host=State.RUNNING)
    assert set(bench.health()) == {"two", "host"}
    bench.follow("")
    assert bench.health() == {}
    assert not [one for one in threading.enumerate() if one.name.startswith("source-")]


def torn(directory: Path) -> None:
    (directory / "profiles/broken.toml").write_text("[profile\n")


def for_another_language(directory: Path) -> None:
    (directory / "profiles/broken.toml").write_text('[profile]\nsource = "host"\n')


def without_columns(directory: Path) -> None:
    text = (directory / "profiles/replay-washing-machine.toml").read_text()
    (directory / "profiles/broken.toml").write_text(text.replace("csv =", "# csv ="))


def no_text(directory: Path) -> None:
    (directory / "profiles/broken.toml").write_bytes(b"\xff\xfe\x00")


BREAKS = {
    "a torn profile": torn,
    "a profile of another language": for_another_language,
    "a profile without columns": without_columns,
    "a profile that is no text": no_text,
}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS)
def test_a_broken_profile_is_reported_and_leaves_the_others_running(
    bench: Bench, break_it: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    break_it(bench.directory)
    with caplog.at_level(logging.ERROR):
        bench.follow(washer("broken", profile="broken") + washer() + HOST, POWER, "host.uptime")
    found = bench.reaches(washer=State.ENDED, host=State.RUNNING, broken=State.FAILED)
    assert bench.said(POWER) == [float(watts) for watts in range(60)]
    assert found["broken"].error
    assert bench.said(POWER, "broken") == []


def test_a_mended_profile_is_used_when_the_files_are_read_again(bench: Bench) -> None:
    torn(bench.directory)
    devices = washer(profile="broken")
    bench.follow(devices, POWER)
    assert bench.health()["washer"].state is State.FAILED
    shutil.copy(
        bench.directory / "profiles/replay-washing-machine.toml",
        bench.directory / "profiles/broken.toml",
    )
    bench.follow(devices, POWER)
    assert bench.health()["washer"].state is State.FAILED
    bench.hardware.reread(bench.settings(devices))
    bench.follow(devices, POWER)
    bench.reaches(washer=State.ENDED)
    assert bench.said(POWER) == [float(watts) for watts in range(60)]


def test_what_each_device_can_deliver_is_told_wanted_or_not(bench: Bench) -> None:
    settings = bench.settings(washer() + HOST)
    unopened = bench.hardware.delivered(settings)
    bench.follow(washer() + HOST)
    delivered = bench.hardware.delivered(settings)
    assert delivered == unopened
    assert {POWER, FAULT, "device.serial"} <= delivered["washer"]
    assert "host.uptime" in delivered["host"]
    assert POWER not in delivered["host"]


def test_after_the_end_nothing_is_delivered_and_no_thread_is_left(bench: Bench) -> None:
    bench.follow(washer(speed=100.0) + HOST, POWER, "host.uptime")
    eventually(lambda: len(bench.samples) > 5)
    bench.hardware.stop()
    bench.hardware.stop()
    held = len(bench.samples)
    assert not [one for one in threading.enumerate() if one.name.startswith("source-")]
    assert len(bench.samples) == held
    assert bench.health() == {}


@pytest.mark.clause("C08")
def test_no_log_line_holds_what_a_device_said_or_its_serial(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        bench.follow(washer(), POWER, "device.serial")
        bench.reaches(washer=State.ENDED)
    assert "TEST-WM-CANARY-0001" in bench.said("device.serial")
    assert "device=washer" in caplog.text
    assert [secret for secret in ("CANARY", "412345", "59.0") if secret in caplog.text] == []


# With the path around it.


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    directory = copied(installed, tmp_path / "gateway")
    (directory / "recording.csv").write_text(RECORDING)
    with (directory / "agent.toml").open("a") as file:
        file.write(washer())
    with living(directory) as house:
        yield house


def states(house: House) -> dict[str, str]:
    return {one["id"]: one["state"] for one in house.desk.status()["devices"]}


@pytest.mark.clause("C01")
def test_a_yes_opens_the_device_that_it_needs_and_a_no_closes_it(house: House) -> None:
    eventually(lambda: states(house) == {"washer": "not wanted"})
    house.decide(YES)
    eventually(lambda: states(house) == {"washer": "ended"})
    while not house.pipeline._door.empty():
        house.turn()
    house.pipeline.flush()
    assert values(house.batches(DIAGNOSIS), POWER) == list(range(60))


def test_status_says_why_a_device_is_not_usable(house: House) -> None:
    torn(house.directory)
    with (house.directory / "agent.toml").open("a") as file:
        file.write(washer("broken", profile="broken"))
    house.desk.reload()
    found = {one["id"]: one for one in house.desk.status()["devices"]}
    assert found["broken"]["state"] == "failed"
    assert "broken.toml:1:" in found["broken"]["detail"]
    # A reload is all it takes once the profile is mended.
    shutil.copy(
        house.directory / "profiles/replay-washing-machine.toml",
        house.directory / "profiles/broken.toml",
    )
    house.desk.reload()
    eventually(lambda: states(house)["broken"] == "not wanted")


def test_devices_are_replaced_at_once_although_their_sources_wait_at_the_door(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    rows = RECORDING.splitlines()[1:] * 800
    head = RECORDING.splitlines()[0]
    (house.directory / "recording.csv").write_text("\n".join([head, *rows]) + "\n")
    house.decide(YES)
    eventually(house.pipeline._door.full)
    agent = house.directory / "agent.toml"
    agent.write_text(agent.read_text().replace('"washer"', '"another"'))
    with caplog.at_level(logging.INFO):
        house.desk.reload()
    assert "source-left-behind" not in caplog.text
    assert list(states(house)) == ["another"]
