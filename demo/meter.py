# SPDX-License-Identifier: Apache-2.0
"""A simulated energy meter on a serial port: an SDM120 that follows the demo's recording.

    python -m demo.meter ./meter            # a port named ./meter, until Ctrl-C

pymodbus answers as the device; a pty pair is the line. What opens the port sees a serial device at
2400 8N1 with unit 1 on it. Registers as in config/profiles/eastron-sdm120.toml; of the meter's
others it has none, and gives zeros.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import logging
import os
import pty
import select
import struct
import sys
import threading
import time
import tty
from pathlib import Path
from typing import Any, Final, Self

from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

RECORDING: Final = Path(__file__).with_name("recording") / "washing-machine.csv"
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)  # it prints frames

UNIT: Final = 1
_POWER, _IMPORT, _TOTAL = 12, 72, 342  # W, kWh, kWh; all float32
_REGISTERS: Final = 400
_LOOK_S: Final = 0.05
_FRAME: Final = 4_096


class Meter:
    """The meter, from `with` to its end.

    Args:
        link: where the port appears.
        speed: rows of the recording a second.
    """

    def __init__(self, link: Path, speed: float = 1.0) -> None:
        self.link = link
        self._speed = speed
        self._began = time.monotonic()
        with RECORDING.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._rows = [(float(row["power"]), float(row["energy"])) for row in rows if row["power"]]
        (self._near, self._port), (self._far, self._served) = pty.openpty(), pty.openpty()
        for end in (self._port, self._served):
            tty.setraw(end)
        for end in (self._near, self._far):
            os.set_blocking(end, False)
        self._ended = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._threads = [
            threading.Thread(target=self._loop.run_forever, name="meter", daemon=True),
            threading.Thread(target=self._carry, name="line", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self.link.unlink(missing_ok=True)
        self._ended.set()
        self._threads[1].join()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()
        self._loop.close()
        for end in (self._near, self._port, self._far, self._served):
            os.close(end)

    async def _serve(self) -> None:
        nothing = [SimData(0, count=1, values=False, datatype=DataType.BITS)]
        registers = [SimData(0, count=_REGISTERS, values=0, datatype=DataType.REGISTERS)]
        device = SimDevice(UNIT, (nothing, nothing, registers, registers), action=self._act)
        self._server = ModbusSerialServer([device], port=os.ttyname(self._served), baudrate=2400)
        await self._server.serve_forever(background=True)

    async def _close(self) -> None:
        server: Any = self._server  # pymodbus gives shutdown no type
        await server.shutdown()

    async def _act(  # noqa: PLR0917 (pymodbus calls it so)
        self, code: int, start: int, address: int, count: int, registers: list[int], wrote: object
    ) -> None:
        """Puts what the recording says now into the registers, before they are answered."""
        del code, address, count, wrote
        row = int((time.monotonic() - self._began) * self._speed) % len(self._rows)
        power, energy = self._rows[row]
        registers[_POWER - start : _POWER + 2 - start] = _float32(power)
        for at in (_IMPORT, _TOTAL):
            registers[at - start : at + 2 - start] = _float32(energy / 1_000)

    def _carry(self) -> None:
        """Carries bytes from one pty to the other."""
        ends = {self._near: self._far, self._far: self._near}
        while not self._ended.is_set():
            ready, _, _ = select.select(list(ends), [], [], _LOOK_S)
            for end in ready:
                try:
                    data = os.read(end, _FRAME)
                except BlockingIOError:  # whoever opened the port flushed it in between
                    continue
                # pymodbus answers for units that are not there; a line is silent then.
                if end == self._far or data[0] == UNIT:
                    os.write(ends[end], data)


def _float32(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


if __name__ == "__main__":
    with Meter(Path(sys.argv[1])) as running:
        print(f"unit {UNIT} at 2400 8N1 on {running.link}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
