# SPDX-License-Identifier: Apache-2.0
"""A paho client on a socket of our making, that reads no packet larger than we announced.

Law:
  - paho's own socket stays open when the handshake fails, and has no options set before it;
  - paho announces a Maximum Packet Size and does not hold the broker to it: one packet may say that
    it has 268 MB, and would be gathered in memory. Here such a packet ends the connection before
    one byte of it is read;
  - the line is made by `dial`, in a thread of its own, without a byte of MQTT; `connect` speaks on
    it, in the thread that uses the client;
  - a line that takes no more bytes has not ended before what came on it was read;
  - when the last byte came is known, and the alert of TLS by which the broker refused us.

Standards: MQTT 5.0 §2.1.4 (Remaining Length), §3.1.2.11.4 (Maximum Packet Size).
Security: the broker is not trusted. On 3.1.1, which announces no size, the bound is the same.
Limits: a name that is being resolved, and TCP that is not answered, cannot be interrupted; what
comes of them is closed. It overrides three methods that paho does not promise. Should a later paho
not ask here any more, tests/agent/test_uplink.py sees the difference.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as mqtt

from assent.errors import UplinkError
from assent.wire import MAX_MESSAGE

# Bytes of a packet besides the message: topic, header, properties.
_HEADROOM: Final = 2_880
LARGEST_PACKET: Final = MAX_MESSAGE + _HEADROOM
"""Bytes of the largest packet the broker may send."""
# Seconds for TCP, and again for the TLS handshake. A slow mobile link needs some; a broker that
# does not answer by then is tried again later.
_DIAL_S: Final = 15.0
_LINGER_NONE: Final = struct.pack("ii", 1, 0)


class Client(mqtt.Client):
    """The client of one connection; `secure` comes before `dial`, that before `connect`.

    Attributes:
        is_oversized: the connection ended because of a packet that is too large.
        heard_s: when the last byte came, in monotonic seconds.
        alert: OpenSSL's name of the alert the connection ended with, or empty.
    """

    is_oversized: bool = False
    heard_s: float = 0.0
    alert: str = ""
    _context: ssl.SSLContext
    _check: Callable[[ssl.SSLSocket], UplinkError | None]
    _line: ssl.SSLSocket | None = None
    _is_given_up: bool = False

    def secure(
        self, context: ssl.SSLContext, check: Callable[[ssl.SSLSocket], UplinkError | None]
    ) -> None:
        """Sets what the connection is made with.

        Args:
            context: of TLS.
            check: what is wrong with a connection whose handshake was good, before a byte is sent.
        """
        self._context = context
        self._check = check
        self.tls_set_context(context)

    def ping_after(self, silence_s: int) -> None:
        """Sets after which silence the broker is asked whether it is there.

        Args:
            silence_s: seconds; whatever the broker said in its CONNACK.
        """
        self._keepalive = silence_s

    def dial(self, host: str, port: int) -> None:
        """Makes the line: TCP, TLS and what is checked after them.

        Args:
            host: name or address.
            port: of TCP.

        Raises:
            OSError: there is none; `give_up` is one of the reasons.
            UplinkError: the check found something wrong.
        """
        # As bytes a name goes as it is; for a text Python loads the tables of IDNA, 0.3 MiB.
        name = host.encode("ascii" if host.isascii() else "idna")
        place: Any = (name, port)  # which `getaddrinfo` takes, whatever its stub says
        plain = socket.create_connection(place, timeout=_DIAL_S)
        try:
            # With a linger of 0 a close drops what the kernel still holds. Without it, bytes of a
            # flow that was just withdrawn would still leave.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = self._context.wrap_socket(
                plain, server_hostname=name, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise
        try:
            self._shake_hands(line)
        except BaseException:
            line.close()
            raise

    def _shake_hands(self, line: ssl.SSLSocket) -> None:
        self._line = line  # before the question, so that `give_up` finds it or is found
        if self._is_given_up:
            raise ConnectionAbortedError
        line.do_handshake()
        wrong = self._check(line)
        if wrong is not None:
            raise wrong
        self.heard_s = time.monotonic()

    def give_up(self) -> None:
        """Ends `dial`, which raises; any thread may call it. Whoever dials closes the line."""
        self._is_given_up = True
        if self._line is not None:
            with contextlib.suppress(OSError):  # closed already
                # The socket's own: that of TLS would forget the session under the other thread.
                socket.socket.shutdown(self._line, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the line at once; what the kernel still held does not leave any more."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.close()

    @property
    def has_line(self) -> bool:
        """Whether `dial` has made a line."""
        return self.heard_s > 0.0

    def _create_socket(self) -> ssl.SSLSocket:
        assert self._line is not None
        return self._line

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except (ConnectionError, ssl.SSLEOFError) as exc:
            # What the broker said last lies unread, and why it went is in it. The read that follows
            # meets the end of the line as well.
            raise BlockingIOError from exc

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for the rest of a packet, whose length is the broker's word.
        if bufsize > LARGEST_PACKET:
            self.is_oversized = True
            raise ConnectionError
        try:
            got = super()._sock_recv(bufsize)
        except ssl.SSLError as exc:
            self.alert = exc.reason or ""
            raise
        if got:
            self.heard_s = time.monotonic()
        return got
