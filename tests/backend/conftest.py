# SPDX-License-Identifier: Apache-2.0
"""Backend directories for each test: made once, copied for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assent.backend.directory import Directory
from tests.backend.parts import site


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sites")
    site(root)
    return root


@pytest.fixture
def sites(_made: Path, tmp_path: Path) -> dict[str, Directory]:
    """Two recipients in the test's directory, with one signed policy published by both."""
    shutil.copytree(_made, tmp_path, dirs_exist_ok=True)
    return {name: Directory.open(tmp_path / name) for name in ("maker", "advice")}
