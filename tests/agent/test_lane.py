# SPDX-License-Identifier: Apache-2.0
"""A lane: nothing but what its permit carries, nothing twice, nothing lost without a count."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.lane import Lane
from agent.lane.intake import MAX_SHAPES
from agent.lane.memory import LATE_MS
from agent.path import Batch
from agent.transform import DropReason
from assent.columns import Kind, Quantum
from assent.envelope import ClockQuality, Gap, GapCause
from assent.errors import PolicyError
from firmware_bridge.sample import Device, Sample
from tests.agent.flow_parts import (
    EPOCH,
    FAULT,
    FRIDGE,
    METER,
    NOW,
    OTHER_SECRET,
    POWER,
    SECRET,
    carried,
    cells,
    permit,
    sample,
    values_of,
    whole,
)

THIS_EPOCH = NOW // EPOCH
MINUTE = 60_000


def lane(
    attributes: dict[str, str] | None = None, *, secret: bytes = SECRET, **fields: Any
) -> Lane:
    return Lane(permit(attributes, **fields), secret, 7, THIS_EPOCH, share=whole)


def feed(into: Lane, *samples: Sample) -> None:
    for each in samples:
        take = into.compile(each.device, each.names)
        if take is not None:
            take(each.at.wall_ms, each.values)


def closed(from_lane: Lane, *, final: bool = False, now_ms: int | None = None) -> list[Batch]:
    batches = []
    while (batch := from_lane.close(final=final, now_ms=now_ms)) is not None:
        batches.append(batch)
    return batches


def pseudonym_by_hand(secret: bytes, kind: str, epoch: int, identifier: str) -> bytes:
    info = b"assent/1 pseudonym\0" + kind.encode() + b"\0" + epoch.to_bytes(8, "big") + b"\x01"
    key = hmac.new(hmac.new(bytes(32), secret, hashlib.sha256).digest(), info, hashlib.sha256)
    return hmac.new(key.digest(), identifier.encode(), hashlib.sha256).digest()[:16]


class _Lookalike:
    def __getattr__(self, name: str) -> object:
        return getattr(permit(), name)


@pytest.mark.parametrize(
    "forged", [None, {}, _Lookalike()], ids=["nothing", "a dict", "a lookalike"]
)
def test_only_a_permit_builds_a_lane(forged: Any) -> None:
    with pytest.raises(TypeError, match="a permit of the gate"):
        Lane(forged, SECRET, 7, THIS_EPOCH)


def test_a_permit_builds_a_lane() -> None:
    assert lane().wanted == {"appliance.power"}


def test_a_transform_that_does_not_fit_leaves_no_lane() -> None:
    with pytest.raises(PolicyError):
        lane({"device.serial": "keep"})


def test_a_batch_names_its_permit_stream_epoch_clock_and_gaps() -> None:
    allowed = permit()
    busy = Lane(allowed, SECRET, 7, THIS_EPOCH, ClockQuality.SYSTEM)
    feed(
        busy,
        sample(NOW + 1_000, {"appliance.power": 1.0}),
        sample(NOW + 9_999, {"appliance.power": 2.0}),
    )
    gap = Gap(1, 7, GapCause.OUTAGE, NOW - 9, NOW - 1, 4)
    batch = busy.close((gap,))
    assert batch is not None
    assert (batch.permit, batch.stream, batch.epoch) == (allowed, 7, THIS_EPOCH)
    assert (batch.clock, batch.gaps) == (ClockQuality.SYSTEM, (gap,))
    assert (batch.readings, batch.first_ms, batch.last_ms) == (2, NOW + 1_000, NOW + 9_000)
    (table,) = batch.tables
    (column,) = table.columns
    assert (column.kind, column.quantum, list(column.values)) == (
        Kind.NUMBER,
        Quantum(1, 10),
        [10, 20],
    )
    assert busy.close() is None


def test_tables_are_of_the_keyed_pseudonym_of_the_device() -> None:
    busy = lane()
    feed(
        busy,
        sample(NOW, {"appliance.power": 1.0}),
        sample(NOW, {"appliance.power": 2.0}, FRIDGE),
    )
    found = {device: value for device, _, _, value in cells(closed(busy))}
    assert found == {
        pseudonym_by_hand(SECRET, "device", THIS_EPOCH, "TEST-0001"): 10,
        pseudonym_by_hand(SECRET, "device", THIS_EPOCH, "id:fridge"): 20,
    }


def test_an_identifier_leaves_as_the_pseudonym_of_its_kind() -> None:
    busy = lane({"device.serial": "pseudonym"})
    feed(busy, sample(NOW, {"device.serial": " test-0001 "}))
    expected = pseudonym_by_hand(SECRET, "serial", THIS_EPOCH, "TEST-0001")
    assert values_of(closed(busy), "device.serial") == [expected]


@pytest.mark.clause("C10")
@pytest.mark.clause("C15")
def test_two_flows_or_recipients_give_unrelated_pseudonyms() -> None:
    # The keys are per (recipient, flow); so is everything that names a device or an identifier.
    named = []
    for secret, epoch in ((SECRET, 0), (OTHER_SECRET, 0), (SECRET, 1)):
        busy = Lane(
            permit({"device.serial": "pseudonym"}, not_before_ms=0), secret, 7, THIS_EPOCH + epoch
        )
        feed(busy, sample(NOW + epoch * EPOCH, {"device.serial": "TEST-0001"}))
        named += [part for device, _, _, value in cells(closed(busy)) for part in (device, value)]
    assert len(named) == len(set(named)) == 6


def test_tables_are_ordered_by_pseudonym_whoever_came_first() -> None:
    shapes = []
    for devices in ((METER, FRIDGE), (FRIDGE, METER)):
        busy = lane()
        feed(busy, *[sample(NOW, {"appliance.power": 1.0}, device) for device in devices])
        shapes.append([table.device for batch in closed(busy) for table in batch.tables])
    assert shapes[0] == shapes[1] == sorted(shapes[0])


CANARY = "CANARY-4711"


@pytest.mark.clause("C03")
def test_nothing_that_is_not_carried_is_in_a_batch_or_held() -> None:
    busy = lane(
        {"appliance.power": "keep", "appliance.fault": "keep", "device.serial": "pseudonym"}
    )
    device = Device(CANARY, CANARY, CANARY)
    feed(
        busy,
        sample(
            NOW,
            {
                "note": CANARY,
                "appliance.power": 230.1,
                "owner": CANARY,
                "appliance.fault": "E1",
                CANARY: 1,
                "device.serial": CANARY,
            },
            device,
        ),
        sample(NOW + 1, {"appliance.fault": CANARY, "appliance.power": 230.2}, device),
    )
    held = repr([shape.rows for shape in busy._intake._shapes.values()])
    # What it holds before settling: the carried values, the identifier among them; no more.
    assert held.count(CANARY) == 2
    batches = closed(busy)
    written = repr([(batch.tables, batch.readings, batch.first_ms) for batch in batches])
    for spelled in (CANARY, CANARY.lower(), CANARY.encode().hex(), CANARY[::-1]):
        assert spelled not in written
    assert sorted(values_of(batches, "appliance.power")) == [
        2301,
        2302,
    ]  # the search would find these
    assert "appliance.fault" in written
    assert busy.dropped == {DropReason.NOT_LISTED: 1}


def test_a_lane_keeps_no_raw_value_when_it_has_settled() -> None:
    busy = lane({"appliance.power": "round(100)", "appliance.voltage": "window(15m, mean)"})
    feed(busy, sample(NOW, {"appliance.power": 4711.25, "appliance.voltage": 231.77}))
    assert "4711.25" in repr(
        busy._intake._shapes[METER, ("appliance.power", "appliance.voltage")].rows
    )
    busy.settle()
    rows = [shape.rows for shape in busy._intake._shapes.values()]
    assert rows == [[]]
    assert values_of(closed(busy), "appliance.power") == [47]


def test_no_value_is_in_the_text_of_a_lane() -> None:
    busy = lane({"appliance.fault": "keep"})
    feed(busy, sample(NOW, {"appliance.fault": CANARY}))
    assert CANARY not in repr(busy)
    assert "1 readings" in repr(busy)
    busy.settle()
    assert CANARY not in repr(busy) + repr(dict(busy.dropped))


@pytest.mark.clause("C01")
def test_data_recorded_before_a_yes_is_not_in_the_batch_after_it() -> None:
    busy = lane(not_before_ms=NOW)
    feed(
        busy,
        sample(NOW - 1, {"appliance.power": 1.0}),
        sample(NOW, {"appliance.power": 2.0}),
        sample(NOW - MINUTE, {"appliance.power": 3.0}),
    )
    assert values_of(closed(busy), "appliance.power") == [20]
    assert busy.dropped == {DropReason.BEFORE_YES: 2}


@pytest.mark.clause("C28")
def test_data_recorded_after_the_end_of_a_yes_is_not_in_the_batch() -> None:
    busy = lane(not_after_ms=NOW)
    feed(busy, sample(NOW - 1, {"appliance.power": 1.0}), sample(NOW, {"appliance.power": 2.0}))
    assert values_of(closed(busy), "appliance.power") == [10]
    assert busy.dropped == {DropReason.AFTER_END: 1}


@pytest.mark.clause("C28")
def test_a_discarded_lane_has_nothing_left_to_leave() -> None:
    kept, withdrawn = lane(), lane()
    for each in (kept, withdrawn):
        feed(each, sample(NOW, {"appliance.power": 1.0}))
        each.settle()
        feed(each, sample(NOW + 1, {"appliance.power": 2.0}))
    withdrawn.discard()
    assert closed(withdrawn) == []
    assert values_of(closed(kept), "appliance.power") == [10, 20]


def test_a_take_of_a_discarded_lane_leads_nowhere() -> None:
    busy = lane()
    take = busy.compile(METER, ("appliance.power",))
    assert take is not None
    busy.discard()
    take(NOW, (1.0,))
    assert busy.readings == 0
    assert closed(busy) == []


def test_two_epochs_are_never_in_one_batch() -> None:
    end = (THIS_EPOCH + 1) * EPOCH
    old = lane(not_before_ms=0)
    feed(
        old,
        sample(end - 2, {"appliance.power": 1.0}),
        sample(end, {"appliance.power": 2.0}),
        sample(end - 1, {"appliance.power": 3.0}),
    )
    assert not old.due(end - 1)
    assert old.due(end)
    first = closed(old, final=True, now_ms=end)
    new = old.successor(8, THIS_EPOCH + 1)
    feed(new, sample(end + 1, {"appliance.power": 4.0}), sample(end - 1, {"appliance.power": 5.0}))
    second = closed(new)
    assert values_of(first, "appliance.power") == [10, 30]
    assert values_of(second, "appliance.power") == [20, 40]
    assert {batch.epoch for batch in first} == {THIS_EPOCH}
    assert {(batch.epoch, batch.stream) for batch in second} == {(THIS_EPOCH + 1, 8)}
    devices = {device for device, _, _, _ in cells(first)}
    assert devices.isdisjoint(device for device, _, _, _ in cells(second))
    assert new.dropped == {DropReason.OTHER_EPOCH: 1}


def test_a_counter_does_not_join_two_epochs() -> None:
    end = (THIS_EPOCH + 1) * EPOCH
    old = lane({"appliance.energy": "delta"}, not_before_ms=0)
    feed(
        old,
        sample(end - 2, {"appliance.energy": 100}),
        sample(end - 1, {"appliance.energy": 110}),
        sample(end, {"appliance.energy": 125}),
        sample(end + 1, {"appliance.energy": 131}),
    )
    assert values_of(closed(old, final=True, now_ms=end), "appliance.energy") == [10]
    new = old.successor(8, THIS_EPOCH + 1)
    assert values_of(closed(new), "appliance.energy") == [6]
    assert new.dropped == {DropReason.FIRST_OF_COUNTER: 2}


def test_what_waits_for_an_epoch_far_ahead_is_bounded() -> None:
    busy = lane(max_readings=10)
    far = [sample(NOW + 9 * EPOCH + at, {"appliance.power": 1.0}) for at in range(25)]
    feed(busy, *far)
    assert closed(busy) == []
    assert busy.dropped == {DropReason.OTHER_EPOCH: 15}
    assert values_of(closed(busy.successor(8, THIS_EPOCH + 9)), "appliance.power") == [10] * 10


def test_a_batch_is_due_when_it_is_full() -> None:
    busy = lane(max_readings=3)
    feed(busy, sample(NOW, {"appliance.power": 1.0}), sample(NOW, {"appliance.power": 1.0}))
    assert not busy.due(NOW)
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    assert busy.due(NOW)


def test_values_that_stay_do_not_fill_a_batch() -> None:
    busy = lane(max_readings=3)
    feed(busy, *[sample(NOW + at, {"appliance.power": math.nan}) for at in range(9)])
    assert not busy.due(NOW)
    assert busy.readings == 0


def test_a_batch_is_due_when_its_oldest_value_is_old() -> None:
    busy = lane(max_age_ms=MINUTE)
    assert not busy.due(NOW + 10 * MINUTE)
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    assert not busy.due(NOW + MINUTE - 1)
    feed(busy, sample(NOW + MINUTE - 1, {"appliance.power": 1.0}))
    assert busy.due(NOW + MINUTE)
    assert len(closed(busy)) == 1
    assert not busy.due(NOW + 10 * MINUTE)


def test_settling_does_not_make_a_batch_younger() -> None:
    busy = lane(max_age_ms=MINUTE)
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    busy.settle()
    feed(busy, sample(NOW + 50_000, {"appliance.power": 1.0}))
    assert not busy.due(NOW + MINUTE - 1)
    assert busy.due(NOW + MINUTE)


def test_values_of_open_windows_are_never_old() -> None:
    busy = lane({"appliance.power": "window(15m, mean)"}, max_age_ms=MINUTE)
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    assert not busy.due(NOW + 5 * MINUTE)
    assert busy.absorbed == 1


def test_an_event_closes_the_batch_at_once_each_time() -> None:
    busy = lane(
        {"appliance.power": "keep", "appliance.fault": "keep"},
        urgent=frozenset({"appliance.fault"}),
    )
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    assert not busy.due(NOW)
    for at in (1, 2):
        feed(busy, sample(NOW + at, {"appliance.fault": "E1"}))
        assert busy.due(NOW)
        assert values_of(closed(busy), "appliance.fault") == ["E1"]
        assert not busy.due(NOW)


def test_a_polled_state_closes_the_batch_when_it_changes() -> None:
    polled = carried("appliance.door", "keep")
    busy = lane(carried=(polled,), urgent=frozenset({"appliance.door"}))
    due = []
    for at, value in enumerate([False, False, True, True, False]):
        feed(busy, sample(NOW + at, {"appliance.door": value}))
        due.append(busy.due(NOW))
        if due[-1]:
            closed(busy)
    assert due == [True, False, True, False, True]


def test_what_the_household_left_out_is_not_urgent() -> None:
    busy = lane({"appliance.power": "keep"}, urgent=frozenset({"appliance.fault"}))
    feed(busy, sample(NOW, {"appliance.power": 1.0, "appliance.fault": "E1"}))
    assert not busy.due(NOW)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_no_batch_is_larger_than_the_permit_says_whatever_came_at_once(width: int) -> None:
    names = ["appliance.power", "appliance.voltage", "appliance.door"][:width]
    busy = lane(dict.fromkeys(names, "keep"), max_readings=10)
    values = dict(zip(names, (1.0, 2.0, True), strict=False))
    for device in (METER, FRIDGE):
        feed(busy, *[sample(NOW + at * 1_000, values, device) for at in range(37)])
    batches = []
    while busy.due(NOW):
        batch = busy.close()
        assert batch is not None
        batches.append(batch)
    assert busy.readings < 10
    batches += closed(busy)
    assert {batch.readings <= 10 for batch in batches} == {True}
    found = cells(batches)
    assert len(found) == sum(batch.readings for batch in batches) == 37 * 2 * width
    assert len(set(found)) == len(found)


def test_a_row_wider_than_a_batch_leaves_alone() -> None:
    busy = lane({"appliance.power": "keep", "appliance.voltage": "keep"}, max_readings=1)
    feed(
        busy,
        *[sample(NOW + at, {"appliance.power": 1.0, "appliance.voltage": 2.0}) for at in (1, 2)],
    )
    assert [batch.readings for batch in closed(busy)] == [2, 2]


def test_settling_often_does_not_make_more_tables() -> None:
    busy = lane({"appliance.power": "keep", "appliance.voltage": "keep"})
    for at in range(20):
        feed(
            busy,
            sample(NOW + 2_000 * at, {"appliance.power": 1.0, "appliance.voltage": 2.0}),
            sample(NOW + 2_000 * at + 1_000, {"appliance.voltage": 2.0, "appliance.power": 1.0}),
        )
        busy.settle()
    (batch,) = closed(busy)
    (table,) = batch.tables
    assert list(table.times) == [NOW + 1_000 * at for at in range(40)]


def rows(batches: list[Batch]) -> list[tuple[int, object]]:
    """Instants since NOW and values, as they leave."""
    return [(ms - NOW, value) for _, ms, _, value in cells(batches)]


@pytest.mark.clause("C10")
def test_instants_leave_as_whole_seconds_and_rows_of_one_second_keep_their_order() -> None:
    busy = lane()
    for at, watts in [(1_999, 3.0), (1_000, 1.0), (1_500, 2.0), (2_000, 4.0), (1_500, 2.5)]:
        feed(busy, sample(NOW + at, {"appliance.power": watts}))
    assert rows(closed(busy)) == [(1_000, 10), (1_000, 20), (1_000, 25), (1_000, 30), (2_000, 40)]


@pytest.mark.clause("C10")
def test_a_row_that_lost_a_value_leaves_at_a_whole_second_too() -> None:
    busy = lane({"appliance.power": "keep", "appliance.voltage": "keep"})
    feed(busy, sample(NOW + 1_999, {"appliance.power": 1.0, "appliance.voltage": math.nan}))
    assert rows(closed(busy)) == [(1_000, 10)]


@pytest.mark.clause("C28")
def test_an_end_that_came_later_holds_for_what_is_taken_before_and_after_it() -> None:
    busy, endless = lane(), lane()
    for each in (busy, endless):
        feed(each, sample(NOW + 1_000, {"appliance.power": 1.0}))
        feed(each, sample(NOW + 9_000, {"appliance.power": 2.0}))
    busy.amend(permit(not_after_ms=NOW + 5_000))
    for each in (busy, endless):
        feed(each, sample(NOW + 4_000, {"appliance.power": 3.0}))
        feed(each, sample(NOW + 6_000, {"appliance.power": 4.0}))
    assert values_of(closed(busy), "appliance.power") == [10, 30]
    assert busy.dropped == {DropReason.AFTER_END: 2}
    assert values_of(closed(endless), "appliance.power") == [10, 30, 40, 20]


def test_an_end_that_was_taken_away_holds_no_more() -> None:
    busy = lane({"appliance.power": "window(15m, count)"}, not_after_ms=NOW + 20 * MINUTE)
    for at in (1, 16):
        feed(busy, sample(NOW + at * MINUTE, {"appliance.power": 1.0}))
    busy.settle()
    assert busy.dropped == {DropReason.CUT_WINDOW: 1}
    busy.amend(permit({"appliance.power": "window(15m, count)"}))
    for at in (17, 46):
        feed(busy, sample(NOW + at * MINUTE, {"appliance.power": 1.0}))
    assert values_of(closed(busy), "appliance.power") == [1, 1]


def test_an_open_window_that_a_new_end_cuts_is_given_up_and_counted() -> None:
    listed = {"appliance.power": "window(15m, count)"}
    cut, kept = lane(listed), lane(listed)
    for busy, end_ms in ((cut, NOW + 14 * MINUTE), (kept, NOW + 15 * MINUTE)):
        feed(busy, sample(NOW + MINUTE, {"appliance.power": 1.0}))
        busy.settle()
        assert busy.absorbed == 1
        busy.amend(permit(listed, not_after_ms=end_ms))
    assert cut.absorbed == 0
    assert cut.dropped == {DropReason.CUT_WINDOW: 1}
    assert closed(cut, final=True, now_ms=NOW + 20 * MINUTE) == []
    found = closed(kept, final=True, now_ms=NOW + 20 * MINUTE)
    assert values_of(found, "appliance.power") == [1]


def test_a_lane_goes_on_with_other_sizes_and_other_urgent_attributes() -> None:
    busy = lane(max_readings=100)
    feed(busy, sample(NOW, {"appliance.power": 1.0}), sample(NOW + 1_000, {"appliance.power": 2.0}))
    assert not busy.due(NOW + 1_000)
    busy.amend(permit(max_readings=2))
    assert busy.due(NOW + 1_000)
    assert values_of(closed(busy), "appliance.power") == [10, 20]
    busy.amend(permit(urgent=frozenset({"appliance.power"})))
    feed(busy, sample(NOW + 2_000, {"appliance.power": 3.0}))
    assert busy.due(NOW + 2_000)
    busy.discard()  # begins anew under the permit of now
    busy.amend(permit(not_after_ms=NOW))
    busy.discard()
    feed(busy, sample(NOW, {"appliance.power": 4.0}))
    assert closed(busy) == []


def test_in_its_first_second_a_yes_begins_at_the_next() -> None:
    busy = lane(not_before_ms=NOW + 300)
    for at in (299, 300, 999, 1_000, 1_999, 2_000):
        feed(busy, sample(NOW + at, {"appliance.power": float(at)}))
    (batch,) = closed(busy)
    # Nothing is stamped before the yes, and nothing that came before it leaves.
    assert rows([batch]) == [
        (1_000, 3_000),
        (1_000, 9_990),
        (1_000, 10_000),
        (1_000, 19_990),
        (2_000, 20_000),
    ]
    assert batch.first_ms >= busy.permit.not_before_ms
    assert busy.dropped == {DropReason.BEFORE_YES: 1}


def test_a_yes_without_a_whole_second_lets_nothing_out() -> None:
    short = lane(not_before_ms=NOW + 300, not_after_ms=NOW + 1_000)
    longer = lane(not_before_ms=NOW + 300, not_after_ms=NOW + 1_001)
    for each in (short, longer):
        feed(each, sample(NOW + 700, {"appliance.power": 1.0}))
    assert closed(short) == []
    assert short.dropped == {DropReason.AFTER_END: 1}
    assert rows(closed(longer)) == [(1_000, 10)]


def test_the_end_of_a_yes_is_judged_on_the_instant_itself() -> None:
    busy = lane(not_after_ms=NOW + 1_500)
    for at in (1_499, 1_500):
        feed(busy, sample(NOW + at, {"appliance.power": float(at)}))
    assert rows(closed(busy)) == [(1_000, 14_990)]
    assert busy.dropped == {DropReason.AFTER_END: 1}


def ends(readings: int, **fields: Any) -> list[int]:
    """Where batches of a lane end, by the number of its reading, one reading a second."""
    busy = Lane(permit(**fields), SECRET, 7, THIS_EPOCH)
    found, count = [], 0
    for at in range(readings):
        feed(busy, sample(NOW + at * 1_000, {"appliance.power": 1.0}))
        while busy.due(NOW + at * 1_000):
            batch = busy.close()
            assert batch is not None
            count += batch.readings
            found.append(count)
    return found


@pytest.mark.clause("C10")
@pytest.mark.parametrize(
    "bound", [{"max_readings": 200}, {"max_age_ms": 200_000}], ids=["full", "old"]
)
def test_the_batches_of_two_lanes_do_not_end_together(bound: dict[str, int]) -> None:
    lanes = [ends(2_000, **bound) for _ in range(40)]
    for each in lanes:
        first, *sizes = [end - begin for begin, end in zip([0, *each], each, strict=False)]
        assert 100 <= first <= 201
        assert max(sizes) - min(sizes) == 0
    # One pair in a hundred begins at the same of a hundred places by chance.
    assert len({tuple(each) for each in lanes}) > 20


@pytest.mark.clause("C10")
def test_a_batch_that_ended_with_those_of_other_lanes_is_followed_by_one_that_does_not() -> None:
    draws = iter([1.0, 1.0, 0.5, 0.5, 0.75, 0.75])
    urgent = frozenset({"appliance.fault"})
    listed = {"appliance.power": "keep", "appliance.fault": "keep"}
    busy = Lane(
        permit(listed, max_readings=8, urgent=urgent),
        SECRET,
        7,
        THIS_EPOCH,
        share=draws.__next__,
    )

    def taken() -> int:
        """How many readings the lane takes until a batch is due."""
        for count in range(1, 20):
            feed(busy, sample(NOW + count * 1_000, {"appliance.power": 1.0}))
            if busy.due(NOW):
                break
        assert busy.close() is not None
        return count

    assert taken() == 8
    assert taken() == 8
    feed(busy, sample(NOW, {"appliance.fault": "E1"}))
    assert busy.due(NOW)
    assert busy.close() is not None  # urgent: drawn
    assert taken() == 4
    assert taken() == 8
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    assert not busy.due(NOW)
    assert busy.close() is not None  # flushed: drawn
    assert taken() == 6
    assert taken() == 8


WINDOWED = {"appliance.power": "window(15m, mean)", "appliance.voltage": "window(15m, max)"}


def both(ms: int, value: float, device: Device = METER) -> Sample:
    return sample(ms, {"appliance.power": value, "appliance.voltage": value}, device)


def test_a_window_leaves_as_one_row_at_its_start_when_a_reading_is_past_its_end() -> None:
    busy = lane(WINDOWED)
    feed(busy, both(NOW + MINUTE, 1.0), both(NOW + 2 * MINUTE, 2.0))
    assert closed(busy) == []
    feed(busy, both(NOW + 15 * MINUTE, 9.0))
    (batch,) = closed(busy)
    (table,) = batch.tables
    assert list(table.times) == [NOW]
    assert [(c.attribute, list(c.values)) for c in table.columns] == [
        ("appliance.power", [15]),
        ("appliance.voltage", [20]),
    ]
    assert busy.absorbed == 2


def test_a_window_survives_the_batches_closed_within_it() -> None:
    busy = lane({"appliance.power": "window(15m, sum)", "appliance.voltage": "keep"})
    for at in range(10):
        feed(busy, both(NOW + at * MINUTE, 1.0))
        assert values_of(closed(busy), "appliance.voltage") == [10]
    feed(busy, sample(NOW + 20 * MINUTE, {"appliance.power": 0.0}))
    assert values_of(closed(busy), "appliance.power") == [100]


def test_devices_have_windows_of_their_own() -> None:
    busy = lane({"appliance.power": "window(15m, last)"})
    feed(busy, both(NOW, 1.0), both(NOW, 2.0, FRIDGE), both(NOW + 15 * MINUTE, 3.0))
    assert values_of(closed(busy), "appliance.power") == [10]


def test_a_final_close_lets_ended_windows_go_and_drops_open_ones() -> None:
    for now_ms, expected, dropped in (
        (NOW + 15 * MINUTE, [10], {}),
        (NOW + 15 * MINUTE - 1, [], {DropReason.OPEN_WINDOW: 1}),
        (None, [], {DropReason.OPEN_WINDOW: 1}),
    ):
        busy = lane({"appliance.power": "window(15m, mean)"})
        feed(busy, sample(NOW, {"appliance.power": 1.0}))
        assert values_of(closed(busy, final=True, now_ms=now_ms), "appliance.power") == expected
        assert busy.dropped == dropped


def test_the_last_window_of_a_silent_device_leaves_in_the_end() -> None:
    busy = lane({"appliance.power": "window(15m, mean)"}, max_age_ms=MINUTE)
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    end = NOW + 15 * MINUTE
    due = [at for at in range(0, LATE_MS + 5 * MINUTE, MINUTE) if busy.due(end + at)]
    assert due[0] == LATE_MS
    assert values_of(closed(busy), "appliance.power") == [10]


def test_a_window_cut_by_the_begin_of_the_yes_does_not_leave() -> None:
    busy = lane({"appliance.power": "window(15m, count)"}, not_before_ms=NOW + MINUTE)
    feed(busy, *[sample(NOW + at * MINUTE, {"appliance.power": 1.0}) for at in range(46)])
    (batch,) = closed(busy)
    assert [(ms, value) for _, ms, _, value in cells([batch])] == [
        (NOW + 15 * MINUTE, 15),
        (NOW + 30 * MINUTE, 15),
    ]
    assert batch.first_ms >= busy.permit.not_before_ms
    assert busy.dropped == {DropReason.BEFORE_YES: 1, DropReason.CUT_WINDOW: 14}


def test_shapes_that_share_a_counter_do_not_confuse_it() -> None:
    busy = lane({"appliance.energy": "delta", "appliance.power": "keep"})
    for at, value in enumerate([100, 101, 103, 106, 110]):
        fields: dict[str, object] = {"appliance.energy": value}
        more = {"appliance.power": 1.0} if at % 2 else {}
        feed(busy, sample(NOW + at * 1_000, fields | more))
    found = {
        (ms - NOW) // 1_000: v
        for _, ms, name, v in cells(closed(busy))
        if name == "appliance.energy"
    }
    assert found == {1: 1, 2: 2, 3: 3, 4: 4}
    assert busy.dropped == {DropReason.FIRST_OF_COUNTER: 1}


def test_a_counter_takes_readings_of_one_instant_in_the_order_they_came() -> None:
    busy = lane({"appliance.energy": "delta", "appliance.power": "keep"})
    feed(
        busy,
        sample(NOW, {"appliance.energy": 100, "appliance.power": 1.0}),
        sample(NOW, {"appliance.energy": 110}),
        sample(NOW, {"appliance.energy": 125, "appliance.power": 2.0}),
        sample(NOW, {"appliance.energy": 131}),
    )
    assert sorted(values_of(closed(busy), "appliance.energy")) == [6, 10, 15]


def test_samples_that_come_out_of_order_are_put_in_order() -> None:
    busy = lane({"appliance.energy": "delta"})
    mixed = (3, 1, 2, 5, 4)
    feed(busy, *[sample(NOW + at * 1_000, {"appliance.energy": 100 + at}) for at in mixed])
    (batch,) = closed(busy)
    found = [((ms - NOW) // 1_000, value) for _, ms, _, value in cells([batch])]
    assert found == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_a_sample_that_names_an_attribute_twice_is_not_believed() -> None:
    busy = lane({"appliance.power": "keep"})
    take = busy.compile(METER, ("appliance.power", "appliance.power"))
    assert take is not None
    take(NOW, (1.0, 2.0))
    assert closed(busy) == []
    assert busy.dropped == {DropReason.MALFORMED: 2}


def test_a_shape_without_anything_wanted_compiles_to_nothing() -> None:
    assert lane().compile(METER, ("appliance.voltage", "note")) is None


def test_more_shapes_than_there_is_room_for_are_taken_apart() -> None:
    names = [f"appliance.n{number}" for number in range(11)]
    busy = lane(carried=tuple(carried(name, "keep", POWER) for name in names), max_readings=10**6)
    subsets = [[n for bit, n in enumerate(names) if mask >> bit & 1] for mask in range(1, 2**11)]
    for at, subset in enumerate(subsets):
        values = {name: float(bit) for bit, name in enumerate(subset)}
        feed(busy, sample(NOW + at * 1_000, values))
    assert MAX_SHAPES <= len(busy._intake._shapes) <= MAX_SHAPES + len(names)
    found = Counter((ms, name, value) for _, ms, name, value in cells(closed(busy)))
    assert found == {
        (NOW + at * 1_000, name, 10 * bit): 1
        for at, subset in enumerate(subsets)
        for bit, name in enumerate(subset)
    }


CARRIED = {
    "appliance.power": "keep",
    "appliance.voltage": "round(5)",
    "appliance.energy": "delta",
    "appliance.fault": "keep",
    "appliance.door": "keep",
    "device.serial": "pseudonym",
}
MEAN = carried("appliance.mean", "window(1m, mean)", POWER)
COUNT = carried("appliance.count", "window(1m, count)", FAULT)

GOOD: dict[str, st.SearchStrategy[Any]] = {
    "appliance.power": st.floats(-1000, 1000) | st.integers(-50, 50),
    "appliance.voltage": st.floats(-1000, 1000),
    "appliance.energy": st.integers(0, 1000),
    "appliance.fault": st.sampled_from(["E1", "E2", "none"]),
    "appliance.door": st.booleans(),
    "device.serial": st.sampled_from(["TEST-0001", "test-0002 "]),
    "appliance.mean": st.floats(-1000, 1000),
    "appliance.count": st.sampled_from(["E1", "E2"]),
    "appliance.other": st.integers(),
}
BAD: st.SearchStrategy[Any] = st.sampled_from(
    [math.nan, math.inf, None, b"x", "alice@example.com", 10**300]
)
DEVICES = [METER, FRIDGE, Device("boiler", "boiler", "TEST-0009")]


@st.composite
def histories(draw: st.DrawFn) -> list[Sample]:
    samples, ms = [], NOW
    shapes = draw(
        st.lists(
            st.lists(st.sampled_from(sorted(GOOD)), min_size=1, max_size=7, unique=True),
            min_size=1,
            max_size=3,
        )
    )
    for _ in range(draw(st.integers(1, 25))):
        ms += draw(st.integers(0, 40_000))
        names = draw(st.sampled_from(shapes))
        values = {n: draw(BAD) if draw(st.integers(0, 7)) == 0 else draw(GOOD[n]) for n in names}
        samples.append(sample(ms, values, draw(st.sampled_from(DEVICES))))
    return samples


def nearest(value: Fraction) -> int:
    below = math.floor(value)
    rest = value - below
    half = Fraction(1, 2)
    return below if rest < half or (rest == half and below % 2 == 0) else below + 1


def plain_cell(name: str, value: Any) -> object:
    """What one value becomes before series, spelled out once more; None for a bad one."""
    if name in {"appliance.power", "appliance.voltage", "appliance.mean", "appliance.energy"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        step = {"appliance.voltage": Fraction(5), "appliance.energy": Fraction(1)}
        units = nearest(Fraction(value) / step.get(name, Fraction(1, 10)))
        return units if abs(units) < 2**62 else None
    if name in {"appliance.fault", "appliance.count"}:
        return value if value in ("E1", "E2", "none") else None
    if name == "appliance.door":
        return value if isinstance(value, bool) else None
    if isinstance(value, str) and value.strip():
        return pseudonym_by_hand(SECRET, "serial", THIS_EPOCH, value.strip().upper())
    return None


def plain_lane(samples: list[Sample]) -> tuple[Counter[tuple[bytes, int, str, object]], int, int]:
    """What should leave, how many values should stay, and how many open windows should hold."""
    leaves: Counter[tuple[bytes, int, str, object]] = Counter()
    stays = 0
    counters: dict[str, int] = {}
    windows: dict[tuple[str, str], dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    who = {
        device.id: pseudonym_by_hand(
            SECRET, "device", THIS_EPOCH, device.serial or f"id:{device.id}"
        )
        for device in DEVICES
    }
    for each in samples:
        ms, device = each.at.wall_ms, each.device.id
        second = ms // 1_000 * 1_000
        for name, value in zip(each.names, each.values, strict=True):
            if name == "appliance.other":
                continue
            cell = plain_cell(name, value)
            if cell is None:
                stays += 1
            elif name in {"appliance.mean", "appliance.count"}:
                windows[device, name][ms // MINUTE * MINUTE].append(cell)
            elif name == "appliance.energy":
                assert isinstance(cell, int)
                last = counters.get(device)
                counters[device] = cell
                if last is None or cell < last:
                    stays += 1
                else:
                    leaves[who[device], second, name, cell - last] += 1
            else:
                leaves[who[device], second, name, cell] += 1
    open_readings = 0
    for (device, name), starts in windows.items():
        open_readings += len(starts.pop(max(starts)))
        for start, got in starts.items():
            value = len(got) if name == "appliance.count" else nearest(Fraction(sum(got), len(got)))
            leaves[who[device], start, name, value] += 1
    return leaves, stays, open_readings


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_a_lane_agrees_with_a_plain_reading_of_the_rules(
    samples: list[Sample], data: st.DataObject
) -> None:
    entries = tuple(carried(name, op) for name, op in CARRIED.items())
    busy = lane(carried=(*entries, MEAN, COUNT), max_readings=data.draw(st.integers(8, 60)))
    batches: list[Batch] = []
    for each in samples:
        feed(busy, each)
        what = data.draw(st.sampled_from(["", "", "", "settle", "due", "close"]))
        if what == "settle":
            busy.settle(each.at.wall_ms)
        while what == "due" and busy.due(each.at.wall_ms):
            batch = busy.close(now_ms=each.at.wall_ms)
            assert batch is not None
            batches.append(batch)
        if what == "close":
            batches += closed(busy)
    batches += closed(busy)
    leaves, stays, open_readings = plain_lane(samples)
    found = Counter(cells(batches))
    assert found == leaves
    assert sum(busy.dropped.values()) == stays
    assert busy.absorbed == open_readings
    assert busy.readings == 0
    assert {batch.readings <= busy.permit.max_readings for batch in batches} <= {True}
    assert sum(batch.readings for batch in batches) == sum(found.values())
    for batch in batches:
        for table in batch.tables:
            assert {len(column.values) for column in table.columns} == {len(table.times)}
    before = sum(busy.dropped.values())
    assert closed(busy, final=True) == []
    assert sum(busy.dropped.values()) == before + open_readings


def test_the_types_of_the_path_are_frozen() -> None:
    busy = lane()
    feed(busy, sample(NOW, {"appliance.power": 1.0}))
    (batch,) = closed(busy)
    with pytest.raises(AttributeError):
        batch.stream = 8  # type: ignore[misc]


TWINS = (Device("left", "meter", "0000123"), Device("right", "meter", " 0000123 "))


def test_two_devices_with_one_serial_are_two(caplog: pytest.LogCaptureFixture) -> None:
    busy = lane({"appliance.power": "window(1m, mean)"})
    for minute in range(2):
        for device, watts in zip(TWINS, (100.0, 900.0), strict=True):
            feed(busy, sample(NOW + minute * MINUTE, {"appliance.power": watts}, device))
    tables = [table for batch in closed(busy) for table in batch.tables]
    by_serial = pseudonym_by_hand(SECRET, "device", THIS_EPOCH, "0000123")
    by_both = pseudonym_by_hand(SECRET, "device", THIS_EPOCH, "0000123\0id:right")
    assert {table.device: list(table.columns[0].values) for table in tables} == {
        by_serial: [1000],
        by_both: [9000],
    }
    assert not busy.dropped
    (line,) = [record.getMessage() for record in caplog.records]
    assert "one serial" in line
    assert not {"0000123", "left", "right"} & set(re.split(r"\W+", line))


def test_a_device_that_came_back_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """The twin: one id, so one device, also when its kind was corrected meanwhile."""
    busy = lane({"appliance.power": "window(1m, mean)"})
    for kind, watts in (("meter", 100.0), ("washer", 300.0)):
        device = Device("left", kind, "0000123")
        feed(busy, sample(NOW, {"appliance.power": watts}, device))
        feed(busy, sample(NOW + MINUTE, {"appliance.power": watts}, device))
    (table,) = [table for batch in closed(busy) for table in batch.tables]
    assert table.device == pseudonym_by_hand(SECRET, "device", THIS_EPOCH, "0000123")
    assert sorted(table.columns[0].values) == [1000, 3000]  # neither window is lost
    assert caplog.records == []
