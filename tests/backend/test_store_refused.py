# SPDX-License-Identifier: Apache-2.0
"""A disk that refuses one sync, and a crash after it: both files of the store still agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assent.backend.store import Store
from tests.simulators.steps import counted, refusal, tracer

# Batch after batch, the last of them refused; then the store rests, and the process is gone.
CHILD = """
import os, sys
from pathlib import Path
from assent.backend.store import Store
from assent.errors import StoreError
from tests.backend import test_store as t

store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    batch = t.HAND.batch(t.OURS.public, t.power(number + 1), sequence=number)
    try:
        store.put([t.taken(batch)])
    except StoreError:
        print("refused", number, flush=True)
        store.rest()
os._exit(0)
"""


def life(root: Path, batches: int, inject: str = "") -> str:
    """A backend that is gone after so many batches; what it said."""
    tracing = tracer(root / "steps", inject=inject, paths=[root / "custody.db-wal"])
    child = [sys.executable, "-c", CHILD, str(root), str(batches)]
    done = subprocess.run([*tracing, *child], capture_output=True, text=True, check=True)
    return done.stdout


def references(root: Path) -> tuple[set[bytes], set[bytes]]:
    """The batches that custody knows, and those of which there are readings."""
    store = Store(root)
    known = {one for (one,) in store._custody_db.execute("SELECT batch_ref FROM custody")}
    there = {one for (one,) in store._readings_db.execute("SELECT batch_ref FROM reading")}
    store.close()
    return known, there


@pytest.mark.parametrize("batches", [1, 3], ids=["the first batch", "a later batch"])
def test_a_commit_whose_sync_was_refused_does_not_come_back(tmp_path: Path, batches: int) -> None:
    """Red without `outwrite`: custody knows a batch of which the readings were taken back."""
    if (why := refusal()) is not None:
        pytest.skip(why)
    before = tmp_path / "before"
    before.mkdir()
    life(before, batches - 1)
    syncs = counted(before / "steps")["fdatasync"]
    root = tmp_path / "refused"
    root.mkdir()
    said = life(root, batches, f"fdatasync:error=EIO:when={syncs + 1}")
    assert said == f"refused {batches - 1}\n"  # it struck this commit
    known, there = references(root)
    assert known == there
    assert len(known) == batches - 1
