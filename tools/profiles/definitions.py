# SPDX-License-Identifier: Apache-2.0
"""The YAML of register definitions: the few forms that they use, and nothing else.

Law: a line of another form is refused; nothing is skipped but comments and empty lines.

Forms: `key: value`, `- key: value` that begins an item of a list, and `key:` above deeper lines.
A value is a text, a quoted text, or `[a, b]`, which may go over several lines; all values stay
text, so that numbers are exact.
"""

from __future__ import annotations

import re
from typing import Final

from tools.profiles.vocabulary import RefusedError

Value = str | list[str]
Node = dict[str, "Value | list[Node] | Node"]

_LINE: Final = re.compile(r"( *)(- +)?([A-Za-z_]+) *:(?: +(.*?))? *")
_OVER_LINES: Final = re.compile(r":\s*\[[^\]]*\]")
_QUOTED: Final = re.compile(r"(['\"])(.*)\1 *(?:#.*)?")


def parse(text: str) -> Node:
    """Reads a file of definitions.

    Raises:
        RefusedError: a line of a form that is not known, with its number.
    """
    lines = []
    flat = _OVER_LINES.sub(_on_one_line, text.expandtabs())
    for count, raw in enumerate(flat.splitlines(), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(raw)
        if found is None:
            raise RefusedError(f"line {count}: expected 'key: value', got {raw.strip()!r}")
        spaces, dash, key, value = found.groups()
        column = len(spaces)
        if dash:
            lines.append((column, "-", ""))
            column += len(dash)
        lines.append((column, key, value or ""))
    node, rest = _mapping(lines, 0)
    if rest != len(lines):
        raise RefusedError(f"{lines[rest][1]!r} stands at no known depth")
    return node


_Lines = list[tuple[int, str, str]]


def _on_one_line(found: re.Match[str]) -> str:
    """The list on one line, with as many line ends after it: errors name the right line."""
    return " ".join(found.group().split()) + "\n" * found.group().count("\n")


def _mapping(lines: _Lines, at: int) -> tuple[Node, int]:
    column, node = lines[at][0], Node()
    while at < len(lines) and lines[at][0] == column and lines[at][1] != "-":
        _, key, value = lines[at]
        at += 1
        if value and not value.startswith("#"):
            node[key] = _value(value)
        elif at < len(lines) and lines[at][1] == "-" and lines[at][0] >= column:
            node[key], at = _list(lines, at)
        elif at < len(lines) and lines[at][0] > column:
            node[key], at = _mapping(lines, at)
        else:
            node[key] = ""
    return node, at


def _list(lines: _Lines, at: int) -> tuple[list[Node], int]:
    column, items = lines[at][0], []
    while at < len(lines) and lines[at][:2] == (column, "-"):
        item, at = _mapping(lines, at + 1)
        items.append(item)
    return items, at


def _value(text: str) -> Value:
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return quoted.group(2)
    plain = text.split(" #", 1)[0].strip()
    if plain.startswith("[") and plain.endswith("]"):
        return [part.strip() for part in plain[1:-1].split(",") if part.strip()]
    return plain
