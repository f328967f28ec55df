# SPDX-License-Identifier: Apache-2.0
"""Packets of MQTT: the bytes of the standards, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.uplink import packets
from agent.uplink.events import Answered, Came, Confirmed, Ended, Event, Subscribed
from agent.uplink.packets import Stream
from agent.uplink.protocol import Reason, Version
from assent.errors import MalformedError, TooLargeError, WireError

V5, V311 = Version.V5, Version.V311
LARGEST = 1_000
TOPIC = b"\0\x03a/b"
WELCOME = {V5: b"\x20\x03\0\0\0", V311: b"\x20\x02\0\0"}


def heard(version: Version, data: bytes) -> list[Event]:
    """What a client hears after its CONNACK."""
    stream = Stream(version, LARGEST)
    stream.take(WELCOME[version])
    return stream.take(data)


def accepted(**said: int | None) -> Answered:
    none = dict.fromkeys(("receive_maximum", "maximum_packet", "maximum_qos", "keepalive_s"))
    return Answered(**{"reason": 0, "resumed": False, **none, **said})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (
            packets.connect(V5, "id", 60, session_s=2, window=20, largest=256),
            b"\x10\x1c\0\x04MQTT\x05\0\0\x3c\x0d\x11\0\0\0\x02\x21\0\x14\x27\0\0\x01\0\0\x02id",
        ),
        (
            packets.connect(V311, "id", 60, session_s=2, window=20, largest=256),
            b"\x10\x0e\0\x04MQTT\x04\0\0\x3c\0\x02id",
        ),
        (packets.publish(V5, "a/b", 10, b"!"), b"\x32\x09\0\x03a/b\0\x0a\0!"),
        (packets.publish(V311, "a/b", 10, b"!"), b"\x32\x08\0\x03a/b\0\x0a!"),
        (packets.publish(V311, "a/b", 10, bytes(321))[:3], b"\x32\xc8\x02"),
        (packets.acknowledge(258), b"\x40\x02\x01\x02"),
        (packets.subscribe(V5, 10, "a/b"), b"\x82\x09\0\x0a\0\0\x03a/b\x01"),
        (packets.subscribe(V311, 10, "a/b"), b"\x82\x08\0\x0a\0\x03a/b\x01"),
        (packets.PING, b"\xc0\0"),
        (packets.LEAVE, b"\xe0\0"),
    ],
    ids=[
        "CONNECT of 5 goes on with a session and says what it takes",
        "CONNECT of 3.1.1 goes on with a session",
        "PUBLISH of 5 has no properties",
        "PUBLISH of 3.1.1",
        "a length above 127 takes two bytes, the lower one first",
        "PUBACK is success without saying so",
        "SUBSCRIBE of 5 has no properties and asks for QoS 1",
        "SUBSCRIBE of 3.1.1 asks for QoS 1",
        "PINGREQ is empty",
        "DISCONNECT is empty",
    ],
)
def test_a_packet_is_written_as_the_standard_has_it(made: bytes, wanted: bytes) -> None:
    assert made == wanted


@pytest.mark.parametrize(
    ("version", "data", "told"),
    [
        (V5, b"\x20\x03\x01\0\0", accepted(resumed=True)),
        (
            V5,
            b"\x20\x0d\0\0\x0a\x13\0\x1e\x21\0\x05\x24\x01\x22\0",
            None,
        ),
        (
            V5,
            b"\x20\x10\0\0\x0d\x13\0\x1e\x21\0\x05\x24\x01\x27\0\0\x01\0",
            accepted(keepalive_s=30, receive_maximum=5, maximum_qos=1, maximum_packet=256),
        ),
        (V5, b"\x20\x0f\0\0\x0c\x1f\0\x01x\x26\0\x01a\0\x01b\x2a\x01", None),
        (V5, b"\x20\x10\0\0\x0d\x1f\0\x01x\x26\0\x01a\0\x01b\x2a\x01", accepted()),
        (V5, b"\x20\x02\0\x01", accepted(reason=Reason.UNSUPPORTED_PROTOCOL_VERSION)),
        (V5, b"\x20\x03\0\x87\0", accepted(reason=Reason.NOT_AUTHORIZED)),
        (V311, b"\x20\x02\0\x05", accepted(reason=Reason.NOT_AUTHORIZED)),
        (V311, b"\x20\x02\0\x03", accepted(reason=Reason.ERROR)),
        (V311, b"\x20\x02\x01\0", accepted(resumed=True)),
    ],
    ids=[
        "5 resumes a session",
        "a property that ends too early",
        "5 says its limits",
        "properties that end in the middle of one",
        "words and other properties are stepped over",
        "a broker of 3.1.1 refuses 5",
        "5 refuses us",
        "3.1.1 refuses us, told as 5 does",
        "3.1.1 has no room, which is no reason of 5 that we act on",
        "3.1.1 resumes a session",
    ],
)
def test_a_connack_tells_what_the_broker_takes(
    version: Version, data: bytes, told: Answered | None
) -> None:
    stream = Stream(version, LARGEST)
    if told is None:
        with pytest.raises(MalformedError):
            stream.take(data)
    else:
        assert stream.take(data) == [told]


@pytest.mark.parametrize(
    ("version", "data", "told"),
    [
        (V5, b"\x40\x02\0\x07", Confirmed(7, 0)),
        (V5, b"\x40\x03\0\x07\x10", Confirmed(7, 0x10)),
        (V5, b"\x40\x04\0\x07\x97\0", Confirmed(7, 0x97)),
        (V311, b"\x40\x02\0\x07", Confirmed(7, 0)),
        (V5, b"\x90\x04\0\x01\0\x01", Subscribed(True)),
        (V5, b"\x90\x04\0\x01\0\x87", Subscribed(False)),
        (V311, b"\x90\x03\0\x01\x80", Subscribed(False)),
        (V5, b"\x32\x09" + TOPIC + b"\0\x09\0!", Came(9, 1, b"!")),
        (V5, b"\x3b\x0e" + TOPIC + b"\0\x09\x05\x02\0\0\0\x01!", Came(9, 1, b"!")),
        (V5, b"\x32\x0b" + TOPIC + b"\0\x09\x02\x0b\x05!", Came(9, 1, b"!")),
        (V311, b"\x32\x08" + TOPIC + b"\0\x09!", Came(9, 1, b"!")),
        (V311, b"\x30\x05" + TOPIC, Came(0, 0, b"")),
        (V5, b"\xe0\0", Ended("the broker: normal disconnection", 0, dialled=True)),
        (V5, b"\xe0\x01\x8e", Ended("the broker: session taken over", 0x8E, dialled=True)),
        (V5, b"\xe0\x02\xf0\0", Ended("the broker: reason 0xf0", 0xF0, dialled=True)),
    ],
    ids=[
        "PUBACK of 5 without a reason is success",
        "PUBACK of 5 with a reason",
        "PUBACK of 5 with a reason and properties",
        "PUBACK of 3.1.1 is success",
        "SUBACK grants",
        "SUBACK of 5 refuses",
        "SUBACK of 3.1.1 refuses",
        "PUBLISH of 5",
        "PUBLISH of 5 that is repeated, kept, and expires",
        "PUBLISH of 5 with the number of a subscription",
        "PUBLISH of 3.1.1",
        "PUBLISH with QoS 0 has no id",
        "DISCONNECT without a word",
        "DISCONNECT with a reason",
        "DISCONNECT with a reason nobody knows",
    ],
)
def test_a_packet_tells_what_happened(version: Version, data: bytes, told: Event) -> None:
    assert heard(version, data) == [told]


def test_an_answer_to_a_ping_tells_nothing() -> None:
    assert heard(V5, b"\xd0\0") == []


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (V5, WELCOME[V5]),
        (V5, b"\x34\x09" + TOPIC + b"\0\x09\0!"),
        (V5, b"\x36\x09" + TOPIC + b"\0\x09\0!"),
        (V5, b"\x32\x09" + TOPIC + b"\0\0\0!"),
        (V5, b"\x32\x0b" + TOPIC + b"\0\x09\x02\x07\x05!"),
        (V5, b"\x32\x02\0\x09"),
        (V5, b"\x40\x01\0"),
        (V311, b"\x40\x03\0\x07\0"),
        (V5, b"\x41\x02\0\x07"),
        (V5, b"\x50\x02\0\x07"),
        (V5, b"\x90\x05\0\x01\0\x01\x01"),
        (V5, b"\xd0\x01\0"),
        (V5, b"\xf0\0"),
        (V311, b"\xe0\0"),
        (V5, b"\x40\xff\xff\xff\xff\x01"),
    ],
    ids=[
        "a second CONNACK",
        "a message with QoS 2",
        "a message with QoS 3",
        "a message with the id 0",
        "a property nobody knows",
        "a topic that ends too early",
        "a PUBACK without an id",
        "a PUBACK of 3.1.1 with a reason",
        "a PUBACK with flags",
        "a PUBREC",
        "a SUBACK of two subscriptions",
        "an answer to a ping with a byte in it",
        "an AUTH",
        "a DISCONNECT, on 3.1.1",
        "a length of five bytes",
    ],
)
def test_what_may_not_come_is_malformed(version: Version, data: bytes) -> None:
    with pytest.raises(MalformedError):
        heard(version, data)


@pytest.mark.parametrize(
    "properties",
    [b"\x21\0\x05\x21\0\x05", b"\x21\0\0", b"\x27\0\0\0\0"],
    ids=["twice the same", "no message at all", "a packet of no byte"],
)
def test_limits_that_make_no_sense_are_malformed(properties: bytes) -> None:
    body = bytes([0, 0, len(properties)]) + properties
    with pytest.raises(MalformedError):
        Stream(V5, LARGEST).take(bytes([0x20, len(body)]) + body)


def test_nothing_is_heard_before_a_connack() -> None:
    with pytest.raises(MalformedError):
        Stream(V5, LARGEST).take(b"\x40\x02\0\x07")


def test_a_packet_is_too_large_before_a_byte_of_it_came() -> None:
    """Red when the length is looked at only once the packet is there."""
    stream = Stream(V5, LARGEST)
    stream.take(WELCOME[V5])
    assert stream.take(b"\x32\xe8\x07") == []  # 1,000
    stream = Stream(V5, LARGEST)
    stream.take(WELCOME[V5])
    with pytest.raises(TooLargeError):
        stream.take(b"\x32\xe9\x07")


SOUND = st.lists(
    st.sampled_from(
        [
            b"\x40\x02\0\x07",
            b"\x40\x04\0\x08\x10\0",
            b"\x90\x04\0\x01\0\x01",
            b"\xd0\0",
            b"\x32\xc8\x01" + TOPIC + b"\0\x09\0" + bytes(192),
        ]
    ),
    max_size=6,
)


@given(SOUND, st.lists(st.integers(1, 60), min_size=1))
def test_it_is_the_same_however_the_bytes_are_cut(sound: list[bytes], cuts: list[int]) -> None:
    data = WELCOME[V5] + b"".join(sound)
    stream, events, at = Stream(V5, LARGEST), [], 0
    for cut in [*cuts, len(data)]:
        events += stream.take(data[at : at + cut])
        at += cut
    assert events == Stream(V5, LARGEST).take(data)
    assert len(events) == 1 + len([one for one in sound if one != b"\xd0\0"])


@given(st.sampled_from(Version), SOUND, st.integers(0, 400), st.binary(max_size=8))
def test_broken_bytes_are_refused_and_nothing_else_happens(
    version: Version, sound: list[bytes], at: int, strange: bytes
) -> None:
    data = b"".join(sound)
    stream = Stream(version, LARGEST)
    stream.take(WELCOME[version])
    try:
        stream.take(data[:at] + strange + data[at + len(strange) :])
    except WireError:
        return


@given(st.binary(max_size=60))
def test_strange_bytes_are_refused_and_nothing_else_happens(strange: bytes) -> None:
    try:
        heard(V5, strange)
    except WireError:
        return
