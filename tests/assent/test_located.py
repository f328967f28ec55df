# SPDX-License-Identifier: Apache-2.0
"""Every mistake of a file is named at once, with its line and column."""

from __future__ import annotations

import datetime as dt
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import located
from assent.errors import ConfigError, Finding, Severity
from assent.units import Duration
from tests.assent.toml_texts import Paths, documents

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z]+\Z", description="a small word")]


class Place(msgspec.Struct, frozen=True):
    street: Word
    number: Annotated[int, msgspec.Meta(ge=1, le=99)] = 1


class House(msgspec.Struct, frozen=True):
    owner: Word
    place: Place
    kind: Literal["flat", "house"] = "flat"
    built: dt.date | None = None
    sold: dt.datetime | None = None
    every: Duration = Duration.parse("1s")
    heat: float = 20.0
    empty: bool = False
    rooms: dict[Word, Place] = {}  # msgspec copies it
    names: tuple[Word, ...] = ()
    answer: Literal["yes", "no"] | Place = "no"


class Minimal(msgspec.Struct, frozen=True):
    """Has nothing that can be missing."""

    a: int = 0


RIGHT = """\
owner = "ann"
kind = "house"
built = 1950-06-01
every = "15m"
heat = 21
names = ["a", "b"]
answer = { street = "elm" }

[place]
street = "oak"
number = 7

[rooms.kitchen]
street = "inside"
"""


def findings_of(text: str | bytes, kind: type = House) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        located.parse(text, "f.toml", kind)
    return [str(finding) for finding in caught.value.findings]


def only(text: str | bytes, kind: type = House) -> str:
    (finding,) = findings_of(text, kind)
    return finding


def changed(old: str, new: str) -> str:
    assert old in RIGHT
    return RIGHT.replace(old, new, 1)


def test_a_right_file_becomes_its_value() -> None:
    assert located.parse(RIGHT, "f.toml", House) == House(
        owner="ann",
        place=Place("oak", 7),
        kind="house",
        built=dt.date(1950, 6, 1),
        every=Duration.parse("15m"),
        heat=21.0,
        names=("a", "b"),
        rooms={"kitchen": Place("inside")},
        answer=Place("elm"),
    )


KEYS = "answer, built, empty, every, heat, kind, names, owner, place, rooms, sold"

MISTAKES: dict[str, tuple[str, str, str]] = {
    "an unknown key names the nearest known one": (
        "heat = 21",
        "haet = 21",
        f"f.toml:5:1: unknown key 'haet', expected one of {KEYS} (did you mean 'heat'?)",
    ),
    "an unknown key unlike any other names all of them": (
        "number = 7",
        "zzz = 7",
        "f.toml:11:1: unknown key 'zzz', expected one of number, street",
    ),
    "a missing key stands where its table does": (
        'street = "inside"',
        "",
        "f.toml:13:8: missing key 'street': expected a small word",
    ),
    "a missing key of the whole file stands at its start": (
        'owner = "ann"',
        "",
        "f.toml:1:1: missing key 'owner': expected a small word",
    ),
    "a word outside its set names the nearest": (
        '"house"',
        '"huose"',
        "f.toml:2:1: expected one of 'flat', 'house', got the text 'huose' (did you mean 'house'?)",
    ),
    "a text in place of a number": (
        "heat = 21",
        'heat = "21"',
        "f.toml:5:1: expected a number, got the text '21'",
    ),
    "a truth in place of a number": (
        "heat = 21",
        "heat = true",
        "f.toml:5:1: expected a number, got true",
    ),
    "a number that is none": (
        "heat = 21",
        "heat = nan",
        "f.toml:5:1: expected a number, got the number nan",
    ),
    "an endless number": (
        "heat = 21",
        "heat = inf",
        "f.toml:5:1: expected a number, got the number inf",
    ),
    "a fraction in place of a whole number": (
        "number = 7",
        "number = 7.0",
        "f.toml:11:1: expected a whole number from 1 up to 99, got the number 7.0",
    ),
    "a number under its limit": (
        "number = 7",
        "number = 0",
        "f.toml:11:1: expected a whole number from 1 up to 99, got the number 0",
    ),
    "a number over its limit": (
        "number = 7",
        "number = 100",
        "f.toml:11:1: expected a whole number from 1 up to 99, got the number 100",
    ),
    "a number in place of a truth": (
        "heat = 21",
        "empty = 1",
        "f.toml:5:1: expected true or false, got the number 1",
    ),
    "a text of another shape": (
        '"oak"',
        '"Oak"',
        "f.toml:10:1: expected a small word, got the text 'Oak'",
    ),
    "a text with a line break at its end": (
        '"oak"',
        '"oak\\n"',
        "f.toml:10:1: expected a small word, got the text 'oak\\n'",
    ),
    "a number in place of a duration": (
        '"15m"',
        "15",
        "f.toml:4:1: expected a duration in quotes such as '15m', got the number 15",
    ),
    "a duration without its unit": (
        '"15m"',
        '"15"',
        "f.toml:4:1: expected a duration such as '15m' (units ms, s, m, h, d), got '15'",
    ),
    "an instant in place of a day": (
        "1950-06-01",
        "1950-06-01T00:00:00Z",
        "f.toml:3:1: expected a date such as 2027-11-30, got the datetime 1950-06-01 00:00:00+00:00",
    ),
    "a day that is none": (
        "1950-06-01",
        '"1950-13-01"',
        "f.toml:3:1: expected a date such as 2027-11-30, got the text '1950-13-01'",
    ),
    "an element of a list has its own place": (
        '["a", "b"]',
        '["a", 2]',
        "f.toml:6:15: expected a small word, got the number 2",
    ),
    "a text in place of a list": (
        '["a", "b"]',
        '"a"',
        "f.toml:6:1: expected a list in square brackets, got the text 'a'",
    ),
    "a list in place of a table": (
        "[place]",
        "[[place]]",
        "f.toml:9:3: expected a table, got a list",
    ),
    "a name of a table has a shape, too": (
        "[rooms.kitchen]",
        "[rooms.Kitchen]",
        "f.toml:13:8: expected a small word, got the text 'Kitchen'",
    ),
    "a key of an inline table has its own place": (
        'street = "elm"',
        'stret = "elm", street = "e"',
        "f.toml:7:12: unknown key 'stret', expected one of number, street (did you mean 'street'?)",
    ),
    "neither of two ways": (
        '{ street = "elm" }',
        "3",
        "f.toml:7:1: expected one of 'no', 'yes' or a table, got the number 3",
    ),
    "the first of two ways, misspelt": (
        '{ street = "elm" }',
        '"yse"',
        "f.toml:7:1: expected one of 'no', 'yes', got the text 'yse' (did you mean 'yes'?)",
    ),
}


