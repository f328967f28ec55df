# SPDX-License-Identifier: Apache-2.0
"""Where the open batch of a lane ends: full or old, a little before what the policy allows.

Law:
  - a batch ends at a share of the policy's readings and age that is drawn for this batch of this
    lane alone, so that the batches of two flows do not begin and end with the same readings;
  - never above what the policy says.

Limits: what ends all lanes at once (a reload, a stop, an event that is urgent in several flows)
still ends them together.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final

from agent.path import Permit

Share = Callable[[], float]
"""Draws a number above 0 and up to 1."""

# Of 1,000 readings 250 lengths are left to chance, of ten minutes 150 s; an eighth more batches on
# average. A lower share costs more messages and signatures and hides no more after a few batches.
_LEAST: Final = 0.75

_RANDOM: Final = secrets.SystemRandom()


def drawn() -> float:
    """Draws a share evenly from three quarters to the whole."""
    return _RANDOM.uniform(_LEAST, 1.0)


class Ends:
    """The bounds of the open batch. Owned by the lane.

    Args:
        permit: says the most readings and the most age.
        share: draws what part of them this batch may have.
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
        """Draws the bounds of the next batch."""
        self.readings = math.ceil(self._permit.max_readings * self._share())
        self.age_ms = math.ceil(self._permit.max_age_ms * self._share())
