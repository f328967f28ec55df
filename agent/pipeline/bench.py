# SPDX-License-Identifier: Apache-2.0
"""Devices read for a technician's screen while no agent runs: opened, looked at, closed.

Law: the instance lock is held, so that no agent has the ports; nothing of it reaches a lane.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Collection, Iterator
from typing import Final

from agent.lock import instance_lock
from agent.pipeline.hardware import Hardware
from agent.settings import Settings
from agent.watch import Seen, Watch
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Sample
from firmware_bridge.supervisor import Health

# Lists that wait between two looks; a source that is faster waits at the door as at the path's.
_LISTS: Final = 64
_PATIENCE_S: Final = 0.2


class Bench:
    """Some opened devices and what they say.

    Args:
        settings: of the gateway.
        clock: where time comes from.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._watch = Watch()
        self._settings = settings
        self._clock = clock
        self._door: queue.Queue[list[Sample]] = queue.Queue(_LISTS)
        self._hardware = Hardware(clock, self._deliver)

    def look(self, devices: Collection[str]) -> Seen:
        """What some devices said since the last look; they are opened, and others closed."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._watch.see(self._door.get_nowait())
        self._hardware.follow(self._settings, frozenset(), frozenset(devices))
        return self._watch.look("bench", devices, self._clock.now().mono_ms)

    def health(self) -> list[Health]:
        """How each device does."""
        return self._hardware.health()

    def close(self) -> None:
        """Closes the devices."""
        self._hardware.stop()

    def _deliver(self, samples: list[Sample], ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                self._door.put(samples, timeout=_PATIENCE_S)
            except queue.Full:
                continue
            return


@contextlib.contextmanager
def at_the_bench(settings: Settings) -> Iterator[Bench]:
    """Has the devices of agent.toml at hand while the block runs.

    Raises:
        BusyError: an agent runs, and has them.
    """
    with instance_lock(settings.state):
        bench = Bench(settings, Clock(trust="system"))
        try:
            yield bench
        finally:
            bench.close()
