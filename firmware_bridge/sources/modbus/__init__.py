# SPDX-License-Identifier: Apache-2.0
"""Devices that speak Modbus, over a serial line (RTU) or TCP; only ever read.

Path: profile → decode.modbus (plan) → bus → decode.modbus (values) → **Sample**.
Law:
  - functions 1 to 4 are all that can be asked: nothing here can change a device;
  - what nobody wants is asked for only where it stands between what is wanted, and thrown away
    unread; the serial number is always wanted, since pseudonyms rest on it;
  - each answer is a Sample of the instant at which it came;
  - an unanswered request is asked once more at the next read; the others go on without it, and
    only a unit that answers none of them fails;
  - what a unit refuses, or what its sensors call a fault, is left out, told once each way, and
    named by `trouble` for as long as it lasts;
  - an event is given when its bit comes on, and when it is first seen on.

A field mapped to `device.serial` names the device, too: its pseudonym rests on it.

Security: what a device says is bounded and never logged; log lines name attributes, no values.
Limits: one thread per device, one question at a time per port.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from firmware_bridge.clock import Clock, Pace
from firmware_bridge.decode.modbus import Block, Reading
from firmware_bridge.decode.requests import Request, narrowed, plan
from firmware_bridge.profile import Profile
from firmware_bridge.profile.fields import Serial
from firmware_bridge.profile.registers import is_bit
from firmware_bridge.sample import Device, Sample, SilentSourceError, Source, SourceError
from firmware_bridge.sources.modbus.bus import Bus, SilentUnitError, join, leave
from firmware_bridge.sources.modbus.frames import AnswerError, Question
from firmware_bridge.sources.registry import SourceConfig

SERIAL: Final = "device.serial"
_TRIES: Final = 2

log = logging.getLogger(__name__)


def attributes(config: SourceConfig) -> frozenset[str]:
    """What the device can deliver: what its profile maps.

    Raises:
        SourceError: no profile, or one that does not describe registers.
    """
    return _profile(config).attributes


def make(config: SourceConfig, clock: Clock) -> Source:
    """Makes the source of a unit; `config.port` is the serial port, or tcp://host:port.

    Raises:
        SourceError: no port, no profile, or a profile that does not describe registers.
    """
    if config.port is None:
        raise SourceError("a Modbus device needs a port: a serial port or tcp://host:port")
    return ModbusSource(config, config.port, _profile(config), clock)


def _profile(config: SourceConfig) -> Profile:
    if config.profile is None or config.profile.source != "modbus":
        raise SourceError("a Modbus device needs a profile that names its registers")
    return config.profile


def _names(request: Request) -> set[str]:
    return {field.attribute for field in request.fields}


class _Part:
    """One request of the plan, and what was last wrong with it."""

    def __init__(self, request: Request, unit: int) -> None:
        self.question = Question(request, unit)
        self.block = Block(request)
        self.is_bits = is_bit(request.fields[0])
        self.trouble: str | None = None


class ModbusSource:
    """Reads one unit; owned by one thread of the supervisor."""

    def __init__(self, config: SourceConfig, port: str, profile: Profile, clock: Clock) -> None:
        self._config = config
        self._port = port
        self._line = profile.serial or Serial()
        self._timeout_s = int(profile.requests.timeout) / 1000
        self._clock = clock
        self._device = Device(config.device_id, config.kind)
        # The serial number first, so that it is known when the first values go.
        self._plan = sorted(
            plan(profile.fields, profile.requests), key=lambda one: SERIAL not in _names(one)
        )
        self._parts = self._compiled(self._plan)
        self._bus: Bus | None = None
        self._pace: Pace | None = None
        self._next = 0  # the request of this round that is asked next
        self._tries = 0
        self._answered = False
        self._is_silent = True
        self._on: frozenset[tuple[str, str]] = frozenset()
        self._faults: frozenset[str] = frozenset()

    def choose(self, names: frozenset[str] | None) -> None:
        """Asks for these attributes and no others from now on; None asks for all."""
        chosen = None if names is None else names | {SERIAL}
        self._parts = self._compiled(self._plan if chosen is None else narrowed(self._plan, chosen))
        kept = {name for part in self._parts for name in _names(part.question.request)}
        self._faults &= kept
        self._on = frozenset(event for event in self._on if event[0] in kept)
        self._begin()

    def open(self) -> None:
        """Opens the port, or joins those who have it open.

        Raises:
            SourceError: the port cannot be opened.
        """
        self.close()
        self._bus = join(self._port, self._line)
        self._bus.open()
        self._pace = Pace(self._clock, int(self._config.every))
        self._begin()

    def read(self) -> list[Sample]:
        """Asks what is due; what could not be answered is asked once more by the next read.

        Raises:
            SilentSourceError: the unit says nothing at all.
            SourceError: it answers nothing that is an answer, or the port has gone.
        """
        if self._bus is None or self._pace is None:
            raise SourceError("the unit is read before it is opened")
        if self._next == 0 and self._tries == 0 and not self._pace.is_due():
            return []
        samples: list[Sample] = []
        while self._next < len(self._parts):
            part = self._parts[self._next]
            try:
                samples += self._ask(self._bus, part)
            except (SilentUnitError, AnswerError) as exc:
                self._is_silent &= isinstance(exc, SilentUnitError)
                self._tries += 1
                if self._tries < _TRIES:
                    return samples
                self._note(part, exc.message)
            self._next += 1
            self._tries = 0
        if not self._answered and self._parts:
            kind = SilentSourceError if self._is_silent else SourceError
            raise kind(self._parts[0].trouble or "the unit answers nothing")
        self._begin()
        return samples

    def close(self) -> None:
        """Gives the port back."""
        bus, self._bus = self._bus, None
        self._pace = None
        if bus is not None:
            leave(self._port, bus)

    def trouble(self) -> str | None:
        """Which fields were not answered, or are called a fault; None when all is well."""
        failed = [part for part in self._parts if part.trouble is not None]
        if not (failed or self._faults):
            return None
        lost = {name for part in failed for name in _names(part.question.request)}
        sensors = sorted(self._faults - lost)
        fields = sum(len(part.question.request.fields) for part in self._parts)
        count = sum(len(part.question.request.fields) for part in failed) + len(sensors)
        reasons = [part.trouble or "" for part in failed]
        reasons += [f"the device calls the sensor of {name} broken" for name in sensors]
        verb = "fails" if count == 1 else "fail"
        more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return f"{count} of {fields} fields {verb}: {reasons[0]}{more}"

    def _compiled(self, requests: Iterable[Request]) -> list[_Part]:
        return [_Part(request, self._config.unit_id) for request in requests]

    def _begin(self) -> None:
        self._next = self._tries = 0
        self._answered, self._is_silent = False, True

    def _ask(self, bus: Bus, part: _Part) -> Iterator[Sample]:
        answer = bus.ask(part.question, self._timeout_s)
        if answer.refusal:
            request = part.question.request
            names = ", ".join(sorted(_names(request)))
            unit = part.question.unit
            self._is_silent = False
            self._note(part, f"unit {unit} refuses {request} ({names}): {answer.reason}")
            return iter(())
        self._answered = True
        self._note(part, None)
        reading = (
            part.block.bits(answer.bits) if part.is_bits else part.block.registers(answer.registers)
        )
        return self._samples(part, reading)

    def _samples(self, part: _Part, reading: Reading) -> Iterator[Sample]:
        now = self._clock.now()
        if SERIAL in reading.names:
            serial = reading.values[reading.names.index(SERIAL)]
            if isinstance(serial, str) and serial != self._device.serial:
                self._device = Device(self._device.id, self._device.kind, serial)
        mine = _names(part.question.request)
        self._tell_faults(mine, reading.faults)
        if reading.names:
            yield Sample(self._device, now, reading.names, reading.values)
        for name, text in sorted(reading.events - self._on):
            yield Sample(self._device, now, (name,), (text,))
        self._on = frozenset(event for event in self._on if event[0] not in mine) | reading.events

    def _tell_faults(self, mine: set[str], faults: frozenset[str]) -> None:
        before = self._faults & mine
        if faults == before:
            return
        for name in sorted(faults - before):
            log.warning("event=sensor-fault device=%s attribute=%s", self._device.id, name)
        for name in sorted(before - faults):
            log.info("event=sensor-returned device=%s attribute=%s", self._device.id, name)
        self._faults = self._faults - before | faults

    def _note(self, part: _Part, trouble: str | None) -> None:
        was, part.trouble = part.trouble, trouble
        if was is None and trouble is not None:
            log.warning('event=request-failed device=%s error="%s"', self._device.id, trouble)
        elif was is not None and trouble is None:
            log.info("event=request-returned device=%s", self._device.id)
