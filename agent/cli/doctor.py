# SPDX-License-Identifier: Apache-2.0
"""`assent doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

import argparse
import datetime as dt

import msgspec

from agent.cli.office import status
from agent.cli.say import counted, result
from agent.cli.words import DEFAULT_CONFIG
from agent.doctor import Check, Health, examine
from assent.errors import AssentError

_MARKS = {Health.GOOD: "ok", Health.ODD: "look", Health.BAD: "BAD"}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Looks at everything; exit code 1 when something does not work."""
    now = dt.datetime.now(dt.UTC)
    checks = list(examine(arguments.config, now, lambda: status(arguments.config)))
    broken = [one for one in checks if one.health is Health.BAD]
    value = {"ok": not broken, "checks": msgspec.to_builtins(checks)}
    lines = _lines(checks, len(broken))
    if arguments.config != DEFAULT_CONFIG:  # which is not named: it may be somebody's home
        lines.insert(-1, "each assent command takes the --config of this one")
    result(value, lines, as_json=arguments.json)
    return AssentError.exit_code if broken else 0


def _lines(checks: list[Check], broken: int) -> list[str]:
    width = max(len(one.subject) for one in checks)
    lines = []
    for one in checks:
        lines.append(f"{_MARKS[one.health]:4}  {one.subject:{width}}  {one.told}")
        if one.help:
            lines.append(f"      {'':{width}}  {one.help}")
    odd = sum(one.health is Health.ODD for one in checks)
    return [*lines, "", f"{counted(broken, 'fault')}, {odd} to look at"]
