# SPDX-License-Identifier: Apache-2.0
"""What the uplink uses of the world, passed in: time, chance, a way to be woken."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec


class World(msgspec.Struct, frozen=True):
    """Time, chance and settings.

    Attributes:
        wall_ms: wall time in ms since 1970.
        past_ms: the latest instant that is surely past, whatever the wall clock says.
        boot_ms: time since boot in ms, counting sleep: what the floor of the spool is reckoned by.
        monotonic: seconds that never go back.
        rng: for waits; no secret comes of it.
        keepalive_s: seconds of silence after which a broker is asked whether it is there.
        wake: interrupts the wait for sockets; any thread may call it.
    """

    wall_ms: Callable[[], int]
    past_ms: Callable[[], int]
    boot_ms: Callable[[], int]
    monotonic: Callable[[], float]
    rng: random.Random
    keepalive_s: int
    wake: Callable[[], None]
