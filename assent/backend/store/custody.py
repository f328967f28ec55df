# SPDX-License-Identifier: Apache-2.0
"""`custody.db`: who sent what when, and what was refused; for the ingest alone.

Path: Accepted (ingest) → store → **custody, streams** → acknowledge.
Law:
  - a batch is known by (signer, stream, sequence); the same number with the same digest is a
    duplicate, with another digest a fork;
  - a stream carries one flow; its position says which numbers are stored, its end, once a later
    batch of the flow has told it, how many there were;
  - a gateway is its mailbox and its two public keys; admitted again, they have to be the same;
  - what was refused is kept, with its bytes, up to a number of rows and bytes; the oldest go first,
    and the counters remember how many there were.

Security: only this file joins a gateway to the pseudonyms in `store.db` (through `batch_ref`); it
has its own access and its own retention. Bytes in quarantine are as they came, and may be sealed
readings: they are nobody's to open outside the ingest.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Final

from assent.backend.outcomes import DecayedError
from assent.backend.store import aside, waiting
from assent.backend.store.files import make
from assent.backend.store.positions import Position
from assent.backend.store.tables import LATER, SCHEMA
from assent.envelope import MAX_MESSAGE, BatchHeader
from assent.errors import RefusedError
from assent.header import GapCause, gap_fields

# Enough to find out what went wrong; not enough to fill a disk (policy C20: no more than needed).
MAX_QUARANTINED: Final = 10_000
MAX_QUARANTINED_BYTES: Final = 64_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A gateway as it is kept.

    Attributes:
        mailbox: its mailbox.
        sign_key: its public signing key, a COSE_Key.
        seal_key: the public key that acknowledgements are sealed to, a COSE_Key.
        admitted_ms: when it was admitted.
        policy_id: of the policy it last said it runs.
        policy_serial: of that policy.
        format: version of the wire format it last said it speaks.
        status_ms: when it said so.
    """

    mailbox: str
    sign_key: bytes
    seal_key: bytes
    admitted_ms: int
    policy_id: str | None = None
    policy_serial: int | None = None
    format: int | None = None
    status_ms: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """One batch in custody.

    Attributes:
        signer: thumbprint of the gateway's signing key.
        mailbox: where it came in.
        header: what the gateway signed.
        digest: SHA-256 of the sealed bytes.
        reference: what its rows in `store.db` are known by.
        readings: how many values it held.
        size: of the sealed bytes.
        received_ms: when it was taken.
        span: earliest and latest instant in it; None where they count from a boot.
    """

    signer: bytes
    mailbox: str
    header: BatchHeader
    digest: bytes
    reference: bytes
    readings: int
    size: int
    received_ms: int
    span: tuple[int, int] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """One batch in custody, as it is listed."""

    received_ms: int
    mailbox: str
    flow: str
    stream: bytes
    sequence: int
    readings: int
    size: int
    gaps: int


@dataclasses.dataclass(frozen=True, slots=True)
class Quarantined:
    """One refused message, without its bytes."""

    received_ms: int
    mailbox: str
    reason: str
    detail: str
    size: int


