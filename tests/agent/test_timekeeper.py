# SPDX-License-Identifier: Apache-2.0
"""Asking a recipient for the time: whom, when, and which answers are believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.pipeline.timekeeper import ANSWER_MS, FIRST_MS, RENEW_MS
from agent.spool import ClockTrust, LaneState
from assent.cosekey import SigningKey
from assent.envelope import Control, Kind
from assent.messages import Request, Time, Verb, decode_request
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    FLOWS,
    HOUR,
    MINUTE,
    NO,
    POWER,
    SECOND,
    YES,
    House,
    copied,
    living,
    values,
)
from tests.simulators.clock import START_MS

LATER_MS = START_MS + 30 * HOUR
"""What time it is when the gateway asks."""


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """A household that said yes to everything; then the clock fell back to 1970."""
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.decide(YES)
        house.turn()
        house.clock.step(-house.clock.now().wall_ms)
        house.clock.trusted = False
        house.turn()
        yield house


def questions(house: House, recipient: str = "maker") -> list[Request]:
    """What waits to be asked, as the recipient would read it."""
    found = [one for one in house.leaving(recipient) if isinstance(one, Control)]
    requests = [decode_request(one.body) for one in found if one.kind is Kind.REQUEST]
    return [request for request in requests if request.verb is Verb.TIME]


def asks(house: House, recipient: str = "maker") -> Request:
    """Half a minute passes and a question waits; another 40 s at most."""
    house.turn(FIRST_MS)
    for _ in range(45):
        if questions(house, recipient):
            break
        house.turn(SECOND)
    (request,) = questions(house, recipient)
    return request


def answer(
    house: House,
    nonce: bytes,
    at_ms: int = LATER_MS,
    *,
    recipient: str = "maker",
    signer: SigningKey | None = None,
) -> None:
    """A time comes down."""
    body = Time(nonce, at_ms).encode()
    house.receive(recipient, house.message(recipient, Kind.TIME, body, signer))
    house.turn()


def is_told(house: House) -> bool:
    return house.clock.now().trusted


def test_who_holds_something_for_a_recipient_asks_it_after_half_a_minute(house: House) -> None:
    house.turn(FIRST_MS - SECOND)
    assert questions(house) == questions(house, "energy-advice") == []
    request = asks(house)
    assert (len(request.id), request.streams) == (16, ())
    assert len(questions(house, "energy-advice")) == 1
    with house.carrier() as carrier:
        wanted = {one.recipient: one.wanted for one in carrier.targets(0)}
        assert wanted == {"maker": True, "energy-advice": True}
        assert {one.clock for one in carrier.targets(0)} == {ClockTrust.UNKNOWN}


def test_who_agreed_to_nothing_asks_nobody_and_connects_to_nobody(house: House) -> None:
    for flow in FLOWS:
        house.desk.say_no(flow)
    house.turn(2 * MINUTE)
    house.turn(2 * MINUTE)
    assert questions(house) == questions(house, "energy-advice") == []
    with house.carrier() as carrier:
        assert not any(one.wanted for one in carrier.targets(0))


def test_a_no_takes_the_question_back(house: House) -> None:
    asks(house, "energy-advice")
    house.desk.say_no(ADVICE)
    house.turn()
    assert questions(house, "energy-advice") == []
    assert len(questions(house)) == 1


def test_the_answer_is_carried_on_by_the_time_since_boot(house: House) -> None:
    house.powers(1, 2)
    request = asks(house)
    house.clock.advance(2 * SECOND - 250)
    answer(house, request.id)
    now = house.clock.now()
    assert (now.wall_ms, now.trusted, now.told) == (LATER_MS + SECOND, True, True)
    house.clock.advance(MINUTE)
    assert house.clock.now().wall_ms == LATER_MS + SECOND + MINUTE
    house.turn()
    assert house.on() == dict.fromkeys(FLOWS)
    assert house.spool.lanes()[DIAGNOSIS].state is LaneState.OPEN
    assert values(house.batches(DIAGNOSIS), POWER) == [1, 2]
    with house.carrier() as carrier:
        assert {one.clock for one in carrier.targets(0)} == {ClockTrust.TOLD}


def nothing(_house: House, _request: Request) -> None:
    """No answer came."""


def another_id(house: House, _request: Request) -> None:
    answer(house, bytes(16))


def another_signer(house: House, request: Request) -> None:
    answer(house, request.id, signer=SigningKey.generate())


def another_recipient(house: House, request: Request) -> None:
    answer(house, request.id, recipient="energy-advice")


def too_late(house: House, request: Request) -> None:
    house.clock.advance(ANSWER_MS + 1)
    answer(house, request.id)


def before_the_floor(house: House, request: Request) -> None:
    answer(house, request.id, START_MS - HOUR)


def beyond_every_clock(house: House, request: Request) -> None:
    answer(house, request.id, 253_402_300_799_999)  # the last of the year 9999


def a_replay(house: House, request: Request) -> None:
    before_the_floor(house, request)
    answer(house, request.id)


def the_question_before(house: House, request: Request) -> None:
    for _ in range(20):
        house.turn(10 * SECOND)
        if questions(house)[0].id != request.id:
            break
    answer(house, request.id)


@pytest.mark.parametrize(
    "happens",
    [
        nothing,
        another_id,
        another_signer,
        another_recipient,
        too_late,
        before_the_floor,
        beyond_every_clock,
        a_replay,
        the_question_before,
    ],
    ids=lambda happens: happens.__name__.replace("_", " "),
)
def test_what_is_not_the_answer_to_our_question_changes_nothing(
    house: House, happens: Callable[[House, Request], None]
) -> None:
    house.powers(1)
    house.pipeline.flush()
    request = asks(house)
    happens(house, request)
    house.turn()
    assert not is_told(house)
    assert house.desk.status()["flows"]
    assert {lane.state for lane in house.spool.lanes().values()} == {LaneState.HELD}
    assert [one for one in house.leaving("maker") if not isinstance(one, Control)] == []


def test_the_twin_an_answer_in_time_is_believed(house: House) -> None:
    request = asks(house)
    house.clock.advance(ANSWER_MS - 500)
    answer(house, request.id)
    assert is_told(house)


def test_an_answer_that_was_long_on_its_way_is_believed_where_the_floor_is_the_time(
    house: House,
) -> None:
    request = asks(house)
    told_ms = house.site.floor.past_ms(house.clock.now())
    house.clock.advance(SECOND)
    answer(house, request.id, told_ms)
    assert is_told(house)
    assert house.clock.now().wall_ms >= told_ms + SECOND  # it never goes back behind the floor


def test_a_question_that_waited_for_a_connection_is_asked_anew_on_it(house: House) -> None:
    first = asks(house)
    house.turn(4 * SECOND)
    house.connect("maker")
    house.turn()
    (second,) = questions(house)
    assert second.id != first.id
    answer(house, first.id)
    assert not is_told(house)
    house.turn()
    assert [one.id for one in questions(house)] == [second.id]  # once a connection
    answer(house, second.id)
    assert is_told(house)


def refused(house: House) -> object:
    return house.desk.status()["rejected"]


def test_the_answer_to_the_question_just_replaced_is_no_refusal(house: House) -> None:
    first = asks(house)
    house.connect("maker")
    house.turn()
    (second,) = questions(house)
    answer(house, first.id)
    answer(house, second.id)
    assert is_told(house)
    assert refused(house) == {}


def test_the_twin_an_answer_nobody_asked_for_is_a_refusal(house: House) -> None:
    first = asks(house)
    house.connect("maker")
    house.turn()
    answer(house, bytes(16))
    assert refused(house) == {"time-not-asked": 1}
    answer(house, first.id)
    answer(house, first.id)  # it was asked once
    assert refused(house) == {"time-not-asked": 2}
    assert not is_told(house)


def test_one_question_waits_at_most_and_they_grow_rarer(house: House) -> None:
    seen = {asks(house).id}
    for _ in range(12 * 60):
        house.turn(MINUTE)
        waiting = questions(house)
        assert len(waiting) == 1
        seen.add(waiting[0].id)
    assert 10 <= len(seen) <= 24


def test_a_time_service_is_believed_over_what_was_told(house: House) -> None:
    request = asks(house)
    answer(house, request.id)
    told_ms = house.clock.now().wall_ms
    house.clock.step(told_ms + MINUTE - (house.clock._wall_ms))
    house.clock.trusted = True
    house.powers(1)
    now = house.clock.now()
    assert (now.told, now.wall_ms - told_ms) == (False, MINUTE + SECOND)
    house.turn(FIRST_MS)
    house.turn(RENEW_MS)
    assert questions(house) == []
    with house.carrier() as carrier:
        assert {one.clock for one in carrier.targets(0)} == {ClockTrust.MACHINE}


def test_while_it_rests_on_what_was_told_it_is_asked_again_beside_open_lanes(house: House) -> None:
    request = asks(house)
    answer(house, request.id)
    house.turn(HOUR)
    assert questions(house) == []
    for _ in range(8):
        house.turn(HOUR)
        if questions(house):
            break
    (again,) = questions(house)
    before = house.clock.now().wall_ms
    answer(house, again.id, before - 2 * SECOND)  # our clock has run too fast
    assert abs(house.clock.now().wall_ms - before) < 2 * SECOND
    house.decide(NO)
    house.turn()
    assert questions(house) == []


def test_status_says_that_the_time_was_told(installed: Path, tmp_path: Path) -> None:
    directory = copied(installed, tmp_path / "gateway")
    text = (directory / "agent.toml").read_text()
    (directory / "agent.toml").write_text(text.replace('"system"', '"synchronised"'))
    with living(directory) as house:
        house.clock.trusted = False
        house.clock.tell(START_MS)
        told = house.desk.status()
    assert told["clock"] == "told by a recipient: as a test says"
    assert told["clock_trusted"]


def test_what_an_earlier_life_asked_is_taken_back(house: House) -> None:
    asks(house)
    house.vanish()
    later = House(house.directory, house.clock).start()
    try:
        later.turn()
        assert questions(later) == []
        asks(later)
    finally:
        later.close()


def test_a_core_flow_alone_is_worth_asking_for(installed: Path, tmp_path: Path) -> None:
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.decide({CORE: '"accepted"'})
        house.clock.trusted = False
        house.turn()
        asks(house)
        assert questions(house, "energy-advice") == []
