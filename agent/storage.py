# SPDX-License-Identifier: Apache-2.0
"""Small documents on disk through TinyDB, wholly the old generation or wholly the new one.

Law:
  - a write is durable when it returns and leaves the previous generation beside it as `.bak`;
  - what is read is the copy in memory, which always equals the file; nobody can alter it in place;
  - a file that is not byte for byte what this storage would have written, digest included, is
    corrupt: it is never repaired and never half believed;
  - a file that is gone while its previous generation is there is corrupt, not empty.

TinyDB's own JSONStorage writes in place and truncates afterwards: killed in a tight loop of updates
it left 25 of 60 files unreadable; `tests/agent/test_storage.py` shows that it still does, and that
this one does not.

Security: files are 0600. `.bak` is for a person: falling back to it by itself would undo the last
write, which may have been a withdrawal.
Limits: the whole file is written each time, twice: for documents that are small and few. One
writer, under the instance lock. At most MAX_BYTES.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import glob
import hashlib
import json
from pathlib import Path
from typing import Any, Final

from tinydb.storages import Storage

from assent import durable
from assent.errors import AssentError

MAX_BYTES: Final = 16_000_000
"""Longest file read or written: some 10,000 documents, each write of which takes a second."""

# What the operating system says of a damaged file or something else in its place. Anything else,
# such as too many open files or another user's file, says nothing about the documents.
_DAMAGE: Final = frozenset(
    {errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EISDIR}
)

Tables = dict[str, dict[str, Any]]
"""What TinyDB keeps: tables by name, documents by id."""


class StorageError(AssentError):
    """Documents cannot be read or written."""

    code = "storage"


class CorruptError(StorageError):
    """The file is not what this storage wrote, or is gone."""

    code = "storage-corrupt"


class DurableStorage(Storage):
    """One JSON file with its previous generation beside it.

    Args:
        path: the file; its directory exists.
        fresh: True to begin empty, whatever is there; nothing is touched before the first write.

    Raises:
        CorruptError: what is there is not what this storage wrote.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self._text = None if fresh else _read(path)

    def read(self) -> Tables | None:
        """The tables as of the last write; None before the first."""
        if self._text is None:
            return None
        return _tables(self._text)

    def write(self, data: Tables) -> None:
        """Writes all tables; durable when this returns.

        Args:
            data: the tables.

        Raises:
            StorageError: the disk refused, or they are too large; the old ones stay.
        """
        text = _encode(data)
        if len(text) > MAX_BYTES:
            raise StorageError(f"{self._path.name} would have {len(text)} bytes, over its limit")
        try:
            if self._text is not None:
                durable.write(previous(self._path), self._text)
            durable.write(self._path, text)
        except OSError as exc:
            raise StorageError(f"{self._path.name} cannot be written: {exc.strerror}") from exc
        self._text = text


def move_aside(path: Path, now_ms: int) -> Path:
    """Moves a corrupt file and its previous generation out of the way; durable on return.

    Until a fresh file is written the place counts as corrupt, so that a crash in between does not
    look like a first start.

    Args:
        path: where the file is, or was.
        now_ms: for the name.

    Returns:
        Where the file is now, or its previous generation when it was gone, or the directory.

    Raises:
        StorageError: the disk refused.
    """
    aside = _free_name(path, now_ms)
    moved = path.parent
    try:
        for old, new in ((path, aside), (previous(path), aside.with_name(f"{aside.name}.bak"))):
            try:
                old.rename(new)
            except FileNotFoundError:
                continue
            moved = new if moved == path.parent else moved
        durable.sync_directory(path.parent)
    except OSError as exc:
        raise StorageError(f"{path.name} cannot be moved aside: {exc.strerror}") from exc
    return moved


def remains(path: Path, table: str) -> list[dict[str, Any]]:
    """What can still be read of one table in a corrupt file and its previous generation.

    Args:
        path: where the file is, or was.
        table: its name.

    Returns:
        The documents, without any promise about them.
    """
    found: list[dict[str, Any]] = []
    for file in (path, previous(path)):
        with contextlib.suppress(OSError, ValueError, LookupError, AttributeError, RecursionError):
            found += json.loads(durable.read(file, MAX_BYTES))["tables"][table].values()
    return found


def _read(path: Path) -> bytes | None:
    try:
        text = durable.read(path, MAX_BYTES)
    except FileNotFoundError as exc:
        if any(path.parent.glob(f"{glob.escape(path.name)}.*")):  # .bak, .aside-…
            raise CorruptError(f"{path.name} is gone, other generations of it are there") from exc
        return None
    except OSError as exc:
        kind = CorruptError if exc.errno in _DAMAGE else StorageError
        raise kind(f"{path.name} cannot be read: {exc.strerror}") from exc
    tables = _tables(text)
    if tables is None or _encode(tables) != text:
        raise CorruptError(f"{path.name} is not as it was written")
    return text


def _tables(text: bytes) -> Tables | None:
    try:
        match json.loads(text):
            case {"tables": dict(tables)} if all(isinstance(t, dict) for t in tables.values()):
                return tables
    except (ValueError, RecursionError):
        return None
    return None


def _encode(tables: Tables) -> bytes:
    # ASCII, so that every byte of the file is looked at as it is; indented for a person. The
    # digest finds decay, not malice: whoever can write the file can compute it.
    digest = hashlib.sha256(json.dumps(tables, sort_keys=True).encode("ascii")).hexdigest()
    whole = {"sha256": digest, "tables": tables}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode("ascii")


def previous(path: Path) -> Path:
    """Where the generation before the newest write of a file lies."""
    return path.with_name(f"{path.name}.bak")


def _free_name(path: Path, now_ms: int) -> Path:
    try:
        stamp = dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError, OSError):
        stamp = str(now_ms)  # a clock far out of its mind
    for number in range(1, 10_000):
        aside = path.with_name(f"{path.name}.aside-{stamp}" + (f"-{number}" if number > 1 else ""))
        if not aside.exists():
            return aside
    raise StorageError(f"{path.name} was moved aside too often")
