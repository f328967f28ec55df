# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assent.backend.ingest import judge
from assent.backend.outcomes import Accepted, Outcome, Reason, Rejected, Told
from assent.backend.store import Settled, Store, Taken, Verdict, custody
from assent.backend.store.custody import Row
from assent.backend.store.positions import MAX_RANGES, Position
from assent.columns import Column, Kind, Quantum, Table
from assent.cosekey import SealPrivateKey
from assent.envelope import MAX_MESSAGE, Gap, GapCause
from assent.errors import RefusedError, StoreError
from assent.messages import RefusalReason, Status
from tests.backend.parts import NOW_MS, PSEUDONYM, START_MS, TENTH, Hand, desk, offers, power

OURS = SealPrivateKey.generate(classical=True)
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def taken(data: bytes, hand: Hand = HAND, *, at_ms: int = NOW_MS) -> Taken:
    return Taken(judge(hand.topic, data, DESK), data, at_ms)


def put(store: Store, *group: Taken) -> list[Verdict]:
    return [one.verdict for one in store.put(group)]


def values(store: Store, flow: str = "remote-diagnosis") -> Sequence[object]:
    return sorted((one.value for one in store.readings.rows(flow, 10_000)), key=repr)


def position(store: Store, stream: int = 1, hand: Hand = HAND) -> Position | None:
    found = store.custody.position(hand.sign.public.thumbprint, stream)
    return found[1] if found else None


def test_a_batch_becomes_rows_and_custody(store: Store) -> None:
    gap = Gap(3, 1, GapCause.CRASH, START_MS - 5000, START_MS, 5)
    data = HAND.batch(OURS.public, power(), stream=2**64 - 1, gaps=(gap,))
    assert put(store, taken(data)) == [Verdict.STORED]
    rows = list(store.readings.rows("remote-diagnosis", 10))
    assert [(row.time_ms - START_MS, row.value) for row in rows] == [
        (2000, 100.2),
        (1000, 100.1),
        (0, 100.0),
    ]
    assert {row.pseudonym for row in rows} == {PSEUDONYM}
    assert {row.terms for row in rows} == {offers()["remote-diagnosis"].terms.hash}
    (kept,) = store.custody.batches(None, 10)
    assert (kept.stream, kept.sequence, kept.readings, kept.gaps) == (b"\xff" * 8, 0, 3, 1)
    assert kept.mailbox == HAND.mailbox
    assert kept.received_ms == NOW_MS
    assert store.custody.knows(rows[0].batch_ref)
    assert position(store, 2**64 - 1) == Position(1)


def test_every_kind_of_value_comes_back_as_it_was(store: Store) -> None:
    columns = (
        Column("appliance.power", Kind.NUMBER, [-3, 2**53 + 1], Quantum(3, 7)),
        Column("appliance.starts", Kind.NUMBER, [0, 2**62]),
        Column("appliance.fault", Kind.TEXT, ["E01", "E02"]),
        Column("appliance.heating", Kind.BOOLEAN, [True, False]),
        Column("device.serial", Kind.BYTES, [bytes(16), b"\xff" * 16]),
        Column("location.area", Kind.POSITION, [(-90, 180), (0, -17)], Quantum(1, 100)),
        Column("connection.network", Kind.TEXT, ["192.0.2.0/24", "192.0.2.0/24"]),
    )
    table = Table(PSEUDONYM, [START_MS, START_MS + 1], columns)
    assert put(store, taken(HAND.batch(OURS.public, [table]))) == [Verdict.STORED]
    found = {
        (row.attribute, row.time_ms - START_MS): row.value
        for row in store.readings.rows("remote-diagnosis", 100)
    }
    assert found == {
        ("appliance.power", 0): Quantum(3, 7).value(-3),
        ("appliance.power", 1): Quantum(3, 7).value(2**53 + 1),
        ("appliance.starts", 0): 0,
        ("appliance.starts", 1): 2**62,
        ("appliance.fault", 0): "E01",
        ("appliance.fault", 1): "E02",
        ("appliance.heating", 0): True,
        ("appliance.heating", 1): False,
        ("device.serial", 0): bytes(16),
        ("device.serial", 1): b"\xff" * 16,
        ("location.area", 0): (-0.9, 1.8),
        ("location.area", 1): (0.0, -0.17),
        ("connection.network", 0): "192.0.2.0/24",
        ("connection.network", 1): "192.0.2.0/24",
    }


