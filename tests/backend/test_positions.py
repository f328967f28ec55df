# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from assent.backend.store.positions import Position, Range


def held(position: Position) -> set[int]:
    ranges = {n for first, last in position.ranges for n in range(first, last + 1)}
    return ranges | set(range(position.watermark))


def after(numbers: list[int]) -> Position:
    position = Position()
    for number in numbers:
        position = position.having(number)
    return position


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), max_size=60))
def test_a_position_holds_exactly_what_was_stored(numbers: list[int]) -> None:
    position = after(numbers)
    assert held(position) == set(numbers)
    assert all(position.holds(n) == (n in set(numbers)) for n in range(45))
    kept = json.dumps(position.ranges)
    assert Position.read(position.watermark, kept) == position


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), max_size=60))
def test_ranges_never_touch_each_other_or_the_watermark(numbers: list[int]) -> None:
    position = after(numbers)
    ends: list[int] = [position.watermark]
    for first, last in position.ranges:
        assert first > ends[-1]
        assert last >= first
        ends.append(last + 1)


def test_numbers_in_order_only_move_the_watermark() -> None:
    assert after([0, 1, 2]) == Position(3)


def test_the_last_hole_filled_joins_everything() -> None:
    assert after([0, 2, 3, 5, 1]) == Position(4, ((5, 5),))
    assert after([0, 2, 3, 5, 1, 4]) == Position(6)


def test_an_acknowledgement_tells_only_the_ranges_it_is_about() -> None:
    position = after([0, 5, 6, 10, 20])
    near: tuple[Range, ...] = ((5, 6), (20, 20))
    assert position.around(frozenset({6, 20, 0})) == near
    assert position.around(frozenset({0})) == ()


def test_numbers_of_63_bits_are_kept() -> None:
    assert after([2**63 - 1]).ranges == ((2**63 - 1, 2**63 - 1),)
