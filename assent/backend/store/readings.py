# SPDX-License-Identifier: Apache-2.0
"""`store.db`: what a purpose may work with, and nothing that says whose it is.

Path: Accepted (ingest) → store → **rows of readings** → whoever holds the purpose.
Law:
  - a row is one reading: series, instant, value, and a random reference that only custody resolves;
  - a series is (flow, pseudonym, terms, attribute, kind, quantum) under a random number, so that
    no number tells which series came first, or beside which;
  - no gateway, stream, sequence, time of arrival or consent record is in this file;
  - rows are clustered by series and instant (WITHOUT ROWID): no row number keeps the order in
    which batches of two flows arrived;
  - instants are whole seconds; readings of one series in one second keep their order in `again`,
    also across two batches that arrived in theirs.

Read the view `data`: flow, pseudonym, terms, batch_ref, attribute, kind, quantum, time_ms, again,
the typed value (number, text, bytes, truth, latitude, longitude) and within_ms. Numbers are in the
attribute's unit. An instant is up to within_ms later than it says: 0 but for what a gateway took
while nobody could tell it the time.

Security: this file and `custody.db` are apart because SQLite grants no tables, only files: let the
purpose's group read `store.db` (with its -wal and -shm), and nobody but the ingest `custody.db`.
Limits: whoever reads the file below SQL, or watches it as it grows, still sees the order in which
pages were written; hand out a copy (`VACUUM INTO`) where that matters. `unsettled` names the
batches of the newest commit until the store rests.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final, assert_never, cast

from assent.backend.store.files import make
from assent.columns import Column, Kind, Table

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS terms (
  flow TEXT NOT NULL, hash BLOB NOT NULL, encoded BLOB NOT NULL,
  policy_version TEXT NOT NULL, policy_serial INTEGER NOT NULL,
  PRIMARY KEY (flow, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
  series INTEGER PRIMARY KEY,
  flow TEXT NOT NULL, pseudonym BLOB NOT NULL, terms BLOB NOT NULL,
  attribute TEXT NOT NULL, kind INTEGER NOT NULL, quantum TEXT NOT NULL,
  UNIQUE (flow, pseudonym, terms, attribute, kind, quantum)
);
CREATE TABLE IF NOT EXISTS reading (
  series INTEGER NOT NULL, time_ms INTEGER NOT NULL, batch_ref BLOB NOT NULL,
  again INTEGER NOT NULL, -- counts readings of one series at one instant
  number,                 -- no affinity: whole numbers stay exact, others are REAL
  text TEXT, bytes BLOB, truth INTEGER, latitude REAL, longitude REAL,
  PRIMARY KEY (series, time_ms, again, batch_ref)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsettled (
  batch_ref BLOB NOT NULL, spans TEXT NOT NULL, PRIMARY KEY (batch_ref)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uncertain (
  batch_ref BLOB NOT NULL, within_ms INTEGER NOT NULL, PRIMARY KEY (batch_ref)
) WITHOUT ROWID;
DROP VIEW IF EXISTS data;
CREATE VIEW data AS
  SELECT flow, pseudonym, terms, batch_ref, attribute, kind, quantum, time_ms, again,
         number, text, bytes, truth, latitude, longitude, ifnull(within_ms, 0) AS within_ms
  FROM reading JOIN series USING (series) LEFT JOIN uncertain USING (batch_ref);
"""

_INTO: Final = "INSERT INTO reading (series, time_ms, batch_ref, again, "
_NUMBER: Final = _INTO + "number) VALUES (?,?,?,?,?)"
_INSERT: Final = {
    Kind.NUMBER: _NUMBER,
    Kind.FLOAT: _NUMBER,
    Kind.TEXT: _INTO + "text) VALUES (?,?,?,?,?)",
    Kind.BYTES: _INTO + "bytes) VALUES (?,?,?,?,?)",
    Kind.BOOLEAN: _INTO + "truth) VALUES (?,?,?,?,?)",
    Kind.POSITION: _INTO + "latitude, longitude) VALUES (?,?,?,?,?,?)",
}
# A series is asked for once per column and batch; 100,000 of them are some 30 MB.
_MAX_KNOWN: Final = 100_000

