# SPDX-License-Identifier: Apache-2.0
"""An answer is read as it was given, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.answers import Applied, Consent, History, SaidNo, Sent, Status, read, told
from assent.errors import ControlError
from tests.agent.installed import DIAGNOSIS, FAULT, POWER, YES, House, copied, living, replaced

KINDS: dict[str, type[msgspec.Struct]] = {
    "status": Status,
    "consent": Consent,
    "history": History,
    "sent": Sent,
}

TELLING = {
    "status": ("flows", "uplinks", "certificates", "policy"),
    "consent": ("flows", "version"),
    "history": ("decisions", "policies"),
    "sent": ("sent",),
}


@pytest.fixture(scope="module")
def answered(
    installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., dict[str, Any]]]:
    """A household that decided, changed its mind and got another policy, asked as JSON."""
    with living(copied(installed, tmp_path_factory.mktemp("answers") / "gateway")) as house:
        lived_in(house)

        def ask(verb: str) -> dict[str, Any]:
            words = {"flow": None, "limit": 9} if verb == "sent" else {}
            answer: dict[str, Any] = house.desk.answer({"verb": verb, **words})
            return answer

        yield ask


def lived_in(house: House) -> None:
    until = f'{{ decision = "given", until = 2027-11-22, without = ["{FAULT}"] }}'
    house.decide(YES | {DIAGNOSIS: until})
    house.powers(1, 2, 3)
    house.pipeline.flush()
    house.connect("maker")
    now_ms = house.clock.now().wall_ms
    with house.carrier() as carrier:  # what nobody confirmed is told as sent, too
        carrier.handed_over([one.id for one in carrier.lease("maker", 9, now_ms)], now_ms)
    house.desk.say_no(DIAGNOSIS)
    house.bring({POWER: 5.0})
    house.publish(replaced('"appliance.power" = "round(1)"', '"appliance.power" = "keep"'))
    house.desk.reload()


@pytest.mark.parametrize("verb", KINDS)
def test_whoever_asks_reads_what_the_agent_gave_and_nothing_else(
    answered: Callable[..., dict[str, Any]], verb: str
) -> None:
    answer = answered(verb)
    assert all(answer[name] for name in TELLING[verb]), "the twin: there is something to read"
    over_the_socket = json.loads(json.dumps(answer))
    assert over_the_socket == answer
    assert told(read(over_the_socket, KINDS[verb])) == answer
    assert json.dumps(told(read(over_the_socket, KINDS[verb]))) == json.dumps(answer)


@pytest.mark.parametrize("verb", KINDS)
def test_an_answer_in_which_anything_is_missing_is_none(
    answered: Callable[..., dict[str, Any]], verb: str
) -> None:
    answer = answered(verb)
    for key in answer:
        left = {name: value for name, value in answer.items() if name != key}
        with pytest.raises(ControlError, match="in other words"):
            read(left, KINDS[verb])


def test_a_doubt_is_told_and_certainty_of_a_form_is_not() -> None:
    assert told(Applied(["a"], [], ["a: given"])) == {
        "acted": ["a"],
        "stayed": [],
        "told": ["a: given"],
    }
    assert told(Applied([], [], [], certain=False))["certain"] is False
    assert read(told(Applied([], [], [])), Applied).certain


def test_a_no_that_does_not_say_whether_it_is_certain_is_no_answer() -> None:
    """Red where `certain` has a default: a command would then end well on silence."""
    answer = told(SaidNo(flow="a", decision="no", uplink="silent", certain=False, told=["a: no"]))
    assert list(answer) == ["flow", "decision", "uplink", "certain", "told"]
    assert not read(answer, SaidNo).certain
    del answer["certain"]
    with pytest.raises(ControlError):
        read(answer, SaidNo)
