# SPDX-License-Identifier: Apache-2.0
"""Where in a TOML text each key and each element of an array begins.

`tomllib` tells values and no places; this room tells places and no values. It reads the text once,
in time linear to its length, before tomllib does. A text that is no TOML ends the scan early and
quietly: saying what is wrong with it is tomllib's part.

Standards: TOML 1.0.0; newlines and comments inside inline tables (TOML 1.1) are read too.
Security: the text may be anybody's. What would cost tomllib more than linear time, a Python
recursion or an exception that is not its own (keys of a thousand parts, arrays in arrays, numbers
of a million digits) is refused here first, with its place.
Limits: MAX_DEPTH parts in a path, MAX_ENTRIES keys and elements, MAX_SCALAR characters of a number
or a date.
"""

from __future__ import annotations

import bisect
import contextlib
import re
import tomllib
from typing import Final, NamedTuple

Path = tuple[str | int, ...]

MAX_DEPTH: Final = 24  # the deepest of our files has 5; tomllib recurses some 3 frames per level
MAX_ENTRIES: Final = 50_000  # the largest policy imaginable has some 5,000; 20 MB of places
MAX_SCALAR: Final = 100  # int() refuses 4,300 digits with an error of its own

_BLANK = re.compile(r"[ \t]*+")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BARE = re.compile(r"[A-Za-z0-9_-]++")
_BASIC = re.compile(r'"(?:[^"\\\n]++|\\.)*+"')
_LITERAL = re.compile(r"'[^'\n]*+'")
# Not possessive around the whole: re of Python 3.11.2, which is Debian 12's, loses its place there.
_LONG_BASIC = re.compile(r'"""(?:[^"\\]++|\\[\s\S]|"{1,2}(?!"))*"{3,5}')
_LONG_LITERAL = re.compile(r"'''(?:[^']++|'{1,2}(?!'))*'{3,5}")
# a date and its time may be separated by one space (TOML 1.0.0, offset date-time)
_SCALAR = re.compile(r"""\d{4}-\d\d-\d\d [\d:.Zz+-]++|[^\s,=#"'\[\]{}]++""", re.ASCII)


class TooComplexError(Exception):
    """The text is over a limit of this room.

    Args:
        message: one sentence for a person.
        offset: where in the text.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class _NotTomlError(Exception):
    """The scan cannot go on; tomllib will say why."""


class Lines:
    """Turns offsets of a text into lines and columns, both counted from 1, in characters."""

    __slots__ = ("_starts",)

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> tuple[int, int]:
        """Finds line and column.

        Args:
            offset: index into the text.

        Returns:
            (line, column).
        """
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


class Scanned(NamedTuple):
    """What a scan found.

    Attributes:
        places: each path, and the offset where it begins.
        end: where the scan stopped: the length of a text that is TOML.
    """

    places: dict[Path, int]
    end: int


def scan(text: str) -> Scanned:
    """Maps each path of keys and indices to the offset where it begins.

    A path holds texts for keys and integers for elements: `("device", 0, "id")`. A key stands
    where it was first written, a table where its header is; an element where its value begins.

    Args:
        text: a TOML document, or anything else.

    Returns:
        The places, as far as the text is TOML.

    Raises:
        TooComplexError: the text is over a limit.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(_NotTomlError):
        scanner.document()
    return Scanned(scanner.places, scanner.here)


