# SPDX-License-Identifier: Apache-2.0
"""The store's two files as SQLite opens them."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import Final

_BUSY_S: Final = 10.0  # `admit` holds the lock for milliseconds; a backup may take seconds
# SQLite's words for a file or directory that this account may not open or write.
_CLOSED: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


def connect(path: pathlib.Path) -> sqlite3.Connection:
    """Opens a file for writing, and makes it where it is missing."""
    # Made beforehand: SQLite would give it the umask's mode, and its -wal and -shm after it.
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on disk before it is acknowledged
    connection.execute("PRAGMA cache_size = -32000")  # kB; the newest pages of some 10,000 series
    return connection


def look(path: pathlib.Path) -> sqlite3.Connection:
    """Opens a file that another may write meanwhile, and changes nothing."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens it, now
    return connection


def is_closed(error: sqlite3.Error) -> bool:
    """Says whether this account may not open or write the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _CLOSED  # the low byte is the primary code


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
