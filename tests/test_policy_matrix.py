# SPDX-License-Identifier: Apache-2.0
"""The page of clauses is true: it is what the marks say, and nothing in force goes without a test."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tools.clause_marks import marks_of
from tools.policy_matrix import CLAUSES, NUMBERS, PAGE, ROOT, main, make, stale

CLAUSE = """
[clauses.{number}]
clause = "Clause {number}"
behaviour = "It does what it says."
in_force = {in_force}
"""
MISSING = 'missing = "All of it."\n'
MARKED = """
import pytest

@pytest.mark.clause("C04")
def test_it_holds() -> None:
    pass
"""


class Checkout:
    """A small checkout in which only C04 is in force; all is well with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "docs").mkdir()
        (root / "tests" / "agent").mkdir(parents=True)
        blocks = [
            CLAUSE.format(number=number, in_force="true")
            if number == "C04"
            else CLAUSE.format(number=number, in_force="false") + MISSING
            for number in NUMBERS
        ]
        (root / CLAUSES).write_text("".join(blocks))
        self.test(MARKED)
        assert main([], root) == 0

    def test(self, text: str, name: str = "tests/agent/test_it.py") -> None:
        """Writes a file of tests."""
        (self.root / name).write_text(textwrap.dedent(text))

    def edit(self, old: str, new: str) -> None:
        """Changes the file of clauses."""
        text = (self.root / CLAUSES).read_text()
        assert old in text
        (self.root / CLAUSES).write_text(text.replace(old, new, 1))

    def shown(self) -> set[tuple[str, str, tuple[str, ...]]]:
        """Which test shows which clause in which cases."""
        return {(mark.test, mark.clause, mark.cases) for mark in marks_of(self.root)[0]}

    def told(self, capsys: pytest.CaptureFixture[str]) -> list[str]:
        """What the check says; it ends with 1 when it says anything."""
        code = main(["--check"], self.root)
        lines = capsys.readouterr().err.splitlines()
        assert code == (1 if lines else 0)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# -- this very checkout ------------------------------------------------------------------------


def test_the_page_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check"])
    assert capsys.readouterr().err == ""
    assert code == 0


def test_the_page_names_every_clause_with_its_tests() -> None:
    page = (ROOT / PAGE).read_text()
    assert re.findall(r"^## (C\d\d)$", page, re.MULTILINE) == list(NUMBERS)
    marks = marks_of(ROOT)[0]
    assert len({mark.clause for mark in marks}) > 20
    for mark in marks:
        section = page.split(f"## {mark.clause}\n")[1].split("\n## ")[0]
        assert f"[{mark.file}](../{mark.file})" in section
        assert f"`{mark.test}`" in section


# -- each guard, and its twin ------------------------------------------------------------------


def test_a_checkout_with_which_all_is_well_passes(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkout.told(capsys) == []
    assert "- [tests/agent/test_it.py]" in (checkout.root / PAGE).read_text()


def test_a_page_that_is_stale_is_found_and_made_anew(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.test(MARKED.replace("test_it_holds", "test_it_holds_still"))
    (line,) = checkout.told(capsys)
    assert line.startswith(f"{PAGE}:")
    assert "the page is not what the marks say (run: make matrix)" in line
    assert main([], checkout.root) == 0
    assert checkout.told(capsys) == []


def test_a_page_that_was_edited_is_found_at_its_line(checkout: Checkout) -> None:
    page = checkout.root / PAGE
    made = make(checkout.root).page
    lines = made.splitlines(keepends=True)
    page.write_text("".join([*lines[:20], "Trust us.\n", *lines[20:]]))
    found = stale(checkout.root, made)
    assert found is not None
    assert found.line == 21
    page.unlink()
    assert stale(checkout.root, made) is not None


def test_a_clause_in_force_without_a_test_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.test("def test_it_holds() -> None:\n    pass\n")
    line, _ = checkout.told(capsys)
    assert re.match(rf"{CLAUSES}:\d+:1: C04 is in force and no test shows it \(mark one", line)


@pytest.mark.parametrize("off", ["skip", "skip('later')", "xfail", "xfail(strict=True)"])
def test_a_test_that_does_not_run_shows_nothing(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], off: str
) -> None:
    marked = MARKED.replace("def test", f"@pytest.mark.{off}\ndef test")
    checkout.test(marked)
    assert "C04 is in force and no test shows it" in checkout.told(capsys)[0]
    checkout.test(marked.replace(f"mark.{off}", "mark.journey"))
    assert checkout.told(capsys) == []


def test_a_mark_of_no_clause_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.test(MARKED + '\n@pytest.mark.clause("C36")\ndef test_more() -> None:\n    pass\n')
    lines = checkout.told(capsys)
    assert any(
        line.startswith("tests/agent/test_it.py:8:2: test_more names 'C36', which is no clause")
        for line in lines
    )


@pytest.mark.parametrize(
    "said",
    ["WHICH", 'f"C{4:02}"', "", "table()['it']", "CLAUSES[0]", "MADE['it']"],
    ids=["a name", "a formula", "nothing", "a call", "no table of texts", "a table that is made"],
)
def test_a_mark_that_cannot_be_read_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    text = MARKED.replace(
        "import pytest\n", "import pytest\nCLAUSES = {0: 4}\nMADE = dict(it='C04')\n"
    )
    checkout.test(text + f"\n@pytest.mark.clause({said})\ndef test_more() -> None:\n    pass\n")
    (line,) = checkout.told(capsys)
    assert line.endswith("expected a clause as a text, or from a table of texts")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tests/agent/parts.py", MARKED),
        ("tests/agent/test_in_class.py", "class TestIt:\n" + textwrap.indent(MARKED, "    ")),
        ("tests/agent/test_unused.py", MARKED.replace("def test_it", "def it")),
        ("tests/agent/test_inner.py", "def test_it() -> None:\n" + textwrap.indent(MARKED, "    ")),
    ],
    ids=["in a file that is no test", "in a class", "on a helper", "within a test"],
)
def test_a_mark_that_belongs_to_no_test_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    checkout.test(text, name)
    (line,) = checkout.told(capsys)
    assert re.fullmatch(rf"{name}:\d+:\d+: this mark belongs to no test of this file", line)


