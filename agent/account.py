# SPDX-License-Identifier: Apache-2.0
"""What the agent tells about itself: status and consent.

Law: identifiers, keys and values of people are never part of it; a flow that is off says why.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping
from typing import overload

from agent.answers import (
    Certificate,
    Consent,
    Decided,
    Departed,
    DeviceStatus,
    Difference,
    FlowConsent,
    FlowStatus,
    History,
    InForce,
    Keeping,
    Packed,
    PolicyHead,
    Sent,
    Status,
    UplinkStatus,
    Waits,
)
from agent.ledger import Ledger
from agent.notices import notices_of
from agent.path import Pending, Permit, Reason, Refusal, Verdict, permit_of
from agent.pipeline.running import Running
from agent.pipeline.tally import Tally
from agent.reasons import held_back
from agent.records import PolicyInForce
from agent.renewal import due, ends_of
from agent.site import Site
from agent.spool import Spool
from agent.spool.records import Health as LinkHealth
from agent.spool.records import Held, Waiting
from assent.errors import PolicyError
from assent.policy.model import Flow, Policy
from assent.policy.terms import compare, terms_of
from firmware_bridge.health import Health
from firmware_bridge.sample import Instant

# A clock that was put right by less than this needs nobody's attention.
_BEHIND_MS = 60_000
_NOTHING = Waiting(
    batches=0, readings=0, bytes=0, oldest_ms=None, last_acknowledged_ms=None, too_large=0
)


def status_of(
    site: Site,
    spool: Spool,
    now: Instant,
    *,
    verdicts: Mapping[str, Verdict],
    devices: Iterable[Health],
    delivered: Mapping[str, frozenset[str]],
    is_running: bool,
    is_carried: bool,
    running_lanes: Running,
    rejected: Mapping[str, int],
    grounds: str,
) -> Status:
    """Everything `assent status` prints."""
    policy = site.policy.policy if site.policy else None
    waiting, held = spool.waiting(), spool.held()
    flows = policy.flows if policy else {}
    endings = due(site, now)
    return Status(
        running=is_running,
        pid=os.getpid() if is_running else None,
        enrolled=site.keys.has_policy_key(),
        policy=_policy_head(policy),
        policy_trouble=str(site.trouble) if site.trouble else None,
        form_trouble=site.form_trouble,
        clock=_clock(site, now, grounds),
        clock_trusted=site.settings.clock_is_system or now.trusted,
        notices=[
            *_of_the_clock(site, now),
            *notices_of(site, spool),
            *endings.values(),
            *running_lanes.keeping.notices(),
        ],
        certificates=[
            Certificate(name, instant(end_ms), endings.get(name))
            for name, end_ms in ends_of(site).items()
        ],
        flows=[
            _flow_status(
                name,
                flow,
                verdicts.get(name),
                running_lanes,
                waiting=waiting.get(name, _NOTHING),
                held=held.get(name),
            )
            for name, flow in flows.items()
        ],
        devices=[
            _device(
                health,
                held_back(delivered.get(health.device_id, frozenset()), flows, verdicts),
                now,
            )
            for health in devices
        ],
        uplinks=_uplinks(spool, verdicts, is_carried=is_carried) if is_running else [],
        rejected=dict(rejected),
    )


def consent_of(site: Site, ledger: Ledger, verdicts: Mapping[str, Verdict]) -> Consent:
    """Everything `assent consent show` prints: what would leave, why, and what was decided."""
    policy = site.policy.policy if site.policy else None
    return Consent(
        policy_trouble=str(site.trouble) if site.trouble else None,
        version=policy.policy.version if policy else None,
        flows=[_flow_consent(policy, ledger, name, verdicts.get(name)) for name in policy.flows]
        if policy
        else [],
    )


def history_of(ledger: Ledger) -> History:
    """Everything `assent consent history` prints: decisions and policies, oldest first."""
    records = sorted(
        (record for entry in ledger.entries if (record := entry.record) is not None),
        key=lambda record: record.at_ms,
    )
    return History(
        decisions=[
            Decided(
                at=instant(record.at_ms),
                decided_at=instant(record.decided_ms),
                flow=record.flow,
                decision=record.state.value,
                policy=record.policy_version,
                decided_by=record.decided_by,
                recorded_by=record.recorded_by,
                method=record.method,
                until=instant(record.until_ms),
                without=list(record.without),
                record=record.id.hex(),
                terms=record.terms.hash.hex() if record.terms else None,
            )
            for record in records
        ],
        policies=[
            InForce(instant(entry.at_ms), entry.body.serial, entry.body.hash.hex())
            for entry in ledger.entries
            if isinstance(entry.body, PolicyInForce)
        ],
    )


def sent_of(spool: Spool, limit: int, flow: str | None) -> Sent:
    """Everything `assent sent` prints: what left, the newest first."""
    return Sent(
        [
            Departed(
                at=instant(one.at_ms),
                flow=one.flow,
                recipient=one.recipient,
                readings=one.readings,
                bytes=one.size,
                digest=one.digest.hex(),
                confirmed=one.confirmed,
            )
            for one in spool.sent(limit, flow)
        ]
    )


@overload
def instant(ms: int) -> str: ...


@overload
def instant(ms: int | None) -> str | None: ...


def instant(ms: int | None) -> str | None:
    """An instant as RFC 3339 text in UTC, to the second."""
    if ms is None:
        return None
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _policy_head(policy: Policy | None) -> PolicyHead | None:
    if policy is None:
        return None
    head = policy.policy
    return PolicyHead(head.id, head.version, head.serial, head.controller)


def _clock(site: Site, now: Instant, grounds: str) -> str:
    if site.settings.clock_is_system:
        return "trusted as it is (clock.trust = system)"
    if not now.trusted:
        return f"not trusted yet: {grounds}; what comes is held here, sealed, until it is"
    return f"told by a recipient: {grounds}" if now.told else f"trusted: {grounds}"


def _of_the_clock(site: Site, now: Instant) -> list[str]:
    """What to know of a trusted clock that is behind what one told before."""
    if site.floor.behind_ms(now) < _BEHIND_MS:
        return []
    return [
        (
            f"the clock was trusted as {instant(site.floor.past_ms(now))} before, and as"
            f" {instant(now.wall_ms)} now: what ends before the first has ended; if that was a"
            " mistake, a new yes without an end, or with a later one, runs"
        )
    ]


def _flow_status(
    name: str,
    flow: Flow,
    verdict: Verdict | None,
    running: Running,
    *,
    waiting: Waiting,
    held: Held | None,
) -> FlowStatus:
    """With what was done since the process began; zeros while none runs."""
    on, reason, detail = _standing(verdict)
    tally = running.tallies.get(name) or Tally()
    lane = running.lanes().get(name)
    return FlowStatus(
        flow=name,
        function=flow.function,
        recipient=flow.recipient,
        on=on,
        reason=reason,
        detail=detail,
        waiting=Waits(waiting.batches, waiting.readings, waiting.bytes, waiting.too_large),
        last_acknowledged=instant(waiting.last_acknowledged_ms),
        held=held,
        sealed=Packed(tally.messages, tally.readings, tally.bytes),
        purged=tally.purged,
        lost=running.lost[name],
        dropped={reason.value: count for reason, count in lane.dropped.items()} if lane else {},
    )


def _standing(verdict: Verdict | None) -> tuple[bool, str | None, str]:
    """Whether a flow leaves, the reason why not, and what to add to it."""
    match verdict:
        case Permit():
            return True, None, ""
        case Pending():
            return False, Reason.HELD.value, ""
        case Refusal(reason=reason, detail=detail):
            return False, reason.value, detail
        case None:  # Pipeline.denied
            return False, Reason.REFUSED.value, "the ledger did not take this no yet"


def _flow_consent(
    policy: Policy, ledger: Ledger, name: str, verdict: Verdict | None
) -> FlowConsent:
    on, reason, detail = _standing(verdict)
    flow = policy.flows[name]
    recipient = policy.recipients[flow.recipient]
    record = ledger.newest(name)
    return FlowConsent(
        flow=name,
        function=flow.function,
        purpose=flow.purpose,
        notice=flow.notice.get("en") or next(iter(flow.notice.values())),
        basis=flow.basis,
        recipient=flow.recipient,
        role=recipient.role,
        region=recipient.region,
        attributes={attribute: str(how) for attribute, how in flow.attributes.items()},
        about={
            attribute: [
                policy.attributes[attribute].about,
                how.words(policy.attributes[attribute].unit),
            ]
            for attribute, how in flow.attributes.items()
        },
        separate=flow.separate,
        keep=Keeping(str(flow.keep.gateway), str(flow.keep.recipient), flow.keep.then),
        decision=record.state.value if record else None,
        decided_at=instant(record.at_ms) if record else None,
        until=instant(record.until_ms) if record else None,
        without=list(record.without) if record else [],
        differences=_differences(policy, ledger, name),
        on=on,
        reason=reason,
        detail=detail,
    )


def _differences(policy: Policy, ledger: Ledger, flow: str) -> list[Difference]:
    """What is another now than in the terms that were agreed to (policy C33)."""
    record = ledger.newest(flow)
    if record is None or record.terms is None or not record.state.is_yes:
        return []
    try:
        found = compare(record.terms, terms_of(policy, flow)).differences
    except PolicyError:  # then the flow is off for that reason, and says so
        return []
    return [Difference(one.what, one.agreed, one.current, one.wider) for one in found]


def _device(health: Health, held: dict[str, str], now: Instant) -> DeviceStatus:
    last = health.last_sample_ms
    return DeviceStatus(
        id=health.device_id,
        kind=health.kind,
        state=health.state.value,
        detail=health.error or "",
        age_s=None if last is None else (now.wall_ms - last) / 1000,
        samples=health.samples,
        held_back=held,
    )


def _uplinks(
    spool: Spool, verdicts: Mapping[str, Verdict], *, is_carried: bool
) -> list[UplinkStatus]:
    said = spool.health()
    if is_carried:
        return [_uplink(name, health) for name, health in sorted(said.items())]
    # What one said last is not true any more; one that never ran has said nothing.
    awaited = {
        permit_of(verdict).recipient
        for verdict in verdicts.values()
        if isinstance(verdict, Permit | Pending)
    }
    return [
        UplinkStatus(name, "gone", "no uplink runs", since=None)
        for name in sorted(awaited | said.keys())
    ]


def _uplink(recipient: str, health: LinkHealth) -> UplinkStatus:
    return UplinkStatus(recipient, health.state.value, health.detail, instant(health.since_ms))
