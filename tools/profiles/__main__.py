# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.profiles FACTS`: writes config/profiles/ again and tells what was refused."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.profiles import goodwe, meters, solarman, victron
from tools.profiles.maps import Map
from tools.profiles.page import profile, told

PLACE: Final = Path(__file__).resolve().parents[2] / "config" / "profiles"


def maps(data: Path) -> Iterator[Map]:
    """Every map there is, converted or refused.

    Args:
        data: the folder of the recorded facts.
    """
    for room in (meters, solarman, victron, goodwe):
        yield from room.read(data)
    reason = "where a model begins differs from device to device, and these facts do not say"
    yield Map("sunspec", "SunSpec", "sunspec/models@7abdf8982d53", refused=reason)


def main() -> int:
    """Writes the profiles."""
    parser = argparse.ArgumentParser(prog="python -m tools.profiles", description=__doc__)
    parser.add_argument("facts", type=Path, help="the folder modbus/ of the recorded facts")
    parser.add_argument("--into", type=Path, default=PLACE, help="where profiles are written")
    args = parser.parse_args()
    for one in maps(args.facts):
        if one.refused is None:
            (args.into / f"{one.name}.toml").write_text(profile(one), encoding="utf-8")
        sys.stdout.write("".join(f"{line}\n" for line in told(one)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
