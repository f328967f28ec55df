# SPDX-License-Identifier: Apache-2.0
"""A disk that notes what is done to it: what may lie there when the power goes at any moment.

The calls of SQLite (`sqlite_calls`) and those of `os` that write files are watched. Everything is
passed on, and each write, cut, sync, making, renaming and removal of a file in one directory is
noted. From these notes `left_at` gives the files as another process finds them when this one died
before any of the steps; or, when the power went with it, with any sectors missing that were not
synced.

Limits: names are on the disk at once. Sectors of 512 bytes are written whole or not at all. The index
of SQLite's log (-shm) does not outlive a process. What is written otherwise than by `os.pwrite` is
noted with its sync. One directory at a time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import pytest

from tests.simulators import sqlite_calls

SECTOR: Final = 512
Power: TypeAlias = Callable[[], bool] | None
"""Whether a sector that was not synced is lost; None where the power did not go."""


class Step(NamedTuple):
    """One thing that is done to a file.

    Attributes:
        kind: write, cut, sync, make, rename or remove.
        name: of the file.
        at: where it is written, or how long it is then.
        data: what is written.
        other: its new name.
    """

    kind: str
    name: str
    at: int = 0
    data: bytes = b""
    other: str = ""


class Stored:
    """A file: what is synced, and what came since."""

    def __init__(self, synced: bytes = b"", pending: tuple[Step, ...] = ()) -> None:
        self.synced = synced
        self.pending = pending

    def whole(self) -> bytes:
        """As every process sees it."""
        data = bytearray(self.synced)
        for step in self.pending:
            _apply(data, step)
        return bytes(data)

    def torn(self, is_lost: Callable[[], bool]) -> bytes:
        """As it may lie there when the power went: cuts up to some moment, writes by sectors."""
        data = bytearray(self.synced)
        for step in self.pending:
            if step.kind == "cut" and is_lost():
                break
            for part in _sectors(step) if step.kind == "write" else [step]:
                if part.kind == "cut" or not is_lost():
                    _apply(data, part)
        return bytes(data)


class NotedDisk:
    """What is done in one directory from now on; `close` ends it.

    Args:
        directory: the directory; the files in it count as synced.

    Attributes:
        steps: what was done since `mark`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.steps: list[Step] = []
        self._files = {
            file.name: Stored(file.read_bytes())
            for file in directory.iterdir()
            if file.is_file() and _counts(file.name)
        }
        self._marked = self._copied()
        _watch(self)

    def close(self) -> None:
        """Gives SQLite its own file system back."""
        _unwatch(self)

    def note(self, path: str, kind: str, **told: Any) -> None:
        """Notes a step, where it is one of a file that counts."""
        directory, name = os.path.split(path)
        if directory == str(self.directory) and _counts(name):
            step = Step(kind, name, **told)
            self.steps.append(step)
            _do(self._files, step)

    def mark(self) -> None:
        """Forgets the steps so far."""
        self._marked, self.steps = self._copied(), []

    def seen(self, name: str) -> bytes:
        """What every process sees of a file."""
        return self._files[name].whole() if name in self._files else b""

    @property
    def is_synced(self) -> bool:
        """Whether a power cut would lose nothing now."""
        return not any(file.pending for file in self._files.values())

    def left_at(self, step: int, is_lost: Power = None) -> dict[str, bytes]:
        """Gives the files as they lie there when the process died before a step since `mark`.

        Args:
            step: its number; of all steps, or more, when it died after them.
            is_lost: asked of each sector that was not synced when the power went; None where it
                did not go.
        """
        files = {name: Stored(one.synced, one.pending) for name, one in self._marked.items()}
        for one in self.steps[:step]:
            _do(files, one)
        return {
            name: file.whole() if is_lost is None else file.torn(is_lost)
            for name, file in files.items()
        }

    def _copied(self) -> dict[str, Stored]:
        return {name: Stored(one.synced, one.pending) for name, one in self._files.items()}


def either(chance: random.Random) -> Power:
    """The process dies and the machine goes on; or the power goes, and takes a share."""
    share = chance.choice([None, None, 0.0, 0.1, 0.5, 1.0])
    return None if share is None else lambda: chance.random() < share


