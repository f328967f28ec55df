# SPDX-License-Identifier: Apache-2.0
"""What custody knows of each flow of each gateway: streams, their ends, declared gaps.

Path: custody → **Chain** → completeness.
Law:
  - it reads and counts, and judges nothing;
  - all of it is of one moment, whatever a subscriber writes meanwhile;
  - a flow is known by its streams even where all of its batches have gone.

Security: this is custody. It joins what a gateway sent over all its streams and epochs, and so does
what is made of it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from assent.backend.outcomes import DecayedError
from assent.backend.store.completeness import Chain, Span, Strand
from assent.backend.store.files import snapshot
from assent.backend.store.hearing import Rhythm
from assent.backend.store.muster import Muster, dated
from assent.backend.store.positions import Numbers, Position
from assent.cosekey import decode_verifying_key
from assent.envelope import Gap, GapCause
from assent.errors import StoreError, WireError

_NONE: Final[Mapping[str, Rhythm]] = MappingProxyType({})


class Chains:
    """Reads custody for what was sent and declared; owns nothing.

    Args:
        connection: to `custody.db`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Keeps to one moment of custody for the length of a block.

        Raises:
            StoreError: a store of an older version, which knows less than is asked here.
        """
        if not any(row[1] == "heard_ms" for row in self._db.execute("PRAGMA table_info(streams)")):
            raise StoreError(
                "custody.db is as an older version has left it",
                hint="start the subscriber once: it brings the store up to date",
            )
        with snapshot(self._db):
            yield

    def all(
        self,
        flow: str | None = None,
        rhythms: Mapping[str, Rhythm] = _NONE,
        kept: Mapping[bytes, int] | None = None,
    ) -> Iterator[Chain]:
        """Gives the flows of all gateways; to be read within `at_once`.

        Args:
            flow: only this one, or None for all.
            rhythms: what is known of the flows' times, by flow.
            kept: how many readings of each batch are in the data, counted within the same block;
                None to take them as they came.

        Yields:
            One chain each, in the order of mailbox and flow.
        """
        found = self._db.execute(
            "SELECT flow, signer FROM streams WHERE ?1 IS NULL OR flow = ?1"
            " UNION SELECT flow, signer FROM custody WHERE ?1 IS NULL OR flow = ?1",
            (flow,),
        ).fetchall()
        mailboxes = self._mailboxes()
        for mailbox, name, signer in sorted(
            (mailboxes.get(signer, signer.hex()[:32]), name, signer) for name, signer in found
        ):
            yield self._chain(mailbox, (signer, name), rhythms.get(name, Rhythm()), kept)

    def _mailboxes(self) -> dict[bytes, str]:
        """The mailboxes of signers; those of whom nothing is in custody are known by their key."""
        admitted: dict[bytes, str] = {}
        for mailbox, key in self._db.execute("SELECT mailbox, sign_key FROM gateways"):
            # Of one whose key has decayed, its batches tell.
            with contextlib.suppress(WireError, TypeError):
                admitted[decode_verifying_key(key).thumbprint] = mailbox
        sent = self._db.execute("SELECT DISTINCT signer, mailbox FROM custody").fetchall()
        return {**admitted, **dict(sent)}

    def _chain(
        self,
        mailbox: str,
        key: tuple[bytes, str],
        rhythm: Rhythm,
        kept: Mapping[bytes, int] | None,
    ) -> Chain:
        signer, flow = key
        muster = Muster(self._db, key, rhythm, kept)
        strands, unreadable = self._strands(signer, flow, muster)
        between = _Between(self._db, signer, strands, rhythm)
        heard = [one.heard_ms for one in strands.values()]
        heard_ms = max((ms for ms in (*heard, muster.heard_ms) if ms is not None), default=None)
        return Chain(
            mailbox=mailbox,
            flow=flow,
            strands=strands,
            gaps=self._gaps(signer, flow),
            around=between.span,
            held=lambda stream, numbers: self._held(signer, stream, numbers),
            span=muster.span,
            heard_ms=heard_ms,
            met_ms=self.met(mailbox),
            rhythm=rhythm,
            apart=tuple(muster.apart(strands, between.span)),
            unreadable=unreadable,
        )

    def _strands(
        self, signer: bytes, flow: str, muster: Muster
    ) -> tuple[dict[int, Strand], tuple[int, ...]]:
        """The streams of a flow, and those of them whose row makes no sense, or is not there."""
        ends = {
            stream: (following, told_ms)
            for stream, following, told_ms in self._db.execute(
                "SELECT stream, following, told_ms FROM ends WHERE signer = ? AND flow = ?",
                (signer, flow),
            )
        }
        positions: dict[bytes, tuple[Position, int | None]] = {}
        unreadable = muster.streams
        for key, watermark, ranges, heard_ms in self._db.execute(
            "SELECT stream, watermark, ranges, heard_ms FROM streams WHERE signer = ? AND flow = ?",
            (signer, flow),
        ):
            stream = int.from_bytes(key, "big")
            unreadable.discard(stream)
            try:
                positions[key] = Position.read(watermark, ranges), heard_ms
            except ValueError:
                unreadable.add(stream)
        strands: dict[int, Strand] = {}
        for key in positions.keys() | ends.keys():
            stream = int.from_bytes(key, "big")
            end, told_ms = ends.get(key, (None, None))
            first_ms, last_ms = muster.spans.get(stream, (None, None))
            position, heard_ms = positions.get(key, (Position(), None))
            strands[stream] = Strand(position, end, first_ms, last_ms, told_ms, heard_ms)
        return strands, tuple(sorted(unreadable))

    def _gaps(self, signer: bytes, flow: str) -> frozenset[Gap]:
        # The same text stands in every batch that repeats the same gaps.
        texts = self._db.execute(
            "SELECT DISTINCT gaps FROM custody WHERE signer = ? AND flow = ? AND gaps != '[]'",
            (signer, flow),
        )
        try:
            return frozenset(
                Gap(number, stream, GapCause(cause), *rest)
                for (text,) in texts
                for number, stream, cause, *rest in json.loads(text)
            )
        except (ValueError, TypeError):
            raise DecayedError(f"custody.db has unreadable gaps in custody: {flow}") from None

    def met(self, mailbox: str) -> int | None:
        """When anything came last of a gateway, a word about its policy, too."""
        (met_ms,) = self._db.execute(
            "SELECT max(ms) FROM (SELECT max(received_ms) AS ms FROM custody WHERE mailbox = ?1"
            " UNION ALL SELECT status_ms FROM gateways WHERE mailbox = ?1)",
            (mailbox,),
        ).fetchone()
        return None if met_ms is None else int(met_ms)

    def _held(self, signer: bytes, stream: int, numbers: Numbers) -> int:
        row = self._db.execute(
            "SELECT total(readings) FROM custody WHERE signer = ? AND stream = ?"
            " AND sequence >= ? AND sequence < ?",
            (signer, stream.to_bytes(8, "big"), *numbers),
        ).fetchone()
        return int(row[0])


class _Between:
    """Between which instants missing numbers of a stream lie; never narrower than they can."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        signer: bytes,
        strands: Mapping[int, Strand],
        rhythm: Rhythm,
    ) -> None:
        self._db = connection
        self._signer = signer
        self._strands = strands
        self._rhythm = rhythm

    def span(self, stream: int, missing: Numbers) -> Span:
        """Since when and until when, by what is stored around them."""
        since = self._beside(stream, "last_ms", "sequence < ? ORDER BY sequence DESC", missing[0])
        until = self._beside(stream, "first_ms", "sequence >= ? ORDER BY sequence", missing[1])
        others = [one for name, one in self._strands.items() if name != stream]
        if until is None:
            mine = self._strands[stream]
            until = mine.heard_ms if mine.told_ms is None else mine.told_ms
        if until is None and since is not None:
            firsts = [one.first_ms for one in others if one.first_ms is not None]
            until = min((ms for ms in firsts if ms >= since), default=None)
        if since is None and until is not None:
            lasts = [one.last_ms for one in others if one.last_ms is not None]
            since = max((ms for ms in lasts if ms <= until), default=None)
        if since is None or until is None:
            return since, until
        # A clock that was set back leaves the earlier instants in the later batch.
        return min(since, until) - self._rhythm.late_ms, max(since, until)

    def _beside(self, stream: int, column: str, where: str, number: int) -> int | None:
        row = self._db.execute(
            f"SELECT {column} FROM custody WHERE signer = ? AND stream = ?"  # noqa: S608 - no input
            f" AND {dated(self._rhythm)} AND {where} LIMIT 1",
            (self._signer, stream.to_bytes(8, "big"), number),
        ).fetchone()
        return int(row[0]) if row else None
