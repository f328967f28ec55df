# SPDX-License-Identifier: Apache-2.0
"""The marks by which tests say which clause of the privacy policy they show.

Path: tests/ → **marks** → policy_matrix.

Law: tests are read as syntax trees; nothing is imported and nothing runs.

Limits: tests are functions of a module named test_*. A mark belongs to a test when a decorator of
the test, or `pytestmark`, holds it or names the function or table of this module that does.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeGuard

from assent.errors import Finding

TESTS: Final = "tests"
_OFF: Final = (["skip"], ["xfail"])  # such a test shows nothing


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
        name = name_of(path, root)
        try:
            module = _Module(name, ast.parse(path.read_bytes()))
        except SyntaxError as exc:
            place = exc.lineno or 1, exc.offset or 1
            findings.append(Finding(name, *place, "expected a file of Python"))
            continue
        marks += module.marks()
        findings += module.findings()
    return sorted(marks), findings


def name_of(path: Path, root: Path) -> str:
    """Names a file as findings do: from the root of the checkout where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


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
