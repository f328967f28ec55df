# SPDX-License-Identifier: Apache-2.0
"""How the command line speaks: results to stdout, errors as sentences to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

from assent.errors import AssentError, ConfigError

_RATIO: Final = "1"  # of a power factor, in UCUM


def result(value: Any, lines: Iterable[str], *, as_json: bool) -> None:  # noqa: ANN401 (JSON)
    """Prints the result: the JSON value, or the lines for a person."""
    if as_json:
        print(json.dumps(value, ensure_ascii=False, indent=2))
        return
    for line in lines:
        print(line)


def complain(error: AssentError) -> None:
    """Prints an error: its sentence and, where there is one, what to do."""
    if isinstance(error, ConfigError):
        for finding in error.findings:
            print(finding, file=sys.stderr)
        return
    print(f"assent: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns two spaces apart; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def counted(count: int, what: str) -> str:
    """A number with its noun: `1 reading`, `2 readings`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def shown_value(value: object) -> str:
    """A reading as a person reads it; without its unit."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case [float() as latitude, float() as longitude]:
            return f"{latitude:.5f}, {longitude:.5f}"
        case _:
            return str(value)


def unit_of(units: Mapping[str, str], name: str) -> str:
    """The unit of an attribute with a space before it; empty where it has none."""
    return in_unit(units.get(name))


def in_unit(unit: str | None) -> str:
    """A unit with a space before it; empty for none and for a ratio."""
    return "" if unit in {None, _RATIO} else f" {unit}"


def is_painted(stream: TextIO) -> bool:
    """Whether a terminal shows it that can move its cursor, which TERM=dumb cannot."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def emphasised(text: str) -> str:
    """Bold on a terminal that wants it (NO_COLOR is honoured), plain elsewhere."""
    if is_painted(sys.stdout) and not os.environ.get("NO_COLOR"):
        return f"\033[1m{text}\033[0m"
    return text
