# SPDX-License-Identifier: Apache-2.0
"""The time column of a recording: text to milliseconds.

Law:
  - a text that is not in the declared format has no time; it is never taken for a near one;
  - a time without an offset is taken as UTC: a replay needs the spacing of its rows, not their day.

Formats: `iso` (ISO 8601 as Python reads it), `unix` (seconds, with or without decimals),
`unix-ms`, or a strptime pattern such as `%d/%m/%Y %H:%M:%S`.
Limits: milliseconds; what is finer is cut off.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
from collections.abc import Callable
from typing import Final

Parser = Callable[[str], int | None]
"""Text to ms since 1970-01-01 UTC, or None where the text is no time."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
_LATEST_MS: Final = 253_402_300_800_000  # the year 10000
_SAMPLE: Final = dt.datetime(2026, 11, 22, 10, 15, 59, 125_000, tzinfo=dt.UTC)

_DIRECTIVE: Final = re.compile(r"%(.)|([^%])", re.DOTALL)
_WIDTHS: Final = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_INTEGER: Final = re.compile(r"\s*-?[0-9]{1,15}\s*")
_DECIMAL: Final = re.compile(r"\s*-?[0-9]{1,12}(\.[0-9]{1,12})?\s*")


def parser(time_format: str) -> Parser:
    """Makes the parser of a time column.

    Args:
        time_format: `iso`, `unix`, `unix-ms` or a strptime pattern.

    Returns:
        A function that never raises, whatever the text.

    Raises:
        ValueError: the pattern is none, with a sentence.
    """
    match time_format:
        case "iso":
            return _iso
        case "unix":
            return _unix
        case "unix-ms":
            return _unix_ms
    try:
        dt.datetime.strptime(_SAMPLE.strftime(time_format), time_format).replace(tzinfo=dt.UTC)
    except (ValueError, re.error) as exc:
        raise ValueError(_refusal(time_format)) from exc
    if "%" not in time_format:
        raise ValueError(_refusal(time_format))
    return _fixed(time_format) or _pattern(time_format)


def _refusal(time_format: str) -> str:
    return (
        "expected 'iso', 'unix', 'unix-ms' or a pattern such as '%d/%m/%Y %H:%M:%S', "
        f"got {time_format!r}"
    )


def _ms(moment: dt.datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // _MILLISECOND


def _iso(text: str) -> int | None:
    try:
        return _ms(dt.datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        return None


def _unix(text: str) -> int | None:
    if not _DECIMAL.fullmatch(text):
        return None
    # Of 12 digits before the point a float keeps microseconds; floor matches cutting off.
    stamp = math.floor(float(text) * 1000 + 1e-4)
    return stamp if abs(stamp) < _LATEST_MS else None


def _unix_ms(text: str) -> int | None:
    stamp = int(text) if _INTEGER.fullmatch(text) else None
    return stamp if stamp is not None and abs(stamp) < _LATEST_MS else None


def _pattern(time_format: str) -> Parser:
    def parse(text: str) -> int | None:
        try:
            moment = dt.datetime.strptime(text.strip(), time_format)  # noqa: DTZ007 - _ms adds UTC
        except (ValueError, OverflowError):
            return None
        return _ms(moment)

    return parse


def _fixed(time_format: str) -> Parser | None:
    """A parser six times faster than strptime, for patterns of two-digit fields in any order.

    What it does not take (one-digit days, other separators) goes to strptime, so that both agree.
    """
    fields: dict[str, slice] = {}
    literals: list[tuple[int, str]] = []
    at = 0
    for directive, literal in _DIRECTIVE.findall(time_format):
        if literal:
            literals.append((at, literal))
        elif directive not in _WIDTHS or directive in fields:
            return None
        else:
            fields[directive] = slice(at, at + _WIDTHS[directive])
        at += 1 if literal else _WIDTHS[directive]
    if fields.keys() != _WIDTHS.keys() or len(literals) < 2:
        return None
    between = operator.itemgetter(*(place for place, _ in literals))
    expected = tuple(literal for _, literal in literals)
    year, month, day, hour, minute, second = (fields[name] for name in "YmdHMS")
    slow, read = _pattern(time_format), dt.datetime.fromisoformat

    def parse(text: str) -> int | None:
        if len(text) != at or between(text) != expected:
            return slow(text)
        date = f"{text[year]}-{text[month]}-{text[day]}"
        try:
            moment = read(f"{date}T{text[hour]}:{text[minute]}:{text[second]}+00:00")
        except ValueError:
            return slow(text)
        return (moment - _EPOCH) // _MILLISECOND

    return parse
