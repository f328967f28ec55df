# SPDX-License-Identifier: Apache-2.0
"""`assent run`: collect and deliver in one process until SIGTERM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.service.both import serve

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
    return serve(directory)
