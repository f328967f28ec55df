# SPDX-License-Identifier: Apache-2.0
"""Sources that are faster than the line, and a recipient that says more than anybody reads.

SECONDS=600 in the environment makes it long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.spool import LinkState
from agent.spool.mail import INBOX_BYTES, INBOX_MESSAGES
from tests.agent.carrying import Gateway
from tests.simulators.broker import running
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.proxy import Proxy
from tests.simulators.subscriber import Subscriber, listening

pytestmark = pytest.mark.journey

REPO = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("SECONDS", "4"))
QUOTA = 4_000_000
SIZE = 100_000
# Bytes a second of the line: two batches.
LINE = 200_000
CHILD = """
import pathlib, sys, threading
from agent.uplink import Uplink
from tests.agent.carrying import Impatient
Uplink(pathlib.Path(sys.argv[1]), voucher=None, rng=Impatient()).run(threading.Event())
"""


def held_mib(pid: int) -> float:
    """What a process holds, in MiB: proc_pid_statm(5)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def on_disk(path: Path) -> int:
    """Bytes of the spool and its log."""
    return sum(one.stat().st_size for one in path.parent.glob("spool.db*") if one.is_file())


class Load:
    """What comes from both sides: batches without end, letters that nobody reads."""

    def __init__(self, gateway: Gateway, backend: Subscriber) -> None:
        self.put = self.dropped = 0
        self._gateway = gateway
        self.letters = 2 * INBOX_MESSAGES
        for _ in range(self.letters):
            backend.post(gateway.mailbox, bytes(1_000))

    def until(self, end: float) -> None:
        """Puts until then, as fast as it goes."""
        while time.monotonic() < end:
            self.put += len(self._gateway.put(2, size=SIZE))
            self._gateway.sent.clear()
            gone = self._gateway.spool.enforce_quota(QUOTA)
            self.dropped += sum(one.batches for one in gone)


def test_memory_and_disk_are_bounded_when_the_line_is_too_slow(tmp_path: Path) -> None:
    """Red when a link takes what the spool has: the window is what it holds."""
    authority = Authority(tmp_path / "authority")
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(running(tmp_path / "broker", authority))
        backend = stack.enter_context(listening(broker.port, authority))
        proxy = stack.enter_context(Proxy(broker.port, bytes_per_s=LINE))
        gateway = Gateway(tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}")
        stack.callback(gateway.close)
        gateway.open_lane()
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(gateway.path)], cwd=REPO)
        stack.callback(child.wait, 10)
        stack.callback(child.send_signal, signal.SIGTERM)
        gateway.reaches(LinkState.CONNECTED)
        load = Load(gateway, backend)
        before, most = held_mib(child.pid), 0.0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            load.until(time.monotonic() + 0.5)
            most = max(most, held_mib(child.pid))
            assert on_disk(gateway.path) < QUOTA + INBOX_BYTES + 6_000_000
        arrived = len(backend.payloads)
        inbox = gateway.spool.take_inbox(INBOX_MESSAGES + 1)
        print(f"put {load.put} dropped {load.dropped} arrived {arrived} letters {load.letters}")
        print(f"{before:.1f} MiB at first, {most:.1f} at most in {SECONDS:.0f} s")
        assert arrived > 0
        assert load.put > 10 * arrived, "the line was not too slow"
        assert load.dropped > 0
        assert len(inbox) <= INBOX_MESSAGES < load.letters
        assert most - before < 2.0, (before, most)
        assert child.poll() is None
        # When the sources rest and the line is well, what is left drains.
        proxy.bytes_per_s = 0
        left = gateway.spool.waiting()["service"].batches
        eventually(lambda: len(set(backend.payloads[arrived:])) >= left - 20)
