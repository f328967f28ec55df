# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that breaks connections the way networks do.

It runs in a thread of its own. `up` is from the client to the server, `down` the other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import threading
from collections import Counter
from typing import Self


class Fault(enum.Enum):
    """What happens to the bytes from now on."""

    NONE = "none"
    """They pass."""
    REFUSE = "refuse"
    """New connections are reset; open ones go on."""
    STALL = "stall"
    """They are held back, and pass when the fault ends."""
    BLACK_HOLE = "black hole"
    """They vanish, the connection stays open."""
    CORRUPT_UP = "corrupt up"
    """One bit in each chunk is another."""
    CORRUPT_DOWN = "corrupt down"
    CUT_UP = "cut up"
    """Half of the next chunk passes, then both sides are reset."""
    CUT_DOWN = "cut down"
    DRIBBLE = "dribble"
    """They pass one by one."""


class Proxy:
    """Listens on a free port of the loopback and forwards to a server.

    Attributes:
        port: where it listens.
        fault: what it does to bytes; may be set at any time.
        struck: how often each fault did something.
        accepted: how many connections it accepted.
        bytes_per_s: how much passes each way, or 0 for all of it.
    """

    def __init__(self, upstream_port: int, *, seed: int = 1, bytes_per_s: int = 0) -> None:
        self.bytes_per_s = bytes_per_s
        self.fault = Fault.NONE
        self.struck: Counter[Fault] = Counter()
        self.accepted = 0
        self.port = 0
        self._upstream = upstream_port
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(5)
        assert not self._thread.is_alive()

    def cut_all(self) -> None:
        """Resets every open connection now."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._abort_all()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _end(self) -> None:
        self._loop.stop()

    def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.REFUSE:
            self.struck[Fault.REFUSE] += 1
            writer.transport.abort()
            return
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(
                self._pump("up", reader, onward, writer),
                self._pump("down", back, writer, onward),
                return_exceptions=True,
            )
        finally:
            for one in (writer, onward):
                one.transport.abort()
                self._writers.discard(one)

    async def _pump(
        self,
        way: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(4096):
                if await self._pass(way, chunk, writer):
                    continue
                writer.transport.abort()
                other.transport.abort()
                return
            if writer.can_write_eof():
                writer.close()

    async def _pass(self, way: str, chunk: bytes, writer: asyncio.StreamWriter) -> bool:
        while self.fault is Fault.STALL:
            self.struck[Fault.STALL] += 1
            await asyncio.sleep(0.02)
        fault = self.fault
        if fault is Fault.BLACK_HOLE:
            self.struck[fault] += 1
            return True
        if fault.value == f"cut {way}":
            self.struck[fault] += 1
            writer.write(chunk[: len(chunk) // 2])
            await writer.drain()
            return False
        if fault.value == f"corrupt {way}":
            self.struck[fault] += 1
            changed = bytearray(chunk)
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
            chunk = bytes(changed)
        if fault is Fault.DRIBBLE:
            self.struck[fault] += 1
            for byte in chunk:
                writer.write(bytes([byte]))
                await writer.drain()
            return True
        if self.bytes_per_s:
            await asyncio.sleep(len(chunk) / self.bytes_per_s)
        writer.write(chunk)
        await writer.drain()
        return True
