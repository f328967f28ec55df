# SPDX-License-Identifier: Apache-2.0
"""Batches for tests of the spool and the uplink: the right type, bytes of no meaning."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from agent.path import Sealed
from agent.spool import Spool

FAR = 4_000_000_000_000  # ms; the year 2096
NOW = 1_800_000_000_000


def sealed(
    sequence: int,
    *,
    flow: str = "service",
    recipient: str = "maker",
    stream: int = 7,
    data: bytes | None = None,
    size: int = 300,
    readings: int = 10,
    expires_ms: int = FAR,
) -> Sealed:
    if data is None:
        data = random.Random(f"{flow} {stream} {sequence}").randbytes(size)
    return Sealed(
        flow=flow,
        recipient=recipient,
        stream=stream,
        sequence=sequence,
        data=data,
        digest=hashlib.sha256(data).digest(),
        readings=readings,
        first_ms=NOW + sequence * 1_000,
        last_ms=NOW + sequence * 1_000 + 999,
        expires_ms=expires_ms,
    )


def run_of(count: int, **kind: object) -> list[Sealed]:
    return [sealed(sequence, **kind) for sequence in range(count)]  # type: ignore[arg-type]


def steps(side: Spool, work: Callable[[], object]) -> int:
    """What work costs: tens of steps of SQLite's machine, whatever else the computer does."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    side._db.set_progress_handler(tick, 10)
    try:
        work()
    finally:
        side._db.set_progress_handler(None, 0)
    return count
