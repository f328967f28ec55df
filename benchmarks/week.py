# SPDX-License-Identifier: Apache-2.0
"""A week without the uplink at 10 readings a second, and how it is made good.

The real path (gate, lanes, seal, spool with its quota) under a simulated clock: two meters with ten
series together, read every second into three flows, seven days of it. Nobody is reached meanwhile.
Then the uplink comes back, the clock runs at its real pace, and a real broker and backend take what
waits, over TLS, until the spool is empty.

Two forms: batches of ten minutes, of which a week fits into the default quota of 64 MB, and batches
of 25 seconds, of which it does not.

Proof in the same run, at the backend: of each flow every reading that was taken in is stored once,
or its instant lies in a declared gap; the gaps count exactly as many as are not there; no sequence
number is missing outside of them. The disk is looked at every simulated hour.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from agent.uplink import Uplink
from assent.header import Gap, GapCause
from benchmarks.day import DayClock
from benchmarks.path import ATTRIBUTES, policy_of
from benchmarks.report import Figure, write
from demo.stage import REPO, Stage
from firmware_bridge.sample import Device, Instant, Sample

WEEK_S = 7 * 86_400
QUOTA = "64 MB"
FLOWS = 3
# Readings in a batch → name of the form. The larger one closes by its age.
FORMS = {10_000: "ten_minutes", 250: "25_seconds"}
SERIES = (ATTRIBUTES, 2)
"""Of each meter. Instants leave in whole seconds, so that a reading has one of its own."""
PER_SECOND = sum(SERIES)
_LOOK_S = 60  # simulated seconds between two deliveries
_DISK_S = 3_600
_TURN_S = 0.02
# Free pages, the log of what left and the write-ahead log: what a spool is besides its batches.
SMALL_MB = 12.0
_PATIENCE_S = 1_800.0


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """One run.

    Attributes:
        seconds: simulated, without the uplink.
        batch: readings in a batch.
        quota: of the spool, as in agent.toml.
    """

    seconds: int
    batch: int
    quota: str


class SpanClock(DayClock):
    """Moved by the benchmark while nobody is reached, by itself from then on."""

    _since: float | None = None

    def go_on(self) -> None:
        """Runs at its real pace from now on."""
        self._since = time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether it runs by itself."""
        return self._since is not None

    def now(self) -> Instant:
        """The simulated moment."""
        passed = 0 if self._since is None else int((time.monotonic() - self._since) * 1000)
        return Instant(self.at_ms + passed, self.at_ms + passed, trusted=True)


def samples(start_ms: int, seconds: int) -> Iterator[list[Sample]]:
    """Meters whose series wander, a minute at a time; deterministic."""
    meters = [
        (Device(f"bench{number}", "meter"), tuple(f"meter.s{index}" for index in range(count)))
        for number, count in enumerate(SERIES)
    ]
    state = 12_345
    values = [[2_300.0 + 100 * index for index in range(count)] for count in SERIES]
    part: list[Sample] = []
    for second in range(seconds):
        at = Instant(start_ms + second * 1000, start_ms + second * 1000, trusted=True)
        for (device, names), mine in zip(meters, values, strict=True):
            for index in range(len(mine)):
                state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                mine[index] += ((state >> 16) % 7 - 3) * 0.1
            part.append(Sample(device, at, names, tuple(mine)))
        if len(part) == _LOOK_S * len(meters):
            yield part
            part = []
    if part:
        yield part


