# SPDX-License-Identifier: Apache-2.0
"""What a batch consists of: tables of columns, their kinds, and the limits of a batch."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from assent.columns.quantum import Quantum


class Kind(enum.IntEnum):
    """What the values of a column are; closed."""

    NUMBER = 0
    """Whole numbers of 64 bits, counted in the quantum, or plain when there is none."""
    FLOAT = 1
    """Finite float64, kept to the bit; for what has no resolution of its own."""
    TEXT = 2
    """Text without lone surrogates."""
    BYTES = 3
    """Byte strings; pseudonyms among them."""
    BOOLEAN = 4
    """False or true."""
    POSITION = 5
    """Pairs of whole numbers (latitude, longitude) of one quantum."""


Values: TypeAlias = (
    Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bytes] | Sequence[tuple[int, int]]
)
"""The values of one column: int, float, str, bytes, bool or pairs of int, as its kind says."""


class Column(msgspec.Struct, frozen=True):
    """One attribute of one device, a value for each instant of its table.

    Attributes:
        attribute: its name in the data dictionary; once in a table.
        kind: what the values are.
        values: as many as the table has times.
        quantum: what numbers are counted in, or None.
    """

    attribute: str
    kind: Kind
    values: Values
    quantum: Quantum | None = None


class Table(msgspec.Struct, frozen=True):
    """One device: shared instants and what was measured at each of them.

    Attributes:
        device: pseudonym, 16 bytes.
        times: ms since 1970 UTC, or of the boot; in any order.
        columns: each as long as `times`.
    """

    device: bytes
    times: Sequence[int]
    columns: tuple[Column, ...]


class Limits(msgspec.Struct, frozen=True):
    """The most a batch may hold, over all its tables.

    Attributes:
        max_inflated: bytes after inflating.
        max_tables: tables.
        max_columns: columns.
        max_rows: instants.
        max_readings: values: rows times columns.
        max_entry: bytes of one text or byte string.
    """

    max_inflated: int = 8 * 2**20
    max_tables: int = 4_096
    max_columns: int = 16_384
    max_rows: int = 250_000
    max_readings: int = 250_000
    max_entry: int = 4_096


DEFAULT: Final = Limits()
"""What every reader takes and no writer exceeds.

A batch is 10,000 readings by default. Twenty-five times that keeps a reader under some 64 MiB
whatever comes (measured: a quarter of a million positions or different texts).
"""


def readings(tables: Sequence[Table]) -> int:
    """Counts the values in the tables: rows times columns."""
    return sum(len(table.times) * len(table.columns) for table in tables)
