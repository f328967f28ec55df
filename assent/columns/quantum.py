# SPDX-License-Identifier: Apache-2.0
"""Floats as whole numbers of a resolution, exactly.

Law:
  - the rule: a value is its float's exact binary value; divided by the quantum as a fraction it is
    rounded to the nearest whole number, half to even. So 0.25 at 0.1 is 2, and 0.35, whose float
    is a little less than it looks, is 3;
  - back, the float nearest to the exact product is given;
  - the bulk forms give what the single ones give. Where a float product could be wrong, and only
    there, they calculate with whole numbers of any size.

Limits: three times slower where the floats of many values look half-way between two units.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import msgspec

from assent.errors import MalformedError

MAX_TERM: Final = 2**53
"""Largest numerator and denominator: whole numbers up to here are floats, too."""


class Quantum(msgspec.Struct, frozen=True):
    """The resolution values travel in, in the attribute's unit: a ratio of whole numbers.

    Attributes:
        numerator: from 1 to 2^53.
        denominator: from 1 to 2^53.
    """

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if not (0 < self.numerator <= MAX_TERM and 0 < self.denominator <= MAX_TERM):
            raise ValueError("a quantum is a ratio of two whole numbers from 1 to 2^53")

    @classmethod
    def of(cls, value: float) -> Quantum:
        """Makes the quantum a person wrote: 0.1 is 1/10, not the float nearest to it.

        Args:
            value: a positive number, as the policy gives it.

        Raises:
            ValueError: not positive and finite, or too fine or coarse for the wire.
        """
        ratio = Fraction(repr(value))
        return cls(ratio.numerator, ratio.denominator)

    def value(self, units: int) -> float:
        """Gives the float nearest to so many units."""
        return self.numerator * units / self.denominator

    def units(self, value: float) -> int:
        """Counts the units in a finite value; the nearest whole number, half to even.

        Raises:
            ValueError: NaN or infinite.
        """
        try:
            over, under = value.as_integer_ratio()
        except OverflowError as exc:
            raise ValueError("an infinite value has no number of units") from exc
        divisor = under * self.numerator
        whole, rest = divmod(over * self.denominator, divisor)
        above_half = 2 * rest - divisor
        return whole + (above_half > 0 or (above_half == 0 and whole % 2 == 1))

    def values_of(self, units: Sequence[int]) -> list[float]:
        """Does `value` for many."""
        numerator, denominator = self.numerator, self.denominator
        if numerator == 1:
            return [unit / denominator for unit in units]
        return [numerator * unit / denominator for unit in units]

    def units_of(self, values: Sequence[float]) -> list[int]:
        """Does `units` for many.

        Raises:
            ValueError: one of them is NaN or infinite.
        """
        if not values:
            return []
        try:
            return self._near_units(values)
        except (ValueError, OverflowError):  # not finite, or beyond what floats can decide
            return [self.units(value) for value in values]

    def _near_units(self, values: Sequence[float]) -> list[int]:
        """Counts units by float, and exactly only where a float cannot decide.

        Float multiplication and division round to nearest, hence keep order, and a half-way point
        h, times the numerator, is itself a float below the bound. So when the exact quotient lies
        above h, the float quotient lies at h or above, and likewise below: it is on the wrong side
        of no h, except by being h. Those are counted again with whole numbers.
        """
        numerator, denominator = float(self.numerator), float(self.denominator)
        if numerator == 1.0:
            near = [value * denominator for value in values]
        else:
            near = [value * denominator / numerator for value in values]
        bound = 2.0**52 / numerator
        if not (-bound < min(near) and max(near) < bound):
            raise OverflowError
        if all(map(float.is_integer, near)):
            return list(map(int, near))
        units = list(map(round, near))
        halves = [quotient % 1.0 for quotient in near]
        if 0.5 in halves:
            for index, half in enumerate(halves):
                if half == 0.5:
                    units[index] = self.units(values[index])
        return units


def quantum_of_wire(numerator: object, denominator: object) -> Quantum:
    """Makes the quantum two CBOR items stand for.

    Raises:
        MalformedError: they are not two whole numbers in range.
    """
    if type(numerator) is not int or type(denominator) is not int:
        raise MalformedError("a quantum is two whole numbers")
    try:
        return Quantum(numerator, denominator)
    except ValueError as exc:
        raise MalformedError("a quantum is out of range") from exc
