# SPDX-License-Identifier: Apache-2.0
"""Profiles say what their facts say, no more; the same facts give the same files."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firmware_bridge.decode.modbus import Block
from firmware_bridge.decode.requests import plan
from firmware_bridge.profile import Profile, load_profile, parse_profile
from firmware_bridge.profile.fields import Field
from tests.firmware_bridge.modbus_vectors import dumps, inverters
from tests.test_house import REPO
from tools.profiles import definitions, goodwe, meters, solarman, victron
from tools.profiles.__main__ import PLACE, maps
from tools.profiles.maps import Map
from tools.profiles.page import MADE, decimal, profile, told
from tools.profiles.vocabulary import NAMES, UNITS, RefusedError

PROFILES = sorted(PLACE.glob("*.toml"))
SHIPPED = [path for path in PROFILES if MADE in path.read_text()]
GUIDE = REPO / "docs" / "profiles.md"


def loaded(name: str) -> Profile:
    return load_profile(PLACE / f"{name}.toml")


def decoded(one: Profile, table: str, words: dict[int, int]) -> dict[str, object]:
    """What the profile gives when the device's registers hold these words, and zeros elsewhere."""
    values: dict[str, object] = {}
    for request in plan(one.fields, one.requests):
        if request.table != table:
            continue
        asked = range(request.address, request.address + request.count)
        reading = Block(request).registers([words.get(at, 0) for at in asked])
        values |= dict(zip(reading.names, reading.values, strict=True))
    return values


def meter(registers: dict[str, Any], **other: Any) -> Map:
    one = {
        "file": "made-up",
        "device": "A meter",
        "function": ["ReadInputReg"],
        "read_len": ["2"],
        "transforms": ["RTUIeee754ToFloat64"],
        "registers": registers,
    } | other
    return meters.convert(meters.parse(json.dumps([one]).encode())[0], "made up")


def fields(one: Map) -> list[tuple[str, int, str, Fraction]]:
    return [(field.attribute, field.address, field.type, field.scale) for field in one.fields]


# ------------------------------------------------------------------------------- what is shipped


def test_devices_of_six_makers_and_more_are_shipped() -> None:
    makers = {path.stem.split("-")[0] for path in SHIPPED}
    assert makers >= {"deye", "eastron", "goodwe", "orno", "sofar", "solaredge", "solis", "victron"}
    eastron = {path.stem for path in SHIPPED if path.stem.startswith("eastron-")}
    models = {"sdm120", "sdm220", "sdm230", "sdm630", "sdm72", "sdm72v2"}
    assert eastron >= {f"eastron-{model}" for model in models}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_keeps_to_the_vocabulary_and_names_its_source(path: Path) -> None:
    one = load_profile(path)
    assert one.source == "modbus"
    assert re.search(r"@[0-9a-f]{12} .*\((MIT|BSD-3-Clause|Apache-2\.0)\)", one.facts), one.facts
    assert {field.attribute: field.unit for field in one.fields}.items() <= UNITS.items()
    places = [(field.table, field.address) for field in one.fields]
    assert places == sorted(places, key=lambda place: (str(place[0]), place[1] or 0))


def test_converting_again_gives_the_same_bytes(shared_data: Path) -> None:
    made = {one.name: profile(one) for one in maps(shared_data / "modbus") if not one.refused}
    assert {path.stem for path in SHIPPED} == made.keys()
    for path in SHIPPED:
        assert path.read_text() == made[path.stem], path.stem


def test_no_profile_of_a_made_up_map_is_shipped_as_made(shared_data: Path) -> None:
    refused = {one.name for one in maps(shared_data / "modbus") if one.refused}
    assert {"dzg", "ws100", "dmg610", "sunspec", "goodwe-es"} <= refused
    assert refused.isdisjoint(path.stem for path in PROFILES)


# ---------------------------------------------------------------------- addresses, types, scales

