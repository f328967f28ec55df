# SPDX-License-Identifier: Apache-2.0
"""Memory of the agent with a replayed meter, TLS and a live backend: one process and two, growth.

The meter gives ten rows of eight values a second into three flows. `rss.one` is what the kernel
holds for `assent run` (Rss). `pss.two` is what `assent collect` and `assent uplink` would hold by
themselves: what each alone has, and of a file that both map the larger part once. The kernel's own
Pss stands beside it; it is smaller here, because other Pythons share the same files. Each is read
when the first batches are acknowledged and have settled, and again after a while; the larger one
counts.

The programs run in an environment as a gateway has it (benchmarks/gateway.py).

Growth: ten million readings are replayed as fast as they can be read, the backend stores and
acknowledges, and what is held at ten million is compared with what was held at one: each is the
mean of what was seen within a quarter of a million on either side. A queue that grows is on the
disk, not in memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from agent.control import ask
from benchmarks import gateway
from benchmarks.household import Household, metered
from benchmarks.path import ATTRIBUTES
from benchmarks.report import Figure, write
from demo.stage import wait_until

ONE_MIB = 42
TWO_MIB = 62
GROWTH_MIB = 0.5
"""MiB from one million readings to ten: what the allocator gives and takes by itself."""
_FLOWS = 3
_BATCH = 1_000
_SPEED = 10.0
_SETTLE_S = 20.0
_LATER_S = 40.0
_MARKS = range(1, 11)
"""Million readings at which growth looks: the first and the last are compared."""
_NEAR = 0.25
_GROW_PATIENCE_S = 600.0
_STEP_S = 0.25
_ROWS = 4_000_000


def held_mib(pids: list[int], what: str) -> float:
    """Memory of some processes together: Rss or Pss of proc_pid_smaps(5)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{what}:"):
                total += int(line.split()[1])
    return total / 1024


def alone_mib(pids: list[int]) -> float:
    """What some processes hold together where nobody else maps the same files."""
    own = 0
    shared: dict[str, dict[int, int]] = {}
    for pid in pids:
        place = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            word, *rest = line.split()
            if not word.endswith(":"):
                place = f"{rest[4]} {rest[1]}" if len(rest) > 4 else ""  # the file, its offset
            elif word == "Rss:":
                of_place = shared.setdefault(place, {})
                of_place[pid] = of_place.get(pid, 0) + int(rest[0])
            elif word == "Private_Dirty:":
                own += int(rest[0])
                shared[place][pid] -= int(rest[0])
    return (own + sum(max(parts.values()) for parts in shared.values())) / 1024


class Running:
    """The agent of a household while it runs, as one process or as two.

    Args:
        household: whose.
        two: whether `assent collect` and `assent uplink` are programs of their own.
    """

    def __init__(self, household: Household, *, two: bool) -> None:
        stage = household.stage
        self._household = household
        stage.start_broker("maker")
        stage.start_backend("maker")
        if two:
            stage.start_two()
        else:
            stage.start_agent()
        self._names = ["agent", "uplink"] if two else ["agent"]
        self.pids = [stage.programs[name].pid for name in self._names]

    def status(self) -> dict[str, object]:
        """What the agent says of itself."""
        return ask(self._household.state, "status")

    def is_acknowledged(self) -> bool:
        """Whether the backend has acknowledged something of every flow."""
        flows = ask(self._household.state, "status")["flows"]
        return all(flow["last_acknowledged"] for flow in flows)

    def readings(self) -> int:
        """How many values the meter has given."""
        (device,) = ask(self._household.state, "status")["devices"]
        return int(device["samples"]) * ATTRIBUTES

    def close(self) -> None:
        """Ends it, with broker and backend."""
        for name in [*reversed(self._names), "backend-maker", "broker-maker"]:
            self._household.stage.end(name)


