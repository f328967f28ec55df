# SPDX-License-Identifier: Apache-2.0
"""When a program ended, to the millisecond, however late anybody asks, and how starved it was.

What a program does within a second it does later where it has no processor. The kernel counts for
how long it was ready and had none (/proc/PID/schedstat), for the first thread of each process.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

_STEP_S = 0.1
_KEPT = 200
"""Looks at one program: the last twenty seconds."""


class Deaths:
    """Watches programs; each by a thread of its own."""

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}
        self._starved: dict[int, deque[tuple[int, int]]] = {}
        self._watches: dict[int, threading.Thread] = {}

    def watch(self, program: subprocess.Popen[bytes]) -> None:
        """Notes when a program ends, which was started just now."""
        handle = os.pidfd_open(program.pid)
        self._starved[program.pid] = deque(maxlen=_KEPT)
        watch = threading.Thread(target=self._wait, args=(program.pid, handle), daemon=True)
        self._watches[program.pid] = watch
        watch.start()

    def of(self, program: subprocess.Popen[bytes]) -> int:
        """When a program that has ended did, in ms since 1970."""
        self._watches[program.pid].join()
        return self._ended[program.pid]

    def starved_ms(self, program: subprocess.Popen[bytes], within_ms: int) -> int:
        """For how long a program that has ended had no processor, of so many last ms."""
        since_ms = self.of(program) - within_ms
        looks = list(self._starved[program.pid])
        before = [starved for at, starved in looks if at <= since_ms] or [0]
        return max([starved for _, starved in looks], default=0) - before[-1]

    def _wait(self, pid: int, handle: int) -> None:
        while not select.select([handle], [], [], _STEP_S)[0]:
            self._starved[pid].append((_now_ms(), _starved_ms(pid)))
        self._ended[pid] = _now_ms()
        self._starved[pid].append((self._ended[pid], _starved_ms(pid)))
        os.close(handle)


def _starved_ms(pid: int) -> int:
    """Since it began, with what it has started itself: under a tracer that is the program."""
    own = Path(f"/proc/{pid}")
    total = 0
    with contextlib.suppress(OSError):
        children = (own / f"task/{pid}/children").read_text().split()
        for one in (own, *(own.with_name(child) for child in children)):
            total += int((one / "schedstat").read_text().split()[1])
    return total // 1_000_000


def _now_ms() -> int:
    return int(time.time() * 1000)