# Each line stands in the facts that the profile names; registers as they are counted there.
FACTS: dict[str, Sequence[tuple[str, str, int, str, float, float]]] = {
    "eastron-sdm120": [
        ("appliance.voltage", "input", 0x0000, "float32", 1, 0),
        ("appliance.power", "input", 0x000C, "float32", 1, 0),
        ("appliance.energy", "input", 0x0048, "float32", 1000, 0),
        ("appliance.energy.total", "input", 0x0156, "float32", 1000, 0),
    ],
    "eastron-sdm220": [("appliance.energy.export", "input", 0x004A, "float32", 1000, 0)],
    "eastron-sdm230": [
        ("appliance.frequency", "input", 0x0046, "float32", 1, 0),
        ("appliance.power.factor", "input", 0x001E, "float32", 1, 0),
    ],
    "eastron-sdm630": [
        ("appliance.voltage.l3", "input", 0x0004, "float32", 1, 0),
        ("appliance.power", "input", 0x0034, "float32", 1, 0),
        ("appliance.energy.l2", "input", 0x015C, "float32", 1000, 0),
    ],
    "eastron-sdm72": [("appliance.power", "input", 0x0034, "float32", 1, 0)],
    "eastron-sdm72v2": [("appliance.current.l1", "input", 0x0006, "float32", 1, 0)],
    "ddm18sd": [("appliance.power", "input", 18, "float32", 1, 0)],
    "solaredge-se-mtr-3y": [("appliance.energy", "input", 1002, "float32", 1000, 0)],
    "orno-we-514": [
        ("appliance.voltage", "holding", 305, "uint16", 0.01, 0),
        ("appliance.power", "holding", 320, "uint32", 1, 0),
        ("appliance.energy.total", "holding", 40960, "uint32", 10, 0),
    ],
    "orno-we-525": [("appliance.current", "input", 258, "int32", 0.001, 0)],
    "deye-2mppt": [
        ("appliance.solar.energy", "holding", 63, "uint32", 100, 0),
        ("appliance.temperature", "holding", 90, "uint16", 0.01, -10),
    ],
    "deye-4mppt": [("appliance.solar.current.s4", "holding", 116, "uint16", 0.1, 0)],
    "deye-hybrid": [("appliance.battery.temperature", "holding", 0xB6, "uint16", 0.1, -100)],
    "deye-string": [("appliance.power.reactive", "holding", 88, "uint32", 0.1, 0)],
    "sofar-string": [("appliance.solar.power.s1", "holding", 0x0A, "uint16", 10, 0)],
    "sofar-hyd-es": [("appliance.load.power", "holding", 531, "uint16", 10, 0)],
    "sofar-me3000-sp": [("appliance.battery.voltage", "holding", 526, "uint16", 0.01, 0)],
    "zcs-azzurro-hyd-zss-hp": [("appliance.energy", "holding", 1678, "uint32", 100, 0)],
    "solis-1p-5g": [("appliance.output.power", "input", 3004, "uint32", 1, 0)],
    "solis-3p-4g": [("appliance.voltage.l2", "input", 3034, "uint16", 0.1, 0)],
    "solis-s6-gr1p": [("appliance.solar.energy", "input", 3008, "uint32", 1000, 0)],
    "victron-grid": [
        ("appliance.power.l1", "holding", 2638, "int32", 1, 0),
        ("appliance.energy", "holding", 2634, "uint32", 10, 0),
        ("device.serial", "holding", 2609, "text", 1, 0),
    ],
    "victron-acload": [("appliance.power.factor", "holding", 3933, "int16", 0.001, 0)],
    "victron-heatpump": [("appliance.power", "holding", 5502, "uint32", 1, 0)],
    "victron-evcharger": [("appliance.energy", "holding", 3836, "uint32", 10, 0)],
    "victron-pvinverter": [("appliance.output.power.l2", "holding", 1060, "uint32", 1, 0)],
    "victron-battery": [("appliance.battery.level", "holding", 266, "uint16", 0.1, 0)],
    "victron-solarcharger": [("appliance.solar.power", "holding", 792, "uint32", 1, 0)],
    "goodwe-dt": [("appliance.solar.voltage.s1", "holding", 30103, "uint16", 0.1, 0)],
    "goodwe-et": [("appliance.battery.level", "holding", 37007, "uint16", 1, 0)],
}


@pytest.mark.parametrize("name", FACTS)
def test_fields_stand_where_the_facts_say(name: str) -> None:
    there = {field.attribute: field for field in loaded(name).fields}
    for attribute, table, address, kind, scale, offset in FACTS[name]:
        field = there[attribute]
        stands = (field.table, field.address, field.type, field.scale, field.offset)
        assert stands == (table, address, kind, scale, offset), attribute


