# SPDX-License-Identifier: Apache-2.0
"""Lists on one page, for each clause of the privacy policy, what is done and which tests show it.

Path: docs/policy-clauses.toml, marks in tests/ → **matrix** → docs/policy-matrix.md.

Law:
  - tests are read as syntax trees; nothing is imported and nothing runs;
  - a clause in force has at least one test that runs; a clause that is not says what is missing;
  - every mark names a clause there is, in words this program can read, and belongs to a test;
  - the page on disk is the page that is made.
What breaks the law is a finding with its place, and the program ends with 1.

Security: reads the files of a checkout, writes the one page.
Limits: tests are functions of a module named test_*. A mark belongs to a test when a decorator of
the test, or `pytestmark`, holds it or names the function or table of this module that does.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeGuard

import msgspec
from msgspec import Meta

from assent import durable, located
from assent.errors import ConfigError, Finding
from assent.located import Document

ROOT: Final = Path(__file__).resolve().parents[1]
CLAUSES: Final = "docs/policy-clauses.toml"
PAGE: Final = "docs/policy-matrix.md"
TESTS: Final = "tests"
NUMBERS: Final = tuple(f"C{number:02}" for number in range(1, 36))
"""The clauses of the published policy."""

STATES: Final = ("in force", "in part", "not in force")
"""How a clause can stand; the page's head explains them."""

_MAX_PAGE: Final = 1_048_576  # some 600 tests are 60 kB
_OFF: Final = (["skip"], ["xfail"])  # such a test shows nothing

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


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Mark:
    """One clause that one test shows.

    Attributes:
        clause: its number, whether there is such a clause or not.
        file: of the test, from the root of the checkout.
        test: name of the function.
        cases: of a parametrised test, those that show it, as its table calls them; empty for all.
        line: of the mark.
        column: of the mark, from 1.
    """

    clause: str
    file: str
    test: str
    cases: tuple[str, ...]
    line: int
    column: int


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


def marks_of(root: Path) -> tuple[list[Mark], list[Finding]]:
    """Reads the marks of every test of a checkout.

    Args:
        root: of the checkout.

    Returns:
        The marks of tests that run, and a finding for each mark that is not one.
    """
    marks: list[Mark] = []
    findings: list[Finding] = []
    for path in sorted((root / TESTS).rglob("*.py")):
        name = _name(path, root)
        try:
            module = _Module(name, ast.parse(path.read_bytes()))
        except SyntaxError as exc:
            place = exc.lineno or 1, exc.offset or 1
            findings.append(Finding(name, *place, "expected a file of Python"))
            continue
        marks += module.marks()
        findings += module.findings()
    return sorted(marks), findings


class _Module:
    """The marks of one file."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self._file = file
        self._bound = dict(_bindings(tree))
        is_tests = Path(file).name.startswith("test_")
        self._tests = [node for node in tree.body if is_tests and _is_test(node)]
        self._calls = [node for node in ast.walk(tree) if _is_mark(node)]

    def marks(self) -> Iterator[Mark]:
        for test in self._tests:
            if any(_words(decorator)[-1:] in _OFF for decorator in test.decorator_list):
                continue
            for call in self._reached(test):
                for clause, cases in self._said(call).items():
                    place = call.lineno, call.col_offset + 1
                    yield Mark(clause, self._file, test.name, cases, *place)

    def findings(self) -> Iterator[Finding]:
        reached = {call for test in self._tests for call in self._reached(test)}
        for call in self._calls:
            place = self._file, call.lineno, call.col_offset + 1
            if call not in reached:
                yield Finding(*place, "this mark belongs to no test of this file")
            elif not self._said(call):
                yield Finding(*place, "expected a clause as a text, or from a table of texts")

    def _reached(self, test: ast.FunctionDef) -> list[ast.Call]:
        """The marks in a test's decorators and in what they name, however far away."""
        waiting: list[ast.AST] = [*test.decorator_list]
        names = {"pytestmark"}
        seen: set[str] = set()
        calls = []
        while waiting or names:
            waiting += [self._bound[name] for name in sorted(names) if name in self._bound]
            seen |= names
            inside = [node for tree in waiting for node in ast.walk(tree)]
            calls += [node for node in inside if _is_mark(node)]
            names = {node.id for node in inside if isinstance(node, ast.Name)} - seen
            waiting = []
        return calls

    def _said(self, call: ast.Call) -> dict[str, tuple[str, ...]]:
        """The clauses of a mark, each with the cases of the table it comes from; {} if unread."""
        said: dict[str, tuple[str, ...]] = {}
        for argument in call.args:
            match argument:
                case ast.Constant(str(clause)):
                    said[clause] = ()
                case ast.Subscript(ast.Name(name)):
                    table = _table(self._bound.get(name))
                    for clause in table.values():
                        said[clause] = tuple(case for case, of in table.items() if of == clause)
                case _:
                    return {}
        return said


def _bindings(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """What the names of a module stand for: functions, and values that are assigned."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) if not _is_test(node):
                yield name, node
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                yield name, value


def _table(value: ast.AST | None) -> dict[str, str]:
    """A table from text to text; {} when it is none."""
    try:
        table = ast.literal_eval(value) if isinstance(value, ast.Dict) else {}
    except ValueError:
        return {}
    texts = {*table.keys(), *table.values()}
    return table if all(isinstance(text, str) for text in texts) else {}


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def _is_mark(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _words(node)[-2:] == ["mark", "clause"]


def _words(node: ast.expr) -> list[str]:
    """The dotted name of a call or an attribute: ["pytest", "mark", "clause"]."""
    match node:
        case ast.Call(func=function):
            return _words(function)
        case ast.Attribute(value=value, attr=attr):
            return [*_words(value), attr]
        case ast.Name(id=name):
            return [name]
    return []


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


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


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
        sys.stderr.write(f"{one._replace(file=_name(Path(one.file), root))}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
