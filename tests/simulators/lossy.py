# SPDX-License-Identifier: Apache-2.0
"""A disk that can be broken: its power is cut, or it refuses calls.

A FUSE filesystem in memory, as a process of its own. What a power cut leaves, `unsynced.py` says:
what was synced is there, the rest is lost, reordered or torn. Its power goes when it is told so, or
at the N-th of a call on some files (`orders.py`): then whoever has a file of it open is killed at
that very point, and nothing is served until it is switched on again.

Whoever made the disk is spared, and may look at it at any time.

Security: a test's own; a mount of the user who runs it.
Limits: no links; of permissions only the mode. One thread serves it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from assent import durable
from tests.simulators.orders import Order, Overseer
from tests.simulators.unsynced import Loss, Names, Node

_CALL = "user.order"
_PATIENCE_S = 10.0
_TOLD = 20


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


def _operations(base: type[Any], refused: type[OSError], caller: Callable[[], int]) -> Any:
    """Makes the filesystem; its library is loaded in its own process only."""

    class Lossy(base):  # type: ignore[misc]
        use_ns = True

        def __init__(self) -> None:
            self.names = Names()
            self.open_files: dict[int, tuple[Node, int]] = {}
            self.next_handle = 1
            self.overseer = Overseer()
            self.lost: dict[str, Loss] = {}
            self.is_off = False

        def _node(self, path: str, handle: int | None = None) -> Node:
            if handle is not None and handle in self.open_files:
                return self.open_files[handle][0]
            if path not in self.names.now:
                raise refused(errno.ENOENT)
            return self.names.now[path]

        def _handle(self, node: Node) -> int:
            handle = self.next_handle
            self.next_handle += 1
            self.open_files[handle] = (node, _process_of(caller()))
            return handle

        # Orders.

        def _falls(self, call: str, *paths: str) -> Order | None:
            """The order that strikes this call; one that is refused ends here."""
            if self.is_off and _process_of(caller()) != os.getppid():
                raise refused(errno.EIO)
            order = self.overseer.due(call, paths)
            if order is not None and order.deed == "refuse":
                raise refused(order.error)
            return order

        def _obey(self, order: Order | None) -> None:
            if order is None:
                return
            self._end_users()
            self.overseer.end()
            self._cut(order)
            raise refused(errno.EIO)

        def _end_users(self) -> None:
            users = {process for _, process in self.open_files.values()}
            for process in (users | {_process_of(caller())}) - {os.getppid()}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

        def _cut(self, order: Order) -> None:
            surely = self.overseer.paths if order.call else None
            self.lost = self.names.cut(order.way, random.Random(order.seed), surely)
            self.is_off = True

        def setxattr(
            self, path: str, name: str, value: bytes, options: int, position: int = 0
        ) -> int:
            if name != _CALL:
                raise refused(errno.ENOTSUP)
            self.is_off = False
            self.lost = {}
            order = Order(*json.loads(value))
            self.overseer.take(order)
            if order.deed == "cut" and not order.call:
                self._cut(order)
                self.is_off = False
            return 0

        def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
            if name != _CALL:
                raise refused(errno.ENODATA)
            seen = self.overseer
            told = {"counted": seen.counted, "struck": seen.struck[:_TOLD], "lost": self.lost}
            return json.dumps(told).encode()

        # What a program sees.

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
            self._obey(self._falls("open", path))
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
                self.truncate(path, 0)
            return self._handle(node)

        def release(self, path: str, fh: int) -> None:
            self.open_files.pop(fh, None)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return bytes(self._node(path, fh).data[offset : offset + size])

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            order = self._falls("write", path)
            self._node(path, fh).write(offset, data)
            self._obey(order)
            return len(data)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            order = self._falls("truncate", path)
            self._node(path, fh).truncate(length)
            self._obey(order)

        def unlink(self, path: str) -> None:
            self._node(path)
            order = self._falls("unlink", path)
            self.names.change(path, "", None)
            self._obey(order)

        def rename(self, old: str, new: str, flags: int = 0) -> None:
            order = self._falls("rename", new)
            self.names.change(old, new, self._node(old))
            self._obey(order)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            node = self._node(path, fh)
            made = self.names.of_sync(path, directory=False)
            self._obey(self._falls("fsync", *([path] if node.pending or made else [])))
            node.sync()
            self.names.sync(path, directory=False)

        def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
            changes = self.names.of_sync(path, directory=True)
            names = [name for gone, there, _ in changes for name in (there, gone) if name]
            self._obey(self._falls("fsync", *names))
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

    return Lossy()


def _process_of(thread: int) -> int:
    """The process that a thread belongs to; 0 where it is gone."""
    with contextlib.suppress(OSError):
        said = Path(f"/proc/{thread}/status").read_text()
        return int(said.split("Tgid:", 1)[1].split(None, 1)[0])
    return 0


class Told(NamedTuple):
    """What became of an order.

    Attributes:
        counted: calls on its paths.
        struck: the paths at which it struck.
        lost: what a power cut took, by path.
    """

    counted: Counter[str]
    struck: list[str]
    lost: dict[str, Loss]


class Disk:
    """A mounted disk.

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

    def mount_over(self) -> None:
        """Mounts it over what lies there, if anything does; all of that is on the disk then."""
        before = self.place.with_name(f"{self.place.name}.before")
        if self.place.exists():
            self.place.rename(before)
        self.mount()
        for path in sorted(before.rglob("*")):
            there, mode = self.place / path.relative_to(before), path.stat().st_mode & 0o777
            if path.is_dir():
                durable.make_dirs(there, mode)
            else:
                durable.write(there, path.read_bytes(), mode=mode)
        shutil.rmtree(before, ignore_errors=True)

    def order(self, order: Order) -> None:
        """Gives it an order in the place of the last one; it is switched on, if it was off."""
        os.setxattr(self.place, _CALL, json.dumps(order).encode())

    def told(self) -> Told:
        """What has become of the last order."""
        said = json.loads(os.getxattr(self.place, _CALL))
        lost = {path: Loss(*loss) for path, loss in said["lost"].items()}
        return Told(Counter(said["counted"]), said["struck"], lost)

    def cut(self, way: str, seed: int) -> dict[str, Loss]:
        """Cuts the power while nobody has a file of it open; what was lost, by path."""
        self.order(Order("", "cut", way=way, seed=seed))
        return self.told().lost

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
    """A disk for as long as the block, over what lies there."""
    disk = Disk(place)
    disk.mount_over()
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
        _operations(Operations, mfusepy.FuseOSError, lambda: mfusepy.fuse_get_context()[2]),
        sys.argv[1],
        foreground=True,
        nothreads=True,
        attr_timeout=0,
        entry_timeout=0,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