def test_a_clause_that_is_not_in_force_says_what_is_missing(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.edit(MISSING, "")
    assert "C01 is not in force and does not say what is missing" in checkout.told(capsys)[0]


def test_a_clause_in_force_may_say_what_is_missing(checkout: Checkout) -> None:
    assert "| Clause C04 | in force |" in make(checkout.root).page
    checkout.edit("in_force = true\n", "in_force = true\n" + MISSING)
    matrix = make(checkout.root)
    assert matrix.findings == ()
    assert "| Clause C04 | in part |" in matrix.page


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[clauses.C35]", "[clauses.C36]", "the policy has no clause C36"),
        ("[clauses.C35]", "[clauses.C36]", "expected C01 to C35, there is no C35"),
        ("[clauses.C35]", "[clauses.c35]", "expected a clause such as C04"),
        ("in_force = true", "in_forse = true", "unknown key 'in_forse'"),
        ("in_force = true", 'in_force = "yes"', "expected true or false"),
        ('clause = "Clause C04"', 'clause = ""', "expected a text"),
        ("[clauses.C02]", "[clauses.C02", ""),
    ],
    ids=[
        "a clause too many",
        "a clause missing",
        "a number that is none",
        "an unknown key",
        "a word for a truth",
        "a blank",
        "no TOML",
    ],
)
def test_a_mistake_in_the_file_of_clauses_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    checkout.edit(old, new)
    lines = checkout.told(capsys)
    assert any(said in line and line.startswith(f"{CLAUSES}:") for line in lines)


def test_nothing_is_written_while_something_is_wrong(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (checkout.root / PAGE).read_text()
    checkout.edit(MISSING, "")
    assert main([], checkout.root) == 1
    assert "does not say what is missing" in capsys.readouterr().err
    assert (checkout.root / PAGE).read_text() == before


# -- how marks are read ------------------------------------------------------------------------

EVERY_FORM = """
import pytest
from pytest import mark

pytestmark = pytest.mark.clause("C01")
CLAUSES = {"silence": "C02", "a no": "C03", "another no": "C03"}
ROWS = [pytest.param(1, marks=pytest.mark.clause("C05")), 2]


def rows() -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.clause(CLAUSES[name])] if name in CLAUSES else [])
        for name in ["silence", "a no", "another no", "more"]
    ]


@pytest.mark.clause("C06")
@mark.clause("C07", "C08")
def test_plainly() -> None:
    pass


@pytest.mark.parametrize("name", rows())
def test_by_a_helper(name: str) -> None:
    pass


@pytest.mark.parametrize("number", ROWS)
def test_by_a_table(number: int) -> None:
    pass
"""

ASKED = """
def pytest_collection_finish(session):
    for item in session.items:
        for mark in item.iter_markers("clause"):
            for clause in mark.args:
                print("asked", item.originalname, clause)
"""


def test_marks_are_read_in_every_form(checkout: Checkout) -> None:
    checkout.test(EVERY_FORM)
    assert checkout.shown() == {
        ("test_plainly", "C01", ()),
        ("test_plainly", "C06", ()),
        ("test_plainly", "C07", ()),
        ("test_plainly", "C08", ()),
        ("test_by_a_helper", "C01", ()),
        ("test_by_a_helper", "C02", ("silence",)),
        ("test_by_a_helper", "C03", ("a no", "another no")),
        ("test_by_a_table", "C01", ()),
        ("test_by_a_table", "C05", ()),
    }
    assert "  - `test_by_a_helper`: a no, another no\n" in make(checkout.root).page


def test_pytest_reads_the_same_marks(checkout: Checkout) -> None:
    checkout.test(EVERY_FORM)
    checkout.test(ASKED, "tests/conftest.py")
    (checkout.root / "pytest.ini").write_text("[pytest]\nmarkers =\n  clause: a clause\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True)
    asked = set(re.findall(r"^asked (\w+) (C\d\d)$", done.stdout, re.MULTILINE))
    assert asked == {(test, clause) for test, clause, _ in checkout.shown()}


def test_nothing_is_imported_or_run(checkout: Checkout) -> None:
    checkout.test("raise SystemExit(4)\n" + MARKED)
    assert checkout.shown() == {("test_it_holds", "C04", ())}


def test_a_file_that_is_no_python_is_found(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout.test("def test_it(:\n", "tests/agent/test_odd.py")
    assert checkout.told(capsys) == ["tests/agent/test_odd.py:1:13: expected a file of Python"]
