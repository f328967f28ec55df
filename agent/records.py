# SPDX-License-Identifier: Apache-2.0
"""What an entry of the ledger says: its types, its bytes, its hash.

Law:
  - an entry is one deterministic CBOR array: format, hash of the entry before, kind, instant, body;
  - what can be written can be read: an entry is decoded before it counts as encoded;
  - a yes names the terms it was said to; a no may do without, because it is good for any terms.

Standards: W3C DPV 2 for the words of a decision; RFC 8949 §4.2.1 for the bytes.
Limits: names and methods are at most 200 characters; instants are ms since 1970 UTC below 2^53.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from assent import cbor
from assent.errors import LedgerError, WireError
from assent.policy.terms import Terms, decode_terms

FORMAT: Final = 1
"""Layout of the arrays below."""
ID_BYTES: Final = 16
"""A record is named by the first bytes of its entry's hash: on the wire, too."""
HASH_BYTES: Final = 32  # SHA-256
OWNER: Final = "owner"
"""The one who can say yes."""
MAX_ENTRY: Final = 131_072
"""Longest entry read: twice the longest terms."""


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record(Decision):
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


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """The first entry: since when decisions are unknown, or None at a first start."""

    unknown_since_ms: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy came into force."""

    serial: int
    hash: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class FormRead:
    """A form was read: for the first time, or with nothing left in it that could act later."""

    form_hash: bytes
    done: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the form it came from."""

    decision: Decision
    form_hash: bytes | None


Body = Start | PolicyInForce | FormRead | Decided


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
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
    raw: bytes = dataclasses.field(repr=False)

    @property
    def hash(self) -> bytes:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).digest()

    @property
    def record(self) -> Record | None:
        """The decision in it as a record, where it holds one."""
        if not isinstance(self.body, Decided):
            return None
        fields = {
            field.name: getattr(self.body.decision, field.name)
            for field in dataclasses.fields(Decision)
        }
        return Record(
            **fields, id=self.hash[:ID_BYTES], at_ms=self.at_ms, form_hash=self.body.form_hash
        )


def encode_entry(prev: bytes, at_ms: int, body: Body) -> Entry:
    """Makes an entry.

    Args:
        prev: hash of the entry before.
        at_ms: now.
        body: what it says.

    Returns:
        The entry with its bytes.

    Raises:
        LedgerError: something in it is too long, or a yes names no terms.
    """
    try:
        return decode_entry(_encode(prev, at_ms, body))
    except WireError as exc:
        raise LedgerError(f"the entry cannot be written: {exc.message}") from exc


def decode_entry(raw: bytes) -> Entry:
    """Reads an entry.

    Args:
        raw: what `encode_entry` wrote.

    Returns:
        The entry; encoding it gives the same bytes.

    Raises:
        LedgerError: the bytes are no entry.
    """
    try:
        head = msgspec.convert(cbor.decode(raw, max_bytes=MAX_ENTRY), _Head, strict=True)
        if head.format != FORMAT or head.kind not in _BODIES:
            raise LedgerError(f"unknown kind {head.kind} or format {head.format} of an entry")
        body = _body(msgspec.convert(head.body, _BODIES[head.kind], strict=True))
        again = _encode(head.prev, head.at_ms, body)
    except (WireError, ValueError) as exc:  # msgspec's own error is a ValueError
        raise LedgerError(f"the entry cannot be read: {exc}") from exc
    if again != raw:  # such as base64 text, which msgspec takes for bytes
        raise LedgerError("the entry is not in the one spelling it has")
    return Entry(head.prev, head.at_ms, body, raw)


_Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Instant = Annotated[int, Meta(ge=0, lt=2**53)]
_Line = Annotated[str, Meta(max_length=200)]


class _Array(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    pass


class _Head(_Array, frozen=True):
    format: int
    prev: _Hash
    kind: int
    at_ms: _Instant
    body: list[object]


class _Start(_Array, frozen=True):
    unknown_since_ms: _Instant | None


class _PolicyInForce(_Array, frozen=True):
    serial: Annotated[int, Meta(ge=0, lt=2**53)]
    hash: _Hash


class _FormRead(_Array, frozen=True):
    form_hash: _Hash
    done: bool


class _Decided(_Array, frozen=True):
    flow: _Line
    state: State
    terms: bytes | None
    policy_version: _Line
    decided_by: _Line
    recorded_by: _Line
    method: _Line
    decided_ms: _Instant
    until_ms: _Instant | None
    without: tuple[_Line, ...]
    form_hash: _Hash | None


_KINDS: Final[dict[type[Body], int]] = {Start: 0, PolicyInForce: 1, FormRead: 2, Decided: 3}
_BODIES: Final[dict[int, type[_Array]]] = {
    0: _Start,
    1: _PolicyInForce,
    2: _FormRead,
    3: _Decided,
}


def _encode(prev: bytes, at_ms: int, body: Body) -> bytes:
    return cbor.encode([FORMAT, prev, _KINDS[type(body)], at_ms, _parts(body)])


def _parts(body: Body) -> list[cbor.Encodable]:
    match body:
        case Start(unknown_since_ms):
            return [unknown_since_ms]
        case PolicyInForce(serial, policy_hash):
            return [serial, policy_hash]
        case FormRead(form_hash, done):
            return [form_hash, done]
        case Decided(d, form_hash):
            terms = d.terms.encode() if d.terms is not None else None
            said: list[cbor.Encodable] = [d.flow, d.state.value, terms, d.policy_version]
            who: list[cbor.Encodable] = [d.decided_by, d.recorded_by, d.method]
            return [*said, *who, d.decided_ms, d.until_ms, list(d.without), form_hash]


def _body(wire: _Array) -> Body:
    match wire:
        case _Start():
            return Start(wire.unknown_since_ms)
        case _PolicyInForce():
            return PolicyInForce(wire.serial, wire.hash)
        case _FormRead():
            return FormRead(wire.form_hash, wire.done)
        case _Decided():
            return Decided(_decision(wire), wire.form_hash)
    raise LedgerError(f"no entry is read from a {type(wire).__name__}")


def _decision(wire: _Decided) -> Decision:
    if wire.state.is_yes and wire.terms is None:
        raise LedgerError("a yes without the terms it was said to")
    if wire.without != tuple(sorted(set(wire.without))):
        raise LedgerError("the attributes left out are not sorted, or named twice")
    return Decision(
        flow=wire.flow,
        state=wire.state,
        terms=decode_terms(wire.terms) if wire.terms is not None else None,
        policy_version=wire.policy_version,
        decided_by=wire.decided_by,
        recorded_by=wire.recorded_by,
        method=wire.method,
        decided_ms=wire.decided_ms,
        until_ms=wire.until_ms,
        without=wire.without,
    )
