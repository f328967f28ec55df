# SPDX-License-Identifier: Apache-2.0
"""What the report on completeness says of each day, and what it must never say; in a real store."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.lane.memory import LATE_MS as AGENTS_LATE_MS
from assent.backend.ingest import judge
from assent.backend.outcomes import Accepted, Told
from assent.backend.proof import gaps
from assent.backend.report import Report
from assent.backend.store import Store, Taken, Verdict
from assent.backend.store.completeness import holes
from assent.backend.store.custody import Row
from assent.backend.store.hearing import LATE_MS
from assent.columns import Column, Kind, Table
from assent.cosekey import SealPrivateKey
from assent.envelope import ClockQuality, Gap, GapCause
from assent.errors import StoreError
from assent.messages import Status, up_topic
from tests.backend.parts import PSEUDONYM, START_MS, TENTH, Hand, desk, published

OURS = SealPrivateKey.generate(classical=True)
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)
FLOW, WINDOWS = "remote-diagnosis", "product-improvement"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
KEEP_MS = 90 * DAY_MS
"""For as long the terms here let a recipient keep."""
AGES = {FLOW: 10 * MINUTE_MS, WINDOWS: 10 * MINUTE_MS}
NOON_MS = START_MS + 12 * HOUR_MS
"""Noon of 2026-11-22."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(tmp_path)) as opened:
        opened.publish(published().values())
        yield opened


def batch(
    stream: int,
    sequence: int,
    at_ms: int,
    gaps: Sequence[Gap] = (),
    *,
    until_ms: int | None = None,
    received_ms: int | None = None,
    hand: Hand = HAND,
    flow: str = FLOW,
    clock: ClockQuality = ClockQuality.TRUSTED,
) -> Taken:
    """A batch of two readings; it arrives a minute after the second."""
    times = (at_ms, at_ms + 1_000 if until_ms is None else until_ms)
    column = Column("appliance.power", Kind.NUMBER, (1_000, 1_001), TENTH)
    data = hand.batch(
        OURS.public,
        [Table(PSEUDONYM, times, (column,))],
        stream=stream,
        sequence=sequence,
        gaps=tuple(gaps),
        flow=flow,
        clock=clock,
    )
    came_ms = times[1] + MINUTE_MS if received_ms is None else received_ms
    return Taken(judge(hand.topic, data, DESK), data, came_ms)


def put(store: Store, *taken: Taken) -> None:
    assert {one.verdict for one in store.put(taken)} <= {Verdict.STORED, Verdict.HELD}


def admit(store: Store, hand: Hand, at_ms: int = START_MS) -> None:
    row = Row(hand.mailbox, hand.sign.public.encode(), hand.seal.public.encode(), at_ms)
    with store.changing() as custody:
        assert custody.admit(row)


def told(
    store: Store, now_ms: int, ages: dict[str, int] | None = None, flow: str | None = FLOW
) -> Report:
    return gaps(store, flow, now_ms, AGES if ages is None else ages)


def rows(report: Report, *names: str) -> list[tuple[object, ...]]:
    return [tuple(row[report.head.index(name)] for name in names) for row in report.rows]


def days(report: Report) -> list[tuple[object, ...]]:
    return rows(report, "day", "state")


def time(ms: int) -> str:
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day(offset: int) -> str:
    return (dt.date(2026, 11, 22) + dt.timedelta(offset)).isoformat()


def gap(cause: GapCause, stream: int, **more: int) -> Gap:
    said = {"id": 1, "first_ms": START_MS, "last_ms": START_MS + MINUTE_MS, "readings": 0}
    return Gap(cause=cause, stream=stream, **{**said, **more})


def ended(stream: int, following: int) -> Gap:
    return Gap(99, stream, GapCause.ENDED, 0, 0, 0, following, following)


def custody(store: Store, statement: str, *values: object) -> int:
    """Something that happens behind the store's back."""
    return store._custody_db.execute(statement, values).rowcount


