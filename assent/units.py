# SPDX-License-Identifier: Apache-2.0
"""Durations and sizes as people write them in config files: `15m`, `64 MB`.

Law:
  - a unit is always written; a bare number is refused, because nobody remembers which unit it had;
  - what is printed reads back as the same value: `T.parse(str(value)) == value`;
  - the values are integers of the smallest unit, so that nothing is lost by counting with them.

Limits: a duration is at most 36,525 days (a century), a size at most 1,000,000 GB.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Self

_NUMBER = re.compile(r"([0-9]{1,15}) ?([A-Za-z]{1,2})")

_DURATIONS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES: Final = {"B": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}

_LONGEST_MS: Final = 36_525 * _DURATIONS["d"]  # a century: longer is a slip of the pen
_LARGEST_BYTES: Final = 1_000_000 * _SIZES["GB"]  # a petabyte: longer is a slip of the pen


def _count(text: str, units: dict[str, int], noun: str, example: str, most: int) -> int:
    match = _NUMBER.fullmatch(text)
    scale = units.get(match[2]) if match else None
    if match is None or scale is None:
        known = ", ".join(units)
        msg = f"expected a {noun} such as '{example}' (units {known}), got {text[:40]!r}"
        raise ValueError(msg)
    count = int(match[1]) * scale
    if count > most:
        msg = f"the {noun} {text!r} is over its limit"
        raise ValueError(msg)
    return count


def _largest_unit(count: int, units: dict[str, int], zero: str) -> tuple[int, str]:
    if count == 0:
        return 0, zero
    name = max((name for name, scale in units.items() if count % scale == 0), key=units.__getitem__)
    return count // units[name], name


class Duration(int):
    """A length of time in milliseconds.

    `Duration.parse("15m")` equals 900000 and prints as `15m`. Sums and products are plain
    integers again: wrap them where they are to be printed.
    """

    __slots__ = ()
    EXAMPLE: ClassVar = "15m"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `15m`; the units are ms, s, m, h and d.

        Args:
            text: a whole number and its unit.

        Returns:
            The duration.

        Raises:
            ValueError: with a sentence that says what was expected and what came.
        """
        return cls(_count(text, _DURATIONS, "duration", cls.EXAMPLE, _LONGEST_MS))

    def __str__(self) -> str:
        number, unit = _largest_unit(int(self), _DURATIONS, "s")
        return f"{number}{unit}"

    def __repr__(self) -> str:
        return f"Duration({int(self)})"


class Size(int):
    """A number of bytes; units are decimal, as on the label of a card.

    `Size.parse("64 MB")` equals 64000000 and prints as `64 MB`.
    """

    __slots__ = ()
    EXAMPLE: ClassVar = "64 MB"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `64 MB`; the units are B, kB, MB and GB.

        Args:
            text: a whole number and its unit, with or without one space between.

        Returns:
            The size.

        Raises:
            ValueError: with a sentence that says what was expected and what came.
        """
        return cls(_count(text, _SIZES, "size", cls.EXAMPLE, _LARGEST_BYTES))

    def __str__(self) -> str:
        number, unit = _largest_unit(int(self), _SIZES, "B")
        return f"{number} {unit}"

    def __repr__(self) -> str:
        return f"Size({int(self)})"
