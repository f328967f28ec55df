# SPDX-License-Identifier: Apache-2.0
"""A clock that a test moves by hand: no test sleeps to make time pass."""

from __future__ import annotations

import threading
from pathlib import Path

from firmware_bridge.clock import Clock
from firmware_bridge.sample import Instant

# 2026-11-22T02:15:00Z
START_MS = 1_795_313_700_000


class ManualClock(Clock):
    """Stands still until `advance` or `step`; `wait` wakes when its time has been reached.

    With `flowing=True` a wait makes its own time pass at once, so that code which only waits runs
    through days in no time. `waits` lists the first thousand waits that were asked for, in ms.
    """

    def __init__(
        self,
        wall_ms: int = START_MS,
        *,
        mono_ms: int = 60_000,
        trusted: bool = True,
        flowing: bool = False,
        boot_id: str = "00000000-0000-4000-8000-000000000001",
    ) -> None:
        super().__init__(trust="system", root=Path("/nonexistent"))
        self.boot_id = boot_id
        self.trusted = trusted
        self.waits: list[int] = []
        self._wall_ms = wall_ms
        self._mono_ms = mono_ms
        self._flowing = flowing
        self._moved = threading.Condition()

    def now(self) -> Instant:
        with self._moved:
            return self._instant(self._wall_ms, self._mono_ms, trusted=self.trusted)

    def grounds(self) -> str:
        return "as a test says"

    def advance(self, duration_ms: int) -> None:
        """Time passes: both clocks move."""
        with self._moved:
            self._wall_ms += duration_ms
            self._mono_ms += duration_ms
            self._moved.notify_all()

    def step(self, offset_ms: int) -> None:
        """Somebody sets the wall clock; no time passes."""
        with self._moved:
            self._wall_ms += offset_ms
            self._moved.notify_all()

    def wait(self, duration_ms: int, event: threading.Event | None = None) -> bool:
        with self._moved:
            if len(self.waits) < 1000:
                self.waits.append(duration_ms)
            end_ms = self._mono_ms + duration_ms
            if self._flowing and not (event and event.is_set()):
                self._wall_ms += max(0, duration_ms)
                self._mono_ms += max(0, duration_ms)
                self._moved.notify_all()
            while self._mono_ms < end_ms and not (event and event.is_set()):
                # An event cannot notify a condition; look again shortly.
                self._moved.wait(0.002)
        return event is not None and event.is_set()
