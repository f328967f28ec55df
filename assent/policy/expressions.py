# SPDX-License-Identifier: Apache-2.0
"""The closed set of transforms: how they are written, printed and compared.

Law:
  - a transform is one of eight words, with the arguments its word takes and no others;
  - `str(parse(text))` is canonical: two spellings of the same transform print alike, so that terms
    hash alike;
  - `coarser_or_equal(a, b)` is true only where a provably tells no more than b; anything it does
    not know is false, and the household is asked again.

What each does is agent/transform's business; this room does not touch values.
"""

from __future__ import annotations

import decimal
import enum
import fractions
import math
import re
from collections.abc import Callable
from typing import Final, Literal, Self, get_args

import msgspec

from assent.units import Duration

Aggregate = Literal["mean", "min", "max", "last", "sum", "count"]

_SHAPE = re.compile(r"\s*([a-z]+)\s*(?:\((.*)\)\s*)?", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,26})?([eE]-?[0-9]{1,2})?")
_CHOICE = re.compile(r"[^\s,\x00-\x1f\x7f](?:[^,\x00-\x1f\x7f]{0,62}[^\s,\x00-\x1f\x7f])?")

MAX_CHOICES: Final = 256  # a closed set that a person can still read; an index fits one byte
MAX_BITS: Final = 128  # of an IPv6 address (RFC 4291 §2)
_SMALLEST: Final = 1e-9  # finer than any sensor here, and still written the same by repr
_LARGEST: Final = 1e9  # coarser than any sensor here


class Op(enum.Enum):
    """The eight words; the value is how it is written."""

    KEEP = "keep"
    """The value as the sensor gives it, in units of its quantum."""
    PSEUDONYM = "pseudonym"
    """A keyed pseudonym of this recipient, flow, kind of identifier and epoch."""
    ROUND = "round"
    """Rounded half-even to a multiple of `amount`, in the attribute's unit."""
    WINDOW = "window"
    """One `aggregate` per `duration`, aligned to UTC."""
    GRID = "grid"
    """A position rounded to a grid of `amount` kilometres."""
    PREFIX = "prefix"
    """The first `amount` bits of an address."""
    DELTA = "delta"
    """The increase of a monotonic counter since the reading before."""
    ENUM = "enum"
    """Only the values in `choices`; anything else is dropped and counted."""


