# SPDX-License-Identifier: Apache-2.0
"""The spool keeps what it took, gives what may leave, and nothing else."""

from __future__ import annotations

import contextlib
import os
import select
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.spool import Health, LaneState, Lease, LinkState, Spool, Target
from agent.spool.erasure import PART, PART_BYTES
from agent.spool.gaps import OFFERED
from agent.spool.mail import CONTROL_MESSAGES, INBOX_BYTES, INBOX_MESSAGES
from agent.spool.order import RESEND_MAX_MS, RESEND_MS
from agent.spool.retention import _PARTS, OVERHEAD
from assent.errors import SpoolError
from assent.header import Gap, GapCause
from assent.messages import RefusalReason, Refused, StreamAck
from assent.wire import MAX_MESSAGE
from tests.agent.sealed import FAR, NOW, run_of, sealed, steps

STREAM = 7
TARGET = Target("maker", "mqtts://a:1", "0" * 32, "ca", "cert", "key")
CANARY = b"canary-of-the-household-" * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    opened = Spool.open(path)
    yield opened
    opened.close()


@pytest.fixture
def carrier(spool: Spool, path: Path) -> Iterator[Spool]:
    opened = Spool.open(path, create=False)
    yield opened
    opened.close()


def data_of(leases: list[Lease]) -> list[bytes]:
    return [lease.data for lease in leases]


def on_disk(path: Path, needle: bytes) -> list[str]:
    return sorted(
        entry.name
        for entry in path.parent.iterdir()
        if entry.is_file() and needle in entry.read_bytes()
    )


# --- streams and put -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [0, 1, 2**63 - 1, 2**63, 2**64 - 1], ids=hex)
def test_a_stream_is_any_unsigned_64_bit_number(spool: Spool, stream: int) -> None:
    assert spool.open_lane("service", "maker", stream, None) == 0
    spool.put([sealed(0, stream=stream)])
    assert spool.lanes()["service"].stream == stream
    assert spool.lanes()["service"].next_sequence == 1
    assert spool.acknowledge("maker", [StreamAck(stream, 1)]).batches == 1


