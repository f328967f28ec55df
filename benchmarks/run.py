# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every promise that has a figure, one after the other."""

from __future__ import annotations

import sys

from benchmarks import day, likeness, live, path, wire


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    return max([wire.main(), day.main(), path.main(), live.main(), likeness.main()])


if __name__ == "__main__":
    sys.exit(main())
