# SPDX-License-Identifier: Apache-2.0
"""Services of a Victron GX device over Modbus TCP, as its own register list has them.

Law:
  - a register holds the value times `scale`;
  - what may be written is a setting, not a reading, and is left out;
  - of two registers of one path the wider one is taken.

Both functions of reading give the same registers (the origin's backend.cpp); holding is used. The
high word stands first (mappings.cpp). Each service of a GX device has a unit id of its own, which
the device shows under Modbus TCP.

Limits: a GX device gives zero for a value that it does not have (mappings.cpp). For a counter zero
is therefore no reading: it would be read as a reset. Elsewhere it cannot be told from zero.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

from firmware_bridge.profile.fields import WireType
from tools.profiles.maps import Fact, Left, Map, settle
from tools.profiles.vocabulary import UNITS, RefusedError, factor, number

_FILE: Final = "victron_gx_registers.csv"
_ORIGIN: Final = (
    "victronenergy/dbus_modbustcp@24c50db72fba attributes.csv, service {}; backend.cpp and "
    "mappings.cpp for function and word order (MIT), used as facts"
)
_METER: Final = {
    "/Ac/Power": "appliance.power",
    "/Ac/L#/Power": "appliance.power.l#",
    "/Ac/Energy/Forward": "appliance.energy",
    "/Ac/L#/Energy/Forward": "appliance.energy.l#",
    "/Ac/Energy/Reverse": "appliance.energy.export",
    "/Ac/L#/Energy/Reverse": "appliance.energy.export.l#",
    "/Ac/L#/Voltage": "appliance.voltage.l#",
    "/Ac/L#/Current": "appliance.current.l#",
    "/Ac/Frequency": "appliance.frequency",
    "/Ac/PowerFactor": "appliance.power.factor",
    "/Ac/L#/PowerFactor": "appliance.power.factor.l#",
    "/Temperature": "appliance.temperature",
    "/Serial": "device.serial",
}
_SOLAR: Final = _METER | {
    "/Ac/L#/Power": "appliance.output.power.l#",
    "/Ac/L#/Energy/Forward": "appliance.solar.energy.l#",
}
_BATTERY: Final = {
    "/Soc": "appliance.battery.level",
    "/Soh": "appliance.battery.health",
    "/Dc/0/Voltage": "appliance.battery.voltage",
    "/Dc/0/Temperature": "appliance.battery.temperature",
    "/History/ChargedEnergy": "appliance.battery.energy.charged",
    "/History/DischargedEnergy": "appliance.battery.energy.discharged",
}
_CHARGER: Final = {
    "/Pv/V": "appliance.solar.voltage",
    "/Yield/Power": "appliance.solar.power",
    "/Dc/0/Voltage": "appliance.battery.voltage",
}


class Service(NamedTuple):
    """A service, its profile, and the attributes of its paths; `#` is a phase."""

    name: str
    profile: str
    about: str
    paths: dict[str, str]


SERVICES: Final = (
    Service("grid", "victron-grid", "Grid meter of a Victron GX", _METER),
    Service("acload", "victron-acload", "Load meter of a Victron GX", _METER),
    Service("heatpump", "victron-heatpump", "Heat pump at a Victron GX", _METER),
    Service("evcharger", "victron-evcharger", "Victron EV charging station", _METER),
    Service("pvinverter", "victron-pvinverter", "Solar inverter at a Victron GX", _SOLAR),
    Service("battery", "victron-battery", "Battery monitor at a Victron GX", _BATTERY),
    Service("solarcharger", "victron-solarcharger", "Solar charger at a Victron GX", _CHARGER),
)
_PHASE: Final = re.compile(r"(?<=/L)[123](?=/)")
_TEXT: Final = re.compile(r"string\[([0-9]+)\]")
_TYPES: Final[dict[str, WireType]] = {
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
}
_KINDS: Final = "com.victronenergy."


class Row(NamedTuple):
    """A row of the list, as it is written."""

    service: str
    path: str
    dbus: str
    unit: str
    register: str
    type: str
    scale: str
    access: str


def read(data: Path) -> Iterator[Map]:
    """Reads the services that measure.

    Args:
        data: the folder of the recorded facts.
    """
    with (data / _FILE).open(newline="") as file:
        rows = [Row(*cells) for cells in csv.reader(file) if cells]
    for service in SERVICES:
        yield convert(service, [row for row in rows if row.service == _KINDS + service.name])
    other = {row.service.removeprefix(_KINDS) for row in rows} - {one.name for one in SERVICES}
    source = _ORIGIN.format("*")
    for name in sorted(other):
        reason = "no name of its paths is known here yet"
        yield Map(f"victron-{name}", name, source, refused=reason)


def convert(service: Service, rows: Sequence[Row]) -> Map:
    """Makes the fields of one service.

    Args:
        service: which, and what its paths are called here.
        rows: those of the service.
    """
    facts, left = [], []
    for row in rows:
        try:
            facts.append(_fact(row, service.paths))
        except RefusedError as exc:
            left.append(Left(row.path, str(exc)))
    fields, dropped = settle(facts, left)
    source = _ORIGIN.format(_KINDS + service.name)
    return Map(service.profile, service.about, source, fields, tuple(dropped))


def _fact(row: Row, paths: dict[str, str]) -> Fact:
    phase = _PHASE.search(row.path)
    attribute = paths.get(_PHASE.sub("#", row.path), "").replace("#", phase[0] if phase else "")
    if attribute not in UNITS:
        raise RefusedError("no place in the vocabulary")
    if row.access != "R":
        raise RefusedError("it can be written: a setting, no reading")
    register = int(row.register)
    text = _TEXT.fullmatch(row.type)
    if text and attribute == "device.serial":
        return Fact(row.path, attribute, "holding", register, "text", length=int(text[1]))
    if row.type not in _TYPES:
        raise RefusedError(f"{row.type} is no number")
    divisor = number(row.scale)
    if divisor <= 0:
        raise RefusedError(f"{row.scale} is no scale")
    scale = factor(attribute, row.unit) / Fraction(divisor)
    absent = (0,) if UNITS[attribute] == "Wh" else ()
    return Fact(row.path, attribute, "holding", register, _TYPES[row.type], scale, absent=absent)
