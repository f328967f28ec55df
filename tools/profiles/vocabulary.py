# SPDX-License-Identifier: Apache-2.0
"""The names that shipped profiles give to quantities, the unit of each, and how units convert.

Law: a name stands for one quantity in one unit, whatever the device counts in; a unit that does not
belong to the name is refused. docs/profiles.md has the same table, with what each name means.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_PHASES: Final = ("", ".l1", ".l2", ".l3")
_STRINGS: Final = ("", ".s1", ".s2", ".s3", ".s4")

NAMES: Final[dict[str, tuple[str | None, tuple[str, ...]]]] = {
    "appliance.power": ("W", _PHASES),
    "appliance.power.apparent": ("VA", _PHASES),
    "appliance.power.reactive": ("var", _PHASES),
    "appliance.power.factor": ("1", _PHASES),
    "appliance.energy": ("Wh", _PHASES),
    "appliance.energy.export": ("Wh", _PHASES),
    "appliance.energy.total": ("Wh", _PHASES),
    "appliance.voltage": ("V", _PHASES),
    "appliance.current": ("A", _PHASES),
    "appliance.frequency": ("Hz", ("",)),
    "appliance.temperature": ("Cel", ("",)),
    "appliance.output.power": ("W", _PHASES),
    "appliance.load.power": ("W", _PHASES),
    "appliance.load.energy": ("Wh", ("",)),
    "appliance.solar.power": ("W", _STRINGS),
    "appliance.solar.voltage": ("V", _STRINGS),
    "appliance.solar.current": ("A", _STRINGS),
    "appliance.solar.energy": ("Wh", _PHASES),
    "appliance.battery.level": ("%", ("",)),
    "appliance.battery.health": ("%", ("",)),
    "appliance.battery.voltage": ("V", ("",)),
    "appliance.battery.temperature": ("Cel", ("",)),
    "appliance.battery.energy.charged": ("Wh", ("",)),
    "appliance.battery.energy.discharged": ("Wh", ("",)),
    "device.serial": (None, ("",)),
}
"""Each quantity: its unit, None for a text, and what may follow the name."""

UNITS: Final[dict[str, str | None]] = {
    base + end: unit for base, (unit, ends) in NAMES.items() for end in ends
}
"""Each name: its unit."""

# How facts write a unit: the name's own unit, and how many of those it is.
_WRITTEN: Final[dict[str, tuple[str, int]]] = {
    "w": ("W", 1),
    "kw": ("W", 1000),
    "va": ("VA", 1),
    "kva": ("VA", 1000),
    "var": ("var", 1),
    "kvar": ("var", 1000),
    "wh": ("Wh", 1),
    "kwh": ("Wh", 1000),
    "v": ("V", 1),
    "v ac": ("V", 1),
    "v dc": ("V", 1),
    "a": ("A", 1),
    "a ac": ("A", 1),
    "a dc": ("A", 1),
    "hz": ("Hz", 1),
    "%": ("%", 1),
    "c": ("Cel", 1),
    "°c": ("Cel", 1),
    "degrees celsius": ("Cel", 1),
    "": ("1", 1),
}
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class RefusedError(ValueError):
    """The facts do not say enough, or contradict themselves; the text says what is wrong."""


def factor(attribute: str, written: str) -> Fraction:
    """What a number in the unit of the facts is multiplied by.

    Args:
        attribute: a name of the vocabulary.
        written: the unit as the facts write it; empty for a ratio.

    Raises:
        RefusedError: the unit is unknown, or is not one of this quantity.
    """
    unit, times = _WRITTEN.get(written.strip().lower(), ("", 0))
    if unit != UNITS[attribute]:
        raise RefusedError(f"{written or 'no unit'} is no unit of {attribute}")
    return Fraction(times)


def number(text: str) -> Fraction:
    """A decimal number, exactly as it is written.

    Raises:
        RefusedError: it is none.
    """
    if not _DECIMAL.fullmatch(text):
        raise RefusedError(f"{text!r} is no decimal number")
    return Fraction(text)
