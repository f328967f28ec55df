# SPDX-License-Identifier: Apache-2.0
"""Registers and bits of a Modbus device into values.

Path: decode.requests → question → answer → **Block** → values.
Law:
  - a reading that is absent, a fault, not finite, no text, no decimal digits or without a name has
    no value; nothing is guessed, and what is a fault is told apart;
  - a value is what was read times `scale` plus `offset`, as exact as the numbers are written; with
    an exponent times ten to its power, before `offset` is added;
  - an event is a bit that is on; which of them are new is for who remembers the last reading.

Standards: Modbus application protocol V1.1b3 §4.3 (tables), §6.1-6.4; a register is sent with its
high byte first. Word orders, floats, text and decimals in registers are each maker's own.
SunSpec Device Information Model V1.1 (scale factors).
Limits: an integer has 64 bits with sign, a text is printable ASCII.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, Final, cast

import msgspec

from firmware_bridge.decode.requests import Request
from firmware_bridge.profile.fields import Field
from firmware_bridge.profile.registers import FORMATS, is_bit, length
from firmware_bridge.sample import Value

Convert = Callable[[Any], Value | None]

_TOO_LARGE: Final = 2**63  # what a column of integers holds (assent.columns)
# Registers that were never written hold 0 or 0xFFFF; makers fill up with either, or with spaces.
_PADDING: Final = b"\0\xff "
# Whatever they hold, times a scale below a million it is far below 2**63 and never infinite.
_SHORT: Final = frozenset({"int16", "uint16", "int32", "uint32"})
_LARGE_SCALE: Final = 1_000_000
_ONE, _TEN = Fraction(1), Fraction(10)
_EXPONENTS: Final = range(-10, 11)  # SunSpec's; beyond them a register holds none


class Reading(msgspec.Struct, frozen=True):
    """What one answer holds.

    Attributes:
        names: the attributes that have a value.
        values: theirs, in the same order.
        events: attribute and text of each bit that is on.
        faults: attributes whose sensor says that it is broken.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...]
    events: frozenset[tuple[str, str]] = frozenset()
    faults: frozenset[str] = frozenset()


class Block:
    """One request compiled: answers become readings."""

    def __init__(self, request: Request) -> None:
        self._names = tuple(field.attribute for field in request.fields if not field.events)
        values = [field for field in request.fields if not field.events]
        events = [field for field in request.fields if field.events]
        ordered = [*values, *events]
        self._split = len(values)
        self._converts = tuple(map(_convert, values))
        self._flags = tuple(map(_flags, events))
        self._faults = tuple(
            (place, field.attribute, _faulty(field))
            for place, field in enumerate(values)
            if field.fault
        )
        self._places = tuple((field.address or 0) - request.address for field in ordered)
        # Each field's bytes in big-endian order, one after the other, whatever its own order is.
        self._positions = tuple(_positions(ordered, request))
        self._unpack = struct.Struct(">" + "".join(map(_format, ordered))).unpack
        self._shapes: dict[tuple[str, ...], tuple[str, ...]] = {}

    def registers(self, registers: Sequence[int]) -> Reading:
        """Decodes an answer of registers.

        Args:
            registers: as many as were asked for, each from 0 to 65535.
        """
        data = struct.pack(f">{len(registers)}H", *registers)
        return self._reading(self._unpack(bytes(map(data.__getitem__, self._positions))))

    def bits(self, bits: Sequence[bool]) -> Reading:
        """Decodes an answer of coils or discrete inputs.

        Args:
            bits: at least as many as were asked for; answers are padded to whole bytes.
        """
        return self._reading([bits[place] for place in self._places])

    def _reading(self, raw: Sequence[Any]) -> Reading:
        values = [convert(one) for convert, one in zip(self._converts, raw, strict=False)]
        events: frozenset[tuple[str, str]] = frozenset()
        if self._flags:
            late = raw[self._split :]
            events = frozenset(
                event for flags, one in zip(self._flags, late, strict=True) for event in flags(one)
            )
        faults = frozenset(name for place, name, is_fault in self._faults if is_fault(raw[place]))
        if None not in values:  # as nearly always
            return Reading(self._names, cast("tuple[Value, ...]", tuple(values)), events, faults)
        there = [
            (name, value)
            for name, value in zip(self._names, values, strict=True)
            if value is not None
        ]
        names = tuple(name for name, _ in there)
        names = self._shapes.setdefault(names, names)
        return Reading(names, tuple(value for _, value in there), events, faults)


def _positions(fields: Iterable[Field], request: Request) -> Iterable[int]:
    for field in fields:
        if is_bit(field):
            continue
        first = (field.address or 0) - request.address
        words = list(range(first, first + length(field)))
        if field.word_order == "little":
            words.reverse()
        if field.exponent is not None:
            words.append(field.exponent - request.address)
        for word in words:
            high, low = 2 * word, 2 * word + 1
            yield from (low, high) if field.byte_order == "little" else (high, low)