def test_every_shipped_profile_was_held_against_its_facts_but_those_of_one_map() -> None:
    same_as_sdm630 = {"eastron-sdm54", "eastron-x96-1a"}
    assert {path.stem for path in SHIPPED} == FACTS.keys() | same_as_sdm630


# ------------------------------------------------------------------- registers from elsewhere

# The answer that Eastron's manuals print for the first register: 01 04 04 43 66 33 34 1B 38.
PRINTED = (0x4366, 0x3334), 230.2


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("eastron-sdm120", "appliance.voltage"),
        ("eastron-sdm220", "appliance.voltage"),
        ("eastron-sdm230", "appliance.voltage"),
        ("eastron-sdm630", "appliance.voltage.l1"),
        ("eastron-sdm72v2", "appliance.voltage.l1"),
    ],
)
def test_the_answer_that_the_maker_prints_is_read_as_it_says(name: str, attribute: str) -> None:
    (high, low), volts = PRINTED
    read = decoded(loaded(name), "input", {0: high, 1: low})[attribute]
    assert read == pytest.approx(volts, abs=0.01)


@pytest.mark.parametrize("family", ["dt", "et"])
def test_recorded_answers_of_inverters_give_what_another_decoder_says(
    shared_data: Path, family: str
) -> None:
    one = loaded(f"goodwe-{family}")
    where = {field.attribute: field.address for field in one.fields}
    times = {"Wh": 1000}
    units = {field.attribute: times.get(field.unit or "", 1) for field in one.fields}
    compared = other_than_zero = 0
    for device in inverters(shared_data):
        if device["family"] != family:
            continue
        by_place = {(s["offset"], s["id"]): s["id"] for s in device["sensors"]}
        words = {
            dump.address + at: int.from_bytes(dump.data[2 * at : 2 * at + 2])
            for dump in dumps(device)
            for at in range(dump.count)
        }
        read = decoded(one, "holding", words)
        for attribute, value in read.items():
            at = where[attribute]
            said = [device["runtime"].get(name) for (place, name) in by_place if place == at]
            if at not in words or not any(isinstance(one, int | float) for one in said):
                continue
            compared += 1
            other_than_zero += value != 0
            near = [pytest.approx(v * units[attribute], abs=1e-6) for v in said if v is not None]
            assert value in near, (device["device"], attribute, value, said)
    assert compared > 60
    assert other_than_zero > 40


ITEM = re.compile(r"^ *- +name: .*?(?=^ *- +name:|^ *- group:|\Z)", re.MULTILINE | re.DOTALL)
TIMES = {"kW": 1000, "kWh": 1000, "kVar": 1000}


def items(text: str) -> Iterator[dict[str, str]]:
    """The items of a definition, by a second reader that knows nothing of its shape."""
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)
    for item in ITEM.findall(text):
        keys = re.findall(r"(\w+) *: *(\[[^]]*\]|'[^']*'|\"[^\"]*\"|\S+)", item)
        yield {key: value.strip("'\"") for key, value in keys}


def as_its_origin_reads(item: dict[str, str], words: dict[int, int]) -> float:
    """Adds words up from the first, takes the offset off, then scales: parser.py of the origin."""
    registers = [int(one, 0) for one in item["registers"].strip("[]").split(",")]
    value = sum(words[at] << 16 * place for place, at in enumerate(registers))
    if item["rule"] in "24" and value >> (16 * len(registers) - 1):
        value -= 1 << 16 * len(registers)
    value -= int(item.get("offset", "0"))
    return value * float(item["scale"]) * TIMES.get(item["uom"], 1)


