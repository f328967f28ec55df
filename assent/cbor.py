# SPDX-License-Identifier: Apache-2.0
"""Deterministic CBOR: the one way structured bytes are written and read on the wire.

Law:
  - the types are null, boolean, integer of 64-bit magnitude, finite or other float, byte string,
    text, array and map; no tag, no other simple value, no indefinite length;
  - a map has integer keys only or text keys only, each once; its order must be the same bytewise
    and length first, so that both readings of "canonical" agree;
  - what is read is walked first (types, lengths, depth, counts), then decoded by cbor2, then
    encoded again and compared: one value has one encoding, and nothing follows it;
  - whatever the bytes, a reader gets a value, NotCanonicalError or TooLargeError.

Standards: RFC 8949 §4.2.1 (core deterministic encoding), Appendix A (tests).

Security: reads bytes from anybody. The walk bounds depth and counts before cbor2 sees them, so
that neither recursion nor a length of 2^64 reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

import cbor2

from assent.errors import NotCanonicalError, TooLargeError

CborValue: TypeAlias = (
    "bool | int | float | bytes | str | list[CborValue] | dict[int | str, CborValue] | None"
)
"""What `decode` gives back."""

Encodable: TypeAlias = (
    "bool | int | float | bytes | str | Sequence[Encodable] | Mapping[int, Encodable]"
    " | Mapping[str, Encodable] | Mapping[int | str, Encodable] | None"
)
"""What `encode` takes; a tuple is written as an array."""

MAX_ITEMS: Final = 100_000
"""Data items in one value: some hundred times the largest message of docs/wire.md."""
MAX_DEPTH: Final = 8
"""Arrays and maps inside each other; the deepest message of docs/wire.md has six."""

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_ARGUMENT: Final = {24: 1, 25: 2, 26: 4, 27: 8}  # RFC 8949 §3: bytes that follow the first one
_SIMPLE: Final = frozenset((20, 21, 22))  # false, true, null
_FLOATS: Final = frozenset((25, 26, 27))


def encode(value: Encodable) -> bytes:
    """Writes a value as deterministic CBOR.

    Args:
        value: null, bool, int, float, bytes, str, or arrays and maps of them.

    Returns:
        The bytes, which `decode` accepts (given room for their size).

    Raises:
        NotCanonicalError: a type, an integer or a map the wire does not have.
        TooLargeError: more items or more depth than any message has.
    """
    try:
        data = cbor2.dumps(value, canonical=True)
    except (cbor2.CBOREncodeError, ValueError, TypeError, RecursionError) as exc:
        raise NotCanonicalError(f"{type(value).__name__} cannot be written as CBOR") from exc
    _Walk(data, MAX_ITEMS).run(MAX_DEPTH)
    return data


def decode(
    data: bytes, *, max_bytes: int, max_items: int = MAX_ITEMS, max_depth: int = MAX_DEPTH
) -> CborValue:
    """Reads deterministic CBOR and nothing else.

    Args:
        data: the bytes, from anybody.
        max_bytes: longest input accepted.
        max_items: most data items accepted, keys counted.
        max_depth: most arrays and maps inside each other.

    Returns:
        The value; arrays as lists, maps as dicts.

    Raises:
        NotCanonicalError: not the one deterministic encoding of a value of the allowed types.
        TooLargeError: over one of the limits.
    """
    if len(data) > max_bytes:
        raise TooLargeError(f"{len(data)} bytes of CBOR came, at most {max_bytes} are read here")
    _Walk(data, max_items).run(max_depth)
    try:
        value = cbor2.loads(data)
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError) as exc:
        raise NotCanonicalError("the bytes are no CBOR value") from exc
    if again != data:
        raise NotCanonicalError("the CBOR is not the deterministic encoding of its value")
    return cast("CborValue", value)


class _Walk:
    """One pass over the heads of an encoding; builds nothing."""

    __slots__ = ("_at", "_data", "_left")

    def __init__(self, data: bytes, max_items: int) -> None:
        self._data = data
        self._at = 0
        self._left = max_items

    def run(self, max_depth: int) -> None:
        """Walks the one item the bytes must consist of."""
        self._item(max_depth)
        if self._at != len(self._data):
            raise NotCanonicalError(f"{len(self._data) - self._at} bytes follow the CBOR value")

    def _item(self, depth: int) -> int:
        """Walks one item and returns its major type."""
        self._left -= 1
        if self._left < 0:
            raise TooLargeError("the CBOR has more items than are read here")
        major, info, argument = self._head()
        if major in {_BYTES, _TEXT}:
            self._skip(argument)
        elif major in {_ARRAY, _MAP}:
            if depth == 0:
                raise TooLargeError("the CBOR is nested deeper than is read here")
            # An item has at least one byte, so a count is refused before it costs anything.
            if argument * (major - 3) > len(self._data) - self._at:
                raise NotCanonicalError("the CBOR ends before its last item")
            if major == _ARRAY:
                for _ in range(argument):
                    self._item(depth - 1)
            else:
                self._map(argument, depth - 1)
        elif major == _TAG:
            raise NotCanonicalError(f"CBOR tag {argument} came, no tag is allowed here")
        elif major > _TAG and info not in _SIMPLE and info not in _FLOATS:
            raise NotCanonicalError("a CBOR simple value other than false, true and null came")
        return major

    def _map(self, count: int, depth: int) -> None:
        """Walks the pairs of a map: one type of key, in an order both rules agree on."""
        kinds = set()
        before = b""
        for _ in range(count):
            start = self._at
            major = self._item(depth)
            kinds.add(_TEXT if major == _TEXT else _UNSIGNED)
            key = self._data[start : self._at]
            if major not in {_UNSIGNED, _NEGATIVE, _TEXT} or len(kinds) > 1:
                raise NotCanonicalError("a CBOR map has integer keys only, or text keys only")
            if key <= before or len(key) < len(before):  # RFC 8949 §4.2.1 and §4.2.3
                raise NotCanonicalError("the keys of a CBOR map are not in order, each once")
            before = key
            self._item(depth)

    def _head(self) -> tuple[int, int, int]:
        """Reads the head of an item: major type, additional information, argument."""
        first = self._data[self._skip(1)]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        length = _ARGUMENT.get(info)
        if length is None:
            raise NotCanonicalError("CBOR of indefinite length or reserved form came")
        start = self._skip(length)
        return major, info, int.from_bytes(self._data[start : self._at], "big")

    def _skip(self, length: int) -> int:
        """Moves past so many bytes and returns where they start."""
        start = self._at
        if length > len(self._data) - start:
            raise NotCanonicalError("the CBOR ends before its last item")
        self._at = start + length
        return start
