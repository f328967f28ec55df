# SPDX-License-Identifier: Apache-2.0
"""Whether a spool that SQLite opens is one we can work with: tables, indices, rows.

Law:
  - it is asked once, before the collecting side uses the file; what it lets pass, every room of the
    spool can read;
  - whatever it meets is damage and gets one sentence: nobody is to mend a spool by hand, it is
    moved aside;
  - of a large file, what waits in it is not read: a start takes as long with 10 GB as with 100 MB.
    What is wrong there is met by whoever uses it, and is damage then
    (docs/decisions/0015-what-a-start-reads.md).

Limits: a bit that fell within a number leaves a number, and within a sealed message leaves bytes.
The first moves an instant or a count that stays possible, the second is refused by the backend.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from agent.spool import schema
from agent.spool.records import ClockTrust, LaneState, LinkState
from agent.spool.schema import STREAM_SHIFT, DamagedError
from assent.header import GapCause

# Bytes of a file that is read whole: more than the default quota makes of it. 100 MB take 0.2 s
# here, and some seconds on a slow card (benchmarks/spool.py).
_WHOLE_BYTES: Final = 128 << 20
# The last millisecond of the year 9999: what a person's calendar can show.
_LAST_MS: Final = 253_402_300_799_999
_BOUNDS: Final = {
    "last": _LAST_MS,
    "shift": STREAM_SHIFT,
    "streams": (1 << (63 - STREAM_SHIFT)) - 1,
}

_TEXTS: Final = (
    "SELECT flow, recipient FROM lane",
    "SELECT flow FROM gap",
    "SELECT flow FROM absence",
    "SELECT boot FROM held",
    "SELECT DISTINCT flow, recipient FROM sent",
    "SELECT DISTINCT flow, recipient FROM handed",
    "SELECT flow FROM refusal",
    "SELECT DISTINCT recipient FROM control",
    "SELECT DISTINCT recipient FROM inbox",
    "SELECT * FROM target",
    "SELECT recipient, detail FROM health",
)
"""Read because SQLite does not look whether a text is Unicode."""

_STRANGE: Final = {
    "it has no id": "SELECT count(*) != 1 OR min(length(id)) != 16 FROM spool",
    "an instant is none": "SELECT EXISTS (SELECT 1 FROM lane"
    " WHERE not_after NOT BETWEEN 0 AND :last OR acknowledged NOT BETWEEN 0 AND :last"
    " OR not_before NOT BETWEEN 0 AND :last"
    " OR next NOT BETWEEN 0 AND 1 << :shift)"
    " OR EXISTS (SELECT 1 FROM sent WHERE at NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM handed WHERE at NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM refusal WHERE said NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM held WHERE low NOT BETWEEN 0 AND :last"
    " OR high NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM floor WHERE at NOT BETWEEN 0 AND :last OR boot<0)"
    " OR EXISTS (SELECT 1 FROM inbox WHERE received NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM health WHERE since NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM gap WHERE first NOT BETWEEN 0 AND :last"
    " OR last NOT BETWEEN 0 AND :last OR readings<0 OR low<0 OR low>high)"
    " OR EXISTS (SELECT 1 FROM absence WHERE since NOT BETWEEN 0 AND :last)"
    " OR EXISTS (SELECT 1 FROM twin WHERE count<0)",
    "a stream has no lane": "SELECT EXISTS (SELECT 1 FROM stream LEFT JOIN lane"
    " ON lane.id = stream.lane WHERE lane.id IS NULL OR number NOT BETWEEN 1 AND :streams)"
    " OR EXISTS (SELECT 1 FROM lane LEFT JOIN stream ON stream.number = lane.stream"
    " WHERE lane.stream IS NOT NULL AND stream.lane IS NOT lane.id)",
    "a number was given twice": "SELECT EXISTS (SELECT 1 FROM lane JOIN batch"
    " ON batch.id BETWEEN (stream << :shift) + next AND (stream + 1 << :shift) - 1)",
}
"""Sentence → a question whose answer is no in a sound spool."""

_STRANGE_WAITING: Final = {
    "an instant is none": "SELECT EXISTS (SELECT 1 FROM batch WHERE first NOT BETWEEN 0 AND :last"
    " OR last NOT BETWEEN 0 AND :last OR readings<0 OR attempts<0 OR due<0)",
    "a batch has no bytes": "SELECT EXISTS (SELECT 1 FROM batch LEFT JOIN payload USING (id)"
    " WHERE payload.id IS NULL OR length(data) != bytes)",
    "bytes have no batch": "SELECT (SELECT count(*) FROM payload) != (SELECT count(*) FROM batch)",
    "a batch has no stream": "SELECT EXISTS (SELECT 1 FROM batch LEFT JOIN stream"
    " ON number = batch.id >> :shift WHERE stream.lane IS NOT batch.lane)",
    "a lane counts wrongly": "SELECT EXISTS (SELECT 1 FROM lane LEFT JOIN (SELECT lane AS of,"
    " count(*) AS b, sum(readings) AS r, sum(bytes) AS s FROM batch GROUP BY lane) ON of = id"
    " WHERE (batches, readings, bytes) != (ifnull(b, 0), ifnull(r, 0), ifnull(s, 0)))",
}
"""The same of the tables that grow with what waits."""
_WAITING: Final = ("batch", "payload")


def examine(db: sqlite3.Connection) -> None:
    """Looks at everything that the rooms of the spool rely on.

    Args:
        db: a connection to a spool of this version.

    Raises:
        DamagedError: it is not sound.
        sqlite3.Error: it cannot even be read.
        ValueError: a text is none, or a number of a closed set is not of it.
    """
    db.execute("BEGIN")  # one snapshot: the uplink may write meanwhile
    try:
        is_whole = _size(db) <= _WHOLE_BYTES
        _examine_pages(db, is_whole=is_whole)
        _examine_rows(db)
        if is_whole:
            _examine_waiting(db)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _size(db: sqlite3.Connection) -> int:
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    return int(pages) * int(db.execute("PRAGMA page_size").fetchone()[0])


def _examine_pages(db: sqlite3.Connection, *, is_whole: bool) -> None:
    if schema.shape(db) != _shape():
        raise DamagedError("the spool is damaged: its tables are others")
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()
    parts = ["1"] if is_whole else [name for (name,) in tables if name not in _WAITING]
    for part in parts:
        if db.execute(f"PRAGMA integrity_check({part})").fetchone()[0] != "ok":
            raise DamagedError("the spool is damaged: its pages contradict each other")


def _examine_rows(db: sqlite3.Connection) -> None:
    for question in _TEXTS:
        db.execute(question).fetchall()
    for kind, question in (
        (LaneState, "SELECT DISTINCT state FROM lane"),
        (ClockTrust, "SELECT DISTINCT clock FROM target"),
        (GapCause, "SELECT DISTINCT cause FROM gap UNION SELECT cause FROM absence"),
        (LinkState, "SELECT DISTINCT state FROM health"),
    ):
        for (found,) in db.execute(question):
            kind(found)
    _ask(db, _STRANGE)


def _examine_waiting(db: sqlite3.Connection) -> None:
    for (gaps,) in db.execute("SELECT DISTINCT gaps FROM batch WHERE gaps IS NOT NULL"):
        [int(key) for key in gaps.split()]
    _ask(db, _STRANGE_WAITING)


def _ask(db: sqlite3.Connection, questions: dict[str, str]) -> None:
    for sentence, question in questions.items():
        if db.execute(question, _BOUNDS).fetchone()[0]:
            raise DamagedError(f"the spool is damaged: {sentence}")


def _shape() -> list[tuple[str, str, bytes | None]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        schema.lay_out(db)
        return schema.shape(db)
    finally:
        db.close()