_Identity = tuple[str, bytes, bytes, str, int, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """What one batch leaves in `store.db`.

    Attributes:
        reference: 16 random bytes; custody knows what they stand for.
        flow: id of the flow.
        terms: SHA-256 of the terms.
        tables: the values.
        within_ms: how much later than they say its instants may be.
    """

    reference: bytes
    flow: str
    terms: bytes
    tables: Sequence[Table]
    within_ms: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One row of the view `data`."""

    flow: str
    pseudonym: bytes
    attribute: str
    time_ms: int
    value: int | float | str | bytes | bool | tuple[float, float]
    terms: bytes
    batch_ref: bytes
    within_ms: int


class Readings:
    """The open `store.db`; the Store owns its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._known: dict[_Identity, int] = {}

    def prepare(self) -> None:
        """Makes the tables where they are not there yet."""
        make(self._db, _SCHEMA)

    def publish(self, flow: str, terms: bytes, encoded: bytes, version: str, serial: int) -> None:
        """Keeps terms under which rows may stand; the first policy that had them names them."""
        self._db.execute(
            "INSERT OR IGNORE INTO terms VALUES (?,?,?,?,?)",
            (flow, terms, encoded, version, serial),
        )

    def put(self, bundle: Bundle) -> None:
        """Inserts the readings of one batch, and remembers that they are not settled yet."""
        spans: list[tuple[int, int, int]] = []
        before: dict[int, list[Sequence[int]]] = {}
        looked: set[tuple[int, int]] = set()
        for table in bundle.tables:
            times = table.times
            if not times:
                continue
            first, last = min(times), max(times)
            for column in table.columns:
                series = self._series(bundle, table, column)
                spans.append((series, first, last))
                if (series, first) not in looked:
                    looked.add((series, first))
                    before.setdefault(series, []).extend(self._there(series, first, bundle))
                again = _again(times, before[series])
                key = (repeat(series), times, repeat(bundle.reference), again)
                self._db.executemany(
                    _INSERT[column.kind],
                    zip(*key, *_cells(column), strict=False),  # repeat() has no end
                )
        self._db.execute(
            "INSERT INTO unsettled VALUES (?,?)", (bundle.reference, json.dumps(spans))
        )
        if bundle.within_ms:
            self._db.execute(
                "INSERT INTO uncertain VALUES (?,?)", (bundle.reference, bundle.within_ms)
            )

    def unsettled(self) -> list[bytes]:
        """Names the batches of the newest commit."""
        return [row[0] for row in self._db.execute("SELECT batch_ref FROM unsettled")]

    def settle(self, orphans: Sequence[bytes]) -> None:
        """Deletes the rows of batches that custody does not know; then nothing is unsettled."""
        for reference in orphans:
            (spans,) = self._db.execute(
                "SELECT spans FROM unsettled WHERE batch_ref = ?", (reference,)
            ).fetchone()
            self._db.executemany(
                "DELETE FROM reading WHERE series = ? AND time_ms BETWEEN ? AND ?"
                " AND batch_ref = ?",
                ((*span, reference) for span in json.loads(spans)),
            )
            self._db.execute("DELETE FROM uncertain WHERE batch_ref = ?", (reference,))
        self._db.execute("DELETE FROM unsettled")

    def forget_known(self) -> None:
        """Drops what is remembered of series: a transaction that made some was rolled back."""
        self._known.clear()

    def flows(self) -> list[tuple[str, int, int]]:
        """Counts per flow: (flow, pseudonyms, readings)."""
        return self._db.execute(
            "SELECT flow, count(DISTINCT pseudonym), count(*) FROM data GROUP BY flow ORDER BY flow"
        ).fetchall()

    def counted(self) -> dict[bytes, int]:
        """Counts what is here of each batch, by its reference; reads every row once."""
        found = self._db.execute("SELECT batch_ref, count(*) FROM reading GROUP BY batch_ref")
        return dict(found.fetchall())

    def names(self) -> set[str]:
        """The flows that were published here or have readings here."""
        found = self._db.execute("SELECT flow FROM terms UNION SELECT flow FROM series")
        return {flow for (flow,) in found}

    def rows(self, flow: str, limit: int) -> Iterator[Reading]:
        """Gives a flow's readings, the latest instants first."""
        found = self._db.execute(
            "SELECT pseudonym, attribute, time_ms, kind, number, text, bytes, truth, latitude,"
            " longitude, terms, batch_ref, within_ms FROM data WHERE flow = ?"
            " ORDER BY time_ms DESC, attribute, pseudonym, again DESC LIMIT ?",
            (flow, limit),
        )
        for pseudonym, attribute, time_ms, kind, *values, terms, reference, within in found:
            value = _value(Kind(kind), values)
            yield Reading(flow, pseudonym, attribute, time_ms, value, terms, reference, within)

    def terms(self, flow: str) -> list[bytes]:
        """The terms of a flow under which rows may stand, as they were published."""
        found = self._db.execute("SELECT encoded FROM terms WHERE flow = ?", (flow,))
        return [encoded for (encoded,) in found]

    def every(self, flow: str) -> Iterator[Reading]:
        """Gives all of a flow's readings, series by series, each in the order of time."""
        series = self._db.execute(
            "SELECT series, pseudonym, attribute, kind, terms FROM series WHERE flow = ?"
            " ORDER BY pseudonym, attribute, terms, kind, quantum",
            (flow,),
        ).fetchall()
        for number, pseudonym, attribute, kind, terms in series:
            found = self._db.execute(
                "SELECT time_ms, batch_ref, ifnull(within_ms, 0),"
                " number, text, bytes, truth, latitude, longitude"
                " FROM reading LEFT JOIN uncertain USING (batch_ref)"
                " WHERE series = ? ORDER BY time_ms, again, batch_ref",
                (number,),
            )
            for time_ms, reference, within, *values in found:
                value = _value(Kind(kind), values)
                yield Reading(flow, pseudonym, attribute, time_ms, value, terms, reference, within)

    def _there(self, series: int, time_ms: int, bundle: Bundle) -> list[Sequence[int]]:
        """Finds what earlier batches left of a series in the second in which this one begins."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM reading WHERE series = ? AND time_ms = ? AND batch_ref <> ?",
            (series, time_ms, bundle.reference),
        ).fetchone()
        return [[time_ms] * count] if count else []

    def _series(self, bundle: Bundle, table: Table, column: Column) -> int:
        quantum = column.quantum
        resolution = f"{quantum.numerator}/{quantum.denominator}" if quantum else ""
        identity = (
            bundle.flow,
            bytes(table.device),
            bundle.terms,
            column.attribute,
            int(column.kind),
            resolution,
        )
        known = self._known.get(identity)
        if known is not None:
            return known
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._db.execute(
            "INSERT OR IGNORE INTO series VALUES (?,?,?,?,?,?,?)",
            (secrets.randbits(62), *identity),
        )
        row = self._db.execute(
            "SELECT series FROM series WHERE flow = ? AND pseudonym = ? AND terms = ?"
            " AND attribute = ? AND kind = ? AND quantum = ?",
            identity,
        ).fetchone()
        self._known[identity] = row[0]
        return int(row[0])


def _again(times: Sequence[int], before: list[Sequence[int]]) -> Iterable[int]:
    """Numbers the readings of one series at one instant; nearly always there is only one."""
    if not before and len(set(times)) == len(times):
        before.append(times)
        return repeat(0)
    seen = collections.Counter(itertools.chain.from_iterable(before))
    before.append(times)
    numbers = []
    for time in times:
        numbers.append(seen[time])
        seen[time] += 1
    return numbers


def _cells(column: Column) -> tuple[Sequence[object], ...]:
    """Gives the values as they are stored, in the attribute's unit; a position has two parts."""
    quantum = column.quantum
    if column.kind is Kind.POSITION:
        pairs = cast("Sequence[tuple[int, int]]", column.values)
        parts = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
        return tuple(quantum.values_of(part) for part in parts) if quantum else tuple(parts)
    if column.kind is Kind.NUMBER and quantum is not None:
        units = cast("Sequence[int]", column.values)
        if quantum.denominator == 1:  # stays whole, however large
            return ([unit * quantum.numerator for unit in units],)
        return (quantum.values_of(units),)
    return (column.values,)


def _value(
    kind: Kind, values: Sequence[object]
) -> int | float | str | bytes | bool | tuple[float, float]:
    number, text, data, truth, latitude, longitude = values
    match kind:
        case Kind.NUMBER | Kind.FLOAT:
            assert isinstance(number, int | float)
            return number
        case Kind.TEXT:
            return str(text)
        case Kind.BYTES:
            assert isinstance(data, bytes)
            return data
        case Kind.BOOLEAN:
            return bool(truth)
        case Kind.POSITION:
            assert isinstance(latitude, float)
            assert isinstance(longitude, float)
            return (latitude, longitude)
        case _:
            assert_never(kind)
