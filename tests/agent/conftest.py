# SPDX-License-Identifier: Apache-2.0
"""A gateway as it is installed, once; and a household that lives in a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.installed import House, copied, install, living


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody has decided anything, and nothing has run; to be copied, never changed."""
    return install(tmp_path_factory.mktemp("installed") / "gateway")


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """A household that works for as long as the test."""
    with living(copied(installed, tmp_path / "gateway")) as house:
        yield house
