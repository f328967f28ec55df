# SPDX-License-Identifier: Apache-2.0
"""Which messages leave next: arrears beside what is new, and what a broker has lost."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Spool
from agent.spool.order import RECALL_MS, RECALL_PART, RESEND_MAX_MS, RESEND_MS
from tests.agent.sealed import NOW, run_of, sealed

STREAM = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    one = Spool.open(path)
    one.open_lane("service", "maker", STREAM, None)
    yield one
    one.close()


@pytest.fixture
def carrier(spool: Spool) -> Iterator[Spool]:
    one = Spool.open(spool.path, create=False)
    yield one
    one.close()


def sequences(carrier: Spool, limit: int, **most: int) -> list[int]:
    """What is leased, as the numbers of the batches."""
    leases = carrier.lease("maker", limit, NOW, **most)
    return [lease.id & 0xFFFFFFFF for lease in leases]


def send(carrier: Spool, limit: int, now_ms: int) -> int:
    """Leases and delivers; says how many."""
    ids = [lease.id for lease in carrier.lease("maker", limit, now_ms)]
    carrier.delivered(ids, now_ms)
    return len(ids)


def wait_ms(carrier: Spool, now_ms: int) -> int:
    """In how many ms the one batch is due, to half a second."""

    def is_due(wait: int) -> bool:
        leases = carrier.lease("maker", 1, now_ms + wait)
        carrier.returned([lease.id for lease in leases])
        return bool(leases)

    waits = range(0, RESEND_MAX_MS + 1, 500)
    at = bisect.bisect_left(waits, True, key=is_due)
    return waits[at] if at < len(waits) else -1


# --- arrears -------------------------------------------------------------------------------------


def test_what_is_new_takes_turns_with_what_waited_before(spool: Spool, carrier: Spool) -> None:
    """Red without the mark: the new ones stand behind all that waited."""
    spool.put(run_of(100))
    carrier.note_arrears("maker")
    spool.put([sealed(sequence) for sequence in range(100, 110)])
    assert sequences(carrier, 6) == [100, 0, 101, 1, 102, 2]


def test_the_twin_without_a_mark_is_oldest_first(spool: Spool, carrier: Spool) -> None:
    spool.put(run_of(110))
    assert sequences(carrier, 6) == [0, 1, 2, 3, 4, 5]


def test_what_waited_before_can_be_limited_and_what_is_new_cannot(
    spool: Spool, carrier: Spool
) -> None:
    spool.put(run_of(5))
    carrier.note_arrears("maker")
    spool.put([sealed(sequence) for sequence in range(5, 9)])
    assert sequences(carrier, 20, late=2) == [5, 0, 6, 1, 7, 8]
    assert sequences(carrier, 20, late=0) == []
    assert sequences(carrier, 20) == [2, 3, 4]


def test_late_is_said_of_each_lease(spool: Spool, carrier: Spool) -> None:
    spool.put([sealed(0)])
    carrier.note_arrears("maker")
    spool.put([sealed(1)])
    assert [lease.late for lease in carrier.lease("maker", 9, NOW)] == [False, True]


def test_a_lane_that_opens_later_has_no_arrears(spool: Spool, carrier: Spool) -> None:
    spool.put(run_of(3))
    carrier.note_arrears("maker")
    spool.open_lane("advice", "maker", 9, None)
    spool.put(run_of(3, flow="advice", stream=9))
    flows = {lease.flow for lease in carrier.lease("maker", 9, NOW, late=0)}
    assert flows == {"advice"}


# --- a lost session ------------------------------------------------------------------------------


def test_after_a_lost_session_what_was_taken_is_due_soon_doubling_with_every_time(
    spool: Spool, carrier: Spool
) -> None:
    """Red without the doubling: a broker that keeps no sessions gets everything every 5 seconds."""
    spool.put([sealed(0)])
    now, waits = NOW, []
    for _ in range(14):
        assert send(carrier, 1, now) == 1
        assert not carrier.recall("maker", now)
        waits.append(wait_ms(carrier, now))
        now += waits[-1]
    assert waits[:9] == [RECALL_MS << times for times in range(9)]
    assert waits[-1] == RESEND_MAX_MS
    assert waits == sorted(waits)


def test_the_twin_whose_session_was_kept_is_due_after_15_minutes(
    spool: Spool, carrier: Spool
) -> None:
    spool.put([sealed(0)])
    send(carrier, 1, NOW)
    assert wait_ms(carrier, NOW) == RESEND_MS


def test_a_session_that_is_lost_again_and_again_makes_nothing_due_sooner_or_later(
    spool: Spool, carrier: Spool
) -> None:
    """Red when a recall counts from the last one: a link that flaps would never send it."""
    spool.put([sealed(0)])
    send(carrier, 1, NOW)
    for second in range(4):
        carrier.recall("maker", NOW + second * 1_000)
    assert wait_ms(carrier, NOW) == RECALL_MS


def test_what_was_never_sent_or_is_too_large_is_not_recalled(spool: Spool, carrier: Spool) -> None:
    spool.put(run_of(3))
    carrier.set_aside([carrier.lease("maker", 1, NOW)[0].id])
    carrier.recall("maker", NOW)
    assert sequences(carrier, 9) == [1, 2]
    assert spool.waiting()["service"].too_large == 1


def test_another_recipients_batches_stay_where_they_are(spool: Spool, carrier: Spool) -> None:
    spool.put([sealed(0)])
    send(carrier, 1, NOW)
    carrier.recall("partner", NOW)
    assert wait_ms(carrier, NOW) == RESEND_MS


def test_a_recall_goes_in_parts_and_reaches_everything(spool: Spool, carrier: Spool) -> None:
    spool.put(run_of(2 * RECALL_PART + 1))
    send(carrier, 9_999, NOW)
    parts = 1
    while carrier.recall("maker", NOW + parts):
        parts += 1
    assert parts == 3
    again = carrier.lease("maker", 9_999, NOW + RECALL_MS + parts)
    assert len(again) == 2 * RECALL_PART + 1
    assert all(lease.again for lease in again)
