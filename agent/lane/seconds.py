# SPDX-License-Identifier: Apache-2.0
"""The instants under which readings leave: whole seconds.

Law:
  - an instant leaves rounded down to its second; in the second in which the yes or the epoch began
    it leaves as the next one, so that nothing stands before the yes;
  - order is kept: of two instants the later one never leaves as the earlier;
  - windows are stamped at their start, which is the same for every appliance, and stay as they are.

Why: an instant to the millisecond joins one appliance's rows in two flows, at two recipients or in
two epochs, row by row. What is polled is polled at UTC multiples of its period
(`firmware_bridge.clock.Pace`), so that in whole seconds it stands beside every other appliance's.
docs/decisions/0007-whole-seconds.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SECOND_MS: Final = 1_000


def first_second(begin_ms: int) -> int:
    """Gives the first whole second at or after an instant."""
    return -(-begin_ms // SECOND_MS) * SECOND_MS


def whole_seconds(times: Sequence[int], first: int) -> list[int]:
    """Rounds the instants of rows.

    Args:
        times: in ms, rising or equal, at least one, none more than a second before `first`.
        first: the first second under which something may leave, as `first_second` gives it.

    Returns:
        A second for each, in ms.
    """
    seconds = [ms - ms % SECOND_MS for ms in times]
    if seconds[0] < first:
        return [max(second, first) for second in seconds]
    return seconds
