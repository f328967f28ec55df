# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a line of a form, judged by the policy that the form names.

Law:
  - a flow and an attribute are named as the policy names them; the nearest name is offered;
  - a core flow is accepted or refused, another one given, refused or withdrawn;
  - a limit belongs to a yes, leaves something of it, and ends it after it began.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.form.paper import Answer, Form
from assent.errors import Finding
from assent.nearest import nearest
from assent.policy.model import Policy

_YES: Final[dict[str, Answer]] = {"core": "accepted", "optional": "given"}


def error_of(form: Form, flow: str, policy: Policy) -> Finding | None:
    """Finds what no later time can heal.

    Args:
        form: the form.
        flow: id of one of its lines.
        policy: the policy in force; a form that names another one is not held against it.

    Returns:
        The first error, pointing into the file, or None.
    """
    said = form.decisions[flow]
    if said.is_no and (said.until or said.without):
        key = "until" if said.until else "without"
        return _finding(form, flow, f"a no has no {key!r}", key=key)
    if form.policy != policy.policy.version:
        return None
    known = policy.flows.get(flow)
    if known is None:
        hint = _nearest(flow, policy.flows, "the policy has")
        return _finding(form, flow, f"the policy has no flow {flow[:64]!r}", hint)
    if said.is_no:
        return None
    if said.decision != _YES[known.function]:
        wanted = f"{_YES[known.function]!r} or 'refused' for a flow that is {known.function}"
        return _finding(form, flow, f"expected {wanted}, got {said.decision!r}", key="decision")
    return _limit_error(form, flow, frozenset(known.attributes))


def _limit_error(form: Form, flow: str, carried: frozenset[str]) -> Finding | None:
    said = form.decisions[flow]
    strange = sorted(set(said.without) - carried)
    if strange:
        message = f"{flow!r} does not carry {strange[0]!r}"
        hint = _nearest(strange[0], sorted(carried), "it carries")
        return _finding(form, flow, message, hint, key="without")
    if carried <= set(said.without):
        message = "nothing is left of this yes"
        return _finding(form, flow, message, "say 'refused' instead", key="without")
    until_ms = form.until_ms(said)
    if until_ms is not None and until_ms <= form.decided_ms(said):
        message = "this yes ends before it was said"
        return _finding(form, flow, message, "it ends as the day begins", key="until")
    return None


def _nearest(word: str, known: Iterable[str], lead: str) -> str:
    names = list(known)
    return nearest(word, names) or f"{lead} {', '.join(names)}"


def _finding(
    form: Form, flow: str, message: str, hint: str | None = None, *, key: str | None = None
) -> Finding:
    path = ("decisions", flow) if key is None else ("decisions", flow, key)
    return form.document.finding(path, message, hint)
