# SPDX-License-Identifier: Apache-2.0
"""A doorbell beside the spool: who commits rings, who waits for sockets hears it with them.

Without it the uplink would have to look 25 times a second so that a withdrawal takes effect within
100 ms; on an idle gateway that is most of what it costs.

Law:
  - it carries no news: it may ring for nothing, and nothing is lost when it does not ring, because
    the one who listens looks once a second all the same;
  - ringing never waits and never fails.

Standards: fifo(7).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

_MODE: Final = 0o660


def path_of(spool: Path) -> Path:
    """Gives the name of the bell beside a spool."""
    return spool.with_name(spool.name + ".bell")


def hang(spool: Path) -> None:
    """Makes the bell when it is missing, with its mode whatever the umask.

    Args:
        spool: the spool's file.

    Raises:
        OSError: the directory refuses.
    """
    path = path_of(spool)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, _MODE)
        # By the open pipe and not by its name: who shares the directory could put a link there.
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fchmod(pipe, _MODE)
        finally:
            os.close(pipe)


class Bell:
    """One side's handle of the bell; made lazily, closed with the spool.

    Args:
        spool: the spool's file.
    """

    def __init__(self, spool: Path) -> None:
        self._path = path_of(spool)
        self._out: int | None = None
        self._in: int | None = None

    def ring(self) -> None:
        """Wakes whoever listens, if anybody does."""
        try:
            if self._out is None:
                self._out = self._open(os.O_WRONLY)
            os.write(self._out, b"\0")
        except BlockingIOError:
            return  # it is full: they will hear
        except OSError:  # nobody listens (ENXIO), or not any more (EPIPE)
            self._shut_out()

    def listen(self) -> int | None:
        """Gives what to wait on.

        Returns:
            A descriptor that becomes readable, or None where there is no bell.
        """
        if self._in is None:
            with contextlib.suppress(OSError):
                # Reading and writing: else it would be at its end whenever the last ringer leaves.
                self._in = self._open(os.O_RDWR)
        return self._in

    def hush(self) -> None:
        """Forgets that it rang."""
        if self._in is not None:
            with contextlib.suppress(OSError):
                os.read(self._in, 65_536)

    def close(self) -> None:
        """Closes both ends."""
        self._shut_out()
        if self._in is not None:
            os.close(self._in)
            self._in = None

    def _open(self, flags: int) -> int:
        descriptor = os.open(self._path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(self._path)
        return descriptor

    def _shut_out(self) -> None:
        if self._out is not None:
            os.close(self._out)
            self._out = None
