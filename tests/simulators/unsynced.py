# SPDX-License-Identifier: Apache-2.0
"""What is on a disk, what is on its way there, and what a power cut leaves of both.

What a file holds is what was synced, and a list of writes since. What a directory holds likewise:
names that were made, moved or removed since the last sync of the directory or of the file itself
(ext4 writes the name of a new file with its first fsync).

At a cut, names come back in order, up to any point of the list. Of the writes to each file, with
`drop` none is left, with `reorder` any of them in any combination, with `torn` any number of the
first and part of the next, cut between two sectors. Where a path is singled out, it loses something
in that way if it can: then a cut proves something about it.
"""

from __future__ import annotations

import os
import random
import re
import stat
from typing import NamedTuple

WAYS = ("drop", "reorder", "torn")
_SECTOR = 512
_TRIES = 50


class Loss(NamedTuple):
    """What a cut took from one path.

    Attributes:
        pending: writes and names that were on their way.
        lost: how many of them are gone, or in part.
        names: how many of those were names.
        torn: one is there in part.
        reordered: one is there, and an earlier one is not.
    """

    pending: int = 0
    lost: int = 0
    names: int = 0
    torn: bool = False
    reordered: bool = False

    def plus(self, other: Loss) -> Loss:
        """Both together."""
        return Loss(
            self.pending + other.pending,
            self.lost + other.lost,
            self.names + other.names,
            self.torn or other.torn,
            self.reordered or other.reordered,
        )

    def is_in(self, way: str) -> bool:
        """Whether it was lost in that way."""
        return self.lost > 0 and {"torn": self.torn, "reorder": self.reordered}.get(way, True)


class Node:
    """A file or a directory: what is on the disk, and what is on its way there."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.data = bytearray()
        self.synced = b""
        self.pending: list[tuple[int, bytes] | int] = []  # (offset, bytes), or a new length

    def write(self, offset: int, data: bytes) -> None:
        """Writes into it; on its way until it is synced."""
        _apply(self.data, (offset, data))
        self.pending.append((offset, bytes(data)))

    def truncate(self, length: int) -> None:
        """Gives it another length; likewise."""
        _apply(self.data, length)
        self.pending.append(length)

    def sync(self) -> None:
        """Whatever was on its way is there."""
        self.synced = bytes(self.data)
        self.pending.clear()

    def cut(self, way: str, rng: random.Random, *, surely: bool = False) -> Loss:
        """Leaves what the disk had.

        Args:
            way: of WAYS.
            rng: chance.
            surely: something is lost in that way, if it can be.
        """
        loss = Loss()
        left: list[tuple[int, bytes] | int] = []
        for _ in range(_TRIES):
            left, loss = self._chosen(way, rng)
            if not surely or loss.is_in(way):
                break
        self.data = bytearray(self.synced)
        for one in left:
            _apply(self.data, one)
        self.sync()
        return loss

    def _chosen(self, way: str, rng: random.Random) -> tuple[list[tuple[int, bytes] | int], Loss]:
        """Writes that are left, by chance."""
        count = len(self.pending)
        if way == "reorder":
            kept = [rng.random() < 0.5 for _ in self.pending]
            left = [one for one, stays in zip(self.pending, kept, strict=True) if stays]
            first_lost = kept.index(False) if False in kept else count
            return left, Loss(count, count - len(left), reordered=any(kept[first_lost:]))
        if way != "torn" or not count:
            return [], Loss(count, count)
        whole = rng.randrange(count + 1)
        left = list(self.pending[:whole])
        sectors = 0
        if whole < count and isinstance(last := self.pending[whole], tuple):
            sectors = rng.randint(0, max(0, len(last[1]) - 1) // _SECTOR)
            left.append((last[0], last[1][: sectors * _SECTOR]))
        return left, Loss(count, count - whole, torn=sectors > 0)


def _apply(data: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del data[change:]
        data.extend(bytes(change - len(data)))
        return
    offset, part = change
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(part)] = part


class Names:
    """The tree: names that are on the disk, and changes that are not yet."""

    def __init__(self) -> None:
        root = Node(stat.S_IFDIR | 0o777)
        self.now: dict[str, Node] = {"/": root}
        self.synced: dict[str, Node] = {"/": root}
        self.pending: list[tuple[str, str, Node | None]] = []  # name gone, name there, its node

    def change(self, gone: str, there: str, node: Node | None) -> None:
        """One name goes, one comes, or both."""
        _rename(self.now, gone, there, node)
        self.pending.append((gone, there, node))

    def of_sync(self, path: str, *, directory: bool) -> list[tuple[str, str, Node | None]]:
        """The names that a sync writes: a directory's, or the one that a file was made under."""
        found = []
        for gone, there, node in self.pending:
            inside = path in {os.path.dirname(gone or there), os.path.dirname(there or gone)}  # noqa: PTH120 - names inside
            # What had the name before is gone with it.
            own = path in (gone, there) and not (gone and there)
            if inside if directory else own:
                found.append((gone, there, node))
        return found

    def sync(self, path: str, *, directory: bool) -> None:
        """Those names are there."""
        written = self.of_sync(path, directory=directory)
        for one in written:
            _rename(self.synced, *one)
        self.pending = [one for one in self.pending if one not in written]

    def cut(
        self, way: str, rng: random.Random, surely: re.Pattern[str] | None = None
    ) -> dict[str, Loss]:
        """Leaves what the disk had.

        Args:
            way: of WAYS.
            rng: chance.
            surely: paths that lose something in that way, if they can.

        Returns:
            What was lost, by the path that it had.
        """
        paths = {id(node): path for path, node in self.now.items()}
        losses: dict[str, Loss] = {}
        count = 0 if way == "drop" else rng.randrange(len(self.pending) + 1)
        if surely is not None:
            named = [at for at, one in enumerate(self.pending) if _is_named(one, surely)]
            count = min(count, named[-1]) if named else count
        for at, (gone, there, _) in enumerate(self.pending):
            path = there or gone
            loss = Loss(1, int(at >= count), int(at >= count))
            losses[path] = losses.get(path, Loss()).plus(loss)
        for one in self.pending[:count]:
            _rename(self.synced, *one)
        self.pending.clear()
        before, self.now = self.now, dict(self.synced)
        for node in {id(one): one for one in (*before.values(), *self.now.values())}.values():
            path = paths.get(id(node)) or next(p for p, n in self.now.items() if n is node)
            one_of_them = surely is not None and surely.search(path) is not None
            if node.pending:
                loss = node.cut(way, rng, surely=one_of_them)
                losses[path] = losses.get(path, Loss()).plus(loss)
        return {path: loss for path, loss in losses.items() if loss.lost}


def _is_named(change: tuple[str, str, Node | None], pattern: re.Pattern[str]) -> bool:
    return any(name and pattern.search(name) for name in change[:2])


def _rename(names: dict[str, Node], gone: str, there: str, node: Node | None) -> None:
    if gone:
        names.pop(gone, None)
        if there:
            for name in [one for one in names if one.startswith(gone + "/")]:
                names[there + name[len(gone) :]] = names.pop(name)
    if there and node is not None:
        names[there] = node
