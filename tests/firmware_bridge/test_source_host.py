# SPDX-License-Identifier: Apache-2.0
"""The gateway as a device: fake roots made of real machines' files, and what is left out."""

from __future__ import annotations

import json
import logging
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assent.errors import AssentError
from assent.units import Duration
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Sample, SourceError, Value
from firmware_bridge.sources import host
from firmware_bridge.sources.host import HostSource
from firmware_bridge.sources.registry import SourceConfig
from firmware_bridge.supervisor import Configured, Supervisor
from tests.simulators.clock import ManualClock

SERIAL = "10000000c0ffee01"
MAC = "00:00:5e:00:53:01"
MACHINE_ID = "c0ffee00c0ffee00c0ffee00c0ffee00"
CANARIES = (SERIAL, MAC, MACHINE_ID)

FILES = {
    "proc/cpuinfo": "processor\t: 0\nprocessor\t: 1\nRevision\t: c03114\n"
    f"Serial\t\t: {SERIAL}\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/version": "Linux version 6.6.31+rpt-rpi-v8 (serge@example.com) (gcc) #1 SMP PREEMPT\n",
    "proc/uptime": "46901.13 46856.66\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/default/locale": "LANG=en_GB.UTF-8\n",
    "sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "sys/firmware/devicetree/base/serial-number": f"{SERIAL}\0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "sys/class/net/lo/ifindex": "1\n",
    "sys/class/net/lo/addr_assign_type": "0\n",
    "sys/class/net/eth0/address": f"{MAC}\n",
    "sys/class/net/eth0/addr_assign_type": "0\n",
    "sys/class/net/eth0/ifindex": "2\n",
    "sys/class/net/eth0/device/uevent": "DRIVER=bcmgenet\n",
}
STATIC: dict[str, Value] = {
    "host.model": "Raspberry Pi 4 Model B Rev 1.4",
    "host.serial": SERIAL,
    "host.os": "debian 12",
    "host.kernel": "6.6.31+rpt-rpi-v8",
    "host.mac": MAC,
    "host.machine-id": MACHINE_ID,
    "host.language": "en-GB",
    "host.cores": 2,
}
SENSORS: dict[str, Value] = {
    "host.throttled": False,
    "host.temperature": 48.312,
    "host.uptime": 46901.13,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@contextmanager
def opened(root: Path, clock: Clock | None = None, every: str = "10s") -> Iterator[HostSource]:
    config = SourceConfig(
        device_id="gateway", kind="gateway", port=str(root), every=Duration.parse(every)
    )
    source = HostSource(config, clock or ManualClock(flowing=True))
    source.open()
    yield source
    source.close()


def values_of(samples: list[Sample]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for sample in samples:
        found |= dict(zip(sample.names, sample.values, strict=True))
    return found


def next_of(source: HostSource) -> list[Sample]:
    """Reads until the period is over."""
    while not (samples := source.read()):
        pass
    return samples


def read_once(root: Path) -> dict[str, Value]:
    with opened(root) as source:
        return values_of(next_of(source))


@pytest.mark.clause("C05")
@pytest.mark.clause("C08")
def test_a_gateway_says_what_it_is_and_how_it_does(root: Path) -> None:
    assert read_once(root) == STATIC | SENSORS
    config = SourceConfig(device_id="gateway", kind="gateway")
    assert host.attributes(config) == set(STATIC | SENSORS)


def test_a_sample_names_the_device_and_the_instant(root: Path) -> None:
    clock = ManualClock(flowing=True)
    with opened(root, clock) as source:
        for sample in next_of(source):
            assert (sample.device.id, sample.device.kind) == ("gateway", "gateway")
            assert sample.device.serial == SERIAL
            assert sample.at == clock.now()


def test_what_seldom_changes_comes_at_first_and_every_hour(root: Path) -> None:
    clock = ManualClock(flowing=True)
    clock.advance(7 * 60_000 + 300)
    began = clock.now().wall_ms // 3_600_000 * 3_600_000
    static: list[int] = []
    sensors: list[int] = []
    with opened(root, clock, every="10m") as source:
        while clock.now().wall_ms - began <= 3 * 3_600_000:
            for sample in source.read():
                at = (sample.at.wall_ms - began) // 1_000
                (static if "host.model" in sample.names else sensors).append(at)
    # Opened at 02:22: what happened to begin then does not show in when the hours' reads come.
    assert static == [1_800, 3_600, 7_200, 10_800]
    assert sensors[:4] == [1_800, 2_400, 3_000, 3_600]


def test_an_upgrade_shows_within_the_hour(root: Path) -> None:
    clock = ManualClock(flowing=True)
    with opened(root, clock, every="1h") as source:
        assert values_of(next_of(source))["host.os"] == "debian 12"
        write(root, "etc/os-release", "ID=debian\nVERSION_ID=13\n")
        assert values_of(next_of(source))["host.os"] == "debian 13"


def test_reads_of_one_shape_share_their_names(root: Path) -> None:
    with opened(root) as source:
        next_of(source)
        shapes: list[tuple[str, ...]] = []
        while len(shapes) < 3:
            shapes += [sample.names for sample in source.read()]
    assert shapes[0] is shapes[1] is shapes[2]


LEFT_OUT = [
    ("etc/machine-id", "uninitialized\n", {"host.machine-id"}),
    ("etc/os-release", "NAME=Linux\n", {"host.os"}),
    ("etc/default/locale", "LANG=C.UTF-8\n", {"host.language"}),
    ("proc/version", "", {"host.kernel"}),
    ("proc/uptime", "soon\n", {"host.uptime"}),
    ("sys/class/thermal/thermal_zone0/temp", "-274000\n", {"host.temperature"}),
    ("sys/class/thermal/thermal_zone0/type", "acpitz\n", {"host.temperature"}),
    ("sys/devices/platform/soc/soc:firmware/get_throttled", "error\n", {"host.throttled"}),
    ("sys/class/net/eth0/address", "none\n", {"host.mac"}),
    ("sys/class/net/eth0/addr_assign_type", "1\n", {"host.mac"}),
]


@pytest.mark.parametrize(("name", "text", "missing"), LEFT_OUT, ids=[row[0] for row in LEFT_OUT])
@pytest.mark.parametrize("way", ["odd", "missing", "a directory", "a pipe", "unreadable bytes"])
def test_a_file_that_is_missing_or_odd_leaves_its_attribute_out(
    root: Path, name: str, text: str, missing: set[str], way: str
) -> None:
    path = root / name
    path.unlink()
    match way:
        case "odd":
            path.write_text(text)
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "unreadable bytes":
            path.write_bytes(b"\xff\x00" * 100_000)
    if path.name == "addr_assign_type" and way in {"missing", "a directory"}:
        missing = set()  # kernels before 3.6 do not say how an address was assigned
    found = read_once(root)
    assert set(STATIC | SENSORS) - set(found) == missing
    assert {key: found[key] for key in found} == {
        key: value for key, value in (STATIC | SENSORS).items() if key not in missing
    }


def test_an_empty_root_says_nothing_and_no_root_is_an_error(tmp_path: Path) -> None:
    clock = ManualClock(flowing=True)
    end_ms = clock.now().wall_ms + 60_000
    with opened(tmp_path, clock) as source:
        while clock.now().wall_ms < end_ms:
            assert source.read() == []
    with (
        pytest.raises(SourceError, match="expected the root directory of a host"),
        opened(tmp_path / "gone"),
    ):
        pass


def test_a_source_that_is_not_open_says_so(root: Path) -> None:
    config = SourceConfig(device_id="gateway", kind="gateway", port=str(root))
    source = HostSource(config, ManualClock())
    with pytest.raises(SourceError, match="before it is opened"):
        source.read()
    source.close()
    source.close()


def test_without_a_device_tree_the_processor_says_what_the_board_is(root: Path) -> None:
    for name in ("model", "serial-number"):
        (root / "sys/firmware/devicetree/base" / name).unlink()
    assert read_once(root)["host.model"] == STATIC["host.model"]
    assert read_once(root)["host.serial"] == SERIAL
    write(root, "proc/cpuinfo", f"Hardware\t: BCM2835\nRevision\t: a020d3\nSerial\t\t: {SERIAL}\n")
    assert read_once(root)["host.model"] == "Raspberry Pi 3 Model B Plus Rev 1.3"
    write(root, "proc/cpuinfo", "processor\t: 0\nSerial\t\t: 0000000000000000\n")
    assert not {"host.model", "host.serial"} & set(read_once(root))


@pytest.mark.parametrize("place", ["etc/os-release", "usr/lib/os-release"])
def test_the_system_is_named_in_either_place(root: Path, place: str) -> None:
    (root / "etc/os-release").unlink()
    write(root, place, 'ID="opensuse-leap"\nVERSION_ID="15.6"\n')
    assert read_once(root)["host.os"] == "opensuse-leap 15.6"


def interface(root: Path, name: str, index: int, last: int, *, physical: bool = True) -> None:
    base = f"sys/class/net/{name}"
    write(root, f"{base}/address", f"00:00:5e:00:53:{last:02x}\n")
    write(root, f"{base}/addr_assign_type", "0\n")
    write(root, f"{base}/ifindex", f"{index}\n")
    if physical:
        (root / base / "device").symlink_to("../../devices/nowhere")


def test_the_first_physical_interface_is_the_one_the_kernel_numbered_first(root: Path) -> None:
    interface(root, "docker0", 1, 0x10, physical=False)
    interface(root, "enx0000", 7, 0x11)
    interface(root, "wlan0", 3, 0x12)
    assert read_once(root)["host.mac"] == MAC
    write(root, "sys/class/net/eth0/ifindex", "9\n")
    assert read_once(root)["host.mac"] == "00:00:5e:00:53:12"
    write(root, "sys/class/net/eth0/ifindex", "9" * 5_000)
    write(root, "sys/class/net/wlan0/addr_assign_type", "3\n")
    assert read_once(root)["host.mac"] == "00:00:5e:00:53:11"


def test_a_bridge_is_no_hardware(root: Path) -> None:
    (root / "sys/class/net/eth0/device/uevent").unlink()
    (root / "sys/class/net/eth0/device").rmdir()
    assert "host.mac" not in read_once(root)


def test_the_bus_of_a_newer_board_is_found(root: Path) -> None:
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    bus = "soc@107c000000"
    write(root, f"sys/devices/platform/{bus}/{bus}:firmware/get_throttled", "80008\n")
    assert read_once(root)["host.throttled"] is True


def test_a_file_the_kernel_gives_in_pages_is_read_to_its_end(root: Path) -> None:
    padding = "".join(f"processor\t: {core}\nflags\t: {'x' * 200}\n" for core in range(64))
    write(root, "proc/cpuinfo", f"{padding}Serial\t\t: {SERIAL}\n")
    (root / "sys/firmware/devicetree/base/serial-number").unlink()
    found = read_once(root)
    assert (found["host.serial"], found["host.cores"]) == (SERIAL, 64)
    # A real one: the kernel gives smaps a page at a time, and it is longer than our bound.
    assert len(host._read(Path("/proc/self/smaps")) or b"") == 65_536


def test_every_recorded_machine_becomes_a_gateway(root: Path, shared_data: Path) -> None:
    cpu = [
        json.loads(line)
        for line in (shared_data / "host/cpuinfo_dev.jsonl").read_text().splitlines()
    ]
    packed = (shared_data / "host/os_release_dev.jsonl.xz").read_bytes()
    systems = [json.loads(line) for line in lzma.decompress(packed).splitlines()]
    for name in ("model", "serial-number"):
        (root / "sys/firmware/devicetree/base" / name).unlink()
    for row in cpu:
        write(root, "proc/cpuinfo", row["text"])
        found, expected = read_once(root), row["expect"]
        if expected.get("model"):
            assert found["host.model"] == expected["model"]
        serial = expected.get("serial")
        if serial:
            assert found.get("host.serial") == (serial if serial.strip("0") else None)
    for row in systems:
        write(root, "etc/os-release", row["content"])
        assert str(read_once(root)["host.os"]).split(" ")[0] in row["content"]
    assert (len(cpu), len(systems)) == (13, 115)


def test_this_very_machine_can_be_read() -> None:
    with opened(Path("/"), Clock(trust="system"), every="1s") as source:
        found = values_of(next_of(source))
    assert found["host.kernel"] == os.uname().release
    assert isinstance(found["host.uptime"], float)


@pytest.mark.clause("C05")
def test_no_identifier_is_logged_or_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = ManualClock(flowing=True)
    config = SourceConfig(device_id="gateway", kind="gateway", port=str(root))
    arrived: list[Sample] = []
    told: list[str] = []

    def deliver(samples: list[Sample]) -> None:
        arrived.extend(samples)
        if len(arrived) > 3:
            raise RuntimeError(f"the pipeline said {values_of(samples)} {CANARIES}")

    supervisor = Supervisor(
        [
            Configured(
                device_id="gateway",
                kind="gateway",
                make=lambda _: HostSource(config, clock),
                fresh_ms=30_000,
            )
        ],
        deliver,
        clock,
    )
    supervisor.start()
    while len(arrived) < 20:
        told += map(repr, supervisor.health())
    (root / "proc").rename(root / f"gone-{SERIAL}")
    supervisor.stop()
    told += map(repr, supervisor.health())
    try:
        HostSource(SourceConfig(device_id="g", kind="g", port=str(root / SERIAL)), clock).open()
    except AssentError as exc:
        told.append(f"{exc} {exc.hint}")
    said = caplog.text + "".join(told)
    assert "event=delivery-failed" in said
    assert "expected the root directory" in said
    for canary in CANARIES:
        assert canary in "".join(str(sample.values) for sample in arrived)
        assert canary not in said
