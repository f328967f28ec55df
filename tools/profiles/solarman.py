# SPDX-License-Identifier: Apache-2.0
"""Register definitions of inverters, as home_assistant_solarman's files write them.

Law:
  - rules 1 and 2 are one register without and with sign, 3 and 4 are two of them, 5 is text; a rule
    that does not fit its number of registers is refused (the origin's customization.md);
  - the first register of two is the low word (the origin's parser.py adds the next one shifted);
  - `offset` is taken off before the scale;
  - a register is read by the function of the request that fetches it; one that none fetches is
    refused;
  - a name has a place in the vocabulary only where it says what is measured: powers and currents of
    batteries and of the grid have a sign that no name tells, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple, cast

from firmware_bridge.profile.fields import Order, Table, WireType
from tools.profiles.definitions import Node, parse
from tools.profiles.maps import Fact, Left, Map, limits, settle
from tools.profiles.vocabulary import UNITS, RefusedError, factor, number

_FOLDER: Final = "solarman_definitions"
_ORIGIN: Final = (
    "StephanJoubert/home_assistant_solarman@d4296b16415d {} (Apache-2.0), used as facts"
)

# The profile and the model, as the files' heads and names tell.
MODELS: Final = {
    "deye_2mppt": ("deye-2mppt", "Deye micro-inverter of two trackers (SUN600G3)"),
    "deye_4mppt": ("deye-4mppt", "Deye micro-inverter of four trackers (SUN2000G3)"),
    "deye_hybrid": ("deye-hybrid", "Deye hybrid inverter"),
    "deye_string": ("deye-string", "Deye string inverter"),
    "hyd-zss-hp-3k-6k": ("zcs-azzurro-hyd-zss-hp", "ZCS Azzurro hybrid inverter, HYD ZSS HP"),
    "sofar_hyd3k-6k-es": ("sofar-hyd-es", "Sofar hybrid inverter, HYD 3000 to 6000 ES"),
    "sofar_lsw3": ("sofar-string", "Sofar string inverter"),
    "sofar_wifikit": ("sofar-me3000-sp", "Sofar battery inverter, ME3000-SP"),
    "solis_1p8k-5g": ("solis-1p-5g", "Solis single-phase inverter, 1P8K-5G"),
    "solis_3p-4g": ("solis-3p-4g", "Solis three-phase inverter, 3P5K-4G to 3P10K-4G"),
    "solis_s6-gr1p": ("solis-s6-gr1p", "Solis single-phase inverter, S6-GR1P"),
}
_SAID: Final[dict[str, tuple[str, ...]]] = {
    "appliance.voltage": ("ac voltage", "grid voltage", "inverter voltage"),
    "appliance.current": ("grid current", "inverter current"),
    "appliance.frequency": ("ac output frequency", "grid frequency", "inverter frequency"),
    "appliance.output.power": (
        "total ac output power (active)", "output active power", "active power output total",
        "inverter ac power", "active power",
    ),
    "appliance.power.reactive": ("output reactive power",),
    "appliance.power.apparent": ("output apparent power",),
    "appliance.solar.power": ("total dc power", "pv instant generated pw", "generation power"),
    "appliance.solar.energy": ("total production", "total generation", "pv generation total"),
    "appliance.load.power": (
        "total load power", "consumption power", "power consumption", "active power load total",
    ),
    "appliance.load.power.l1": ("load l1 power",),
    "appliance.load.power.l2": ("load l2 power",),
    "appliance.load.energy": (
        "total load consumption", "total consumption", "total power consumption",
    ),
    "appliance.energy": ("total energy bought", "energy purchase total", "total grid consumption"),
    "appliance.energy.export": ("total energy sold", "energy selling total", "total grid return"),
    "appliance.battery.level": ("battery soc", "battery percentage"),
    "appliance.battery.health": ("battery soh",),
    "appliance.battery.voltage": ("battery voltage", "battery 1 voltage"),
    "appliance.battery.temperature": ("battery temperature",),
    "appliance.battery.energy.charged": (
        "total battery charge", "battery total charge", "battery charge total",
    ),
    "appliance.battery.energy.discharged": (
        "total battery discharge", "battery total discharge", "battery discharge total",
    ),
    "appliance.temperature": (
        "inverter temperature", "radiator temperature", "inverter module temperature",
    ),
    "device.serial": ("serial number",),
}  # fmt: skip
_NAMES: Final = {said: attribute for attribute, all_ in _SAID.items() for said in all_}
_STRING: Final = re.compile(
    r"(?:pv|dc )(?P<a>[1-4])? ?(?P<q>voltage|current|power)(?: (?P<b>[1-4]))?"
)
_PHASE: Final = re.compile(
    r"(?:grid (?P<q1>voltage|current) l(?P<n1>[123])|l(?P<n2>[123]) (?P<q2>voltage|current)"
    r"|(?:grid )?(?P<n3>[abc]) (?:phase )?(?P<q3>voltage|current)"
    r"|grid (?P<q4>current) (?P<n4>[abc]))"
)  # fmt: skip
_LETTERS: Final = {"a": "1", "b": "2", "c": "3"}
_TABLES: Final[dict[int, Table]] = {3: "holding", 4: "input"}
_RULES: Final[dict[str, WireType]] = {"1": "uint16", "2": "int16", "3": "uint32", "4": "int32"}


class _Range(NamedTuple):
    table: Table
    first: int
    most: int


def read(data: Path) -> Iterator[Map]:
    """Reads every definition of the recorded facts.

    Args:
        data: the folder of the recorded facts.
    """
    for path in sorted((data / _FOLDER).glob("*.yaml")):
        name, about = MODELS.get(path.stem, (path.stem, path.stem))
        source = _ORIGIN.format(path.name)
        try:
            yield convert(name, about, source, path.read_text())
        except RefusedError as exc:
            yield Map(name, about, source, refused=str(exc))


def convert(name: str, about: str, source: str, text: str) -> Map:
    """Makes the fields of one definition.

    Raises:
        RefusedError: the file cannot be read.
    """
    node = parse(text)
    ranges = [_range(one) for one in cast("list[Node]", node["requests"])]
    facts, left = [], []
    for group in cast("list[Node]", node["parameters"]):
        for item in cast("list[Node]", group["items"]):
            label = str(item["name"])
            try:
                facts.append(_fact(label, item, ranges))
            except RefusedError as exc:
                left.append(Left(label, str(exc)))
    fields, dropped = settle(facts, left)
    refused = None if fields else "no register of it tells enough"
    requests = limits(fields, ranges)
    return Map(name, about, source, fields, tuple(dropped), requests=requests, refused=refused)


def _range(request: Node) -> _Range:
    first, last = int(str(request["start"]), 0), int(str(request["end"]), 0)
    return _Range(_TABLES[int(str(request["mb_functioncode"]), 0)], first, last - first + 1)


def _fact(label: str, item: Node, ranges: list[_Range]) -> Fact:
    attribute = place(label)
    if "lookup" in item or "mask" in item:
        raise RefusedError("a number of a list or a part of one is no measurement")
    registers = [int(one, 0) for one in cast("list[str]", item["registers"])]
    first, count = min(registers), len(registers)
    tables = {table for table, start, most in ranges if start <= first <= start + most - count}
    if len(tables) != 1:
        raise RefusedError("no request fetches it")
    table = tables.pop()
    if item["rule"] == "5":
        if registers != list(range(first, first + count)):
            raise RefusedError("its registers do not stand side by side")
        return Fact(label, attribute, table, first, "text", length=count)
    kind = _RULES.get(str(item["rule"]))
    if kind is None:
        raise RefusedError(f"rule {item['rule']} is no number")
    order = _order(kind, registers)
    scale = number(str(item["scale"]))
    taken_off = number(str(item.get("offset", "0")))
    absent = _absent(item, scale, kind)
    times = scale * factor(attribute, str(item["uom"]))
    return Fact(
        label, attribute, table, first, kind, times, -taken_off * times,
        word_order=order, absent=absent,
    )  # fmt: skip


def _order(kind: WireType, registers: list[int]) -> Order | None:
    if len(registers) != (2 if kind.endswith("32") else 1):
        raise RefusedError(f"its rule is of {kind}, it names {len(registers)} registers")
    if len(registers) == 1:
        return None
    low, high = registers
    if abs(high - low) != 1:
        raise RefusedError("its registers do not stand side by side")
    return "little" if low < high else None


def _absent(item: Node, scale: Fraction, kind: WireType) -> tuple[int, ...]:
    """What the least valid value says: that zero is no reading, or nothing that can be written."""
    validation = item.get("validation")
    if not isinstance(validation, dict):
        return ()
    least = number(str(validation.get("min", "0")))
    if "max" in validation or not kind.startswith("u") or not 0 <= least <= scale:
        raise RefusedError("its valid values have bounds that a profile cannot express")
    return (0,) if least > 0 else ()


def place(label: str) -> str:
    """The attribute that a name of the definitions stands for.

    Raises:
        RefusedError: none.
    """
    said = label.lower()
    string = _STRING.fullmatch(said)
    if string and (string["a"] or string["b"]):
        return f"appliance.solar.{string['q']}.s{string['a'] or string['b']}"
    phase = _PHASE.fullmatch(said)
    if phase:
        quantity = next(phase[f"q{n}"] for n in range(1, 5) if phase[f"q{n}"])
        mark = next(phase[f"n{n}"] for n in range(1, 5) if phase[f"n{n}"])
        return f"appliance.{quantity}.l{_LETTERS.get(mark, mark)}"
    if said not in _NAMES or _NAMES[said] not in UNITS:
        raise RefusedError("no place in the vocabulary")
    return _NAMES[said]
