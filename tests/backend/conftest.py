# SPDX-License-Identifier: Apache-2.0
"""Backend directories for each test: made once, copied for each."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assent.backend.directory import Directory
from tests.backend.parts import site
from tests.backend.post import broker_for
from tests.simulators.broker import Broker


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


@pytest.fixture
def broker(tmp_path: Path, sites: dict[str, Directory]) -> Iterator[Broker]:
    """A mosquitto of the maker's."""
    with broker_for(sites["maker"], tmp_path) as running:
        yield running


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that every account may enter, as /etc is and pytest's own are not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextlib.contextmanager
def _another_account(closed: Path) -> Iterator[None]:
    """Is nobody for a while; where only root can be, the path is closed to ourselves instead."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    mode = closed.stat().st_mode
    closed.chmod(0)
    try:
        yield
    finally:
        closed.chmod(mode)


@pytest.fixture
def another_account() -> Callable[[Path], contextlib.AbstractContextManager[None]]:
    """Runs a block as an account that a path is closed to."""
    return _another_account
