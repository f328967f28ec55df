# SPDX-License-Identifier: Apache-2.0
"""`assent uplink`: deliver what waits in the spool until SIGTERM; reads no key but its TLS keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.service.uplink import uplink

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Runs where there was more to say than the directory."""
    return stay(arguments.config)


def stay(directory: Path) -> int:
    """Runs in the foreground; a service manager keeps it alive."""
    return uplink(directory)
