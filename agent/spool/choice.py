# SPDX-License-Identifier: Apache-2.0
"""What stands of a stream once it has ended: its end, or that a choice has taken the rest of it.

Law:
  - a stream that ends by itself is told with the number it never gave, so that nobody takes its
    last batches for never made;
  - what a no has deleted is named by its streams, without counts and without numbers, and without
    an instant of its own: the span that is told is the one in which nothing was agreed to;
  - that stays here while the flow is off, and is told by the first batches after a later yes.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from agent.spool.boots import IN_STREAM, IS_UNRESOLVED
from assent.header import GapCause

KEPT_BACK: Final = 2
"""What `carried` is of a gap that is told to nobody before a later yes."""
# Instants of gaps are no finer than those of batches (docs/decisions/0007).
_SECOND: Final = 1_000

# Ends of streams and what was held back have no instant of their own, boots began before any yes,
# and in a stream that counts from an unknown boot an instant is no time.
_HAS_A_TIME: Final = (
    f"cause NOT IN ({GapCause.ENDED.value}, {GapCause.PURGE.value}, {GapCause.BOOT.value})"  # noqa: S608 - no input
    " AND stream NOT IN (SELECT id FROM held WHERE high IS NULL)"
)

# By the ids of each stream: a quarter of the CPU of a look by their lane.
_STREAMS_BEFORE: Final = (
    f"SELECT id FROM stream WHERE lane=?1 AND EXISTS (SELECT 1 FROM batch WHERE {IN_STREAM}"  # noqa: S608 - no input
    f" AND first<?2 AND NOT {IS_UNRESOLVED})"
)

_ADD: Final = "INSERT INTO gap VALUES (NULL, ?, ?, ?, ?, ?, 0, ?, ?, ?)"


def end_stream(db: sqlite3.Connection, flow: str, number: int, following: int) -> None:
    """Declares the end of a stream; one that never held a batch, or lost some, leaves nothing.

    Args:
        db: inside a transaction.
        flow: id of the flow.
        number: number of the stream.
        following: the sequence its next batch would have had.
    """
    db.execute(
        "INSERT INTO gap SELECT NULL, ?1, id, ?2, 0, 0, 0, 0, ?3, ?3 FROM stream WHERE number=?4"
        " AND ?3>0 AND id NOT IN (SELECT stream FROM gap WHERE flow=?1 AND carried=?5)",
        (flow, GapCause.ENDED, following, number, KEPT_BACK),
    )


def keep_back(db: sqlite3.Connection, lane: int, flow: str) -> None:
    """Names the streams of a lane that a choice empties, in place of all its gaps.

    Args:
        db: inside a transaction; its streams are still there.
        lane: row of the lane.
        flow: id of its flow.
    """
    streams = {
        stream
        for (stream,) in db.execute(
            "SELECT id FROM stream WHERE lane=? UNION SELECT stream FROM gap WHERE flow=?"
            " AND cause!=?",
            (lane, flow, GapCause.ENDED),
        ).fetchall()
    }
    db.execute("DELETE FROM absence WHERE flow=? AND cause!=?", (flow, GapCause.PURGE))
    ended = db.execute(
        "SELECT stream FROM gap WHERE flow=? AND cause=?", (flow, GapCause.ENDED)
    ).fetchall()
    db.execute("DELETE FROM gap WHERE flow=? AND cause!=?", (flow, GapCause.ENDED))
    # The end of a stream would tell how much of it was deleted.
    both = [(flow, stream) for (stream,) in ended if stream in streams]
    db.executemany("DELETE FROM gap WHERE flow=? AND stream=?", both)
    db.executemany(
        _ADD,
        [(flow, stream, GapCause.PURGE, 0, 0, KEPT_BACK, 0, 0) for stream in sorted(streams)],
    )


def keep_back_before(
    db: sqlite3.Connection, lane: int, not_before_ms: int, *, batches: bool = True
) -> None:
    """Names the streams of which anything begins before an instant, in place of such gaps.

    A gap of time alone that goes on past the instant begins with it instead: a crash soon after a
    yes is told. One that begins in its second may have begun with it, and stays as it is.

    Args:
        db: inside a transaction; its batches are still there.
        lane: row of the lane.
        not_before_ms: the instant.
        batches: whether any batch of the lane may begin before it.
    """
    (flow,) = db.execute("SELECT flow FROM lane WHERE id=?", (lane,)).fetchone()
    second_ms, begins_ms = whole_seconds((not_before_ms, not_before_ms))
    before = (
        f"first<iif(low=high AND last>{begins_ms} AND readings=0, {second_ms}, {not_before_ms})"
    )
    db.execute(
        "UPDATE gap SET first=?1, readings=0 WHERE flow=?2 AND first<?1 AND last>?1 AND low=high"  # noqa: S608 - no input
        f" AND carried=0 AND {_HAS_A_TIME}",
        (begins_ms, flow),
    )
    early = db.execute(
        f"DELETE FROM gap WHERE flow=? AND {before} AND {_HAS_A_TIME} RETURNING stream",  # noqa: S608 - no input
        (flow,),
    ).fetchall()
    if batches:
        early += db.execute(_STREAMS_BEFORE, (lane, not_before_ms)).fetchall()
    db.executemany(
        _ADD,
        [(flow, stream, GapCause.PURGE, 0, 0, KEPT_BACK, 0, 0) for (stream,) in sorted(set(early))],
    )


def tell_choice(db: sqlite3.Connection, flow: str, stream: int, off: tuple[int, int]) -> None:
    """Declares after a later yes that nothing was collected by choice, and lets go what was kept.

    Args:
        db: inside a transaction.
        flow: id of the flow.
        stream: its new stream, signed.
        off: since when and until when, in ms since 1970.
    """
    span = whole_seconds(off)
    db.execute(
        "UPDATE gap SET first=?, last=?, carried=0 WHERE flow=? AND carried=?",
        (*span, flow, KEPT_BACK),
    )
    db.execute(_ADD, (flow, stream, GapCause.PURGE, *span, 0, 0, 0))
    db.execute("DELETE FROM absence WHERE flow=? AND cause=?", (flow, GapCause.PURGE))


def whole_seconds(span: tuple[int, int]) -> tuple[int, int]:
    """Widens a span to whole seconds.

    Args:
        span: since when and until when, in ms.

    Returns:
        The begin of the second it begins in, and the end of the one it ends by.
    """
    return span[0] // _SECOND * _SECOND, -(-span[1] // _SECOND) * _SECOND
