# SPDX-License-Identifier: Apache-2.0
"""How a store begins: whole or not at all, and never beside a file that lost its other half."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assent.backend.store import Store
from assent.errors import StoreError
from tests.backend.parts import power
from tests.backend.test_store import HAND, OURS, put, taken, values

FILES = ("store.db", "custody.db")

KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from assent.backend import store

def connect(path, real=store.connect):
    def traced(sql):
        if sql.strip().startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    connection = real(path)
    connection.set_trace_callback(traced)
    return connection

store.connect = connect
store.Store(Path(sys.argv[1]))
"""


def killed_at(root: Path, statement: str) -> None:
    """A start that is killed before a statement."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), statement], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def filled(root: Path) -> None:
    with contextlib.closing(Store(root)) as store:
        put(store, taken(HAND.batch(OURS.public, power(3))))


def spoiled(root: Path, name: str, how: str) -> None:
    path = root / name
    path.unlink()
    if how == "empty":
        path.touch()


@pytest.mark.parametrize("how", ["gone", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_a_store_that_lost_one_file_does_not_begin_anew(
    tmp_path: Path, name: str, how: str
) -> None:
    filled(tmp_path)
    kept = {one: (tmp_path / one).read_bytes() for one in FILES}
    spoiled(tmp_path, name, how)
    for writable in (True, True, False):
        with pytest.raises(StoreError, match=name) as caught:
            Store(tmp_path, writable=writable)
        assert "backup of both files" in str(caught.value.hint)
    (tmp_path / name).write_bytes(kept[name])
    with contextlib.closing(Store(tmp_path)) as store:
        assert len(values(store)) == 3


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_writable", [True, False], ids=["to write", "to look"])
@pytest.mark.parametrize("how", ["empty", "no store"])
def test_a_store_that_does_not_open_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_writable: bool, how: str
) -> None:
    """Red when its connections are left to the collector."""
    filled(tmp_path)
    (tmp_path / name).write_bytes(b"" if how == "empty" else b"no store" * 1_000)
    made: list[sqlite3.Connection] = []
    real = sqlite3.connect

    def connect(*words: Any, **more: Any) -> sqlite3.Connection:
        made.append(real(*words, **more))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(StoreError):
        Store(tmp_path, writable=is_writable)
    assert made
    for one in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            one.execute("SELECT 1")
    made.clear()
    for one in FILES:
        (tmp_path / one).unlink()
    with contextlib.closing(Store(tmp_path)):
        assert [one.execute("SELECT 1").fetchone() for one in made] == [(1,), (1,)]


def test_a_store_that_lost_both_begins_anew(tmp_path: Path) -> None:
    filled(tmp_path)
    for name in FILES:
        spoiled(tmp_path, name, "gone")
    with contextlib.closing(Store(tmp_path)) as store:
        assert values(store) == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE IF NOT EXISTS series",
        "CREATE VIEW data",
        "CREATE TABLE IF NOT EXISTS gateways",
        "CREATE TABLE IF NOT EXISTS streams",
        "CREATE TABLE IF NOT EXISTS boots",
    ],
)
def test_a_first_start_that_was_killed_is_begun_again(tmp_path: Path, statement: str) -> None:
    killed_at(tmp_path, statement)
    with pytest.raises(StoreError, match="no store yet"):
        Store(tmp_path, writable=False)
    filled(tmp_path)
    with contextlib.closing(Store(tmp_path)) as store:
        assert len(values(store)) == 3


def test_whoever_reads_the_data_finds_them_after_a_start_that_was_killed(tmp_path: Path) -> None:
    filled(tmp_path)
    killed_at(tmp_path, "CREATE VIEW data")
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as raw:
        assert raw.execute("SELECT count(*) FROM data").fetchone() == (3,)
