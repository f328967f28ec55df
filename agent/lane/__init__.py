# SPDX-License-Identifier: Apache-2.0
"""One permitted flow at work: takes values in, transforms them in bulk, closes batches.

Path: Sample → router → **Lane** → Batch → seal.

Law:
  - a lane is built from a Permit and from nothing else; what the permit does not carry is never
    held, not even for a moment (`intake`);
  - a pending permit makes no lane but one whose instants are milliseconds of the boot, in a
    pseudonym epoch that is its stream's own: begin and end of the yes are held against them when
    the time is known;
  - one flow, one epoch per lane: what belongs to a later epoch waits for the `successor`, what
    belongs to an earlier one is dropped;
  - events before the unbroken yes began, or after it ended, are dropped;
  - a bad value costs only itself, and every value that stays is counted by its reason;
  - a batch holds at most `permit.max_readings`, whatever came in one go, and ends where no batch of
    another lane does (`ends`);
  - instants leave as whole seconds (`seconds`); whether a reading may leave, and which window it
    belongs to, is decided on its own.

A lane works in two steps, for speed: `take` appends a row per sample; `settle` turns the rows into
columns, transforms them column by column and forgets the rows. It settles when a batch is full, old
or urgent, or when somebody asks.

Security: no value is in a log, an error or a `repr`. Rows hold raw values of carried attributes in
memory until they settle.
Limits: one thread owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agent.journal import Remembered
from agent.lane.ends import Ends, Share, drawn
from agent.lane.intake import Take
from agent.lane.memory import LATE_MS
from agent.lane.shaper import Shaper
from agent.path import Batch, Pending, Permit
from agent.transform import DropReason
from assent.columns import Table
from assent.envelope import ClockQuality, Gap
from firmware_bridge.sample import Device, Instant

__all__ = ["Lane", "Snapshot", "Take"]


class Snapshot(NamedTuple):
    """What a lane tells the journal, after transformation: rows, and what it remembers."""

    tables: tuple[Table, ...]
    memory: tuple[Remembered, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.tables or self.memory)


class Lane:
    """One permitted flow at work, in one stream and one epoch.

    Args:
        permit: of the gate; says what may be carried, from when, until when.
        secret: of this recipient and flow, 32 bytes.
        stream: 64-bit id.
        epoch: number of the pseudonym epoch, as `epoch_of` counts; a pending permit has none, and
            takes one from the stream.
        clock: how far the instants of its samples can be trusted.
        share: draws how much of what the permit allows the first batch holds before it ends.

    Raises:
        TypeError: it was given something else than a Permit.
        PolicyError: a transform does not fit its attribute.
        ValueError: a secret of another length.
    """

    def __init__(
        self,
        permit: Permit | Pending,
        secret: bytes,
        stream: int,
        epoch: int = 0,
        clock: ClockQuality = ClockQuality.TRUSTED,
        *,
        share: Share = drawn,
    ) -> None:
        if type(permit) is Pending:
            permit, clock = permit.permit, ClockQuality.UNTRUSTED
        if type(permit) is not Permit:
            raise TypeError("a lane is built from a permit of the gate and nothing else")
        self.is_by_boot = clock is ClockQuality.UNTRUSTED
        """Whether its instants are milliseconds of the boot."""
        if self.is_by_boot:
            epoch = stream >> 1  # 63 bits; nothing else has it, so that nothing is joined by it
        self.permit = permit
        self.stream = stream
        self.epoch = epoch
        self.clock = clock
        self._secret = secret
        self._share = share
        self._ends = Ends(permit, share)
        self._ends_by_itself = False
        self._shaper = Shaper(permit, secret, epoch, by_boot=self.is_by_boot)
        self._sweep_ms = 0
        self._look_ms: int | None = None  # no need to ask about age before; None is unknown
        self._begin()

    def __repr__(self) -> str:
        return f"<Lane {self.permit.flow} epoch {self.epoch}: {self.readings} readings>"

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the attributes it carries."""
        return self._shaper.wanted

    @property
    def dropped(self) -> Mapping[DropReason, int]:
        """How many values stayed, and why; goes on counting in the successor."""
        return MappingProxyType(self._shaper.dropped)

    @property
    def readings(self) -> int:
        """How many values wait for a batch: settled ones and those not yet looked at."""
        return self._held.readings + self._intake.pending

    @property
    def absorbed(self) -> int:
        """How many readings open windows hold."""
        return self._memory.absorbed

    @property
    def oldest_ms(self) -> int | None:
        """Instant of the oldest value that waits for a batch, or None."""
        since = (self._intake.oldest_ms, self._held.since_ms)
        return min((ms for ms in since if ms is not None), default=None)

    def epoch_of(self, ms: int) -> int:
        """Tells the pseudonym epoch of an instant; a lane by the boot has one only."""
        return self.epoch if self.is_by_boot else ms // self.permit.epoch_ms

    def ms_of(self, now: Instant) -> int:
        """Tells an instant as this lane counts."""
        return now.mono_ms if self.is_by_boot else now.wall_ms

    def compile(self, device: Device, names: tuple[str, ...]) -> Take | None:
        """Compiles what to do with samples of one shape.

        Args:
            device: whose samples they are.
            names: of their values.

        Returns:
            What takes one of them, or None when nothing in them is wanted.
        """
        return self._shaper.compile(device, names)

    def refuse(self, names: Sequence[str], reason: DropReason) -> None:
        """Counts the wanted values of a sample that is not taken."""
        self._shaper.refuse(names, reason)

    def due(self, now_ms: int) -> bool:
        """Says whether a batch should be closed: full, old, urgent, or its epoch is over.

        Args:
            now_ms: now, as `ms_of` tells it.

        Returns:
            True when `close` should be called.
        """
        if self._intake.urgent or self.epoch_of(now_ms) > self.epoch:
            return self.readings > 0
        self._ends_by_itself = self._is_over(now_ms)
        return self._ends_by_itself

    def settle(self, now_ms: int | None = None) -> None:
        """Transforms what was taken.

        Afterwards no raw value is held but the last of a counter and of an urgent state.

        Args:
            now_ms: now, as `ms_of` tells it; windows of devices long silent end by it. None ends
                none.
        """
        self._shaper.settle(None if now_ms is None else now_ms - LATE_MS)
        if now_ms is not None:
            self._sweep_ms = now_ms + self.permit.max_age_ms
        self._look_ms = None

    def close(
        self, gaps: Sequence[Gap] = (), *, final: bool = False, now_ms: int | None = None
    ) -> Batch | None:
        """Settles and closes one batch; call again while `due`, or until None when it is final.

        Args:
            gaps: declared holes that the batch carries.
            final: the lane will take nothing more: windows that have ended leave, those that have
                not are dropped and counted.
            now_ms: now, as `ms_of` tells it, by which a final close tells the two apart.

        Returns:
            At most `permit.max_readings` values, or None when nothing waits; the gaps are then
            not carried.
        """
        self.settle(now_ms)
        if final:
            self._shaper.finish(now_ms)
        tables = self._shaper.take(self._ends.readings)
        if not self._held.readings:
            self._intake.urgent = False
        if not tables:
            return None
        if self._ends_by_itself:
            self._ends.go_on()
        else:
            self._ends.draw()
        self._ends_by_itself = False
        return Batch(
            permit=self.permit,
            stream=self.stream,
            epoch=self.epoch,
            tables=tables,
            readings=sum(len(table.times) * len(table.columns) for table in tables),
            first_ms=min(min(table.times) for table in tables),
            last_ms=max(max(table.times) for table in tables),
            clock=self.clock,
            gaps=tuple(gaps),
        )

    def news(self) -> Snapshot:
        """What was settled and remembered since `mark`: what the journal was not told of."""
        return Snapshot(self._held.news(), self._memory.told(whole=False))

    def rest(self) -> Snapshot:
        """What is told of the lane right after a batch was closed, under the number that follows.

        Rows the journal was not told of may wait for its next commit, unless what the lane
        remembers has gone on from them.
        """
        news = () if self._memory.is_empty else self._held.news()
        return Snapshot((*self._held.told(), *news), self._memory.told(whole=True))

    def whole(self) -> Snapshot:
        """All that is settled and remembered."""
        return Snapshot((*self._held.told(), *self._held.news()), self._memory.told(whole=True))

    def mark(self, *, rest: bool = False) -> None:
        """Notes that the journal was told.

        Args:
            rest: of `rest` only; else of everything.
        """
        if not (rest and self._memory.is_empty):
            self._held.mark()
            self._memory.mark()

    def take_up(self, told: Snapshot) -> None:
        """Goes on from what a lane of another life told; before anything is taken in.

        Args:
            told: by a lane of the same terms, attributes, secret and epoch.

        Raises:
            ValueError: it is of other terms; the lane is as it was.
        """
        try:
            self._shaper.take_up(told.tables, told.memory)
        except ValueError:
            self._begin()
            raise
        self.mark()
        self._look_ms = None

    def discard(self) -> None:
        """Forgets everything that waits, at once (policy C28); nothing of it can leave any more."""
        self._begin()

    def successor(self, stream: int, epoch: int) -> Lane:
        """Opens the lane of another epoch, which takes over what waits for it.

        Args:
            stream: id of the new stream.
            epoch: of trusted time now.

        Returns:
            A lane with the same permit and secret; counters and windows begin anew.
        """
        other = Lane(self.permit, self._secret, stream, epoch, self.clock, share=self._share)
        self.settle()
        other._shaper.adopt(self._shaper)
        return other

    def amend(self, permit: Permit) -> None:
        """Goes on under another permit, in its stream; what it holds and may leave stays.

        Args:
            permit: on the same terms, attributes and record. Its end, the sizes of its batches and
                its prose may be others.
        """
        self.permit = permit
        self._ends = Ends(permit, self._share)
        self._shaper.amend(permit)
        self._look_ms = None

    def _begin(self) -> None:
        self._shaper.begin()
        self._intake, self._memory = self._shaper.intake, self._shaper.memory
        self._held = self._shaper.held

    def _is_over(self, now_ms: int) -> bool:
        if self.readings >= self._ends.readings:
            self.settle(now_ms)
            if self._held.readings >= self._ends.readings:
                return True
        if self._look_ms is None:
            self._look_ms = self._old_at()
        if self._look_ms is None or now_ms < self._look_ms:
            return False
        self.settle(now_ms)
        since = self._held.since_ms
        return since is not None and now_ms - since >= self._ends.age_ms

    def _old_at(self) -> int | None:
        # When the oldest value is old, or when silent windows are to be looked at.
        since = [ms for ms in (self._intake.oldest_ms, self._held.since_ms) if ms is not None]
        old_at = min(since) + self._ends.age_ms if since else None
        if not self._memory.absorbed:
            return old_at
        return self._sweep_ms if old_at is None else min(old_at, self._sweep_ms)
