# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import columns
from assent.backend.ingest import Desk, judge
from assent.backend.outcomes import Accepted, Asked, Gateway, Reason, Rejected, Told
from assent.columns import Column, Kind, Quantum, Table
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import Kind as MessageKind
from assent.envelope import seal, sign_batch, sign_message
from assent.messages import (
    Acknowledgement,
    RefusalReason,
    Request,
    Status,
    Verb,
    down_topic,
    up_topic,
)
from tests.backend.parts import PSEUDONYM, START_MS, Hand, desk, offers, power

OURS = SealPrivateKey.generate(classical=True)
THEIRS = SealPrivateKey.generate(classical=True)
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)


def rejected(topic: str, data: bytes, at: Desk = DESK) -> Rejected:
    outcome = judge(topic, data, at)
    assert isinstance(outcome, Rejected)
    return outcome


def test_a_batch_within_its_terms_is_accepted() -> None:
    outcome = judge(HAND.topic, HAND.batch(OURS.public, power(), sequence=7), DESK)
    assert isinstance(outcome, Accepted)
    assert outcome.header.sequence == 7
    assert outcome.readings == 3
    assert outcome.opened.tables == power()
    assert outcome.mailbox == HAND.mailbox


def test_a_batch_sealed_to_the_hybrid_key_is_accepted() -> None:
    hybrid = SealPrivateKey.generate()
    outcome = judge(HAND.topic, HAND.batch(hybrid.public, power()), desk([HAND], hybrid))
    assert isinstance(outcome, Accepted)


@pytest.mark.parametrize("devices", [1, 4], ids=["of one device", "of several devices"])
def test_a_batch_with_more_readings_than_its_flow_allows_is_refused(devices: int) -> None:
    """Red while fifty bytes of payload put 250,000 readings, 27 MB, into the store."""
    allowed = offers()["remote-diagnosis"].readings
    rows = allowed // devices

    def tables(rows: int) -> list[Table]:
        column = Column("appliance.power", Kind.NUMBER, [7] * rows, Quantum(1, 10))
        times = [START_MS] * rows
        return [Table(bytes([one]) * 16, times, (column,)) for one in range(devices)]

    assert isinstance(judge(HAND.topic, HAND.batch(OURS.public, tables(rows)), DESK), Accepted)
    outcome = rejected(HAND.topic, HAND.batch(OURS.public, tables(rows + 1)))
    assert outcome.reason is Reason.TOO_MANY_READINGS
    assert outcome.refused is not None
    assert (outcome.refused.reason, outcome.refused.retry) == (RefusalReason.COLUMNS, False)


def test_a_row_wider_than_a_batch_may_be_passes_as_the_lane_gives_it() -> None:
    flow = dataclasses.replace(offers()["remote-diagnosis"], readings=1)
    columns = (
        Column("appliance.power", Kind.NUMBER, [7], Quantum(1, 10)),
        Column("appliance.starts", Kind.NUMBER, [1]),
    )
    assert flow.objection([Table(PSEUDONYM, [START_MS], columns)]) is None
    more = Column("appliance.power", Kind.NUMBER, [7] * 50, Quantum(1, 10))
    assert flow.objection([Table(PSEUDONYM, [START_MS] * 50, (more,))]) is not None


def test_a_request_and_a_status_are_read() -> None:
    request = Request(bytes(16), Verb.ACKNOWLEDGE, (1, 2))
    data = HAND.control(OURS.public, MessageKind.REQUEST, request.encode())
    assert judge(HAND.topic, data, DESK) == Asked(HAND.gateway, request)
    status = Status("example-appliances", 17)
    data = HAND.control(OURS.public, MessageKind.STATUS, status.encode())
    assert judge(HAND.topic, data, DESK) == Told(HAND.gateway, status)


def of_other_gateway() -> bytes:
    """Signed by another admitted gateway, sealed for this mailbox."""
    return dataclasses.replace(OTHER, mailbox=HAND.mailbox).batch(OURS.public, power())


def acknowledgement_going_up() -> bytes:
    body = Acknowledgement(()).encode()
    signed = sign_message(MessageKind.ACKNOWLEDGEMENT, body, HAND.sign, HAND.mailbox)
    return seal(signed, OURS.public, HAND.mailbox)