def readings(store: Store, statement: str, *values: object) -> int:
    return store._readings_db.execute(statement, values).rowcount


# --- since when nothing was heard -------------------------------------------------------------------


def test_a_gateway_that_died_is_unknown_from_its_last_instant_until_now(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS - DAY_MS), batch(1, 1, NOON_MS))
    now_ms = NOON_MS + 3 * DAY_MS
    report = told(store, now_ms)
    assert rows(report, "day", "state", "from", "to") == [
        (day(-1), "complete", None, None),
        (day(0), "unknown", time(NOON_MS + 1_000), time(START_MS + DAY_MS)),
        (day(1), "unknown", time(START_MS + DAY_MS), time(START_MS + 2 * DAY_MS)),
        (day(2), "unknown", time(START_MS + 2 * DAY_MS), time(START_MS + 3 * DAY_MS)),
        (day(3), "unknown", time(START_MS + 3 * DAY_MS), time(now_ms)),
    ]
    assert set(rows(report, "heard")) == {(time(NOON_MS + 1_000 + MINUTE_MS),)}
    assert not report.doubtful  # a household may say no, and nobody is told


def test_a_gateway_heard_within_its_longest_interval_is_open_and_today_is_not_complete(
    store: Store,
) -> None:
    put(store, batch(1, 0, NOON_MS - DAY_MS), batch(1, 1, NOON_MS))
    assert days(told(store, NOON_MS + 11 * MINUTE_MS)) == [(day(-1), "complete"), (day(0), "open")]
    assert days(told(store, NOON_MS + 14 * MINUTE_MS))[-1] == (day(0), "unknown")


def test_where_no_policy_tells_the_interval_nothing_counts_as_heard_lately(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS))
    report = told(store, NOON_MS + 2 * MINUTE_MS, ages={})
    assert days(report) == [(day(0), "unknown")]
    assert rows(report, "heard") == [(time(NOON_MS + 61_000),)]


def test_a_backlog_that_arrives_now_is_open_since_its_last_instant(store: Store) -> None:
    now_ms = NOON_MS + 2 * DAY_MS
    put(store, batch(1, 0, NOON_MS, received_ms=now_ms))
    assert days(told(store, now_ms)) == [(day(0), "open"), (day(1), "open"), (day(2), "open")]


def test_a_flow_whose_every_end_was_told_has_ended_and_is_judged_no_further(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS - DAY_MS), batch(1, 1, NOON_MS, [ended(1, 2)]))
    assert rows(told(store, NOON_MS + 9 * DAY_MS), "day", "state", "from", "to") == [
        (day(-1), "complete", None, None),
        (day(0), "ended", time(NOON_MS + 1_000), None),
    ]
    put(store, batch(2, 0, NOON_MS + MINUTE_MS))
    assert days(told(store, NOON_MS + DAY_MS))[1:] == [(day(0), "unknown"), (day(1), "unknown")]


def test_a_stream_that_went_on_after_its_end_has_not_ended(store: Store) -> None:
    put(store, *(batch(1, n, NOON_MS + n * MINUTE_MS, [ended(1, 1)]) for n in range(2)))
    report = told(store, NOON_MS + DAY_MS)
    assert ("unknown",) in rows(report, "state")
    assert report.doubtful


def test_a_flow_that_never_sent_anything_is_said_so_and_of_which_gateway(store: Store) -> None:
    admit(store, HAND)
    admit(store, OTHER)
    put(store, batch(1, 0, NOON_MS))
    report = told(store, NOON_MS, flow=None)
    assert sorted(rows(report, "mailbox", "flow", "day", "state", "from", "heard")) == sorted(
        [
            (HAND.mailbox, FLOW, day(0), "open", time(NOON_MS + 1_000), time(NOON_MS + 61_000)),
            (HAND.mailbox, WINDOWS, None, "never", time(START_MS), None),
            (OTHER.mailbox, FLOW, None, "never", time(START_MS), None),
            (OTHER.mailbox, WINDOWS, None, "never", time(START_MS), None),
        ]
    )
    assert not report.doubtful
    # That it lives is said beside it: something else of it came.
    lives = [row[1] for row in rows(report, "mailbox", "gateway_heard") if row[0] == HAND.mailbox]
    assert lives == [time(NOON_MS + 61_000)] * 2


