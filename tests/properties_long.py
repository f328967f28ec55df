# SPDX-License-Identifier: Apache-2.0
"""`make properties`: the property tests with choices of their own, round after round.

`make test` makes the same choices each time. `PROPERTIES_MINUTES` says how long this one goes on,
`PROPERTIES_SEED` where its choices begin; both are in the result, so that a run can be made again.
A failure is printed as pytest prints it, and the rest goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as ET

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "properties.json"


def main() -> int:
    """Runs the rounds, keeps what came of them; exit code 1 when a test failed."""
    minutes = float(os.environ.get("PROPERTIES_MINUTES", "10"))
    first = int(os.environ.get("PROPERTIES_SEED", secrets.randbelow(1 << 32)))
    print(f"seed {first}, {minutes} minutes", flush=True)
    began, seed, tests, failed = time.monotonic(), first, 0, 0
    while time.monotonic() - began < minutes * 60:
        ran, wrong = one_round(seed)
        seed, tests, failed = seed + 1, tests + ran, failed + wrong
    kept = {
        "minutes": minutes,
        "seed": first,
        "rounds": seed - first,
        "tests": tests,
        "failed": failed,
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    RESULT.write_text(json.dumps(kept) + "\n")
    print(json.dumps(kept))
    return int(failed > 0)


def one_round(seed: int) -> tuple[int, int]:
    """How many property tests ran, and how many of them failed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "hypothesis"]
        # A failure is counted from the report, and without a report the run ends here.
        subprocess.run([*pytest, f"--hypothesis-seed={seed}", f"--junitxml={report}"], check=False)
        suite = ET.parse(report).getroot()[0].attrib
    return int(suite["tests"]), int(suite["failures"]) + int(suite["errors"])


if __name__ == "__main__":
    sys.exit(main())
