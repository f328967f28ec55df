# SPDX-License-Identifier: Apache-2.0
"""Lists on one page, for each clause of the privacy policy, what is done and which tests show it.

Path: docs/policy-clauses.toml, `clause_marks` of tests/ → **matrix** → docs/policy-matrix.md.

Law:
  - a clause in force has at least one test that runs; a clause that is not says what is missing;
  - every mark names a clause there is, in words this program can read, and belongs to a test;
  - the page on disk is the page that is made.
What breaks the law is a finding with its place, and the program ends with 1.

Security: reads the files of a checkout, writes the one page.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from assent import durable, located
from assent.errors import ConfigError, Finding
from assent.located import Document
from tools.clause_marks import Mark, marks_of, name_of

ROOT: Final = Path(__file__).resolve().parents[1]
CLAUSES: Final = "docs/policy-clauses.toml"
PAGE: Final = "docs/policy-matrix.md"
NUMBERS: Final = tuple(f"C{number:02}" for number in range(1, 36))
"""The clauses of the published policy."""

STATES: Final = ("in force", "in part", "not in force")
"""How a clause can stand; the page's head explains them."""

_MAX_PAGE: Final = 1_048_576  # some 600 tests are 60 kB

_Number = Annotated[str, Meta(pattern=r"^C\d\d\Z", description="a clause such as C04")]
_Words = Annotated[str, Meta(min_length=1, description="a text")]

_HEAD: Final = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Made by `make matrix` from policy-clauses.toml and the marks in tests/: change those. -->
# The privacy policy, clause by clause

What the appliance maker's published policy says, what this code does about it, and the tests that
show it. *In force* means that the household can rely on it today; *in part*, that it can but for
what is said to be missing. *Not in force* says what is missing, too: a test that is listed there
shows a beginning and no more.
"""


class Clause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One clause of the policy.

    Attributes:
        clause: what it is about, in a few words.
        behaviour: what the code does about it, or will.
        in_force: whether the household can rely on that today.
        missing: what is not there yet.
    """

    clause: _Words
    behaviour: _Words
    in_force: bool
    missing: _Words | None = None

    @property
    def state(self) -> str:
        """One of STATES."""
        whole, part, none = STATES
        if not self.in_force:
            return none
        return part if self.missing else whole


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clauses: dict[_Number, Clause]


@dataclasses.dataclass(frozen=True, slots=True)
class Matrix:
    """The page, and what is wrong with what it was made from."""

    page: str
    findings: tuple[Finding, ...]


def make(root: Path) -> Matrix:
    """Makes the page of a checkout.

    Args:
        root: of the checkout.

    Returns:
        The page with every finding, in the order of files and lines.

    Raises:
        ConfigError: the file of clauses does not read.
    """
    document = located.open_document(root / CLAUSES)
    clauses = located.read(document, _File).clauses
    marks, findings = marks_of(root)
    found = [*findings, *_of_clauses(document, clauses, marks), *_of_marks(clauses, marks)]
    return Matrix(_page(clauses, marks), tuple(sorted(found)))


def stale(root: Path, page: str) -> Finding | None:
    """Holds the page on disk against the one that was made.

    Args:
        root: of the checkout.
        page: as made.

    Returns:
        What is wrong, at the first line that differs, or None.
    """
    try:
        there = durable.read(root / PAGE, _MAX_PAGE).decode()
    except (OSError, UnicodeDecodeError):
        there = ""
    if there == page:
        return None
    lines = zip(there.splitlines(), page.splitlines(), strict=False)
    same = next((at for at, (old, new) in enumerate(lines) if old != new), len(there.splitlines()))
    return Finding(PAGE, same + 1, 1, "the page is not what the marks say", "run: make matrix")


def _of_clauses(
    document: Document, clauses: Mapping[str, Clause], marks: Iterable[Mark]
) -> Iterator[Finding]:
    shown = {mark.clause for mark in marks}
    for number in NUMBERS:
        if number not in clauses:
            message = f"expected {NUMBERS[0]} to {NUMBERS[-1]}, there is no {number}"
            yield document.finding(("clauses",), message)
    for number, clause in clauses.items():
        path = ("clauses", number)
        if number not in NUMBERS:
            yield document.finding(path, f"the policy has no clause {number}")
        if clause.in_force and number not in shown:
            message = f"{number} is in force and no test shows it"
            hint = f'mark one with @pytest.mark.clause("{number}"), or say what is missing'
            yield document.finding((*path, "in_force"), message, hint)
        if not clause.in_force and clause.missing is None:
            yield document.finding(
                path, f"{number} is not in force and does not say what is missing"
            )


def _of_marks(clauses: Mapping[str, Clause], marks: Iterable[Mark]) -> Iterator[Finding]:
    for mark in marks:
        if mark.clause not in clauses:
            message = f"{mark.test} names {mark.clause[:40]!r}, which is no clause"
            yield Finding(mark.file, mark.line, mark.column, message, f"they are in {CLAUSES}")


def _page(clauses: Mapping[str, Clause], marks: Sequence[Mark]) -> str:
    states = Counter(clause.state for clause in clauses.values())
    counted = ", ".join(f"{states[state]} {state}" for state in STATES)
    rows = [
        f"| [{number}](#{number.lower()}) | {clause.clause} | {clause.state} | "
        f"{len({(mark.file, mark.test) for mark in marks if mark.clause == number})} |"
        for number, clause in sorted(clauses.items())
    ]
    sections = [
        _section(number, clause, [mark for mark in marks if mark.clause == number])
        for number, clause in sorted(clauses.items())
    ]
    head = [_HEAD, f"Of {len(clauses)} clauses: {counted}.", "", "| | clause | state | tests |"]
    return "\n".join([*head, "|---|---|---|---:|", *rows, "", *sections])


def _section(number: str, clause: Clause, marks: Sequence[Mark]) -> str:
    lines = [f"## {number}", "", _wrapped(f"**{clause.clause}.** {clause.behaviour}"), ""]
    if clause.missing:
        lines += [_wrapped(f"*{clause.state.capitalize()}:* {clause.missing}"), ""]
    for file in sorted({mark.file for mark in marks}):
        lines.append(f"- [{file}](../{file})")
        lines += sorted({_line(mark) for mark in marks if mark.file == file})
    return "\n".join([*lines, ""]) if marks else "\n".join([*lines, "No test.", ""])


def _line(mark: Mark) -> str:
    cases = f": {', '.join(mark.cases)}" if mark.cases else ""
    return f"  - `{mark.test}`{cases}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def main(words: Sequence[str], root: Path = ROOT) -> int:
    """Writes the page, or with `--check` only looks.

    Args:
        words: of the command line.
        root: of the checkout.

    Returns:
        0 when nothing is wrong, 1 otherwise; what is wrong stands on stderr.
    """
    parser = argparse.ArgumentParser(prog="policy_matrix", description="Makes " + PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when it is stale")
    arguments = parser.parse_args(words)
    try:
        matrix = make(root)
    except ConfigError as exc:
        findings = exc.findings
    else:
        findings = matrix.findings
        old = stale(root, matrix.page)
        if arguments.check and old is not None:
            findings = (*findings, old)
        elif not arguments.check and not findings:
            durable.write(root / PAGE, matrix.page.encode(), mode=0o644)
    for one in findings:
        sys.stderr.write(f"{one._replace(file=name_of(Path(one.file), root))}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
