# SPDX-License-Identifier: Apache-2.0
"""Starts one of our programs in a hurry: `python -m tests.faults.launch gateway|backend VERB …`.

The programs are the product's own, as processes of their own. What is changed in them before their
`main` is called, so that a campaign sees in seconds what takes hours:
  - waits between two attempts, keepalives and the time after which a batch is sent again;
  - with `FAULTS_CLOCK` in the environment, the wall clock: it goes as many milliseconds ahead as
    the eight bytes of that file say at each moment (signed, little-endian). The time since boot
    stays;
  - with `FAULTS_ROOT`, where the clock looks for its boot and for evidence of a time service; the
    eight bytes of `booted` there are the milliseconds by which the time since boot is smaller;
  - with `FAULTS_DEATH`, the backend dies between its commit and its acknowledgement as soon as that
    file is there, and takes it along.

A constant that the product does not have any more ends the program: a campaign must not believe
that it was in a hurry.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Module, constant, value. Seconds unless the name says otherwise.
_HURRIED: dict[str, tuple[tuple[str, str, object], ...]] = {
    "gateway": (
        ("agent.spool.carrier", "RESEND_MS", 3_000),
        ("agent.spool.carrier", "RESEND_MAX_MS", 6_000),
        ("agent.spool.rest", "RESEND_MAX_MS", 6_000),
        ("agent.uplink.protocol", "BACKOFF_S", 0.3),
        ("agent.uplink.protocol", "BACKOFF_MAX_S", 1.0),
        ("agent.uplink.client", "_DIAL_S", 3.0),
        ("firmware_bridge.supervisor", "_SHORTEST_BACKOFF_MS", 200),
        ("firmware_bridge.supervisor", "_LONGEST_BACKOFF_MS", 1_000),
    ),
    "backend": (
        ("assent.backend.subscriber", "_BACKOFF_S", (0.3, 1.0)),
        ("assent.backend.subscriber.connection", "_KEEPALIVE_S", 2),
        ("assent.backend.subscriber.connection", "_GONE_S", 3.0),
    ),
}
_KEEPALIVE_S = 2


def main(words: Sequence[str]) -> int:
    """Runs one verb of `assent` (`gateway`) or of `assent-backend` (`backend`)."""
    side, *words = words
    if path := os.environ.get("FAULTS_CLOCK"):
        _shift_clock(Path(path))
    _hurry(side)
    if side == "gateway":
        _look_below(os.environ.get("FAULTS_ROOT"))
        uplink = importlib.import_module("agent.uplink").Uplink
        uplink.__init__.__kwdefaults__["keepalive_s"] = _KEEPALIVE_S
        return int(importlib.import_module("agent.cli.main").main(words))
    if path := os.environ.get("FAULTS_DEATH"):
        _die_after_commit(Path(path))
    return int(importlib.import_module("assent.backend.cli").main(words))


def _hurry(side: str) -> None:
    for module, name, value in _HURRIED[side]:
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise SystemExit(f"{module} has no {name} any more: tests/faults/launch.py")
        setattr(found, name, value)


def _shift_clock(path: Path) -> None:
    with path.open("rb") as file:
        shift = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    true_ns: Callable[[], int] = time.time_ns

    def time_ns() -> int:
        return true_ns() + int.from_bytes(shift[:8], "little", signed=True) * 1_000_000

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def _look_below(root: str | None) -> None:
    if root is not None:
        clock = importlib.import_module("firmware_bridge.clock").Clock
        clock.__init__.__kwdefaults__["root"] = Path(root)
        _begin_boot(int.from_bytes((Path(root) / "booted").read_bytes(), "little", signed=True))


def _begin_boot(later_ms: int) -> None:
    true_ns: Callable[[int], int] = time.clock_gettime_ns

    def clock_gettime_ns(clock: int) -> int:
        less_ms = later_ms if clock == time.CLOCK_BOOTTIME else 0
        return true_ns(clock) - less_ms * 1_000_000

    time.clock_gettime_ns = clock_gettime_ns


def _die_after_commit(order: Path) -> None:
    module = importlib.import_module("assent.backend.store")
    put = module.Store.put

    def put_and_die(self: object, group: Sequence[object]) -> object:
        settled = put(self, group)
        if order.exists() and any(one.verdict is module.Verdict.STORED for one in settled):
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return settled

    module.Store.put = put_and_die


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
