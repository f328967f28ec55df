# SPDX-License-Identifier: Apache-2.0
"""Looks for devices on the ports of this gateway, and says what to write into agent.toml.

Law: a port that a running agent has is not touched; while the search runs, no agent starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.lock import BusyError, instance_lock
from agent.settings import Settings
from assent.errors import AssentError, ConfigError
from firmware_bridge.profile import Profile, load_profile
from firmware_bridge.profile.fields import Serial
from firmware_bridge.sample import SourceError
from firmware_bridge.sources.modbus.search import Found, ports, search

_METER: Final = "electricity-meter"

Progress = Callable[[str, Serial, int], None]
"""Is told which port, setting and unit is asked next."""


class Passed(msgspec.Struct, frozen=True):
    """A port that was not searched.

    Attributes:
        port: its name.
        reason: why.
    """

    port: str
    reason: str


def look_for_devices(
    settings: Settings,
    wanted: Iterable[str],
    units: Iterable[int],
    progress: Progress,
) -> Iterator[Found | Passed]:
    """Searches ports for units that answer.

    Args:
        settings: of the gateway.
        wanted: the ports to search; none for all that are there.
        units: the addresses to ask.
        progress: is told what is asked next.

    Yields:
        Units that answer, and ports that were passed over.
    """
    profiles = _profiles(settings.directory)
    asked = list(units)
    with contextlib.ExitStack() as held:
        taken: set[str] = set()
        holder = ""
        try:
            if settings.state.is_dir():
                held.enter_context(instance_lock(settings.state))
        except BusyError as exc:
            holder = exc.holder
            taken = {device.port for device in settings.devices if device.port}
        for port in list(wanted) or ports():
            if port in taken:
                yield Passed(port, f"{holder} has it; end that first")
                continue
            try:
                yield from search(port, asked, profiles, functools.partial(progress, port))
            except SourceError as exc:
                yield Passed(port, f"{exc.message}; {exc.hint}" if exc.hint else exc.message)


def unused_names(settings: Settings) -> Iterator[str]:
    """Names for devices that no device of agent.toml has: meter-1, meter-2 and so on."""
    known = {device.id for device in settings.devices}
    return (name for number in itertools.count(1) if (name := f"meter-{number}") not in known)


def table_of(found: Found, name: str) -> list[str]:
    """What to write into agent.toml for a unit that was found.

    Args:
        found: a unit that some profile fits.
        name: of the device.
    """
    return [
        "[[device]]",
        f'id = "{name}"',
        f'kind = "{_METER}"',
        'source = "modbus"',
        f"port = {msgspec.json.encode(found.port).decode()}",
        f"unit_id = {found.unit_id}",
        f'profile = "{found.fits[0].profile}"',
        'every = "1s"',
    ]


def _profiles(directory: Path) -> dict[str, Profile]:
    """The Modbus profiles of this gateway; those that do not load are passed over."""
    found = {}
    for path in sorted((directory / "profiles").glob("*.toml")):
        with contextlib.suppress(ConfigError, AssentError):
            profile = load_profile(path)
            if profile.source == "modbus":
                found[path.stem] = profile
    return found
