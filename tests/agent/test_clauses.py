# SPDX-License-Identifier: Apache-2.0
"""Clauses of the privacy policy that only several rooms together keep: from the door to the spool.

Real keys, ledger, gate, lanes, seals and spool; a clock moved by hand, no hardware, no network.
"""

from __future__ import annotations

import datetime as dt
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from agent.desk import Desk
from agent.floor import Floor
from agent.gate import decide
from agent.keys import Keys
from agent.lane import Lane
from agent.path import Permit, Reason, Refusal, Verdict
from agent.pipeline import Pipeline
from agent.records import State
from agent.router import Router
from agent.settings import Settings
from agent.site import Site
from agent.spool import LaneState, Spool
from agent.transform import DropReason
from assent.backend import authority
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import BatchHeader, Kind, seal, sign_message, unseal, verify_batch
from assent.messages import Acknowledgement, Status, StreamAck
from assent.policy.model import Basis, Policy, Role
from assent.policy.signing import SignedPolicy
from tests.agent import flow_parts
from tests.agent.flow_parts import SECRET, attribute, carried, values_of
from tests.agent.household import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    changed,
    decision,
    ledger_in_memory,
    policy,
    signed,
    terms,
)
from tests.simulators.clock import ManualClock

CORE, DIAGNOSIS, PARTNER = "service", "remote-diagnosis", "partner-energy-advice"
WORDS = {CORE: State.ACCEPTED, DIAGNOSIS: State.GIVEN, PARTNER: State.GIVEN}
READING = {
    "appliance.power": 42.5,
    "appliance.fault": "pump",
    "device.serial": "TEST-0001",
    "location.area": (31.25, 121.5),
}


class Recipients:
    """Who receives, with their keys; and one gateway's keys, admitted by all of them."""

    def __init__(self, place: Path) -> None:
        self.seal = {name: SealPrivateKey.generate(classical=True) for name in ("maker", "adviser")}
        self.ack = {name: SigningKey.generate() for name in self.seal}
        self.keys = Keys.open(place / "keys")
        now = dt.datetime.fromtimestamp(NOON / 1000, dt.UTC)
        for name in self.seal:
            office = authority.Authority.load(authority.create(name, now))
            mailbox = self.keys.gateway(name).mailbox
            self.keys.admit(name, office.admit(self.keys.tls_request(name), mailbox, now))

    def policy(self) -> SignedPolicy:
        return SignedPolicy(
            policy(),
            {name: key.public for name, key in self.seal.items()},
            {name: key.public for name, key in self.ack.items()},
            {},
            dict.fromkeys(self.seal, b"a certificate"),
            17,
            bytes(32),
        )


class House:
    """A household that said yes to everything, and the path from its door to the spool."""

    def __init__(
        self, place: Path, known: Recipients, *, brokers: dict[str, str] | None = None
    ) -> None:
        place.mkdir()
        self.known = known
        self.clock = ManualClock(NOON, flowing=True)
        self.ledger = ledger_in_memory(NOON - 100 * DAY)
        for flow, state in WORDS.items():
            self.ledger.append_decision(decision(flow, state), NOON - DAY)
        settings = Settings(place, place, 64_000_000, 5_000, True, brokers or {}, ())
        floor = Floor.open(place / "floor.json", self.clock.now())
        site = Site(settings, known.keys, self.ledger, floor, known.policy(), None)
        self.spool = Spool.open(place / "spool.db")
        self.carrier = Spool.open(place / "spool.db", create=False)
        self.pipeline = Pipeline(site, self.spool, self.clock)
        self.desk = Desk(self.pipeline, running=True)

    def close(self) -> None:
        self.pipeline.stop()
        self.carrier.close()
        self.spool.close()

    def feed(self, *minutes: int, values: Mapping[str, object] = READING) -> None:
        """One reading of each value at each of these minutes after noon."""
        self.pipeline.deliver(
            [flow_parts.sample(NOON + minute * MINUTE, values) for minute in minutes]
        )
        self.pipeline.turn(0.0)

    def flush(self) -> None:
        self.pipeline.flush()
        self.pipeline.turn(0.0)

    def leaves(self, recipient: str) -> dict[str, list[bytes]]:
        """What the uplink is given for a recipient, by flow."""
        found: dict[str, list[bytes]] = {}
        for lease in self.carrier.lease(recipient, 100, self.clock.now().wall_ms):
            if lease.flow is not None:
                found.setdefault(lease.flow, []).append(lease.data)
        return found

    def opened(self, recipient: str, data: bytes) -> tuple[BatchHeader, bytes]:
        gateway = self.known.keys.gateway(recipient)
        plain = unseal(data, self.known.seal[recipient], gateway.mailbox)
        return verify_batch(plain, gateway.sign.public, gateway.mailbox)

    def from_below(self, recipient: str, data: bytes) -> None:
        """Something comes down, as the uplink stores it."""
        assert self.carrier.receive(recipient, data, NOON)
        self.clock.advance(MINUTE)
        self.pipeline.turn(0.0)


