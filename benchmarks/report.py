# SPDX-License-Identifier: Apache-2.0
"""A measured figure beside its target, printed for people and kept for machines.

Law:
  - a figure has its unit, and its target when there is one; `holds` says whether it is met;
  - results are merged by name, so that each benchmark replaces its own figures only;
  - stdout is the list as JSON; the lines a person reads go to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "latest.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: dotted, starting with the benchmark's.
        value: what was measured.
        unit: of the value.
        target: what was promised ("<= 0.25", ">= 450000"), or None when nothing was.
        holds: whether the promise is kept, or None when there is none.
        detail: how it was measured, and what a reader needs to judge it.
    """

    name: str
    value: float
    unit: str
    target: str | None = None
    holds: bool | None = None
    detail: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """One line for a person."""
        verdict = "" if self.holds is None else "  holds" if self.holds else "  DOES NOT HOLD"
        target = f"  {self.target}" if self.target else ""
        detail = "".join(f"  {name}={value}" for name, value in self.detail.items())
        return f"{self.name:<58} {self.value:>9,.6g} {self.unit}{target}{verdict}{detail}"


def write(figures: Iterable[Figure], path: Path = RESULTS) -> None:
    """Prints figures and merges them into the results.

    Args:
        figures: of one benchmark; a figure of the same name is replaced.
        path: a JSON list of objects, sorted by name; made when it is not there.
    """
    figures = list(figures)
    for figure in figures:
        sys.stderr.write(f"{figure}\n")
    made = [dataclasses.asdict(figure) for figure in figures]
    sys.stdout.write(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    kept = json.loads(path.read_text()) if path.exists() else []
    merged = {figure["name"]: figure for figure in [*kept, *made]}
    rows = [json.dumps(merged[name], ensure_ascii=False) for name in sorted(merged)]
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp")
    half.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    half.replace(path)
