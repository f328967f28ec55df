# SPDX-License-Identifier: Apache-2.0
"""Topics, and the bodies of the messages that are no batch.

Law:
  - a topic holds the format version, the mailbox and the direction, nothing else;
  - a body is read only in its one encoding, and every list in it is bounded;
  - control is harmless when it comes twice or late: an acknowledgement only ever adds to what is
    known to be stored, a request only asks for one, a status only reports, and a time answers one
    question that was asked a moment ago, or nothing.

Standards: docs/wire.md, CDDL `acknowledgement`, `request`, `status`, `time`; MQTT 5.0 §4.7
(topics).

Security: a body is decoded after its signature held (`assent.envelope`); limits hold nevertheless,
because a recipient is trusted with what it was sent and with nothing of the gateway's.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from assent import cbor, shapes
from assent.cbor import CborValue
from assent.errors import MalformedError, UnknownSuiteError
from assent.wire import FORMAT, MAX_MESSAGE, Direction

MAX_STREAMS: Final = 256
"""Streams in one acknowledgement or request: a year of daily flows, and some spools lost."""
MAX_RANGES: Final = 1_024
"""Ranges of one stream; a backend with more holes than that acknowledges the rest later."""
MAX_REFUSED: Final = 1_024
"""Refused sequences of one stream."""
REQUEST_ID_BYTES: Final = 16
_MAX_POLICY_ID: Final = 64
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last a calendar here knows
_ROOT: Final = f"assent/{FORMAT}"
_LEAVES: Final = {"up": Direction.UP, "down": Direction.DOWN}

UP_FILTER: Final = f"{_ROOT}/+/up"
"""What a backend subscribes to."""


def new_mailbox() -> str:
    """Makes a mailbox: 128 random bits as 32 lower-case hexadecimal digits, never drawn twice."""
    return secrets.token_hex(16)


def up_topic(mailbox: str) -> str:
    """Names the topic a gateway publishes to."""
    return f"{_ROOT}/{mailbox}/up"


def down_topic(mailbox: str) -> str:
    """Names the topic a gateway listens to."""
    return f"{_ROOT}/{mailbox}/down"


def mailbox_of(topic: str, direction: Direction = Direction.UP) -> str:
    """Reads the mailbox out of a topic.

    Args:
        topic: where a message came.
        direction: which leaf it must have.

    Returns:
        The mailbox.

    Raises:
        UnknownSuiteError: the topic is of another format version.
        MalformedError: no topic of ours, or of the other direction.
    """
    parts = topic.split("/")
    if len(parts) != 4 or parts[0] != "assent" or _LEAVES.get(parts[3]) is not direction:
        raise MalformedError(f"expected a topic assent/{FORMAT}/mailbox/{direction.name.lower()}")
    if parts[1] != str(FORMAT):
        raise UnknownSuiteError(f"expected format version {FORMAT} in the topic")
    return shapes.mailbox(parts[2])


class RefusalReason(enum.IntEnum):
    """Why a backend does not keep a batch that was signed by the gateway."""

    FORK = 0
    """The same stream and sequence came before with another digest."""
    TERMS = 1
    """The terms hash is none the recipient knows, or of terms that no longer hold."""
    COLUMNS = 2
    """The payload is not what docs/columns.md says."""
    TOO_LARGE = 3
    """It inflates to more than the backend takes."""
    STORE = 4
    """The store cannot take it now."""
    OTHER = 5
    """Anything else; the backend's log says what."""


class Refused(msgspec.Struct, frozen=True):
    """One batch that is not kept.

    Attributes:
        sequence: which, in its stream.
        reason: why.
        retry: true: send it again later; false: give it up.
    """

    sequence: int
    reason: RefusalReason
    retry: bool


class StreamAck(msgspec.Struct, frozen=True):
    """What is stored of one stream.

    Attributes:
        stream: which.
        watermark: every sequence below it is stored; it itself is not.
        ranges: stored (first, last) pairs above the watermark, ascending, with holes between.
        refused: batches that are not kept, ascending; none of them is in what is stored.
    """

    stream: int
    watermark: int
    ranges: tuple[tuple[int, int], ...] = ()
    refused: tuple[Refused, ...] = ()


class Acknowledgement(msgspec.Struct, frozen=True):
    """What a backend has durably stored; signed by its ack key, sent down.

    Attributes:
        streams: each once, ascending by stream.
    """

    streams: tuple[StreamAck, ...]

    def encode(self) -> bytes:
        """Writes the body.

        Raises:
            WireError: something a reader would refuse.
        """
        return _checked([_stream_fields(ack) for ack in self.streams], _acknowledgement)


class Verb(enum.IntEnum):
    """What a gateway asks for."""

    ACKNOWLEDGE = 0
    """Acknowledge these streams again."""
    TIME = 1
    """Tell what time it is; names no streams, and the answer bears its id."""


class Request(msgspec.Struct, frozen=True):
    """A gateway asks its backend for something.

    Attributes:
        id: 16 random bytes.
        verb: what it asks for.
        streams: which streams it is about, ascending.
    """

    id: bytes
    verb: Verb
    streams: tuple[int, ...]

    def encode(self) -> bytes:
        """Writes the body.

        Raises:
            WireError: something a reader would refuse.
        """
        return _checked([self.id, int(self.verb), list(self.streams)], _request)


