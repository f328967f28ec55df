# SPDX-License-Identifier: Apache-2.0
"""Where the open batch of a lane ends: when it is full or old.

Law:
  - the first batch ends at a share of the policy's readings and age that is drawn for this lane
    alone, the next ones at the whole: so the batches of two flows, which began together, do not end
    and begin with the same readings ever after;
  - a batch that ended for another reason (an urgent event, a reload, a flush) may have ended in
    other lanes too: the one after it is drawn again.

Limits: what ends all lanes at once still ends one batch of each at the same reading.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final

from agent.path import Permit

Share = Callable[[], float]
"""Draws a number above 0 and up to 1."""

# Of 1,000 readings 500 places are left to chance, of ten minutes 300 s. Drawn for every batch it
# would cost a third more messages, and leave the next end as near to this one.
_LEAST: Final = 0.5

_RANDOM: Final = secrets.SystemRandom()


def drawn() -> float:
    """Draws a share evenly from a half to the whole."""
    return _RANDOM.uniform(_LEAST, 1.0)


class Ends:
    """The bounds of the open batch. Owned by the lane.

    Args:
        permit: says the most readings and the most age.
        share: draws what part of them a batch after a common end may have.
    """

    def __init__(self, permit: Permit, share: Share) -> None:
        self._permit = permit
        self._share = share
        self.readings = 0
        """It is full at this many readings."""
        self.age_ms = 0
        """It is old when its oldest value waits as long."""
        self.draw()

    def draw(self) -> None:
        """Draws the bounds of a batch that begins when those of other lanes may."""
        self.readings = math.ceil(self._permit.max_readings * self._share())
        self.age_ms = math.ceil(self._permit.max_age_ms * self._share())

    def go_on(self) -> None:
        """Gives the next batch all the policy allows: the one before ended by itself."""
        self.readings = self._permit.max_readings
        self.age_ms = self._permit.max_age_ms
