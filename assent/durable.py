# SPDX-License-Identifier: Apache-2.0
"""Files that are wholly there or not at all, also after the power went.

Law:
  - a write is: temporary file in the same directory, fsync, rename, fsync of the directory;
    before it returns a power cut leaves the old file, afterwards the new one, never a mixture;
  - a removal is: unlink, fsync of the directory; removing what is not there is no error, because
    the unlink of an earlier life may not have reached the disk;
  - a read is bounded, and of regular files only: a pipe in place of a file never blocks us.

Security: files are made 0600 unless told otherwise, whatever the umask. A temporary file has an
unguessable name and is never followed through a link; one that a crash left behind is removed by
`sweep`, which the owner of a directory calls when it starts.
Limits: errors of the operating system pass through as OSError; the calling room makes them ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
import stat
from typing import Final

_TEMPORARY: Final = ".tmp-"  # a prefix nobody's file has; `sweep` removes what starts with it
_TOLD: Final = 40  # characters of a file's own name that its temporary one ends with, for a person


def write(path: pathlib.Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a whole file; durable when this returns.

    Args:
        path: the file; its directory exists.
        data: all of its bytes.
        mode: its permission bits, exactly (the umask does not apply).

    Raises:
        OSError: the disk is full, read-only or gone; the old file is untouched.
    """
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}-{path.name[:_TOLD]}")
    try:
        _write_new(temporary, data, mode)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def _write_new(path: pathlib.Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def remove(path: pathlib.Path) -> None:
    """Removes a file; durably gone when this returns, also when it was gone before.

    Args:
        path: the file.

    Raises:
        OSError: it is a directory, or the disk does not let go of it.
    """
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # no directory, no entry that could come back
        sync_directory(path.parent)


def make_dirs(path: pathlib.Path, mode: int = 0o700) -> None:
    """Makes a directory and the missing ones above it; durable when this returns.

    Args:
        path: the directory; one that exists keeps its mode.
        mode: permission bits of every directory made, exactly (the umask does not apply).

    Raises:
        OSError: something else has that name, or the disk refuses.
    """
    missing: list[pathlib.Path] = []
    here = path
    while not here.is_dir():
        missing.append(here)
        if here.parent == here:
            break
        here = here.parent
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another of our processes was quicker
            directory.mkdir(mode=mode)
            directory.chmod(mode)
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
        sync_directory(directory.parent)


def read(path: pathlib.Path, max_bytes: int) -> bytes:
    """Reads a whole regular file of bounded size.

    Args:
        path: the file; links are followed.
        max_bytes: the most bytes it may have.

    Returns:
        All of its bytes.

    Raises:
        OSError: it is missing, unreadable, no regular file (EINVAL) or too large (EFBIG).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    return data


def sweep(directory: pathlib.Path) -> int:
    """Removes the temporary files that a crash left in a directory.

    Only the one owner of the directory calls this, and at its start: it would also remove the
    temporary file of a write that is under way.

    Args:
        directory: the directory; the ones below it are not looked at.

    Returns:
        How many were removed.

    Raises:
        OSError: the directory cannot be read or written.
    """
    left = [entry for entry in directory.iterdir() if entry.name.startswith(_TEMPORARY)]
    for entry in left:
        entry.unlink(missing_ok=True)
    if left:
        sync_directory(directory)
    return len(left)


def sync_directory(directory: pathlib.Path) -> None:
    """Makes the entries of a directory durable: names made, replaced or removed in it.

    Args:
        directory: the directory.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
