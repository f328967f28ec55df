# SPDX-License-Identifier: Apache-2.0
"""A device profile (TOML) turned into typed fields: where a value stands, and what it is.

Path: profiles/*.toml → assent.located → **Profile** → source.
Law:
  - a profile describes a model of device and can be shared: no port, no serial, no household;
  - every field names one attribute of the data dictionary, and no attribute stands twice;
  - every mistake of a file is named at once, with its place.

Tables:
  - `[profile]`: `source`, `about`, `facts` (the document that the numbers come from), and
    `serial = { baudrate, parity, stopbits }` for modbus or
    `csv = { time, time_format, delimiter, header }` for replay;
  - `[[field]]`: `attribute`, `type`, `scale` (times what was read), `absent` (what means no
    reading), and `table`, `address`, `word_order`, `byte_order` for modbus or `column` for replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec

from assent.errors import ConfigError, Finding
from assent.located import Document, open_document, parse_document, read
from firmware_bridge import stamps

ColumnName = str | Annotated[int, msgspec.Meta(ge=1)]
"""A column of a recording: its name in the header row, or its number, counted from 1."""

CellType = Literal["number", "integer", "boolean", "text", "position"]
"""What a cell of a recording holds; a position is `latitude longitude` in degrees."""

WireType = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bits", "text"
]
"""What registers hold."""

_CELL_TYPES: Final = get_args(CellType)
_WIRE_TYPES: Final = get_args(WireType)
_SCALABLE: Final = frozenset(_CELL_TYPES + _WIRE_TYPES) - {"boolean", "text", "position", "bits"}
_Order = Literal["big", "little"]


class Serial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the serial line is set; 8 data bits always (Modbus over serial line V1.02 §2.5.1)."""

    baudrate: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


