# SPDX-License-Identifier: Apache-2.0
"""The clocks of the gateway as its programs see them, and the machine below which they look.

`tests/faults/launch.py` has each program read them from files; the wall clock is read at every
moment, the boot once.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from tests.faults.history import Step

_BOOT_ID = "proc/sys/kernel/random/boot_id"
_SYNCHRONISED = "run/systemd/timesync/synchronized"


class Timepiece:
    """The clocks of one gateway.

    Args:
        root: for its files.

    Attributes:
        shift: file of how many ms the wall clock goes ahead.
        machine: below it the gateway looks for its boot and for evidence of a time service.
        steps: how far the clock went ahead, where it is believed.
    """

    def __init__(self, root: Path) -> None:
        self.shift = root / "clock"
        self.machine = root / "machine"
        self.steps: list[Step] = []

    def begin(self) -> None:
        """The clock is right, and the machine runs as long as ours does."""
        self.shift.write_bytes(bytes(8))
        boot_id = self.machine / _BOOT_ID
        boot_id.parent.mkdir(parents=True)
        boot_id.write_text((Path("/") / _BOOT_ID).read_text())
        (self.machine / _SYNCHRONISED).parent.mkdir(parents=True)
        (self.machine / "booted").write_bytes(bytes(8))
        self.steps.append(Step(int(time.time() * 1000), 0))

    def set(self, ahead_ms: int) -> None:
        """Sets the wall clock to so much ahead of ours, or behind; it is believed."""
        self.steps.append(Step(int(time.time() * 1000), ahead_ms))
        self._write(ahead_ms)

    def reboot(self) -> None:
        """The machine begins anew in 1970, and nobody vouches for that; nothing may run."""
        (self.machine / _BOOT_ID).write_text(f"{uuid.uuid4()}\n")
        up_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        (self.machine / "booted").write_bytes(up_ms.to_bytes(8, "little", signed=True))
        (self.machine / _SYNCHRONISED).unlink(missing_ok=True)
        self._write(60_000 - int(time.time() * 1000))

    @property
    def boot_id(self) -> str:
        """Names the present boot of the machine."""
        return (self.machine / _BOOT_ID).read_text().strip()

    def learn(self) -> None:
        """A time service sets the clock, and says so."""
        self._write(0)
        (self.machine / _SYNCHRONISED).touch()

    def _write(self, ahead_ms: int) -> None:
        with self.shift.open("r+b") as file:  # never truncated: programs have it mapped
            file.write(ahead_ms.to_bytes(8, "little", signed=True))
