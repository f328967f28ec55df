# SPDX-License-Identifier: Apache-2.0
"""The compiled routes from the shape of a sample to the lanes that want something of it.

Path: source → Sample → **router** → Lane.

Law:
  - a shape (device, names) is compiled once, when it first comes, and never per reading;
  - a shape that no lane wants costs one look-up and touches no value;
  - a sample whose instant is not trusted goes to lanes by the boot, or nowhere; one that has not
    one value per name is not taken; its wanted values are counted where they would have gone;
  - another set of lanes is another router.

Limits: one thread owns it. MAX_SHAPES shapes are remembered; then all are forgotten and compiled
again as they come. A source that makes a new `names` tuple for every sample is slower, not wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agent.lane import Lane, Take
from agent.transform import DropReason
from firmware_bridge.sample import Device, Sample

MAX_SHAPES: Final = 4_096  # some 400 bytes each; a gateway has tens


class _Route(NamedTuple):
    """Where samples of one shape go. Holds device and names, so that their ids stay theirs."""

    takes: tuple[Take, ...]
    width: int
    device: Device
    names: tuple[str, ...]


class Router:
    """Compiled routes to a fixed set of lanes.

    Args:
        lanes: those that run; all of them count from the boot, or none.

    Raises:
        ValueError: some count from the boot and some do not.
    """

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._lanes = tuple(lanes)
        counting = {lane.is_by_boot for lane in self._lanes}
        if len(counting) > 1:
            raise ValueError("expected lanes that count alike")
        self._by_boot = True in counting
        # By identity for speed: sources use one device and one tuple of names over and over.
        self._by_id: dict[tuple[int, int], _Route] = {}
        self._by_value: dict[tuple[Device, tuple[str, ...]], _Route] = {}

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes it routes to."""
        return self._lanes

    def wanted(self) -> frozenset[str]:
        """Names the attributes that any running lane wants; a source of none of them stays shut."""
        return frozenset[str]().union(*[lane.wanted for lane in self._lanes])

    def route(self, samples: Sequence[Sample]) -> list[Lane]:
        """Routes samples to the lanes that want something of them.

        Args:
            samples: in the order they came.

        Returns:
            The lanes that are due, as of the last instant taken of the samples.
        """
        known = self._by_id.get
        by_boot = self._by_boot
        latest = 0
        for sample in samples:
            at, values = sample.at, sample.values
            route = known((id(sample.device), id(sample.names)))
            if route is None:
                route = self._learn(sample.device, sample.names)
            if by_boot:
                ms = at.mono_ms
            elif at.trusted:
                ms = at.wall_ms
            else:
                self._refuse(route, DropReason.CLOCK_UNTRUSTED)
                continue
            latest = ms
            if len(values) != route.width:
                self._refuse(route, DropReason.MALFORMED)
                continue
            for take in route.takes:
                take(ms, values)
        return [lane for lane in self._lanes if lane.due(latest)]

    def _learn(self, device: Device, names: tuple[str, ...]) -> _Route:
        if len(self._by_id) >= MAX_SHAPES:
            self._by_id.clear()
        if len(self._by_value) >= MAX_SHAPES:
            self._by_value.clear()
        route = self._by_value.get((device, names))
        if route is None:
            takes = [lane.compile(device, names) for lane in self._lanes]
            route = _Route(
                tuple([take for take in takes if take is not None]), len(names), device, names
            )
            self._by_value[device, names] = route
        # These objects, not those of the first sample alike: ids are only known while held.
        self._by_id[id(device), id(names)] = route._replace(device=device, names=names)
        return route

    def _refuse(self, route: _Route, reason: DropReason) -> None:
        for lane in self._lanes:
            lane.refuse(route.names, reason)
