# SPDX-License-Identifier: Apache-2.0
"""Cells of a recording (CSV) into typed values, a block of rows at a time.

Law:
  - a cell that is empty, declared absent, malformed or not finite has no value; nothing is guessed;
  - rows keep their order and their number, whatever stands in them;
  - rows with the same attributes share one tuple of names.

Limits: a text is at most 256 characters; `1_000` and `nan` are no numbers here, though Python
reads them; an integer has 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import compress, zip_longest
from typing import Any, Final

import msgspec

from firmware_bridge.sample import Value

Convert = Callable[[str], Value | None]
Row = tuple[tuple[str, ...], tuple[Value, ...]]
"""The attributes that have a value in a row, and the values, in the same order."""

_LONGEST_TEXT: Final = 256
_TOO_LARGE: Final = 2**63  # what a column of integers holds (assent.columns)
_TRUE: Final = frozenset({"1", "1.0", "true", "on", "yes"})
_FALSE: Final = frozenset({"0", "0.0", "false", "off", "no"})


class Cell(msgspec.Struct, frozen=True):
    """What a column of a recording is.

    Attributes:
        attribute: the name of its values.
        index: of the column, from 0.
        type: number, integer, boolean, text or position.
        scale: a number or integer is multiplied by it, rounded once.
        absent: cells that mean no value; numbers are compared as numbers.
    """

    attribute: str
    index: int
    type: str = "number"
    scale: float = 1.0
    absent: tuple[str | int | float, ...] = ()


class Block:
    """The columns of a recording that matter, compiled; decodes rows of cells."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._names = tuple(cell.attribute for cell in cells)
        self._indices = tuple(cell.index for cell in cells)
        self._width = max(self._indices, default=-1) + 1
        self._converts = tuple(_convert(cell) for cell in cells)
        # Plain numbers are most of every recording; float() over a whole column is 4 times faster.
        self._bulk = tuple(
            cell.type == "number"
            and cell.scale == 1
            and all(_number(str(value)) is None for value in cell.absent)
            for cell in cells
        )
        self._shapes: dict[tuple[str, ...], tuple[str, ...]] = {}

    def decode(self, rows: Sequence[Sequence[str]]) -> list[Row]:
        """Decodes rows of cells; one result per row, empty where no cell has a value."""
        if not rows or not self._names:
            return [((), ())] * len(rows)
        shortest = min(map(len, rows))
        if shortest >= self._width:
            turned = list(zip(*rows, strict=False))  # cells beyond the last that matters drop out
        else:
            turned = list(zip_longest(*rows, fillvalue=""))
        blank = ("",) * len(rows)
        columns = [
            self._column(place, turned[index] if index < len(turned) else blank)
            for place, index in enumerate(self._indices)
        ]
        if any(None in column for column in columns):
            return [self._sparse(values) for values in zip(*columns, strict=True)]
        names = self._names
        return [(names, values) for values in zip(*columns, strict=True)]

    def _column(self, place: int, cells: Sequence[str]) -> Sequence[Any]:
        if self._bulk[place]:
            try:
                numbers = list(map(float, cells))
            except ValueError:
                pass
            else:
                if all(map(math.isfinite, numbers)) and "_" not in "".join(cells):
                    return numbers
        return list(map(self._converts[place], cells))

    def _sparse(self, values: Sequence[Value | None]) -> Row:
        there = [value is not None for value in values]
        names = tuple(compress(self._names, there))
        kept = tuple(value for value in values if value is not None)
        return self._shapes.setdefault(names, names), kept


def _convert(cell: Cell) -> Convert:
    inner = _CONVERTS.get(cell.type, _text)
    if cell.type in {"number", "integer"}:
        inner = _scaled(inner, cell.scale, _numbers(cell.absent))
    absent = frozenset(str(value) for value in cell.absent) | {""}

    def convert(text: str) -> Value | None:
        stripped = text.strip()
        return None if stripped in absent else inner(stripped)

    return convert


def _numbers(absent: Iterable[str | int | float]) -> frozenset[float]:
    return frozenset(float(value) for value in absent if not isinstance(value, str))


def _scaled(inner: Convert, scale: float, absent: frozenset[float]) -> Convert:
    # 123 × 0.1 is 12.3, which 123 / 10 gives exactly as written and 123 * 0.1 does not.
    factor = Fraction(repr(scale))
    numerator, denominator = factor.numerator, factor.denominator

    def convert(text: str) -> Value | None:
        value = inner(text)
        if not isinstance(value, int | float) or value in absent:
            return None
        if scale == 1:
            return value
        try:
            scaled = value * numerator if denominator == 1 else value * numerator / denominator
        except OverflowError:
            return None
        fits = math.isfinite(scaled) if isinstance(scaled, float) else abs(scaled) < _TOO_LARGE
        return scaled if fits else None

    return convert


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _integer(text: str) -> int | None:
    value = _number(text)
    if value is None or not value.is_integer() or abs(value) >= _TOO_LARGE:
        return None
    try:
        return int(text)
    except ValueError:  # 17.000 is the whole number 17
        return int(value)


def _boolean(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def _text(text: str) -> str | None:
    sound = len(text) <= _LONGEST_TEXT and text.isprintable() and "\ufffd" not in text
    return text if sound else None


def _position(text: str) -> tuple[float, float] | None:
    parts = text.replace(",", " ").replace(";", " ").split()
    if len(parts) != 2:
        return None
    latitude, longitude = _number(parts[0]), _number(parts[1])
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude


_CONVERTS: Final[dict[str, Convert]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "text": _text,
    "position": _position,
}
