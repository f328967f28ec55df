# SPDX-License-Identifier: Apache-2.0
"""The power of a backend goes, again and again: what it acknowledged is stored, once.

A real broker, the real program on a disk of its own (`tests.simulators.lossy`), and a gateway that
sends again whatever it was not told of. The seed is printed; `SEED` in the environment sets it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.cosekey import SealPublicKey
from tests.backend.parts import START_MS, power
from tests.backend.post import PATIENCE_S, Post, broker_for, posting, public_key
from tests.faults.power import Fault
from tests.simulators import lossy
from tests.simulators.orders import Order
from tests.simulators.unsynced import Loss

pytestmark = pytest.mark.journey

EVERY_MS = 100_000
"""From the first instant of a batch to that of the next: a row tells its batch."""
ROWS = 3
BURSTS = 3

RUN = "import sys\nfrom assent.backend import cli\nsys.exit(cli.main(sys.argv[1:]))\n"
BELIEVES_THE_DISK = """
    from assent.backend import store

    def connect(path, real=store.connect):
        connection = real(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    store.connect = connect
"""
ACKNOWLEDGES_EARLY = """
    from assent.backend import acknowledge, subscriber as s
    from assent.backend.store.positions import Position

    acknowledge.INTERVAL_S = 0.0
    known = {}

    def commit(self, real=s.Subscriber._commit):
        for message in self._group:
            outcome = s.judge(message.topic, message.data, self._desk)
            known[0] = known.get(0, Position()).having(outcome.header.sequence)
            self._acknowledger.note([s.Settled(s.Verdict.STORED, outcome)])
        self._send()
        later = []
        for _ in range(5):  # so that it goes out
            later += self._connection.step(0.005)
        real(self)
        self._group += later

    s.Store.rest = lambda self: None  # each further sync is one of a batch
    s.Subscriber._commit = commit
    s.Subscriber._position = lambda *_: known.get(0, Position())
"""


def cuts(rng: random.Random) -> list[Fault]:
    """In each file and its log: while it starts, while it stores, and while it ends."""
    found = [
        Fault("backend readings log", "write", rng.randint(4, 24), "drop"),
        Fault("backend readings log", "fsync", rng.randint(2, 6), "torn"),
        Fault("backend custody log", "write", rng.randint(4, 24), "drop"),
        Fault("backend custody log", "fsync", rng.randint(2, 5), "reorder"),
        Fault("backend readings", "write", rng.randint(1, 2), "drop"),
        Fault("backend custody", "fsync", 1, "reorder"),
    ]
    rng.shuffle(found)
    return found


class _GoneError(Exception):
    """The program has ended."""


@dataclasses.dataclass
class Ingest:
    """A backend on a disk of its own, and the gateway that sends to it.

    Attributes:
        batches: what the gateway has made, by number.
        told: the numbers that were acknowledged.
        sent: how often each was sent.
        missing: numbers that were acknowledged and not stored, after any life.
    """

    disk: lossy.Disk
    port: int
    post: Post
    key: SealPublicKey
    scratch: Path
    batches: dict[int, bytes] = dataclasses.field(default_factory=dict)
    told: set[int] = dataclasses.field(default_factory=set)
    sent: Counter[int] = dataclasses.field(default_factory=Counter)
    missing: set[int] = dataclasses.field(default_factory=set)

    def life(self, rng: random.Random, cut: Fault | None = None, mutant: str = "") -> Loss:
        """One life, and what the cut at its end took of the store.

        Args:
            rng: chance.
            cut: where the power goes; None to let it end politely.
            mutant: what is changed in the program beforehand.
        """
        self.disk.order(Order("") if cut is None else cut.order(rng.randrange(1 << 30)))
        with self._running(mutant) as program:
            with contextlib.suppress(_GoneError):
                self._sends(program, rng)
                program.send_signal(signal.SIGTERM)  # it writes its logs into their files
            code = program.wait(PATIENCE_S)
        lost = self.disk.told().lost
        assert code == (-signal.SIGKILL if cut else 0), (cut, self._said())
        self.disk.order(Order(""))  # it is on again
        self._hear()
        self.missing |= self.told - self.stored()
        found = Loss()
        for path, loss in lost.items():
            found = found if path.endswith("-shm") else found.plus(loss)
        return found

    def stored(self) -> set[int]:
        """The batches that are there, whole and once, as the next start finds them."""
        copy = self.scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self.disk.place.glob("*.db*"):
            if not path.name.endswith("-shm"):  # a memory that does not outlive the power
                shutil.copy(path, copy)
        Store(copy).close()
        with contextlib.closing(sqlite3.connect(copy / "store.db")) as db:
            db.execute("ATTACH ? AS other", (str(copy / "custody.db"),))
            for name in ("main", "other"):
                assert db.execute(f"PRAGMA {name}.integrity_check").fetchone() == ("ok",)
            rows = Counter(db.execute("SELECT time_ms, number FROM reading").fetchall())
            known = {number for (number,) in db.execute("SELECT sequence FROM custody")}
        assert rows == Counter(row for number in known for row in _rows(number))
        return known

    @contextlib.contextmanager
    def _running(self, mutant: str) -> Iterator[subprocess.Popen[bytes]]:
        url = f"mqtts://localhost:{self.port}"
        code = textwrap.dedent(mutant) + RUN
        words = [sys.executable, "-c", code, "run", str(self.disk.place), "--broker", url]
        with (self.scratch / "log").open("wb") as log:
            program = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield program
        finally:
            program.kill()
            program.wait()

    def _said(self) -> str:
        return (self.scratch / "log").read_text()

    def _sends(self, program: subprocess.Popen[bytes], rng: random.Random) -> None:
        self._waits(program, lambda: "event=subscribed" in self._said())
        for number in sorted(self.batches.keys() - self.told):
            self._send(number)
        for _ in range(BURSTS):
            first = len(self.batches)
            for number in range(first, first + rng.randint(1, 4)):
                tables = power(ROWS, first_ms=START_MS + number * EVERY_MS)
                self.batches[number] = self.post.hand.batch(self.key, tables, sequence=number)
                self._send(number)
            self._waits(program, lambda: self.batches.keys() == self.told)

    def _send(self, number: int) -> None:
        self.sent[number] += 1
        self.post.send(self.batches[number])

    def _waits(self, program: subprocess.Popen[bytes], claim: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not claim():
            if program.poll() is not None:
                raise _GoneError
            assert time.monotonic() < end, self._said()
            time.sleep(0.005)
            self._hear()

    def _hear(self) -> None:
        while True:
            try:
                data = self.post.inbox.get_nowait()
            except queue.Empty:
                return
            for ack in self.post.opened(data):
                self.told.update(range(ack.watermark))
                for first, last in ack.ranges:
                    self.told.update(range(first, last + 1))


def _rows(number: int) -> Iterator[tuple[int, float]]:
    """What is to be stored of a batch."""
    for at in range(ROWS):
        yield START_MS + number * EVERY_MS + at * 1_000, (1_000 + at) / 10


@pytest.fixture
def ingest(tmp_path: Path, sites: dict[str, Directory]) -> Iterator[Ingest]:
    if (why := lossy.refusal()) is not None:
        pytest.skip(why)
    maker, scratch = sites["maker"], tmp_path / "scratch"
    scratch.mkdir()
    with (
        lossy.mounted(maker.root) as disk,
        broker_for(maker, tmp_path) as broker,
        posting(maker, broker.port, tmp_path) as post,
    ):
        yield Ingest(disk, broker.port, post, public_key(maker), scratch)


def test_what_was_acknowledged_outlives_every_power_cut(
    ingest: Ingest, chance: random.Random
) -> None:
    planned = cuts(chance)
    losses = [ingest.life(chance, cut) for cut in planned]
    print(*zip(planned, losses, strict=True), sep="\n")
    assert all(loss.lost for loss in losses)  # each of them struck
    assert ingest.missing == set()
    assert ingest.life(chance).lost == 0
    assert ingest.stored() == ingest.told == ingest.batches.keys()
    assert max(ingest.sent.values()) > 1  # what was not acknowledged came again
    with contextlib.closing(sqlite3.connect(ingest.scratch / "copy" / "custody.db")) as db:
        assert db.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
        assert db.execute("SELECT watermark, ranges FROM streams").fetchall() == [
            (len(ingest.batches), "[]")
        ]
        assert db.execute("SELECT count FROM counters WHERE name = 'duplicate'").fetchone() > (0,)


@pytest.mark.parametrize(
    ("mutant", "cut"),
    [
        (BELIEVES_THE_DISK, Fault("backend custody log", "write", 24, "drop")),
        (ACKNOWLEDGES_EARLY, Fault("backend custody log", "fsync", 4, "drop")),
    ],
    ids=["it syncs nothing", "it acknowledges before it stores"],
)
def test_the_twin_loses_what_it_acknowledged(
    ingest: Ingest, chance: random.Random, mutant: str, cut: Fault
) -> None:
    assert ingest.life(chance, cut, mutant).lost
    assert ingest.missing
