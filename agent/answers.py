# SPDX-License-Identifier: Apache-2.0
"""What the agent answers, as whoever asked and whoever answers both know it.

Path: account, desk → **answers** → control → command line; the fields are those of `--json`.
Law: an answer that is read as another one is an error, and never one with something missing.
Limits: an agent of another version that runs on is met with that error, where a field is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agent.spool import Purged
from agent.spool.records import Held
from assent.errors import ControlError

_Answer = TypeVar("_Answer", bound=msgspec.Struct)


def told(answer: msgspec.Struct) -> dict[str, Any]:
    """An answer as JSON has it."""
    return dict(msgspec.to_builtins(answer))


def read(message: Mapping[str, Any], kind: type[_Answer]) -> _Answer:
    """An answer as it came.

    Raises:
        ControlError: it is no such answer.
    """
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError as exc:
        raise ControlError(
            "the agent answers in other words than this command knows",
            hint="what was asked for may have happened; start the agent anew, and ask again",
        ) from exc


class PolicyHead(msgspec.Struct, frozen=True):
    """The policy in force."""

    id: str
    version: str
    serial: int
    controller: str


class Certificate(msgspec.Struct, frozen=True):
    """A certificate in use: whose, when it ends (RFC 3339), and what to do where that is soon."""

    recipient: str
    ends: str | None
    due: str | None


class Waits(msgspec.Struct, frozen=True):
    """What waits of a flow; see `agent.spool.records.Waiting`."""

    batches: int
    readings: int
    bytes: int
    too_large: int


class Packed(msgspec.Struct, frozen=True):
    """What was sealed of a flow since the process began."""

    messages: int
    readings: int
    bytes: int


class FlowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a flow is.

    Attributes:
        flow: its id.
        function: `core` or `optional`.
        recipient: whom it goes to.
        on: whether it leaves now.
        reason: why not, the value of a `Reason`; None where it is on.
        detail: what to add to that, or empty.
        waiting: what waits of it.
        last_acknowledged: when its recipient last confirmed a batch, RFC 3339, or None.
        held: what waits of it for the time to be known, or None.
        sealed: what was sealed.
        purged: what was deleted of it.
        lost: readings that were lost.
        dropped: readings that did not enter it, by reason.
    """

    flow: str
    function: str
    recipient: str
    on: bool
    reason: str | None
    detail: str
    waiting: Waits
    last_acknowledged: str | None
    held: Held | None
    sealed: Packed
    purged: Purged
    lost: int
    dropped: dict[str, int]


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is.

    Attributes:
        id: of this installation.
        kind: what it is.
        state: the value of a `firmware_bridge.health.State`.
        detail: what is wrong, or empty.
        age_s: seconds since its last sample, or None.
        samples: how many came.
        held_back: why each attribute of it leaves in no flow.
    """

    id: str
    kind: str
    state: str
    detail: str
    age_s: float | None
    samples: int
    held_back: dict[str, str]


class UplinkStatus(msgspec.Struct, frozen=True):
    """How the way to a recipient is, and since when (RFC 3339)."""

    recipient: str
    state: str
    detail: str
    since: str | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `assent status` prints.

    Attributes:
        running: whether an agent answers, and not the stores.
        pid: its process, or None.
        enrolled: whether a policy key is trusted.
        policy: the one in force, or None.
        policy_trouble: why there is none.
        form_trouble: why the consent form cannot be used, or None.
        clock: what the clock is worth, for a person.
        clock_trusted: whether it is known to be right.
        notices: what somebody should know.
        certificates: those in use.
        flows: of the policy.
        devices: of agent.toml; none while no agent runs.
        uplinks: one for each recipient that is, or should be, connected to.
        rejected: messages from below that nobody believed, by reason.
    """

    running: bool
    pid: int | None
    enrolled: bool
    policy: PolicyHead | None
    policy_trouble: str | None
    form_trouble: str | None
    clock: str
    clock_trusted: bool
    notices: list[str]
    certificates: list[Certificate]
    flows: list[FlowStatus]
    devices: list[DeviceStatus]
    uplinks: list[UplinkStatus]
    rejected: dict[str, int]