def test_every_field_of_a_definition_reads_any_registers_as_its_origin_does(
    shared_data: Path,
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    compared = 0
    for path in (shared_data / "modbus" / "solarman_definitions").glob("*.yaml"):
        one = loaded(solarman.MODELS[path.stem][0])
        words = {at: chance.randrange(2**16) for at in range(0x10000)}
        read = decoded(one, "holding", words) | decoded(one, "input", words)
        all_ = [item for item in items(path.read_text()) if "registers" in item]
        for field in one.fields:
            if field.type == "text":
                continue
            said = [
                as_its_origin_reads(item, words)
                for item in all_
                if item["rule"] in "1234" and solarman_place(item["name"]) == field.attribute
            ]
            expected = [pytest.approx(value, rel=1e-9) for value in said]
            assert read[field.attribute] in expected, (seed, path.stem, field.attribute)
            compared += 1
    assert compared > 150


def solarman_place(name: str) -> str | None:
    try:
        return solarman.place(name)
    except RefusedError:
        return None


def test_every_field_of_a_service_is_a_row_of_the_list(shared_data: Path) -> None:
    with (shared_data / "modbus" / "victron_gx_registers.csv").open(newline="") as file:
        rows = {(row[0], int(row[4])): row for row in csv.reader(file)}
    compared = 0
    for service in victron.SERVICES:
        for field in loaded(service.profile).fields:
            row = rows[f"com.victronenergy.{service.name}", field.address or 0]
            assert row[7] == "R"
            if field.type == "text":
                assert row[5] == f"string[{field.length}]"
                continue
            assert row[5] == field.type
            assert field.scale * float(row[6]) == pytest.approx(TIMES.get(row[3], 1))
            compared += 1
    assert compared > 60


def test_the_low_word_stands_first_where_the_definitions_say_so() -> None:
    # 0x0001 2345 tenths of a kWh; Deye names the low word first, Solis the high word.
    deye = decoded(loaded("deye-4mppt"), "holding", {63: 0x2345, 64: 0x0001})
    assert deye["appliance.solar.energy"] == 0x12345 * 100
    solis = decoded(loaded("solis-3p-4g"), "input", {3008: 0x0001, 3009: 0x2345})
    assert solis["appliance.solar.energy"] == 0x12345 * 1000


def test_what_is_taken_off_before_the_scale_is_taken_off_after_it() -> None:
    read = decoded(loaded("deye-hybrid"), "holding", {0xB6: 1234})
    assert read["appliance.battery.temperature"] == 23.4


def test_a_total_of_zero_is_no_reading_where_the_definition_says_so() -> None:
    assert "appliance.solar.energy" not in decoded(loaded("deye-4mppt"), "holding", {})
    assert decoded(loaded("deye-hybrid"), "holding", {})["appliance.solar.energy"] == 0
    unknown = decoded(loaded("victron-grid"), "holding", {})
    assert unknown["appliance.power.l1"] == 0
    assert "appliance.energy" not in unknown


# ------------------------------------------------------------------------------ what is refused


def test_floats_without_a_divisor_give_fields_in_the_unit_of_the_vocabulary() -> None:
    one = meter({"VoltageL1": {"register": 4}, "Import": {"register": 72}})
    assert one.refused is None
    assert fields(one) == [
        ("appliance.voltage.l1", 4, "float32", Fraction(1)),
        ("appliance.energy", 72, "float32", Fraction(1000)),
    ]


def test_a_map_without_a_scale_is_refused() -> None:
    scaled = ["MakeScaledTransform", "RTUUint32ToFloat64"]
    one = meter({"Voltage": {"register": 4}}, transforms=scaled)
    assert one.refused == "values are divided by what the facts do not tell"
    assert next(told(one)).startswith("refused  made-up: values are divided")
    noted = meter({"Voltage": {"register": 4, "note": "32 bit, 0.1V"}}, transforms=scaled)
    assert fields(noted) == [("appliance.voltage", 4, "uint32", Fraction(1, 10))]


@pytest.mark.parametrize(
    ("registers", "other", "reason"),
    [
        ({"Voltage": {"register": 0}}, {"function": ["ReadInputReg", "ReadHoldingReg"]}, "table"),
        ({"Voltage": {"register": 0}}, {"read_len": ["1", "2"]}, "two registers"),
        (
            {"Voltage": {"register": 0}},
            {"transforms": ["RTUIeee754ToFloat64", "RTUUint32ToFloat64"]},
            "which type",
        ),
        (
            {"Voltage": {"register": 0, "note": "16 bit, 0.1V"}},
            {"transforms": ["RTUInt16ToFloat64", "RTUUint16ToFloat64", "MakeScaledTransform"]},
            "which sign",
        ),
        ({"THD": {"register": 0}}, {}, "tells enough"),
    ],
    ids=[
        "two tables",
        "floats of other lengths",
        "floats and integers",
        "with and without sign",
        "nothing that has a name",
    ],
)
def test_a_map_that_does_not_tell_all_is_refused(
    registers: dict[str, Any], other: dict[str, Any], reason: str
) -> None:
    one = meter(registers, **other)
    assert reason in str(one.refused)
    assert not one.fields


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("", "no note"),
        ("32 bit, 0.00V", "a step of zero"),
        ("32 bit, 0V", "a step of zero"),
        ("32 bit, 0.1A", "no unit of appliance.voltage"),
        ("32 bit, 0.1", "no unit of appliance.voltage"),
        ("8 bit, 0.1V", "no note"),
    ],
    ids=["no note", "no step", "no decimals", "another unit", "no unit", "another width"],
)
def test_a_register_whose_note_does_not_tell_all_is_left_out(note: str, reason: str) -> None:
    registers = {
        "Voltage": {"register": 0, "note": note},
        "Current": {"register": 2, "note": "32 bit, 0.001A"},
    }
    one = meter(registers, transforms=["RTUInt32ToFloat64", "MakeScaledTransform"])
    assert fields(one) == [("appliance.current", 2, "int32", Fraction(1, 1000))]
    assert [(left.label, reason in left.reason) for left in one.left] == [("Voltage", True)]