def test_readings_of_one_instant_are_all_kept(store: Store) -> None:
    events = Column("appliance.fault", Kind.TEXT, ["E01", "E02", "E03"])
    again = Column("appliance.fault", Kind.TEXT, ["E02"])
    tables = [
        Table(PSEUDONYM, [START_MS, START_MS, START_MS + 1], (events,)),
        Table(PSEUDONYM, [START_MS], (again,)),
        Table(PSEUDONYM, [START_MS], (again,)),
    ]
    assert put(store, taken(HAND.batch(OURS.public, tables))) == [Verdict.STORED]
    assert values(store) == ["E01", "E02", "E02", "E02", "E03"]


def test_readings_of_one_second_keep_their_order_across_batches(store: Store) -> None:
    def batch(sequence: int, *codes: str) -> Taken:
        events = Column("appliance.fault", Kind.TEXT, list(codes))
        table = Table(PSEUDONYM, [START_MS] * len(codes), (events,))
        return taken(HAND.batch(OURS.public, [table], sequence=sequence))

    told = [("E01",), ("E03", "E02"), ("E01", "E02"), ("E03",)]
    for sequence, codes in enumerate(told):
        put(store, batch(sequence, *codes))
    rows = store._readings_db.execute("SELECT text FROM data ORDER BY time_ms, again").fetchall()
    assert [text for (text,) in rows] == [code for codes in told for code in codes]
    assert [row.value for row in store.readings.every("remote-diagnosis")] == [
        text for (text,) in rows
    ]


def test_the_same_batch_again_is_a_duplicate_and_stored_once(store: Store) -> None:
    data = HAND.batch(OURS.public, power())
    assert put(store, taken(data), taken(data)) == [Verdict.STORED, Verdict.DUPLICATE]
    assert put(store, taken(data)) == [Verdict.DUPLICATE]
    assert values(store) == [100.0, 100.1, 100.2]
    assert store.custody.counters() == {"duplicate": 2, "stored": 1}


def test_another_batch_of_the_same_number_is_a_fork_and_quarantined(store: Store) -> None:
    put(store, taken(HAND.batch(OURS.public, power(1))))
    (settled,) = store.put([taken(HAND.batch(OURS.public, power(2)))])
    assert settled.verdict is Verdict.REFUSED
    assert isinstance(settled.outcome, Rejected)
    assert settled.outcome.refused is not None
    assert settled.outcome.refused.reason is RefusalReason.FORK
    assert not settled.outcome.refused.retry
    assert values(store) == [100.0]
    (entry,) = store.custody.quarantined(10)
    assert (entry.reason, entry.mailbox, entry.received_ms) == ("fork", HAND.mailbox, NOW_MS)


def test_two_gateways_may_use_the_same_stream_and_number(store: Store) -> None:
    first = taken(HAND.batch(OURS.public, power(1)))
    second = taken(OTHER.batch(OURS.public, power(1)), OTHER)
    assert put(store, first, second) == [Verdict.STORED, Verdict.STORED]


def test_a_stream_does_not_change_its_flow(store: Store) -> None:
    put(store, taken(HAND.batch(OURS.public, power(1))))
    other = HAND.batch(OURS.public, power(1), flow="product-improvement", sequence=1)
    (settled,) = store.put([taken(other)])
    assert isinstance(settled.outcome, Rejected)
    assert settled.outcome.reason is Reason.STREAM_OF_ANOTHER_FLOW


