# SPDX-License-Identifier: Apache-2.0
"""A profile says where values stand; every mistake in it is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from assent.errors import ConfigError
from firmware_bridge.profile import doubts, load_profile, parse_profile
from firmware_bridge.profile.fields import Csv, Field, Serial

PROFILES = Path(__file__).resolve().parents[2] / "config" / "profiles"

METER = """\
[profile]
source = "modbus"
about = "Eastron SDM120 single-phase meter"
facts = "Eastron SDM120 Modbus protocol, V2.4"
serial = { baudrate = 2400, parity = "N", stopbits = 1 }

[[field]]
attribute = "appliance.power"
table = "input"
address = 12                     # zero-based
type = "float32"
absent = ["nan"]
"""

RECORDING = """\
[profile]
source = "replay"
about = "A plug"
facts = "made for this test"
csv = { time = ["Date", "Time"], time_format = "%d/%m/%Y %H:%M:%S", delimiter = ";" }

[[field]]
attribute = "appliance.power"
column = "Power"
scale = 1000
absent = ["?", -1]
unit = "W"

[[field]]
attribute = "device.serial"
column = 4
type = "text"
"""


def findings(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_profile(text, "p.toml")
    return [str(finding) for finding in caught.value.findings]


def test_a_profile_of_registers_is_read() -> None:
    profile = parse_profile(METER)
    assert profile.source == "modbus"
    assert profile.serial == Serial(baudrate=2400, parity="N", stopbits=1)
    assert profile.csv is None
    assert profile.fields == (
        Field(
            attribute="appliance.power",
            type="float32",
            table="input",
            address=12,
            absent=["nan"],
        ),
    )


def test_a_profile_of_a_recording_is_read() -> None:
    profile = parse_profile(RECORDING)
    assert profile.csv == Csv(
        time=["Date", "Time"], time_format="%d/%m/%Y %H:%M:%S", delimiter=";", header=True
    )
    power, serial = profile.fields
    assert (power.column, power.type, power.scale, power.absent) == (
        "Power",
        "number",
        1000.0,
        ["?", -1],
    )
    assert (serial.column, serial.type) == (4, "text")
    assert profile.attributes == {"appliance.power", "device.serial"}


@pytest.mark.parametrize(
    ("table", "address", "warning"),
    [
        ("input", 30013, "p.toml:10:1: warning: addresses are zero-based; a document that counts from 30001 writes 30013 for address 12 (did you mean 12?)"),
        ("holding", 40001, "p.toml:10:1: warning: addresses are zero-based; a document that counts from 40001 writes 40001 for address 0 (did you mean 0?)"),
        ("input", 12, None),
        ("input", 40001, None),
        ("holding", 40000, None),
        ("holding", 40960, None),
    ],
    ids=[
        "an input register as documents count",
        "a holding register as documents count",
        "an address",
        "a number of another table",
        "an address just before",
        "an address far behind, as one shipped meter has",
    ],
)  # fmt: skip
def test_an_address_that_looks_like_a_documents_number_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, address: int, warning: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    text = METER.replace('"input"', f'"{table}"').replace("address = 12", f"address = {address}")
    Path("p.toml").write_text(text)
    assert load_profile(Path("p.toml")).fields[0].address == address
    assert [str(one) for one in doubts(Path("p.toml"))] == ([warning] if warning else [])


def test_registers_of_sunspec_are_not_doubted(tmp_path: Path) -> None:
    text = METER.replace('"input"', '"holding"').replace("address = 12", "address = 40072")
    told = {}
    for name, more in (("plain", '"int16"'), ("scaled", '"int16"\nexponent = 40076')):
        path = tmp_path / f"{name}.toml"
        path.write_text(text.replace('"float32"\nabsent = ["nan"]', more))
        told[name] = len(doubts(path))
    assert told == {"plain": 1, "scaled": 0}


def test_every_shipped_profile_loads() -> None:
    paths = sorted(PROFILES.glob("*.toml"))
    assert {path.stem for path in paths} >= {"eastron-sdm120", "replay-washing-machine"}
    for path in paths:
        profile = load_profile(path)
        assert profile.about
        assert profile.facts
        assert doubts(path) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('source = "modbus"', 'source = "modbsu"', "p.toml:2:1: expected one of 'modbus', 'replay', got the text 'modbsu' (did you mean 'modbus'?)"),
        ("address = 12", "adress = 12", "p.toml:10:1: unknown key 'adress'"),
        ("address = 12", "", "p.toml:7:3: missing key 'address' of 'appliance.power'"),
        ("address = 12", "address = 65536", "p.toml:10:1: expected a whole number"),
        ('"float32"', '"number"', "p.toml:11:1: expected one of int16, uint16,"),
        ('"float32"', '"flaot32"', "p.toml:11:1: expected one of"),
        ('absent = ["nan"]', "column = 1", "p.toml:12:1: 'column' does not belong to this source"),
        ('parity = "N"', 'parity = "M"', "p.toml:5:29: expected one of 'E', 'N', 'O', got the text 'M'"),
        ("serial = {", "csv = { time = 1 }\nserial = {", "p.toml:5:1: 'csv' is for source 'replay', this is 'modbus'"),
        ('absent = ["nan"]', "scale = 0", "p.toml:12:1: a scale of zero leaves nothing of the reading"),
        ('type = "float32"\nabsent = ["nan"]', 'type = "bits"\nscale = 2', "p.toml:12:1: a bits has no scale"),
        ('about = "Eastron SDM120 single-phase meter"\n', "", "p.toml:1:2: missing key 'about'"),
        ('type = "float32"', 'type = "text"', "p.toml:7:3: missing key 'length' of 'appliance.power'"),
        ('type = "float32"', 'type = "float32"\nlength = 2', "p.toml:12:1: a length belongs to text, bcd and bits in registers"),
        ('type = "float32"\nabsent = ["nan"]', 'type = "bcd"\nlength = 5', "p.toml:12:1: a bcd takes at most 4 registers, got 5"),
        ("serial = {", "requests = { registers = 1 }\nserial = {", "p.toml:12:1: 'appliance.power' takes 2 registers, more than one request may ask for (1)"),
        ("serial = {", "requests = { registers = 126 }\nserial = {", "p.toml:5:14: expected a whole number"),
        ("serial = {", 'requests = { timeout = "0s" }\nserial = {', "p.toml:5:14: expected a timeout above zero, got 0s"),
        ("address = 12", "address = 65535", "p.toml:10:1: the last register is 65535, this ends at 65536"),
        ('table = "input"', 'table = "coil"', "p.toml:11:1: the table 'coil' holds bits, got 'float32'"),
        ('"float32"\nabsent = ["nan"]', '"bits"', "p.toml:7:3: 'appliance.power' needs either 'bit' or 'events'"),
        ('"float32"\nabsent = ["nan"]', '"bits"\nbit = 16', "p.toml:12:1: expected bits from 0 to 15, got 16"),
        ('"float32"\nabsent = ["nan"]', '"bits"\nevents = { 16 = "on" }', "p.toml:12:12: expected the number of a bit from 0 to 15, got '16'"),
        ('absent = ["nan"]', 'absent = ["none"]', "p.toml:12:11: expected a number or \"nan\", got 'none'"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nfault = [65536]', "p.toml:12:10: no int16 is 65536"),
        ('"float32"', '"int16"\nword_order = "little"', "p.toml:12:1: a word order belongs to numbers of several registers"),
        ('absent = ["nan"]', 'names = { 1 = "on" }', "p.toml:12:1: names belong to whole numbers, this is a float32"),
        ('"float32"', '"float32"\nexponent = 20', "p.toml:12:1: an exponent belongs to whole numbers in registers, this is a float32"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nexponent = 12', "p.toml:12:1: expected the address of another register than the field's own"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nexponent = 200', "p.toml:12:1: the field and its exponent lie 189 registers apart, more than one request may ask for (125)"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nexponent = 20\nnames = { 1 = "on" }', "p.toml:12:1: a number with names has no exponent"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nscale = 0.1\nnames = { 1 = "on" }', "p.toml:12:1: a number with names has no scale"),
        ('"float32"\nabsent = ["nan"]', '"int16"\nnames = { on = "1" }', "p.toml:12:11: expected a number, got 'on'"),
    ],
    ids=[
        "a source that needs no profile, or none at all",
        "a slip in a key",
        "no address",
        "an address no register has",
        "a type of cells in a profile of registers",
        "a type that does not exist",
        "a column in a profile of registers",
        "a parity that does not exist",
        "a recording's layout in a profile of registers",
        "a scale of nothing",
        "a scale of bits",
        "no word on what it is",
        "a text of unknown length",
        "a length of what has its own",
        "decimals longer than 64 bits",
        "a field longer than the device's limit",
        "a limit above the standard's",
        "no time to answer",
        "a field beyond the last register",
        "a number among coils",
        "bits without a bit",
        "a bit that a register has not",
        "an event of a bit that a register has not",
        "a text that is no number",
        "a fault that cannot be read",
        "a word order of one word",
        "names of a float",
        "an exponent of a float",
        "an exponent in the field itself",
        "an exponent too far away",
        "an exponent of a number with names",
        "names of a scaled number",
        "a name of no number",
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile_of_registers_is_named(
    before: str, after: str, expected: str
) -> None:
    assert METER.count(before) == 1
    found = findings(METER.replace(before, after))
    assert any(line.startswith(expected) for line in found), found


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"%d/%m/%Y %H:%M:%S"', '"%Q"', "p.toml:5:34: expected 'iso', 'unix', 'unix-ms' or a pattern"),
        ('["Date", "Time"]', "[]", "p.toml:5:9: expected at least one column, got none"),
        ('["Date", "Time"]', "0", "p.toml:5:9: expected"),
        ('delimiter = ";"', "delimiter = ';;'", "p.toml:5:69: expected"),
        ('delimiter = ";"', "delimiter = '\"'", "p.toml:5:69: a quote or a line end cannot be a delimiter"),
        ('delimiter = ";"', "header = false", "p.toml:5:9: without a header row a column has a number"),
        ('delimiter = ";"', "header = false", "p.toml:9:1: without a header row a column has a number"),
        ('column = "Power"', "", "p.toml:7:3: missing key 'column' of 'appliance.power'"),
        ('column = "Power"', "column = 1\naddress = 3", "p.toml:10:1: 'address' does not belong to this source"),
        ('type = "text"', 'type = "uint16"', "p.toml:17:1: expected one of number, integer, boolean, text, position, got 'uint16'"),
        ('"device.serial"', '"appliance.power"', "p.toml:15:1: the attribute 'appliance.power' stands twice"),
        ('type = "text"', 'type = "text"\nscale = 2', "p.toml:18:1: a text has no scale"),
        ('source = "replay"', 'source = "replay"\nserial = { }', "p.toml:3:1: 'serial' is for source 'modbus', this is 'replay'"),
    ],
    ids=[
        "a time format that is none",
        "no time column",
        "columns count from 1",
        "a delimiter of two characters",
        "a delimiter that is the quote",
        "a named time column without a header",
        "a named column without a header",
        "no column",
        "an address in a recording",
        "a type of registers in a recording",
        "an attribute that stands twice",
        "a scale of a text",
        "a serial line of a recording",
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile_of_a_recording_is_named(
    before: str, after: str, expected: str
) -> None:
    assert RECORDING.count(before) == 1
    found = findings(RECORDING.replace(before, after))
    assert any(line.startswith(expected) for line in found), found


def test_a_recording_without_a_layout_says_what_to_write() -> None:
    (found,) = findings(RECORDING.replace("csv = {", "# csv = {"))
    assert found.startswith(
        "p.toml:1:2: missing key 'csv': how the recording is written (write csv"
    )


def test_all_mistakes_come_at_once() -> None:
    found = findings(
        METER.replace("address", "adress").replace('"N"', '"X"').replace("float32", "x")
    )
    assert len(found) == 3
