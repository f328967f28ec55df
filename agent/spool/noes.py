# SPDX-License-Identifier: Apache-2.0
"""A no left beside a spool that another process holds: one small file for each flow.

The collecting side may stand still in the middle of a write; then nobody else can write the spool,
and a no could not be made durable in it.

Law:
  - a file is durable when `leave` returns; while it lies there nothing of its flow is leased;
  - it is heard like a no in the spool, and goes when the ledger has it;
  - a new one is found by the next look: a directory in which none lay is left unread only while
    its time of modification, which was long past then, is the same.

Security: whoever may write the spool's directory may leave one: anybody may say no.
Limits: one that is said again while the first is being recorded is recorded as the first.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from assent import durable

_MODE: Final = 0o660
_PREFIX: Final = ".no-"
# Bytes of the largest: an instant, a line, an id.
_MOST: Final = 4_096
# Times of modification are as coarse as 2 s on some file systems: two names may come within one.
_COARSE_NS: Final = 3_000_000_000


def leave(spool: Path, flow: str, said_ms: int) -> None:
    """Leaves a no; durable when this returns.

    Args:
        spool: the spool's file.
        flow: id of the flow.
        said_ms: when it was said, in ms since 1970.

    Raises:
        OSError: the directory refuses.
    """
    durable.write(_path_of(spool, flow), f"{said_ms}\n{flow}".encode(), mode=_MODE)


class Noes:
    """The noes beside one spool, for who asks with every lease and every second.

    Args:
        spool: the spool's file.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._directory, self._prefix = str(spool.parent), f"{spool.name}{_PREFIX}"
        self._empty_ns: int | None = None
        """The directory's time of modification, when it was listed and no no lay in it."""

    def left(self) -> dict[str, int]:
        """Gives those that lie there now: flow to the instant. What is none is passed over."""
        written_ns = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 - asked all the time
        if written_ns == self._empty_ns:
            return {}
        # A plain listing takes a tenth of a glob.
        names = os.listdir(self._directory)  # noqa: PTH208
        names = [name for name in names if name.startswith(self._prefix)]
        is_over = time.time_ns() - written_ns > _COARSE_NS
        self._empty_ns = written_ns if is_over and not names else None
        return _read(self._spool, names)


def take_away(spool: Path, flow: str) -> None:
    """Removes a no that is recorded; durable when this returns.

    Args:
        spool: the spool's file.
        flow: id of the flow; one without a no is nothing.

    Raises:
        OSError: the directory refuses.
    """
    path = _path_of(spool, flow)
    if path.exists():
        durable.remove(path)


def _path_of(spool: Path, flow: str) -> Path:
    # A flow's id may be longer than a file's name.
    name = hashlib.sha256(flow.encode()).hexdigest()[:32]
    return spool.with_name(f"{spool.name}{_PREFIX}{name}")


def _read(spool: Path, names: Iterable[str]) -> dict[str, int]:
    found = {}
    for name in names:
        path = spool.with_name(name)
        try:
            said, flow = durable.read(path, _MOST).decode().split("\n", 1)
            if path == _path_of(spool, flow):  # not the unfinished file of a crash
                found[flow] = int(said)
        except (OSError, ValueError):
            continue
    return found
