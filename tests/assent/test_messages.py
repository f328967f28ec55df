# SPDX-License-Identifier: Apache-2.0
"""Topics and bodies: bounded, in one encoding, harmless when repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.errors import (
    MalformedError,
    NotCanonicalError,
    TooLargeError,
    UnknownSuiteError,
    WireError,
)
from assent.messages import (
    MAX_RANGES,
    MAX_REFUSED,
    MAX_STREAMS,
    UP_FILTER,
    Acknowledgement,
    RefusalReason,
    Refused,
    Request,
    Status,
    StreamAck,
    Time,
    Verb,
    decode_acknowledgement,
    decode_request,
    decode_status,
    decode_time,
    down_topic,
    mailbox_of,
    new_mailbox,
    up_topic,
)
from assent.wire import MAX_MESSAGE, Direction

MAILBOX = "00112233445566778899aabbccddeeff"
ACK = Acknowledgement(
    (
        StreamAck(1, 0),
        StreamAck(
            2**64 - 1,
            3,
            ((5, 6), (9, 9)),
            (Refused(3, RefusalReason.FORK, False), Refused(7, RefusalReason.STORE, True)),
        ),
    )
)
REQUEST = Request(bytes(range(16)), Verb.ACKNOWLEDGE, (1, 2**64 - 1))
STATUS = Status("example-appliances", 17)
Message = Acknowledgement | Request | Status | Time
Reader = Callable[[bytes], object]


def test_a_topic_holds_version_mailbox_and_direction() -> None:
    assert up_topic(MAILBOX) == f"assent/1/{MAILBOX}/up"
    assert down_topic(MAILBOX) == f"assent/1/{MAILBOX}/down"
    assert mailbox_of(up_topic(MAILBOX)) == MAILBOX
    assert mailbox_of(down_topic(MAILBOX), Direction.DOWN) == MAILBOX
    assert UP_FILTER.replace("+", MAILBOX) == up_topic(MAILBOX)


def test_a_mailbox_is_128_random_bits() -> None:
    made = {new_mailbox() for _ in range(100)}
    assert len(made) == 100
    assert all(mailbox_of(up_topic(mailbox)) == mailbox for mailbox in made)


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        (f"assent/2/{MAILBOX}/up", UnknownSuiteError),
        (f"assent/1/{MAILBOX}/down", MalformedError),
        (f"other/1/{MAILBOX}/up", MalformedError),
        (f"assent/1/{MAILBOX}/up/", MalformedError),
        (f"/assent/1/{MAILBOX}/up", MalformedError),
        (f"assent/1/{MAILBOX[:-1]}/up", MalformedError),
        (f"assent/1/{MAILBOX.upper()}/up", MalformedError),
        (f"assent/1/{MAILBOX[:-1]}g/up", MalformedError),
        (f"assent/1/{MAILBOX[:-1]}٣/up", MalformedError),
        ("assent/1/+/up", MalformedError),
        ("", MalformedError),
    ],
    ids=[
        "another version",
        "the other direction",
        "another root",
        "a level more at the end",
        "a level more in front",
        "a short mailbox",
        "capitals",
        "no hexadecimal digit",
        "a digit of another script",
        "a wildcard",
        "nothing",
    ],
)
def test_another_topic_is_refused(topic: str, error: type[WireError]) -> None:
    with pytest.raises(error):
        mailbox_of(topic)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_other_text_is_no_topic(topic: str) -> None:
    with pytest.raises(WireError):
        mailbox_of(topic)


def test_bodies_read_back_as_themselves() -> None:
    assert decode_acknowledgement(ACK.encode()) == ACK
    assert decode_request(REQUEST.encode()) == REQUEST
    assert decode_status(STATUS.encode()) == STATUS


def test_an_empty_acknowledgement_is_one() -> None:
    assert decode_acknowledgement(Acknowledgement(()).encode()) == Acknowledgement(())


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63 - 2_000),
            st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=6),
            st.sets(st.integers(0, 60), max_size=6),
        ),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_lawful_acknowledgement_reads_back(rows: list[Any]) -> None:
    streams = []
    for stream, (watermark, steps, holes) in enumerate(rows):
        at, ranges = watermark, []
        for gap, length in steps:
            first = at + gap
            ranges.append((first, first + length))
            at = first + length + 1
        refused = tuple(
            Refused(watermark + hole, RefusalReason.OTHER, hole % 2 == 0)
            for hole in sorted(holes)
            if not any(first <= watermark + hole <= last for first, last in ranges)
        )
        streams.append(StreamAck(stream, watermark, tuple(ranges), refused))
    ack = Acknowledgement(tuple(streams))
    assert decode_acknowledgement(ack.encode()) == ack


def test_the_most_of_everything_fits_where_it_may() -> None:
    ranges = tuple((2 * i + 2, 2 * i + 2) for i in range(MAX_RANGES))
    refused = tuple(Refused(2 * i + 1, RefusalReason.COLUMNS, False) for i in range(MAX_REFUSED))
    ack = Acknowledgement((StreamAck(1, 0, ranges, refused),))
    assert decode_acknowledgement(ack.encode()) == ack
    streams = tuple(StreamAck(2**64 - MAX_STREAMS + i, 2**63 - 1) for i in range(MAX_STREAMS))
    full = Acknowledgement(streams)
    assert decode_acknowledgement(full.encode()) == full
    assert len(full.encode()) < MAX_MESSAGE // 10


def stream(*fields: Any) -> list[Any]:
    """One stream's acknowledgement in a message: id, watermark, ranges, refused."""
    whole = [1, 3, [], []]
    whole[: len(fields)] = fields
    return [whole]


