# SPDX-License-Identifier: Apache-2.0
"""Cells become values of their type or stay out; rows keep their number and order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.decode.recording import Block, Cell
from firmware_bridge.sample import Value


def one(
    text: str, kind: str = "number", scale: float = 1.0, absent: tuple[str | int | float, ...] = ()
) -> Value | None:
    block = Block([Cell("a", 0, kind, scale, absent)])
    names, values = block.decode([[text]])[0]
    assert len(names) == len(values)
    return values[0] if values else None


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "1.5", 1.5),
        ("number", "  60", 60.0),
        ("number", "-1.9e-3", -0.0019),
        ("number", "", None),
        ("number", "nan", None),
        ("number", "-inf", None),
        ("number", "1e999", None),
        ("number", "1_000", None),
        ("number", "1,5", None),
        ("number", "twelve", None),
        ("integer", "17", 17),
        ("integer", "17.000", 17),
        ("integer", "9007199254740993", 9_007_199_254_740_993),
        ("integer", "17.5", None),
        ("integer", "9223372036854775808", None),
        ("integer", "9" * 400, None),
        ("integer", "9" * 5000, None),
        ("boolean", "TRUE", True),
        ("boolean", "0", False),
        ("boolean", "off", False),
        ("boolean", "2", None),
        ("boolean", "maybe", None),
        ("text", " cotton-40 ", "cotton-40"),
        ("text", "x" * 257, None),
        ("text", "bell\a", None),
        ("text", "bad \ufffd byte", None),
        ("position", "31.2304 121.4737", (31.2304, 121.4737)),
        ("position", "-33.9, 18.4", (-33.9, 18.4)),
        ("position", "91 0", None),
        ("position", "0 181", None),
        ("position", "31.2304", None),
        ("position", "nan 1", None),
    ],
)
def test_a_cell_is_a_value_of_its_type_or_nothing(
    kind: str, text: str, expected: Value | None
) -> None:
    value = one(text, kind)
    assert value == expected
    assert type(value) is type(expected)


def test_a_scaled_reading_is_the_number_that_was_meant() -> None:
    assert one("123", scale=0.1) == 12.3
    assert one("123", "integer", 0.1) == 12.3
    assert one("123", "integer", 10.0) == 1230
    assert one("1.5", scale=1000) == 1500.0
    assert one("9" * 18, "integer", 1000.0) is None
    assert one("1e308", scale=1e6) is None
    assert one("1.5", scale=5e-324) is None
    assert one("1" + "0" * 18, "integer", 1e308) is None


@pytest.mark.parametrize(
    ("text", "absent", "expected"),
    [
        ("?", ("?",), None),
        ("-999.0", (-999,), None),
        ("-999", (-999.0,), None),
        ("-999", ("-999",), None),
        ("-999.0", ("-999",), -999.0),
        ("-998", (-999,), -998.0),
        ("1", ("?",), 1.0),
    ],
    ids=[
        "a sign that means none",
        "a number, however it is written",
        "a number given as a fraction",
        "a text, as it is written",
        "and not otherwise",
        "another number",
        "a reading",
    ],
)
def test_what_means_absent_is_left_out(
    text: str, absent: tuple[str | int | float, ...], expected: float | None
) -> None:
    assert one(text, absent=absent) == expected


def test_an_absent_number_is_known_before_it_is_scaled() -> None:
    assert one("65535", "integer", 0.1, (65535,)) is None
    assert one("6553", "integer", 0.1, (65535,)) == 655.3


def test_rows_of_one_shape_share_their_names() -> None:
    block = Block([Cell("a", 0), Cell("b", 2, "text")])
    rows = block.decode([["1", "", "x"], ["2", "", ""], ["3", "", "y"], ["", "", ""], ["4"]])
    assert [values for _, values in rows] == [(1.0, "x"), (2.0,), (3.0, "y"), (), (4.0,)]
    assert [names for names, _ in rows] == [("a", "b"), ("a",), ("a", "b"), (), ("a",)]
    again = block.decode([["5", "", ""], ["6", "", "z"]])
    assert again[0][0] is rows[1][0]
    assert again[1][0] is rows[0][0]
    full = block.decode([["5", "", "w"]])
    assert full[0] == (("a", "b"), (5.0, "w"))


def test_the_rows_of_a_ragged_file_stay_apart() -> None:
    block = Block([Cell("a", 1)])
    assert [values for _, values in block.decode([["1"], ["1", "2", "3"], [], ["0", "4"]])] == [
        (), (2.0,), (), (4.0,),
    ]  # fmt: skip
    assert block.decode([]) == []
    assert Block([]).decode([["1"], ["2"]]) == [((), ()), ((), ())]


CELLS = st.lists(
    st.builds(
        Cell,
        attribute=st.sampled_from(["a", "b", "c"]),
        index=st.integers(0, 4),
        type=st.sampled_from(["number", "integer", "boolean", "text", "position"]),
        scale=st.sampled_from([1.0, 0.1, 1000.0]),
        absent=st.sampled_from([(), ("?",), (0,), ("1", 2.5)]),
    ),
    max_size=4,
    unique_by=lambda cell: cell.attribute,
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(["1", "0", "nan", "?", "1_0", "", " 7 ", "2.5"]),
)


@settings(max_examples=150, deadline=None)
@given(cells=CELLS, rows=st.lists(st.lists(TEXTS, max_size=5), max_size=8))
def test_a_block_decodes_as_its_cells_do_one_by_one(
    cells: list[Cell], rows: list[list[str]]
) -> None:
    decoded = Block(cells).decode(rows)
    assert len(decoded) == len(rows)
    for row, (names, values) in zip(rows, decoded, strict=True):
        singly = {}
        for cell in cells:
            text = row[cell.index] if cell.index < len(row) else ""
            value = one(text, cell.type, cell.scale, cell.absent)
            if value is not None:
                singly[cell.attribute] = value
        assert dict(zip(names, values, strict=True)) == singly
        assert tuple(singly) == names
        assert all(math.isfinite(value) for value in values if isinstance(value, float))
