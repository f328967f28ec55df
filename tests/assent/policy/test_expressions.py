# SPDX-License-Identifier: Apache-2.0
"""The closed set of transforms reads, prints and compares."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent.policy.expressions import Op, Transform, coarser_or_equal, is_choice, is_multiple, parse
from assent.units import Duration

AGGREGATES = ["mean", "min", "max", "last", "sum", "count"]
STEPS = st.sampled_from([0.001, 0.1, 0.25, 0.3, 0.5, 1, 1.5, 2, 3, 6, 10, 100, 1e9])
CHOICES = st.text(
    st.characters(exclude_characters=",", exclude_categories=("Cc", "Cs")), max_size=8
)


def amounts(op: str) -> st.SearchStrategy[str]:
    return STEPS.map(lambda step: f"{op}({step})")


def transforms() -> st.SearchStrategy[Transform]:
    windows = st.tuples(
        st.sampled_from(["1s", "1m", "2m", "3m", "15m", "1h", "1d"]), st.sampled_from(AGGREGATES)
    )
    sets = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)
    return st.one_of(
        st.sampled_from(["keep", "pseudonym", "delta"]),
        amounts("round"),
        amounts("grid"),
        st.integers(1, 128).map(lambda bits: f"prefix({bits})"),
        windows.map(lambda both: f"window({both[0]}, {both[1]})"),
        sets.map(lambda words: f"enum({','.join(words)})"),
    ).map(parse)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "made", "canonical"),
    [
        ("keep", Transform(Op.KEEP), "keep"),
        (" pseudonym ", Transform(Op.PSEUDONYM), "pseudonym"),
        ("delta", Transform(Op.DELTA), "delta"),
        ("round(0.50)", Transform(Op.ROUND, 0.5), "round(0.5)"),
        ("round( 1e-3 )", Transform(Op.ROUND, 0.001), "round(0.001)"),
        ("round(1e-9)", Transform(Op.ROUND, 1e-9), "round(0.000000001)"),
        ("round(10.0)", Transform(Op.ROUND, 10.0), "round(10)"),
        ("grid(10)", Transform(Op.GRID, 10.0), "grid(10)"),
        ("prefix(024)", Transform(Op.PREFIX, 24.0), "prefix(24)"),
        (
            "window(60s,mean)",
            Transform(Op.WINDOW, duration=Duration(60_000), aggregate="mean"),
            "window(1m, mean)",
        ),
        (
            "enum(running, idle)",
            Transform(Op.ENUM, choices=("idle", "running")),
            "enum(idle, running)",
        ),
        ("enum(Debian 12 (bookworm))", Transform(Op.ENUM, choices=("Debian 12 (bookworm)",)), None),
    ],
)
def test_a_transform_reads_and_prints_in_one_spelling(
    text: str, made: Transform, canonical: str | None
) -> None:
    assert parse(text) == made
    assert str(made) == (canonical or text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a transform"),
        (
            "hash",
            "expected a transform (keep, pseudonym, round, window, grid, prefix, delta, enum)",
        ),
        ("KEEP", "expected a transform"),
        ("keep()", "expected keep without arguments, got 1 argument(s)"),
        ("pseudonym(key)", "expected pseudonym without arguments"),
        ("round", "expected arguments, such as round(0.5), got 'round' alone"),
        ("round()", "expected a number"),
        ("round(0)", "expected a number"),
        ("round(-1)", "expected a number"),
        ("round(nan)", "expected a number"),
        ("round(inf)", "expected a number"),
        ("round(1e10)", "expected a number"),
        ("round(1e-10)", "expected a number"),
        ("round(1_0)", "expected a number"),
        ("round(٣)", "expected a number"),
        ("round(1, 2)", "expected round(0.5), got 2 argument(s)"),
        ("grid(0)", "expected a number"),
        ("prefix(0)", "expected 1 to 128 bits"),
        ("prefix(129)", "expected 1 to 128 bits"),
        ("prefix(1.5)", "expected 1 to 128 bits"),
        ("window(15m)", "expected window(15m, mean), got 1 argument(s)"),
        ("window(15, mean)", "expected a duration such as '15m'"),
        ("window(0s, mean)", "expected a window longer than nothing"),
        ("window(15m, median)", "expected one of mean, min, max, last, sum, count, got 'median'"),
        ("window(15m, mean, 2)", "expected window(15m, mean), got 3 argument(s)"),
        ("enum()", "expected choices of 1 to 64 characters, got ''"),
        ("enum(a,,b)", "expected choices of 1 to 64 characters, got ''"),
        ("enum(a, a)", "different choices, got 2"),
        ("enum(" + "x" * 65 + ")", "expected choices of 1 to 64 characters"),
        ("enum(" + ", ".join(f"c{n}" for n in range(257)) + ")", "at most 256 different choices"),
        ("keep; drop", "expected a transform"),
        ("round(1) ,", "expected a transform"),
    ],
)
def test_what_is_no_transform_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse(text)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 200


@given(transforms())
def test_every_transform_reads_back_as_itself(transform: Transform) -> None:
    assert parse(str(transform)) == transform
    assert str(parse(str(transform))) == str(transform)


@given(st.floats(1e-9, 1e9))
def test_every_step_in_range_prints_as_something_that_reads_back(step: float) -> None:
    text = str(Transform(Op.ROUND, step))
    assert parse(text) == Transform(Op.ROUND, step)
    assert re.fullmatch(r"round\([0-9]+(\.[0-9]*[1-9])?\)", text)


@given(st.text(max_size=40))
def test_any_text_is_a_transform_or_a_sentence(text: str) -> None:
    try:
        made = parse(text)
    except ValueError:
        return
    assert parse(str(made)) == made


@given(CHOICES)
def test_a_choice_can_stand_in_an_enum_and_nothing_else_can(word: str) -> None:
    if is_choice(word):
        assert parse(f"enum({word})").choices == (word,)
    else:
        assert not word or word != word.strip()


@pytest.mark.parametrize("word", ["", " a", "a ", "a,b", "a\nb", "a\x7f", "x" * 65])
def test_what_would_not_read_back_is_no_choice(word: str) -> None:
    assert not is_choice(word)
    assert is_choice(word.replace(",", ";").replace("\n", "-").strip(" \x7f")[:64] or "x")


COARSER = {
    "anything tells no more than keep": ("pseudonym", "keep"),
    "a rounding tells less than keep": ("round(1)", "keep"),
    "an increase tells less than keep": ("delta", "keep"),
    "a step of ten times the step": ("round(1)", "round(0.1)"),
    "three tenths, which binary cannot divide": ("round(0.3)", "round(0.1)"),
    "a longer window of the same aggregate": ("window(1h, mean)", "window(15m, mean)"),
    "the same window spelt otherwise": ("window(60m, max)", "window(1h, max)"),
    "a coarser grid": ("grid(20)", "grid(10)"),
    "fewer bits": ("prefix(16)", "prefix(24)"),
    "fewer choices": ("enum(a)", "enum(a, b)"),
}
NOT_COARSER = {
    "keep tells more than anything": ("keep", "round(1)"),
    "a finer step": ("round(0.1)", "round(1)"),
    "a larger step on other marks": ("round(3)", "round(2)"),
    "another aggregate": ("window(1h, max)", "window(15m, mean)"),
    "a window that is no multiple": ("window(20m, mean)", "window(15m, mean)"),
    "a window in place of a rounding": ("window(1d, mean)", "round(0.1)"),
    "a rounding in place of a window": ("round(100)", "window(1s, mean)"),
    "an increase in place of a sum": ("delta", "window(1s, sum)"),
    "a grid of half the size again": ("grid(15)", "grid(10)"),
    "more bits": ("prefix(25)", "prefix(24)"),
    "another choice": ("enum(a, c)", "enum(a, b)"),
    "a pseudonym in place of a prefix": ("pseudonym", "prefix(24)"),
}


@pytest.mark.parametrize(("a", "b"), COARSER.values(), ids=COARSER.keys())
def test_it_tells_no_more(a: str, b: str) -> None:
    assert coarser_or_equal(parse(a), parse(b))


@pytest.mark.parametrize(("a", "b"), NOT_COARSER.values(), ids=NOT_COARSER.keys())
def test_it_is_not_known_to_tell_no_more(a: str, b: str) -> None:
    assert not coarser_or_equal(parse(a), parse(b))


@given(transforms())
def test_a_transform_tells_no_more_than_itself(a: Transform) -> None:
    assert coarser_or_equal(a, a)


@given(transforms(), transforms())
def test_two_transforms_that_tell_no_more_than_each_other_are_one(
    a: Transform, b: Transform
) -> None:
    assert not (coarser_or_equal(a, b) and coarser_or_equal(b, a)) or a == b


@given(transforms(), transforms(), transforms())
def test_telling_no_more_carries_over(a: Transform, b: Transform, c: Transform) -> None:
    if coarser_or_equal(a, b) and coarser_or_equal(b, c):
        assert coarser_or_equal(a, c)


@given(st.integers(-300, 300), STEPS, STEPS)
def test_a_coarser_step_gives_only_results_that_the_finer_one_has(
    count: int, small: float, large: float
) -> None:
    coarse, fine = (Fraction(repr(float(step))) for step in (large, small))
    if coarser_or_equal(Transform(Op.ROUND, large), Transform(Op.ROUND, small)):
        assert (count * coarse / fine).denominator == 1


@pytest.mark.parametrize("step", [0, -1, float("nan"), float("inf")])
def test_a_step_that_is_none_is_no_multiple(step: float) -> None:
    assert not is_multiple(step, 1)
    assert not is_multiple(1, step)
    assert is_multiple(1, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keep", "as it is"),
        ("pseudonym", "only as an invented name, which changes"),
        ("round(0.5)", "rounded to 0.5 W"),
        ("window(15m, max)", "only as the highest of each 15m"),
        ("grid(10)", "only to within 10 km"),
        ("prefix(24)", "only with its first 24 bits"),
        ("delta", "only by how much it grew"),
        ("enum(idle, running)", "only as one of idle, running"),
    ],
)
def test_a_person_is_told_in_words(text: str, words: str) -> None:
    assert parse(text).words("W") == words
