# SPDX-License-Identifier: Apache-2.0
"""What an entry of the ledger says: its types.

Law:
  - a yes names the terms it was said to; a no may do without, because it is good for any terms.

Rooms: `wire` the bytes of an entry, `unbroken` since when a yes stands. All of them pure.
Standards: W3C DPV 2 for the words of a decision.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final

import msgspec

from assent.policy.terms import Terms

ID_BYTES: Final = 16
"""A record is named by the first bytes of its entry's hash: on the wire, too."""
HASH_BYTES: Final = 32  # SHA-256
OWNER: Final = "owner"
"""The one who can say yes."""


class State(enum.Enum):
    """What a decision did; the words of DPV, and one for core flows, which rest on no consent."""

    GIVEN = "ConsentGiven"
    """Yes, for the first time or after a no."""
    RENEWED = "RenewedConsentGiven"
    """Yes again, while the last word was yes."""
    REFUSED = "ConsentRefused"
    """No, where there was no yes."""
    WITHDRAWN = "ConsentWithdrawn"
    """No, where there was a yes."""
    ACCEPTED = "accepted"
    """The contract or the notice of a core flow was accepted."""

    @property
    def is_yes(self) -> bool:
        """Whether the flow may run on it."""
        return self in (State.GIVEN, State.RENEWED, State.ACCEPTED)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody decided about one flow.

    Attributes:
        flow: id of the flow.
        state: what it did.
        terms: what it was said to; None only where a no was said without a policy at hand.
        policy_version: version of the policy that was shown.
        decided_by: `owner`, or who else was present.
        recorded_by: who wrote it down.
        method: how, such as `signed form 2026-0042`.
        decided_ms: when the person decided, by their word.
        until_ms: when the yes ends; None for no end.
        without: attributes left out of the yes, sorted.
    """

    flow: str
    state: State
    terms: Terms | None
    policy_version: str
    decided_by: str
    recorded_by: str
    method: str
    decided_ms: int
    until_ms: int | None = None
    without: tuple[str, ...] = ()


class Record(Decision, frozen=True, kw_only=True):
    """A decision as the ledger holds it. Made by agent/ledger only.

    Attributes:
        id: the first 16 bytes of the entry's hash.
        at_ms: when the ledger took it in; nothing older than this was ever agreed to by it.
        form_hash: the consent form it came from, or None.
    """

    id: bytes
    at_ms: int
    form_hash: bytes | None = None


def state_of_no(newest: Record | None) -> State:
    """What a no is after the newest record of its flow, whatever word it was said with.

    Args:
        newest: the record that decided so far, or None.

    Returns:
        WITHDRAWN once there was a yes, else REFUSED.
    """
    was_yes = newest is not None and (newest.state.is_yes or newest.state is State.WITHDRAWN)
    return State.WITHDRAWN if was_yes else State.REFUSED


class Start(msgspec.Struct, frozen=True):
    """The first entry: since when decisions are unknown, or None at a first start.

    That instant is by whatever clock there was; the first `ClockTrusted` after it counts.
    """

    unknown_since_ms: int | None


class ClockTrusted(msgspec.Struct, frozen=True):
    """A trusted clock told the time: all that stands before was recorded before this instant."""


class PolicyInForce(msgspec.Struct, frozen=True):
    """A policy came into force."""

    serial: int
    hash: bytes


class FormRead(msgspec.Struct, frozen=True):
    """A form was read: for the first time, or with nothing left in it that could act later."""

    form_hash: bytes
    done: bool


class Decided(msgspec.Struct, frozen=True):
    """A decision, and the form it came from."""

    decision: Decision
    form_hash: bytes | None


Body = Start | ClockTrusted | PolicyInForce | FormRead | Decided


class Entry(msgspec.Struct, frozen=True):
    """One entry of the ledger.

    Attributes:
        prev: hash of the entry before, 32 zero bytes for the first.
        at_ms: when it was appended.
        body: what it says.
        raw: its bytes.
    """

    prev: bytes
    at_ms: int
    body: Body
    raw: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).digest()

    @property
    def record(self) -> Record | None:
        """The decision in it as a record, where it holds one."""
        if not isinstance(self.body, Decided):
            return None
        fields = {name: getattr(self.body.decision, name) for name in Decision.__struct_fields__}
        return Record(
            **fields, id=self.hash[:ID_BYTES], at_ms=self.at_ms, form_hash=self.body.form_hash
        )
