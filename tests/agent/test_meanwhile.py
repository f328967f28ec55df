# SPDX-License-Identifier: Apache-2.0
"""Noes that were said past the collecting side: recorded once, before anything else, never lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from agent.letterbox import SETTLE_MS
from agent.meanwhile import hear_refusals
from agent.offline import at_the_desk
from agent.records import State
from agent.spool import LaneState, Spool
from assent.errors import LedgerError, SpoolError
from tests.agent.installed import DIAGNOSIS, House
from tests.agent.test_desk import agreed  # noqa: F401 (a fixture)


def recorded(house: House) -> list[State]:
    return [record.state for record in house.site.ledger.history(DIAGNOSIS)]


@pytest.mark.clause("C28")
@pytest.mark.parametrize("leave", [Spool.refuse, Spool.refuse_beside], ids=["in it", "beside it"])
def test_a_no_said_meanwhile_is_recorded_once_with_its_instant(
    agreed: House,  # noqa: F811
    leave: Callable[[Spool, str, int], None],
) -> None:
    said_ms = agreed.clock.now().wall_ms - 5_000
    leave(agreed.spool, DIAGNOSIS, said_ms)
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert recorded(agreed) == [State.GIVEN, State.WITHDRAWN]
    newest = agreed.site.ledger.newest(DIAGNOSIS)
    assert newest is not None
    assert newest.decided_ms == said_ms
    assert agreed.on()[DIAGNOSIS] == "withdrawn"
    assert agreed.spool.refusals() == {}


@pytest.mark.clause("C28")
def test_while_a_no_lies_beside_the_spool_nothing_of_the_flow_is_leased(
    agreed: House,  # noqa: F811
) -> None:
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    with agreed.carrier() as carrier:
        now_ms = agreed.clock.now().wall_ms
        (leased,) = [one for one in carrier.lease("maker", 10, now_ms) if one.flow == DIAGNOSIS]
        agreed.spool.refuse_beside(DIAGNOSIS, now_ms)
        assert carrier.revoked(now_ms) == {leased.id}
        carrier.returned([leased.id])
        assert [one for one in carrier.lease("maker", 10, now_ms) if one.flow == DIAGNOSIS] == []


@pytest.mark.clause("C28")
@pytest.mark.parametrize("is_no", [True, False], ids=["after a no", "the twin without"])
def test_a_lane_that_is_opened_again_before_the_no_is_heard_lets_nothing_out(
    agreed: House,  # noqa: F811
    is_no: bool,
) -> None:
    form = agreed.directory / "consent.toml"
    form.write_text("broken = ")
    agreed.reload()
    if is_no:
        agreed.spool.refuse(DIAGNOSIS, agreed.clock.now().wall_ms)
    form.unlink()
    agreed.reload()
    agreed.clock.advance(SETTLE_MS)
    agreed.desk.look_again()
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    assert agreed.spool.lanes()[DIAGNOSIS].state is LaneState.OPEN  # nobody has heard it yet
    assert bool(agreed.batches(DIAGNOSIS)) is not is_no
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert (agreed.spool.lanes()[DIAGNOSIS].state is LaneState.CLOSED) is is_no


@pytest.mark.clause("C28")
def test_a_no_is_leased_past_by_nobody_who_leased_before(agreed: House) -> None:  # noqa: F811
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    now_ms = agreed.clock.now().wall_ms
    with agreed.carrier() as carrier:
        (leased,) = [one for one in carrier.lease("maker", 10, now_ms) if one.flow == DIAGNOSIS]
        assert carrier.revoked(now_ms) == frozenset()
        agreed.spool.refuse(DIAGNOSIS, now_ms)
        assert carrier.revoked(now_ms) == {leased.id}


@pytest.mark.parametrize("leave", [Spool.refuse, Spool.refuse_beside], ids=["in it", "beside it"])
def test_a_no_to_what_is_no_text_harms_no_spool(
    agreed: House,  # noqa: F811
    leave: Callable[[Spool, str, int], None],
) -> None:
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    with pytest.raises(SpoolError):
        leave(agreed.spool, "service\udcff", agreed.clock.now().wall_ms)
    with pytest.raises(SpoolError):
        agreed.spool.refuse(DIAGNOSIS, 2**63)
    agreed.close()
    with contextlib.closing(Spool.open(agreed.path)) as spool:
        assert spool.moved_aside is None
        assert spool.waiting()[DIAGNOSIS].batches == 1


def test_a_no_the_ledger_has_by_now_is_not_recorded_again(agreed: House) -> None:  # noqa: F811
    agreed.spool.refuse(DIAGNOSIS, agreed.clock.now().wall_ms)
    agreed.desk.say_no(DIAGNOSIS)
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert recorded(agreed) == [State.GIVEN, State.WITHDRAWN]
    assert agreed.spool.refusals() == {}


def test_a_lane_found_shut_first_does_not_hide_the_no(agreed: House) -> None:  # noqa: F811
    agreed.spool.refuse(DIAGNOSIS, agreed.clock.now().wall_ms)
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    agreed.pipeline.denied.add(DIAGNOSIS)  # as the path does when the spool takes nothing of it
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert recorded(agreed)[-1] is State.WITHDRAWN
    assert agreed.on()[DIAGNOSIS] == "withdrawn"


def test_a_no_that_the_ledger_does_not_take_stays(agreed: House) -> None:  # noqa: F811
    def full(_flow: str, _said_ms: int) -> None:
        raise LedgerError("the ledger is full")

    agreed.spool.refuse(DIAGNOSIS, agreed.clock.now().wall_ms)
    assert not hear_refusals(agreed.pipeline, full)
    assert list(agreed.spool.refusals()) == [DIAGNOSIS]


def test_a_no_to_a_flow_that_nobody_knows_keeps_no_other_one_waiting(
    agreed: House,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    agreed.spool.refuse_beside("nothing\nlevel=ERROR forged", agreed.clock.now().wall_ms)
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert agreed.spool.refusals() == {}
    assert all("\n" not in record.getMessage() for record in caplog.records)
    agreed.spool.refuse_beside(DIAGNOSIS, agreed.clock.now().wall_ms)
    assert hear_refusals(agreed.pipeline, agreed.desk.say_no)
    assert recorded(agreed)[-1] is State.WITHDRAWN


@pytest.mark.clause("C28")
def test_a_command_records_it_before_it_answers(agreed: House) -> None:  # noqa: F811
    agreed.spool.refuse(DIAGNOSIS, agreed.clock.now().wall_ms)
    with at_the_desk(agreed.site.settings) as desk:
        flows = {flow["flow"]: flow["reason"] for flow in desk.status()["flows"]}
    assert flows[DIAGNOSIS] == "withdrawn"
