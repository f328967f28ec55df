# SPDX-License-Identifier: Apache-2.0
"""The few packets of MQTT that a gateway sends and hears, from and to bytes. Pure, no I/O.

Law:
  - what is sent is QoS 1 and nothing else: no will, no name and password, no topic alias;
  - what is read is what may come down to such a client; anything else is malformed, and so is a
    packet with a byte too few or too many;
  - a packet's length is checked before one byte of it is gathered.

Standards: MQTT 5.0 §2 and §3; MQTT 3.1.1 §2 and §3, whose return codes of a CONNACK are told as
their fellows of 5.
Security: the broker is not trusted. What it says in words is stepped over, never shown.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from agent.uplink import fields
from agent.uplink.events import Answered, Came, Confirmed, Ended, Event, Subscribed
from agent.uplink.fields import Rest
from agent.uplink.protocol import Reason, Version
from assent.errors import MalformedError, TooLargeError

# §2.1.2: types, with the flags that they carry on the wire where they carry any.
_CONNECT: Final = 0x10
_CONNACK: Final = 0x20
_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_SUBSCRIBE: Final = 0x82
_SUBACK: Final = 0x90
_PINGRESP: Final = 0xD0
_DISCONNECT: Final = 0xE0
PING: Final = b"\xc0\0"
"""A PINGREQ."""
LEAVE: Final = b"\xe0\0"
"""A DISCONNECT; on version 5 the length 0 says that all is well."""

_AT_LEAST_ONCE: Final = 1
_LEVEL: Final = {Version.V5: 5, Version.V311: 4}
_GOES_ON: Final = 0  # flags of a CONNECT: the session does not begin anew, and nothing else
# MQTT 3.1.1 §3.2.2.3 → MQTT 5.0 §3.2.2.2.
_FELLOWS: Final = {
    0: Reason.SUCCESS,
    1: Reason.UNSUPPORTED_PROTOCOL_VERSION,
    2: Reason.CLIENT_IDENTIFIER_NOT_VALID,
    4: Reason.BAD_USER_NAME_OR_PASSWORD,
    5: Reason.NOT_AUTHORIZED,
}
_NO_VERSION_5: Final = 1
# §3.14.2.1: what a broker may have against a client like us.
_FAREWELLS: Final = {
    0x00: "normal disconnection",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x87: "not authorized",
    0x89: "server busy",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x9B: "qos not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
}


def connect(
    version: Version, client_id: str, keepalive_s: int, *, session_s: int, window: int, largest: int
) -> bytes:
    """Writes a CONNECT that goes on with the session there was.

    Args:
        version: of MQTT.
        client_id: who we are.
        keepalive_s: seconds after which the broker may give us up.
        session_s: seconds the broker keeps our session; on 3.1.1 it decides itself.
        window: messages without a PUBACK that we take, as the two after it on version 5 only.
        largest: bytes of the largest packet that we take.

    Returns:
        The packet.
    """
    body = b"\0\x04MQTT" + struct.pack("!BBH", _LEVEL[version], _GOES_ON, keepalive_s)
    if version is Version.V5:
        said = struct.pack("!BI", fields.SESSION_EXPIRY, session_s)
        said += struct.pack("!BH", fields.RECEIVE_MAXIMUM, window)
        said += struct.pack("!BI", fields.MAXIMUM_PACKET, largest)
        body += fields.length(len(said)) + said
    return _packet(_CONNECT, body + fields.text(client_id))


def publish(version: Version, topic: str, mid: int, data: bytes) -> bytes:
    """Writes a PUBLISH with QoS 1.

    Args:
        version: of MQTT.
        topic: where it goes.
        mid: its packet id, 1 to 65535.
        data: the message.

    Returns:
        The packet.
    """
    none = b"\0" if version is Version.V5 else b""
    head = fields.text(topic) + struct.pack("!H", mid) + none
    return _packet(_PUBLISH | _AT_LEAST_ONCE << 1, head + data)


def acknowledge(mid: int) -> bytes:
    """Writes the PUBACK of a message.

    Args:
        mid: its packet id.

    Returns:
        The packet; on version 5 the missing reason is success.
    """
    return _packet(_PUBACK, struct.pack("!H", mid))


def subscribe(version: Version, mid: int, topic: str) -> bytes:
    """Writes a SUBSCRIBE to one topic with QoS 1.

    Args:
        version: of MQTT.
        mid: its packet id.
        topic: which.

    Returns:
        The packet.
    """
    none = b"\0" if version is Version.V5 else b""
    return _packet(
        _SUBSCRIBE, struct.pack("!H", mid) + none + fields.text(topic) + bytes([_AT_LEAST_ONCE])
    )


class Stream:
    """What came from a broker, cut into packets.

    Args:
        version: of MQTT.
        largest: bytes after its head that a packet may have.
    """

    def __init__(self, version: Version, largest: int) -> None:
        self._version = version
        self._largest = largest
        self._held = bytearray()
        self._is_first = True

    def take(self, data: bytes) -> list[Event]:
        """Adds some bytes.

        Args:
            data: as they came.

        Returns:
            What the packets that are whole now tell, in order.

        Raises:
            MalformedError: a packet that may not come, or not like this.
            TooLargeError: a packet that is longer than it may be.
        """
        self._held += data
        events = []
        while (packet := self._cut()) is not None:
            first, body = packet
            if self._is_first is not (first == _CONNACK):
                raise MalformedError("a CONNACK comes first, and once")
            self._is_first = False
            event = read(self._version, first, body)
            if event is not None:
                events.append(event)
        return events

    def _cut(self) -> tuple[int, bytes] | None:
        held, length = self._held, 0
        for index in range(1, min(len(held), 1 + fields.LENGTH_BYTES)):
            length |= (held[index] & 0x7F) << 7 * (index - 1)
            if held[index] & 0x80:
                continue
            if length > self._largest:
                raise TooLargeError(f"expected a packet of {self._largest} bytes at most")
            end = index + 1 + length
            if len(held) < end:
                return None
            first, body = held[0], bytes(held[index + 1 : end])
            del held[:end]
            return first, body
        if len(held) > fields.LENGTH_BYTES:
            raise MalformedError("expected a length of four bytes at most")
        return None


def read(version: Version, first: int, body: bytes) -> Event | None:
    """Reads one packet.

    Args:
        version: of MQTT.
        first: its first byte, type and flags.
        body: what follows the length.

    Returns:
        What it tells; None for the answer to a ping.

    Raises:
        MalformedError: it may not come, or not like this.
    """
    rest = Rest(body)
    reader = _READERS.get(first)
    if first & 0xF0 == _PUBLISH:
        event: Event | None = _came(version, first, rest)
    elif reader is None or (first == _DISCONNECT and version is Version.V311):
        raise MalformedError(f"expected no packet that begins with 0x{first:02x}")
    else:
        event = reader(version, rest)
    if rest:
        raise MalformedError("a packet goes on after its end")
    return event


def _answered(version: Version, rest: Rest) -> Answered:
    flags, reason = rest.number(1), rest.number(1)
    if flags > 1:
        raise MalformedError("reserved flags of a CONNACK are set")
    found: dict[int, int] = {}
    if version is Version.V311 or reason == _NO_VERSION_5:
        # A broker without version 5 refuses it as 3.1.1 does.
        reason = _FELLOWS.get(reason, Reason.ERROR)
        rest.all()
    else:
        found = rest.properties()
    return Answered(
        reason=reason,
        receive_maximum=found.get(fields.RECEIVE_MAXIMUM),
        maximum_packet=found.get(fields.MAXIMUM_PACKET),
        maximum_qos=found.get(fields.MAXIMUM_QOS),
        keepalive_s=found.get(fields.SERVER_KEEP_ALIVE),
        resumed=bool(flags),
    )


def _came(version: Version, first: int, rest: Rest) -> Came:
    qos = first >> 1 & 3
    if qos > _AT_LEAST_ONCE:
        raise MalformedError("we subscribe with QoS 1")
    rest.skip_text()
    mid = rest.number(2) if qos else 0
    if qos and not mid:
        raise MalformedError("packet ids begin at 1")
    if version is Version.V5:
        rest.properties()
    return Came(mid, qos, rest.all())


def _confirmed(version: Version, rest: Rest) -> Confirmed:
    mid = rest.number(2)
    return Confirmed(mid, _reason(rest) if version is Version.V5 else Reason.SUCCESS)


def _subscribed(version: Version, rest: Rest) -> Subscribed:
    rest.number(2)
    if version is Version.V5:
        rest.properties()
    return Subscribed(rest.number(1) < Reason.ERROR)


def _ponged(_version: Version, _rest: Rest) -> None:
    return None


def _ended(_version: Version, rest: Rest) -> Ended:
    reason = _reason(rest)
    name = _FAREWELLS.get(reason, f"reason 0x{reason:02x}")
    return Ended(f"the broker: {name}", reason, dialled=True)


_READERS: Final[dict[int, Callable[[Version, Rest], Event | None]]] = {
    _CONNACK: _answered,
    _PUBACK: _confirmed,
    _SUBACK: _subscribed,
    _PINGRESP: _ponged,
    _DISCONNECT: _ended,
}


def _reason(rest: Rest) -> int:
    """A reason code and its properties; both may be missing, then it is success."""
    reason = rest.number(1) if rest else Reason.SUCCESS
    if rest:
        rest.properties()
    return reason


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + fields.length(len(body)) + body