@pytest.fixture
def known(tmp_path: Path) -> Recipients:
    return Recipients(tmp_path)


@pytest.fixture
def house(tmp_path: Path, known: Recipients) -> Iterator[House]:
    built = House(tmp_path / "house", known)
    built.pipeline.start()
    yield built
    built.close()


# -- yes and no --------------------------------------------------------------------------------


@pytest.mark.clause("C02")
def test_withdrawing_every_optional_flow_changes_no_byte_of_the_core_flow(
    tmp_path: Path, known: Recipients, house: House
) -> None:
    reserved = House(tmp_path / "reserved", known)
    reserved.pipeline.start()
    house.feed(0, 1, 2)
    reserved.feed(0, 1, 2)
    for flow in (DIAGNOSIS, PARTNER):
        reserved.desk.say_no(flow)
    for each in (house, reserved):
        each.feed(3, 4)
        each.flush()
    willing_batches, reserved_batches = house.leaves("maker"), reserved.leaves("maker")
    reserved.close()
    assert willing_batches.keys() == {CORE, DIAGNOSIS}
    assert reserved_batches.keys() == {CORE}
    ours, theirs = (
        house.opened("maker", *batches[CORE]) for batches in (willing_batches, reserved_batches)
    )
    assert ours[1] == theirs[1]
    # The stream is a random number; all else that is said of the batch is the same, too.
    assert msgspec.structs.replace(ours[0], stream=0) == msgspec.structs.replace(
        theirs[0], stream=0
    )


@pytest.mark.clause("C28")
def test_when_a_no_returns_what_waited_is_gone_and_what_was_lawful_stays_on_record(
    house: House,
) -> None:
    house.feed(0, 1)
    house.flush()
    house.feed(2, 3, values={"device.serial": "TEST-0001"})  # nothing urgent: an open batch
    sealed = house.spool.waiting()[DIAGNOSIS]
    told = house.desk.say_no(DIAGNOSIS)
    assert told.purged.batches == sealed.batches > 0
    assert told.purged.readings > sealed.readings  # the open batch's, too
    assert house.spool.lanes()[DIAGNOSIS].state is LaneState.CLOSED
    assert house.pipeline.running.lanes().keys() == {CORE, PARTNER}
    assert house.leaves("maker").keys() == {CORE}
    house.feed(4, 5)
    house.flush()
    assert house.leaves("maker").keys() == {CORE}
    states = [record.state for record in house.ledger.history(DIAGNOSIS)]
    assert states == [State.GIVEN, State.WITHDRAWN]


@pytest.mark.clause("C28")
def test_the_twin_without_a_no_everything_leaves(house: House) -> None:
    house.feed(0, 1)
    house.flush()
    assert house.leaves("maker").keys() == {CORE, DIAGNOSIS}


def verdicts(of: Policy, *, accepted: bool) -> dict[str, Verdict]:
    """What the gate says of a policy to whose core flow somebody said yes, or of one in silence."""
    ledger = ledger_in_memory(NOON - 100 * DAY)
    if accepted:
        yes = decision(CORE, State.ACCEPTED, terms=terms(CORE, of))
        ledger.append_decision(yes, NOON - DAY)
    return decide(
        signed(of),
        None,
        ledger,
        form_broken=False,
        admitted=frozenset(of.recipients),
        shut={},
        now_ms=NOON,
        clock_trusted=True,
        floor_ms=0,
    )


BASES = typing.get_args(Basis)


@pytest.mark.clause("C12")
@pytest.mark.parametrize("basis", BASES)
def test_no_basis_runs_a_flow_that_nobody_said_yes_to(basis: Basis) -> None:
    for flow in WORDS:
        found = verdicts(changed(flow, basis=basis), accepted=False)
        assert not any(isinstance(verdict, Permit) for verdict in found.values())


@pytest.mark.clause("C12")
@pytest.mark.parametrize("basis", BASES)
def test_of_all_bases_contract_and_law_carry_a_core_flow(basis: Basis) -> None:
    found = verdicts(changed(CORE, basis=basis), accepted=True)[CORE]
    if basis in {"contract", "legal_obligation"}:
        assert isinstance(found, Permit)
    else:
        assert isinstance(found, Refusal)
        assert found.reason is Reason.BASIS_UNFIT