def test_a_gateway_whose_word_about_its_policy_came_since_lives(store: Store) -> None:
    admit(store, HAND)
    put(store, batch(1, 0, NOON_MS))
    word = Told(HAND.gateway, Status("example-appliances", 17))
    store.put([Taken(word, b"", NOON_MS + HOUR_MS)])
    report = told(store, NOON_MS + 2 * HOUR_MS)
    assert rows(report, "state", "heard", "gateway_heard") == [
        ("unknown", time(NOON_MS + 61_000), time(NOON_MS + HOUR_MS))
    ]


def test_two_gateways_are_judged_each_by_itself(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS), batch(1, 0, NOON_MS + DAY_MS, hand=OTHER))
    report = told(store, NOON_MS + DAY_MS)
    found = {row[:2]: row[2] for row in rows(report, "mailbox", "day", "state")}
    assert found == {
        (HAND.mailbox, day(0)): "unknown",
        (HAND.mailbox, day(1)): "unknown",
        (OTHER.mailbox, day(1)): "open",
    }


def test_a_gateway_that_enrolled_anew_leaves_its_old_mailbox_unknown(store: Store) -> None:
    """It has other keys, and nothing here says that both are one."""
    for hand in (HAND, OTHER):
        admit(store, hand)
    put(store, batch(1, 0, NOON_MS), batch(1, 0, NOON_MS + MINUTE_MS, hand=OTHER))
    found = rows(told(store, NOON_MS + 13 * MINUTE_MS), "mailbox", "state")
    assert set(found) == {(HAND.mailbox, "unknown"), (OTHER.mailbox, "open")}


def test_days_between_a_no_and_a_later_yes_are_by_choice_and_not_unknown(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS - DAY_MS))
    off = {"first_ms": NOON_MS - DAY_MS + MINUTE_MS, "last_ms": NOON_MS + DAY_MS}
    assert days(told(store, NOON_MS + DAY_MS))[-1] == (day(1), "unknown")
    put(store, batch(2, 0, NOON_MS + DAY_MS, [gap(GapCause.PURGE, 1, **off)]))
    report = told(store, NOON_MS + DAY_MS + MINUTE_MS)
    assert rows(report, "day", "state", "cause") == [
        (day(-1), "declared", "purge"),
        (day(0), "declared", "purge"),
        (day(1), "declared", "purge"),
        (day(1), "open", None),
    ]
    assert not report.doubtful


# --- days ------------------------------------------------------------------------------------------


def test_each_day_is_complete_or_names_what_is_missing(store: Store) -> None:
    put(store, batch(1, 0, START_MS), batch(1, 1, START_MS + 2 * DAY_MS))
    now_ms = START_MS + 2 * DAY_MS + MINUTE_MS
    assert days(told(store, now_ms)) == [
        (day(0), "complete"),
        (day(1), "complete"),
        (day(2), "open"),
    ]
    silent = gap(GapCause.SILENT, 1, first_ms=START_MS + DAY_MS, last_ms=START_MS + DAY_MS + 1_000)
    put(store, batch(1, 3, START_MS + 2 * DAY_MS + MINUTE_MS, [silent]))
    report = told(store, now_ms + MINUTE_MS)
    assert report.doubtful
    assert rows(report, "day", "state", "from", "to", "cause", "first", "next")[:3] == [
        (day(0), "complete", None, None, None, None, None),
        (
            *(day(1), "declared"),
            *map(time, (START_MS + DAY_MS, START_MS + DAY_MS + 1_000)),
            *("silent", None, None),
        ),
        (
            *(day(2), "unexplained"),
            *map(time, (START_MS + 2 * DAY_MS + 1_000, START_MS + 2 * DAY_MS + MINUTE_MS)),
            *(None, 2, 3),
        ),
    ]