@pytest.mark.parametrize(("old", "new", "finding"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named(old: str, new: str, finding: str) -> None:
    assert only(changed(old, new)) == finding


def test_every_mistake_of_a_file_comes_at_once_in_the_order_of_its_lines() -> None:
    text = (
        'owner = 1\nkind = "x"\nevery = "soon"\nnames = ["A", "b", "C"]\nplaces = 1\n'
        '[place]\nnumber = "many"\n[rooms]\na = 1\nb = { street = "OK" }\n'
    )
    assert [finding.split(": ")[0] for finding in findings_of(text)] == [
        "f.toml:1:1",
        "f.toml:2:1",
        "f.toml:3:1",
        "f.toml:4:10",
        "f.toml:4:20",
        "f.toml:5:1",
        "f.toml:6:2",
        "f.toml:7:1",
        "f.toml:9:1",
        "f.toml:10:7",
    ]


def test_each_mistake_alone_is_also_found_among_the_others() -> None:
    # What one finding says does not depend on whether there are others.
    two = RIGHT.replace("heat = 21", "heat = true").replace("number = 7", "number = 0")
    assert findings_of(two) == [
        only(changed("heat = 21", "heat = true")),
        only(changed("number = 7", "number = 0")),
    ]


def test_a_date_may_stand_in_quotes() -> None:
    made = located.parse(changed("1950-06-01", '"1950-06-01"'), "f", House)
    assert made.built == dt.date(1950, 6, 1)


def test_a_day_is_no_instant() -> None:
    right = located.parse(changed("heat = 21", "sold = 2026-01-01T00:00:00+08:00"), "f", House)
    assert right.sold is not None
    assert right.sold.utcoffset() == dt.timedelta(hours=8)
    assert "expected a date and time" in only(changed("heat = 21", "sold = 2026-01-01"))


NO_TOML: dict[str, tuple[str | bytes, str]] = {
    "a statement without a value": (
        "a = 1\nb =\n",
        "f.toml:2:4: expected a value: a text in quotes, a number, true or false, a date, a list",
    ),
    "a text that never closes is named where it opens": (
        'a = 1\nb = """x\ny\nz\n',
        "f.toml:2:5: a text in quotes does not end",
    ),
    "a key written twice": ("a = 1\na = 2\n", "f.toml:2:6: this key or table stands twice"),
    "a NUL": ("a = '\0'", "f.toml:1:6: found invalid character '\\x00'"),
    "bytes that are no UTF-8": (
        "a = 1\nb = 'é\xff".encode("latin-1"),
        "f.toml:2:6: expected UTF-8, got the byte 0xe9 (save the file as UTF-8)",
    ),
    "half a character at the end": (
        b"a = '\xe8\xa1",
        "f.toml:1:6: expected UTF-8, got the byte 0xe8 (save the file as UTF-8)",
    ),
    "UTF-16 as some editors save it": (
        "a = 1".encode("utf-16"),
        "f.toml:1:1: expected UTF-8, got the byte 0xff (save the file as UTF-8)",
    ),
    "a lone surrogate": (
        "a = '\ud800'",
        "f.toml:1:6: expected UTF-8, got the byte 0xed (save the file as UTF-8)",
    ),
    "arrays without end": (
        "a = " + "[" * 100_000,
        "f.toml:1:29: expected at most 24 levels of nesting",
    ),
    "a key of a thousand parts": (
        ".".join(["a"] * 1_000) + " = 1",
        "f.toml:1:49: expected at most 24 levels of nesting",
    ),
    "a number of a million digits": (
        "a = " + "1" * 1_000_000,
        "f.toml:1:5: expected a number or a date of at most 100 characters",
    ),
    "a file over its limit": (
        "#" * (located.MAX_BYTES + 1),
        "f.toml:1:1: expected at most 1048576 bytes, got 1048577",
    ),
}


@pytest.mark.parametrize(("text", "finding"), NO_TOML.values(), ids=NO_TOML.keys())
def test_what_is_no_toml_is_named_at_its_place(text: str | bytes, finding: str) -> None:
    assert only(text, Minimal) == finding


def test_a_file_at_its_limit_is_read() -> None:
    text = "a = 1\n".ljust(located.MAX_BYTES, "#")
    assert located.parse(text, "f", Minimal) == Minimal(1)


def test_a_byte_order_mark_is_stepped_over() -> None:
    assert located.parse(b"\xef\xbb\xbfa = 1", "f", Minimal) == Minimal(1)
    assert only(b"\xef\xbb\xbfa = 'x'", Minimal).startswith("f.toml:1:1: expected a whole number")


def test_line_ends_of_any_system_count_as_one() -> None:
    text = changed("heat = 21", "heat = true").replace("\n", "\r\n")
    assert only(text) == "f.toml:5:1: expected a number, got true"


def refusal_of(text: str | bytes) -> Sequence[Finding] | None:
    """What is found wrong with it; None where it is read."""
    try:
        located.parse(text, "f.toml", House)
    except ConfigError as exc:
        return exc.findings
    return None


def is_placed(findings: Sequence[Finding]) -> bool:
    """Whether there is something, at places that a file can have, a line each."""
    return bool(findings) and all(
        finding.line >= 1 and finding.column >= 1 and "\n" not in str(finding)
        for finding in findings
    )


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100)))
def test_whatever_the_bytes_what_comes_is_a_value_or_a_config_error(data: str | bytes) -> None:
    refusal = refusal_of(data)
    assert refusal is not None  # none of them has an owner
    assert is_placed(refusal)


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_changed_in_a_right_file_it_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(RIGHT)))
    length = data.draw(st.integers(0, 12))
    inserted = data.draw(st.text("=[]{}\".,\n\\'#a1é\x00", max_size=6))
    refusal = refusal_of(RIGHT[:at] + inserted + RIGHT[at + length :])
    assert refusal is None or is_placed(refusal)


