# SPDX-License-Identifier: Apache-2.0
"""What a Modbus meter costs the whole agent: readings per CPU second, memory, start.

A pymodbus server behind a pair of ptys, in a process of its own, has 50 holding registers that
wander; `assent run` reads them in one contiguous request a second, and delivers over TLS to a live
backend. CPU is the time that the kernel says the agent's threads ran, over five windows once it
has warmed up; memory is read at the end of each; start is the CPU from exec to the first
sample. The number that is stored is compared with the number that was sealed.

The programs run in an environment as a gateway has it (benchmarks/gateway.py); the meter does not.

At one request a second most of the CPU is waking up; the figure says which thread spent how much.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import gateway
from benchmarks.household import keep_compiled
from benchmarks.report import Figure, write
from demo.stage import REPO, Stage, wait_until

REGISTERS = 50
_EVERY = "1s"
_WARM_S = 45.0
_WINDOW_S = 20.0
_ROUNDS = 5
_STARTS = 5
_THREADS = ("owner", "signals", "source", "control", "uplink")  # in the order they are started
_TARGET = 40_000
_RSS_TARGET_MIB = 42
_START_TARGET_MS = 250

DEVICE = """\
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "{port}"
unit_id = 1
profile = "bench-meter"
every = "{every}"
"""


def policy_of(text: str) -> str:
    """The example policy's head with a dictionary and one flow for the registers."""
    head = text[: text.index("# The data dictionary")]
    names = [f"meter.r{index}" for index in range(REGISTERS)]
    dictionary = "\n".join(
        f'[attributes."{name}"]\nkind = "sensor"\ntype = "number"\nunit = "V"\nquantum = 0.1\n'
        f'about = "Register of the benchmark."\nowner = "bench"\nreview = 2030-01-01\n'
        for name in names
    )
    carried = ", ".join(f'"{name}" = "keep"' for name in names)
    flow = (
        '[flows.diagnosis]\nfunction = "optional"\npurpose = "fault-diagnosis"\n'
        'notice = { en = "Benchmark flow." }\nbasis = "consent"\n'
        f'recipient = "maker"\nattributes = {{ {carried} }}\n'
        'keep = { gateway = "7d", recipient = "90d", then = "delete" }\n'
        'batch = { readings = 10000, age = "10m" }\n'
    )
    return f"{head}\n{dictionary}\n{flow}"


def profile() -> str:
    """The registers as a profile: tenths of a volt."""
    head = '[profile]\nsource = "modbus"\nabout = "a meter"\nfacts = "benchmarks/modbus.py"\n'
    rows = [
        f'[[field]]\nattribute = "meter.r{index}"\ntable = "holding"\naddress = {index}\n'
        'type = "uint16"\nscale = 0.1\n'
        for index in range(REGISTERS)
    ]
    return f"{head}serial = {{ baudrate = 115200 }}\n" + "\n".join(rows)


def serve(link: Path) -> None:
    """The meter's process: answers until it is ended."""
    # pymodbus's server is heavy and belongs to this process alone.
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415

    from tests.simulators.meter import Meters  # noqa: PLC0415

    state = 12_345

    async def act(
        code: int, start: int, address: int, count: int, registers: list[int], wrote: object
    ) -> None:
        nonlocal state
        del code, start, address, count, wrote
        for index in range(REGISTERS):
            state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            registers[index] = 2_300 + (state >> 16) % 7

    device = SimDevice(
        1, [SimData(0, values=[2_300] * REGISTERS, datatype=DataType.REGISTERS)], action=act
    )
    with Meters(link, [device], baudrate=115_200):
        while True:
            time.sleep(3_600)


@contextlib.contextmanager
def household(place: Path, beside: str) -> Iterator[Stage]:
    """A household with the meter, enrolled and decided; broker and backend run."""
    stage = Stage(place / "stage")
    link = place / "meter"
    words = [beside, "-m", "benchmarks.modbus", "--meter", str(link)]
    meter = subprocess.Popen(words)
    try:
        stage.make_recipients()
        bundle = stage.publish(policy_of)
        stage.make_gateway(DEVICE.format(port=link, every=_EVERY))
        profiles = stage.gateway / "profiles"
        profiles.mkdir(exist_ok=True)
        (profiles / "bench-meter.toml").write_text(profile())
        stage.enrol(bundle)
        stage.start_agent()  # compiles what is not compiled yet, which leaves holes in memory
        stage.end("agent")
        stage.decide({"diagnosis": '"given"'})
        stage.start_broker("maker")
        stage.start_backend("maker")
        wait_until(link.exists, "the meter is plugged in")
        yield stage
    finally:
        stage.close()
        meter.terminate()
        meter.wait()


