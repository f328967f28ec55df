# SPDX-License-Identifier: Apache-2.0
"""The world forgives no program that ends by itself, and knows when each has ended."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.stage import Stage, wait_until
from tests.faults.deaths import Deaths
from tests.faults.world import World

pytestmark = pytest.mark.journey


@pytest.mark.parametrize("asks", ["kill", "mend", "stop"])
def test_a_program_that_ends_by_itself_is_wrong(
    recipients: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    for start in ("start_collect", "start_broker", "start_backend", "start_uplink"):
        monkeypatch.setattr(World, start, lambda *_: None)
    with World(recipients, tmp_path / "world") as world:
        ends(world, ())
        world.mend() if asks == "mend" else getattr(world, asks)("uplink")
        assert world.wrong[0].startswith("uplink ended by itself with 2")


def test_one_under_a_tracer_may_end(recipients: Stage, tmp_path: Path) -> None:
    with World(recipients, tmp_path / "world") as world:
        ends(world, ("env",))
        assert not world.kill("uplink")
        assert world.wrong == []


def ends(world: World, under: tuple[str, ...]) -> None:
    """Starts an uplink that ends at once, because it does not know its verb."""
    world._run_program("uplink", "no-such-verb", [], under)
    program = world.programs["uplink"]
    wait_until(lambda: program.poll() is not None, "it has ended")


def test_an_end_is_known_however_late_one_asks() -> None:
    deaths = Deaths()
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    deaths.watch(program)
    assert program.stdin is not None
    before_ms = int(time.time() * 1000)
    program.stdin.close()
    program.wait()
    ended_ms = deaths.of(program)
    after_ms = int(time.time() * 1000)
    assert before_ms <= ended_ms <= after_ms
    wait_until(lambda: time.time() * 1000 > after_ms + 50, "time passes")
    assert deaths.of(program) == ended_ms


AT_WORK = """
import os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(flush=True)
sys.stdin.readline()
end = time.monotonic() + 0.8
while time.monotonic() < end:
    pass
"""
ASLEEP = AT_WORK.replace("pass", "time.sleep(0.8)")


@pytest.mark.parametrize("code", [AT_WORK, ASLEEP], ids=["at work", "asleep"])
def test_for_how_long_a_program_had_no_processor_is_known(code: str) -> None:
    """Beside three that are at work, all on one processor; who sleeps needs none."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count it")
    deaths, pipe = Deaths(), subprocess.PIPE
    with contextlib.ExitStack() as ends:
        programs = [
            ends.enter_context(
                subprocess.Popen([sys.executable, "-c", one], stdin=pipe, stdout=pipe)
            )
            for one in (code, *3 * [AT_WORK])
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"\n"
        deaths.watch(programs[0])
        for program in programs:
            assert program.stdin is not None
            program.stdin.close()
    starved = deaths.starved_ms(programs[0], 600)
    print(f"{starved} ms")
    assert (starved > 200) == (code == AT_WORK)