def test_a_batch_across_midnight_makes_the_day_before_complete_and_only_that(store: Store) -> None:
    midnight_ms = START_MS + DAY_MS
    put(store, batch(1, 0, midnight_ms - HOUR_MS, until_ms=midnight_ms - 1_000))
    assert days(told(store, midnight_ms + MINUTE_MS)) == [(day(0), "open"), (day(1), "open")]
    put(store, batch(1, 1, midnight_ms - 1_000, until_ms=midnight_ms + MINUTE_MS))
    assert days(told(store, midnight_ms + 2 * MINUTE_MS)) == [
        (day(0), "complete"),
        (day(1), "open"),
    ]


def test_days_are_those_of_utc_on_both_nights_of_summer_time(store: Store) -> None:
    """25 October 2026 has 25 hours in Berlin, and 24 here."""
    begin_ms = int(dt.datetime(2026, 10, 24, tzinfo=dt.UTC).timestamp() * 1000)
    put(store, batch(1, 0, begin_ms), batch(1, 2, begin_ms + 3 * DAY_MS))
    found = rows(told(store, begin_ms + 3 * DAY_MS + 1_000), "day", "from", "to")
    assert found[1] == ("2026-10-25", time(begin_ms + DAY_MS), time(begin_ms + 2 * DAY_MS))


# --- windows ---------------------------------------------------------------------------------------


def test_a_window_may_come_late_so_that_a_day_is_proven_later(store: Store) -> None:
    midnight_ms = START_MS + DAY_MS
    quarter_ms = 15 * MINUTE_MS
    begin_ms = midnight_ms - quarter_ms
    put(store, batch(1, 0, begin_ms, until_ms=midnight_ms + HOUR_MS, flow=WINDOWS))
    now_ms = midnight_ms + HOUR_MS + quarter_ms
    assert days(told(store, now_ms, flow=WINDOWS))[0] == (day(0), "open")
    later_ms = midnight_ms + HOUR_MS + quarter_ms
    put(store, batch(1, 1, later_ms, until_ms=later_ms + quarter_ms, flow=WINDOWS))
    assert days(told(store, now_ms + quarter_ms, flow=WINDOWS))[0] == (day(0), "complete")


def test_a_first_window_makes_no_day_before_its_own(store: Store) -> None:
    put(store, batch(1, 0, START_MS, until_ms=START_MS + 15 * MINUTE_MS, flow=WINDOWS))
    assert days(told(store, START_MS + 20 * MINUTE_MS, flow=WINDOWS)) == [(day(0), "open")]


def test_what_was_lost_may_be_a_window_older_than_the_batch_before_it(store: Store) -> None:
    midnight_ms = START_MS + DAY_MS
    for flow, state in ((WINDOWS, "unexplained"), (FLOW, "complete")):
        numbers = ((0, midnight_ms - HOUR_MS), (2, midnight_ms + 9 * HOUR_MS))
        for n, at_ms in numbers:
            until_ms = at_ms + 75 * MINUTE_MS
            put(store, batch(len(flow), n, at_ms, until_ms=until_ms, flow=flow))
        report = told(store, midnight_ms + 11 * HOUR_MS, flow=flow)
        assert days(report)[0] == (day(0), state)


def test_a_stream_whose_end_nobody_told_may_lack_a_window_older_than_its_last(
    store: Store,
) -> None:
    midnight_ms = START_MS + DAY_MS
    for flow, state in ((WINDOWS, "unexplained"), (FLOW, "complete")):
        for stream, at_ms in ((len(flow), midnight_ms), (99 + len(flow), midnight_ms + DAY_MS)):
            put(store, batch(stream, 0, at_ms, until_ms=at_ms + 15 * MINUTE_MS, flow=flow))
        put(store, batch(7 + len(flow), 0, START_MS, until_ms=START_MS + HOUR_MS, flow=flow))
        word = [ended(7 + len(flow), 1)]
        last_ms = midnight_ms + DAY_MS + 30 * MINUTE_MS
        put(store, batch(99 + len(flow), 1, last_ms, word, until_ms=last_ms, flow=flow))
        assert days(told(store, last_ms + MINUTE_MS, flow=flow))[0] == (day(0), state)


