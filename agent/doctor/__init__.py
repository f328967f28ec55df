# SPDX-License-Identifier: Apache-2.0
"""What is wrong here and what to do about it: everything looked at, nothing touched.

Law:
  - it opens no port and no connection: what the network is like, the uplink's own health tells;
    nor does it make a store where there is none;
  - one thing that cannot be looked at does not keep the others from it;
  - nothing it says names a device, a port, a person or a value (`checks`).

Rooms: `house` the machine around the agent, `road` the agent itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.answers import Status
from agent.doctor.checks import ENROL, Check, Health, bad, odd
from agent.doctor.house import files, ports, state
from agent.doctor.road import road
from agent.owner import may_enter
from agent.settings import Settings, load_settings
from assent.errors import AssentError, ConfigError

__all__ = ["Check", "Health", "examine"]


def examine(directory: Path, now: dt.datetime, status: Callable[[], Status]) -> Iterator[Check]:
    """Looks at everything, in the order in which a reading travels.

    Args:
        directory: the configuration directory.
        now: the moment.
        status: asks the agent, or its stores; is asked once.

    Yields:
        What was found, as soon as it was.
    """
    found = list(files(directory, now))
    yield from found
    try:
        settings = load_settings(directory)
    except ConfigError:
        told = "is wrong, so that nothing else can be looked at"
        is_told = any(one.health is Health.BAD for one in found)
        yield odd("agent.toml", told) if is_told else bad("agent.toml", told, "see: assent check")
        return
    yield from state(settings)
    if not may_enter(settings.state):
        return  # `state` said whose it is; what follows is looked at as they see it
    yield from ports(settings)
    if (settings.state / "keys").exists():
        yield from _agent(settings, status)
    else:  # asking would make the stores, as whoever asks
        yield bad("policy", "no policy key is trusted", ENROL)


def _agent(settings: Settings, status: Callable[[], Status]) -> Iterator[Check]:
    try:
        told = status()
    except AssentError as exc:
        yield bad("agent", f"neither it nor its stores answer: {exc.message}", exc.hint or "")
        return
    yield from road(told, settings.quota_bytes)
