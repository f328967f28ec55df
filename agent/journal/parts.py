# SPDX-License-Identifier: Apache-2.0
"""What the journal says of lanes: entries as bytes, and what many entries come to.

An entry is MessagePack, deflated: the spool, and news of lanes. The news of a lane is its stream,
the number that its open batch will have, the rows since the news before (`rows`), and what it
remembers of counters and windows. Lanes that carry the same attributes share their names so.

Law:
  - the states of a lane under different numbers are alternatives: when the spool expects a number,
    the state under exactly that number is what has not been stored;
  - news under a number that was told before adds rows, and replaces what is remembered by device
    and attribute;
  - it names devices by pseudonyms only, and holds values after transformation only; of what a flow
    does not carry there is nothing.

Limits: no I/O. Entries are read only where their tag was right, so that one that cannot be read is
of another version; it is a ValueError.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from agent.journal import rows
from assent.columns import Column, Table
from assent.errors import WireError

_FORMAT: Final = 2
# Payloads of one state that are worth laying together: 10,000 readings take some 40 ms then, and
# 64 payloads some 3 kB more than one.
_MANY: Final = 64


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What does not change while a lane is open.

    Attributes:
        flow: id of the flow.
        stream: id of the stream.
        epoch: number of the pseudonym epoch.
        clock: how far its instants can be trusted, as `assent.header.ClockQuality` numbers it.
        boot: id of the boot whose milliseconds they are, where no wall clock was known; else empty.
        basis: what a batch of it rests on (agent/pipeline/accord.py).
    """

    flow: str
    stream: int
    epoch: int
    clock: int
    boot: str
    basis: bytes


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """What a lane remembers of one attribute of one device.

    Attributes:
        owner: pseudonym of the device that no other device shares; it never leaves.
        device: pseudonym under which its values leave.
        attribute: its name.
        state: of a counter or a window, as `agent.transform.series` writes it.
    """

    owner: bytes
    device: bytes
    attribute: str
    state: tuple[Any, ...]


class News(msgspec.Struct, frozen=True, array_like=True):
    """What an entry tells of one lane.

    Attributes:
        stream: of the lane.
        number: sequence that its open batch will have.
        at_ms: wall time up to which it is complete.
        head: with the first news of a stream.
        rows: as `agent.journal.rows` writes them, or empty.
        memory: what is remembered, where it changed; all of it with the first news of a number.
    """

    stream: int
    number: int
    at_ms: int
    head: Head | None = None
    rows: bytes = b""
    memory: tuple[Remembered, ...] = ()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One record of the journal.

    Attributes:
        format: of the entries.
        spool: id of the spool that the numbers are of.
        news: of lanes.
    """

    format: int
    spool: bytes
    news: tuple[News, ...]


class State(msgspec.Struct):
    """What a lane holds while its open batch has one number.

    Attributes:
        at_ms: wall time up to which it is complete.
        rows: what was told, in that order.
        memory: by owner and attribute.
    """

    at_ms: int = 0
    rows: list[bytes] = []
    memory: dict[tuple[bytes, str], Remembered] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.rows or self.memory)

    def tables(self) -> tuple[Table, ...]:
        """Reads its rows.

        Raises:
            WireError: they are none.
        """
        return tuple(table for told in self.rows for table in rows.read(told))


class Part(msgspec.Struct):
    """What the journal holds of one stream.

    Attributes:
        head: of the stream.
        states: by the number of the open batch.
    """

    head: Head
    states: dict[int, State] = {}

    @property
    def at_ms(self) -> int:
        """Wall time up to which the newest state is complete."""
        return max((state.at_ms for state in self.states.values()), default=0)

    @property
    def oldest_ms(self) -> int:
        """Earliest instant of which anything is held, `at_ms` where nothing is."""
        tables = [table for state in self.states.values() for table in state.tables()]
        return min([self.at_ms, *(min(table.times) for table in tables if table.times)])


def encode(spool: bytes, news: Sequence[News]) -> bytes:
    """Writes an entry."""
    return zlib.compress(msgspec.msgpack.encode(Entry(_FORMAT, spool, tuple(news))))


def fold(entries: Iterable[bytes]) -> tuple[bytes, dict[int, Part]]:
    """Gives what entries come to.

    Args:
        entries: in the order in which they were written.

    Returns:
        The spool's id, and the parts by stream.

    Raises:
        ValueError: an entry is of another version.
    """
    spool = b""
    parts: dict[int, Part] = {}
    for raw in entries:
        try:
            entry = msgspec.msgpack.decode(zlib.decompress(raw), type=Entry)
        except (zlib.error, msgspec.DecodeError) as exc:
            raise ValueError("an entry of the journal cannot be read") from exc
        if entry.format != _FORMAT:
            raise ValueError("an entry of the journal is of another version")
        spool = entry.spool
        for news in entry.news:
            _add(parts, news)
    return spool, parts


def whole(parts: Iterable[Part], *, hurried: bool = False) -> list[News]:
    """Writes parts as the news that come to them.

    Args:
        parts: what is left.
        hurried: leave the rows of many entries as they are; else they are laid together.
    """
    news = []
    for part in parts:
        for number, state in sorted(part.states.items()):
            is_merged = len(state.rows) >= _MANY and not hurried
            first, *others = (_merged(state.rows) if is_merged else state.rows) or [b""]
            memory = tuple(state.memory.values())
            stream = part.head.stream
            news.append(News(stream, number, state.at_ms, part.head, first, memory))
            news += [News(stream, number, state.at_ms, None, rows) for rows in others]
    return news


def _add(parts: dict[int, Part], news: News) -> None:
    if news.head is not None and news.stream not in parts:
        parts[news.stream] = Part(news.head)
    part = parts.get(news.stream)
    if part is None:
        raise ValueError("an entry of the journal tells of a stream that was not begun")
    state = part.states.setdefault(news.number, State())
    state.at_ms = max(state.at_ms, news.at_ms)
    if news.rows:
        state.rows.append(news.rows)
    for one in news.memory:
        state.memory[one.owner, one.attribute] = one


def _merged(told: list[bytes]) -> list[bytes]:
    """Lays the rows of many entries together, where one payload can hold them."""
    groups: dict[tuple[object, ...], list[Table]] = {}
    try:
        for table in (table for payload in told for table in rows.read(payload)):
            shape = [(one.attribute, one.kind, one.quantum) for one in table.columns]
            groups.setdefault((table.device, *shape), []).append(table)
        return [rows.write([_joined(tables) for tables in groups.values()])]
    except WireError:
        return told


def _joined(tables: list[Table]) -> Table:
    first = tables[0]
    joined: list[Column] = []
    for index, column in enumerate(first.columns):
        values: list[Any] = []
        for table in tables:
            values.extend(table.columns[index].values)
        joined.append(Column(column.attribute, column.kind, values, column.quantum))
    return Table(first.device, [ms for table in tables for ms in table.times], tuple(joined))
