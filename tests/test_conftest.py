# SPDX-License-Identifier: Apache-2.0
"""Tests that need the recorded data are skipped without it, and never with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py")

ASKS = "def test_reads(shared_data):\n    assert shared_data.is_dir()\n"
GIVES_UP = "import pytest\ndef test_gives_up(shared_data):\n    pytest.skip('no')\n"
OTHER = "import pytest\ndef test_other():\n    pytest.skip('no')\n"


def run(tmp_path: Path, test: str, *, with_data: bool) -> str:
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(CONFTEST, tests)
    (tests / "test_it.py").write_text(test)
    if with_data:
        (tmp_path / "shared" / "data").mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=tests, capture_output=True, text=True).stdout


def test_without_the_data_it_is_skipped_with_a_reason(tmp_path: Path) -> None:
    out = run(tmp_path, ASKS, with_data=False)
    assert "1 skipped" in out
    assert "recorded data (../shared/data) is not on this machine" in out


def test_with_the_data_it_runs(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, ASKS, with_data=True)


def test_with_the_data_a_skip_is_a_failure(tmp_path: Path) -> None:
    assert "1 failed" in run(tmp_path, GIVES_UP, with_data=True)


def test_another_tests_skip_stays_a_skip(tmp_path: Path) -> None:
    assert "1 skipped" in run(tmp_path, OTHER, with_data=True)
