# SPDX-License-Identifier: Apache-2.0
"""A no left beside a spool that another process holds: one small file for each flow.

The collecting side may stand still in the middle of a write; then nobody else can write the spool,
and a no could not be made durable in it.

Law:
  - a file is durable when `leave` returns; while it lies there nothing of its flow is leased;
  - it is heard like a no in the spool, and goes when the ledger has it.

Security: whoever may write the spool's directory may leave one: anybody may say no.
Limits: one that is said again while the first is being recorded is recorded as the first.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from assent import durable

_MODE: Final = 0o660
_PREFIX: Final = ".no-"
# Bytes of the largest: an instant, a line, an id.
_MOST: Final = 4_096


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


def left(spool: Path) -> dict[str, int]:
    """Gives the noes that lie beside a spool: flow to the instant. What is none is passed over."""
    found = {}
    directory, own = os.path.split(spool)
    # Asked with every lease and every second: a plain listing takes a tenth of a glob.
    for name in os.listdir(directory or os.curdir):  # noqa: PTH208
        if not name.startswith(f"{own}{_PREFIX}"):
            continue
        path = spool.with_name(name)
        try:
            said, flow = durable.read(path, _MOST).decode().split("\n", 1)
            if path == _path_of(spool, flow):  # not the unfinished file of a crash
                found[flow] = int(said)
        except (OSError, ValueError):
            continue
    return found


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