def test_a_gateway_waits_for_a_late_window_as_long_as_is_reckoned_with_here() -> None:
    assert LATE_MS == AGENTS_LATE_MS


# --- clocks ----------------------------------------------------------------------------------------


def test_an_instant_after_its_own_arrival_proves_nothing_and_makes_no_day(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS))
    now_ms = NOON_MS + 2 * DAY_MS
    put(store, batch(1, 1, NOON_MS + 9_000 * DAY_MS, received_ms=NOON_MS + 5 * MINUTE_MS))
    report = told(store, now_ms)
    assert rows(report, "day", "state", "readings") == [
        (day(0), "unknown", None),
        (day(1), "unknown", None),
        (day(2), "unknown", None),
        (None, "undated", 2),
    ]


def test_a_clock_a_little_ahead_proves_no_more_than_the_moment_of_arrival(store: Store) -> None:
    midnight_ms = START_MS + DAY_MS
    put(
        store,
        batch(1, 0, midnight_ms - HOUR_MS),
        batch(1, 1, midnight_ms + MINUTE_MS, received_ms=midnight_ms - MINUTE_MS),
    )
    assert days(told(store, midnight_ms - 1_000)) == [(day(0), "open")]
    assert days(told(store, midnight_ms + 2_000))[0] == (day(0), "open")


def test_an_instant_of_1970_makes_no_days_since_then(store: Store) -> None:
    put(store, batch(1, 0, 0, received_ms=NOON_MS), batch(1, 1, NOON_MS))
    assert days(told(store, NOON_MS + MINUTE_MS)) == [(day(0), "open"), (None, "undated")]


def test_what_is_lost_where_a_clock_went_back_may_be_of_any_day_between(store: Store) -> None:
    put(
        store,
        batch(1, 0, NOON_MS + 2 * DAY_MS),
        batch(1, 2, NOON_MS, received_ms=NOON_MS + 2 * DAY_MS + HOUR_MS),
    )
    found = days(told(store, NOON_MS + 2 * DAY_MS + HOUR_MS))
    assert [(day(n), "unexplained") for n in range(3)] == [
        one for one in found if one[1] == "unexplained"
    ]


def test_a_clock_here_that_was_set_back_moves_no_hole_and_judges_nobody(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS), batch(1, 2, NOON_MS + DAY_MS))
    assert days(told(store, NOON_MS - 9 * DAY_MS)) == [
        (day(0), "unexplained"),
        (day(1), "unexplained"),
        (day(1), "unknown"),
    ]


def test_a_gap_that_reaches_into_the_future_is_judged_until_now(store: Store) -> None:
    told_gap = gap(GapCause.SILENT, 1, first_ms=NOON_MS, last_ms=NOON_MS + 900_000 * DAY_MS)
    put(store, batch(1, 0, NOON_MS, [told_gap]))
    report = told(store, NOON_MS + DAY_MS)
    assert max(str(name) for (name,) in rows(report, "day")) == day(1)
    assert ("declared",) in rows(report, "state")


# --- held until the time is known ------------------------------------------------------------------


def held(sequence: int, received_ms: int) -> Taken:
    clock = ClockQuality.UNTRUSTED
    return batch(7, sequence, 20_000, received_ms=received_ms, clock=clock)


def release(store: Store) -> None:
    """As the subscriber does after a commit."""
    for one in store.waiting.due(100):
        accepted = judge(up_topic(one.mailbox), one.data, DESK)
        assert isinstance(accepted, Accepted)
        assert store.release(one, accepted)


