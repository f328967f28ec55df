# SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is wrong, says what to do, and gives nobody away."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.answers import Status, read
from agent.cli.main import main
from agent.doctor import Check, Health, examine
from assent.errors import ControlError
from tests.agent.installed import (
    CORE,
    DIAGNOSIS,
    WASHER_SERIAL,
    YES,
    House,
    copied,
    fresh,
    install,
    living,
)

NOW = dt.datetime(2026, 11, 22, 10, 15, tzinfo=dt.UTC)
DEVICE = """
[[device]]
id = "canary-kitchen-of-somebody"
kind = "washing-machine"
source = "replay"
port = "canary-recording.csv"
profile = "replay-washing-machine"
speed = 0.0
"""
ROW = "time,power,energy,water,door,program,fault,serial\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = install(tmp_path_factory.mktemp("installed") / "gateway")
    (directory / "canary-recording.csv").write_text(
        f"{ROW}2026-11-22T02:15:00Z,2000,1,30,1,eco,,{WASHER_SERIAL}\n"
    )
    with (directory / "agent.toml").open("a") as file:
        file.write(DEVICE)
    return directory


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def house(place: Path) -> Iterator[House]:
    with living(place) as house:
        yield house


def checks(house: House) -> dict[str, Check]:
    return checks_of(house, house.desk.status())


def checks_of(house: House, status: dict[str, Any]) -> dict[str, Check]:
    found = examine(house.directory, NOW, lambda: read(status, Status))
    return {one.subject: one for one in found}


def test_a_gateway_in_order_has_no_fault(house: House) -> None:
    house.decide(YES)
    found = checks(house)
    assert [one for one in found.values() if one.health is Health.BAD] == []
    assert found["files"].health is Health.GOOD
    assert found["disk"].told.endswith("MB are free")
    assert found["policy"].told == "example-appliances 2026-11-01, serial 17"
    assert found[f"flow {DIAGNOSIS}"].told == "is on; last acknowledged: never"
    assert found["certificate maker"].told.startswith("is good until 20")


def test_a_certificate_that_ends_soon_is_to_be_renewed(house: House) -> None:
    house.decide(YES)
    status = house.desk.status()
    status["certificates"][0]["due"] = "it ends in 12 days"
    found = checks_of(house, status)
    name = status["certificates"][0]["recipient"]
    assert found[f"certificate {name}"].health is Health.ODD
    assert found[f"certificate {name}"].help == f"type: assent enrol --renew {name}"


@pytest.mark.parametrize(
    ("state", "detail", "health", "told"),
    [
        ("running", "", Health.GOOD, "washing-machine, running"),
        (
            "running",
            "1 of 2 fields fails: unit 1 refuses input register 342",
            Health.ODD,
            "washing-machine, running: 1 of 2 fields fails: unit 1 refuses input register 342",
        ),
        (
            "failed",
            "the serial port may not be opened",
            Health.BAD,
            "washing-machine, failed: the serial port may not be opened",
        ),
        ("failed", "canary.toml:1:2: bad", Health.BAD, "washing-machine, failed"),
        ("failed", "unit 1 of /dev/canary is silent", Health.BAD, "washing-machine, failed"),
    ],
    ids=["well", "a part fails", "not opened", "a file is named", "a port is named"],
)
def test_a_device_is_told_with_a_reason_that_names_nothing_private(
    house: House, state: str, detail: str, health: Health, told: str
) -> None:
    status = house.desk.status()
    device = {"kind": "washing-machine", "state": state, "detail": detail, "age_s": None}
    status["devices"] = [device | {"id": "canary", "samples": 0, "held_back": {}}]
    found = checks_of(house, status)
    assert (found["device 1"].health, found["device 1"].told) == (health, told)
    needs_status = health is Health.BAD and ":" not in told
    assert ("see: assent status" in found["device 1"].help) is needs_status


def test_an_uplink_that_does_not_run_is_to_be_started(house: House) -> None:
    house.decide(YES)
    found = checks(house)["uplink maker"]
    assert (found.health, found.told) == (Health.ODD, "no uplink runs")
    assert found.help == "start it; its log says why the last one ended"


def test_both_ways_to_a_clock_and_the_way_back_to_a_policy_are_told(house: House) -> None:
    house.decide(YES)
    status = house.desk.status()
    assert "notices" not in checks(house)
    status |= {"clock": "not trusted yet: nothing is collected", "clock_trusted": False}
    status |= {"policy": None, "notices": ["one"]}
    found = checks_of(house, status)
    assert "timedatectl" in found["clock"].help
    assert 'trust = "system"' in found["clock"].help
    assert "assent enrol MAKER.bundle" in found["policy"].help
    assert found["notices"] == Check(
        "notices", Health.ODD, "the agent has 1 to tell", "see: assent status"
    )


