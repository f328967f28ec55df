# SPDX-License-Identifier: Apache-2.0
"""Where the sources' threads hand their samples to the owner, and wait while it is behind.

Law:
  - what one read of a source gave is cut into short lists: an act is heard between two of them;
  - a source that is faster than the owner waits; nothing piles up in memory;
  - nobody waits once the house is closing, or for a device that is closed.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Final

from firmware_bridge.sample import Sample

_WAITING_LISTS: Final = 16
_LIST: Final = 256  # some 4 ms of work; 64 cost a tenth of the whole path
# A source that waits looks this often whether the house is closing.
_PATIENCE_S: Final = 0.2


class Door(queue.Queue[list[Sample]]):
    """Lists of samples that wait for the owner; an empty one is a knock.

    Attributes:
        is_closing: nobody waits any more.
    """

    def __init__(self) -> None:
        super().__init__(_WAITING_LISTS)
        self.is_closing = False

    def hand_over(self, samples: list[Sample], ended: threading.Event | None) -> None:
        """Puts samples down, and waits for room; called by the sources' threads.

        Args:
            samples: what one read of a source gave.
            ended: set when the source is to be closed.
        """
        for first in range(0, len(samples), _LIST):
            part = samples[first : first + _LIST]
            while not (self.is_closing or (ended and ended.is_set())):
                try:
                    self.put(part, timeout=_PATIENCE_S)
                except queue.Full:
                    continue
                break

    def knock(self) -> None:
        """Wakes the owner who waits; where it is full, there is no need to."""
        with contextlib.suppress(queue.Full):
            self.put_nowait([])

    def all(self) -> list[Sample]:
        """Takes everything that stands there."""
        samples: list[Sample] = []
        while not self.empty():
            samples += self.get_nowait()
        return samples
