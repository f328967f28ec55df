# SPDX-License-Identifier: Apache-2.0
"""What was done for one flow since the process began: counts, for status."""

from __future__ import annotations

from agent.path import Sealed
from agent.spool import Purged


class Tally:
    """What was done for one flow since the process began."""

    __slots__ = ("bytes", "messages", "purged", "readings")

    def __init__(self) -> None:
        self.messages = 0
        self.readings = 0
        self.bytes = 0
        self.purged = Purged(0, 0, 0)

    def add_stored(self, sealed: Sealed) -> None:
        """Counts a message that is on the disk."""
        self.messages += 1
        self.readings += sealed.readings
        self.bytes += len(sealed.data)

    def add_purged(self, purged: Purged) -> None:
        """Counts what was deleted unsent."""
        self.purged = Purged(
            self.purged.batches + purged.batches,
            self.purged.readings + purged.readings,
            self.purged.bytes + purged.bytes,
            self.purged.unconfirmed + purged.unconfirmed,
        )
