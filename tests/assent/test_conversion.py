# SPDX-License-Identifier: Apache-2.0
"""Plain values become typed ones, each by itself."""

from __future__ import annotations

import datetime as dt
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from assent.conversion import Converter, Mistake
from assent.policy.expressions import Transform, parse
from assent.units import Size


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Checked(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("expected low to be at most high")


class Renamed(msgspec.Struct, rename="kebab"):
    two_words: int


def convert(value: object, kind: Any) -> tuple[object, list[Mistake]]:
    converter = Converter()
    made = converter.convert({"it": value}, msgspec.defstruct("Box", [("it", kind)]))
    return getattr(made, "it", None), converter.mistakes


INSTANT = dt.datetime(2026, 11, 22, 10, 15, tzinfo=dt.UTC)

FITS: dict[str, tuple[object, Any, object]] = {
    "a text": ("a", str, "a"),
    "a whole number": (3, int, 3),
    "a whole number where a fraction may be": (3, float, 3.0),
    "a list": ([1, 2], list[int], [1, 2]),
    "a tuple": ([1, 2], tuple[int, ...], (1, 2)),
    "a set": ([1, 1], frozenset[int], frozenset((1,))),
    "a table by name": ({"a": 1}, dict[str, int], {"a": 1}),
    "an enum by its value": ("red", Colour, Colour.RED),
    "an enum of numbers": (1, Level, Level.LOW),
    "a literal number": (2, Literal[1, 2], 2),
    "a path": ("a/b", Path, Path("a/b")),
    "a size": ("64 MB", Size, Size(64_000_000)),
    "a transform": ("delta", Transform, parse("delta")),
    "an instant with its offset": (INSTANT, Annotated[dt.datetime, Meta(tz=True)], INSTANT),
    "a time of day": (dt.time(10), dt.time, dt.time(10)),
    "anything": ({"a": [1]}, Any, {"a": [1]}),
    "something that may be left out": (1, int | None, 1),
    "one of two ways": ("red", int | Colour, Colour.RED),
    "a list or a text": (["a"], str | list[str], ["a"]),
    "a renamed key": ({"two-words": 1}, Renamed, Renamed(1)),
    "a checked table": ({"low": 1, "high": 2}, Checked, Checked(1, 2)),
}


@pytest.mark.parametrize(("value", "kind", "made"), FITS.values(), ids=FITS.keys())
def test_what_fits_is_made(value: object, kind: Any, made: object) -> None:
    assert convert(value, kind) == (made, [])
    assert type(convert(value, kind)[0]) is type(made)


AN_INSTANT = "expected a date and time with its offset such as 2026-11-22T10:15:00+08:00"

MISFITS: dict[str, tuple[object, Any, str]] = {
    "true is no literal number": (True, Literal[1], "expected one of 1, got true"),
    "true is no enum of numbers": (True, Level, "expected one of 1, got true"),
    "another enum's word": ("rde", Colour, "expected one of 'red', 'blue', got the text 'rde'"),
    "a path with a NUL": ("a\0", Path, "expected a text in quotes, got the text 'a\\x00'"),
    "an instant without offset": (
        INSTANT.replace(tzinfo=None),
        Annotated[dt.datetime, Meta(tz=True)],
        f"{AN_INSTANT}, got the datetime 2026-11-22 10:15:00",
    ),
    "an empty list where one is needed": (
        [],
        Annotated[list[int], Meta(min_length=1)],
        "expected at least 1 entries, got 0",
    ),
    "a list that is too long": (
        [1, 2],
        Annotated[list[int], Meta(max_length=1)],
        "expected at most 1 entries, got 2",
    ),
    "a number at a limit that is excluded": (
        1.0,
        Annotated[float, Meta(gt=1, lt=2)],
        "expected a number over 1 under 2, got the number 1.0",
    ),
    "a text that is too short": (
        "",
        Annotated[str, Meta(min_length=1, description="a word")],
        "expected a word, got the text ''",
    ),
    "a table that fails its own check": (
        {"low": 2, "high": 1},
        Checked,
        "expected low to be at most high",
    ),
    "a day in place of a time": (
        dt.date(2026, 1, 1),
        dt.time,
        "expected a time of day such as 10:15:00, got the date 2026-01-01",
    ),
}


@pytest.mark.parametrize(("value", "kind", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_is_a_mistake(value: object, kind: Any, message: str) -> None:
    _, mistakes = convert(value, kind)
    assert [(mistake.path, mistake.message) for mistake in mistakes] == [(("it",), message)]


def test_a_wrong_table_is_not_checked_as_a_whole() -> None:
    _, mistakes = convert({"low": 2, "high": "1"}, Checked)
    assert [mistake.path for mistake in mistakes] == [("it", "high")]


def test_a_type_without_a_rule_is_the_programmers_error() -> None:
    with pytest.raises(NotImplementedError, match="BytesType"):
        convert("a", bytes)