class Transform(msgspec.Struct, frozen=True):
    """One transform with its arguments. Made by `parse`, which checks them.

    Attributes:
        op: which of the eight.
        amount: of round in the attribute's unit, of grid in kilometres, of prefix in bits.
        duration: of window.
        aggregate: of window.
        choices: of enum, sorted.
    """

    op: Op
    amount: float | None = None
    duration: Duration | None = None
    aggregate: Aggregate | None = None
    choices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `window(15m, mean)`.

        Args:
            text: a word of the closed set with its arguments in brackets.

        Returns:
            The transform.

        Raises:
            ValueError: with a sentence that says what was expected and what came.
        """
        match = _SHAPE.fullmatch(text)
        word = match[1] if match else ""
        if match is None or word not in _WORDS:
            known = ", ".join(_WORDS)
            msg = f"expected a transform ({known}), got {text[:60]!r}"
            raise ValueError(msg)
        op, inside = Op(word), match[2]
        if inside is None:
            return cls._bare(op)
        return cls._of(op, [part.strip() for part in inside.split(",")])

    @classmethod
    def _bare(cls, op: Op) -> Self:
        if op in _EXAMPLES:
            msg = f"expected arguments, such as {_EXAMPLES[op]}, got {op.value!r} alone"
            raise ValueError(msg)
        return cls(op)

    @classmethod
    def _of(cls, op: Op, parts: list[str]) -> Self:
        if op is Op.WINDOW and len(parts) == 2:
            return cls(op, duration=_window(parts[0]), aggregate=_aggregate(parts[1]))
        if op in (Op.ROUND, Op.GRID) and len(parts) == 1:
            return cls(op, amount=_amount(op, parts[0]))
        if op is Op.PREFIX and len(parts) == 1:
            return cls(op, amount=_bits(parts[0]))
        if op is Op.ENUM:
            return cls(op, choices=_choices(parts))
        expected = _EXAMPLES.get(op, f"{op.value} without arguments")
        msg = f"expected {expected}, got {len(parts)} argument(s)"
        raise ValueError(msg)

    def __str__(self) -> str:
        match self.op:
            case Op.ROUND | Op.GRID | Op.PREFIX:
                inside = _plain(self.amount or 0.0)
            case Op.WINDOW:
                inside = f"{self.duration}, {self.aggregate}"
            case Op.ENUM:
                inside = ", ".join(self.choices)
            case _:
                return f"{self.op.value}"
        return f"{self.op.value}({inside})"

    def words(self, unit: str | None) -> str:
        """Says it for a person who is asked whether they agree.

        Args:
            unit: of the attribute, or None.
        """
        amount = _plain(self.amount or 0.0)
        aggregate = _AGGREGATES[self.aggregate or "mean"]
        return {
            Op.KEEP: "as it is",
            Op.PSEUDONYM: "only as an invented name, which changes",
            Op.ROUND: f"rounded to {amount} {unit or ''}".rstrip(),
            Op.WINDOW: f"only as the {aggregate} of each {self.duration}",
            Op.GRID: f"only to within {amount} km",
            Op.PREFIX: f"only with its first {amount} bits",
            Op.DELTA: "only by how much it grew",
            Op.ENUM: f"only as one of {', '.join(self.choices)}",
        }[self.op]


_AGGREGATES: Final = {
    "mean": "mean",
    "min": "lowest",
    "max": "highest",
    "last": "last value",
    "sum": "sum",
    "count": "number of readings",
}
_WORDS: Final = tuple(op.value for op in Op)
_EXAMPLES: Final = {
    Op.ROUND: "round(0.5)",
    Op.WINDOW: "window(15m, mean)",
    Op.GRID: "grid(10)",
    Op.PREFIX: "prefix(24)",
    Op.ENUM: "enum(idle, running)",
}


def parse(text: str) -> Transform:
    """Reads a transform; see `Transform.parse`.

    Args:
        text: a word of the closed set with its arguments in brackets.

    Returns:
        The transform.

    Raises:
        ValueError: with a sentence that says what was expected and what came.
    """
    return Transform.parse(text)


def is_choice(text: str) -> bool:
    """Says whether a text can stand in a closed set: 1 to 64 characters, no comma, no control.

    Args:
        text: one value.

    Returns:
        True when it can.
    """
    return _CHOICE.fullmatch(text) is not None


def coarser_or_equal(a: Transform, b: Transform) -> bool:
    """Says whether `a` tells no more than `b` about the same attribute.

    Every transform is computed from the value itself, so all of them tell no more than `keep`.
    Otherwise only a transform of the same word compares: a multiple of the step (every result of
    the coarser is one the finer could have given), a multiple of the window with the same
    aggregate, fewer bits, fewer choices.

    Args:
        a: the one that should be coarser.
        b: the one it is held against.

    Returns:
        True where that is provable; False where it is not, or not known.
    """
    if a == b or b.op is Op.KEEP:
        return True
    tells_less = _TELLS_LESS.get(a.op)
    return a.op is b.op and tells_less is not None and tells_less(a, b)


def is_multiple(large: float, small: float) -> bool:
    """Says whether a step is a whole multiple of another, counting in decimals as written.

    Args:
        large: the step that should be the multiple.
        small: the step it is held against.

    Returns:
        True when `large` is one, two, three … times `small`, and both are positive.
    """
    if not (0 < large < math.inf and 0 < small < math.inf):
        return False
    # repr gives the decimal that was written: 0.3 is three times 0.1, though not in binary
    quotient = fractions.Fraction(repr(float(large))) / fractions.Fraction(repr(float(small)))
    return quotient.denominator == 1


def _coarser_step(a: Transform, b: Transform) -> bool:
    return is_multiple(a.amount or 0.0, b.amount or 0.0)


def _coarser_window(a: Transform, b: Transform) -> bool:
    return a.aggregate == b.aggregate and is_multiple(a.duration or 0, b.duration or 0)


_TELLS_LESS: Final[dict[Op, Callable[[Transform, Transform], bool]]] = {
    Op.ROUND: _coarser_step,
    Op.GRID: _coarser_step,
    Op.PREFIX: lambda a, b: (a.amount or 0.0) <= (b.amount or 0.0),
    Op.WINDOW: _coarser_window,
    Op.ENUM: lambda a, b: set(a.choices) <= set(b.choices),
}


def _plain(number: float) -> str:
    # The fewest digits that read back the same, never an exponent: docs/terms.md has one spelling.
    return str(int(number)) if number.is_integer() else f"{decimal.Decimal(repr(number)):f}"


def _window(text: str) -> Duration:
    duration = Duration.parse(text)
    if duration <= 0:
        msg = f"expected a window longer than nothing, got {text!r}"
        raise ValueError(msg)
    return duration


def _aggregate(text: str) -> Aggregate:
    for known in get_args(Aggregate):
        if text == known:
            return known  # type: ignore[no-any-return]  # get_args forgets the Literal
    msg = f"expected one of {', '.join(get_args(Aggregate))}, got {text[:40]!r}"
    raise ValueError(msg)


def _amount(op: Op, text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not _SMALLEST <= number <= _LARGEST:
        msg = f"expected a number from {_SMALLEST} to {_LARGEST}, as in {_EXAMPLES[op]}, "
        msg += f"got {text[:40]!r}"
        raise ValueError(msg)
    return number


def _bits(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_BITS:
        msg = f"expected 1 to {MAX_BITS} bits, as in prefix(24), got {text[:40]!r}"
        raise ValueError(msg)
    return float(text)


def _choices(parts: list[str]) -> tuple[str, ...]:
    for part in parts:
        if not is_choice(part):
            msg = f"expected choices of 1 to 64 characters, got {part[:40]!r}"
            raise ValueError(msg)
    if len(set(parts)) != len(parts) or len(parts) > MAX_CHOICES:
        msg = f"expected at most {MAX_CHOICES} different choices, got {len(parts)}"
        raise ValueError(msg)
    return tuple(sorted(parts))
