# SPDX-License-Identifier: Apache-2.0
"""Documents survive being killed at any moment; what is not as it was written is never believed."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinydb import TinyDB
from tinydb.table import Document

from agent.storage import CorruptError, DurableStorage, StorageError, move_aside
from assent import durable

ROOT = Path(__file__).resolve().parents[2]

# Grows and shrinks 20 documents in a tight loop and says after each update that it has returned.
CHILD = """
import sys
from pathlib import Path
from tinydb import TinyDB
from tinydb.storages import JSONStorage
from agent.storage import DurableStorage
path = Path(sys.argv[1])
if sys.argv[2] == "ours":
    table = TinyDB(path, storage=DurableStorage).table("t")
else:
    table = TinyDB(str(path), storage=JSONStorage).table("t")
for round in range(int(sys.argv[3]), 10**9):
    text = "x" * (900 if round % 2 else 1)
    if not len(table):
        table.insert_multiple({"n": round, "text": text} for _ in range(20))
    else:
        table.update({"n": round, "text": text})
    sys.stdout.write(f"{round}\\n")
    sys.stdout.flush()
"""


def killed_at_random(path: Path, kind: str, start: int, chance: random.Random) -> int:
    """Lets a child update until it is killed; returns the last round that it said had returned."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), kind, str(start)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    first = child.stdout.readline()  # it works: what follows strikes it in the middle
    time.sleep(chance.uniform(0.0, 0.04))
    child.send_signal(signal.SIGKILL)
    said = first + child.stdout.read()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL, "the kill did not strike"
    return int(said.rsplit(b"\n", 2)[-2])


def table_of(path: Path) -> TinyDB:
    return TinyDB(path, storage=DurableStorage)