def test_a_stream_with_too_many_holes_is_told_to_wait(store: Store) -> None:
    full = Position(0, tuple((n, n) for n in range(2, 2 * MAX_RANGES + 2, 2)))
    accepted = taken(HAND.batch(OURS.public, power(1), sequence=2)).outcome
    assert isinstance(accepted, Accepted)
    put(store, taken(HAND.batch(OURS.public, power(1), sequence=5000)))
    with store.changing():
        store._custody_db.execute(
            "UPDATE streams SET ranges = ?", (str([list(one) for one in full.ranges]),)
        )
    hole = HAND.batch(OURS.public, power(1), sequence=9_000)
    (settled,) = store.put([taken(hole)])
    assert isinstance(settled.outcome, Rejected)
    assert settled.outcome.reason is Reason.TOO_MANY_HOLES
    assert settled.outcome.refused is not None
    assert settled.outcome.refused.retry
    assert put(store, taken(HAND.batch(OURS.public, power(1), sequence=1))) == [Verdict.STORED]


def test_sequences_out_of_order_fill_their_holes(store: Store) -> None:
    for sequence in (3, 0, 1):
        put(store, taken(HAND.batch(OURS.public, power(1), sequence=sequence)))
    assert position(store) == Position(2, ((3, 3),))


@pytest.mark.clause("C03")
def test_what_is_refused_leaves_no_row_under_any_terms(store: Store) -> None:
    data = HAND.batch(OURS.public, power(), terms=bytes(32))
    assert put(store, taken(data)) == [Verdict.REFUSED]
    assert values(store) == []
    assert position(store) is None
    assert put(store, taken(HAND.batch(OURS.public, power()))) == [Verdict.STORED]
    assert len(values(store)) == 3


def test_quarantine_keeps_the_bytes_up_to_the_size_of_a_message(store: Store) -> None:
    long = bytes(MAX_MESSAGE + 1)
    put(store, taken(b"\x01\x02\x03"), taken(long))
    kept = store._custody_db.execute("SELECT data, size FROM quarantine ORDER BY id").fetchall()
    assert kept == [(b"\x01\x02\x03", 3), (long[:-1], MAX_MESSAGE + 1)]


@pytest.mark.parametrize(
    ("limit", "most", "left"),
    [("MAX_QUARANTINED", 3, 3), ("MAX_QUARANTINED_BYTES", 350, 3)],
    ids=["by number", "by bytes"],
)
def test_quarantine_is_bounded_and_the_oldest_go_first(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, left: int
) -> None:
    monkeypatch.setattr(custody, limit, most)
    for at in range(10):
        put(store, taken(bytes([at]) * 100, at_ms=at))
    assert [one.received_ms for one in store.custody.quarantined(100)] == [9, 8, 7][:left]
    assert store.custody.counters()["refused malformed"] == 10


def test_a_status_is_recorded_with_its_gateway(store: Store) -> None:
    row = Row(HAND.mailbox, HAND.sign.public.encode(), HAND.seal.public.encode(), 1)
    with store.changing() as open_custody:
        open_custody.admit(row)
    told = Told(HAND.gateway, Status("example-appliances", 17))
    assert put(store, Taken(told, b"", NOW_MS)) == [Verdict.NOTED]
    known = store.custody.gateway(HAND.mailbox)
    assert known is not None
    assert (known.policy_id, known.policy_serial, known.format, known.status_ms) == (
        "example-appliances",
        17,
        1,
        NOW_MS,
    )


