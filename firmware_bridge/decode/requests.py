# SPDX-License-Identifier: Apache-2.0
"""The fewest requests that fetch some fields of a Modbus device.

Path: profile fields → **plan** → requests → question → answer → decode.modbus.
Law:
  - a field is never split over two requests, and no request is longer than the device bears;
  - a field and the register of its exponent are one, so that both are of one instant;
  - what nobody wants is asked for only where it stands between what is wanted.

Standards: Modbus application protocol V1.1b3 §4.3 (tables), §6.1-6.4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from firmware_bridge.profile.fields import Field, Requests, Table
from firmware_bridge.profile.registers import is_bit, reach


class Request(msgspec.Struct, frozen=True):
    """One request, and the fields that its answer holds.

    Attributes:
        table: which of the four tables.
        address: zero-based, of the first register or bit.
        count: how many.
        fields: in the order of their addresses.
    """

    table: Table
    address: int
    count: int
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        """What is asked for, as a person writes it: input registers 12 to 13."""
        noun = {"coil": "coil", "discrete": "discrete input"}.get(
            self.table, f"{self.table} register"
        )
        if self.count == 1:
            return f"{noun} {self.address}"
        return f"{noun}s {self.address} to {self.address + self.count - 1}"


def plan(fields: Iterable[Field], limits: Requests) -> tuple[Request, ...]:
    """Groups fields into the fewest requests that the device bears.

    Args:
        fields: with table and address, each within the limits.
        limits: of the device.

    Returns:
        Requests that hold each field once, by table and address.
    """
    groups: list[list[Field]] = []
    first = end = 0
    for field in sorted(fields, key=_order):
        begins, ends = reach(field)
        most = limits.bits if is_bit(field) else limits.registers
        if (
            groups
            and groups[-1][0].table == field.table
            and begins <= end + limits.gap
            and max(end, ends) - first <= most
        ):
            groups[-1].append(field)
            end = max(end, ends)
        else:
            groups.append([field])
            first, end = begins, ends
    return tuple(_request(group) for group in groups)


def narrowed(requests: Iterable[Request], wanted: Collection[str]) -> tuple[Request, ...]:
    """Leaves out what nobody wants: whole requests, and the ends of those that remain.

    Args:
        requests: of a plan.
        wanted: the attributes that somebody wants.

    Returns:
        At most as many requests as before, each within the one that it was.
    """
    kept = [[one for one in request.fields if one.attribute in wanted] for request in requests]
    return tuple(_request(fields) for fields in kept if fields)


def _order(field: Field) -> tuple[str, int, int]:
    begins, ends = reach(field)
    return str(field.table), begins, begins - ends


def _request(fields: Sequence[Field]) -> Request:
    table = fields[0].table
    assert table is not None
    begins = min(reach(field)[0] for field in fields)
    ends = max(reach(field)[1] for field in fields)
    return Request(table, begins, ends - begins, tuple(fields))