def bomb() -> bytes:
    """A hundred kB that inflate to a hundred MB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(bytes(100_000_000)) + deflate.flush()


BAD: list[tuple[str, Callable[[], tuple[str, bytes]], Reason]] = [
    ("a topic that is none of ours", lambda: ("home/power", b"1"), Reason.BAD_TOPIC),
    (
        "a topic that goes down",
        lambda: (down_topic(HAND.mailbox), HAND.batch(OURS.public, power())),
        Reason.BAD_TOPIC,
    ),
    ("a topic that is no UTF-8", lambda: ("", b""), Reason.BAD_TOPIC),
    (
        "a mailbox nobody was admitted under",
        lambda: (up_topic("0" * 32), HAND.batch(OURS.public, power())),
        Reason.UNKNOWN_MAILBOX,
    ),
    ("no bytes", lambda: (HAND.topic, b""), Reason.MALFORMED),
    ("text", lambda: (HAND.topic, b"power=100"), Reason.MALFORMED),
    (
        "a batch whose end is missing",
        lambda: (HAND.topic, HAND.batch(OURS.public, power())[:-1]),
        Reason.NOT_CANONICAL,
    ),
    ("more than a message may have", lambda: (HAND.topic, bytes(120_001)), Reason.TOO_LARGE),
    (
        "a batch sealed to another recipient's key",
        lambda: (HAND.topic, HAND.batch(THEIRS.public, power())),
        Reason.OTHER_KEY,
    ),
    (
        "a batch moved to another gateway's mailbox",
        lambda: (OTHER.topic, HAND.batch(OURS.public, power())),
        Reason.CANNOT_OPEN,
    ),
    (
        "a batch signed by another gateway",
        lambda: (HAND.topic, of_other_gateway()),
        Reason.BAD_SIGNATURE,
    ),
    (
        "an acknowledgement that goes up",
        lambda: (HAND.topic, acknowledgement_going_up()),
        Reason.BAD_SIGNATURE,
    ),
    (
        "a request that is none",
        lambda: (HAND.topic, HAND.control(OURS.public, MessageKind.REQUEST, b"\x80")),
        Reason.MALFORMED,
    ),
]


@pytest.mark.parametrize(("make", "reason"), [c[1:] for c in BAD], ids=[case[0] for case in BAD])
def test_what_nobody_signed_is_refused_and_nobody_is_told(
    make: Callable[[], tuple[str, bytes]], reason: Reason
) -> None:
    outcome = rejected(*make())
    assert outcome.reason is reason
    assert outcome.refused is None
    assert isinstance(judge(HAND.topic, HAND.batch(OURS.public, power()), DESK), Accepted)


SIGNED: list[tuple[str, Callable[[], bytes], Reason, RefusalReason, bool]] = [
    (
        "terms that nobody published",
        lambda: HAND.batch(OURS.public, power(), terms=bytes(32)),
        Reason.TERMS_NOT_PUBLISHED,
        RefusalReason.TERMS,
        True,
    ),
    (
        "the terms of another flow",
        lambda: HAND.batch(OURS.public, power(), terms=offers()["product-improvement"].terms.hash),
        Reason.TERMS_NOT_PUBLISHED,
        RefusalReason.TERMS,
        True,
    ),
    (
        "another recipient's flow",
        lambda: HAND.batch(OURS.public, power(), flow="energy-advice"),
        Reason.TERMS_NOT_PUBLISHED,
        RefusalReason.TERMS,
        True,
    ),
    (
        "a header that names another recipient",
        lambda: HAND.batch(OURS.public, power(), recipient="advice"),
        Reason.OTHER_RECIPIENT,
        RefusalReason.OTHER,
        False,
    ),
    (
        "an attribute that is not in the terms",
        lambda: HAND.batch(
            OURS.public, [Table(PSEUDONYM, [START_MS], (Column("x.y", Kind.NUMBER, [1]),))]
        ),
        Reason.UNDECLARED_ATTRIBUTE,
        RefusalReason.COLUMNS,
        False,
    ),
    (
        "columns that are none",
        lambda: HAND.batch(OURS.public, b"\x00\x01\x02"),
        Reason.MALFORMED,
        RefusalReason.COLUMNS,
        False,
    ),
    (
        "columns that inflate to gigabytes",
        lambda: HAND.batch(OURS.public, bomb()),
        Reason.TOO_LARGE,
        RefusalReason.TOO_LARGE,
        False,
    ),
]


@pytest.mark.clause("C03")
@pytest.mark.parametrize(
    ("make", "reason", "word", "retry"), [c[1:] for c in SIGNED], ids=[case[0] for case in SIGNED]
)
def test_what_the_gateway_signed_and_is_refused_is_told_it(
    make: Callable[[], bytes], reason: Reason, word: RefusalReason, *, retry: bool
) -> None:
    outcome = rejected(HAND.topic, make())
    assert outcome.reason is reason
    assert outcome.refused is not None
    assert (outcome.refused.sequence, outcome.refused.reason, outcome.refused.retry) == (
        0,
        word,
        retry,
    )


def test_two_recipients_cannot_open_each_others_batches() -> None:
    maker, advice = desk([HAND], OURS), desk([HAND], THEIRS, recipient="advice")
    for_maker = HAND.batch(OURS.public, power())
    hourly = power(2, every_ms=3_600_000)
    for_advice = HAND.batch(THEIRS.public, hourly, flow="energy-advice", recipient="advice")
    assert isinstance(judge(HAND.topic, for_maker, maker), Accepted)
    assert isinstance(judge(HAND.topic, for_advice, advice), Accepted)
    assert rejected(HAND.topic, for_maker, advice).reason is Reason.OTHER_KEY
    assert rejected(HAND.topic, for_advice, maker).reason is Reason.OTHER_KEY


def test_the_right_key_id_over_another_key_does_not_open() -> None:
    data = HAND.batch(OURS.public, power())
    liar = Desk("maker", {OURS.kid: THEIRS}, DESK.offers, DESK.gateway)
    assert rejected(HAND.topic, data, liar).reason is Reason.CANNOT_OPEN


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_refused_wherever_it_is(data: st.DataObject) -> None:
    good = bytearray(HAND.batch(OURS.public, power()))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= 1 << data.draw(st.integers(0, 7))
    outcome = rejected(HAND.topic, bytes(good))
    assert outcome.refused is None


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.just(HAND.topic), st.binary(max_size=300))
def test_no_bytes_raise(topic: str, data: bytes) -> None:
    assert isinstance(judge(topic, data, DESK), Rejected)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_signed_payload_raises(payload: bytes) -> None:
    outcome = rejected(HAND.topic, HAND.batch(OURS.public, payload))
    assert outcome.refused is not None


def test_a_mistake_of_ours_is_a_refusal_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_mailbox: str) -> Gateway:
        raise ZeroDivisionError("CANARY")

    with caplog.at_level(logging.ERROR):
        outcome = rejected(HAND.topic, b"CANARY", dataclasses.replace(DESK, gateway=broken))
    assert outcome.reason is Reason.INTERNAL
    assert "event=judge-failed error=ZeroDivisionError" in caplog.text
    assert "test_ingest.py:" in caplog.text
    assert "CANARY" not in caplog.text
    assert HAND.mailbox not in caplog.text


def test_no_private_key_shows_in_the_repr_of_a_desk() -> None:
    assert "SealPrivateKey" not in repr(DESK)


def test_readings_of_a_swapped_signing_key_are_refused(tmp_path: Path) -> None:
    thief = dataclasses.replace(HAND, sign=SigningKey.generate())
    assert rejected(HAND.topic, thief.batch(OURS.public, power())).reason is Reason.BAD_SIGNATURE


def test_a_batch_signed_for_another_mailbox_is_refused_though_sealed_for_this_one() -> None:
    foreign = dataclasses.replace(HAND, mailbox=OTHER.mailbox)
    outcome = judge(HAND.topic, HAND.batch(OURS.public, power()), DESK)
    assert isinstance(outcome, Accepted)
    signed = sign_batch(outcome.header, columns.encode(power()), HAND.sign, foreign.mailbox)
    data = seal(signed, OURS.public, HAND.mailbox)
    assert rejected(HAND.topic, data).reason is Reason.BAD_SIGNATURE
