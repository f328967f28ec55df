# SPDX-License-Identifier: Apache-2.0
"""An uplink on a machine whose clock nobody believes: dates against the floor, all else as ever."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.spool import Boot, ClockTrust, LinkState
from tests.agent.carrying import Gateway
from tests.agent.sealed import sealed
from tests.simulators.broker import Broker, running
from tests.simulators.certificates import DAY, Authority
from tests.simulators.conditions import eventually

MONTH = 30 * DAY
CONTROL = b"a question"


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@contextlib.contextmanager
def asking(
    tmp_path: Path,
    authority: Authority,
    broker: Broker,
    clock: ClockTrust,
    *,
    pin: str | None = None,
) -> Iterator[Gateway]:
    """A gateway without an open lane that has one question to ask."""
    tmp_path.mkdir(exist_ok=True)
    gateway = Gateway(tmp_path / "gateway", authority, broker.url)
    target = msgspec.structs.replace(gateway.target, clock=clock, ca_pem=pin or authority.pem)
    gateway.spool.set_targets([target])
    gateway.spool.open_lane("service", "maker", 7, None, boot=Boot("a boot", 0))
    gateway.spool.put([sealed(0)])
    gateway.spool.put_control("maker", CONTROL)
    try:
        yield gateway
    finally:
        gateway.close()


def asked(gateway: Gateway) -> bool:
    """Whether the broker was asked something; of what is held nothing was handed to it."""
    waiting = gateway.spool.waiting()["service"]
    assert (waiting.batches, gateway.spool.sent(9, None)) == (1, ())
    return gateway.counted("published") > 0


def is_refused(gateway: Gateway, why: str) -> bool:
    return gateway.health.state is LinkState.WAITING and why in gateway.health.detail


def test_a_certificate_of_the_future_is_taken_where_the_clock_is_not_believed(
    tmp_path: Path,
) -> None:
    """To a clock that stands at 1970 every certificate is one of the future."""
    authority = Authority(tmp_path / "ca")
    authority.server_begins, authority.server_lasts = MONTH, 2 * MONTH
    with running(tmp_path / "broker", authority) as broker:
        with asking(tmp_path, authority, broker, ClockTrust.UNKNOWN) as gateway:
            gateway.start()
            eventually(lambda: asked(gateway))
        with asking(tmp_path / "twin", authority, broker, ClockTrust.MACHINE) as twin:
            twin.start()
            eventually(lambda: is_refused(twin, "not valid yet"))
            assert not asked(twin)


@pytest.mark.parametrize("trust", [ClockTrust.UNKNOWN, ClockTrust.TOLD])
@pytest.mark.parametrize(
    ("past", "taken"), [(dt.timedelta(hours=1), False), (-dt.timedelta(hours=1), True)]
)
def test_a_certificate_that_has_surely_ended_is_not_taken(
    tmp_path: Path, trust: ClockTrust, past: dt.timedelta, taken: bool
) -> None:
    authority = Authority(tmp_path / "ca", lasts=2 * MONTH)
    authority.server_lasts = -dt.timedelta(hours=2)
    ended_ms = int(time.time() * 1000) - 2 * 3_600_000
    with (
        running(tmp_path / "broker", authority) as broker,
        asking(tmp_path, authority, broker, trust) as gateway,
    ):
        gateway.spool.set_floor(ended_ms + int(past.total_seconds() * 1000), boot_ms())
        gateway.start()
        if taken:
            eventually(lambda: asked(gateway))
        else:
            eventually(lambda: is_refused(gateway, "has expired"))
            assert not asked(gateway)


def test_chain_and_name_are_verified_all_the_same(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    with (
        running(tmp_path / "broker", authority) as broker,
        asking(tmp_path, authority, broker, ClockTrust.UNKNOWN, pin=other.pem) as gateway,
    ):
        gateway.start()
        eventually(lambda: is_refused(gateway, "not issued by the pinned authority"))
        assert not asked(gateway)
    with (
        running(tmp_path / "named", authority, server_names=("example.com",)) as broker,
        asking(tmp_path / "named", authority, broker, ClockTrust.UNKNOWN) as gateway,
    ):
        gateway.start()
        eventually(lambda: is_refused(gateway, "for another name"))
        assert not asked(gateway)


def test_once_the_time_is_known_the_connection_is_made_anew(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.server_begins, authority.server_lasts = MONTH, 2 * MONTH
    with (
        running(tmp_path / "broker", authority) as broker,
        asking(tmp_path, authority, broker, ClockTrust.UNKNOWN) as gateway,
    ):
        gateway.start()
        eventually(lambda: asked(gateway))
        (target,) = gateway.spool.targets(0)
        gateway.spool.set_targets([msgspec.structs.replace(target, clock=ClockTrust.MACHINE)])
        eventually(lambda: is_refused(gateway, "not valid yet"))
        waiting = gateway.spool.waiting()["service"]
        assert (waiting.batches, gateway.spool.sent(9, None)) == (1, ())
