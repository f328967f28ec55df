# SPDX-License-Identifier: Apache-2.0
"""`assent run`: collect and deliver until SIGTERM."""

from __future__ import annotations

import argparse

from agent.service import serve


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Runs in the foreground; a service manager keeps it alive."""
    return serve(arguments.config)
