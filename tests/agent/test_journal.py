# SPDX-License-Identifier: Apache-2.0
"""The journal by itself: what was committed is there after any crash, once; what was erased is not."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.journal import FullError, Head, Journal, News, Part, Remembered, areas
from agent.journal import rows as written
from agent.journal.areas import AREA
from assent import columns
from assent.columns import Column, Kind, Quantum, Table
from assent.errors import WireError
from tests.simulators.power import PowerCut

KEY = hashlib.sha256(b"a key for tests").digest()
SPOOL = b"s" * 16
DEVICE = b"d" * 16
SECTOR = 512
AT = 1_795_348_800_000


def key() -> bytes:
    return KEY


def opened(path: Path, spool: bytes = SPOOL) -> Journal:
    return Journal(path, key, spool)


def head(stream: int, flow: str = "remote-diagnosis") -> Head:
    return Head(flow, stream, 3, 0, "", b"b" * 32)


def rows(*numbers: int) -> bytes:
    """Readings that are their own instants; nothing for none."""
    if not numbers:
        return b""
    column = Column("appliance.power", Kind.NUMBER, list(numbers), Quantum.of(0.1))
    return written.write([Table(DEVICE, [AT + one for one in numbers], (column,))])


def counter(last: int) -> Remembered:
    return Remembered(b"o" * 16, b"", "appliance.energy", (last, AT + last))


def numbers_of(part: Part, number: int) -> list[int]:
    tables = part.states[number].tables()
    return [int(value) for table in tables for value in table.columns[0].values]  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


# What is told is found.


def test_what_was_committed_is_found_by_the_next_life(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1, 2), (counter(2),)), News(8, 4, AT, head(8))])
    journal.commit([News(7, 0, AT + 5, None, rows(3), (counter(3),)), News(8, 4, AT + 5)])
    one, other = opened(path).parts()
    assert one.head == head(7)
    assert numbers_of(one, 0) == [1, 2, 3]
    assert list(one.states[0].memory.values()) == [counter(3)]
    assert (one.at_ms, one.oldest_ms) == (AT + 5, AT + 1)
    assert other.states[4].is_empty
    assert opened(path).streams == {7: "remote-diagnosis", 8: "remote-diagnosis"}


def test_nothing_is_made_before_something_is_told(path: Path) -> None:
    journal = opened(path)
    journal.erase({"remote-diagnosis"})
    assert journal.parts() == []
    assert not path.exists()


def test_the_file_is_private_and_of_one_size(path: Path) -> None:
    journal = opened(path)
    for life in range(300):
        journal.commit([News(7, 0, AT, None if life else head(7), rows(life))])
        status = path.stat()
        assert status.st_mode & 0o777 == 0o600
        assert status.st_size == 2 * AREA


def test_states_under_two_numbers_are_alternatives(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1, 2, 3), (counter(3),))])
    journal.commit([News(7, 1, AT + 5, None, rows(3), (counter(4),))])
    (part,) = opened(path).parts()
    assert numbers_of(part, 0) == [1, 2, 3]
    assert numbers_of(part, 1) == [3]
    stale = [journal.is_stale]
    journal.stored(7, 1)
    stale.append(journal.is_stale)
    journal.commit([News(7, 1, AT + 9)])
    assert [*stale, journal.is_stale] == [False, True, False]
    (part,) = opened(path).parts()
    assert set(part.states) == {1}
    assert part.states[1].at_ms == AT + 9


def test_a_choice_leaves_one_state_and_overwrites_the_others(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1, 2)), News(8, 0, AT, head(8), rows(8))])
    journal.commit([News(7, 1, AT, None, rows(2))])
    journal = opened(path)
    journal.choose({7: 0}, {8})
    (part,) = opened(path).parts()
    assert (part.head.stream, set(part.states)) == (7, {0})
    assert [plain for plain in readable(path) if b"\x08" in plain] == []


def test_another_spool_is_told_apart(path: Path) -> None:
    opened(path).commit([News(7, 0, AT, head(7))])
    assert opened(path, b"t" * 16).found_spool == SPOOL


def test_rows_of_many_commits_are_laid_together(path: Path) -> None:
    journal = opened(path)
    for at in range(100):
        journal.commit([News(7, 0, AT, None if at else head(7), rows(at))])
    journal = opened(path)
    journal.commit([News(7, 0, AT)])
    (part,) = opened(path).parts()
    assert len(part.states[0].rows) == 1
    assert numbers_of(part, 0) == list(range(100))


# The file.


def readable(path: Path) -> list[bytes]:
    """Every record that opens, read by this test's own code from what `areas` says of the file."""
    raw = path.read_bytes()
    found = []
    for begin in (0, AREA):
        area = raw[begin : begin + AREA]
        if area[:8] != b"assentj1":
            continue
        prk = hmac.digest(area[16:48], KEY, "sha256")
        cipher = ChaCha20Poly1305(hmac.digest(prk, b"assent/1 journal\x01", "sha256"))
        for at in range(SECTOR, AREA, SECTOR):
            length = int.from_bytes(area[at : at + 4], "big")
            for number in range(64):
                try:
                    sealed = area[at + 4 : at + 4 + length]
                    plain = cipher.decrypt(number.to_bytes(12, "big"), sealed, area[:48])
                except Exception:  # noqa: BLE001 - whatever it says, it does not open
                    continue
                found.append(zlib.decompress(plain))
    return found


