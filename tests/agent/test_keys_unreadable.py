# SPDX-License-Identifier: Apache-2.0
"""A key file that is damaged or lost stops what rests on it, says so, and nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.enrol import enrol, renew
from agent.settings import load_settings
from agent.site import open_site
from assent.cosekey import thumbprint_text
from assent.enrolment import decode_request
from assent.errors import KeyStoreError
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    MAKER,
    MINUTE,
    YES,
    House,
    copied,
    living,
    requests,
    values,
)
from tests.simulators.clock import ManualClock

Damage = Callable[[Path], object]

UNREADABLE = "key cannot be read"
GATEWAY = Path("state") / "keys" / "gateways" / "maker.key"
SECRET = Path("state") / "keys" / "flows" / "maker" / f"{DIAGNOSIS}.key"
POLICY_KEY = Path("state") / "keys" / "policy.key"
PAIR = Path("state") / "keys" / "tls" / "maker.pem"


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGES: dict[str, Damage] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "flipped": flip,
}
PRESENT = ["empty", "cut", "flipped"]


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    """A gateway that has run: every flow is agreed to and a batch of each of the maker's waits."""
    directory = copied(installed, tmp_path / "gateway")
    with living(directory) as house:
        house.decide(YES)
        house.powers(1, 2)
        house.pipeline.flush()
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))
        assert house.waiting(DIAGNOSIS) == 1
    return directory


def told(house: House, flow: str) -> str:
    found = next(one for one in house.desk.status()["flows"] if one["flow"] == flow)
    return str(found["detail"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_gateway_key_stops_its_recipient_and_nothing_else(
    gateway: Path, damage: str
) -> None:
    """Red without `Keys.trouble`: the agent does not start."""
    DAMAGES[damage](gateway / GATEWAY)
    with living(gateway) as house:
        assert house.on() == {CORE: UNREADABLE, DIAGNOSIS: UNREADABLE, ADVICE: None}
        assert "keys/gateways/maker.key" in told(house, DIAGNOSIS)
        assert "assent enrol --renew maker" in told(house, DIAGNOSIS)
        house.connect("maker")  # the uplink still was when we ended; it is not greeted
        house.powers(3, 4)
        house.turn(2 * MINUTE)
        house.powers(5, 6)
        house.turn(2 * MINUTE)
        house.pipeline.flush()
        assert house.waiting(ADVICE) > 0
        assert house.waiting(DIAGNOSIS) == 1
        with house.carrier() as carrier:
            now_ms = house.clock.now().wall_ms
            assert [one.recipient for one in carrier.targets(now_ms)] == ["energy-advice"]
            assert carrier.lease("maker", 10, now_ms) == []
        house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
        assert house.on()[DIAGNOSIS] == "withdrawn"
        house.turn()
        assert house.waiting(DIAGNOSIS) == 0


@pytest.mark.parametrize("verb", ["status", "doctor"])
def test_status_and_doctor_name_the_file_and_what_helps(
    gateway: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(gateway / GATEWAY)
    main([verb, "--config", str(gateway)])
    printed = capsys.readouterr().out
    assert "keys/gateways/maker.key: maker.key does not open" in printed
    assert "assent enrol --renew maker" in printed


@pytest.mark.parametrize("file", [GATEWAY, SECRET], ids=["gateway", "flow"])
def test_a_key_file_that_is_put_back_is_read_within_a_minute(gateway: Path, file: Path) -> None:
    """Red where the gate is asked at the next act only."""
    before = (gateway / file).read_bytes()
    flip(gateway / file)
    with living(gateway) as house:
        assert house.on()[DIAGNOSIS] == UNREADABLE
        house.turn(2 * MINUTE)
        assert house.on()[DIAGNOSIS] == UNREADABLE
        (gateway / file).write_bytes(before)
        house.turn(MINUTE)
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))
        assert house.leases("maker")


def test_a_gateway_key_is_made_anew_by_asking_to_be_let_in_again(gateway: Path) -> None:
    flip(gateway / GATEWAY)
    mailbox = decode_request(requests(gateway)["maker"]).mailbox
    with living(gateway) as house:
        house.desk.answer({"verb": "renew", "recipient": "energy-advice"})  # the twin
        assert house.on()[CORE] == UNREADABLE
    renew(gateway, "maker")
    assert decode_request(requests(gateway)["maker"]).mailbox != mailbox
    with living(gateway) as house:
        assert house.on() == {CORE: "not enrolled", DIAGNOSIS: "not enrolled", ADVICE: None}
        assert house.waiting(DIAGNOSIS) == 0  # sealed by another gateway, as the maker sees it
    enrol(gateway, MAKER.recipients["maker"].admission(requests(gateway)["maker"]))
    with living(gateway) as house:
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))
        house.powers(5, 6)
        house.pipeline.flush()
        assert values(house.batches(DIAGNOSIS), "appliance.power") == [5, 6]
        assert "PURGE" in {gap.cause.name for gap in house.spool.gaps_for(DIAGNOSIS)}


def test_the_twin_a_gateway_key_that_opens_is_never_made_anew(gateway: Path) -> None:
    before = (gateway / GATEWAY).read_bytes()
    renew(gateway, "maker")
    assert (gateway / GATEWAY).read_bytes() == before
    (gateway / GATEWAY).chmod(0o644)
    with pytest.raises(KeyStoreError, match="mode 0644"):
        renew(gateway, "maker")
    assert (gateway / GATEWAY).read_bytes() == before
    with living(gateway) as house:
        assert "chmod 0600" in told(house, CORE)


