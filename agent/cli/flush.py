# SPDX-License-Identifier: Apache-2.0
"""`assent flush`: what is open is sealed now, and on its way as soon as the broker is there."""

from __future__ import annotations

import argparse

from agent.cli.office import office
from agent.cli.say import counted, result


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Has the running agent close its open batches; windows that have not ended stay open."""
    told = office(arguments.config, "flush")
    if not told["running"]:
        line = "no agent runs, so nothing is open"
    elif not told["messages"]:
        line = "nothing was open"
    else:
        readings, messages = (
            counted(told["readings"], "reading"),
            counted(told["messages"], "message"),
        )
        line = f"sealed {readings} in {messages}"
    result(told, [line], as_json=arguments.json)
    return 0
