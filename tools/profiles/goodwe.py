# SPDX-License-Identifier: Apache-2.0
"""GoodWe inverters, from recorded answers and what another decoder says they mean.

Law:
  - a sensor's class tells its registers' type and scale (goodwe/sensor.py of the origin); the
    recorded answers have to confirm it: each must decode to the value that is stated, and one of
    them to another value than zero;
  - what all inverters of a family have at the same register stands in the family's profile.

The ES family speaks frames of its own, no Modbus.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from firmware_bridge.decode.modbus import Block
from firmware_bridge.decode.requests import plan
from firmware_bridge.profile.fields import Field, Requests, WireType
from tools.profiles.maps import Fact, Left, Map, limits, settle
from tools.profiles.vocabulary import RefusedError, factor

_FILE: Final = "goodwe_inverters_dev.jsonl.xz"
_ORIGIN: Final = (
    "marcelblijleven/goodwe@66dfcdd9cd94 goodwe/{}.py, goodwe/sensor.py, tests/sample (MIT), "
    "used as facts"
)
_ABOUT: Final = {
    "dt": "GoodWe solar inverter, DT family (DT, SDT, MS, MT)",
    "et": "GoodWe hybrid inverter, ET family (ET, EH)",
}
_NEAR: Final = 1e-9  # of decimals that were divided in binary


class _Type(NamedTuple):
    type: WireType
    scale: Fraction = Fraction(1)
    absent: tuple[int, ...] = ()


_TENTH, _HUNDREDTH = Fraction(1, 10), Fraction(1, 100)
_TYPES: Final = {
    "Voltage": _Type("uint16", _TENTH, (0xFFFF,)),
    "Current": _Type("uint16", _TENTH, (0xFFFF,)),
    "Frequency": _Type("int16", _HUNDREDTH),
    "Power4": _Type("uint32", absent=(0xFFFFFFFF,)),
    "Energy4": _Type("uint32", _TENTH, (0xFFFFFFFF,)),
    "Temp": _Type("int16", _TENTH, (-1, 32767)),
    "Integer": _Type("uint16", absent=(0xFFFF,)),
}
_IDS: Final = {
    **{f"vpv{n}": f"appliance.solar.voltage.s{n}" for n in range(1, 5)},
    **{f"ipv{n}": f"appliance.solar.current.s{n}" for n in range(1, 5)},
    **{f"ppv{n}": f"appliance.solar.power.s{n}" for n in range(1, 5)},
    "vgrid": "appliance.voltage.l1",
    "igrid": "appliance.current.l1",
    "fgrid": "appliance.frequency",
    **{f"vgrid{n}": f"appliance.voltage.l{n}" for n in range(1, 4)},
    **{f"igrid{n}": f"appliance.current.l{n}" for n in range(1, 4)},
    "fgrid1": "appliance.frequency",
    "temperature": "appliance.temperature",
    "e_total": "appliance.solar.energy",
    "e_load_total": "appliance.load.energy",
    "e_bat_charge_total": "appliance.battery.energy.charged",
    "e_bat_discharge_total": "appliance.battery.energy.discharged",
    "battery_soc": "appliance.battery.level",
    "battery_soh": "appliance.battery.health",
    "battery_temperature": "appliance.battery.temperature",
    "vbattery1": "appliance.battery.voltage",
}


class Exchange(msgspec.Struct, frozen=True):
    """One request and its answer, as they were recorded."""

    request: str
    response: str


class Sensor(msgspec.Struct, frozen=True):
    """One row of the other decoder's table."""

    id: str
    offset: int
    type: str
    unit: str
    name: str


class Inverter(msgspec.Struct, frozen=True):
    """One recorded inverter."""

    device: str
    family: str
    exchanges: list[Exchange]
    runtime: dict[str, object]
    sensors: list[Sensor]


class Dump(NamedTuple):
    """Registers that were read, and the inverter's unit id."""

    unit: int
    first: int
    words: tuple[int, ...]


def read(data: Path) -> Iterator[Map]:
    """Reads each family.

    Args:
        data: the folder of the recorded facts.
    """
    families: dict[str, list[Inverter]] = defaultdict(list)
    for one in inverters_of(data):
        families[one.family].append(one)
    for family, inverters in families.items():
        source = _ORIGIN.format(family)
        if family not in _ABOUT:
            reason = "its frames are not Modbus"
            yield Map(f"goodwe-{family}", family, source, refused=reason)
        else:
            yield convert(family, source, inverters)


