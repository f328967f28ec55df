# SPDX-License-Identifier: Apache-2.0
"""What vouches for the wall clock: a file that a time service touched, or a clock with a battery.

Law:
  - a file vouches whose mtime lies between this boot and now by the very clock it vouches for: one
    of an earlier boot proves nothing;
  - a clock that was stepped by hand since, by more than two seconds, loses its trust until the file
    is touched again;
  - a hardware clock vouches only where the technician said that there is a good one, and once the
    floor of time is known. It must be the one that set the wall clock at boot, it must be readable,
    it must agree with the wall clock within two seconds and what two crystals drift apart in this
    boot, and the wall clock must not tell a time that is known to be past;
  - a hardware clock that agreed and cannot be read later vouches on for as long as the wall clock
    is not set: it is the wall clock that is trusted, and that needs no battery while there is
    power. One that can be read and disagrees takes its word back.

Evidence: `/run/systemd/timesync/synchronized` is touched by systemd-timesyncd at each
synchronisation (systemd-timesyncd.service(8)); `/run/assent-clock/synchronised` by what waits for
another time service (systemd/time-drop-ins). `/sys/class/rtc/rtcN/hctosys` is 1 for the clock that
set the time at the last boot (Linux, drivers/rtc/sysfs.c), and reading `since_epoch` fails where
the driver knows that the oscillator stopped (docs/decisions/0023).
What is no evidence, and why: `/run/chrony` holds a pid file and sockets, which are there before
chrony has reached any server; chrony's drift file and `/var/lib/systemd/timesync/clock` outlive a
boot; `time-sync.target` is reached when a wait for a time service has failed, too.

Security: reads files only. Who may write in `/run/systemd/timesync` or `/run/assent-clock` is
trusted, and who may set both the hardware clock and the wall clock.
Limits: Linux. A small step by hand while the program does not run is not found where no service
corrects it. Files are looked at once a second at most, the hardware clock once a minute. One that
lost some days, and whose driver does not know, is found only where the floor lies later. One that
keeps local time disagrees wherever that is not UTC.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

# An os.stat for each of thousands of samples a second would cost more than the samples.
_LOOK_EVERY_MS: Final = 1_000
# A read of a clock on an I2C bus takes a millisecond, and up to a second where the bus is stuck.
_READ_EVERY_MS: Final = 60_000
# File times come from the kernel's coarse clock, up to a tick (10 ms at HZ=100) behind.
_SLACK_MS: Final = 1_000
# It counts whole seconds, and the kernel sets the wall clock to half past the one it reads.
_AGREES_MS: Final = 2_000
# Parts per million. A watch crystal: 20 as made, 0.04 (T - 25 °C)² more, 49 at -10 °C and at 60 °C
# (MAX6902 data sheet, page 14). The machine's own: 46, four seconds a day. Together 115.
_DRIFT_PPM: Final = 120
# The floor may rest on a wall clock that ran ahead of the hardware clock: a year of _DRIFT_PPM.
_AHEAD_MS: Final = 3_600_000
# No gateway ran this before: a clock that begins anew at 1970 or 2000 is found without a floor.
_EARLIEST_MS: Final = 1_793_491_200_000  # 2026-11-01
_SECONDS: Final = re.compile(rb"[0-9]{1,11}\n?")


class Witness(enum.Enum):
    """Who vouches for the clock; the value goes on after *trusted*."""

    TIMESYNCD = "systemd-timesyncd has set it"
    SERVICE = "a time service has set it"
    RTC = "a hardware clock has set it, and agrees with it"


class Doubt(enum.Enum):
    """Why nobody vouches for the clock; the value goes on after *not trusted*."""

    NOBODY = "no time service has set it"
    STALE = "it was set by hand since a time service set it, or that was before this boot"
    UNASKED = "no time service has set it, and the hardware clock was not looked at"
    NO_RTC = "neither a time service nor a hardware clock has set it; is a battery empty?"
    SILENT = "no time service has set it, and the hardware clock cannot be read"
    APART = "no time service has set it, and the hardware clock tells another time"
    SET = "no time service has set it, and it was set by hand since the hardware clock agreed"
    PAST = "the hardware clock tells a time that is surely past; is its battery empty?"


Finding = Witness | Doubt
Floor = Callable[[int], int]
"""From ms since boot to the latest instant that is known to be past by then, ms since 1970 UTC."""

_FILES: Final = (
    ("run/systemd/timesync/synchronized", Witness.TIMESYNCD),
    ("run/assent-clock/synchronised", Witness.SERVICE),
)


class Services:
    """The files that time services touch.

    Args:
        root: what they lie below.
    """

    def __init__(self, root: Path) -> None:
        self._files = tuple((root / name, witness) for name, witness in _FILES)
        self._looked_ms: int | None = None
        self._found: Finding = Doubt.NOBODY
        # Of each file when it was touched, and when this boot began by the clock of then.
        self._known: dict[Witness, tuple[int, int]] = {}

    def look(self, wall_ms: int, mono_ms: int) -> Finding:
        """Whether one of them vouches for this reading of the two clocks."""
        if self._looked_ms is None or mono_ms - self._looked_ms >= _LOOK_EVERY_MS:
            self._found = self._look(wall_ms, mono_ms)
            self._looked_ms = mono_ms
        return self._found

    def _look(self, wall_ms: int, mono_ms: int) -> Finding:
        found: Finding = Doubt.NOBODY
        for path, witness in self._files:
            try:
                touched_ms = os.stat(path).st_mtime_ns // 1_000_000  # noqa: PTH116 - ten times faster
            except OSError:
                continue
            began_ms = wall_ms - mono_ms
            if began_ms - _SLACK_MS <= touched_ms <= wall_ms + _SLACK_MS:
                if self._known.get(witness, (0, 0))[0] != touched_ms:
                    self._known[witness] = touched_ms, began_ms
                if abs(began_ms - self._known[witness][1]) <= _AGREES_MS:
                    return witness
            found = Doubt.STALE
        return found


class _Agreed(msgspec.Struct, frozen=True):
    """When this boot began by the wall clock, while the hardware clock agreed with it; in ms."""

    began_ms: int


class HardwareClock:
    """The clock with a battery that set the wall clock at boot.

    Args:
        root: what `sys/class/rtc` lies below.
    """

    def __init__(self, root: Path) -> None:
        self._place = root / "sys/class/rtc"
        self._floor: Floor | None = None
        self._read_ms: int | None = None
        self._found: _Agreed | Doubt = Doubt.UNASKED

    def stand_on(self, floor: Floor) -> None:
        """Takes what is known to be past; before that it vouches for nothing."""
        self._floor = floor

    def look(self, wall_ms: int, mono_ms: int) -> Finding:
        """Whether it vouches for this reading of the two clocks."""
        if self._floor is None:
            return Doubt.UNASKED
        if self._read_ms is None or mono_ms - self._read_ms >= _READ_EVERY_MS:
            self._read_ms = mono_ms
            self._found = self._compare(wall_ms, mono_ms)
        found = self._found
        if isinstance(found, Doubt):
            return found
        if abs(wall_ms - mono_ms - found.began_ms) > _AGREES_MS:
            return Doubt.SET
        if wall_ms < max(_EARLIEST_MS, self._floor(mono_ms) - _AHEAD_MS):
            return Doubt.PAST
        return Witness.RTC

    def _compare(self, wall_ms: int, mono_ms: int) -> _Agreed | Doubt:
        read = self._read()
        if isinstance(read, Doubt):
            return self._found if isinstance(self._found, _Agreed) else read
        apart_ms = abs(wall_ms - (1_000 * read + 500))
        if apart_ms > _AGREES_MS + mono_ms * _DRIFT_PPM // 1_000_000:
            return Doubt.APART
        return _Agreed(wall_ms - mono_ms)

    def _read(self) -> int | Doubt:
        """Its seconds since 1970, or why there are none."""
        try:
            clocks = sorted(self._place.iterdir())
        except OSError:
            return Doubt.NO_RTC
        for clock in clocks:
            if _text(clock / "hctosys").strip() == b"1":
                told = _text(clock / "since_epoch")
                return int(told) if _SECONDS.fullmatch(told) else Doubt.SILENT
        return Doubt.NO_RTC


def _text(path: Path) -> bytes:
    """The few bytes of an attribute of the kernel; empty where the driver refuses them."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(32) or b""
    except OSError:
        return b""
