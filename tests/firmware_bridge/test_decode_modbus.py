# SPDX-License-Identifier: Apache-2.0
"""Registers become the values that others say they mean; requests are few and within the limits."""

from __future__ import annotations

import itertools
import json
import lzma
import math
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.decode.modbus import Block, Reading
from firmware_bridge.decode.requests import Request, narrowed, plan
from firmware_bridge.profile import parse_profile
from firmware_bridge.profile.fields import MOST_REGISTERS, Field, Requests, Table
from firmware_bridge.profile.registers import length, reach
from firmware_bridge.sample import Value
from tests.firmware_bridge.modbus_vectors import Json, inverters, stated

NO_LIMITS = Requests()


def field(attribute: str = "a.b", table: Table = "input", address: int = 0, **keys: Any) -> Field:
    return Field(attribute=attribute, table=table, address=address, **keys)


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]


def reading(one: Field, data: bytes) -> Reading:
    (request,) = plan([one], NO_LIMITS)
    return Block(request).registers(words(data))


def value(one: Field, data: bytes) -> Value | None:
    found = reading(one, data)
    assert len(found.names) == len(found.values)
    return found.values[0] if found.values else None


def test_recorded_inverters_decode_to_their_stated_values(shared_data: Path) -> None:
    checked = wrong = absent = 0
    for device in inverters(shared_data):
        for name, one, data, expected in stated(device):
            found = value(one, data)
            checked += 1
            if found is None and data == b"\xff" * len(data):
                absent += 1  # the other decoder calls some of these zero
            elif isinstance(found, float) and isinstance(expected, float | int):
                wrong += round(found, 3) != expected  # floats are stated to three places
            else:
                wrong += found != expected
                assert found == expected, (device["device"], name)
    assert checked > 500
    assert absent < checked / 10
    assert wrong == 0


def test_a_recorded_identity_decodes_to_its_text(shared_data: Path) -> None:
    (device,) = (d for d in inverters(shared_data) if d["device"] == "GW50KS_MT")
    answer = bytes.fromhex(device["exchanges"][0]["response"]).removeprefix(b"\xaa\x55")[3:-2]
    serial = field(type="text", length=8)
    model = field(type="text", length=5)
    assert value(serial, answer[6:22]) == device["device_info"]["serial_number"]
    assert value(model, answer[22:32]) == device["device_info"]["model_name"].strip()


