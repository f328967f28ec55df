# SPDX-License-Identifier: Apache-2.0
"""A small document that is rewritten often, in place: two halves of one file, in turns.

Each half is a line of JSON, filled up with blanks to whole pages: the generation, what is told, and
a digest of both.

Law:
  - a write is one write and one sync of the half that is not the newest: a power cut leaves the
    newest there was before it returns, and the new one afterwards;
  - of the halves that are byte for byte what is written here, the newer is read; a torn one is
    passed over, and where neither is left, the file is damaged and nothing of it is believed;
  - nobody knows whether the power tore a half, or it decayed and was the newest: `is_torn` tells;
  - the first write of a life, one that does not fit, and one after a refusal make the file anew
    (`assent/durable.py`): on what the cache says of a half that was never synced nothing is built.

A new file that takes the old one's name costs ext4 66 kB of device writes, a page in place a tenth
(benchmarks/wear.py).

Security: the file is private to its user. The digest finds decay, not malice.
Limits: one owner, under the instance lock; documents of at most MAX_BYTES.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from assent import durable

MAX_BYTES: Final = 65_536
"""Longest half that is read or written."""

# What the kernel writes at least: a half shares none with the other.
_PAGE: Final = 4_096


class _Half(NamedTuple):
    """What a sound half says."""

    generation: int
    told: dict[str, object]


class Halves:
    """One document and its file; the directory exists.

    Args:
        path: the file; made with the first write.

    Attributes:
        is_torn: what was read last is of one half, because the other is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.is_torn = False
        self._path = path
        self._is_ours = False
        """Whether this life made the file, and every write since came to an end."""

    def read(self) -> Mapping[str, object]:
        """Tells what was written last, as JSON has it.

        Raises:
            OSError: there is no file, or the disk refuses.
            ValueError: it is damaged.
        """
        halves = _halves(durable.read(self._path, 2 * MAX_BYTES))
        self.is_torn = len(halves) == 1
        if not halves:
            raise ValueError("neither half is as it was written")
        return halves[_newest(halves)].told

    def write(self, told: Mapping[str, object]) -> None:
        """Writes a document; durable when this returns.

        Args:
            told: what JSON can hold.

        Raises:
            OSError: the disk refuses, or it is too large; what was there before is untouched.
        """
        if self._is_ours and self._has_turned(told):
            return
        self._is_ours = False
        line = _line(1, told)
        room = -(-len(line) // _PAGE) * _PAGE
        if room > MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self._path))
        durable.write(self._path, 2 * _filled(line, room))
        self._is_ours = True

    def _has_turned(self, told: Mapping[str, object]) -> bool:
        """Writes the half that is not the newest; whether it came to an end."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return _turn(file, told)
            finally:
                os.close(file)
        except OSError:
            return False


def _turn(file: int, told: Mapping[str, object]) -> bool:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return False
    data = os.pread(file, 2 * MAX_BYTES, 0)
    halves = _halves(data)
    if not halves:
        return False
    newest, room = _newest(halves), len(data) // 2
    line = _line(halves[newest].generation + 1, told)
    if len(line) > room or os.pwrite(file, _filled(line, room), (1 - newest) * room) != room:
        return False
    os.fdatasync(file)
    return True


def _newest(halves: Mapping[int, _Half]) -> int:
    return max(halves, key=lambda place: halves[place].generation)


def _halves(data: bytes) -> dict[int, _Half]:
    """The sound halves, by their place."""
    room, odd = divmod(len(data), 2)
    if odd or room % _PAGE:
        return {}
    found = {place: _half(data[place * room : (place + 1) * room]) for place in (0, 1)}
    return {place: half for place, half in found.items() if half is not None}


def _half(data: bytes) -> _Half | None:
    try:
        match json.loads(data):
            case {"generation": int(generation), "told": dict(told)}:
                if data == _filled(_line(generation, told), len(data)):
                    return _Half(generation, told)
    except (ValueError, RecursionError):
        pass
    return None


def _line(generation: int, told: Mapping[str, object]) -> bytes:
    # ASCII, so that every byte is looked at as it is.
    whole: dict[str, object] = {"generation": generation, "told": told}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode("ascii")).hexdigest()
    return json.dumps({**whole, "sha256": digest}, sort_keys=True).encode("ascii") + b"\n"


def _filled(line: bytes, room: int) -> bytes:
    return line[:-1].ljust(room - 1) + line[-1:]