DEFINITION = """\
requests:
  - start: 0x0003
    end: 0x0010
    mb_functioncode: 0x04

parameters:
 - group: solar
   items:
    - name: "Total Production"
      uom: "kWh"
      scale: 0.1
      rule: 3
      registers: [0x0006,0x0005]   # the low word first
    - name: "Grid Frequency"
      uom: "Hz"
      scale: 0.01
      rule: 1
      registers: [0x0008]
"""


def definition(old: str = "", new: str = "") -> Map:
    assert old in DEFINITION
    return solarman.convert("made-up", "an inverter", "made up", DEFINITION.replace(old, new, 1))


def test_a_definition_gives_fields_and_what_its_requests_show() -> None:
    one = definition()
    total, frequency = one.fields
    assert (total.table, total.address, total.type, total.scale) == ("input", 5, "uint32", 100)
    assert (total.word_order, frequency.address) == (None, 8)
    assert one.requests == "{ registers = 14, gap = 1 }"
    assert definition("0x0006,0x0005", "0x0005,0x0006").fields[0].word_order == "little"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("rule: 3", "rule: 1", "names 2 registers"),
        ("0x0006,0x0005", "0x0007,0x0005", "side by side"),
        ("0x0006,0x0005", "0x0011,0x0010", "no request fetches it"),
        ("rule: 3", "rule: 6", "no number"),
        ('uom: "kWh"', 'uom: "kW"', "no unit of appliance.solar.energy"),
        ("scale: 0.1", "scale: ten", "no decimal number"),
        ("rule: 3", "rule: 3\n      mask: 1", "no measurement"),
        ("rule: 3", "rule: 3\n      validation:\n        max: 9", "bounds"),
        ("Total Production", "Battery Power", "no place in the vocabulary"),
    ],
    ids=[
        "a rule of another width",
        "registers apart",
        "outside the requests",
        "bits",
        "a unit of something else",
        "a scale in words",
        "part of a number",
        "bounds",
        "a sign that no name tells",
    ],
)
def test_a_definition_that_does_not_tell_all_leaves_the_register_out(
    old: str, new: str, reason: str
) -> None:
    one = definition(old, new)
    assert [field.attribute for field in one.fields] == ["appliance.frequency"]
    assert [reason in left.reason for left in one.left] == [True], one.left


GRID = victron.SERVICES[0]
ROW = victron.Row("com.victronenergy.grid", "/Ac/L2/Voltage", "d", "V AC", "5", "uint16", "10", "R")


