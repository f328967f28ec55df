# SPDX-License-Identifier: Apache-2.0
"""What the signature of a message covers besides its payload: kind, direction, batch header.

Law:
  - the protected parameter `-70001` is an array whose first element is the kind of message;
    a batch has nine more elements, every other kind none;
  - a kind travels in one direction only, and the direction is signed as external data with the
    format version and the mailbox: nothing that went up verifies as something that came down;
  - what is written is what the reader accepts, because writing ends with reading.

Standards: RFC 9052 §3, §4.3 (external data); docs/wire.md, CDDL `assent-header`.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from assent import cbor, shapes
from assent.cbor import CborValue
from assent.errors import MalformedError, UnknownSuiteError
from assent.wire import FORMAT, HEADER_ASSENT, Direction, Kind

MAX_GAPS: Final = 64
"""Gaps in one batch; the others wait for the next one."""
HASH_BYTES: Final = 32  # SHA-256
RECORD_BYTES: Final = 16
_BATCH_FIELDS: Final = 9


class ClockQuality(enum.IntEnum):
    """How far the instants of a batch can be trusted."""

    TRUSTED = 0
    """From NTP, RTC, GNSS or a signed time."""
    SYSTEM = 1
    """From the machine's clock, which a setting says is right."""
    UNTRUSTED = 2
    """Milliseconds of the boot; no wall clock was known."""


class GapCause(enum.IntEnum):
    """Why readings are missing."""

    CRASH = 0
    """The process or the power went before they were written."""
    OUTAGE = 1
    """The device or the port could not be read, or the gateway was stopped or held back."""
    QUOTA = 2
    """The disk's share was full; the oldest went first."""
    SILENT = 3
    """The device sent nothing for longer than it should."""
    CLOCK = 4
    """Time was not known well enough to decide whether they were covered."""
    PURGE = 5
    """Not collected or not kept, by choice; carries no count."""
    AGE = 6
    """They were older than the flow keeps on the gateway."""
    ENDED = 7
    """Nothing is missing: the stream has ended, and `begin` is the number it never gave."""
    LOST = 8
    """What waited is gone: the spool was damaged, deleted, or an old one was put back."""
    UNSEALED = 9
    """They could not be sealed, or the disk would not take them."""
    REFUSED = 10
    """The recipient refused the batch for good."""
    BOOT = 11
    """Nothing is missing: the stream counts from its boot, which began between first and last."""

    @property
    def is_hole(self) -> bool:
        """Whether it says that something is missing; the others tell of a stream alone."""
        return self not in {GapCause.ENDED, GapCause.BOOT}


class Gap(msgspec.Struct, frozen=True):
    """One declared hole in a flow, or the end of one of its streams, or the boot it counts from.

    Attributes:
        id: number of the gap within the gateway's spool; repeats carry the same.
        stream: stream it lies in.
        cause: why.
        first_ms: where it begins, ms since 1970 UTC.
        last_ms: where it ends, at least `first_ms`.
        readings: how many are missing; 0 when that is not known or not said.
        begin: first of the sequence numbers that will not come.
        end: the first number after them; `begin` when they had none yet, or it is not said.
    """

    id: int
    stream: int
    cause: GapCause
    first_ms: int
    last_ms: int
    readings: int
    begin: int = 0
    end: int = 0


class BatchHeader(msgspec.Struct, frozen=True):
    """What the signature of a batch says about it.

    Attributes:
        recipient: id of the recipient it was made for.
        flow: id of the flow.
        terms: SHA-256 of the terms in force (32 bytes).
        record: id of the consent record it rests on (16 bytes).
        stream: 64-bit id.
        sequence: number within the stream, from 0, without holes.
        epoch: number of the pseudonym epoch.
        clock: how far the instants can be trusted.
        gaps: declared holes; at most 64.
    """

    recipient: str
    flow: str
    terms: bytes
    record: bytes
    stream: int
    sequence: int
    epoch: int
    clock: ClockQuality
    gaps: tuple[Gap, ...] = ()


