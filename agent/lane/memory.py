# SPDX-License-Identifier: Apache-2.0
"""What a lane remembers between batches: counters and open windows, per device and attribute.

Law:
  - readings of one attribute of one device are taken in the order of time, those of one instant in
    the order in which they came, whichever shapes of sample brought them;
  - every device has a memory of its own, whatever pseudonym it goes by;
  - what is remembered is told to the journal where it changed, and taken up again by a lane of the
    same stream or epoch; nothing joins two epochs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from agent.journal import Remembered
from agent.lane.held import Held
from agent.transform import Compiled, DropReason
from agent.transform.readers import Cell, Out
from agent.transform.series import Delta, Window

# A silent device's last window waits for a reading after its end; after this long it leaves without
# one. Until then a source may still hand over what it had buffered.
LATE_MS = 3_600_000


_Key: TypeAlias = tuple[bytes, str]  # owner and attribute


class Run:
    """The rows of one shape that settle together. Owned by the settling lane."""

    __slots__ = ("arrivals", "cells", "clean", "owner", "plan", "pseudonym", "times")

    def __init__(
        self,
        owner: bytes,
        pseudonym: bytes,
        plan: tuple[Compiled, ...],
        times: list[int],
        columns: Sequence[Sequence[object]],
        *,
        arrivals: list[int],
    ) -> None:
        self.owner = owner
        self.pseudonym = pseudonym
        self.plan = plan
        self.times = times
        self.arrivals = arrivals
        self.cells: list[list[Cell]] = []
        self.clean: list[bool] = []
        for compiled, column in zip(plan, columns, strict=True):
            cells, clean = compiled.reader.read(column)
            self.cells.append(cells)
            self.clean.append(clean)


class Memory:
    """Counters and windows of one lane. Owned by the lane.

    Args:
        begin_ms: windows that start earlier are cut.
        end_ms: windows that end later are cut.
        dropped: where what stays is counted.
    """

    def __init__(self, begin_ms: int, end_ms: int, dropped: Counter[DropReason]) -> None:
        self._span = (begin_ms, end_ms)
        self._dropped = dropped
        self._deltas: dict[_Key, Delta] = {}
        self._windows: dict[_Key, tuple[bytes, Compiled, Window]] = {}
        self._ended: dict[tuple[bytes, int, bytes], dict[str, tuple[Compiled, Out, int]]] = {}
        self._changed: set[_Key] = set()

    def amend(self, end_ms: int) -> None:
        """Cuts windows at another end."""
        self._span = (self._span[0], end_ms)
        for _, _, window in self._windows.values():
            window.amend(end_ms, self._dropped)
        self._changed.update(self._windows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is remembered."""
        return not (self._windows or self._deltas)

    def told(self, *, whole: bool) -> tuple[Remembered, ...]:
        """Tells what is remembered.

        Args:
            whole: all of it; else what changed since `mark`.
        """
        keys = [*self._windows, *self._deltas] if whole else self._changed
        return tuple(self._remembered(key) for key in sorted(keys))

    def mark(self) -> None:
        """Notes that all of it was told."""
        self._changed.clear()

    def take_up(self, told: Sequence[Remembered], compiled: Mapping[str, Compiled]) -> None:
        """Goes on from what was told.

        Args:
            told: by a lane of the same terms and epoch.
            compiled: how each attribute is read.

        Raises:
            ValueError: it is of other terms.
        """
        for one in told:
            how = compiled.get(one.attribute)
            if how is not None and how.is_window:
                window = how.window(*self._span)
                window.take_up(one.state, self._dropped)
                self._windows[one.owner, one.attribute] = (one.device, how, window)
            elif how is not None and how.is_delta:
                delta = self._deltas[one.owner, one.attribute] = how.delta()
                delta.take_up(one.state)
            else:
                raise ValueError("what is remembered is of other terms")

    def _remembered(self, key: _Key) -> Remembered:
        owner, attribute = key
        if key in self._windows:
            device, _, window = self._windows[key]
            return Remembered(owner, device, attribute, window.state)
        return Remembered(owner, b"", attribute, self._deltas[key].state)

    @property
    def absorbed(self) -> int:
        """How many readings wait in open windows."""
        return sum(window.readings for _, _, window in self._windows.values())

    def advance(self, runs: Sequence[Run]) -> None:
        """Passes the readings of counters and windows through; increases replace counters.

        Args:
            runs: what settles, of all shapes.
        """
        series: dict[_Key, list[tuple[Run, int]]] = {}
        for run in runs:
            for index, compiled in enumerate(run.plan):
                if compiled.is_delta or compiled.is_window:
                    series.setdefault((run.owner, compiled.name), []).append((run, index))
        self._changed.update(series)
        for key, parts in series.items():
            times, cells, order = _merged(parts)
            clean = all(run.clean[index] for run, index in parts)
            run, index = parts[0]
            if run.plan[index].is_window:
                self._absorb(key, run.pseudonym, run.plan[index], times, cells, clean=clean)
            else:
                delta = self._deltas.setdefault(key, run.plan[index].delta())
                _spread(parts, delta.steps(times, cells, clean=clean), order)

    def end_by(self, now_ms: int) -> None:
        """Ends the windows whose time is over."""
        for key, (_, _, window) in self._windows.items():
            self._note(key, window.end_by(now_ms, self._dropped))

    def drop(self) -> None:
        """Gives up all open windows; their readings are counted."""
        for _, _, window in self._windows.values():
            window.drop(self._dropped)
        self._changed.update(self._windows)

    def release(self, held: Held) -> None:
        """Moves the windows that ended to what waits for its batch.

        Args:
            held: what waits; windows of one device with the same start become one row.
        """
        # A device has no order of its own: what differs in nothing but its kind stays as it came.
        for (pseudonym, start, _), values in sorted(self._ended.items(), key=_place):
            row = [values[name] for name in sorted(values)]
            plan = tuple(compiled for compiled, _, _ in row)
            since = min(length for _, _, length in row) + start
            held.add(pseudonym, plan, [start], [[value] for _, value, _ in row], since)
        self._ended.clear()

    def _absorb(
        self,
        key: _Key,
        pseudonym: bytes,
        compiled: Compiled,
        times: list[int],
        cells: list[Cell],
        *,
        clean: bool,
    ) -> None:
        if not clean:
            passed = [index for index, cell in enumerate(cells) if type(cell) is not DropReason]
            times, cells = [times[index] for index in passed], [cells[index] for index in passed]
            if not passed:
                return
        if key not in self._windows:
            self._windows[key] = (pseudonym, compiled, compiled.window(*self._span))
        window = self._windows[key][2]
        values: list[Out] = cells  # type: ignore[assignment]  # reasons were taken out above
        self._note(key, window.absorb(times, values, self._dropped))

    def _note(self, key: _Key, ended: list[tuple[int, Out]]) -> None:
        pseudonym, compiled, window = self._windows[key]
        if ended:
            self._changed.add(key)
        for start, value in ended:
            row = self._ended.setdefault((pseudonym, start, key[0]), {})
            row[compiled.name] = (compiled, value, window.length)


