# SPDX-License-Identifier: Apache-2.0
"""When a program ended, to the millisecond, however late anybody asks."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time


class Deaths:
    """Watches programs; each by a thread of its own."""

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}
        self._watches: dict[int, threading.Thread] = {}

    def watch(self, program: subprocess.Popen[bytes]) -> None:
        """Notes when a program ends, which was started just now."""
        handle = os.pidfd_open(program.pid)
        watch = threading.Thread(target=self._wait, args=(program.pid, handle), daemon=True)
        self._watches[program.pid] = watch
        watch.start()

    def of(self, program: subprocess.Popen[bytes]) -> int:
        """When a program that has ended did, in ms since 1970."""
        self._watches[program.pid].join()
        return self._ended[program.pid]

    def _wait(self, pid: int, handle: int) -> None:
        select.select([handle], [], [])
        self._ended[pid] = int(time.time() * 1000)
        os.close(handle)
