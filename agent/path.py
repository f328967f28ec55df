# SPDX-License-Identifier: Apache-2.0
"""The frozen types of the path, in order: read this file first.

Path: Sample (firmware_bridge) → **Permit** (gate) → lane → **Batch** (lane) → **Sealed** (seal)
→ spool → broker → Opened (assent.envelope, at the backend).

Law:
  - each type is constructed in the one room its docstring names, tests excepted;
    `tests/test_house.py` reads the syntax trees and fails otherwise;
  - a Permit is the only thing a Lane can be built from; a flow without one has no Lane, so that
    there is nowhere to put its values;
  - a Batch holds values after transformation only; a Sealed can no longer be read here.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from assent.columns import Table
from assent.header import ClockQuality, Gap
from assent.policy.expressions import Transform
from assent.policy.model import Attribute


class Reason(enum.Enum):
    """Why a flow may not run now. The value is what `status` prints and `--json` carries."""

    NOT_ENROLLED = "not enrolled"
    """No trusted policy key, or no admission by the recipient."""
    POLICY_UNUSABLE = "policy unusable"
    """The policy is missing, unsigned, wrongly signed, gone back in serial, or does not load."""
    CONSENT_UNKNOWN = "consent unknown"
    """The ledger is unreadable or was moved aside; only a new act of the household helps."""
    FORM_BROKEN = "consent form broken"
    """The form cannot be read or does not validate; optional flows pause."""
    NOT_DECIDED = "not decided"
    """Nobody has said yes or no to this flow: silence is no."""
    REFUSED = "refused"
    """The household said no."""
    WITHDRAWN = "withdrawn"
    """The household said yes once and has taken it back."""
    EXPIRED = "expired"
    """The yes had an end date, and it has passed."""
    REQUESTED = "requested"
    """The terms are wider than what was agreed, or new: a person has to be asked again."""
    BASIS_UNFIT = "basis unfit"
    """The legal basis or the recipient's role does not allow a core flow to run on `accepted`."""
    KEY_UNREADABLE = "key cannot be read"
    """A key file that the flow rests on is damaged or lost; the detail names it."""
    HELD = "held until the time is known"
    """Nothing but a trusted clock is missing: what comes is sealed and stays here until then."""


ENROL: Final = "assent enrol MAKER.bundle --thumbprint TEXT"
"""What a person types where no policy key is trusted."""


class Carried(msgspec.Struct, frozen=True):
    """One attribute as a permit lets it through: its dictionary entry and its transform."""

    name: str
    attribute: Attribute
    transform: Transform


class Permit(msgspec.Struct, frozen=True):
    """This flow may run now. Made by agent/gate only.

    Attributes:
        flow: id of the flow.
        recipient: id of the recipient it is sealed for.
        terms_hash: SHA-256 of the terms in force (32 bytes).
        record: id of the consent record it rests on (16 bytes).
        carried: what the flow may carry: the policy's attributes less the household's `without`.
        not_before_ms: start of the unbroken yes that covers these terms; older events stay out.
        not_after_ms: first instant after the yes in ms since 1970 UTC, or None for no end.
        epoch_ms: length of a pseudonym epoch in ms.
        keep_ms: time to live on the gateway in ms.
        max_readings: a batch closes at this many readings.
        max_age_ms: or when its oldest reading is this old.
        urgent: attributes that close the batch at once.
        core: whether the flow is a core flow (dropped last when the disk is full).
    """

    flow: str
    recipient: str
    terms_hash: bytes
    record: bytes
    carried: tuple[Carried, ...]
    not_before_ms: int
    not_after_ms: int | None
    epoch_ms: int
    keep_ms: int
    max_readings: int
    max_age_ms: int
    urgent: frozenset[str]
    core: bool


class Pending(msgspec.Struct, frozen=True):
    """Nothing but the time is missing: held until it is known. Made by agent/gate only.

    It is no Permit: whoever asks for one is denied. A lane that is built from it counts from the
    boot, and what it seals stays in the spool until the gate has spoken again.

    Attributes:
        permit: what it rests on, should the time turn out to lie within it.
    """

    permit: Permit


class Refusal(msgspec.Struct, frozen=True):
    """This flow may not run now, and why. Made by agent/gate only."""

    flow: str
    reason: Reason
    detail: str = ""


Verdict: TypeAlias = Permit | Pending | Refusal
"""What the gate says of a flow."""


def permit_of(verdict: Permit | Pending) -> Permit:
    """What a flow rests on that runs, or is held."""
    return verdict.permit if isinstance(verdict, Pending) else verdict


class Rehearsal(msgspec.Struct, frozen=True):
    """What a flow would carry if it ran, for a screen. Made by agent/preview only.

    No lane is built from it, and so no Batch: nothing that is shaped by it can leave.

    Attributes:
        flow: id of the flow.
        carried: what it would carry.
        not_before_ms: older events are not shown.
        not_after_ms: nor are later ones; None for no end.
        epoch_ms: length of a pseudonym epoch in ms.
        max_readings: a batch would close at this many readings.
        urgent: attributes that would close the batch at once.
    """

    flow: str
    carried: tuple[Carried, ...]
    not_before_ms: int
    not_after_ms: int | None
    epoch_ms: int
    max_readings: int
    urgent: frozenset[str]


class Batch(msgspec.Struct, frozen=True):
    """One flow, one epoch, columns; already transformed and pseudonymous. Made by agent/lane only.

    Attributes:
        permit: what it rests on.
        stream: 64-bit id of the lane's stream.
        epoch: number of the pseudonym epoch.
        tables: the values, one table per device and shape.
        readings: how many values the tables hold.
        first_ms: earliest instant in it.
        last_ms: latest instant in it.
        clock: how far the instants can be trusted.
        gaps: declared gaps it carries.
    """

    permit: Permit
    stream: int
    epoch: int
    tables: tuple[Table, ...]
    readings: int
    first_ms: int
    last_ms: int
    clock: ClockQuality
    gaps: tuple[Gap, ...] = ()


class Sealed(msgspec.Struct, frozen=True):
    """COSE bytes; the gateway can no longer read them. Made by agent/seal only.

    Attributes:
        flow: id of the flow, for the second gate in the spool.
        recipient: whose mailbox it goes to.
        stream: stream id.
        sequence: contiguous number within the stream, from 0.
        data: the COSE_Encrypt0 message.
        digest: SHA-256 of `data`.
        readings: how many values it holds.
        first_ms: earliest instant in it.
        last_ms: latest instant in it.
        expires_ms: when its time to live on the gateway ends.
    """

    flow: str
    recipient: str
    stream: int
    sequence: int
    data: bytes
    digest: bytes
    readings: int
    first_ms: int
    last_ms: int
    expires_ms: int
