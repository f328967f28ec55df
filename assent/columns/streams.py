# SPDX-License-Identifier: Apache-2.0
"""Whole numbers as planes: as distances from a middle, or as steps from one to the next.

Law:
  - order 0: each number is start + scale x residual; order 1: the first is start, each next one
    adds scale x residual. No delta of deltas: it made every recorded series larger, and a regular
    time column costs nothing as equal steps (docs/columns.md);
  - residuals are written in the narrowest of 1, 2, 4 or 8 bytes, one plane per byte. Half a byte
    is added first in every byte but the highest, so that small residuals of either sign leave the
    higher planes zero;
  - what does not fit as steps fits as distances: numbers of 64 bits have distances of 64 bits.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from math import gcd
from operator import sub
from typing import Final

from assent.columns import planes
from assent.columns.planes import Cursor, Lots
from assent.errors import MalformedError

_SIGNED: Final = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
# Half a byte in every byte but the highest.
_CENTRE: Final = {1: 0, 2: 0x80, 4: 0x808080, 8: 0x80808080808080}
_INT64: Final = 2**63

_HALF_ADDED: Final = bytes((byte + 0x80) & 255 for byte in range(256))

# Numbers looked at to choose the order, spread over the whole column: at 64 batches grow by 0.5 %,
# at 256 they shrink by 0.1 %; benchmarks/wire.py.
_SAMPLE: Final = 128


def write(values: Sequence[int], lots: Lots) -> list[int]:
    """Writes whole numbers.

    Args:
        values: within 64 bits, signed.
        lots: where the bytes go.

    Returns:
        Order, scale, start and the codes of the planes; empty for no values.

    Raises:
        MalformedError: something that is no whole number of 64 bits.
    """
    try:
        checked = array("q", values)
    except (TypeError, OverflowError) as exc:
        raise MalformedError("a number is not a whole number of 64 bits") from exc
    if not checked:
        return []
    first = checked[0]
    if len(values) == 1:
        return [0, 1, first]
    step = checked[1] - first
    if first + step * (len(checked) - 1) == checked[-1] and _is_regular(values, first, step):
        return [1, abs(step), first, planes.same(1 if step > 0 else -1)] if step else [0, 1, first]
    steps = list(map(sub, islice(values, 1, None), values))
    scale = gcd(*steps)
    stride = -(-len(values) // _SAMPLE)
    if _spread(steps[::stride], scale) < _spread(values[::stride], scale):
        if scale > 1:
            steps = [step // scale for step in steps]
        packed = _narrow(steps)
        if packed is not None:
            return [1, scale, first, *_write_planes(packed, lots)]
    lowest = min(values)
    start = lowest + ((max(values) - lowest) // scale + 1) // 2 * scale
    if scale > 1:
        packed = _narrow([(value - start) // scale for value in values])
    else:
        packed = _narrow([value - start for value in values])
    assert packed is not None  # 64-bit numbers are within 2^63 of their middle
    return [0, scale, start, *_write_planes(packed, lots)]


def read(stream: object, length: int, cursor: Cursor) -> list[int]:
    """Reads whole numbers.

    Args:
        stream: what `write` gave, from anybody.
        length: how many numbers there are.
        cursor: where the bytes of the planes lie.

    Raises:
        MalformedError: not a stream of so many numbers of 64 bits.
    """
    if not isinstance(stream, list) or any(type(item) is not int for item in stream):
        raise MalformedError("a stream is a list of whole numbers")
    if length == 0:
        if stream:
            raise MalformedError("a stream of no numbers is empty")
        return []
    if len(stream) < 3:
        raise MalformedError("a stream has an order, a scale and a start")
    order, scale, start, *codes = stream
    if order not in {0, 1} or not 1 <= scale < 2 * _INT64:
        raise MalformedError("a stream has order 0 or 1 and a scale of 64 bits")
    residuals = _read_planes(codes, length - order, cursor)
    if scale > 1:
        residuals = [residual * scale for residual in residuals]
    if order:
        values = list(accumulate(chain((start,), residuals)))
    else:
        values = [start + residual for residual in residuals]
    if min(values) < -_INT64 or max(values) >= _INT64:
        raise MalformedError("a number is not within 64 bits")
    return values


def _is_regular(values: Sequence[int], first: int, step: int) -> bool:
    """Whether all numbers are one step apart; half the time of looking at the steps."""
    count = len(values)
    if step == 0:
        return [first] * count == list(values)
    return list(range(first, first + step * count, step)) == list(values)


def _spread(sample: Sequence[int], scale: int) -> int:
    """Guesses what numbers cost: how many different ones, times the bits of their range.

    Nearly as good as their entropy (0.2 % larger batches) at half the time.
    """
    different = set(sample)
    return len(different) * (((max(different) - min(different)) // scale).bit_length() + 1)


def _narrow(residuals: list[int]) -> array[int] | None:
    """Puts residuals into the narrowest array that holds them, or None when none does."""
    for code in "bhiq":
        try:
            return array(code, residuals)
        except OverflowError:
            continue
    return None


def _write_planes(residuals: array[int], lots: Lots) -> list[int]:
    """Writes residuals byte by byte, lowest first."""
    width = residuals.itemsize
    if width > 2:
        centre, mask = _CENTRE[width], (1 << 8 * width) - 1
        residuals = array(_UNSIGNED[width], [(value + centre) & mask for value in residuals])
    if sys.byteorder == "big":
        residuals.byteswap()
    data = residuals.tobytes()
    if width == 2:
        return [planes.write(plane, lots) for plane in _centred(data[::2], data[1::2])]
    return [planes.write(data[byte::width], lots) for byte in range(width)]


def _centred(low: bytes, high: bytes) -> tuple[bytes, bytes]:
    """Adds half a byte to numbers of two bytes, a plane at a time: the carry into `high`.

    The same as for wider ones, at a tenth of the time: most columns that are not one byte wide
    are two.
    """
    count = len(low)
    ones = int.from_bytes(b"\1" * count, "little")
    carry = int.from_bytes(low, "little") >> 7 & ones
    top = int.from_bytes(high, "little")
    # No sum of seven bits and one carries into the next byte; the eighth bit is added by xor.
    summed = (top & ones * 0x7F) + carry ^ top & ones << 7
    return low.translate(_HALF_ADDED), summed.to_bytes(count, "little")


def _read_planes(codes: list[int], length: int, cursor: Cursor) -> list[int]:
    """Reads residuals back from their planes."""
    width = len(codes)
    if width == 0:
        return [0] * length
    if width not in _SIGNED:
        raise MalformedError("a stream has 0, 1, 2, 4 or 8 planes")
    if length == 0:
        raise MalformedError("a stream without residuals has no planes")
    data = bytearray(width * length)
    for byte, code in enumerate(codes):
        data[byte::width] = planes.read(code, length, cursor)
    if width == 1:
        return array("b", bytes(data)).tolist()
    residuals = array(_UNSIGNED[width], bytes(data))
    if sys.byteorder == "big":
        residuals.byteswap()
    half, mask = 1 << 8 * width - 1, (1 << 8 * width) - 1
    shift = half - _CENTRE[width]
    return [((value + shift) & mask) - half for value in residuals]
