# SPDX-License-Identifier: Apache-2.0
"""TOML documents in every way of writing one, with the text each path must be found at."""

from __future__ import annotations

import re

from hypothesis import strategies as st

Paths = dict[tuple[str | int, ...], str]

WORDS = st.text("abcXYZ019_-", min_size=1, max_size=6)
ODD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=6)
KEYS = st.one_of(
    WORDS, ODD, st.sampled_from(["a.b", "", '"', "'", "=", "#", "[x]", "\\", "é", "表"])
)

SCALARS = st.sampled_from(
    [
        "1", "-2_000", "0xff", "1e5", "3.5", "inf", "nan", "true", "false", "2027-11-30",
        "2026-11-22T10:15:00+08:00", "2026-11-22 10:15:00", "10:15:00.5", '""', "''", '"a#b = [c]"',
        "'a\\'", '"\\"quoted\\" \\u00e9"', '"""\nmany\nlines = [\n"""', "'''\n[x]\n'' 'y'''",
        '"""""two"""""', "''''one''''", '"""a\\\n   b"""', "'# no comment'", '"表"',
    ]
)  # fmt: skip
BLANKS = st.sampled_from(["", " ", "\t", "  "])
BREAKS = st.sampled_from(["", " ", "\n", "\n  # why\n\t", "\r\n"])


def spelt(draw: st.DrawFn, key: str) -> str:
    """A key bare, in quotes or in apostrophes, as it allows."""
    escaped = "".join(f"\\U{ord(one):08x}" for one in key)
    plain = key.replace("\\", "\\\\").replace('"', '\\"')
    ways = [f'"{escaped}"', f'"{plain}"']
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        ways.append(key)
    if "'" not in key:
        ways.append(f"'{key}'")
    return draw(st.sampled_from(ways))


def keys(draw: st.DrawFn, most: int) -> list[str]:
    return draw(st.lists(KEYS, max_size=most, unique=True))


def value(draw: st.DrawFn, path: tuple[str | int, ...], found: Paths, depth: int) -> str:
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "inline"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    if kind == "array":
        parts = []
        for index in range(draw(st.integers(0, 3))):
            text = value(draw, (*path, index), found, depth - 1)
            found[*path, index] = text
            parts.append(draw(BREAKS) + text + draw(BREAKS))
        tail = "," if draw(st.booleans()) and parts else ""
        return f"[{','.join(parts)}{tail}{draw(BREAKS)}]"
    parts = [pair(draw, path, key, found, depth - 1) + draw(BLANKS) for key in keys(draw, 3)]
    return "{" + draw(BLANKS) + f",{draw(BLANKS)}".join(parts) + "}"


def pair(draw: st.DrawFn, table: tuple[str | int, ...], key: str, found: Paths, depth: int) -> str:
    """`key = value`, or `key.inner = value` with a key nobody else has."""
    path, text = (*table, key), spelt(draw, key)
    found[path] = text
    if draw(st.booleans()):
        inner = draw(KEYS)
        spelling = spelt(draw, inner)
        found[*path, inner] = spelling
        path, text = (*path, inner), f"{text}{draw(BLANKS)}.{draw(BLANKS)}{spelling}"
    right = value(draw, path, found, depth)
    return f"{text}{draw(BLANKS)}={draw(BLANKS)}{right}"


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, Paths]:
    """A document, and for each of its paths the text that stands there."""
    found: Paths = {}
    lines = [pair(draw, (), key, found, 3) for key in keys(draw, 3)]
    taken = {path[0] for path in found}
    for key in keys(draw, 4):
        if key not in taken:
            lines += table(draw, (key,), found)
    comment = draw(st.sampled_from(["", "  # a = 1", "\t#["]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join(f"{line}{comment}" for line in lines) + draw(BREAKS), found


def table(draw: st.DrawFn, path: tuple[str, ...], found: Paths) -> list[str]:
    """`[key]` or some `[[key]]`, perhaps `[key.inner]`, each with its pairs."""
    lines = []
    head = spelt(draw, path[0])
    if draw(st.booleans()):
        found[path] = head
        lines.append(f"[{draw(BLANKS)}{head}{draw(BLANKS)}]")
        return [*lines, *filled(draw, path, head, found)]
    for index in range(draw(st.integers(1, 3))):
        if not index:
            found[path] = head
        found[*path, index] = head
        lines.append(f"[[{draw(BLANKS)}{head}{draw(BLANKS)}]]")
        lines += filled(draw, (*path, index), head, found)
    return lines


def filled(draw: st.DrawFn, path: tuple[str | int, ...], head: str, found: Paths) -> list[str]:
    names = keys(draw, 4)
    lines = [pair(draw, path, key, found, 2) for key in names[:-1]]
    if draw(st.booleans()) and names:
        inner, below = spelt(draw, names[-1]), (*path, names[-1])
        found[below] = inner
        lines.append(f"[{head}.{inner}]")
        if draw(st.booleans()):
            lines[-1] = f"[[{head}.{inner}]]"
            below = (*below, 0)
            found[below] = inner
        lines += [pair(draw, below, key, found, 1) for key in keys(draw, 2)]
    return lines
