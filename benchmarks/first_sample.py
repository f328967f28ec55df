# SPDX-License-Identifier: Apache-2.0
"""`assent` with a stopwatch: writes the CPU that the process has used at its first sample.

The first word is the file to write to, the rest is the command line. Nothing is imported that the
program does not import itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agent.cli.main import main
from agent.pipeline.running import Running
from firmware_bridge.sample import Sample

_take = Running.take


def _timed(running: Running, samples: list[Sample]) -> None:
    _take(running, samples)
    spent = time.process_time()  # user and system, all threads, since exec
    Running.take = _take  # type: ignore[method-assign] # once is enough
    half = Path(f"{sys.argv[1]}.half")
    half.write_text(str(spent))
    half.replace(sys.argv[1])


if __name__ == "__main__":
    Running.take = _timed  # type: ignore[method-assign, assignment]
    sys.exit(main(sys.argv[2:]))
