# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every promise that has a figure, one after the other."""

from __future__ import annotations

import sys

from benchmarks import day, likeness, live, memory, path, start, wire, withdrawal


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    programs = (wire, day, path, live, likeness, withdrawal, start, memory)
    return max([program.main() for program in programs])


if __name__ == "__main__":
    sys.exit(main())
