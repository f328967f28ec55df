# SPDX-License-Identifier: Apache-2.0
"""A spool that SQLite opens and nobody can use is moved aside; no person with a shell is needed."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.spool import Health, LinkState, Spool, Target, schema, soundness
from agent.spool.schema import DamagedError
from assent.errors import SpoolError
from assent.header import GapCause
from assent.messages import StreamAck
from tests.agent.sealed import FAR, NOW, run_of, sealed

STREAM = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


NOT_UNICODE = "CAST(x'cc41' AS TEXT)"

# Sentence → what is done to a file that SQLite finds sound afterwards.
STRANGE = {
    "a state that is none": "UPDATE lane SET state=6",
    "a cause that is none": "UPDATE gap SET cause=99",
    "a health that is none": "UPDATE health SET state='connectee'",
    "a flow that is no text": f"UPDATE lane SET flow={NOT_UNICODE} WHERE id=1",
    "a broker that is no text": f"UPDATE target SET broker={NOT_UNICODE}",
    "a health that is no text": f"UPDATE health SET detail={NOT_UNICODE}",
    "a gap number that is none": "UPDATE batch SET gaps='1 x' WHERE id=(SELECT min(id) FROM batch)",
    "no id": "DELETE FROM spool",
    "an id of another length": "UPDATE spool SET id=x'00'",
    "an instant no calendar has": "UPDATE batch SET first=1 << 60",
    "an end no calendar has": "UPDATE lane SET not_after=-5",
    "bytes that are gone": "DELETE FROM payload WHERE id=(SELECT max(id) FROM payload)",
    "bytes of another length": "UPDATE payload SET data=x'00'",
    "bytes without a batch": "INSERT INTO payload VALUES (1, x'00')",
    "a stream without a lane": "UPDATE stream SET lane=77",
    "a stream that is not the lane's": "UPDATE lane SET stream=77",
    "a batch of no stream": "INSERT INTO payload VALUES (1, x'00');"
    "INSERT INTO batch VALUES (1, 1, 0, 0, 1, 1, 0, 0, 0, NULL, x'00');"
    "UPDATE lane SET batches=batches+1, readings=readings+1, bytes=bytes+1",
    "a wrong count": "UPDATE lane SET batches=0",
    "a number that comes again": "UPDATE lane SET next=1",
    "a table too many": "CREATE TABLE mine (a)",
    "a table too few": "DROP TABLE inbox",
}


def kept(path: Path) -> None:
    """A closed spool with a row in every table that a start reads."""
    spool = Spool.open(path)
    spool.open_lane("service", "maker", STREAM, FAR, basis=b"wide", not_before_ms=NOW)
    spool.add_gap("service", STREAM, GapCause.AGE, first_ms=NOW, last_ms=NOW + 9, readings=1)
    spool.put(run_of(4), spool.gaps_for("service"))
    spool.set_targets([Target("maker", "mqtts://a:1", "0" * 32, "ca", "cert", "key")])
    spool.report("maker", Health(LinkState.WAITING, NOW, "a broker"))
    spool.receive("maker", b"answer", NOW)
    spool.put_control("maker", b"status")
    spool.delivered([one.id for one in spool.lease("maker", 2, NOW)], NOW)
    spool.handed_over([one.id for one in spool.lease("maker", 2, NOW)], NOW)
    spool.refuse("advice", NOW)
    spool.close()


def used(spool: Spool) -> None:
    """What a start and a day do with a spool."""
    spool.lanes()
    spool.waiting()
    spool.gaps_for("service")
    spool.health()
    spool.targets(NOW)
    spool.refusals()
    spool.sent(9)
    spool.take_inbox(9)
    spool.unacknowledged("maker", 9)
    leased(spool)
    spool.acknowledge("maker", [StreamAck(STREAM, 1)])
    spool.open_lane("service", "maker", 8, None, basis=b"wide", not_before_ms=NOW)
    spool.expire(NOW)
    spool.enforce_quota(1_500)
    spool.purge("service")


def leased(spool: Spool) -> None:
    """Leases what may leave, and gives it back."""
    spool.returned([one.id for one in spool.lease("maker", 9, NOW)])


def change(path: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(statements)


@pytest.mark.parametrize("statements", STRANGE.values(), ids=STRANGE.keys())
def test_a_spool_with_strange_rows_is_moved_aside_too(path: Path, statements: str) -> None:
    """Red when only the pages are looked at: the start fails, and so does the next."""
    kept(path)
    sound = Spool.open(path)  # the twin
    assert sound.moved_aside is None
    sound.close()
    change(path, statements)
    spool = Spool.open(path)
    assert spool.moved_aside is not None
    used(spool)
    spool.close()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as one that is too large to be read whole at a start."""
    monkeypatch.setattr("agent.spool.soundness._WHOLE_BYTES", 0)


