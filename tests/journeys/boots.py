# SPDX-License-Identifier: Apache-2.0
"""Boots of one gateway: machine and path of each are new, state and recipient stay."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.desk import Desk
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from agent.spool.voucher import Voucher
from agent.uplink import Uplink
from assent.backend.store import Store
from demo.stage import Stage, wait_until
from firmware_bridge.clock import Clock, TrustRule
from firmware_bridge.sample import Device, Sample
from tests.agent.installed import NOBODY
from tests.journeys.parts import YES, fast

FLOW, POWER = "remote-diagnosis", "appliance.power"
WASHER = Device("washer", "washing-machine", "TEST-WM-0001")


class Machine(Clock):
    """A machine that boots when this is made, as often as a test likes."""

    def __init__(self, *, trust: TrustRule = "synchronised", root: Path) -> None:
        super().__init__(trust=trust, root=root)
        self.boot_id = str(uuid.uuid4())
        self._booted = time.monotonic()

    def boot_ms(self) -> int:
        """Milliseconds since the boot."""
        return int((time.monotonic() - self._booted) * 1_000)

    def wall_ms(self) -> int:
        """What the wall clock tells."""
        return time.time_ns() // 1_000_000

    def _read(self) -> tuple[int, int]:
        return self.wall_ms(), self.boot_ms()


class Gateway:
    """One boot of a gateway: its path in the test's thread, its uplink in another."""

    def __init__(self, directory: Path, clock: Machine) -> None:
        self.clock = clock
        settings = load_settings(directory)
        site = open_site(settings, self.clock)
        self.spool = Spool.open(settings.state / SPOOL)
        self.pipeline = Pipeline(site, self.spool, self.clock, NOBODY)
        self.desk = Desk(self.pipeline, running=True)
        self.desk.read_form()
        self.pipeline.start()
        self._stop = threading.Event()
        self._uplink = Uplink(
            settings.state / SPOOL,
            voucher=Voucher(settings.state),
            wall_ms=self.clock.wall_ms,
            boot_ms=self.clock.boot_ms,
        )
        self._thread = threading.Thread(target=self._uplink.run, args=(self._stop,))
        self._thread.start()

    def until(self, claim: Callable[[], bool], what: str) -> None:
        def turned() -> bool:
            self.pipeline.turn(0.05)
            self.desk.look_again()
            return claim()

        wait_until(turned, what)

    def take(self, number: int) -> float:
        """The appliance says something; when it was, by a clock that is right."""
        at = time.time()
        self.pipeline.deliver([Sample(WASHER, self.clock.now(), (POWER,), (float(number),))])
        until = time.monotonic() + 0.3
        self.until(lambda: time.monotonic() > until, "time passes")
        return at

    def close(self) -> None:
        self.pipeline.stop()
        self._stop.set()
        self._uplink.wake()
        self._thread.join()
        self.spool.close()


@contextlib.contextmanager
def settled(recipients: Stage, root: Path, trust: TrustRule) -> Iterator[Stage]:
    """A gateway without devices whose household agreed; no broker and no backend runs."""
    stage = recipients.copied(root)
    try:
        bundle = stage.publish(fast)
        stage.make_gateway("")
        stage.enrol(bundle)
        stage.decide(YES)
        agreed = time.time()
        file = stage.gateway / "agent.toml"
        file.write_text(file.read_text().replace('trust = "system"', f'trust = "{trust}"'))
        # A boot that begins with the yes may have begun before it: then all of it is purged.
        wait_until(lambda: time.time() > agreed + 1, "a second passes")
        yield stage
    finally:
        stage.close()


@contextlib.contextmanager
def booted(stage: Stage, clock: Machine) -> Iterator[Gateway]:
    gateway = Gateway(stage.gateway, clock)
    try:
        yield gateway
    finally:
        gateway.close()


def stored(stage: Stage) -> dict[int, tuple[float, float]]:
    """Each reading in the maker's data: when it says it was, and how much later it may have been."""
    with contextlib.closing(Store(stage.backend_directory("maker"), writable=False)) as store:
        return {
            int(one.value): (one.time_ms / 1_000, one.within_ms / 1_000)
            for one in store.readings.rows(FLOW, 1_000)
            if one.attribute == POWER and isinstance(one.value, int | float)
        }
