# SPDX-License-Identifier: Apache-2.0
"""What custody knows of each flow of each gateway: streams, their ends, declared gaps.

Path: custody → **Chain** → completeness.
Law: it reads and counts, and judges nothing.

Security: this is custody. It joins what a gateway sent over all its streams and epochs, and so does
what is made of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from assent.backend.store.completeness import Chain, Span, Strand
from assent.backend.store.custody import read_ranges
from assent.backend.store.positions import Position, Range
from assent.envelope import Gap, GapCause


class Chains:
    """Reads custody for what was sent and declared; owns nothing.

    Args:
        connection: to `custody.db`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def all(self, flow: str | None = None) -> Iterator[Chain]:
        """Gives the flows of all gateways.

        Args:
            flow: only this one, or None for all.

        Yields:
            One chain each, in the order of mailbox and flow.
        """
        found = self._db.execute(
            "SELECT DISTINCT mailbox, flow, signer FROM custody WHERE ?1 IS NULL OR flow = ?1"
            " ORDER BY mailbox, flow",
            (flow,),
        ).fetchall()
        for mailbox, name, signer in found:
            yield self._chain(mailbox, name, signer)

    def _chain(self, mailbox: str, flow: str, signer: bytes) -> Chain:
        return Chain(
            mailbox=mailbox,
            flow=flow,
            strands=self._strands(signer, flow),
            gaps=self._gaps(signer, flow),
            around=lambda stream, missing: self._around(signer, stream, missing),
            held=lambda stream, numbers: self._held(signer, stream, numbers),
        )

    def _strands(self, signer: bytes, flow: str) -> dict[int, Strand]:
        spans = {
            stream: (first, last)
            for stream, first, last in self._db.execute(
                "SELECT stream, min(first_ms), max(last_ms) FROM custody"
                " WHERE signer = ? AND flow = ? GROUP BY stream",
                (signer, flow),
            )
        }
        ends = dict(
            self._db.execute(
                "SELECT stream, following FROM ends WHERE signer = ? AND flow = ?", (signer, flow)
            ).fetchall()
        )
        positions = {
            stream: Position(watermark, read_ranges(ranges))
            for stream, watermark, ranges in self._db.execute(
                "SELECT stream, watermark, ranges FROM streams WHERE signer = ? AND flow = ?",
                (signer, flow),
            )
        }
        return {
            int.from_bytes(stream, "big"): Strand(
                positions.get(stream, Position()), ends.get(stream), *spans.get(stream, ())
            )
            for stream in positions.keys() | ends.keys()
        }

    def _gaps(self, signer: bytes, flow: str) -> frozenset[Gap]:
        # The same text stands in every batch that repeats the same gaps.
        texts = self._db.execute(
            "SELECT DISTINCT gaps FROM custody WHERE signer = ? AND flow = ? AND gaps != '[]'",
            (signer, flow),
        )
        return frozenset(
            Gap(number, stream, GapCause(cause), *rest)
            for (text,) in texts
            for number, stream, cause, *rest in json.loads(text)
        )

    def _around(self, signer: bytes, stream: int, missing: Range) -> Span:
        key = (signer, stream.to_bytes(8, "big"))
        before = self._db.execute(
            "SELECT last_ms FROM custody WHERE signer = ? AND stream = ? AND sequence < ?"
            " ORDER BY sequence DESC LIMIT 1",
            (*key, missing[0]),
        ).fetchone()
        after = self._db.execute(
            "SELECT first_ms FROM custody WHERE signer = ? AND stream = ? AND sequence >= ?"
            " ORDER BY sequence LIMIT 1",
            (*key, missing[1]),
        ).fetchone()
        since, until = before[0] if before else None, after[0] if after else None
        if since is not None and until is not None:
            until = max(since, until)
        return since, until

    def _held(self, signer: bytes, stream: int, numbers: Range) -> int:
        row = self._db.execute(
            "SELECT total(readings) FROM custody WHERE signer = ? AND stream = ?"
            " AND sequence >= ? AND sequence < ?",
            (signer, stream.to_bytes(8, "big"), *numbers),
        ).fetchone()
        return int(row[0])
