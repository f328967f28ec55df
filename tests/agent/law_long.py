# SPDX-License-Identifier: Apache-2.0
"""`make law`: the law against a second reading of it, for long, with its result kept.

`LAW_EXAMPLES` says how many households, `LAW_SEED` which; both are in the result, so that a run can
be made again. A disagreement ends the run with the steps that led to it.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path

import pytest

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "law.json"
MODEL = "test_law_model"


def main() -> int:
    """Runs the model, keeps what came of it; exit code 1 when the two readings disagree."""
    examples = int(os.environ.setdefault("LAW_EXAMPLES", "500"))
    seed = int(os.environ.get("LAW_SEED", secrets.randbelow(1 << 32)))
    print(f"seed {seed}, {examples} households", flush=True)
    file = str(Path(__file__).with_name("test_law_model.py"))
    began = time.monotonic()
    code = pytest.main([file, "-k", "TestLaw", "-q", f"--hypothesis-seed={seed}", "-p", "no:xdist"])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return 1
    # pytest names it by where it found it.
    model = next(module for name, module in sys.modules.items() if name.endswith(MODEL))
    kept = {
        "examples": examples,
        "steps": model.LawMachine.checked,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "disagreements": int(code == pytest.ExitCode.TESTS_FAILED),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    RESULT.write_text(json.dumps(kept) + "\n")
    print(json.dumps(kept))
    return kept["disagreements"]


if __name__ == "__main__":
    sys.exit(main())
