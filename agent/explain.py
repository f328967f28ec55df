# SPDX-License-Identifier: Apache-2.0
"""Why one attribute leaves, or why it does not: flow by flow, from policy, ledger and verdicts.

Law: every flow of the policy that lists the attribute is named, on or off; what no flow lists does
not exist for the road, and that is said too (policy C23).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.account import instant
from agent.ledger import Ledger
from agent.path import Verdict
from agent.reasons import LEFT_OUT, carries, why_off
from agent.records import Record
from agent.site import Site
from assent.errors import UsageError
from assent.nearest import nearest
from assent.policy.model import Policy


class Carriage(msgspec.Struct, frozen=True, kw_only=True):
    """What one flow does with the attribute.

    Attributes:
        flow: id of the flow.
        function: `core` or `optional`.
        leaves: whether the flow carries it now.
        reason: why not; empty when it leaves.
        transform: what is done to it before it leaves.
        recipient: whom it goes to.
        role: what the recipient is to the household.
        region: where the recipient is.
        purpose: id of the purpose.
        notice: the purpose in words for a person.
        basis: the legal basis.
        kept: how long the recipient keeps it, and what it does then.
        record: the record the answer rests on, hexadecimal; None where nobody decided.
        decided_at: when it was recorded, RFC 3339; None likewise.
        decided_by: who decided; None likewise.
    """

    flow: str
    function: str
    leaves: bool
    reason: str
    transform: str
    recipient: str
    role: str
    region: str
    purpose: str
    notice: str
    basis: str
    kept: str
    record: str | None
    decided_at: str | None
    decided_by: str | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `assent explain` prints.

    Attributes:
        attribute: its name.
        about: what it is, in the policy's words.
        kind: which sort of knowledge it is.
        unit: of its values, or None.
        sensitivity: how much it tells about people.
        devices: ids of the devices here that can deliver it.
        flows: each flow of the policy that lists it.
    """

    attribute: str
    about: str
    kind: str
    unit: str | None
    sensitivity: str
    devices: tuple[str, ...]
    flows: tuple[Carriage, ...]


def explain(
    attribute: str,
    site: Site,
    verdicts: Mapping[str, Verdict],
    delivered: Mapping[str, frozenset[str]],
) -> Explanation:
    """Explains one attribute.

    Args:
        attribute: its name in the policy's dictionary.
        site: what is installed.
        verdicts: what the gate says of each flow now.
        delivered: what each device can deliver, by device id.

    Raises:
        RefusedError: there is no usable policy to explain it by.
        UsageError: the dictionary has no such attribute.
    """
    policy = site.policy_for("to explain it by").policy
    known = policy.attributes.get(attribute)
    if known is None:
        raise UsageError(
            f"the policy's dictionary has no attribute {attribute!r}; it cannot leave",
            hint=nearest(attribute, policy.attributes, quoted=False),
        )
    return Explanation(
        attribute=attribute,
        about=known.about,
        kind=known.kind,
        unit=known.unit,
        sensitivity=known.sensitivity,
        devices=tuple(sorted(name for name, gives in delivered.items() if attribute in gives)),
        flows=tuple(
            _carriage(policy, site.ledger, flow, attribute, verdicts.get(flow))
            for flow, terms in policy.flows.items()
            if attribute in terms.attributes
        ),
    )


def _carriage(
    policy: Policy, ledger: Ledger, name: str, attribute: str, verdict: Verdict | None
) -> Carriage:
    flow = policy.flows[name]
    recipient = policy.recipients[flow.recipient]
    record = ledger.newest(name)
    reason = _why_not(verdict, attribute)
    return Carriage(
        flow=name,
        function=flow.function,
        leaves=not reason,
        reason=reason,
        transform=str(flow.attributes[attribute]),
        recipient=flow.recipient,
        role=recipient.role,
        region=recipient.region,
        purpose=flow.purpose,
        notice=flow.notice.get("en") or next(iter(flow.notice.values())),
        basis=flow.basis,
        kept=f"{flow.keep.recipient}, then {flow.keep.then}",
        record=record.id.hex() if record else None,
        decided_at=instant(record.at_ms) if record else None,
        decided_by=_decider(record),
    )


def _why_not(verdict: Verdict | None, attribute: str) -> str:
    return "" if carries(verdict, attribute) else why_off(verdict) or LEFT_OUT


def _decider(record: Record | None) -> str | None:
    return record.decided_by if record else None
