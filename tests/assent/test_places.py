# SPDX-License-Identifier: Apache-2.0
"""Every key and element of a TOML text has its place."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.places import MAX_DEPTH, MAX_ENTRIES, MAX_SCALAR, Lines, TooComplexError, scan
from tests.assent.toml_texts import Paths, documents

EVERYTHING = """\
# a comment with [brackets] = and "quotes"
title = "one"
"quoted key" = 'two'
site.name = "three"
site."street.no" = 4

[owner]
name = "five"

[a . 'b' . "c"]
x = 1

[[device]]
id = "first"
[device.serial]
parity = "N"

[[device]]
id = "second"
ports = [ 1,
    { name = "p", list = [[2, 3], 4] },   # an inline table in an array
]
text = \"\"\"
[not.a.table]
id = "not a key"
\"\"\"
after = true
"""

PLACES: list[tuple[tuple[str | int, ...], str]] = [
    (("title",), "2:1"),
    (("quoted key",), "3:1"),
    (("site",), "4:1"),
    (("site", "name"), "4:6"),
    (("site", "street.no"), "5:6"),
    (("owner",), "7:2"),
    (("owner", "name"), "8:1"),
    (("a",), "10:2"),
    (("a", "b"), "10:6"),
    (("a", "b", "c"), "10:12"),
    (("a", "b", "c", "x"), "11:1"),
    (("device",), "13:3"),
    (("device", 0), "13:3"),
    (("device", 0, "id"), "14:1"),
    (("device", 0, "serial"), "15:9"),
    (("device", 0, "serial", "parity"), "16:1"),
    (("device", 1), "18:3"),
    (("device", 1, "id"), "19:1"),
    (("device", 1, "ports", 0), "20:11"),
    (("device", 1, "ports", 1), "21:5"),
    (("device", 1, "ports", 1, "name"), "21:7"),
    (("device", 1, "ports", 1, "list", 0, 1), "21:31"),
    (("device", 1, "text"), "23:1"),
    (("device", 1, "after"), "27:1"),
]


def paths_of(value: object, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, below in inner:
        yield (*here, key)
        yield from paths_of(below, (*here, key))


@pytest.mark.parametrize(("path", "place"), PLACES, ids=[str(path) for path, _ in PLACES])
def test_each_way_of_writing_a_key_has_its_line_and_column(
    path: tuple[str | int, ...], place: str
) -> None:
    line, column = Lines(EVERYTHING).at(scan(EVERYTHING).places[path])
    assert f"{line}:{column}" == place


def test_every_path_that_tomllib_sees_is_placed_and_no_other() -> None:
    assert set(scan(EVERYTHING).places) == set(paths_of(tomllib.loads(EVERYTHING)))


@settings(max_examples=300)
@given(documents())
def test_the_text_at_each_place_starts_with_what_is_placed(made: tuple[str, Paths]) -> None:
    text, found = made
    places, end = scan(text)
    assert set(places) == set(paths_of(tomllib.loads(text))) == set(found)
    for path, spelling in found.items():
        assert text.startswith(spelling, places[path])
    assert end == len(text)


@settings(max_examples=200)
@given(documents(), st.data())
def test_a_text_that_is_no_toml_ends_the_scan_quietly(
    made: tuple[str, Paths], data: st.DataObject
) -> None:
    text = made[0]
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.text("=[]{}\".,\n\\'#a1\x00", max_size=3)) + text[at + 1 :]
    assert scan(changed).end <= len(changed)


@given(st.text())
def test_any_text_can_be_scanned(text: str) -> None:
    assert scan(text).end <= len(text)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("a." * 100 + "a = 1", 2 * MAX_DEPTH + 1),
        ("[" + "a." * 100 + "a]", 2 * MAX_DEPTH + 2),
        ("a = " + "[" * 10_000, 4 + MAX_DEPTH + 1),
        ("a = " + "{a = " * 10_000, 5 * MAX_DEPTH + 1),
        ("a = " + "9" * 10_000, 5),
        ("a = 1." + "9" * 10_000, 5),
    ],
    ids=["dotted key", "header", "arrays", "inline tables", "integer", "float"],
)
def test_what_would_cost_tomllib_dearly_is_refused_at_its_place(text: str, column: int) -> None:
    with pytest.raises(TooComplexError) as caught:
        scan(text)
    assert Lines(text).at(caught.value.offset) == (1, column)


def test_what_is_just_within_the_limits_is_placed() -> None:
    deep = ".".join("a" * MAX_DEPTH)
    assert len(scan(f"{deep} = 1").places) == MAX_DEPTH
    assert len(scan("a = " + "[" * 23 + "]" * 23).places) == 23
    assert scan("a = " + "9" * MAX_SCALAR).places == {("a",): 0}
    assert len(scan("\n".join(f"k{n} = 1" for n in range(MAX_ENTRIES))).places) == MAX_ENTRIES


def test_one_key_too_many_is_refused() -> None:
    with pytest.raises(TooComplexError, match="keys and elements"):
        scan("\n".join(f"k{n} = 1" for n in range(MAX_ENTRIES + 1)))


@pytest.mark.parametrize(
    "text",
    [
        'a = """' + '"x' * 500_000,
        'a = "' + "\\\\" * 500_000,
        "\n" * 1_000_000,
        "a" + " " * 1_000_000,
    ],
    ids=["quotes that never close", "backslashes", "blank lines", "spaces"],
)
def test_a_megabyte_of_anything_is_scanned_in_linear_time(text: str) -> None:
    started = time.process_time()
    scan(text)
    assert time.process_time() - started < 2  # a quadratic scan takes minutes


def test_lines_and_columns_count_characters_from_one() -> None:
    lines = Lines("ab\r\n表c\n")
    assert [lines.at(offset) for offset in range(8)] == [
        (1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (3, 1),
    ]  # fmt: skip
