# SPDX-License-Identifier: Apache-2.0
"""The gateway itself as a device: what the files of its Linux say.

Path: files below a root directory → decode.host → **Sample**.
Law:
  - `host.model`, `host.serial`, `host.os`, `host.kernel`, `host.mac`, `host.machine-id`,
    `host.language` and `host.cores` change seldom: they come with the first read and the first of
    every hour, so that a flow agreed to later has them within the hour, and an upgrade shows;
  - `host.throttled`, `host.temperature` (°C) and `host.uptime` (s) come with every read;
  - a file that is missing or odd leaves its attribute out; only a missing root is an error;
  - `host.mac` is the permanent address of the physical interface that the kernel numbered first.

Security: reads world-readable files of /proc, /sys and /etc; never /proc/<pid>, the network or a
neighbour's address. Serial, MAC and machine id never stand in an error or a log line.
Limits: 64 KiB of a file, 64 entries of a directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from firmware_bridge.clock import Clock, Pace
from firmware_bridge.decode import host as decode
from firmware_bridge.sample import Device, Instant, Sample, Source, SourceError, Value
from firmware_bridge.sources.registry import SourceConfig

T = TypeVar("T")

STATIC: Final = frozenset(
    {
        "host.cores",
        "host.kernel",
        "host.language",
        "host.mac",
        "host.machine-id",
        "host.model",
        "host.os",
        "host.serial",
    }
)
"""Attributes of the first read, and of the first in every hour."""
SENSORS: Final = frozenset({"host.temperature", "host.throttled", "host.uptime"})
"""Attributes of every read."""

_STATIC_EVERY_MS: Final = 3_600_000
_MOST_BYTES: Final = 65_536  # /proc/cpuinfo of 64 cores has 40 kB
_MOST_ENTRIES: Final = 64
_LAST: Final = 1 << 31  # above every ifindex, which is a positive int

_DEVICE_TREE: Final = "sys/firmware/devicetree/base"
_OS_RELEASE: Final = ("etc/os-release", "usr/lib/os-release")
_LOCALE: Final = ("etc/locale.conf", "etc/default/locale")
_NET: Final = "sys/class/net"
_THERMAL: Final = "sys/class/thermal"
# drivers/firmware/raspberrypi.c of the Raspberry Pi kernel; the node moved with the bus on the 5.
_THROTTLED: Final = "sys/devices/platform"


def attributes(_config: SourceConfig) -> frozenset[str]:
    """What a host can deliver."""
    return STATIC | SENSORS


def make(config: SourceConfig, clock: Clock) -> Source:
    """Makes the source of this machine; `config.port` is the root directory, `/` by default."""
    return HostSource(config, clock)


class HostSource:
    """Reads the files of one root directory."""

    def __init__(self, config: SourceConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._root = Path(config.port or "/")
        self._device: Device | None = None
        self._pace: Pace | None = None
        self._static_hour: int | None = None  # in which hour what is static last came
        self._shapes: dict[tuple[str, ...], tuple[str, ...]] = {}

    def open(self) -> None:
        """Looks who this machine is.

        Raises:
            SourceError: the root directory is not there.
        """
        if not self._root.is_dir():
            raise SourceError("expected the root directory of a host, got no directory")
        serial = _serial(self._root, decode.cpu_info(_read(self._root / "proc/cpuinfo") or b""))
        self._device = Device(self._config.device_id, self._config.kind, serial)
        self._pace = Pace(self._clock, int(self._config.every))
        self._static_hour = None

    def read(self) -> list[Sample]:
        """Gives the sensors once a period, and what is static with the first of them.

        Raises:
            SourceError: the source is not open.
        """
        if self._pace is None or self._device is None:
            raise SourceError("the host is read before it is opened")
        if not self._pace.is_due():
            return []
        now = self._clock.now()
        samples = []
        hour = now.wall_ms // _STATIC_EVERY_MS
        if hour != self._static_hour:
            self._static_hour = hour
            samples.append(self._sample(self._device, now, _static(self._root)))
        samples.append(self._sample(self._device, now, _sensors(self._root)))
        return [sample for sample in samples if sample.names]

    def close(self) -> None:
        """Forgets the machine; there is nothing to close."""
        self._pace = self._device = None

    def _sample(self, device: Device, now: Instant, found: dict[str, Value | None]) -> Sample:
        there = {name: value for name, value in found.items() if value is not None}
        names = tuple(there)
        return Sample(device, now, self._shapes.setdefault(names, names), tuple(there.values()))


def _static(root: Path) -> dict[str, Value | None]:
    cpu_info = decode.cpu_info(_read(root / "proc/cpuinfo") or b"")
    tree_model = _decoded(root / _DEVICE_TREE / "model", decode.device_tree_text)
    return {
        "host.model": tree_model or decode.model_of(cpu_info),
        "host.serial": _serial(root, cpu_info),
        "host.os": _first(root, _OS_RELEASE, lambda data: decode.os_name(decode.os_release(data))),
        "host.kernel": _decoded(root / "proc/version", decode.kernel_release),
        "host.mac": _mac(root),
        "host.machine-id": _decoded(root / "etc/machine-id", decode.machine_id),
        "host.language": _first(root, _LOCALE, decode.language),
        "host.cores": cpu_info.cores or None,
    }


def _sensors(root: Path) -> dict[str, Value | None]:
    return {
        "host.throttled": _throttled(root),
        "host.temperature": _temperature(root),
        "host.uptime": _decoded(root / "proc/uptime", decode.uptime_seconds),
    }


def _serial(root: Path, cpu_info: decode.CpuInfo) -> str | None:
    in_tree = _decoded(root / _DEVICE_TREE / "serial-number", decode.device_tree_text)
    return decode.serial_number(in_tree) or decode.serial_number(cpu_info.serial)


def _mac(root: Path) -> str | None:
    """The kernel numbers what is soldered on before what is plugged in later."""
    numbered = []
    for name in _entries(root / _NET, ""):
        interface = root / _NET / name
        # A bridge, tunnel or container end has no hardware behind it, and so no `device`.
        if os.path.lexists(interface / "device"):
            index = _decoded(interface / "ifindex", decode.interface_index)
            numbered.append((_LAST if index is None else index, name))
    for _, name in sorted(numbered):
        address = _read(root / _NET / name / "address") or b""
        found = decode.mac_address(address, _read(root / _NET / name / "addr_assign_type"))
        if found is not None:
            return found
    return None


def _temperature(root: Path) -> float | None:
    for name in _entries(root / _THERMAL, "thermal_zone"):
        zone = root / _THERMAL / name
        if decode.is_processor_zone(_read(zone / "type") or b""):
            return _decoded(zone / "temp", decode.temperature_celsius)
    return None


def _throttled(root: Path) -> bool | None:
    for bus in _entries(root / _THROTTLED, "soc"):
        node = root / _THROTTLED / bus / f"{bus}:firmware" / "get_throttled"
        found = _decoded(node, decode.is_throttled)
        if found is not None:
            return found
    return None


def _first(root: Path, names: tuple[str, ...], read: Callable[[bytes], T | None]) -> T | None:
    """Only the first file that is there counts: a later one is what it overrides."""
    for name in names:
        data = _read(root / name)
        if data is not None:
            return read(data)
    return None


def _decoded(path: Path, read: Callable[[bytes], T | None]) -> T | None:
    data = _read(path)
    return None if data is None else read(data)


def _read(path: Path) -> bytes | None:
    """The beginning of a file, or None; a pipe in its place does not block."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return _read_all(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def _read_all(handle: int) -> bytes:
    data = b""
    while len(data) < _MOST_BYTES:
        # /proc gives a page at a time, whatever was asked for.
        part = os.read(handle, _MOST_BYTES - len(data))
        if not part:
            break
        data += part
    return data


def _entries(directory: Path, prefix: str) -> list[str]:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return []
    return sorted(name for name in names if name.startswith(prefix))[:_MOST_ENTRIES]
