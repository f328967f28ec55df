# SPDX-License-Identifier: Apache-2.0
"""Policy, ledger and time → what may run: a permit, a pending one or a refusal for every flow.

Path: policy, ledger, clock → **gate** → Permit → lane.

Law, in the order in which a flow is judged; the first that fails is the reason given:
  - the policy can be used, is in force, and declares every cell of the flow;
  - somebody decided: the newest record of exactly this flow is a yes, and its end has not come;
  - the owner said it, in the word of the flow's function: given or renewed for an optional flow,
    accepted for a core one (policy C01, C02);
  - a core flow rests on a contract or a legal obligation, and goes to the controller or its
    processor;
  - the terms in force are the same as the agreed ones or narrower (policy C33);
  - the recipient has admitted this gateway; the keys it rests on can be read; the form that lies
    there can be read, or the flow is core; the clock is trusted. Where only that fails the permit
    is pending: the flow is held.
Anything else denies. A flow that the result does not name may not run either.

Standards: W3C DPV 2 for the words of a decision.
Security: pure and total: what it is given decides, no file, no clock, no default. It believes the
policy because it was signed, and the ledger because it was verified.
Limits: exemptions by a signed grant (policy C12) and do-not-track (policy C34) are not known here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec

from agent.path import Carried, Pending, Permit, Reason, Refusal, Verdict
from agent.records import OWNER, Record, State
from assent.errors import PolicyError
from assent.policy.model import CORE_BASES, CORE_ROLES, Policy
from assent.policy.signing import SignedPolicy
from assent.policy.terms import Terms, compare, terms_of

_WORDS: Final = {
    "core": frozenset({State.ACCEPTED}),
    "optional": frozenset({State.GIVEN, State.RENEWED}),
}
_DAY: Final = dt.timedelta(days=1)


class LedgerView(Protocol):
    """What the gate asks of a ledger."""

    @property
    def unknown_since_ms(self) -> int | None:
        """Since when earlier decisions are unknown."""

    @property
    def policy_versions(self) -> AbstractSet[str]:
        """Versions of the policy under which anything was decided."""

    def newest(self, flow: str) -> Record | None:
        """The record that decides a flow."""

    def unbroken_since(self, flow: str, terms: Terms) -> int | None:
        """Start of the unbroken yes that covers some terms."""


class _House(msgspec.Struct, frozen=True):
    """What every flow is judged by."""

    policy: Policy
    trouble: Reason | None
    ledger: LedgerView
    form_broken: bool
    admitted: frozenset[str]
    shut: Mapping[str, str]
    clock_trusted: bool
    now_ms: int
    # The latest moment that is known to be past: an end before it has come, trusted clock or not.
    past_ms: int

    def has_come(self, end_ms: int | None) -> bool:
        return end_ms is not None and end_ms <= self.past_ms

    def by_the_floor(self, end_ms: int | None) -> str:
        """What to add where the clock says that an end is still to come."""
        is_to_come = end_ms is not None and end_ms > self.now_ms
        return "by a time that was trusted before" if is_to_come else ""


def decide(
    policy: SignedPolicy | None,
    trouble: Reason | None,
    ledger: LedgerView,
    *,
    form_broken: bool,
    admitted: frozenset[str],
    now_ms: int,
    clock_trusted: bool,
    floor_ms: int,
    shut: Mapping[str, str],
) -> dict[str, Verdict]:
    """Judges every flow of the policy.

    Args:
        policy: the policy as opened and verified, or None.
        trouble: why no flow may run whatever was decided, or None.
        ledger: the verified records.
        form_broken: whether a consent form lies there that does not validate.
        admitted: ids of the recipients that admitted this gateway.
        now_ms: the wall clock, ms since 1970 UTC.
        clock_trusted: whether it is known to be right.
        floor_ms: the time that is surely past: last trusted time plus uptime since.
        shut: of each flow that rests on a key that cannot be read, which one.

    Returns:
        A verdict for every flow of the policy; empty without one.
    """
    if policy is None:
        return {}
    past_ms = max(now_ms, floor_ms) if clock_trusted else floor_ms
    house = _House(
        policy.policy,
        trouble,
        ledger,
        form_broken,
        admitted,
        shut,
        clock_trusted,
        now_ms,
        past_ms,
    )
    return {flow: _judge(house, flow) for flow in policy.policy.flows}


def _judge(house: _House, flow: str) -> Verdict:
    if (refusal := _of_policy(house, flow)) is not None:
        return refusal
    try:
        terms = terms_of(house.policy, flow)
    except PolicyError as exc:
        return Refusal(flow, Reason.POLICY_UNUSABLE, exc.message)
    record = house.ledger.newest(flow)
    if record is None:
        return _undecided(house, flow)
    refusal = _of_record(house, record) or _of_terms(record, terms) or _of_house(house, record)
    since_ms = house.ledger.unbroken_since(flow, terms)
    if refusal is None and since_ms is not None:
        permit = _permit(house, record, terms, since_ms)
        return permit if house.clock_trusted else Pending(permit)
    return refusal or Refusal(flow, Reason.REQUESTED, "no yes reaches up to now")


def _of_policy(house: _House, flow: str) -> Refusal | None:
    """Why no flow of this policy may run."""
    if house.trouble is not None:
        return Refusal(flow, house.trouble)
    if house.has_come(end_of(house.policy)):
        detail = f"the policy ended on {house.policy.policy.not_after}"
        return Refusal(flow, Reason.POLICY_UNUSABLE, detail)
    return None


def _undecided(house: _House, flow: str) -> Refusal:
    if house.ledger.unknown_since_ms is not None:
        return Refusal(flow, Reason.CONSENT_UNKNOWN, "the ledger was lost; it takes a new decision")
    versions = house.ledger.policy_versions
    if versions and house.policy.policy.version not in versions:
        return Refusal(flow, Reason.REQUESTED, "nobody was asked under this policy")  # policy C04
    return Refusal(flow, Reason.NOT_DECIDED)


def _of_record(house: _House, record: Record) -> Refusal | None:
    """Why the newest record is no yes that stands."""
    if not record.state.is_yes:
        reason = Reason.WITHDRAWN if record.state is State.WITHDRAWN else Reason.REFUSED
        return Refusal(record.flow, reason)
    if house.has_come(record.until_ms):
        return Refusal(record.flow, Reason.EXPIRED, house.by_the_floor(record.until_ms))
    if record.decided_by != OWNER:
        return Refusal(record.flow, Reason.REQUESTED, "the yes was not the owner's")
    return None


def _of_terms(record: Record, terms: Terms) -> Refusal | None:
    """Why a yes is not one to the terms in force."""
    if record.terms is None:
        return Refusal(record.flow, Reason.REQUESTED, "the yes names no terms")
    wider = [d for d in compare(record.terms, terms).differences if d.wider]
    if wider:
        told = (f"{d.what}: {d.agreed or 'nothing'} → {d.current or 'nothing'}" for d in wider)
        return Refusal(record.flow, Reason.REQUESTED, "; ".join(told))
    if record.state not in _WORDS[terms.function]:
        return Refusal(record.flow, Reason.REQUESTED, f"not the word of a {terms.function} flow")
    if {attribute.name for attribute in terms.attributes} <= set(record.without):
        return Refusal(record.flow, Reason.REQUESTED, "nothing is left of what was agreed")
    return _of_core(record, terms) if terms.function == "core" else None


def _of_core(record: Record, terms: Terms) -> Refusal | None:
    """Why a core flow may not run on an acceptance."""
    if terms.basis not in CORE_BASES:
        detail = f"a core flow cannot rest on {terms.basis}"
        return Refusal(record.flow, Reason.BASIS_UNFIT, detail)
    if terms.role not in CORE_ROLES:
        return Refusal(record.flow, Reason.BASIS_UNFIT, f"a core flow cannot go to a {terms.role}")
    return None


def _of_house(house: _House, record: Record) -> Refusal | None:
    """Why a yes to these terms cannot run at present."""
    flow = house.policy.flows[record.flow]
    if flow.recipient not in house.admitted:
        return Refusal(record.flow, Reason.NOT_ENROLLED, f"{flow.recipient} has not admitted us")
    if record.flow in house.shut:
        return Refusal(record.flow, Reason.KEY_UNREADABLE, house.shut[record.flow])
    if house.form_broken and flow.function != "core":
        return Refusal(record.flow, Reason.FORM_BROKEN)
    return None


def _permit(house: _House, record: Record, terms: Terms, since_ms: int) -> Permit:
    flow = house.policy.flows[record.flow]
    ends = [end for end in (record.until_ms, end_of(house.policy)) if end is not None]
    return Permit(
        flow=record.flow,
        recipient=flow.recipient,
        terms_hash=terms.hash,
        record=record.id,
        carried=tuple(
            Carried(name, house.policy.attributes[name], transform)
            for name, transform in flow.attributes.items()
            if name not in record.without
        ),
        not_before_ms=since_ms,
        not_after_ms=min(ends, default=None),
        epoch_ms=int(flow.epoch),
        keep_ms=int(flow.keep.gateway),
        max_readings=flow.batch.readings,
        max_age_ms=int(flow.batch.age),
        urgent=frozenset(flow.batch.urgent),
        core=flow.function == "core",
    )


def end_of(policy: Policy) -> int | None:
    """When a policy's last day is over, ms since 1970 UTC.

    Args:
        policy: the policy.

    Returns:
        The first instant after it, or None where it has no end.
    """
    last = policy.policy.not_after
    if last is None or last == dt.date.max:
        return None
    after = dt.datetime.combine(last + _DAY, dt.time(), dt.UTC)
    return int(after.timestamp()) * 1000
