# SPDX-License-Identifier: Apache-2.0
"""The uplink leaves the spool alone only while a look would find what the last one found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.spool import Health, LinkState, Spool, Target, noes
from agent.spool.order import RESEND_MAX_MS, RESEND_MS
from tests.agent.sealed import NOW, run_of

MINUTE = 60_000
BOOT = 5 * MINUTE
TARGET = Target("maker", "mqtts://a:1", "0" * 32, "ca", "cert", "key")

Act = Callable[[Spool, Spool], object]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool.open(tmp_path / "spool.db")
    opened.set_targets([TARGET])
    opened.open_lane("service", "maker", 7, NOW + MINUTE)
    yield opened
    opened.close()


@pytest.fixture
def carrier(spool: Spool) -> Iterator[Spool]:
    opened = Spool.open(spool.path, create=False)
    yield opened
    opened.close()


def rests(carrier: Spool, now_ms: int = NOW, boot_ms: int = BOOT) -> bool:
    carrier.changed()
    return carrier.at_rest(now_ms, boot_ms=boot_ms)


def settle(carrier: Spool, now_ms: int = NOW, boot_ms: int = BOOT) -> None:
    rests(carrier, now_ms, boot_ms)
    assert rests(carrier, now_ms, boot_ms)


def nothing(_spool: Spool, _carrier: Spool) -> None:
    """Nobody does anything."""


def report(_spool: Spool, carrier: Spool) -> None:
    carrier.report("maker", Health(LinkState.CONNECTED, NOW))


@pytest.mark.parametrize(
    ("act", "now_ms", "boot_ms", "is_so"),
    [
        (nothing, NOW, BOOT, True),
        (nothing, NOW + MINUTE - 1, BOOT + MINUTE - 1, True),
        (nothing, NOW + MINUTE, BOOT, False),
        (nothing, NOW, BOOT + MINUTE, False),
        (nothing, NOW - 1, BOOT, False),
        (lambda spool, _: spool.refuse("service", NOW), NOW, BOOT, False),
        (lambda spool, _: spool.refuse("other", NOW), NOW, BOOT, False),
        (lambda spool, _: spool.refuse_beside("service", NOW), NOW, BOOT, False),
        (lambda spool, _: spool.pause_lane("service"), NOW, BOOT, False),
        (lambda spool, _: spool.put(run_of(1)), NOW, BOOT, False),
        (lambda spool, _: spool.put_control("maker", b"x"), NOW, BOOT, False),
        (lambda spool, _: spool.set_targets([]), NOW, BOOT, False),
        (lambda spool, _: spool.set_floor(NOW, BOOT), NOW, BOOT, False),
        (report, NOW, BOOT, False),
    ],
    ids=[
        "nothing",
        "the moment before the end",
        "the end by the wall clock",
        "the end by the time since boot",
        "the wall clock set back",
        "a no",
        "a no to a flow without a lane",
        "a no beside the spool",
        "a pause",
        "a batch",
        "a control message",
        "another target",
        "another floor",
        "a write of the uplink itself",
    ],
)
@pytest.mark.clause("C28")
def test_whatever_may_change_what_leaves_is_worth_a_look(
    spool: Spool, carrier: Spool, act: Act, now_ms: int, boot_ms: int, *, is_so: bool
) -> None:
    settle(carrier)
    act(spool, carrier)
    assert rests(carrier, now_ms, boot_ms) is is_so


def test_the_end_comes_by_the_floor_where_the_wall_clock_stands_before_it(
    spool: Spool, carrier: Spool
) -> None:
    spool.set_floor(NOW + MINUTE - 1_000, BOOT)
    settle(carrier)
    assert rests(carrier, NOW + 999, BOOT + 999)
    assert not rests(carrier, NOW + 999, BOOT + 1_000)


def test_a_no_that_is_taken_away_is_worth_a_look_too(spool: Spool, carrier: Spool) -> None:
    settle(carrier)
    spool.refuse_beside("service", NOW)
    assert [rests(carrier), rests(carrier)] == [False, False]
    noes.take_away(spool.path, "service")
    assert [rests(carrier), rests(carrier)] == [False, True]


@pytest.mark.parametrize(
    "age_s", [0, 60], ids=["a directory just written", "a directory written long ago"]
)
@pytest.mark.clause("C28")
def test_a_no_beside_the_spool_is_found_by_the_next_look(spool: Spool, age_s: int) -> None:
    """Red where the time of modification is trusted while a second name may come within it."""
    directory = spool.path.parent
    written_ns = time.time_ns() - age_s * 1_000_000_000
    os.utime(directory, ns=(written_ns, written_ns))
    beside = noes.Noes(spool.path)
    assert [beside.left(), beside.left()] == [{}, {}]
    spool.refuse_beside("service", NOW)
    if not age_s:  # as on a file system whose times are coarse
        os.utime(directory, ns=(written_ns, written_ns))
    assert [beside.left(), beside.left()] == [{"service": NOW}] * 2
    noes.take_away(spool.path, "service")
    assert beside.left() == {}


def test_a_directory_that_nobody_writes_is_listed_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_ns = time.time_ns() - 60 * 1_000_000_000
    os.utime(spool.path.parent, ns=(written_ns, written_ns))
    beside, listdir = noes.Noes(spool.path), os.listdir
    listed: list[str] = []

    def spied(place: str) -> list[str]:
        listed.append(place)
        return listdir(place)

    monkeypatch.setattr(os, "listdir", spied)
    assert [beside.left() for _ in range(3)] == [{}] * 3
    assert len(listed) == 1


def test_what_may_leave_now_is_looked_for_until_it_has_left(spool: Spool, carrier: Spool) -> None:
    spool.put(run_of(1))
    assert [rests(carrier), rests(carrier)] == [False, False]
    (lease,) = carrier.lease("maker", 1, NOW, boot_ms=BOOT)
    assert [rests(carrier), rests(carrier)] == [False, False]
    carrier.delivered([lease.id], NOW)
    assert [rests(carrier), rests(carrier)] == [False, True]


def test_what_comes_due_again_ends_the_rest(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", 7, None)
    spool.put(run_of(1))
    carrier.delivered([one.id for one in carrier.lease("maker", 1, NOW)], NOW)
    settle(carrier)
    assert rests(carrier, NOW + RESEND_MS - 1)
    due = NOW + RESEND_MS
    assert [rests(carrier, due), rests(carrier, due)] == [False, False]
    assert carrier.lease("maker", 1, due)


def test_what_a_clock_that_was_set_back_makes_due_is_looked_for(
    spool: Spool, carrier: Spool
) -> None:
    spool.open_lane("service", "maker", 7, None)
    spool.put(run_of(1))
    carrier.delivered([one.id for one in carrier.lease("maker", 1, NOW)], NOW)
    settle(carrier)
    back = NOW - RESEND_MAX_MS
    assert [rests(carrier, back), rests(carrier, back)] == [False, False]
    assert carrier.lease("maker", 1, back)
