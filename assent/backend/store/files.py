# SPDX-License-Identifier: Apache-2.0
"""The store's two files as SQLite opens them.

Law:
  - a commit is on the disk before it is told: a write-ahead log, synced with each;
  - the tables of a file are made at once, or none of them: whoever reads it never meets half;
  - a file that is empty beside one that is not was lost, and is not begun anew: a store without its
    other half would take for new what it has, or for there what is gone.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from assent.backend.keyfiles import owner_hint
from assent.errors import StoreError

CONTENT: Final = (
    OverflowError,  # SQLite's integers have 64 bits
    UnicodeError,
    sqlite3.DataError,
)
"""Trouble with what one message holds: it will never be another."""
POISON: Final = (
    *CONTENT,
    ValueError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""Trouble with one message; of the errors of SQLite every other is the disk's."""
_DAMAGED: Final = "a damaged store is not moved aside: bring back a backup of both files"

_BUSY_S: Final = 10.0  # `admit` holds the lock for milliseconds; a backup may take seconds
_SPOILT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# SQLite's words for a file or directory that this account may not open or write.
_CLOSED: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


def connect(path: pathlib.Path) -> sqlite3.Connection:
    """Opens a file for writing, and makes it where it is missing."""
    # Made beforehand: SQLite would give it the umask's mode, and its -wal and -shm after it.
    path.touch(mode=0o600)
    return _opened(
        str(path),
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",  # a commit is on disk before it is acknowledged
        "PRAGMA cache_size = -32000",  # kB; the newest pages of some 10,000 series
    )


def look(path: pathlib.Path) -> sqlite3.Connection:
    """Opens a file that another may write meanwhile, and changes nothing; none is an empty one."""
    if not path.exists():
        return sqlite3.connect(":memory:", isolation_level=None)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return _opened(uri, "SELECT count(*) FROM sqlite_master", uri=True)  # opens it, now


def _opened(name: str, *statements: str, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(name, uri=uri, timeout=_BUSY_S, isolation_level=None)
    try:
        for one in statements:
            connection.execute(one).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def legible(text: bytes) -> str:
    """Reads a text; one that has decayed gets marks in it, and takes no other row with it."""
    return text.decode(errors="replace")


def check_both(
    root: pathlib.Path, readings: sqlite3.Connection, custody: sqlite3.Connection, *, begins: bool
) -> None:
    """Sees that no file begins anew beside one that holds something.

    Args:
        root: where they lie.
        readings: to `store.db`.
        custody: to `custody.db`.
        begins: whether what is missing in both is made afterwards.

    Raises:
        StoreError: one of them is lost; or there is no store, and none is made.
    """
    held = {"store.db": _holds(readings, "series"), "custody.db": _holds(custody, "streams")}
    new = [name for name, holds in held.items() if holds is None]
    if new and any(held.values()):
        raise StoreError(
            f"{root / new[0]} is gone or empty, and the store's other file is not", hint=_DAMAGED
        )
    if new and not begins:
        raise StoreError(
            f"{root} holds no store yet", hint="admit a gateway, or run the subscriber first"
        )


def _holds(connection: sqlite3.Connection, table: str) -> bool | None:
    """Says whether a table has rows; None where it was never made."""
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    if made is None:
        return None
    row = connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - no input
    return row is not None


def make(connection: sqlite3.Connection, schema: str) -> None:
    """Makes what a schema names where it is missing; whoever looks sees all of it or nothing."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unopened(root: pathlib.Path, error: OSError | sqlite3.Error, *, writable: bool) -> StoreError:
    """Says what is wrong with a store that does not open, and what helps.

    Args:
        root: where it lies.
        error: what came of it.
        writable: whether it was to be written.
    """
    if isinstance(error, sqlite3.Error):
        return StoreError(
            f"the store in {root} cannot be opened: {error}",
            hint=owner_hint(root) if _is(error, _CLOSED) else _DAMAGED,
        )
    path = pathlib.Path(error.filename or root)
    doing = "written" if writable else "read"
    return StoreError(f"{path} cannot be {doing}: {error.strerror}", hint=owner_hint(path, error))


def is_outage(error: Exception) -> bool:
    """Says whether the disk failed: the same message works later."""
    return isinstance(error, sqlite3.Error | OSError) and not isinstance(error, POISON)


def refused(error: sqlite3.Error) -> StoreError:
    """Says that a store which is open refuses, and what helps where it is damaged."""
    hint = _DAMAGED if _is(error, _SPOILT) else None
    return StoreError(f"the store refused: {error}", hint=hint)


def _is(error: sqlite3.Error, kind: tuple[int, ...]) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in kind  # the low byte is the primary code


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what the block does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Lets the block see the file as it is at one moment, whatever another writes meanwhile."""
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes it, now
        yield
    finally:
        connection.execute("COMMIT")


def outwrite(connection: sqlite3.Connection) -> None:
    """Writes over what a commit that failed has left in the log; durable when this returns.

    Where only the sync of a commit fails, nobody sees what it wrote; but it lies whole in the log,
    and whoever opens the file after a crash takes it for committed. The next commit lies in its
    place, and one page of it is enough: checksums of the log run on from page to page.
    """
    with transaction(connection):
        connection.execute("PRAGMA user_version = 0")  # what it is; written all the same
