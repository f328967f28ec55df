# SPDX-License-Identifier: Apache-2.0
"""TOML files people edit, read into typed values; every mistake of a file is named at once.

Path: file → **Document** (values and places) → typed value, or ConfigError with all findings.

Law:
  - every field is converted by itself, so that one mistake never hides another;
  - an unknown key is an error, with the nearest known one, or what the struct's ELSEWHERE says of
    a key that people look for there;
  - each finding names file, line and column, what was expected and what came;
  - nothing is guessed: `true` is no number, a text is no number, nan is no number.

Standards: TOML 1.0.0 as `tomllib` reads it; a byte-order mark is stepped over, as editors add it.
Security: whatever the bytes, what leaves is a value or a ConfigError.
Limits: MAX_BYTES per file, and those of `assent.places`. A type to read into is made of msgspec
structs, dict, list, tuple, set, Literal, enums, numbers, text, dates, and classes with a `parse`
class method that takes a text and raises ValueError (Duration, Size, Transform). In a union msgspec
allows one member that is written as a text, one table and one list.
"""

from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Final, TypeVar, cast

import msgspec

from assent import durable
from assent.conversion import Converter, Mistake
from assent.errors import ConfigError, Finding, Severity
from assent.places import Lines, Path, TooComplexError, scan

T = TypeVar("T")

MAX_BYTES: Final = 1_048_576  # a policy of 1,000 flows is half of it; tomllib reads it in seconds

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_TWICE: Final = "this key or table stands twice"
_WORDS: Final = {
    "Cannot overwrite a value": _TWICE,
    "Cannot declare": _TWICE,
    "Cannot redefine": _TWICE,
    "Duplicate inline table key": _TWICE,
    "Cannot mutate immutable namespace": "a table in braces is complete where it stands",
    "Illegal character '\\n'": "a text in quotes does not end on its line",
    'Expected "\'"': "a text in quotes does not end on its line",
    "Unterminated string": "a text in quotes does not end",
    "Unclosed array": "a list does not end: expected ]",
    "Unclosed inline table": "a table in braces does not end: expected }",
    "Expected '=' after a key": "expected = after a key",
    "Invalid statement": "expected a line such as key = value, or a table such as [gateway]",
    "Invalid value": "expected a value: a text in quotes, a number, true or false, a date, a list",
    "Invalid initial character for a key part": "expected a key; one with spaces stands in quotes",
    "Unescaped '\\'": "a backslash means something else in double quotes; use single quotes",
}
"""What tomllib says, by its beginning, and what a person is told."""


class Document(msgspec.Struct, frozen=True):
    """One TOML file: its values and where they stand.

    Attributes:
        file: its name, as findings print it.
        data: its values, as tomllib gives them.
    """

    file: str
    data: dict[str, object]
    _lines: Lines
    _places: dict[Path, int]

    def place(self, *keys: str | int) -> tuple[int, int]:
        """Finds where a key or an element begins.

        Args:
            keys: the path to it: texts for keys, integers for elements.

        Returns:
            (line, column), both from 1; of the nearest enclosing key where this one is not written.
        """
        path: Path = keys
        while path and path not in self._places:
            path = path[:-1]
        return self._lines.at(self._places[path]) if path else (1, 1)

    def finding(
        self,
        keys: Path,
        message: str,
        hint: str | None = None,
        severity: Severity = Severity.ERROR,
    ) -> Finding:
        """Makes a finding that points into this file.

        Args:
            keys: the path to what is wrong.
            message: what was expected and what came; lower case, no full stop.
            hint: what to do about it.
            severity: ERROR or WARNING.

        Returns:
            The finding.
        """
        line, column = self.place(*keys)
        return Finding(self.file, line, column, message, hint, severity)


def load(path: pathlib.Path, kind: type[T]) -> T:
    """Reads a TOML file into a typed value.

    Args:
        path: the file.
        kind: a msgspec.Struct type.

    Returns:
        The value.

    Raises:
        ConfigError: with every finding of the file.
    """
    return read(open_document(path), kind)


def parse(text: str | bytes, file_name: str, kind: type[T]) -> T:
    """Reads a TOML text into a typed value.

    Args:
        text: the document.
        file_name: what findings call it.
        kind: a msgspec.Struct type.

    Returns:
        The value.

    Raises:
        ConfigError: with every finding of the text.
    """
    return read(parse_document(text, file_name), kind)


def open_document(path: pathlib.Path) -> Document:
    """Reads a TOML file with its places.

    Args:
        path: the file; at most MAX_BYTES.

    Returns:
        The document.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        data = durable.read(path, MAX_BYTES)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        reason = (getattr(exc, "strerror", None) or str(exc)).lower()
        raise _refuse(str(path), (1, 1), f"expected a readable file, got: {reason}") from exc
    return parse_document(data, str(path))


def parse_document(text: str | bytes, file_name: str) -> Document:
    """Reads a TOML text with its places.

    Args:
        text: the document, at most MAX_BYTES.
        file_name: what findings call it.

    Returns:
        The document.

    Raises:
        ConfigError: it is no TOML.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        message = f"expected at most {MAX_BYTES} bytes, got {len(data)}"
        raise _refuse(file_name, (1, 1), message)
    decoded = _decode(data, file_name)
    lines = Lines(decoded)
    try:
        scanned = scan(decoded)
    except TooComplexError as exc:
        raise _refuse(file_name, lines.at(exc.offset), exc.message) from exc
    try:
        values = tomllib.loads(decoded)
    except (ValueError, RecursionError) as exc:
        raise _not_toml(file_name, lines.at(scanned.end), str(exc)) from exc
    return Document(file_name, values, lines, scanned.places)


def read(document: Document, kind: type[T]) -> T:
    """Converts a document into a typed value.

    Args:
        document: the document.
        kind: a msgspec.Struct type.

    Returns:
        The value.

    Raises:
        ConfigError: with every finding of the document.
    """
    converter = Converter()
    value = converter.convert(document.data, kind)
    if converter.mistakes:
        raise ConfigError(tuple(sorted(_located(document, m) for m in converter.mistakes)))
    return cast("T", value)  # the converter made it from the kind


def _located(document: Document, mistake: Mistake) -> Finding:
    return document.finding(mistake.path, mistake.message, mistake.hint)


def _decode(data: bytes, file_name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8-sig", "replace")
        place = Lines(before).at(len(before))
        message = f"expected UTF-8, got the byte 0x{data[exc.start]:02x}"
        raise _refuse(file_name, place, message, "save the file as UTF-8") from exc


def _not_toml(file_name: str, stopped: tuple[int, int], said: str) -> ConfigError:
    match = _AT.search(said)
    message = _in_words(said[: match.start()] if match else said)
    # An open string ends with the document; where it begins is where our own scan stopped.
    place = (int(match[1]), int(match[2])) if match and match[1] else stopped
    return _refuse(file_name, place, message)


def _in_words(said: str) -> str:
    """What tomllib said, for somebody who has not read its grammar."""
    for begin, words in _WORDS.items():
        if said.startswith(begin):
            return words
    return said[:1].lower() + said[1:]


def _refuse(
    file_name: str, place: tuple[int, int], message: str, hint: str | None = None
) -> ConfigError:
    return ConfigError((Finding(file_name, place[0], place[1], message, hint),))