# Bytes of Eastron's protocol document, of IEEE 754 and of the Modbus documents.
@pytest.mark.parametrize(
    ("keys", "data", "expected"),
    [
        ({"type": "float32"}, "43663334", struct.unpack(">f", bytes.fromhex("43663334"))[0]),
        ({"type": "float32", "word_order": "little"}, "00003f80", 1.0),
        ({"type": "float32", "byte_order": "little"}, "803f0000", 1.0),
        ({"type": "float32", "word_order": "little", "byte_order": "little"}, "0000803f", 1.0),
        ({"type": "float32"}, "7fc00000", None),
        ({"type": "float32"}, "7f800000", None),
        ({"type": "float32"}, "ffffffff", None),
        ({"type": "float32", "absent": [-9999.9]}, "c61c3f9a", None),
        ({"type": "float64"}, "3fb999999999999a", 0.1),
        ({"type": "float64", "scale": 1000}, "7fefffffffffffff", None),
        ({"type": "int16"}, "8000", -32768),
        ({"type": "int16", "absent": [0x8000]}, "8000", None),
        ({"type": "int16", "absent": [-32768]}, "8000", None),
        ({"type": "int16", "absent": [0x8000]}, "8001", -32767),
        ({"type": "uint16"}, "ffff", 65535),
        ({"type": "uint16", "byte_order": "little"}, "3412", 0x1234),
        ({"type": "uint32", "word_order": "little"}, "56781234", 0x12345678),
        ({"type": "int32"}, "fffffffe", -2),
        ({"type": "uint64"}, "7fffffffffffffff", 2**63 - 1),
        ({"type": "uint64"}, "8000000000000000", None),
        ({"type": "uint64", "scale": 0.5}, "8000000000000000", float(2**62)),
        ({"type": "int64", "word_order": "little"}, "fffeffffffffffff", -2),
        ({"type": "uint16", "scale": 0.1}, "007b", 12.3),
        ({"type": "uint16", "scale": 10}, "007b", 1230),
        ({"type": "uint16", "scale": 0.1, "offset": -100}, "03e8", 0.0),
        ({"type": "uint16", "scale": 0.1, "offset": -273.15}, "0bb8", 26.85),
        ({"type": "int16", "exponent": 1}, "ff85ffff", -12.3),
        ({"type": "int16", "exponent": 1}, "007b0002", 12300),
        ({"type": "int16", "exponent": 1}, "007b0000", 123),
        ({"type": "int16", "address": 1, "exponent": 0}, "fffe007b", 1.23),
        ({"type": "uint32", "exponent": 3}, "0001e24009c4fffd", 123.456),
        ({"type": "uint16", "exponent": 1, "scale": 1000}, "007bffff", 12300),
        ({"type": "uint16", "exponent": 1, "offset": -10}, "007bffff", 2.3),
        ({"type": "uint16", "exponent": 1, "byte_order": "little"}, "7b00ffff", 12.3),
        ({"type": "int16", "exponent": 1}, "007b8000", None),
        ({"type": "int16", "exponent": 1}, "007b000b", None),
        ({"type": "int16", "exponent": 1, "absent": [0x8000]}, "80000000", None),
        ({"type": "uint64", "exponent": 4}, "7fffffffffffffff000a", None),
        ({"type": "bcd", "exponent": 1}, "1234fffe", 12.34),
        ({"type": "bcd"}, "1234", 1234),
        ({"type": "bcd", "length": 2, "scale": 0.01}, "00123456", 1234.56),
        ({"type": "bcd"}, "123a", None),
        ({"type": "text", "length": 4}, "53444d3132300000", "SDM120"),
        ({"type": "text", "length": 4, "byte_order": "little"}, "4453314d30320000", "SDM120"),
        ({"type": "text", "length": 2}, "00000000", None),
        ({"type": "text", "length": 2}, "ffffffff", None),
        ({"type": "text", "length": 2}, "41420742", None),
        ({"type": "text", "length": 2}, "4142c3a4", None),
        ({"type": "text", "length": 2, "absent": ["N/A"]}, "4e2f4100", None),
        ({"type": "bits", "bit": 0}, "0001", True),
        ({"type": "bits", "bit": 15}, "7fff", False),
        ({"type": "bits", "bit": 4, "width": 4}, "12a4", 10),
        ({"type": "bits", "bit": 31, "length": 2}, "80000000", True),
        ({"type": "uint16", "names": {"1": "normal", "2": "fault"}}, "0002", "fault"),
        ({"type": "uint16", "names": {"1": "normal"}}, "0003", None),
        ({"type": "bits", "bit": 8, "width": 8, "names": {"2": "producing"}}, "0201", "producing"),
    ],
    ids=[
        "a float as Eastron prints it", "words the other way round", "bytes the other way round",
        "both the other way round", "not a number", "infinite", "a register that is not there",
        "a float that means absent", "a double", "a scale that leaves the numbers", "the least int16",
        "an absent value in hexadecimal", "an absent value with its sign", "the one beside it",
        "the most uint16", "an integer with its bytes swapped", "an integer with its words swapped",
        "a negative int32", "the most that a column holds", "more than a column holds",
        "more than a column holds, scaled", "a negative int64 with its words swapped",
        "a tenth is exact", "a tenfold stays whole", "an offset after the scale",
        "tenths of Kelvin",
        "an exponent below zero", "an exponent above zero", "an exponent of zero",
        "an exponent before its number", "an exponent far behind its number",
        "an exponent and a scale", "an exponent and an offset after it",
        "an exponent with its bytes swapped", "an exponent that is not there",
        "an exponent beyond any", "an absent number with an exponent",
        "more than a column holds by its exponent", "decimal digits with an exponent",
        "decimal digits", "decimal digits in two registers", "no decimal digit",
        "a text with its padding", "a text with its bytes swapped", "a text of nothing",
        "a text that was never written", "a text with a bell", "a text beyond ASCII",
        "a text that means absent", "the lowest bit", "the highest bit, off", "four bits", "the last of two registers",
        "a number with a name", "a number without a name", "a byte with a name",
    ],
)  # fmt: skip
def test_registers_decode(keys: Json, data: str, expected: Value | None) -> None:
    found = value(field(**keys), bytes.fromhex(data))
    assert found == expected
    assert type(found) is type(expected)


def test_a_fault_is_told_apart_from_an_absence() -> None:
    one = field(type="int16", absent=[32766], fault=[32767])
    assert reading(one, bytes.fromhex("7fff")) == Reading((), (), faults=frozenset({"a.b"}))
    assert reading(one, bytes.fromhex("7ffe")) == Reading((), ())
    assert reading(one, bytes.fromhex("7ffd")) == Reading(("a.b",), (32765,))


