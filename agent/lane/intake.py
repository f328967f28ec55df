# SPDX-License-Identifier: Apache-2.0
"""Where a lane takes values in: one list of rows per device and shape, and nothing unwanted.

Law:
  - what the permit does not carry is never held: a compiled take picks the wanted values out of a
    sample before anything else;
  - rows leave for settling only when their instant lies within the yes and the epoch; what lies
    before or after is dropped and counted, what belongs to a later epoch stays. A yes that ends
    before its first whole second is over before it began: no instant could leave under it;
  - two devices never have one pseudonym: hardware with a serial that another device of the lane
    has (a maker's "0000123") goes by its serial and its id, and that is logged once.

Limits: which of two devices with one serial goes by the serial alone is the one that came first;
it may be the other one in the next lane. Shapes beyond MAX_SHAPES are taken apart, so that memory
stays bounded whatever a device sends.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final, TypeAlias, cast

from agent.lane.memory import Run
from agent.lane.seconds import first_second
from agent.path import Permit, Rehearsal
from agent.transform import Compiled, DropReason, device_owner, device_pseudonym
from firmware_bridge.sample import Device, Value

Take: TypeAlias = Callable[[int, Sequence[Value]], None]
"""Takes one sample of a known shape: instant in ms, values in the order of the shape's names."""

# Instant, values in the order of the plan (the value itself when it has one attribute), arrival.
_Row: TypeAlias = tuple[int, object, int]

_NO_END: Final = 1 << 60  # ms; nobody waits for it
MAX_SHAPES: Final = 1_024  # a gateway has some tens; at 1 kB each they cost a megabyte at most

log = logging.getLogger(__name__)


class _Shape:
    """Rows of one device that carry the same wanted attributes."""

    __slots__ = ("owner", "plan", "pseudonym", "rows")

    def __init__(self, owner: bytes, pseudonym: bytes, plan: tuple[Compiled, ...]) -> None:
        self.owner = owner
        self.pseudonym = pseudonym
        self.plan = plan
        self.rows: list[_Row] = []


