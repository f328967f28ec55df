# SPDX-License-Identifier: Apache-2.0
"""A household is asked flow by flow; only what it typed and confirmed is recorded."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.cli.ask import ask_household
from agent.cli.main import main
from agent.offline import at_the_desk
from agent.settings import load_settings
from assent.errors import RefusedError
from firmware_bridge.clock import Clock
from tests.agent.installed import ADVICE, CORE, DIAGNOSIS, copied, fresh

OWNER = ["yes", "installer 4711"]


@pytest.fixture
def place(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


def typing(*lines: str) -> Callable[[str], str]:
    """Somebody who types these lines and then goes away."""
    left = list(lines)

    def ask(question: str) -> str:
        print(question, end="")
        if not left:
            raise EOFError
        print(left[0])
        return left.pop(0)

    return ask


def decisions(place: Path) -> dict[str, tuple[str, str]]:
    with at_the_desk(load_settings(place)) as desk:
        past: Sequence[dict[str, Any]] = desk.answer({"verb": "history"})["decisions"]
        return {one["flow"]: (one["decision"], one["decided_by"]) for one in past}


@pytest.mark.clause("C04")
def test_what_was_typed_is_recorded_flow_by_flow(place: Path) -> None:
    told = ask_household(place, typing(*OWNER, "yes", "no", "later", "yes"))
    assert set(told["acted"]) == {CORE, DIAGNOSIS}
    assert decisions(place) == {
        CORE: ("accepted", "owner"),
        DIAGNOSIS: ("ConsentRefused", "owner"),
    }


@pytest.mark.clause("C04")
def test_each_question_says_what_to_whom_why_and_how_long(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_household(place, typing(*OWNER, "no", "no", "no", "yes"))
    said = capsys.readouterr().out
    for words in (
        "Find faults before they become failures.",
        "goes to  maker, controller, in CN",
        "kept     here at most 7d, there 90d, then delete",
        "Electric power drawn by the appliance. It goes rounded to 1 W.",
        "Without it the service does not run; you can still say no.",
        "This is a question of its own: no other yes includes it.",
    ):
        assert words in said


@pytest.mark.clause("C01")
@pytest.mark.parametrize(
    "lines",
    [
        [],
        OWNER,
        [*OWNER, "yes", "yes"],
        [*OWNER, "yes", "yes", "yes"],
        [*OWNER, "yes", "yes", "yes", "no"],
        [*OWNER, "later", "later", "later"],
        [*OWNER, "", "", "Yes please", "ja"],
    ],
    ids=[
        "nobody answered",
        "gone before the first flow",
        "gone in the middle",
        "gone before it was confirmed",
        "not confirmed",
        "all of it later",
        "only words that are no answer",
    ],
)
def test_what_was_not_confirmed_is_not_recorded(place: Path, lines: list[str]) -> None:
    with pytest.raises(RefusedError, match="nothing was recorded"):
        ask_household(place, typing(*lines))
    assert decisions(place) == {}


def test_who_ends_it_from_the_keyboard_recorded_nothing(place: Path) -> None:
    def ended(_question: str) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(RefusedError, match="nothing was recorded"):
        ask_household(place, ended)
    assert decisions(place) == {}


@pytest.mark.clause("C01")
def test_who_is_not_the_owner_can_only_say_no(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["no", "a resident", "installer 4711", "yes", "no", "yes", "later", "no", "yes"]
    ask_household(place, typing(*lines))
    assert "A yes to service is for the owner to say" in capsys.readouterr().out
    assert set(decisions(place).values()) == {("ConsentRefused", "a resident")}
    assert set(decisions(place)) == {CORE, ADVICE}


def test_a_yes_after_a_no_acts_because_it_carries_its_own_instant(place: Path) -> None:
    ask_household(place, typing(*OWNER, "later", "no", "later", "yes"))
    assert decisions(place)[DIAGNOSIS][0] == "ConsentRefused"
    told = ask_household(place, typing(*OWNER, "later", "yes", "later", "yes"))
    assert told["stayed"] == []
    assert decisions(place)[DIAGNOSIS][0] == "ConsentGiven"


def test_what_is_in_force_is_said_before_it_is_asked_anew_and_later_leaves_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_household(place, typing("y", "installer 4711", "y", "n", "l", "y"))
    said = capsys.readouterr().out
    assert "now      off: not decided" in said
    assert f"{ADVICE}: later, stays as it is: off: not decided" in said
    ask_household(place, typing(*OWNER, "later", "later", "no", "yes"))
    said = capsys.readouterr().out
    assert "now      on; yes since 20" in said
    assert f"{CORE}: later, stays as it is: on; yes since 20" in said
    assert f"{DIAGNOSIS}: later, stays as it is: off: refused; no since 20" in said
    assert decisions(place)[CORE][0] == "accepted"


def test_a_no_after_a_yes_is_a_no_in_the_history(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_household(place, typing(*OWNER, "yes", "no", "later", "yes"))
    assert main(["consent", "refuse", CORE, "--config", str(place)]) == 0
    capsys.readouterr()
    assert main(["consent", "history", "--config", str(place)]) == 0
    newest = capsys.readouterr().out.splitlines()[-1]
    assert CORE in newest
    assert "  no, a yes taken back  " in newest


def test_who_is_not_the_owner_is_offered_a_no_only(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_household(place, typing("n", "a resident", "installer 4711", "n", "l", "l", "y"))
    assert "Do you agree? no / later: " in capsys.readouterr().out
    ask_household(place, typing(*OWNER, "n", "l", "l", "y"))
    assert "Do you agree? yes / no / later: " in capsys.readouterr().out


@pytest.mark.skipif(Clock().now().trusted, reason="a time service sets this machine's clock")
def test_on_a_clock_that_is_not_trusted_nobody_is_asked(place: Path) -> None:
    path = place / "agent.toml"
    path.write_text(path.read_text().replace('trust = "system"', 'trust = "synchronised"'))
    with pytest.raises(RefusedError, match="nobody was asked") as caught:
        ask_household(place, typing())
    assert "timedatectl" in (caught.value.hint or "")
    assert "assent doctor" in (caught.value.hint or "")
    assert "assent consent refuse" in (caught.value.hint or "")


def test_what_somebody_types_of_themselves_breaks_no_form(place: Path) -> None:
    name = 'x" \\ \x1b[2J\t[decisions] é'
    ask_household(place, typing("no", name, name, "no", "later", "later", "yes"))
    assert decisions(place)[CORE] == ("ConsentRefused", 'x" \\ [2J[decisions] é')


def test_without_a_terminal_nobody_is_asked(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["consent", "ask", "--config", str(place)]) == 2
    assert "assent consent apply" in capsys.readouterr().err


def test_without_a_policy_there_is_nothing_to_ask(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="there is nothing to decide about"):
        ask_household(fresh(tmp_path / "gateway"), typing(*OWNER))


def test_on_a_terminal_the_owner_is_asked(place: Path) -> None:
    main_end, other = pty.openpty()
    words = [sys.executable, "-m", "agent.cli.main", "consent", "ask", "--config", str(place)]
    asked = subprocess.Popen(words, stdin=other, stdout=other, stderr=other)
    os.close(other)
    for line in [*OWNER, "yes", "no", "no", "yes"]:
        os.write(main_end, f"{line}\n".encode())
    said = b""
    while True:
        try:
            data = os.read(main_end, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(main_end)
    assert asked.wait(30) == 0, said.decode()
    assert set(decisions(place)) == {CORE, DIAGNOSIS, ADVICE}
