# SPDX-License-Identifier: Apache-2.0
"""Why a value stays on the gateway, in the words that status, explain and preview share.

Law: every flow that lists the value is named with its reason, and what no flow lists is said too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.path import Pending, Permit, Reason, Refusal, Verdict
from assent.policy.model import Flow

LEFT_OUT: Final = "left out by the household"
"""A flow runs, and the household left this attribute out of its yes."""


def why_off(verdict: Verdict | None) -> str:
    """Why a flow does not run; empty when it does.

    Args:
        verdict: of the gate; None where a no is in force that no record has yet.
    """
    match verdict:
        case Permit():
            return ""
        case Pending():
            return Reason.HELD.value
        case Refusal(reason=reason, detail=detail):
            return f"{reason.value} ({detail})" if detail else reason.value
        case None:  # Pipeline.denied
            return "the ledger did not take the household's no yet"


def carries(verdict: Verdict | None, name: str) -> bool:
    """Whether a flow runs and carries an attribute."""
    return isinstance(verdict, Permit) and any(one.name == name for one in verdict.carried)


def held_back(
    names: Iterable[str],
    flows: Mapping[str, Flow],
    verdicts: Mapping[str, Verdict],
) -> dict[str, str]:
    """Why each attribute leaves in no flow; those that leave are absent.

    Args:
        names: the attributes.
        flows: of the policy in force.
        verdicts: what the gate says of each now.
    """
    held = {}
    for name in sorted(names):
        listing = [flow for flow, terms in flows.items() if name in terms.attributes]
        if not listing:
            held[name] = "no flow of the policy lists it"
        elif not any(carries(verdicts.get(flow), name) for flow in listing):
            told = (f"{flow}: {why_off(verdicts.get(flow)) or LEFT_OUT}" for flow in listing)
            held[name] = "; ".join(told)
    return held
