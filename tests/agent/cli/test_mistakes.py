# SPDX-License-Identifier: Apache-2.0
"""Each mistake gets the sentence that `mistakes.txt` shows, and none of them a Python error."""

from __future__ import annotations

import pytest

from tests.agent.cli.mistakes import MISTAKES, TRANSCRIPT, Mistake, typed


def _shown() -> dict[str, str]:
    """What the transcript says, by heading."""
    blocks = TRANSCRIPT.read_text().split("\n## ")[1:]
    return {head: said for head, _, said in (block.partition("\n") for block in blocks)}


SHOWN = _shown()


def heading(mistake: Mistake) -> str:
    return f"{mistake.file}: {mistake.name}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=heading)
def test_a_mistake_is_told_as_the_transcript_shows(mistake: Mistake) -> None:
    assert typed(mistake).rstrip() == SHOWN[heading(mistake)].rstrip()


def test_the_transcript_shows_every_mistake_once() -> None:
    assert list(SHOWN) == [heading(mistake) for mistake in MISTAKES]
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize("head", SHOWN)
def test_what_is_told_names_the_file_and_where_it_matters_line_and_column(head: str) -> None:
    told = SHOWN[head]
    assert "Traceback" not in told
    if not head.startswith("enrol"):
        file = head.partition(":")[0]
        assert f"DIR/{file}:" in told
    elif "maker.bundle" not in told.partition("\n")[2]:
        assert "policy" in told or "keys/" in told
