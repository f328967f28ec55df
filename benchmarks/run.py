# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every promise that has a figure, one after the other."""

from __future__ import annotations

import sys

from benchmarks import day, path, wire


def main() -> int:
    """Prints the figures and keeps them in benchmarks/results/latest.json."""
    wire.main()
    day.main()
    path.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
