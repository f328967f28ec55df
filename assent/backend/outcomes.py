# SPDX-License-Identifier: Apache-2.0
"""What can become of a message that came up, and why one is refused.

Path: bytes → ingest → **Outcome** → store → acknowledge.
Law:
  - refusal is a value; its reason is one word of a closed set, which is what is counted, what
    stands in quarantine, and what decides whether a gateway is told, and told to try again;
  - where we lack what it takes to judge or store one message, and others go on, that is no refusal:
    it is laid aside, and its gateway is told nothing of it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final, TypeAlias

from assent import columns
from assent.cosekey import SealPublicKey, VerifyingKey
from assent.envelope import BatchHeader, Opened
from assent.errors import StoreError
from assent.messages import RefusalReason, Refused, Request, Status


class Reason(enum.Enum):
    """Why a message is refused. The value is what `show` prints and the counters are named by."""

    BAD_TOPIC = "bad-topic"
    """The topic is none of ours."""
    UNKNOWN_MAILBOX = "unknown-mailbox"
    """Nobody was admitted under this mailbox."""
    OTHER_KEY = "other-key"
    """It is sealed to a key that is not in this backend's directory."""
    CANNOT_OPEN = "cannot-open"
    """The seal does not open: changed, or moved from another mailbox."""
    BAD_SIGNATURE = "bad-signature"
    """It is not signed by the key that belongs to the mailbox."""
    NOT_CANONICAL = "not-canonical"
    """It is not deterministic CBOR."""
    MALFORMED = "malformed"
    """It has not the structure that docs/wire.md gives."""
    TOO_LARGE = "too-large"
    """It is, or inflates to, more than is read here."""
    UNKNOWN_SUITE = "unknown-suite"
    """An algorithm, version or kind of message that is not known here."""
    OTHER_RECIPIENT = "other-recipient"
    """The gateway signed it for another recipient."""
    TERMS_NOT_PUBLISHED = "terms-not-published"
    """No published policy has these terms for this flow (policy C03)."""
    UNDECLARED_ATTRIBUTE = "undeclared-attribute"
    """It carries an attribute that its terms do not have."""
    WRONG_KIND = "wrong-kind"
    """A column is of another kind than the terms allow."""
    TOO_FINE = "too-fine"
    """A column, or its instants, tell more precisely than the terms allow."""
    VALUE_NOT_ALLOWED = "value-not-allowed"
    """A value is outside the closed set, or no value of its kind."""
    TOO_MANY_READINGS = "too-many-readings"
    """It holds more readings than a batch of its flow may."""
    FORK = "fork"
    """The same stream and sequence came before with other bytes."""
    STREAM_OF_ANOTHER_FLOW = "stream-of-another-flow"
    """The stream carried another flow before."""
    TOO_MANY_HOLES = "too-many-holes"
    """The stream has more holes than are kept track of."""
    UNSTORABLE = "unstorable"
    """The store does not take it, for what it holds."""
    INTERNAL = "internal"
    """A mistake of ours; the log or the quarantine has it."""


# Which of the wire's words a gateway is told, and whether to send it again. What passes with time
# (a policy published late) is worth another try; what is in the batch itself is not.
_TOLD: Final[Mapping[Reason, tuple[RefusalReason, bool]]] = {
    Reason.FORK: (RefusalReason.FORK, False),
    Reason.TERMS_NOT_PUBLISHED: (RefusalReason.TERMS, True),
    Reason.UNDECLARED_ATTRIBUTE: (RefusalReason.COLUMNS, False),
    Reason.WRONG_KIND: (RefusalReason.COLUMNS, False),
    Reason.TOO_FINE: (RefusalReason.COLUMNS, False),
    Reason.VALUE_NOT_ALLOWED: (RefusalReason.COLUMNS, False),
    Reason.TOO_MANY_READINGS: (RefusalReason.COLUMNS, False),
    Reason.NOT_CANONICAL: (RefusalReason.COLUMNS, False),
    Reason.MALFORMED: (RefusalReason.COLUMNS, False),
    Reason.TOO_LARGE: (RefusalReason.TOO_LARGE, False),
    Reason.TOO_MANY_HOLES: (RefusalReason.STORE, True),
    Reason.UNSTORABLE: (RefusalReason.STORE, False),
    Reason.INTERNAL: (RefusalReason.OTHER, True),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Gateway:
    """An admitted gateway.

    Attributes:
        mailbox: its mailbox at this recipient.
        sign: verifies what it sends.
        seal: acknowledgements are sealed to it.
    """

    mailbox: str
    sign: VerifyingKey
    seal: SealPublicKey


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is refused.

    Attributes:
        mailbox: where it came in; empty when the topic has none.
        reason: why.
        detail: a sentence, without anything of the content.
        gateway: who sent it, only when its signature held.
        header: what it said, only when its signature held.
    """

    mailbox: str
    reason: Reason
    detail: str = ""
    gateway: Gateway | None = None
    header: BatchHeader | None = None

    @property
    def refused(self) -> Refused | None:
        """What the gateway is told, or None when nobody can be told authentically."""
        if self.gateway is None or self.header is None:
            return None
        word, retry = _TOLD.get(self.reason, (RefusalReason.OTHER, False))
        return Refused(self.header.sequence, word, retry)


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """A batch that verified, opened and stays within published terms."""

    gateway: Gateway
    opened: Opened

    @property
    def header(self) -> BatchHeader:
        """What the gateway signed about it."""
        return self.opened.header

    @property
    def readings(self) -> int:
        """How many values it holds."""
        return columns.readings(self.opened.tables)

    @property
    def mailbox(self) -> str:
        """Where it came in."""
        return self.gateway.mailbox

    def rejected(self, reason: Reason, detail: str = "") -> Rejected:
        """Refuses it after all."""
        return Rejected(self.mailbox, reason, detail, self.gateway, self.header)


class Lack(enum.Enum):
    """What we lack, so that one message can be neither stored nor refused."""

    MEMORY = "no-memory"
    """It takes more memory than this machine has."""
    RECORD = "unreadable-record"
    """What custody has of its stream, or of its gateway, has decayed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Aside:
    """A message that can be neither stored nor refused now."""

    mailbox: str
    lack: Lack
    header: BatchHeader | None = None
    detail: str = ""


class DecayedError(StoreError):
    """One row of the store makes no sense: what rests on it cannot be settled, all else can."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A gateway asks for something."""

    gateway: Gateway
    request: Request

    @property
    def mailbox(self) -> str:
        """Where it came in."""
        return self.gateway.mailbox


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """A gateway says which policy it runs."""

    gateway: Gateway
    status: Status

    @property
    def mailbox(self) -> str:
        """Where it came in."""
        return self.gateway.mailbox


Outcome: TypeAlias = Accepted | Aside | Asked | Told | Rejected
