# SPDX-License-Identifier: Apache-2.0
"""Bytes of one position of all numbers of a stream, packed by what they look like.

Law:
  - a plane is written as the smallest of: nothing (all bytes are the same), 1, 2 or 4 bits each,
    a bitmap and the bytes that are not zero, or as it is;
  - what is packed alike lies together in one lot, so that deflate gives each its own code;
  - a reader refuses padding bits and zero bytes where the format has none, so that one plane has
    one reading.

Limits: the thresholds decide sizes only; any choice reads back the same.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import compress
from typing import Final

from assent.errors import MalformedError


class Lot(enum.IntEnum):
    """Where the bytes of a plane lie; the order of the byte strings in the payload."""

    TEXT = 0
    """UTF-8 of texts."""
    BITS = 1
    """Planes of 1 or 2 bits, and bitmaps."""
    NIBBLES = 2
    """Planes of 4 bits."""
    PEAKED = 3
    """Whole bytes of few different values, and bytes that are not zero."""
    FLAT = 4
    """Whole bytes of many different values, and byte strings."""


class _Form(enum.IntEnum):
    """How a plane is written; the low three bits of its code."""

    SAME = 0
    BIT = 1
    PAIR = 2
    NIBBLE = 3
    PEAKED = 4
    SPARSE = 5
    FLAT = 6


_WIDTH: Final = {_Form.BIT: 1, _Form.PAIR: 2, _Form.NIBBLE: 4}
_LOT: Final = {_Form.BIT: Lot.BITS, _Form.PAIR: Lot.BITS, _Form.NIBBLE: Lot.NIBBLES}

# Different bytes from which a plane counts as flat. Measured by benchmarks/wire.py: 32, 48 and 80
# are within 0.3 % of each other.
_FLAT_FROM: Final = 48
# Sparse pays below this share of bytes that are not zero, per width it competes with; measured.
_SPARSE_BELOW: Final = {8: 0.65, 4: 0.30, 2: 0.06, 1: 0.0}

_RAMP: Final = bytes(range(256)) * 2
_IS_SET: Final = bytes([0]) + bytes([1]) * 255
_DIGITS: Final = b"0123456789ABCDEF".ljust(256, b"?")
# _FIELDS[width][k][byte]: the k-th value, from the low end, packed in a byte.
_FIELDS: Final = {
    width: [
        bytes((byte >> shift) & ((1 << width) - 1) for byte in range(256))
        for shift in range(0, 8, width)
    ]
    for width in (1, 2, 4)
}


class Lots:
    """Where a writer puts the bytes of planes."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: tuple[list[bytes], ...] = tuple([] for _ in Lot)

    def put(self, lot: Lot, data: bytes) -> None:
        """Adds bytes to a lot."""
        self._parts[lot].append(data)

    def joined(self) -> list[bytes]:
        """Gives each lot as one byte string."""
        return [b"".join(parts) for parts in self._parts]


class Cursor:
    """Where a reader takes the bytes of planes from, each lot from its start to its end."""

    __slots__ = ("_at", "_lots")

    def __init__(self, lots: Sequence[bytes]) -> None:
        self._lots = lots
        self._at = [0] * len(lots)

    def take(self, lot: Lot, length: int) -> bytes:
        """Takes the next bytes of a lot.

        Raises:
            MalformedError: it has no more so many, or the length is negative.
        """
        start = self._at[lot]
        data = self._lots[lot][start : start + length]
        if len(data) != length:
            raise MalformedError("the columns end before their last value")
        self._at[lot] = start + length
        return data

    def finish(self) -> None:
        """Checks that nothing is left.

        Raises:
            MalformedError: bytes that no column claims.
        """
        if any(at != len(lot) for at, lot in zip(self._at, self._lots, strict=True)):
            raise MalformedError("the columns hold bytes that no value claims")


