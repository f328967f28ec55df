# SPDX-License-Identifier: Apache-2.0
"""What packets of MQTT are made of: numbers, texts, lengths, properties. Pure, no I/O.

Standards: MQTT 5.0 §1.5 (types), §2.2.2 (properties).
Security: what is read is not trusted. A text is stepped over and not decoded.
"""

from __future__ import annotations

import struct
from typing import Final

from assent.errors import MalformedError

LENGTH_BYTES: Final = 4
"""Bytes of a length at most: each has seven bits of it (§1.5.5)."""

SESSION_EXPIRY: Final = 0x11
SERVER_KEEP_ALIVE: Final = 0x13
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_QOS: Final = 0x24
MAXIMUM_PACKET: Final = 0x27
# Bytes of the properties that are numbers. The other ones are texts, but for the two below them.
_NUMBERS: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, MAXIMUM_QOS, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, SESSION_EXPIRY, 0x18, MAXIMUM_PACKET), 4),
}
_TEXTS: Final = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})
_SUBSCRIPTION: Final = 0x0B  # a length
_USER: Final = 0x26  # two texts
_NEVER_ZERO: Final = frozenset({RECEIVE_MAXIMUM, MAXIMUM_PACKET})


class Rest:
    """What is left of a packet; true while there is something.

    Args:
        data: what follows the packet's length.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, count: int) -> int:
        """Takes a number.

        Args:
            count: its bytes, the most significant first.

        Returns:
            The number.

        Raises:
            MalformedError: there is not so much left.
        """
        return int.from_bytes(self._take(count))

    def skip_text(self) -> None:
        """Steps over a text, or bytes with their length.

        Raises:
            MalformedError: there is not so much left.
        """
        self._take(self.number(2))

    def all(self) -> bytes:
        """Takes all that is left."""
        return self._take(len(self._data) - self._at)

    def properties(self) -> dict[int, int]:
        """Takes properties.

        Returns:
            Those that are numbers.

        Raises:
            MalformedError: they end too early, or one is unknown, twice there, or 0 and may not be.
        """
        rest = Rest(self._take(self._length()))
        found: dict[int, int] = {}
        while rest:
            name = rest.number(1)
            if name in found:
                raise MalformedError(f"expected the property 0x{name:02x} once")
            rest._property(name, found)
        if any(found.get(name) == 0 for name in _NEVER_ZERO):
            raise MalformedError("expected a broker that takes one message and one byte at least")
        return found

    def _property(self, name: int, found: dict[int, int]) -> None:
        if name in _NUMBERS:
            found[name] = self.number(_NUMBERS[name])
        elif name in _TEXTS:
            self.skip_text()
        elif name == _SUBSCRIPTION:
            self._length()
        elif name == _USER:
            self.skip_text()
            self.skip_text()
        else:
            raise MalformedError(f"expected no property 0x{name:02x}")

    def _take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise MalformedError("a packet ends too early")
        self._at += count
        return found

    def _length(self) -> int:
        value = 0
        for index in range(LENGTH_BYTES):
            byte = self.number(1)
            value |= (byte & 0x7F) << 7 * index
            if not byte & 0x80:
                return value
        raise MalformedError("expected a length of four bytes at most")


def length(count: int) -> bytes:
    """Writes a length.

    Args:
        count: below 2**28.

    Returns:
        One to four bytes.
    """
    encoded = bytearray()
    while count > 0x7F:
        encoded.append(count & 0x7F | 0x80)
        count >>= 7
    encoded.append(count)
    return bytes(encoded)


def text(words: str) -> bytes:
    """Writes a text.

    Args:
        words: below 64 KiB of UTF-8.

    Returns:
        Its length and its bytes.
    """
    data = words.encode()
    return struct.pack("!H", len(data)) + data
