# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every promise that has a figure, one after the other."""

from __future__ import annotations

import sys

from benchmarks import (
    commands,
    day,
    devices,
    likeness,
    live,
    memory,
    modbus,
    path,
    recovery,
    sector,
    spool,
    start,
    wear,
    week,
    wire,
    withdrawal,
)


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    benches = (wire.main, day.main, path.main, live.main, likeness.main)
    programs = (withdrawal.main, start.main, commands.main, memory.main, modbus.main, devices.main)
    outages = (spool.main, recovery.main, sector.main, wear.main, week.main)
    return max([main() for main in benches + programs + outages])


if __name__ == "__main__":
    sys.exit(main())
