# SPDX-License-Identifier: Apache-2.0
"""Each kind of value as streams of whole numbers, and back.

Law:
  - a float is its 64 bits, read as a whole number; -0.0 stays itself;
  - texts and byte strings are a list of the different ones, in order of first appearance, and the
    place of each value in it; floats are, too, when at least half of them are repeated;
  - a value of another type than its kind is refused, never converted.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from math import isfinite
from typing import Final, TypeAlias, TypeVar, assert_never, cast

from assent.columns import streams
from assent.columns.model import DEFAULT, Kind, Limits, Values
from assent.columns.planes import Cursor, Lot, Lots
from assent.errors import MalformedError, TooLargeError

Data: TypeAlias = "list[int] | list[list[int]] | tuple[int, list[int], list[int]]"
"""What stands for a column in its table: one stream, or several with a count before them."""

_Value = TypeVar("_Value", bound=Hashable)

_TYPES: Final[dict[Kind, type]] = {
    Kind.FLOAT: float,
    Kind.TEXT: str,
    Kind.BYTES: bytes,
    Kind.BOOLEAN: bool,
    Kind.POSITION: tuple,
}


def write(kind: Kind, values: Values, lots: Lots) -> Data:
    """Writes the values of one column.

    Args:
        kind: what they are.
        values: of the type of that kind.
        lots: where the bytes go.

    Returns:
        The data of the column.

    Raises:
        MalformedError: a value that its kind does not have.
        TooLargeError: a text or byte string over the limit of an entry.
    """
    if kind in _TYPES and not all(issubclass(is_, _TYPES[kind]) for is_ in set(map(type, values))):
        raise MalformedError(f"a {kind.name.lower()} column holds a value of another type")
    match kind:
        case Kind.NUMBER | Kind.BOOLEAN:
            return streams.write(cast("Sequence[int]", values), lots)
        case Kind.FLOAT:
            return _write_floats(cast("Sequence[float]", values), lots)
        case Kind.TEXT:
            return _write_texts(cast("Sequence[str]", values), lots)
        case Kind.BYTES:
            return _write_entries(cast("Sequence[bytes]", values), Lot.FLAT, lots)
        case Kind.POSITION:
            return _write_positions(cast("Sequence[tuple[int, int]]", values), lots)
        case _:
            assert_never(kind)


def read(kind: Kind, data: object, length: int, cursor: Cursor, limits: Limits) -> Values:
    """Reads the values of one column.

    Args:
        kind: what they are.
        data: what `write` gave, from anybody.
        length: how many there are.
        cursor: where the bytes lie.
        limits: for the entries of texts and byte strings.

    Raises:
        MalformedError: not the data of so many values of that kind.
        TooLargeError: a text or byte string over the limit.
    """
    match kind:
        case Kind.NUMBER:
            return streams.read(data, length, cursor)
        case Kind.BOOLEAN:
            return _read_booleans(data, length, cursor)
        case Kind.FLOAT:
            return _read_floats(data, length, cursor)
        case Kind.TEXT:
            return _read_texts(data, length, cursor, limits)
        case Kind.BYTES:
            return _read_entries(data, length, Lot.FLAT, cursor, limits)
        case Kind.POSITION:
            if not isinstance(data, list) or len(data) != 2:
                raise MalformedError("positions are two streams")
            first = streams.read(data[0], length, cursor)
            return list(zip(first, streams.read(data[1], length, cursor), strict=True))
        case _:
            assert_never(kind)


def _write_positions(values: Sequence[tuple[int, int]], lots: Lots) -> list[list[int]]:
    """Writes the first numbers of all pairs, then the second ones."""
    if set(map(len, values)) - {2}:
        raise MalformedError("a position is two numbers")
    return [streams.write([pair[place] for pair in values], lots) for place in (0, 1)]


def _read_booleans(data: object, length: int, cursor: Cursor) -> list[bool]:
    """Reads zeros and ones."""
    values = streams.read(data, length, cursor)
    if not set(values) <= {0, 1}:
        raise MalformedError("a boolean is 0 or 1")
    return list(map(bool, values))


def _write_floats(values: Sequence[float], lots: Lots) -> Data:
    """Writes the bits of floats, by reference when most of them come again."""
    if not all(map(isfinite, values)):
        raise MalformedError("a float column holds a value that is not finite")
    bits = array("q", array("d", values).tobytes()).tolist()
    different = list(dict.fromkeys(bits))
    if not bits or 2 * len(different) > len(bits):
        return streams.write(bits, lots)
    return len(different), streams.write(different, lots), _write_places(different, bits, lots)


def _read_floats(data: object, length: int, cursor: Cursor) -> list[float]:
    """Reads floats from their bits."""
    if isinstance(data, list) and len(data) == 3 and isinstance(data[1], list):
        count = _count(data[0], length)
        different = streams.read(data[1], count, cursor)
        bits = _read_places(different, data[2], length, cursor)
    else:
        bits = streams.read(data, length, cursor)
    values = array("d", array("q", bits).tobytes()).tolist()
    if not all(map(isfinite, values)):
        raise MalformedError("a float is not finite")
    return values


def _write_texts(values: Sequence[str], lots: Lots) -> Data:
    """Writes texts as UTF-8."""
    encoded = dict.fromkeys(values, b"")
    try:
        for value in encoded:
            encoded[value] = value.encode()
    except UnicodeEncodeError as exc:
        raise MalformedError("a text holds a lone surrogate") from exc
    return _write_entries([encoded[value] for value in values], Lot.TEXT, lots)


def _read_texts(data: object, length: int, cursor: Cursor, limits: Limits) -> list[str]:
    """Reads texts; every place of one text gets the same object."""
    entries = _read_entries(data, length, Lot.TEXT, cursor, limits)
    decoded = dict.fromkeys(entries, "")
    try:
        for entry in decoded:
            decoded[entry] = entry.decode()
    except UnicodeDecodeError as exc:
        raise MalformedError("a text is not UTF-8") from exc
    return [decoded[entry] for entry in entries]


def _write_entries(values: Sequence[bytes], lot: Lot, lots: Lots) -> Data:
    """Writes the different byte strings, their lengths, and the place of each value."""
    different = list(dict.fromkeys(values))
    lengths = list(map(len, different))
    if max(lengths, default=0) > DEFAULT.max_entry:
        raise TooLargeError(f"a text or byte string is longer than {DEFAULT.max_entry} bytes")
    lots.put(lot, b"".join(different))
    return len(different), streams.write(lengths, lots), _write_places(different, values, lots)


def _read_entries(
    data: object, length: int, lot: Lot, cursor: Cursor, limits: Limits
) -> list[bytes]:
    """Reads byte strings."""
    if not isinstance(data, list) or len(data) != 3:
        raise MalformedError("texts and byte strings are a count and two streams")
    count = _count(data[0], length)
    lengths = streams.read(data[1], count, cursor)
    if max(lengths, default=0) > limits.max_entry:
        raise TooLargeError(f"a text or byte string is longer than {limits.max_entry} bytes")
    different = [cursor.take(lot, size) for size in lengths]
    return _read_places(different, data[2], length, cursor)


def _write_places(different: Sequence[_Value], values: Sequence[_Value], lots: Lots) -> list[int]:
    """Writes where each value stands among the different ones."""
    places = {value: place for place, value in enumerate(different)}
    return streams.write(list(map(places.__getitem__, values)), lots)


def _read_places(
    different: Sequence[_Value], stream: object, length: int, cursor: Cursor
) -> list[_Value]:
    """Reads values by their places."""
    places = streams.read(stream, length, cursor)
    if places and not (min(places) >= 0 and max(places) < len(different)):
        raise MalformedError("a value is none of the different ones")
    return list(map(different.__getitem__, places))


def _count(item: object, length: int) -> int:
    """Checks the number of different values: no more than there are values."""
    if type(item) is not int or not 0 <= item <= length:
        raise MalformedError("there are more different values than values")
    return item
