# SPDX-License-Identifier: Apache-2.0
"""Checks that a decoded value has the shape its CDDL gives; everything else is malformed.

Law: a check names the field, what was expected and how much came, never the value.

Standards: RFC 8610 (the CDDL of docs/wire.md, whose rules these functions are).
"""

from __future__ import annotations

import enum
import re
from typing import Final, TypeVar

from assent.cbor import CborValue
from assent.errors import MalformedError, TooLargeError

MAX_INTEGER: Final = 2**63 - 1
"""Largest integer but for stream ids: what a store's signed 64-bit column holds."""
MAX_STREAM: Final = 2**64 - 1
"""Streams are 64 random bits."""

# Recipients and flows; the policy's own pattern for names that travel.
_ID = re.compile(r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*")
MAX_ID: Final = 64
"""Characters of an id; it stands in the header of every batch."""
_HEX = frozenset("0123456789abcdef")
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


def array(
    value: CborValue, what: str, *, count: int | None = None, most: int | None = None
) -> list[CborValue]:
    """Takes an array.

    Args:
        value: what was decoded.
        what: the field's name, for the message.
        count: how many elements it must have, or None.
        most: how many it may have, or None.

    Returns:
        Its elements.

    Raises:
        MalformedError: no array, or another count.
        TooLargeError: more than it may have.
    """
    if not isinstance(value, list):
        raise MalformedError(f"expected an array as {what}, got {type(value).__name__}")
    if count is not None and len(value) != count:
        raise MalformedError(f"expected {count} elements in {what}, got {len(value)}")
    if most is not None and len(value) > most:
        raise TooLargeError(f"expected at most {most} elements in {what}, got {len(value)}")
    return value


def integer(value: CborValue, what: str, *, low: int = 0, high: int = MAX_INTEGER) -> int:
    """Takes an integer between two bounds, both included.

    Raises:
        MalformedError: no integer (a boolean is none), or out of bounds.
    """
    if type(value) is not int:
        raise MalformedError(f"expected an integer as {what}, got {type(value).__name__}")
    if not low <= value <= high:
        raise MalformedError(f"expected {what} from {low} to {high}, it is outside")
    return value


def boolean(value: CborValue, what: str) -> bool:
    """Takes a boolean.

    Raises:
        MalformedError: no boolean.
    """
    if not isinstance(value, bool):
        raise MalformedError(f"expected true or false as {what}, got {type(value).__name__}")
    return value


def octets(
    value: CborValue, what: str, *, size: int | None = None, most: int | None = None
) -> bytes:
    """Takes a byte string.

    Args:
        value: what was decoded.
        what: the field's name, for the message.
        size: its exact length, or None.
        most: its greatest length, or None.

    Returns:
        The bytes.

    Raises:
        MalformedError: no byte string, or another length.
        TooLargeError: longer than it may be.
    """
    if not isinstance(value, bytes):
        raise MalformedError(f"expected a byte string as {what}, got {type(value).__name__}")
    if size is not None and len(value) != size:
        raise MalformedError(f"expected {size} bytes as {what}, got {len(value)}")
    if most is not None and len(value) > most:
        raise TooLargeError(f"expected at most {most} bytes as {what}, got {len(value)}")
    return value


def text(value: CborValue, what: str, *, most: int) -> str:
    """Takes a text of 1 to `most` characters.

    Raises:
        MalformedError: no text, or empty.
        TooLargeError: longer than it may be.
    """
    if not isinstance(value, str) or not value:
        raise MalformedError(f"expected a text as {what}, got {type(value).__name__}")
    if len(value) > most:
        raise TooLargeError(f"expected at most {most} characters as {what}, got {len(value)}")
    return value


def identifier(value: CborValue, what: str) -> str:
    """Takes the id of a recipient or a flow: lower-case words joined by `.` or `-`, at most 64.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(value, str) or len(value) > MAX_ID or _ID.fullmatch(value) is None:
        raise MalformedError(f"expected an id of lower-case letters and digits as {what}")
    return value


def mailbox(value: CborValue) -> str:
    """Takes a mailbox: 32 lower-case hexadecimal digits.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(value, str) or len(value) != 32 or not _HEX.issuperset(value):
        raise MalformedError("expected a mailbox of 32 lower-case hexadecimal digits")
    return value


def member(value: CborValue, what: str, kind: type[_Enum]) -> _Enum:
    """Takes one number of a closed set.

    Raises:
        MalformedError: no integer, or none of the set.
    """
    if type(value) is not int:
        raise MalformedError(f"expected an integer as {what}, got {type(value).__name__}")
    try:
        return kind(value)
    except ValueError as exc:
        raise MalformedError(f"expected one of {len(kind)} numbers as {what}") from exc