def inverters_of(data: Path) -> Iterator[Inverter]:
    """Reads what was recorded of each inverter.

    Args:
        data: the folder of the recorded facts.
    """
    with lzma.open(data / _FILE, "rt") as file:
        for line in file:
            yield msgspec.convert(json.loads(line), Inverter)


def convert(family: str, source: str, inverters: Sequence[Inverter]) -> Map:
    """Makes the fields of a family.

    Args:
        family: its short name.
        source: where the facts come from.
        inverters: those that were recorded.
    """
    recorded = [(one, list(_dumps(one))) for one in inverters]
    facts, left = [], []
    for sensor in {(s.id, s.offset, s.type): s for one in inverters for s in one.sensors}.values():
        try:
            fact = _fact(sensor)
            _confirm(fact, sensor, recorded)
            facts.append(fact)
        except RefusedError as exc:
            left.append(Left(sensor.id, str(exc)))
    fields, dropped = settle(facts, left)
    shortest: dict[int, int] = {}
    for dump in (dump for _, dumps in recorded for dump in dumps):
        shortest[dump.first] = min(len(dump.words), shortest.get(dump.first, 125))
    requests = limits(fields, [("holding", first, count) for first, count in shortest.items()])
    units = {dump.unit for _, dumps in recorded for dump in dumps}
    about = f"{_ABOUT[family]}; unit {' or '.join(map(str, sorted(units)))}"
    refused = None if fields else "no recorded answer confirms any of it"
    return Map(
        f"goodwe-{family}", about, source, fields, tuple(dropped), requests=requests,
        refused=refused,
    )  # fmt: skip


def _fact(sensor: Sensor) -> Fact:
    attribute = _IDS.get(sensor.id)
    if attribute is None:
        raise RefusedError("no place in the vocabulary")
    if sensor.type not in _TYPES:
        raise RefusedError(f"the class {sensor.type} is not one that is confirmed")
    kind = _TYPES[sensor.type]
    scale = kind.scale * factor(attribute, sensor.unit)
    return Fact(
        sensor.id, attribute, "holding", sensor.offset, kind.type, scale, absent=kind.absent
    )


def _confirm(fact: Fact, sensor: Sensor, recorded: Sequence[tuple[Inverter, list[Dump]]]) -> None:
    """Holds a field against every recorded answer.

    Raises:
        RefusedError: an answer says otherwise, or none says anything.
    """
    times = factor(fact.attribute, sensor.unit)
    confirmed = 0
    for inverter, dumps in recorded:
        stated = inverter.runtime.get(sensor.id)
        for dump in dumps:
            value = _decode(fact, dump)
            if value is None or not isinstance(stated, int | float):
                continue
            if abs(value - stated * times) > _NEAR * max(1, abs(value)):
                raise RefusedError(f"an answer of {inverter.device} says otherwise")
            confirmed += value != 0
    if not confirmed:
        raise RefusedError("no recorded answer confirms it")


def _decode(fact: Fact, dump: Dump) -> float | None:
    at = fact.address - dump.first
    if not 0 <= at <= len(dump.words) - fact.words:
        return None
    field = Field(
        attribute=fact.attribute, type=fact.type, table=fact.table, address=fact.address,
        scale=float(fact.scale), absent=list(fact.absent),
    )  # fmt: skip
    (request,) = plan([field], Requests())
    reading = Block(request).registers(dump.words[at : at + fact.words])
    value = reading.values[0] if reading.values else None
    return float(value) if isinstance(value, int | float) else None


def _dumps(inverter: Inverter) -> Iterator[Dump]:
    for exchange in inverter.exchanges:
        asked, answered = bytes.fromhex(exchange.request), bytes.fromhex(exchange.response)
        over_tcp = asked[2:4] == b"\0\0" and len(asked) == 12
        asked = asked[6:] if over_tcp else asked
        unit, function, first, count = asked[0], asked[1], asked[2:4], asked[4:6]
        head = bytes([unit, function, 2 * int.from_bytes(count)])
        at = answered.find(head)
        if function != 3 or at < 0:
            continue
        data = answered[at + 3 : at + 3 + head[2]]
        words = tuple(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
        yield Dump(unit, int.from_bytes(first), words)
