# SPDX-License-Identifier: Apache-2.0
"""Wall time, monotonic time, boot id, and whether the wall clock is trusted.

Law:
  - the wall clock is trusted when there is evidence that it is right (`evidence`), or when the
    technician said so in agent.toml; nothing else counts;
  - a time that was told (`tell`) is carried on by the time since boot, and counts for as long as
    the machine's own clock has no evidence;
  - intervals are measured on the monotonic clock, which counts suspended time and is never stepped;
  - a boot that cannot be named is a boot of its own.

Security: reads files below its root only; `evidence` says who is trusted with them.
Limits: Linux.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from pathlib import Path
from typing import Final, Literal

from firmware_bridge.evidence import Finding, Floor, HardwareClock, Services, Witness
from firmware_bridge.sample import Instant

TrustRule = Literal["synchronised", "rtc", "system"]
"""`synchronised`: a time service must have said so. `rtc`: or a clock with a battery, which is
checked. `system`: the clock is believed as it is."""

_BOOT_ID: Final = "proc/sys/kernel/random/boot_id"
_BOOT_ID_SHAPE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# The two clocks are read one after the other; a thread that was sent away in between reads again,
# or its instants would be off by as long as it was away.
_TRIES: Final = 5
_APART_NS: Final = 200_000
# The wall clock may be set while a thread waits, and a machine may sleep: it looks again so often.
_SLICE_MS: Final = 1_000


class Clock:
    """The machine's clocks; safe to share between threads.

    Attributes:
        boot_id: names this boot; the same for every process of it, unless the kernel hides it.
    """

    def __init__(self, *, trust: TrustRule = "synchronised", root: Path = Path("/")) -> None:
        self.boot_id = _read_boot_id(root)
        self._believed = trust == "system"
        self._services = Services(root)
        self._hardware = HardwareClock(root) if trust == "rtc" else None
        self._told_ms: int | None = None

    def now(self) -> Instant:
        """The wall clock, the time since boot, and whether the wall clock can be trusted."""
        wall_ms, mono_ms = self._read()
        trusted = self._believed or isinstance(self._look(wall_ms, mono_ms), Witness)
        return self._instant(wall_ms, mono_ms, trusted=trusted)

    def grounds(self) -> str:
        """Why the wall clock is trusted or is not, for a person; empty where it is by setting."""
        return "" if self._believed else self._look(*self._read()).value

    def stand_on(self, floor: Floor) -> None:
        """Takes what is known to be past, without which no hardware clock vouches for anything."""
        if self._hardware is not None:
            self._hardware.stand_on(floor)

    def _read(self) -> tuple[int, int]:
        for _ in range(_TRIES):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            wall = time.time_ns()
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if after - before < _APART_NS:
                break
        return wall // 1_000_000, before // 1_000_000

    def _look(self, wall_ms: int, mono_ms: int) -> Finding:
        found = self._services.look(wall_ms, mono_ms)
        if isinstance(found, Witness) or self._hardware is None:
            return found
        return self._hardware.look(wall_ms, mono_ms)

    def tell(self, offset_ms: int) -> None:
        """Takes in what time it is, from one who may say so; any thread may call it.

        Args:
            offset_ms: when this boot began, in ms since 1970 UTC.
        """
        self._told_ms = offset_ms

    def _instant(self, wall_ms: int, mono_ms: int, *, trusted: bool) -> Instant:
        if trusted or self._told_ms is None:
            return Instant(wall_ms, mono_ms, trusted)
        return Instant(mono_ms + self._told_ms, mono_ms, trusted=True, told=True)

    def wait(self, duration_ms: int, event: threading.Event | None = None) -> bool:
        """Waits until the event is set or the time has passed.

        Args:
            duration_ms: at most so long; nothing is waited for when it is not above zero.
            event: what ends the wait early.

        Returns:
            Whether the event is set.
        """
        seconds = max(0, duration_ms) / 1000
        if event is not None:
            return event.wait(seconds)
        time.sleep(seconds)
        return False


class WakingClock(Clock):
    """Another clock, whose waits an event ends: for a source that is to be closed.

    Args:
        clock: tells the time and waits.
        event: ends every wait that names no other.
    """

    def __init__(self, clock: Clock, event: threading.Event) -> None:
        self.boot_id = clock.boot_id
        self._clock = clock
        self._event = event

    def now(self) -> Instant:
        """What the other clock tells."""
        return self._clock.now()

    def wait(self, duration_ms: int, event: threading.Event | None = None) -> bool:
        """As the other clock waits, for the event of this one where none is named."""
        return self._clock.wait(duration_ms, event or self._event)


class Pace:
    """A period to keep: says when the next read is due, and blocks a short slice until then.

    While the clock is trusted, reads are due at UTC multiples of the period, the first one too: the
    phase of a loop that began at any moment would tell one gateway from all others in every flow it
    feeds. Before that they are a period apart. A source that is late does not catch up.
    """

    def __init__(self, clock: Clock, every_ms: int) -> None:
        self._clock = clock
        self._every_ms = max(1, every_ms)
        self._last = clock.now()

    def is_due(self) -> bool:
        """Waits at most a second for the next read, and says whether it is due now."""
        early_ms = self._early_ms(self._clock.now())
        if early_ms > 0:
            self._clock.wait(min(early_ms, _SLICE_MS))
        now = self._clock.now()
        if self._early_ms(now) > 0:
            return False
        self._last = now
        return True

    def _early_ms(self, now: Instant) -> int:
        last, every_ms = self._last, self._every_ms
        since_ms = now.mono_ms - last.mono_ms
        if not (now.trusted and last.trusted):
            return every_ms - since_ms
        # A clock that was set back must not silence a source: after two periods it reads anyway.
        return min(
            every_ms - last.wall_ms % every_ms - (now.wall_ms - last.wall_ms),
            2 * every_ms - since_ms,
        )


def _read_boot_id(root: Path) -> str:
    try:
        text = (root / _BOOT_ID).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        text = ""
    # A random id claims less than a guessed one: nothing is taken to be of the same boot.
    return text if _BOOT_ID_SHAPE.fullmatch(text) else str(uuid.uuid4())
