# SPDX-License-Identifier: Apache-2.0
"""A bus of Modbus devices behind a pair of ptys: pymodbus answers, the wire between spoils answers.

The devices are pymodbus's server on the far pty; a thread carries bytes between the two ptys and
hands each answer to a fault when one is queued. What the agent opens is a symbolic link, as under
/dev/serial/by-id; `vanish` and `appear` are a plug pulled and put back.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import heapq
import os
import pty
import random
import select
import socket
import struct
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import serial
from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerRTU
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from serial.rfc2217 import PortManager

RECORDING = Path(__file__).parents[2] / "demo" / "recording" / "washing-machine.csv"

Pieces = list[tuple[float, bytes]]
"""What goes on the wire: seconds from now, and bytes."""
Fault = Callable[[bytes], Pieces]
"""Makes of an answer what goes on the wire instead."""


def silence(answer: bytes) -> Pieces:
    """Nothing comes."""
    return []


def late(delay_s: float) -> Fault:
    """The answer comes, later."""
    return lambda answer: [(delay_s, answer)]


def noise(before: bytes, after: bytes = b"") -> Fault:
    """Bytes of nobody around the answer."""
    return lambda answer: [(0.0, before + answer + after)]


def bad_checksum(answer: bytes) -> Pieces:
    """One bit of the answer is wrong."""
    return [(0.0, answer[:-1] + bytes([answer[-1] ^ 1]))]


def cut(count: int) -> Fault:
    """Only the beginning of the answer comes."""
    return lambda answer: [(0.0, answer[:count])]


def another_unit(unit: int) -> Fault:
    """Another unit says the same."""

    def fault(answer: bytes) -> Pieces:
        frame = bytes([unit]) + answer[1:-2]
        return [(0.0, frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big"))]

    return fault


def in_pieces(seed: int, apart_s: float = 0.002) -> Fault:
    """The answer comes in pieces of random length."""

    def fault(answer: bytes) -> Pieces:
        chance = random.Random(seed)
        pieces: Pieces = []
        while answer:
            length = chance.randint(1, 4)
            pieces.append((apart_s * len(pieces), answer[:length]))
            answer = answer[length:]
        return pieces

    return fault


def byte_by_byte(answer: bytes) -> Pieces:
    """The answer comes one byte at a time."""
    return [(0.001 * place, bytes([byte])) for place, byte in enumerate(answer)]


class Washer:
    """A washing machine as a unit: each read of its power is the next row of the recording.

    Attributes:
        unit: its address.
        served: rows that were read, in order.
        alarm: whether it says that its drain is blocked, whatever the recording says.
        refusals: address of a register to the exception it is refused with.
    """

    def __init__(self, unit: int, *, start: int = 0, serial: str = "TEST-WM-0001") -> None:
        self.unit = unit
        self.served: list[dict[str, str]] = []
        self.alarm = False
        self.refusals: dict[int, ExcCodes] = {}
        self._rows = rows()[start:]
        self._serial = serial

    def device(self) -> SimDevice:
        """As pymodbus serves it: two coils, two discrete inputs, holding and input registers."""
        text = self._serial.encode().ljust(16, b"\0")
        words = list(struct.unpack(">8H", text))
        return SimDevice(
            self.unit,
            (
                [SimData(0, values=[True, False] * 8, datatype=DataType.BITS)],
                [SimData(0, values=[False, True] * 8, datatype=DataType.BITS)],
                [SimData(0, values=words, datatype=DataType.REGISTERS)],
                [SimData(0, count=400, values=0, datatype=DataType.REGISTERS)],
            ),
            action=self._act,
        )

    async def _act(
        self, code: int, start: int, address: int, count: int, registers: list[int], wrote: object
    ) -> ExcCodes | None:
        refused = [at for at in self.refusals if address <= at < address + count]
        if refused:
            return self.refusals[refused[0]]
        if code == 4 and address <= 12 < address + count and self._rows:
            row = self._rows[len(self.served) % len(self._rows)]
            self.served.append(row)
            registers[12 - start : 14 - start] = _floats(float(row["power"] or "nan"))
            registers[20 - start] = round(float(row["water"]) * 10) if row["water"] else 0x8000
            registers[31 - start] = 1 if row["fault"] or self.alarm else 0
            for at in (72, 342):  # import, and import and export together
                energy = float(row["energy"] or "nan")
                registers[at - start : at + 2 - start] = _floats(energy / 1000)
        return None


def rows() -> list[dict[str, str]]:
    """The recording that the demo plays, made by the project's own script."""
    with RECORDING.open() as file:
        return list(csv.DictReader(file))


