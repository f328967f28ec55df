# SPDX-License-Identifier: Apache-2.0
"""CPU from exec to the first sample routed: `assent run`, and `assent collect` by itself.

A gateway that agreed to three flows starts: it reads its files, verifies the policy,
opens ledger, keys and spool, dials its broker over TLS, opens the replayed meter and routes what
this gave. The process counts its own CPU, user and system, of all threads. Compiled modules lie
ready, as on every start but the first after an installation, and the environment is a gateway's
(benchmarks/gateway.py).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import gateway
from benchmarks.household import Household, metered
from benchmarks.report import Figure, write
from demo.stage import REPO, wait_until

TARGET_MS = 250
_ROUNDS = 7
_MOST = 12


def one_start(household: Household, verb: str, place: Path) -> float:
    """Milliseconds of CPU of one start."""
    found = place / "spent"
    found.unlink(missing_ok=True)
    words = [sys.executable, "-m", "benchmarks.first_sample", str(found), verb]
    words += ["--config", str(household.stage.gateway)]
    with (place / "log").open("wb") as log:
        program = subprocess.Popen(words, cwd=REPO, stderr=log)
    try:
        wait_until(found.exists, "a sample is routed")
        return float(found.read_text()) * 1e3
    finally:
        program.terminate()
        program.wait()


def import_times(rounds: int = _ROUNDS) -> dict[str, float]:
    """Milliseconds that importing takes, by package, the dearest first; all of `assent run`."""
    code = "import agent.cli.main, agent.cli.run, agent.service.both"
    words = [sys.executable, "-X", "importtime", "-c", code]
    least: dict[str, int] = {}  # of a module, over the rounds: the others were interrupted
    for _ in range(rounds):
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True)
        for line in done.stderr.splitlines()[1:]:
            own, _, name = line.removeprefix("import time:").split("|")
            module = name.strip()
            least[module] = min(int(own), least.get(module, int(own)))
    spent: dict[str, int] = {}
    for module, us in least.items():
        package = module.split(".")[0]
        spent[package] = spent.get(package, 0) + us
    dearest = sorted(spent.items(), key=lambda one: -one[1])[:_MOST]
    all_ms = round(sum(spent.values()) / 1e3, 1)
    return {"all": all_ms} | {package: round(us / 1e3, 1) for package, us in dearest}


def measure(rounds: int = _ROUNDS) -> list[Figure]:
    """Both verbs; the median of some starts after one that is not counted."""
    figures = []
    with metered(batch=1_000, flows=3, rows=3_600, speed=1.0, every="100ms") as (household, place):
        household.stage.start_broker("maker")
        household.stage.start_backend("maker")
        for verb in ("run", "collect"):
            runs = [one_start(household, verb, place) for _ in range(rounds + 1)][1:]
            middle = statistics.median(runs)
            figures.append(
                Figure(
                    name="start.cpu_ms" if verb == "run" else f"start.cpu_ms.{verb}",
                    value=round(middle),
                    unit="ms",
                    target=f"<= {TARGET_MS}",
                    holds=middle <= TARGET_MS,
                    detail={
                        "runs": [round(one) for one in runs],
                        "imports_ms": import_times() if verb == "run" else None,
                    },
                )
            )
    return figures


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(gateway.HERE, action="store_true", dest="here", help=argparse.SUPPRESS)
    if not parser.parse_args().here:
        return gateway.again("benchmarks.start")
    figures = measure()
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
