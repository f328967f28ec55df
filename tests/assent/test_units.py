# SPDX-License-Identifier: Apache-2.0
"""Durations and sizes read and print exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent.units import Duration, Size

CENTURY_MS = 36_525 * 86_400_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [("250ms", 250), ("5s", 5_000), ("15m", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)],
)
def test_each_unit_of_time_counts_milliseconds(text: str, ms: int) -> None:
    assert Duration.parse(text) == ms
    assert str(Duration.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("12 B", 12), ("1 kB", 1_000), ("64 MB", 64_000_000), ("2 GB", 2_000_000_000)],
)
def test_each_unit_of_size_counts_bytes_in_decimals(text: str, count: int) -> None:
    assert Size.parse(text) == count
    assert str(Size.parse(text)) == text


@pytest.mark.parametrize(
    ("long", "short"),
    [("60s", "1m"), ("24h", "1d"), ("1000ms", "1s"), ("90s", "90s"), ("0d", "0s"), ("1 h", "1h")],
)
def test_a_duration_prints_in_its_largest_whole_unit(long: str, short: str) -> None:
    assert str(Duration.parse(long)) == short


def test_a_size_may_be_written_without_a_space() -> None:
    assert str(Size.parse("64MB")) == "64 MB"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15",
        "m",
        "15 parsecs",
        "-5s",
        "1.5h",
        "5S",
        "5s ",
        " 5s",
        "5\u00b2s",
        "٥s",
        "5  s",
        "5mm",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as '15m'"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["64", "64 mb", "64 MiB", "1e3 B", "64\nMB", "64 MB\n"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as '64 MB'"):
        Size.parse(text)


@pytest.mark.parametrize("text", ["36526d", "999999999999999h"])
def test_more_than_a_century_is_refused(text: str) -> None:
    assert Duration.parse("36525d") == CENTURY_MS
    with pytest.raises(ValueError, match="over its limit"):
        Duration.parse(text)


def test_more_than_a_petabyte_is_refused() -> None:
    assert Size.parse("1000000 GB") == 10**15
    with pytest.raises(ValueError, match="over its limit"):
        Size.parse("1000001 GB")


def test_a_message_repeats_no_more_than_a_little_of_what_came() -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        Duration.parse("x" * 10_000)
    assert len(str(caught.value)) < 200


@given(st.integers(0, CENTURY_MS))
def test_every_duration_reads_back_as_itself(ms: int) -> None:
    assert Duration.parse(str(Duration(ms))) == ms


@given(st.integers(0, 10**15))
def test_every_size_reads_back_as_itself(count: int) -> None:
    assert Size.parse(str(Size(count))) == count


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_sentence(text: str) -> None:
    try:
        made = Duration.parse(text)
    except ValueError:
        return
    assert 0 <= made <= CENTURY_MS


def test_the_values_are_plain_integers_to_count_with() -> None:
    assert Duration.parse("1m") + 1 == 60_001
    assert repr(Duration(5)) == "Duration(5)"
    assert repr(Size(5)) == "Size(5)"
