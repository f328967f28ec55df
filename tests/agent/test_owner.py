# SPDX-License-Identifier: Apache-2.0
"""Whoever may not touch the state is told whose it is and as whom to type."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.owner import foreign, may_enter
from tests.agent.installed import install

STRANGER = 65_534
AS = """
import encodings.ascii, encodings.idna, encodings.utf_8_sig, importlib, os, pkgutil, sys
for name in ("agent", "firmware_bridge", "assent"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not found.name.startswith("assent.backend"):
            importlib.import_module(found.name)
from agent.cli.main import main
user = int(sys.argv[1])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
sys.exit(main(sys.argv[2:]))
"""
WORDS = ["check", "status", "run", "consent withdraw service"]


def typed(place: Path, words: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    """Types a line as a user, who may not be able to read the interpreter: all is loaded before."""
    line = [sys.executable, "-c", AS, str(user), *words.split(), "--config", str(place)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A gateway of root's, in a directory that everybody may pass through."""
    if os.geteuid() != 0:
        pytest.skip("only root can type as somebody else")
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        directory = Path(above) / "gateway"
        install(directory)
        directory.chmod(0o755)
        yield directory


@pytest.mark.parametrize("words", WORDS)
def test_a_stranger_is_told_whose_the_state_is(place: Path, words: str) -> None:
    said = typed(place, words, STRANGER)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert f"belongs to {pwd.getpwuid(0).pw_name}" in said.stderr
    assert "type: sudo -u root -g root assent …" in said.stderr


def test_the_doctor_tells_a_stranger_whose_the_state_is(place: Path) -> None:
    said = typed(place, "doctor", STRANGER)
    assert (said.returncode, said.stderr) == (1, "")
    assert "BAD   state  is not for you; it belongs to root" in said.stdout
    assert "type: sudo -u root -g root assent …" in said.stdout


def test_the_owner_is_answered(place: Path) -> None:
    assert typed(place, "check").returncode == 0
    assert "state" in typed(place, "doctor").stdout


def test_what_is_not_there_is_answered_for_by_what_is_above_it(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    error = foreign(tmp_path / "none" / "deeper")
    assert error.message.endswith(f"{tmp_path} belongs to {user}")
    assert may_enter(tmp_path / "none")
