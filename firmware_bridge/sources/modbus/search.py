# SPDX-License-Identifier: Apache-2.0
"""Which units answer on a port, and which profiles fit what they answer; for a technician.

Law:
  - only what reads is asked: the questions of `frames`;
  - a unit is there when it answers anything, a refusal too; a port has one setting of its line, so
    that the search of a port ends with the first setting at which a unit was heard; a setting that
    the port does not have, or at which the line is never silent, is passed over;
  - a profile fits a unit that answers all its requests and gives a value for some field; those that
    give most come first.

Limits: two models with the same registers fit the same answers; the values are shown so that a
person can tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from firmware_bridge.decode.modbus import Block
from firmware_bridge.decode.requests import Request, plan
from firmware_bridge.profile import Profile
from firmware_bridge.profile.fields import Field, Serial
from firmware_bridge.profile.registers import is_bit
from firmware_bridge.sample import SourceError, Value
from firmware_bridge.sources.modbus.bus import BabbleError, Bus
from firmware_bridge.sources.modbus.frames import Answer, Question
from firmware_bridge.sources.modbus.ports import UnfitLineError

# A meter that is there begins to answer within some 100 ms; the wrong units are many.
_PROBE_S: Final = 0.25
_READ_S: Final = 1.0
# No meter resolves less; a whole number that is read as a float comes out near 1e-38.
_LEAST: Final = 1e-6
# One register of each table: what refuses one of them is there, too.
_PROBES: Final = (
    Request("input", 0, 1, (Field("probe", type="uint16", table="input", address=0),)),
    Request("holding", 0, 1, (Field("probe", type="uint16", table="holding", address=0),)),
)
# What most meters leave the factory with, after what the profiles say.
_COMMON: Final = (Serial(9600), Serial(2400), Serial(9600, "E"), Serial(19200), Serial(19200, "E"))

# A gateway's words for a unit that it cannot reach, Modbus application protocol V1.1b3 §7.
_ABSENT: Final = frozenset({10, 11})

Progress = Callable[[Serial, int], None]
"""Is told which setting and unit is asked next."""


class Fit(msgspec.Struct, frozen=True):
    """A profile that fits a unit.

    Attributes:
        profile: its name.
        about: the model.
        fields: how many fields it has.
        values: what they gave.
        units: of those that have one.
    """

    profile: str
    about: str
    fields: int
    values: dict[str, Value]
    units: dict[str, str] = {}


class Found(msgspec.Struct, frozen=True):
    """A unit that answers.

    Attributes:
        port: where, as agent.toml names it.
        unit_id: its address.
        line: how the line is set; empty over TCP.
        fits: profiles that fit, the best first.
    """

    port: str
    unit_id: int
    line: str
    fits: tuple[Fit, ...]


def ports(devices: Path = Path("/dev")) -> list[str]:
    """Serial ports that may have a meter, by their own names where they have one.

    Args:
        devices: where device nodes lie.
    """
    named = sorted((devices / "serial" / "by-id").glob("*"))
    known = {path.resolve() for path in named}
    unnamed = [
        path
        for pattern in ("ttyUSB*", "ttyACM*", "ttyAMA*", "serial[0-9]")
        for path in sorted(devices.glob(pattern))
        if path.resolve() not in known
    ]
    return [str(path) for path in (*named, *unnamed)]


def search(
    port: str,
    units: Iterable[int],
    profiles: Mapping[str, Profile],
    progress: Progress = lambda _line, _unit: None,
) -> Iterator[Found]:
    """Asks the units of a port.

    Args:
        port: as agent.toml would name it.
        units: the addresses to ask.
        profiles: those that may fit, by name.
        progress: is told what is asked next.

    Yields:
        Each unit that answers, as soon as it did.

    Raises:
        SourceError: the port cannot be opened, or none of the settings will do.
    """
    asked = list(units)
    unfit: SourceError | None = None
    fitted = False
    for line in _lines(port, profiles):
        heard = False
        bus = Bus(port, line)
        try:
            bus.open()
        except UnfitLineError as exc:
            unfit = exc
            continue
        try:
            for unit in asked:
                progress(line, unit)
                if _is_there(bus, unit):
                    heard = True
                    fits = _fits(bus, unit, line, profiles)
                    yield Found(port, unit, "" if port.startswith("tcp:") else str(line), fits)
            fitted = True
        except BabbleError as exc:
            unfit = exc
        finally:
            bus.close()
        if heard:
            return
    if unfit is not None and not fitted:
        raise unfit


def _lines(port: str, profiles: Mapping[str, Profile]) -> Sequence[Serial]:
    if port.startswith("tcp:"):
        return (Serial(),)
    told = [profile.serial for profile in profiles.values() if profile.serial is not None]
    return list(dict.fromkeys([*told, *_COMMON]))


def _is_there(bus: Bus, unit: int) -> bool:
    for request in _PROBES:
        try:
            if bus.ask(Question(request, unit), _PROBE_S).refusal not in _ABSENT:
                return True
        except BabbleError:
            raise
        except SourceError:
            continue
    return False


def _fits(bus: Bus, unit: int, line: Serial, profiles: Mapping[str, Profile]) -> tuple[Fit, ...]:
    fits, asked = [], _Asked(bus, unit)
    for name, profile in profiles.items():
        values = _values(asked, profile)
        if values:
            fit = Fit(name, profile.about, len(profile.fields), values, profile.units)
            fits.append((profile.serial != line, fit))
    fits.sort(key=lambda one: (-_weight(one[1]), one[0], one[1].fields, one[1].profile))
    return tuple(fit for _, fit in fits)


def _weight(fit: Fit) -> int:
    """How many values say something; zeros are what a model gives for what it does not have."""
    return sum(map(_says_something, fit.values.values()))


def _says_something(value: Value) -> bool:
    return abs(value) >= _LEAST if isinstance(value, float) else bool(value)


class _Asked:
    """A unit, asked each question once: many profiles begin with the same registers."""

    def __init__(self, bus: Bus, unit: int) -> None:
        self._bus, self._unit = bus, unit
        self._answers: dict[str, Answer | None] = {}

    def answer(self, request: Request) -> Answer | None:
        """What it answers; None where it refuses or does not."""
        if str(request) not in self._answers:
            self._answers[str(request)] = self._ask(request)
        return self._answers[str(request)]

    def _ask(self, request: Request) -> Answer | None:
        with contextlib.suppress(SourceError):
            answer = self._bus.ask(Question(request, self._unit), _READ_S)
            return None if answer.refusal else answer
        return None


def _values(asked: _Asked, profile: Profile) -> dict[str, Value]:
    """What a unit gives for a profile; nothing where it refuses or does not answer a part."""
    values: dict[str, Value] = {}
    for request in plan(profile.fields, profile.requests):
        answer = asked.answer(request)
        if answer is None:
            return {}
        block = Block(request)
        bits = is_bit(request.fields[0])
        reading = block.bits(answer.bits) if bits else block.registers(answer.registers)
        values |= dict(zip(reading.names, reading.values, strict=True))
    return values
