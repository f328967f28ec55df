# SPDX-License-Identifier: Apache-2.0
"""`assent uplink`: deliver what waits in the spool until SIGTERM; reads no key but its TLS keys."""

from __future__ import annotations

import argparse

from agent.service.uplink import uplink


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Runs in the foreground; a service manager keeps it alive."""
    return uplink(arguments.config)
