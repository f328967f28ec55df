# SPDX-License-Identifier: Apache-2.0
"""A hardware clock as sysfs shows it: a folder of files below a root, which a test moves or lets run."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class HardwareClock:
    """One clock of `/sys/class/rtc`.

    Args:
        root: what the tree lies below.
        number: its number, as in `rtc0`.
        hctosys: whether it set the wall clock at boot.
    """

    def __init__(self, root: Path, *, number: int = 0, hctosys: bool = True) -> None:
        self._place = root / f"sys/class/rtc/rtc{number}"
        self._place.mkdir(parents=True, exist_ok=True)
        (self._place / "hctosys").write_text(f"{int(hctosys)}\n")

    def tells(self, wall_ms: int) -> None:
        """Tells a time from now on, in whole seconds, until it tells another."""
        self.says(f"{wall_ms // 1000}\n")

    def says(self, text: str) -> None:
        """Answers a read with any text, also one that no driver writes."""
        self.answers()
        written = self._place / "written"
        written.write_text(text)
        written.replace(self._place / "since_epoch")

    def refuses(self) -> None:
        """Answers a read with an error, as a driver does that knows that the oscillator stopped."""
        (self._place / "since_epoch").unlink(missing_ok=True)
        (self._place / "since_epoch").symlink_to("/proc/self/mem")  # EIO; theirs is EINVAL

    def answers(self) -> None:
        """Answers reads again, once it tells or says something."""
        path = self._place / "since_epoch"
        if path.is_symlink():
            path.unlink()

    def is_gone(self) -> None:
        """The kernel has taken it away."""
        for path in self._place.iterdir():
            path.unlink()
        self._place.rmdir()

    @contextlib.contextmanager
    def running(self, ahead_ms: int = 0) -> Iterator[None]:
        """Lets it run, so many ms ahead of this machine's clock, while the block runs."""
        end = threading.Event()

        def run() -> None:
            while not end.wait(0.1):
                self.tells(time.time_ns() // 1_000_000 + ahead_ms)

        self.tells(time.time_ns() // 1_000_000 + ahead_ms)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


def touched(root: Path, name: str, at_ms: int) -> Path:
    """A file that a time service touched, at some time."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (at_ms / 1000, at_ms / 1000))
    return path
