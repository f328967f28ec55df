# SPDX-License-Identifier: Apache-2.0
"""Recorded exchanges of real inverters with what another decoder says they mean."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from firmware_bridge.profile.fields import Field

Json = dict[str, Any]

# What the other decoder's sensor classes read, as a field of a profile says it.
TYPES: dict[str, Json] = {
    "Voltage": {"type": "uint16", "scale": 0.1, "absent": [0xFFFF]},
    "Current": {"type": "uint16", "scale": 0.1, "absent": [0xFFFF]},
    "CurrentS": {"type": "int16", "scale": 0.1},
    "Frequency": {"type": "int16", "scale": 0.01},
    "Power": {"type": "uint16"},
    "PowerS": {"type": "int16"},
    "Power4": {"type": "uint32", "absent": [0xFFFFFFFF]},
    "Power4S": {"type": "int32"},
    "Energy": {"type": "uint16", "scale": 0.1, "absent": [0xFFFF]},
    "Energy4": {"type": "uint32", "scale": 0.1, "absent": [0xFFFFFFFF]},
    "Energy8": {"type": "uint64", "scale": 0.01},
    "Apparent": {"type": "int16"},
    "Apparent4": {"type": "int32"},
    "Reactive": {"type": "int16"},
    "Reactive4": {"type": "int32"},
    "Temp": {"type": "int16", "scale": 0.1, "absent": [0xFFFF, 32767]},
    "CellVoltage": {"type": "uint16", "scale": 0.001},
    "Decimal": {"type": "int16", "scale": 0.001},
    "Integer": {"type": "uint16", "absent": [0xFFFF]},
    "Long": {"type": "uint32", "absent": [0xFFFFFFFF]},
    "Float": {"type": "float32", "scale": 0.001},
    "ByteH": {"type": "bits", "bit": 8, "width": 8},
    "ByteL": {"type": "bits", "bit": 0, "width": 8},
}
# Sensors that are worked out of several, stamps, and labels of a table that is not in the data.
BEYOND = {
    "Calculated", "EnumCalculated", "Timestamp", "Enum2", "EnumH", "EnumL", "EnumBitmap4",
    "EnumBitmap22",
}  # fmt: skip


class Dump(NamedTuple):
    """The answer to one request, its frame without what the transport put around it."""

    unit: int
    address: int
    count: int
    data: bytes


class Stated(NamedTuple):
    """One sensor: the field that reads it, its registers, and the value it is said to have."""

    name: str
    field: Field
    data: bytes
    value: float | str | None


def inverters(shared_data: Path) -> Iterator[Json]:
    """The devices that speak Modbus, with all that was recorded of each."""
    packed = (shared_data / "modbus" / "goodwe_inverters_dev.jsonl.xz").read_bytes()
    for line in lzma.decompress(packed).splitlines():
        device = json.loads(line)
        if device["family"] != "es":  # speaks a language of its own
            yield device


def dumps(device: Json) -> Iterator[Dump]:
    """The registers of each exchange; over TCP there is a header of six bytes."""
    for exchange in device["exchanges"]:
        request, answer = (bytes.fromhex(exchange[key]) for key in ("request", "response"))
        if request[:4] == b"\0\1\0\0":
            request, answer = request[6:], answer[6:]
        else:
            answer = answer.removeprefix(b"\xaa\x55")
        unit, address = request[0], int.from_bytes(request[2:4])
        size = answer[2]
        yield Dump(unit, address, size // 2, answer[3 : 3 + size])


def stated(device: Json) -> Iterator[Stated]:
    """Every sensor of a device that a field can express, with its registers."""
    held = list(dumps(device))
    for sensor in device["sensors"]:
        address = sensor["offset"]
        value = (device["runtime"] or {}).get(sensor["id"])
        if sensor["type"] in BEYOND or sensor["id"] not in (device["runtime"] or {}):
            continue
        keys = TYPES[sensor["type"]]
        field = Field(attribute=sensor["id"], table="holding", address=address, **keys)
        size = 2 * {"32": 2, "64": 4}.get(field.type[-2:], 1)
        for dump in held:
            place = 2 * (address - dump.address)
            if place >= 0 and place + size <= len(dump.data):
                yield Stated(sensor["id"], field, dump.data[place : place + size], value)
                break