def _format(field: Field) -> str:
    if is_bit(field):
        return ""
    if field.exponent is not None:
        return f"{2 * length(field) + 2}s"
    return FORMATS.get(field.type) or f"{2 * length(field)}s"


def _convert(field: Field, power: Fraction = _ONE) -> Convert:
    if field.exponent is not None:
        return _powered(field)
    if field.type == "text":
        inner: Convert = _text
    elif field.type == "bits":
        inner = bool if is_bit(field) else _bits(field)
    else:
        inner = _scaled(field, power)
    if field.names:
        inner = _named(inner, {int(number): text for number, text in field.names.items()})
    if not field.absent and not field.fault:
        return inner
    unusable = _alike(field, [*field.absent, *field.fault])
    return lambda raw: None if unusable(raw) else inner(raw)


def _named(inner: Convert, names: dict[int, str]) -> Convert:
    def convert(raw: float | bytes) -> Value | None:
        value = inner(raw)
        return names.get(value) if isinstance(value, int) else None

    return convert


def _powered(field: Field) -> Convert:
    """Reads a number and the power of ten behind it."""
    plain = msgspec.structs.replace(field, exponent=None)
    split = _split(plain)
    converts: dict[int, Convert] = {}  # one for each power that the device ever named

    def convert(raw: bytes) -> Value | None:
        number, exponent = split(raw)
        if exponent not in _EXPONENTS:
            return None
        if exponent not in converts:
            converts[exponent] = _convert(plain, _TEN**exponent)
        return converts[exponent](number)

    return convert


def _split(plain: Field) -> Callable[[bytes], tuple[Any, ...]]:
    """Tells a number from the exponent behind it."""
    return struct.Struct(f">{_format(plain)}h").unpack


def _scaled(field: Field, power: Fraction) -> Convert:
    # 123 × 0.1 is 12.3, which 123 / 10 gives exactly as written and 123 * 0.1 does not.
    scale, offset = Fraction(repr(field.scale)) * power, Fraction(repr(field.offset))
    denominator = math.lcm(scale.denominator, offset.denominator)
    times = int(scale * denominator)
    plus = int(offset * denominator)

    if field.type in _SHORT and max(abs(scale), abs(offset)) < _LARGE_SCALE:
        if denominator == 1:
            return lambda raw: raw * times + plus
        return lambda raw: (raw * times + plus) / denominator

    def convert(raw: float | bytes) -> Value | None:
        read = _decimal(raw) if isinstance(raw, bytes) else raw
        if read is None:
            return None
        try:
            value = read * times + plus
            value = value if denominator == 1 else value / denominator
        except OverflowError:
            return None
        fits = math.isfinite(value) if isinstance(value, float) else abs(value) < _TOO_LARGE
        return value if fits else None

    return convert


def _decimal(raw: bytes) -> int | None:
    digits = raw.hex()
    return int(digits) if digits.isdecimal() else None


def _text(raw: bytes) -> str | None:
    stripped = raw.strip(_PADDING)
    if not stripped or not stripped.isascii():
        return None
    text = stripped.decode("ascii")
    return text if text.isprintable() else None


def _bits(field: Field) -> Convert:
    first, mask = field.bit or 0, (1 << field.width) - 1
    if field.width == 1:
        return lambda raw: bool(int.from_bytes(raw) >> first & 1)
    return lambda raw: int.from_bytes(raw) >> first & mask


def _flags(field: Field) -> Callable[[Any], Iterable[tuple[str, str]]]:
    named = [(int(number), (field.attribute, text)) for number, text in field.events.items()]

    def flags(raw: int | bytes) -> Iterable[tuple[str, str]]:
        number = int.from_bytes(raw) if isinstance(raw, bytes) else int(raw)
        return [event for bit, event in named if number >> bit & 1]

    return flags


def _faulty(field: Field) -> Callable[[Any], bool]:
    if field.exponent is None:
        return _alike(field, field.fault)
    plain = msgspec.structs.replace(field, exponent=None)
    split, is_fault = _split(plain), _alike(plain, field.fault)
    return lambda raw: is_fault(split(raw)[0])


def _alike(field: Field, written: Sequence[str | float]) -> Callable[[Any], bool]:
    """Whether what was read is one of the values that a document names."""
    if field.type == "text":
        texts = frozenset(str(value) for value in written)
        return lambda raw: _text(raw) in texts
    if field.type == "bcd":
        digits = frozenset(written)
        return lambda raw: _decimal(raw) in digits
    form = FORMATS[field.type]
    if form in "fd":
        numbers = frozenset(_narrowed(form, float(value)) for value in written)
        return lambda raw: str(raw) in numbers
    bits = 16 * length(field)
    top = 1 << bits - 1 if form in "hiq" else 1 << bits
    whole = frozenset(int(value) - (1 << bits if int(value) >= top else 0) for value in written)
    return lambda raw: raw in whole


def _narrowed(form: str, value: float) -> str:
    """A number as registers of that form give it back; nan is equal to nothing, its text is."""
    try:
        return str(struct.unpack(f">{form}", struct.pack(f">{form}", value))[0])
    except OverflowError:
        return str(value)
