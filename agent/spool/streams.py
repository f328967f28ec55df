# SPDX-License-Identifier: Apache-2.0
"""Streams: their ids as SQLite holds them, and how a lane goes from one to the next.

Law:
  - a stream that was left is never entered again;
  - the one before it ends in the same transaction, and its end is declared.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from agent.spool.boots import begin_stream
from agent.spool.choice import end_stream
from agent.spool.erasure import drop_if_empty
from agent.spool.records import Boot
from assent.errors import SpoolError

_UNSIGNED: Final = 1 << 64
_SIGN: Final = 1 << 63


def signed(stream: int) -> int:
    """Folds an unsigned 64-bit stream id into SQLite's signed integer.

    Args:
        stream: 0 to 2**64 - 1.

    Returns:
        The same 64 bits, signed.

    Raises:
        SpoolError: it is no unsigned 64-bit number.
    """
    if not 0 <= stream < _UNSIGNED:
        raise SpoolError("a stream is an unsigned 64-bit number")
    return stream - _UNSIGNED if stream >= _SIGN else stream


def unsigned(stored: int) -> int:
    """Unfolds what `signed` folded.

    Args:
        stored: SQLite's signed integer.

    Returns:
        The stream id, 0 to 2**64 - 1.
    """
    return stored % _UNSIGNED


def enter_stream(
    db: sqlite3.Connection, lane: int, flow: str, stream: int, boot: Boot | None
) -> int:
    """Makes a stream the present one of its lane, or goes on in it; the one before it ends.

    Args:
        db: inside a transaction.
        lane: row of the lane.
        flow: id of its flow.
        stream: id of the stream, signed.
        boot: from which it counts, while nobody knows the time; else None.

    Returns:
        The sequence the next batch must have.

    Raises:
        SpoolError: the stream ended earlier, or belongs to another lane.
    """
    number, following = db.execute("SELECT stream, next FROM lane WHERE id=?", (lane,)).fetchone()
    row = db.execute("SELECT number FROM stream WHERE id=?", (stream,)).fetchone()
    if row is not None:
        if row[0] != number:
            raise SpoolError("this stream has ended; a lane goes on in a new one")
        return int(following)
    if number is not None:
        end_stream(db, flow, number, following)
        drop_if_empty(db, number)
    (number,) = db.execute(
        "INSERT INTO stream VALUES (NULL, ?, ?) RETURNING number", (stream, lane)
    ).fetchall()[0]
    db.execute("UPDATE lane SET stream=?, next=0 WHERE id=?", (number, lane))
    if boot is not None:
        begin_stream(db, lane, boot)
    return 0
