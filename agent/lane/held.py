# SPDX-License-Identifier: Apache-2.0
"""What a lane has settled and not yet sent: rows as columns, one group per device and shape.

Law:
  - a group is one device and one set of attributes; all its columns are as long as its times;
  - a row that lost a value joins the group of the attributes it still has; no other value of it is
    lost;
  - tables leave in the order of their pseudonyms: the order in which devices were first seen joins
    two batches as well as a counter would;
  - rows are told to the journal in the order in which they came, each once: a group knows how many
    of its first rows were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from agent.transform import Compiled, DropReason
from agent.transform.readers import Cell
from assent.columns import Column, Table, Values

Plan: TypeAlias = tuple[Compiled, ...]


class _Group:
    """Rows of one device with the same attributes."""

    __slots__ = ("columns", "device", "plan", "since_ms", "times", "told")

    def __init__(self, device: bytes, plan: Plan, since_ms: int) -> None:
        self.device = device
        self.plan = plan
        self.since_ms = since_ms
        self.told = 0
        self.times: list[int] = []
        self.columns: list[list[Cell]] = [[] for _ in plan]

    def cut(self, rows: int) -> Table:
        """Takes the first rows out, as a table."""
        table = self.part(0, rows)
        self.told = max(0, self.told - rows)
        del self.times[:rows]
        for column in self.columns:
            del column[:rows]
        return table

    def part(self, begin: int, end: int) -> Table:
        """Copies some rows, as a table."""
        return Table(
            self.device,
            self.times[begin:end],
            tuple(
                Column(
                    compiled.name,
                    compiled.kind,
                    cast("Values", column[begin:end]),
                    compiled.quantum,
                )
                for compiled, column in zip(self.plan, self.columns, strict=True)
            ),
        )


class Held:
    """Settled rows of one lane. Owned by the lane."""

    def __init__(self) -> None:
        self.readings = 0
        self._groups: dict[tuple[bytes, tuple[str, ...]], _Group] = {}

    @property
    def since_ms(self) -> int | None:
        """Instant since which the oldest of it waits, or None when there is nothing."""
        return min((group.since_ms for group in self._groups.values()), default=None)

    def add(
        self,
        device: bytes,
        plan: Plan,
        times: Sequence[int],
        columns: Sequence[Sequence[Cell]],
        since_ms: int,
    ) -> None:
        """Adds rows in which no value is missing.

        Args:
            device: pseudonym.
            plan: the attributes, sorted by name, at least one.
            times: an instant for each row.
            columns: for each attribute a cell for each row.
            since_ms: when the oldest of them could first have left.
        """
        key = (device, tuple([compiled.name for compiled in plan]))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(device, plan, since_ms)
        group.since_ms = min(group.since_ms, since_ms)
        group.times.extend(times)
        for held, column in zip(group.columns, columns, strict=True):
            held.extend(column)
        self.readings += len(times) * len(plan)

    def add_broken(
        self,
        device: bytes,
        plan: Plan,
        times: Sequence[int],
        columns: Sequence[Sequence[Cell]],
    ) -> None:
        """Adds rows in which reasons stand for missing values; arguments as `add`."""
        alike: dict[tuple[bool, ...], list[int]] = {}
        for index, row in enumerate(zip(*columns, strict=True)):
            passed = tuple([type(cell) is not DropReason for cell in row])
            alike.setdefault(passed, []).append(index)
        for passed, rows in alike.items():
            kept = [index for index, there in enumerate(passed) if there]
            if kept:
                instants = [times[row] for row in rows]
                cells = [[columns[index][row] for row in rows] for index in kept]
                self.add(device, tuple(plan[i] for i in kept), instants, cells, instants[0])

    def told(self) -> tuple[Table, ...]:
        """Copies the rows of which `mark` was told and that are here still."""
        parts = [(group, 0, group.told) for group in self._groups.values()]
        return tuple(group.part(begin, end) for group, begin, end in parts if end)

    def news(self) -> tuple[Table, ...]:
        """Copies the rows that came since `mark`."""
        parts = [(group, group.told, len(group.times)) for group in self._groups.values()]
        return tuple(group.part(begin, end) for group, begin, end in parts if end > begin)

    def mark(self) -> None:
        """Notes that all rows were told."""
        for group in self._groups.values():
            group.told = len(group.times)

    def take(self, most: int) -> tuple[Table, ...]:
        """Takes tables out.

        Args:
            most: how many readings they may hold together; one row always goes, so that a row
                wider than that does not wait for ever.

        Returns:
            The tables, sorted by device and attributes.
        """
        tables: list[Table] = []
        for key in sorted(self._groups):
            group = self._groups[key]
            width = len(group.plan)
            rows = min(len(group.times), max(most // width, 0 if tables else 1))
            if rows <= 0:
                continue
            tables.append(group.cut(rows))
            most -= rows * width
            self.readings -= rows * width
            if not group.times:
                del self._groups[key]
        return tuple(tables)