@pytest.mark.parametrize("damage", PRESENT)
def test_a_damaged_secret_stops_its_flow_until_the_household_decides_again(
    gateway: Path, damage: str
) -> None:
    with living(gateway) as house:
        before = house.site.keys.flow_secret("maker", DIAGNOSIS)
    DAMAGES[damage](gateway / SECRET)
    damaged = (gateway / SECRET).read_bytes()
    clock = ManualClock()
    with living(gateway, clock) as house:
        assert house.on() == {CORE: None, DIAGNOSIS: UNREADABLE, ADVICE: None}
        assert f"keys/flows/maker/{DIAGNOSIS}.key" in told(house, DIAGNOSIS)
        assert f"assent consent withdraw {DIAGNOSIS}" in told(house, DIAGNOSIS)
        assert (gateway / SECRET).read_bytes() == damaged
        assert house.waiting(DIAGNOSIS) == 1
        clock.advance(MINUTE)
        house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
        clock.advance(MINUTE)
        house.decide({DIAGNOSIS: '{ decision = "given", on = 2026-11-22T02:16:30Z }'})
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))
        assert house.site.keys.flow_secret("maker", DIAGNOSIS) != before


def test_the_twin_a_no_leaves_a_secret_that_opens(gateway: Path) -> None:
    with living(gateway) as house:
        before = house.site.keys.flow_secret("maker", DIAGNOSIS)
        house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
        assert house.site.keys.flow_secret("maker", DIAGNOSIS) == before


@pytest.mark.parametrize("damage", PRESENT)
def test_a_damaged_policy_key_pauses_every_flow_and_takes_the_makers_thumbprint(
    gateway: Path, damage: str
) -> None:
    DAMAGES[damage](gateway / POLICY_KEY)
    with living(gateway) as house:
        status = house.desk.status()
        assert status["enrolled"]
        assert status["policy"] is None
        assert "keys/policy.key" in status["policy_trouble"]
        assert "--thumbprint" in status["policy_trouble"]
        assert house.waiting(DIAGNOSIS) == 1
        assert house.leases("maker") == []
        house.desk.answer({"verb": "refuse", "flow": ADVICE})
    with pytest.raises(KeyStoreError) as caught:
        enrol(gateway, MAKER.bundle())
    assert "--thumbprint" in (caught.value.hint or "")
    enrol(gateway, MAKER.bundle(), expected=thumbprint_text(MAKER.key.public.thumbprint))
    with living(gateway) as house:
        assert house.on() == {CORE: None, DIAGNOSIS: None, ADVICE: "withdrawn"}
        assert house.leases("maker")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pair_is_told_and_mended_by_asking_anew(gateway: Path, damage: str) -> None:
    DAMAGES[damage](gateway / PAIR)
    with living(gateway) as house:
        assert house.on()[ADVICE] is None
        notices = " ".join(house.desk.status()["notices"])
        assert (damage == "empty") == ("keys/tls/maker.pem is damaged" in notices)
    renew(gateway, "maker")
    enrol(gateway, MAKER.recipients["maker"].admission(requests(gateway)["maker"]))
    with living(gateway) as house:
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))


def test_a_damaged_key_that_waits_for_its_certificate_is_asked_for_anew(gateway: Path) -> None:
    renew(gateway, "maker")
    flip(gateway / "state" / "keys" / "requests" / "maker.key")
    stale = MAKER.recipients["maker"].admission(requests(gateway)["maker"])
    renew(gateway, "maker")
    with pytest.raises(KeyStoreError, match="another TLS key"):
        enrol(gateway, stale)
    enrol(gateway, MAKER.recipients["maker"].admission(requests(gateway)["maker"]))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_key_is_made_anew(gateway: Path, damage: str) -> None:
    with living(gateway) as house:
        house.powers(5)
        house.turn(MINUTE // 2)
    DAMAGES[damage](gateway / "state" / "keys" / "journal.key")
    with living(gateway) as house:
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))


@pytest.mark.parametrize("name", ["wrapping.key", "ledger.key"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_without_wrapping_or_ledger_key_nothing_runs_and_every_command_says_why(
    gateway: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](gateway / "state" / "keys" / name)
    kept = {p: p.read_bytes() for p in (gateway / "state").rglob("*.key")}
    with pytest.raises(KeyStoreError):
        open_site(load_settings(gateway), ManualClock())
    for verb in ("status", "doctor"):
        assert main([verb, "--config", str(gateway)]) != 0
        printed = capsys.readouterr()
        assert "enrol again, and the household decides again" in printed.out + printed.err or (
            name == "wrapping.key" and "expected a wrapping key" in printed.out + printed.err
        )
    assert {p: p.read_bytes() for p in (gateway / "state").rglob("*.key")} == kept


def test_without_its_keys_a_gateway_enrols_anew_and_the_household_decides_again(
    gateway: Path,
) -> None:
    flip(gateway / "state" / "keys" / "ledger.key")
    thumbprint = thumbprint_text(MAKER.key.public.thumbprint)
    with pytest.raises(KeyStoreError):  # the twin
        enrol(gateway, MAKER.bundle(), expected=thumbprint)
    shutil.rmtree(gateway / "state" / "keys")
    enrol(gateway, MAKER.bundle(), expected=thumbprint)
    for recipient, request in requests(gateway).items():
        enrol(gateway, MAKER.recipients[recipient].admission(request))
    # Enrolling goes by the clock of this machine, and no form that is older than the loss acts.
    with living(gateway, ManualClock(time.time_ns() // 1_000_000 + MINUTE)) as house:
        assert set(house.on().values()) == {"consent unknown"}
        assert not house.leases("maker")
        house.decide(YES)
        assert house.on() == dict.fromkeys((CORE, DIAGNOSIS, ADVICE))
        house.powers(5, 6)
        house.pipeline.flush()
        assert values(house.batches(DIAGNOSIS), "appliance.power") == [5, 6]
