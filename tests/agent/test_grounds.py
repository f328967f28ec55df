# SPDX-License-Identifier: Apache-2.0
"""What `status` and `doctor` say of the clock: who vouches for it, or why nobody does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from agent.answers import Status, read
from agent.control import NotRunningError, ask
from agent.doctor import Health, examine
from agent.offline import at_the_desk
from agent.settings import load_settings
from demo.stage import REPO, wait_until
from firmware_bridge.clock import Clock
from firmware_bridge.evidence import Doubt, Witness
from tests.agent.installed import copied, install
from tests.agent.test_doctor import NOW
from tests.agent.test_service import now_ms
from tests.simulators.rtc import HardwareClock, touched

DEAD_MS = 946_684_800_000
FILE = "run/assent-clock/synchronised"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = install(tmp_path_factory.mktemp("installed") / "gateway")
    file = directory / "agent.toml"
    file.write_text(file.read_text().replace('trust = "system"', 'trust = "rtc"'))
    return directory


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the clock of this test's programs looks for evidence."""
    root = tmp_path / "machine"
    root.mkdir()
    monkeypatch.setitem(Clock.__init__.__kwdefaults__, "root", root)
    return root


@pytest.mark.parametrize(
    ("has", "grounds"),
    [
        (nullcontext, Doubt.NO_RTC),
        (lambda root: nullcontext(HardwareClock(root).refuses()), Doubt.SILENT),
        (lambda root: nullcontext(HardwareClock(root).tells(DEAD_MS)), Doubt.APART),
        (lambda root: HardwareClock(root).running(), Witness.RTC),
        (lambda root: nullcontext(touched(root, FILE, now_ms())), Witness.SERVICE),
    ],
    ids=[
        "there is no hardware clock",
        "its oscillator stopped",
        "its battery is empty",
        "it is right",
        "there is none, and a time service has spoken",
    ],
)
def test_without_a_running_agent_the_doctor_says_what_counts_and_why_not(
    gateway: Path,
    machine: Path,
    has: Callable[[Path], AbstractContextManager[object]],
    grounds: Witness | Doubt,
) -> None:
    with has(machine), at_the_desk(load_settings(gateway)) as desk:
        status = desk.status()
    found = {one.subject: one for one in examine(gateway, NOW, lambda: read(status, Status))}[
        "clock"
    ]
    assert grounds.value in found.told
    if isinstance(grounds, Witness):
        assert (status["clock_trusted"], found.health, found.help) == (True, Health.GOOD, "")
    else:
        assert (status["clock_trusted"], found.health) == (False, Health.BAD)
        assert 'trust = "rtc"' in found.help


@pytest.fixture
def running(gateway: Path, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts the collecting side, which looks for evidence below `machine`."""
    processes = []

    def start() -> None:
        words = ["gateway", "collect", "--config", str(gateway)]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.launch", *words],
                cwd=REPO,
                env=os.environ | {"FAULTS_ROOT": str(tmp_path / "machine")},
                stderr=subprocess.DEVNULL,
            )
        )

    yield start
    for process in processes:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    ("ahead_ms", "grounds"),
    [(0, Witness.RTC), (DEAD_MS - now_ms(), Doubt.APART)],
    ids=["a good battery", "an empty one"],
)
def test_the_running_program_judges_the_hardware_clock_by_its_floor(
    gateway: Path,
    machine: Path,
    running: Callable[[], None],
    ahead_ms: int,
    grounds: Witness | Doubt,
) -> None:
    def clock() -> str:
        try:
            return str(ask(gateway / "state", "status")["clock"])
        except NotRunningError:
            return ""

    (machine / "booted").write_bytes(bytes(8))  # as long ago as the machine's own boot
    with HardwareClock(machine).running(ahead_ms):
        running()
        wait_until(lambda: clock() != "", "it answers")
        assert grounds.value in clock()
