# SPDX-License-Identifier: Apache-2.0
"""`make models`: the state machines of spool and journal, for long, with their result kept.

`MODELS_MINUTES` says how long, `MODELS_SEED` where their choices begin; both are in the result, so that a
run can be made again. A failure is printed with the steps that led to it, and the rest goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.agent.machines import Machine, lives
from tests.agent.test_journal_model import JournalMachine
from tests.agent.test_spool_crash_model import CrashMachine
from tests.agent.test_spool_model import SpoolMachine

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "models.json"
MACHINES: tuple[type[Machine], ...] = (SpoolMachine, CrashMachine, JournalMachine)
LIVES, STEPS = 50, 30
TOLD = ("crashes", "due", "waiting", "torn")


def main() -> int:
    """Runs the machines in turns; exit code 1 when one of them failed."""
    minutes = float(os.environ.get("MODELS_MINUTES", "10"))
    first = int(os.environ.get("MODELS_SEED", secrets.randbelow(1 << 32)))
    print(f"seed {first}, {minutes} minutes", flush=True)
    began, seed, failed = time.monotonic(), first, 0
    lived: dict[str, Counter[str]] = {machine.__name__: Counter() for machine in MACHINES}
    while time.monotonic() - began < minutes * 60:
        for machine in MACHINES:
            seed += 1
            try:
                lives(machine, LIVES, STEPS, seed)
            except Exception:  # noqa: BLE001 - whatever it is, it is a failure
                failed += 1
                traceback.print_exc()
            lived[machine.__name__] += machine.lived
            lived[machine.__name__]["lives"] += LIVES
    kept = {
        "minutes": minutes,
        "seed": first,
        "failed": failed,
        "lived": {
            name: {
                what: n
                for what, n in sorted(counts.items())
                if what == "lives" or any(word in what for word in TOLD)
            }
            for name, counts in lived.items()
        },
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
