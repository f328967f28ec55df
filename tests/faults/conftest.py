# SPDX-License-Identifier: Apache-2.0
"""One pair of recipients for each file."""

from __future__ import annotations

import pytest

from demo.stage import Stage


@pytest.fixture(scope="module")
def recipients(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = Stage(tmp_path_factory.mktemp("faults") / "recipients")
    stage.make_recipients()
    return stage