@pytest.mark.parametrize("stream", [-1, 2**64], ids=["negative", "65 bits"])
def test_a_stream_that_is_no_unsigned_64_bit_number_is_refused(spool: Spool, stream: int) -> None:
    with pytest.raises(SpoolError, match="unsigned 64-bit"):
        spool.open_lane("service", "maker", stream, None)


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ([sealed(1)], "expected sequence 0, got 1"),
        ([sealed(0), sealed(2)], "expected sequence 1, got 2"),
        ([sealed(0), sealed(0)], "expected sequence 1, got 0"),
        ([sealed(0, stream=8)], "stream"),
        ([sealed(0, recipient="other")], "another recipient"),
        ([sealed(0), sealed(0, flow="unheard-of")], "not open"),
    ],
    ids=[
        "a sequence that leaves one out",
        "a hole within one put",
        "a sequence twice",
        "a stream that is not the lane's",
        "a batch sealed for another recipient",
        "a flow that never had a lane",
    ],
)
def test_a_put_that_does_not_fit_stores_nothing(
    spool: Spool, batches: list[object], sentence: str
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    with pytest.raises(SpoolError, match=sentence):
        spool.put(batches)
    assert spool.waiting()["service"].batches == 0
    spool.put([sealed(0)])  # the twin: what fits is stored
    assert spool.waiting()["service"].batches == 1


def test_what_was_put_is_leased_in_order_with_equal_bytes(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    batches = run_of(30)
    spool.put(batches[:10])
    spool.put(batches[10:])
    leases = carrier.lease("maker", 100, NOW)
    assert data_of(leases) == [batch.data for batch in batches]
    assert {lease.flow for lease in leases} == {"service"}


def test_an_open_lane_goes_on_in_its_stream(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    assert spool.open_lane("service", "maker", STREAM, FAR) == 3
    assert spool.lanes()["service"].not_after_ms == FAR


def test_a_new_stream_ends_the_old_one_and_what_waits_of_it_still_leaves(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    assert spool.open_lane("service", "maker", 8, None) == 0
    with pytest.raises(SpoolError, match="present one"):
        spool.put([sealed(2)])
    spool.put([sealed(0, stream=8)])
    assert len(carrier.lease("maker", 10, NOW)) == 3
    with pytest.raises(SpoolError, match="ended"):
        spool.open_lane("service", "maker", STREAM, None)


# --- the second gate -----------------------------------------------------------------------------


@pytest.mark.clause("C03")
@pytest.mark.clause("C28")
def test_nothing_of_a_closed_lane_is_leased(spool: Spool, carrier: Spool) -> None:
    for flow, stream in (("service", 7), ("advice", 8)):
        spool.open_lane(flow, "maker", stream, None)
        spool.put(run_of(3, flow=flow, stream=stream))
    spool.close_lane("service")
    assert {lease.flow for lease in carrier.lease("maker", 10, NOW)} == {"advice"}


def test_closing_survives_a_restart(spool: Spool, path: Path) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    Spool.open(path, create=False).close_lane("service")  # another process, without the lock
    spool.close()
    again = Spool.open(path)
    assert again.lanes()["service"].state is LaneState.CLOSED
    assert again.lease("maker", 10, NOW) == []
    again.close()


def test_a_no_before_any_lane_is_kept(spool: Spool) -> None:
    spool.close_lane("never-opened")
    assert spool.lanes()["never-opened"].state is LaneState.CLOSED


def test_a_batch_does_not_enter_a_closed_lane(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.close_lane("service")
    with pytest.raises(SpoolError, match="not open"):
        spool.put([sealed(0)])


@pytest.mark.clause("C03")
@pytest.mark.clause("C28")
def test_what_waited_when_a_lane_was_closed_never_leaves_even_after_a_new_yes(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    spool.close_lane("service")  # the purge that should follow never ran
    spool.open_lane("service", "maker", 8, None)
    fresh = sealed(0, stream=8)
    spool.put([fresh])
    assert data_of(carrier.lease("maker", 10, NOW)) == [fresh.data]


@pytest.mark.clause("C33")
@pytest.mark.parametrize(
    ("basis", "left"), [(b"wide", 3), (b"narrow", 0)], ids=["the same basis", "a narrower one"]
)
def test_what_waits_leaves_only_on_the_basis_it_was_collected_on(
    spool: Spool, carrier: Spool, basis: bytes, left: int
) -> None:
    spool.open_lane("service", "maker", STREAM, None, basis=b"wide")
    spool.put(run_of(3))
    spool.open_lane("service", "maker", 8, None, basis=basis)
    assert len(carrier.lease("maker", 10, NOW)) == left


@pytest.mark.clause("C03")
@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    ("start", "left"),
    [(NOW, 5), (NOW + 1, 4), (NOW + 2_000, 3), (NOW + 60_000, 0)],
    ids=["before all", "within the first", "where the third begins", "after all"],
)
def test_nothing_leaves_that_began_before_the_unbroken_yes(
    spool: Spool, carrier: Spool, start: int, left: int
) -> None:
    """Red without `delete_before`: a yes of today sends what an expired one collected."""
    spool.open_lane("service", "maker", STREAM, None, not_before_ms=NOW)
    batches = run_of(5)
    spool.put(batches)
    spool.add_gap("service", STREAM, GapCause.AGE, first_ms=NOW, last_ms=NOW + 9, readings=1)
    held = carrier.lease("maker", 1, NOW)
    spool.open_lane("service", "maker", 8, None, not_before_ms=start)
    assert carrier.revoked(NOW) == (frozenset(one.id for one in held) if left < 5 else frozenset())
    carrier.returned([one.id for one in held])
    assert data_of(carrier.lease("maker", 10, NOW)) == [one.data for one in batches[5 - left :]]
    waiting = spool.waiting()["service"]
    assert (waiting.batches, waiting.readings, waiting.bytes) == (left, 10 * left, 300 * left)
    told = [gap.cause for gap in spool.gaps_for("service") if gap.cause is not GapCause.ENDED]
    assert told == [GapCause.AGE] * (left == 5)


@pytest.mark.clause("C03")
@pytest.mark.parametrize("by", ["trim_lane", "open_lane"])
def test_what_was_put_from_before_the_yes_is_gone_when_its_lane_is_opened_again(
    spool: Spool, carrier: Spool, by: str
) -> None:
    """Red where a lane that is opened for the same again is believed whatever was put into it."""
    yes = {"basis": b"wide", "not_before_ms": NOW + 2_000}
    batches = run_of(5)
    spool.open_lane("service", "maker", STREAM, None, **yes)
    spool.put(batches[:4])
    spool.put(batches[4:])
    if by == "trim_lane":
        assert spool.trim_lane("service", **yes, since_ms=None).batches == 2
    else:
        spool.open_lane("service", "maker", 8, None, **yes)
    assert data_of(carrier.lease("maker", 10, NOW)) == [one.data for one in batches[2:]]
    assert spool.lanes()["service"].not_before_ms == NOW + 2_000


def test_what_waits_for_one_recipient_does_not_leave_to_another(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    spool.open_lane("service", "partner", 8, None)
    assert carrier.lease("partner", 10, NOW) == carrier.lease("maker", 10, NOW) == []
    assert spool.waiting()["service"].batches == 0


def test_a_gap_from_before_the_yes_is_kept_back_when_its_lane_is_opened_again(
    spool: Spool,
) -> None:
    """Red where a lane that is opened for the same again is believed with its gaps."""
    spool.open_lane("service", "maker", STREAM, None, not_before_ms=NOW)
    for first_ms in (NOW - 9_000, NOW + 9_000):
        span = {"first_ms": first_ms, "last_ms": first_ms + 1_000}
        spool.add_gap("service", STREAM, GapCause.UNSEALED, **span, readings=1)
    spool.open_lane("service", "maker", 8, None, not_before_ms=NOW)
    assert [gap.first_ms for gap in spool.gaps_for("service")] == [NOW + 9_000]


@pytest.mark.clause("C33")
@pytest.mark.parametrize(
    ("basis", "start", "left"),
    [(b"wide", NOW, 5), (b"wide", NOW + 2_000, 3), (b"narrow", NOW, 0)],
    ids=["the same permit", "a later yes", "a narrower one"],
)
def test_a_permit_that_came_and_went_while_nothing_ran_leaves_its_mark(
    spool: Spool, carrier: Spool, basis: bytes, start: int, left: int
) -> None:
    """Red without `trim_lane`: narrowed and widened again, and the wider batches leave."""
    spool.open_lane("service", "maker", STREAM, None, basis=b"wide", not_before_ms=NOW)
    spool.put(run_of(5))
    assert (
        spool.trim_lane("service", basis=basis, not_before_ms=start, since_ms=None).batches
        == 5 - left
    )
    assert spool.trim_lane("service", basis=b"wide", not_before_ms=NOW, since_ms=None).batches == 0
    spool.open_lane("service", "maker", 8, None, basis=b"wide", not_before_ms=NOW)
    assert len(carrier.lease("maker", 10, NOW)) == left


def test_a_closed_lane_is_not_trimmed_into_another(spool: Spool) -> None:
    spool.close_lane("service")
    assert spool.trim_lane("service", basis=b"wide", not_before_ms=NOW, since_ms=None).batches == 0
    assert (
        spool.trim_lane("unheard-of", basis=b"wide", not_before_ms=NOW, since_ms=None).batches == 0
    )
    assert spool.lanes()["service"].state is LaneState.CLOSED


def test_a_pause_lets_nothing_out_and_keeps_what_waits(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    spool.pause_lane("service")
    assert carrier.lease("maker", 10, NOW) == []
    with pytest.raises(SpoolError, match="not open"):
        spool.put([sealed(3)])
    spool.open_lane("service", "maker", 8, None)
    assert len(carrier.lease("maker", 10, NOW)) == 3


def test_a_pause_does_not_soften_a_close(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.close_lane("service")
    spool.pause_lane("service")
    assert spool.lanes()["service"].state is LaneState.CLOSED


@pytest.mark.clause("C28")
@pytest.mark.parametrize(("now", "count"), [(FAR - 1, 3), (FAR, 0)], ids=["before", "at the end"])
def test_a_lane_whose_end_has_passed_gives_nothing(
    spool: Spool, carrier: Spool, now: int, count: int
) -> None:
    spool.open_lane("service", "maker", STREAM, FAR)
    spool.put(run_of(3))
    assert len(carrier.lease("maker", 10, now)) == count


def test_a_purge_deletes_the_flow_and_no_other(spool: Spool, carrier: Spool) -> None:
    for flow, stream in (("service", 7), ("advice", 8)):
        spool.open_lane(flow, "maker", stream, None)
        spool.put(run_of(3, flow=flow, stream=stream))
        spool.add_gap(flow, stream, GapCause.SILENT, first_ms=1, last_ms=2, readings=3)
    purged = spool.purge("service")
    assert (purged.batches, purged.readings, purged.bytes) == (3, 30, 900)
    assert spool.waiting()["service"].batches == 0
    assert spool.gaps_for("service") == ()
    assert spool.waiting()["advice"].batches == 3
    assert len(spool.gaps_for("advice")) == 1
    assert {lease.flow for lease in carrier.lease("maker", 10, NOW)} == {"advice"}
    with pytest.raises(SpoolError, match="present one"):  # a purge ends the stream
        spool.put([sealed(3)])


@pytest.mark.clause("C03")
@pytest.mark.clause("C28")
def test_purged_bytes_are_in_no_file_any_more(spool: Spool, carrier: Spool, path: Path) -> None:
    """Red without `secure_delete`, and without the cut of the log after a purge."""
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0, data=CANARY), sealed(1, data=CANARY * 30)])
    spool.close_lane("service")
    assert on_disk(path, CANARY) != []  # the twin: the search finds it while it is there
    spool.purge("service")
    assert on_disk(path, CANARY) == []
    assert on_disk(path, CANARY[:24]) == []


@pytest.mark.parametrize(
    ("is_shut", "basis", "begin"),
    [(True, b"a", NOW), (False, b"b", NOW), (False, b"a", NOW + 9_000)],
    ids=["a new yes before the purge", "a narrowing", "a later yes"],
)
def test_bytes_that_an_opening_deleted_are_in_no_file_any_more(
    spool: Spool, carrier: Spool, path: Path, is_shut: bool, basis: bytes, begin: int
) -> None:
    """Red where the log is cut after a purge alone."""
    spool.open_lane("service", "maker", STREAM, None, basis=b"a", not_before_ms=NOW)
    spool.put([sealed(0, data=CANARY)])
    if is_shut:
        spool.close_lane("service")
    assert on_disk(path, CANARY) != []
    spool.open_lane("service", "maker", 8, None, basis=basis, not_before_ms=begin)
    assert on_disk(path, CANARY) == []


def test_a_reader_in_the_way_delays_the_cut_and_does_not_prevent_it(
    spool: Spool, carrier: Spool, path: Path
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0, data=CANARY)])
    spool.expire(NOW)
    with carrier._reading() as db, spool.patience(50):
        db.execute("SELECT * FROM lane").fetchall()
        spool.purge("service")
        assert on_disk(path, CANARY) != []
    spool.expire(NOW)
    assert on_disk(path, CANARY) == []


def test_revoked_names_what_was_leased_and_must_not_leave(spool: Spool, carrier: Spool) -> None:
    for flow, stream in (("service", 7), ("advice", 8), ("trial", 9)):
        spool.open_lane(flow, "maker", stream, FAR if flow == "trial" else None)
        spool.put(run_of(2, flow=flow, stream=stream))
    leases = carrier.lease("maker", 10, NOW)
    assert carrier.revoked(NOW) == frozenset()
    spool.close_lane("service")
    assert carrier.revoked(NOW) == {one.id for one in leases if one.flow == "service"}
    assert carrier.revoked(FAR) == {one.id for one in leases if one.flow != "advice"}
    spool.open_lane("service", "maker", 10, None)  # a new yes does not bring them back
    assert carrier.revoked(NOW) == {one.id for one in leases if one.flow == "service"}


def test_the_fence_is_passed_when_the_uplink_has_answered(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.close_lane("service")
    fence = spool.fence()
    assert not spool.fence_passed(fence)
    carrier.answer_fence(carrier.fence())
    assert spool.fence_passed(fence)
    spool.purge("service")
    assert not spool.fence_passed(spool.fence())


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_is_given_once_until_it_returns(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(5))
    first = carrier.lease("maker", 3, NOW)
    second = carrier.lease("maker", 3, NOW)
    assert (len(first), len(second)) == (3, 2)
    carrier.returned([lease.id for lease in first])
    assert data_of(carrier.lease("maker", 10, NOW)) == data_of(first)


def test_leases_die_with_their_process(spool: Spool, carrier: Spool, path: Path) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(5))
    assert len(carrier.lease("maker", 10, NOW)) == 5
    after = Spool.open(path, create=False)
    assert len(after.lease("maker", 10, NOW)) == 5
    after.close()


def test_lanes_take_turns(spool: Spool, carrier: Spool) -> None:
    for flow, stream in (("service", 7), ("advice", 8)):
        spool.open_lane(flow, "maker", stream, None)
        spool.put(run_of(50, flow=flow, stream=stream))
    flows = [lease.flow for lease in carrier.lease("maker", 10, NOW)]
    assert (flows.count("service"), flows.count("advice")) == (5, 5)


def test_a_recipient_gets_its_own_only(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    spool.put_control("partner", b"hello")
    assert data_of(carrier.lease("partner", 10, NOW)) == [b"hello"]


def test_what_was_delivered_is_due_again_after_15_minutes_doubling_to_6_hours(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0)])
    now, waits = NOW, []
    for _ in range(8):
        (lease,) = carrier.lease("maker", 10, now)
        carrier.delivered([lease.id], now)
        left = now
        while not carrier.lease("maker", 10, now):
            now += 60_000
        carrier.returned([lease.id])
        waits.append((now - left) // 60_000)
    assert waits == [15, 30, 60, 120, 240, 360, 360, 360]
    assert (RESEND_MS, RESEND_MAX_MS) == (15 * 60_000, 360 * 60_000)


@pytest.mark.parametrize("briefly", [False, True], ids=["the backend", "the broker"])
def test_what_the_broker_confirmed_stays_until_whom_the_technician_named_has_it(
    spool: Spool, carrier: Spool, briefly: bool
) -> None:
    spool.set_targets([replace(TARGET, briefly=briefly)])
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    spool.open_lane("service", "maker", 8, None)
    ends = spool.gaps_for("service")
    spool.put([sealed(0, stream=8)], gaps=ends)
    carrier.delivered([lease.id for lease in carrier.lease("maker", 9, NOW)], NOW)
    assert len(spool.sent(9)) == 3
    waiting = spool.waiting()["service"]
    assert (waiting.batches, waiting.readings, waiting.bytes) == (
        (0, 0, 0) if briefly else (3, 30, 900)
    )
    assert spool.gaps_for("service") == (() if briefly else ends)
    acknowledged = spool.acknowledge("maker", [StreamAck(STREAM, 2), StreamAck(8, 1)])
    assert acknowledged.batches == (0 if briefly else 3)
    assert acknowledged.unknown == briefly


def test_what_was_never_sent_goes_first_and_resends_can_be_limited(
    spool: Spool, carrier: Spool
) -> None:
    for flow, stream in (("service", 7), ("advice", 8)):
        spool.open_lane(flow, "maker", stream, None)
        spool.put(run_of(5, flow=flow, stream=stream))
    carrier.delivered([lease.id for lease in carrier.lease("maker", 10, NOW)], NOW)
    spool.put([sealed(5), sealed(6)])
    later = NOW + RESEND_MS
    first = carrier.lease("maker", 3, later, resends=1)
    assert [lease.again for lease in first].count(True) == 1
    assert {sealed(5).data, sealed(6).data} <= set(data_of(first))
    assert carrier.lease("maker", 10, later, resends=0) == []
    rest = carrier.lease("maker", 99, later)
    assert len(rest) == 9
    assert all(lease.again for lease in rest)


def test_a_restart_alone_makes_nothing_due(spool: Spool, carrier: Spool, path: Path) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    carrier.delivered([lease.id for lease in carrier.lease("maker", 2, NOW)], NOW)
    after = Spool.open(path, create=False)
    assert len(after.lease("maker", 10, NOW + 1)) == 1
    after.close()


def test_a_clock_that_was_set_back_does_not_hold_batches_for_ever(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(1))
    carrier.delivered([lease.id for lease in carrier.lease("maker", 2, FAR)], FAR)
    assert len(carrier.lease("maker", 10, NOW)) == 1


def test_control_goes_first_and_is_forgotten_when_the_broker_has_it(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    spool.put_control("maker", b"status")
    first, second = carrier.lease("maker", 2, NOW)
    assert (first.data, first.flow, second.flow) == (b"status", None, "service")
    carrier.returned([first.id])
    (again,) = carrier.lease("maker", 1, NOW)
    assert again.data == b"status"
    carrier.delivered([again.id], NOW)
    assert all(lease.flow for lease in carrier.lease("maker", 10, FAR))


def test_control_is_bounded(spool: Spool) -> None:
    for _ in range(CONTROL_MESSAGES):
        spool.put_control("maker", b"x")
    with pytest.raises(SpoolError, match="256 control messages wait"):
        spool.put_control("maker", b"x")
    spool.put_control("partner", b"x")


def test_what_is_too_large_is_set_aside_until_the_broker_takes_more(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0, size=5_000), sealed(1)])
    large, small = carrier.lease("maker", 10, NOW)
    carrier.set_aside([large.id])
    carrier.returned([small.id])
    assert spool.waiting()["service"].too_large == 1
    assert [lease.id for lease in carrier.lease("maker", 10, FAR)] == [small.id]
    assert carrier.reconsider("maker", 4_999) == 0
    assert carrier.reconsider("maker", 5_000) == 1
    assert [lease.id for lease in carrier.lease("maker", 10, NOW)] == [large.id]


# --- acknowledgement -----------------------------------------------------------------------------


def test_an_acknowledgement_deletes_exactly_what_it_names(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(12))
    ack = StreamAck(
        STREAM,
        watermark=3,
        ranges=((5, 6), (9, 9)),
        refused=(
            Refused(7, RefusalReason.COLUMNS, retry=False),
            Refused(8, RefusalReason.STORE, retry=True),
        ),
    )
    done = spool.acknowledge("maker", [ack, StreamAck(99, 1)], NOW)
    assert (done.batches, done.readings, done.refused, done.retried) == (6, 60, 1, 1)
    assert done.unknown == 1
    left = [sealed(sequence).data for sequence in (3, 4, 8, 10, 11)]
    assert data_of(carrier.lease("maker", 20, NOW)) == left
    waiting = spool.waiting()["service"]
    assert (waiting.batches, waiting.readings, waiting.bytes) == (5, 50, 1500)
    assert waiting.last_acknowledged_ms == NOW
    assert waiting.oldest_ms == sealed(3).first_ms


def test_an_acknowledgement_of_another_recipient_deletes_nothing(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    assert spool.acknowledge("partner", [StreamAck(STREAM, 3)]).unknown == 1
    assert spool.waiting()["service"].batches == 3


def test_an_acknowledgement_from_the_future_deletes_what_is_there_and_no_later_batch(
    spool: Spool,
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    spool.open_lane("advice", "maker", 8, None)
    spool.put(run_of(2, flow="advice", stream=8))
    assert spool.acknowledge("maker", [StreamAck(STREAM, 2**64 - 1)]).batches == 2
    spool.put([sealed(2)])
    assert spool.waiting()["service"].batches == 1
    assert spool.waiting()["advice"].batches == 2


def test_an_id_is_never_used_twice(spool: Spool, carrier: Spool) -> None:
    """The uplink may report on a batch that is long gone; it must not hit a newer one."""
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0)])
    (old,) = carrier.lease("maker", 1, NOW)
    spool.purge("service")
    spool.open_lane("service", "maker", 8, None)
    spool.put([sealed(0, stream=8)])
    carrier.delivered([old.id], NOW)
    (new,) = carrier.lease("maker", 1, NOW)
    assert new.id != old.id


@pytest.mark.parametrize("size", [60, 100_000], ids=["small batches", "large batches"])
def test_an_acknowledgement_of_very_much_is_applied_in_parts(spool: Spool, size: int) -> None:
    """Red when it is one transaction: memory grows with it, and a no waits for it."""
    count = 1_200 if size < 1_000 else 100
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(sequence, size=size) for sequence in range(count)])
    ack = StreamAck(STREAM, count // 2, ranges=((count // 2 + 1, count - 1),))
    parts = [spool.acknowledge("maker", [ack])]
    while parts[-1].more:
        parts += [spool.acknowledge("maker", [ack])]
    assert len(parts) > 1
    assert max(one.batches for one in parts) <= min(PART, 1 + PART_BYTES // size)
    assert sum(one.batches for one in parts) == count - 1
    assert spool.waiting()["service"].batches == 1
    assert not spool.acknowledge("maker", [StreamAck(STREAM, count)]).more  # the twin


# --- gaps ----------------------------------------------------------------------------------------


def test_a_gap_is_repeated_until_a_batch_that_carried_it_is_acknowledged(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.add_gap("service", STREAM, GapCause.SILENT, first_ms=10, last_ms=20, readings=5)
    (gap,) = spool.gaps_for("service")
    assert gap == Gap(gap.id, STREAM, GapCause.SILENT, 0, 1_000, 5)
    spool.put([sealed(0)])  # carries none
    spool.put([sealed(1)], gaps=[gap])
    spool.acknowledge("maker", [StreamAck(STREAM, 1)])
    assert spool.gaps_for("service") == (gap,)
    spool.acknowledge("maker", [StreamAck(STREAM, 2)])
    assert spool.gaps_for("service") == ()


def test_a_gap_stays_when_the_backend_gives_its_batch_up(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.add_gap("service", STREAM, GapCause.SILENT, first_ms=10, last_ms=20, readings=5)
    spool.put([sealed(0)], gaps=spool.gaps_for("service"))
    refusal = Refused(0, RefusalReason.FORK, retry=False)
    spool.acknowledge("maker", [StreamAck(STREAM, 0, refused=(refusal,))])
    assert spool.waiting()["service"].batches == 0
    told = spool.gaps_for("service")
    assert [gap.cause for gap in told] == [GapCause.SILENT, GapCause.REFUSED]


@pytest.mark.parametrize(
    ("reason", "numbers"),
    [(RefusalReason.COLUMNS, (1, 2)), (RefusalReason.FORK, (0, 0))],
    ids=["for its columns", "because the backend holds another of its number"],
)
def test_what_the_backend_gave_up_on_is_declared_and_blocks_nothing(
    spool: Spool, carrier: Spool, reason: RefusalReason, numbers: tuple[int, int]
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    refused = (Refused(1, reason, retry=False), Refused(2, RefusalReason.TERMS, retry=True))
    spool.acknowledge("maker", [StreamAck(STREAM, 1, refused=refused)])
    (gap,) = spool.gaps_for("service")
    assert (gap.cause, gap.stream, gap.readings) == (GapCause.REFUSED, STREAM, 10)
    assert (gap.begin, gap.end) == numbers
    assert (gap.first_ms, gap.last_ms) == (NOW + 1_000, NOW + 2_000)
    assert data_of(carrier.lease("maker", 9, NOW)) == [sealed(2).data]


def test_a_stream_that_ends_is_told_with_the_number_it_never_gave(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.open_lane("service", "maker", 8, None)
    assert spool.gaps_for("service") == ()  # it never held a batch
    spool.put([sealed(0, stream=8), sealed(1, stream=8)])
    spool.acknowledge("maker", [StreamAck(8, 2)])
    spool.open_lane("service", "maker", 9, None)
    (end,) = spool.gaps_for("service")
    assert (end.cause, end.stream, end.begin, end.end) == (GapCause.ENDED, 8, 2, 2)
    assert (end.first_ms, end.last_ms, end.readings) == (0, 0, 0)
    spool.put([sealed(0, stream=9)], gaps=[end])
    spool.acknowledge("maker", [StreamAck(9, 1)])
    assert spool.gaps_for("service") == ()


def test_gaps_of_one_cause_grow_by_what_touches_them_and_by_nothing_else(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(n, expires_ms=NOW + (n in {4, 8})) for n in range(10)])
    assert spool.expire(NOW)[0].batches == 8
    spool.expire(NOW + 1)
    told = spool.gaps_for("service")
    assert {(gap.begin, gap.end, gap.readings) for gap in told} == {
        (0, 4, 40),
        (4, 8, 40),
        (8, 10, 20),
    }


def test_what_a_no_has_taken_is_told_only_after_a_later_yes_and_without_counts(
    spool: Spool,
) -> None:
    """Red without `keep_back`: the backend takes what was withdrawn for lost."""
    spool.open_lane("service", "maker", STREAM, None, not_before_ms=NOW)
    spool.put(run_of(3))
    spool.open_lane("service", "maker", 8, None, not_before_ms=NOW)
    spool.enforce_quota(2 * (300 + OVERHEAD))
    assert {gap.cause for gap in spool.gaps_for("service")} == {GapCause.ENDED, GapCause.QUOTA}
    spool.begin_absence("service", GapCause.SILENT, NOW)
    spool.close_lane("service")
    spool.purge("service")
    assert spool.gaps_for("service") == ()
    assert spool.absences() == {}
    off = (NOW + 5_500, NOW + 90_500)
    spool.open_lane("service", "maker", 9, None, not_before_ms=off[1], off=off)
    told = spool.gaps_for("service")
    assert {(gap.stream, gap.cause) for gap in told} == {(s, GapCause.PURGE) for s in (7, 8, 9)}
    assert {(gap.readings, gap.begin, gap.end) for gap in told} == {(0, 0, 0)}
    assert {(gap.first_ms, gap.last_ms) for gap in told} == {(NOW + 5_000, NOW + 91_000)}


def test_a_crash_soon_after_a_yes_is_told_from_the_yes_on(spool: Spool) -> None:
    """Red without the cut at the yes: nobody ever tells of it."""
    yes_ms = NOW + 1_500
    for stream, back_ms in ((8, 500), (9, 3_000)):
        spool.open_lane("service", "maker", stream, None, not_before_ms=yes_ms)
        first_ms = yes_ms - back_ms
        times = {"first_ms": first_ms, "last_ms": first_ms + 2_900}
        spool.add_gap("service", stream, GapCause.CRASH, **times, readings=0)
    spool.open_lane("service", "maker", 10, None, not_before_ms=yes_ms)
    told = [(gap.stream, gap.first_ms, gap.last_ms) for gap in spool.gaps_for("service")]
    assert told == [(8, NOW + 2_000, NOW + 4_000)]


def test_a_gap_from_the_second_of_the_yes_does_not_hide_the_end_of_its_stream(
    spool: Spool,
) -> None:
    """Red where what was rounded down counts as before the yes, once a batch has carried it."""
    yes_ms = NOW + 1_500
    spool.open_lane("service", "maker", 8, None, not_before_ms=yes_ms)
    last_ms = yes_ms + 4_000
    spool.add_gap("service", 8, GapCause.OUTAGE, first_ms=yes_ms, last_ms=last_ms, readings=0)
    gaps = spool.gaps_for("service")
    assert [gap.first_ms for gap in gaps] == [NOW + 1_000]
    later = [replace(one, first_ms=yes_ms) for one in run_of(2, stream=8)]
    spool.put(later, gaps=gaps)
    spool.open_lane("service", "maker", 9, None, not_before_ms=yes_ms)
    causes = {(gap.stream, gap.cause) for gap in spool.gaps_for("service")}
    assert causes == {(8, GapCause.OUTAGE), (8, GapCause.ENDED)}


def test_an_absence_is_told_in_parts_that_do_not_overlap(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.begin_absence("service", GapCause.SILENT, NOW)
    spool.begin_absence("service", GapCause.SILENT, NOW + 5_000)  # goes on
    spool.tell_absence("service", GapCause.SILENT, STREAM, NOW + 10_000)
    first = spool.gaps_for("service")
    spool.put([sealed(0)], gaps=first)
    spool.tell_absence("service", GapCause.SILENT, STREAM, NOW + 20_000)
    spool.tell_absence("service", GapCause.SILENT, STREAM, NOW + 30_000, is_over=True)
    spool.tell_absence("service", GapCause.SILENT, STREAM, NOW + 40_000)  # it is over
    told = [(gap.first_ms - NOW, gap.last_ms - NOW) for gap in spool.gaps_for("service")]
    assert told == [(0, 10_000), (10_000, 30_000)]
    assert spool.absences() == {}


def test_what_was_carried_does_not_change_and_a_week_of_drops_is_few_gaps(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    offered = []
    for sequence in range(200):
        gaps = spool.gaps_for("service")
        offered.append(gaps)
        spool.put([sealed(sequence)], gaps=gaps)
        spool.enforce_quota(3 * (300 + OVERHEAD))
    assert max(len(gaps) for gaps in offered) == OFFERED
    first = offered[10][0]
    assert all(first in gaps for gaps in offered[10:])
    told = spool.gaps_for("service")
    spool.acknowledge("maker", [StreamAck(STREAM, 200)])
    rest = spool.gaps_for("service")
    assert sum(gap.readings for gap in (*told, *rest)) == 197 * 10
    assert not {gap.id for gap in told} & {gap.id for gap in rest}


# --- age and quota -------------------------------------------------------------------------------


@pytest.mark.clause("C20")
def test_what_is_too_old_is_dropped_and_declared(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(0, expires_ms=NOW), sealed(1, expires_ms=NOW + 1), sealed(2)])
    assert spool.expire(NOW - 1) == ()
    (dropped,) = spool.expire(NOW)
    assert (dropped.flow, dropped.batches, dropped.readings) == ("service", 1, 10)
    (gap,) = spool.gaps_for("service")
    assert (gap.cause, gap.readings) == (GapCause.AGE, 10)
    assert (gap.first_ms, gap.last_ms) == (sealed(0).first_ms, sealed(0).last_ms + 1)
    assert (gap.begin, gap.end) == (0, 1)
    spool.put([sealed(3, expires_ms=NOW + 1)])  # sooner than the soonest known so far
    assert spool.expire(NOW + 1)[0].batches == 2
    assert spool.waiting()["service"].batches == 1


def test_the_largest_flow_drops_its_oldest_first(spool: Spool, carrier: Spool) -> None:
    for flow, stream, count in (("large", 7, 30), ("small", 8, 5)):
        spool.open_lane(flow, "maker", stream, None)
        spool.put(run_of(count, flow=flow, stream=stream))
    each = 300 + OVERHEAD
    (dropped,) = spool.enforce_quota(20 * each)
    assert (dropped.flow, dropped.batches) == ("large", 15)
    assert [one.data for one in carrier.lease("maker", 99, NOW) if one.flow == "large"] == [
        sealed(sequence, flow="large").data for sequence in range(15, 30)
    ]
    (gap,) = spool.gaps_for("large")
    assert (gap.cause, gap.readings) == (GapCause.QUOTA, 150)
    assert (gap.first_ms, gap.last_ms) == (sealed(0).first_ms, sealed(14).last_ms + 1)
    assert (gap.begin, gap.end) == (0, 15)
    assert spool.enforce_quota(20 * each) == ()
    spool.enforce_quota(6 * each)  # now both: equal shares
    waiting = spool.waiting()
    assert (waiting["large"].batches, waiting["small"].batches) == (3, 3)


def test_a_core_flow_is_dropped_last(spool: Spool) -> None:
    spool.open_lane("core", "maker", 7, None, core=True)
    spool.put(run_of(30, flow="core"))
    spool.open_lane("extra", "maker", 8, None)
    spool.put(run_of(5, flow="extra", stream=8))
    each = 300 + OVERHEAD
    spool.enforce_quota(31 * each)
    assert {flow: one.batches for flow, one in spool.waiting().items()} == {"core": 30, "extra": 1}
    spool.enforce_quota(10 * each)
    assert {flow: one.batches for flow, one in spool.waiting().items()} == {"core": 10, "extra": 0}


@pytest.mark.parametrize("size", [60, 100_000], ids=["small batches", "large batches"])
@pytest.mark.parametrize("by_age", [True, False], ids=["by age", "by quota"])
def test_a_week_of_drops_goes_in_parts_and_is_one_gap(
    spool: Spool, size: int, by_age: bool
) -> None:
    count = 5_000 if size < 1_000 else 400
    spool.open_lane("service", "maker", STREAM, None)
    for start in range(0, count, 100):
        spool.put([sealed(start + i, size=size, expires_ms=NOW) for i in range(100)])
    calls = []
    while dropped := spool.expire(NOW) if by_age else spool.enforce_quota(0):
        calls += [sum(one.batches for one in dropped)]
        assert calls[-1] <= _PARTS * min(PART, 1 + PART_BYTES // size)
    assert len(calls) > 1
    assert sum(calls) == count
    assert spool.waiting()["service"].batches == 0
    (gap,) = spool.gaps_for("service")
    assert gap.readings == 10 * count


def test_the_quota_bounds_the_file(spool: Spool, path: Path) -> None:
    """The overhead the quota adds per batch is what the file really needs."""
    spool.open_lane("service", "maker", STREAM, None)
    quota = 2_000_000
    for start in range(0, 4_000, 100):
        spool.put([sealed(start + i, size=200 + i * 20) for i in range(100)])
        spool.enforce_quota(quota)
    files = sum(entry.stat().st_size for entry in path.parent.glob("spool.db"))
    spare = 4_096 * 1_024  # free pages it keeps
    assert files < quota + spare


def test_the_log_is_written_over_before_it_outgrows_its_place(spool: Spool, path: Path) -> None:
    """Red with SQLite's own 1,000 pages: a log that grows is written twice by the file system."""
    spool.open_lane("service", "maker", STREAM, None)
    most = 0
    for sequence in range(1_000):
        spool.put([sealed(sequence, size=3_000)])
        most = max(most, path.with_name("spool.db-wal").stat().st_size)
    assert 900_000 < most < 1_200_000


def test_what_told_of_batches_goes_with_them(spool: Spool, carrier: Spool) -> None:
    """Red where a message goes before all that it says is done."""
    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(sequence, size=60) for sequence in range(PART + 1)])
    for text in (b"of ours", b"another"):
        assert carrier.receive("maker", text, NOW)
    ours, other = spool.take_inbox(9)
    ack = StreamAck(STREAM, PART + 1)
    assert spool.acknowledge("maker", [ack], NOW, [ours.id]).more
    assert spool.take_inbox(9) == [ours, other]  # it is to be said again
    rang(carrier)
    assert not spool.acknowledge("maker", [ack], NOW, [ours.id]).more
    assert rang(carrier)  # there is room in the inbox
    assert spool.take_inbox(9) == [other]
    assert spool.waiting()["service"].batches == 0


def test_the_file_shrinks_after_a_drain(spool: Spool, path: Path) -> None:
    """Red without `auto_vacuum` or without the vacuum after a drain."""
    spool.open_lane("service", "maker", STREAM, None)
    for start in range(0, 2_000, 500):
        spool.put([sealed(start + i, size=10_000) for i in range(500)])
    full = path.stat().st_size
    assert full > 20_000_000 or path.with_name("spool.db-wal").stat().st_size > 1_000_000
    for watermark in range(100, 2_001, 100):
        spool.acknowledge("maker", [StreamAck(STREAM, watermark)])
    spool.close()
    assert path.stat().st_size < 6_000_000
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


# --- mail ----------------------------------------------------------------------------------------


def target(recipient: str = "maker") -> Target:
    return Target(recipient, "mqtts://example.com:8883", "0" * 32, "PEM", "/c.pem", "/k.pem")


def test_a_target_is_wanted_while_a_lane_is_open_or_control_waits(
    spool: Spool, carrier: Spool
) -> None:
    spool.set_targets([target(), target("partner")])
    assert [one.wanted for one in carrier.targets(NOW)] == [False, False]
    spool.open_lane("service", "maker", STREAM, FAR)
    assert [one.wanted for one in carrier.targets(NOW)] == [True, False]
    assert [one.wanted for one in carrier.targets(FAR)] == [False, False]
    spool.close_lane("service")
    spool.put_control("partner", b"x")
    assert [one.wanted for one in carrier.targets(NOW)] == [False, True]
    spool.set_targets([target()])
    assert [one.recipient for one in carrier.targets(NOW)] == ["maker"]


def test_what_was_said_of_a_recipient_is_forgotten_with_its_target(
    spool: Spool, carrier: Spool
) -> None:
    """Red when the row stays: status shows a broker the policy has not named for a year."""
    spool.set_targets([target("maker"), target("energy-advice")])
    for recipient in ("maker", "energy-advice"):
        carrier.report(recipient, Health(LinkState.WAITING, NOW))
    spool.set_targets([target("maker")])
    assert set(spool.health()) == {"maker"}
    carrier.report("energy-advice", Health(LinkState.IDLE, NOW))  # its link hears it a little later
    assert set(spool.health()) == {"maker"}


def test_setting_the_same_targets_wakes_nobody(spool: Spool, carrier: Spool) -> None:
    spool.set_targets([target()])
    carrier.changed()
    spool.set_targets([target()])
    assert not carrier.changed()
    spool.set_targets([])
    assert carrier.changed()


def test_the_inbox_gives_in_order_and_keeps_until_dropped(spool: Spool, carrier: Spool) -> None:
    for text in (b"one", b"two", b"three"):
        assert carrier.receive("maker", text, NOW)
    first = spool.take_inbox(2)
    assert [(one.recipient, one.data, one.received_ms) for one in first] == [
        ("maker", b"one", NOW),
        ("maker", b"two", NOW),
    ]
    assert spool.take_inbox(2) == first
    spool.drop_inbox([one.id for one in first])
    assert [one.data for one in spool.take_inbox(9)] == [b"three"]


@pytest.mark.parametrize(
    ("size", "most"),
    [(1, INBOX_MESSAGES), (MAX_MESSAGE, INBOX_BYTES // MAX_MESSAGE)],
    ids=["in number", "in bytes"],
)
def test_the_inbox_is_bounded(spool: Spool, carrier: Spool, size: int, most: int) -> None:
    for _ in range(most):
        assert carrier.receive("maker", bytes(size), NOW)
    assert not carrier.receive("maker", bytes(size), NOW)
    assert carrier.receive("partner", bytes(size), NOW)  # one flood does not starve another
    spool.drop_inbox([spool.take_inbox(1)[0].id])
    assert carrier.receive("maker", bytes(size), NOW)


def test_an_inbound_message_larger_than_the_wire_allows_is_refused(carrier: Spool) -> None:
    with pytest.raises(SpoolError, match="at most 120000 bytes"):
        carrier.receive("maker", bytes(MAX_MESSAGE + 1), NOW)


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_the_files_are_0660_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        spool = Spool.open(path)
        spool.open_lane("service", "maker", STREAM, None)
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("spool.db", "spool.db-wal", "spool.db-shm", "spool.db.bell"), 0o660
    )
    spool.close()


def test_every_connection_syncs_each_commit_and_zeroes_what_it_deletes(
    spool: Spool, carrier: Spool
) -> None:
    spool.set_targets([target()])
    carrier.report("maker", Health(LinkState.IDLE, NOW))  # a relaxed write changes no setting
    assert spool.health() == {"maker": Health(LinkState.IDLE, NOW)}
    for side in (spool, carrier):
        pragma = {
            name: side._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "auto_vacuum")
        }
        assert pragma == {
            "journal_mode": "wal",
            "synchronous": 2,
            "secure_delete": 1,
            "auto_vacuum": 2,
        }


def test_only_the_collecting_side_makes_a_spool(path: Path) -> None:
    with pytest.raises(SpoolError, match="no spool yet"):
        Spool.open(path, create=False)
    assert not path.exists()


def test_each_spool_has_an_id_of_its_own(tmp_path: Path) -> None:
    one, two = (Spool.open(tmp_path / name) for name in ("one.db", "two.db"))
    assert len(one.id) == 16
    assert one.id != two.id
    again = Spool.open(tmp_path / "one.db")
    assert again.id == one.id
    for opened in (one, two, again):
        opened.close()


def test_a_spool_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    Spool.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=5")
    db.close()
    before = path.read_bytes()
    with pytest.raises(SpoolError, match="has version 5, this program knows 4"):
        Spool.open(path)
    assert path.read_bytes() == before


def flip(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(count))


def break_header(path: Path) -> None:
    flip(path, 0, 100)


def break_middle(path: Path) -> None:
    flip(path, path.stat().st_size // 2 // 4096 * 4096, 4096 * 4)


def break_length(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_text(path: Path) -> None:
    path.write_text("this is no database\n" * 400)


def replace_by_another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()


def leave_a_note(path: Path) -> None:
    path.with_name("spool.db.fault").touch()


@pytest.mark.parametrize(
    "damage",
    [
        break_header,
        break_middle,
        break_length,
        replace_by_text,
        replace_by_another_database,
        leave_a_note,
    ],
)
def test_a_damaged_spool_is_moved_aside_and_a_fresh_one_takes_its_place(
    path: Path, damage: object
) -> None:
    old = Spool.open(path)
    old.open_lane("service", "maker", STREAM, None)
    old.put([sealed(i, size=3_000) for i in range(100)])
    old.close()
    damage(path)  # type: ignore[operator]
    with contextlib.suppress(SpoolError):
        Spool.open(path, create=False).close()  # the uplink's process never moves anything
    assert not path.with_name("spool.db.damaged").exists()
    new = Spool.open(path)
    assert new.moved_aside == path.with_name("spool.db.damaged")
    assert new.moved_aside.exists()
    assert new.id != old.id
    new.open_lane("service", "maker", 8, None)
    new.put([sealed(0, stream=8)])
    new.close()
    sound = Spool.open(path)  # the twin: a sound one is not moved
    assert sound.moved_aside is None
    assert sound.waiting()["service"].batches == 1
    sound.purge("service")  # it may hold batches of the flow
    assert not path.with_name("spool.db.damaged").exists()
    sound.close()


def test_damage_met_while_it_runs_is_noted_for_the_next_start(path: Path) -> None:
    spool = Spool.open(path)
    spool.open_lane("service", "maker", STREAM, None)
    for start in range(0, 2_000, 100):
        spool.put([sealed(start + i, size=3_000) for i in range(100)])
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool.close()
    spool = Spool.open(path)
    size = path.stat().st_size
    for at in range(8_192, size, 4_096):
        flip(path, at, 8)
    with pytest.raises(SpoolError, match="damaged"):
        spool.purge("service")
    spool.close()
    again = Spool.open(path)
    assert again.moved_aside is not None
    again.close()


def test_a_half_made_spool_is_made_anew(path: Path) -> None:
    path.touch()  # a crash between the file and its tables
    spool = Spool.open(path)
    assert spool.moved_aside is None
    spool.open_lane("service", "maker", STREAM, None)
    spool.close()


def test_a_spool_that_was_replaced_is_noticed(spool: Spool, carrier: Spool, path: Path) -> None:
    assert not carrier.changed()
    spool.open_lane("service", "maker", STREAM, None)
    assert carrier.changed()
    assert not carrier.changed()
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(SpoolError, match="gone"):
        carrier.changed()
    path.touch()
    with pytest.raises(SpoolError, match="replaced"):
        carrier.changed()


def test_a_full_disk_is_a_sentence_and_loses_nothing(spool: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(SpoolError, match="disk is full"):
        spool.put([sealed(3 + i, size=9_000) for i in range(9)])
    assert spool.waiting()["service"].batches == 3
    spool._db.execute("PRAGMA max_page_count=1000000")
    spool.put([sealed(3)])


# --- the bell -----------------------------------------------------------------------------------


def rang(carrier: Spool) -> bool:
    bell = carrier.bell.listen()
    assert bell is not None
    readable = bool(select.select([bell], [], [], 0)[0])
    carrier.bell.hush()
    return readable


def test_the_bell_rings_for_what_the_uplink_has_to_know(spool: Spool, carrier: Spool) -> None:
    assert not rang(carrier)
    for act in (
        lambda: spool.open_lane("service", "maker", STREAM, None),
        lambda: spool.put([sealed(0)]),
        lambda: spool.close_lane("service"),
        lambda: spool.purge("service"),
        lambda: spool.put_control("maker", b"x"),
        lambda: spool.set_targets([target()]),
    ):
        act()
        assert rang(carrier)
        assert not rang(carrier)
    spool.waiting()
    spool.expire(NOW)
    assert not rang(carrier)


def test_ringing_never_waits_and_never_fails(spool: Spool, carrier: Spool, path: Path) -> None:
    for _ in range(200_000):  # nobody hears: more than a pipe holds
        spool.bell.ring()
    carrier.bell.listen()
    for _ in range(200_000):  # nobody takes it out
        spool.bell.ring()
    assert rang(carrier)
    carrier.bell.close()
    spool.bell.ring()
    path.with_name("spool.db.bell").unlink()
    spool.bell.close()
    spool.bell.ring()
    assert carrier.bell.listen() is None
    path.with_name("spool.db.bell").write_text("no bell")
    assert carrier.bell.listen() is None
    spool.bell.ring()
    assert path.with_name("spool.db.bell").read_text() == "no bell"


# --- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM batch WHERE lane=1 AND due>-1 AND due<=5 ORDER BY due, id LIMIT 20",
        "SELECT data FROM payload WHERE id=5",
        "SELECT lane.id FROM lane LEFT JOIN stream ON stream.number = lane.stream WHERE flow='a'",
        "DELETE FROM batch WHERE id BETWEEN 5 AND 9 RETURNING id",
        "DELETE FROM payload WHERE id BETWEEN 5 AND 9",
        "UPDATE batch SET due=1 WHERE id=5",
        "SELECT count(*) FROM batch WHERE lane=1 AND due=7",
        "SELECT id, first FROM batch WHERE expires <= 5 ORDER BY expires LIMIT 500",
        "SELECT number FROM stream WHERE lane=1 ORDER BY number",
        "SELECT 1 FROM batch WHERE lane=1 AND due > 0 AND attempts > 0 AND id BETWEEN 5 AND 9",
    ],
)
def test_no_statement_of_the_daily_path_reads_what_waits_or_sorts(
    spool: Spool, statement: str
) -> None:
    plan = [row[3] for row in spool._db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
    assert plan
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan


def test_the_cost_does_not_grow_with_what_waits(spool: Spool, carrier: Spool) -> None:
    def weight(side: Spool) -> int:
        return sum(one.bytes + one.batches * OVERHEAD for one in side.waiting().values())

    def day(at: int) -> list[int]:
        spool.put([sealed(at - 1, size=60, expires_ms=NOW + at)])
        mine = carrier.lease("maker", 10, NOW)
        carrier.returned([lease.id for lease in mine])
        return [
            steps(spool, lambda: spool.put([sealed(at, size=60)])),
            steps(carrier, lambda: mine.extend(carrier.lease("maker", 10, NOW))),
            steps(carrier, lambda: carrier.delivered([one.id for one in mine], NOW)),
            steps(spool, lambda: spool.expire(NOW)),
            steps(spool, lambda: spool.expire(NOW + at)),
            steps(spool, lambda: spool.enforce_quota(10**12)),
            steps(spool, lambda: spool.enforce_quota(weight(spool) - 1)),
            steps(spool, spool.waiting),
            steps(spool, lambda: spool.unacknowledged("maker", 9)),
            steps(spool, lambda: spool.acknowledge("maker", [StreamAck(STREAM, 5)])),
            steps(spool, lambda: spool.open_lane("service", "maker", STREAM, None)),
        ]

    spool.open_lane("service", "maker", STREAM, None)
    spool.put([sealed(i, size=60) for i in range(100)])
    spool.expire(NOW)
    few = day(101)
    for start in range(102, 100_000, 1_000):
        spool.put([sealed(start + i, size=60) for i in range(1_000)])
    many = day(spool.lanes()["service"].next_sequence + 1)
    assert spool.waiting()["service"].batches > 99_000
    # A deeper tree, and where in its count of ten a statement stood; a thousand times is linear.
    assert all(after <= before + 8 for before, after in zip(few, many, strict=True)), (few, many)
    assert steps(spool, lambda: spool.open_lane("service", "maker", 8, None)) < 100


def test_only_streams_with_sent_and_unacknowledged_batches_are_asked_about(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    assert spool.unacknowledged("maker", 10) == ()
    leased = carrier.lease("maker", 1, NOW)
    carrier.delivered([lease.id for lease in leased], NOW)
    assert spool.unacknowledged("maker", 10) == (STREAM,)
    assert spool.unacknowledged("energy-advice", 10) == ()
    spool.acknowledge("maker", [StreamAck(STREAM, 2)])
    assert spool.unacknowledged("maker", 10) == ()


def test_what_left_is_logged_once_however_often_it_is_sent(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    batches = run_of(2)
    spool.put(batches)
    assert spool.sent(10) == ()
    for now in (NOW, FAR):
        leased = carrier.lease("maker", 10, now)
        carrier.delivered([lease.id for lease in leased], now)
    logged = spool.sent(10)
    assert [entry.digest for entry in logged] == [batch.digest for batch in reversed(batches)]
    assert {(entry.at_ms, entry.flow, entry.recipient) for entry in logged} == {
        (NOW, "service", "maker")
    }
    assert spool.sent(10, "another") == ()
    assert len(spool.sent(1, "service")) == 1


def test_what_was_handed_over_is_unconfirmed_until_a_broker_confirms_it(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(2))
    (lease,) = carrier.lease("maker", 1, NOW)
    carrier.returned([lease.id])
    assert (spool.sent(10), spool.unconfirmed("service")) == ((), 0)
    carrier.handed_over([lease.id], NOW)
    carrier.handed_over([lease.id], FAR)  # a second connection ended the same way
    (told,) = spool.sent(10)
    assert (told.at_ms, told.confirmed, spool.unconfirmed("service")) == (NOW, False, 1)
    leases = carrier.lease("maker", 2, NOW)
    carrier.delivered([one.id for one in leases], FAR)
    assert [one.confirmed for one in spool.sent(10)] == [True, True]
    carrier.handed_over([lease.id], FAR)  # sent again, and it is in the log
    assert len(spool.sent(10)) == 2
    assert spool.unconfirmed("service") == 0


def test_a_backend_confirms_what_its_broker_did_not(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    spool.put(run_of(3))
    carrier.handed_over([one.id for one in carrier.lease("maker", 3, NOW)], NOW)
    spool.acknowledge("maker", [StreamAck(STREAM, 2)])
    assert [one.confirmed for one in spool.sent(10)].count(True) == 2
    spool.purge("service")
    assert [one.confirmed for one in spool.sent(10)].count(False) == 1  # it stays in the log
    assert spool.unconfirmed("service") == 0


def test_the_log_of_what_left_keeps_the_newest(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", STREAM, None)
    batches = run_of(5)
    spool.put(batches)
    carrier.delivered([lease.id for lease in carrier.lease("maker", 10, NOW)], NOW)
    spool.trim_sent(5)
    assert len(spool.sent(10)) == 5
    spool.trim_sent(2)
    assert [entry.digest for entry in spool.sent(10)] == [batches[4].digest, batches[3].digest]


def test_a_look_at_a_log_that_is_not_too_long_does_not_read_it(spool: Spool) -> None:
    row = (NOW, "service", "maker", 1, 1, bytes(32))
    spool._db.executemany("INSERT INTO sent VALUES (NULL, ?, ?, ?, ?, ?, ?)", [row] * 1_000)
    assert steps(spool, spool.trim_sent) < 20 < steps(spool, lambda: spool.trim_sent(10))
    assert len(spool.sent(2_000)) == 10
