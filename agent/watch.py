# SPDX-License-Identifier: Apache-2.0
"""A look over the shoulder of the path: what devices say, for a technician's screen.

Path: source → door → router, and beside it → **watch** → control → screen.
Law:
  - nothing is kept unless somebody looks, and for `_PATIENCE_MS` after they asked last;
  - what was seen is handed out once and forgotten; it goes to no lane, file or log;
  - a device that no flow wants is opened while somebody looks at it, and closed again.

Security: raw values, for the agent's own user and root alone (agent/control.py).
Limits: the newest `_MOST` samples of each viewer; what came before is counted as missed. One
thread owns it, the path's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from firmware_bridge.sample import Sample

# A screen asks every second; a terminal that was stopped for longer has ended its look.
_PATIENCE_MS: Final = 10_000
# An answer is one line of at most 1 MiB; a sample is some 200 bytes in JSON.
_MOST: Final = 2_000
# Terminals that look at one gateway at once.
_VIEWERS: Final = 4


class Seen(msgspec.Struct, frozen=True):
    """What a viewer gets for asking.

    Attributes:
        samples: in the order they came.
        missed: how many came and were not kept.
    """

    samples: tuple[Sample, ...]
    missed: int


class _View:
    def __init__(self, devices: frozenset[str]) -> None:
        self.devices = devices
        self.samples: deque[Sample] = deque(maxlen=_MOST)
        self.came = 0
        self.until_ms = 0


class Watch:
    """Who looks at what; owned by the path."""

    def __init__(self) -> None:
        self._views: dict[str, _View] = {}

    @property
    def devices(self) -> frozenset[str]:
        """Ids of the devices that somebody looks at."""
        return frozenset[str]().union(*[view.devices for view in self._views.values()])

    def look(
        self, viewer: str, devices: Iterable[str], now_ms: int, *, is_waiting: bool = False
    ) -> Seen:
        """Begins a look, or goes on with it.

        Args:
            viewer: whose look it is; any text of their own.
            devices: ids of the devices; others than before begin it anew.
            now_ms: monotonic time.
            is_waiting: they only say that they are there; what came stays for a later look.

        Returns:
            What those devices said since the viewer asked last; nothing to one who waits.
        """
        wanted = frozenset(devices)
        view = self._views.get(viewer)
        if view is None or view.devices != wanted:
            if view is None and len(self._views) >= _VIEWERS:
                del self._views[min(self._views, key=lambda name: self._views[name].until_ms)]
            view = self._views[viewer] = _View(wanted)
        view.until_ms = now_ms + _PATIENCE_MS
        if is_waiting:
            return Seen((), 0)
        seen = Seen(tuple(view.samples), view.came - len(view.samples))
        view.samples.clear()
        view.came = 0
        return seen

    def see(self, samples: Iterable[Sample]) -> None:
        """Keeps what somebody looks at."""
        for view in self._views.values():
            for sample in samples:
                if sample.device.id in view.devices:
                    view.samples.append(sample)
                    view.came += 1

    def end_old(self, now_ms: int) -> bool:
        """Ends the looks of those who went away.

        Args:
            now_ms: monotonic time.

        Returns:
            Whether there was one.
        """
        gone = [name for name, view in self._views.items() if view.until_ms <= now_ms]
        for name in gone:
            del self._views[name]
        return bool(gone)
