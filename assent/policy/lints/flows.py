# SPDX-License-Identifier: Apache-2.0
"""Lints of the flows themselves: basis, recipient, notice, retention, epoch, batch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final

from assent.nearest import nearest
from assent.policy.expressions import Op
from assent.policy.lints.nits import Lint, Nit, carried, error, warning
from assent.policy.model import CORE_BASES, CORE_ROLES, Flow, Policy
from assent.units import Duration

_SHARING: Final = frozenset(("affiliate", "partner", "authority", "public"))
# policy C13: neither the contract nor the finding of faults authorises sharing
_NO_SHARING: Final = frozenset(("contract", "safe_operation"))
# keep shows single values, pseudonym single devices, delta adds up to the counter again
_NOT_ANONYMISING: Final = frozenset((Op.KEEP, Op.PSEUDONYM, Op.DELTA))

MAX_READINGS: Final = 10_000  # the largest batch that benchmarks/ measures
BATCH_AGES: Final = (Duration.parse("1s"), Duration.parse("1d"))
EPOCHS: Final = (Duration.parse("1h"), Duration.parse("366d"))
USUAL_EPOCHS: Final = (Duration.parse("1d"), Duration.parse("90d"))


def policy_has_flows(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A policy without flows says nothing."""
    if not policy.flows:
        yield Nit(("flows",), "expected at least one flow, got none")