def test_a_mailbox_or_key_that_is_taken_is_refused(store: Store) -> None:
    row = Row(HAND.mailbox, HAND.sign.public.encode(), HAND.seal.public.encode(), 1)
    theft = Row(HAND.mailbox, OTHER.sign.public.encode(), OTHER.seal.public.encode(), 2)
    borrowed = Row(OTHER.mailbox, HAND.sign.public.encode(), OTHER.seal.public.encode(), 2)
    with store.changing() as open_custody:
        open_custody.admit(row)
        open_custody.admit(row)
    for bad in (theft, borrowed):
        with pytest.raises(RefusedError), store.changing() as open_custody:
            open_custody.admit(bad)
    assert store.custody.gateways() == [row]


def unstorable() -> Accepted:
    """An accepted batch that SQLite cannot take: an integer of more than 64 bits."""
    outcome = taken(HAND.batch(OURS.public, power(1), stream=7)).outcome
    assert isinstance(outcome, Accepted)
    table = Table(PSEUDONYM, [2**70], (Column("appliance.power", Kind.NUMBER, [1], TENTH),))
    return Accepted(outcome.gateway, replace(outcome.opened, tables=(table,)))


def test_a_message_that_cannot_be_stored_takes_no_other_with_it(store: Store) -> None:
    poison = Taken(unstorable(), b"poison", NOW_MS)
    before = taken(HAND.batch(OURS.public, power(1)))
    behind = taken(HAND.batch(OURS.public, power(1), sequence=1))
    verdicts = put(store, before, poison, behind)
    assert verdicts == [Verdict.STORED, Verdict.REFUSED, Verdict.STORED]
    assert [one.reason for one in store.custody.quarantined(10)] == ["unstorable"]
    assert position(store) == Position(2)
    assert position(store, 7) is None
    assert len(values(store)) == 2


@pytest.mark.parametrize("place", ["readings", "asides"])
def test_a_machine_without_means_says_nothing_about_a_batch(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """No file more; or no memory, not even to lay a batch aside."""
    one = taken(HAND.batch(OURS.public, power(1)))
    error = OSError("no more files") if place == "readings" else MemoryError()
    with monkeypatch.context() as patch:
        patch.setattr(store.readings, "put", raising(error))
        patch.setattr(store.asides, "lay", raising(error))
        with pytest.raises(StoreError):
            store.put([one])
    assert store.custody.counters() == {}
    assert put(store, one) == [Verdict.STORED]


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (OverflowError(), "unstorable", False),
        (sqlite3.DataError(), "unstorable", False),
        (UnicodeEncodeError("utf-8", "", 0, 1, ""), "unstorable", False),
        (ValueError(), "internal", True),
        (sqlite3.ProgrammingError(), "internal", True),
        (sqlite3.IntegrityError(), "internal", True),
        (AssertionError(), "internal", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_what_a_batch_holds_ends_it_for_its_gateway(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, again: bool
) -> None:
    monkeypatch.setattr(store.readings, "put", raising(error))
    (settled,) = store.put([taken(HAND.batch(OURS.public, power(1)))])
    assert isinstance(settled.outcome, Rejected)
    assert settled.outcome.reason.value == reason
    assert settled.outcome.refused is not None
    assert settled.outcome.refused.retry is again


def raising(error: Exception) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise error

    return fails


def test_a_disk_that_is_full_stores_nothing_and_raises(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, taken(HAND.batch(OURS.public, power(1))))
    pages = store._readings_db.execute("PRAGMA page_count").fetchone()[0]
    store._readings_db.execute(f"PRAGMA max_page_count = {pages}")
    many = taken(HAND.batch(OURS.public, power(5000), sequence=1))
    with pytest.raises(StoreError):
        store.put([many])
    assert position(store) == Position(1)
    assert store.custody.quarantined(10) == []
    store._readings_db.execute("PRAGMA max_page_count = 1000000")
    assert put(store, many) == [Verdict.STORED]
    assert len(values(store)) == 5001
    store.close()


class Torn(sqlite3.Connection):
    """A connection whose next COMMIT fails."""

    fails = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.fails and sql == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)


def test_readings_whose_custody_was_not_committed_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, factory=Torn, **k))
    store = Store(tmp_path)
    put(store, taken(HAND.batch(OURS.public, power(1))))
    torn = store._custody_db
    assert isinstance(torn, Torn)
    torn.fails = True
    lost = taken(HAND.batch(OURS.public, power(2, first_ms=START_MS + 9000), sequence=1))
    with pytest.raises(StoreError):
        store.put([lost])
    # The fault did strike between the two commits.
    assert len(values(store)) == 3
    torn.fails = False
    assert put(store, lost) == [Verdict.STORED]
    assert len(values(store)) == 3
    assert store.custody.counters() == {"stored": 2}
    store.close()


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from assent.backend.store import files as room
    from assent.backend.store import Store
    from tests.backend import test_store as t

    class Killed(t.Torn):
        def execute(self, sql, *parameters):
            if sql == "COMMIT" and KILL.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(sql, *parameters)

    root = Path(sys.argv[1])
    KILL = root / "kill"
    store = Store(root)
    real = room.sqlite3.connect
    store._custody_db.close()
    room.sqlite3.connect = lambda *a, **k: real(*a, factory=Killed, **k)
    store._custody_db = room.connect(root / "custody.db")
    store.custody._db = store.waiting._db = store.asides._db = store._custody_db
    KILL.touch()
    store.put([t.taken((root / "batch").read_bytes(), t.HAND)])
