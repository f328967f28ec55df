# SPDX-License-Identifier: Apache-2.0
"""An outage that is longer than the quota: the week of benchmarks/week.py as six hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.week import Span, run
from demo.stage import Stage


@pytest.mark.journey
def test_six_hours_offline_on_a_tiny_quota_is_bounded_declared_drained_and_leaves_little(
    recipients: Stage, tmp_path: Path
) -> None:
    """`run` holds every single reading against the store; here is what it came to."""
    stage = recipients.copied(tmp_path / "stage")
    try:
        seen, accounts = run(stage, Span(seconds=21_600, batch=1_500, quota="1 MB"))
    finally:
        stage.close()
    assert len(accounts) == 3
    for one in accounts:
        assert one.causes == ("QUOTA",)
        assert one.gaps == 1  # a gap grows; a week of drops is not thousands
        assert one.stored > 50_000
        assert one.declared > 10_000
        assert one.taken == one.stored + one.declared
    assert seen["most_mb"] < 7  # the quota, free pages, and a log that is cut at 4 MB
    assert seen["left"] == 0
    assert seen["end_mb"] < 5  # free pages it keeps
