# SPDX-License-Identifier: Apache-2.0
"""What lanes hold between two batches survives a crash: encrypted, group-committed, small.

Path: lane → **journal** → lane of the next life. `parts` says what an entry tells, `rows` how rows
are written, `areas` how the file is laid out.

Law:
  - what `commit` returned from is on the disk, and is what `parts` gives after a crash, once;
  - the number of the open batch goes with what it holds: the spool, which knows what was put, says
    which state of a lane is the one that was not stored (`parts`); there is no common transaction;
  - what was stored, or ended, is out of the file with the commit after it; what is erased is out of
    it, overwritten and synced, when `erase` returns;
  - a file that cannot be read is emptied, never repaired: `damaged_ms` says so.

Security: it holds what the lanes hold, under the journal's key (agent/keys). Without a credential
of the unit that key lies on the same card: whoever takes the card can read the open batches.
Limits: one owner, under the instance lock. An open batch that outgrows the file is a FullError: the
caller closes it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.journal import rows
from agent.journal.areas import Areas, FullError
from agent.journal.parts import Head, News, Part, Remembered, State, encode, fold, whole

__all__ = ["FullError", "Head", "Journal", "News", "Part", "Remembered", "State", "rows"]


class _Told(msgspec.Struct):
    """What the file holds of a stream.

    Attributes:
        flow: id of its flow.
        first: the lowest number under which there is a state.
        number: of the open batch, as it was told last.
        is_empty: whether the state under that number is.
    """

    flow: str
    first: int
    number: int
    is_empty: bool = True


class Journal:
    """The journal of one gateway.

    Args:
        path: its file; made with the first commit.
        key: gives its key, 32 bytes; asked when there is something to read or to write.
        spool: id of the spool that its numbers are of.

    Attributes:
        found_spool: id of the spool that the numbers found are of; empty where nothing was.
        damaged_ms: when a file was written last that could not be read, or None.
    """

    def __init__(self, path: Path, key: Callable[[], bytes], spool: bytes) -> None:
        self._spool = spool
        self._stored: dict[int, int] = {}
        self._ended: set[int] = set()
        self._told: dict[int, _Told] = {}
        self.found_spool = b""
        self._areas = Areas(path, key)
        parts: dict[int, Part] = {}
        try:
            self.found_spool, parts = fold(self._areas.read())
        except (OSError, ValueError):
            self._areas.forget()
        self.damaged_ms = self._areas.damaged_ms
        for part in parts.values():
            self._note(whole([part], hurried=True))

    @property
    def streams(self) -> Mapping[int, str]:
        """The streams of which anything was told and that have not ended, with their flows."""
        return {
            stream: told.flow for stream, told in self._told.items() if stream not in self._ended
        }

    @property
    def is_stale(self) -> bool:
        """Whether the file holds what was stored or has ended; the next commit takes it out."""
        return (bool(self._ended) or not self._areas.is_wiped) or any(
            told.first < self._stored.get(stream, 0) for stream, told in self._told.items()
        )

    def number(self, stream: int) -> int | None:
        """Which number the open batch of a stream had when it was told of last, or None."""
        told = self._told.get(stream)
        return None if told is None else told.number

    def holds(self, stream: int) -> bool:
        """Whether the newest state of a stream has anything that a crash would lose."""
        told = self._told.get(stream)
        return told is not None and not told.is_empty

    def parts(self) -> list[Part]:
        """Reads what the file holds of streams that have not ended.

        Raises:
            OSError: the disk refuses.
        """
        return list(self._left().values())

    def commit(self, news: Sequence[News]) -> None:
        """Adds news of lanes; durable when this returns.

        Args:
            news: with the head of a stream and all of its state where its number is another than
                `number` gives; else what came since.

        Raises:
            FullError: there is no room for what is held; nothing was added.
            OSError: the disk refuses; nothing was added that a next commit would not replace.
        """
        if self._areas.may_append and not self.is_stale:
            try:
                self._areas.append(encode(self._spool, news))
            except FullError:
                self._begin(self._left(), news)
            else:
                self._note(news)
                return
        else:
            self._begin(self._left(), news)
        with contextlib.suppress(OSError):  # it stays stale, and the next commit tries again
            self._areas.wipe(whole=False)

    def choose(self, states: Mapping[int, int], ended: Collection[int]) -> None:
        """Keeps one state of some streams, ends others; durable and overwritten on return.

        Args:
            states: number by stream; no other state of it is left.
            ended: streams of which nothing is left.

        Raises:
            OSError: the disk refuses.
        """
        self._ended |= self._told.keys() & set(ended)
        left = self._left()
        for stream, number in states.items():
            left[stream].states = {number: left[stream].states[number]}
        self._begin(left, (), hurried=True)
        self._areas.wipe(whole=True)

    def stored(self, stream: int, number: int) -> None:
        """Notes that the spool holds all of a stream below a number."""
        if stream in self._told:
            self._stored[stream] = max(number, self._stored.get(stream, 0))

    def end(self, stream: int) -> None:
        """Notes that a stream has ended: nothing of it is to be taken up."""
        if stream in self._told:
            self._ended.add(stream)

    def erase(self, flows: Collection[str]) -> None:
        """Takes all of some flows out; overwritten and durable when this returns.

        Raises:
            OSError: the disk refuses; their streams have ended all the same, and every commit
                tries again.
        """
        mine = {stream for stream, told in self._told.items() if told.flow in flows}
        self._ended |= mine
        if mine:
            self._begin(self._left(), (), hurried=True)
        if not self._areas.is_wiped:
            self._areas.wipe(whole=True)

    def _left(self) -> dict[int, Part]:
        """What the file holds, without what was stored or has ended."""
        try:
            _, parts = fold(self._areas.read())
            if not all(self._is_in(parts, stream) for stream in self.streams):
                raise ValueError("it is older than what it was told")  # noqa: TRY301  # as damage
        except (OSError, ValueError) as exc:
            # Somebody laid hands on it, or the disk did: the next commit tells all there is anew.
            self._areas.forget()
            self._told.clear()
            raise OSError(errno.EIO, "it is gone, or is not as it was written") from exc
        for stream, number in self._stored.items():
            if stream in parts:
                part = parts[stream]
                later = {n: one for n, one in part.states.items() if n >= number}
                # Of all that is stored the moment stays: the flow was running up to then.
                part.states = later or {number: State(part.at_ms)}
        return {stream: part for stream, part in parts.items() if stream not in self._ended}

    def _is_in(self, parts: Mapping[int, Part], stream: int) -> bool:
        """Whether what was told of a stream last is there."""
        return stream in parts and self._told[stream].number in parts[stream].states

    def _begin(
        self, parts: Mapping[int, Part], news: Sequence[News], *, hurried: bool = False
    ) -> None:
        """Begins a generation with what is left and what is new; the old one is to be wiped."""
        everything = [*whole(parts.values(), hurried=hurried), *news]
        self._areas.begin(encode(self._spool, everything))
        self._told.clear()
        self._stored.clear()
        self._ended.clear()
        self._note(everything)

    def _note(self, news: Iterable[News]) -> None:
        for one in news:
            told = self._told.get(one.stream)
            if told is None:
                assert one.head is not None
                told = self._told[one.stream] = _Told(one.head.flow, one.number, one.number)
            elif told.number != one.number:
                told.number, told.is_empty = one.number, True
            if one.rows or one.memory:
                told.is_empty = False
