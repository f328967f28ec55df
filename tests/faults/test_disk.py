# SPDX-License-Identifier: Apache-2.0
"""The disk whose power is cut keeps what was synced, and only that: shown with SQLite."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent import durable
from tests.simulators import lossy
from tests.simulators.orders import Order
from tests.simulators.unsynced import WAYS

REPO = Path(__file__).resolve().parents[2]
ROWS = 20
WRITER = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute(f"PRAGMA synchronous = {sys.argv[2]}")
db.execute("CREATE TABLE t (x)")
for at in range(20):
    db.execute("INSERT INTO t VALUES (?)", (at,))
os._exit(0)
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lossy.Disk]:
    if (why := lossy.refusal()) is not None:
        pytest.skip(why)
    with lossy.mounted(tmp_path_factory.mktemp("disk") / "mnt") as disk:
        yield disk


def written(path: Path, synchronous: str) -> Path:
    subprocess.run([sys.executable, "-c", WRITER, str(path), synchronous], check=True)
    return path


def found(path: Path) -> list[int]:
    db = sqlite3.connect(path)
    try:
        return [x for (x,) in db.execute("SELECT x FROM t ORDER BY x")]
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()


@pytest.mark.parametrize("way", WAYS)
def test_what_was_synced_is_there(disk: lossy.Disk, way: str) -> None:
    path = written(disk.place / f"full-{way}.db", "FULL")
    assert disk.cut(way, 7)  # the fault struck: the memory of the log's index was lost
    assert found(path) == list(range(ROWS))


@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_synced_is_not(disk: lossy.Disk, way: str) -> None:
    path = written(disk.place / f"normal-{way}.db", "NORMAL")
    assert disk.cut(way, 7)
    assert found(path) != list(range(ROWS))


def test_a_durable_write_survives_and_a_plain_one_does_not(disk: lossy.Disk) -> None:
    durable.write(disk.place / "durable", b"1" * 1000)
    (disk.place / "plain").write_bytes(b"2" * 1000)
    assert disk.cut("drop", 1)
    assert (disk.place / "durable").read_bytes() == b"1" * 1000
    assert not (disk.place / "plain").exists()


def test_a_rename_without_a_sync_of_its_directory_is_undone(disk: lossy.Disk) -> None:
    for name in ("one", "two"):
        durable.write(disk.place / name, name.encode())
    (disk.place / "one").rename(disk.place / "two")
    assert disk.cut("drop", 1)
    assert (disk.place / "two").read_bytes() == b"two"
    assert (disk.place / "one").read_bytes() == b"one"


def test_a_file_made_again_under_its_name_is_there(disk: lossy.Disk) -> None:
    path = disk.place / "again"
    durable.write(path, b"old")
    path.unlink()
    with path.open("wb") as file:
        file.write(b"new")
        file.flush()
        os.fsync(file.fileno())
    durable.write(disk.place / "neighbour", b"")  # syncs the directory as well
    disk.cut("drop", 1)
    assert path.read_bytes() == b"new"


def test_a_torn_write_ends_between_two_sectors(disk: lossy.Disk) -> None:
    path = disk.place / "torn"
    durable.write(path, b"0" * 8192)
    seen = set()
    for seed in range(20):
        with path.open("r+b") as file:
            file.write(b"1" * 8192)
        disk.cut("torn", seed)
        ones = path.read_bytes().count(b"1")
        assert ones % 512 == 0
        assert path.read_bytes() == b"1" * ones + b"0" * (8192 - ones)
        seen.add(ones)
        durable.write(path, b"0" * 8192)
    assert len(seen) > 3


KEEPER = """
import pathlib, sys, time
from assent import durable
place = pathlib.Path(sys.argv[1])
for at in range(5):
    durable.write(place / "named", str(at).encode() * 1000)
    durable.write(place / "other", str(at).encode() * 1000)
time.sleep(60)
"""


@pytest.mark.parametrize("way", WAYS)
def test_the_power_goes_at_the_third_sync_of_a_named_file(disk: lossy.Disk, way: str) -> None:
    for name in ("named", "other"):
        durable.write(disk.place / name, b"old")
    disk.order(Order(r"^/(?:\.tmp-\w+-)?named$", "cut", "fsync", 3, way=way, seed=5))
    keeper = subprocess.run(
        [sys.executable, "-c", KEEPER, str(disk.place)], cwd=REPO, check=False, timeout=30
    )
    told = disk.told()
    assert keeper.returncode == -signal.SIGKILL
    assert told.counted["fsync"] == 3
    assert [one.endswith("-named") for one in told.struck] == [True]
    assert any(path.endswith("-named") and loss.lost for path, loss in told.lost.items())
    touched = subprocess.run(["touch", str(disk.place / "off")], check=False, capture_output=True)
    assert b"Input/output error" in touched.stderr  # for the others it is off
    disk.order(Order(""))
    assert (disk.place / "named").read_bytes() == b"0" * 1000
    assert (disk.place / "other").read_bytes() == b"0" * 1000


def test_a_call_on_a_named_file_is_refused_and_no_other(disk: lossy.Disk) -> None:
    disk.order(Order("/kept$", "refuse", "rename", 2, 2, error=errno.ENOSPC))
    durable.write(disk.place / "kept", b"1")
    for _ in range(2):
        durable.write(disk.place / "free", b"1")
        with pytest.raises(OSError, match="No space"):
            durable.write(disk.place / "kept", b"2")
    assert (disk.place / "kept").read_bytes() == b"1"
    durable.write(disk.place / "kept", b"3")
    assert disk.told().struck == ["/kept", "/kept"]


def test_calls_are_counted_for_each_group_of_names(disk: lossy.Disk) -> None:
    disk.order(Order("(?P<one>/one$)|(?P<two>/two$)"))
    durable.write(disk.place / "one", b"1")
    for _ in range(2):
        durable.write(disk.place / "two", b"1")
    told = disk.told()
    assert told.struck == []
    assert (told.counted["one rename"], told.counted["two rename"]) == (1, 2)
