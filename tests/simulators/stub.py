# SPDX-License-Identifier: Apache-2.0
"""A broker made of a script: what a real one does rarely, on demand. TLS, one client at a time.

It knows as much of MQTT as the uplink's tests need, and writes down every packet it gets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable

from tests.simulators.certificates import Authority


class Refusal(enum.Enum):
    """How a broker without MQTT 5 refuses it."""

    CONNACK_5 = "a CONNACK of MQTT 5"
    CONNACK_3 = "a CONNACK of MQTT 3.1.1, as NATS does"
    HANG_UP = "it hangs up, as RabbitMQ 3.10 does"


@dataclasses.dataclass
class Script:
    """What the broker does.

    Attributes:
        refusal: how it refuses version 5, or None: it speaks it.
        connack_reason: its answer to CONNECT.
        before_connack: called before it answers; may wait.
        receive_maximum: announced, or None.
        maximum_packet: announced, or None.
        puback: the reason for each PUBLISH by number, or None: no answer.
        hang_up_over: closes the connection on a longer payload.
        pings: whether it answers them.
        keeps_sessions: whether it still knows who was here before.
        properties: further properties of its CONNACK, encoded.
        farewell: reason of a DISCONNECT it answers each PUBLISH with and what follows the reason,
            or None.
    """

    refusal: Refusal | None = None
    connack_reason: int = 0
    before_connack: Callable[[], object] = lambda: None
    receive_maximum: int | None = None
    maximum_packet: int | None = None
    puback: Callable[[int], int | None] = lambda _number: 0
    hang_up_over: int | None = None
    pings: bool = True
    keeps_sessions: bool = True
    properties: bytes = b""
    farewell: bytes | None = None


class Stub:
    """The broker.

    Attributes:
        port: where it listens.
        script: what it does; may be changed at any time.
        versions: of each CONNECT, 4 or 5.
        packets: type of each packet that came, in order, over all connections.
        published: (payload, duplicate flag) of each PUBLISH.
        pubacks: packet ids the client acknowledged.
        ends: how each connection ended: "disconnect", "reset", "closed", or "hung up" by us.

    Args:
        authority: issues its certificate, and those it takes.
        script: what it does.
        names: what its certificate is for; localhost when none are given.
        listener: where it listens, or None: on a free port of the loopback.
    """

    def __init__(
        self,
        authority: Authority,
        script: Script | None = None,
        *,
        names: tuple[str, ...] = (),
        listener: socket.socket | None = None,
    ) -> None:
        self.script = script or Script()
        self.versions: list[int] = []
        self.packets: list[int] = []
        self.published: list[tuple[bytes, bool]] = []
        self.pubacks: list[int] = []
        self.ends: list[str] = []
        self.on_puback: Callable[[int], None] = lambda _mid: None
        server = authority.server(*names)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(server.certificate, server.key)
        self._context.load_verify_locations(cadata=authority.pem)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stub", daemon=True)
        self._client: ssl.SSLSocket | None = None
        self._sending = threading.Lock()
        self._was_reset = False

    def __enter__(self) -> Stub:  # noqa: PYI034 - not subclassed
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        """Where a target finds it."""
        return f"mqtts://localhost:{self.port}"

    def send(self, mailbox: str, payload: bytes, mid: int) -> None:
        """Publishes to the client that is connected."""
        topic = f"assent/1/{mailbox}/down".encode()
        body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", mid)
        body += (b"\0" if self.versions[-1] == 5 else b"") + payload
        self._write(0x32, body)

    def limit_to(self, version: ssl.TLSVersion) -> None:
        """Speaks no later version of TLS from now on."""
        self._context.maximum_version = version

    def hang_up(self) -> None:
        """Ends the connection without a word, as a broker that was killed does."""
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                # The socket's own: that of TLS would forget the session while the thread reads.
                socket.socket.shutdown(client, socket.SHUT_RDWR)

    def promise(self, length: int, sent: int) -> int:
        """Begins a PUBLISH of a length, and sends that much of it; gives how much was taken."""
        topic = b"assent/1/x/down"
        head = b"\x32" + _length(length) + struct.pack("!H", len(topic)) + topic + b"\0\1\0"
        client, taken = self._client, 0
        assert client is not None
        with self._sending, contextlib.suppress(OSError):
            client.sendall(head)
            while taken < sent:
                client.sendall(bytes(100_000))
                taken += 100_000
        return taken

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                plain, _ = self._listener.accept()
                plain.settimeout(5)
                with plain, self._context.wrap_socket(plain, server_side=True) as client:
                    client.settimeout(5)
                    self._client = client
                    self.ends.append(self._talk(client))
            self._client = None

    def _talk(self, client: ssl.SSLSocket) -> str:
        kind = 0
        try:
            while not self._stop.is_set():
                try:
                    kind, flags, body = self._packet(client)
                except TimeoutError:
                    continue
                self.packets.append(kind)
                if kind == 14:
                    return "disconnect"
                if not self._answer(kind, flags, body):
                    return "hung up"
        except (OSError, EOFError):
            return "reset" if self._was_reset else "closed"
        return "stopped"

    def _packet(self, client: ssl.SSLSocket) -> tuple[int, int, bytes]:
        first = self._exactly(client, 1, patient=False)[0]
        length = shift = 0
        while True:
            byte = self._exactly(client, 1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return first >> 4, first & 15, self._exactly(client, length)

    def _exactly(self, client: ssl.SSLSocket, count: int, *, patient: bool = True) -> bytes:
        got = b""
        while len(got) < count:
            if not client.pending() and not select.select([client], [], [], 0.05)[0]:
                if not patient or self._stop.is_set():
                    raise TimeoutError
                continue
            # TLS calls every end the end of a file, and answers it with an alert, which is reset.
            # The kernel knows what came before that: 7 is TCP_CLOSE.
            self._was_reset = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7
            chunk = client.recv(count - len(got))
            if not chunk:
                raise EOFError
            got += chunk
        return got

    def _answer(self, kind: int, flags: int, body: bytes) -> bool:
        if kind == 1:
            return self._connect(body[6])
        if kind == 3:
            return self._publish(flags, body)
        if kind == 4:
            mid = struct.unpack("!H", body[:2])[0]
            self.on_puback(mid)
            self.pubacks.append(mid)
        if kind == 8:
            self._write(0x90, body[:2] + (b"\0" if self.versions[-1] == 5 else b"") + b"\1")
        if kind == 12 and self.script.pings:
            self._write(0xD0, b"")
        return True

    def _connect(self, level: int) -> bool:
        self.versions.append(level)
        script = self.script
        script.before_connack()
        if level == 5 and script.refusal is not None:
            if script.refusal is Refusal.CONNACK_5:
                self._write(0x20, b"\0\x84\0")
            if script.refusal is Refusal.CONNACK_3:
                self._write(0x20, b"\0\1")
            return False
        present = script.keeps_sessions and len(self.versions) > 1
        if level != 5:
            self._write(0x20, bytes([present, min(script.connack_reason, 5)]))
            return script.connack_reason == 0
        properties = script.properties
        if script.receive_maximum is not None:
            properties += b"\x21" + struct.pack("!H", script.receive_maximum)
        if script.maximum_packet is not None:
            properties += b"\x27" + struct.pack("!I", script.maximum_packet)
        head = bytes([present and script.connack_reason == 0, script.connack_reason])
        self._write(0x20, head + bytes([len(properties)]) + properties)
        return script.connack_reason < 0x80

    def _publish(self, flags: int, body: bytes) -> bool:
        topic = struct.unpack("!H", body[:2])[0]
        mid, rest = body[2 + topic : 4 + topic], body[4 + topic :]
        payload = rest[1:] if self.versions[-1] == 5 else rest
        self.published.append((payload, bool(flags & 8)))
        script = self.script
        if script.hang_up_over is not None and len(payload) > script.hang_up_over:
            return False
        if script.farewell is not None:
            # What we have not read when we close would reset it, and take this with it.
            self._write(0xE0, script.farewell)
            return True
        reason = script.puback(len(self.published))
        if reason is not None:
            more = bytes([reason, 0]) if reason and self.versions[-1] == 5 else b""
            self._write(0x40, mid + more)
        return True

    def _write(self, first: int, body: bytes) -> None:
        client = self._client
        if client is not None:
            with self._sending:
                client.sendall(bytes([first]) + _length(len(body)) + body)


def _length(length: int) -> bytes:
    encoded = b""
    while True:
        length, byte = length >> 7, length & 127
        encoded += bytes([byte | (128 if length else 0)])
        if not length:
            return encoded
