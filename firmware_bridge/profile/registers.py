# SPDX-License-Identifier: Apache-2.0
"""What a field of a Modbus device may say, and how many registers it takes.

Law:
  - coils and discrete inputs are bits; registers are any type;
  - `exponent` names a register outside of the field, near enough for one request;
  - `scale` and `offset` are for numbers, `names` for whole numbers, `bit` and `events` for bits;
  - what means absent or fault is written as the device's document writes it: 0x8000 and -32768 are
    the same for an int16;
  - a field fits into one request, and ends at register 65535 at the latest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from assent.errors import Finding, Severity
from assent.located import Document
from firmware_bridge.profile.fields import WIRE_TYPES, Field, Requests

_At = tuple[str, int]

FORMATS: Final = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
"""Numbers that registers hold, and their letter in `struct`."""

_WORDS: Final = {"h": 1, "H": 1, "i": 2, "I": 2, "f": 2, "q": 4, "Q": 4, "d": 4}
_MOST_WORDS: Final = {"bcd": 4, "bits": 4, "text": 125}  # 64 bits, or what an answer holds
_FLOATS: Final = frozenset({"float32", "float64"})
_NOT_FINITE: Final = frozenset({"nan", "inf", "-inf"})
_WHOLE: Final = frozenset(FORMATS) - _FLOATS | {"bcd"}
_BIT_NUMBER: Final = re.compile(r"0|[1-9][0-9]?")
_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_LONGEST: Final = 256  # characters of a text, as everywhere in the bridge
_LAST: Final = 65_536
# Many documents write a register with its table in front: 30013 is the input register 12.
_COUNTED_FROM: Final = {"discrete": 10_001, "input": 30_001, "holding": 40_001}
_COUNTED: Final = 900  # most meters have fewer; some truly have a register 40960, which is 0xA000


def is_bit(field: Field) -> bool:
    """Whether the field stands in a table of bits."""
    return field.table in {"coil", "discrete"}


def length(field: Field) -> int:
    """How many registers, or bits of a table of bits, a field takes."""
    if is_bit(field):
        return 1
    if field.type in FORMATS:
        return _WORDS[FORMATS[field.type]]
    return field.length or 1


def reach(field: Field) -> tuple[int, int]:
    """The first register or bit that is read for a field, and the one behind the last."""
    begins = field.address or 0
    ends = begins + length(field)
    if field.exponent is None:
        return begins, ends
    return min(begins, field.exponent), max(ends, field.exponent + 1)


def lint(document: Document, field: Field, at: _At, requests: Requests) -> Iterator[Finding]:
    """Finds what a field of a Modbus device may not say.

    Args:
        document: where it stands.
        field: the field.
        at: the path to it.
        requests: the limits it has to fit into.

    Yields:
        What is wrong, each with its place.
    """
    if field.type not in WIRE_TYPES or field.table is None or field.address is None:
        if field.type not in WIRE_TYPES:
            message = f"expected one of {', '.join(WIRE_TYPES)}, got {field.type!r}"
            yield document.finding((*at, "type"), message)
        return
    yield from _lint_size(document, field, at, requests)
    yield from _lint_keys(document, field, at)
    if field.exponent is not None:
        yield from _lint_exponent(document, field, at, requests)
    for key in ("absent", "fault"):
        for index, value in enumerate(getattr(field, key)):
            misfit = _misfit(field, value)
            if misfit:
                yield document.finding((*at, key, index), misfit)
    if field.type == "bits":
        yield from _lint_bits(document, field, at)
    for number, text in field.names.items():
        if not _NUMBER.fullmatch(number):
            yield document.finding((*at, "names", number), f"expected a number, got {number!r}")
        if not _is_plain(text):
            yield document.finding((*at, "names", number), "expected a printable text")


def doubts(document: Document, fields: Sequence[Field]) -> Iterator[Finding]:
    """Finds addresses that look like the numbers of a document that counts from 30001 or so.

    Args:
        document: where they stand.
        fields: of a profile without mistakes; SunSpec's registers do lie there.

    Yields:
        Warnings.
    """
    if any(field.exponent is not None for field in fields):
        return
    for index, field in enumerate(fields):
        first, address = _COUNTED_FROM.get(str(field.table), _LAST), field.address or 0
        if first <= address < first + _COUNTED:
            yield document.finding(
                ("field", index, "address"),
                f"addresses are zero-based; a document that counts from {first} writes {address} "
                f"for address {address - first}",
                f"did you mean {address - first}?",
                Severity.WARNING,
            )


def _lint_size(document: Document, field: Field, at: _At, requests: Requests) -> Iterator[Finding]:
    taken = length(field)
    most = _MOST_WORDS.get(field.type, 0)
    if field.length is not None and (is_bit(field) or not most):
        where = f"in the table {field.table!r}" if is_bit(field) else f"a {field.type}"
        message = f"a length belongs to text, bcd and bits in registers, this is {where}"
        yield document.finding((*at, "length"), message)
    elif most and taken > most:
        message = f"a {field.type} takes at most {most} registers, got {taken}"
        yield document.finding((*at, "length"), message)
    elif not is_bit(field) and taken > requests.registers:
        message = (
            f"{field.attribute!r} takes {taken} registers, more than one request may ask for "
            f"({requests.registers})"
        )
        yield document.finding((*at, "type"), message)
    if field.type == "text" and field.length is None and not is_bit(field):
        yield document.finding(at, f"missing key 'length' of {field.attribute!r}")
    if field.address is not None and field.address + taken > _LAST:
        message = f"the last register is 65535, this ends at {field.address + taken - 1}"
        yield document.finding((*at, "address"), message)


def _lint_keys(document: Document, field: Field, at: _At) -> Iterator[Finding]:
    if is_bit(field) and field.type != "bits":
        message = f"the table {field.table!r} holds bits, got {field.type!r}"
        yield document.finding((*at, "type"), message)
    if field.offset and field.type not in FORMATS and field.type != "bcd":
        yield document.finding((*at, "offset"), f"a {field.type} has no offset")
    if field.word_order is not None and (field.type == "text" or length(field) == 1):
        message = "a word order belongs to numbers of several registers"
        yield document.finding((*at, "word_order"), message)
    if field.byte_order is not None and is_bit(field):
        yield document.finding((*at, "byte_order"), "a bit has no byte order")
    if field.names and field.type not in _WHOLE and field.width == 1:
        message = f"names belong to whole numbers, this is a {field.type}"
        yield document.finding((*at, "names"), message)
    for key in ("scale", "offset", "exponent"):
        if field.names and getattr(field, key) != getattr(Field(""), key):
            yield document.finding((*at, key), f"a number with names has no {key}")


def _lint_exponent(
    document: Document, field: Field, at: _At, requests: Requests
) -> Iterator[Finding]:
    begins, ends = reach(field)
    message = None
    if is_bit(field) or field.type not in _WHOLE:
        what = f"in the table {field.table!r}" if is_bit(field) else f"a {field.type}"
        message = f"an exponent belongs to whole numbers in registers, this is {what}"
    elif ends - begins == length(field):
        message = "expected the address of another register than the field's own"
    elif ends - begins > requests.registers:
        message = (
            f"the field and its exponent lie {ends - begins} registers apart, more than one "
            f"request may ask for ({requests.registers})"
        )
    if message is not None:
        yield document.finding((*at, "exponent"), message)


def _lint_bits(document: Document, field: Field, at: _At) -> Iterator[Finding]:
    there = 1 if is_bit(field) else 16 * length(field)
    if is_bit(field):
        for key, default in (("bit", None), ("width", 1)):
            if getattr(field, key) != default:
                message = f"a {key} is of a register, {field.table!r} is a table of bits"
                yield document.finding((*at, key), message)
    elif (field.bit is None) == (not field.events):
        message = f"{field.attribute!r} needs either 'bit' or 'events'"
        yield document.finding(at, message)
    elif field.bit is not None and field.bit + field.width > there:
        message = f"expected bits from 0 to {there - 1}, got {field.bit + field.width - 1}"
        yield document.finding((*at, "bit"), message)
    for number, text in field.events.items():
        if not _BIT_NUMBER.fullmatch(number) or int(number) >= there:
            message = f"expected the number of a bit from 0 to {there - 1}, got {number!r}"
            yield document.finding((*at, "events", number), message)
        if not _is_plain(text):
            yield document.finding((*at, "events", number), "expected a printable text")


def _misfit(field: Field, value: str | float) -> str | None:
    """Why a value cannot be what is read of a field."""
    if field.type == "bits":
        return "bits have no value that means no reading"
    if field.type == "text":
        return None if isinstance(value, str) else f"expected a text in quotes, got {value}"
    if field.type in _FLOATS:
        fits = not isinstance(value, str) or value in _NOT_FINITE
        return None if fits else f'expected a number or "nan", got {value!r}'
    if not isinstance(value, int):
        return f"expected a whole number, got {value!r}"
    if field.type == "bcd":
        least, most = 0, 10 ** (4 * length(field)) - 1
    else:
        signed = field.type.startswith("int")
        least, most = (-(1 << 16 * length(field) - 1) if signed else 0), (1 << 16 * length(field))
        most -= 1
    return None if least <= value <= most else f"no {field.type} is {value}"


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable()
