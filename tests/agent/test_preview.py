# SPDX-License-Identifier: Apache-2.0
"""A preview shows what would leave, and lets nothing leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from agent.cli.main import main
from agent.lane import Lane
from agent.path import Rehearsal
from agent.preview import Preview, preview
from agent.settings import load_settings
from agent.sight import long_enough_s, read_rarely
from assent.errors import RefusedError
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Instant, Sample
from tests.agent.installed import (
    ADVICE,
    AGENT,
    CORE,
    DIAGNOSIS,
    ENERGY,
    FAULT,
    POWER,
    REPLAYED,
    WASHER,
    WASHER_SERIAL,
    YES,
    House,
    copied,
    fresh,
    install_with,
    living,
)
from tests.simulators.clock import START_MS

ROWS = [f"2026-11-22T02:15:0{n}Z,{100 + n}.4,{n},30,1,eco,,{WASHER_SERIAL}" for n in range(5)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_with(tmp_path_factory.mktemp("installed") / "gateway", REPLAYED, ROWS)


def samples() -> list[Sample]:
    return [
        Sample(
            WASHER,
            Instant(START_MS + 1000 * n, n, trusted=True),
            (POWER, ENERGY, "appliance.door", "device.serial"),
            (100.4 + n, 10.0 * n, True, WASHER_SERIAL),
        )
        for n in range(3)
    ]


def shown(house: House) -> Preview:
    assert house.site.policy is not None
    return preview(house.site.policy.policy, house.pipeline.verdicts, samples())


def test_what_is_shown_of_a_flow_that_is_on_is_what_its_batch_holds(house: House) -> None:
    house.decide(YES)
    flow = next(one for one in shown(house).flows if one.flow == DIAGNOSIS)
    lane = house.pipeline.running.lanes()[DIAGNOSIS]
    for sample in samples():
        take = lane.compile(sample.device, sample.names)
        assert take is not None
        take(sample.at.wall_ms + 2000, sample.values)  # after the yes
    batch = lane.close()
    assert batch is not None
    (table,) = batch.tables
    power = next(column for column in table.columns if column.attribute == POWER)
    assert power.quantum is not None
    assert [row.value for row in flow.rows if row.attribute == POWER] == list(
        power.quantum.values_of(cast("list[int]", list(power.values)))
    )
    assert (flow.on, flow.reason, flow.recipient) == (True, "", "maker")
    assert {row.unit for row in flow.rows if row.attribute == POWER} == {"W"}


@pytest.mark.clause("C05")
def test_pseudonyms_of_a_preview_are_thrown_away(house: House) -> None:
    house.decide(YES)
    once, again = (
        {row.value for flow in shown(house).flows for row in flow.rows if "serial" in row.attribute}
        for _ in range(2)
    )
    assert len(once) == 1
    assert once.isdisjoint(again)
    assert WASHER_SERIAL not in json.dumps(sorted(map(str, once | again)))


@pytest.mark.clause("C01")
def test_a_flow_that_is_off_is_shown_as_a_yes_would_have_it_and_stays_off(house: House) -> None:
    seen = shown(house)
    flow = next(one for one in seen.flows if one.flow == DIAGNOSIS)
    assert (flow.on, flow.reason) == (False, "not decided")
    assert [row.value for row in flow.rows if row.attribute == POWER] == [100, 101, 102]
    assert house.pipeline.running.lanes() == {}
    assert house.spool.waiting() == {}


def test_what_the_household_left_out_is_held_back(house: House) -> None:
    house.decide(
        {
            CORE: '"accepted"',
            DIAGNOSIS: '{ decision = "given", without = ["device.serial"] }',
            ADVICE: '"refused"',
        }
    )
    held = shown(house).held_back
    assert held == {
        "appliance.door": "no flow of the policy lists it",
        ENERGY: "partner-energy-advice: refused",
        "device.serial": "remote-diagnosis: left out by the household",
    }
    flow = next(one for one in shown(house).flows if one.flow == DIAGNOSIS)
    assert {row.attribute for row in flow.rows} == {POWER}


def test_a_window_that_has_not_ended_shows_no_value_and_how_many_it_holds(house: House) -> None:
    flow = next(one for one in shown(house).flows if one.flow == ADVICE)
    assert flow.in_windows == 3
    assert {row.attribute for row in flow.rows} == {ENERGY}  # the increases


def test_no_lane_is_built_from_a_rehearsal() -> None:
    rehearsal = Rehearsal(
        flow=DIAGNOSIS,
        carried=(),
        not_before_ms=0,
        not_after_ms=None,
        epoch_ms=1,
        max_readings=1,
        urgent=frozenset(),
    )
    with pytest.raises(TypeError, match="a lane is built from a permit"):
        Lane(rehearsal, bytes(32), 1, 0)  # type: ignore[arg-type]


def test_without_a_policy_there_is_nothing_to_preview(tmp_path: Path) -> None:
    with (
        living(fresh(tmp_path / "gateway", AGENT)) as house,
        pytest.raises(RefusedError, match="there is no policy to preview by: no policy key"),
    ):
        house.desk.answer({"verb": "preview", "viewer": "a", "devices": []})


def test_the_command_reads_a_device_that_nobody_agreed_to_and_sends_nothing(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(installed, tmp_path / "gateway")
    assert main(["preview", "--for", "1s", "--config", str(place)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 samples read, nothing sent; the pseudonyms are invented"
    at = lines.index("remote-diagnosis  (optional, to maker)")
    assert lines[at + 1] == "  off: not decided; with a yes it would be"
    powers = [line.split("  ")[-1] for line in lines if "appliance.power  " in line]
    assert powers == [
        "102 W",
        "103 W",
        "104 W",
        "remote-diagnosis: not decided; partner-energy-advice: not decided",
    ]
    assert WASHER_SERIAL not in "\n".join(lines)
    with living(place) as house:
        assert house.spool.waiting() == {}
        assert house.spool.sent(10, None) == ()


@pytest.mark.parametrize(
    ("every", "look_s", "rarely"),
    [("1s", 5.0, {}), ("10s", 11.0, {}), ("20s", 15.0, {"gateway": "20s"})],
)
def test_a_look_lasts_until_each_device_was_read_once(
    installed: Path, tmp_path: Path, every: str, look_s: float, rarely: dict[str, str]
) -> None:
    place = copied(installed, tmp_path / "gateway")
    with (place / "agent.toml").open("a") as file:
        file.write('[[device]]\nid = "gateway"\nkind = "gateway"\nsource = "host"\n')
        file.write(f'every = "{every}"\n')
    settings = load_settings(place)
    assert long_enough_s(settings, 5.0) == look_s
    assert read_rarely(settings, look_s) == rarely


@pytest.mark.skipif(Clock().now().trusted, reason="a time service sets this machine's clock")
def test_a_clock_that_is_not_trusted_is_told_beside_the_preview(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(installed, tmp_path / "gateway")
    assert main(["preview", "--for", "100ms", "--config", str(place)]) == 0
    assert "clock" not in capsys.readouterr().out
    path = place / "agent.toml"
    path.write_text(path.read_text().replace('trust = "system"', 'trust = "synchronised"'))
    assert main(["preview", "--for", "100ms", "--config", str(place)]) == 0
    assert "the clock is not trusted: nothing leaves before it is" in capsys.readouterr().out


@pytest.mark.parametrize("attribute", [FAULT, POWER])
def test_what_did_not_come_is_not_held_back(house: House, attribute: str) -> None:
    held = shown(house).held_back
    assert (attribute in held) == (attribute == POWER)
