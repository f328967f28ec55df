# SPDX-License-Identifier: Apache-2.0
"""What a device says is seen beside an agent and without one, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.cli.live import Painting, sparkline
from agent.cli.main import main
from agent.control import Answer, Control
from agent.lock import instance_lock
from tests.agent.installed import NO, REPLAYED, House, copied, install_with, living
from tests.simulators.conditions import eventually

DEVICES = f"""{REPLAYED}
[[device]]
id = "gateway"
kind = "gateway"
source = "host"
every = "100ms"
"""
ROWS = [f"2026-11-22T02:15:0{n}Z,{100 + n},{n},30,1,eco,,TEST-0001" for n in range(3)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_with(tmp_path_factory.mktemp("installed") / "gateway", DEVICES, ROWS)


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def house(place: Path) -> Iterator[House]:
    with living(place) as house:
        yield house


def test_a_device_is_watched_without_an_agent(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices", "watch", "washer", "--for", "1s", "--config", str(place)]) == 0
    told = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert told[:3] == [
        "appliance.power  100 W",
        "appliance.energy  0 Wh",
        "appliance.temperature  30 Cel",
    ]
    assert told.count("device.serial  TEST-0001") == 3


def test_json_is_a_line_for_each_sample(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["devices", "watch", "washer", "--for", "1s", "--json", "--config", str(place)]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["values"]["appliance.power"] for row in rows] == [100.0, 101.0, 102.0]


@pytest.mark.clause("C01")
def test_beside_an_agent_a_device_that_no_flow_wants_is_opened_while_somebody_looks(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.decide(NO)
    with running(house, step_ms=20) as states:
        words = ["devices", "watch", "gateway", "--for", "2s", "--config", str(house.directory)]
        assert main(words) == 0
        assert "host.uptime" in capsys.readouterr().out
        assert states[0]["gateway"] == "not wanted"
        assert "running" in {state["gateway"] for state in states}
        assert {state["washer"] for state in states} == {"not wanted"}
        house.clock.advance(10_000)  # nobody has asked for so long
        eventually(lambda: states[-1]["gateway"] == "not wanted")
    assert house.spool.waiting() == {}


def test_a_preview_beside_an_agent_sees_all_of_a_long_look(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.decide(NO)

    def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request.get("is_waiting"):
            house.clock.advance(6_000)  # of the ten seconds after which a look has ended
        return house.desk.answer(request)

    with running(house, step_ms=5, answer=answer):
        before_ms = house.clock.now().mono_ms
        assert main(["preview", "--for", "2s", "--config", str(house.directory)]) == 0
        assert house.clock.now().mono_ms - before_ms > 10_000
    assert "100 W" in capsys.readouterr().out  # said once, at the beginning


@contextlib.contextmanager
def running(
    house: House, step_ms: int, answer: Answer | None = None
) -> Iterator[list[dict[str, str]]]:
    """An agent at work, whose clock goes a step at each turn; the devices' states after each."""
    turning = threading.Event()
    control = Control(house.site.settings.state, answer or house.desk.answer)
    control.start()
    states: list[dict[str, str]] = []

    def turn() -> None:
        while not turning.is_set():
            house.pipeline.turn(0.01)
            house.clock.advance(step_ms)
            states.append({one.device_id: one.state.value for one in house.pipeline.health()})

    with instance_lock(house.site.settings.state):
        owner = threading.Thread(target=turn)
        owner.start()
        try:
            eventually(lambda: states)
            yield states
        finally:
            turning.set()
            owner.join()
            control.stop()


def test_a_name_that_is_nearly_a_device_is_helped(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices", "watch", "wascher", "--config", str(place)]) == 2
    assert capsys.readouterr().err == (
        "assent: agent.toml has no device 'wascher'\n  did you mean washer?\n"
    )
    assert main(["devices", "wach", "washer", "--config", str(place)]) == 2


def test_a_device_that_gives_nothing_is_an_error_with_its_reason(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "recording.csv").unlink()
    assert main(["devices", "watch", "washer", "--for", "1s", "--config", str(place)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("assent: washer gave no sample: ")
    assert "recording" in said.err.splitlines()[0]


def shown(place: Path, device: str, for_s: int, **env: str) -> str:
    """What `devices watch` writes to a terminal."""
    main_end, other = pty.openpty()
    words = ["devices", "watch", device, "--for", f"{for_s}s", "--config", str(place)]
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *words],
        stdout=other,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
        env=plain | {"TERM": "xterm"} | env,
    )
    os.close(other)
    assert (done.returncode, done.stderr) == (0, b"")
    return _drained(main_end)


PAINTED, BOLD = "F\033[J", "\033[1m"  # it went up again and painted over


@pytest.mark.parametrize(
    ("env", "tricks"),
    [
        ({}, {PAINTED, BOLD}),
        ({"NO_COLOR": "1"}, {PAINTED}),
        ({"TERM": "dumb"}, set()),
    ],
    ids=["a terminal", "a person who wants no colour", "a terminal that cannot move its cursor"],
)
def test_on_a_terminal_the_values_are_painted_as_it_can(
    place: Path, env: dict[str, str], tricks: set[str]
) -> None:
    said = shown(place, "gateway", 1, **env)
    assert "host.uptime" in said
    assert ("ATTRIBUTE" in said) == (PAINTED in tricks)
    assert {trick for trick in (PAINTED, BOLD) if trick in said} == tricks
    assert ("\033" in said) == bool(tricks)


def test_where_nothing_comes_any_more_ages_grow_and_the_reason_is_painted(place: Path) -> None:
    newest = shown(place, "washer", 4).rsplit("\033[J", 1)[1].splitlines()
    (power,) = [line for line in newest if line.startswith("appliance.power ")]
    assert int(power.split()[3]) >= 2
    assert newest[-1] == "ended"


def test_a_line_is_cut_where_the_terminal_ends_and_leaves_no_emphasis_open(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    Painting().paint([f"{BOLD}short\033[0m", f"{BOLD}{'long ' * 9}\033[0m"])
    assert capsys.readouterr().out.splitlines() == [f"{BOLD}short\033[0m", "long long long long"]


def _drained(descriptor: int) -> str:
    said = b""
    while True:
        try:
            data = os.read(descriptor, 65_536)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(descriptor)
    return said.decode()


def test_a_profile_is_checked_by_itself_and_against_the_policy(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = place / "profiles" / "replay-washing-machine.toml"
    check = ["devices", "profile", "check", str(profile), "--config", str(place)]
    assert main(check) == 0
    assert capsys.readouterr().out == f"no mistakes in {profile}\n"
    profile.write_text(profile.read_text().replace("appliance.door", "appliance.dor"))
    assert main(check) == 0
    assert "did you mean 'appliance.door'?" in capsys.readouterr().out
    profile.write_text(profile.read_text().replace("[profile]", "[profil]"))
    assert main(check) == 1
    assert "unknown key 'profil'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "plot"),
    [
        ([], ""),
        ([5.0, 5.0], "▁▁"),
        ([0.0, 7.0], "▁█"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([9.0] * 5 + [float(n) for n in range(24)], sparkline([float(n) for n in range(24)])),
    ],
    ids=["nothing", "a flat line", "low and high", "each step", "the newest only"],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], plot: str) -> None:
    assert sparkline(values) == plot
