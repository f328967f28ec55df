# SPDX-License-Identifier: Apache-2.0
"""A flow's readings out of the store, a line each: JSON or CSV, for whoever works with them.

Law:
  - what the view `data` says goes out, and nothing of custody: no gateway, no consent record, no
    time of arrival;
  - series by series, each in the order of time; memory does not grow with what is stored.

Limits: instants are RFC 3339 in UTC; a pseudonym is hexadecimal; a position is `latitude
longitude` in degrees in CSV, a list of the two in JSON. An instant may be up to `within_ms` later:
0 but for what was taken while nobody could tell the gateway the time.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Final

from assent.backend.report import Json, shown_time
from assent.backend.store.readings import Reading, Readings
from assent.policy.terms import decode_terms

HEAD: Final = ("time", "pseudonym", "attribute", "value", "unit", "terms", "batch", "within_ms")
"""The fields of a line, in their order."""


def json_lines(readings: Readings, flow: str) -> Iterator[str]:
    """Gives a flow's readings as JSON objects, one a line.

    Args:
        readings: the open store.
        flow: id of the flow.

    Yields:
        Lines with their ends.
    """
    for fields in _fields(readings, flow):
        yield json.dumps(dict(zip(HEAD, fields, strict=True)), ensure_ascii=False) + "\n"


def csv_lines(readings: Readings, flow: str) -> Iterator[str]:
    """Gives a flow's readings as CSV (RFC 4180) with a head; arguments as `json_lines`."""
    line = io.StringIO()
    writer = csv.writer(line)

    def written(fields: tuple[Json, ...]) -> str:
        line.seek(0)
        line.truncate()
        writer.writerow(fields)
        return line.getvalue()

    yield written(HEAD)
    for time, pseudonym, attribute, value, *rest in _fields(readings, flow):
        if isinstance(value, list):
            value = " ".join(map(str, value))  # noqa: PLW2901  # the same value, flat
        elif isinstance(value, bool):
            value = str(value).lower()  # noqa: PLW2901  # as JSON spells it
        yield written((time, pseudonym, attribute, value, *rest))


FORMATS: Final[dict[str, Callable[[Readings, str], Iterator[str]]]] = {
    "jsonl": json_lines,
    "csv": csv_lines,
}
"""How a flow can be exported, by its name on the command line."""


def _fields(readings: Readings, flow: str) -> Iterator[tuple[Json, ...]]:
    units = {
        (terms.hash, attribute.name): attribute.unit
        for encoded in readings.terms(flow)
        for terms in [decode_terms(encoded)]
        for attribute in terms.attributes
    }
    for one in readings.every(flow):
        yield (
            shown_time(one.time_ms),
            one.pseudonym.hex(),
            one.attribute,
            _plain(one),
            units.get((one.terms, one.attribute)),
            one.terms.hex(),
            one.batch_ref.hex(),
            one.within_ms,
        )


def _plain(one: Reading) -> Json:
    if isinstance(one.value, bytes):
        return one.value.hex()
    if isinstance(one.value, tuple):
        return list(one.value)
    return one.value
