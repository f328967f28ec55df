# SPDX-License-Identifier: Apache-2.0
"""The transforms that remember: increases of a counter, aggregates of a window.

Law:
  - both count in units of the quantum, so that they are exact: the increases of a counter sum to
    its whole increase, and a mean is rounded once, half to even;
  - the first reading of a counter gives nothing, nor does one that is smaller than the one before:
    counting starts again from it. What is older than the counter's newest is left out;
  - a window is a UTC multiple of its length and is stamped at its start. Its value leaves once,
    after a reading at or after its end, or when the clock is past it (`Window.end_by`);
  - a window that the begin or end of the yes or of the epoch cuts never leaves: its stamp would lie
    before the yes, or its value would join two epochs;
  - a window that has not ended when the lane closes for good is left out and counted, whatever its
    aggregate: half a sum would pass for a whole one. One that lost its beginning to a restart does
    leave, over the readings there were.

Neither outlives its lane: a new epoch has a new lane, so that no counter joins two epochs. What
both remember can be written down, and taken up by that lane in another life of the process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from operator import sub
from typing import Any, TypeAlias, cast

from agent.transform.readers import MAX_UNITS, Cell, Out
from agent.transform.reasons import DropReason
from assent.policy.expressions import Aggregate

State: TypeAlias = tuple[Any, ...]
"""Plain values that say what a counter or a window remembers."""


class Delta:
    """The increases of one counter of one device."""

    __slots__ = ("_last", "_last_ms")

    def __init__(self) -> None:
        self._last: int | None = None
        self._last_ms = 0

    @property
    def state(self) -> State:
        """What it remembers, for `take_up`."""
        return (self._last, self._last_ms)

    def take_up(self, state: State) -> None:
        """Goes on from what another one remembered.

        Raises:
            ValueError: it is no such state.
        """
        match state:
            case (int() | None as last, int(last_ms)):
                self._last, self._last_ms = last, last_ms
            case _:
                raise ValueError("this is no state of a counter")

    def steps(self, times: Sequence[int], cells: Sequence[Cell], *, clean: bool) -> list[Cell]:
        """Gives the increase at each reading.

        Args:
            times: instants in ms, rising or equal.
            cells: units of the counter; reasons are passed on.
            clean: whether there are no reasons among them.

        Returns:
            A cell for each reading.
        """
        if not clean or self._last is None or times[0] < self._last_ms:
            return [self._step(ms, cell) for ms, cell in zip(times, cells, strict=True)]
        units = cast("Sequence[int]", cells)
        increases = [units[0] - self._last, *map(sub, units[1:], units)]
        if min(increases) < 0:
            return [self._step(ms, cell) for ms, cell in zip(times, cells, strict=True)]
        self._last, self._last_ms = units[-1], times[-1]
        return cast("list[Cell]", increases)

    def _step(self, ms: int, cell: Cell) -> Cell:
        if isinstance(cell, DropReason):
            return cell
        units, last = cast("int", cell), self._last
        if last is not None and ms < self._last_ms:
            return DropReason.LATE
        self._last, self._last_ms = units, ms
        if last is None:
            return DropReason.FIRST_OF_COUNTER
        return units - last if units >= last else DropReason.COUNTER_RESET


class Window:
    """The open window of one attribute of one device.

    Args:
        length: of a window in ms.
        aggregate: what is made of it.
        begin_ms: windows that start earlier are cut.
        end_ms: windows that end later are cut; None for no end.
    """

    __slots__ = (
        "_aggregate",
        "_begin",
        "_count",
        "_end",
        "_extreme",
        "_last_ms",
        "_length",
        "_open_from",
        "_start",
        "_total",
    )

    def __init__(
        self, length: int, aggregate: Aggregate, begin_ms: int, end_ms: int | None
    ) -> None:
        self._length = length
        self._aggregate = aggregate
        self._begin = begin_ms
        self._end = end_ms
        self._open_from = begin_ms  # windows that start earlier have left or are cut
        self._start = 0
        self._count = 0
        self._total = 0
        self._extreme: Out = 0  # smallest, largest or last, as the aggregate asks
        self._last_ms = 0

    @property
    def length(self) -> int:
        """Length of the window in ms."""
        return self._length

    @property
    def readings(self) -> int:
        """How many readings wait in the open window."""
        return self._count

    @property
    def state(self) -> State:
        """What it remembers, for `take_up`; a sum is a text, because it may have over 64 bits."""
        span = (self._open_from, self._start, self._count)
        return (*span, str(self._total), self._extreme, self._last_ms)

    def take_up(self, state: State, dropped: Counter[DropReason]) -> None:
        """Goes on from what another one remembered, within this one's begin and end.

        Args:
            state: of a window of the same length and aggregate.
            dropped: where readings that do not count any more are counted.

        Raises:
            ValueError: it is no such state.
        """
        match state:
            case (int(open_from), int(start), int(count), str(total), extreme, int(last_ms)):
                self._open_from = max(self._begin, open_from)
                self._start, self._count, self._total = start, count, int(total)
                # A position comes back as a list.
                self._extreme = tuple(extreme) if isinstance(extreme, list) else extreme
                self._last_ms = last_ms
            case _:
                raise ValueError("this is no state of a window")
        if start < self._begin:
            self._give_up(dropped)
        self.amend(self._end, dropped)

    def absorb(
        self, times: Sequence[int], values: Sequence[Out], dropped: Counter[DropReason]
    ) -> list[tuple[int, Out]]:
        """Takes readings in.

        Args:
            times: instants in ms, rising or equal, at least one.
            values: a value for each.
            dropped: where readings that do not count are counted.

        Returns:
            Start and value of the windows that ended.
        """
        ended: list[tuple[int, Out]] = []
        at, length = 0, self._length
        while at < len(times):
            start = times[at] - times[at] % length
            stop = bisect_left(times, start + length, at)
            if start < self._begin or (self._end is not None and start + length > self._end):
                dropped[DropReason.CUT_WINDOW] += stop - at
            elif start < self._open_from:
                dropped[DropReason.LATE] += stop - at
            else:
                if self._count and start != self._start:
                    ended += self._leave(dropped)
                self._add(start, times[stop - 1], values[at:stop])
            at = stop
        return ended

    def end_by(self, now_ms: int, dropped: Counter[DropReason]) -> list[tuple[int, Out]]:
        """Ends the open window when its time is over.

        Args:
            now_ms: windows that end by then are over.
            dropped: where a value that does not fit is counted.

        Returns:
            Start and value of the window, or nothing.
        """
        over = self._count > 0 and self._start + self._length <= now_ms
        return self._leave(dropped) if over else []

    def amend(self, end_ms: int | None, dropped: Counter[DropReason]) -> None:
        """Takes another end, and gives up an open window that ends later.

        Args:
            end_ms: windows that end later are cut; None for no end.
            dropped: where the readings of a window that is given up are counted.
        """
        self._end = end_ms
        if end_ms is not None and self._start + self._length > end_ms:
            self._give_up(dropped)

    def _give_up(self, dropped: Counter[DropReason]) -> None:
        if self._count:
            dropped[DropReason.CUT_WINDOW] += self._count
            self._count = 0

    def drop(self, dropped: Counter[DropReason]) -> None:
        """Gives up the open window.

        Args:
            dropped: where its readings are counted.
        """
        if self._count:
            dropped[DropReason.OPEN_WINDOW] += self._count
            self._count = 0

    def _add(self, start: int, last_ms: int, values: Sequence[Out]) -> None:
        fresh = self._count == 0
        if fresh:
            self._start = self._open_from = start
            self._total = 0
        self._count += len(values)
        match self._aggregate:
            case "mean" | "sum":
                self._total += sum(cast("Sequence[int]", values))
            case "min":
                least = min(cast("Sequence[int]", values))
                self._extreme = least if fresh else min(least, cast("int", self._extreme))
            case "max":
                most = max(cast("Sequence[int]", values))
                self._extreme = most if fresh else max(most, cast("int", self._extreme))
            case "last":
                if fresh or last_ms >= self._last_ms:
                    self._extreme, self._last_ms = values[-1], last_ms
            case "count":
                pass

    def _leave(self, dropped: Counter[DropReason]) -> list[tuple[int, Out]]:
        count, self._count = self._count, 0
        self._open_from = self._start + self._length
        value = self._value(count)
        if isinstance(value, int) and not -MAX_UNITS <= value <= MAX_UNITS:
            dropped[DropReason.OUT_OF_RANGE] += count
            return []
        return [(self._start, value)]

    def _value(self, count: int) -> Out:
        match self._aggregate:
            case "mean":
                return half_even(self._total, count)
            case "sum":
                return self._total
            case "count":
                return count
            case _:
                return self._extreme


def half_even(numerator: int, denominator: int) -> int:
    """Divides whole numbers, half to even, exactly.

    Args:
        numerator: any.
        denominator: positive.

    Returns:
        The nearest whole number.
    """
    quotient, rest = divmod(numerator, denominator)
    up = 2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1)
    return quotient + up
