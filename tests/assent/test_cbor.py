# SPDX-License-Identifier: Apache-2.0
"""assent.cbor: one value has one encoding, and whatever comes is a value or a named refusal."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import cbor
from assent.errors import NotCanonicalError, TooLargeError, WireError

ROOM = 1_000


def read(data: bytes) -> cbor.CborValue:
    return cbor.decode(data, max_bytes=ROOM)


def same(left: object, right: object) -> bool:
    """Equality that tells True from 1 and takes NaN for itself."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    return type(left) is type(right) and left == right


NUMBERS = st.integers(0, 2**64 - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=300)
    | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.dictionaries(st.integers(0, 2**64 - 1), inner, max_size=30)
        | st.dictionaries(st.text(max_size=30), inner, max_size=30)
    ),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_written_comes_back(value: cbor.Encodable) -> None:
    data = cbor.encode(value)
    back = cbor.decode(data, max_bytes=len(data))
    if isinstance(value, float) and math.isnan(value):
        assert isinstance(back, float)
        assert math.isnan(back)
    else:
        assert cbor.encode(back) == data
        assert cbor2.loads(data) == back or "nan" in repr(value)


@given(st.floats(allow_nan=False))
def test_floats_come_back_to_the_bit(value: float) -> None:
    assert same(read(cbor.encode(value)), value)


@given(st.dictionaries(NUMBERS, st.none(), max_size=40))
def test_the_order_of_a_dict_does_not_show(value: dict[int, None]) -> None:
    backwards = dict(reversed(value.items()))
    assert cbor.encode(value) == cbor.encode(backwards)


NOT_IN_JSON: dict[str, cbor.CborValue] = {
    "f97c00": math.inf,
    "f97e00": math.nan,
    "f9fc00": -math.inf,
    "40": b"",
    "4401020304": bytes([1, 2, 3, 4]),
    "a201020304": {1: 2, 3: 4},
}
"""Values of the vectors that JSON cannot hold, from RFC 8949 Appendix A."""


def test_every_vector_of_the_standard_is_its_value_or_refused_by_name(shared_data: Path) -> None:
    vectors = json.loads((shared_data / "cbor" / "appendix_a.json").read_text())
    read_back = refused = 0
    for vector in vectors:
        data = bytes.fromhex(vector["hex"])
        try:
            value = read(data)
        except NotCanonicalError as error:
            refused += 1
            allowed = data[0] < 0xC0 or data[0] in {0xF4, 0xF5, 0xF6, 0xF9, 0xFA, 0xFB}
            why = str(error)
            assert (
                ("tag" in why and 0xC0 <= data[0] < 0xE0)
                or ("simple" in why and data[0] >= 0xE0 and not allowed)
                or ("indefinite" in why and any(b & 31 == 31 for b in data))
                or ("deterministic" in why and data[0] in {0xFA, 0xFB})
            ), vector
        else:
            read_back += 1
            expected = NOT_IN_JSON[vector["hex"]] if "decoded" not in vector else vector["decoded"]
            assert same(value, expected), vector
            assert cbor.encode(value) == data
    assert (read_back, refused) == (53, 29)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param("", "ends", id="nothing at all"),
        pytest.param("1800", "deterministic", id="an integer longer than it needs to be"),
        pytest.param("1b00000000ffffffff", "deterministic", id="a 64-bit head for 32 bits"),
        pytest.param("580100", "deterministic", id="a byte string with a long head"),
        pytest.param("fb3ff0000000000000", "deterministic", id="1.0 in eight bytes"),
        pytest.param("f97e01", "deterministic", id="a NaN with a payload"),
        pytest.param("0000", "follow", id="a second value after the first"),
        pytest.param("8101ff", "follow", id="a break after the value"),
        pytest.param("8201", "ends", id="an array that lacks its last item"),
        pytest.param("43aabb", "ends", id="a byte string that lacks its last byte"),
        pytest.param("19ff", "ends", id="a head cut short"),
        pytest.param("9bffffffffffffffff", "ends", id="an array of 2^64 items"),
        pytest.param("bb7fffffffffffffff", "ends", id="a map of 2^63 pairs"),
        pytest.param("5bffffffffffffffff", "ends", id="a byte string of 2^64 bytes"),
        pytest.param("9f01ff", "indefinite", id="an array of no stated length"),
        pytest.param("1c", "reserved", id="a reserved head"),
        pytest.param("c100", "tag", id="a tag"),
        pytest.param("f7", "simple", id="undefined"),
        pytest.param("f818", "simple", id="a simple value of two bytes"),
        pytest.param("62c328", "no CBOR value", id="text that is no UTF-8"),
        pytest.param("63eda080", "no CBOR value", id="text with a surrogate"),
        pytest.param("a201010102", "order", id="a key twice"),
        pytest.param("a202000100", "order", id="keys out of order"),
        pytest.param("a2616200616100", "order", id="text keys out of order"),
        pytest.param("a21818002000", "order", id="keys whose two orders disagree"),
        pytest.param("a20100616100", "keys only", id="integer and text keys mixed"),
        pytest.param("a1f500", "keys only", id="a boolean key"),
        pytest.param("a14000", "keys only", id="a byte string key"),
        pytest.param("a1f93c0000", "keys only", id="a float key"),
        pytest.param("a18000", "keys only", id="an array as a key"),
        pytest.param("a101", "ends", id="a key without its value"),
    ],
)
def test_refuses(data: str, why: str) -> None:
    with pytest.raises(NotCanonicalError, match=why):
        read(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(2**64, "tag", id="an integer of 65 bits"),
        pytest.param(-(2**64) - 1, "tag", id="a negative integer of 65 bits"),
        pytest.param({1, 2}, "tag", id="a set"),
        pytest.param(Fraction(1, 3), "tag", id="a fraction"),
        pytest.param(datetime(2026, 1, 1, tzinfo=UTC), "tag", id="a date"),
        pytest.param(cbor2.undefined, "simple", id="undefined"),
        pytest.param({True: 1}, "keys only", id="a boolean key"),
        pytest.param({1: 0, "a": 0}, "keys only", id="mixed keys"),
        pytest.param({24: 0, -1: 0}, "order", id="keys whose two orders disagree"),
        pytest.param(object(), "object", id="an object"),
        pytest.param("\ud800", "str", id="a lone surrogate"),
    ],
)
def test_does_not_write(value: cbor.Encodable, why: str) -> None:
    with pytest.raises(NotCanonicalError, match=why):
        cbor.encode(value)


