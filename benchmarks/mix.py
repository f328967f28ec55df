# SPDX-License-Identifier: Apache-2.0
"""The worst mix that benchmarks/bounds.py lives through: what happens to a household, and is seen.

In turns each of these happens: the disk refuses the uplink every write for some seconds, collect
is held (SIGSTOP) while more letters come than its inbox takes, and the disk refuses collect. A disk
that refuses is RLIMIT_FSIZE set low from outside: the kernel then refuses every write beyond the
first 4 kB of any file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.control import ask
from agent.site import SPOOL
from agent.spool.mail import INBOX_MESSAGES
from benchmarks.household import Household
from benchmarks.memory import alone_mib, held_mib
from benchmarks.path import ATTRIBUTES
from demo.stage import StageError, wait_until

if TYPE_CHECKING:
    from tests.simulators.proxy import Proxy

LINE = 5_000
"""Bytes a second each way: two batches with what they are wrapped in."""
LETTERS = INBOX_MESSAGES + 64
_LETTER_BYTES = 40
_REFUSED = 0.625  # of the time that collect is held: its memory takes what comes meanwhile
_LOOK_S = 5.0
_ENDS_S = 300.0
_SEALED_S = 20.0
_SMALLEST = 4_096


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """How hard it is.

    Attributes:
        span_s: for how long the recording plays.
        well_s: how much of it is well, at its end; gaps are told by the batches that follow them.
        pause_s: from the beginning of one trouble to that of the next; three make a round.
        held_s: for how long collect is held; the disk refuses for five eighths of it.
        speed: rows a second.
        quota_mb: of the spool.
    """

    span_s: float
    well_s: float = 180.0
    pause_s: float = 20.0
    held_s: float = 8.0
    speed: float = 120.0
    quota_mb: int = 4

    @property
    def rows(self) -> int:
        """Of the recording."""
        return int(self.span_s * self.speed)


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at_s: since the beginning.
        rss: MiB of collect, of uplink.
        pss: what both would hold by themselves, together.
        disk_mb: of the spool with its logs.
        waiting: batches.
        gaps: rows of the gaps that are not yet acknowledged.
        inbox: letters.
    """

    at_s: float
    rss: tuple[float, float]
    pss: float
    disk_mb: float
    waiting: int
    gaps: int
    inbox: int


class Letters:
    """Somebody who may write to the gateway, and says nothing it understands."""

    def __init__(self, household: Household, mailbox: str) -> None:
        tls = household.stage.backend_directory("maker") / "tls"
        self.sent = 0
        self._topic = f"assent/1/{mailbox}/down"
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, "bench-letters", protocol=mqtt.MQTTv5
        )
        self._client.tls_set(
            str(tls / "ca.pem"), str(tls / "backend.pem"), str(tls / "backend.key")
        )
        self._client.connect("127.0.0.1", household.stage.ports["maker"])
        self._client.loop_start()

    def burst(self) -> None:
        """Sends more than the inbox takes."""
        for _ in range(LETTERS):
            self._client.publish(self._topic, os.urandom(_LETTER_BYTES), qos=1)
        self.sent += LETTERS

    def close(self) -> None:
        """Goes."""
        self._client.disconnect()
        self._client.loop_stop()


class Mix:
    """A household at its line, with everything that happens to it.

    Args:
        household: whose programs run.
        line: what its bytes pass through.
        load: how hard.
    """

    def __init__(self, household: Household, line: Proxy, load: Load) -> None:
        self.household = household
        self.load = load
        self.looks: list[Look] = []
        self._line = line
        self._path = household.state / SPOOL
        self._programs = household.stage.programs
        self._began = time.monotonic()
        self._over = threading.Event()
        self.letters = 0
        self.lived_s = 0.0

    def is_connected(self) -> bool:
        """Whether the uplink has reached its broker."""
        with _reading(self._path) as db:
            return db.execute("SELECT 1 FROM health WHERE state='connected'").fetchone() is not None

    def live(self) -> None:
        """Everything until the line is well again and the recording is over."""
        with contextlib.ExitStack() as stack:
            letters = Letters(self.household, self._mailbox())
            stack.callback(letters.close)
            watcher = threading.Thread(target=self._watch)
            stack.callback(watcher.join)
            stack.callback(self._over.set)
            watcher.start()
            self._line.bytes_per_s = LINE
            troubles: list[Callable[[], None]] = [
                lambda: self._refuse("uplink"),
                lambda: self._hold(letters),
                lambda: self._refuse("agent"),
            ]
            ill_s = self.load.span_s - self.load.well_s
            for number in range(int(ill_s / self.load.pause_s)):
                troubles[number % len(troubles)]()
                time.sleep(max((number + 1) * self.load.pause_s - self._passed(), 0))
            self._line.bytes_per_s = 0
            ends_s = self.load.well_s + _ENDS_S
            wait_until(self._has_ended, "the recording has ended", ends_s)
            self.letters = letters.sent
            self.lived_s = self._passed()

    def drain(self) -> float:
        """Seconds until nothing waits any more."""
        began = time.monotonic()
        # What stands at the owner's door is taken after a flush.
        with contextlib.suppress(StageError):
            wait_until(self._is_sealed, "all that was given is sealed", _SEALED_S)
        wait_until(lambda: self._count("batch") == 0, "the spool is empty", _ENDS_S)
        return time.monotonic() - began

    def _is_sealed(self) -> bool:
        ask(self.household.state, "flush")
        flows = ask(self.household.state, "status")["flows"]
        return all(flow["sealed"]["readings"] == self.taken() for flow in flows if flow["sealed"])

    def taken(self) -> int:
        """Readings of the meter."""
        (device,) = ask(self.household.state, "status")["devices"]
        return int(device["samples"]) * ATTRIBUTES

    def cpu_s(self) -> tuple[float, float]:
        """Of collect, of uplink."""
        return _cpu_of(self._pid("agent")), _cpu_of(self._pid("uplink"))

    def _pid(self, name: str) -> int:
        program = self._programs[name]
        if program.poll() is not None:
            raise RuntimeError(f"{name} ended: {self.household.stage.log(name)[-800:]}")
        return program.pid

    def _passed(self) -> float:
        return time.monotonic() - self._began

    def _has_ended(self) -> bool:
        return self.taken() >= self.load.rows * ATTRIBUTES

    def _mailbox(self) -> str:
        with _reading(self._path) as db:
            return str(db.execute("SELECT mailbox FROM target").fetchone()[0])

    def _count(self, table: str) -> int:
        with _reading(self._path) as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _refuse(self, name: str) -> None:
        """The disk refuses a program for some seconds."""
        pid = self._pid(name)
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_SMALLEST, most))
        time.sleep(self.load.held_s * _REFUSED)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))

    def _hold(self, letters: Letters) -> None:
        """Collect stands still while letters come."""
        os.kill(self._pid("agent"), signal.SIGSTOP)
        letters.burst()
        time.sleep(self.load.held_s)
        os.kill(self._pid("agent"), signal.SIGCONT)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            pids = [self._pid("agent"), self._pid("uplink")]
            files = self._path.parent.glob(f"{self._path.name}*")
            collect, uplink = (held_mib([pid], "Rss") for pid in pids)
            self.looks.append(
                Look(
                    at_s=round(self._passed(), 1),
                    rss=(collect, uplink),
                    pss=alone_mib(pids),
                    disk_mb=sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
                    waiting=self._count("batch"),
                    gaps=self._count("gap"),
                    inbox=self._count("inbox"),
                )
            )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        yield db


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