BAD_BODIES: list[tuple[str, Reader, Any, type[WireError]]] = [
    ("a map", decode_acknowledgement, {}, MalformedError),
    ("a stream of three", decode_acknowledgement, [[1, 3, []]], MalformedError),
    ("a stream twice", decode_acknowledgement, stream() * 2, MalformedError),
    ("streams going down", decode_acknowledgement, [[2, 0, [], []], [1, 0, [], []]], MalformedError),
    ("too many streams", decode_acknowledgement, stream() * (MAX_STREAMS + 1), TooLargeError),
    ("a stream of 2^64", decode_acknowledgement, stream(2**64 - 1, 2**63), MalformedError),
    ("a watermark of true", decode_acknowledgement, stream(1, True), MalformedError),
    ("a negative watermark", decode_acknowledgement, stream(1, -1), MalformedError),
    ("a range of one", decode_acknowledgement, stream(1, 3, [[5]]), MalformedError),
    ("a range that ends early", decode_acknowledgement, stream(1, 3, [[6, 5]]), MalformedError),
    ("a range at the watermark", decode_acknowledgement, stream(1, 3, [[3, 4]]), MalformedError),
    ("a range below it", decode_acknowledgement, stream(1, 3, [[1, 4]]), MalformedError),
    ("ranges that touch", decode_acknowledgement, stream(1, 3, [[5, 6], [7, 8]]), MalformedError),
    ("ranges that overlap", decode_acknowledgement, stream(1, 3, [[5, 8], [7, 9]]), MalformedError),
    ("ranges going down", decode_acknowledgement, stream(1, 3, [[8, 9], [5, 6]]), MalformedError),
    ("too many ranges", decode_acknowledgement, stream(1, 3, [[5, 6]] * (MAX_RANGES + 1)), TooLargeError),
    ("a refusal of two", decode_acknowledgement, stream(1, 3, [], [[3, 0]]), MalformedError),
    ("an unknown reason", decode_acknowledgement, stream(1, 3, [], [[3, 6, True]]), MalformedError),
    ("1 as retry", decode_acknowledgement, stream(1, 3, [], [[3, 0, 1]]), MalformedError),
    ("refused below the watermark", decode_acknowledgement, stream(1, 3, [], [[2, 0, True]]), MalformedError),
    ("refused twice", decode_acknowledgement, stream(1, 3, [], [[4, 0, True]] * 2), MalformedError),
    ("stored and refused", decode_acknowledgement, stream(1, 3, [[5, 7]], [[6, 0, True]]), MalformedError),
    ("stored last and refused", decode_acknowledgement, stream(1, 3, [[5, 7]], [[7, 0, True]]), MalformedError),
    ("stored first and refused", decode_acknowledgement, stream(1, 3, [[5, 7]], [[5, 0, True]]), MalformedError),
    ("too many refused", decode_acknowledgement, stream(1, 3, [], [[4, 0, True]] * (MAX_REFUSED + 1)), TooLargeError),
    ("a request of two", decode_request, [bytes(16), 0], MalformedError),
    ("a short id", decode_request, [bytes(15), 0, []], MalformedError),
    ("an unknown verb", decode_request, [bytes(16), 2, []], MalformedError),
    ("the time of a stream", decode_request, [bytes(16), 1, [1]], MalformedError),
    ("a time of three", decode_time, [bytes(16), 1, 1], MalformedError),
    ("a time with a short id", decode_time, [bytes(15), 1], MalformedError),
    ("a time before 1970", decode_time, [bytes(16), -1], MalformedError),
    ("a time after all calendars", decode_time, [bytes(16), 253_402_300_800_000], MalformedError),
    ("verb false", decode_request, [bytes(16), False, []], MalformedError),
    ("a stream asked twice", decode_request, [bytes(16), 0, [1, 1]], MalformedError),
    ("too many asked", decode_request, [bytes(16), 0, list(range(MAX_STREAMS + 1))], TooLargeError),
    ("a status of four", decode_status, ["id", 1, 1, 1], MalformedError),
    ("an empty policy id", decode_status, ["", 1, 1], MalformedError),
    ("a long policy id", decode_status, ["x" * 65, 1, 1], TooLargeError),
    ("a text as serial", decode_status, ["id", "1", 1], MalformedError),
    ("format 0", decode_status, ["id", 1, 0], MalformedError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "body", "error"), [row[1:] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES]
)
def test_a_body_of_another_shape_is_refused(
    reader: Reader, body: object, error: type[WireError]
) -> None:
    with pytest.raises(WireError) as caught:
        reader(cbor2.dumps(body, canonical=True))
    assert type(caught.value) is error