def settled(household: Household, *, two: bool) -> dict[str, list[float]]:
    """Rss and Pss at ten rows a second, early and later."""
    household.devices(speed=_SPEED, every="100ms")
    running = Running(household, two=two)
    try:
        wait_until(running.is_acknowledged, "every flow is acknowledged", 120)
        found: dict[str, list[float]] = {"Rss": [], "Alone": [], "Pss": [], "Private_Dirty": []}
        for wait_s in (_SETTLE_S, _LATER_S):
            time.sleep(wait_s)
            for what, values in found.items():
                held = alone_mib(running.pids) if what == "Alone" else held_mib(running.pids, what)
                values.append(round(held, 1))
        return found
    finally:
        running.close()


def grown(household: Household, *, two: bool) -> list[tuple[float, float]]:
    """MiB that were held after how many million readings."""
    household.devices(speed=0)
    running = Running(household, two=two)
    try:
        points: list[tuple[float, float]] = []
        end = time.monotonic() + _GROW_PATIENCE_S
        while not points or points[-1][0] < _MARKS[-1] + _NEAR:
            if time.monotonic() > end:
                raise RuntimeError(f"only {points[-1][0]:.1f} million readings were taken in")
            time.sleep(_STEP_S)
            held = held_mib(running.pids, "Rss")
            points.append((running.readings() / 1e6, round(held, 2)))
        return points
    finally:
        running.close()


def imports(module: str) -> float:
    """MiB that a fresh Python holds with one module of ours imported."""
    code = f"import {module}; print(open('/proc/self/smaps_rollup').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = next(one for one in done.stdout.splitlines() if one.startswith("Rss:"))
    return round(int(line.split()[1]) / 1024, 1)


def measure() -> list[Figure]:
    """Both forms of the agent: settled, then growing."""
    figures = []
    for two in (False, True):
        with metered(batch=_BATCH, flows=_FLOWS, rows=_ROWS, speed=_SPEED, every="100ms") as (
            household,
            _,
        ):
            Running(household, two=two).close()  # compiles what is not compiled yet
            found = settled(household, two=two)
            points = grown(household, two=two)
            figures += _figures(found, points, two=two)
    return figures


def _figures(
    found: dict[str, list[float]], points: list[tuple[float, float]], *, two: bool
) -> list[Figure]:
    name, what, target = ("two", "Alone", TWO_MIB) if two else ("one", "Rss", ONE_MIB)
    modules = ["agent.service.collect", "agent.service.uplink"] if two else ["agent.service.both"]
    held = max(found[what])
    curve = {mark: _at(points, mark) for mark in _MARKS}
    grew = curve[_MARKS[-1]] - curve[_MARKS[0]]
    return [
        Figure(
            name="memory.pss_mib.two" if two else "memory.rss_mib.one",
            value=held,
            unit="MiB",
            target=f"<= {target}",
            holds=held <= target,
            detail={
                **{f"{other.lower()}_mib": values for other, values in found.items()},
                "imports_alone_rss_mib": {module: imports(module) for module in modules},
                "python_alone_rss_mib": imports("sys"),
                "malloc_arena_max": os.environ.get("MALLOC_ARENA_MAX", "unset"),
            },
        ),
        Figure(
            name=f"memory.growth_mib.{name}",
            value=round(grew, 2),
            unit="MiB",
            target=f"<= {GROWTH_MIB}",
            holds=grew <= GROWTH_MIB,
            detail={
                "mib_at_millions": {f"{mark}": round(mib, 2) for mark, mib in curve.items()},
                "from_five": round(curve[10] - curve[5], 2),
                "first_mib": points[0][1],
                "most_mib": max(mib for _, mib in points),
                "looks": len(points),
            },
        ),
    ]


def _at(points: list[tuple[float, float]], mark: float) -> float:
    """MiB around so many million readings."""
    near = [mib for millions, mib in points if abs(millions - mark) <= _NEAR]
    if not near:
        near = [min(points, key=lambda point: abs(point[0] - mark))[1]]
    return statistics.fmean(near)


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(gateway.HERE, action="store_true", dest="here", help=argparse.SUPPRESS)
    if not parser.parse_args().here:
        return gateway.again("benchmarks.memory")
    figures = measure()
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
