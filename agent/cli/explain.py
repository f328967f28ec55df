# SPDX-License-Identifier: Apache-2.0
"""`assent explain`: why an attribute leaves, or why it does not."""

from __future__ import annotations

import argparse

from agent.answers import read
from agent.cli.office import office
from agent.cli.say import emphasised, result
from agent.explain import Carriage, Explanation


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument("attribute", metavar="ATTRIBUTE", help="its name, such as appliance.power")


def run(arguments: argparse.Namespace) -> int:
    """Prints each flow that lists the attribute, and what becomes of it there."""
    told = office(arguments.config, "explain", attribute=arguments.attribute)
    result(told, _lines(read(told, Explanation)), as_json=arguments.json)
    return 0


def _lines(explanation: Explanation) -> list[str]:
    unit = f", {explanation.unit}" if explanation.unit else ""
    lines = [
        emphasised(explanation.attribute),
        f"  is        {explanation.about}",
        f"  sort      {explanation.kind}{unit}; {explanation.sensitivity}",
        f"  from      {', '.join(explanation.devices) or 'no device here delivers it'}",
    ]
    if not explanation.flows:
        return [*lines, "  leaves    never: no flow of the policy lists it"]
    for flow in explanation.flows:
        lines += ["", emphasised(f"{flow.flow}  ({flow.function})"), *_flow(flow)]
    return lines


def _flow(flow: Carriage) -> list[str]:
    decided = "nobody decided"
    if flow.record is not None:
        decided = f"{flow.record[:8]}, {flow.decided_at}, by {flow.decided_by}"
    return [
        f"  leaves    {'yes' if flow.leaves else f'no: {flow.reason}'}",
        f"  as        {flow.transform}",
        f"  to        {flow.recipient} ({flow.role}, {flow.region}); kept there {flow.kept}",
        f"  why       {flow.notice} ({flow.purpose}, {flow.basis})",
        f"  record    {decided}",
    ]