class Intake:
    """The open rows of one lane. Owned by the lane.

    Args:
        permit: of the lane, or what stands for it on a screen.
        compiled: how each carried attribute is read.
        device_key: for the pseudonyms of devices.
        epoch_begin_ms: first instant of the epoch; None where instants count from the boot: then
            neither a yes nor an epoch can be held against them.
        dropped: where what stays is counted.
    """

    def __init__(
        self,
        permit: Permit | Rehearsal,
        compiled: Mapping[str, Compiled],
        device_key: bytes,
        epoch_begin_ms: int | None,
        dropped: Counter[DropReason],
    ) -> None:
        self.pending = 0
        """Values taken since the last `admit`."""
        self.urgent = False
        """Whether a value came that should not wait."""
        self._compiled = compiled
        self._device_key = device_key
        self._dropped = dropped
        self._by_boot = epoch_begin_ms is None
        self._epoch_begin = epoch_begin_ms or 0
        self._epoch_end = _NO_END if self._by_boot else self._epoch_begin + permit.epoch_ms
        self._not_before = 0 if self._by_boot else permit.not_before_ms
        self.begin_ms = max(self._not_before, self._epoch_begin)
        """First instant that may leave."""
        self.amend(permit)
        self._oldest_ms: int | None = None
        self._shapes: dict[tuple[Device, tuple[str, ...]], _Shape] = {}
        self._last_urgent: dict[tuple[Device, str], Value] = {}
        self._arrivals = itertools.count()
        self._owners: dict[bytes, str] = {}  # pseudonym -> id of the device that has it

    def amend(self, permit: Permit | Rehearsal) -> None:
        """Takes the end of the yes and what is urgent from a permit; see `Lane.amend`."""
        self._permit = permit
        self._yes_end = None if self._by_boot else permit.not_after_ms
        if self._yes_end is not None and self._yes_end <= first_second(self.begin_ms):
            self._yes_end = min(self._yes_end, self.begin_ms)
        end = self._epoch_end if self._yes_end is None else min(self._yes_end, self._epoch_end)
        self.end_ms = end
        """First instant that may not leave any more."""

    @property
    def oldest_ms(self) -> int | None:
        """Instant of the first row taken since the last `admit`, or None."""
        if self.pending and self._oldest_ms is None:
            rows = [shape.rows for shape in self._shapes.values() if shape.rows]
            self._oldest_ms = min((each[0][0] for each in rows), default=None)
        return self._oldest_ms

    def compile(self, device: Device, names: tuple[str, ...]) -> Take | None:
        """Compiles what to do with samples of one shape; see `Lane.compile`."""
        wanted = tuple(sorted(self._compiled.keys() & set(names)))
        if not wanted:
            return None
        if len(set(names)) != len(names):
            # Two values under one name: neither can be believed.
            return lambda _ms, _values: self.refuse(names, DropReason.MALFORMED)
        take = self._take(device, wanted, names)
        hurry = [name for name in wanted if name in self._permit.urgent]
        return self._hurrying(take, device, names, hurry) if hurry else take

    def refuse(self, names: Sequence[str], reason: DropReason) -> None:
        """Counts the wanted values of a sample that is not taken."""
        self._dropped[reason] += sum(name in self._compiled for name in names)

    def admit(self) -> list[Run]:
        """Hands out the rows that may settle, read into cells; keeps those of a later epoch."""
        runs = [self._admit(shape) for shape in self._shapes.values() if shape.rows]
        self.pending = 0
        self._oldest_ms = None
        return [run for run in runs if run is not None]

    def adopt(self, other: Intake) -> None:
        """Takes over the rows an earlier epoch's lane kept; called before anything is compiled."""
        self._arrivals = other._arrivals
        for (device, names), shape in other._shapes.items():
            if shape.rows:
                self._shape(device, names).rows.extend(shape.rows)
                self.pending += len(shape.rows) * len(names)
                shape.rows.clear()

    def _take(self, device: Device, wanted: tuple[str, ...], names: tuple[str, ...]) -> Take:
        key = (device, wanted)
        if len(wanted) > 1 and len(self._shapes) >= MAX_SHAPES and key not in self._shapes:
            takes = [self._take(device, (name,), names) for name in wanted]

            def take_apart(ms: int, values: Sequence[Value]) -> None:
                for take_one in takes:
                    take_one(ms, values)

            return take_apart
        append = self._shape(device, wanted).rows.append
        pick = itemgetter(*[names.index(name) for name in wanted])
        width = len(wanted)
        arrived = self._arrivals.__next__

        def take(ms: int, values: Sequence[Value]) -> None:
            append((ms, pick(values), arrived()))
            self.pending += width

        return take

    def _shape(self, device: Device, wanted: tuple[str, ...]) -> _Shape:
        shape = self._shapes.get((device, wanted))
        if shape is None:
            pseudonym = self._pseudonym(device)
            plan = tuple(self._compiled[name] for name in wanted)
            owner = device_owner(self._device_key, device)
            shape = self._shapes[device, wanted] = _Shape(owner, pseudonym, plan)
        return shape

    def _pseudonym(self, device: Device) -> bytes:
        pseudonym = device_pseudonym(self._device_key, device)
        if self._owners.setdefault(pseudonym, device.id) == device.id:
            return pseudonym
        mixed = device_pseudonym(self._device_key, device, is_shared=True)
        if mixed not in self._owners:
            log.warning("two devices have one serial flow=%s", self._permit.flow)
        self._owners[mixed] = device.id
        return mixed

    def _hurrying(
        self, take: Take, device: Device, names: tuple[str, ...], hurry: list[str]
    ) -> Take:
        # An event is urgent each time; any other value when it changes, because a polled register
        # says the same every second.
        events = {n for n in hurry if self._compiled[n].carried.attribute.kind == "event"}
        watched = [(names.index(name), (device, name), name in events) for name in hurry]
        last = self._last_urgent

        def take_urgent(ms: int, values: Sequence[Value]) -> None:
            take(ms, values)
            for index, key, always in watched:
                if always or last.get(key) != values[index]:
                    last[key] = values[index]
                    self.urgent = True

        return take_urgent

    def _admit(self, shape: _Shape) -> Run | None:
        times = [row[0] for row in shape.rows]
        if min(times) < self.begin_ms or max(times) >= self.end_ms:
            rows = self._inside(shape)
            times = [row[0] for row in rows]
        else:
            rows = shape.rows.copy()
            shape.rows.clear()
        if not rows:
            return None
        ordered = sorted(times)
        if times != ordered:
            rows.sort(key=itemgetter(0))
        picked = [row[1] for row in rows]
        columns = (
            [picked]
            if len(shape.plan) == 1
            else _transposed(cast("list[tuple[object, ...]]", picked))
        )
        arrivals = [row[2] for row in rows]
        return Run(shape.owner, shape.pseudonym, shape.plan, ordered, columns, arrivals=arrivals)

    def _inside(self, shape: _Shape) -> list[_Row]:
        inside: list[_Row] = []
        ahead: list[_Row] = []
        width = len(shape.plan)
        for row in shape.rows:
            reason = self._outside(row[0])
            if reason is not None:
                self._dropped[reason] += width
            elif row[0] >= self._epoch_end:
                ahead.append(row)
            else:
                inside.append(row)
        # An instant far ahead is a mistake somewhere; what waits for it stays bounded.
        surplus = max(0, len(ahead) - max(1, self._permit.max_readings // width))
        if surplus:
            self._dropped[DropReason.OTHER_EPOCH] += surplus * width
        shape.rows[:] = ahead[surplus:]
        return inside

    def _outside(self, ms: int) -> DropReason | None:
        if ms < self._not_before:
            return DropReason.BEFORE_YES
        if self._yes_end is not None and ms >= self._yes_end:
            return DropReason.AFTER_END
        return DropReason.OTHER_EPOCH if ms < self._epoch_begin else None


def _transposed(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return list(zip(*rows, strict=True))
