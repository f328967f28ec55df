# SPDX-License-Identifier: Apache-2.0
"""A form that is being written says no at once and yes only when it lies there whole."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from agent.letterbox import SETTLE_MS
from agent.path import Reason
from tests.agent.installed import ADVICE, CORE, DIAGNOSIS, YES, House, form
from tests.simulators.clock import START_MS

HEAD = form({}, START_MS)
TABLES = f"""\
{HEAD.removesuffix("[decisions]" + chr(10))}
[decisions.{CORE}]
decision = "accepted"

[decisions.{DIAGNOSIS}]
decision = "given"
until = 2026-11-25
without = ["device.serial"]

[decisions.{ADVICE}]
decision = "refused"
"""
CUTS = [at for at, letter in enumerate(TABLES) if letter == "\n"]


def lay(house: House, text: str) -> None:
    """Writes in place, as an editor does that makes no new file."""
    with (house.directory / "consent.toml").open("w") as file:
        file.write(text)


def later(house: House, ms: int = SETTLE_MS) -> None:
    house.clock.advance(ms)
    house.desk.look_again()


def wait(house: House) -> bool:
    return any("a yes in it acts" in said for said in house.desk.status()["notices"])


def on(house: House) -> set[str]:
    return {flow for flow, reason in house.on().items() if reason is None}


@pytest.mark.clause("C28")
@pytest.mark.parametrize("cut", CUTS)
def test_half_a_form_says_no_more_than_the_whole(house: House, cut: int) -> None:
    lay(house, TABLES[:cut])
    house.desk.reload()
    assert on(house) == set()
    later(house, SETTLE_MS - 1)
    assert on(house) == set()
    lay(house, TABLES)
    later(house, 1)
    assert on(house) == set()
    later(house)
    assert on(house) == {CORE, DIAGNOSIS}  # and nobody had to say that it is whole now
    newest = house.site.ledger.newest(DIAGNOSIS)
    assert newest is not None
    assert newest.without == ("device.serial",)
    assert newest.until_ms is not None
    assert house.on()[ADVICE] == Reason.REFUSED.value
    assert [r.state.is_yes for r in house.site.ledger.history(DIAGNOSIS)] == [True]


def test_a_form_that_lies_whole_acts_after_a_while_and_status_says_so(house: House) -> None:
    lay(house, form(YES))
    assert not wait(house)
    house.desk.reload()
    assert wait(house)
    later(house, SETTLE_MS - 1)
    assert on(house) == set()
    later(house, 1)
    assert on(house) == set(YES)
    assert not wait(house)


@pytest.mark.clause("C28")
@pytest.mark.parametrize("dated", ["recorded", "on"])
def test_a_yes_of_the_future_acts_when_its_date_comes(house: House, dated: str) -> None:
    at_ms = START_MS + 60_000
    moment = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)
    said = f'{{ decision = "given", on = {moment:%Y-%m-%dT%H:%M:%SZ} }}'
    whole = form(YES, at_ms) if dated == "recorded" else form(YES | {DIAGNOSIS: said}, START_MS)
    now = set() if dated == "recorded" else set(YES) - {DIAGNOSIS}
    lay(house, whole)
    house.desk.reload()
    later(house)
    assert on(house) == now
    later(house, at_ms - 1 - house.clock.now().wall_ms)
    assert on(house) == now
    later(house, 1)
    assert on(house) == set(YES)


def test_a_form_that_lies_there_at_a_start_acts_after_a_while(house: House) -> None:
    house.close()
    lay(house, form(YES))
    after = House(house.directory, house.clock)
    after.desk.read_form()
    after.pipeline.start()
    assert on(after) == set()
    later(after)
    assert on(after) == set(YES)
    after.close()


@pytest.mark.clause("C28")
def test_a_no_acts_at_the_first_look(house: House) -> None:
    house.decide(YES)
    lay(house, form({DIAGNOSIS: '"refused"', ADVICE: '{ decision = "given", until = 2026-12-24 }'}))
    house.desk.reload()
    assert on(house) == {CORE, ADVICE}
    assert house.on()[DIAGNOSIS] == Reason.WITHDRAWN.value


@pytest.mark.clause("C28")
def test_a_form_that_can_be_read_again_ends_a_pause_only_when_it_lies_still(house: House) -> None:
    house.decide(YES)
    lay(house, "[decisions")
    house.desk.reload()
    assert on(house) == {CORE}  # at once
    for text in (HEAD, form({CORE: '"accepted"'})):
        lay(house, text)
        house.desk.reload()
        assert on(house) == {CORE}
        house.clock.advance(SETTLE_MS - 1)
    later(house, 1)
    assert on(house) == set(YES)


def test_a_form_that_is_gone_for_a_moment_ends_no_pause(house: House) -> None:
    house.decide(YES)
    lay(house, "[decisions")
    house.desk.reload()
    path = house.directory / "consent.toml"
    path.unlink()
    house.desk.reload()
    assert on(house) == {CORE}
    lay(house, "[decisions")
    later(house)
    later(house)
    assert on(house) == {CORE}
    path.unlink()
    house.desk.reload()
    later(house)
    assert on(house) == set(YES)


def test_the_same_bytes_written_once_more_begin_anew(house: House) -> None:
    lay(house, form(YES))
    house.desk.reload()
    path = house.directory / "consent.toml"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    later(house)
    assert on(house) == set()
    later(house)
    assert on(house) == set(YES)


def test_a_form_that_a_command_hands_over_acts_at_once(house: House) -> None:
    house.decide(YES)
    assert on(house) == set(YES)


@pytest.mark.clause("C28")
def test_a_no_between_two_looks_is_not_taken_back_by_the_second(house: House) -> None:
    house.decide(YES)
    house.clock.advance(60_000)
    said = '{ decision = "given", on = 2026-11-22T02:16:00Z, without = ["device.serial"] }'
    lay(house, form({DIAGNOSIS: said}, house.clock.now().wall_ms))
    house.desk.reload()
    house.desk.say_no(DIAGNOSIS)
    later(house)
    assert on(house) == {CORE, ADVICE}


def test_a_form_that_lies_still_is_not_read_again_and_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    lay(house, form(YES))
    house.desk.reload()
    later(house)
    monkeypatch.setattr("agent.letterbox.durable.read", lambda *_: reads.append(_))
    for _ in range(5):
        later(house)
    assert reads == []
