# SPDX-License-Identifier: Apache-2.0
"""The leash of the uplink: the collecting side may end it, though it is another user's process.

A user without privileges cannot signal another's process. So the uplink hands that power over: it
asks the kernel to kill it as soon as a byte comes into a pipe that the spool's group may write.

Law:
  - one uplink a spool: it holds a record lock, and the kernel names the holder to the group;
  - it is on the leash before it opens the spool, so that none sends without;
  - `cut` ends it even while it is stopped; when that returns True its process is gone, and what
    its sockets held with it.

Standards: fcntl(2) F_GETLK, F_SETOWN, F_SETSIG, O_ASYNC; fifo(7); pidfd_open(2).
Security: whoever may write the spool's directory may end the uplink: it could delete the spool as
well. An uplink that was taken over can slip the leash; it has what it leased anyhow.
Limits: Linux. Record locks are the process's: who wears the leash must not ask for its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from assent.errors import RefusedError, SpoolError

_MODE: Final = 0o660
# struct flock of fcntl(2) with 64-bit offsets: type, whence, start, length, pid.
_FLOCK: Final = "hhqqi4x"
# A killed process is gone within milliseconds; a slow board that swaps takes longer.
_GONE_S: Final = 2.0
_PULLS: Final = 8
_STEP_S: Final = 0.05


def lock_of(spool: Path) -> Path:
    """Gives the name of the file whose lock says that an uplink is there."""
    return spool.with_name(spool.name + ".uplink")


def pipe_of(spool: Path) -> Path:
    """Gives the name of the pipe that ends it."""
    return spool.with_name(spool.name + ".leash")


@contextlib.contextmanager
def worn(spool: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Is on the leash while the block runs: the one uplink of this spool, ended when pulled.

    Args:
        spool: the spool's file, there or not yet; its directory exists.
        patience_s: how long to wait for an earlier uplink to end.

    Raises:
        RefusedError: another uplink is there.
        SpoolError: the directory refuses.
    """
    with contextlib.ExitStack() as held:
        try:
            lock = _open_lock(lock_of(spool))
            held.callback(os.close, lock)
            # The lock first: the pipe kills its one wearer also when somebody else closes it.
            _seize(lock, patience_s)
            pipe = _open_pipe(pipe_of(spool))
            held.callback(os.close, pipe)
            fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        except OSError as exc:
            said = f"the spool's directory cannot be used: {exc.strerror}"
            raise SpoolError(said, hint="see its owner, group and mode") from exc
        yield


class Leash:
    """The collecting side's end.

    Args:
        spool: the spool's file.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool

    def holder(self) -> int | None:
        """Gives the process id of the uplink, or None when there is none.

        Raises:
            SpoolError: the lock cannot be asked for.
        """
        try:
            lock = os.open(lock_of(self._spool), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise SpoolError(f"the uplink's lock cannot be read: {exc.strerror}") from exc
        try:
            wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, wanted))
        finally:
            os.close(lock)
        return None if found[0] == fcntl.F_UNLCK else int(found[4])

    def is_there(self) -> bool:
        """Whether an uplink is there."""
        return self.holder() is not None

    def cut(self) -> bool:
        """Ends the uplink.

        Returns:
            Whether it is gone, with all its sockets held. False: it does not wear the pipe, or is
            in another pid namespace.
        """
        pid = self.holder()
        if pid is None:
            return True
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return self.holder() != pid
        except OSError:
            return False
        try:
            if self.holder() != pid:
                return not self.is_there()
            for _ in range(_PULLS):  # it may have the lock and not wear the pipe yet
                self._pull(process)
                if select.select([process], [], [], _GONE_S / _PULLS)[0]:
                    return True
            return False
        finally:
            os.close(process)

    def _pull(self, process: int) -> None:
        with contextlib.suppress(OSError):  # nobody wears it
            pipe = os.open(
                pipe_of(self._spool),
                os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW,
            )
            try:
                if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                    os.write(pipe, b"\0")
            finally:
                os.close(pipe)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # of another user; gone
            signal.pidfd_send_signal(process, signal.SIGKILL)


def _open_pipe(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, _MODE)
        path.chmod(_MODE)  # whatever the umask
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
        os.close(pipe)
        raise FileExistsError(0, "something else has the name of the uplink's pipe", str(path))
    return pipe


def _open_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    if os.fstat(lock).st_uid == os.geteuid():
        os.fchmod(lock, _MODE)
    return lock


def _seize(lock: int, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if time.monotonic() >= end:
                raise RefusedError("another uplink carries from this spool") from exc
            time.sleep(_STEP_S)
        else:
            return
