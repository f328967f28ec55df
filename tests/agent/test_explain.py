# SPDX-License-Identifier: Apache-2.0
"""Every flow that lists an attribute is explained by what the gate and the ledger say now."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.main import main
from assent.errors import RefusedError, UsageError
from tests.agent.installed import (
    ADVICE,
    AGENT,
    CORE,
    DIAGNOSIS,
    POWER,
    REPLAYED,
    YES,
    House,
    Json,
    copied,
    fresh,
    install_with,
    living,
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_with(tmp_path_factory.mktemp("installed") / "gateway", REPLAYED)


def explained(house: House, attribute: str = POWER) -> Json:
    return house.desk.answer({"verb": "explain", "attribute": attribute})


def flows(told: Json) -> dict[str, Json]:
    return {flow["flow"]: flow for flow in told["flows"]}


@pytest.mark.clause("C23")
def test_an_attribute_is_explained_flow_by_flow(house: House) -> None:
    house.decide(YES | {ADVICE: '{ decision = "given", without = ["appliance.power"] }'})
    told = explained(house)
    assert (told["attribute"], told["unit"], told["devices"]) == (POWER, "W", ("washer",))
    assert set(flows(told)) == {DIAGNOSIS, ADVICE}
    diagnosis, advice = flows(told)[DIAGNOSIS], flows(told)[ADVICE]
    assert (diagnosis["leaves"], diagnosis["transform"]) == (True, "round(1)")
    assert (diagnosis["recipient"], diagnosis["region"]) == ("maker", "CN")
    assert diagnosis["decided_by"] == "owner"
    newest = house.site.ledger.newest(DIAGNOSIS)
    assert newest is not None
    assert diagnosis["record"] == newest.id.hex()
    assert (advice["leaves"], advice["reason"]) == (False, "left out by the household")


@pytest.mark.clause("C23")
def test_what_is_explained_to_leave_is_what_the_lanes_carry(house: House) -> None:
    house.decide(YES | {DIAGNOSIS: '"refused"'})
    for name in house.site.policy.policy.attributes:  # type: ignore[union-attr]
        leaves = {flow for flow, one in flows(explained(house, name)).items() if one["leaves"]}
        lanes = house.pipeline.running.lanes().values()
        carried = {
            lane.permit.flow
            for lane in lanes
            if name in {carried.name for carried in lane.permit.carried}
        }
        assert leaves == carried
    assert flows(explained(house))[DIAGNOSIS]["reason"] == "refused"
    assert flows(explained(house, "appliance.fault"))[CORE]["leaves"]


def test_an_attribute_that_no_flow_lists_never_leaves(house: House) -> None:
    listed = {name for flow in house.site.policy.policy.flows.values() for name in flow.attributes}  # type: ignore[union-attr]
    unlisted = set(house.site.policy.policy.attributes) - listed  # type: ignore[union-attr]
    assert unlisted
    assert explained(house, min(unlisted))["flows"] == ()


def test_a_name_that_is_nearly_one_is_helped(house: House) -> None:
    with pytest.raises(UsageError, match=r"no attribute 'appliance\.powr'") as caught:
        explained(house, "appliance.powr")
    assert caught.value.hint == "did you mean appliance.power?"


def test_without_a_policy_nothing_can_be_explained(tmp_path: Path) -> None:
    with (
        living(fresh(tmp_path / "gateway", AGENT)) as house,
        pytest.raises(RefusedError, match="there is no policy to explain it by: no policy key"),
    ):
        explained(house)


def test_the_command_names_the_devices_of_an_agent_that_does_not_run(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(installed, tmp_path / "gateway")
    assert main(["explain", POWER, "--config", str(place)]) == 0
    assert capsys.readouterr().out.splitlines()[:9] == [
        "appliance.power",
        "  is        Electric power drawn by the appliance.",
        "  sort      sensor, W; personal",
        "  from      washer",
        "",
        "remote-diagnosis  (optional)",
        "  leaves    no: not decided",
        "  as        round(1)",
        "  to        maker (controller, CN); kept there 90d, then delete",
    ]


def test_a_flush_seals_what_is_open_and_says_how_much(house: House) -> None:
    house.decide(YES)
    assert house.desk.flush() == {"running": True, "messages": 0, "readings": 0}
    house.powers(100, 200, 300)
    told = house.desk.answer({"verb": "flush"})
    assert (told["messages"], told["readings"]) == (1, 3)
    assert house.spool.waiting()[DIAGNOSIS].batches == 1


def test_a_flush_without_an_agent_says_so(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(installed, tmp_path / "gateway")
    assert main(["flush", "--config", str(place)]) == 0
    assert capsys.readouterr().out == "no agent runs, so nothing is open\n"
