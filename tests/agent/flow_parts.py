# SPDX-License-Identifier: Apache-2.0
"""Attributes, permits and samples for the tests of lane, router and seal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from agent.path import Batch, Carried, Permit
from assent.policy.expressions import parse
from assent.policy.model import Attribute
from firmware_bridge.sample import Device, Instant, Sample

DAY = 86_400_000
EPOCH = 30 * DAY
# An instant early in an epoch and at the start of a day, so that windows and epochs begin here.
NOW = 1_793_491_200_000 // EPOCH * EPOCH + 2 * DAY
SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(32, 64))

METER = Device("meter-kitchen", "electricity-meter", "TEST-0001")
FRIDGE = Device("fridge", "refrigerator")


def whole() -> float:
    """The share of a batch that leaves nothing to chance: all the policy allows."""
    return 1.0


def attribute(**fields: Any) -> Attribute:
    known: dict[str, Any] = {
        "kind": "sensor",
        "type": "number",
        "about": "A test.",
        "owner": "test team",
        "review": dt.date(2030, 1, 1),
        "unit": "W",
        "quantum": 0.1,
    }
    if fields.get("type", "number") != "number":
        known |= {"unit": None, "quantum": None}
    return Attribute(**(known | fields))


POWER = attribute()
ENERGY = attribute(monotonic=True, unit="W.h", quantum=1.0)
FAULT = attribute(kind="event", type="text", choices=("E1", "E2", "none"))
DOOR = attribute(type="boolean")
SERIAL = attribute(kind="identifier", type="text")
PLACE = attribute(kind="location", type="position", unit="deg", quantum=0.00001)
ADDRESS = attribute(kind="connection", type="text")

DICTIONARY = {
    "appliance.power": POWER,
    "appliance.voltage": POWER,
    "appliance.energy": ENERGY,
    "appliance.fault": FAULT,
    "appliance.door": DOOR,
    "device.serial": SERIAL,
    "location.area": PLACE,
    "connection.ip": ADDRESS,
}


def carried(name: str, transform: str, entry: Attribute | None = None) -> Carried:
    return Carried(name, entry or DICTIONARY[name], parse(transform))


def permit(attributes: Mapping[str, str] | None = None, **fields: Any) -> Permit:
    listed = attributes if attributes is not None else {"appliance.power": "keep"}
    known: dict[str, Any] = {
        "flow": "remote-diagnosis",
        "recipient": "maker",
        "terms_hash": bytes(32),
        "record": bytes(16),
        "carried": tuple(carried(name, transform) for name, transform in listed.items()),
        "not_before_ms": NOW - DAY,
        "not_after_ms": None,
        "epoch_ms": EPOCH,
        "keep_ms": 7 * DAY,
        "max_readings": 10_000,
        "max_age_ms": 600_000,
        "urgent": frozenset(),
        "core": False,
    }
    return Permit(**(known | fields))


def sample(
    ms: int, values: Mapping[str, Any], device: Device = METER, *, trusted: bool = True
) -> Sample:
    return Sample(
        device, Instant(ms, ms - NOW + DAY, trusted), tuple(values), tuple(values.values())
    )


def cells(batches: Iterable[Batch]) -> list[tuple[bytes, int, str, object]]:
    """Every value of some batches: device pseudonym, instant, attribute, cell."""
    return [
        (table.device, ms, column.attribute, value)
        for batch in batches
        for table in batch.tables
        for column in table.columns
        for ms, value in zip(table.times, column.values, strict=True)
    ]


def values_of(batches: Iterable[Batch | None], name: str) -> list[object]:
    there = [batch for batch in batches if batch is not None]
    return [value for _, _, attribute_name, value in cells(there) if attribute_name == name]
