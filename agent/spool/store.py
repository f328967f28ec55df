# SPDX-License-Identifier: Apache-2.0
"""One connection to the spool's file: opening, transactions, errors, shrinking.

Law:
  - a transaction is durable when it returns, or has not happened; `durable=False` says that losing
    the newest such writes to a power cut does no harm (a batch is sent twice), never that order or
    soundness is lost: the log is written in order, and the next durable commit syncs it all;
  - an error of SQLite, and a row that cannot be read, become a `SpoolError` here. Damage found on
    the way is marked beside the file, and the next `open` moves it aside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from agent.spool import bell, noes, schema, soundness
from agent.spool.place import Place
from agent.spool.schema import BUSY_MS, DamagedError, HeldError
from assent.errors import SpoolError

# Free pages (4 KiB) the file keeps for reuse; more are given back to the file system. Moving pages
# costs writes, so a queue that breathes by 4 MB does not shrink each time.
_FREE_PAGES: Final = 1024
# Seconds between two tries to begin to write while the other process does.
_STEP_S: Final = 0.002
# Pages kept when it shrinks.
_SPARE_PAGES: Final = 128
# Pages given back in one part: 2 MB are moved in some 20 ms here.
_PART_PAGES: Final = 512
# Milliseconds the start waits for a reader who stands in the way of the first cut.
_CUT_MS: Final = 100

# What a row that is not as we wrote it does to the code that reads it: a text that is no Unicode, a
# number that is none of an enum's, a row that is not there.
_STRANGE: Final = (ValueError, TypeError, KeyError, IndexError)
# What a caller's own value does that SQLite cannot hold: a text that is no Unicode, a number of
# more than 64 bits. It says nothing of the file.
_UNFIT: Final = (UnicodeEncodeError, OverflowError)
_DAMAGED: Final = "the spool is damaged"
_HINT: Final = "restart; it is then set aside"


class Store:
    """A connection to the spool; its rooms are the classes below it. One thread at a time."""

    def __init__(self, path: Path, db: sqlite3.Connection, moved_aside: Path | None) -> None:
        self.path = path
        self.moved_aside = moved_aside
        self._db = db
        self.bell = bell.Bell(path)
        self._noes = noes.Noes(path)
        self._place = Place(path, db)
        self.id = self._place.id
        self._seen = self._version()
        self._wait_ms = BUSY_MS
        self._uncut = False

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Self:
        """Opens the spool.

        Args:
            path: its file; the directory exists.
            create: make it when it is missing, move it aside when it is damaged. Only the
                collecting side may, and it holds the instance lock.

        Returns:
            The spool. `moved_aside` names a damaged one that was set aside just now.

        Raises:
            SpoolError: it is missing or damaged and may not be made; it is of a newer version; the
                disk refuses.
        """
        try:
            spool = cls._open(path, create=create)
            if create:
                spool.cut_log()
            return spool  # noqa: TRY300 - what fails above fails alike
        except sqlite3.Error as exc:
            raise _ours(exc) from exc
        except _STRANGE as exc:
            raise DamagedError(_DAMAGED, hint=_HINT) from exc
        except OSError as exc:
            raise SpoolError(f"the spool cannot be opened: {os.strerror(exc.errno or 0)}") from exc

    @classmethod
    def _open(cls, path: Path, *, create: bool) -> Self:
        if create:
            bell.hang(path)
        if not path.exists():
            if not create:
                raise SpoolError("there is no spool yet", hint="`assent run` makes it")
            schema.create(path)
        moved: Path | None = None
        try:
            db = _sound(path, thorough=create)
        except (DamagedError, sqlite3.Error, *_STRANGE) as exc:
            if not create or not (_is_damage(exc) or _is_unusable(exc)):
                raise
            moved = schema.move_aside(path)
            db = None
        if db is None:
            if not create:
                raise SpoolError("the spool is not ready yet", hint="`assent run` makes it")
            schema.create(path)
            db = schema.connect(path)
        return cls(path, db, moved)

    def close(self) -> None:
        """Closes the connection; the last one to close cleans the log away."""
        self._db.close()
        self.bell.close()

    def changed(self) -> bool:
        """Says whether another connection has committed since the last call; cheap.

        Returns:
            Whether it is worth looking.

        Raises:
            SpoolError: the file was replaced; open it anew.
        """
        try:
            self._place.expect_file()
            version = self._version()
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        changed, self._seen = version != self._seen, version
        return changed

    def state(self) -> tuple[int, int]:
        """Names what stands in the spool; cheap.

        Returns:
            Another value after every write, of this connection or of any other.

        Raises:
            ReplacedError: it is not the spool that was opened, or an older copy of it.
            SpoolError: the file cannot be read.
        """
        try:
            self._place.expect()
            return self._version(), self._db.total_changes
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        except _STRANGE as exc:
            raise self._strange() from exc

    def give_up(self) -> None:
        """Takes the spool for another than the one that was opened; nothing is written any more.

        Raises:
            ReplacedError: always.
        """
        self._place.give_up()

    @contextlib.contextmanager
    def patience(self, wait_ms: int) -> Iterator[None]:
        """Waits less than usual for another process's transaction while the block runs.

        Args:
            wait_ms: then a `HeldError` is raised.
        """
        self._wait(wait_ms)
        try:
            yield
        finally:
            self._wait(BUSY_MS)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def _writing(
        self, *, durable: bool = True, rings: bool = False
    ) -> Iterator[sqlite3.Connection]:
        db = self._db
        try:
            if not durable:
                db.execute("PRAGMA synchronous=NORMAL")
            try:
                self._begin()
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if not durable:
                    db.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        except _UNFIT as exc:
            raise SpoolError("the spool cannot hold such a name or number") from exc
        except _STRANGE as exc:
            raise self._strange() from exc
        if rings:
            self.bell.ring()

    def _begin(self) -> None:
        # SQLite's own waits between two tries grow to 100 ms; whoever waits so for a side that
        # writes all the time may find it busy for a second, and a no waits with them.
        self._place.expect_kept()
        end = time.monotonic() + self._wait_ms / 1000
        self._db.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as exc:
                    if not _is_busy(exc) or time.monotonic() > end:
                        raise
                    time.sleep(_STEP_S)
                else:
                    return
        finally:
            self._db.execute(f"PRAGMA busy_timeout={self._wait_ms}")

    def _wait(self, wait_ms: int) -> None:
        self._wait_ms = wait_ms
        self._db.execute(f"PRAGMA busy_timeout={wait_ms}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        try:
            db.execute("BEGIN")  # one snapshot: lanes and batches agree
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("COMMIT")
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        except _UNFIT as exc:
            raise SpoolError("the spool cannot hold such a name or number") from exc
        except _STRANGE as exc:
            raise self._strange() from exc

    def _damage(self, exc: sqlite3.Error) -> SpoolError:
        return self._strange() if _is_damage(exc) else _ours(exc)

    def _strange(self) -> DamagedError:
        with contextlib.suppress(OSError):
            schema.beside(self.path, ".fault").touch()
        return DamagedError(_DAMAGED, hint=_HINT)

    def _shrink_in_part(self) -> bool:
        """Gives some free pages back; whether so many are left that it is worth another part."""
        try:
            free = int(self._db.execute("PRAGMA freelist_count").fetchone()[0])
            if free <= _SPARE_PAGES + _PART_PAGES:
                return False
            self._db.executescript(f"PRAGMA incremental_vacuum({_PART_PAGES});")
        except sqlite3.Error as exc:
            raise self._damage(exc) from exc
        return True

    def cut_log(self) -> None:
        """Cuts what a crash between a purge and its cut has left in the log.

        Where a reader stands in the way, it is cut when next something is deleted.

        Raises:
            DamagedError: the file is not sound.
        """
        self._uncut = True
        with self.patience(_CUT_MS):
            self._shrink()

    def _shrink(self, *, at_once: bool = False) -> None:
        # Cuts the log as well when asked: frames of deleted batches are in it until then. Where a
        # reader stands in the way, the next call tries again.
        db = self._db
        try:
            free = int(db.execute("PRAGMA freelist_count").fetchone()[0])
            if free > _FREE_PAGES or (at_once and free > _SPARE_PAGES):
                # `execute` takes one step only, which frees one page
                db.executescript(f"PRAGMA incremental_vacuum({free - _SPARE_PAGES});")
                at_once = True
            self._uncut = self._uncut or at_once
            if self._uncut:
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                self._uncut = bool(busy)
        except sqlite3.Error as exc:
            if _is_damage(exc):
                raise self._damage(exc) from exc
            # Busy or full: the next call tries again; nothing is lost by a file that is large.


def _sound(path: Path, *, thorough: bool) -> sqlite3.Connection | None:
    if schema.beside(path, ".fault").exists():
        raise DamagedError("the spool is damaged: it was found so while it ran")
    db = schema.connect(path)
    try:
        version = schema.check(db)
        if version < schema.VERSION and not (version and thorough):
            db.close()
            return None
        if version < schema.VERSION:
            schema.bring_up(db)
        if thorough:
            soundness.examine(db)
            db.close()
            db = schema.connect(path)  # without the pages and statements of the examination
    except BaseException:
        db.close()
        raise
    return db


def _is_damage(exc: Exception) -> bool:
    if isinstance(exc, DamagedError):
        return True
    code = getattr(exc, "sqlite_errorcode", None)
    if code is None:  # the module's own: a text that is no Unicode
        return isinstance(exc, sqlite3.OperationalError)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _is_busy(exc: sqlite3.Error) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _is_unusable(exc: Exception) -> bool:
    """Whether it is the file's fault that it could not be examined, not the disk's or another's."""
    code = getattr(exc, "sqlite_errorcode", None)
    if code is None:
        return isinstance(exc, _STRANGE)
    return code & 0xFF in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_FORMAT}


def _ours(exc: sqlite3.Error) -> SpoolError:
    code = getattr(exc, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return SpoolError("the disk is full", hint="free some space; nothing was lost by this")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return HeldError("the spool is busy: another process holds it")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return SpoolError("the spool cannot be written", hint="see its owner, group and mode")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DamagedError(_DAMAGED, hint=_HINT)
        case _:
            return SpoolError(f"the spool failed: {type(exc).__name__}")
