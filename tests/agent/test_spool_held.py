# SPDX-License-Identifier: Apache-2.0
"""Streams that count from their boot: kept, given their place, released or purged, by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.path import Sealed
from agent.spool import Boot, Held, LaneState, Spool
from assent.errors import SpoolError
from assent.header import GapCause
from tests.agent.sealed import NOW, run_of, sealed, steps

FLOW, HELD, OPEN = "service", 7, 8
MINUTE, DAY = 60_000, 86_400_000
THIS, THAT = "this boot", "that boot"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    opened = Spool.open(path)
    yield opened
    opened.close()


def by_boot(sequence: int, first: int, last: int, *, stream: int = HELD) -> Sealed:
    """A batch of readings between two times since boot, kept for a day."""
    batch = sealed(sequence, stream=stream)
    return msgspec.structs.replace(batch, first_ms=first, last_ms=last, expires_ms=last + DAY)


def hold(
    spool: Spool, *batches: Sealed, boot: str = THIS, low: int = NOW, stream: int = HELD
) -> None:
    spool.open_lane(FLOW, "maker", stream, None, boot=Boot(boot, low))
    spool.put(batches)


def release(
    spool: Spool, *, begin: int = 0, end: int | None = None, reach: int = 1_000, stream: int = OPEN
) -> int:
    """The gate permits the flow; how many batches may leave then."""
    spool.judge(FLOW, not_before_ms=begin, not_after_ms=end, reach_ms=reach)
    spool.open_lane(FLOW, "maker", stream, None)
    return len(leasable(spool))


def leasable(spool: Spool) -> list[int]:
    leases = spool.lease("maker", 99, 2 * NOW)
    spool.returned([lease.id for lease in leases])
    return sorted(lease.id for lease in leases)


def told(spool: Spool) -> list[tuple[GapCause, int, int, int]]:
    return [
        (gap.cause, gap.first_ms, gap.last_ms, gap.readings)
        for gap in spool.gaps_for(FLOW)
        if gap.cause is not GapCause.ENDED
    ]


def test_nothing_held_leaves_before_it_was_resolved_and_judged(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000))
    assert spool.lanes()[FLOW].state is LaneState.HELD
    assert leasable(spool) == []
    spool.resolve(THIS, NOW)
    assert leasable(spool) == []
    assert release(spool) == 1


def test_what_was_not_judged_does_not_outlive_the_opening_of_its_lane(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000))
    spool.open_lane(FLOW, "maker", OPEN, None)
    assert leasable(spool) == []
    assert spool.waiting()[FLOW].batches == 0
    assert spool.held() == {}


@pytest.mark.parametrize(
    ("permit", "released"),
    [
        ({}, True),
        ({"begin": NOW + 5_000}, True),
        ({"begin": NOW + 5_001}, False),
        ({"end": NOW + 10_000}, True),
        ({"end": NOW + 9_999}, False),
        ({"end": NOW + 69_000, "reach": MINUTE}, True),
        ({"end": NOW + 68_999, "reach": MINUTE}, False),
    ],
    ids=[
        "a yes without end covers it",
        "a yes that began with its first second covers it",
        "a yes that began later does not",
        "an end after its last second is no matter",
        "an end in its last second is one",
        "nor is an end after its last window",
        "an end in its last window is one",
    ],
)
def test_what_is_not_wholly_within_the_yes_is_purged_and_declared(
    spool: Spool, permit: dict[str, int], released: bool
) -> None:
    hold(spool, by_boot(0, 5_000, 9_000))
    spool.resolve(THIS, NOW)
    assert release(spool, **permit) == released
    if released:
        assert told(spool) == [(GapCause.BOOT, NOW, NOW, 0)]
    else:
        assert told(spool) == [(GapCause.CLOCK, NOW + 5_000, NOW + 9_000, 10)]


def test_what_a_permit_released_is_held_against_the_next_one(spool: Spool) -> None:
    """Red where the lane is believed to hold nothing from before the yes of its row."""
    later = NOW + 10_000
    spool.open_lane(FLOW, "maker", HELD, None, not_before_ms=later, boot=Boot(THIS, NOW))
    spool.put([by_boot(0, 5_000, 9_000), by_boot(1, 15_000, 19_000)])
    assert spool.lanes()[FLOW].not_before_ms == later  # what counts from a boot is no time
    spool.resolve(THIS, NOW)
    spool.judge(FLOW, not_before_ms=NOW, not_after_ms=None, reach_ms=1_000)
    spool.open_lane(FLOW, "maker", OPEN, None, not_before_ms=later)
    assert len(leasable(spool)) == 1


def test_what_nobody_judged_is_looked_at_whenever_its_lane_is_opened(spool: Spool) -> None:
    """Red where a lane that is held is believed."""
    yes_ms = NOW + 10_000
    spool.open_lane(FLOW, "maker", HELD, None, not_before_ms=yes_ms, boot=Boot(THIS, NOW))
    spool.put([by_boot(0, 5_000, 9_000), by_boot(1, 15_000, 19_000)])
    spool.resolve(THIS, NOW)
    spool.open_lane(FLOW, "maker", OPEN, None, not_before_ms=yes_ms, boot=Boot(THAT, NOW))
    assert spool.waiting()[FLOW].batches == 1


def test_what_has_a_date_costs_what_is_held_nothing(spool: Spool) -> None:
    spool.open_lane("advice", "maker", OPEN, None)
    spool.put(run_of(2_000, flow="advice", stream=OPEN, size=20))
    hold(spool, by_boot(0, 5_000, 9_000))
    assert steps(spool, spool.held) < 50
    assert steps(spool, lambda: spool.resolve(THIS, NOW)) < 50
    assert spool.held()[FLOW] == Held(1, 10, 0)


def test_of_a_stream_that_is_covered_in_part_the_rest_goes(spool: Spool) -> None:
    hold(spool, by_boot(0, 0, 4_000), by_boot(1, 5_000, 9_000))
    spool.resolve(THIS, NOW)
    assert release(spool, begin=NOW + 5_000) == 1
    assert told(spool) == [
        (GapCause.CLOCK, NOW, NOW + 4_000, 10),
        (GapCause.BOOT, NOW, NOW, 0),
    ]


def test_a_boot_that_is_over_lies_between_the_floor_and_the_boot_that_knows(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT, low=NOW - DAY)
    spool.resolve(THIS, NOW)
    assert release(spool) == 1
    assert told(spool) == [(GapCause.BOOT, NOW - DAY, NOW - 9_000, 0)]


@pytest.mark.parametrize(
    ("permit", "released"),
    [
        ({"begin": NOW - DAY + 5_000}, True),
        ({"begin": NOW - DAY + 5_001}, False),
        ({"end": NOW + 1_000}, True),
        ({"end": NOW + 999}, False),
    ],
    ids=[
        "a beginning before the earliest",
        "a beginning between the bounds",
        "an end after the latest",
        "an end between the bounds",
    ],
)
def test_a_beginning_or_an_end_between_the_bounds_purges(
    spool: Spool, permit: dict[str, int], released: bool
) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT, low=NOW - DAY)
    spool.resolve(THIS, NOW)
    assert release(spool, **permit) == released


def test_a_floor_after_the_time_that_is_known_resolves_no_other_boot(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT, low=NOW + DAY)
    spool.resolve(THIS, NOW)
    assert release(spool) == 0
    assert [cause for cause, *_ in told(spool)] == [GapCause.CLOCK]


def test_two_streams_of_two_boots_have_each_its_own_place(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT, low=NOW - DAY)
    hold(spool, by_boot(0, 1_000, 2_000, stream=9), stream=9)
    spool.resolve(THIS, NOW)
    assert release(spool) == 2
    boots = [gap for gap in spool.gaps_for(FLOW) if gap.cause is GapCause.BOOT]
    assert [(gap.stream, gap.first_ms, gap.last_ms) for gap in boots] == [
        (HELD, NOW - DAY, NOW - 9_000),
        (9, NOW, NOW),
    ]


def test_what_is_held_is_not_swept_by_the_wall_clock(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000))
    assert spool.expire(NOW + 9 * DAY) == ()
    spool.resolve(THIS, NOW)
    assert spool.expire(NOW + DAY) == ()
    (dropped,) = spool.expire(NOW + DAY + 9_000)
    assert dropped.batches == 1


def test_of_another_boot_only_what_is_surely_too_old_is_swept(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT, low=NOW - 9 * DAY)
    spool.resolve(THIS, NOW)
    assert spool.expire(NOW + DAY - 1) == ()
    assert len(spool.expire(NOW + DAY)) == 1


def test_what_this_boot_holds_for_too_long_goes_without_a_wall_clock(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), boot=THAT)
    hold(spool, by_boot(0, 5_000, 9_000, stream=9), stream=9)
    assert spool.expire_held(THIS, 9_000 + DAY - 1) == ()
    (dropped,) = spool.expire_held(THIS, 9_000 + DAY)
    assert (dropped.batches, spool.held()[FLOW].batches) == (1, 1)


def test_gaps_of_a_held_stream_move_with_it(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000), by_boot(1, 10_000, 19_000))
    spool.enforce_quota(1_000)
    spool.resolve(THIS, NOW)
    assert told(spool) == [(GapCause.QUOTA, NOW + 5_000, NOW + 9_000, 10)]
    assert release(spool) == 1


def test_a_no_takes_what_is_held_and_a_pause_keeps_it(spool: Spool) -> None:
    hold(spool, by_boot(0, 5_000, 9_000))
    spool.pause_lane(FLOW)
    assert spool.lanes()[FLOW].state is LaneState.PAUSED
    with pytest.raises(SpoolError, match="not open"):
        spool.put([by_boot(1, 10_000, 11_000)])
    hold(spool, by_boot(1, 10_000, 11_000))
    assert spool.held()[FLOW].batches == 2
    spool.close_lane(FLOW)
    assert spool.lanes()[FLOW].state is LaneState.CLOSED
    assert spool.purge(FLOW).batches == 2
    assert spool.held() == {}


def test_holding_an_open_lane_revokes_what_was_leased_of_it(path: Path, spool: Spool) -> None:
    spool.open_lane(FLOW, "maker", OPEN, None)
    spool.put([sealed(0, stream=OPEN)])
    (lease,) = spool.lease("maker", 9, NOW)
    fence = spool.fence()
    hold(spool)
    assert spool.revoked(NOW) == {lease.id}
    assert spool.fence() > fence
    assert not spool.fence_passed(spool.fence())
    # What waited of before waits on, and leaves with the rest.
    spool.returned([lease.id])
    spool.resolve(THIS, NOW)
    assert release(spool, stream=9) == 1