def test_what_nobody_decided_is_to_be_asked_and_a_no_is_respected(house: House) -> None:
    house.decide({CORE: '"refused"'})
    found = checks(house)
    assert found[f"flow {CORE}"] == Check(
        f"flow {CORE}", Health.GOOD, "is off: refused by the household"
    )
    assert found[f"flow {DIAGNOSIS}"].health is Health.ODD
    assert found[f"flow {DIAGNOSIS}"].help == "ask the household: assent consent ask"
    assert found["consent"].health is Health.ODD


def test_a_wrong_file_is_named_by_its_place_alone(house: House) -> None:
    form = house.directory / "consent.toml"
    form.write_text('policy = "2026-11-01"\ndecided_by = "canary.owner@example.com"\n')
    house.desk.reload()
    found = checks(house)
    assert found["files"].told == "consent.toml:1:1 is wrong, and 3 more"
    assert found["form"].told == "is not usable, so that optional flows pause"


def test_a_bad_agent_toml_ends_the_examination_with_a_sentence(place: Path) -> None:
    (place / "agent.toml").write_text("[gateway\n")
    found = list(examine(place, NOW, _never))
    assert [one.health for one in found] == [Health.BAD, Health.ODD]  # one fault, told once
    assert found[0].told.startswith("agent.toml:1:9 is wrong")


def test_an_agent_that_does_not_answer_is_told_and_the_rest_is_looked_at(place: Path) -> None:
    found = {one.subject: one for one in examine(place, NOW, _silent)}
    assert found["agent"].health is Health.BAD
    assert "no answer came" in found["agent"].told
    assert found["disk"].health is Health.GOOD


def test_a_state_directory_that_others_may_enter_is_a_fault(house: House) -> None:
    house.site.settings.state.chmod(0o755)
    assert checks(house)["state"].told == "others may enter the state directory"
    house.site.settings.state.chmod(0o710)
    assert checks(house)["state"].health is Health.GOOD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_root_left_behind_is_a_fault(house: House) -> None:
    os.chown(house.site.settings.state / "ledger.json", 65_534, -1)
    found = checks(house)["state"]
    assert found.told.startswith("1 of its files belong to another user than")
    assert "chown -R" in found.help


def test_a_full_disk_and_one_that_is_too_small_for_the_quota_are_told(house: House) -> None:
    free = shutil.disk_usage(house.directory).free
    agent = house.directory / "agent.toml"
    quota = f'state = "state"\nquota = "{free // 1_000_000} MB"'
    agent.write_text(agent.read_text().replace('state = "state"', quota))
    found = checks(house)["disk"]
    assert found.health is Health.ODD
    assert "the quota may need" in found.told


def test_a_port_is_looked_at_as_the_agents_user_would(house: House) -> None:
    main_end, node = pty.openpty()
    port = os.ttyname(node)
    try:
        agent = house.directory / "agent.toml"
        text = agent.read_text()

        def look(at: str) -> Check:
            agent.write_text(text.replace("canary-recording.csv", at))
            return checks(house)["port 1"]

        assert "by a name that another plug may get" in look(port).told
        assert look("/dev/canary-usb-serial-0001").told == "is not there"
        assert look("/dev/null-and-more/x").health is Health.BAD
        assert look("/dev/shm").told == "is no serial port"
    finally:
        os.close(main_end)
        os.close(node)


@pytest.mark.clause("C21")
def test_nothing_private_is_said(house: House) -> None:
    house.decide(YES)
    house.turn()
    agent = house.directory / "agent.toml"
    agent.write_text(agent.read_text().replace("canary-recording.csv", "/dev/serial/by-id/canary"))
    (house.directory / "consent.toml").write_text('decided_by = "canary.owner@example.com"\n')
    house.desk.reload()
    said = " ".join(f"{one.subject} {one.told} {one.help}" for one in checks(house).values())
    private = ["canary", WASHER_SERIAL, str(house.directory), "installer 4711"]
    private += [house.site.keys.gateway(name).mailbox for name in ("maker", "energy-advice")]
    assert [word for word in private if word in said] == []
    assert "washing-machine" in said


def test_the_command_says_what_is_wrong_and_exits_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = fresh(tmp_path / "gateway")
    assert main(["doctor", "--config", str(place), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    policy = next(one for one in told["checks"] if one["subject"] == "policy")
    assert policy == {
        "subject": "policy",
        "health": "bad",
        "told": "no policy key is trusted",
        "help": "type: assent enrol MAKER.bundle --thumbprint TEXT",
    }
    assert main(["doctor", "--config", str(place)]) == 1
    assert not (place / "state").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "files", "no", "mistakes", "in", "agent.toml"]
    assert lines[-1].startswith("1 fault, ")
    assert lines[-2] == "each assent command takes the --config of this one"
    assert str(place) not in "\n".join(lines)


def _never() -> Status:
    raise AssertionError("nothing is asked when agent.toml is wrong")


def _silent() -> Status:
    raise ControlError("no answer came within 60 s", hint="see its log")
