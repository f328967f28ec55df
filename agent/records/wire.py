# SPDX-License-Identifier: Apache-2.0
"""The bytes of an entry of the ledger.

Law:
  - an entry is one deterministic CBOR array: format, hash of the entry before, kind, instant, body;
  - what can be written can be read: an entry is decoded before it counts as encoded.

Standards: RFC 8949 §4.2.1.
Limits: names and methods are at most 200 characters; instants are ms since 1970 UTC below 2^53.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from agent.records import (
    HASH_BYTES,
    Body,
    ClockTrusted,
    Decided,
    Decision,
    Entry,
    FormRead,
    PolicyInForce,
    Start,
    State,
)
from assent import cbor
from assent.errors import LedgerError, WireError
from assent.policy.terms import decode_terms

FORMAT: Final = 1
"""Layout of the arrays below."""
MAX_ENTRY: Final = 131_072
"""Longest entry read: twice the longest terms."""


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


class _ClockTrusted(_Array, frozen=True):
    pass


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


_KINDS: Final[dict[type[Body], int]] = {
    Start: 0,
    PolicyInForce: 1,
    FormRead: 2,
    Decided: 3,
    ClockTrusted: 4,
}
_BODIES: Final[dict[int, type[_Array]]] = {
    0: _Start,
    1: _PolicyInForce,
    2: _FormRead,
    3: _Decided,
    4: _ClockTrusted,
}


def _encode(prev: bytes, at_ms: int, body: Body) -> bytes:
    return cbor.encode([FORMAT, prev, _KINDS[type(body)], at_ms, _parts(body)])


def _parts(body: Body) -> list[cbor.Encodable]:
    match body:
        case Start(unknown_since_ms):
            return [unknown_since_ms]
        case ClockTrusted():
            return []
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
        case _ClockTrusted():
            return ClockTrusted()
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
