# SPDX-License-Identifier: Apache-2.0
"""A batch as columns: lossless, compact, bounded, no I/O.

First working form; the layout is not final, the types and signatures are.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import msgspec

from assent import cbor
from assent.errors import MalformedError, TooLargeError


class Kind(enum.IntEnum):
    """What the values of a column are."""

    NUMBER = 0
    """Whole numbers of a quantum, or plain integers when there is none."""
    FLOAT = 1
    """Finite float64."""
    TEXT = 2
    """Text."""
    BYTES = 3
    """Byte strings, pseudonyms among them."""
    BOOLEAN = 4
    """False or true."""
    POSITION = 5
    """Pairs of whole numbers (latitude, longitude) of one quantum."""


class Quantum(msgspec.Struct, frozen=True):
    """The resolution values travel in: numerator / denominator of the attribute's unit."""

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if not (0 < self.numerator <= 2**53 and 0 < self.denominator <= 2**53):
            raise ValueError("a quantum is a ratio of two whole numbers from 1 to 2^53")

    @classmethod
    def of(cls, value: float) -> Quantum:
        """Makes the quantum a person wrote: 0.1 is 1/10, not the float nearest to it.

        Raises:
            ValueError: not a positive ratio of whole numbers up to 2^53.
        """
        ratio = Fraction(repr(value))
        return cls(ratio.numerator, ratio.denominator)

    def value(self, units: int) -> float:
        """Gives the float nearest to so many units."""
        return self.numerator * units / self.denominator

    def units(self, value: float) -> int:
        """Counts the units in a finite value, half to even, exactly.

        Raises:
            ValueError: NaN.
            OverflowError: infinity.
        """
        return round(Fraction(value) * self.denominator / self.numerator)

    def values_of(self, units: Sequence[int]) -> list[float]:
        """Does `value` for many."""
        return [self.value(unit) for unit in units]

    def units_of(self, values: Sequence[float]) -> list[int]:
        """Does `units` for many."""
        return [self.units(value) for value in values]


Values: TypeAlias = (
    Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bytes] | Sequence[tuple[int, int]]
)


class Column(msgspec.Struct, frozen=True):
    """One attribute of one device, a value for each instant of its table."""

    attribute: str
    kind: Kind
    values: Values
    quantum: Quantum | None = None


class Table(msgspec.Struct, frozen=True):
    """One device: shared instants and the columns measured at them."""

    device: bytes
    times: Sequence[int]
    columns: tuple[Column, ...]


class Limits(msgspec.Struct, frozen=True):
    """What `decode` accepts at most, over all tables of one batch."""

    max_inflated: int = 8 * 2**20
    max_tables: int = 1_024
    max_columns: int = 4_096
    max_readings: int = 1_000_000


DEFAULT = Limits()


def readings(tables: Sequence[Table]) -> int:
    """Counts the values in the tables: rows times columns."""
    return sum(len(table.times) * len(table.columns) for table in tables)


def encode(tables: Sequence[Table]) -> bytes:
    """Writes tables as one payload."""
    plain = [
        [
            table.device,
            list(table.times),
            [
                [
                    column.attribute,
                    int(column.kind),
                    [column.quantum.numerator, column.quantum.denominator]
                    if column.quantum
                    else None,
                    list(column.values),
                ]
                for column in table.columns
            ],
        ]
        for table in tables
    ]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(cbor.encode(plain)) + deflate.flush()


def decode(data: bytes, *, limits: Limits = DEFAULT) -> tuple[Table, ...]:
    """Reads a payload."""
    inflate = zlib.decompressobj(-15)
    try:
        plain = inflate.decompress(data, limits.max_inflated)
    except zlib.error as exc:
        raise MalformedError("the columns are no raw deflate stream") from exc
    if not inflate.eof:
        raise TooLargeError("the columns inflate to more than is read here")
    tables = []
    for device, times, columns in cbor.decode(plain, max_bytes=limits.max_inflated):  # type: ignore[misc,union-attr]
        read = tuple(
            Column(
                attribute,
                Kind(kind),
                [tuple(v) for v in values] if kind == Kind.POSITION else values,
                Quantum(*quantum) if quantum else None,
            )
            for attribute, kind, quantum, values in columns  # type: ignore[union-attr,misc]
        )
        tables.append(Table(device, times, read))  # type: ignore[arg-type]
    return tuple(tables)
