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

# RFC 8949 §3.1: the lowest initial byte of each major type; integers lie below byte strings.
_BYTES: Final = 0x40
_TEXT: Final = 0x60
_ARRAY: Final = 0x80
_MAP: Final = 0xA0
_TAG: Final = 0xC0
_SIMPLE: Final = 0xE0
# False, true, null, and floats of 2, 4 and 8 bytes.
_SIMPLE_ALLOWED: Final = frozenset((0xF4, 0xF5, 0xF6, 0xF9, 0xFA, 0xFB))
# RFC 8949 §3: how many bytes of the argument follow the initial byte.
_ARGUMENT: Final = {24: 1, 25: 2, 26: 4, 27: 8}


def encode(value: Encodable, *, max_items: int = MAX_ITEMS) -> bytes:
    """Writes a value as deterministic CBOR.

    Args:
        value: null, bool, int, float, bytes, str, or arrays and maps of them.
        max_items: most data items written, keys counted.

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
    _Walk(data, max_items).run(MAX_DEPTH)
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
        self._items(1, max_depth)
        if self._at != len(self._data):
            raise NotCanonicalError(f"{len(self._data) - self._at} bytes follow the CBOR value")

    def _items(self, count: int, depth: int) -> None:
        """Walks so many items that follow each other."""
        data, at, end = self._data, self._at, len(self._data)
        self._left -= count
        if self._left < 0:
            raise TooLargeError("the CBOR has more items than are read here")
        for _ in range(count):
            if at >= end:
                raise NotCanonicalError("the CBOR ends before its last item")
            first = data[at]
            at += 1
            argument = first & 31
            if argument > 23:
                length = _ARGUMENT.get(argument)
                if length is None:
                    raise NotCanonicalError("CBOR of indefinite length or reserved form came")
                argument = int.from_bytes(data[at : at + length], "big")
                at += length
            if first < _BYTES:
                continue
            if first < _ARRAY:
                at += argument
            elif first < _TAG:
                self._at = at
                self._container(first, argument, depth)
                at = self._at
            elif first < _SIMPLE:
                raise NotCanonicalError("a CBOR tag came, none is allowed here")
            elif first not in _SIMPLE_ALLOWED:
                raise NotCanonicalError("a CBOR simple value but false, true and null came")
        if at > end:
            raise NotCanonicalError("the CBOR ends before its last item")
        self._at = at

    def _container(self, first: int, count: int, depth: int) -> None:
        """Walks what is inside an array or a map."""
        if depth == 0:
            raise TooLargeError("the CBOR is nested deeper than is read here")
        # An item has at least one byte, so a count is refused before it costs anything.
        if count * (1 if first < _MAP else 2) > len(self._data) - self._at:
            raise NotCanonicalError("the CBOR ends before its last item")
        if first < _MAP:
            self._items(count, depth - 1)
        else:
            self._map(count, depth - 1)

    def _map(self, count: int, depth: int) -> None:
        """Walks the pairs of a map: one type of key, in an order both rules agree on."""
        before = b""
        texts = None
        for _ in range(count):
            start = self._at
            self._items(1, depth)
            key = self._data[start : self._at]
            is_text = _TEXT <= key[0] < _ARRAY
            if not (is_text or key[0] < _BYTES) or texts not in {None, is_text}:
                raise NotCanonicalError("a CBOR map has integer keys only, or text keys only")
            if key <= before or len(key) < len(before):  # RFC 8949 §4.2.1 and §4.2.3
                raise NotCanonicalError("the keys of a CBOR map are not in order, each once")
            before, texts = key, is_text
            self._items(1, depth)
