# SPDX-License-Identifier: Apache-2.0
"""What the devices say now, from the running agent, or from the devices where none runs.

Law: a port that an agent holds is never opened here: its lock is taken first, or it is asked.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec

from agent.control import NotRunningError, ask
from agent.lock import BusyError
from agent.pipeline.bench import Bench, at_the_bench
from agent.settings import Settings
from agent.watch import Seen
from firmware_bridge.sample import Sample

# An agent starts or ends within this on a slow board.
_PATIENCE_S: Final = 15.0
_STEP_S: Final = 0.1
_ANSWER_S: Final = 10.0


class Sight(Protocol):
    """Somebody who can see the devices."""

    def look(self, devices: Collection[str]) -> Seen:
        """What those devices said since the last look; the first look opens them."""


class _Asking:
    """Sees through the running agent's eyes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._viewer = secrets.token_hex(4)

    def look(self, devices: Collection[str]) -> Seen:
        told = ask(
            self._state,
            "watch",
            patience_s=_ANSWER_S,
            viewer=self._viewer,
            devices=sorted(devices),
        )
        return msgspec.convert(told, Seen)


class _Looking:
    """Sees the devices itself."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def look(self, devices: Collection[str]) -> Seen:
        return self._bench.look(devices)


@contextlib.contextmanager
def sight(settings: Settings) -> Iterator[Sight]:
    """Sees the devices of a gateway while the block runs.

    Args:
        settings: of the gateway.

    Raises:
        BusyError: an agent starts or ends, and does not listen.
        ControlError: it does not answer.
    """
    asking = _Asking(settings.state)
    end = time.monotonic() + _PATIENCE_S
    with contextlib.ExitStack() as held:
        while True:
            with contextlib.suppress(NotRunningError):
                asking.look(())
                yield asking
                return
            try:
                bench = held.enter_context(at_the_bench(settings))
            except BusyError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_STEP_S)
                continue
            yield _Looking(bench)
            return


def samples(sight: Sight, devices: Collection[str], for_s: float) -> Iterator[Sample]:
    """Gives what some devices say for a while.

    Args:
        sight: who sees them.
        devices: their ids.
        for_s: how long, in seconds.

    Yields:
        Samples, some tenths of a second after they came.
    """
    end = time.monotonic() + for_s
    while True:
        yield from sight.look(devices).samples
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _STEP_S * 2))