def test_a_fault_is_told_of_a_number_with_an_exponent() -> None:
    one = field(type="int16", exponent=1, fault=[0x7FFF])
    assert reading(one, bytes.fromhex("7fffffff")).faults == {"a.b"}
    assert value(one, bytes.fromhex("7fffffff")) is None
    assert reading(one, bytes.fromhex("7ffeffff")).faults == frozenset()


def test_a_float_that_is_no_number_can_mean_a_fault() -> None:
    one = field(type="float32", fault=["nan"])
    assert reading(one, bytes.fromhex("7fc00000")).faults == {"a.b"}
    assert reading(one, bytes.fromhex("3f800000")).faults == frozenset()


def test_bits_that_are_on_are_events() -> None:
    one = field("appliance.fault", type="bits", events={"0": "overheat", "9": "door"})
    on = lambda data: reading(one, bytes.fromhex(data)).events  # noqa: E731
    assert on("0000") == frozenset()
    assert on("0001") == {("appliance.fault", "overheat")}
    assert on("0201") == {("appliance.fault", "overheat"), ("appliance.fault", "door")}
    assert on("fdfe") == frozenset()
    assert reading(one, bytes.fromhex("ffff")).names == ()


def test_coils_are_booleans_and_events() -> None:
    door = field("appliance.door", "coil", 3, type="bits")
    alarm = field("appliance.fault", "coil", 5, type="bits", events={"0": "leak"})
    (request,) = plan([door, alarm], Requests(gap=1))
    assert (request.address, request.count) == (3, 3)
    found = Block(request).bits([True, False, True, False, False, False, False, False])
    assert found == Reading(
        ("appliance.door",), (True,), events=frozenset({("appliance.fault", "leak")})
    )


def test_two_fields_may_share_a_register() -> None:
    fields = [
        field("a.high", type="bits", bit=8, width=8),
        field("a.low", type="bits", bit=0, width=8),
        field("a.both", type="uint16"),
    ]
    (request,) = plan(fields, NO_LIMITS)
    found = Block(request).registers([0x1234])
    assert dict(zip(found.names, found.values, strict=True)) == {
        "a.high": 0x12, "a.low": 0x34, "a.both": 0x1234,
    }  # fmt: skip


def test_an_absent_value_leaves_the_others() -> None:
    fields = [field(f"a.{n}", address=n, type="uint16", absent=[9]) for n in range(3)]
    block = Block(plan(fields, NO_LIMITS)[0])
    assert block.registers([1, 9, 3]) == Reading(("a.0", "a.2"), (1, 3))
    # One shape is one tuple, so that the router compiles it once.
    assert block.registers([4, 9, 5]).names is block.registers([1, 9, 3]).names


# Planning.


def spans(requests: tuple[Request, ...]) -> list[tuple[str, int, int]]:
    return [(request.table, request.address, request.count) for request in requests]


@pytest.mark.parametrize(
    ("addresses", "limits", "expected"),
    [
        ([0, 2, 4], Requests(), [("input", 0, 6)]),
        ([0, 4], Requests(), [("input", 0, 2), ("input", 4, 2)]),
        ([0, 4], Requests(gap=2), [("input", 0, 6)]),
        ([0, 5], Requests(gap=2), [("input", 0, 2), ("input", 5, 2)]),
        ([0, 2, 4], Requests(registers=4), [("input", 0, 4), ("input", 4, 2)]),
        ([0, 2, 4], Requests(registers=3), [("input", 0, 2), ("input", 2, 2), ("input", 4, 2)]),
        ([0, 1], Requests(), [("input", 0, 3)]),
    ],
    ids=[
        "what is contiguous is one request",
        "what nobody named is not read",
        "a gap the device bears is read over",
        "a larger gap is not",
        "a request ends where the device's limit is",
        "a field is never split",
        "fields that overlap share a request",
    ],
)
def test_requests_are_planned(
    addresses: list[int], limits: Requests, expected: list[tuple[str, int, int]]
) -> None:
    fields = [field(f"a.{n}", address=at, type="float32") for n, at in enumerate(addresses)]
    assert spans(plan(fields, limits)) == expected
    assert spans(plan(fields[::-1], limits)) == expected


def test_tables_are_never_mixed() -> None:
    fields = [
        field("a.0", "input", 0, type="uint16"),
        field("a.1", "holding", 1, type="uint16"),
        field("a.2", "coil", 2, type="bits"),
        field("a.3", "discrete", 3, type="bits"),
    ]
    assert len(plan(fields, Requests(gap=125))) == 4


