# SPDX-License-Identifier: Apache-2.0
"""A gateway is installed from the wheel alone, outside the checkout, by a user with `dialout` only."""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.meter import Meter
from demo.stage import REPO

pytestmark = pytest.mark.journey

PYTHON = shutil.which("python3") or sys.executable
NOBODY = 65_534


def pip(python: Path, *words: str) -> str:
    done = subprocess.run(
        [PYTHON, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory outside the checkout that every account may enter."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def environment(place: Path) -> Path:
    """An environment with the wheel in it; what it depends on is lent by the checkout's."""
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("python3 has no pip")
    source = place / "source"
    # Caches as well: what other tests write there at this moment may be gone in the next.
    ignore = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "run", "practice")
    shutil.copytree(REPO, source, ignore=ignore, symlinks=True)
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    pip(Path(sys.executable), *wheel, "--wheel-dir", str(place), str(source))
    shutil.rmtree(source)
    made = place / "environment"
    subprocess.run([_python(), "-m", "venv", "--without-pip", str(made)], check=True)
    python = made / "bin" / "python"
    (found,) = place.glob("assent-*.whl")
    pip(python, "install", "--quiet", "--no-deps", "--no-index", str(found))
    _lend(python)
    return made


def _python() -> str:
    """A Python like this one that every account may run, as a gateway has it; else this one."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    for one in (sys.executable, "/usr/bin/python3", f"/usr/bin/python{ours}"):
        path = Path(one).resolve()
        if path.exists() and all(up.stat().st_mode & 0o001 for up in (path, *path.parents)):
            asked = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([one, "-c", asked], capture_output=True, text=True, check=True)
            if done.stdout.strip() == ours:
                return one
    return sys.executable


def _lend(python: Path) -> None:
    """Lends what is installed beside this Python, but not the checkout itself."""
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    lent = Path(done.stdout.strip()) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib") + "\n")


class User:
    """Somebody with the group `dialout` and no other right; ourselves where we are not root."""

    def __init__(self, environment: Path, home: Path) -> None:
        self.bin = environment / "bin"
        self.home = home
        home.mkdir()
        self.becomes: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
            dialout = grp.getgrnam("dialout").gr_gid
            self.becomes = {"user": NOBODY, "group": NOBODY, "extra_groups": [dialout]}

    def types(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [self.bin / "assent", *words, "--config", str(self.home / "gateway")],
            cwd=self.home,
            env={"PATH": str(self.bin), "HOME": str(self.home), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=120,
            **self.becomes,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout)


def _may_run(user: User) -> bool:
    try:
        tried = subprocess.run([user.bin / "python", "-c", ""], **user.becomes, check=False)
    except PermissionError:
        return False
    return tried.returncode == 0


def test_a_user_with_dialout_sets_up_a_gateway_from_the_wheel(
    environment: Path, place: Path
) -> None:
    user = User(environment, place / "home")
    if os.geteuid() == 0 and not _may_run(user):
        pytest.skip("this machine has no Python that another account may run")
    user.types("init", "--state", str(user.home / "state"))
    assert "no mistakes" in user.types("check")
    for port, fits in (("shut", False), ("meter", True)):
        link = place / port
        with Meter(link):
            node = link.resolve()
            if os.geteuid() == 0:
                node.chmod(0o660)
                os.chown(node, 0, grp.getgrnam("dialout").gr_gid if fits else 0)
            elif not fits:
                node.chmod(0)
            words = ["devices", "find", "--port", str(link), "--units", "1", "--json"]
            told = json.loads(user.types(*words, code=0 if fits else 1))
        names = [fit["profile"] for unit in told["found"] for fit in unit["fits"]]
        assert ("eastron-sdm120" in names) is fits
        assert bool(told["passed"]) is not fits
    assert "no policy key is trusted" in user.types("doctor", code=1)


def test_nothing_of_the_checkout_is_used(environment: Path) -> None:
    asked = "import agent, assent, firmware_bridge as f; print(agent.__file__, f.__file__)"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", asked],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(str(environment) in path for path in done.stdout.split())


def test_the_wheel_carries_what_a_gateway_needs(environment: Path) -> None:
    share = environment / "share"
    for name in (
        "assent/agent.toml",
        "assent/profiles/eastron-sdm120.toml",
        "assent/systemd/assent-collect.service",
        "bash-completion/completions/assent",
    ):
        assert (share / name).is_file(), name


def test_it_is_uninstalled_without_a_trace(environment: Path) -> None:
    """Comes last: the environment is of no use afterwards."""
    pip(environment / "bin" / "python", "uninstall", "--quiet", "--yes", "assent")
    left = [
        path
        for path in environment.rglob("*")
        if path.is_file() and ("assent" in path.name or "firmware_bridge" in str(path))
    ]
    assert left == []