def live_through(config: Path, seconds: int) -> dict[str, Any]:
    """The gateway's part, in a process of its own: offline, then drained."""
    settings = load_settings(config)
    clock = SpanClock(time.time_ns() // 1_000_000)
    start_ms = clock.at_ms = _next_second(clock.at_ms)  # not before the yes
    path = settings.state / SPOOL
    with instance_lock(settings.state), contextlib.ExitStack() as stack:
        site = open_site(settings, clock)
        spool = stack.enter_context(contextlib.closing(Spool.open(path)))
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        disk = [_on_disk(path)]
        began_s = time.monotonic()
        for number, part in enumerate(samples(start_ms, seconds)):
            clock.at_ms = part[-1].at.wall_ms
            pipeline.deliver(part)
            pipeline.turn(0)
            if number % (_DISK_S // _LOOK_S) == 0:
                disk.append(_on_disk(path))
        pipeline.flush()
        pipeline.turn(0)
        offline_s = time.monotonic() - began_s
        waiting = {flow: (one.batches, one.readings) for flow, one in spool.waiting().items()}
        disk.append(_on_disk(path))
        peak_mib = _peak_mib()
        drained_s, later_ms = _drain(pipeline, clock, path)
        pipeline.stop()
        left = sum(one.batches for one in spool.waiting().values())
    return {
        "start_ms": start_ms,
        "later_ms": later_ms,
        "offline_s": offline_s,
        "waiting": waiting,
        "most_mb": max(disk) / 1e6,
        "drained_s": drained_s,
        "left": left,
        "end_mb": _on_disk(path) / 1e6,
        "peak_mib": [peak_mib, _peak_mib()],
    }


def _drain(pipeline: Pipeline, clock: SpanClock, path: Path) -> tuple[float, int]:
    """Seconds until all that waited was stored; when the minute began that declares the gaps."""
    clock.go_on()
    stop = threading.Event()
    uplink = Uplink(
        path, voucher=None, wall_ms=lambda: clock.now().wall_ms, boot_ms=lambda: clock.now().mono_ms
    )
    thread = threading.Thread(target=uplink.run, args=(stop,))
    thread.start()
    try:
        began = time.monotonic()
        _turn_until_empty(pipeline)
        took = time.monotonic() - began
        # What waited was sealed before anybody could be told of a gap: the next batches tell.
        later_ms = _next_second(clock.now().wall_ms)
        (part,) = samples(later_ms, _LOOK_S)
        pipeline.deliver(part)
        pipeline.turn(0)
        pipeline.flush()
        _turn_until_empty(pipeline)
    finally:
        stop.set()
        uplink.wake()
        thread.join()
    return took, later_ms


def _turn_until_empty(pipeline: Pipeline) -> None:
    end = time.monotonic() + _PATIENCE_S
    while any(one.batches for one in pipeline.spool.waiting().values()):
        if time.monotonic() > end:
            raise RuntimeError(f"after {_PATIENCE_S:.0f} s batches still wait")
        pipeline.turn(_TURN_S)


def _next_second(at_ms: int) -> int:
    return (at_ms // 1000 + 1) * 1000


def _on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.is_file())


def _peak_mib() -> float:
    """The most this program held; getrusage(2) would count what its parent held before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """What became of the readings of one flow.

    Attributes:
        taken: how many came in.
        stored: how many the backend has.
        declared: how many its gaps count, less those of batches that came all the same: the quota
            may drop what is on its way (what is stored is not missing, whatever a gap says).
        gaps: how many gaps there are.
        causes: why, by their names.
    """

    taken: int
    stored: int
    declared: int
    gaps: int
    causes: tuple[str, ...]


def account(directory: Path, flow: str, instants: list[int]) -> Account:
    """Holds what a backend stored of a flow against what was taken in.

    Args:
        directory: the backend's.
        flow: id of the flow.
        instants: at which readings were taken, in ms; ten at each.

    Raises:
        RuntimeError: something is missing without a gap, is there twice, or was never taken in.
    """
    query = "SELECT time_ms, count(*), max(again) FROM data WHERE flow=? GROUP BY time_ms"
    stored = {at: (count, again) for at, count, again in rows(directory / "store.db", query, flow)}
    counts = [count for count, _ in stored.values()]
    if any(again for _, again in stored.values()) or max(counts) > PER_SECOND:
        raise RuntimeError(f"{flow}: something is there twice")
    if stored.keys() - set(instants):
        raise RuntimeError(f"{flow}: something is there that was never taken in")
    gaps, numbers = declared(directory, flow)
    # Batches may end within a sample.
    missing = [at for at in instants if stored.get(at, (0, 0))[0] < PER_SECOND]
    if any(not any(gap.first_ms <= at <= gap.last_ms for gap in gaps) for at in missing):
        raise RuntimeError(f"{flow}: something is missing outside of the declared gaps")
    both = came_too(directory, flow, gaps)
    for gap in gaps:
        numbers[gap.stream] |= set(range(gap.begin, gap.end))
    if any(found != set(range(len(found))) for found in numbers.values()):
        raise RuntimeError(f"{flow}: a number is missing that no gap names")
    found = Account(
        taken=len(instants) * PER_SECOND,
        stored=sum(counts),
        declared=sum(gap.readings for gap in gaps) - both,
        gaps=len(gaps),
        causes=tuple(sorted({gap.cause.name for gap in gaps})),
    )
    if found.taken != found.stored + found.declared:
        raise RuntimeError(f"{flow}: the sums differ: {found}")
    return found


def declared(directory: Path, flow: str) -> tuple[list[Gap], dict[int, set[int]]]:
    """The gaps of a flow, each once, and the numbers that came of each of its streams."""
    gaps: dict[int, Gap] = {}
    numbers: dict[int, set[int]] = {}
    query = "SELECT stream, sequence, gaps FROM custody WHERE flow=?"
    for stream, sequence, told in rows(directory / "custody.db", query, flow):
        numbers.setdefault(int.from_bytes(stream), set()).add(sequence)
        for key, where, cause, first_ms, last_ms, readings, begin, end in json.loads(told):
            if cause != GapCause.ENDED:
                gaps[key] = Gap(
                    key, where, GapCause(cause), first_ms, last_ms, readings, begin, end
                )
    return list(gaps.values()), numbers


def came_too(directory: Path, flow: str, gaps: list[Gap]) -> int:
    """Readings of the batches that came and that a gap names all the same."""
    named = {(gap.stream, number) for gap in gaps for number in range(gap.begin, gap.end)}
    query = "SELECT stream, sequence, readings FROM custody WHERE flow=?"
    return sum(
        readings
        for stream, sequence, readings in rows(directory / "custody.db", query, flow)
        if (int.from_bytes(stream), sequence) in named
    )


def rows(path: Path, query: str, flow: str) -> list[tuple[Any, ...]]:
    """What a file of a backend answers about a flow."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(query, (flow,)).fetchall()


def run(stage: Stage, span: Span) -> tuple[dict[str, Any], list[Account]]:
    """One span on a fresh stage, drained to its backend.

    Args:
        stage: with recipients; everything else is made here.
        span: what is to be lived through.

    Returns:
        What the gateway saw, and what became of each flow.
    """
    bundle = stage.publish(lambda text: policy_of(text, span.batch, FLOWS))
    stage.make_gateway("")
    stage.enrol(bundle)
    flows = [f"diagnosis{index}" for index in range(FLOWS)]
    stage.decide(dict.fromkeys(flows, '"given"'))
    settings = stage.gateway / "agent.toml"
    settings.write_text(settings.read_text().replace(f'"{QUOTA}"', f'"{span.quota}"'))
    stage.start_broker("maker")
    stage.start_backend("maker")
    words = [sys.executable, "-m", "benchmarks.week", "--gateway", str(stage.gateway)]
    done = subprocess.run(
        [*words, "--seconds", str(span.seconds)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    stage.end("backend-maker")
    instants = [seen["start_ms"] + at for at in range(0, span.seconds * 1000, 1000)]
    instants += [seen["later_ms"] + at for at in range(0, _LOOK_S * 1000, 1000)]
    directory = stage.backend_directory("maker")
    return seen, [account(directory, flow, instants) for flow in flows]


def measure(seconds: int) -> list[Figure]:
    """Both forms."""
    figures = []
    for batch, name in FORMS.items():
        with tempfile.TemporaryDirectory() as place:
            stage = Stage(Path(place) / "stage", classical=batch < 1_000)
            try:
                stage.make_recipients()
                seen, accounts = run(stage, Span(seconds, batch, QUOTA))
            finally:
                stage.close()
        figures += _figures(name, seconds, seen, accounts)
    return figures


def _figures(
    name: str, seconds: int, seen: dict[str, Any], accounts: list[Account]
) -> list[Figure]:
    most_mb = float(QUOTA.removesuffix(" MB")) + SMALL_MB
    batches = sum(batches for batches, _ in seen["waiting"].values())
    return [
        Figure(
            name=f"week.most_on_disk_mb.{name}",
            value=round(seen["most_mb"], 1),
            unit="MB",
            target=f"<= {most_mb:.0f}",
            holds=seen["most_mb"] <= most_mb,
            detail={
                "days": round(seconds / 86_400, 2),
                "quota": QUOTA,
                "batches_waiting": batches,
                "offline_took_s": round(seen["offline_s"]),
                "peak_rss_mib": [round(mib, 1) for mib in seen["peak_mib"]],
            },
        ),
        Figure(
            name=f"week.undeclared_readings.{name}",
            value=sum(one.taken - one.stored - one.declared for one in accounts),
            unit="readings",
            target="== 0",
            holds=True,
            detail={
                "taken": sum(one.taken for one in accounts),
                "stored": sum(one.stored for one in accounts),
                "in_declared_gaps": sum(one.declared for one in accounts),
                "gaps": sum(one.gaps for one in accounts),
                "causes": sorted({cause for one in accounts for cause in one.causes}),
                "twice": 0,
            },
        ),
        Figure(
            name=f"week.left_on_disk_mb.{name}",
            value=round(seen["end_mb"], 1),
            unit="MB",
            target=f"<= {SMALL_MB:.0f}",
            holds=seen["left"] == 0 and seen["end_mb"] <= SMALL_MB,
            detail={
                "batches_left": seen["left"],
                "drained_in_s": round(seen["drained_s"]),
                "batches_per_second": round(batches / max(seen["drained_s"], 0.001)),
            },
        ),
    ]


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=WEEK_S, help="simulated, without the uplink")
    arguments = parser.parse_args()
    if arguments.gateway:
        print(json.dumps(live_through(arguments.gateway, arguments.seconds)))
        return 0
    figures = measure(arguments.seconds)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
