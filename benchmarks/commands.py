# SPDX-License-Identifier: Apache-2.0
"""CPU of each command that touches no hardware, until it has said everything: user and system.

Beside a running agent, which is how a technician and a household type them, and with none, when a
command opens the stores itself. Compiled modules lie ready, as after an installation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.household import metered
from benchmarks.report import Figure, write
from demo.stage import REPO

TARGET_MS = 300
_ROUNDS = 5
COMMANDS = (
    ("check",),
    ("status",),
    ("consent", "show"),
    ("consent", "history"),
    ("explain", "meter.s0"),
    ("sent",),
    ("doctor",),
    ("flush",),
)


def one(words: tuple[str, ...], gateway: Path) -> float:
    """Milliseconds of CPU of one command."""
    typed = [sys.executable, "-m", "agent.cli.main", *words, "--config", str(gateway)]
    program = subprocess.Popen(
        typed, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, used = os.wait4(program.pid, 0)
    program.returncode = 0  # it was waited for above
    return (used.ru_utime + used.ru_stime) * 1000


def measure(rounds: int = _ROUNDS) -> list[Figure]:
    """Every command, beside an agent and without one; the median of some rounds."""
    figures = []
    with metered(batch=1_000, flows=3, rows=60, speed=1.0, every="1s") as (household, _):
        for beside in (False, True):
            if beside:
                household.stage.start_agent()
            for words in COMMANDS:
                runs = [one(words, household.stage.gateway) for _ in range(rounds + 1)][1:]
                middle = statistics.median(runs)
                kind = "beside" if beside else "alone"
                figures.append(
                    Figure(
                        name=f"commands.cpu_ms.{kind}.{'-'.join(words).split('-meter')[0]}",
                        value=round(middle),
                        unit="ms",
                        target=f"<= {TARGET_MS}",
                        holds=middle <= TARGET_MS,
                        detail={"runs": [round(run) for run in runs]},
                    )
                )
    return figures


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    figures = measure()
    write(figures)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
