# SPDX-License-Identifier: Apache-2.0
"""What a backend holds of a flow, read with SQL of its own: no counter of the product is believed.

Rows are (number, second); gaps are as they were declared; streams are the numbers of batches that
are in custody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CAUSES = (
    *("crash", "outage", "quota", "silent", "clock", "purge", "age", "ended", "lost"),
    *("unsealed", "refused", "boot"),
)
"""Names of causes, in the order in which docs/wire.md numbers them."""
CRASH, OUTAGE, QUOTA, SILENT, CLOCK, PURGE, AGE, ENDED, LOST, UNSEALED, REFUSED, BOOT = range(12)
"""Not imported, so that a mistake there is seen here."""

SLACK_MS = 1_100
"""An instant is stored to the second; the rest is a timer that is late."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """One declared gap, as the backend keeps it."""

    cause: int
    first_ms: int
    last_ms: int
    readings: int
    numbers: tuple[int, ...] = ()
    stream: int = 0

    @property
    def names_batches(self) -> bool:
        """Whether it names batches that will not come; those that came all the same are stored."""
        return len(self.numbers) == 2 and self.numbers[0] < self.numbers[1]

    def covers(self, at_ms: float) -> bool:
        """Whether an instant lies in it, give or take the slack."""
        return self.first_ms - SLACK_MS <= at_ms <= self.last_ms + SLACK_MS


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a flow.

    Attributes:
        numbers: of the batches that are in custody, in order.
        following: the number after its last one, or None where its end was not told.
    """

    numbers: Sequence[int]
    following: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What a backend holds of one flow.

    Attributes:
        rows: (number, second in ms) of each row.
        gaps: the newest form of each declared gap; the ends of streams and boots are none.
        streams: by id, in the order in which each was heard of first.
        refused: how many messages are in quarantine.
    """

    rows: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    streams: Mapping[int, Stream] = dataclasses.field(default_factory=dict)
    refused: int = 0


def read(directory: Path, flow: str, attribute: str) -> Stored:
    """Reads what a backend has of a flow.

    Args:
        directory: of the backend.
        flow: id of the flow.
        attribute: whose values are the numbers.
    """
    with contextlib.closing(_look(directory / "store.db")) as db:
        rows = db.execute(
            "SELECT number, time_ms FROM data WHERE flow=? AND attribute=?", (flow, attribute)
        ).fetchall()
    with contextlib.closing(_look(directory / "custody.db")) as db:
        kept = db.execute(
            "SELECT stream, sequence, gaps FROM custody WHERE flow=?"
            " ORDER BY received_ms, stream, sequence",
            (flow,),
        ).fetchall()
        ended = db.execute("SELECT stream, following FROM ends WHERE flow=?", (flow,)).fetchall()
        (refused,) = db.execute("SELECT count(*) FROM quarantine").fetchone()
    newest: dict[tuple[int, int], Gap] = {}
    for at, gap in _told(text for _, _, text in kept):
        newest[at, gap.stream] = gap
    ends = {_id(name): following for name, following in ended}
    numbers: dict[int, list[int]] = {}
    for name, number, _ in kept:
        numbers.setdefault(_id(name), []).append(number)
    streams = {name: Stream(sorted(here), ends.get(name)) for name, here in numbers.items()}
    return Stored([(int(n), t) for n, t in rows], list(newest.values()), streams, refused)


def _told(texts: Iterator[str]) -> Iterator[tuple[int, Gap]]:
    """Each gap that batches carried, with its number, in the order in which they came."""
    for text in texts:
        for number, stream, cause, first, last, readings, *numbers in json.loads(text):
            yield number, Gap(cause, first, last, readings, tuple(numbers), stream)


def _id(name: bytes) -> int:
    return int.from_bytes(name, "big")


def _look(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
