# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from assent.backend.acknowledge import INTERVAL_S, Acknowledger
from assent.backend.ingest import judge
from assent.backend.outcomes import Accepted, Asked, Outcome, Reason, Rejected
from assent.backend.store import Settled, Verdict
from assent.backend.store.positions import Position
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import MAX_MESSAGE
from assent.messages import (
    RefusalReason,
    Refused,
    Request,
    StreamAck,
    Verb,
    down_topic,
)
from tests.backend.parts import Hand, desk, power

OURS = SealPrivateKey.generate(classical=True)
ACK = SigningKey.generate()
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)


class Desk2:
    """An acknowledger over positions a test may set."""

    def __init__(self) -> None:
        self.positions: dict[tuple[bytes, int], Position] = {}
        self.acknowledger = Acknowledger(ACK, self.position)

    def position(self, signer: bytes, stream: int) -> Position:
        return self.positions.get((signer, stream), Position())

    def stored(self, hand: Hand, stream: int, sequence: int) -> None:
        key = (hand.sign.public.thumbprint, stream)
        self.positions[key] = self.position(*key).having(sequence)
        self.note(Verdict.STORED, accepted(hand, stream, sequence))

    def note(self, verdict: Verdict, outcome: Outcome) -> None:
        self.acknowledger.note([Settled(verdict, outcome)])

    def told(self, hand: Hand, now: float = 0.0) -> list[StreamAck]:
        letters = list(self.acknowledger.letters(now))
        mine = [one for one in letters if one.topic == down_topic(hand.mailbox)]
        acks = [hand.acknowledgement(one.data, ACK.public).streams for one in mine]
        return [ack for part in acks for ack in part]


def accepted(hand: Hand, stream: int, sequence: int) -> Accepted:
    data = hand.batch(OURS.public, power(1), stream=stream, sequence=sequence)
    outcome = judge(hand.topic, data, DESK)
    assert isinstance(outcome, Accepted)
    return outcome


def rejected(hand: Hand, stream: int, sequence: int, reason: Reason) -> Rejected:
    return accepted(hand, stream, sequence).rejected(reason)


def test_what_was_stored_is_acknowledged_to_its_gateway() -> None:
    here = Desk2()
    for sequence in (0, 1, 4):
        here.stored(HAND, 9, sequence)
    assert here.told(HAND) == [StreamAck(9, 2, ((4, 4),))]


def test_nothing_stored_is_nothing_told() -> None:
    here = Desk2()
    assert here.told(HAND) == []
    assert here.acknowledger.wait(0.0) is None


def test_a_duplicate_is_acknowledged_again() -> None:
    here = Desk2()
    here.stored(HAND, 9, 0)
    assert here.told(HAND) == [StreamAck(9, 1)]
    here.note(Verdict.DUPLICATE, accepted(HAND, 9, 0))
    assert here.told(HAND, INTERVAL_S) == [StreamAck(9, 1)]


def test_gateways_and_streams_do_not_mix() -> None:
    here = Desk2()
    here.stored(HAND, 9, 0)
    here.stored(HAND, 5, 0)
    here.stored(OTHER, 9, 3)
    letters = {one.topic: one.data for one in here.acknowledger.letters(0.0)}
    ours = HAND.acknowledgement(letters[down_topic(HAND.mailbox)], ACK.public)
    assert ours.streams == (StreamAck(5, 1), StreamAck(9, 1))
    theirs = OTHER.acknowledgement(letters[down_topic(OTHER.mailbox)], ACK.public)
    assert theirs.streams == (StreamAck(9, 0, ((3, 3),)),)


def test_what_was_refused_is_told_with_its_reason() -> None:
    here = Desk2()
    here.stored(HAND, 9, 0)
    here.note(Verdict.REFUSED, rejected(HAND, 9, 1, Reason.TOO_FINE))
    here.note(Verdict.REFUSED, rejected(HAND, 9, 2, Reason.TERMS_NOT_PUBLISHED))
    no = (
        Refused(1, RefusalReason.COLUMNS, retry=False),
        Refused(2, RefusalReason.TERMS, retry=True),
    )
    assert here.told(HAND) == [StreamAck(9, 1, (), no)]


def test_a_fork_is_told_as_refused_and_not_as_stored() -> None:
    here = Desk2()
    for sequence in range(5):
        here.stored(HAND, 9, sequence)
    here.note(Verdict.REFUSED, rejected(HAND, 9, 2, Reason.FORK))
    fork = Refused(2, RefusalReason.FORK, retry=False)
    assert here.told(HAND) == [StreamAck(9, 2, ((3, 4),), (fork,))]


def test_a_fork_of_the_first_batch_leaves_no_watermark() -> None:
    here = Desk2()
    here.stored(HAND, 9, 0)
    here.note(Verdict.REFUSED, rejected(HAND, 9, 0, Reason.FORK))
    assert here.told(HAND) == [StreamAck(9, 0, (), (Refused(0, RefusalReason.FORK, retry=False),))]


def test_what_nobody_signed_is_told_nobody() -> None:
    here = Desk2()
    here.note(Verdict.REFUSED, Rejected(HAND.mailbox, Reason.BAD_SIGNATURE))
    assert here.told(HAND) == []


def test_a_request_is_answered_for_its_streams_only() -> None:
    here = Desk2()
    for stream in (1, 2, 3):
        for sequence in (0, 7):
            here.stored(HAND, stream, sequence)
    here.stored(OTHER, 4, 0)
    assert len(here.told(HAND)) == 3
    request = Request(bytes(16), Verb.ACKNOWLEDGE, (2, 4, 77))
    here.note(Verdict.NOTED, Asked(HAND.gateway, request))
    assert here.told(HAND, INTERVAL_S) == [
        StreamAck(2, 1, ((7, 7),)),
        StreamAck(4, 0),
        StreamAck(77, 0),
    ]


def test_a_gateway_gets_few_letters_however_much_it_sends() -> None:
    here = Desk2()
    letters = 0
    for step in range(100):
        here.stored(HAND, 9, step)
        letters += len(here.told(HAND, step / 100))
    assert letters <= 6
    assert here.acknowledger.wait(0.99) is not None
    assert here.told(HAND, 2.0) == [StreamAck(9, 100)]


def test_a_gateway_that_waits_does_not_hold_up_another() -> None:
    here = Desk2()
    here.stored(HAND, 9, 0)
    here.told(HAND, 0.0)
    here.stored(HAND, 9, 1)
    here.stored(OTHER, 9, 0)
    assert here.acknowledger.wait(0.1) == 0.0
    assert here.told(OTHER, 0.1) == [StreamAck(9, 1)]
    assert here.told(HAND, 0.1) == []
    assert here.told(HAND, INTERVAL_S) == [StreamAck(9, 2)]


def test_an_answer_that_is_too_much_for_one_message_comes_in_several() -> None:
    here = Desk2()
    signer = HAND.sign.public.thumbprint
    holes = tuple((first, first) for first in range(2, 2002, 2))
    streams = tuple(range(2**63, 2**63 + 20))
    for stream in streams:
        here.positions[signer, stream] = Position(0, holes)
    here.note(Verdict.NOTED, Asked(HAND.gateway, Request(bytes(16), Verb.ACKNOWLEDGE, streams)))
    letters = list(here.acknowledger.letters(0.0))
    assert len(letters) > 1
    assert all(len(one.data) < MAX_MESSAGE for one in letters)
    told = [s for one in letters for s in HAND.acknowledgement(one.data, ACK.public).streams]
    assert [ack.stream for ack in told] == list(streams)
    assert all(ack.ranges == holes for ack in told)
