# SPDX-License-Identifier: Apache-2.0
"""What the agent tells about itself is what the stores say, and nothing of anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.account import instant
from agent.offline import at_the_desk
from agent.settings import load_settings
from assent.messages import StreamAck
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    ENERGY,
    FAULT,
    HOUR,
    MINUTE,
    POWER,
    REPLAYED,
    WASHER_SERIAL,
    YES,
    House,
    Json,
    copied,
    fresh,
    install_with,
    living,
)
from tests.simulators.clock import START_MS, ManualClock


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_with(tmp_path_factory.mktemp("installed") / "gateway", REPLAYED)


def flow_of(answer: Json, name: str) -> Json:
    return next(one for one in answer["flows"] if one["flow"] == name)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (START_MS, "2026-11-22T02:15:00Z"),
        (START_MS + 999, "2026-11-22T02:15:00Z"),
        (253_402_300_799_000, "9999-12-31T23:59:59Z"),
    ],
    ids=["no instant", "the epoch", "a second", "milliseconds are left out", "the last year"],
)
def test_an_instant_is_rfc_3339_in_utc(ms: int | None, text: str | None) -> None:
    assert instant(ms) == text


@pytest.mark.clause("C01")
def test_a_fresh_gateway_says_that_it_is_not_enrolled_and_has_no_flow(tmp_path: Path) -> None:
    with living(fresh(tmp_path / "fresh")) as house:
        status = house.desk.status()
        consent = house.desk.answer({"verb": "consent"})
    assert (status["enrolled"], status["policy"], status["flows"]) == (False, None, [])
    assert "no policy key is trusted" in status["policy_trouble"]
    assert consent["flows"] == []
    assert consent["policy_trouble"] == status["policy_trouble"]


def test_the_policy_in_force_is_named(house: House) -> None:
    status = house.desk.status()
    assert status["policy"] == {
        "id": "example-appliances",
        "version": "2026-11-01",
        "serial": 17,
        "controller": "Example Appliances Co.",
    }
    assert status["policy_trouble"] is None


def test_every_flow_is_on_or_says_why_it_is_not(house: House) -> None:
    house.decide({CORE: '"accepted"', DIAGNOSIS: '"refused"'})
    found = {flow["flow"]: (flow["on"], flow["reason"]) for flow in house.desk.status()["flows"]}
    assert found == {
        CORE: (True, None),
        DIAGNOSIS: (False, "refused"),
        ADVICE: (False, "not decided"),
    }


def test_a_flow_that_is_off_for_now_says_why_too(house: House) -> None:
    house.decide(YES)
    house.pipeline.denied.add(DIAGNOSIS)
    house.pipeline.decide()
    flow = flow_of(house.desk.status(), DIAGNOSIS)
    assert (flow["on"], flow["reason"]) == (False, "refused")
    assert flow["detail"] == "the ledger did not take this no yet"
    assert flow_of(house.desk.answer({"verb": "consent"}), DIAGNOSIS)["reason"] == "refused"


def test_what_waits_and_what_was_done_is_counted_as_it_is(house: House) -> None:
    house.decide(YES)
    house.bring({POWER: 1.0, FAULT: "leak"}, {POWER: 2.0, FAULT: "canary@example.com"})
    house.turn(2 * MINUTE)
    waiting = house.spool.waiting()[DIAGNOSIS]
    assert waiting.readings == 3
    flow = flow_of(house.desk.status(), DIAGNOSIS)
    assert flow["waiting"] == {
        "batches": waiting.batches,
        "readings": 3,
        "bytes": waiting.bytes,
        "too_large": 0,
    }
    assert flow["sealed"] == {
        "messages": waiting.batches,
        "readings": 3,
        "bytes": waiting.bytes,
    }
    assert sum(flow["dropped"].values()) == 1
    assert flow["lost"] == 0
    assert flow["last_acknowledged"] is None
    house.desk.say_no(DIAGNOSIS)
    house.turn()  # what waited is deleted after the answer
    flow = flow_of(house.desk.status(), DIAGNOSIS)
    assert flow["waiting"]["batches"] == 0
    assert flow["purged"]["readings"] == 3


def test_an_acknowledgement_is_told_with_its_instant(house: House) -> None:
    house.decide(YES)
    house.bring({FAULT: "leak"})
    stream = house.spool.lanes()[CORE].stream
    assert stream is not None
    house.clock.advance(HOUR)
    house.receive("maker", house.acknowledgement("maker", [StreamAck(stream, 1)]))
    house.turn()
    status = house.desk.status()
    assert flow_of(status, CORE)["last_acknowledged"] == instant(house.clock.now().wall_ms)
    assert flow_of(status, DIAGNOSIS)["last_acknowledged"] is None
    assert status["rejected"] == {}
    house.receive("maker", b"garbage")
    house.turn()
    assert sum(house.desk.status()["rejected"].values()) == 1


def test_why_each_attribute_of_a_device_is_held_back(house: House) -> None:
    house.decide(
        {CORE: '"accepted"', DIAGNOSIS: f'{{ decision = "given", without = ["{FAULT}"] }}'}
    )
    (device,) = house.desk.status()["devices"]
    held = device["held_back"]
    assert POWER not in held
    assert FAULT not in held  # the core flow carries it
    assert held[ENERGY] == "partner-energy-advice: not decided"
    assert held["appliance.door"] == "no flow of the policy lists it"
    house.desk.say_no(CORE)
    (device,) = house.desk.status()["devices"]
    assert device["held_back"][FAULT] == (
        "service: withdrawn; remote-diagnosis: left out by the household"
    )


def test_a_device_is_told_with_its_state_and_the_age_of_its_last_sample(house: House) -> None:
    (device,) = house.desk.status()["devices"]
    assert (device["id"], device["kind"]) == ("washer", "washing-machine")
    assert (device["samples"], device["age_s"]) == (0, None)


class Beside:
    """An uplink that runs, or has gone."""

    def __init__(self) -> None:
        self.runs = True

    def is_there(self) -> bool:
        return self.runs

    def cut(self) -> bool:
        return True


def test_uplinks_are_told_while_one_runs_and_what_they_said_is_not_believed_after(
    installed: Path, tmp_path: Path
) -> None:
    uplink = Beside()
    with living(copied(installed, tmp_path / "gateway"), carrier=uplink) as house:
        assert house.desk.status()["uplinks"] == []
        house.connect("maker")
        said = {
            "recipient": "maker",
            "state": "connected",
            "detail": "",
            "since": instant(house.clock.now().wall_ms),
        }
        assert house.desk.status()["uplinks"] == [said]
        uplink.runs = False
        gone = {"state": "gone", "detail": "no uplink runs", "since": None}
        assert house.desk.status()["uplinks"] == [said | gone]


def test_an_uplink_that_was_never_started_is_missed_where_something_may_leave(house: House) -> None:
    assert house.desk.status()["uplinks"] == []
    house.decide(YES)
    found = {one["recipient"]: one["state"] for one in house.desk.status()["uplinks"]}
    assert found == {"maker": "gone", "energy-advice": "gone"}


@pytest.mark.parametrize(
    ("trust", "trusted", "said"),
    [
        ("system", True, "trusted as it is (clock.trust = system)"),
        ("synchronised", True, "trusted: as a test says"),
        ("rtc", True, "trusted: as a test says"),
        (
            "synchronised",
            False,
            "not trusted yet: as a test says; what comes is held here, sealed, until it is",
        ),
    ],
)
def test_what_the_clock_is_worth_is_told(
    installed: Path, tmp_path: Path, trust: str, trusted: bool, said: str
) -> None:
    directory = copied(installed, tmp_path / "gateway")
    agent = directory / "agent.toml"
    agent.write_text(agent.read_text().replace('"system"', f'"{trust}"'))
    with living(directory, ManualClock(trusted=trusted)) as house:
        assert house.desk.status()["clock"] == said


def test_without_trouble_there_is_no_notice(house: House) -> None:
    house.decide(YES)
    assert house.desk.status()["notices"] == []


def test_whatever_is_wrong_is_a_notice(house: House) -> None:
    house.decide(YES)
    house.close()
    state = house.directory / "state"
    (state / "ledger.json").write_bytes(b"{")
    (state / "ledger.json.bak").unlink(missing_ok=True)
    (state / "spool" / "spool.db").write_bytes(b"no database" * 1_000)
    (house.directory / "consent.toml").write_text("policy = ")
    with (house.directory / "agent.toml").open("a") as file:
        file.write('[uplink.maker]\nbroker = "mqtts://elsewhere.example.com:8883"\n')
    with living(house.directory, house.clock) as again:
        notices = "\n".join(again.desk.status()["notices"])
    for said in (
        "the consent form is not usable, optional flows pause: ",
        "consent.toml:1:",
        "not connected to maker: the policy does not name the broker",
        f"the ledger was not believed and moved to {state}/ledger.json.aside",
        "consent is unknown until the household decides anew",
        f"the spool was damaged and moved to {state}/spool/spool.db.damaged",
    ):
        assert said in notices


@pytest.mark.clause("C23")
def test_consent_tells_what_would_leave_and_what_was_decided(house: House) -> None:
    house.decide(
        {DIAGNOSIS: f'{{ decision = "given", until = 2027-11-22, without = ["{FAULT}"] }}'}
    )
    consent = house.desk.answer({"verb": "consent"})
    flow = flow_of(consent, DIAGNOSIS)
    assert flow == {
        "flow": DIAGNOSIS,
        "function": "optional",
        "purpose": "fault-diagnosis",
        "notice": "Find faults before they become failures.",
        "basis": "consent",
        "recipient": "maker",
        "role": "controller",
        "region": "CN",
        "attributes": {POWER: "round(1)", "device.serial": "pseudonym", FAULT: "keep"},
        "about": {
            POWER: ["Electric power drawn by the appliance.", "rounded to 1 W"],
            "device.serial": [
                "Serial number of the appliance.",
                "only as an invented name, which changes",
            ],
            FAULT: ["Code of a fault the appliance reports.", "as it is"],
        },
        "separate": False,
        "keep": {"gateway": "7d", "recipient": "90d", "then": "delete"},
        "decision": "ConsentGiven",
        "decided_at": instant(START_MS),
        "until": "2027-11-22T00:00:00Z",
        "without": [FAULT],
        "differences": [],
        "on": True,
        "reason": None,
        "detail": "",
    }
    undecided = flow_of(consent, CORE)
    assert (undecided["decision"], undecided["decided_at"]) == (None, None)


@pytest.mark.clause("C23")
def test_history_tells_every_decision_oldest_first(house: House) -> None:
    house.decide({CORE: '"accepted"', DIAGNOSIS: '"given"'})
    house.clock.advance(HOUR)
    house.desk.say_no(DIAGNOSIS)
    decisions = house.desk.answer({"verb": "history"})["decisions"]
    assert [(one["flow"], one["decision"]) for one in decisions] == [
        (CORE, "accepted"),
        (DIAGNOSIS, "ConsentGiven"),
        (DIAGNOSIS, "ConsentWithdrawn"),
    ]
    assert [one["decided_by"] for one in decisions] == ["owner", "owner", "somebody present"]
    newest = house.site.ledger.newest(DIAGNOSIS)
    assert newest is not None
    assert decisions[-1]["record"] == newest.id.hex()


def test_what_left_is_told_newest_first_and_by_flow(house: House) -> None:
    house.decide(YES)
    house.bring({FAULT: "leak"}, {FAULT: "motor"})
    with house.carrier() as carrier:
        leases = carrier.lease("maker", 10, house.clock.now().wall_ms)
        carrier.delivered([lease.id for lease in leases], house.clock.now().wall_ms)
    everything = house.desk.answer({"verb": "sent", "flow": None, "limit": 100})["sent"]
    assert {one["flow"] for one in everything} == {CORE, DIAGNOSIS}
    assert len(everything) == 4
    core = house.desk.answer({"verb": "sent", "flow": CORE, "limit": 100})["sent"]
    assert [one["flow"] for one in core] == [CORE, CORE]
    assert core[0]["recipient"] == "maker"
    assert core[0]["readings"] == 1
    assert len(bytes.fromhex(core[0]["digest"])) == 32
    assert len(house.desk.answer({"verb": "sent", "flow": CORE, "limit": 1})["sent"]) == 1
    assert all(one["confirmed"] for one in everything)


@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
def test_a_withdrawal_tells_what_was_handed_over_and_not_confirmed(
    house: House, count: int
) -> None:
    house.decide(YES)
    house.bring({FAULT: "leak"}, {FAULT: "motor"})
    with house.carrier() as carrier:
        leases = carrier.lease("maker", 10, house.clock.now().wall_ms)
        mine = [lease.id for lease in leases if lease.flow == DIAGNOSIS][:count]
        carrier.handed_over(mine, house.clock.now().wall_ms)
    told = house.desk.say_no(DIAGNOSIS).told
    words = {1: "1 of the batches was handed", 2: "2 of the batches were handed"}
    assert told[2].startswith(words[count])
    left = house.desk.answer({"verb": "sent", "flow": DIAGNOSIS, "limit": 9})["sent"]
    assert [one["confirmed"] for one in left] == [False] * count
    assert len(house.desk.say_no(CORE).told) == 2  # the twin: nothing of it was handed over


@pytest.mark.clause("C35")
def test_no_answer_holds_a_value_an_identifier_or_a_key(house: House) -> None:
    house.decide(YES)
    house.bring({POWER: 4321.0, FAULT: "overheat", "device.serial": WASHER_SERIAL})
    house.turn(2 * MINUTE)
    verbs = ({"verb": "status"}, {"verb": "consent"}, {"verb": "history"})
    said = "".join(json.dumps(house.desk.answer(verb)) for verb in verbs)
    assert "remote-diagnosis" in said
    gateway = house.site.keys.gateway("maker")
    secrets = [WASHER_SERIAL, "4321", "overheat", gateway.mailbox, gateway.sign.public.raw.hex()]
    assert [secret for secret in secrets if secret in said] == []


def test_while_no_agent_runs_status_is_read_from_the_stores(house: House) -> None:
    house.decide(YES)
    house.bring({POWER: 1.0, FAULT: "leak"})
    house.connect("maker")
    house.close()
    with at_the_desk(load_settings(house.directory)) as desk:
        status = desk.status()
    assert status["running"] is False
    assert status["uplinks"] == status["devices"] == []
    assert [flow["on"] for flow in status["flows"]] == [True, True, True]
    assert flow_of(status, DIAGNOSIS)["waiting"]["readings"] == 2
    assert flow_of(status, DIAGNOSIS)["sealed"]["messages"] == 0
