# SPDX-License-Identifier: Apache-2.0
"""Rows of lanes as bytes: few of them cheaply, many of them small.

A commit interval brings a few rows of every shape. Written as a batch is (`assent.columns`), each
column costs as much as if it were long, and that was half of what a commit cost. So the numbers of
all columns of a table are laid end to end, as eight planes of one byte each; names and planes are
left to the deflate that is around the whole entry (`parts`).

Law:
  - what `read` gives is equal to what was written;
  - a table of more than FEW rows is written as a batch is: by then that is the smaller of the two.

Limits: no I/O. What is read was sealed with our own key; what cannot be read is a WireError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Any, Final

import msgspec

from assent import columns
from assent.columns import Column, Kind, Quantum, Table
from assent.errors import MalformedError

FEW: Final = 64
"""Rows of a table up to which planes are as small as columns, for a tenth of the CPU."""
_WIDTH: Final = 8  # bytes of a number
_PLAIN, _COLUMNS = b"\0", b"\1"


class _Shape(msgspec.Struct, frozen=True, array_like=True):
    """Name, kind and quantum of a column; a quantum of 0 is none."""

    attribute: str
    kind: Kind
    numerator: int
    denominator: int


class _Rows(msgspec.Struct, frozen=True, array_like=True):
    """A table: each time less the one before, the numbers of all columns, and what is no number."""

    device: bytes
    steps: list[int]
    shapes: list[_Shape]
    planes: list[bytes]
    others: list[list[Any]]


def write(tables: Sequence[Table]) -> bytes:
    """Writes tables; nothing for none.

    Raises:
        TooLargeError: more than a batch may hold.
    """
    if not tables:
        return b""
    if any(len(table.times) > FEW for table in tables):
        return _COLUMNS + columns.encode(tables)
    return _PLAIN + msgspec.msgpack.encode([_written(table) for table in tables])


def read(data: bytes) -> tuple[Table, ...]:
    """Reads what `write` gave.

    Raises:
        WireError: it gave something else.
    """
    if data[:1] == _COLUMNS:
        return columns.decode(data[1:])
    try:
        return tuple(map(_read, msgspec.msgpack.decode(data[1:], type=list[_Rows])))
    except (msgspec.DecodeError, struct.error, ValueError, LookupError) as exc:
        raise MalformedError("rows of the journal cannot be read") from exc


def _written(table: Table) -> _Rows:
    shapes: list[_Shape] = []
    numbers: list[Any] = []
    others: list[list[Any]] = []
    for column in table.columns:
        quantum = column.quantum
        of = (0, 0) if quantum is None else (quantum.numerator, quantum.denominator)
        shapes.append(_Shape(column.attribute, column.kind, *of))
        if column.kind is Kind.NUMBER:
            numbers += column.values
        else:
            others.append(list(column.values))
    laid = struct.pack(f"<{len(numbers)}q", *numbers)
    planes = [laid[place::_WIDTH] for place in range(_WIDTH)]
    steps = list(map(sub, table.times, [0, *table.times]))
    return _Rows(table.device, steps, shapes, planes, others)


def _read(told: _Rows) -> Table:
    rows, count = len(told.steps), len(told.planes[0])
    laid = bytearray(_WIDTH * count)
    for place, plane in enumerate(told.planes):
        laid[place::_WIDTH] = plane
    flat = struct.unpack(f"<{count}q", laid)
    counted = sum(shape.kind is Kind.NUMBER for shape in told.shapes)
    numbers = [list(flat[rows * at : rows * (at + 1)]) for at in range(counted)]
    others = list(told.others)
    read = [
        _column(shape, (numbers if shape.kind is Kind.NUMBER else others).pop(0))
        for shape in told.shapes
    ]
    return Table(told.device, list(accumulate(told.steps)), tuple(read))


def _column(shape: _Shape, values: list[Any]) -> Column:
    quantum = Quantum(shape.numerator, shape.denominator) if shape.denominator else None
    if shape.kind is Kind.POSITION:
        values = [tuple(pair) for pair in values]
    return Column(shape.attribute, shape.kind, values, quantum)