def signed_data(mailbox: str, direction: Direction) -> bytes:
    """Builds the external data of a signature: format, mailbox, direction."""
    return cbor.encode([FORMAT, mailbox, int(direction)])


def sealed_data(mailbox: str, kid: bytes) -> bytes:
    """Builds the external data of a seal: format, mailbox, key id of the recipient."""
    return cbor.encode([FORMAT, mailbox, kid])


def write_kind(kind: Kind) -> dict[int, cbor.Encodable]:
    """Writes the header parameter of a message that is no batch."""
    return {HEADER_ASSENT: [int(kind)]}


def write_batch(header: BatchHeader) -> dict[int, cbor.Encodable]:
    """Writes the header parameter of a batch.

    Raises:
        WireError: a field the reader would refuse.
    """
    fields: list[CborValue] = [
        int(Kind.BATCH),
        header.recipient,
        header.flow,
        header.terms,
        header.record,
        header.stream,
        header.sequence,
        header.epoch,
        int(header.clock),
        [list[CborValue](gap_fields(gap)) for gap in header.gaps],
    ]
    _batch(fields[1:])
    return {HEADER_ASSENT: fields}


def read_header(header: dict[int | str, CborValue]) -> tuple[Kind, BatchHeader | None]:
    """Reads the parameters of a verified header, the algorithm already taken out.

    Args:
        header: the protected parameters.

    Returns:
        The kind, and the batch header when it is a batch.

    Raises:
        UnknownSuiteError: a kind this version does not know.
        MalformedError: other parameters, or fields that are not those of the kind.
        TooLargeError: too many gaps.
    """
    if header.keys() != {HEADER_ASSENT}:
        raise MalformedError("expected alg and -70001 in the signed header, and nothing else")
    fields = shapes.array(header[HEADER_ASSENT], "the signed header")
    number = shapes.integer(fields[0] if fields else None, "kind")
    try:
        kind = Kind(number)
    except ValueError as exc:
        raise UnknownSuiteError("a kind of message came that is not known here") from exc
    if kind is Kind.BATCH:
        return kind, _batch(fields[1:])
    shapes.array(fields, "the signed header", count=1)
    return kind, None


def _batch(fields: list[CborValue]) -> BatchHeader:
    shapes.array(fields, "the batch header", count=_BATCH_FIELDS)
    recipient, flow, terms, record, stream, sequence, epoch, clock, gaps = fields
    return BatchHeader(
        recipient=shapes.identifier(recipient, "recipient"),
        flow=shapes.identifier(flow, "flow"),
        terms=shapes.octets(terms, "terms", size=HASH_BYTES),
        record=shapes.octets(record, "record", size=RECORD_BYTES),
        stream=shapes.integer(stream, "stream", high=shapes.MAX_STREAM),
        sequence=shapes.integer(sequence, "sequence"),
        epoch=shapes.integer(epoch, "epoch"),
        clock=shapes.member(clock, "clock", ClockQuality),
        gaps=tuple(_gap(gap) for gap in shapes.array(gaps, "gaps", most=MAX_GAPS)),
    )


def gap_fields(gap: Gap) -> list[int]:
    """Writes a gap as it stands in the header, in the order of its attributes."""
    return [
        gap.id,
        gap.stream,
        int(gap.cause),
        gap.first_ms,
        gap.last_ms,
        gap.readings,
        gap.begin,
        gap.end,
    ]


def _gap(value: CborValue) -> Gap:
    number, stream, cause, first, last, readings, begin, end = shapes.array(value, "a gap", count=8)
    first_ms = shapes.integer(first, "the beginning of a gap")
    from_number = shapes.integer(begin, "the first number in a gap")
    return Gap(
        id=shapes.integer(number, "the id of a gap"),
        stream=shapes.integer(stream, "the stream of a gap", high=shapes.MAX_STREAM),
        cause=shapes.member(cause, "the cause of a gap", GapCause),
        first_ms=first_ms,
        last_ms=shapes.integer(last, "the end of a gap", low=first_ms),
        readings=shapes.integer(readings, "the readings of a gap"),
        begin=from_number,
        end=shapes.integer(end, "the number after a gap", low=from_number),
    )
