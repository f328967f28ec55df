# SPDX-License-Identifier: Apache-2.0
"""A machine with a real systemd: a container of Debian files, booted for one test module.

The files are those that `make systemd-root` makes. Each machine gets a copy, with our units where a
package would put them and a network of its own that has a loopback and nothing else. What is run
with `types` is root with all its rights and outside every sandbox: the twin of what a unit tries.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import wait_until

REPO = Path(__file__).resolve().parents[2]
ROOT = Path(
    os.environ.get("ASSENT_SYSTEMD_ROOT", Path.home() / ".cache" / "assent" / "systemd-root")
)
UNITS = ("assent-collect", "assent-uplink")
OURS = "/opt/assent"
"""Where the checkout is, inside."""

_PROGRAM = """\
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/assent:/opt/packages
[ "$1" != -c ] || exec /usr/bin/python3 "$@"
exec /usr/bin/python3 -m agent.cli.main "$@"
"""
# What a package would install, and where.
_PLACES = (
    ("*.service", "etc/systemd/system"),
    ("*.target", "etc/systemd/system"),
    ("sysusers.d/*", "usr/lib/sysusers.d"),
    ("tmpfiles.d/*", "usr/lib/tmpfiles.d"),
    ("dbus-1/*", "usr/share/dbus-1/system.d"),
)


class Machine:
    """A booted container.

    Args:
        root: its files; our units are among them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._boot()

    def _boot(self) -> None:
        root = self.root
        words = ["systemd-nspawn", "-D", str(root), "-b", "--register=no", "--keep-unit"]
        words += ["--private-network", "--console=pipe", f"--bind-ro={REPO}:{OURS}"]
        words += [f"--bind-ro={site.getsitepackages()[0]}:/opt/packages"]
        # Device and address policies are BPF programs of cgroup v2, which this also gives a
        # container where the host itself still has v1.
        words += ["--system-call-filter=bpf"]
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with (root.parent / "log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=root.parent,
                env=environment,
            )
        try:
            wait_until(lambda: bool(self._leaders()), "the container runs")
            (self.leader,) = self._leaders()
            wait_until(self._is_up, "the machine is up")
        except BaseException:
            self._nspawn.kill()  # the kernel ends what runs inside
            self._nspawn.wait()
            raise

    def _is_up(self) -> bool:
        return self.types("systemctl", "is-system-running") in {"running", "degraded"}

    def _leaders(self) -> list[int]:
        """The first process inside: before it there is for some ms one that makes its world."""
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if _number_inside(child) == "1"]

    def entering(self, *words: str) -> list[str]:
        """The same command, run inside as root with all its rights."""
        return ["nsenter", "-t", str(self.leader), "-a", *words]

    def seeing(self, *words: str) -> list[str]:
        """The same command, run outside with the files and the network of the inside."""
        return ["nsenter", "-t", str(self.leader), "-m", "-n", *words]

    @contextlib.contextmanager
    def serving(self, *words: str) -> Iterator[None]:
        """A Python program that runs inside, outside every sandbox, once it has said `there`."""
        program = subprocess.Popen(
            self.seeing(
                "env", f"PYTHONPATH={OURS}:/opt/packages", "/usr/bin/python3", "-B", *words
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert program.stdout is not None
        try:
            said = program.stdout.readline()
            assert said == "there\n", said + program.stdout.read()
            yield
        finally:
            program.terminate()
            program.wait(20)
            program.stdout.close()

    def wired(self, *words: str) -> list[str]:
        """The same command, run outside on the network of the inside."""
        return ["nsenter", f"--net=/proc/{self.leader}/ns/net", *words]

    def runs(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and waits for its end."""
        return subprocess.run(self.entering(*words), capture_output=True, text=True, timeout=60)

    def types(self, *words: str) -> str:
        """Runs a command inside; what it said."""
        done = self.runs(*words)
        return (done.stdout or done.stderr).strip()

    def writes(self, path: str, text: str) -> None:
        """Puts a text file where it is at `path` inside."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def shows(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.types("systemctl", "show", unit, "-p", what, "--value")

    def is_active(self, unit: str) -> bool:
        """Whether a unit is active, that is: it has said that it is ready."""
        return self.types("systemctl", "is-active", unit) == "active"

    def until_active(self, unit: str) -> None:
        """Waits for that, and tells the unit's log when it is in vain."""
        try:
            wait_until(lambda: self.is_active(unit), f"{unit} is ready")
        except Exception:
            print(self.log(unit)[-3000:])
            raise

    def restarts(self, unit: str) -> int:
        """How often systemd has started a unit again by itself."""
        return int(self.shows(unit, "NRestarts"))

    def pid(self, unit: str) -> int:
        """The main process of a unit, as it is numbered inside."""
        return int(self.shows(unit, "MainPID"))

    def log(self, unit: str) -> str:
        """What a unit, and systemd about it, have written to the journal."""
        return self.types("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def adds(self, unit: str, name: str, text: str) -> None:
        """Gives a unit a drop-in, as a technician does."""
        self.writes(f"/etc/systemd/system/{unit}.service.d/{name}.conf", text)
        self.types("systemctl", "daemon-reload")

    def removes(self, unit: str, name: str) -> None:
        """Takes it away again."""
        (self.root / f"etc/systemd/system/{unit}.service.d/{name}.conf").unlink(missing_ok=True)
        self.types("systemctl", "daemon-reload")

    def polices(self) -> bool:
        """Whether systemd in here can hold a unit to its devices and addresses."""
        return "does not support BPF" not in self.types("journalctl", "-b", "-o", "cat")

    def restarts_hard(self) -> None:
        """Ends every program in it at once, and switches it on again."""
        self.close()
        self._boot()

    def close(self) -> None:
        """Ends every program in it at once, as the kernel does with those of a first process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGKILL)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()


@contextlib.contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """A machine with our units, enabled; the test is skipped where there can be none.

    Args:
        directory: an empty place for its files, 300 MB.
    """
    why = why_not()
    if why is not None:
        pytest.skip(why)
    root = directory / "root"
    subprocess.run(["cp", "-a", str(ROOT), str(root)], check=True)
    _install(root)
    machine = Machine(root)
    try:
        yield machine
    finally:
        machine.close()
        shutil.rmtree(root)


def why_not() -> str | None:
    """Says why there can be no machine here, or None."""
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None or not ROOT.is_dir():
        return "needs root, systemd-nspawn and a Debian root: make systemd-root"
    if sys.version_info[:2] != (3, 11):
        return "the container's Python is 3.11, the packages here are for another"
    return None


def _number_inside(pid: str) -> str:
    """How the innermost world of a process numbers it; empty when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[-1]
    return ""


def _install(root: Path) -> None:
    for pattern, place in _PLACES:
        (root / place).mkdir(parents=True, exist_ok=True)
        for path in (REPO / "systemd").glob(pattern):
            shutil.copy(path, root / place)
    enabled = ["assent.target", *(f"{unit}.service" for unit in UNITS)]
    subprocess.run(
        ["systemctl", f"--root={root}", "enable", *enabled], check=True, capture_output=True
    )
    for name in ("assent", "packages"):
        (root / "opt" / name).mkdir()
    (root / "usr/bin/assent").write_text(_PROGRAM)
    (root / "usr/bin/assent").chmod(0o755)