def test_what_waits_for_the_word_about_its_boot_is_of_no_day_yet(store: Store) -> None:
    put(store, held(0, NOON_MS))
    report = told(store, NOON_MS + MINUTE_MS)
    assert rows(report, "day", "state", "readings") == [
        (day(0), "open", None),
        (None, "undated", 2),
    ]
    word = Gap(3, 7, GapCause.BOOT, NOON_MS - DAY_MS, NOON_MS - DAY_MS, 0)
    put(store, batch(8, 0, NOON_MS, [word, ended(7, 1)]))
    release(store)
    report = told(store, NOON_MS + MINUTE_MS)
    assert days(report) == [(day(-1), "complete"), (day(0), "open")]


def test_a_boot_between_two_bounds_makes_no_day_complete(store: Store) -> None:
    """Its readings stand at the earlier bound, days before any of them need have been made."""
    word = Gap(3, 7, GapCause.BOOT, NOON_MS - 5 * DAY_MS, NOON_MS - DAY_MS, 0)
    put(store, held(0, NOON_MS), batch(8, 0, NOON_MS, [word, ended(7, 1)]))
    release(store)
    assert rows(told(store, NOON_MS + MINUTE_MS), "day", "state", "readings") == [
        (day(0), "open", None),
        (None, "undated", 2),
    ]


# --- what was lost where a stream begins or ends ----------------------------------------------------


def unexplained(report: Report) -> set[object]:
    return {name for name, state in days(report) if state == "unexplained"}


def test_the_lost_beginning_of_a_stream_reaches_back_to_the_stream_before(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS), batch(2, 1, NOON_MS + 3 * DAY_MS, [ended(1, 1)]))
    report = told(store, NOON_MS + 3 * DAY_MS + MINUTE_MS)
    assert unexplained(report) == {day(0), day(1), day(2), day(3)}


def test_the_lost_end_of_a_stream_reaches_on_to_what_told_it(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS), batch(2, 0, NOON_MS + 3 * DAY_MS, [ended(1, 2)]))
    report = told(store, NOON_MS + 3 * DAY_MS + MINUTE_MS)
    assert unexplained(report) == {day(0), day(1), day(2), day(3)}


def test_a_stream_of_which_nothing_came_lies_between_its_neighbours(store: Store) -> None:
    put(
        store,
        batch(1, 0, NOON_MS - DAY_MS),
        batch(1, 1, NOON_MS),
        batch(3, 0, NOON_MS + 2 * DAY_MS, [ended(1, 2), ended(2, 5)]),
        batch(3, 1, NOON_MS + 3 * DAY_MS, [ended(2, 5)]),
    )
    report = told(store, NOON_MS + 3 * DAY_MS + MINUTE_MS)
    assert unexplained(report) == {day(0), day(1), day(2)}
    assert (day(-1), "complete") in days(report)


# --- what came and is gone --------------------------------------------------------------------------


def test_a_batch_lost_from_custody_is_gone_and_its_day_not_complete(store: Store) -> None:
    put(store, *(batch(1, n, START_MS + n * DAY_MS) for n in range(4)))
    now_ms = START_MS + 3 * DAY_MS + MINUTE_MS
    assert not told(store, now_ms).doubtful
    assert custody(store, "DELETE FROM custody WHERE sequence = 1") == 1
    report = told(store, now_ms)
    assert report.doubtful
    assert rows(report, "day", "state", "first", "next") == [
        (day(0), "gone", 1, 2),
        (day(1), "gone", 1, 2),
        (day(2), "complete", None, None),
        (day(3), "open", None, None),
    ]


def test_a_flow_that_is_lost_from_custody_whole_is_gone_and_not_never_heard(store: Store) -> None:
    admit(store, HAND)
    put(store, batch(1, 0, NOON_MS), batch(1, 1, NOON_MS + MINUTE_MS))
    assert custody(store, "DELETE FROM custody") == 2
    report = told(store, NOON_MS + DAY_MS)
    assert report.doubtful
    assert rows(report, "mailbox", "day", "state", "first", "next") == [
        (HAND.mailbox, day(0), "gone", 0, 2),
        (HAND.mailbox, day(1), "unknown", None, None),
    ]
    assert set(rows(report, "heard")) == {(time(NOON_MS + 2 * MINUTE_MS + 1_000),)}


