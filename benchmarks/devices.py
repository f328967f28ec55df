# SPDX-License-Identifier: Apache-2.0
"""What 1, 10 and 50 meters cost the whole agent, and how long a reading takes from wire to lane.

CPU: pymodbus serves units on one TCP port, each with 50 holding registers; `assent run` reads each
once a second and delivers over TLS. Latency: the meter puts its own clock into its registers as it
answers, and the owner's thread reads the same clock when it hands the sample to the lanes; both are
CLOCK_MONOTONIC of one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from benchmarks.household import keep_compiled
from benchmarks.modbus import REGISTERS, cpu_s, policy_of, profile
from benchmarks.report import Figure, write
from demo.ports import free_port
from demo.stage import Stage, wait_until
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Sample

COUNTS = (1, 10, 50)
_WARM_S = 20.0
_WINDOW_S = 20.0
_SAMPLES = 300
_WORD = 1 << 16
_WRAP_US = 1 << 32

_DEVICE = """\
[[device]]
id = "meter-{unit}"
kind = "electricity-meter"
source = "modbus"
port = "tcp://127.0.0.1:{port}"
unit_id = {unit}
profile = "bench-meter"
every = "{every}"
"""
_CLOCK_FIELDS = """
[[field]]
attribute = "meter.r0"
table = "holding"
address = 0
type = "uint32"
"""


def serve(port: int, units: int) -> None:
    """The meters' process: answers until it is ended."""
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415 (of this process)

    from tests.simulators.meter import TcpMeters  # noqa: PLC0415

    async def act(
        code: int, start: int, address: int, count: int, registers: list[int], wrote: object
    ) -> None:
        del code, start, address, count, wrote
        now_us = time.monotonic_ns() // 1000 % _WRAP_US
        registers[0], registers[1] = divmod(now_us, _WORD)

    devices = [
        SimDevice(
            unit, [SimData(0, values=[2_300] * REGISTERS, datatype=DataType.REGISTERS)], action=act
        )
        for unit in range(1, units + 1)
    ]
    with TcpMeters(devices, port=port):
        while True:
            time.sleep(3_600)


@contextlib.contextmanager
def household(place: Path, units: int, every: str, fields: str) -> Iterator[Stage]:
    """A household with so many meters, enrolled and decided; broker and backend run."""
    stage, port = Stage(place / f"stage-{units}"), free_port()
    words = [sys.executable, "-m", "benchmarks.devices", "--meters", str(port), str(units)]
    meters = subprocess.Popen(words)
    try:
        stage.make_recipients()
        bundle = stage.publish(policy_of)
        tables = [_DEVICE.format(unit=one, port=port, every=every) for one in range(1, units + 1)]
        stage.make_gateway("\n".join(tables))
        (stage.gateway / "profiles" / "bench-meter.toml").write_text(fields)
        stage.enrol(bundle)
        stage.decide({"diagnosis": '"given"'})
        stage.start_broker("maker")
        stage.start_backend("maker")
        yield stage
    finally:
        stage.close()
        meters.terminate()
        meters.wait()


def cost(place: Path, units: int) -> Figure:
    """CPU of the whole agent for so many meters."""
    with household(place, units, "1s", profile()) as stage:
        stage.start_agent()
        wait_until(lambda: _samples(stage) >= units, "every meter is read")
        time.sleep(_WARM_S)
        pid = stage.programs["agent"].pid
        before, began = _samples(stage), sum(cpu_s(pid))
        time.sleep(_WINDOW_S)
        spent = sum(cpu_s(pid)) - began
        read = (_samples(stage) - before) * REGISTERS
    return Figure(
        name=f"devices.cpu_ms_per_second.{units}",
        value=round(spent / _WINDOW_S * 1000, 2),
        unit="ms/s",
        detail={
            "registers": REGISTERS,
            "every": "1s",
            "readings_per_cpu_second": round(read / spent),
        },
    )


def _samples(stage: Stage) -> int:
    return sum(int(row["samples"]) for row in stage.status()["devices"])


def latency(place: Path) -> Figure:
    """Milliseconds from the meter's answer to the lanes, over some hundred reads."""
    head = profile()[: profile().index("[[field]]")]
    with household(place, 1, "50ms", head + _CLOCK_FIELDS) as stage:
        settings, clock = load_settings(stage.gateway), Clock(trust="system")
        with instance_lock(settings.state), contextlib.ExitStack() as stack:
            site = open_site(settings, clock)
            spool = stack.enter_context(contextlib.closing(Spool.open(settings.state / SPOOL)))
            pipeline = Pipeline(site, spool, clock)
            took_ms: list[float] = []
            taken: Any = pipeline.running.take

            def take(samples: list[Sample]) -> None:
                now_us = time.monotonic_ns() // 1000 % _WRAP_US
                took_ms.extend(
                    (now_us - int(cast("int", one.values[0]))) % _WRAP_US / 1000 for one in samples
                )
                taken(samples)

            pipeline.running.take = take  # type: ignore[method-assign] # only timed
            pipeline.start()
            done = threading.Event()
            while len(took_ms) < _SAMPLES and not done.is_set():
                pipeline.turn(0.1)
            pipeline.stop()
    ordered = sorted(took_ms)
    return Figure(
        name="devices.wire_to_lane_ms",
        value=round(statistics.median(ordered), 2),
        unit="ms",
        detail={
            "reads": len(ordered),
            "p99": round(ordered[int(0.99 * len(ordered))], 2),
            "most": round(ordered[-1], 2),
        },
    )


def measure() -> list[Figure]:
    """CPU by number of meters, and latency."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        keep_compiled(place)
        return [*(cost(place, units) for units in COUNTS), latency(place)]


def main() -> int:
    """Prints the figures and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.meters:
        serve(*arguments.meters)
        return 0
    write(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
