# SPDX-License-Identifier: Apache-2.0
"""A client of MQTT over TLS for one connection: a socket, what waits for it, and what came.

Law:
  - it lives for one connection, and what it has not sent when that ends is forgotten;
  - it holds nothing back and sends nothing by itself but the question whether the broker is there;
  - a failure is an event, like all that happens: `take` tells it, and the socket is closed.

Standards: MQTT 5.0 §3.1.2.11.4 (Maximum Packet Size), §3.12 (PINGREQ).
Security: the broker is not trusted. A packet larger than we announced ends the connection before
one byte of it is gathered; on 3.1.1, which announces no size, the bound is the same.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
import time
from typing import Any, Final

from agent.uplink import packets, tls
from agent.uplink.events import Ended, Event
from agent.uplink.protocol import WINDOW, Version
from assent.errors import TooLargeError, WireError
from assent.wire import MAX_MESSAGE

# Bytes of a packet besides the message: topic, header, properties.
_HEADROOM: Final = 2_880
LARGEST_PACKET: Final = MAX_MESSAGE + _HEADROOM
"""Bytes of the largest packet the broker may send."""
# Seconds for TCP, and again for the TLS handshake. A slow mobile link needs some; a broker that
# does not answer by then is tried again later.
_DIAL_S: Final = 15.0
# Seconds the broker keeps our session: what a backend sends down waits for a week.
_SESSION_S: Final = 7 * 86_400
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_LINGER_DEFAULT: Final = struct.pack("ii", 0, 0)
# Bytes of one record of TLS, and records read in one turn: a broker that never stops sending must
# not keep the others waiting.
_RECORD: Final = 16_384
_TURN: Final = 2 * WINDOW
_PACKET_IDS: Final = 65_535
_OVERSIZED: Final = "the broker sends a packet that is larger than we said we take"
_LOST: Final = "the connection was lost"


class Client:
    """The client of one connection; one thread at a time uses it.

    Args:
        version: of MQTT.
        client_id: who we are.
        keepalive_s: seconds after which the broker may give us up.

    Attributes:
        heard_s: when the last byte came, or the connection was made; in monotonic seconds.
    """

    def __init__(self, version: Version, client_id: str, keepalive_s: int) -> None:
        self.heard_s = 0.0
        self._version = version
        self._socket: ssl.SSLSocket | None = None
        self._stream = packets.Stream(version, LARGEST_PACKET)
        self._waiting = bytearray(
            packets.connect(
                version,
                client_id,
                keepalive_s,
                session_s=_SESSION_S,
                window=WINDOW,
                largest=LARGEST_PACKET,
            )
        )
        self._events: list[Event] = []
        self._ping_after_s = math.inf  # not before the broker has answered
        self._sent_s = self._pinged_s = 0.0
        self._mid = 0

    def dial(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Connects, shows who we are, and says CONNECT; blocks.

        Args:
            host: of the broker.
            port: of TCP.
            context: of TLS.

        Raises:
            OSError: it did not come about; ssl.SSLError is one.
        """
        # As bytes a name goes as it is; for a text Python loads the tables of IDNA, 0.3 MiB.
        name = host.encode("ascii" if host.isascii() else "idna")
        place: Any = (name, port)  # which `getaddrinfo` takes, whatever its stub says
        plain = socket.create_connection(place, timeout=_DIAL_S)
        try:
            # With a linger of 0 a close drops what the kernel still holds. Without it, bytes of a
            # flow that was just withdrawn would still leave (design §3).
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secured = context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
        secured.settimeout(0.0)
        self.heard_s = time.monotonic()
        self._socket = secured
        self.write()

    def socket(self) -> ssl.SSLSocket | None:
        """Gives the socket, or None while there is none."""
        return self._socket

    def take(self) -> list[Event]:
        """Gives what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return bool(self._waiting)

    @property
    def has_unread(self) -> bool:
        """Whether TLS holds bytes that `select` does not see any more."""
        return self._socket is not None and self._socket.pending() > 0

    def ping_after(self, silence_s: int) -> None:
        """Sets after which silence the broker is asked whether it is there.

        Args:
            silence_s: seconds; whatever the broker said in its CONNACK.
        """
        self._ping_after_s = silence_s

    def tick(self) -> None:
        """Asks the broker whether it is there when it is time to."""
        now = time.monotonic()
        quiet_since = max(self._pinged_s, min(self.heard_s, self._sent_s))
        if now - quiet_since >= self._ping_after_s:
            self._pinged_s = now
            self._send(packets.PING)

    def publish(self, topic: str, data: bytes) -> int | None:
        """Publishes a message with QoS 1.

        Args:
            topic: where.
            data: the message.

        Returns:
            Its packet id, or None when the connection has ended.
        """
        mid = self._next_id()
        return mid if self._send(packets.publish(self._version, topic, mid, data)) else None

    def acknowledge(self, mid: int) -> None:
        """Sends the PUBACK of a message.

        Args:
            mid: its packet id.
        """
        self._send(packets.acknowledge(mid))

    def listen(self, topic: str) -> None:
        """Subscribes with QoS 1.

        Args:
            topic: to what.
        """
        self._send(packets.subscribe(self._version, self._next_id(), topic))

    def leave(self) -> None:
        """Ends the connection politely; the broker keeps the session."""
        if self._socket is None:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_DEFAULT)
        except OSError:
            return  # gone already
        self._send(packets.LEAVE)

    def close(self) -> None:
        """Ends the connection at once; what the kernel still held does not leave any more."""
        found, self._socket = self._socket, None
        self._waiting.clear()
        if found is not None:
            found.close()

    def read(self) -> None:
        """Reads what has come, so much of it that the others have their turn."""
        for _ in range(_TURN):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(_RECORD)
                self._events += self._heard(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError, WireError) as exc:
                self._lose(exc)
                return
            if not self.has_unread:
                return

    def write(self) -> None:
        """Gives the socket what it takes of what waits."""
        while self._waiting and self._socket is not None:
            try:
                count = self._socket.send(self._waiting)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError) as exc:
                self._lose(exc)
                return
            del self._waiting[:count]
            self._sent_s = time.monotonic()

    def _heard(self, data: bytes) -> list[Event]:
        if not data:
            raise ConnectionError
        self.heard_s = time.monotonic()
        return self._stream.take(data)

    def _send(self, packet: bytes) -> bool:
        if self._socket is None:
            return False
        self._waiting += packet
        self.write()
        return self._socket is not None

    def _next_id(self) -> int:
        self._mid = self._mid % _PACKET_IDS + 1
        return self._mid

    def _lose(self, exc: Exception) -> None:
        self.close()
        self._events.append(_ended(exc))


def _ended(exc: Exception) -> Ended:
    match exc:
        case TooLargeError():
            return Ended(_OVERSIZED, None, dialled=True)
        case WireError():
            return Ended(f"the broker breaks the rules of MQTT: {exc.message}", None, dialled=True)
        case ssl.SSLError() if alert := tls.alerted(exc.reason or ""):
            return Ended(alert, None, dialled=True, refused=True)
    return Ended(_LOST, None, dialled=True, hung_up=True)
