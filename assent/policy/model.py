# SPDX-License-Identifier: Apache-2.0
"""The types of `policy.toml`: the data dictionary, the recipients and the flows.

Path: policy.toml → located → **Policy** → lints → terms → gate.

Law:
  - every key that the file may have is a field here; an unknown key is an error;
  - words come from closed sets; names that travel have a strict shape;
  - these types say what a policy *is*; whether it is a good one is for `assent.policy.lints`.

Standards: W3C DPV 2 (legal bases, roles), SenML RFC 8428 and UCUM (units), ISO 3166 (regions),
RFC 9679 (thumbprints).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from assent.places import Path
from assent.policy.expressions import Transform
from assent.units import Duration

NAME: Final = r"^[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*\Z"
"""Shape of ids that travel: no capitals, no spaces, nothing that means something in a path."""

Name = Annotated[
    str,
    Meta(
        pattern=NAME,
        max_length=64,  # an id stands in every batch's header and in every terms record
        description="a name of lower-case letters and digits, joined by single '-' or '.', "
        "starting with a letter, at most 64 characters",
    ),
]
Version = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Za-z][0-9A-Za-z.-]{0,31}\Z",
        description='a version such as "2026-11-01" in quotes, at most 32 characters',
    ),
]
Region = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{2}(?:-[A-Z0-9]{1,3})?\Z",
        description='an ISO 3166 code such as "CN" or "DE-BY"',
    ),
]
Language = Annotated[
    str,
    Meta(
        pattern=r"^[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}\Z",
        description='a language tag such as "en" or "zh"',
    ),
]
Text = Annotated[str, Meta(max_length=2000, description="a text of at most 2000 characters")]
Line = Annotated[str, Meta(max_length=200, description="a text of at most 200 characters")]
Serial = Annotated[int, Meta(ge=1, le=2**53, description="a whole number from 1")]

Role = Literal[
    "controller", "processor", "affiliate", "partner", "authority", "household", "public"
]
AttributeKind = Literal["attribute", "identifier", "sensor", "event", "location", "connection"]
AttributeType = Literal["number", "integer", "boolean", "text", "position", "time"]
Sensitivity = Literal["none", "personal", "sensitive"]
Function = Literal["core", "optional"]
# W3C DPV legal bases, in the policy's spelling. `legitimate_interest` is absent on purpose: no
# clause of the policy lets it authorise anything (policy C12, C13).
Basis = Literal[
    "consent",
    "contract",
    "legal_obligation",
    "public_interest",
    "official_authority",
    "vital_interest",
    "safe_operation",
]
CORE_BASES: Final = frozenset[Basis](("contract", "legal_obligation"))
"""What a core flow may rest on (policy C02)."""
CORE_ROLES: Final = frozenset[Role](("controller", "processor"))
"""Whom a core flow may go to (policy C14)."""
Then = Literal["delete", "anonymise"]
Link = Literal["devices", "account"]
OnWithdraw = Literal["stop", "stop+erase"]


class KeyRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file beside the policy, pinned by its thumbprint.

    Attributes:
        file: path relative to the policy file, with forward slashes.
        thumbprint: `sha-256:` and 43 characters of base64url: of the COSE key (RFC 9679) for key
            files, of the file's bytes for certificates.
    """

    file: Line
    thumbprint: Line


class PolicyHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[policy]`: which policy this is.

    Attributes:
        id: of the policy, the same in every version.
        version: what a consent form names.
        serial: strictly rising; an older signed policy is refused.
        controller: who decides why and how, by the name the household knows.
        not_after: last day it is in force, UTC; None for no end.
    """

    id: Name
    version: Version
    serial: Serial
    controller: Line
    not_after: dt.date | None = None


class Recipient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[recipients.*]`: who receives, where, under which keys.

    Attributes:
        role: what it is to the household.
        region: where it is, ISO 3166.
        key: batches are sealed to it.
        ack_key: verifies its acknowledgements and bulletins.
        brokers: `mqtts://host:port`; nowhere else is ever connected to.
        ca: certificates its brokers are judged by.
    """

    role: Role
    region: Region
    key: KeyRef
    ack_key: KeyRef
    brokers: tuple[Line, ...]
    ca: KeyRef


class Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[attributes.*]`: one entry of the data dictionary.

    Attributes:
        kind: which sort of knowledge it is.
        type: of its value; a position is one value with two coordinates.
        about: what it is, for a person.
        owner: the team that answers for it.
        review: the day by which somebody has looked at it again.
        unit: SenML or UCUM; numbers have one.
        quantum: the sensor's own resolution in that unit.
        sensitivity: how much it tells about people.
        monotonic: True for counters; they leave only through `delta`.
        choices: the closed set of a text.
    """

    kind: AttributeKind
    type: AttributeType
    about: Text
    owner: Line
    review: dt.date
    unit: Line | None = None
    quantum: float | None = None
    sensitivity: Sensitivity = "personal"
    monotonic: bool = False
    choices: tuple[Line, ...] = ()


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a flow's values live, and what then.

    Attributes:
        gateway: time to live of a batch on the gateway's disk.
        recipient: time to live of its readings at the recipient.
        then: what the recipient does at the end.
    """

    gateway: Duration
    recipient: Duration
    then: Then


class BatchRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a batch closes.

    Attributes:
        readings: at this many.
        age: or when the oldest is this old.
        urgent: attributes that close it at once.
    """

    readings: int = 10_000
    age: Duration = Duration.parse("10m")
    urgent: tuple[Name, ...] = ()


class Flow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[flows.*]`: these attributes, transformed so, for this purpose, to this recipient.

    Attributes:
        function: whether the service cannot run without it.
        purpose: id of the purpose; a term.
        notice: what a person is told, by language; prose is no term.
        basis: legal basis.
        recipient: id of the recipient.
        attributes: what it carries, each through one transform.
        keep: retention.
        epoch: pseudonyms rotate at its multiples.
        links: what may be linked; each is its own consent.
        separate: cannot be bundled with another yes.
        on_withdraw: whether a withdrawal also erases.
        batch: when a batch closes.
        key: a key of this flow's own, instead of the recipient's.
    """

    function: Function
    purpose: Name
    notice: dict[Language, Text]
    basis: Basis
    recipient: Name
    attributes: dict[Name, Transform]
    keep: Keep
    epoch: Duration = Duration.parse("30d")
    links: tuple[Link, ...] = ()
    separate: bool = False
    on_withdraw: OnWithdraw = "stop"
    batch: BatchRule = msgspec.field(default_factory=BatchRule)
    key: KeyRef | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole `policy.toml`."""

    policy: PolicyHead
    recipients: dict[Name, Recipient]
    attributes: dict[Name, Attribute]
    flows: dict[Name, Flow]


def references(policy: Policy) -> Iterator[tuple[Path, KeyRef]]:
    """Walks every file the policy names.

    Args:
        policy: the policy.

    Yields:
        The path to it, whose last part is its use (`key`, `ack_key` or `ca`), and its pin.
    """
    for name, recipient in policy.recipients.items():
        yield ("recipients", name, "key"), recipient.key
        yield ("recipients", name, "ack_key"), recipient.ack_key
        yield ("recipients", name, "ca"), recipient.ca
    for name, flow in policy.flows.items():
        if flow.key is not None:
            yield ("flows", name, "key"), flow.key
