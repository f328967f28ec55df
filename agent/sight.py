# SPDX-License-Identifier: Apache-2.0
"""What the devices say now: asked of the running agent, or looked at where none runs.

Law: a port that an agent holds is never opened here: its lock is taken first, or it is asked.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from agent.answers import read
from agent.control import NotRunningError, ask
from agent.lock import BusyError
from agent.offline import at_the_desk
from agent.preview import Preview
from agent.settings import Settings
from agent.watch import Seen
from assent.units import Duration
from firmware_bridge.sample import Sample

# An agent starts or ends within this on a slow board.
_PATIENCE_S: Final = 15.0
_STEP_S: Final = 0.2
_ANSWER_S: Final = 10.0
# Nobody stands before a screen for longer; what is read less often is said to be.
_LONGEST_S: Final = 15.0

_Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def long_enough_s(settings: Settings, least_s: float) -> float:
    """How long to look until each device was read once, in seconds; 15 at most.

    Args:
        settings: of the gateway.
        least_s: how long in any case.
    """
    slowest_s = max((device.every_ms / 1000 for device in settings.devices), default=0.0)
    return min(max(least_s, slowest_s + 1), _LONGEST_S)


def read_rarely(settings: Settings, for_s: float) -> dict[str, str]:
    """Devices that a look may miss: their id, and how often they are read.

    Args:
        settings: of the gateway.
        for_s: how long the look lasts, in seconds.
    """
    return {
        device.id: str(Duration(device.every_ms))
        for device in settings.devices
        if device.every_ms / 1000 >= for_s
    }


class Sight:
    """Eyes on some devices, for as long as somebody looks every few seconds.

    Args:
        answer: of the running agent, or of the stores and devices themselves.
        devices: ids of the devices; they are opened by the first look.
    """

    def __init__(self, answer: _Answer, devices: Collection[str]) -> None:
        self._answer = answer
        self._question = {"viewer": secrets.token_hex(4), "devices": sorted(devices)}

    def look(self) -> Seen:
        """What the devices said since the last look."""
        return read(self._answer({"verb": "watch", **self._question}), Seen)

    def looks(self, for_s: float) -> Iterator[tuple[Sample, ...]]:
        """Looks for a while, some times a second.

        Args:
            for_s: how long, in seconds.

        Yields:
            What they said since the look before, which may be nothing.
        """
        end = time.monotonic() + for_s
        while True:
            yield self.look().samples
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _STEP_S))

    def trouble_of(self, device: str) -> str:
        """Why a device says nothing, or how it is."""
        for one in self._answer({"verb": "status"})["devices"]:
            if one["id"] == device:
                return str(one["detail"] or one["state"])
        return "nothing is known of it"

    def preview(self, for_s: float, tick: Callable[[float], None] = lambda _left: None) -> Preview:
        """Shapes what they say for a while as it would leave.

        Args:
            for_s: how long, in seconds.
            tick: is told now and then how many seconds are left.
        """
        end = time.monotonic() + for_s
        while (left := end - time.monotonic()) > 0:
            tick(left)
            self._answer({"verb": "watch", **self._question, "is_waiting": True})
            time.sleep(min(left, _STEP_S))
        return read(self._answer({"verb": "preview", **self._question}), Preview)


@contextlib.contextmanager
def sight(settings: Settings, devices: Collection[str]) -> Iterator[Sight]:
    """Sees some devices of a gateway while the block runs.

    Args:
        settings: of the gateway.
        devices: their ids.

    Raises:
        BusyError: an agent starts or ends, and does not listen.
        ControlError: it does not answer.
    """

    def asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return ask(settings.state, patience_s=_ANSWER_S, **request)

    end = time.monotonic() + _PATIENCE_S
    with contextlib.ExitStack() as held:
        while True:
            try:
                eyes = Sight(asked, devices)
                eyes.look()
            except NotRunningError:
                try:
                    eyes = Sight(held.enter_context(at_the_desk(settings)).answer, devices)
                except BusyError:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(_STEP_S)
                    continue
            break
        yield eyes
