# SPDX-License-Identifier: Apache-2.0
"""A document that is rewritten in place is the old one or the new one, wherever a fault strikes."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.floor import KEEP_EVERY_MS, Floor
from agent.halves import MAX_BYTES, Halves
from firmware_bridge.sample import Instant
from tests.simulators.noted_disk import NotedDisk

PAGE = 4_096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "told.json"


@pytest.fixture
def noted(path: Path) -> Iterator[NotedDisk]:
    disk = NotedDisk(path.parent)
    yield disk
    disk.close()


def document(number: int, size: int = 3_000) -> dict[str, object]:
    return {"number": number, "text": f"{number}" * size}


def number(path: Path) -> int:
    told = Halves(path).read()
    assert isinstance(told, dict)
    assert told == document(told["number"], len(told["text"]) // len(str(told["number"])))
    return int(told["number"])


def spoil(path: Path, *places: int) -> None:
    """Lets a byte of some halves decay."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place * len(data) // 2 + 100] ^= 1
    path.write_bytes(data)


def test_wherever_the_power_goes_it_is_the_document_before_or_the_new_one(
    path: Path, noted: NotedDisk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Red where a write goes into the newest half, or returns before it is synced."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, elsewhere = random.Random(seed), tmp_path_factory.mktemp("left")
    file, torn = Halves(path), 0
    file.write(document(0))
    for at in range(1, 12):
        noted.mark()
        # Halves of one page, and of three: then they are made anew, once.
        file.write(document(at, 3_000 if at < 6 else 9_000))
        for step in range(len(noted.steps) + 1):
            for _ in range(8):
                left = noted.left_at(step, lambda: chance.random() < 0.5)
                (elsewhere / path.name).write_bytes(left[path.name])
                torn += left[path.name] not in {noted.seen(path.name), noted.left_at(0)[path.name]}
                has_returned = step == len(noted.steps)
                assert number(elsewhere / path.name) in ({at} if has_returned else {at - 1, at})
    assert torn > 0, "no cut left anything between old and new"


def test_a_write_is_one_page_in_place_and_one_sync(path: Path, noted: NotedDisk) -> None:
    file = Halves(path)
    file.write(document(0))
    noted.mark()
    for at in range(1, 9):
        file.write(document(at))
    assert [step.kind for step in noted.steps] == ["write", "sync"] * 8
    assert {(step.name, len(step.data)) for step in noted.steps if step.data} == {(path.name, PAGE)}
    assert path.stat().st_size == 2 * PAGE
    assert number(path) == 8


@pytest.mark.parametrize("writes", [2, 3], ids=["the second half", "the first half"])
def test_a_torn_half_leaves_the_one_before(path: Path, writes: int) -> None:
    file = Halves(path)
    for at in range(writes):
        file.write(document(at))
    newest = (writes - 1) % 2
    spoil(path, 1 - newest)
    assert number(path) == writes - 1  # the twin: the other one does not matter
    spoil(path, 1 - newest)
    spoil(path, newest)
    assert number(path) == writes - 2


def test_two_torn_halves_are_damage(path: Path) -> None:
    file = Halves(path)
    for at in range(3):
        file.write(document(at))
    spoil(path, 0, 1)
    with pytest.raises(ValueError, match=r".+"):
        Halves(path).read()
    file.write(document(3))
    assert number(path) == 3


def test_every_byte_that_decays_is_noticed(path: Path) -> None:
    file = Halves(path)
    for at in range(2):
        file.write(document(at, 1))
    sound = path.read_bytes()
    line = sound.index(b"  ", PAGE)
    for at in [*range(PAGE, line), *range(line, 2 * PAGE, 97), 2 * PAGE - 1]:
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        assert number(path) == 0


@pytest.mark.parametrize("cut", [0, 1, 100, PAGE, PAGE + 100, 2 * PAGE - 1])
def test_a_file_that_is_cut_is_damaged(path: Path, cut: int) -> None:
    Halves(path).write(document(0, 1))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r".+"):
        Halves(path).read()


def test_the_first_write_of_a_life_makes_the_file_anew(path: Path) -> None:
    for at in range(4):
        inode = path.stat().st_ino if at else 0
        file = Halves(path)
        file.write(document(at))
        assert path.stat().st_ino != inode
        assert number(path) == at
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inode = path.stat().st_ino
    file.write(document(4))  # the twin
    assert path.stat().st_ino == inode


def test_on_a_half_that_was_never_synced_nothing_is_built(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red where the next write in place goes over the half that is on the disk."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = Halves(path)
    file.write(document(0))
    file.write(document(1))
    inode = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        file.write(document(2))  # a new file takes it
        assert path.stat().st_ino != inode
        patch.setattr(os, "fsync", refuse)
        inode = path.stat().st_ino
        with pytest.raises(OSError, match="Input/output"):
            file.write(document(3))
        assert path.stat().st_ino == inode
    file.write(document(4))
    assert path.stat().st_ino != inode
    assert number(path) == 4


def test_what_does_not_fit_makes_the_file_anew_and_what_is_too_large_is_refused(path: Path) -> None:
    file = Halves(path)
    file.write(document(0))
    file.write(document(1, 5_000))
    assert (path.stat().st_size, number(path)) == (4 * PAGE, 1)
    with pytest.raises(OSError, match="large"):
        file.write(document(2, MAX_BYTES))
    assert number(path) == 1
    file.write(document(3))
    assert number(path) == 3


@pytest.mark.parametrize("kind", ["gone", "a link", "a pipe", "another file"])
def test_what_lies_there_instead_is_replaced_and_not_written_through(path: Path, kind: str) -> None:
    file, other = Halves(path), path.with_name("other")
    file.write(document(0))
    path.rename(other)
    before = other.read_bytes()
    match kind:
        case "a link":
            path.symlink_to(other)
        case "a pipe":
            os.mkfifo(path)
        case "another file":
            path.write_bytes(b"x" * 2 * PAGE)
    file.write(document(1))
    assert number(path) == 1
    assert not path.is_symlink()
    assert other.read_bytes() == before


def test_over_an_older_copy_that_was_laid_there_the_new_one_counts(path: Path) -> None:
    file = Halves(path)
    for at in range(3):
        file.write(document(at))
    older = path.read_bytes()
    for at in range(3, 9):
        file.write(document(at))
    path.write_bytes(older)
    file.write(document(9))
    assert number(path) == 9


@pytest.mark.clause("C28")
def test_a_torn_floor_is_the_one_before_and_is_asked_for_elsewhere(path: Path) -> None:
    floor = Floor.open(path, Instant(1_000_000, 0, trusted=True))
    for at in range(2):
        passed_ms = at * KEEP_EVERY_MS
        assert floor.note(Instant(1_000_000 + passed_ms, passed_ms, trusted=True))
    unknown = Instant(0, KEEP_EVERY_MS, trusted=False)
    sound = path.read_bytes()
    assert Floor.open(path, unknown).at(KEEP_EVERY_MS) == 1_000_000 + KEEP_EVERY_MS
    assert not Floor.open(path, unknown).is_lost
    path.write_bytes(sound[: PAGE + 512] + bytes(PAGE - 512))
    left = Floor.open(path, Instant(0, 0, trusted=False))
    assert left.at(0) == 1_000_000
    assert left.is_lost
    assert left.kept is None  # else the second gate would be told of it
    path.write_bytes(bytes(2 * PAGE))
    assert Floor.open(path, unknown).is_lost
