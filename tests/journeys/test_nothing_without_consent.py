# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves before a yes, and every way to break the law ends in nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from demo.stage import Stage, StageError, wait_until
from tests.journeys.parts import DEVICES, NO, YES, Doorbell

pytestmark = pytest.mark.journey

# Long enough for several turns of the owner and several looks of the uplink.
_WATCH_S = 1.5


def flows_of(status: dict[str, Any]) -> dict[str, str | None]:
    return {flow["flow"]: None if flow["on"] else flow["reason"] for flow in status["flows"]}


def watch(stage: Stage) -> dict[str, Any]:
    stage.start_agent()
    time.sleep(_WATCH_S)
    return stage.status()


@pytest.mark.clause("C01")
def test_a_fresh_gateway_trusts_nobody_and_connects_nowhere(
    recipients: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fresh = recipients.copied(tmp_path_factory.mktemp("fresh") / "stage")
    fresh.make_gateway(DEVICES)
    try:
        status = watch(fresh)
    finally:
        fresh.close()
    assert status["enrolled"] is False
    assert "no policy key is trusted" in status["policy_trouble"]
    assert status["flows"] == status["uplinks"] == []


@pytest.mark.clause("C01")
def test_silence_is_no(stage: Stage, doorbell: Doorbell) -> None:
    status = watch(stage)
    assert set(flows_of(status).values()) == {"not decided"}
    assert doorbell.rung == 0


@pytest.mark.clause("C01")
def test_every_flow_refused_core_included_connects_nowhere(
    stage: Stage, doorbell: Doorbell
) -> None:
    stage.decide(NO)
    status = watch(stage)
    assert set(flows_of(status).values()) == {"refused"}
    assert doorbell.rung == 0
    assert all(device["state"] == "not wanted" for device in status["devices"])


def test_the_twin_one_yes_connects(stage: Stage, doorbell: Doorbell) -> None:
    stage.decide(NO | {"service": '"accepted"'})
    status = watch(stage)
    assert flows_of(status)["service"] is None
    wait_until(lambda: doorbell.rung > 0, "the uplink rings")


def unsigned(stage: Stage) -> None:
    (stage.gateway / "policy.toml.cose").unlink()


def altered(stage: Stage) -> None:
    policy = stage.gateway / "policy.toml"
    policy.write_text(policy.read_text().replace('"90d"', '"91d"'))


def signed_by_another(stage: Stage) -> None:
    other = stage.root / "other"
    stage.backend("keygen", str(other), "--recipient", "maker", "--policy-key")
    copied = stage.root / "forged" / "policy.toml"
    shutil.copytree(stage.published, copied.parent)
    (copied.parent / "policy.toml.cose").unlink()
    stage.backend("sign-policy", str(copied), "--key", str(other / "keys/policy.key.cose"))
    shutil.copy(f"{copied}.cose", stage.gateway / "policy.toml.cose")


def another_key_file(stage: Stage) -> None:
    keys = stage.gateway / "keys"
    shutil.copy(keys / "energy-advice-2026.cose", keys / "maker-2026.cose")


def serial_gone_back(stage: Stage) -> None:
    older = stage.gateway / "policy.toml", stage.gateway / "policy.toml.cose"
    kept = [path.read_bytes() for path in older]
    raised = stage.publish(lambda text: text.replace("serial = 17", "serial = 18"))
    stage.assent("enrol", str(raised))
    for path, content in zip(older, kept, strict=True):
        path.write_bytes(content)


@pytest.mark.clause("C21")
@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (unsigned, "policy.toml.cose"),
        (altered, "sign"),
        (signed_by_another, "sign"),
        (another_key_file, "thumbprint"),
        (serial_gone_back, "serial"),
    ],
    ids=[
        "an unsigned policy",
        "a policy altered after it was signed",
        "a policy signed by another",
        "a key that does not match its thumbprint",
        "a serial that has gone back",
    ],
)
def test_a_policy_that_does_not_verify_runs_nothing(
    stage: Stage, doorbell: Doorbell, break_it: Callable[[Stage], None], why: str
) -> None:
    stage.decide(YES)
    break_it(stage)
    status = watch(stage)
    assert status["policy"] is None
    assert why in status["policy_trouble"]
    assert doorbell.rung == 0


@pytest.mark.clause("C33")
def test_a_form_that_breaks_later_pauses_the_optional_flows_only(stage: Stage) -> None:
    stage.decide(YES)
    stage.start_agent()
    assert set(flows_of(stage.status()).values()) == {None}
    (stage.gateway / "consent.toml").write_text("policy = ")
    stage.reload()
    wait_until(lambda: stage.status()["form_trouble"] is not None, "the form is seen to be broken")
    after = flows_of(stage.status())
    assert after == {
        "service": None,
        "remote-diagnosis": "consent form broken",
        "partner-energy-advice": "consent form broken",
    }


@pytest.mark.clause("C28")
def test_a_form_applied_again_does_not_bring_a_withdrawn_yes_back(stage: Stage) -> None:
    stage.decide(YES)
    stage.assent("consent", "withdraw", "remote-diagnosis")
    form = stage.gateway / "consent.toml"
    again = stage.assent("consent", "apply", str(form))
    assert "acted before" in again
    stage.start_agent()
    assert flows_of(stage.status())["remote-diagnosis"] == "withdrawn"


def test_the_agent_does_not_start_beside_itself(stage: Stage) -> None:
    stage.start_agent()
    with pytest.raises(StageError, match="ended with 3"):
        stage.assent("run")


@pytest.mark.clause("C28")
def test_a_typo_in_agent_toml_keeps_nobody_from_withdrawing(stage: Stage) -> None:
    stage.decide(YES)
    stage.start_agent()
    agent = stage.gateway / "agent.toml"
    agent.write_text(agent.read_text().replace('trust = "system"', 'trust = "systm"'))
    stage.assent("consent", "withdraw", "remote-diagnosis")
    assert flows_of(stage.status())["remote-diagnosis"] == "withdrawn"
