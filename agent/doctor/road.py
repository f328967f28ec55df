# SPDX-License-Identifier: Apache-2.0
"""The agent itself: policy, consent, clock, spool, devices, brokers; from what `status` tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agent.answers import Status
from agent.doctor.checks import ENROL, Check, bad, good, odd
from agent.path import Reason

_ASK: Final = "see: assent consent show"
# What stands against a flow that nobody refused, and what helps.
_HELP: Final = {
    Reason.NOT_ENROLLED.value: "give the request to its recipient, then: assent enrol FILE",
    Reason.POLICY_UNUSABLE.value: "see the policy above",
    Reason.CONSENT_UNKNOWN.value: "ask the household anew: assent consent ask",
    Reason.FORM_BROKEN.value: "see: assent check",
    Reason.NOT_DECIDED.value: "ask the household: assent consent ask",
    Reason.EXPIRED.value: "ask the household whether it still agrees: assent consent ask",
    Reason.REQUESTED.value: f"ask the household about the new terms; {_ASK}",
    Reason.BASIS_UNFIT.value: "tell the maker: this flow of its policy can run nowhere",
    Reason.HELD.value: "see the clock above",
}
_MEND: Final = "assent status tells why; stop the agent, then: assent enrol MAKER.bundle"
_SET: Final = (
    "let a time service set it: timedatectl set-ntp true, or chrony as docs/units.md says; where a"
    ' hardware clock with a battery is: trust = "rtc" in [clock] of agent.toml, and start the agent'
    ' again; trust = "system" only where the clock is known to be right without either'
)
_CHOSEN: Final = (Reason.REFUSED.value, Reason.WITHDRAWN.value)
# States of a device (firmware_bridge/supervisor.py) in which nobody has to do anything.
_AT_WORK: Final = frozenset({"running", "starting", "not wanted", "ended", "stopped"})
# What the sources of registers, and their keeper, say; others may name a file (profiles).
_SAFE: Final = re.compile(
    r"(unit \d+ |the serial port |there is no such serial port|the device (cannot|has)|"
    r"the connection to the device |nothing came for |a call into the source |"
    r"two devices of one port |\d+ of \d+ fields |the unit answers nothing)[^/\n]*\Z"
)


def road(status: Status, quota_bytes: int) -> Iterator[Check]:
    """Looks at everything the agent tells.

    Args:
        status: the answer to `status`.
        quota_bytes: of the spool.
    """
    yield _agent(status)
    yield _policy(status)
    yield _clock(status)
    if status.notices:
        yield odd("notices", f"the agent has {len(status.notices)} to tell", "see: assent status")
    yield from _flows(status)
    yield _spool(status, quota_bytes)
    yield from _devices(status)
    yield from _certificates(status)
    yield from _uplinks(status)
    if status.rejected:
        counted = ", ".join(f"{count} {reason}" for reason, count in status.rejected.items())
        yield odd("downlink", f"messages from below were refused: {counted}")


def _agent(status: Status) -> Check:
    if status.running:
        return good("agent", "runs and answers")
    return odd("agent", "does not run", "type: systemctl start assent.target, or: assent run")


def _policy(status: Status) -> Check:
    if not status.enrolled:
        return bad("policy", "no policy key is trusted", ENROL)
    policy = status.policy
    if policy is None:
        return bad("policy", "is not usable, so that every flow is off", _MEND)
    return good("policy", f"{policy.id} {policy.version}, serial {policy.serial}")


def _clock(status: Status) -> Check:
    if not status.clock_trusted:
        return bad("clock", status.clock, _SET)
    return good("clock", status.clock)


def _flows(status: Status) -> Iterator[Check]:
    if status.form_trouble:
        yield bad("form", "is not usable, so that optional flows pause", "see: assent check")
    if status.flows and not any(flow.on for flow in status.flows):
        yield odd("consent", "no flow is on, so nothing is collected and nothing connects", _ASK)
    for flow in status.flows:
        subject = f"flow {flow.flow}"
        if flow.reason is None:
            last = flow.last_acknowledged or "never"
            yield good(subject, f"is on; last acknowledged: {last}")
        elif flow.reason == Reason.KEY_UNREADABLE.value:
            yield bad(subject, f"is off: {flow.detail}")
        elif flow.reason in _CHOSEN:
            yield good(subject, f"is off: {flow.reason} by the household")
        else:
            yield odd(subject, f"is off: {flow.reason}", _HELP.get(flow.reason, _ASK))


def _spool(status: Status, quota_bytes: int) -> Check:
    waiting = [flow.waiting for flow in status.flows]
    batches = sum(one.batches for one in waiting)
    size = sum(one.bytes for one in waiting)
    told = f"{batches} batches wait, {size} of {quota_bytes} bytes"
    if any(one.too_large for one in waiting):
        return bad(
            "spool", f"{told}; some are too large for the broker", "raise the broker's limit"
        )
    if 2 * size > quota_bytes:
        return odd("spool", told, "see the uplink below: the oldest are dropped when it is full")
    return good("spool", told)


def _devices(status: Status) -> Iterator[Check]:
    for number, device in enumerate(status.devices, 1):
        subject = f"device {number}"
        told = f"{device.kind}, {device.state}"
        if device.age_s is not None:
            told += f", last sample {device.age_s:.0f} s ago"
        why = _reason(device.detail)
        if why:
            told += f": {why}"
        help_ = "" if why else "see: assent status, which tells why"
        if device.state not in _AT_WORK:
            yield bad(subject, told, help_)
        elif device.detail:
            yield odd(subject, told, "compare the profile's addresses with the maker's document")
        else:
            yield good(subject, told)


def _reason(detail: str) -> str:
    """What a source says is wrong, where it is one of the sentences that name nothing private."""
    return detail if _SAFE.match(detail) else ""


def _certificates(status: Status) -> Iterator[Check]:
    for one in status.certificates:
        subject = f"certificate {one.recipient}"
        if one.due:
            help_ = f"type: assent enrol --renew {one.recipient}"
            yield odd(subject, f"ends on {one.ends}", help_)
        else:
            yield good(subject, f"is good until {one.ends}")


def _uplinks(status: Status) -> Iterator[Check]:
    for uplink in status.uplinks:
        subject = f"uplink {uplink.recipient}"
        if uplink.state == "gone":
            yield odd(subject, uplink.detail, "start it; its log says why the last one ended")
            continue
        told = f"{uplink.state} since {uplink.since}"
        if uplink.detail:
            told += f" ({uplink.detail})"
        if uplink.state in {"connected", "idle"}:
            yield good(subject, told)
        else:
            yield odd(subject, told, "it tries again by itself; check network and broker")