def test_the_file_is_laid_out_as_it_says(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1))])
    journal.commit([News(7, 0, AT, None, rows(2))])
    first, second = readable(path)
    assert msgspec.msgpack.decode(first)[:2] == [2, SPOOL]
    assert msgspec.msgpack.decode(second)[2][0][4] == rows(2)


def test_what_was_stored_opens_with_nothing_after_the_next_commit(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1, 2, 3))])
    journal.commit([News(7, 1, AT)])
    assert any(rows(1, 2, 3) in plain for plain in readable(path))
    journal.stored(7, 1)
    journal.commit([News(7, 1, AT)])
    assert not any(rows(1, 2, 3) in plain for plain in readable(path))


def test_what_is_erased_is_overwritten(path: Path) -> None:
    journal = opened(path)
    noise = random.Random(7)
    many = [noise.randrange(10**9) for _ in range(5_000)]
    journal.commit([News(7, 0, AT, head(7, "a"), rows(*many)), News(8, 0, AT, head(8, "b"))])
    before = len(path.read_bytes().replace(b"\0", b""))
    journal.erase({"a"})
    assert before > 10_000
    assert len(path.read_bytes().replace(b"\0", b"")) < 1_000
    assert [part.head.flow for part in opened(path).parts()] == ["b"]
    assert not any(b"\xa1a" in plain for plain in readable(path))


