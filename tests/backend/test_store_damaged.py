# SPDX-License-Identifier: Apache-2.0
"""A store that cannot be read any more says so, and what helps, to whoever asks."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.backend.ingest import judge
from assent.backend.store import Store, Taken
from tests.backend.parts import NOW_MS, START_MS, Hand, desk, power

PAGE = 4_096
ASKED = ("show flows", "show gaps", "show batches", "show gateways", "export remote-diagnosis")


@pytest.fixture
def filled(sites: dict[str, Directory]) -> Path:
    """A directory whose store has some pages."""
    maker, hand = sites["maker"], Hand.make()
    (key,) = maker.seal_keys().values()
    store = Store(maker.root)
    for number in range(20):
        tables = power(60, first_ms=START_MS + number * 100_000)
        data = hand.batch(key.public, tables, sequence=number)
        store.put([Taken(judge(hand.topic, data, desk([hand], key)), data, NOW_MS)])
    store.close()
    return maker.root


def asked(words: str, root: Path) -> int:
    verb, what = words.split()
    return main([verb, str(root), what])


@pytest.mark.parametrize("name", ["store.db", "custody.db"])
def test_whoever_asks_a_damaged_store_is_told(
    filled: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (filled / name).read_bytes()
    assert [asked(words, filled) for words in ASKED] == [0] * len(ASKED)
    told = 0
    for page in range(1, len(whole) // PAGE):
        damaged = bytearray(whole)
        damaged[page * PAGE : (page + 1) * PAGE] = b"\xa5" * PAGE
        (filled / name).write_bytes(damaged)
        capsys.readouterr()
        for words in ASKED:
            if asked(words, filled):
                said = capsys.readouterr().err
                assert "malformed" in said
                assert "bring back a backup of both files" in said
                told += 1
    assert told >= len(ASKED)


def test_a_backend_that_starts_on_a_damaged_store_is_told(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(filled / "custody.db")) as db:
        found = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gateways'").fetchone()
    with (filled / "custody.db").open("r+b") as file:
        file.seek((found[0] - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    assert main(["run", str(filled), "--broker", "mqtts://localhost:1"]) == 1
    said = capsys.readouterr().err
    assert "malformed" in said
    assert "bring back a backup of both files" in said
