# SPDX-License-Identifier: Apache-2.0
"""The process dies at any moment: what `put` returned from is there, whole and in order."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.spool import Spool
from agent.spool.queue import Queue
from tests.agent.sealed import sealed

REPO = Path(__file__).resolve().parents[2]
ROUNDS = 20

CHILD = """
import pathlib, sys
from agent.spool import Spool
from assent.messages import StreamAck
from tests.agent.sealed import sealed
path, stream = pathlib.Path(sys.argv[1]), int(sys.argv[2])
spool = Spool.open(path)
assert spool.moved_aside is None
spool.open_lane("service", "maker", stream, None)
print("ready", flush=True)
at = 0
while True:
    count = 1 + at % 3
    spool.put([sealed(at + i, stream=stream, size=50 + (at * 797) % 20_000) for i in range(count)])
    at += count
    print(at, flush=True)
    if at % 7 == 0:
        spool.acknowledge("maker", [StreamAck(stream, at // 2)])
        print("acknowledged", at // 2, flush=True)
"""


def killed_child(path: Path, stream: int, after_s: float) -> list[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(stream)],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    threading.Timer(after_s, child.send_signal, [signal.SIGKILL]).start()
    said = child.stdout.read().splitlines()
    assert child.wait() == -signal.SIGKILL  # the fault struck
    child.stdout.close()
    if said and not said[-1].isdigit() and not said[-1].startswith("acknowledged "):
        said.pop()  # the kill cut the line
    return said


@pytest.mark.journey
def test_twenty_kills_lose_nothing_that_put_returned_from(
    tmp_path: Path, chance: random.Random
) -> None:
    path = tmp_path / "spool.db"
    logs_found = 0
    for stream in range(1, ROUNDS + 1):
        said = killed_child(path, stream, chance.uniform(0.01, 0.2))
        done = max((int(line) for line in said if line.isdigit()), default=0)
        gone = max((int(line.split()[1]) for line in said if " " in line), default=0)
        logs_found += path.with_name("spool.db-wal").stat().st_size > 0
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = dict(
            check.execute(
                "SELECT payload.id & 0xffffffff, data FROM payload JOIN stream"
                " ON stream.number = payload.id >> 32 WHERE stream.id=?",
                (stream,),
            ).fetchall()
        )
        check.close()
        # One put may have been durable without its number having been printed, and one
        # acknowledgement: at most three more, at most the acknowledged ones less.
        assert sorted(rows) == list(range(min(rows, default=0), max(rows, default=-1) + 1))
        assert set(range(max(gone, done // 2), done)) <= rows.keys()
        assert not set(range(gone)) & rows.keys()
        assert max(rows, default=-1) < done + 3
        for sequence, data in rows.items():
            at = next(a for a in range(sequence, max(sequence - 3, -1), -1) if fits(a, sequence))
            assert data == sealed(sequence, stream=stream, size=50 + (at * 797) % 20_000).data
    assert logs_found == ROUNDS  # every kill left a log that had to be read again
    spool = Spool.open(path)
    held = spool.waiting()["service"]
    assert (held.batches, held.readings) == (count_rows(path), 10 * count_rows(path))
    spool.close()


def fits(start: int, sequence: int) -> bool:
    at = 0
    while at < start:
        at += 1 + at % 3
    return at == start and sequence < start + 1 + start % 3


def count_rows(path: Path) -> int:
    db = sqlite3.connect(path)
    count = int(db.execute("SELECT count(*) FROM batch").fetchone()[0])
    db.close()
    return count


def test_a_failure_inside_a_put_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path / "spool.db")
    spool.open_lane("service", "maker", 7, None)
    monkeypatch.setattr("agent.spool.queue._Ticket.settle", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Queue.put(spool, [sealed(0)])
    monkeypatch.undo()
    spool.put([sealed(0)])
    assert spool.waiting()["service"].batches == 1
    spool.close()


def test_two_processes_write_at_once_and_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool.open(path)
    spool.open_lane("service", "maker", 7, None)
    stop = threading.Event()
    noted = 0

    def carry() -> None:
        nonlocal noted
        mine = Spool.open(path, create=False)
        last = False
        while not last:
            last = stop.is_set()
            ids = [lease.id for lease in mine.lease("maker", 400 if last else 10, 1)]
            mine.delivered(ids, 1)
            noted += len(ids)
        mine.close()

    thread = threading.Thread(target=carry)
    thread.start()
    for sequence in range(300):
        spool.put([sealed(sequence)])
    stop.set()
    thread.join()
    assert noted == 300
    assert spool.waiting()["service"].batches == 300
    spool.close()