def test_a_gateway_of_which_nothing_is_in_custody_is_known_by_its_key(store: Store) -> None:
    put(store, batch(1, 0, NOON_MS))
    assert custody(store, "DELETE FROM custody") == 1
    found = rows(told(store, NOON_MS + MINUTE_MS), "mailbox", "state")
    assert (HAND.sign.public.thumbprint.hex()[:32], "gone") in found


def test_readings_erased_from_the_data_are_gone_with_their_number(store: Store) -> None:
    put(store, *(batch(1, n, NOON_MS + n * DAY_MS) for n in range(4)))
    now_ms = NOON_MS + 3 * DAY_MS + MINUTE_MS
    assert readings(store, "DELETE FROM reading WHERE time_ms = ?", NOON_MS + DAY_MS) == 1
    report = told(store, now_ms)
    assert report.doubtful
    assert rows(report, "day", "state", "readings") == [
        (day(0), "complete", None),
        (day(1), "gone", 1),
        (day(2), "complete", None),
        (day(3), "open", None),
    ]


def test_readings_erased_from_batches_in_a_row_are_one_hole(store: Store) -> None:
    put(store, *(batch(1, n, NOON_MS + n * MINUTE_MS) for n in range(6)))
    for n in (1, 2, 4):
        at_ms = NOON_MS + n * MINUTE_MS
        assert readings(store, "DELETE FROM reading WHERE time_ms = ?", at_ms) == 1
    report = told(store, NOON_MS + 6 * MINUTE_MS)
    assert rows(report, "state", "from", "to", "readings", "first", "next")[:2] == [
        ("gone", time(NOON_MS + MINUTE_MS), time(NOON_MS + 2 * MINUTE_MS + 1_000), 2, 1, 3),
        ("gone", time(NOON_MS + 4 * MINUTE_MS), time(NOON_MS + 4 * MINUTE_MS + 1_000), 1, 4, 5),
    ]


@pytest.mark.parametrize("file", ["custody", "data"])
def test_what_its_terms_no_longer_allow_is_gone_by_right(store: Store, file: str) -> None:
    put(store, *(batch(1, n, NOON_MS + n * DAY_MS) for n in range(5)))
    if file == "custody":
        assert custody(store, "DELETE FROM custody WHERE sequence < 2") == 2
    else:
        assert readings(store, "DELETE FROM reading WHERE time_ms < ?", NOON_MS + 2 * DAY_MS) == 4
    # What it deletes last is dated by a neighbour that is a day younger.
    report = told(store, NOON_MS + DAY_MS + 2_000 + KEEP_MS)
    assert not report.doubtful
    assert ("gone",) in rows(report, "state")
    assert (day(3), "complete") in days(report)
    assert told(store, NOON_MS + KEEP_MS - DAY_MS).doubtful


def test_a_hole_whose_explanation_was_deleted_by_right_is_nobodys_loss(store: Store) -> None:
    """The word about it stood in batches that are as old as it is."""
    lost = gap(GapCause.QUOTA, 1, readings=2, begin=1, end=2)
    put(store, batch(1, 0, NOON_MS), batch(1, 2, NOON_MS + MINUTE_MS, [lost]))
    put(store, *(batch(1, 2 + n, NOON_MS + n * DAY_MS) for n in range(1, 4)))
    assert not told(store, NOON_MS + 4 * DAY_MS).doubtful
    assert custody(store, "DELETE FROM custody WHERE sequence < 3") == 2
    assert told(store, NOON_MS + 4 * DAY_MS).doubtful  # long before its time
    report = told(store, NOON_MS + DAY_MS + KEEP_MS)
    assert ("unexplained",) in rows(report, "state")
    assert not report.doubtful


