# SPDX-License-Identifier: Apache-2.0
"""Decides which losses of the broker are worth a line in the log; no I/O.

Law: the first is told at once; the same again is counted, and told every five minutes; another
reason is news. After a connection that stood for a while everything is news again.
"""

from __future__ import annotations

from typing import Final

INTERVAL_S: Final = 300.0  # a broker that is away for a night leaves some hundred lines
STEADY_S: Final = 10.0  # shorter is no connection that stood: a broker that hangs up on us
_MAX_REASONS: Final = 16


class Losses:
    """What was told, and what was only counted."""

    def __init__(self) -> None:
        self._tries = 0
        self._told: dict[str, float] = {}

    def note(self, reason: str, now: float, *, stood_s: float = 0.0) -> int | None:
        """Takes note of a loss.

        Args:
            reason: in words.
            now: monotonic seconds.
            stood_s: for how many seconds the subscription had stood.

        Returns:
            How many tries have failed since it last stood, when this is to be told; else None.
        """
        if stood_s >= STEADY_S:
            self._tries = 0
            self._told.clear()
        self._tries += 1
        last = self._told.get(reason)
        if last is not None and now - last < INTERVAL_S:
            return None
        if len(self._told) >= _MAX_REASONS:
            self._told.clear()
        self._told[reason] = now
        return self._tries
