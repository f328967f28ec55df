# SPDX-License-Identifier: Apache-2.0
"""What SQLite does to files, call by call: a file system of its own, laid over the machine's.

Everything is passed on to the one below; writes, cuts, syncs, makings and removals are told after.

Standards: sqlite.org/c3ref/vfs.html, sqlite.org/c3ref/io_methods.html.
Limits: only where Python's SQLite is a library of its own (`IS_THERE`). A file stays with the file
system under which it was opened.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

Told: TypeAlias = Callable[..., None]
_OK: Final = 0

_WORDS = "Close Read Write Truncate Sync FileSize Lock Unlock CheckReservedLock FileControl"
_WORDS += " SectorSize DeviceCharacteristics ShmMap ShmLock ShmBarrier ShmUnmap Fetch Unfetch"


class _Methods(ctypes.Structure):
    _fields_ = [("version", ctypes.c_int), *((one, ctypes.c_void_p) for one in _WORDS.split())]


class _File(ctypes.Structure):
    _fields_ = [("methods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("path_size", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("Open", ctypes.c_void_p),
        ("Delete", ctypes.c_void_p),
        ("rest", ctypes.c_void_p * 14),
    ]


_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_OPEN = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER)
_DELETE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT)
_WRITE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _LONG)
_TRUNCATE = ctypes.CFUNCTYPE(_INT, _POINTER, _LONG)
_SYNC = ctypes.CFUNCTYPE(_INT, _POINTER, _INT)


_library = ctypes.CDLL(_sqlite3.__file__)
IS_THERE: Final = hasattr(_library, "sqlite3_vfs_find")
"""Whether this Python's SQLite is a library of its own, which can be given a file system."""


def _nobody(path: str, kind: str, **told: Any) -> None:
    """Hears of it before anybody watches."""


_told: Told = _nobody
_names: dict[int, str] = {}
_kept: list[Any] = []  # what SQLite holds pointers to
_over: _Vfs | None = None
_under: Any = None


def watch(told: Told) -> None:
    """Tells of what SQLite does to the files that it opens from now on.

    Args:
        told: is given the path, what is done, and how.
    """
    global _told  # noqa: PLW0603 - SQLite's list of file systems is one per process
    _told = told
    if IS_THERE:
        _library.sqlite3_vfs_register(ctypes.byref(_laid_over()), 1)


def leave() -> None:
    """Gives SQLite the machine's file system back, for what it opens from now on."""
    if IS_THERE:
        _library.sqlite3_vfs_register(_under, 1)


def _laid_over() -> _Vfs:
    """The file system that notes; made once, because open files hold pointers into it."""
    global _over, _under  # noqa: PLW0603 - as above
    if _over is not None:
        return _over
    _library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    _under = _library.sqlite3_vfs_find(None)
    over = _Vfs.from_buffer_copy(_under.contents)
    over.name = b"noted"
    open_below, delete_below = _OPEN(over.Open), _DELETE(over.Delete)
    tables: dict[int, _Methods] = {}

    def open_(vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = "" if name is None else ctypes.string_at(name).decode()
        is_new = bool(path) and not Path(path).exists()
        code = open_below(vfs, name, file, flags, out)
        if code == _OK:
            opened = _File.from_address(file)
            below = opened.methods.contents
            address = ctypes.addressof(below)
            if address not in tables:
                tables[address] = _noting(below)
            opened.methods = ctypes.pointer(tables[address])
            _names[file] = path
            if is_new:
                _told(path, "make")
        return code

    def delete(vfs: int, name: int, sync: int) -> int:
        code = delete_below(vfs, name, sync)
        if code == _OK:
            _told(ctypes.string_at(name).decode(), "remove")
        return code

    over.Open = _held(_OPEN(open_))
    over.Delete = _held(_DELETE(delete))
    _over = over
    return over


def _noting(below: _Methods) -> _Methods:
    write_below, cut_below = _WRITE(below.Write), _TRUNCATE(below.Truncate)
    sync_below = _SYNC(below.Sync)

    def write(file: int, data: int, size: int, at: int) -> int:
        code = write_below(file, data, size, at)
        if code == _OK:
            _told(_names[file], "write", at=at, data=ctypes.string_at(data, size))
        return code

    def cut(file: int, size: int) -> int:
        code = cut_below(file, size)
        if code == _OK:
            _told(_names[file], "cut", at=size)
        return code

    def sync(file: int, flags: int) -> int:
        code = sync_below(file, flags)
        if code == _OK:
            _told(_names[file], "sync")
        return code

    table = _Methods.from_buffer_copy(below)
    table.Write, table.Truncate = _held(_WRITE(write)), _held(_TRUNCATE(cut))
    table.Sync = _held(_SYNC(sync))
    return table


def _held(function: Any) -> int:
    _kept.append(function)
    return ctypes.cast(function, ctypes.c_void_p).value or 0
