# SPDX-License-Identifier: Apache-2.0
"""The second gate believes no clock that stands before the floor, and sends no courtesy alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import LaneState, Spool, Target
from assent.errors import SpoolError
from assent.header import Gap, GapCause
from tests.agent.sealed import NOW, run_of, sealed

MINUTE, DAY = 60_000, 86_400_000
BOOT = 5 * MINUTE
TARGET = Target("maker", "mqtts://a:1", "0" * 32, "ca", "cert", "key")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    """A spool with a lane that ends a minute from NOW, which has something to say."""
    opened = Spool.open(path)
    opened.set_targets([TARGET])
    opened.open_lane("service", "maker", 7, NOW + MINUTE)
    opened.put(run_of(3))
    yield opened
    opened.close()


@pytest.fixture
def carrier(spool: Spool, path: Path) -> Iterator[Spool]:
    opened = Spool.open(path, create=False)
    yield opened
    opened.close()


def is_open(carrier: Spool, now_ms: int, boot_ms: int) -> bool:
    """Whether the lane is open for the uplink, by each of the three questions that it asks."""
    held = {one.id for one in carrier.lease("maker", 1, NOW)}
    stays = held.isdisjoint(carrier.revoked(now_ms, boot_ms=boot_ms))
    carrier.returned(held)
    leases = carrier.lease("maker", 9, now_ms, boot_ms=boot_ms)
    carrier.returned([one.id for one in leases])
    (target,) = carrier.targets(now_ms, boot_ms=boot_ms)
    assert bool(held) or not leases
    assert bool(leases) == target.wanted
    assert not held or stays == bool(leases)
    return bool(leases)


@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    ("floor", "now_ms", "boot_ms", "is_so"),
    [
        (None, NOW - DAY, BOOT, True),
        ((NOW, BOOT), NOW - DAY, BOOT, True),
        ((NOW, BOOT), NOW - DAY, BOOT + MINUTE - 1, True),
        ((NOW, BOOT), NOW - DAY, BOOT + MINUTE, False),
        ((NOW, BOOT), NOW - DAY, MINUTE - 1, True),
        ((NOW, BOOT), NOW - DAY, MINUTE, False),
        ((NOW + MINUTE, BOOT), NOW - DAY, 0, False),
        ((NOW - DAY, BOOT), NOW + MINUTE, BOOT, False),
    ],
    ids=[
        "nobody knows of a floor, and the clock says that the end has not come",
        "the floor lies before the end",
        "the end comes in a millisecond of the same boot",
        "the end has come by the time that has passed since",
        "a later boot is younger than what is left to the end",
        "a later boot is older than what was left to the end",
        "the end had come before the boot",
        "the floor is old, and the clock says that the end has come",
    ],
)
def test_a_lane_is_open_as_long_as_its_end_lies_after_clock_and_floor(
    spool: Spool,
    carrier: Spool,
    floor: tuple[int, int] | None,
    now_ms: int,
    boot_ms: int,
    is_so: bool,
) -> None:
    if floor is not None:
        spool.set_floor(*floor)
    assert is_open(carrier, now_ms, boot_ms) == is_so


def test_a_lane_without_an_end_is_not_shut_by_any_floor(spool: Spool, carrier: Spool) -> None:
    spool.open_lane("service", "maker", 7, None)
    spool.set_floor(NOW + 9_000 * DAY, BOOT)
    assert is_open(carrier, NOW, BOOT)


def test_the_floor_is_what_was_said_last_with_the_time_since(spool: Spool, path: Path) -> None:
    assert spool.floor_ms(BOOT) == 0
    spool.set_floor(NOW + DAY, BOOT)
    spool.set_floor(NOW, BOOT)
    with contextlib.closing(Spool.open(path, create=False)) as other:
        assert other.floor_ms(BOOT) == NOW
        assert other.floor_ms(BOOT + 9) == NOW + 9
        assert other.floor_ms(BOOT - 1) == NOW + BOOT - 1  # of a later boot


@pytest.mark.parametrize("statement", ["at=-1", "at=9000000000000000", "boot=-1"])
def test_a_floor_that_no_clock_ever_told_is_damage(
    spool: Spool, path: Path, statement: str
) -> None:
    spool.set_floor(NOW, BOOT)
    spool.close()
    with contextlib.closing(Spool.open(path)) as sound:  # the twin
        assert sound.moved_aside is None
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"UPDATE floor SET {statement}")
    with contextlib.closing(Spool.open(path)) as again:
        assert again.moved_aside is not None


# --- courtesies ----------------------------------------------------------------------------------


def said(carrier: Spool, now_ms: int = NOW) -> list[bytes]:
    leases = carrier.lease("maker", 9, now_ms)
    carrier.returned([one.id for one in leases])
    return [one.data for one in leases if one.flow is None]


@pytest.mark.clause("C28")
@pytest.mark.parametrize("shut", [Spool.close_lane, Spool.pause_lane], ids=["a no", "a pause"])
def test_the_last_lane_takes_the_courtesies_with_it(
    spool: Spool, carrier: Spool, shut: object
) -> None:
    assert callable(shut)
    spool.open_lane("advice", "maker", 8, None)
    spool.put_control("maker", b"greeting", courtesy=True)
    spool.put_control("maker", b"request")
    shut(spool, "service")
    assert said(carrier) == [b"greeting", b"request"]  # another lane is open
    shut(spool, "advice")
    assert said(carrier) == [b"request"]
    carrier.delivered([one.id for one in carrier.lease("maker", 9, NOW)], NOW)
    (target,) = carrier.targets(NOW)
    assert not target.wanted
    spool.open_lane("advice", "maker", 9, None)
    assert said(carrier) == []


def test_a_courtesy_is_worth_no_connection(spool: Spool, carrier: Spool) -> None:
    spool.put_control("maker", b"greeting", courtesy=True)
    assert said(carrier) == [b"greeting"]
    (target,) = carrier.targets(NOW + MINUTE)  # the lane has ended, nobody has closed it yet
    assert not target.wanted
    assert said(carrier, NOW + MINUTE) == []
    spool.put_control("maker", b"request")  # the twin
    (target,) = carrier.targets(NOW + MINUTE)
    assert target.wanted
    assert said(carrier, NOW + MINUTE) == [b"request"]


def test_a_courtesy_is_not_kept_for_a_recipient_without_a_lane(spool: Spool, path: Path) -> None:
    spool.close_lane("service")
    spool.put_control("maker", b"too late", courtesy=True)
    spool.open_lane("service", "maker", 8, None)
    spool.put_control("maker", b"in time", courtesy=True)
    with contextlib.closing(Spool.open(path, create=False)) as carrier:
        assert said(carrier) == [b"in time"]


# --- a spool of the version before ---------------------------------------------------------------

# What each version lacks of the one after it.
THIRD = """
DROP INDEX batch_expires; DROP TABLE absence; DROP TABLE twin; DROP TABLE gap; DROP TABLE target;
DROP TABLE held; DROP TABLE question;
CREATE TABLE gap (
  id INTEGER PRIMARY KEY AUTOINCREMENT, flow TEXT NOT NULL, stream INTEGER NOT NULL,
  cause INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, readings INTEGER NOT NULL,
  carried INTEGER NOT NULL
) STRICT;
CREATE INDEX gap_flow ON gap (flow);
CREATE TABLE target (
  recipient TEXT PRIMARY KEY, broker TEXT NOT NULL, mailbox TEXT NOT NULL, ca_pem TEXT NOT NULL,
  cert_path TEXT NOT NULL, key_path TEXT NOT NULL
) STRICT;
INSERT INTO gap VALUES (1, 'service', 7, 0, 1000, 2000, 5, 1), (9, 'service', 7, 0, 0, 0, 5, 1);
DELETE FROM gap WHERE id=9;
PRAGMA user_version=3;
"""
SECOND = f"{THIRD} DROP TABLE handed; PRAGMA user_version=2;"
FIRST = f"""
{SECOND} DROP TABLE floor; DROP TABLE control;
CREATE TABLE control (
  id INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, data BLOB NOT NULL
) STRICT;
CREATE INDEX control_recipient ON control (recipient);
INSERT INTO control VALUES (NULL, 'maker', x'00');
PRAGMA user_version=1;
"""


@pytest.mark.parametrize(
    "version", [FIRST, SECOND, THIRD], ids=["the first", "the second", "the third"]
)
def test_what_waits_in_a_spool_of_an_older_version_goes_on_waiting(
    spool: Spool, path: Path, version: str
) -> None:
    spool.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(version)
    with pytest.raises(SpoolError, match="not ready"):  # the uplink waits for the other side
        Spool.open(path, create=False)
    with contextlib.closing(Spool.open(path)) as again:
        assert again.moved_aside is None
        assert again.lanes()["service"].state is LaneState.OPEN
        assert again.waiting()["service"].batches == 3
        (gap,) = again.gaps_for("service")
        assert gap == Gap(1, 7, GapCause.CRASH, 1_000, 2_000, 5)
        again.add_gap("service", 7, GapCause.CRASH, first_ms=9, last_ms=9, readings=0)
        assert again.gaps_for("service")[1].id == 10  # no id is used twice
        again.put([sealed(3)])
        again.set_floor(NOW, BOOT)
        again.put_control("maker", b"greeting", courtesy=True)
        with contextlib.closing(Spool.open(path, create=False)) as carrier:
            assert said(carrier) == [b"greeting"]
    with contextlib.closing(Spool.open(path)) as later:
        assert later.moved_aside is None


def test_a_spool_that_only_says_that_it_is_of_the_first_version_is_damaged(
    spool: Spool, path: Path
) -> None:
    spool.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA user_version=1")
    with contextlib.closing(Spool.open(path)) as again:
        assert again.moved_aside is not None
