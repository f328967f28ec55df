# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from agent.settings import load_settings
from assent.errors import ConfigError

GOOD = """
[gateway]
state = "state"

[[device]]
id = "gateway"
kind = "gateway"
source = "host"
"""

METER = """
[gateway]
state = "state"

[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
profile = "sdm"
port = "/dev/serial/by-id/usb-x"
unit_id = 1
"""


def written(directory: Path, text: str) -> Path:
    (directory / "agent.toml").write_text(text)
    return directory


def complaints(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(directory, text))
    return [str(finding) for finding in caught.value.findings]


def test_relative_paths_start_beside_the_file(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, GOOD)).state == tmp_path / "state"


def test_defaults_are_the_safe_ones(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, GOOD))
    assert settings.trust == "synchronised"
    assert settings.quota_bytes == 64_000_000
    assert settings.commit_ms == 5_000
    assert settings.brokers == {}


def test_a_meter_is_named_by_its_port_and_unit(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "sdm.toml").touch()
    (meter,) = load_settings(written(tmp_path, METER)).devices
    assert (meter.port, meter.unit_id) == ("/dev/serial/by-id/usb-x", 1)
    for port, unit in (("tcp://192.0.2.1:502", 255), ("rfc2217://192.0.2.1:4000", 1)):
        text = METER.replace("/dev/serial/by-id/usb-x", port).replace("id = 1", f"id = {unit}")
        (meter,) = load_settings(written(tmp_path, text)).devices
        assert (meter.port, meter.unit_id) == (port, unit)


def test_the_shipped_example_loads(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "config" / "agent.toml"
    settings = load_settings(written(tmp_path, example.read_text()))
    assert [device.source for device in settings.devices] == ["host"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (GOOD.replace("state =", "stat ="), "agent.toml:3:1"),
        (GOOD + 'fresh = "10ms"\n', "expected at least every (1s), got 10ms"),
        (GOOD + 'every = "0s"\n', "expected a period above zero, got 0s"),
        (GOOD + "speed = -1.0\n", "expected a speed of zero or more, got -1"),
        (GOOD + 'profile = "nowhere"\n', "there is no profile 'nowhere'"),
        (GOOD.replace('"host"', '"replay"'), "a replay needs a port"),
        (GOOD.replace('"host"', '"hosd"'), "host"),
        (GOOD + '[[device]]\nid = "gateway"\nkind = "x"\nsource = "host"\n', "is used twice"),
        (GOOD.replace('state = "state"', 'state = "state"\nquota = "1 kB"'), "at least 1 MB"),
        (
            GOOD.replace('state = "state"', 'state = "state"\ncommit = "900ms"'),
            "agent.toml:4:1: expected an interval of at least 1s, got 900ms",
        ),
        (
            GOOD.replace('state = "state"', 'state = "state"\ncomit = "5s"'),
            "agent.toml:4:1: unknown key 'comit'",
        ),
        (GOOD.replace('"host"', '"modbus"'), "a Modbus device needs a port"),
        (GOOD.replace('"host"', '"modbus"'), "a Modbus device needs a profile"),
        (
            METER.replace("usb-x", "x").replace("serial/by-id/x", "ttyUSB0"),
            "agent.toml:10:1: /dev/ttyUSB0 is another device after the next plugging in",
        ),
        (
            METER.replace("/dev/serial/by-id/usb-x", "udp://192.0.2.1:502"),
            "expected a device node, tcp://host:port or rfc2217://host:port",
        ),
        (METER.replace("unit_id = 1", "unit_id = 0"), "expected a unit id from 1 to 247, got 0"),
        (
            METER.replace("unit_id = 1", "unit_id = 248"),
            "expected a unit id from 1 to 247, got 248",
        ),
        (
            METER.replace("unit_id = 1", "unit_id = 256"),
            "expected a unit id from 1 to 247, or 255, got",
        ),
        (GOOD + "unit_id = 1\n", "agent.toml:9:1: 'unit_id' is for source 'modbus'"),
        ("[gateway]\nstate = 3\n", "agent.toml:2:1"),
        ("not toml at all", "agent.toml:1:"),
    ],
    ids=[
        "a misspelt key has its place",
        "fresh is not below every",
        "a period is above zero",
        "a speed is not negative",
        "a profile exists",
        "a replay has a recording",
        "a source is known",
        "an id is used once",
        "a quota is not below a megabyte",
        "a commit is not below a second",
        "a misspelt commit has its place",
        "a bus has a port",
        "a meter has a profile",
        "a port keeps its name",
        "a port is of a known kind",
        "nobody is unit zero of a line",
        "a line has 247 units",
        "a unit id is a byte",
        "a unit id is of a bus",
        "a wrong type has its place",
        "no TOML is one finding",
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, broken: str, said: str) -> None:
    assert any(said in line for line in complaints(tmp_path, broken))


def test_all_findings_of_a_file_come_at_once(tmp_path: Path) -> None:
    broken = GOOD.replace("kind =", "kinds =") + 'every = "soon"\n'
    assert len(complaints(tmp_path, broken)) >= 3