def _place(item: tuple[tuple[bytes, int, bytes], object]) -> tuple[bytes, int]:
    (pseudonym, start, _), _ = item
    return pseudonym, start


def _merged(parts: list[tuple[Run, int]]) -> tuple[list[int], list[Cell], list[int] | None]:
    # Times and cells of all parts in the order of time and arrival, and that order when it is not
    # their own.
    if len(parts) == 1:
        run, index = parts[0]
        return run.times, run.cells[index], None
    times = [ms for run, _ in parts for ms in run.times]
    cells = [cell for run, index in parts for cell in run.cells[index]]
    arrivals = [arrival for run, _ in parts for arrival in run.arrivals]
    order = sorted(range(len(times)), key=list(zip(times, arrivals, strict=True)).__getitem__)
    return [times[at] for at in order], [cells[at] for at in order], order


def _spread(parts: list[tuple[Run, int]], steps: list[Cell], order: list[int] | None) -> None:
    # Gives each part the increases at its own readings.
    if order is not None:
        scattered = steps.copy()
        for step, at in zip(steps, order, strict=True):
            scattered[at] = step
        steps = scattered
    begin = 0
    for run, index in parts:
        mine = steps[begin : begin + len(run.times)]
        run.cells[index] = mine
        run.clean[index] = DropReason not in map(type, mine)
        begin += len(run.times)
