# SPDX-License-Identifier: Apache-2.0
"""Whose word on the time is taken, and what intervals rest on."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge.clock import Clock, Pace
from tests.simulators.clock import START_MS, ManualClock

BOOT_ID = "5e1f0c1e-52d4-4c0a-9a3b-0f1c2d3e4f50"


def booted(root: Path, text: str = BOOT_ID + "\n") -> Path:
    path = root / "proc/sys/kernel/random/boot_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


def synchronised(root: Path, *, age_s: float = 0.0) -> Path:
    path = root / "run/systemd/timesync/synchronized"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    at = time.time() - age_s
    os.utime(path, (at, at))
    return path


def test_a_clock_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    assert not Clock(root=tmp_path).now().trusted


def test_a_clock_that_timesyncd_set_in_this_boot_is_trusted(tmp_path: Path) -> None:
    synchronised(tmp_path)
    assert Clock(root=tmp_path).now().trusted


def test_the_technicians_word_is_enough(tmp_path: Path) -> None:
    assert Clock(trust="system", root=tmp_path).now().trusted


@pytest.mark.parametrize(
    "age",
    [
        lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 60,
        lambda: -3600.0,
    ],
    ids=[
        "a file of an earlier boot proves nothing",
        "a clock stepped back after it was synchronised has lost its trust",
    ],
)
def test_evidence_outside_this_boot_is_refused(tmp_path: Path, age: Callable[[], float]) -> None:
    synchronised(tmp_path, age_s=age())
    assert not Clock(root=tmp_path).now().trusted


def test_a_time_service_that_is_only_there_is_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "run/chrony").mkdir(parents=True)
    (tmp_path / "run/chrony/chronyd.pid").write_text("500\n")
    (tmp_path / "var/lib/systemd/timesync").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/timesync/clock").touch()
    assert not Clock(root=tmp_path).now().trusted


def test_trust_comes_within_a_second_of_the_synchronisation(tmp_path: Path) -> None:
    clock = Clock(root=tmp_path)
    assert not clock.now().trusted
    synchronised(tmp_path)
    deadline = time.monotonic() + 5
    while not clock.now().trusted:
        assert time.monotonic() < deadline, "trust never came"
        time.sleep(0.02)


def test_monotonic_time_is_the_kernels_time_since_boot(tmp_path: Path) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = Clock(root=tmp_path).now()
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert int(before * 1000) <= now.mono_ms <= after * 1000
    assert abs(now.wall_ms - time.time() * 1000) < 1000


def test_two_clocks_of_one_boot_agree_on_its_id(tmp_path: Path) -> None:
    booted(tmp_path)
    assert Clock(root=tmp_path).boot_id == Clock(root=tmp_path).boot_id == BOOT_ID


@pytest.mark.parametrize(
    "text",
    [None, "", "not a boot id\n", "\xff\xfe", BOOT_ID.upper()],
    ids=["missing", "empty", "words", "not ascii", "upper case"],
)
def test_a_boot_without_a_readable_id_is_a_boot_of_its_own(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        booted(tmp_path, text)
    first, second = Clock(root=tmp_path), Clock(root=tmp_path)
    assert uuid.UUID(first.boot_id) != uuid.UUID(second.boot_id)


def test_a_wait_ends_when_its_event_is_set(tmp_path: Path) -> None:
    clock, event = Clock(root=tmp_path), threading.Event()
    assert not clock.wait(1, event)
    event.set()
    assert clock.wait(60_000, event)
    assert not clock.wait(0)


def test_a_period_is_kept_and_a_late_reader_does_not_catch_up() -> None:
    clock = ManualClock(flowing=True)
    start = clock.now().mono_ms
    pace = Pace(clock, 1_000)
    reads: list[int] = []
    while len(reads) < 3:
        if pace.is_due():
            reads.append(clock.now().mono_ms - start)
    clock.advance(10_000)
    while len(reads) < 6:
        if pace.is_due():
            reads.append(clock.now().mono_ms - start)
    assert reads == [1_000, 2_000, 3_000, 13_000, 14_000, 15_000]


def test_a_slow_period_blocks_no_longer_than_a_second_at_a_time() -> None:
    clock = ManualClock(flowing=True)
    pace = Pace(clock, 3_600_000)
    assert not pace.is_due()
    assert max(clock.waits) == 1_000


def due_instants(clock: ManualClock, every_ms: int, reads: int) -> list[int]:
    """Wall instants of so many reads, each a little late."""
    pace, found = Pace(clock, every_ms), list[int]()
    while len(found) < reads:
        if pace.is_due():
            clock.advance(7)
            found.append(clock.now().wall_ms - 7)
    return found


@pytest.mark.parametrize("began_ms", [0, 1, 4_321, 9_999])
@pytest.mark.clause("C10")
def test_the_phase_of_a_loop_says_nothing_of_when_it_began(began_ms: int) -> None:
    clock = ManualClock(START_MS + began_ms, flowing=True)
    assert due_instants(clock, 10_000, 3) == [START_MS + at for at in (10_000, 20_000, 30_000)]


def test_before_the_clock_is_trusted_reads_are_a_period_apart() -> None:
    clock = ManualClock(START_MS + 4_321, flowing=True, trusted=False)
    first, second = due_instants(clock, 10_000, 2)
    assert (first - START_MS, second - first) == (14_321, 10_000)
    # The twin: once it is trusted they fall on the multiples again.
    pace = Pace(clock, 10_000)
    clock.trusted = True
    while not pace.is_due():
        pass
    while not pace.is_due():
        pass
    assert clock.now().wall_ms % 10_000 == 0


@pytest.mark.parametrize("step_ms", [-3_600_000, -5, 5, 3_600_000])
def test_a_clock_that_is_set_delays_a_read_by_a_period_at_most(step_ms: int) -> None:
    clock = ManualClock(flowing=True)
    pace = Pace(clock, 10_000)
    while not pace.is_due():
        pass
    before = clock.now().mono_ms
    clock.step(step_ms)
    while not pace.is_due():
        pass
    assert clock.now().mono_ms - before <= 20_000
    while not pace.is_due():
        pass
    assert clock.now().wall_ms % 10_000 == 0
