# SPDX-License-Identifier: Apache-2.0
"""The leash: one uplink a spool, named by the kernel, ended however it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.leash import Leash, lock_of, pipe_of
from tests.simulators.conditions import eventually

REPO = Path(__file__).resolve().parents[2]
WEAR = """
import pathlib, sys, time
from agent.leash import worn
with worn(pathlib.Path(sys.argv[1])):
    print("worn", flush=True)
    time.sleep(60)
"""

Wear = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def wear(tmp_path: Path) -> Iterator[Wear]:
    """Starts a process that wears the leash."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str = WEAR) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "spool.db")],
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == ("worn\n" if len(started) == 1 else "")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def leash(tmp_path: Path) -> Leash:
    return Leash(tmp_path / "spool.db")


def test_nobody_is_there_before_an_uplink_and_after_it(leash: Leash, wear: Wear) -> None:
    assert not leash.is_there()
    process = wear()
    assert leash.holder() == process.pid
    process.kill()
    process.wait()
    assert not leash.is_there()


@pytest.mark.parametrize("stopped", [False, True], ids=["that runs", "that is stopped"])
def test_a_pull_ends_an_uplink(leash: Leash, wear: Wear, stopped: bool) -> None:
    process = wear()
    if stopped:
        process.send_signal(signal.SIGSTOP)
    assert leash.cut()
    assert process.wait() == -signal.SIGKILL
    assert not leash.is_there()


def test_the_pipe_alone_ends_it_so_that_no_permission_to_signal_is_needed(
    tmp_path: Path, wear: Wear
) -> None:
    process = wear()
    process.send_signal(signal.SIGSTOP)
    pipe = os.open(pipe_of(tmp_path / "spool.db"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"\0")
    os.close(pipe)
    assert process.wait(5) == -signal.SIGKILL


def test_a_pull_where_nobody_is_says_that_nobody_is(leash: Leash) -> None:
    assert leash.cut()


def test_a_second_uplink_is_refused_and_the_first_stays(leash: Leash, wear: Wear) -> None:
    first = wear()
    second = wear()
    assert second.wait() != 0
    assert second.stderr is not None
    assert "another uplink" in second.stderr.read()
    assert leash.holder() == first.pid


def test_a_later_uplink_is_not_ended_by_an_earlier_pull(leash: Leash, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WEAR, str(tmp_path / "spool.db")]
    for _ in range(2):
        with subprocess.Popen(words, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "worn\n"
            assert eventually(leash.is_there)
            assert leash.cut()


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=["with an open umask", "with a shut one"])
def test_the_group_may_name_and_end_it(tmp_path: Path, wear: Wear, umask: int) -> None:
    before = os.umask(umask)
    try:
        wear()
    finally:
        os.umask(before)
    for path in (lock_of(tmp_path / "spool.db"), pipe_of(tmp_path / "spool.db")):
        assert path.stat().st_mode & 0o777 == 0o660


def test_something_else_in_the_place_of_the_pipe_is_refused(tmp_path: Path) -> None:
    pipe_of(tmp_path / "spool.db").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", WEAR, str(tmp_path / "spool.db")],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    assert "SpoolError" in done.stderr
