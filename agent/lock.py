# SPDX-License-Identifier: Apache-2.0
"""The instance lock: whoever holds it is the one writer of a state directory.

Law: ledger, keys and hardware are touched only under it; the kernel drops it when its holder dies,
so that a crash never needs a person to remove a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from assent.errors import RefusedError

FILE_NAME = "instance.lock"

_STEP_S = 0.05
_SIGNATURE = 100  # bytes
_AGENTS = ("run", "collect")


class BusyError(RefusedError):
    """Another process is the writer of this state directory.

    Attributes:
        holder: which, such as `assent run (process 4711)`.
    """

    def __init__(self, message: str, *, hint: str | None = None, holder: str) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


@contextlib.contextmanager
def instance_lock(state: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Holds the lock of a state directory while the block runs.

    Args:
        state: the directory.
        patience_s: how long to wait for a holder to end; a command holds it for an instant.

    Raises:
        BusyError: another process holds it.
    """
    descriptor = os.open(state / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + patience_s
        while not _is_ours(descriptor):
            if time.monotonic() >= end:
                raise _busy(state, descriptor)
            time.sleep(_STEP_S)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def _busy(state: Path, descriptor: int) -> BusyError:
    number, _, verb = os.pread(descriptor, _SIGNATURE, 0).decode(errors="replace").partition(" ")
    hint = "ask it with: assent status" if verb in _AGENTS else "end it, or wait for it"
    holder = "another assent"
    if number.isdecimal():
        holder = f"{' '.join(('assent', *verb.split()))} (process {number})"
    return BusyError(f"another assent works in {state}: {holder}", hint=hint, holder=holder)


def _sign(descriptor: int) -> None:
    """Says who holds it; of use only while it is held."""
    verb = " ".join(word for word in sys.argv[1:3] if word.isalpha())
    with contextlib.suppress(OSError):  # a full disk keeps nobody from saying no
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {verb}".encode(), 0)


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
