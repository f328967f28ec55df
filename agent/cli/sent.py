# SPDX-License-Identifier: Apache-2.0
"""`assent sent`: what left this gateway, for the household."""

from __future__ import annotations

import argparse

from agent.answers import Departed, Sent, read
from agent.cli.office import office
from agent.cli.say import emphasised, result, table

_SHOWN = 20


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument("--flow", metavar="FLOW", help="only of this flow")
    parser.add_argument(
        "--limit", type=int, default=_SHOWN, metavar="N", help=f"at most so many (default {_SHOWN})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the newest first."""
    limit = max(1, arguments.limit)
    told = office(arguments.config, "sent", flow=arguments.flow, limit=limit + 1)
    lines = _lines(read(told, Sent).sent[:limit])
    shown = told["sent"][:limit]
    if len(told["sent"]) > limit:
        lines.append(f"there is more before; the newest {limit} are shown: see --limit")
    result({"sent": shown}, lines, as_json=arguments.json)
    return 0


def _lines(sent: list[Departed]) -> list[str]:
    if not sent:
        return ["nothing has left"]
    rows = [["WHEN", "FLOW", "TO", "READINGS", "BYTES", "DIGEST", ""]]
    rows += [
        [
            one.at,
            one.flow,
            one.recipient,
            str(one.readings),
            str(one.bytes),
            one.digest[:16],
            "" if one.confirmed else "unconfirmed: it may have arrived",
        ]
        for one in sent
    ]
    head, *body = table(rows)
    return [emphasised(head), *body]