def _floats(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


class Meters:
    """A serial line with units on it.

    Args:
        link: where the port appears.
        devices: the units, as pymodbus serves them.
        baudrate: what the units speak; a port at another one gets and gives no sense.

    Attributes:
        faults: for the next answers, one each.
        unplugged: units that are silent.
        asked: every request that came over the wire.
        passed: every answer that went over it whole.
        talk: both, in order, each with the seconds since 1970 at which it went by.
        struck: how many answers a fault has spoilt.
    """

    def __init__(
        self, link: Path, devices: Iterable[SimDevice | Washer], *, baudrate: int = 9600
    ) -> None:
        self.link = link
        self.faults: deque[Fault] = deque()
        self.unplugged: set[int] = set()
        self.asked: list[bytes] = []
        self.passed: list[bytes] = []
        self.talk: list[tuple[float, bytes]] = []
        self.struck = 0
        served = [one.device() if isinstance(one, Washer) else one for one in devices]
        self._units = {device.id for device in served}
        self._speed = getattr(termios, f"B{baudrate}")
        self._far, self._far_slave = pty.openpty()
        os.set_blocking(self._far, False)
        self._near = self._near_slave = -1
        tty.setraw(self._far_slave)
        self._due: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._ended = False
        self._lock = threading.Lock()
        self.appear()
        self._server = _Server(os.ttyname(self._far_slave), served)
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def functions(self) -> set[int]:
        """Function codes that were seen on the wire."""
        return {request[1] for request in self.asked if len(request) > 1}

    def appear(self) -> None:
        """The plug is put in; the node may have another number than before."""
        with self._lock:
            self._near, self._near_slave = pty.openpty()
            # Who opened the port may flush what select saw; a read would wait for ever.
            os.set_blocking(self._near, False)
            tty.setraw(self._near_slave)
            half = self.link.with_suffix(".new")
            half.symlink_to(os.ttyname(self._near_slave))
            half.rename(self.link)

    def vanish(self) -> None:
        """The plug is pulled: the node goes, and who has it open hears of it."""
        with self._lock:
            self.link.unlink()
            os.close(self._near_slave)
            os.close(self._near)
            self._near = self._near_slave = -1

    def say(self, data: bytes) -> None:
        """Bytes that nobody asked for."""
        with self._lock:
            os.write(self._near, data)

    def close(self) -> None:
        """Everything ends."""
        self._ended = True
        self._thread.join()
        self._server.close()
        if self._near >= 0:
            self.vanish()
        os.close(self._far)
        os.close(self._far_slave)

    def _carry(self) -> None:
        while not self._ended:
            self._send_due()
            watched = [end for end in (self._near, self._far) if end >= 0]
            try:
                ready, _, _ = select.select(watched, [], [], 0.002 if self._due else 0.02)
            except OSError:
                continue
            for end in ready:
                with contextlib.suppress(OSError):
                    self._pass_on(end)

    def _pass_on(self, end: int) -> None:
        with self._lock:
            if end == self._near:
                data = os.read(end, 4096)
                self.asked.append(data)
                self.talk.append((time.time(), data))
                if not self._is_understood():
                    return
                # pymodbus answers for units that are not there, too.
                if data[0] in self._units - self.unplugged:
                    os.write(self._far, data)
                return
        if end == self._far:
            answer = self._whole(os.read(end, 4096))
            pieces: Pieces = [(0.0, answer)]
            if self.faults:
                pieces = self.faults.popleft()(answer)
                self.struck += 1
            if any(answer in data for _, data in pieces):
                self.passed.append(answer)
                self.talk.append((time.time(), answer))
            now = time.monotonic()
            for delay, data in pieces:
                self._count += 1
                heapq.heappush(self._due, (now + delay, self._count, data))

    def _whole(self, data: bytes) -> bytes:
        """The rest of an answer of which the first bytes came."""
        while len(data) < 5 or (not data[1] & 0x80 and len(data) < data[2] + 5):
            if not select.select([self._far], [], [], 0.2)[0]:
                break
            data += os.read(self._far, 4096)
        return data

    def _is_understood(self) -> bool:
        """Whether the port is set as the units are; both ends of a pty share one setting."""
        return bool(termios.tcgetattr(self._near_slave)[4] == self._speed)

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, data = heapq.heappop(self._due)
            with self._lock, contextlib.suppress(OSError):
                if self._near >= 0:
                    os.write(self._near, data)


class TcpMeters:
    """The same units over TCP, on a free port of the loopback."""

    def __init__(self, devices: Iterable[SimDevice | Washer], *, port: int = 0) -> None:
        self._server = _Server(port, devices)
        self.port = self._server.port
        self.name = f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The listener and every connection end."""
        self._server.close()


class RemoteMeters:
    """The same units behind a serial port of the network (RFC 2217): it has parity, a pty has not.

    Args:
        devices: the units.
        baudrate: what they speak.
        parity: with which parity.
    """

    def __init__(
        self, devices: Iterable[SimDevice | Washer], *, baudrate: int = 9600, parity: str = "N"
    ) -> None:
        self._far, far_slave = pty.openpty()
        tty.setraw(far_slave)
        self._far_slave = far_slave
        self._server = _Server(os.ttyname(far_slave), devices)
        self._setting = serial.serial_for_url("loop://", timeout=0)
        self._right = (baudrate, parity)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="rfc2217", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seen(self) -> tuple[int, str]:
        """How the port was last set."""
        return self._setting.baudrate, self._setting.parity

    def close(self) -> None:
        """Everything ends."""
        self._ended = True
        self._thread.join()
        self._server.close()
        self._listener.close()
        for end in (self._far, self._far_slave):
            os.close(end)

    def _serve(self) -> None:
        connection: socket.socket | None = None
        manager: PortManager | None = None
        while not self._ended:
            watched: list[Any] = [self._listener, self._far]
            ready, _, _ = select.select(
                [*watched, *([connection] if connection else [])], [], [], 0.02
            )
            if self._listener in ready:
                connection, _ = self._listener.accept()
                manager = PortManager(self._setting, _Sender(connection))
            if connection is None or manager is None:
                continue
            if self._far in ready:
                time.sleep(0.01)  # a frame is read whole from the pty
                connection.sendall(b"".join(manager.escape(self._heard(os.read(self._far, 4096)))))
            if connection in ready:
                data = connection.recv(4096)
                if not data:
                    connection.close()
                    connection = manager = None
                    continue
                os.write(self._far, b"".join(manager.filter(data)))
        if connection is not None:
            connection.close()

    def _heard(self, answer: bytes) -> bytes:
        """At another parity the last bit of each byte is taken for something else."""
        return answer if self.seen == self._right else bytes(byte ^ 0x81 for byte in answer)


class _Sender:
    """What pyserial's port manager writes its own replies to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)


class _Server:
    """pymodbus's server in a thread with a loop of its own."""

    def __init__(self, where: str | int, devices: Iterable[SimDevice | Washer]) -> None:
        self._devices: Sequence[SimDevice] = [
            one.device() if isinstance(one, Washer) else one for one in devices
        ]
        self._where = where
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        devices = list(self._devices)
        if isinstance(self._where, str):
            self._server: ModbusSerialServer | ModbusTcpServer = ModbusSerialServer(
                devices, port=self._where, baudrate=115200, ignore_missing_devices=True
            )
        else:
            self._server = ModbusTcpServer(
                devices, address=("127.0.0.1", self._where), ignore_missing_devices=True
            )
        await self._server.serve_forever(background=True)
        if not isinstance(self._where, str):
            transport: Any = self._server.transport
            self.port = transport.sockets[0].getsockname()[1]

    def close(self) -> None:
        server: Any = self._server
        asyncio.run_coroutine_threadsafe(server.shutdown(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
