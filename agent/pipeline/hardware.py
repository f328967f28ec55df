# SPDX-License-Identifier: Apache-2.0
"""Which devices are opened: those of agent.toml that deliver something a running flow wants.

Law:
  - a device none of whose attributes any running flow wants is not opened; of the others nothing
    is read that no running flow wants, where the source can tell one from the other;
  - a device whose profile or source is not usable is reported and stays shut; the others go on;
  - devices that are replaced are not waited for: what they read last is not delivered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from agent.settings import DeviceSettings, Settings
from assent.errors import AssentError
from assent.units import Duration
from firmware_bridge.clock import Clock
from firmware_bridge.health import Health, State
from firmware_bridge.profile import load_profile
from firmware_bridge.sample import Sample
from firmware_bridge.sources import registry
from firmware_bridge.sources.registry import SourceConfig
from firmware_bridge.supervisor import Configured, Supervisor

Deliver: TypeAlias = Callable[[list[Sample], threading.Event], None]
"""Takes samples; gives up waiting when the event says that their device is closed."""

_Usable: TypeAlias = list[tuple[DeviceSettings, SourceConfig]]

log = logging.getLogger(__name__)


class Hardware:
    """The opened devices; asked by the owner's thread, read by the supervisor's.

    Args:
        clock: where time comes from.
        deliver: takes the samples.
    """

    def __init__(self, clock: Clock, deliver: Deliver) -> None:
        self._clock = clock
        self._deliver = deliver
        self._supervisor: Supervisor | None = None
        self._ended = threading.Event()
        self._devices: tuple[DeviceSettings, ...] | None = None
        self._usable: _Usable = []
        self._unusable: list[Health] = []
        self._delivered: dict[str, frozenset[str]] = {}

    def follow(
        self,
        settings: Settings,
        wanted: frozenset[str],
        watched: frozenset[str] = frozenset(),
    ) -> None:
        """Opens what is wanted and closes what is not.

        Args:
            settings: the devices that are there; other ones than before replace them all.
            wanted: names of the attributes that any running flow carries.
            watched: ids of the devices that somebody looks at.
        """
        if settings.devices != self._devices or self._supervisor is None:
            self.stop()
            self._start(settings.devices)
        assert self._supervisor is not None
        flowing = {
            device: delivered & wanted
            for device, delivered in self._delivered.items()
            if delivered & wanted and device not in watched
        }
        self._supervisor.want(flowing.keys() | watched, flowing)

    def reread(self, settings: Settings) -> None:
        """Looks at the profiles again; when one is another, `follow` replaces the devices."""
        if self._devices is not None and self._sort(settings.devices)[0] != self._usable:
            self._devices = None

    def _start(self, devices: tuple[DeviceSettings, ...]) -> None:
        self._usable, self._unusable = self._sort(devices)
        self._devices = devices
        self._delivered = _delivered(self._usable)
        ended = self._ended = threading.Event()
        configured = [self._configured(device, config) for device, config in self._usable]
        self._supervisor = Supervisor(
            configured, lambda samples: self._deliver(samples, ended), self._clock
        )
        self._supervisor.start(wanted=())

    def stop(self) -> None:
        """Closes every device."""
        self._ended.set()
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None

    def health(self) -> list[Health]:
        """How each device does; those that are not usable come last."""
        return [*self._supervisor.health(), *self._unusable] if self._supervisor else []

    def delivered(self, settings: Settings) -> dict[str, frozenset[str]]:
        """What each usable device can deliver, by device id; opens none."""
        if settings.devices == self._devices:
            return dict(self._delivered)
        return _delivered(self._sort(settings.devices)[0])

    def _sort(self, devices: tuple[DeviceSettings, ...]) -> tuple[_Usable, list[Health]]:
        usable: _Usable = []
        unusable = []
        for device in devices:
            try:
                config = source_config(device)
                registry.attributes(device.source, config)
            except AssentError as exc:
                log.error("device not usable device=%s reason=%s", device.id, exc.message)
                unusable.append(self._failed(device, exc.message))
                continue
            usable.append((device, config))
        return usable, unusable

    def _failed(self, device: DeviceSettings, why: str) -> Health:
        return Health(
            device_id=device.id,
            kind=device.kind,
            state=State.FAILED,
            since_ms=self._clock.now().wall_ms,
            error=why,
        )

    def _configured(self, device: DeviceSettings, config: SourceConfig) -> Configured:
        return Configured(
            device_id=device.id,
            kind=device.kind,
            make=lambda clock: registry.make(device.source, config, clock),
            fresh_ms=device.fresh_ms,
        )


def _delivered(usable: _Usable) -> dict[str, frozenset[str]]:
    return {device.id: registry.attributes(device.source, config) for device, config in usable}


def source_config(device: DeviceSettings) -> SourceConfig:
    """What a source is made from.

    Raises:
        ConfigError: the profile does not load.
    """
    return SourceConfig(
        device_id=device.id,
        kind=device.kind,
        port=device.port,
        unit_id=device.unit_id,
        profile=load_profile(device.profile) if device.profile else None,
        every=Duration(device.every_ms),
        speed=device.speed,
    )
