# SPDX-License-Identifier: Apache-2.0
"""Words of the command line that several verbs take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from assent.units import Duration

DEFAULT_CONFIG = Path("/etc/assent")


def duration(text: str) -> Duration:
    """Reads an argument such as `10s`.

    Raises:
        argparse.ArgumentTypeError: with a sentence.
    """
    try:
        return Duration.parse(text)
    except ValueError as exc:
        from argparse import ArgumentTypeError  # noqa: PLC0415  # see agent/cli/main.py

        raise ArgumentTypeError(str(exc)) from exc


def same_place(config: Path, told: Iterable[str]) -> list[str]:
    """A reminder that what is said to be typed next needs the same `--config`.

    Args:
        config: the configuration directory of this command.
        told: what is said.
    """
    said = [line for line in told if "assent " in line and "--help" not in line]
    if config == DEFAULT_CONFIG or not said:
        return []
    return [f"each with: --config {config}"]