@pytest.mark.clause("C13")
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("role", typing.get_args(Role))
def test_no_basis_shares_what_nobody_said_yes_to(role: Role, basis: Basis) -> None:
    """A flow to somebody else takes a yes of its own; called core, it does not run at all."""
    adviser = msgspec.structs.replace(policy().recipients["adviser"], role=role)
    recipients = {**policy().recipients, "adviser": adviser}
    of = msgspec.structs.replace(changed(PARTNER, basis=basis), recipients=recipients)
    assert isinstance(verdicts(of, accepted=True)[PARTNER], Refusal)
    disguised = msgspec.structs.replace(
        changed(CORE, basis=basis, recipient="adviser"), recipients=recipients
    )
    ours = role in {"controller", "processor"} and basis in {"contract", "legal_obligation"}
    assert isinstance(verdicts(disguised, accepted=True)[CORE], Permit) is ours


# -- what a flow sees --------------------------------------------------------------------------


@pytest.mark.clause("C08")
def test_each_flow_sees_a_sensor_as_it_was_agreed_for_it() -> None:
    day = flow_parts.NOW
    agreed = {
        "rounded": {"appliance.power": "round(100)"},
        "hourly": {"appliance.power": "window(1h, mean)"},
        "without": {"appliance.door": "keep"},
    }
    lanes = {
        flow: Lane(flow_parts.permit(listed, flow=flow), SECRET, 7, day // flow_parts.EPOCH)
        for flow, listed in agreed.items()
    }
    router = Router(lanes.values())
    for quarter, watts in enumerate((110.0, 120.0, 190.0, 260.0)):
        values = {"appliance.power": watts, "appliance.door": quarter % 2 == 0}
        router.route([flow_parts.sample(day + quarter * 15 * MINUTE, values)])
    batches = {
        flow: [lane.close(final=True, now_ms=day + HOUR + MINUTE)] for flow, lane in lanes.items()
    }
    seen = {flow: values_of(found, "appliance.power") for flow, found in batches.items()}
    assert seen == {"rounded": [1, 1, 2, 3], "hourly": [1700], "without": []}
    assert values_of(batches["without"], "appliance.door") == [True, False, True, False]


@pytest.mark.clause("C08")
@pytest.mark.clause("C09")
def test_an_application_or_an_event_is_named_only_when_the_dictionary_lists_it() -> None:
    listed = {
        "host.application": attribute(kind="attribute", type="text", choices=("timer",)),
        "host.crash": attribute(kind="event", type="text", choices=("watchdog",)),
    }
    names = tuple(carried(name, "keep", entry) for name, entry in listed.items())
    now = flow_parts.NOW
    lane = Lane(flow_parts.permit(carried=names), SECRET, 7, now // flow_parts.EPOCH)
    said = [("timer", "watchdog"), ("messenger", "panic in /home/example of user 17")]
    for at, texts in enumerate(said):
        values = dict(zip(listed, texts, strict=True))
        Router([lane]).route([flow_parts.sample(now + at, values)])
    batch = lane.close()
    assert values_of([batch], "host.application") == ["timer"]
    assert values_of([batch], "host.crash") == ["watchdog"]
    assert lane.dropped == {DropReason.NOT_LISTED: 2}


# -- what comes down ---------------------------------------------------------------------------


def letter(
    house: House, kind: Kind, body: bytes, *, to: str = "maker", by: SigningKey | None = None
) -> bytes:
    gateway = house.known.keys.gateway("maker")
    signer = by or house.known.ack["maker"]
    reader = house.known.keys.gateway(to).seal.public
    return seal(sign_message(kind, body, signer, gateway.mailbox), reader, gateway.mailbox)


def acknowledgement(house: House) -> bytes:
    """Acknowledges the one batch of the core flow that waits."""
    header, _ = house.opened("maker", *house.leaves("maker")[CORE])
    return Acknowledgement((StreamAck(header.stream, header.sequence + 1, (), ()),)).encode()


def waits(house: House) -> int:
    return house.spool.waiting()[CORE].batches


@pytest.fixture
def expecting(house: House) -> House:
    """A house with one batch of each flow waiting to be acknowledged."""
    house.feed(0, 1)
    house.flush()
    assert waits(house) == 1
    return house


@pytest.mark.clause("C11")
def test_what_the_recipient_signed_and_is_an_acknowledgement_is_believed(expecting: House) -> None:
    letter_ = letter(expecting, Kind.ACKNOWLEDGEMENT, acknowledgement(expecting))
    expecting.from_below("maker", letter_)
    assert waits(expecting) == 0
    assert expecting.pipeline.rejected == {}


@pytest.mark.clause("C11")
@pytest.mark.parametrize(
    "case",
    [
        "somebody's data, as it is",
        "an acknowledgement that somebody else signed",
        "an acknowledgement from nobody of the policy",
        "an acknowledgement sealed for another mailbox",
        "another kind of message",
        "somebody's data, called an acknowledgement",
    ],
)
def test_anything_else_that_comes_down_is_rejected_counted_and_changes_nothing(
    expecting: House, case: str
) -> None:
    data = b'{"name": "example resident", "interests": ["cooking"]}'
    acknowledged = acknowledgement(expecting)
    kind = Kind.ACKNOWLEDGEMENT
    message = {
        "somebody's data, as it is": data,
        "an acknowledgement that somebody else signed": letter(
            expecting, kind, acknowledged, by=SigningKey.generate()
        ),
        "an acknowledgement sealed for another mailbox": letter(
            expecting, kind, acknowledged, to="adviser"
        ),
        "another kind of message": letter(expecting, Kind.STATUS, Status("x", 1, 1).encode()),
        "somebody's data, called an acknowledgement": letter(expecting, kind, data),
    }.get(case, letter(expecting, kind, acknowledged))
    sender = "stranger" if "nobody" in case else "maker"
    before = expecting.spool.waiting(), expecting.spool.lanes(), dict(expecting.pipeline.verdicts)
    expecting.from_below(sender, message)
    after = expecting.spool.waiting(), expecting.spool.lanes(), dict(expecting.pipeline.verdicts)
    assert after == before
    assert sum(expecting.pipeline.rejected.values()) == 1
    assert expecting.spool.take_inbox(10) == []


# -- where to, and how long --------------------------------------------------------------------


@pytest.mark.clause("C14")
@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        (None, "mqtts://maker.example.com:8883"),
        ("mqtts://maker.example.com:8883", "mqtts://maker.example.com:8883"),
        ("mqtts://elsewhere.example.com:8883", None),
        ("mqtts://adviser.example.com:8883", None),
    ],
    ids=["none chosen", "the policy's", "one the policy does not name", "another recipient's"],
)
def test_only_a_broker_that_the_policy_names_for_its_recipient_is_connected_to(
    tmp_path: Path, known: Recipients, chosen: str | None, used: str | None
) -> None:
    house = House(tmp_path / "house", known, brokers={"maker": chosen} if chosen else {})
    house.pipeline.start()
    targets = {target.recipient: target.broker for target in house.carrier.targets(NOON)}
    house.close()
    assert targets.get("maker") == used
    assert targets["adviser"] == "mqtts://adviser.example.com:8883"