def test_what_a_crash_left_unwiped_is_wiped_by_the_next_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red where a start takes the area that is not live for wiped: what a no erased stays readable."""

    def die(*_: Any, **__: Any) -> None:
        raise PowerCut

    ends: dict[str, Callable[[Journal], None]] = {
        "a": lambda one: one.erase({"c"}),
        "b": lambda one: one.commit([]),
    }
    for flow, end in ends.items():
        path.unlink(missing_ok=True)
        journal = opened(path)
        journal.commit([News(7, 0, AT, head(7, flow), rows(1, 2, 3)), News(8, 0, AT, head(8))])
        with monkeypatch.context() as patch:
            patch.setattr(areas.Areas, "wipe", die)
            with pytest.raises(PowerCut):
                journal.erase({flow})
        assert any(rows(1, 2, 3) in plain for plain in readable(path))  # it did strike
        journal = opened(path)
        assert journal.is_stale
        end(journal)
        assert not any(rows(1, 2, 3) in plain for plain in readable(path))
        assert not opened(path).is_stale


@pytest.mark.parametrize("damage", ["torn", "turned bit", "older rest"])
def test_a_tail_that_is_not_whole_ends_the_reading(path: Path, damage: str) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1))])
    journal.commit([News(7, 0, AT, None, rows(2))])
    before = path.read_bytes()
    journal.commit([News(7, 0, AT, None, rows(*range(3, 1_000, 7)))])
    after = bytearray(path.read_bytes())
    changed = [at for at in range(len(before)) if before[at] != after[at]]
    match damage:
        case "torn":
            last = changed[-1] // SECTOR * SECTOR
            after[last : last + SECTOR] = before[last : last + SECTOR]
        case "turned bit":
            after[changed[len(changed) // 2]] ^= 1
        case "older rest":
            after[changed[0] : changed[-1] + 1] = before[SECTOR : SECTOR + len(changed)].ljust(
                changed[-1] + 1 - changed[0], b"\x55"
            )
    path.write_bytes(after)
    journal = opened(path)
    assert journal.damaged_ms is None
    assert numbers_of(journal.parts()[0], 0) == [1, 2]
    journal.commit([News(7, 0, AT, None, rows(9))])
    assert numbers_of(opened(path).parts()[0], 0) == [1, 2, 9]


def test_a_generation_that_is_torn_leaves_the_one_before(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1, 2))])
    path.write_bytes(path.read_bytes()[:AREA] + b"assentj1" + b"\xff" * (AREA - 8))
    assert numbers_of(opened(path).parts()[0], 0) == [1, 2]


@pytest.mark.parametrize(
    "left", [b"", b"\0" * 2 * AREA], ids=["a file just made is empty", "so is one of zeros"]
)
def test_a_crash_while_the_file_was_made_is_no_damage(path: Path, left: bytes) -> None:
    path.write_bytes(left)
    assert opened(path).damaged_ms is None


@pytest.mark.parametrize("what", ["noise", "pipe", "directory", "link"])
def test_what_is_no_journal_is_damage_and_never_an_error(path: Path, what: str) -> None:
    match what:
        case "noise":
            path.write_bytes(random.Random(1).randbytes(3 * AREA))
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/hostname")
    journal = opened(path)
    assert journal.damaged_ms is not None
    assert journal.parts() == []
    if what == "directory":
        with pytest.raises(OSError, match="irectory"):
            journal.commit([News(7, 0, AT, head(7))])
    else:
        journal.commit([News(7, 0, AT, head(7), rows(1))])
        assert numbers_of(opened(path).parts()[0], 0) == [1]


def test_more_than_an_area_is_refused_and_changes_nothing(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1))])
    with pytest.raises(FullError):
        journal.commit([News(7, 0, AT, None, random.Random(2).randbytes(AREA))])
    assert numbers_of(opened(path).parts()[0], 0) == [1]
    journal.commit([News(7, 0, AT, None, rows(2))])
    assert numbers_of(opened(path).parts()[0], 0) == [1, 2]


def test_a_journal_that_is_taken_away_is_begun_anew(path: Path) -> None:
    journal = opened(path)
    journal.commit([News(7, 0, AT, head(7), rows(1))])
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        journal.commit([News(7, 0, AT, None, rows(2))])
    with pytest.raises(OSError, match="it is gone"):
        journal.commit([News(7, 0, AT, None, rows(2))])
    assert journal.number(7) is None
    journal.commit([News(7, 0, AT, head(7), rows(1, 2))])
    assert numbers_of(opened(path).parts()[0], 0) == [1, 2]


def test_a_commit_of_ten_readings_in_three_flows_writes_one_page(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    flows = [(7, "a"), (8, "b"), (9, "c")]
    journal.commit([News(one, 0, AT, head(one, flow), rows(0)) for one, flow in flows])
    spans: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def counted(file: int, data: Any, at: int) -> int:
        spans.append((at, len(data)))
        return pwrite(file, data, at)

    monkeypatch.setattr(os, "pwrite", counted)
    noise = random.Random(3)
    for second in range(0, 500, 5):
        some = [second * 10 + noise.randrange(10) for _ in range(50)]
        journal.commit(
            [News(one, 0, AT, None, rows(*some), (counter(second),)) for one, _ in flows]
        )
    assert len(spans) == 100
    # Within one page of the kernel's, and on sectors of its own.
    assert all(at // 4_096 == (at + size - 1) // 4_096 for at, size in spans)
    assert all(at % SECTOR == 0 for at, _ in spans)
    assert max(size for _, size in spans) <= 1_024


# Rows.

_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.NUMBER: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    Kind.TEXT: st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    Kind.BYTES: st.binary(max_size=4),
    Kind.BOOLEAN: st.booleans(),
    Kind.POSITION: st.tuples(st.integers(-(2**31), 2**31), st.integers(-(2**31), 2**31)),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count = draw(st.sampled_from([0, 1, 3, written.FEW, written.FEW + 1]))
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=4))
    quanta = (None, Quantum.of(0.1), Quantum(2**53, 7))
    return Table(
        draw(st.binary(min_size=16, max_size=16)),
        draw(st.lists(st.integers(-5, 2**42), min_size=count, max_size=count)),
        tuple(
            Column(
                f"appliance.{place}",
                kind,
                draw(st.lists(_VALUES[kind], min_size=count, max_size=count)),
                draw(st.sampled_from(quanta)) if kind in {Kind.NUMBER, Kind.POSITION} else None,
            )
            for place, kind in enumerate(kinds)
        ),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(tables(), max_size=3))
def test_rows_of_any_kind_are_read_as_they_were_written(told: list[Table]) -> None:
    assert list(written.read(written.write(told)) if told else ()) == told


def test_rows_of_many_are_as_small_as_a_batch_and_few_smaller_than_their_columns() -> None:
    noise = random.Random(3)

    def table(count: int) -> Table:
        drawn = [[noise.randrange(7) for _ in range(count)] for _ in range(8)]
        names = [f"power.phase{place}" for place in range(8)]
        made = [
            Column(name, Kind.NUMBER, values, Quantum.of(0.1))
            for name, values in zip(names, drawn, strict=True)
        ]
        return Table(DEVICE, [AT + 1_000 * at for at in range(count)], tuple(made))

    few, many = table(5), table(written.FEW + 1)
    three = [written.write([few])] * 3
    assert len(zlib.compress(b"".join(three))) < len(columns.encode([few])) * 2
    assert len(written.write([many])) == 1 + len(columns.encode([many]))


@pytest.mark.parametrize(
    "noise",
    [
        b"\0",
        b"\0\x90\x90",
        b"\0\x91\xc0",
        b"\0\x91\x95\xa0\x90\x90\x90\x90",
        b"\1",
        b"\1\xff",
        b"\2",
    ],
    ids=lambda noise: f"{noise!r} is no rows",
)
def test_rows_that_cannot_be_read_are_an_error_of_ours(noise: bytes) -> None:
    with pytest.raises(WireError):
        written.read(noise)