def write(plane: bytes, lots: Lots) -> int:
    """Writes one plane.

    Args:
        plane: one byte for each number, not empty.
        lots: where the bytes go.

    Returns:
        Its code.
    """
    present = set(plane)
    base, width = _narrowest(present)
    if width == 0:
        return same(base)
    unset = plane.count(0)
    if len(plane) - unset < len(plane) * _SPARSE_BELOW[width]:
        lots.put(Lot.BITS, _pack(plane.translate(_IS_SET), 1))
        lots.put(Lot.PEAKED, plane.translate(None, b"\0"))
        return _code(_Form.SPARSE, 0)
    if width == 8:
        form = _Form.PEAKED if len(present) < _FLAT_FROM else _Form.FLAT
        lots.put(Lot.PEAKED if form is _Form.PEAKED else Lot.FLAT, plane)
        return _code(form, 0)
    form = _Form.BIT if width == 1 else _Form.PAIR if width == 2 else _Form.NIBBLE
    lots.put(_LOT[form], _pack(plane.translate(_shifted(-base)), width))
    return _code(form, base)


def same(base: int) -> int:
    """Gives the code of a plane whose bytes are all this one, -128 to 127."""
    return _code(_Form.SAME, base)


def read(code: object, length: int, cursor: Cursor) -> bytes:
    """Reads one plane.

    Args:
        code: what `write` gave, from anybody.
        length: how many bytes it has.
        cursor: where its bytes lie.

    Raises:
        MalformedError: no such code, or bytes that are missing or not as they must be.
    """
    if type(code) is not int or not 0 <= code < 8 * 256:
        raise MalformedError("a plane has a code that is not known")
    form, folded = code & 7, code >> 3
    base = (folded >> 1) ^ -(folded & 1)
    if form == _Form.SAME:
        return bytes([base & 255]) * length
    if form in _WIDTH:
        width = _WIDTH[_Form(form)]
        packed = cursor.take(_LOT[_Form(form)], -(-length * width // 8))
        return _unpack(packed, width, length).translate(_shifted(base))
    if folded:
        raise MalformedError("a plane of whole bytes has no base")
    if form == _Form.SPARSE:
        return _scatter(length, cursor)
    if form in {_Form.PEAKED, _Form.FLAT}:
        return cursor.take(Lot.PEAKED if form == _Form.PEAKED else Lot.FLAT, length)
    raise MalformedError("a plane has a code that is not known")


def _narrowest(present: set[int]) -> tuple[int, int]:
    """Gives base (-128 to 127) and width in bits of the narrowest packing of these bytes."""
    if len(present) > 16:
        return 0, 8
    signed = [byte - 256 if byte > 127 else byte for byte in present]
    base, highest = min(signed), max(signed)
    span = highest - base
    width = 0 if span == 0 else 1 if span < 2 else 2 if span < 4 else 4 if span < 16 else 8
    return base, width


def _code(form: _Form, base: int) -> int:
    """Joins form and base; small bases of either sign make small codes (zig-zag)."""
    return form | (base * 2 if base >= 0 else -2 * base - 1) << 3


def _shifted(by: int) -> bytes:
    """A table for `translate`: each byte, `by` higher."""
    start = by & 255
    return _RAMP[start : start + 256]


def _pack(values: bytes, width: int) -> bytes:
    """Packs values below 2^width, first value lowest, the last byte filled with zero bits."""
    number = int(values[::-1].translate(_DIGITS), 1 << width)
    return number.to_bytes(-(-len(values) * width // 8), "little")


def _unpack(packed: bytes, width: int, length: int) -> bytes:
    """Undoes `_pack`."""
    fields = 8 // width
    values = bytearray(len(packed) * fields)
    for field in range(fields):
        values[field::fields] = packed.translate(_FIELDS[width][field])
    if any(values[length:]):
        raise MalformedError("bits beyond the last value of a plane are set")
    return bytes(values[:length])


def _scatter(length: int, cursor: Cursor) -> bytes:
    """Reads a bitmap and the bytes it places."""
    bitmap = _unpack(cursor.take(Lot.BITS, -(-length // 8)), 1, length)
    placed = cursor.take(Lot.PEAKED, bitmap.count(1))
    if 0 in placed:
        raise MalformedError("a sparse plane places a byte that is zero")
    plane = bytearray(length)
    for index, byte in zip(compress(range(length), bitmap), placed, strict=True):
        plane[index] = byte
    return bytes(plane)
