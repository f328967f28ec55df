# SPDX-License-Identifier: Apache-2.0
"""Readings per CPU second over the whole path: from samples to stored and acknowledged.

CPU is user and system time of the gateway's process (owner and uplink threads, TLS, spool on the
disk), from the first sample handed over until the spool is empty, which it is once the backend has
stored everything and said so. The backend's CPU stands beside it. Each round is a fresh household;
the number that is stored is compared with the number that was sent.

The ratio to a calibration loop (bare Python, run in the same process just before) carries over to
other machines better than the figure itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from agent.uplink import Uplink
from benchmarks.report import Figure, write
from demo.stage import Stage
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Device, Instant, Sample

ATTRIBUTES = 8
_LIST = 250  # samples in one delivery: what one read of a busy source gives
_SPACING_MS = 10
_ROUNDS = 5
_STEP_S = 0.005
# name -> (batch size, flows, readings offered, target in readings per CPU second)
CASES = {
    "100x1": (100, 1, 60_000, None),
    "1000x1": (1_000, 1, 400_000, 450_000),
    "10000x1": (10_000, 1, 1_000_000, 700_000),
    "1000x3": (1_000, 3, 200_000, None),
}


def policy_of(text: str, batch: int, flows: int) -> str:
    """The example policy's head and recipients with a dictionary and flows for the benchmark."""
    head = text[: text.index("# The data dictionary")]
    names = [f"meter.s{index}" for index in range(ATTRIBUTES)]
    dictionary = "\n".join(
        f'[attributes."{name}"]\nkind = "sensor"\ntype = "number"\nunit = "W"\nquantum = 0.1\n'
        f'about = "Series of the benchmark."\nowner = "bench"\nreview = 2030-01-01\n'
        for name in names
    )
    carried = ", ".join(f'"{name}" = "keep"' for name in names)
    lanes = "\n".join(
        f'[flows.diagnosis{index}]\nfunction = "optional"\npurpose = "fault-diagnosis-{index}"\n'
        f'notice = {{ en = "Benchmark flow number {index}." }}\nbasis = "consent"\n'
        f'recipient = "maker"\nattributes = {{ {carried} }}\n'
        'keep = { gateway = "7d", recipient = "90d", then = "delete" }\n'
        f'batch = {{ readings = {batch}, age = "10m" }}\n'
        for index in range(flows)
    )
    return f"{head}\n{dictionary}\n{lanes}"