def flow_carries(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A flow carries at least one attribute."""
    for flow_id, flow in policy.flows.items():
        if not flow.attributes:
            yield Nit(("flows", flow_id, "attributes"), "expected at least one attribute, got none")


def recipient_is_known(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A flow goes to a recipient of the policy."""
    for flow_id, flow in policy.flows.items():
        if flow.recipient not in policy.recipients:
            message = f"expected a recipient of the policy, got {flow.recipient!r}"
            hint = nearest(flow.recipient, policy.recipients)
            yield Nit(("flows", flow_id, "recipient"), message, hint)


def notice_is_given(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Nobody is asked without being told (policy C04)."""
    for flow_id, flow in policy.flows.items():
        path = ("flows", flow_id, "notice")
        if not flow.notice:
            yield Nit(path, "expected a notice in at least one language, got none")
        for language, text in flow.notice.items():
            if not text.strip():
                yield Nit((*path, language), "expected what a person is told, got a blank")


def notice_is_its_own(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Two flows with the same notice are one question asked twice."""
    seen: dict[tuple[str, str], str] = {}
    for flow_id, flow in policy.flows.items():
        for language, text in flow.notice.items():
            other = seen.setdefault((language, text.strip()), flow_id)
            if other != flow_id:
                message = f"expected a notice of its own, got the one of {other!r}"
                yield Nit(("flows", flow_id, "notice", language), message)


def notice_has_every_language(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Who can read one notice can read them all."""
    languages = {language for flow in policy.flows.values() for language in flow.notice}
    for flow_id, flow in policy.flows.items():
        for language in sorted(languages - flow.notice.keys()):
            message = f"expected a notice in {language!r}, as other flows have"
            yield Nit(("flows", flow_id, "notice"), message)


def core_has_its_basis(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A core flow rests on contract or law, and stays with the controller (policy C02, C14)."""
    for flow_id, flow in policy.flows.items():
        if flow.function != "core":
            continue
        if flow.basis not in CORE_BASES:
            message = f"expected a core flow on contract or legal_obligation, got {flow.basis!r}"
            yield Nit(("flows", flow_id, "basis"), message)
        role = _role(policy, flow)
        if role is not None and role not in CORE_ROLES:
            message = f"expected a core flow to go to a controller or processor, got {role!r}"
            yield Nit(("flows", flow_id, "recipient"), message)


def optional_is_no_contract(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """What a contract or the law demands is no option; an optional flow is asked for."""
    for flow_id, flow in policy.flows.items():
        if flow.function == "optional" and flow.basis in CORE_BASES:
            message = f"expected an optional flow on consent, got {flow.basis!r}"
            yield Nit(("flows", flow_id, "basis"), message, "or make it core")


def sharing_has_its_basis(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Contract and fault finding never authorise sharing (policy C13)."""
    for flow_id, flow in policy.flows.items():
        role = _role(policy, flow)
        if role in _SHARING and flow.basis in _NO_SHARING:
            message = f"expected consent for sharing with a recipient of role {role!r}"
            yield Nit(("flows", flow_id, "basis"), f"{message}, got {flow.basis!r}")


def separate_where_due(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Sharing, going abroad and sensitive data are a yes of their own (policy C15, C16, C17)."""
    for flow_id, flow in policy.flows.items():
        why = _why_separate(policy, flow)
        if why is not None and not flow.separate:
            message = f"expected separate = true, because {why}, got false"
            yield Nit(("flows", flow_id, "separate"), message)


def public_is_anonymous(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """What is disclosed to the public tells of nobody (policy C16)."""
    for c in carried(policy):
        if _role(policy, c.flow) == "public" and c.transform.op in _NOT_ANONYMISING:
            message = f"expected an anonymising transform for the public, got {c.transform}"
            yield Nit(c.path, message, "window, round, grid, prefix or enum")


def links_are_optional(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Linking is its own consent, so it is never part of a core flow (policy C10)."""
    for flow_id, flow in policy.flows.items():
        if flow.links and flow.function == "core":
            yield Nit(("flows", flow_id, "links"), "expected no links in a core flow, got some")


def withdrawal_only_stops(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A promise to erase on withdrawal is refused while this version cannot erase remotely."""
    for flow_id, flow in policy.flows.items():
        if flow.on_withdraw == "stop+erase":
            message = "expected 'stop', this version cannot keep the promise of 'stop+erase'"
            yield Nit(("flows", flow_id, "on_withdraw"), message)


def retention_is_positive(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Values live for a while at both ends, longer than a batch takes to fill."""
    for flow_id, flow in policy.flows.items():
        path = ("flows", flow_id, "keep")
        if flow.keep.recipient <= 0:
            yield Nit((*path, "recipient"), "expected a time to live over 0, got 0s")
        if flow.keep.gateway <= flow.batch.age:
            message = f"expected to live longer than a batch's age {flow.batch.age}"
            yield Nit((*path, "gateway"), f"{message}, got {flow.keep.gateway}")


def recipient_keeps_longer(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A value that waited on the gateway is not due for deletion when it arrives."""
    for flow_id, flow in policy.flows.items():
        if flow.keep.recipient < flow.keep.gateway:
            message = f"expected the recipient to keep as long as the gateway ({flow.keep.gateway})"
            yield Nit(("flows", flow_id, "keep", "recipient"), f"{message}, got less")


def epoch_is_possible(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Pseudonyms rotate, and not with every batch."""
    yield from _epochs(policy, EPOCHS)


def epoch_is_usual(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Pseudonyms rotate between daily and quarterly."""
    yield from _epochs(policy, USUAL_EPOCHS)


def batch_is_bounded(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A batch closes on a timer and stays under the sizes the promises are measured with."""
    for flow_id, flow in policy.flows.items():
        path, (least, most) = ("flows", flow_id, "batch"), BATCH_AGES
        if not 1 <= flow.batch.readings <= MAX_READINGS:
            message = f"expected 1 to {MAX_READINGS} readings, got {flow.batch.readings}"
            yield Nit((*path, "readings"), message)
        if not least <= flow.batch.age <= most:
            message = f"expected an age from {least} to {most}, got {flow.batch.age}"
            yield Nit((*path, "age"), message)


def urgent_is_carried(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """What closes a batch at once is in the flow."""
    for flow_id, flow in policy.flows.items():
        for index, name in enumerate(flow.batch.urgent):
            if name not in flow.attributes:
                message = f"expected an attribute of the flow, got {name!r}"
                path = ("flows", flow_id, "batch", "urgent", index)
                yield Nit(path, message, nearest(name, flow.attributes))


def _epochs(policy: Policy, limits: tuple[Duration, Duration]) -> Iterator[Nit]:
    least, most = limits
    for flow_id, flow in policy.flows.items():
        if not least <= flow.epoch <= most:
            message = f"expected an epoch from {least} to {most}, got {flow.epoch}"
            yield Nit(("flows", flow_id, "epoch"), message)


def _role(policy: Policy, flow: Flow) -> str | None:
    recipient = policy.recipients.get(flow.recipient)
    return recipient.role if recipient else None


def _why_separate(policy: Policy, flow: Flow) -> str | None:
    recipient = policy.recipients.get(flow.recipient)
    if recipient is None:
        return None
    if recipient.role in _SHARING:
        return f"the recipient is of role {recipient.role!r}"
    # Home is where every controller of the policy is; with two homes either one is abroad.
    homes = {_country(r.region) for r in policy.recipients.values() if r.role == "controller"}
    if homes - {_country(recipient.region)}:
        return f"region {recipient.region!r} is abroad"
    known = (policy.attributes.get(name) for name in flow.attributes)
    if any(attribute is not None and attribute.sensitivity == "sensitive" for attribute in known):
        return "it carries sensitive data"
    return None


def _country(region: str) -> str:
    return region.partition("-")[0]


LINTS: Final[dict[str, Lint]] = {
    "policy-has-flows": warning(policy_has_flows),
    "flow-carries": error(flow_carries),
    "recipient-is-known": error(recipient_is_known),
    "notice-is-given": error(notice_is_given),
    "notice-is-its-own": warning(notice_is_its_own),
    "notice-has-every-language": warning(notice_has_every_language),
    "core-has-its-basis": error(core_has_its_basis),
    "optional-is-no-contract": warning(optional_is_no_contract),
    "sharing-has-its-basis": error(sharing_has_its_basis),
    "separate-where-due": error(separate_where_due),
    "public-is-anonymous": error(public_is_anonymous),
    "links-are-optional": error(links_are_optional),
    "withdrawal-only-stops": error(withdrawal_only_stops),
    "retention-is-positive": error(retention_is_positive),
    "recipient-keeps-longer": warning(recipient_keeps_longer),
    "epoch-is-possible": error(epoch_is_possible),
    "epoch-is-usual": warning(epoch_is_usual),
    "batch-is-bounded": error(batch_is_bounded),
    "urgent-is-carried": error(urgent_is_carried),
}
