# SPDX-License-Identifier: Apache-2.0
"""`assent collect`: collect until SIGTERM; opens no network socket."""

from __future__ import annotations

import argparse

from agent.service.collect import collect


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Runs in the foreground; a service manager keeps it alive."""
    return collect(arguments.config)
