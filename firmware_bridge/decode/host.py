# SPDX-License-Identifier: Apache-2.0
"""What the files of a Linux host say about it: bytes in, values out.

Law:
  - a file that is malformed, empty or a placeholder gives None, never a guess and never an error;
  - a value is one line of printable text within its length, or a number within what is possible.

Standards: proc(5), os-release(5), machine-id(5), locale.conf(5), Documentation/ABI/testing/
sysfs-class-net and sysfs-class-thermal of the Linux kernel, devicetree specification §2.3.2.
Limits: the caller bounds how much of a file it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from firmware_bridge.decode import raspberry

_LONGEST: Final = 128  # characters of a name; the longest device-tree model in the wild has 60

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII)
_QUOTED: Final = re.compile(
    r"\"((?:[^\"\\`$]|\\.)*)\"|'([^']*)'|([^\s\"'\\`$#;&|()<>]*)(?:\s+#.*)?"
)
_ESCAPED: Final = re.compile(r"\\([\"\\`$])")
_OS_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KERNEL: Final = re.compile(r"Linux version (\S{1,128})\s")
_SERIAL: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{3,63}")
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INDEX: Final = re.compile(r"[0-9]{1,9}")
_LANGUAGE: Final = re.compile(r"([a-z]{2,3})(?:_([A-Z]{2}))?(?:\.[A-Za-z0-9-]+)?(?:@[a-z]+)?")
_UPTIME: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s[0-9.]+\s*")
_MILLIDEGREES: Final = re.compile(r"-?[0-9]{1,7}")
_CPU_ZONE: Final = re.compile(r"(cpu|soc)([-_0-9].*|therm)?|x86_pkg_temp|bcm2[0-9]{3}_thermal")
_THROTTLED: Final = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})")

# What silicon can be at and still answer; a sensor that failed reads far outside.
_COLDEST_C, _HOTTEST_C = -55.0, 150.0
# Bits of "get_throttled" of the Raspberry Pi firmware: frequency capped, throttled, soft limit.
# Bit 0, under-voltage, slows nothing by itself; bits 16 to 19 tell of the past.
_SLOWED_NOW: Final = 0b1110
_PERMANENT: Final = "0"  # NET_ADDR_PERM


class CpuInfo(msgspec.Struct, frozen=True):
    """/proc/cpuinfo, as far as it tells about the machine.

    Attributes:
        cores: how many processors it lists, 0 when none.
        hardware: the line `Hardware` of ARM kernels before 6.
        revision: the line `Revision`.
        serial: the line `Serial`, as it stands there.
        model: the line `Model`.
    """

    cores: int = 0
    hardware: str | None = None
    revision: str | None = None
    serial: str | None = None
    model: str | None = None


class OsRelease(msgspec.Struct, frozen=True):
    """`ID` and `VERSION_ID` of /etc/os-release."""

    id: str | None = None
    version_id: str | None = None


def cpu_info(data: bytes) -> CpuInfo:
    """Reads /proc/cpuinfo of any architecture."""
    found: dict[str, str] = {}
    processors = cpus = 0
    for line in _text(data).splitlines():
        key, colon, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if not colon:
            continue
        processors += key == "processor" and value.isdecimal()
        cpus += key == "cpu number" and value.isdecimal()  # s390 has no line `processor`
        plain = _plain(value)
        if plain is not None:
            found.setdefault(key, plain)
    return CpuInfo(
        cores=processors or cpus or int("Processor" in found),  # one core, ARM kernels before 3.8
        hardware=found.get("Hardware"),
        revision=found.get("Revision"),
        serial=found.get("Serial"),
        model=found.get("Model"),
    )


def model_of(info: CpuInfo) -> str | None:
    """The model that /proc/cpuinfo names, or that its revision code stands for.

    A revision code counts on the chips of a Raspberry Pi only: other boards use the same line.
    """
    if info.model is not None:
        return info.model
    if info.revision is None or not (info.hardware or "").startswith("BCM2"):
        return None
    known = raspberry.board(info.revision)
    return None if known is None else str(known)


def device_tree_text(data: bytes) -> str | None:
    """A string property of the device tree; only its first string, which ends with a NUL."""
    return _plain(_text(data).partition("\0")[0].strip())


def serial_number(text: str | None) -> str | None:
    """A hardware serial number; a placeholder of one repeated character is none."""
    if text is None or not _SERIAL.fullmatch(text) or len(set(text)) == 1:
        return None
    return text


def os_release(data: bytes) -> OsRelease:
    """Reads os-release; a key that stands twice counts as a shell would count it, the last."""
    found = dict(_assignments(data))
    name = found.get("ID")
    return OsRelease(
        id=name if name and _OS_ID.fullmatch(name) else None,
        version_id=_plain(found.get("VERSION_ID") or ""),
    )


def os_name(release: OsRelease) -> str | None:
    """`debian 12`; a rolling distribution has no version, one without an id has no name."""
    if release.id is None:
        return None
    return release.id if release.version_id is None else f"{release.id} {release.version_id}"


def kernel_release(data: bytes) -> str | None:
    """The release out of /proc/version, which also names who built it: that is left there."""
    match = _KERNEL.match(_text(data))
    return _plain(match[1]) if match else None


def mac_address(address: bytes, assigned: bytes | None) -> str | None:
    """The address of a network interface, if it is the hardware's own.

    Args:
        address: the file `address` of the interface.
        assigned: its file `addr_assign_type`, or None where the kernel has none; an address that
            is random, borrowed or set by hand is not the hardware's.

    Returns:
        Six lower-case octets with colons, or None.
    """
    text = _text(address).strip().lower()
    if assigned is not None and _text(assigned).strip() != _PERMANENT:
        return None
    if not _MAC.fullmatch(text) or text == "00:00:00:00:00:00":
        return None
    is_group = int(text[:2], 16) & 1
    return None if is_group else text


def interface_index(data: bytes) -> int | None:
    """The file `ifindex` of a network interface: in which order the kernel numbered it."""
    text = _text(data).strip()
    return int(text) if _INDEX.fullmatch(text) else None


def machine_id(data: bytes) -> str | None:
    """The 32 hex digits of /etc/machine-id, or None while it is `uninitialized`."""
    text = _text(data).strip()
    return text if _MACHINE_ID.fullmatch(text) and set(text) != {"0"} else None


def language(data: bytes) -> str | None:
    """`LANG` of locale.conf as a language tag (RFC 5646): `en_GB.UTF-8` is `en-GB`, `C` is None."""
    match = _LANGUAGE.fullmatch(dict(_assignments(data)).get("LANG") or "")
    if match is None:
        return None
    return match[1] if match[2] is None else f"{match[1]}-{match[2]}"


def is_processor_zone(data: bytes) -> bool:
    """Whether the file `type` of a thermal zone names the processor and not a board or a disk."""
    return _CPU_ZONE.fullmatch(_text(data).strip().lower()) is not None


def temperature_celsius(data: bytes) -> float | None:
    """The file `temp` of a thermal zone, in thousandths of a degree Celsius there."""
    text = _text(data).strip()
    if not _MILLIDEGREES.fullmatch(text):
        return None
    celsius = int(text) / 1000
    return celsius if _COLDEST_C <= celsius <= _HOTTEST_C else None


def is_throttled(data: bytes) -> bool | None:
    """Whether the firmware holds the processor back now: `throttled=0x50005` or bare hex digits."""
    match = _THROTTLED.fullmatch(_text(data).strip())
    return None if match is None else bool(int(match[1], 16) & _SLOWED_NOW)


def uptime_seconds(data: bytes) -> float | None:
    """Seconds since boot out of /proc/uptime."""
    match = _UPTIME.fullmatch(_text(data))
    return float(match[1]) if match else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _plain(text: str) -> str | None:
    sound = 0 < len(text) <= _LONGEST and text.isprintable() and "\ufffd" not in text
    return text if sound else None


def _assignments(data: bytes) -> Iterator[tuple[str, str]]:
    """Shell assignments as os-release(5) and locale.conf(5) allow them; other lines are skipped."""
    for line in _text(data).splitlines():
        assignment = _ASSIGNMENT.fullmatch(line.strip())
        value = _QUOTED.fullmatch(assignment[2]) if assignment else None
        if assignment is None or value is None:
            continue
        double, single, bare = value.groups()
        if double is not None:
            yield assignment[1], _ESCAPED.sub(r"\1", double)
        else:
            yield assignment[1], single if single is not None else bare