class Difference(msgspec.Struct, frozen=True):
    """What is another in the terms now than was agreed to (policy C33)."""

    what: str
    agreed: str
    current: str
    wider: bool


class Keeping(msgspec.Struct, frozen=True):
    """How long a flow's readings are kept, here and there, and what comes then."""

    gateway: str
    recipient: str
    then: str


class FlowConsent(msgspec.Struct, frozen=True, kw_only=True):
    """What a flow carries, to whom and why, and what was decided about it.

    Attributes:
        flow: its id.
        function: `core` or `optional`.
        purpose: id of the purpose.
        notice: the purpose in words for a person.
        basis: the legal basis.
        recipient: whom it goes to.
        role: what the recipient is to the household.
        region: where the recipient is.
        attributes: what is done to each before it leaves, as the policy writes it.
        about: of each, what it is and how it leaves, for a person.
        separate: whether it takes a question of its own.
        keep: how long it is kept.
        decision: the newest word, the value of a `State`; None where nobody decided.
        decided_at: when it was recorded, RFC 3339, or None.
        until: when it ends, or None.
        without: attributes that were left out.
        differences: what is another now than was agreed to.
        on: whether it leaves now.
        reason: why not, the value of a `Reason`; None where it is on.
        detail: what to add to that, or empty.
    """

    flow: str
    function: str
    purpose: str
    notice: str
    basis: str
    recipient: str
    role: str
    region: str
    attributes: dict[str, str]
    about: dict[str, list[str]]
    separate: bool
    keep: Keeping
    decision: str | None
    decided_at: str | None
    until: str | None
    without: list[str]
    differences: list[Difference]
    on: bool
    reason: str | None
    detail: str


class Consent(msgspec.Struct, frozen=True):
    """Everything `assent consent show` prints; no version and no flows without a policy."""

    policy_trouble: str | None
    version: str | None
    flows: list[FlowConsent]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A word of the household, as the ledger has it; instants are RFC 3339."""

    at: str
    decided_at: str
    flow: str
    decision: str
    policy: str
    decided_by: str
    recorded_by: str
    method: str
    until: str | None
    without: list[str]
    record: str
    terms: str | None


class InForce(msgspec.Struct, frozen=True):
    """A policy that came into force, and when (RFC 3339)."""

    at: str
    serial: int
    hash: str


class History(msgspec.Struct, frozen=True):
    """Everything `assent consent history` prints, oldest first."""

    decisions: list[Decided]
    policies: list[InForce]


class Departed(msgspec.Struct, frozen=True):
    """A batch that left, and when (RFC 3339); its digest is SHA-256, hexadecimal."""

    at: str
    flow: str
    recipient: str
    readings: int
    bytes: int
    digest: str
    confirmed: bool


class Sent(msgspec.Struct, frozen=True):
    """Everything `assent sent` prints, the newest first."""

    sent: list[Departed]


class Applied(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a form.

    Attributes:
        acted: flows about which it decided.
        stayed: flows of which a line does not act.
        told: sentences for a person.
        certain: whether no uplink sends of what it ended; only told where not.
    """

    acted: list[str]
    stayed: list[str]
    told: list[str]
    certain: bool = True


class SaidNo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a no.

    Attributes:
        flow: its id.
        decision: what was recorded; `no` where it was left for the agent to record.
        purged: what was deleted; None where that is left to the agent.
        uplink: how the uplink stands to it; the value of an `Outcome`.
        certain: whether nothing of the flow leaves any more.
        told: sentences for a person.
    """

    flow: str
    decision: str
    purged: Purged | None = None
    uplink: str
    certain: bool
    told: list[str]