class Csv(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a recording is written.

    Attributes:
        time: the column of the time; a list of two is joined by a space (date, time of day).
        time_format: see `firmware_bridge.stamps`.
        delimiter: one character between cells.
        header: whether the first row names the columns.
    """

    time: ColumnName | list[ColumnName]
    time_format: str = "iso"
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    header: bool = True


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attribute and where its value stands; what does not belong to the source is None.

    Attributes:
        attribute: its name in the data dictionary.
        type: a CellType for replay, a WireType for modbus.
        scale: the reading times this is the value.
        absent: readings that mean there is none.
        unit: of the value; for people, the dictionary's counts.
        column: replay: the column.
        table: modbus: which of the four tables.
        address: modbus: zero-based.
        word_order: modbus: of values longer than a register.
        byte_order: modbus: within a register.
    """

    attribute: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    type: Literal[CellType, WireType] = "number"
    scale: float = 1.0
    absent: list[str | int | float] = []
    unit: str | None = None
    column: ColumnName | None = None
    table: Literal["input", "holding", "coil", "discrete"] | None = None
    address: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    word_order: _Order | None = None
    byte_order: _Order | None = None


class Profile(msgspec.Struct, frozen=True):
    """One model of device, as its source reads it."""

    source: str
    about: str
    facts: str
    serial: Serial | None
    csv: Csv | None
    fields: tuple[Field, ...]

    @property
    def attributes(self) -> frozenset[str]:
        """What a device of this profile can deliver."""
        return frozenset(field.attribute for field in self.fields)


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: Literal["modbus", "replay"]
    about: str
    facts: str
    serial: Serial | None = None
    csv: Csv | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    profile: _Head
    field: Annotated[list[Field], msgspec.Meta(min_length=1)]


def load_profile(path: Path) -> Profile:
    """Reads a profile.

    Raises:
        ConfigError: with every finding, each with file, line and column.
    """
    return _checked(open_document(path))


def parse_profile(text: str, file_name: str = "profile.toml") -> Profile:
    """Reads the text of a profile.

    Raises:
        ConfigError: with every finding, each with file, line and column.
    """
    return _checked(parse_document(text, file_name))


def _checked(document: Document) -> Profile:
    file = read(document, _File)
    findings = [*_lint_head(document, file.profile), *_lint_fields(document, file)]
    if findings:
        raise ConfigError(tuple(sorted(findings)))
    head = file.profile
    return Profile(head.source, head.about, head.facts, head.serial, head.csv, tuple(file.field))


def _lint_head(document: Document, head: _Head) -> Iterator[Finding]:
    if head.source == "replay" and head.csv is None:
        hint = 'write csv = { time = "the column of the time" }'
        yield document.finding(
            ("profile",), "missing key 'csv': how the recording is written", hint
        )
    if head.csv is not None:
        at: tuple[str | int, ...] = ("profile", "csv")
        yield from _lint_csv(document, head.csv, at)
    for key, source in (("csv", "replay"), ("serial", "modbus")):
        if getattr(head, key) is not None and head.source != source:
            message = f"{key!r} is for source {source!r}, this is {head.source!r}"
            yield document.finding(("profile", key), message)


def _lint_csv(document: Document, csv: Csv, at: tuple[str | int, ...]) -> Iterator[Finding]:
    try:
        stamps.parser(csv.time_format)
    except ValueError as exc:
        yield document.finding((*at, "time_format"), str(exc))
    if csv.time == []:
        yield document.finding((*at, "time"), "expected at least one column, got none")
    if csv.delimiter in '"\r\n':
        yield document.finding((*at, "delimiter"), "a quote or a line end cannot be a delimiter")
    times = csv.time if isinstance(csv.time, list) else [csv.time]
    if not csv.header and any(isinstance(name, str) for name in times):
        message = "without a header row a column has a number, counted from 1"
        yield document.finding((*at, "time"), message)


def _lint_fields(document: Document, file: _File) -> Iterator[Finding]:
    first: dict[str, int] = {}
    has_names = file.profile.csv is None or file.profile.csv.header
    lint = _lint_cell if file.profile.source == "replay" else _lint_register
    for index, field in enumerate(file.field):
        at = ("field", index)
        if first.setdefault(field.attribute, index) != index:
            message = f"the attribute {field.attribute!r} stands twice"
            yield document.finding((*at, "attribute"), message)
        if field.scale == 0:
            yield document.finding((*at, "scale"), "a scale of zero leaves nothing of the reading")
        if field.scale != 1 and field.type not in _SCALABLE:
            yield document.finding((*at, "scale"), f"a {field.type} has no scale")
        yield from lint(document, field, at)
        if isinstance(field.column, str) and not has_names:
            message = "without a header row a column has a number, counted from 1"
            yield document.finding((*at, "column"), message)


def _lint_cell(document: Document, field: Field, at: tuple[str, int]) -> Iterator[Finding]:
    yield from _needed(document, field, at, ("column",))
    yield from _strange(document, field, at, ("table", "address", "word_order", "byte_order"))
    yield from _typed(document, field, at, _CELL_TYPES)


def _lint_register(document: Document, field: Field, at: tuple[str, int]) -> Iterator[Finding]:
    yield from _needed(document, field, at, ("table", "address"))
    yield from _strange(document, field, at, ("column",))
    yield from _typed(document, field, at, _WIRE_TYPES)


def _needed(
    document: Document, field: Field, at: tuple[str, int], keys: tuple[str, ...]
) -> Iterator[Finding]:
    for key in keys:
        if getattr(field, key) is None:
            yield document.finding(at, f"missing key {key!r} of {field.attribute!r}")


def _strange(
    document: Document, field: Field, at: tuple[str, int], keys: tuple[str, ...]
) -> Iterator[Finding]:
    for key in keys:
        if getattr(field, key) is not None:
            yield document.finding((*at, key), f"{key!r} does not belong to this source")


def _typed(
    document: Document, field: Field, at: tuple[str, int], known: tuple[str, ...]
) -> Iterator[Finding]:
    if field.type not in known:
        message = f"expected one of {', '.join(known)}, got {field.type!r}"
        yield document.finding((*at, "type"), message)
