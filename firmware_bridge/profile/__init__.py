# SPDX-License-Identifier: Apache-2.0
"""A device profile (TOML) turned into typed fields: where a value stands, and what it is.

Path: profiles/*.toml → assent.located → **Profile** → source.
Law:
  - a profile describes a model of device and can be shared: no port, no serial, no household;
  - every field names one attribute of the data dictionary, and no attribute stands twice;
  - every mistake of a file is named at once, with its place.

Tables:
  - `[profile]`: `source`, `about`, `facts` (the document that the numbers come from), and
    `serial = { baudrate, parity, stopbits }` and `requests = { registers, bits, gap, timeout }`
    for modbus or `csv = { time, time_format, delimiter, header }` for replay;
  - `[[field]]`: `attribute`, `type`, `scale` (times what was read), `absent` (what means no
    reading), `unit`, and `column` for replay or, for modbus, `table`, `address`, `length`,
    `word_order`, `byte_order`, `offset`, `exponent`, `fault`, `bit`, `width`, `events`, `names`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from assent.errors import ConfigError, Finding
from assent.located import Document, open_document, parse_document, read
from firmware_bridge import stamps
from firmware_bridge.profile import registers
from firmware_bridge.profile.fields import CELL_TYPES, Csv, Field, Requests, Serial

# What has a scale: numbers.
_SCALABLE: Final = frozenset({"number", "integer", "bcd", *registers.FORMATS})
_NOT_OF_A_CELL: Final = (
    "table", "address", "length", "word_order", "byte_order", "offset", "exponent", "fault", "bit",
    "width", "events", "names",
)  # fmt: skip


class Profile(msgspec.Struct, frozen=True):
    """One model of device, as its source reads it."""

    source: str
    about: str
    facts: str
    serial: Serial | None
    csv: Csv | None
    requests: Requests
    fields: tuple[Field, ...]

    @property
    def attributes(self) -> frozenset[str]:
        """What a device of this profile can deliver."""
        return frozenset(field.attribute for field in self.fields)

    @property
    def units(self) -> dict[str, str]:
        """The unit of each attribute that has one."""
        return {field.attribute: field.unit for field in self.fields if field.unit is not None}


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: Literal["modbus", "replay"]
    about: str
    facts: str
    serial: Serial | None = None
    csv: Csv | None = None
    requests: Requests | None = None


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


def doubts(path: Path) -> list[Finding]:
    """What is no mistake and looks like one.

    Args:
        path: of a profile that loads.

    Returns:
        Warnings, each with file, line and column.
    """
    document = open_document(path)
    return list(registers.doubts(document, read(document, _File).field))


def _checked(document: Document) -> Profile:
    file = read(document, _File)
    findings = [*_lint_head(document, file.profile), *_lint_fields(document, file)]
    if findings:
        raise ConfigError(tuple(sorted(findings)))
    head = file.profile
    return Profile(
        source=head.source,
        about=head.about,
        facts=head.facts,
        serial=head.serial,
        csv=head.csv,
        requests=head.requests or Requests(),
        fields=tuple(file.field),
    )


def _lint_head(document: Document, head: _Head) -> Iterator[Finding]:
    if head.source == "replay" and head.csv is None:
        hint = 'write csv = { time = "the column of the time" }'
        yield document.finding(
            ("profile",), "missing key 'csv': how the recording is written", hint
        )
    if head.csv is not None:
        at: tuple[str | int, ...] = ("profile", "csv")
        yield from _lint_csv(document, head.csv, at)
    if head.requests is not None and head.requests.timeout <= 0:
        message = "expected a timeout above zero, got 0s"
        yield document.finding(("profile", "requests", "timeout"), message)
    for key, source in (("csv", "replay"), ("serial", "modbus"), ("requests", "modbus")):
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
    requests = file.profile.requests or Requests()
    for index, field in enumerate(file.field):
        at = ("field", index)
        if first.setdefault(field.attribute, index) != index:
            message = f"the attribute {field.attribute!r} stands twice"
            yield document.finding((*at, "attribute"), message)
        if field.scale == 0:
            yield document.finding((*at, "scale"), "a scale of zero leaves nothing of the reading")
        if field.scale != 1 and field.type not in _SCALABLE:
            yield document.finding((*at, "scale"), f"a {field.type} has no scale")
        if file.profile.source == "replay":
            yield from _lint_cell(document, field, at)
        else:
            yield from _needed(document, field, at, ("table", "address"))
            yield from _strange(document, field, at, ("column",))
            yield from registers.lint(document, field, at, requests)
        if isinstance(field.column, str) and not has_names:
            message = "without a header row a column has a number, counted from 1"
            yield document.finding((*at, "column"), message)


def _lint_cell(document: Document, field: Field, at: tuple[str, int]) -> Iterator[Finding]:
    yield from _needed(document, field, at, ("column",))
    yield from _strange(document, field, at, _NOT_OF_A_CELL)
    if field.type not in CELL_TYPES:
        message = f"expected one of {', '.join(CELL_TYPES)}, got {field.type!r}"
        yield document.finding((*at, "type"), message)


def _needed(
    document: Document, field: Field, at: tuple[str, int], keys: tuple[str, ...]
) -> Iterator[Finding]:
    for key in keys:
        if getattr(field, key) is None:
            yield document.finding(at, f"missing key {key!r} of {field.attribute!r}")


def _strange(
    document: Document, field: Field, at: tuple[str, int], keys: tuple[str, ...]
) -> Iterator[Finding]:
    plain = Field(attribute=field.attribute)
    for key in keys:
        if getattr(field, key) != getattr(plain, key):
            yield document.finding((*at, key), f"{key!r} does not belong to this source")
