# SPDX-License-Identifier: Apache-2.0
"""The journal's file: two areas, one of them live, each a run of sealed records.

An area begins with a head of one sector: magic (8 bytes), generation (u64), salt (32 bytes). Then
come records, each at the beginning of a sector: length (u32), then ChaCha20-Poly1305 over its
bytes. All numbers are big-endian. The key of a generation is HKDF-SHA-256 of the journal's key
under the salt; the nonce of a record is its number in the generation, the head is associated data.

Law:
  - a generation begins with a record that holds everything, written with its head into the area
    that is not live and synced; only then the old head is overwritten, and its salt with it: what
    was in that area opens with nothing that is left in the file;
  - a later record is one write and one sync in place: the file never grows, so that neither its
    size nor its blocks change. Where the file system takes it, it is written past the page cache
    (O_DIRECT, open(2)): sectors then, and not whole pages;
  - of two areas whose first record opens, the higher generation is live; the first record that does
    not open ends the reading: a torn one, the rest of an older generation, a bit that turned;
  - a number is used once with a key: a process begins with a generation of its own, and so does
    whoever could not write a record.

Standards: RFC 8439 (ChaCha20-Poly1305), RFC 5869 (HKDF).
Security: the file is private to its user. Who has the journal's key reads what is live, nothing
older.
Limits: flash keeps old blocks until it needs them; what was overwritten is gone from the file, not
from a laboratory's view of the chip.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import mmap
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from assent import durable
from assent.errors import AssentError

AREA: Final = 1 << 20
"""Bytes of an area: three batches of 10,000 readings take some 100 kB, so that there is room."""

# The least a disk writes; what stands in other sectors is not touched by a torn write.
_SECTOR: Final = 512
# What the kernel writes at least where it writes pages: a record that fits into one is not laid
# across two.
_PAGE: Final = 4_096
_MAGIC: Final = b"assentj1"
_SALT: Final = 32
_HEAD: Final = len(_MAGIC) + 8 + _SALT
_LENGTH: Final = 4
_TAG: Final = 16
_NONCE: Final = 12
_MODE: Final = 0o600
_LABEL: Final = b"assent/1 journal\x01"


class FullError(Exception):
    """A record does not fit into an area: the caller makes room, no person ever reads it."""


class _Live(NamedTuple):
    """The generation that is read and written."""

    area: int
    generation: int
    head: bytes
    cipher: ChaCha20Poly1305


class Areas:
    """The file, opened for reading; it is made with the first write.

    Args:
        path: the file.
        key: gives the journal's, 32 bytes; asked when there is something to read or to write.

    Attributes:
        damaged_ms: when a file was written last of which nothing can be read; None where all is
            well.
        is_wiped: whether what was live before is overwritten.
    """

    def __init__(self, path: Path, key: Callable[[], bytes]) -> None:
        self._path = path
        self._key = key
        self._live: _Live | None = None
        self._generation = 0
        self._end = 0  # where the next record of the live area may stand
        self._count = 0  # records of the live generation that are known to be on the disk
        self._used = 0  # bytes of the area that is not live
        self._must_begin = True
        self.is_wiped = True
        self._is_direct = True
        self.damaged_ms: int | None = None
        try:
            with _opened(path, os.O_RDONLY) as file:
                is_sound = self._find_live(file) or _is_new(file)
            if not is_sound:
                self.forget()
        except FileNotFoundError:
            pass
        except (OSError, AssentError):
            self.forget()

    @property
    def may_append(self) -> bool:
        """Whether `append` is allowed; else a generation has to be begun."""
        return self._live is not None and not self._must_begin

    def read(self) -> list[bytes]:
        """Reads the records of the live generation, the first of them holding everything.

        Raises:
            OSError: the disk refuses.
        """
        if self._live is None:
            return []
        with _opened(self._path, os.O_RDONLY) as file:
            return self._records(file, self._live, self._count)

    def append(self, record: bytes) -> None:
        """Writes one more record; durable when this returns.

        Raises:
            FullError: there is no room; nothing was written.
            OSError: the disk refuses; a generation has to be begun now.
        """
        assert self._live is not None
        sealed = _sealed(self._live, self._count, record)
        at = _place(self._end, len(sealed))
        if at + len(sealed) > AREA:
            raise FullError
        self._must_begin = True
        self._write(sealed, self._live.area * AREA + at)
        self._must_begin = False
        self._end, self._count = at + len(sealed), self._count + 1

    def begin(self, record: bytes) -> None:
        """Begins a generation with a record that holds everything; durable when this returns.

        The one before is to be wiped.

        Args:
            record: its first.

        Raises:
            FullError: it does not fit; nothing was written.
            OSError: the disk refuses; the generation before is live still.
        """
        area = 0 if self._live is None else 1 - self._live.area
        self._generation += 1
        salt = secrets.token_bytes(_SALT)
        head = _MAGIC + self._generation.to_bytes(8) + salt
        live = _Live(area, self._generation, head, _cipher(self._key(), salt))
        sealed = _sealed(live, 0, record)
        if _SECTOR + len(sealed) > AREA:
            raise FullError
        if self._live is None:
            durable.write(self._path, bytes(2 * AREA), mode=_MODE)
        self._must_begin = True
        self._write(head.ljust(_SECTOR, b"\0") + sealed, area * AREA)
        self._used = max(self._used if self._live is None else self._end, _SECTOR)
        self._live, self._end, self._count = live, _SECTOR + len(sealed), 1
        self._must_begin = self.is_wiped = False

    def wipe(self, *, whole: bool) -> None:
        """Makes what was live before unreadable; durable when this returns.

        Args:
            whole: overwrite all of it, not only its salt.

        Raises:
            OSError: the disk refuses.
        """
        assert self._live is not None
        self._write(bytes(self._used if whole else _SECTOR), (1 - self._live.area) * AREA)
        self.is_wiped = True

    def forget(self) -> None:
        """Takes what was read for damaged: the next generation begins in a new file."""
        self._live, self._must_begin = None, True
        try:
            self.damaged_ms = self._path.lstat().st_mtime_ns // 1_000_000
        except OSError:
            self.damaged_ms = 0

    def _write(self, data: bytes, at: int) -> None:
        if self._is_direct:
            with contextlib.closing(mmap.mmap(-1, len(data))) as pages:  # begins at a page
                pages[:] = data
                try:
                    self._write_to(os.O_DIRECT, memoryview(pages), at)
                except OSError as exc:
                    if exc.errno != errno.EINVAL:
                        raise
                else:
                    return
            self._is_direct = False
        self._write_to(0, memoryview(data), at)

    def _write_to(self, how: int, data: memoryview, at: int) -> None:
        with data, _opened(self._path, os.O_WRONLY | how) as file:
            done = 0
            while done < len(data):
                with data[done:] as rest:
                    done += os.pwrite(file, rest, at + done)
            os.fdatasync(file)

    def _find_live(self, file: int) -> bool:
        found = [live for area in (0, 1) if (live := self._live_of(file, area)) is not None]
        if not found:
            return False
        self._live = max(found, key=lambda live: live.generation)
        self._generation = self._live.generation
        self._count = len(self._records(file, self._live, None))
        if any(os.pread(file, _HEAD, (1 - self._live.area) * AREA)):
            # A crash came before it was wiped, or while it was begun.
            self.is_wiped, self._used = False, AREA
        return True

    def _live_of(self, file: int, area: int) -> _Live | None:
        head = os.pread(file, _HEAD, area * AREA)
        if not head.startswith(_MAGIC) or len(head) < _HEAD:
            return None
        generation = int.from_bytes(head[len(_MAGIC) : -_SALT])
        live = _Live(area, generation, head, _cipher(self._key(), head[-_SALT:]))
        return live if _record(file, live, 0, _SECTOR) is not None else None

    def _records(self, file: int, live: _Live, most: int | None) -> list[bytes]:
        records: list[bytes] = []
        end = _SECTOR
        while most is None or len(records) < most:
            # A record that was laid at the next page left the rest of this one free.
            for at in (end, _up(end, _PAGE)):
                found = _record(file, live, len(records), at)
                if found is not None:
                    break
            if found is None:
                break
            records.append(found)
            end = at + _up(_LENGTH + len(found) + _TAG, _SECTOR)
        self._end = end
        return records


@contextlib.contextmanager
def _opened(path: Path, how: int) -> Iterator[int]:
    file = os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file
    finally:
        os.close(file)


def _is_new(file: int) -> bool:
    """Whether a crash came between the making of the file and its first generation."""
    return not any(os.pread(file, _HEAD, 0) + os.pread(file, _HEAD, AREA))


def _record(file: int, live: _Live, number: int, at: int) -> bytes | None:
    """Reads a record; None where none of this number opens."""
    start = live.area * AREA
    length = int.from_bytes(os.pread(file, _LENGTH, start + at)) if at < AREA else 0
    if not _TAG <= length <= AREA - at - _LENGTH:
        return None
    sealed = os.pread(file, length, start + at + _LENGTH)
    try:
        return live.cipher.decrypt(number.to_bytes(_NONCE), sealed, live.head)
    except InvalidTag:
        return None


def _cipher(key: bytes, salt: bytes) -> ChaCha20Poly1305:
    # RFC 5869 §2.2 and §2.3: the first block of the expansion is all.
    return ChaCha20Poly1305(hmac.digest(hmac.digest(salt, key, "sha256"), _LABEL, "sha256"))


def _sealed(live: _Live, number: int, record: bytes) -> bytes:
    """A record as it lies in the file, to the end of its last sector."""
    sealed = live.cipher.encrypt(number.to_bytes(_NONCE), record, live.head)
    data = len(sealed).to_bytes(_LENGTH) + sealed
    return data.ljust(_up(len(data), _SECTOR), b"\0")


def _place(end: int, length: int) -> int:
    page = _up(end, _PAGE)
    return page if length <= _PAGE and end + length > page else end


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
