# SPDX-License-Identifier: Apache-2.0
"""The hardware languages this gateway speaks: a name in agent.toml to the source that speaks it.

Path: agent.toml → SourceConfig → **registry** → Source.
Law:
  - a source is imported when a device needs it, and not before: a library that no configured
    device needs costs no memory;
  - one line in the table below adds a language; sources do not know each other.

Each module of the table has `make(config, clock) -> Source`, which touches no hardware, and
`attributes(config) -> frozenset[str]`, what a device so configured can deliver.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

import msgspec

from assent.nearest import nearest
from assent.units import Duration
from firmware_bridge.clock import Clock
from firmware_bridge.profile import Profile
from firmware_bridge.sample import Source, SourceError

_MODULES: Final = {
    "host": "firmware_bridge.sources.host",
    "modbus": "firmware_bridge.sources.modbus",
    "replay": "firmware_bridge.sources.replay",
}

NAMES: Final = tuple(sorted(_MODULES))
"""What `source` in agent.toml may say."""


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One device as agent.toml describes it; what a source does not need it ignores.

    Attributes:
        device_id: the installation's name for it.
        kind: what sort of appliance it is.
        port: device node, or a URL such as tcp://host:port; the path of the recording for replay;
            the root directory for host.
        unit_id: of a Modbus device, its address on the bus.
        profile: its profile, or None where the source needs none.
        every: the period between two reads.
        speed: of a recording: 1 is its own, 10 is ten times faster, 0 as fast as it can be read.
    """

    device_id: str
    kind: str
    port: str | None = None
    unit_id: int = 1
    profile: Profile | None = None
    every: Duration = Duration(1_000)
    speed: float = 1.0


def unknown(name: str) -> tuple[str, str | None]:
    """What to tell a person who wrote an unknown source.

    Args:
        name: what stands in agent.toml.

    Returns:
        (message, hint), ready for a Finding; the hint names the nearest source, if one is near.
    """
    message = f"unknown source {name[:40]!r}, expected one of {', '.join(NAMES)}"
    return message, nearest(name, NAMES)


def make(name: str, config: SourceConfig, clock: Clock) -> Source:
    """Makes the source of a device; opens nothing yet.

    Raises:
        SourceError: the source is unknown, needs a package that is not installed, or cannot work
            with this configuration.
    """
    made: Source = _module(name).make(config, clock)
    return made


def attributes(name: str, config: SourceConfig) -> frozenset[str]:
    """What a device can deliver, so that one of which nothing is wanted is not opened.

    Raises:
        SourceError: as `make`.
    """
    delivered: frozenset[str] = _module(name).attributes(config)
    return delivered


def _module(name: str) -> ModuleType:
    if name not in _MODULES:
        message, hint = unknown(name)
        raise SourceError(message, hint=hint)
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as exc:
        hint = f"install assent[{name}]"
        raise SourceError(f"source {name!r} needs the package {exc.name!r}", hint=hint) from exc
