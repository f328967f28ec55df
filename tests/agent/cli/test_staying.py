# SPDX-License-Identifier: Apache-2.0
"""The programs that stay are typed like every verb, and load less."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.grammar import parser_of
from agent.cli.main import directory_of
from agent.cli.verbs import STAYING, VERBS
from tests.agent.installed import REPO

LOADS = """
import sys
from agent.cli.main import main
code = main(sys.argv[1:])
print(*sorted(sys.modules))
sys.exit(code)
"""


@pytest.mark.parametrize("verb", sorted(STAYING))
@pytest.mark.parametrize(
    "words",
    [[], ["--config", "gateway"], ["--config", "/etc/assent"]],
    ids=["nothing", "a directory beside", "a directory anywhere"],
)
def test_a_unit_s_words_mean_what_the_parser_says(verb: str, words: list[str]) -> None:
    module = importlib.import_module(VERBS[verb][0])
    assert directory_of(words) == parser_of(verb, module).parse_args(words).config


@pytest.mark.parametrize(
    "words",
    [["--config=gateway"], ["--config"], ["--config", "--json"], ["--help"], ["gateway"]],
    ids=["one word", "no directory", "a flag for a directory", "a question", "something else"],
)
def test_other_words_are_left_to_the_parser(words: list[str]) -> None:
    assert directory_of(words) is None


def ran(*words: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *words], cwd=REPO, capture_output=True, text=True
    )
    return done.returncode, set(done.stdout.split())


@pytest.mark.parametrize("verb", sorted(STAYING))
def test_a_program_that_stays_loads_no_argparse(verb: str, tmp_path: Path) -> None:
    code, modules = ran(verb, "--config", str(tmp_path))  # where there is no agent.toml
    assert code == 1
    assert "agent.settings" in modules
    assert "argparse" not in modules


def test_its_twin_with_more_words_loads_it(tmp_path: Path) -> None:
    code, modules = ran("run", "--config", str(tmp_path), "--json")
    assert code == 1
    assert "argparse" in modules