def moments(disk: NotedDisk, chance: random.Random) -> list[tuple[int, Power]]:
    """When to die: at the end, with all that is not synced lost; between; after a sync between."""
    many = len(disk.steps)
    chosen: list[tuple[int, Power]] = [(many, lambda: True)]
    if many > 1:
        chosen.append((chance.randint(1, many - 1), either(chance)))
    synced = [at for at, step in enumerate(disk.steps, 1) if step.kind in {"sync", "cut"}]
    if between := [at for at in synced if at < many]:
        chosen.append((chance.choice(between), either(chance)))
    return chance.sample(chosen, len(chosen))


def _counts(name: str) -> bool:
    return not name.endswith(("-shm", ".bell"))


def _do(files: dict[str, Stored], step: Step) -> None:
    match step.kind:
        case "make":
            files.setdefault(step.name, Stored())
        case "remove":
            files.pop(step.name, None)
        case "rename":
            files[step.other] = files.pop(step.name)
        case "sync":
            files[step.name] = Stored(files[step.name].whole())
        case _:
            file = files.setdefault(step.name, Stored())
            file.pending = (*file.pending, step)


def _apply(data: bytearray, step: Step) -> None:
    if step.kind == "cut":
        del data[step.at :]
        return
    data.extend(bytes(max(0, step.at - len(data))))
    data[step.at : step.at + len(step.data)] = step.data


def _sectors(step: Step) -> Iterator[Step]:
    begin, end = step.at, step.at + len(step.data)
    while begin < end:
        to = min(end, (begin // SECTOR + 1) * SECTOR)
        yield step._replace(at=begin, data=step.data[begin - step.at : to - step.at])
        begin = to


# What is watched.

_disk: NotedDisk | None = None
_patch: pytest.MonkeyPatch | None = None


def _told(path: str, kind: str, **told: Any) -> None:
    if _disk is not None:
        _disk.note(path, kind, **told)


def _watch(disk: NotedDisk) -> None:
    global _disk, _patch  # noqa: PLW0603 - as above
    assert _disk is None, "another disk is noted"
    sqlite_calls.watch(_told)
    _disk = disk
    _patch = pytest.MonkeyPatch()
    for name in ("unlink", "rename", "replace", "open", "pwrite", "fsync", "fdatasync"):
        _patch.setattr(os, name, _NOTED[name](getattr(os, name)))


def _unwatch(disk: NotedDisk) -> None:
    global _disk  # noqa: PLW0603 - as above
    if _disk is disk:
        _disk = None
        assert _patch is not None
        _patch.undo()
        sqlite_calls.leave()


_opened: dict[int, str] = {}


def _open(original: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *args: Any, **named: Any) -> int:
        file = original(path, flags, *args, **named)
        _opened[file] = str(path)
        if flags & os.O_CREAT:
            _told(str(path), "make")
        return file

    return call


def _unlink(original: Callable[..., None]) -> Callable[..., None]:
    def call(path: Any, *args: Any, **named: Any) -> None:
        original(path, *args, **named)
        _told(str(path), "remove")

    return call


def _rename(original: Callable[..., None]) -> Callable[..., None]:
    def call(path: Any, other: Any, *args: Any, **named: Any) -> None:
        original(path, other, *args, **named)
        _told(str(path), "rename", other=Path(other).name)

    return call


def _pwrite(original: Callable[..., int]) -> Callable[..., int]:
    def call(file: int, data: Any, at: int) -> int:
        written = original(file, data, at)
        _told(_opened.get(file, ""), "write", at=at, data=bytes(data[:written]))
        return written

    return call


def _sync(original: Callable[[int], None]) -> Callable[[int], None]:
    def call(file: int) -> None:
        original(file)
        path = _opened.get(file, "")
        if _disk is not None and Path(path).parent == _disk.directory and Path(path).is_file():
            data = Path(path).read_bytes()
            if data != _disk.seen(Path(path).name):
                _told(path, "write", data=data)
            _told(path, "sync")

    return call


_NOTED: Final[dict[str, Callable[..., Any]]] = {
    "open": _open,
    "unlink": _unlink,
    "rename": _rename,
    "replace": _rename,
    "pwrite": _pwrite,
    "fsync": _sync,
    "fdatasync": _sync,
}
