# SPDX-License-Identifier: Apache-2.0
"""The nearest known word to one that a person got wrong, as a hint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 64  # characters that are compared; the time grows with their square


def nearest(word: str, known: Iterable[str], *, quoted: bool = True) -> str | None:
    """Suggests the nearest known word.

    Args:
        word: what came.
        known: what there is.
        quoted: whether the word is one of a file, where texts stand in quotes.

    Returns:
        A hint, or None when nothing is near.
    """
    import difflib  # noqa: PLC0415  # only who erred needs it, and it stays in memory

    near = difflib.get_close_matches(word[:_LONGEST], list(known), 1)
    if not near:
        return None
    return f"did you mean {near[0]!r}?" if quoted else f"did you mean {near[0]}?"