def test_the_right_file_itself_is_not_refused() -> None:
    assert refusal_of(RIGHT) is None


@settings(max_examples=150)
@given(documents())
def test_every_unknown_key_of_a_document_is_named_at_its_place(made: tuple[str, Paths]) -> None:
    text, found = made
    document = located.parse_document(text, "f.toml")
    assert document.data == tomllib.loads(text) or "nan" in text
    lines = text.split("\n")
    for path, spelling in found.items():
        line, column = document.place(*path)
        assert "\n".join([lines[line - 1][column - 1 :], *lines[line:]]).startswith(spelling)
    unknown = {path[0] for path in found} - {"a"}
    if unknown:
        messages = findings_of(text, Minimal)
        assert len([message for message in messages if "unknown key" in message]) == len(unknown)


def test_a_document_points_into_its_file() -> None:
    document = located.parse_document(RIGHT, "f.toml")
    finding = document.finding(("place", "number"), "too high", "lower it", Severity.WARNING)
    assert str(finding) == "f.toml:11:1: warning: too high (lower it)"
    assert document.place() == (1, 1)


def test_what_is_not_written_has_the_place_of_what_encloses_it() -> None:
    document = located.parse_document(RIGHT, "f.toml")
    assert document.place("rooms", "kitchen", "number") == document.place("rooms", "kitchen")
    assert document.place("nothing", "at", "all") == (1, 1)


def test_a_file_is_loaded_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text(RIGHT)
    assert located.load(tmp_path / "house.toml", House).owner == "ann"
    (tmp_path / "house.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        located.load(tmp_path / "house.toml", House)
    assert caught.value.findings[0].file == str(tmp_path / "house.toml")


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (located.MAX_BYTES + 1))
    for name, reason in {
        "missing": "no such file or directory",
        "pipe": "not a regular file",
        "large": "larger than 1048576 bytes",
        "nul\0": "embedded null byte",
    }.items():
        with pytest.raises(ConfigError) as caught:
            located.open_document(tmp_path / name)
        (finding,) = caught.value.findings
        assert finding.message == f"expected a readable file, got: {reason}"


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(only(changed('"house"', f'"{"x" * 5_000}"'))) < 200
    assert len(only(changed("heat", "h" * 5_000))) < 300
