# SPDX-License-Identifier: Apache-2.0
"""assent.columns.quantum: floats become whole numbers of a resolution exactly, one or many."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assent.columns import Quantum
from assent.columns.quantum import MAX_TERM

TERMS = st.one_of(
    st.integers(1, 100), st.sampled_from([10**power for power in range(16)]), st.integers(1, 2**53)
)
QUANTA = st.builds(Quantum, TERMS, TERMS)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def exact(quantum: Quantum, value: float) -> int:
    """The rule itself, by fractions."""
    return round(Fraction(value) * quantum.denominator / quantum.numerator)


@st.composite
def near_halves(draw: st.DrawFn) -> tuple[Quantum, list[float]]:
    """A quantum and floats at and right beside half-way points of it."""
    quantum = draw(QUANTA)
    values = []
    for odd in draw(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8)):
        half = Fraction(2 * odd + 1, 2) * quantum.numerator / quantum.denominator
        value = float(half)
        values += [value, math.nextafter(value, math.inf), math.nextafter(value, -math.inf)]
    return quantum, values


@given(QUANTA, st.lists(FLOATS, max_size=20))
def test_any_floats_are_counted_as_fractions_count_them(
    quantum: Quantum, values: list[float]
) -> None:
    expected = [exact(quantum, value) for value in values]
    assert quantum.units_of(values) == expected
    assert [quantum.units(value) for value in values] == expected


@given(near_halves())
@settings(max_examples=300)
def test_floats_about_half_way_are_counted_as_fractions_count_them(
    case: tuple[Quantum, list[float]],
) -> None:
    quantum, values = case
    assert quantum.units_of(values) == [exact(quantum, value) for value in values]


@given(
    st.sampled_from([Quantum.of(step) for step in (0.1, 0.01, 0.001, 0.2, 0.25, 0.5, 2.5, 10, 1)]),
    st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50),
    st.integers(0, 4),
)
def test_decimals_are_counted_as_fractions_count_them(
    quantum: Quantum, numbers: list[int], places: int
) -> None:
    values = [number / 10**places for number in numbers]
    assert quantum.units_of(values) == [exact(quantum, value) for value in values]


@pytest.mark.parametrize(
    ("value", "units"),
    [
        pytest.param(0.25, 2, id="half-way, to the even neighbour below"),
        pytest.param(0.75, 8, id="half-way, to the even neighbour above"),
        pytest.param(-0.25, -2, id="half-way below zero"),
        pytest.param(0.35, 3, id="looks half-way, its float is below"),
        pytest.param(0.15, 1, id="looks half-way, float times ten is exactly half-way"),
        pytest.param(0.45, 5, id="looks half-way, its float is above"),
        pytest.param(23.4, 234, id="a decimal of the grid"),
        pytest.param(-0.0, 0, id="minus zero"),
    ],
)
def test_tenths(value: float, units: int) -> None:
    tenth = Quantum.of(0.1)
    assert tenth.units(value) == units
    assert tenth.units_of([value]) == [units]
    assert tenth.units_of([1.0, value, 7.3]) == [10, units, 73]


def test_a_float_product_alone_would_be_wrong() -> None:
    """The twin of the test above: without the exact count, 0.15 would be 2 tenths."""
    assert round(0.15 * 10) == 2
    assert exact(Quantum.of(0.1), 0.15) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("others", [[], [1.0], [0.25, 3.0]])
def test_a_value_that_is_not_finite_is_refused_wherever_it_stands(
    value: float, others: list[float]
) -> None:
    tenth = Quantum.of(0.1)
    for values in ([value, *others], [*others, value], [*others, value, *others]):
        with pytest.raises(ValueError, match=r"NaN|infinite"):
            tenth.units_of(values)
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        tenth.units(value)


@given(QUANTA, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
@example(Quantum(MAX_TERM, 1), [2**63 - 1])
def test_values_are_the_floats_nearest_to_the_exact_product(
    quantum: Quantum, units: list[int]
) -> None:
    ratio = Fraction(quantum.numerator, quantum.denominator)
    nearest = [float(unit * ratio) for unit in units]
    assert quantum.values_of(units) == nearest
    assert [quantum.value(unit) for unit in units] == nearest


@given(
    st.sampled_from([Quantum.of(step) for step in (0.001, 0.01, 0.1, 0.5, 1, 10)]),
    st.lists(st.integers(-(10**9), 10**9), max_size=20),
)
def test_units_survive_the_way_there_and_back(quantum: Quantum, units: list[int]) -> None:
    assert quantum.units_of(quantum.values_of(units)) == units


@pytest.mark.parametrize(
    ("written", "ratio"),
    [(0.1, (1, 10)), (1e-05, (1, 100_000)), (2.5, (5, 2)), (10, (10, 1)), (1, (1, 1))],
)
def test_a_quantum_is_the_decimal_a_person_wrote(written: float, ratio: tuple[int, int]) -> None:
    quantum = Quantum.of(written)
    assert (quantum.numerator, quantum.denominator) == ratio


@pytest.mark.parametrize("written", [0, -0.1, math.nan, math.inf, 1e-20, 1e20])
def test_a_quantum_is_positive_and_within_the_wire(written: float) -> None:
    with pytest.raises(ValueError, match=r"quantum|Fraction"):
        Quantum.of(written)
