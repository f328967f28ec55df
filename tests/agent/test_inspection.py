# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.inspection import inspect, read_files
from tests.agent.installed import filled_in
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
        f"profiles/{profile}": f"config/profiles/{profile}",
        "washing-machine.csv": "demo/recording/washing-machine.csv",
    }
    (tmp_path / "profiles").mkdir()
    for name, source in copies.items():
        (tmp_path / name).write_text((REPO / source).read_text())
    (tmp_path / "consent.toml").write_text(filled_in())
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


COUNTED = """\
[profile]
source = "modbus"
about = "a meter whose document counts from 30001"
facts = "none"
[[field]]
attribute = "appliance.power"
table = "input"
address = 30013
type = "float32"
"""


TWO = """
[[device]]
id = "{}"
kind = "electricity-meter"
source = "modbus"
port = "{}"
unit_id = {}
profile = "counted"
"""


@pytest.mark.parametrize(
    ("place", "unit", "found"),
    [
        ("by-id", 7, ["17:1"]),
        ("by-path", 7, ["17:1"]),
        ("by-path", 8, []),
        ("other", 7, []),
        ("tcp://192.0.2.1:502", 7, []),
    ],
    ids=[
        "the same port and unit",
        "another name of the same port",
        "another unit",
        "another port",
        "a unit elsewhere",
    ],
)
def test_one_device_that_would_be_read_twice_is_found_and_both_are_named(
    tmp_path: Path, place: str, unit: int, found: list[str]
) -> None:
    for name in ("adapter", "other"):
        (tmp_path / name).touch()
    for name in ("by-id", "by-path"):
        (tmp_path / name).symlink_to("adapter")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/counted.toml").write_text(COUNTED.replace("30013", "12"))
    text = '[gateway]\nstate = "state"\n'
    text += TWO.format("cellar", "by-id", 7) + TWO.format("kitchen", place, unit)
    (tmp_path / "agent.toml").write_text(text)
    sentence = "'kitchen' and 'cellar' of line 4 have the same port and unit"
    told = [line for line in said(tmp_path) if sentence in line]
    assert [line.split(":", 1)[1].split(": ")[0] for line in told] == found


COUNTING = """\
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "/dev/null"
profile = "counted"
"""


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
        (
            "agent.toml",
            'state = "state"',
            f'state = "state"\n{COUNTING}',
            "counted.toml:8:1: warning: addresses are zero-based",
        ),
        ("policy.toml", "controller =", "contoller =", "policy.toml:"),
        ("consent.toml", "remote-diagnosis", "remote-diagnosys", "consent.toml:"),
    ],
    ids=[
        "a broker that the policy does not name",
        "a recipient that the policy does not have",
        "a recording that is not there",
        "a profile's attribute that the dictionary does not have",
        "an address as a document counts it",
        "a misspelt key of the policy",
        "a flow that the policy does not have",
    ],
)
def test_what_one_file_says_of_another_is_checked(
    installed: Path, file: str, old: str, new: str, finding: str
) -> None:
    text = (installed / file).read_text()
    assert old in text
    (installed / "profiles" / "counted.toml").write_text(COUNTED)
    (installed / file).write_text(text.replace(old, new))
    assert any(finding in line for line in said(installed)), said(installed)


def sold(*attributes: str) -> str:
    head = '[profile]\nsource = "replay"\nabout = "a meter"\nfacts = "none"\ncsv = { time = 1 }\n'
    fields = [
        f'[[field]]\nattribute = "{name}"\ncolumn = {number}\n'
        for number, name in enumerate(attributes, 2)
    ]
    return head + "".join(fields)


@pytest.mark.parametrize(
    ("attributes", "findings"),
    [
        (
            ["appliance.power", "appliance.power.l1", "appliance.reactive-power", "appliance.thd"],
            [],
        ),
        (
            ["appliance.powr", "appliance.energy", "appliance.power.l1"],
            [":7:1: warning: the policy's dictionary has no attribute 'appliance.powr'"],
        ),
        (
            ["appliance.power.l1", "appliance.power.l2", "appliance.thd"],
            [":1:2: warning: the policy's dictionary has no attribute of this profile"],
        ),
        (
            ["appliance.powr", "aplliance.energy"],
            [
                ":7:1: warning: the policy's dictionary has no attribute 'appliance.powr'",
                ":10:1: warning: the policy's dictionary has no attribute 'aplliance.energy'",
                ":1:2: warning: the policy's dictionary has no attribute of this profile",
            ],
        ),
    ],
    ids=[
        "a shared profile may name more than a policy",
        "a slip is named, another phase is none",
        "a profile of which nothing can leave is one line",
        "slips are named beside it",
    ],
)
def test_what_a_profile_names_and_the_dictionary_lacks_is_told_where_it_is_a_slip(
    installed: Path, attributes: list[str], findings: list[str]
) -> None:
    name = "profiles/replay-washing-machine.toml"
    (installed / name).write_text(sold(*attributes))
    told = said(installed)
    assert len(told) == len(findings), told
    for line, finding in zip(told, findings, strict=True):
        assert line.startswith(name + finding), told


def test_names_that_are_alike_and_both_in_use_are_no_slip(installed: Path) -> None:
    policy = (installed / "policy.toml").read_text()
    charged = '[attributes."battery.discharged"]\nkind = "sensor"\ntype = "integer"\nunit = "Wh"\n'
    charged += 'quantum = 1\nabout = "a"\nowner = "b"\nreview = 2027-11-30\n\n'
    (installed / "policy.toml").write_text(policy.replace("# The appliance beside it.", charged, 1))
    name = "profiles/replay-washing-machine.toml"
    (installed / name).write_text(sold("battery.charged", "battery.discharged"))
    assert said(installed) == []
    (installed / name).write_text(sold("battery.charged", "appliance.power"))
    assert "did you mean 'battery.discharged'?" in "".join(said(installed))


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