@pytest.mark.clause("C20")
def test_what_waits_is_deleted_when_its_time_on_the_gateway_ends(house: House) -> None:
    before = house.spool.gaps_for(CORE)
    house.feed(0, 1)
    house.flush()
    keep_ms = int(policy().flows[CORE].keep.gateway)
    last_ms = NOON + MINUTE
    house.clock.advance(last_ms + keep_ms - 1 - house.clock.now().wall_ms)
    house.pipeline.turn(0.0)
    assert waits(house) == 1
    house.clock.advance(1_000)
    house.pipeline.turn(0.0)
    assert waits(house) == 0
    declared = [gap for gap in house.spool.gaps_for(CORE) if gap not in before]
    assert [gap.cause.name for gap in declared] == ["AGE"]


@pytest.mark.clause("C20")
def test_no_clock_that_is_not_trusted_deletes_anything(house: House) -> None:
    house.feed(0, 1)
    house.flush()
    house.clock.trusted = False
    house.clock.advance(400 * DAY)
    house.pipeline.turn(0.0)
    assert waits(house) == 1


@pytest.mark.clause("C19")
def test_a_policy_past_its_last_day_lets_nothing_out(house: House) -> None:
    """That what waits is also purged, and confirmed, is missing."""
    house.feed(0, 1)
    house.flush()
    head = msgspec.structs.replace(policy().policy, not_after=dt.date(2026, 11, 21))
    over = msgspec.structs.replace(
        house.known.policy(), policy=msgspec.structs.replace(policy(), policy=head)
    )
    house.pipeline.site = msgspec.structs.replace(house.pipeline.site, policy=over)
    house.pipeline.decide()
    reasons = {getattr(verdict, "reason", None) for verdict in house.pipeline.verdicts.values()}
    assert reasons == {Reason.POLICY_UNUSABLE}
    house.feed(2, 3)
    house.flush()
    assert house.leaves("maker") == {}