def test_a_stream_deleted_whole_whose_end_nobody_told_ages_by_when_it_was_heard(
    store: Store,
) -> None:
    put(store, batch(1, 0, NOON_MS), batch(2, 0, NOON_MS + 30 * DAY_MS))
    assert custody(store, "DELETE FROM custody WHERE received_ms < ?", NOON_MS + DAY_MS) == 1
    assert told(store, NOON_MS + KEEP_MS - DAY_MS).doubtful
    report = told(store, NOON_MS + DAY_MS + MINUTE_MS + KEEP_MS + 2_000)
    assert rows(report, "day", "state")[0] == (day(0), "gone")
    assert not report.doubtful


def test_batches_that_arrive_while_it_looks_are_no_loss(tmp_path: Path, store: Store) -> None:
    """Red when each question sees another moment: an end that is not told yet, rows not counted."""
    put(store, batch(1, 0, NOON_MS))
    came: list[int] = []

    def meanwhile(statement: str) -> None:
        if "FROM ends" in statement or "FROM reading" in statement:
            came.append(len(came) + 1)
            at_ms = NOON_MS + len(came) * MINUTE_MS
            put(store, batch(1 + len(came), 0, at_ms, [ended(len(came), 1)]))

    with contextlib.closing(Store(tmp_path, writable=False)) as looked:
        looked._custody_db.set_trace_callback(meanwhile)
        looked._readings_db.set_trace_callback(meanwhile)
        report = told(looked, NOON_MS + 3 * MINUTE_MS)
    assert len(came) == 2
    assert days(report) == [(day(0), "open")]
    assert not report.doubtful
    (chain,) = store.chains.all(FLOW)
    assert len(chain.strands) == 3
    assert holes(chain) == []


# --- for a person ----------------------------------------------------------------------------------


def test_as_text_it_fits_80_columns_and_days_that_say_the_same_are_one_line(store: Store) -> None:
    admit(store, HAND)
    lost = gap(
        GapCause.UNSEALED, 1, readings=2**53, first_ms=START_MS, last_ms=START_MS + 30 * DAY_MS
    )
    put(
        store,
        batch(2**64 - 1, 0, START_MS, [lost]),
        batch(2**64 - 1, 2**62, START_MS + 40 * DAY_MS),
        batch(2**64 - 1, 2**62 + 1, START_MS + 50 * DAY_MS),
    )
    lines = told(store, START_MS + 60 * DAY_MS, flow=None).lines()
    assert max(len(line) for line in lines) <= 80
    text = "\n".join(lines)
    assert "    2026-11-22  unexplained  00:00:01 to 2026-12-31 24:00:00, 40 days," in text
    assert "    2027-01-01  complete     to 2027-01-10, 10 days\n" in text
    assert "    2027-01-11  unknown      00:00:01 to 2027-01-20 24:00:00, 10 days\n" in text
    assert "  product-improvement, heard never\n    -           never        since 2026" in text
    assert lines[:2] == [
        "days and times are UTC",
        f"gateway {HAND.mailbox}, heard 2027-01-11 00:01:01",
    ]


def test_an_older_store_learns_when_ends_were_told(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path)) as made:
        put(made, batch(1, 0, NOON_MS), batch(2, 0, NOON_MS + MINUTE_MS, [ended(1, 1)]))
    with contextlib.closing(sqlite3.connect(tmp_path / "custody.db")) as db:
        db.execute("ALTER TABLE ends DROP COLUMN told_ms")
        db.execute("ALTER TABLE streams DROP COLUMN heard_ms")
    looked = Store(tmp_path, writable=False)
    with contextlib.closing(looked), pytest.raises(StoreError, match="older version"):
        told(looked, NOON_MS)
    with contextlib.closing(Store(tmp_path)) as opened:
        assert days(told(opened, NOON_MS + MINUTE_MS)) == [(day(0), "open")]
