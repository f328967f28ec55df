# SPDX-License-Identifier: Apache-2.0
"""A broker's front door that stops reading: a TCP relay that counts every byte it takes.

While a line is held nothing is read from the client: its bytes wait in our kernel, which is what a
machine has received, and behind that in the client's. `Line.received` is therefore exact: what we
took and what our kernel holds of it. The receive buffer is small, so that it is soon full and the
rest stays with the client.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from typing import Self

_CHUNK = 65_536
_BUFFER = 4_096  # the kernel takes twice as much, and some more
_STEP_S = 0.02
_ESTABLISHED = 1  # tcp(7), TCP_INFO


class Line:
    """One connection of a client, and ours to the server.

    Attributes:
        taken: bytes read from the client so far.
        is_held: nothing is read from the client.
        is_over: it was ended here.
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.taken = 0
        self.is_held = False
        self.is_deserted = False  # the server has gone while it was held
        self.is_over = False

    @property
    def waiting(self) -> int:
        """Bytes that this machine has received and nobody has read."""
        if self.client.fileno() < 0:
            return 0
        found = fcntl.ioctl(self.client, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", found)[0])

    @property
    def is_connected(self) -> bool:
        """Whether the client's side stands."""
        if self.client.fileno() < 0:
            return False
        state = self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == _ESTABLISHED

    @property
    def received(self) -> int:
        """Bytes that have reached this machine."""
        return self.taken + self.waiting

    def drain(self, quiet_s: float = 0.3) -> int:
        """Reads a held line to its end, or until nothing more comes; how many bytes that were."""
        count = 0
        self.client.setblocking(False)
        with contextlib.suppress(OSError):  # reset
            while select.select([self.client], [], [], quiet_s)[0]:
                chunk = self.client.recv(_CHUNK)
                if not chunk:
                    break
                count += len(chunk)
        self.taken += count
        return count

    def close(self) -> None:
        """Resets both sides."""
        self.is_over = True
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class Tap:
    """Listens on a port of the loopback and forwards to a server; owns its lines' sockets.

    Args:
        port: where it listens.
        upstream: port of the server.

    Attributes:
        hold_after: a line from which so many bytes were read is held; None for never.
        lines: every line since the start, the newest last.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self.hold_after: int | None = None
        self.lines: list[Line] = []
        self._upstream = upstream
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()
        for line in self.lines:
            line.close()
        assert not self._thread.is_alive()

    def held(self) -> list[Line]:
        """The lines that are held, and whose client waits."""
        return [
            line for line in self.lines if line.is_held and not line.is_over and line.is_connected
        ]

    def rest(self, lines: list[Line]) -> list[int]:
        """Reads lines to their end as a broker that reads again, forwards nothing, ends them.

        Returns:
            How many bytes came of each.
        """
        with self._lock:
            for line in lines:
                line.is_over = True
        counts = [line.drain() for line in lines]
        for line in lines:
            line.close()
        return counts

    def pass_on(self) -> None:
        """Reads again; the bytes that waited go on to the server."""
        with self._lock:
            self.hold_after = None
            for line in self.lines:
                line.is_held = False

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                open_ = [line for line in self.lines if not line.is_over]
                sources = {line.server: line for line in open_ if not line.is_deserted}
                sources |= {line.client: line for line in open_ if not line.is_held}
            try:
                ready, _, _ = select.select([self._listener, *sources], [], [], _STEP_S)
            except (OSError, ValueError):  # a line was ended meanwhile
                continue
            for source in ready:
                if source is self._listener:
                    self._accept()
                    continue
                with self._lock:
                    line = sources[source]
                    if not line.is_over and not (source is line.client and line.is_held):
                        self._carry(line, source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream), 5)
        except OSError:
            client.close()
            return
        with self._lock:
            self.lines.append(Line(client, server))

    def _carry(self, line: Line, source: socket.socket) -> None:
        is_up = source is line.client
        try:
            chunk = source.recv(1_024 if is_up else _CHUNK)
            (line.server if is_up else line.client).sendall(chunk)
        except OSError:
            chunk = b""
        if is_up:
            line.taken += len(chunk)
            line.is_held = self.hold_after is not None and line.taken >= self.hold_after
        if not chunk and line.is_held:
            line.is_deserted = True
        elif not chunk:
            line.close()


def steady(tap: Tap, at_least: int, patience_s: float = 15.0, quiet_s: float = 0.1) -> list[Line]:
    """Waits until held lines have received so much, and nothing more comes; gives them."""
    end = time.monotonic() + patience_s
    before: list[int] = []
    since = time.monotonic()
    while True:
        lines = tap.held()
        now = [line.received for line in lines]
        if now != before:
            before, since = now, time.monotonic()
        if sum(now) >= at_least and time.monotonic() - since > quiet_s:
            return lines
        assert time.monotonic() < end, f"held lines received {now}, expected {at_least} bytes"
        time.sleep(0.005)
