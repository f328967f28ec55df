# SPDX-License-Identifier: Apache-2.0
"""Entries: one value, one spelling; anything else is refused with an error of ours."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.records import (
    ClockTrusted,
    Decided,
    Decision,
    Entry,
    FormRead,
    PolicyInForce,
    Start,
    State,
)
from agent.records.wire import decode_entry, encode_entry
from assent import cbor
from assent.errors import LedgerError
from tests.agent.household import NOON, decision, terms

hashes = st.binary(min_size=32, max_size=32)
instants = st.integers(0, 2**53 - 1)
lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

decisions = st.builds(
    Decision,
    flow=lines,
    state=st.sampled_from(State),
    terms=st.sampled_from([terms(), terms("service"), terms("partner-energy-advice")]),
    policy_version=lines,
    decided_by=lines,
    recorded_by=lines,
    method=lines,
    decided_ms=instants,
    until_ms=st.none() | instants,
    without=st.lists(lines, unique=True, max_size=3).map(lambda names: tuple(sorted(names))),
)
bodies = (
    st.builds(Start, st.none() | instants)
    | st.builds(ClockTrusted)
    | st.builds(PolicyInForce, instants, hashes)
    | st.builds(FormRead, hashes, st.booleans())
    | st.builds(Decided, decisions, st.none() | hashes)
)


@given(hashes, instants, bodies)
@settings(max_examples=100, deadline=None)
def test_what_was_encoded_is_decoded_the_same(prev: bytes, at_ms: int, body: object) -> None:
    entry = encode_entry(prev, at_ms, body)  # type: ignore[arg-type]
    assert (entry.prev, entry.at_ms, entry.body) == (prev, at_ms, body)
    assert decode_entry(entry.raw) == entry


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_an_entry_or_refused(raw: bytes) -> None:
    try:
        entry = decode_entry(raw)
    except LedgerError:
        return
    assert encode_entry(entry.prev, entry.at_ms, entry.body).raw == raw


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.binary(max_size=33) | lines | hashes,
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@given(st.sampled_from([0, 1, 2, 3, 4]), hashes, values, values)
@settings(max_examples=100, deadline=None)
def test_any_array_is_an_entry_or_refused(
    kind: int, prev: bytes, at: cbor.Encodable, body: cbor.Encodable
) -> None:
    raw = cbor.encode([1, prev, kind, at, body])
    try:
        entry = decode_entry(raw)
    except LedgerError:
        return
    assert encode_entry(entry.prev, entry.at_ms, entry.body).raw == raw


def test_a_record_is_named_by_its_hash_and_says_what_was_decided() -> None:
    entry = encode_entry(bytes(32), NOON, Decided(decision(), b"f" * 32))
    record = entry.record
    assert record is not None
    assert record.id == entry.hash[:16]
    assert (record.at_ms, record.form_hash) == (NOON, b"f" * 32)
    fields = {name: getattr(record, name) for name in Decision.__struct_fields__}
    assert Decision(**fields) == decision()


@pytest.mark.parametrize(
    "body", [Start(None), PolicyInForce(1, bytes(32)), FormRead(bytes(32), True)]
)
def test_what_is_no_decision_is_no_record(body: Start | PolicyInForce | FormRead) -> None:
    assert encode_entry(bytes(32), NOON, body).record is None


@pytest.mark.parametrize("state", State)
def test_only_a_no_may_do_without_terms(state: State) -> None:
    body = Decided(decision(state=state, terms=None), None)
    if state.is_yes:
        with pytest.raises(LedgerError, match="without the terms"):
            encode_entry(bytes(32), NOON, body)
    else:
        assert encode_entry(bytes(32), NOON, body).record


@pytest.mark.parametrize(
    ("prev", "at_ms", "body"),
    [
        (bytes(31), NOON, Start(None)),
        (bytes(32), -1, Start(None)),
        (bytes(32), 2**53, Start(None)),
        (bytes(32), NOON, Start(-1)),
        (bytes(32), NOON, FormRead(b"", True)),
        (bytes(32), NOON, PolicyInForce(-1, bytes(32))),
        (bytes(32), NOON, Decided(decision(method="x" * 201), None)),
        (bytes(32), NOON, Decided(decision(without=("b", "a")), None)),
        (bytes(32), NOON, Decided(decision(without=("a", "a")), None)),
        (bytes(32), NOON, Decided(decision(decided_by="\ud800"), None)),
    ],
    ids=[
        "a short hash",
        "an instant before 1970",
        "an instant beyond what counts exactly",
        "an unknown instant before 1970",
        "a form without a hash",
        "a negative serial",
        "a method that is a letter",
        "attributes out of order",
        "an attribute twice",
        "a text that is none",
    ],
)
def test_what_could_not_be_read_again_is_not_written(
    prev: bytes, at_ms: int, body: Start | FormRead | PolicyInForce | Decided
) -> None:
    with pytest.raises(LedgerError):
        encode_entry(prev, at_ms, body)


def test_another_spelling_of_the_same_entry_is_refused() -> None:
    # base64 text, which msgspec would take for bytes
    raw = cbor.encode([1, bytes(32), 2, NOON, ["A" * 43 + "=", True]])
    with pytest.raises(LedgerError, match="one spelling"):
        decode_entry(raw)
    assert isinstance(decode_entry(cbor.encode([1, bytes(32), 2, NOON, [bytes(32), True]])), Entry)


def test_a_later_format_is_refused_and_not_half_understood() -> None:
    raw = cbor.encode([2, bytes(32), 2, NOON, [bytes(32)]])
    with pytest.raises(LedgerError, match="format 2"):
        decode_entry(raw)
