# SPDX-License-Identifier: Apache-2.0
"""The units under a real systemd, in a container of Debian files that `make systemd-root` makes."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.main import main
from demo.stage import wait_until

pytestmark = pytest.mark.journey
REPO = Path(__file__).resolve().parents[2]
ROOT = Path(
    os.environ.get("ASSENT_SYSTEMD_ROOT", Path.home() / ".cache" / "assent" / "systemd-root")
)
PROGRAM = """\
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/assent:/opt/packages
[ "$1" != -c ] || exec /usr/bin/python3 "$@"
exec /usr/bin/python3 -m agent.cli.main "$@"
"""
PULL = (
    "import pathlib; from agent.leash import Leash;"
    "print(Leash(pathlib.Path('/var/lib/assent/spool/spool.db')).cut())"
)


class Machine:
    """A booted container; commands are run inside."""

    def __init__(self, root: Path) -> None:
        words = ["systemd-nspawn", "-D", str(root), "-b", "--register=no", "--keep-unit"]
        words += ["--private-network", "--console=pipe", f"--bind-ro={REPO}:/opt/assent"]
        words += [f"--bind-ro={site.getsitepackages()[0]}:/opt/packages"]
        with (root.parent / "log").open("wb") as log:
            self._nspawn = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root.parent
            )
        wait_until(lambda: bool(self._leader()), "the container runs")

    def _leader(self) -> str:
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
        return children.split()[0] if children.split() else ""

    def types(self, *words: str) -> str:
        done = subprocess.run(
            ["nsenter", "-t", self._leader(), "-a", *words],
            capture_output=True,
            text=True,
            timeout=30,
        )
        return (done.stdout or done.stderr).strip()

    def shows(self, unit: str, what: str) -> str:
        return self.types("systemctl", "show", unit, "-p", what, "--value")

    def is_active(self, unit: str) -> bool:
        return self.types("systemctl", "is-active", unit) == "active"

    def close(self) -> None:
        self.types("poweroff")
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()


def install(root: Path) -> None:
    """Puts the units where a package would, and a configuration that trusts nobody."""
    for folder, place in (
        ("*.service", "etc/systemd/system"),
        ("*.target", "etc/systemd/system"),
        ("sysusers.d/*", "usr/lib/sysusers.d"),
        ("tmpfiles.d/*", "usr/lib/tmpfiles.d"),
    ):
        (root / place).mkdir(parents=True, exist_ok=True)
        for path in (REPO / "systemd").glob(folder):
            shutil.copy(path, root / place)
    units = root / "etc/systemd/system"
    for wants, names in (
        ("multi-user.target.wants", ["assent.target"]),
        ("assent.target.wants", ["assent-collect.service", "assent-uplink.service"]),
    ):
        (units / wants).mkdir(exist_ok=True)
        for name in names:
            (units / wants / name).symlink_to(f"../{name}")
    for name in ("assent", "packages"):
        (root / "opt" / name).mkdir()
    (root / "usr/bin/assent").write_text(PROGRAM)
    (root / "usr/bin/assent").chmod(0o755)
    config = ["--config", str(root / "etc/assent"), "--state", "/var/lib/assent"]
    assert main(["init", *config]) == 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None or not ROOT.is_dir():
        pytest.skip("needs root, systemd-nspawn and a Debian root: make systemd-root")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the container's Python is 3.11, the packages here are for another")
    root = tmp_path_factory.mktemp("systemd") / "root"
    subprocess.run(["cp", "-a", str(ROOT), str(root)], check=True)
    install(root)
    machine = Machine(root)
    try:
        for unit in ("assent-collect", "assent-uplink"):
            wait_until(lambda unit=unit: machine.is_active(unit), f"{unit} is ready")
        yield machine
    finally:
        machine.close()
        shutil.rmtree(root)


def test_both_start_inside_their_sandboxes_as_their_users(machine: Machine) -> None:
    for unit in ("assent-collect", "assent-uplink"):
        assert machine.shows(unit, "NRestarts") == "0"
        pid = machine.shows(unit, "MainPID")
        assert machine.types("ps", "-o", "euser:20=", "-p", pid) == unit
    modes = machine.types("stat", "-c", "%a %U:%G", "/var/lib/assent", "/var/lib/assent/spool")
    assert modes.splitlines() == ["710 assent-collect:assent", "2770 assent-collect:assent"]


def test_the_collecting_user_ends_a_stopped_uplink_and_systemd_starts_the_next(
    machine: Machine,
) -> None:
    before = machine.shows("assent-uplink", "MainPID")
    machine.types("kill", "-STOP", before)
    someone = ["setpriv", "--reuid=assent-collect", "--regid=assent", "--clear-groups"]
    assert "not permitted" in machine.types(*someone, "kill", "-KILL", before)
    assert machine.types(*someone, "assent", "-c", PULL) == "True"
    wait_until(lambda: machine.shows("assent-uplink", "NRestarts") == "1", "it is started again")
    wait_until(lambda: machine.is_active("assent-uplink"), "the next one is ready")
    assert machine.shows("assent-uplink", "MainPID") != before


def test_a_stop_of_the_target_ends_both_with_success(machine: Machine) -> None:
    machine.types("systemctl", "stop", "assent.target")
    for unit in ("assent-collect", "assent-uplink"):
        wait_until(lambda unit=unit: not machine.is_active(unit), f"{unit} has ended")
        assert machine.shows(unit, "Result") == "success"
