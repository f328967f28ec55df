# SPDX-License-Identifier: Apache-2.0
"""Which sequence numbers of a stream are stored: a watermark, and ranges above it.

Law:
  - every number below the watermark is stored; of those at or above it, the ranges';
  - ranges are inclusive, in order, and neither touch each other nor the watermark;
  - a number is stored once: adding it again changes nothing.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
from typing import Final

Range = tuple[int, int]
"""The first and the last of some numbers, as an acknowledgement names them."""
Numbers = tuple[int, int]
"""The first of some numbers and the one after the last, as a gap names them."""

# Holes come from batches a gateway dropped for want of space (one hole per drop) or that were
# refused. 1,000 of them in one stream is a gateway that means harm, and still one small row; an
# acknowledgement holds 1,024.
MAX_RANGES: Final = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """How far a stream is stored.

    Attributes:
        watermark: all numbers below are stored.
        ranges: (first, last) of what is stored above it.
    """

    watermark: int = 0
    ranges: tuple[Range, ...] = ()

    @classmethod
    def read(cls, watermark: object, ranges: object) -> Position:
        """Reads a position as it is kept.

        Raises:
            ValueError: nothing that was ever kept.
        """
        found = json.loads(ranges) if isinstance(ranges, str) else None
        if type(watermark) is not int or watermark < 0 or not isinstance(found, list):
            raise ValueError("a position is a watermark and a list of ranges")
        before = watermark - 1
        for one in found:
            if not isinstance(one, list) or [type(edge) for edge in one] != [int, int]:
                raise ValueError("a range is two numbers")
            first, last = one
            if not before + 1 < first <= last:
                raise ValueError("ranges ascend, and do not touch")
            before = last
        return cls(watermark, tuple((first, last) for first, last in found))

    def holds(self, sequence: int) -> bool:
        """Says whether a number is stored."""
        return sequence < self.watermark or self._range_of(sequence) is not None

    @property
    def stored(self) -> list[Numbers]:
        """All numbers that are stored."""
        below = [(0, self.watermark)] if self.watermark else []
        return [*below, *((first, last + 1) for first, last in self.ranges)]

    def having(self, sequence: int) -> Position:
        """Gives the position after one more number was stored."""
        if self.holds(sequence):
            return self
        if sequence == self.watermark:
            return self._advanced()
        return Position(self.watermark, self._merged(sequence))

    def around(self, sequences: frozenset[int]) -> tuple[Range, ...]:
        """Gives the ranges that hold one of these numbers: what an acknowledgement has to tell."""
        found = {self._range_of(sequence) for sequence in sequences if sequence >= self.watermark}
        return tuple(sorted(one for one in found if one is not None))

    def _range_of(self, sequence: int) -> Range | None:
        at = bisect.bisect_right(self.ranges, (sequence, 2**64)) - 1
        if at >= 0 and self.ranges[at][0] <= sequence <= self.ranges[at][1]:
            return self.ranges[at]
        return None

    def _advanced(self) -> Position:
        if self.ranges and self.ranges[0][0] == self.watermark + 1:
            return Position(self.ranges[0][1] + 1, self.ranges[1:])
        return Position(self.watermark + 1, self.ranges)

    def _merged(self, sequence: int) -> tuple[Range, ...]:
        at = bisect.bisect_right(self.ranges, (sequence, 2**64))
        before, after = list(self.ranges[:at]), list(self.ranges[at:])
        first = last = sequence
        if before and before[-1][1] == sequence - 1:
            first = before.pop()[0]
        if after and after[0][0] == sequence + 1:
            last = after.pop(0)[1]
        return (*before, (first, last), *after)