class Custody:
    """The open `custody.db`; the Store owns its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def prepare(self) -> None:
        """Makes the tables where they are not there yet, and what an older one lacks."""
        make(self._db, SCHEMA + waiting.SCHEMA + aside.SCHEMA)
        for table, columns in LATER.items():
            known = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            for column in sorted(columns - known):
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")

    def gateway(self, mailbox: str) -> Row | None:
        """Finds a gateway by its mailbox."""
        row = self._db.execute("SELECT * FROM gateways WHERE mailbox = ?", (mailbox,)).fetchone()
        return Row(*row) if row else None

    def gateways(self) -> list[Row]:
        """Lists all gateways by mailbox."""
        return [Row(*row) for row in self._db.execute("SELECT * FROM gateways ORDER BY mailbox")]

    def admit(self, gateway: Row) -> bool:
        """Adds a gateway; the same one again changes nothing.

        Returns:
            Whether it is new here.

        Raises:
            RefusedError: mailbox or signing key are taken by a gateway with other keys.
        """
        known = self.gateway(gateway.mailbox)
        if known and (known.sign_key, known.seal_key) == (gateway.sign_key, gateway.seal_key):
            return False
        try:
            self._db.execute(
                "INSERT INTO gateways VALUES (?,?,?,?,?,?,?,?)", dataclasses.astuple(gateway)
            )
        except sqlite3.IntegrityError as exc:
            raise RefusedError(
                "this mailbox or this key already belongs to another gateway",
                hint="let the gateway make new keys and request again",
            ) from exc
        return True

    def told(self, mailbox: str, policy: str, serial: int, version: int, now_ms: int) -> None:
        """Records which policy a gateway says it runs."""
        self._db.execute(
            "UPDATE gateways SET policy_id=?, policy_serial=?, format=?, status_ms=?"
            " WHERE mailbox=?",
            (policy, serial, version, now_ms, mailbox),
        )

    def digest(self, signer: bytes, stream: int, sequence: int) -> bytes | None:
        """Finds what is stored under a number."""
        row = self._db.execute(
            "SELECT digest FROM custody WHERE signer = ? AND stream = ? AND sequence = ?",
            (signer, _stream(stream), sequence),
        ).fetchone()
        return row[0] if row else None

    def position(self, signer: bytes, stream: int) -> tuple[str, Position] | None:
        """Finds a stream: its flow and how far it is stored.

        Raises:
            DecayedError: its row makes no sense, or says another flow than its batches.
        """
        row = self._db.execute(
            "SELECT flow, watermark, ranges, (SELECT flow FROM custody WHERE signer = ?1"
            " AND stream = ?2 LIMIT 1) FROM streams WHERE signer = ?1 AND stream = ?2",
            (signer, _stream(stream)),
        ).fetchone()
        if row is None:
            return None
        flow, watermark, ranges, carried = row
        try:
            position = Position.read(watermark, ranges)
        except ValueError:
            raise decayed(stream) from None
        if carried not in {None, flow}:
            raise decayed(stream)
        return flow, position

    def keep(self, kept: Kept, position: Position) -> None:
        """Takes a batch into custody, and its stream to a new position."""
        header, stream = kept.header, _stream(kept.header.stream)
        gaps = [gap_fields(one) for one in header.gaps if one.cause.is_hole]
        self._end(kept)
        self._db.execute(
            "INSERT INTO custody VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                kept.signer,
                stream,
                header.sequence,
                kept.digest,
                kept.reference,
                kept.mailbox,
                header.flow,
                header.terms,
                header.record,
                header.epoch,
                int(header.clock),
                json.dumps(gaps),
                kept.readings,
                kept.size,
                kept.received_ms,
                *(kept.span or (None, None)),
            ),
        )
        self._db.execute(
            "INSERT INTO streams VALUES (?,?,?,?,?,?) ON CONFLICT (signer, stream) DO UPDATE SET"
            " watermark = excluded.watermark, ranges = excluded.ranges,"
            " heard_ms = excluded.heard_ms",
            (
                kept.signer,
                stream,
                header.flow,
                position.watermark,
                json.dumps(position.ranges),
                kept.received_ms,
            ),
        )

    def _end(self, kept: Kept) -> None:
        """Takes note of the streams that a batch says have ended, of its own flow."""
        told_ms = kept.span[0] if kept.span else None
        self._db.executemany(
            "INSERT INTO ends VALUES (?,?,?,?,?) ON CONFLICT (signer, stream)"
            " DO UPDATE SET following = max(following, excluded.following),"
            " told_ms = min(ifnull(told_ms, excluded.told_ms), ifnull(excluded.told_ms, told_ms))"
            " WHERE flow = excluded.flow",
            [
                (kept.signer, _stream(gap.stream), kept.header.flow, gap.begin, told_ms)
                for gap in kept.header.gaps
                if gap.cause is GapCause.ENDED
            ],
        )

    def batches(self, flow: str | None, limit: int) -> list[Received]:
        """Lists the newest batches, of one flow or of all."""
        found = self._db.execute(
            "SELECT received_ms, mailbox, flow, stream, sequence, readings, size,"
            " json_array_length(gaps) FROM custody WHERE ?1 IS NULL OR flow = ?1"
            " ORDER BY received_ms DESC, stream, sequence DESC LIMIT ?2",
            (flow, limit),
        )
        return [Received(*row) for row in found]

    def knows(self, reference: bytes) -> bool:
        """Says whether rows under this reference have a batch in custody that does not wait."""
        found = self._db.execute(
            "SELECT 1 FROM custody WHERE batch_ref = ?1"
            " AND NOT EXISTS (SELECT 1 FROM waiting WHERE batch_ref = ?1)",
            (reference,),
        )
        return found.fetchone() is not None

    def quarantine(self, entry: Quarantined, data: bytes) -> None:
        """Keeps a refused message; of one that is too long, its beginning."""
        self._db.execute(
            "INSERT INTO quarantine (received_ms, mailbox, reason, detail, size, data)"
            " VALUES (?,?,?,?,?,?)",
            (*dataclasses.astuple(entry), data[:MAX_MESSAGE]),
        )
        self.count(f"refused {entry.reason}")

    def trim(self) -> None:
        """Lets the oldest of the quarantine go where there are too many, or too many bytes."""
        self._db.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?",
            (MAX_QUARANTINED,),
        )
        self._db.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM"
            " (SELECT id, sum(length(data)) OVER (ORDER BY id DESC) AS total FROM quarantine)"
            " WHERE total > ?)",
            (MAX_QUARANTINED_BYTES,),
        )

    def count(self, name: str) -> None:
        """Adds one to a counter."""
        self._db.execute(
            "INSERT INTO counters VALUES (?,1) ON CONFLICT (name) DO UPDATE SET count = count + 1",
            (name,),
        )

    def counters(self) -> dict[str, int]:
        """Gives all counters by name."""
        return dict(self._db.execute("SELECT name, count FROM counters ORDER BY name").fetchall())

    def quarantined(self, limit: int) -> list[Quarantined]:
        """Lists the newest refused messages."""
        found = self._db.execute(
            "SELECT received_ms, mailbox, reason, detail, size FROM quarantine"
            " ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Quarantined(*row) for row in found]


def decayed(stream: int) -> DecayedError:
    """Names a stream whose row makes no sense."""
    return DecayedError(f"custody.db has an unreadable row in streams: stream {stream:016x}")


def _stream(stream: int) -> bytes:
    # SQLite has signed integers only; a stream is 64 bits without a sign.
    return stream.to_bytes(8, "big")
