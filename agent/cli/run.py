# SPDX-License-Identifier: Apache-2.0
"""`assent run`: collect and deliver in one process until SIGTERM."""

from __future__ import annotations

import argparse

from agent.service.both import serve


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Runs in the foreground; a service manager keeps it alive."""
    return serve(arguments.config)