def cpu_s(pid: int) -> list[float]:
    """What each thread of a process has run, in seconds, by the scheduler's own count."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
    return [int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks]


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def samples(stage: Stage) -> int:
    """How many samples the meter has given."""
    (meter,) = [row for row in stage.status()["devices"] if row["id"] == "meter"]
    return int(meter["samples"])


def running(stage: Stage, windows: int) -> tuple[list[float], list[float], dict[str, float]]:
    """Rates and memory of one agent over some windows; everything that was sealed is stored.

    Returns:
        Readings per CPU second and MiB of each window; CPU ms a second of each thread.

    Raises:
        StageError: another number was stored than was sealed.
    """
    stage.start_agent()
    pid = stage.programs["agent"].pid
    time.sleep(_WARM_S)
    rates, sizes = [], []
    first = cpu_s(pid)
    for _ in range(windows):
        before = samples(stage)
        began = sum(cpu_s(pid))
        time.sleep(_WINDOW_S)
        spent = sum(cpu_s(pid)) - began
        rates.append((samples(stage) - before) * REGISTERS / spent)
        sizes.append(rss_mib(pid))
    each = [
        round((late - early) / windows / _WINDOW_S * 1000, 2)
        for early, late in zip(first, cpu_s(pid), strict=True)
    ]
    least = windows * _WINDOW_S * REGISTERS * 0.9
    stage.assent("flush")  # without waiting for the age of the open batch
    wait_until(
        lambda: least <= sealed(stage) == stored(stage), "all that was sealed is stored, once"
    )
    stage.end("agent")
    return rates, sizes, dict(zip(_THREADS, each, strict=True))


def sealed(stage: Stage) -> int:
    """How many readings the agent has sealed."""
    (flow,) = [row for row in stage.status()["flows"] if row["flow"] == "diagnosis"]
    return int(flow["sealed"]["readings"])


def stored(stage: Stage) -> int:
    """How many readings the backend has."""
    return sum(int(row["readings"]) for row in stage.show("maker", "flows"))


def starting(stage: Stage, place: Path) -> float:
    """CPU seconds of one agent from exec to its first sample, by its own count."""
    found = place / "spent"
    found.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.first_sample", str(found), "run"]
    words += ["--config", str(stage.gateway)]
    program = subprocess.Popen(words, cwd=REPO, stderr=subprocess.DEVNULL)
    try:
        wait_until(found.exists, "a sample is routed")
        return float(found.read_text())
    finally:
        program.terminate()
        program.wait()


def measure(beside: str) -> list[Figure]:
    """Rate, memory and start of one household.

    Args:
        beside: the Python that the meter runs with.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        keep_compiled(place)
        with household(place, beside) as stage:
            rates, sizes, threads = running(stage, _ROUNDS)
            starts = [1000 * starting(stage, place) for _ in range(_STARTS)]
    rate, start, size = statistics.median(rates), statistics.median(starts), max(sizes)
    return [
        Figure(
            name="modbus.readings_per_cpu_second",
            value=round(rate),
            unit="readings/s",
            target=f">= {_TARGET}",
            holds=rate >= _TARGET,
            detail={
                "runs": [round(one) for one in rates],
                "registers": REGISTERS,
                "every": _EVERY,
                "cpu_ms_per_second": threads,
                "load": round(os.getloadavg()[0], 1),
            },
        ),
        Figure(
            name="memory.rss_mib.modbus",
            value=round(size, 1),
            unit="MiB",
            target=f"<= {_RSS_TARGET_MIB}",
            holds=size <= _RSS_TARGET_MIB,
            detail={"runs": [round(one, 1) for one in sizes]},
        ),
        Figure(
            name="start.cpu_ms.modbus",
            value=round(start),
            unit="ms",
            target=f"<= {_START_TARGET_MS}",
            holds=start <= _START_TARGET_MS,
            detail={"runs": [round(one) for one in starts]},
        ),
    ]


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meter", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--beside", default=sys.executable, help=argparse.SUPPRESS)
    parser.add_argument(gateway.HERE, action="store_true", dest="here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.meter:
        serve(arguments.meter)
        return 0
    if not arguments.here:
        return gateway.again("benchmarks.modbus", ["--beside", sys.executable])
    figures = measure(arguments.beside)
    write(figures)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
