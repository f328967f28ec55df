# SPDX-License-Identifier: Apache-2.0
"""A site without a time service whose machine has a hardware clock: with an empty battery, and a good one.

Everything is real but the machine's clocks: broker, TLS, backend, uplink, path. The hardware clock is
a folder of files as the kernel shows it, and the wall clock is what the kernel would have set from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import Stage
from firmware_bridge.evidence import Doubt, Witness
from tests.journeys.boots import FLOW, Gateway, Machine, booted, settled, stored
from tests.simulators.rtc import HardwareClock

pytestmark = pytest.mark.journey

# Until a boot of 2000-01-01 stands for one of now.
_DEAD_MS = 946_684_800_000 - time.time_ns() // 1_000_000


class Battery(Machine):
    """A machine whose kernel set the wall clock from the hardware clock when it booted."""

    def __init__(self, root: Path, ahead_ms: int) -> None:
        super().__init__(trust="rtc", root=root)
        self._ahead_ms = ahead_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self._ahead_ms


@pytest.fixture
def site(recipients: Stage, tmp_path: Path) -> Iterator[Stage]:
    """A gateway whose household agreed, and its maker, who listens."""
    with settled(recipients, tmp_path / "stage", "rtc") as stage:
        stage.start_broker("maker")
        stage.start_backend("maker")
        yield stage


def held(gateway: Gateway) -> int:
    """How many readings of the flow wait for the time to be known."""
    found = gateway.spool.held().get(FLOW)
    return found.readings if found is not None else 0


def test_an_empty_battery_has_readings_held_and_a_good_one_has_them_sent(
    site: Stage, tmp_path: Path
) -> None:
    taken: dict[int, float] = {}
    hardware = HardwareClock(tmp_path)
    with hardware.running(_DEAD_MS), booted(site, Battery(tmp_path, _DEAD_MS)) as gateway:
        assert gateway.clock.grounds() == Doubt.PAST.value
        for number in (1, 2, 3):
            taken[number] = gateway.take(number)
        gateway.until(lambda: held(gateway) >= 3, "what was read is held")
        assert Doubt.PAST.value in gateway.desk.status()["clock"]
        assert stored(site) == {}
    with hardware.running(), booted(site, Battery(tmp_path, 0)) as gateway:
        assert gateway.clock.grounds() == Witness.RTC.value
        for number in (4, 5):
            taken[number] = gateway.take(number)
        gateway.until(lambda: stored(site).keys() >= taken.keys(), "everything is stored")
    found = stored(site)
    for number, at in taken.items():
        told, within = found[number]
        assert told - 1 <= at <= told + within + 1
        assert (within > 0) is (number <= 3)  # of a boot that never knew the time