def test_whatever_the_moment_of_a_kill_every_returned_write_is_there(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, path, said, between = random.Random(seed), tmp_path / "docs.json", 0, 0
    for _ in range(30):
        said = killed_at_random(path, "ours", said + 1, chance)
        documents = table_of(path).table("t").all()
        assert len(documents) == 20
        rounds = {document["n"] for document in documents}
        assert len(rounds) == 1, "half an update"
        kept = rounds.pop()
        # the write under way at the kill may have become durable without having been told
        assert kept in (said, said + 1)
        between += kept == said + 1
        said = kept
    print(f"{between} of 30 kills fell between the rename and the word of it")


def test_the_default_storage_does_break_under_the_same_kills(tmp_path: Path) -> None:
    """What this room guards against exists: if it no longer does, the room can go."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, end, kills = random.Random(seed), time.monotonic() + 30, 0
    is_broken = False
    while not is_broken and time.monotonic() < end:  # some two in five kills break it: 1 s
        kills += 1
        path = tmp_path / f"{kills}.json"
        killed_at_random(path, "default", 1, chance)
        try:
            json.loads(path.read_bytes())
        except ValueError:
            is_broken = True
    print(f"{kills} kills")
    assert is_broken


texts = st.text(max_size=8)
documents = st.dictionaries(texts, texts | st.integers() | st.booleans() | st.none(), max_size=3)


@given(st.lists(documents, max_size=6))
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("docs") / "docs.json"
    table = table_of(path).table("t")
    for row in rows:
        table.insert(row)
    assert [dict(row) for row in table_of(path).table("t").all()] == rows


def test_a_first_start_is_empty_and_makes_no_file(tmp_path: Path) -> None:
    assert table_of(tmp_path / "docs.json").table("t").all() == []
    assert list(tmp_path.iterdir()) == []


def test_the_file_and_its_previous_generation_are_for_the_owner_alone(tmp_path: Path) -> None:
    table = table_of(tmp_path / "docs.json").table("t")
    table.insert({"n": 1})
    table.insert({"n": 2})
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"docs.json": 0o600, "docs.json.bak": 0o600}
    previous = json.loads((tmp_path / "docs.json.bak").read_bytes())
    assert previous["tables"] == {"t": {"1": {"n": 1}}}


def test_altering_what_was_read_alters_nothing(tmp_path: Path) -> None:
    storage = DurableStorage(tmp_path / "docs.json")
    storage.write({"t": {"1": {"n": 1}}})
    read = storage.read()
    assert read is not None
    read["t"]["1"]["n"] = 2
    assert storage.read() == {"t": {"1": {"n": 1}}}


@pytest.mark.parametrize("failing", [1, 2], ids=["the previous generation", "the file"])
def test_a_full_disk_leaves_memory_and_file_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    path, calls, real = tmp_path / "docs.json", 0, durable.write
    table = table_of(path).table("t")
    table.insert({"n": 1})

    def full(target: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "no space left on device")
        real(target, data)

    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(StorageError, match="no space left"):
        table.insert(Document({"n": 2}, doc_id=2))
    assert [row["n"] for row in table.all()] == [1]
    assert [row["n"] for row in table_of(path).table("t").all()] == [1]
    table.insert(Document({"n": 2}, doc_id=2))
    assert [row["n"] for row in table_of(path).table("t").all()] == [1, 2]


def test_documents_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.storage.MAX_BYTES", 200)
    table = table_of(tmp_path / "docs.json").table("t")
    table.insert({"n": 1})
    with pytest.raises(StorageError, match="over its limit"):
        table.insert({"text": "x" * 200})
    assert len(table_of(tmp_path / "docs.json").table("t").all()) == 1


def filled(path: Path) -> bytes:
    table = table_of(path).table("t")
    table.insert({"name": "kitchen", "n": 1})
    table.insert({"name": "cellar", "n": 2})
    return path.read_bytes()


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    whole = filled(path)
    for at in range(len(whole)):
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            with pytest.raises(CorruptError):
                DurableStorage(path)
    path.write_bytes(whole)
    assert DurableStorage(path).read() is not None


def test_every_torn_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    whole = filled(path)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(CorruptError):
            DurableStorage(path)


@pytest.mark.parametrize(
    "text",
    [b"[]\n", b"null\n", b'{\n "tables": {}\n}\n', b'{\n "tables": {"t": []}\n}\n', b"[" * 9**5],
    ids=["a list", "nothing", "no digest", "a list of documents", "a deep list"],
)
def test_json_that_is_not_tables_is_corrupt(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "docs.json").write_bytes(text)
    with pytest.raises(CorruptError):
        DurableStorage(tmp_path / "docs.json")


def test_a_file_that_is_gone_is_not_a_first_start(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    filled(path)
    path.unlink()
    with pytest.raises(CorruptError, match="gone"):
        DurableStorage(path)


def test_something_else_in_its_place_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "docs.json").mkdir()
    with pytest.raises(CorruptError):
        DurableStorage(tmp_path / "docs.json")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_what_says_nothing_about_the_file_is_not_called_corruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    filled(tmp_path / "docs.json")

    def failing(path: Path, max_bytes: int) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "read", failing)
    with pytest.raises(StorageError) as caught:
        DurableStorage(tmp_path / "docs.json")
    assert not isinstance(caught.value, CorruptError)


NOON = 1_795_348_800_000  # 2026-11-22T12:00:00Z


def test_a_corrupt_file_is_kept_for_a_person_and_a_fresh_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    whole = filled(path)
    path.write_bytes(whole[:-5])
    aside = move_aside(path, NOON)
    assert aside.name == "docs.json.aside-20261122T120000Z"
    assert aside.read_bytes() == whole[:-5]
    assert aside.with_name(f"{aside.name}.bak").exists()
    TinyDB(path, storage=DurableStorage, fresh=True).table("t").insert({"n": 1})
    assert [row["n"] for row in table_of(path).table("t").all()] == [1]


def test_a_crash_before_the_fresh_file_does_not_look_like_a_first_start(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    filled(path)
    move_aside(path, NOON)
    with pytest.raises(CorruptError, match="gone"):
        DurableStorage(path)


def test_a_second_corruption_does_not_overwrite_the_first(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        assert move_aside(path, NOON).read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 3


def test_moving_what_is_gone_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    filled(path)
    path.unlink()
    assert move_aside(path, 10**18).exists()
    assert move_aside(path, NOON) == tmp_path
