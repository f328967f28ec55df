# SPDX-License-Identifier: Apache-2.0
"""The demo holds, can be run again, and fails when what it shows does not hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from assent.errors import RefusedError
from demo.practice import alone
from demo.stage import REPO

pytestmark = pytest.mark.journey


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the house in which something can be broken."""
    for part in ("assent", "agent", "firmware_bridge", "demo", "config"):
        ignore = shutil.ignore_patterns("__pycache__", "run", "practice")
        shutil.copytree(REPO / part, tmp_path / part, ignore=ignore)
    return tmp_path


def demo(house: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.demo"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house), "PATH": f"{house}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def looked(house: Path, program: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Types what the demo says to look further with."""
    found = Path(sys.executable).with_name(program)
    return subprocess.run([found, *words], cwd=house, capture_output=True, text=True, timeout=60)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def the_ledger_forgets_every_no(house: Path) -> None:
    replace(
        house / "agent/records/standing.py",
        "if record := entry.record:",
        "if (record := entry.record) and record.state.is_yes:",
    )


def the_recipient_lost_its_key(house: Path) -> None:
    replace(
        house / "demo/demo.py",
        "    bundle = stage.publish(hurried)\n",
        "    bundle = stage.publish(hurried)\n"
        '    stage.backend("keygen", str(stage.root / "other"), "--recipient", "maker")\n'
        '    (stage.backend_directory("maker") / "keys/seal.key.cose").write_bytes(\n'
        '        (stage.root / "other/keys/seal.key.cose").read_bytes()\n'
        "    )\n",
    )
    # What never arrives need not be waited for as long as what is late.
    replace(house / "demo/demo.py", 'has arrived", patience_s=30.0', 'has arrived", patience_s=5.0')


def the_broker_does_not_start(house: Path) -> None:
    program = house / "bin" / "mosquitto"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no broker today' >&2\nexit 1\n")
    program.chmod(0o755)


def test_the_demo_holds_and_can_be_run_again_and_then_fails_with_a_broken_gate(house: Path) -> None:
    done = demo(house)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it held" in done.stdout
    assert not re.search(r"\b1 (?:messages|readings)\b", done.stdout)
    left = dict(re.findall(r"^  (\S+) to \S+: (\d+) readings? in ", done.stdout, re.MULTILINE))
    arrived = {
        flow: count
        for count, flow in re.findall(
            r"^  \S+: (\d+) readings? of (\S+)$", done.stdout, re.MULTILINE
        )
    }
    assert left == arrived
    assert set(left) == {"service", "remote-diagnosis", "partner-energy-advice"}
    assert re.search(r"^    appliance\.power = [\d.]+ W   \(pseudonym", done.stdout, re.MULTILINE)
    for line in re.findall(r"^  \.venv/bin/(\S.*)$", done.stdout, re.MULTILINE):
        program, *words = line.split()
        said = looked(house, program, words)
        assert said.returncode == 0, said.stderr
        assert "remote-diagnosis" in said.stdout
    # In the same place, and as far as its last act.
    the_ledger_forgets_every_no(house)
    assert "remote-diagnosis arrived after the no" in failed(house)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (the_recipient_lost_its_key, "The demo failed: "),
        (the_broker_does_not_start, "no broker today"),
    ],
    ids=["a broken key", "a broken broker"],
)
def test_the_demo_fails_with(house: Path, break_it: Callable[[Path], None], said: str) -> None:
    break_it(house)
    assert said in failed(house)


def failed(house: Path) -> str:
    """What a demo says that fails."""
    done = demo(house)
    assert done.returncode == 1, done.stdout
    assert "All of it held" not in done.stdout
    return done.stdout


def test_a_second_practice_is_refused_while_one_runs(tmp_path: Path) -> None:
    with alone(tmp_path):
        with pytest.raises(RefusedError, match="another one runs"), alone(tmp_path):
            pass
        with pytest.raises(RefusedError, match="another one runs"), alone(tmp_path):
            pass
    with alone(tmp_path):  # the twin: it has ended
        assert list(tmp_path.iterdir()) == []