KINDS: list[Json] = [
    {"type": "uint16"},
    {"type": "int32"},
    {"type": "float32"},
    {"type": "uint64"},
    {"type": "float64"},
    {"type": "bcd", "length": 2},
    {"type": "text", "length": 5},
    {"type": "bits", "bit": 3},
    {"type": "bits", "bit": 4, "width": 7},
    {"type": "int16", "apart": 3},
    {"type": "uint32", "apart": -1},
]
ORDERS = st.sampled_from(["big", "little"])
MAPS = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(KINDS), ORDERS, ORDERS), min_size=1, max_size=12
)


def fields_of(drawn: list[tuple[int, Json, str, str]]) -> list[Field]:
    """`apart` is how far behind a field its exponent stands."""
    fields = []
    for n, (drawn_at, kind, word, byte) in enumerate(drawn):
        at, keys = drawn_at + 1, dict(kind)
        if "apart" in keys:
            keys["exponent"] = at + keys.pop("apart")
        fields.append(field(f"a.{n}", address=at, word_order=word, byte_order=byte, **keys))
    return fields


@given(MAPS, st.integers(5, 125), st.integers(0, 30))
@settings(deadline=None, max_examples=200)
def test_every_field_is_asked_for_once_within_the_limits(
    drawn: list[tuple[int, Json, str, str]], most: int, gap: int
) -> None:
    fields = fields_of(drawn)
    requests = plan(fields, Requests(registers=most, gap=gap))
    assert sorted(f.attribute for r in requests for f in r.fields) == sorted(
        f.attribute for f in fields
    )
    for request in requests:
        named = {at for f in request.fields for at in range(*reach(f))}
        assert request.count <= most
        assert min(named) == request.address
        assert max(named) == request.address + request.count - 1
        steps = sorted(named)
        assert all(b - a <= gap + 1 for a, b in itertools.pairwise(steps))


@given(MAPS, st.integers(5, 125), st.integers(0, 30), st.data())
@settings(deadline=None, max_examples=100)
def test_what_nobody_wants_is_asked_for_only_between_what_is_wanted(
    drawn: list[tuple[int, Json, str, str]], most: int, gap: int, data: st.DataObject
) -> None:
    fields = fields_of(drawn)
    wanted = data.draw(st.sets(st.sampled_from([one.attribute for one in fields])))
    before = plan(fields, Requests(registers=most, gap=gap))
    after = narrowed(before, wanted)
    assert {f.attribute for r in after for f in r.fields} == wanted
    assert len(after) <= len(before)
    for request in after:
        named = {at for f in request.fields for at in range(*reach(f))}
        assert (min(named), max(named)) == (request.address, request.address + request.count - 1)
        assert any(
            one.table == request.table
            and one.address <= request.address
            and request.address + request.count <= one.address + one.count
            for one in before
        )
    assert narrowed(before, {one.attribute for one in fields}) == before


def oracle(one: Field, memory: bytes) -> Value | None:
    """What a field means, read the slow way."""
    if one.exponent is not None:
        number = oracle(msgspec.structs.replace(one, exponent=None), memory)
        at = 2 * one.exponent
        power = int.from_bytes(memory[at : at + 2], one.byte_order or "big", signed=True)
        if not isinstance(number, int) or abs(power) > 10:
            return None
        exact = number * Fraction(10) ** power
        return int(exact) if power >= 0 else float(exact)
    at = 2 * (one.address or 0)
    pairs = [memory[at + 2 * n : at + 2 * n + 2] for n in range(length(one))]
    if one.byte_order == "little":
        pairs = [pair[::-1] for pair in pairs]
    if one.word_order == "little":
        pairs = pairs[::-1]
    data = b"".join(pairs)
    number = int(data.hex(), 16)
    match one.type:
        case "text":
            text = data.strip(b"\0\xff ").decode("latin-1")
            return text if text and all(" " <= letter <= "~" for letter in text) else None
        case "bcd":
            return int(data.hex()) if set(data.hex()) <= set("0123456789") else None
        case "bits":
            cut = number // 2 ** (one.bit or 0) % 2**one.width
            return bool(cut) if one.width == 1 else cut
        case "float32" | "float64":
            bits, bias = (23, 127) if one.type == "float32" else (52, 1023)
            power = number >> bits & 2 * bias + 1
            if power == 2 * bias + 1:
                return None
            part = Fraction(number & (1 << bits) - 1, 1 << bits)
            exact = (
                (part + 1) * Fraction(2) ** (power - bias)
                if power
                else part * Fraction(2) ** (1 - bias)
            )
            return float(-exact if number >> 8 * len(data) - 1 else exact)
        case _:
            if one.type.startswith("int") and number >> 8 * len(data) - 1:
                number -= 1 << 8 * len(data)
            return number if abs(number) < 2**63 else None


