# SPDX-License-Identifier: Apache-2.0
"""Which gateway is sent a newer policy, and when."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from assent.backend.directory import Sendable
from assent.backend.mailing import INTERVAL_S, REST_S, Mailing
from assent.backend.outcomes import Told
from assent.backend.store import Settled, Verdict
from assent.backend.store.custody import Row
from assent.cosekey import SigningKey
from assent.envelope import Control, Kind, open_down
from assent.errors import WireError
from assent.messages import Status, down_topic
from tests.backend.parts import Hand

ACK = SigningKey.generate()
HAND, OTHER = Hand.make(), Hand.make()
POLICY, SERIAL = "example-appliances", 18
NEWEST = {POLICY: Sendable(SERIAL, b"bundle of 18")}


class Office:
    """A mailing of which a test reads what leaves."""

    def __init__(self, newest: Mapping[str, Sendable] = NEWEST, *rows: Row) -> None:
        hands = {hand.mailbox: hand.gateway for hand in (HAND, OTHER)}
        self.mailing = Mailing(ACK, hands.get)
        self.publish(newest, *rows)

    def publish(self, newest: Mapping[str, Sendable], *rows: Row) -> None:
        self.mailing.publish(newest, rows)

    def says(self, hand: Hand, serial: int, policy: str = POLICY) -> None:
        told = Told(hand.gateway, Status(policy, serial))
        self.mailing.note([Settled(Verdict.NOTED, told)])

    def sent(self, now: float = 0.0) -> list[str]:
        return [letter.topic for letter in self.mailing.letters(now)]


def row(hand: Hand, serial: int | None, policy: str | None = POLICY) -> Row:
    sign, seal = hand.sign.public.encode(), hand.seal.public.encode()
    return Row(hand.mailbox, sign, seal, 0, policy, serial, 1, 0)


def test_who_runs_an_older_policy_is_sent_the_newest_sealed_to_it_alone() -> None:
    office = Office()
    office.says(HAND, 17)
    (letter,) = office.mailing.letters(0.0)
    assert letter.topic == down_topic(HAND.mailbox)
    assert letter.expires_s == REST_S
    box = HAND.mailbox
    opened = open_down(letter.data, key=HAND.seal, signer=ACK.public, mailbox=box)
    assert opened == Control(Kind.POLICY, b"bundle of 18")
    with pytest.raises(WireError):
        open_down(letter.data, key=OTHER.seal, signer=ACK.public, mailbox=box)


@pytest.mark.parametrize(
    ("serial", "policy"),
    [(18, POLICY), (19, POLICY), (17, "another-policy")],
    ids=["it runs the newest", "it runs a later one", "it runs another policy"],
)
def test_who_has_nothing_newer_to_get_is_sent_nothing(serial: int, policy: str) -> None:
    office = Office()
    office.says(HAND, serial, policy)
    assert office.sent() == []
    assert office.mailing.wait(0.0) is None


def test_a_gateway_that_refuses_is_left_alone_until_it_speaks_and_then_rarely() -> None:
    office = Office()
    office.says(HAND, 17)
    assert office.sent() == [down_topic(HAND.mailbox)]
    assert office.sent(10 * REST_S) == []
    office.says(HAND, 17)
    assert office.sent(10 * REST_S) == [down_topic(HAND.mailbox)]
    for second in range(1, REST_S, 60):
        office.says(HAND, 17)
        assert office.sent(10 * REST_S + second) == []
    office.says(HAND, 17)
    assert office.sent(11 * REST_S) == [down_topic(HAND.mailbox)]


def test_a_still_newer_one_does_not_wait_for_the_rest_of_the_last() -> None:
    office = Office()
    office.says(HAND, 17)
    assert len(office.sent()) == 1
    office.publish({POLICY: Sendable(19, b"19")}, row(HAND, 17))
    assert office.sent(1.0) == [down_topic(HAND.mailbox)]


def test_a_published_one_reaches_those_who_said_what_they_run_before() -> None:
    silent = row(OTHER, None, None)
    office = Office({}, row(HAND, 17), silent)
    assert office.sent() == []
    office.publish(NEWEST, row(HAND, 17), silent)
    assert office.sent() == [down_topic(HAND.mailbox)]


def test_a_start_finds_those_who_stayed_connected_meanwhile() -> None:
    assert Office(NEWEST, row(HAND, 17), row(OTHER, 18)).sent() == [down_topic(HAND.mailbox)]


def test_what_is_due_is_taken_back_when_the_gateway_has_it_by_then() -> None:
    office = Office()
    office.says(HAND, 17)
    office.says(HAND, 18)
    assert office.sent() == []


def test_letters_are_paced() -> None:
    office = Office()
    office.says(HAND, 17)
    office.says(OTHER, 17)
    assert office.sent(5.0) == [down_topic(HAND.mailbox)]
    assert office.mailing.wait(5.0) == pytest.approx(INTERVAL_S)
    assert office.sent(5.0 + INTERVAL_S / 2) == []
    assert office.sent(5.0 + INTERVAL_S) == [down_topic(OTHER.mailbox)]
    assert office.mailing.wait(6.0) is None


def test_a_gateway_that_is_known_no_more_holds_up_nobody() -> None:
    office = Office()
    office.says(Hand.make(), 17)
    office.says(HAND, 17)
    assert office.sent() == [down_topic(HAND.mailbox)]
