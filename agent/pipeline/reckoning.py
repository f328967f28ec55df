# SPDX-License-Identifier: Apache-2.0
"""By what clock the lanes count now, and whether that clock is another one meanwhile.

Law:
  - a clock is another one when its trust has come or gone, and when a trusted one was set: wall
    clock and time since boot have moved apart. Slewing moves both;
  - what came by the clock of before is taken before lanes count by the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from firmware_bridge.sample import Instant, Sample

STEP_MS: Final = 2_000
"""A clock that was set by less than this is the same one: readings have whole seconds."""
DOUBT_MS: Final = 600_000
"""A clock that was set wrongly is set right again; nothing is dropped for its age meanwhile."""


class Reckoning(msgspec.Struct, frozen=True):
    """A clock as the lanes know it.

    Attributes:
        trusted: whether it is.
        offset_ms: the wall clock less the time since boot.
        set_ms: when it was set, in ms since boot; None where it was not.
        told: whether a recipient told it.
    """

    trusted: bool = False
    offset_ms: int = 0
    set_ms: int | None = None
    told: bool = False

    def after(self, now: Instant) -> Reckoning:
        """The clock of now, which was this one before."""
        set_ms = now.mono_ms if self.has_stepped(now) else self.set_ms
        return Reckoning(now.trusted, now.wall_ms - now.mono_ms, set_ms, now.told)

    def is_in_doubt(self, now: Instant) -> bool:
        """Whether it was set a short while ago: too short to drop anything by it."""
        return self.set_ms is not None and now.mono_ms - self.set_ms < DOUBT_MS

    def differs(self, now: Instant) -> bool:
        """Whether the clock is another one now."""
        is_another = (now.trusted, now.told) != (self.trusted, self.told)
        return is_another or self.has_stepped(now)

    def has_stepped(self, now: Instant) -> bool:
        """Whether a clock that was trusted, and is, was set meanwhile."""
        moved_ms = now.wall_ms - now.mono_ms - self.offset_ms
        return self.trusted and now.trusted and abs(moved_ms) > STEP_MS

    def parted(self, samples: Iterable[Sample], now: Instant) -> tuple[list[Sample], list[Sample]]:
        """Parts what came by this clock from what came by the one of now, in their order."""
        parts: tuple[list[Sample], list[Sample]] = ([], [])
        for sample in samples:
            parts[not self._told(sample.at, now)].append(sample)
        return parts

    def _told(self, at: Instant, now: Instant) -> bool:
        if at.trusted != now.trusted:
            return at.trusted == self.trusted
        mine = abs(at.wall_ms - at.mono_ms - self.offset_ms)
        return mine < abs(at.wall_ms - at.mono_ms - (now.wall_ms - now.mono_ms))

    def at(self, now: Instant) -> Instant:
        """What this clock would tell now, had nobody set it."""
        return Instant(now.mono_ms + self.offset_ms, now.mono_ms, self.trusted)
