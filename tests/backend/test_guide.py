# SPDX-License-Identifier: Apache-2.0
"""docs/backend.md, as a reader would use it: its Python runs, its commands are typed."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.backend.grammar import parser
from assent.backend.ingest import judge
from assent.backend.store import Store, Taken
from assent.backend.store.hearing import State
from assent.backend.store.readings import Readings
from assent.cosekey import SealPrivateKey
from tests.backend.parts import NOW_MS, Hand, desk, power

REPO = Path(__file__).resolve().parents[2]
GUIDE = (REPO / "docs" / "backend.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def section(name: str) -> str:
    return GUIDE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def typed(name: str) -> list[str]:
    """What a section of the guide has the reader type."""
    return [line[2:] for line in section(name).splitlines() if line.startswith("$ ")]


def test_the_ten_lines_open_what_a_gateway_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, seal = Hand.make(), SealPrivateKey.generate()
    keys = tmp_path / "maker" / "keys"
    keys.mkdir(parents=True)
    (keys / "seal.key.cose").write_bytes(seal.encode())
    monkeypatch.chdir(tmp_path)
    stored: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {
        "signer_of": {hand.mailbox: hand.sign.public}.__getitem__,
        "store": lambda *row: stored.append(row),
    }
    (code,) = blocks("python")
    exec(compile(code, "backend.md", "exec"), names)  # the guide's own lines
    on_message: Callable[[str, bytes], None] = names["on_message"]
    on_message(hand.topic, hand.batch(seal.public, power(3)))
    (table,) = power(3)
    (column,) = table.columns
    assert [(row[3], row[4]) for row in stored] == list(
        zip(table.times, column.values, strict=True)
    )


def test_every_command_of_the_guide_is_one() -> None:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ assent-backend")]
    assert len(commands) >= 10
    for words in commands:
        redirected = [word for word in words[1:] if not word.startswith(">")]
        parser().parse_args(redirected)


def test_a_new_sealing_key_opens_beside_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "maker", "--recipient", "maker"]) == 0
    (tmp_path / "keys").mkdir()
    (before,) = Directory.open(tmp_path / "maker").seal_keys().values()
    for line in typed("A new sealing key"):
        words = shlex.split(line)
        if words[0] == "assent-backend":
            assert main(words[1:]) == 0
        else:
            subprocess.run(words, check=True)
    keys = Directory.open(tmp_path / "maker").seal_keys()
    assert len(keys) == 2
    assert before.kid in keys
    newer = next(key for kid, key in keys.items() if kid != before.kid)
    assert (tmp_path / "keys" / "maker-2027.cose").read_bytes() == newer.public.encode()


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="the sqlite3 shell is not on this machine")
def test_the_shell_reads_a_copy_as_the_guide_says(
    sites: dict[str, Directory], tmp_path: Path
) -> None:
    copy, select = (shlex.split(line) for line in typed("Taking data out")[2:])
    root = _filled(sites["maker"])
    copy[1], copy[2] = str(root / "store.db"), copy[2].replace("copy.db", str(tmp_path / "c.db"))
    subprocess.run(copy, check=True)
    select[1] = str(tmp_path / "c.db")
    done = subprocess.run(select, check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 3


def test_the_columns_of_the_view_are_those_the_guide_names(sites: dict[str, Directory]) -> None:
    database = sqlite3.connect(_filled(sites["maker"]) / "store.db")
    found = {row[1] for row in database.execute("PRAGMA table_info(data)")}
    database.close()
    line = next(line for line in GUIDE.splitlines() if line.startswith("| `store.db` `data`"))
    named = set(re.findall(r"`(\w+)`", line)) - {"data"}
    assert named <= found
    assert found - named <= {"kind", "quantum"}


def test_the_tables_and_their_columns_are_those_the_guide_names(
    sites: dict[str, Directory],
) -> None:
    root = _filled(sites["maker"])
    named = re.findall(r"^\| `(\w+\.db)` ([^|]+) \| ([^|]+) \|$", GUIDE, re.MULTILINE)
    assert len(named) >= 8
    for file, tables, text in named:
        with contextlib.closing(sqlite3.connect(root / file)) as database:
            found = [
                {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
                for table in re.findall(r"`(\w+)`", tables)
            ]
        assert all(found), tables
        assert set(re.findall(r"`(\w+)`", text)) <= set().union(*found), tables


def test_every_state_of_a_day_is_explained_and_no_other() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", section("When something is missing"), re.MULTILINE)
    assert explained == [state.value for state in State]


def _filled(here: Directory) -> Path:
    (key,) = here.seal_keys().values()
    hand = Hand.make()
    store = Store(here.root)
    data = hand.batch(key.public, power(3))
    store.put([Taken(judge(hand.topic, data, desk([hand], key)), data, NOW_MS)])
    assert isinstance(store.readings, Readings)
    store.close()
    return here.root