class _Scanner:
    """One pass over one text. `here` is the offset of what comes next."""

    __slots__ = ("_lengths", "_text", "here", "places")

    def __init__(self, text: str) -> None:
        self._text = text
        self._lengths: dict[Path, int] = {}  # how many elements an array of tables has so far
        self.here = 0
        self.places: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK_LINES) < len(self._text):
            if self._text.startswith("[[", self.here):
                table = self._header(2)
            elif self._text.startswith("[", self.here):
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> Path:
        self.here += brackets
        parts = self._key()
        self._expect("]" * brackets)
        path: Path = ()
        for part, offset in parts[:-1]:
            path = self._inside((*path, part), offset)
        part, offset = parts[-1]
        path = (*path, part)
        if brackets == 1:
            self._note(path, offset, again=True)
            return path
        self._note(path, offset)
        count = self._lengths[path] = self._lengths.get(path, 0) + 1
        self._note((*path, count - 1), offset)
        return (*path, count - 1)

    def _inside(self, path: Path, offset: int) -> Path:
        """Notes a table on the way; an array of tables is entered at its newest element."""
        self._note(path, offset)
        count = self._lengths.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Path) -> None:
        for part, offset in self._key():
            table = (*table, part)
            self._note(table, offset)
        self._expect("=")
        self._skip(_BLANK)
        self._value(table)

    def _key(self) -> list[tuple[str, int]]:
        """Reads a key with its dotted parts, each with its offset."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_BLANK)
            start = self.here
            parts.append((self._key_part(), start))
            if self._skip(_BLANK) >= len(self._text) or self._text[self.here] != ".":
                return parts
            self.here += 1

    def _key_part(self) -> str:
        match self._peek():
            case '"':
                raw = self._take(_BASIC)
            case "'":
                return self._take(_LITERAL)[1:-1]
            case _:
                return self._take(_BARE)
        if "\\" not in raw:
            return raw[1:-1]
        try:
            return str(tomllib.loads(f"key = {raw}")["key"])  # the escapes are tomllib's to read
        except ValueError:
            raise _NotTomlError from None

    def _value(self, path: Path) -> None:
        match self._peek():
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"':
                long = self._text.startswith('"""', self.here)
                self._take(_LONG_BASIC if long else _BASIC)
            case "'":
                long = self._text.startswith("'''", self.here)
                self._take(_LONG_LITERAL if long else _LITERAL)
            case _:
                start = self.here
                if len(self._take(_SCALAR)) > MAX_SCALAR:
                    message = f"expected a number or a date of at most {MAX_SCALAR} characters"
                    raise TooComplexError(message, start)

    def _array(self, path: Path) -> None:
        index = 0
        while not self._closes("]", first=index == 0):
            element = (*path, index)
            self._note(element, self.here)
            self._value(element)
            index += 1

    def _inline_table(self, path: Path) -> None:
        first = True
        while not self._closes("}", first=first):
            self._pair(path)
            first = False

    def _closes(self, bracket: str, *, first: bool) -> bool:
        """Steps over the opening bracket or a comma; says whether the closing one follows."""
        comma = True
        if first:
            self.here += 1
        else:
            self._skip(_BLANK_LINES)
            comma = self._peek() == ","
            self.here += comma
        self._skip(_BLANK_LINES)
        if self._peek() == bracket:
            self.here += 1
            return True
        if not comma:
            raise _NotTomlError
        return False

    def _note(self, path: Path, offset: int, *, again: bool = False) -> None:
        if len(path) > MAX_DEPTH:
            raise TooComplexError(f"expected at most {MAX_DEPTH} levels of nesting", offset)
        if len(self.places) >= MAX_ENTRIES:
            raise TooComplexError(f"expected at most {MAX_ENTRIES} keys and elements", offset)
        if again or path not in self.places:
            self.places[path] = offset

    def _peek(self) -> str:
        return self._text[self.here : self.here + 1]

    def _take(self, shape: re.Pattern[str]) -> str:
        match = shape.match(self._text, self.here)
        if match is None:
            raise _NotTomlError
        self.here = match.end()
        return match[0]

    def _skip(self, blank: re.Pattern[str]) -> int:
        match = blank.match(self._text, self.here)
        self.here = match.end() if match else self.here
        return self.here

    def _expect(self, token: str) -> None:
        self._skip(_BLANK)
        if not self._text.startswith(token, self.here):
            raise _NotTomlError
        self.here += len(token)
