# SPDX-License-Identifier: Apache-2.0
"""Tries what a program that was taken over would try, and says what the kernel let it do.

Run by itself, with nothing but the standard library: `probe.py SPEC`. The specification is JSON,
the answer too: for each try `yes`, or the name of the error. Nothing that it does lasts.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of x86-64 and of arm64; those of the newer calls are the same everywhere.
_INIT_MODULE: Final = {"x86_64": 175, "aarch64": 105}
_IO_URING_SETUP, _IO_URING_ENTER = 425, 426
_OP_SOCKET: Final = 45  # linux/io_uring.h, since 5.19
_AT_SQES: Final = 0x1000_0000
_GETEVENTS: Final = 1
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_DETACH = 0x4206, 0x4207, 17
_CLONE_NEWUSER: Final = 0x1000_0000

# socket(2), some of which Python does not name; the kernel may lack the later ones.
_FAMILIES: Final = {
    "AF_UNIX": (1, socket.SOCK_STREAM),
    "AF_INET": (2, socket.SOCK_STREAM),
    "AF_INET6": (10, socket.SOCK_STREAM),
    "AF_NETLINK": (16, socket.SOCK_RAW),
    "AF_PACKET": (17, socket.SOCK_DGRAM),
    "AF_BLUETOOTH": (31, socket.SOCK_RAW),
    "AF_CAN": (29, socket.SOCK_RAW),
    "AF_ALG": (38, socket.SOCK_SEQPACKET),
    "AF_VSOCK": (40, socket.SOCK_STREAM),
}


def _call(number: int, *values: Any) -> int:
    """A system call by its number; an error of it is an OSError."""
    done = int(_libc.syscall(ctypes.c_long(number), *values))
    if done < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return done


def _checked(done: int) -> int:
    if done < 0:
        raise OSError(ctypes.get_errno(), "call")
    return done


def opens_family(number: int, kind: int) -> None:
    socket.socket(number, kind).close()


def connects(place: str) -> None:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except TimeoutError as exc:
        raise OSError(errno.ETIMEDOUT, "nobody answers") from exc


def opens_socket_past_the_filter() -> None:
    """Asks io_uring(7) for an IPv4 socket: a filter of socket(2) does not see it."""
    # struct io_uring_params: ten words, then where in the rings which field is.
    parameters = bytearray(120)
    ring = _call(_IO_URING_SETUP, 4, (ctypes.c_char * 120).from_buffer(parameters))
    try:
        tail, array, answers = (struct.unpack_from("<I", parameters, at)[0] for at in (44, 64, 100))
        with mmap.mmap(ring, 4096) as rings, mmap.mmap(ring, 4096, offset=_AT_SQES) as entries:
            # struct io_uring_sqe: opcode, domain in `fd`, type in `off`, no address.
            struct.pack_into("<BxxxiQQ", entries, 0, _OP_SOCKET, socket.AF_INET, 1, 0)
            struct.pack_into("<I", rings, array, 0)
            struct.pack_into("<I", rings, tail, 1)
            _call(_IO_URING_ENTER, ring, 1, 1, _GETEVENTS, None, 0)
            made = struct.unpack_from("<8xi", rings, answers)[0]
    finally:
        os.close(ring)
    if made < 0:
        raise OSError(-made, "io_uring")
    with socket.socket(fileno=made) as found:
        assert found.family is socket.AF_INET


def reads(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def writes(path: str) -> None:
    """Makes a file in a directory and removes it."""
    made = Path(path) / f".probe-{os.getpid()}"
    made.touch(0o600, exist_ok=False)
    made.unlink()


def speaks_to(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)


def opens_device(path: str) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))


def makes_node() -> None:
    """Makes a device node of /dev/null's numbers."""
    path = Path(f"/tmp/.probe-{os.getpid()}")
    os.mknod(path, 0o20600, os.makedev(1, 3))
    path.unlink()


def sees(pid: int) -> None:
    Path(f"/proc/{pid}/status").stat()


def traces(pid: int) -> None:
    _checked(_libc.ptrace(_PTRACE_SEIZE, pid, None, None))
    _checked(_libc.ptrace(_PTRACE_INTERRUPT, pid, None, None))
    os.waitpid(pid, 0x40000000)  # __WALL
    _checked(_libc.ptrace(_PTRACE_DETACH, pid, None, None))


def signals(pid: int) -> None:
    os.kill(pid, 0)


def sets_clock() -> None:
    """Sets what is set already: that the clock of the hardware is at UTC."""
    zone = (ctypes.c_int * 2)(0, 0)
    _checked(_libc.settimeofday(None, zone))


def loads_module() -> None:
    """Hands the kernel four bytes that are no module; who may load one hears that they are none."""
    try:
        _call(_INIT_MODULE[platform.machine()], b"none", ctypes.c_ulong(4), b"")
    except OSError as exc:
        if exc.errno not in {errno.ENOEXEC, errno.ENOSYS}:  # ENOSYS: a kernel without modules
            raise


def mounts() -> None:
    _checked(_libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    _checked(_libc.umount2(b"/mnt", 0))


def leaves_namespace() -> None:
    if (child := os.fork()) == 0:
        os._exit(ctypes.get_errno() if _libc.unshare(_CLONE_NEWUSER) < 0 else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "unshare")


def makes_writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def makes_setuid(directory: str) -> None:
    made = Path(directory) / f".probe-{os.getpid()}"
    made.touch(0o600, exist_ok=False)
    try:
        made.chmod(0o4700)
    finally:
        made.unlink()


PLACES: Final[dict[str, Callable[[str], None]]] = {
    "connect": connects,
    "read": reads,
    "write": writes,
    "speak": speaks_to,
    "device": opens_device,
}


def tried(act: Callable[[], None]) -> str:
    """What came of it."""
    try:
        act()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "yes"


def rights(process: int | str = "self") -> dict[str, str]:
    """Who a process is, and what it may: proc_pid_status(5)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    wanted = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
    pairs = (line.partition(":") for line in lines if line.startswith(wanted))
    return {name: " ".join(value.split()) for name, _, value in pairs}


def view(process: int | str = "self") -> list[str]:
    """What it sees of the files, and what of that it may write: proc_pid_mountinfo(5)."""
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return sorted(" ".join(line.split()[4:6]) for line in lines)


def probe(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Tries all of it.

    Args:
        spec: `connect`: hosts with ports; `read`, `write`, `speak`, `device`: paths; `pids`: name
            to process id; `setuid`: a directory of our own.
    """
    acts: dict[str, Callable[[], None]] = {
        "uring": opens_socket_past_the_filter,
        "node": makes_node,
        "clock": sets_clock,
        "module": loads_module,
        "mount": mounts,
        "unshare": leaves_namespace,
        "code": makes_writable_code,
        "setuid": lambda: makes_setuid(spec["setuid"]),
    }
    for name, (number, kind) in _FAMILIES.items():
        acts[name] = lambda number=number, kind=kind: opens_family(number, kind)
    for word, act in PLACES.items():
        for place in spec[word]:
            acts[f"{word} {place}"] = lambda act=act, place=place: act(place)
    for name, pid in spec["pids"].items():
        acts[f"see {name}"] = lambda pid=pid: sees(pid)
        acts[f"signal {name}"] = lambda pid=pid: signals(pid)
        acts[f"trace {name}"] = lambda pid=pid: traces(pid)
    return {
        "rights": rights(),
        "view": view(),
        "found": {name: tried(act) for name, act in acts.items()},
    }


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(Path(sys.argv[1]).read_text()))))
