# SPDX-License-Identifier: Apache-2.0
"""The spool's file: its tables, how it is made, checked and moved aside.

Law:
  - the file exists with mode 0660 before SQLite sees it, whatever the umask, so that the group of
    the two processes can write it; SQLite gives `-wal` and `-shm` the same mode;
  - write-ahead log; pages freed are zeroed (`secure_delete`) and given back (`auto_vacuum`);
  - a file that is not sound is renamed, never repaired and never deleted here; one such file is
    kept. A sound file of a newer version is left alone and refused.

A batch is two rows: what is known about it, and its bytes. Its id is `stream number << 32 |
sequence`, so that an acknowledged range is a range of ids, a second batch with the same number
cannot exist, and no id is ever used twice.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from assent import durable
from assent.errors import SpoolError

VERSION: Final = 4
APPLICATION_ID: Final = 0x61737370  # "assp", for file(1) and for us
FILE_MODE: Final = 0o660

# Milliseconds one process waits for the other's commit. A commit is an fsync: 5 ms on a disk, up
# to seconds on an SD card that collects its garbage.
BUSY_MS: Final = 10_000
# Pages of 4 KiB cached per connection, in KiB (negative: SQLite's notation). 512 KiB hold the
# inner pages of 10^5 batches.
_CACHE: Final = -512
# The log is cut back to this after a burst, and is begun again from its start at so many pages, the
# same size: a log that grows costs the file system a commit of its own with every sync, one that is
# written over does not. 10 readings a second write 128 MB a day with it and 157 MB with SQLite's
# own 1,000 pages (benchmarks/wear.py).
_LOG_BYTES: Final = 1 << 20
_LOG_PAGES: Final = 256

NEVER: Final = 1 << 62  # `due` of a batch that no broker so far would take
STREAM_SHIFT: Final = 32
LAST_SEQUENCE: Final = (1 << STREAM_SHIFT) - 1
"""The low bits of an id: the sequence within its stream, and the largest there is."""

_TABLES: Final = """
CREATE TABLE spool (
  id BLOB NOT NULL, fence INTEGER NOT NULL, answered INTEGER NOT NULL
) STRICT;
CREATE TABLE held (
  number INTEGER PRIMARY KEY, id INTEGER NOT NULL, lane INTEGER NOT NULL, boot TEXT NOT NULL,
  low INTEGER NOT NULL, high INTEGER
) STRICT;
CREATE TABLE floor (at INTEGER NOT NULL, boot INTEGER NOT NULL) STRICT;
CREATE TABLE lane (
  id INTEGER PRIMARY KEY, flow TEXT NOT NULL UNIQUE, recipient TEXT NOT NULL,
  state INTEGER NOT NULL, core INTEGER NOT NULL, not_after INTEGER, generation INTEGER NOT NULL,
  stream INTEGER, next INTEGER NOT NULL,
  batches INTEGER NOT NULL, readings INTEGER NOT NULL, bytes INTEGER NOT NULL, acknowledged INTEGER,
  basis BLOB NOT NULL, not_before INTEGER NOT NULL
) STRICT;
CREATE TABLE stream (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE, lane INTEGER NOT NULL
) STRICT;
CREATE INDEX stream_lane ON stream (lane);
CREATE TABLE batch (
  id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, due INTEGER NOT NULL, attempts INTEGER NOT NULL,
  readings INTEGER NOT NULL, bytes INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  expires INTEGER NOT NULL, gaps TEXT, digest BLOB NOT NULL
) STRICT;
CREATE INDEX batch_due ON batch (lane, due);
CREATE INDEX batch_expires ON batch (expires);
CREATE TABLE payload (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE gap (
  id INTEGER PRIMARY KEY AUTOINCREMENT, flow TEXT NOT NULL, stream INTEGER NOT NULL,
  cause INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, readings INTEGER NOT NULL,
  carried INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL
) STRICT;
CREATE INDEX gap_flow ON gap (flow);
CREATE TABLE absence (
  flow TEXT NOT NULL, cause INTEGER NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (flow, cause)
) STRICT;
CREATE TABLE twin (count INTEGER NOT NULL) STRICT;
CREATE TABLE sent (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, flow TEXT NOT NULL,
  recipient TEXT NOT NULL, readings INTEGER NOT NULL, bytes INTEGER NOT NULL, digest BLOB NOT NULL
) STRICT;
CREATE TABLE handed (
  batch INTEGER PRIMARY KEY, at INTEGER NOT NULL, flow TEXT NOT NULL, recipient TEXT NOT NULL,
  readings INTEGER NOT NULL, bytes INTEGER NOT NULL, digest BLOB NOT NULL
) STRICT;
CREATE TABLE refusal (flow TEXT PRIMARY KEY, said INTEGER NOT NULL) STRICT;
CREATE TABLE control (
  id INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, data BLOB NOT NULL,
  courtesy INTEGER NOT NULL
) STRICT;
CREATE INDEX control_recipient ON control (recipient);
CREATE TABLE question (control INTEGER PRIMARY KEY) STRICT;
CREATE TABLE inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, data BLOB NOT NULL,
  received INTEGER NOT NULL
) STRICT;
CREATE TABLE target (
  recipient TEXT PRIMARY KEY, broker TEXT NOT NULL, mailbox TEXT NOT NULL, ca_pem TEXT NOT NULL,
  cert_path TEXT NOT NULL, key_path TEXT NOT NULL, briefly INTEGER NOT NULL,
  clock INTEGER NOT NULL
) STRICT;
CREATE TABLE health (
  recipient TEXT PRIMARY KEY, state TEXT NOT NULL, since INTEGER NOT NULL, detail TEXT NOT NULL
) STRICT;
"""


class DamagedError(SpoolError):
    """The file is not a sound spool."""

    code = "spool-damaged"


class HeldError(SpoolError):
    """Another process holds the file for longer than the caller waits."""

    code = "spool-held"


def ids_of(number: int) -> tuple[int, int]:
    """Gives the first and the last id that a batch of a stream can have.

    Args:
        number: number of the stream.

    Returns:
        Both; no batch of another stream lies between them.
    """
    first = number << STREAM_SHIFT
    return first, first + LAST_SEQUENCE


def beside(path: Path, suffix: str) -> Path:
    """Gives the name of a file that belongs to the spool.

    Args:
        path: the spool.
        suffix: `-wal`, `-shm` or the like.

    Returns:
        The path with the suffix after its whole name.
    """
    return path.with_name(path.name + suffix)


def connect(path: Path) -> sqlite3.Connection:
    """Opens a connection to a file that exists, set up for durable commits.

    Args:
        path: the spool.

    Returns:
        A connection in autocommit mode; one thread uses it at a time.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """
    db = sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA secure_delete=ON")
        db.execute(f"PRAGMA cache_size={_CACHE}")
        db.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        db.execute("PRAGMA temp_store=MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def check(db: sqlite3.Connection) -> int:
    """Says whether a file is a spool; `soundness.examine` says whether it is sound.

    Args:
        db: a connection to it.

    Returns:
        Its version; 0 when it is empty.

    Raises:
        DamagedError: something else.
        SpoolError: a spool of a newer version.
        sqlite3.Error: so broken that it cannot even be read.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return 0
    if application != APPLICATION_ID or version == 0:
        raise DamagedError("the spool is damaged: the file is another kind of database")
    if version > VERSION:
        raise SpoolError(
            f"the spool has version {version}, this program knows {VERSION} at most",
            hint="install the newer version again, or let it drain before going back",
        )
    db.execute("SELECT id, fence, answered FROM spool").fetchone()
    return version


