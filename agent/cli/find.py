# SPDX-License-Identifier: Apache-2.0
"""`assent devices find`: which units answer, which profiles fit them, the table to paste."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.cli.say import emphasised, is_painted, result, shown_value, unit_of
from agent.search import Passed, look_for_devices, table_of, unused_names
from agent.settings import Settings, load_settings
from assent.errors import AssentError
from firmware_bridge.profile.fields import Serial
from firmware_bridge.sources.modbus.search import Fit, Found

_FITS = 3  # profiles of one unit that are shown
_VALUES = 4  # of each, so that a person can tell
_NO_UNIT = "no unit answers; check power, wires A and B; see --port and --units"

_NO_PORT = "there is no serial port; plug the adapter in, or name a port with --port"


def find(arguments: argparse.Namespace) -> int:
    """Searches, tells how far it is, prints what it found and what to write into agent.toml."""
    settings = load_settings(arguments.config)
    found, passed = [], []
    searched: set[str] = set()

    def progress(port: str, line: Serial, unit: int) -> None:
        searched.add(port)
        _progress(port, line, unit)

    for one in look_for_devices(settings, arguments.port, arguments.units, progress):
        _clear()
        if isinstance(one, Passed):
            passed.append(one)
        else:
            found.append(one)
    _clear()
    value = {"found": msgspec.to_builtins(found), "passed": msgspec.to_builtins(passed)}
    lines = _told(found, passed, settings, was_searched=bool(searched))
    result(value, lines, as_json=arguments.json)
    return 0 if found else AssentError.exit_code


def _progress(port: str, line: Serial, unit: int) -> None:
    if is_painted(sys.stderr):
        sys.stderr.write(f"\r\033[Ksearching {Path(port).name[:40]} at {line}, unit {unit}")
        sys.stderr.flush()


def _clear() -> None:
    if is_painted(sys.stderr):
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


def _told(
    found: Sequence[Found], passed: Sequence[Passed], settings: Settings, *, was_searched: bool
) -> list[str]:
    lines = [f"not searched: {one.port}: {one.reason}" for one in passed]
    if not found:
        nowhere = "no port was searched; see --port" if passed else _NO_PORT
        return [*lines, _NO_UNIT if was_searched else nowhere]
    for unit in found:
        at = f" at {unit.line}" if unit.line else ""
        lines += [emphasised(f"unit {unit.unit_id} answers on {unit.port}{at}")]
        lines += [f"  {_fit(fit)}" for fit in unit.fits[:_FITS]]
        if not unit.fits:
            lines.append("  no profile here fits; see docs/profiles.md to write one")
    if any(unit.fits for unit in found):
        lines += ["", "put into agent.toml, with an id of your own:"]
    free = unused_names(settings)
    for unit in (one for one in found if one.fits):
        lines += ["", *table_of(unit, next(free))]
    return lines


def _fit(fit: Fit) -> str:
    first = list(fit.values.items())[:_VALUES]
    shown = ", ".join(
        f"{name} {shown_value(value)}{unit_of(fit.units, name)}" for name, value in first
    )
    return f"{fit.profile}: {len(fit.values)} of {fit.fields} fields: {shown}"
