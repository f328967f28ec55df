# SPDX-License-Identifier: Apache-2.0
"""The instance lock: whoever holds it is the one writer of a state directory.

Law: ledger, keys and hardware are touched only under it; the kernel drops it when its holder dies,
so that a crash never needs a person to remove a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from assent.errors import RefusedError

FILE_NAME = "instance.lock"


@contextlib.contextmanager
def instance_lock(state: Path) -> Iterator[None]:
    """Holds the lock of a state directory while the block runs.

    Raises:
        RefusedError: another process holds it.
    """
    descriptor = os.open(state / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise RefusedError(
                f"another assent works in {state}", hint="ask it with: assent status"
            ) from exc
        yield
    finally:
        os.close(descriptor)
