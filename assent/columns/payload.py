# SPDX-License-Identifier: Apache-2.0
"""Tables as one payload: CBOR around the lots of planes, raw deflate around all.

Law:
  - the head says what there is, once: shapes (attributes, kinds, quanta) are shared by tables of
    the same columns, times by tables of the same instants;
  - inflating stops at the limit, whatever the bytes go on to be; nothing follows the stream.

Limits: `Limits`; a writer keeps to `DEFAULT`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from assent import cbor
from assent.columns import streams, values
from assent.columns.model import DEFAULT, Column, Kind, Limits, Table
from assent.columns.planes import Cursor, Lot, Lots
from assent.columns.quantum import Quantum, quantum_of_wire
from assent.errors import MalformedError, TooLargeError

_FORMAT: Final = 1
_DEVICE_BYTES: Final = 16
_KINDS: Final = {int(kind): kind for kind in Kind}
# Data items a column may have at most: a float column by reference has 27.
_ITEMS_PER_COLUMN: Final = 32
# RFC 1951 without the two bytes of RFC 1950 before and the checksum after it: the seal has one.
_RAW: Final = -15
# Level 7: 1 % smaller than 6 for 10 % more of its time; 9 takes five times as long for 1 % more.
_LEVEL: Final = 7
# Lots of at least so many bytes get a Huffman code of their own (a code costs some 60 bytes).
_OWN_CODE_FROM: Final = 100

_Words: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"
_Shape: TypeAlias = "tuple[tuple[str, Kind, Quantum | None], ...]"


def encode(tables: Sequence[Table]) -> bytes:
    """Writes tables as one payload.

    Args:
        tables: in any order; times may repeat, run backwards, or be none.

    Returns:
        The payload, which `decode` reads back to equal tables.

    Raises:
        MalformedError: a value that its kind does not have, a column of another length than its
            table, a name that comes twice in a table, a pseudonym that has not 16 bytes.
        TooLargeError: more than `DEFAULT` allows.
    """
    _check_size(tables, DEFAULT)
    shapes: dict[tuple[_Words, ...], int] = {}
    seen: dict[tuple[int, ...], int] = {}
    lots = Lots()
    heads: list[list[cbor.Encodable]] = []
    for number, table in enumerate(tables):
        _check_form(table)
        shape = tuple(_write_column(column) for column in table.columns)
        times: int | list[int] | None = None
        if len(tables) > 1 and table.times:
            times = seen.setdefault(tuple(table.times), number)
        if times is None or times == number:
            times = streams.write(table.times, lots)
        head: list[cbor.Encodable] = [
            shapes.setdefault(shape, len(shapes)),
            len(table.times),
            times,
        ]
        head += [values.write(column.kind, column.values, lots) for column in table.columns]
        heads.append(head)
    return _deflate(
        [
            _FORMAT,
            list(shapes),
            b"".join(table.device for table in tables),
            heads,
        ],
        lots.joined(),
    )


def decode(data: bytes, *, limits: Limits = DEFAULT) -> tuple[Table, ...]:
    """Reads a payload.

    Args:
        data: the bytes, from anybody.
        limits: the most that is read.

    Returns:
        The tables; values as lists, positions as tuples. Tables of the same instants may share
        one list, so that nobody should change it.

    Raises:
        MalformedError: not the format of docs/columns.md.
        NotCanonicalError: its CBOR is not deterministic.
        TooLargeError: over one of the limits.
    """
    plain = _inflate(data, limits.max_inflated)
    most = _ITEMS_PER_COLUMN * (limits.max_columns + limits.max_tables + 1)
    payload = cbor.decode(plain, max_bytes=limits.max_inflated, max_items=most, max_depth=5)
    if not isinstance(payload, list) or len(payload) != 4 + len(Lot):
        raise MalformedError("the payload is not a list of its nine parts")
    form, shapes, devices, heads, *lots = payload
    if form != _FORMAT or type(form) is not int:
        raise MalformedError("the payload has a format that is not known")
    if not (isinstance(shapes, list) and isinstance(devices, bytes) and isinstance(heads, list)):
        raise MalformedError("the payload has parts of the wrong type")
    parts = [lot for lot in lots if isinstance(lot, bytes)]
    if len(parts) != len(Lot) or len(devices) != _DEVICE_BYTES * len(heads):
        raise MalformedError("the payload has parts of the wrong type or length")
    if len(heads) > limits.max_tables or len(shapes) > limits.max_tables:
        raise TooLargeError(f"a batch of more than {limits.max_tables} tables came")
    reader = _Reader([_read_shape(shape) for shape in shapes], Cursor(parts), limits)
    tables = [
        reader.table(devices[_DEVICE_BYTES * number :][:_DEVICE_BYTES], head)
        for number, head in enumerate(heads)
    ]
    reader.finish()
    return tuple(tables)


class _Reader:
    """Reads the tables of one payload in order; counts what they hold."""

    __slots__ = ("_columns", "_cursor", "_limits", "_readings", "_rows", "_shapes", "_times")

    def __init__(self, shapes: list[_Shape], cursor: Cursor, limits: Limits) -> None:
        self._shapes = shapes
        self._cursor = cursor
        self._limits = limits
        self._times: list[list[int]] = []
        self._columns = self._rows = self._readings = 0

    def table(self, device: bytes, head: object) -> Table:
        """Reads the next table."""
        if not isinstance(head, list) or len(head) < 3:
            raise MalformedError("a table is a list of shape, rows, times and columns")
        number, rows, times, *columns = head
        if type(number) is not int or not 0 <= number < len(self._shapes):
            raise MalformedError("a table has a shape that is not there")
        shape = self._shapes[number]
        if type(rows) is not int or rows < 0 or len(columns) != len(shape):
            raise MalformedError("a table has other columns than its shape")
        self._count(rows, len(shape))
        self._times.append(self._read_times(times, rows))
        return Table(
            device,
            self._times[-1],
            tuple(
                Column(
                    attribute,
                    kind,
                    values.read(kind, column, rows, self._cursor, self._limits),
                    quantum,
                )
                for (attribute, kind, quantum), column in zip(shape, columns, strict=True)
            ),
        )

    def finish(self) -> None:
        """Checks that every byte of the payload belongs to a value."""
        self._cursor.finish()

    def _read_times(self, times: object, rows: int) -> list[int]:
        """Reads a time column, or finds the earlier table whose it is."""
        if type(times) is not int:
            return streams.read(times, rows, self._cursor)
        if not 0 <= times < len(self._times) or len(self._times[times]) != rows:
            raise MalformedError("a table refers to times that are not there")
        return self._times[times]

    def _count(self, rows: int, columns: int) -> None:
        """Adds to the counts, before anything is made of them."""
        self._columns += columns
        self._rows += rows
        self._readings += rows * columns
        _check_counts(0, self._columns, self._rows, self._readings, self._limits)


def _check_size(tables: Sequence[Table], limits: Limits) -> None:
    """Refuses tables no reader would take."""
    columns = sum(len(table.columns) for table in tables)
    rows = sum(len(table.times) for table in tables)
    counted = sum(len(table.times) * len(table.columns) for table in tables)
    _check_counts(len(tables), columns, rows, counted, limits)


def _check_counts(tables: int, columns: int, rows: int, readings: int, limits: Limits) -> None:
    """Refuses counts over their limits."""
    for count, most, what in (
        (tables, limits.max_tables, "tables"),
        (columns, limits.max_columns, "columns"),
        (rows, limits.max_rows, "rows"),
        (readings, limits.max_readings, "readings"),
    ):
        if count > most:
            raise TooLargeError(f"a batch of more than {most} {what} came")


def _check_form(table: Table) -> None:
    """Refuses a table that would not read back as it is."""
    if type(table.device) is not bytes or len(table.device) != _DEVICE_BYTES:
        raise MalformedError(f"a device is a pseudonym of {_DEVICE_BYTES} bytes")
    if len({column.attribute for column in table.columns}) != len(table.columns):
        raise MalformedError("an attribute comes twice in a table")
    if any(len(column.values) != len(table.times) for column in table.columns):
        raise MalformedError("a column has another length than its table")


def _write_column(column: Column) -> _Words:
    """Writes name, kind and quantum of one column."""
    if column.quantum is None:
        return column.attribute, int(column.kind)
    return (
        column.attribute,
        int(column.kind),
        column.quantum.numerator,
        column.quantum.denominator,
    )


def _read_shape(shape: object) -> _Shape:
    """Reads the names, kinds and quanta of the columns of a table."""
    if not isinstance(shape, list):
        raise MalformedError("a shape is a list of columns")
    columns = tuple(_read_column(column) for column in shape)
    if len({name for name, _, _ in columns}) != len(columns):
        raise MalformedError("an attribute comes twice in a table")
    return columns


def _read_column(column: object) -> tuple[str, Kind, Quantum | None]:
    """Reads name, kind and quantum of one column."""
    if not isinstance(column, list) or len(column) not in {2, 4}:
        raise MalformedError("a column has a name, a kind and perhaps a quantum")
    name, kind, *quantum = column
    if not isinstance(name, str) or type(kind) is not int or kind not in _KINDS:
        raise MalformedError("a column has a name that is no text, or a kind that is not known")
    return name, _KINDS[kind], quantum_of_wire(*quantum) if quantum else None


def _deflate(head: list[cbor.Encodable], lots: list[bytes]) -> bytes:
    """Encodes and compresses; large lots get Huffman codes of their own."""
    plain = cbor.encode([*head, *lots], max_items=_ITEMS_PER_COLUMN * DEFAULT.max_columns)
    if len(plain) > DEFAULT.max_inflated:
        raise TooLargeError(f"a batch of more than {DEFAULT.max_inflated} bytes of columns came")
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    *blocks, last = _blocks(plain, lots)
    packed = []
    for block in blocks:
        packed.append(deflate.compress(block))
        packed.append(deflate.flush(zlib.Z_BLOCK))
    packed.append(deflate.compress(last))
    packed.append(deflate.flush())
    return b"".join(packed)


def _blocks(plain: bytes, lots: list[bytes]) -> list[bytes]:
    """Cuts the payload where a lot begins, unless a side of the cut would be small."""
    begin = len(plain)
    cuts = [begin]
    for lot in reversed(lots):  # the lots are the last items, each after its own CBOR head
        begin -= len(lot)
        if cuts[-1] - begin >= _OWN_CODE_FROM <= begin:
            cuts.append(begin)
        begin -= 1 + (len(lot) > 23) + (len(lot) > 255) + 2 * (len(lot) > 65_535)
    cuts.append(0)
    return [plain[begin:end] for end, begin in reversed(list(pairwise(cuts)))]


def _inflate(data: bytes, most: int) -> bytes:
    """Inflates, and stops where the limit is.

    Raises:
        MalformedError: no complete raw deflate stream, or bytes after it.
        TooLargeError: it goes on beyond the limit.
    """
    inflate = zlib.decompressobj(_RAW)
    try:
        plain = inflate.decompress(data, most + 1)
    except zlib.error as exc:
        raise MalformedError("the columns are not a raw deflate stream") from exc
    if len(plain) > most:
        raise TooLargeError(f"the columns inflate to more than {most} bytes")
    if not inflate.eof or inflate.unused_data:
        raise MalformedError("the columns are not one complete raw deflate stream")
    return plain
