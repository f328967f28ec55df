# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.inspection import inspect, read_files
from tests.test_house import REPO

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
AGENT = """\
[gateway]
state = "state"

[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "washing-machine.csv"
profile = "replay-washing-machine"
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Every file of a gateway, and nothing wrong with any."""
    profile = "replay-washing-machine.toml"
    copies = {
        "policy.toml": "config/policy.toml",
        "consent.toml": "config/consent.toml",
        f"profiles/{profile}": f"config/profiles/{profile}",
        "washing-machine.csv": "demo/recording/washing-machine.csv",
    }
    (tmp_path / "profiles").mkdir()
    for name, source in copies.items():
        (tmp_path / name).write_text((REPO / source).read_text())
    (tmp_path / "agent.toml").write_text(AGENT)
    return tmp_path


def said(directory: Path) -> list[str]:
    return [str(finding).removeprefix(f"{directory}/") for finding in inspect(directory, NOW)]


def test_nothing_wrong_is_no_finding(installed: Path) -> None:
    assert said(installed) == []
    assert read_files(installed) == ["agent.toml", "policy.toml", "consent.toml"]


def test_a_gateway_without_policy_and_form_is_no_mistake(installed: Path) -> None:
    (installed / "policy.toml").unlink()
    (installed / "consent.toml").unlink()
    assert said(installed) == []
    assert read_files(installed) == ["agent.toml"]


@pytest.mark.clause("C14")
@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        (
            "agent.toml",
            'state = "state"',
            'state = "state"\n[uplink.maker]\nbroker = "mqtts://elsewhere.example.com:8883"',
            "agent.toml:4:1: the policy names no such broker for 'maker'",
        ),
        (
            "agent.toml",
            'state = "state"',
            'state = "state"\n[uplink.makr]\nbroker = "mqtts://ingest.example.com:8883"',
            "agent.toml:3:9: the policy has no recipient 'makr'",
        ),
        (
            "agent.toml",
            'port = "washing-machine.csv"',
            'port = "none.csv"',
            "agent.toml:8:1: there is no file ",
        ),
        (
            "profiles/replay-washing-machine.toml",
            '"appliance.energy"',
            '"appliance.enrgy"',
            "warning: the policy's dictionary has no attribute 'appliance.enrgy'",
        ),
        ("policy.toml", "controller =", "contoller =", "policy.toml:"),
        ("consent.toml", "remote-diagnosis", "remote-diagnosys", "consent.toml:"),
    ],
    ids=[
        "a broker that the policy does not name",
        "a recipient that the policy does not have",
        "a recording that is not there",
        "a profile's attribute that the dictionary does not have",
        "a misspelt key of the policy",
        "a flow that the policy does not have",
    ],
)
def test_what_one_file_says_of_another_is_checked(
    installed: Path, file: str, old: str, new: str, finding: str
) -> None:
    text = (installed / file).read_text()
    assert old in text
    (installed / file).write_text(text.replace(old, new))
    assert any(finding in line for line in said(installed)), said(installed)


def test_a_profile_of_another_language_is_named(installed: Path) -> None:
    (installed / "profiles/sdm.toml").write_text(
        (REPO / "config/profiles/eastron-sdm120.toml").read_text()
    )
    meter = '[[device]]\nid = "meter"\nkind = "meter"\nsource = "modbus"\nport = "/dev/ttyAMA0"\n'
    agent = installed / "agent.toml"
    agent.write_text(f'{AGENT}\n{meter}profile = "sdm"\n')
    assert said(installed) == []
    agent.write_text(f'{AGENT}\n{meter}profile = "replay-washing-machine"\n')
    message = "this profile is for source 'replay', the device is 'modbus'"
    assert said(installed) == [f"agent.toml:16:1: {message}"]
