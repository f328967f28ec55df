# SPDX-License-Identifier: Apache-2.0
"""A meter on a line is found, named by its profile, and only ever read."""

from __future__ import annotations

import grp
import json
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.lock import instance_lock
from agent.search import unused_names
from agent.settings import load_settings
from firmware_bridge.profile.fields import Serial
from firmware_bridge.sample import SourceError
from firmware_bridge.sources.modbus.bus import Bus
from firmware_bridge.sources.modbus.search import ports
from tests.simulators.meter import Meters, TcpMeters, Washer, rows

NOBODY = 65_534
REPO = Path(__file__).resolve().parents[3]
AGENT = """\
[gateway]
state = "state"
"""
# Registers that a washer does not have: it gives zeros for them, and fits less well.
OTHER = """\
# SPDX-License-Identifier: Apache-2.0
[profile]
source = "modbus"
about = "another model"
facts = "nothing"
serial = { baudrate = 2400 }

[[field]]
attribute = "appliance.power"
table = "input"
address = 100
type = "float32"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "gateway"
    shutil.copytree(REPO / "config" / "profiles", place / "profiles")
    (place / "profiles" / "other.toml").write_text(OTHER)
    (place / "profiles" / "broken.toml").write_text("[profile")
    (place / "agent.toml").write_text(AGENT)
    (place / "state").mkdir()
    return place


def found(
    place: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, list[dict[str, object]]]:
    main(["devices", "find", "--config", str(place), "--json", *words])
    answer: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return answer


def test_units_of_a_line_are_found_at_its_own_speed_with_the_profile_that_fits(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "meter"
    with Meters(link, [Washer(1), Washer(3)], baudrate=2400) as meters:
        told = found(place, capsys, "--port", str(link), "--units", "1-4")
        assert [one["unit_id"] for one in told["found"]] == [1, 3]
        assert {one["line"] for one in told["found"]} == {"2400 8N1"}
        fits = told["found"][0]["fits"]
        assert isinstance(fits, list)
        assert fits[0]["profile"] == "eastron-sdm120"
        assert fits[0]["values"]["appliance.power"] == pytest.approx(float(rows()[0]["power"]))
        assert meters.functions <= {1, 2, 3, 4}


def test_what_is_printed_can_be_pasted_and_loads(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "meter"
    with Meters(link, [Washer(2)], baudrate=2400):
        words = ["devices", "find", "--config", str(place), "--port", str(link), "--units", "2"]
        assert main(words) == 0
    said = capsys.readouterr().out
    assert f"unit 2 answers on {link} at 2400 8N1" in said
    assert re.search(r"appliance\.power [0-9.]+ W\b", said)
    table = said[said.index("[[device]]") :]
    (device,) = tomllib.loads(table)["device"]
    assert (device["id"], device["profile"]) == ("meter-1", "eastron-sdm120")
    with (place / "agent.toml").open("a") as file:
        file.write(f"\n{table}")
    (loaded,) = load_settings(place).devices
    assert next(unused_names(load_settings(place))) == "meter-2"
    assert (loaded.source, loaded.unit_id, loaded.port) == ("modbus", 2, str(link))


def test_profiles_that_ask_for_the_same_registers_ask_once(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "meter"
    with Meters(link, [Washer(1)], baudrate=2400) as meters:
        told = found(place, capsys, "--port", str(link), "--units", "1")
    (one,) = told["found"]
    assert isinstance(one["fits"], list)
    names = {fit["profile"] for fit in one["fits"]}
    assert names >= {"eastron-sdm220", "eastron-sdm230"}  # the same registers
    assert len(meters.asked) == len(set(meters.asked)) > 30


def test_a_unit_over_tcp_is_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TcpMeters([Washer(1)]) as meters:
        told = found(place, capsys, "--port", meters.name, "--units", "1")
    assert [(one["unit_id"], one["line"]) for one in told["found"]] == [(1, "")]


def test_where_nobody_answers_it_says_what_to_check(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "meter"
    with Meters(link, [Washer(9)], baudrate=2400) as meters:
        words = ["devices", "find", "--config", str(place), "--port", str(link), "--units", "1"]
        assert main(words) == 1
        assert meters.asked
    assert "no unit answers; check power" in capsys.readouterr().out


def test_a_port_that_is_not_there_or_no_port_is_passed_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = found(place, capsys, "--port", str(tmp_path / "none"), "--port", "tcp://nowhere")
    assert told["found"] == []
    assert [one["port"] for one in told["passed"]] == [str(tmp_path / "none"), "tcp://nowhere"]


def test_a_setting_that_a_port_does_not_have_is_passed_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pseudo-terminal has no parity, the first profile of these asks for one."""
    for path in (place / "profiles").glob("*.toml"):
        path.unlink()
    even = OTHER.replace("2400 }", '2400, parity = "E" }')
    (place / "profiles" / "even.toml").write_text(even)
    link = tmp_path / "meter"
    with Meters(link, [Washer(9)], baudrate=2400) as meters:
        words = ["devices", "find", "--config", str(place), "--port", str(link), "--units", "1"]
        assert main(words) == 1
        assert meters.asked
    said = capsys.readouterr().out
    assert "not searched" not in said
    assert "no unit answers" in said