def test_a_value_that_holds_itself_is_not_written() -> None:
    loop: list[cbor.Encodable] = []
    loop.append(loop)
    with pytest.raises(WireError):
        cbor.encode(loop)


def test_keys_of_cose_are_written() -> None:
    assert cbor.encode({1: 1, -1: 6, -2: b"x"}).hex() == "a30101200621" + "4178"
    assert cbor.encode({1: -8, -70001: []}).hex() == "a201273a0001117080"


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        pytest.param(bytes([0x41, 0]), {"max_bytes": 1}, id="more bytes"),
        pytest.param(bytes([0x82, 0, 0]), {"max_items": 2}, id="more items"),
        pytest.param(bytes([0xA1, 0, 0]), {"max_items": 2}, id="more keys and values"),
        pytest.param(bytes([0x81] * 3 + [0]), {"max_depth": 2}, id="deeper arrays"),
        pytest.param(bytes([0xA1, 0, 0xA1, 0, 0]), {"max_depth": 1}, id="deeper maps"),
        pytest.param(bytes([0x81] * 900 + [0]), {}, id="deep enough to exhaust a stack"),
    ],
)
def test_limits_hold(data: bytes, limits: dict[str, int]) -> None:
    with pytest.raises(TooLargeError):
        cbor.decode(data, **{"max_bytes": ROOM, **limits})
    larger = {name: most + 1 for name, most in limits.items()}
    if larger:
        cbor.decode(data, **{"max_bytes": ROOM, **larger})


@given(st.binary(max_size=60))
@settings(max_examples=1_000)
def test_random_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = read(data)
    except WireError:
        return
    assert cbor.encode(value) == data


@given(VALUES, st.data())
@settings(max_examples=200)
def test_a_changed_encoding_is_a_value_or_refused(
    value: cbor.Encodable, change: st.DataObject
) -> None:
    data = bytearray(cbor.encode(value))
    at = change.draw(st.integers(0, len(data) - 1))
    data[at] ^= change.draw(st.integers(1, 255))
    cut = change.draw(st.integers(0, len(data)))
    for piece in (bytes(data), bytes(data[:cut]), bytes(data) + bytes(data[cut:])):
        try:
            back = cbor.decode(piece, max_bytes=10**6)
        except WireError:
            continue
        assert cbor.encode(back) == piece
