# SPDX-License-Identifier: Apache-2.0
"""Who looks gets what came since; who went away leaves nothing behind."""

from __future__ import annotations

from agent.watch import _MOST, _PATIENCE_MS, _VIEWERS, Seen, Watch
from firmware_bridge.sample import Device, Instant, Sample

WASHER, METER = Device("washer", "washing-machine"), Device("meter", "electricity-meter")


def said(device: Device, value: float) -> Sample:
    return Sample(device, Instant(1, 1, trusted=True), ("appliance.power",), (value,))


def test_nothing_is_kept_while_nobody_looks() -> None:
    watch = Watch()
    watch.see([said(WASHER, 1)])
    assert watch.look("a", ["washer"], 0) == Seen((), 0)


def test_a_viewer_gets_each_sample_of_its_devices_once() -> None:
    watch = Watch()
    watch.look("a", ["washer"], 0)
    watch.look("b", ["washer", "meter"], 0)
    watch.see([said(WASHER, 1), said(METER, 2)])
    assert watch.look("a", ["washer"], 1).samples == (said(WASHER, 1),)
    assert watch.look("a", ["washer"], 1).samples == ()
    assert watch.look("b", ["washer", "meter"], 1).samples == (said(WASHER, 1), said(METER, 2))


def test_what_came_too_fast_is_counted_and_the_newest_is_kept() -> None:
    watch = Watch()
    watch.look("a", ["washer"], 0)
    watch.see([said(WASHER, float(n)) for n in range(_MOST + 5)])
    seen = watch.look("a", ["washer"], 1)
    assert (len(seen.samples), seen.missed) == (_MOST, 5)
    assert seen.samples[-1].values == (_MOST + 4,)


def test_a_look_ends_when_nobody_asks_any_more() -> None:
    watch = Watch()
    watch.look("a", ["washer"], 0)
    assert not watch.end_old(_PATIENCE_MS - 1)
    assert watch.devices == {"washer"}
    assert watch.end_old(_PATIENCE_MS)
    assert watch.devices == frozenset()


def test_who_waits_goes_on_looking_and_what_came_stays_for_a_later_look() -> None:
    watch = Watch()
    watch.look("a", ["washer"], 0)
    watch.see([said(WASHER, 1)])
    assert watch.look("a", ["washer"], _PATIENCE_MS - 1, is_waiting=True) == Seen((), 0)
    assert not watch.end_old(_PATIENCE_MS)
    assert watch.look("a", ["washer"], _PATIENCE_MS).samples == (said(WASHER, 1),)


def test_one_viewer_too_many_ends_the_look_that_was_asked_for_longest_ago() -> None:
    watch = Watch()
    for number in range(_VIEWERS + 1):
        watch.look(f"viewer-{number}", [f"device-{number}"], number)
    assert watch.devices == {f"device-{number}" for number in range(1, _VIEWERS + 1)}
