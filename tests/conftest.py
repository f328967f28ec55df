# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for: the recorded data beside a checkout.

The recordings are too large for the repository and some have terms of their own, so they lie in
`../shared/data` of a developer's machine. Elsewhere the tests that need them are skipped with that
reason; where the directory is, a skipped one is a failure, so that no test goes quiet by itself.

One commit gets one verdict: the property tests make the same choices each time, and so does
`chance`; they make others where `--hypothesis-seed` names a seed, as `make law` and
`make properties` do.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"

# A file that begins last is waited for by itself. Seconds on two cores, rounded; the rest is short.
LONG_S = {
    "journeys/test_two_processes.py": 80,
    "journeys/test_demo.py": 65,
    "faults/test_power_and_clock.py": 60,
    "journeys/test_delivery.py": 55,
    "agent/test_fence.py": 45,
    "journeys/test_egress.py": 40,
    "journeys/test_kill_points.py": 40,
    "journeys/test_meter.py": 35,
    "faults/test_faults.py": 35,
    "agent/test_uplink_broker.py": 30,
    "journeys/test_keep_until.py": 25,
    "journeys/test_nothing_without_consent.py": 25,
    "agent/test_law_model.py": 20,
    "agent/test_uplink_outage.py": 20,
    "journeys/test_crash.py": 20,
}


def pytest_configure(config: pytest.Config) -> None:
    """How fast a machine is says nothing about a property, and CI's are shared."""
    settings.register_profile(
        "house",
        deadline=None,
        derandomize=config.getoption("--hypothesis-seed") is None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("house")
    # Left to itself, xdist begins with the files of most tests: the few long ones then come last.
    config.option.loadscopereorder = False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of recorded data."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the recorded data (../shared/data) is not on this machine")
    return SHARED_DATA


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What picks moments and places in a test, each time the same."""
    seed = f"{request.config.getoption('--hypothesis-seed')} {request.node.name}"
    print(f"seed {seed}")
    return random.Random(seed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then the other journeys, which wait most."""

    def rank(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.as_posix().rpartition("/tests/")[2]
        return -LONG_S.get(name, 0), not name.startswith(("journeys/", "faults/"))

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    wants_data = "shared_data" in getattr(item, "fixturenames", ())
    if report.skipped and wants_data and SHARED_DATA.is_dir() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although the recorded data is here"
    return report
