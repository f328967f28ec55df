# SPDX-License-Identifier: Apache-2.0
"""The instance lock: whoever holds it is the one writer of a state directory.

Law: ledger, keys and hardware are touched only under it; the kernel drops it when its holder dies,
so that a crash never needs a person to remove a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from assent.errors import RefusedError

FILE_NAME = "instance.lock"

_STEP_S = 0.05


class BusyError(RefusedError):
    """Another process is the writer of this state directory."""


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
                raise BusyError(
                    f"another assent works in {state}", hint="ask it with: assent status"
                )
            time.sleep(_STEP_S)
        yield
    finally:
        os.close(descriptor)


def _is_ours(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
