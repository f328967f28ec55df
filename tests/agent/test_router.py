# SPDX-License-Identifier: Apache-2.0
"""The router: every wanted value to every lane that wants it, shapes compiled once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent.router
from agent.lane import Lane
from agent.router import Router
from agent.transform import DropReason
from firmware_bridge.sample import Device, Instant, Sample
from tests.agent.flow_parts import (
    EPOCH,
    FRIDGE,
    METER,
    NOW,
    OTHER_SECRET,
    SECRET,
    cells,
    permit,
    sample,
    values_of,
    whole,
)


def lane(attributes: Mapping[str, str], *, secret: bytes = SECRET, **fields: Any) -> Lane:
    return Lane(permit(dict(attributes), **fields), secret, 7, NOW // EPOCH, share=whole)


def power(**fields: Any) -> Lane:
    return lane({"appliance.power": "keep"}, **fields)


class _CountingLane(Lane):
    """A lane that counts how often a shape was compiled."""

    compiled = 0

    def compile(self, device: Device, names: tuple[str, ...]) -> Any:
        self.compiled += 1
        return super().compile(device, names)


def test_each_lane_gets_what_it_wants_and_nothing_else() -> None:
    both = lane({"appliance.power": "keep", "appliance.fault": "keep"}, secret=OTHER_SECRET)
    first, fault = power(), lane({"appliance.fault": "keep"})
    router = Router([first, both, fault])
    router.route(
        [
            sample(NOW, {"appliance.power": 1.0, "note": "x"}),
            sample(NOW, {"appliance.fault": "E1", "appliance.power": 2.0}),
            sample(NOW, {"appliance.voltage": 3.0}),
        ]
    )
    found = [
        Counter((n, v) for _, _, n, v in cells([each.close()])) for each in (first, both, fault)
    ]  # type: ignore[list-item]
    assert found == [
        {("appliance.power", 10): 1, ("appliance.power", 20): 1},
        {("appliance.power", 10): 1, ("appliance.power", 20): 1, ("appliance.fault", "E1"): 1},
        {("appliance.fault", "E1"): 1},
    ]


def test_the_wanted_attributes_are_those_of_all_lanes() -> None:
    router = Router([power(), lane({"appliance.fault": "keep", "appliance.door": "keep"})])
    assert router.wanted() == {"appliance.power", "appliance.fault", "appliance.door"}
    assert Router(()).wanted() == frozenset()


@pytest.mark.clause("C01")
def test_without_lanes_nothing_is_taken_anywhere() -> None:
    unwanted, wanted = Router(()), Router([power()])
    samples = [sample(NOW, {"appliance.power": 1.0})]
    assert unwanted.route(samples) == []
    wanted.route(samples)
    assert wanted.lanes[0].readings == 1


def test_the_lanes_that_are_due_are_named() -> None:
    full, patient = power(max_readings=2), power(max_readings=100)
    router = Router([full, patient])
    assert router.route([sample(NOW, {"appliance.power": 1.0})]) == []
    assert router.route([sample(NOW, {"appliance.power": 1.0})]) == [full]
    full.close()
    assert router.route([]) == []


def test_age_is_judged_by_the_last_sample() -> None:
    old = power(max_age_ms=60_000)
    router = Router([old])
    router.route([sample(NOW, {"appliance.power": 1.0})])
    assert router.route([sample(NOW + 59_999, {"appliance.fault": "E1"})]) == []
    assert router.route([sample(NOW + 60_000, {"appliance.fault": "E1"})]) == [old]


def test_a_sample_of_an_untrusted_instant_is_not_taken_and_counted_where_it_was_wanted() -> None:
    wants, ignores = power(), lane({"appliance.fault": "keep"})
    router = Router([wants, ignores])
    router.route([sample(NOW, {"appliance.power": 1.0, "note": 1}, trusted=False)])
    router.route([sample(NOW, {"appliance.power": 2.0}, trusted=True)])
    assert values_of([wants.close()], "appliance.power") == [20]
    assert wants.dropped == {DropReason.CLOCK_UNTRUSTED: 1}
    assert sum(ignores.dropped.values()) == 0


@pytest.mark.parametrize(
    "values", [(), (1.0,), (1.0, "E1", 3.0)], ids=["none", "too few", "too many"]
)
def test_a_sample_that_has_not_one_value_per_name_is_not_taken(values: tuple[Any, ...]) -> None:
    busy = lane({"appliance.power": "keep", "appliance.fault": "keep"})
    router = Router([busy])
    names = ("appliance.power", "appliance.fault")
    router.route([Sample(METER, Instant(NOW, 1, trusted=True), names, values)])
    router.route([Sample(METER, Instant(NOW, 1, trusted=True), names, (1.0, "E1"))])
    batch = busy.close()
    assert batch is not None
    assert batch.readings == 2
    assert busy.dropped == {DropReason.MALFORMED: 2}


def test_a_shape_is_compiled_once_whatever_objects_spell_it() -> None:
    busy = _CountingLane(permit(), SECRET, 7, NOW // EPOCH)
    router = Router([busy])
    for at in range(50):
        names = tuple(name for name in ("appliance.power", "note"))
        device = Device("meter-kitchen", "electricity-meter", "TEST-0001")
        router.route([Sample(device, Instant(NOW + at, at, trusted=True), names, (1.0, 2))])
    assert busy.compiled == 1
    assert busy.readings == 50
    router.route([sample(NOW, {"appliance.power": 1.0}, FRIDGE)])
    assert busy.compiled == 2


def test_what_is_remembered_of_shapes_is_bounded_and_forgetting_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent.router, "MAX_SHAPES", 8)
    busy = power()
    router = Router([busy])
    for at in range(100):
        router.route([sample(NOW + at, {"appliance.power": 1.0, f"note-{at % 20}": 0})])
        assert len(router._by_id) <= 8
        assert len(router._by_value) <= 8
    (batch,) = [busy.close()]
    assert batch is not None
    assert len(batch.tables) == 1
    assert batch.readings == 100


def test_an_id_that_is_used_again_is_not_mistaken_for_the_first() -> None:
    # The router holds what it knows by identity; two live objects never share an id.
    busy = lane({"appliance.power": "keep", "appliance.voltage": "keep"})
    router = Router([busy])
    for at in range(300):
        names = (("appliance.power", "appliance.voltage")[at % 3 == 0],)
        router.route(
            [Sample(METER, Instant(NOW + at, at, trusted=True), names, (float(at % 3 == 0),))]
        )
    found = Counter((n, v) for _, _, n, v in cells([busy.close()]))  # type: ignore[list-item]
    assert found == {("appliance.power", 0): 200, ("appliance.voltage", 10): 100}


NAMES = ["appliance.power", "appliance.voltage", "appliance.fault", "appliance.door", "note"]
VALUES: dict[str, Any] = {
    "appliance.power": 1.0,
    "appliance.voltage": 2.0,
    "appliance.fault": "E1",
    "appliance.door": True,
    "note": "x",
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(NAMES[:4]), min_size=1), min_size=1, max_size=4),
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
            st.sampled_from([METER, FRIDGE]),
            st.booleans(),
        ),
        max_size=20,
    ),
)
def test_every_value_reaches_every_lane_that_wants_it_exactly_once(
    wishes: Sequence[set[str]], history: Sequence[tuple[list[str], Device, bool]]
) -> None:
    lanes = [lane(dict.fromkeys(sorted(wish), "keep")) for wish in wishes]
    router = Router(lanes)
    router.route(
        [
            sample(
                NOW + at * 1_000, {name: VALUES[name] for name in names}, device, trusted=trusted
            )
            for at, (names, device, trusted) in enumerate(history)
        ]
    )
    for wish, each in zip(wishes, lanes, strict=True):
        expected = Counter(
            (NOW + at * 1_000, name)
            for at, (names, _, trusted) in enumerate(history)
            for name in names
            if trusted and name in wish
        )
        refused = sum(
            name in wish for names, _, trusted in history if not trusted for name in names
        )
        batch = each.close()
        assert Counter((ms, n) for _, ms, n, _ in cells([batch] if batch else [])) == expected
        assert sum(each.dropped.values()) == refused