class Time(msgspec.Struct, frozen=True):
    """What time it is, for one who asked; signed by the recipient's ack key, sent down.

    Attributes:
        nonce: id of the request it answers.
        at_ms: the recipient's clock when it was signed, ms since 1970 UTC.
    """

    nonce: bytes
    at_ms: int

    def encode(self) -> bytes:
        """Writes the body.

        Raises:
            WireError: something a reader would refuse.
        """
        return _checked([self.nonce, self.at_ms], _time)


class Status(msgspec.Struct, frozen=True):
    """What a gateway says once per connection: nothing of the household.

    Attributes:
        policy_id: `id` of the policy in force.
        policy_serial: its serial.
        format: the newest wire format the gateway speaks.
    """

    policy_id: str
    policy_serial: int
    format: int = FORMAT

    def encode(self) -> bytes:
        """Writes the body.

        Raises:
            WireError: something a reader would refuse.
        """
        return _checked([self.policy_id, self.policy_serial, self.format], _status)


def decode_acknowledgement(body: bytes) -> Acknowledgement:
    """Reads the body of an acknowledgement.

    Raises:
        WireError: not the CDDL of docs/wire.md, or over its limits.
    """
    return _acknowledgement(cbor.decode(body, max_bytes=MAX_MESSAGE))


def decode_request(body: bytes) -> Request:
    """Reads the body of a request.

    Raises:
        WireError: not the CDDL of docs/wire.md, or over its limits.
    """
    return _request(cbor.decode(body, max_bytes=MAX_MESSAGE))


def decode_time(body: bytes) -> Time:
    """Reads the body of a time.

    Raises:
        WireError: not the CDDL of docs/wire.md, or over its limits.
    """
    return _time(cbor.decode(body, max_bytes=MAX_MESSAGE))


def decode_status(body: bytes) -> Status:
    """Reads the body of a status.

    Raises:
        WireError: not the CDDL of docs/wire.md, or over its limits.
    """
    return _status(cbor.decode(body, max_bytes=MAX_MESSAGE))


def _stream_fields(ack: StreamAck) -> list[CborValue]:
    ranges: list[CborValue] = [[first, last] for first, last in ack.ranges]
    refused: list[CborValue] = [[r.sequence, int(r.reason), r.retry] for r in ack.refused]
    return [ack.stream, ack.watermark, ranges, refused]


def _acknowledgement(value: CborValue) -> Acknowledgement:
    items = shapes.array(value, "an acknowledgement", most=MAX_STREAMS)
    streams = tuple(_stream(item) for item in items)
    _ascending([ack.stream for ack in streams], "streams")
    return Acknowledgement(streams)


def _stream(value: CborValue) -> StreamAck:
    stream, mark, ranges, refused = shapes.array(value, "a stream's acknowledgement", count=4)
    watermark = shapes.integer(mark, "watermark")
    ack = StreamAck(
        shapes.integer(stream, "stream", high=shapes.MAX_STREAM),
        watermark,
        tuple(_range(item) for item in shapes.array(ranges, "ranges", most=MAX_RANGES)),
        tuple(_refused(item) for item in shapes.array(refused, "refused", most=MAX_REFUSED)),
    )
    # Each bound differs from the one before, so that neighbours are one range: [2,3],[4,5] is none.
    ends = [end for first, last in ack.ranges for end in (first, last + 1)]
    _ascending([watermark, *ends], "ranges")
    numbers = [item.sequence for item in ack.refused]
    _ascending([watermark - 1, *numbers], "refused sequences")
    # An odd place among the ends is inside a range.
    if any(bisect.bisect_right(ends, number) % 2 for number in numbers):
        raise MalformedError("a sequence is both stored and refused")
    return ack


def _range(value: CborValue) -> tuple[int, int]:
    first, last = shapes.array(value, "a range", count=2)
    begin = shapes.integer(first, "the first of a range")
    return begin, shapes.integer(last, "the last of a range", low=begin)


def _refused(value: CborValue) -> Refused:
    sequence, reason, retry = shapes.array(value, "a refused batch", count=3)
    return Refused(
        shapes.integer(sequence, "sequence"),
        shapes.member(reason, "reason", RefusalReason),
        shapes.boolean(retry, "retry"),
    )


def _request(value: CborValue) -> Request:
    number, verb, streams = shapes.array(value, "a request", count=3)
    asked = tuple(
        shapes.integer(item, "stream", high=shapes.MAX_STREAM)
        for item in shapes.array(streams, "streams", most=MAX_STREAMS)
    )
    _ascending(asked, "streams")
    what = shapes.member(verb, "verb", Verb)
    if what is Verb.TIME and asked:
        raise MalformedError("a question for the time names no streams")
    return Request(shapes.octets(number, "the id of a request", size=REQUEST_ID_BYTES), what, asked)


def _time(value: CborValue) -> Time:
    nonce, at = shapes.array(value, "a time", count=2)
    return Time(
        shapes.octets(nonce, "the id it answers", size=REQUEST_ID_BYTES),
        shapes.integer(at, "the time", high=_LAST_MS),
    )


def _status(value: CborValue) -> Status:
    policy_id, serial, version = shapes.array(value, "a status", count=3)
    return Status(
        shapes.text(policy_id, "policy id", most=_MAX_POLICY_ID),
        shapes.integer(serial, "policy serial"),
        shapes.integer(version, "format", low=1),
    )


def _ascending(numbers: Sequence[int], what: str) -> None:
    if any(before >= after for before, after in itertools.pairwise(numbers)):
        raise MalformedError(f"the {what} are not ascending, each once")


def _checked(fields: list[CborValue], reader: Callable[[CborValue], object]) -> bytes:
    """Writes fields that the reader accepts."""
    reader(fields)
    return cbor.encode(fields)
