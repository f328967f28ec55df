# SPDX-License-Identifier: Apache-2.0
"""Register maps of DIN-rail energy meters, as mbmd's tables name quantities and transforms.

Law:
  - one float transform and two registers a value say everything but the unit, and mbmd's own list
    of quantities says that (meters/measurements.go: V, A, W, VA, var, Hz, kWh);
  - integers need a note on each register (`16 bit, 0.01V`), and transforms of one signedness only;
  - a scaled transform without a note has a divisor that the facts do not tell: refused.

facts/*.toml are maps of the same quantities that were looked up elsewhere; lines.toml has what is
known of lines and requests. Each names its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from firmware_bridge.profile.fields import Order, Table, WireType
from tools.profiles.maps import Fact, Left, Map, settle
from tools.profiles.vocabulary import UNITS, RefusedError, factor, number

_ORIGIN: Final = "volkszaehler/mbmd@fb8f9c22f121 meters/rs485/{}.go (BSD-3-Clause), used as facts"
_FILE: Final = "meter_register_maps_dev.json"
_HERE: Final = Path(__file__).parent

# Quantities of mbmd: the name here, and the unit in which mbmd gives it.
_QUANTITIES: Final[dict[str, tuple[str, str]]] = {
    "Voltage": ("appliance.voltage", "V"),
    "Current": ("appliance.current", "A"),
    "Power": ("appliance.power", "W"),
    "ApparentPower": ("appliance.power.apparent", "VA"),
    "ReactivePower": ("appliance.power.reactive", "var"),
    "Cosphi": ("appliance.power.factor", ""),
    "Frequency": ("appliance.frequency", "Hz"),
    "Import": ("appliance.energy", "kWh"),
    "Export": ("appliance.energy.export", "kWh"),
    "Sum": ("appliance.energy.total", "kWh"),
}
_TABLES: Final[dict[str, Table]] = {"ReadInputReg": "input", "ReadHoldingReg": "holding"}
# meters/rs485/transform.go and semtr3y.go; the second has the low word first.
_FLOATS: Final[dict[str, Order | None]] = {
    "RTUIeee754ToFloat64": None,
    "RTUIeee754SolaredgeToFloat64": "little",
}
_SCALED: Final = "MakeScaledTransform"
_SIGNED: Final = re.compile(r"RTU(Int|Uint)(16|32)ToFloat64")
_NOTE: Final = re.compile(r"(16|32) bit, ([0-9.]+) ?([a-z]*)", re.IGNORECASE)
_PHASE: Final = re.compile(r"(\w+?)L([123])")

# What profiles are called, where that is not the maker's and the model's name in the facts.
_NAMES: Final = {
    "sdm": "eastron-sdm630",
    "sdm120": "eastron-sdm120",
    "sdm220": "eastron-sdm220",
    "sdm54": "eastron-sdm54",
    "sdm72": "eastron-sdm72",
    "sdm72v2": "eastron-sdm72v2",
    "x961a": "eastron-x96-1a",
    "ddm18sd": "ddm18sd",
    "orno1p": "orno-we-514",
    "orno1p525": "orno-we-525",
    "semtr3y": "solaredge-se-mtr-3y",
}


class _Register(msgspec.Struct, frozen=True):
    register: int
    note: str = ""


class MeterMap(msgspec.Struct, frozen=True):
    """One map as the recorded facts have it."""

    file: str
    device: str
    function: list[str]
    read_len: list[str]
    transforms: list[str]
    registers: dict[str, _Register]


class _Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    source: str
    function: str
    read_len: str
    transform: str
    registers: dict[str, int]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    serial: str | None = None
    requests: str | None = None


def read(data: Path) -> Iterator[Map]:
    """Reads every meter of the recorded facts and of facts/.

    Args:
        data: the folder of the recorded facts.
    """
    lines = msgspec.toml.decode((_HERE / "lines.toml").read_bytes(), type=dict[str, _Line])
    for one in parse((data / _FILE).read_bytes()):
        yield _lined(convert(one, _ORIGIN.format(one.file)), lines)
    for path in sorted((_HERE / "facts").glob("*.toml")):
        own = msgspec.toml.decode(path.read_bytes(), type=_Own)
        registers = {name: _Register(address) for name, address in own.registers.items()}
        same = MeterMap(
            path.stem, own.about, [own.function], [own.read_len], [own.transform], registers
        )
        yield _lined(convert(same, own.source), lines)


def parse(data: bytes) -> list[MeterMap]:
    """Reads the text of the recorded maps.

    Args:
        data: JSON.
    """
    return msgspec.json.decode(data, type=list[MeterMap])


def _lined(one: Map, lines: dict[str, _Line]) -> Map:
    line = lines.get(one.name)
    if line is None:
        return one
    facts = f"{one.facts}; line and requests: {line.source}"
    return Map(
        one.name, one.about, facts, one.fields, one.left, line.serial, line.requests, one.refused
    )


def convert(one: MeterMap, source: str) -> Map:
    """Makes a map's fields, or says why there are none.

    Args:
        one: the map.
        source: where it comes from.
    """
    name = _NAMES.get(one.file, one.file)
    facts, left = [], []
    try:
        table = _table(one)
        signs = _signs(one)
    except RefusedError as exc:
        return Map(name, one.device, source, refused=str(exc))
    for quantity, register in one.registers.items():
        try:
            facts.append(_fact(one, table, signs, quantity, register))
        except RefusedError as exc:
            left.append(Left(quantity, str(exc)))
    fields, dropped = settle(facts, left)
    refused = None if fields else "no register of it tells enough"
    return Map(name, one.device, source, fields, tuple(dropped), refused=refused)


def _table(one: MeterMap) -> Table:
    if len(one.function) != 1 or one.function[0] not in _TABLES:
        raise RefusedError(f"which table is read is not told: {', '.join(one.function)}")
    return _TABLES[one.function[0]]


def _signs(one: MeterMap) -> str | None:
    """None for floats, or the one kind of integers: int or uint."""
    if len(one.transforms) == 1 and one.transforms[0] in _FLOATS:
        if one.read_len != ["2"]:
            raise RefusedError("a float takes two registers, others are read")
        return None
    if not any(_NOTE.fullmatch(register.note) for register in one.registers.values()):
        if _SCALED in one.transforms:
            raise RefusedError("values are divided by what the facts do not tell")
        raise RefusedError("which register has which type is not told")
    kinds = {
        found.group(1).lower() if (found := _SIGNED.fullmatch(transform)) else transform
        for transform in one.transforms
        if transform != _SCALED
    }
    if len(kinds) != 1 or not kinds <= {"int", "uint"}:
        raise RefusedError(f"which register has which sign is not told: {', '.join(sorted(kinds))}")
    return kinds.pop()


def _fact(
    one: MeterMap, table: Table, signs: str | None, quantity: str, register: _Register
) -> Fact:
    attribute, unit = _place(quantity)
    if signs is None:
        scale = factor(attribute, unit)
        order = _FLOATS[one.transforms[0]]
        return Fact(
            quantity, attribute, table, register.register, "float32", scale, word_order=order
        )
    noted = _NOTE.fullmatch(register.note)
    if noted is None:
        raise RefusedError("no note tells its width and scale")
    step = number(noted.group(2))
    if step == 0:
        raise RefusedError("the note tells a step of zero, which is no scale")
    scale = step * factor(attribute, noted.group(3))
    return Fact(quantity, attribute, table, register.register, _integer(signs, noted), scale)


def _integer(signs: str, noted: re.Match[str]) -> WireType:
    types: dict[tuple[str, str], WireType] = {
        ("int", "16"): "int16",
        ("int", "32"): "int32",
        ("uint", "16"): "uint16",
        ("uint", "32"): "uint32",
    }
    return types[signs, noted.group(1)]


def _place(quantity: str) -> tuple[str, str]:
    phase = _PHASE.fullmatch(quantity)
    base = phase.group(1) if phase else quantity
    attribute, unit = _QUANTITIES.get(base, ("", ""))
    attribute += f".l{phase.group(2)}" if phase else ""
    if attribute not in UNITS:
        raise RefusedError("no place in the vocabulary")
    return attribute, unit
