# SPDX-License-Identifier: Apache-2.0
"""The floor of time: what a trusted clock has told is past, and stays so.

Path: clock → **floor** → gate, ledger, form; and the spool's copy of it → uplink.

Law:
  - the floor is the latest instant that a trusted clock told, and the time since boot that has
    passed since: in the same boot exactly, in a later one at least all the time since that boot;
  - it never goes down, whatever the clock says: what has ended stays ended when the clock is set
    back, or is not trusted;
  - it is on the disk before an end that somebody waits for takes effect, after a jump of the clock,
    and every ten minutes, in place (`agent/halves.py`): what a crash can take from it reaches over
    no end;
  - a floor that is lost, or that lost a half which may have been the newer one, is raised to the
    newest instants that a trusted clock left elsewhere: the ledger's and the spool's.

Security: whoever can write the file can lower the floor, and set the clock back.
Limits: a clock that was trusted while it was ahead leaves a floor that is ahead: what ends before
it has ended, and status says so (docs/decisions/0011). One owner, under the instance lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from agent.halves import Halves
from firmware_bridge.sample import Instant

KEEP_EVERY_MS: Final = 600_000
"""Milliseconds of uptime between two writes: 144 a day, to spare the SD card."""
JUMP_MS: Final = 1_000
"""A trusted clock that is this much further than the file would say is written down at once."""

log = logging.getLogger(__name__)


class Mark(msgspec.Struct, frozen=True):
    """An instant that a trusted clock told, and the time since boot when it did; both in ms."""

    at_ms: int
    boot_ms: int

    def later(self, boot_ms: int) -> int:
        """The floor that follows from it, at a time since this or a later boot."""
        # A boot that is younger than the mark began after it: all of its time has passed since.
        return self.at_ms + (boot_ms - self.boot_ms if boot_ms >= self.boot_ms else boot_ms)


class Floor:
    """The floor of one gateway. Made by `open`; one owner, under the instance lock.

    Args:
        file: its file.
        mark: what it rests on.
        kept: what the file says for certain, or None where it is lost or was never written.
    """

    def __init__(self, file: Halves, mark: Mark, kept: Mark | None) -> None:
        self._file = file
        self._mark = mark
        self._kept = kept
        self._refusal: str | None = None

    @classmethod
    def open(cls, path: Path, now: Instant) -> Floor:
        """Reads the floor; one that is missing or damaged begins at zero, see `raise_to`.

        Args:
            path: its file; the directory exists.
            now: now.
        """
        file = Halves(path)
        kept = _read(file)
        at_ms = kept.later(now.mono_ms) if kept else 0
        return cls(file, Mark(at_ms, now.mono_ms), None if file.is_torn else kept)

    @property
    def is_lost(self) -> bool:
        """Whether no file says for certain where it is: then `raise_to` is told what is known."""
        return self._kept is None

    @property
    def kept(self) -> Mark | None:
        """What the file says for certain."""
        return self._kept

    def at(self, mono_ms: int) -> int:
        """Where it is at a time since boot, ms since 1970 UTC; any thread may ask."""
        return self._mark.later(mono_ms)

    def past_ms(self, now: Instant) -> int:
        """The latest instant known to be past, ms since 1970 UTC; the clock's own when trusted."""
        floor_ms = self._mark.later(now.mono_ms)
        return max(now.wall_ms, floor_ms) if now.trusted else floor_ms

    def behind_ms(self, now: Instant) -> int:
        """By how many ms a trusted clock is behind what one told before; 0 where it is not."""
        return max(0, self._mark.later(now.mono_ms) - now.wall_ms) if now.trusted else 0

    def raise_to(self, at_ms: int, now: Instant) -> None:
        """Takes in that an instant is past, from elsewhere than the clock; never lowers.

        Args:
            at_ms: the instant, ms since 1970 UTC.
            now: now.
        """
        self._mark = Mark(max(at_ms, self._mark.later(now.mono_ms)), now.mono_ms)

    def note(self, now: Instant, ends: Iterable[int] = ()) -> bool:
        """Takes in what the clock says, and writes it down where losing it could do harm.

        Args:
            now: now.
            ends: the ends that anybody waits for, in ms since 1970 UTC.

        Returns:
            Whether it was written down, durably.
        """
        self._mark = Mark(self.past_ms(now), now.mono_ms)
        return self._is_due(ends) and self._keep()

    def _is_due(self, ends: Iterable[int]) -> bool:
        mark, kept = self._mark, self._kept
        if kept is None:
            return mark.at_ms > 0
        return (
            mark.boot_ms < kept.boot_ms
            or mark.boot_ms - kept.boot_ms >= KEEP_EVERY_MS
            or mark.at_ms - kept.later(mark.boot_ms) >= JUMP_MS
            or any(kept.at_ms < end <= mark.at_ms for end in ends)
        )

    def _keep(self) -> bool:
        try:
            self._file.write(msgspec.structs.asdict(self._mark))
        except OSError as exc:
            if exc.strerror != self._refusal:
                log.error("floor of time not written, tried again reason=%s", exc.strerror)
            self._refusal = exc.strerror
            return False
        self._kept, self._refusal = self._mark, None
        return True


def _read(file: Halves) -> Mark | None:
    try:
        return msgspec.convert(file.read(), Mark)
    except FileNotFoundError:
        pass
    except OSError as exc:
        log.error("floor of time not read reason=%s", exc.strerror)
    except ValueError:  # msgspec's too
        log.error("floor of time is damaged")
    return None