# What a start sees of a large file too: it is not among what waits.
SEEN_AT_ONCE = [
    sentence
    for sentence in STRANGE
    if not sentence.startswith(("bytes", "a batch", "a gap number", "a wrong", "an instant"))
]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("sentence", STRANGE)
def test_a_large_spool_with_strange_rows_works_or_is_moved_aside(path: Path, sentence: str) -> None:
    kept(path)
    change(path, STRANGE[sentence])
    for attempt in (1, 2):
        with contextlib.closing(Spool.open(path)) as spool:
            assert attempt == 2 or (spool.moved_aside is not None) == (sentence in SEEN_AT_ONCE)
            try:
                used(spool)
            except DamagedError:
                assert attempt == 1
            else:
                break


@pytest.mark.usefixtures("large")
def test_a_row_that_names_an_open_lane_does_not_let_out_what_a_closed_one_held(path: Path) -> None:
    with contextlib.closing(Spool.open(path)) as spool:
        for flow, stream in (("service", STREAM), ("advice", 8)):
            spool.open_lane(flow, "maker", stream, None)
            spool.put(run_of(2, flow=flow, stream=stream))
        spool.close_lane("advice")
        assert len(spool.lease("maker", 9, NOW)) == 2  # the twin
    change(path, "UPDATE batch SET lane=1")
    with contextlib.closing(Spool.open(path)) as spool:
        assert spool.moved_aside is None
        with pytest.raises(DamagedError):
            spool.lease("maker", 9, NOW)


@pytest.mark.usefixtures("large")
def test_a_start_does_not_take_longer_because_more_waits(path: Path) -> None:
    """Counts the steps of SQLite's machine."""

    def steps() -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        with contextlib.closing(schema.connect(path)) as db:
            db.set_progress_handler(tick, 1)
            soundness.examine(db)
        return count

    with contextlib.closing(Spool.open(path)) as spool:
        spool.open_lane("service", "maker", STREAM, None)
        spool.put(run_of(10))
        few = steps()
        for start in range(10, 4_010, 500):
            spool.put([sealed(start + i) for i in range(500)])
        assert steps() < few + 50


@pytest.mark.parametrize("name", ["lane", "gap_flow", "health"])
def test_a_schema_that_is_no_text_is_moved_aside(path: Path, name: str) -> None:
    kept(path)
    data = bytearray(path.read_bytes())
    at = data.index(name.encode() + b" (" if name != "gap_flow" else b"gap_flow ON")
    data[at + len(name) + 5] = 0xCC
    path.write_bytes(data)
    with contextlib.suppress(SpoolError):  # and nothing else, where nobody looks closely
        Spool.open(path, create=False).lanes()
    spool = Spool.open(path)
    assert spool.moved_aside is not None
    used(spool)
    spool.close()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_byte_is_damaged_it_is_moved_aside_or_works(path: Path, seed: int) -> None:
    """No error of Python's leaves the spool, and a damaged one stops the start once at most."""
    kept(path)
    whole = path.read_bytes()
    written = [at for at, byte in enumerate(whole) if byte]
    chance = random.Random(seed)
    for _ in range(25):
        for file in path.parent.glob("spool.db*"):
            file.unlink()
        data = bytearray(whole)
        data[chance.choice(written)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        for attempt in (1, 2):
            spool = Spool.open(path)
            try:
                used(spool)
            except SpoolError:
                assert attempt == 1
            else:
                break
            finally:
                spool.close()


@pytest.mark.parametrize(
    ("statements", "use"),
    [
        ("UPDATE lane SET state=6", Spool.lanes),
        ("UPDATE gap SET cause=99", lambda spool: spool.gaps_for("service")),
        ("UPDATE health SET state='connectee'", Spool.health),
        ("DELETE FROM payload", leased),
        (f"UPDATE target SET broker={NOT_UNICODE}", lambda spool: spool.targets(NOW)),
        ("DELETE FROM spool", lambda spool: spool.answer_fence(5)),
    ],
    ids=["state", "cause", "health", "bytes", "text", "id"],
)
def test_a_strange_row_met_while_it_runs_is_damage_and_noted(
    path: Path, statements: str, use: Callable[[Spool], object]
) -> None:
    kept(path)
    spool = Spool.open(path)
    use(spool)
    change(path, statements)
    with pytest.raises(DamagedError):
        use(spool)
    spool.close()
    assert path.with_name("spool.db.fault").exists()
    again = Spool.open(path)
    assert again.moved_aside is not None
    again.close()
