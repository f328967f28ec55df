# SPDX-License-Identifier: Apache-2.0
"""A few lines of a terminal that are painted again and again; elsewhere they are printed once.

Law: nothing of a terminal's tricks reaches a pipe, a file or a terminal that has none; a line is
never longer than the terminal is wide; what was there before stays above.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from agent.cli.say import is_painted

_BARS: Final = "▁▂▃▄▅▆▇█"
_EMPHASIS: Final = re.compile(r"\033\[[0-9]*m")
_UP_AND_CLEAR: Final = "\033[{}F\033[J"


def is_watched() -> bool:
    """Whether a person looks at stdout as it grows, on a terminal that can be painted."""
    return is_painted(sys.stdout)


class Painting:
    """Lines that take the place of their predecessors, where stdout is a terminal."""

    def __init__(self) -> None:
        self._height = 0

    def paint(self, lines: Sequence[str]) -> None:
        """Shows lines in place of those shown last."""
        size = shutil.get_terminal_size()
        shown = [_cut(line, size.columns - 1) for line in lines[: size.lines - 1]]
        if self._height:
            sys.stdout.write(_UP_AND_CLEAR.format(self._height))
        sys.stdout.write("".join(f"{line}\n" for line in shown))
        sys.stdout.flush()
        self._height = len(shown)


def _cut(line: str, width: int) -> str:
    """A line within a width; one that is cut is plain, so that no emphasis is left open."""
    plain = _EMPHASIS.sub("", line)
    return line if len(plain) <= width else plain[:width]


def sparkline(values: Sequence[float]) -> str:
    """A small plot of the newest 24 values, from their lowest to their highest.

    Args:
        values: finite numbers, the newest last.
    """
    shown = values[-24:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return _BARS[0] * len(shown)
    steps = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * steps)] for value in shown)
