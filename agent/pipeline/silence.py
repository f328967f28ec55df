# SPDX-License-Identifier: Apache-2.0
"""Devices that should speak and do not: told flow by flow, as an absence.

Path: health of the devices → **silence** → spool's absences → gaps.
Law:
  - a device is absent for a flow that carries anything it delivers, and for no other;
  - it is absent when it gave nothing for longer than its `fresh`, from its last sample until its
    next; one that could not be opened or read is an outage, one that says nothing is silent;
  - what is told is one absence a flow and a cause, whichever and however many devices it is;
  - while it lasts, it is told in parts; a look costs nothing while nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from agent.lane import Lane
from agent.pipeline.hardware import Hardware
from agent.settings import Settings
from agent.spool import Spool
from assent.header import GapCause
from firmware_bridge.health import Health, State
from firmware_bridge.sample import Instant

# Looked at this often; a sample that came in between is not missed, because its instant is kept.
_EVERY_MS: Final = 1_000
# A part of what goes on: some 144 small writes a day and flow, and no more untold at a crash.
_PART_MS: Final = 600_000
_CAUSES: Final = {State.SILENT: GapCause.SILENT, State.FAILED: GapCause.OUTAGE}

_NOTHING: Final[frozenset[str]] = frozenset()

_Key = tuple[str, GapCause]


class _Absence:
    """What is absent for a flow, since when, and up to when it was told."""

    __slots__ = ("devices", "since_ms", "told_ms")

    def __init__(self, since_ms: int) -> None:
        self.since_ms = self.told_ms = since_ms
        self.devices: set[str] = set()


class Silence:
    """What is absent now; owned by the lanes' thread.

    Args:
        spool: where absences are kept.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._going_on: dict[_Key, _Absence] = {}
        self._began_ms: dict[int, int] = {}
        """Since when each lane is looked at, by its stream."""
        self._next_ms = 0

    def look(
        self, now: Instant, lanes: Mapping[str, Lane], hardware: Hardware, settings: Settings
    ) -> None:
        """Begins, tells and ends absences.

        Args:
            now: now.
            lanes: those that run, by flow.
            hardware: the devices.
            settings: say for how long each may be silent.

        Raises:
            SpoolError: the disk refuses; the next look tries again.
        """
        if now.mono_ms < self._next_ms:
            return
        self._next_ms = now.mono_ms + _EVERY_MS
        streams = {lane.stream for lane in lanes.values()}
        self._began_ms = {stream: self._began_ms.get(stream, now.wall_ms) for stream in streams}
        health = hardware.health()
        fresh = {device.id: device.fresh_ms for device in settings.devices}
        absent = [one for one in health if _is_absent(one, fresh, now)]
        if not absent and not self._going_on:
            return
        delivered = hardware.delivered(settings)
        found: dict[_Key, _Absence] = {}
        for flow, lane in lanes.items():
            for one in absent:
                if delivered.get(one.device_id, _NOTHING) & lane.wanted:
                    since_ms = max(one.last_sample_ms or 0, self._began_ms[lane.stream])
                    here = found.setdefault((flow, _CAUSES[one.state]), _Absence(since_ms))
                    here.since_ms = here.told_ms = min(since_ms, here.since_ms)
                    here.devices.add(one.device_id)
        self._go_on(now, lanes, found)
        self._end(now, lanes, found.keys(), {one.device_id: one for one in health})

    def forget(self, flow: str) -> None:
        """Begins anew with a flow whose lane was opened: what went on was told."""
        for key in [key for key in self._going_on if key[0] == flow]:
            del self._going_on[key]

    def _go_on(
        self, now: Instant, lanes: Mapping[str, Lane], found: Mapping[_Key, _Absence]
    ) -> None:
        for key, one in found.items():
            known = self._going_on.get(key)
            if known is None:
                self._spool.begin_absence(*key, one.since_ms)
                self._going_on[key] = one
                continue
            known.devices |= one.devices
            if now.wall_ms - known.told_ms >= _PART_MS:
                self._spool.tell_absence(*key, lanes[key[0]].stream, now.wall_ms)
                known.told_ms = now.wall_ms

    def _end(
        self,
        now: Instant,
        lanes: Mapping[str, Lane],
        found: Collection[_Key],
        health: Mapping[str, Health],
    ) -> None:
        for key in [key for key in self._going_on if key not in found]:
            flow, cause = key
            one = self._going_on[key]
            if flow in lanes:
                # Each has given a sample since, or is not to be waited for any more.
                heard = [health[name].last_sample_ms or 0 for name in one.devices & health.keys()]
                until_ms = max([ms for ms in heard if ms > one.since_ms], default=now.wall_ms)
                stream = lanes[flow].stream
                self._spool.tell_absence(flow, cause, stream, until_ms, is_over=True)
            del self._going_on[key]


def _is_absent(one: Health, fresh: Mapping[str, int], now: Instant) -> bool:
    if one.state not in _CAUSES or one.device_id not in fresh:
        return False
    heard_ms = one.since_ms if one.last_sample_ms is None else one.last_sample_ms
    return now.wall_ms - heard_ms > fresh[one.device_id]
