# SPDX-License-Identifier: Apache-2.0
"""Reads raw values into cells: types checked, rounded to units, closed sets kept closed.

Law:
  - `Reader.one` is the rule for one value; `Reader.many` is the same rule for a whole column at C
    speed, and gives None as soon as it is not sure that every value passes;
  - a value that does not pass becomes the `DropReason` in its place: nothing is guessed, and its
    neighbours are untouched;
  - rounding is half to even of the exact value.

Limits: numbers within ±(2^62 - 1) units, so that any difference fits 64 bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, cast

import msgspec

from agent.transform.personal import is_personal
from agent.transform.pseudonyms import canonical, pseudonym
from agent.transform.reasons import DropReason
from assent.columns import Kind, Quantum

Out: TypeAlias = int | str | bytes | bool | tuple[int, int]
Cell: TypeAlias = Out | DropReason

MAX_UNITS: Final = 2**62 - 1  # the difference of any two still fits a signed 64-bit integer
_SECOND: Final = Quantum(1_000, 1)  # ms
_CACHED: Final = 1_024  # distinct identifiers or addresses of one attribute, some 200 kB

_NUMERIC: Final = frozenset({int, float})
_INTEGERS: Final = frozenset({int})
_BOOLEANS: Final = frozenset({bool})
_TEXTS: Final = frozenset({str})


class Reader(msgspec.Struct, frozen=True):
    """How the raw values of one attribute become cells.

    Attributes:
        kind: what the cells are.
        quantum: what whole numbers count, None for plain ones and other kinds.
        one: a raw value → a cell.
        many: raw values → cells, or None when at least one may not pass.
    """

    kind: Kind
    quantum: Quantum | None
    one: Callable[[object], Cell]
    many: Callable[[Sequence[object]], list[Out] | None] | None = None

    def read(self, values: Sequence[object]) -> tuple[list[Cell], bool]:
        """Reads a column.

        Args:
            values: raw values, at least one.

        Returns:
            A cell for each, and whether all of them passed.
        """
        if self.many is not None and (passed := self.many(values)) is not None:
            return cast("list[Cell]", passed), True
        cells = list(map(self.one, values))
        return cells, DropReason not in map(type, cells)


def numbers(quantum: Quantum) -> Reader:
    """Reads finite numbers as units of a quantum.

    Args:
        quantum: the coarser of the sensor's and the transform's.

    Returns:
        The reader.
    """

    def one(value: object) -> Cell:
        if type(value) is not float and type(value) is not int:
            return DropReason.WRONG_TYPE
        try:
            units = quantum.units(value)
        except (ValueError, OverflowError):  # NaN, infinity
            return DropReason.NOT_FINITE
        return _within(units)

    def many(values: Sequence[object]) -> list[Out] | None:
        if not _NUMERIC.issuperset(map(type, values)):
            return None
        return _all_within(values, quantum)

    return Reader(Kind.NUMBER, quantum, one, many)


def integers(quantum: Quantum | None) -> Reader:
    """Reads whole numbers, also those that a source spells as floats.

    Args:
        quantum: what they are rounded to, None for nothing.

    Returns:
        The reader.
    """
    rounded = numbers(quantum).one if quantum is not None else _within

    def one(value: object) -> Cell:
        if type(value) is float:
            if not math.isfinite(value):
                return DropReason.NOT_FINITE
            if not value.is_integer():
                return DropReason.WRONG_TYPE
            return rounded(int(value))
        return rounded(value) if type(value) is int else DropReason.WRONG_TYPE

    def many(values: Sequence[object]) -> list[Out] | None:
        if not _INTEGERS.issuperset(map(type, values)):
            return None
        return _all_within(values, quantum)

    return Reader(Kind.NUMBER, quantum, one, many)


def instants(quantum: Quantum | None) -> Reader:
    """Reads instants in ms since 1970 UTC.

    Args:
        quantum: what they are rounded to, in ms; never finer than a second, like the instants of
            rows (agent/lane/seconds.py).

    Returns:
        The reader.
    """
    is_coarser = quantum is not None and quantum.value(1) > _SECOND.value(1)
    return numbers(quantum if quantum is not None and is_coarser else _SECOND)


def booleans() -> Reader:
    """Reads false and true, and nothing that merely behaves so.

    Returns:
        The reader.
    """

    def one(value: object) -> Cell:
        return value if isinstance(value, bool) else DropReason.WRONG_TYPE

    def many(values: Sequence[object]) -> list[Out] | None:
        return cast("list[Out]", list(values)) if _BOOLEANS.issuperset(map(type, values)) else None

    return Reader(Kind.BOOLEAN, None, one, many)


def texts(choices: Sequence[str]) -> Reader:
    """Reads texts of a closed set (policy C08, C09: free text never).

    Args:
        choices: the set; those shaped like a person's are taken out (policy C35).

    Returns:
        The reader.
    """
    allowed = frozenset(choice for choice in choices if not is_personal(choice))

    def one(value: object) -> Cell:
        if type(value) is not str:
            return DropReason.WRONG_TYPE
        if value in allowed:
            return value
        return DropReason.PERSONAL_TEXT if is_personal(value) else DropReason.NOT_LISTED

    def many(values: Sequence[object]) -> list[Out] | None:
        if _TEXTS.issuperset(map(type, values)) and allowed.issuperset(values):
            return cast("list[Out]", list(values))
        return None

    return Reader(Kind.TEXT, None, one, many)


def identifiers(key: bytes, kind: str) -> Reader:
    """Reads identifiers as pseudonyms.

    Args:
        key: of this kind of identifier and epoch.
        kind: of identifier.

    Returns:
        The reader; it remembers the last pseudonyms, because hardware repeats itself.
    """

    @functools.lru_cache(maxsize=_CACHED)
    def pseudonymised(text: str) -> Cell:
        identifier = canonical(kind, text)
        return DropReason.MALFORMED if identifier is None else pseudonym(key, identifier)

    def one(value: object) -> Cell:
        return pseudonymised(value) if type(value) is str else DropReason.WRONG_TYPE

    return Reader(Kind.BYTES, None, one)


def _within(units: int) -> Cell:
    return units if -MAX_UNITS <= units <= MAX_UNITS else DropReason.OUT_OF_RANGE


def _all_within(values: Sequence[object], quantum: Quantum | None) -> list[Out] | None:
    measured = cast("Sequence[int]", values)
    try:
        units = list(measured) if quantum is None else quantum.units_of(measured)
    except (ValueError, OverflowError):  # NaN, infinity, an integer that no float holds
        return None
    passed = min(units) >= -MAX_UNITS and max(units) <= MAX_UNITS
    return cast("list[Out]", units) if passed else None
