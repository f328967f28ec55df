# SPDX-License-Identifier: Apache-2.0
"""Revision codes of the Raspberry Pi against the published list and against real boards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.decode.raspberry import Board, board

# The list's short names, spelt out as the kernel spells them.
SPELT = {
    "A": "Model A",
    "B": "Model B",
    "A+": "Model A Plus",
    "B+": "Model B Plus",
    "2B": "2 Model B",
    "2B (with BCM2837)": "2 Model B",
    "3B": "3 Model B",
    "3B+": "3 Model B Plus",
    "3A+": "3 Model A Plus",
    "4B": "4 Model B",
    "5": "5 Model B",
    "500+": "500 Plus",
    "CM1": "Compute Module",
    "CM3": "Compute Module 3",
    "CM3+": "Compute Module 3 Plus",
    "CM4": "Compute Module 4",
    "CM5": "Compute Module 5",
    "CM5 Lite": "Compute Module 5 Lite",
}


def megabytes(text: str) -> int:
    return int(text[:-2]) * (1024 if text.endswith("GB") else 1)


def test_every_published_code_decodes_as_published(shared_data: Path) -> None:
    rows = json.loads((shared_data / "host/raspberry_pi_revision_codes.json").read_text())["codes"]
    wrong = []
    for row in rows:
        found = board(row["code"])
        assert found is not None, row
        told: tuple[object, ...] = (found.model, found.revision)
        expected: tuple[object, ...] = (SPELT.get(row["model"], row["model"]), row["revision"])
        if row["style"] == "new":
            told += (found.memory_mb, found.manufacturer)
            expected += (megabytes(row["ram"]), row["manufacturer"])
        if row["model"].endswith("(with BCM2837)"):
            told += (found.processor,)
            expected += ("BCM2837",)
        wrong += [(row, told)] if told != expected else []
    assert wrong == []
    assert len(rows) == 77


def test_a_code_and_the_kernel_name_the_same_board(shared_data: Path) -> None:
    rows = [
        json.loads(line)["expect"]
        for line in (shared_data / "host/cpuinfo_dev.jsonl").read_text().splitlines()
    ]
    both = [row for row in rows if row.get("revision") and row.get("model")]
    new_style = [row for row in both if len(row["revision"]) == 6]
    assert len(new_style) >= 4
    for row in new_style:
        assert str(board(row["revision"])) == row["model"]


def test_the_flags_of_warranty_and_overclocking_change_no_model() -> None:
    assert board("2c03111") == board("c03111") == board("0x00c03111\n")
    assert board("1000002") == board("0002") == Board(model="Model B", revision="1.0")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "0000",
        "0001",
        "000a",
        "000c",
        "0016",
        "ffff",
        "a030f1",
        "ffffff",
        "c03111f11",
        "not a code",
        "-2",
    ],
)
def test_a_code_that_is_not_published_is_no_board(code: str) -> None:
    assert board(code) is None


def test_an_unpublished_maker_or_memory_is_left_out() -> None:
    assert board("ff9111") == Board(
        model="4 Model B", revision="1.1", memory_mb=None, manufacturer=None, processor=None
    )


@given(st.one_of(st.text(max_size=12), st.integers(0, 2**32 - 1).map(lambda n: f"{n:x}")))
def test_whatever_stands_there_is_a_board_or_nothing(code: str) -> None:
    found = board(code)
    assert found is None or str(found).startswith("Raspberry Pi ")