def lay_out(db: sqlite3.Connection) -> None:
    """Makes the tables in an empty database.

    Args:
        db: a connection.
    """
    for statement in _TABLES.split(";"):
        db.execute(statement)


def bring_up(db: sqlite3.Connection) -> None:
    """Makes a spool of an older version one of this; what waits in it stays.

    Control of version 1 is forgotten: it was greetings, and who is met is greeted anew. Targets are
    set again by whoever collects.

    Args:
        db: a connection to a spool that `check` has passed.

    Raises:
        sqlite3.Error: it is not as its version was, or the disk refuses; nothing is changed.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        wanted = ["batch_expires", "TABLE gap", "gap_flow", "absence", "twin"]
        wanted += ["TABLE target", "TABLE held", "TABLE question"]
        db.execute("DROP TABLE target")
        db.execute("DROP INDEX gap_flow")
        db.execute("ALTER TABLE gap RENAME TO gap_before")
        if version < 3:
            wanted += ["TABLE handed"]
        if version == 1:
            db.execute("DROP TABLE control")
            wanted += ["TABLE floor", "control"]
        for statement in _TABLES.split(";"):
            if any(one in statement for one in wanted):
                db.execute(statement)
        _move_gaps(db)
        db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _move_gaps(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO gap SELECT *, 0, 0 FROM gap_before")
    # An id is never used twice: batches name the gaps they carry.
    db.execute(
        "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq) SELECT"
        " (SELECT rowid FROM sqlite_sequence WHERE name='gap'), 'gap', seq"
        " FROM sqlite_sequence WHERE name='gap_before'"
    )
    db.execute("DROP TABLE gap_before")


def shape(db: sqlite3.Connection) -> list[tuple[str, str, bytes | None]]:
    """Gives what a database is made of: kind, name and text of every table and index.

    Args:
        db: a connection.

    Returns:
        In the order of their names.
    """
    return db.execute(
        "SELECT type, name, CAST(sql AS BLOB) FROM sqlite_schema ORDER BY name, type"
    ).fetchall()


def create(path: Path) -> None:
    """Makes the file with its tables, and with its mode whatever the umask.

    Args:
        path: the spool; it does not exist, or is empty.

    Raises:
        OSError: the directory refuses.
        sqlite3.Error: the disk is full, or read-only.
    """
    for name in (path, beside(path, "-wal"), beside(path, "-shm")):
        name.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)
    with contextlib.closing(connect(path)) as db:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only an empty file takes it
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        lay_out(db)
        db.execute("INSERT INTO spool VALUES (?, 0, 0)", (secrets.token_bytes(16),))
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
    durable.sync_directory(path.parent)


def move_aside(path: Path) -> Path:
    """Renames a damaged spool with its log; an older damaged one makes room.

    Args:
        path: the spool; nobody else of ours creates or moves it (the instance lock).

    Returns:
        Its new name.

    Raises:
        OSError: the directory refuses.
    """
    aside = beside(path, ".damaged")
    forget_damaged(path)
    # The database first: after a crash in between there is none, and `create` removes the rest. The
    # other way round it would come back without its log, and purged batches with it.
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            beside(path, suffix).rename(beside(aside, suffix))
    beside(path, ".fault").unlink(missing_ok=True)
    durable.sync_directory(path.parent)
    return aside


def forget_damaged(path: Path) -> None:
    """Deletes a spool that was moved aside.

    Args:
        path: the spool beside which it lies.

    Raises:
        OSError: the directory refuses.
    """
    aside = beside(path, ".damaged")
    for suffix in ("", "-wal", "-shm"):
        beside(aside, suffix).unlink(missing_ok=True)