def samples_from(start_ms: int, readings: int) -> list[list[Sample]]:
    """A meter with eight series that wander like a household's load; deterministic."""
    device = Device("bench", "meter")
    names = tuple(f"meter.s{index}" for index in range(ATTRIBUTES))
    state = 12_345
    values = [2_300.0 + 100 * index for index in range(ATTRIBUTES)]
    samples = []
    for number in range(readings // ATTRIBUTES):
        for index in range(ATTRIBUTES):
            state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            values[index] += ((state >> 16) % 7 - 3) * 0.1
        at = Instant(start_ms + number * _SPACING_MS, number * _SPACING_MS, trusted=True)
        samples.append(Sample(device, at, names, tuple(values)))
    return [samples[first : first + _LIST] for first in range(0, len(samples), _LIST)]


def calibration() -> float:
    """CPU seconds of a fixed loop of bare Python."""
    began = time.process_time()
    total = 0
    for number in range(2_000_000):
        total += number & 7
    return time.process_time() - began


def carry(config: Path, readings: int) -> dict[str, float]:
    """The gateway's part, in a process of its own: everything it spends is its own."""
    settings = load_settings(config)
    calibrated = calibration()
    clock = Clock(trust="system")
    with instance_lock(settings.state), contextlib.ExitStack() as stack:
        site = open_site(settings, clock)
        spool = stack.enter_context(contextlib.closing(Spool.open(settings.state / SPOOL)))
        pipeline = Pipeline(site, spool, clock)
        stop = threading.Event()
        uplink = threading.Thread(
            target=Uplink(settings.state / SPOOL, voucher=None).run, args=(stop,)
        )
        pipeline.start()
        uplink.start()
        lists = samples_from(clock.now().wall_ms, readings)

        expected = readings * len(pipeline.running.lanes())

        def taken() -> int:
            waiting = sum(lane.readings for lane in pipeline.running.lanes().values())
            return waiting + sum(tally.readings for tally in pipeline.running.tallies.values())

        def feed() -> None:
            for samples in lists:
                pipeline.deliver(samples)
            while taken() < expected:  # an act is heard before what still stands at the door
                time.sleep(_STEP_S)
            pipeline.act(pipeline.flush)
            pipeline.act(done.set)

        done = threading.Event()
        feeder = threading.Thread(target=feed)
        began, began_s = time.process_time(), time.monotonic()
        feeder.start()
        while not done.is_set() or any(one.batches for one in spool.waiting().values()):
            pipeline.turn(0.02)
        spent = time.process_time() - began
        took = time.monotonic() - began_s
        pipeline.stop()
        stop.set()
        uplink.join()
        tallies = pipeline.running.tallies.values()
        return {
            "cpu_s": spent,
            "wall_s": took,
            "sealed": sum(tally.readings for tally in tallies),
            "bytes": sum(tally.bytes for tally in tallies),
            "calibration_s": calibrated,
        }


def one_round(case: str) -> dict[str, float]:
    """A fresh household, broker and backend; one run of the gateway; what was stored."""
    batch, flows, readings, _ = CASES[case]
    with tempfile.TemporaryDirectory() as place:
        stage = Stage(Path(place) / "stage", classical=batch < 10_000)
        try:
            stage.make_recipients()
            bundle = stage.publish(lambda text: policy_of(text, batch, flows))
            stage.make_gateway("")
            stage.enrol(bundle)
            stage.decide({f"diagnosis{index}": '"given"' for index in range(flows)})
            stage.start_broker("maker")
            stage.start_backend("maker")
            words = [sys.executable, "-m", "benchmarks.path", "--gateway", str(stage.gateway)]
            words += ["--readings", str(readings)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode:
                raise RuntimeError(done.stderr)
            figures: dict[str, float] = json.loads(done.stdout)
            backend_s = _cpu_of(stage.programs["backend-maker"].pid)
            stored = sum(row["readings"] for row in stage.show("maker", "flows"))
        finally:
            stage.close()
    expected = readings * flows
    if stored != expected:
        raise RuntimeError(f"{stored} readings were stored, {expected} were sent")
    return figures | {"stored": stored, "backend_cpu_s": backend_s}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int = _ROUNDS) -> list[Figure]:
    """Every case, the median of some rounds."""
    figures = []
    for case, (batch, flows, readings, target) in CASES.items():
        runs = [one_round(case) for _ in range(rounds)]
        # Readings that came in at the front, whatever the number of flows they go to.
        rates = [readings / run["cpu_s"] for run in runs]
        middle = statistics.median(rates)
        figures.append(
            Figure(
                name=f"path.readings_per_cpu_second.{case}",
                value=round(middle),
                unit="readings/s",
                target=f">= {target}" if target else None,
                holds=middle >= target if target else None,
                detail={
                    "batch": batch,
                    "flows": flows,
                    "readings": readings,
                    "stored": runs[0]["stored"],
                    "runs": [round(rate) for rate in rates],
                    "seal": "classical" if batch < 10_000 else "hybrid",
                    "bytes_per_stored_reading": round(runs[0]["bytes"] / runs[0]["stored"], 3),
                    "backend_us_per_reading": round(
                        statistics.median(run["backend_cpu_s"] for run in runs)
                        / runs[0]["stored"]
                        * 1e6,
                        2,
                    ),
                    "calibration_loops_per_million_readings": round(
                        statistics.median(
                            run["cpu_s"] / readings * 1e6 / run["calibration_s"] for run in runs
                        ),
                        2,
                    ),
                },
            )
        )
    return figures


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--readings", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    arguments = parser.parse_args()
    if arguments.gateway:
        print(json.dumps(carry(arguments.gateway, arguments.readings)))
        return 0
    figures = measure(arguments.rounds)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