"""


def test_a_kill_between_the_two_commits_leaves_nothing_twice(tmp_path: Path) -> None:
    """The process of the kill judges with keys of its own, so that its batch is made there."""
    code = textwrap.dedent(KILLED).replace(
        't.taken((root / "batch").read_bytes(), t.HAND)',
        "t.taken(t.HAND.batch(t.OURS.public, t.power()))",
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    raw = sqlite3.connect(tmp_path / "store.db")
    assert raw.execute("SELECT count(*) FROM reading").fetchone() == (3,)
    raw.close()
    store = Store(tmp_path)
    assert values(store) == []
    assert store.custody.counters() == {}
    assert put(store, taken(HAND.batch(OURS.public, power()))) == [Verdict.STORED]
    assert len(values(store)) == 3
    store.close()


def test_looking_at_a_store_changes_nothing_while_another_writes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, taken(HAND.batch(OURS.public, power())))
    looking = Store(tmp_path, writable=False)
    put(store, taken(HAND.batch(OURS.public, power(), sequence=1)))
    assert looking.readings.flows() == [("remote-diagnosis", 1, 6)]
    with pytest.raises(StoreError):
        looking.put([taken(HAND.batch(OURS.public, power(), sequence=2))])
    looking.close()
    store.close()


def test_a_second_opener_does_not_take_back_what_is_being_committed(tmp_path: Path) -> None:
    """`admit` opens the store while the subscriber is between its two commits."""
    writer = Store(tmp_path)
    put(writer, taken(HAND.batch(OURS.public, power(1))))
    assert writer.readings.unsettled() != []
    Store(tmp_path).close()
    assert len(values(writer)) == 1
    writer.close()


def test_a_store_that_is_none_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store yet"):
        Store(tmp_path, writable=False)
    (tmp_path / "store.db").write_bytes(b"no database " * 1000)
    for writable in (True, False):
        with pytest.raises(StoreError, match="file is not a database"):
            Store(tmp_path, writable=writable)


def test_both_files_are_closed_to_others(tmp_path: Path) -> None:
    Store(tmp_path).close()
    for name in ("store.db", "custody.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def dump(path: Path) -> str:
    with sqlite3.connect(path) as raw:
        found = "\n".join(raw.iterdump())
    raw.close()
    return found.lower()


@pytest.mark.clause("C10")
def test_the_data_hold_nothing_that_joins_two_flows_or_names_a_gateway(store: Store) -> None:
    stream = 0xC0FFEE_C0FFEE
    group: list[Taken] = []
    for sequence in range(40):
        flow = ("remote-diagnosis", "product-improvement")[sequence % 2]
        tables = power(1, first_ms=START_MS + sequence * 900_000, device=bytes([sequence % 2]) * 16)
        batch = HAND.batch(
            OURS.public, tables, flow=flow, stream=stream + sequence % 2, sequence=sequence // 2
        )
        group.append(taken(batch))
    assert set(put(store, *group)) == {Verdict.STORED}
    store.rest()
    path = Path(store._readings_db.execute("PRAGMA database_list").fetchone()[2])
    text = dump(path)
    planted = [HAND.mailbox, HAND.sign.public.thumbprint.hex(), HAND.sign.public.kid.hex()]
    planted += [stream.to_bytes(8, "big").hex(), str(stream), str(NOW_MS)]
    assert [one for one in planted if one in text] == []
    # The same search finds them where they belong.
    kept = dump(path.with_name("custody.db"))
    assert HAND.mailbox in kept
    assert stream.to_bytes(8, "big").hex() in kept
    assert HAND.sign.public.thumbprint.hex() in kept

    raw = store._readings_db
    references = [row[0] for row in raw.execute("SELECT batch_ref FROM reading")]
    assert len(set(references)) == 40
    assert {len(one) for one in references} == {16}
    # Neither the order of rows nor a row number keeps the order in which batches came.
    flows = [row[0] for row in raw.execute("SELECT flow FROM reading JOIN series USING (series)")]
    assert flows != ["remote-diagnosis", "product-improvement"] * 20
    numbers = [row[0] for row in raw.execute("SELECT series FROM series")]
    assert len(numbers) == 2
    assert min(numbers) > 2**32  # random 62 bits are below once in a thousand million
    for table in ("reading", "terms", "unsettled"):
        with pytest.raises(sqlite3.OperationalError, match="rowid"):
            raw.execute(f"SELECT rowid FROM {table}")
    assert raw.execute("SELECT count(*) FROM unsettled").fetchone() == (0,)


def test_published_terms_lie_beside_the_rows(store: Store) -> None:
    store.publish(offers().values())
    store.publish(offers().values())
    rows = store._readings_db.execute("SELECT flow, hash, encoded, policy_serial FROM terms")
    found = {row[0]: row[1:] for row in rows}
    assert found.keys() == offers().keys()
    for flow, offer in offers().items():
        assert found[flow] == (offer.terms.hash, offer.terms.encode(), 17)


CHOICES = [(sequence, rows) for sequence in range(5) for rows in (1, 2)]
BATCHES = {
    choice: taken(HAND.batch(OURS.public, power(choice[1]), sequence=choice[0]))
    for choice in CHOICES
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.sampled_from(CHOICES), max_size=6), max_size=5))
def test_any_arrivals_store_the_first_of_each_number_once(
    groups: list[list[tuple[int, int]]],
) -> None:
    first: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory))
        for group in groups:
            verdicts = put(store, *(BATCHES[choice] for choice in group))
            for (sequence, rows), verdict in zip(group, verdicts, strict=True):
                if sequence not in first:
                    first[sequence] = rows
                    assert verdict is Verdict.STORED
                elif first[sequence] == rows:
                    assert verdict is Verdict.DUPLICATE
                else:
                    assert verdict is Verdict.REFUSED
        assert len(values(store)) == sum(first.values())
        held = position(store) or Position()
        assert {n for n in range(6) if held.holds(n)} == set(first)
        store.close()


def outcomes(settled: list[Settled]) -> list[Outcome]:
    return [one.outcome for one in settled]


def test_verdicts_come_in_the_order_of_the_messages(store: Store) -> None:
    group = [
        taken(HAND.batch(OURS.public, power(1), sequence=n) if n % 3 else b"junk") for n in range(9)
    ]
    settled = store.put(group)
    assert outcomes(settled) == [one.outcome for one in group]