@given(MAPS, st.integers(0, 30), st.binary(min_size=430, max_size=430))
@settings(deadline=None, max_examples=200)
def test_every_map_decodes_as_it_does_read_slowly(
    drawn: list[tuple[int, Json, str, str]], gap: int, memory: bytes
) -> None:
    fields = fields_of(drawn)
    found: dict[str, Value] = {}
    for request in plan(fields, Requests(gap=gap)):
        part = memory[2 * request.address : 2 * (request.address + request.count)]
        answer = Block(request).registers(words(part))
        found |= dict(zip(answer.names, answer.values, strict=True))
    expected = {f.attribute: value for f in fields if (value := oracle(f, memory)) is not None}
    assert found == expected


@given(
    st.integers(-(2**15), 2**15 - 1),
    st.sampled_from([0.1, 0.01, 0.001, 0.5, 10.0, 0.3, 1e-6]),
    st.sampled_from([0.0, -100.0, 273.15, 0.05]),
)
@settings(deadline=None)
def test_a_scaled_value_is_the_number_as_it_is_written(
    raw: int, scale: float, offset: float
) -> None:
    found = value(field(type="int16", scale=scale, offset=offset), struct.pack(">h", raw))
    exact = raw * Fraction(repr(scale)) + Fraction(repr(offset))
    assert isinstance(found, int | float)
    assert math.isfinite(found)
    assert found == float(exact)


# Maps of devices that others wrote down: what a profile cannot say shows here.


def test_the_meters_that_others_mapped_can_be_described(shared_data: Path) -> None:
    maps = json.loads((shared_data / "modbus" / "meter_register_maps_dev.json").read_text())
    described = 0
    for meter in maps:
        table = "input" if "ReadInputReg" in meter["function"] else "holding"
        kind = "float32" if any("Ieee754" in name for name in meter["transforms"]) else "uint32"
        rows = [
            f'[[field]]\nattribute = "meter.{name}"\ntable = "{table}"\n'
            f'address = {row["register"]}\ntype = "{kind}"\n'
            for name, row in meter["registers"].items()
        ]
        head = '[profile]\nsource = "modbus"\nabout = "a meter"\nfacts = "its map"\n'
        profile = parse_profile(f"{head}requests = {{ gap = 10 }}\n" + "\n".join(rows))
        requests = plan(profile.fields, profile.requests)
        asked = {at for one in requests for at in range(one.address, one.address + one.count)}
        assert asked >= {row["register"] for row in meter["registers"].values()}
        assert len(requests) < len(rows)
        described += len(rows)
    assert described > 500


_NUMBERS = {"acc32": "uint32", "acc64": "uint64"}


def test_points_of_every_sunspec_model_are_read_with_their_scale_factors(shared_data: Path) -> None:
    packed = (shared_data / "modbus" / "sunspec_models_dev.json.xz").read_bytes()
    chance = random.Random(103)
    read = far = 0
    for model in json.loads(lzma.decompress(packed)).values():
        points = model["group"]["points"]
        places = dict(
            zip(
                [point["name"] for point in points],
                itertools.accumulate([point["size"] for point in points], initial=0),
                strict=False,
            )
        )
        for point in points:
            if point.get("sf") not in places:  # without one, or with a plain number
                continue
            one = field(
                type=_NUMBERS.get(point["type"], point["type"]),
                address=places[point["name"]],
                exponent=places[point["sf"]],
            )
            begins, ends = reach(one)
            if ends - begins > MOST_REGISTERS:
                far += 1
                continue
            memory = [chance.getrandbits(16) for _ in range(ends)]
            power = chance.randint(-10, 10)
            memory[places[point["sf"]]] = power & 0xFFFF
            at, size = places[point["name"]], point["size"]
            signed = point["type"].startswith("int")
            data = b"".join(word.to_bytes(2) for word in memory)
            number = int.from_bytes(data[2 * at : 2 * (at + size)], signed=signed)
            exact = Fraction(number) * Fraction(10) ** power
            expected = exact if abs(exact) < 2**63 else None
            found = value(one, data[2 * begins :])
            assert found == (
                None if expected is None else float(expected) if power < 0 else expected
            )
            read += 1
    assert read > 500
    assert far == 17  # of model 64411