def test_the_twins_of_the_refused_shapes_are_read() -> None:
    refused = [[3, 0, True], [4, 0, True], [8, 0, False]]
    twins: list[tuple[Callable[[bytes], Message], Any]] = [
        (decode_acknowledgement, stream(1, 3, [[5, 7]], refused)),
        (decode_acknowledgement, stream()),
        (decode_acknowledgement, []),
        (decode_request, [bytes(16), 0, [1, 2]]),
        (decode_request, [bytes(16), 1, []]),
        (decode_status, ["x" * 64, 0, 2]),
        (decode_time, [bytes(16), 253_402_300_799_999]),
    ]
    for reader, body in twins:
        data = cbor2.dumps(body, canonical=True)
        assert reader(data).encode() == data


@pytest.mark.parametrize(
    "make",
    [
        lambda: Acknowledgement((StreamAck(1, 0), StreamAck(1, 0))).encode(),
        lambda: Acknowledgement((StreamAck(1, 3, ((2, 2),)),)).encode(),
        lambda: Request(b"", Verb.ACKNOWLEDGE, ()).encode(),
        lambda: Request(bytes(16), Verb.ACKNOWLEDGE, (2, 1)).encode(),
        lambda: Status("", 1).encode(),
    ],
    ids=["a stream twice", "a range below", "no id", "streams going down", "no policy"],
)
def test_nothing_is_written_that_would_not_be_read(make: Callable[[], bytes]) -> None:
    with pytest.raises(WireError):
        make()


@pytest.mark.parametrize("reader", [decode_acknowledgement, decode_request, decode_status])
def test_another_encoding_is_refused(reader: Reader) -> None:
    for data in (b"\x9f\xff", b"\x98\x00", b"\x80\x00", b"\xd8\x2a\x80", b""):
        with pytest.raises(NotCanonicalError):
            reader(data)
    with pytest.raises(TooLargeError):
        reader(bytes(MAX_MESSAGE + 1))


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_a_wire_error_or_a_body(data: bytes) -> None:
    for reader in (decode_acknowledgement, decode_request, decode_status):
        try:
            body: Any = reader(data)
        except WireError:
            continue
        assert body.encode() == data
