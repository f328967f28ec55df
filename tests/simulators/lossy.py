# SPDX-License-Identifier: Apache-2.0
"""A disk whose power can be cut: what was not synced is lost, reordered or torn.

A FUSE filesystem in memory, as a process of its own. What a file holds is what was synced, and a
list of writes since. What a directory holds likewise: names that were made, moved or removed since
the last sync of the directory or of the file itself (ext4 writes the name of a new file with its
first fsync).

At a cut, names come back in order, up to any point of the list. Of the writes to each file, with
`drop` none is left, with `reorder` any of them in any combination, with `torn` any number of the
first and part of the next, cut between two sectors.

Security: a test's own; a mount of the user who runs it.
Limits: no links; of permissions only the mode. One thread serves it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAYS = ("drop", "reorder", "torn")
_ORDER = ".power-cut"
_SECTOR = 512
_PATIENCE_S = 10.0


def refusal() -> str | None:
    """Why no such disk can be had here; None when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse, or it is closed to us"
    if shutil.which("fusermount3") is None:
        return "fuse3 is not installed"
    try:
        import mfusepy  # noqa: F401, PLC0415
    except (ImportError, OSError) as exc:
        return f"mfusepy does not load: {exc}"
    return None


class Node:
    """A file or a directory: what is on the disk, and what is on its way there."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.data = bytearray()
        self.synced = b""
        self.pending: list[tuple[int, bytes] | int] = []  # (offset, bytes), or a new length

    def write(self, offset: int, data: bytes) -> None:
        _apply(self.data, (offset, data))
        self.pending.append((offset, bytes(data)))

    def truncate(self, length: int) -> None:
        _apply(self.data, length)
        self.pending.append(length)

    def sync(self) -> None:
        self.synced = bytes(self.data)
        self.pending.clear()

    def cut(self, way: str, rng: random.Random) -> int:
        """Leaves what the disk had; how many writes were lost."""
        left: list[tuple[int, bytes] | int] = []
        if way == "reorder":
            left = [one for one in self.pending if rng.random() < 0.5]
        elif way == "torn" and self.pending:
            count = rng.randrange(len(self.pending) + 1)
            left = list(self.pending[:count])
            if count < len(self.pending) and isinstance(last := self.pending[count], tuple):
                sectors = len(last[1]) // _SECTOR
                left.append((last[0], last[1][: rng.randint(0, sectors) * _SECTOR]))
        lost = len(self.pending) - len(left)
        self.data = bytearray(self.synced)
        for one in left:
            _apply(self.data, one)
        self.sync()
        return lost


def _apply(data: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del data[change:]
        data.extend(bytes(change - len(data)))
        return
    offset, part = change
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(part)] = part


class Names:
    """The tree: names that are on the disk, and changes that are not yet."""

    def __init__(self) -> None:
        root = Node(stat.S_IFDIR | 0o777)
        self.now: dict[str, Node] = {"/": root}
        self.synced: dict[str, Node] = {"/": root}
        self.pending: list[tuple[str, str, Node | None]] = []  # name gone, name there, its node

    def change(self, gone: str, there: str, node: Node | None) -> None:
        _rename(self.now, gone, there, node)
        self.pending.append((gone, there, node))

    def sync(self, path: str, *, directory: bool) -> None:
        """A directory's sync writes its names; a file's, the name that it was made under."""
        kept = []
        for one in self.pending:
            gone, there, _ = one
            inside = path in {os.path.dirname(gone or there), os.path.dirname(there or gone)}  # noqa: PTH120 - names inside
            # What had the name before is gone with it.
            own = path in (gone, there) and not (gone and there)
            if inside if directory else own:
                _rename(self.synced, *one)
            else:
                kept.append(one)
        self.pending = kept

    def cut(self, way: str, rng: random.Random) -> int:
        count = 0 if way == "drop" else rng.randrange(len(self.pending) + 1)
        lost = len(self.pending) - count
        for one in self.pending[:count]:
            _rename(self.synced, *one)
        self.pending.clear()
        self.now = dict(self.synced)
        return lost + sum(node.cut(way, rng) for node in set(self.now.values()))


def _rename(names: dict[str, Node], gone: str, there: str, node: Node | None) -> None:
    if gone:
        names.pop(gone, None)
        if there:
            for name in [one for one in names if one.startswith(gone + "/")]:
                names[there + name[len(gone) :]] = names.pop(name)
    if there and node is not None:
        names[there] = node


def _operations(base: type[Any], refused: type[OSError]) -> Any:
    """Makes the filesystem; its library is loaded in its own process only."""

    class Lossy(base):  # type: ignore[misc]
        use_ns = True

        def __init__(self) -> None:
            self.names = Names()
            self.open_files: dict[int, Node] = {}
            self.next_handle = 1
            self.lost = 0

        def _node(self, path: str, handle: int | None = None) -> Node:
            if handle is not None and handle in self.open_files:
                return self.open_files[handle]
            if path not in self.names.now:
                raise refused(errno.ENOENT)
            return self.names.now[path]

        def _handle(self, node: Node) -> int:
            handle = self.next_handle
            self.next_handle += 1
            self.open_files[handle] = node
            return handle

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            node = self._node(path, fh)
            times = dict.fromkeys(("st_mtime", "st_atime", "st_ctime"), 0)
            owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
            links = {"st_mode": node.mode, "st_nlink": 1, "st_size": len(node.data)}
            return {**links, **owner, **times}

        def readdir(self, path: str, fh: int) -> list[str]:
            inside = path.rstrip("/") + "/"
            names = [name[len(inside) :] for name in self.names.now if name.startswith(inside)]
            return [".", "..", *(name for name in names if name and "/" not in name)]

        def create(self, path: str, mode: int, fi: object = None) -> int:
            if path.startswith(f"/{_ORDER}"):
                _, way, seed = path.rsplit("-", 2)
                self.lost = self.names.cut(way, random.Random(int(seed)))
                raise refused(errno.EIO)
            node = Node(stat.S_IFREG | mode)
            self.names.change("", path, node)
            return self._handle(node)

        def mkdir(self, path: str, mode: int) -> None:
            self.names.change("", path, Node(stat.S_IFDIR | mode))

        def mknod(self, path: str, mode: int, dev: int) -> None:
            self.names.change("", path, Node(mode))

        def rmdir(self, path: str) -> None:
            self.unlink(path)

        def open(self, path: str, flags: int) -> int:
            node = self._node(path)
            if flags & os.O_TRUNC:
                node.truncate(0)
            return self._handle(node)

        def release(self, path: str, fh: int) -> None:
            self.open_files.pop(fh, None)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return bytes(self._node(path, fh).data[offset : offset + size])

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self._node(path, fh).write(offset, data)
            return len(data)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            self._node(path, fh).truncate(length)

        def unlink(self, path: str) -> None:
            self._node(path)
            self.names.change(path, "", None)

        def rename(self, old: str, new: str, flags: int = 0) -> None:
            self.names.change(old, new, self._node(old))

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            self._node(path, fh).sync()
            self.names.sync(path, directory=False)

        def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
            self.names.sync(path, directory=True)

        def chmod(self, path: str, mode: int) -> None:
            node = self._node(path)
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

        def chown(self, path: str, uid: int, gid: int) -> None:
            pass

        def utimens(self, path: str, times: object = None) -> None:
            pass

        def statfs(self, path: str) -> dict[str, int]:
            blocks = dict.fromkeys(("f_blocks", "f_bavail", "f_bfree"), 1 << 20)
            return {"f_bsize": 4096, "f_frsize": 4096, **blocks}

        def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
            if name == "user.lost":
                return str(self.lost).encode()
            raise refused(errno.ENODATA)

    return Lossy()


class Disk:
    """A mounted disk; `cut` while nobody has a file of it open.

    Args:
        place: an empty directory.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        """Mounts it; returns when it is there."""
        self.place.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulators.lossy", str(self.place)],
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + _PATIENCE_S
        while not os.path.ismount(self.place):
            if self._process.poll() is not None or time.monotonic() > end:
                raise OSError(errno.EIO, "the disk is not mounted")
            time.sleep(0.01)

    def cut(self, way: str, seed: int) -> int:
        """Cuts the power; how many writes and names were lost."""
        with contextlib.suppress(OSError):
            (self.place / f"{_ORDER}-{way}-{seed}").open("wb").close()
        return int(os.getxattr(self.place, "user.lost"))

    def unmount(self) -> None:
        """Unmounts it; what it held is gone."""
        if self._process is None:
            return
        subprocess.run(["fusermount3", "-u", "-q", str(self.place)], check=False)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            subprocess.run(["fusermount3", "-u", "-q", "-z", str(self.place)], check=False)
        self._process = None


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Disk]:
    """A disk for as long as the block."""
    disk = Disk(place)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


def main() -> int:
    """Serves one mount until it is unmounted."""
    import mfusepy  # noqa: PLC0415 - not where it is only asked for

    class Operations(mfusepy.Operations):  # type: ignore[misc]
        pass

    mfusepy.FUSE(
        _operations(Operations, mfusepy.FuseOSError),
        sys.argv[1],
        foreground=True,
        nothreads=True,
        attr_timeout=0,
        entry_timeout=0,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