def test_a_register_that_holds_ten_times_the_value_has_a_tenth_as_scale() -> None:
    one = victron.convert(GRID, [ROW, ROW._replace(path="/Ac/Frequency", unit="Hz", scale="100")])
    assert fields(one) == [
        ("appliance.frequency", 5, "uint16", Fraction(1, 100)),
        ("appliance.voltage.l2", 5, "uint16", Fraction(1, 10)),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"access": "W"}, "a setting"),
        ({"scale": ""}, "no decimal number"),
        ({"scale": "-10"}, "no scale"),
        ({"scale": "0"}, "no scale"),
        ({"type": "INTERNAL[1]"}, "no number"),
        ({"unit": "A AC"}, "no unit of appliance.voltage.l2"),
        ({"path": "/Ac/L4/Voltage"}, "no place"),
    ],
    ids=["written to", "no scale", "below zero", "zero", "another type", "unit", "a fourth phase"],
)
def test_a_row_of_a_service_that_does_not_tell_all_is_left_out(
    change: dict[str, str], reason: str
) -> None:
    one = victron.convert(GRID, [ROW._replace(**change)])
    assert not one.fields
    assert [reason in left.reason for left in one.left] == [True], one.left


def test_a_sensor_whose_recorded_answers_say_otherwise_is_left_out(shared_data: Path) -> None:
    recorded = [one for one in goodwe.inverters_of(shared_data / "modbus") if one.family == "dt"]
    whole = goodwe.convert("dt", "recorded", recorded)
    assert "vpv1" in {field.label for field in whole.fields}
    first, *others = recorded
    wrong = {**first.runtime, "vpv1": 400.7}
    changed = [msgspec.structs.replace(first, runtime=wrong), *others]
    one = goodwe.convert("dt", "recorded", changed)
    assert {left.label for left in one.left} - {left.label for left in whole.left} == {"vpv1"}
    assert f"an answer of {first.device} says otherwise" in {left.reason for left in one.left}


def test_a_sensor_that_no_recorded_answer_holds_is_left_out(shared_data: Path) -> None:
    recorded = [one for one in goodwe.inverters_of(shared_data / "modbus") if one.family == "dt"]
    silent = [msgspec.structs.replace(one, exchanges=[]) for one in recorded]
    one = goodwe.convert("dt", "recorded", silent)
    assert not one.fields
    assert "no recorded answer confirms it" in {left.reason for left in one.left}


def test_a_line_of_another_form_is_refused_with_its_number() -> None:
    with pytest.raises(RefusedError, match=r"line 3: expected 'key: value'"):
        definitions.parse("requests:\n  - start: 1\n  - *again\n")


def test_of_two_registers_for_one_attribute_the_wider_is_taken_and_else_none() -> None:
    wide = DEFINITION + DEFINITION.split("items:\n")[1].replace("rule: 3", "rule: 1").replace(
        "0x0006,0x0005", "0x000A"
    ).replace("0x0008", "0x0009")
    one = solarman.convert("made-up", "an inverter", "made up", wide)
    assert [(field.attribute, field.address) for field in one.fields] == [
        ("appliance.solar.energy", 5)
    ]
    assert {left.reason for left in one.left} == {
        "a wider register says the same",
        "several registers claim appliance.frequency",
    }


def test_a_scale_that_is_no_decimal_is_not_rounded() -> None:
    assert decimal(Fraction(1, 1000)) == "0.001"
    assert decimal(Fraction(1000)) == "1000"
    with pytest.raises(RefusedError):
        decimal(Fraction(1, 3))


# --------------------------------------------------------------------------------------- the page


def test_the_page_has_the_vocabulary() -> None:
    rows = re.findall(r"^\| `([a-z.]+)`([^|]*)\| ([^|]*) \|", GUIDE.read_text(), re.MULTILINE)
    told_ = {name: (unit.strip("` ") or None) for name, _, unit in rows}
    assert told_ == {name: unit for name, (unit, _) in NAMES.items()}
    ends = {
        name: tuple(re.findall(r"`(\.[ls][1-4])`", more)) for name, more, _ in rows if more.strip()
    }
    assert ends == {name: ends[1:] for name, (_, ends) in NAMES.items() if len(ends) > 1}


def test_the_page_shows_every_key_in_profiles_that_load() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        parse_profile(example)
    keys = set(re.findall(r"^#? *(\w+) =", "".join(examples), re.MULTILINE))
    fields_ = {name for name in Field.__struct_fields__ if name != "column"}
    assert keys >= fields_ | {"source", "about", "facts", "serial", "requests"}
