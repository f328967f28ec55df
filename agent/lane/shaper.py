# SPDX-License-Identifier: Apache-2.0
"""Rows in, tables out: what a flow makes of samples, before anybody asks whether it may leave.

Law:
  - what the scope does not carry is never held, not even for a moment (`intake`);
  - a bad value costs only itself, and every value that stays is counted by its reason;
  - it makes no Batch: that takes a lane, and a lane takes a permit. What a preview shapes for a
    screen is shaped by the same code and can go nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from agent.journal import Remembered
from agent.lane.held import Held
from agent.lane.intake import Intake, Take
from agent.lane.memory import Memory, Run
from agent.lane.seconds import first_second, whole_seconds
from agent.path import Permit, Rehearsal
from agent.transform import DEVICE_KIND, Compiled, DropReason, compile_transform, pseudonym_key
from agent.transform.readers import Cell
from assent.columns import Column, Table
from firmware_bridge.sample import Device


class Shaper:
    """The values of one flow in one epoch. Owned by a lane, or by a preview.

    Args:
        scope: what is carried, from when, until when.
        secret: of the pseudonyms, 32 bytes.
        epoch: number of the pseudonym epoch.
        by_boot: whether instants count from the boot, and the epoch is a name and no time.

    Raises:
        PolicyError: a transform does not fit its attribute.
        ValueError: a secret of another length.
    """

    def __init__(
        self, scope: Permit | Rehearsal, secret: bytes, epoch: int, *, by_boot: bool = False
    ) -> None:
        self.dropped: Counter[DropReason] = Counter()
        """How many values stayed, and why."""
        self._scope = scope
        self._epoch_begin = None if by_boot else epoch * scope.epoch_ms
        self._device_key = pseudonym_key(secret, DEVICE_KIND, epoch)
        self._compiled = {
            carried.name: compile_transform(carried, secret, epoch) for carried in scope.carried
        }
        self.begin()

    def begin(self) -> None:
        """Forgets everything that waits."""
        self.intake = Intake(
            self._scope, self._compiled, self._device_key, self._epoch_begin, self.dropped
        )
        self.memory = Memory(self.intake.begin_ms, self.intake.end_ms, self.dropped)
        self.held = Held()
        self._first_second = first_second(self.intake.begin_ms)

    def amend(self, scope: Permit | Rehearsal) -> None:
        """Takes another end and what is urgent; what waits stays."""
        self._scope = scope
        self.intake.amend(scope)
        self.memory.amend(self.intake.end_ms)

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the attributes it carries."""
        return frozenset(self._compiled)

    def compile(self, device: Device, names: tuple[str, ...]) -> Take | None:
        """Compiles what to do with samples of one shape; see `Lane.compile`."""
        return self.intake.compile(device, names)

    def settle(self, ended_ms: int | None = None) -> None:
        """Transforms what was taken.

        Args:
            ended_ms: windows that end before it have ended; None ends none by time alone.
        """
        runs = self.intake.admit()
        self.memory.advance(runs)
        if ended_ms is not None:
            self.memory.end_by(ended_ms)
        for run in runs:
            self._hold(run)
        self.memory.release(self.held)

    def finish(self, ended_ms: int | None) -> None:
        """Lets go the windows that have ended, and drops those that have not."""
        if ended_ms is not None:
            self.memory.end_by(ended_ms)
        self.memory.drop()
        self.memory.release(self.held)

    def take_up(self, tables: Sequence[Table], memory: Sequence[Remembered]) -> None:
        """Goes on from what another shaper of the same scope, secret and epoch has told.

        Raises:
            ValueError: it is of another scope.
        """
        for table in tables:
            plan = tuple(self._planned(column) for column in table.columns)
            columns = [cast("Sequence[Cell]", column.values) for column in table.columns]
            self.held.add(table.device, plan, table.times, columns, min(table.times))
        self.memory.take_up(memory, self._compiled)

    def _planned(self, column: Column) -> Compiled:
        compiled = self._compiled.get(column.attribute)
        if compiled is None or (compiled.kind, compiled.quantum) != (column.kind, column.quantum):
            raise ValueError("a column is of another scope")
        return compiled

    def take(self, most: int) -> tuple[Table, ...]:
        """Takes settled values out, at most so many; see `Held.take`."""
        return self.held.take(most)

    def adopt(self, other: Shaper) -> None:
        """Takes over the rows that an earlier epoch kept, and its counts."""
        self.dropped.update(other.dropped)
        self.intake.adopt(other.intake)

    def refuse(self, names: Sequence[str], reason: DropReason) -> None:
        """Counts the wanted values of a sample that is not taken."""
        self.intake.refuse(names, reason)

    def _hold(self, run: Run) -> None:
        # Passes on what leaves as rows; windows leave by themselves.
        for cells, clean in zip(run.cells, run.clean, strict=True):
            if not clean:
                self.dropped.update(cell for cell in cells if isinstance(cell, DropReason))
        kept = [index for index, compiled in enumerate(run.plan) if not compiled.is_window]
        plan = tuple(run.plan[index] for index in kept)
        columns = [run.cells[index] for index in kept]
        if not plan:
            return
        seconds = whole_seconds(run.times, self._first_second)
        if all(run.clean[index] for index in kept):
            self.held.add(run.pseudonym, plan, seconds, columns, run.times[0])
        else:
            self.held.add_broken(run.pseudonym, plan, seconds, columns)
