# SPDX-License-Identifier: Apache-2.0
"""The steps of a process, counted, or ended before one of them: system calls, with strace(1).

A step is a system call that changes a file: what a crash can fall between. strace counts them for
each thread and each call by itself; a step is therefore named by its call and a number, and strikes
in the thread that is the first to get that far.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

CALLS = (
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "ftruncate",
)
_LINE = re.compile(r"(\d+) +([a-z0-9]+)\(")
_PATIENCE_S = 20.0
_LEAVE_S = 3.0

# Writes three times after it was told to; killed before the second write it has written once.
_PROBE = """
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("up", flush=True)
sys.stdin.readline()
for _ in range(3):
    os.write(out, b"x")
"""


class Step(NamedTuple):
    """One step of a process from the moment it was watched: the N-th of a call."""

    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


class Watch:
    """strace on a process, from now on or from its start.

    Args:
        log: what it saw; made anew.
        pid: of a running process; all its threads are watched.
        words: or a command to start.
        strike: the step before which the process is killed; None to count only.
    """

    def __init__(
        self,
        log: Path,
        *,
        pid: int | None = None,
        words: Sequence[str] = (),
        strike: Step | None = None,
    ) -> None:
        self._log = log
        calls = ",".join(f"?{call}" for call in CALLS)  # not every machine has every call
        line = [strace(), "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={calls}"]
        if strike is not None:
            line += ["-e", f"inject={strike.call}:signal=KILL:when={strike.number}"]
        line += ["-p", str(pid)] if pid is not None else ["--", *words]
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if words else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if pid is not None:
            self._wait_until_attached()

    def _wait_until_attached(self) -> None:
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        if " attached" not in said:
            self.process.wait(_PATIENCE_S)
            raise PermissionError(said.strip())

    def ends(self) -> tuple[int, str]:
        """Waits for the command that it started; exit code (negative: signal) and stdout."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out or ""

    def leave(self) -> None:
        """Stops watching; the process goes on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:  # strace waits for a thread that it has just killed
            self.process.kill()
            self.process.communicate()

    @property
    def struck(self) -> str | None:
        """The call that a kill fell before, with its file; None while nothing was killed."""
        return killed_before(self._log)

    @property
    def counted(self) -> Counter[str]:
        """How many of each call the busiest thread made."""
        return counted(self._log)


def tracer(log: Path, *, inject: str = "", paths: Sequence[Path] = ()) -> list[str]:
    """Gives the words before a command that stays our own child while strace looks on.

    Args:
        log: what it saw; made anew.
        inject: what befalls which call, in strace's words; nothing to count only.
        paths: calls on these files only; all of them by default.
    """
    calls = ",".join(f"?{call}" for call in CALLS)
    words = [strace(), "-D", "-f", "-q", "-y", "-s", "0"]
    words += ["-o", str(log), "-e", f"trace={calls}"]
    words += [word for path in paths for word in ("-P", str(path))]
    return [*words, *(("-e", f"inject={inject}") if inject else ()), "--"]


def killed_before(log: Path) -> str | None:
    """The call that a kill fell before, with its file; None while nothing was killed."""
    lines = log.read_text(errors="replace").splitlines()
    if not any("killed by SIGKILL" in line for line in lines):
        return None
    cut = [line for line in lines if line.endswith("= ?") or "<unfinished" in line]
    return cut[-1].split(maxsplit=1)[1] if cut else "a call"


def counted(log: Path) -> Counter[str]:
    """How many of each call the busiest thread made."""
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found:
            by_thread[found[1], found[2]] += 1
    most: Counter[str] = Counter()
    for (_, call), count in by_thread.items():
        most[call] = max(most[call], count)
    return most


def strace() -> str:
    """Finds strace; skips the test where there is none."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    return found


@functools.cache
def refusal() -> str | None:
    """Why no process can be watched and killed at a step here; None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "written"
        with subprocess.Popen(
            [sys.executable, "-c", _PROBE, str(written)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as probe:
            assert probe.stdin is not None
            assert probe.stdout is not None
            probe.stdout.readline()
            try:
                watch = Watch(Path(directory) / "log", pid=probe.pid, strike=Step("write", 2))
            except PermissionError as exc:
                probe.kill()
                return f"ptrace is refused: {exc}"
            with contextlib.suppress(BrokenPipeError):
                probe.stdin.write("go\n")
                probe.stdin.flush()
            code = probe.wait(_PATIENCE_S)
            watch.leave()
        if code != -signal.SIGKILL or written.read_bytes() != b"x":
            return f"a kill before the second write left {written.read_bytes()!r}, exit {code}"
    return None
