# SPDX-License-Identifier: Apache-2.0
"""What the technician's guide and its card tell people to type exists."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import cast

import pytest

from agent.cli.grammar import parser_of
from agent.cli.verbs import VERBS, Verb
from agent.path import Reason

REPO = Path(__file__).resolve().parents[1]
GUIDES = ("technician.md", "card.md")


def commands(name: str) -> list[list[str]]:
    """Every `assent …` of a page, in its blocks and in its lines."""
    text = (REPO / "docs" / name).read_text()
    typed = re.findall(r"^\$ (assent [^#\n]+)", text, re.MULTILINE)
    typed += re.findall(r"`(assent [^`]+)`", text)
    return [shlex.split(line.replace("…", "")) for line in typed]


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_of_the_guide_is_one(name: str) -> None:
    found = commands(name)
    assert len(found) >= 10
    for _, verb, *words in found:
        module = cast("Verb", importlib.import_module(VERBS[verb][0]))
        parsed = parser_of(verb, module).parse_args(words)
        assert isinstance(parsed, argparse.Namespace)


def test_every_reason_that_the_guide_explains_is_one() -> None:
    text = (REPO / "docs" / "technician.md").read_text()
    explained = set(re.findall(r"`off: ([^`]+)`", text))
    assert explained
    assert explained <= {reason.value for reason in Reason}


def test_the_card_fits_on_one_page() -> None:
    lines = (REPO / "docs" / "card.md").read_text().splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
