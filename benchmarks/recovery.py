# SPDX-License-Identifier: Apache-2.0
"""How long a start takes after a crash, with a full journal and a million batches waiting.

The gateway collects into three flows with batches of 10,000 readings, then a value at a time and a
commit after each, until the journal's live area is full to nineteen twentieths of its bytes: as
many records as there can be, which is the dearest way to fill it. 10^6 batches of 1,000 bytes wait
in the spool, whose log is not checked in; then it is killed. What is measured is the start of
another process on what lies there, from exec until its lanes take readings again, with the files
out of the page cache; each start is killed, too, and the next one finds the same. `parts_ms` says
what the time went to: the interpreter with our modules, the site, the opening of the spool, the
reading of the journal, and the first decision, which takes up what is open. Beside it stands the
start of the same gateway that holds and keeps nothing.

Proof in the same run: the lanes hold every reading that was committed, and no batch is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.journal.areas import AREA
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
from firmware_bridge.sample import Sample

BATCHES = 1_000_000
FLOWS = 3
_BATCH = 10_000
_TAKEN = 2_400  # readings of each flow at first: no batch ends before half of it is there
_FULL = 0.95  # of an area
_PARTS = ("modules", "site", "spool", "journal", "decision")
_SIZE = 1_000
_LOT = 1_000
_ROUNDS = 5
_DAY_MS = 86_400_000


def crash(config: Path, batches: int) -> None:
    """Fills spool and journal, and is killed."""
    settings = load_settings(config)
    clock = Clock(trust="system")
    with instance_lock(settings.state):
        site = open_site(settings, clock)
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
        pipeline.running.keep(clock.now())
        while _filled(pipeline) < _FULL:
            pipeline.deliver([Sample(samples[0].device, clock.now(), ("meter.s0",), (2_300.0,))])
            pipeline.turn(0)
            pipeline.running.keep(clock.now())
        _tell(pipeline)


def recover(config: Path) -> None:
    """Starts on what lies there, tells what it found, and is killed again."""
    at_s = [_born_s(), time.monotonic()]
    settings = load_settings(config)
    clock = Clock(trust="system")
    with instance_lock(settings.state):
        site = open_site(settings, clock)
        at_s.append(time.monotonic())
        spool = Spool.open(settings.state / SPOOL)
        at_s.append(time.monotonic())
        pipeline = Pipeline(site, spool, clock)
        at_s.append(time.monotonic())
        pipeline.start()
        at_s.append(time.monotonic())
        parts = [round((end - begin) * 1e3) for begin, end in itertools.pairwise(at_s)]
        _tell(pipeline, dict(zip(_PARTS, parts, strict=True)))


def _born_s() -> float:
    """When this process began, by the clock of time.monotonic."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


def _filled(pipeline: Pipeline) -> float:
    """How much of its live area the journal has written."""
    areas = pipeline.running.keeping._journal._areas  # noqa: SLF001 - nothing else knows
    return areas._end / AREA if areas.may_append else 0.0  # noqa: SLF001 - as above


def _tell(pipeline: Pipeline, parts_ms: Mapping[str, int] = MappingProxyType({})) -> None:
    """What is open, and what waits; the last that this process does."""
    told = {
        "parts_ms": dict(parts_ms),
        "filled": _filled(pipeline),
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


def one_start(household: Household) -> dict[str, Any]:
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
    found: dict[str, Any] = json.loads(line)
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
            left: dict[str, Any] = json.loads(done.stdout)
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
                "journal_filled": round(left["filled"], 3) if name == "full" else 0,
                "parts_ms": {
                    part: round(statistics.median(one["parts_ms"][part] for one in runs))
                    for part in _PARTS
                },
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
