# SPDX-License-Identifier: Apache-2.0
"""What the lanes hold, told to the journal: every commit interval, and before a batch is put.

Path: lane → **keeping** → journal.
Law:
  - a commit settles all lanes and tells what is new of them, together; where nothing is new it
    writes nothing;
  - before a batch is put, what stays open is told under the number that follows it, so that a crash
    on either side of the put finds what was not stored, once;
  - a disk that refuses stops nothing: it is logged once, tried again, and told in status;
  - what is erased is out of the file when `erase` returns; what the disk kept is tried again with
    every commit.

Limits: while the disk refuses, a crash takes the open batches, not only a commit interval of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from agent.journal import FullError, Head, Journal, News, Part, rows
from agent.lane import Lane, Snapshot
from agent.pipeline.accord import basis
from assent.errors import AssentError, TooLargeError
from firmware_bridge.sample import Instant

Numbers = Callable[[int], int]
"""Gives the number that the open batch of a stream will have."""

log = logging.getLogger(__name__)


class Keeping:
    """Tells the journal of lanes; owned by the lanes' thread.

    Args:
        journal: of this gateway.
        every_ms: a commit interval.
        boot_id: names this boot.

    Attributes:
        every_ms: a commit interval; may be changed.
        boot_id: names this boot.
        trouble: why the journal could not be written the last time, or None.
        damaged_ms: when one was written last that could not be read, or None.
        left: streams of an earlier life that are not taken up yet.
    """

    def __init__(self, journal: Journal, every_ms: int, boot_id: str) -> None:
        self.every_ms = every_ms
        self.boot_id = boot_id
        self.trouble: str | None = None
        self.damaged_ms = journal.damaged_ms
        self.left = set(journal.streams)
        self._journal = journal
        self._at_ms = 0  # up to when what it was told last is complete
        self._next_ms = 0
        if journal.damaged_ms is not None:
            log.error("the journal cannot be read and is begun anew")

    @property
    def flows(self) -> frozenset[str]:
        """The flows of which the journal tells."""
        return frozenset(self._journal.streams.values())

    def notices(self) -> list[str]:
        """What a person should know of the journal, in sentences."""
        notices = []
        if self.trouble is not None:
            notices.append(
                "the journal cannot be written, a crash would lose all that is not sealed yet:"
                f" {self.trouble}"
            )
        if self.damaged_ms is not None:
            notices.append(
                "the journal could not be read and was begun anew: what was not sealed when the"
                " agent ended is lost"
            )
        return notices

    def due_in_ms(self, mono_ms: int) -> int:
        """How long until the next commit may be; nothing when it may be now."""
        return max(0, self._next_ms - mono_ms)

    def commit(self, lanes: Iterable[Lane], numbers: Numbers, now: Instant) -> bool:
        """Tells what is new of all lanes; durable when this returns, unless there is `trouble`.

        Returns:
            False when the lanes hold more than the journal does: their batches are to be closed.
        """
        told = [(lane, *self._new(lane, numbers(lane.stream), now.wall_ms)) for lane in lanes]
        is_idle = all(is_known and snapshot.is_empty for _, snapshot, is_known, _ in told)
        if is_idle and not self._journal.is_stale:
            self._at_ms = now.wall_ms
            return True
        try:
            news = [self._news(lane, snapshot, at) for lane, snapshot, _, at in told]
            is_written = self._tried(lambda: self._journal.commit(news))
        except (FullError, TooLargeError):
            self.trouble = "the lanes hold more than it does"
            return False
        finally:
            self._next_ms = now.mono_ms + self.every_ms
        if is_written:
            self._at_ms = now.wall_ms
            for lane, *_ in told:
                lane.mark()
        return True

    def turn_over(self, lanes: Iterable[Lane], numbers: Numbers) -> None:
        """Tells what stays open of lanes whose batches are about to be put."""
        turned = [
            (lane, (numbers(lane.stream), self._at_ms))
            for lane in lanes
            if self._journal.holds(lane.stream)
            and self._journal.number(lane.stream) != numbers(lane.stream)
        ]
        if not turned:
            return
        try:
            news = [self._news(lane, lane.rest(), at) for lane, at in turned]
            if self._tried(lambda: self._journal.commit(news)):
                for lane, _ in turned:
                    lane.mark(rest=True)
        except (FullError, TooLargeError):
            log.warning("the journal is full; a crash now would lose open batches")

    def stored(self, stream: int, number: int) -> None:
        """Notes that the spool holds a batch; it is out of the journal with the next commit."""
        self._journal.stored(stream, number + 1)

    def end(self, stream: int) -> None:
        """Notes that a lane has ended; it is out of the journal with the next commit."""
        self._journal.end(stream)

    def erase(self, flows: Collection[str]) -> None:
        """Takes all of some flows out of the journal; durable when this returns without trouble."""
        self.left -= {stream for stream, flow in self._journal.streams.items() if flow in flows}
        self._tried(lambda: self._journal.erase(flows))

    def clean(self) -> None:
        """Empties the journal at an orderly end, but for what is not taken up yet."""
        ended = self._journal.streams.keys() - self.left
        if ended or self._journal.is_stale:
            self._tried(lambda: self._journal.choose({}, ended))

    def parts(self) -> list[Part]:
        """What earlier lives left and nobody has taken up; nothing when it cannot be read."""
        found: list[Part] = []
        self._tried(lambda: found.extend(self._journal.parts()))
        return [part for part in found if part.head.stream in self.left]

    def choose(self, states: Mapping[int, int], ended: Collection[int]) -> bool:
        """Keeps one state of some streams of an earlier life and erases others.

        Returns:
            Whether it is durable; else none of them may be taken up.
        """
        self.left -= {*states, *ended}
        is_written = self._tried(lambda: self._journal.choose(states, ended))
        if not is_written:
            for stream in (*states, *ended):
                self._journal.end(stream)
        return is_written

    def is_of(self, spool: bytes) -> bool:
        """Whether the numbers of earlier lives are of a spool."""
        return self._journal.found_spool == spool

    def _new(self, lane: Lane, number: int, now_ms: int) -> tuple[Snapshot, bool, tuple[int, int]]:
        lane.settle()
        is_known = self._journal.number(lane.stream) == number
        return lane.news() if is_known else lane.whole(), is_known, (number, now_ms)

    def _news(self, lane: Lane, told: Snapshot, at: tuple[int, int]) -> News:
        number, at_ms = at
        head = None
        if self._journal.number(lane.stream) is None:
            head = Head(
                lane.permit.flow,
                lane.stream,
                lane.epoch,
                int(lane.clock),
                self.boot_id if lane.is_by_boot else "",
                basis(lane.permit),
            )
        return News(lane.stream, number, at_ms, head, rows.write(told.tables), told.memory)

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (OSError, AssentError) as exc:
            why = exc.message if isinstance(exc, AssentError) else exc.strerror or "input or output"
            if self.trouble is None:
                log.error("journal not written, tried again reason=%s", why)
            self.trouble = why
            return False
        if self.trouble is not None:
            log.info("journal written again")
        self.trouble = None
        return True
