# SPDX-License-Identifier: Apache-2.0
"""How long a start takes after a crash, with a full journal and a million batches waiting.

The gateway collects into three flows with batches of 10,000 readings until they hold some 15,000
together that are committed to the journal and in no batch; 10^6 batches of 1,000 bytes wait in the
spool, whose log is not checked in; then it is killed. What is measured is the start of another
process on what lies there, from exec until its lanes take readings again, with the files out of the
page cache; each start is killed, too, and the next one finds the same. Beside it stands the start
of the same gateway that holds and keeps nothing.

Proof in the same run: the lanes hold every reading that was committed, and no batch is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.lock import instance_lock
from agent.path import Sealed
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import JOURNAL, SPOOL, open_site
from agent.spool import Spool
from benchmarks.household import QUOTA, Household, keep_compiled
from benchmarks.path import samples_from
from benchmarks.report import Figure, write
from benchmarks.spool import forget_pages
from demo.stage import REPO
from firmware_bridge.clock import Clock

BATCHES = 1_000_000
FLOWS = 3
_BATCH = 10_000
_TAKEN = 14_000  # readings of each flow; the first batch of a lane closes at a number of its own
_SIZE = 1_000
_LOT = 1_000
_ROUNDS = 5
_DAY_MS = 86_400_000


def crash(config: Path, batches: int) -> None:
    """Fills spool and journal, and is killed."""
    settings = load_settings(config)
    clock = Clock(trust="system")
    with instance_lock(settings.state):
        site = open_site(settings, clock.now())
        spool = Spool.open(settings.state / SPOOL)
        first = Pipeline(site, spool, clock)
        first.start()
        _put(spool, batches, clock.now().wall_ms)
        first.stop()
        pipeline = Pipeline(site, spool, clock)  # in streams of its own
        pipeline.start()
        for samples in samples_from(clock.now().wall_ms, _TAKEN):
            pipeline.deliver(samples)
            pipeline.turn(0)
        end_ms = clock.now().mono_ms + 2 * settings.commit_ms
        while clock.now().mono_ms < end_ms:
            pipeline.turn(0.05)
        _tell(pipeline)


def recover(config: Path) -> None:
    """Starts on what lies there, tells what it found, and is killed again."""
    settings = load_settings(config)
    clock = Clock(trust="system")
    with instance_lock(settings.state):
        site = open_site(settings, clock.now())
        spool = Spool.open(settings.state / SPOOL)
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        _tell(pipeline)


def _tell(pipeline: Pipeline) -> None:
    """What is open, and what waits; the last that this process does."""
    told = {
        "cpu_ms": time.process_time() * 1e3,
        "readings": sum(lane.readings for lane in pipeline.running.lanes().values()),
        "batches": sum(one.batches for one in pipeline.spool.waiting().values()),
    }
    print(json.dumps(told), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _put(spool: Spool, batches: int, now_ms: int) -> None:
    """Lets batches wait in the streams that are open now; nobody will ever open them."""
    chance = random.Random(1)
    lanes = list(spool.lanes().values())
    given = dict.fromkeys((lane.flow for lane in lanes), 0)
    for start in range(0, batches, _LOT):
        part = []
        for number in range(start, min(batches, start + _LOT)):
            lane = lanes[number % len(lanes)]
            data = chance.randbytes(_SIZE)
            part.append(
                Sealed(
                    flow=lane.flow,
                    recipient=lane.recipient,
                    stream=lane.stream or 0,
                    sequence=given[lane.flow],
                    data=data,
                    digest=hashlib.sha256(data).digest(),
                    readings=100,
                    first_ms=now_ms,
                    last_ms=now_ms,
                    expires_ms=now_ms + 7 * _DAY_MS,
                )
            )
            given[lane.flow] += 1
        spool.put(part)


def one_start(household: Household) -> dict[str, float]:
    """A start of a process of its own: what it found, and the milliseconds until it had."""
    for name in (SPOOL, JOURNAL):
        if (household.state / name).exists():
            forget_pages(household.state / name)
    words = [sys.executable, "-m", "benchmarks.recovery", "--recover", str(household.stage.gateway)]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=REPO) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        took = (time.monotonic() - began) * 1e3
    if program.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the start ended with {program.returncode}")
    found: dict[str, float] = json.loads(line)
    return found | {"ms": took}


def measure(batches: int, rounds: int = _ROUNDS) -> list[Figure]:
    """Starts on nothing, then on everything."""
    with tempfile.TemporaryDirectory() as place:
        keep_compiled(Path(place))
        household = Household(Path(place), batch=_BATCH, flows=FLOWS, classical=True)
        household.devices(speed=None)
        settings = household.stage.gateway / "agent.toml"
        settings.write_text(settings.read_text().replace(f'"{QUOTA}"', '"10 GB"'))
        try:
            empty = [one_start(household) for _ in range(rounds + 1)][1:]
            words = [sys.executable, "-m", "benchmarks.recovery", "--crash"]
            words += [str(household.stage.gateway), "--batches", str(batches)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPO)
            if done.returncode != -signal.SIGKILL:
                raise RuntimeError(done.stderr)
            left: dict[str, float] = json.loads(done.stdout)
            full = [one_start(household) for _ in range(rounds)]
            size = (household.state / SPOOL).stat().st_size
        finally:
            household.stage.close()
    for found in full:
        if any(found[what] != left[what] for what in ("readings", "batches")):
            raise RuntimeError(f"a start found {found} where {left} was left")
    return [
        Figure(
            name=f"recovery.start_ms.{name}",
            value=round(statistics.median(one["ms"] for one in runs)),
            unit="ms",
            detail={
                "runs": [round(one["ms"]) for one in runs],
                "cpu_ms": round(statistics.median(one["cpu_ms"] for one in runs)),
                "batches_waiting": runs[0]["batches"],
                "readings_taken_up": runs[0]["readings"],
                "spool_mb": round(size / 1e6) if name == "full" else 0,
            },
        )
        for name, runs in (("empty", empty), ("full", full))
    ]


def main() -> int:
    """Prints the figures and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crash", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--recover", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, default=BATCHES)
    arguments = parser.parse_args()
    if arguments.crash:
        crash(arguments.crash, arguments.batches)
    if arguments.recover:
        recover(arguments.recover)
    write(measure(arguments.batches))
    return 0


if __name__ == "__main__":
    sys.exit(main())