def test_where_no_port_was_searched_nothing_is_said_of_wires(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["devices", "find", "--config", str(place), "--port", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().out
    assert "no port was searched" in said
    assert "wires" not in said


def test_where_there_is_no_port_a_person_is_told_to_plug_one_in(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.search.ports", list)
    assert main(["devices", "find", "--config", str(place)]) == 1
    assert "there is no serial port; plug the adapter in" in capsys.readouterr().out


class Babbler:
    """A port on which somebody never stops talking."""

    is_serial = True

    def __init__(self, name: str, line: Serial) -> None:
        self.line = str(line)
        self.written: list[bytes] = []

    def open(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def read(self, wait_s: float) -> bytes:
        time.sleep(min(wait_s, 0.001))
        return b"\xff\0U"

    def seconds(self, count: int) -> float:
        return count / 1_000

    def close(self) -> None:
        pass


def test_a_line_that_never_stops_talking_is_passed_over_in_time(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    babblers: list[Babbler] = []

    def make(name: str, line: Serial) -> Babbler:
        babblers.append(Babbler(name, line))
        return babblers[-1]

    monkeypatch.setattr("firmware_bridge.sources.modbus.bus.make", make)
    monkeypatch.setattr("firmware_bridge.sources.modbus.bus._BABBLE_S", 0.05)
    told = found(place, capsys, "--port", "/dev/null")
    assert told["found"] == []
    assert "the line is never silent at" in str(told["passed"])
    assert len(babblers) > 4, "each setting is tried"
    assert not any(one.written for one in babblers), "nobody is asked"


def test_a_port_that_may_not_be_opened_says_who_may_do_what(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_end, node = pty.openpty()
    port = Path(os.ttyname(node))
    port.chmod(0)
    is_root = os.geteuid() == 0
    group = grp.getgrgid(port.stat().st_gid).gr_name
    try:
        if is_root:
            os.seteuid(NOBODY)
        user = pwd.getpwuid(os.geteuid()).pw_name
        with pytest.raises(SourceError) as caught:
            Bus(str(port), Serial()).open()
    finally:
        if is_root:
            os.seteuid(0)
        os.close(main_end)
        os.close(node)
    told = f"the serial port may not be opened; it belongs to group {group}"
    assert caught.value.message == told
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"type as root: usermod -aG {group} {user};")


def test_a_port_of_the_running_agent_is_not_touched(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "meter"
    with (place / "agent.toml").open("a") as file:
        file.write(
            f'\n[[device]]\nid = "meter"\nkind = "electricity-meter"\nsource = "modbus"\n'
            f'port = "{link}"\nunit_id = 1\nprofile = "eastron-sdm120"\n'
        )
    with Meters(link, [Washer(1)], baudrate=2400) as meters:
        with instance_lock(place / "state"):
            told = found(place, capsys, "--port", str(link), "--units", "1")
            (passed,) = told["passed"]
            assert passed["port"] == str(link)
            assert str(passed["reason"]).endswith(f"(process {os.getpid()}) has it; end that first")
            assert meters.asked == []
        told = found(place, capsys, "--port", str(link), "--units", "1")
        assert len(told["found"]) == 1


def test_units_in_the_wrong_order_are_told_the_right_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["devices", "find", "--units", "5-2", "--config", str(place)])
    assert "expected the lower unit first, such as 2-5, got '5-2'" in capsys.readouterr().err


@pytest.mark.parametrize("units", ["0", "1-300", "5-2", "one", "-3"])
def test_units_that_are_none_are_a_usage_error(units: str, place: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["devices", "find", f"--units={units}", "--config", str(place)])
    assert caught.value.code == 2


def test_ports_are_named_by_what_is_plugged_in(tmp_path: Path) -> None:
    by_id = tmp_path / "serial" / "by-id"
    by_id.mkdir(parents=True)
    for name in ("ttyUSB0", "ttyUSB1", "ttyS0", "ttyAMA0"):
        (tmp_path / name).touch()
    (by_id / "usb-TEST_RS485-if00").symlink_to("../../ttyUSB1")
    assert ports(tmp_path) == [
        str(by_id / "usb-TEST_RS485-if00"),
        str(tmp_path / "ttyUSB0"),
        str(tmp_path / "ttyAMA0"),
    ]


def test_on_a_terminal_it_tells_how_far_it_is(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "meter"
    main_end, other = pty.openpty()
    words = ["devices", "find", "--config", str(place), "--port", str(link), "--units", "1-2"]
    with Meters(link, [Washer(2)], baudrate=2400):
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli.main", *words],
            stderr=other,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=False,
            env=os.environ | {"TERM": "xterm"},
        )
    os.close(other)
    said = os.read(main_end, 65_536).decode()
    os.close(main_end)
    assert done.returncode == 0
    assert "searching meter at 2400 8N1, unit 2" in said
