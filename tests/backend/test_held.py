# SPDX-License-Identifier: Apache-2.0
"""Batches that count from a boot: kept, acknowledged, and in the data once it is known when."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.backend.acknowledge import Acknowledger
from assent.backend.export import json_lines
from assent.backend.ingest import judge
from assent.backend.outcomes import Accepted
from assent.backend.report import data as data_report
from assent.backend.report import held as held_report
from assent.backend.store import Store, Taken, Verdict
from assent.backend.store.positions import Position
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import ClockQuality, Gap, GapCause
from assent.messages import up_topic
from tests.backend.parts import NOW_MS, START_MS, Hand, desk, power

OURS = SealPrivateKey.generate(classical=True)
HAND, OTHER = Hand.make(), Hand.make()
DESK = desk([HAND, OTHER], OURS)
FLOW, HELD, OPEN = "remote-diagnosis", 7, 8
BEGAN_MS = START_MS - 600_123


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def held(sequence: int = 0, hand: Hand = HAND, *, first_ms: int = 20_000) -> bytes:
    """Readings twenty seconds after a boot."""
    tables = power(3, first_ms=first_ms + sequence * 10_000)
    clock = ClockQuality.UNTRUSTED
    return hand.batch(OURS.public, tables, stream=HELD, sequence=sequence, clock=clock)


def word(
    low: int = BEGAN_MS, high: int | None = None, hand: Hand = HAND, *, sequence: int = 0
) -> bytes:
    """A later batch that says when the boot began."""
    gap = Gap(3, HELD, GapCause.BOOT, low, low if high is None else high, 0)
    return hand.batch(OURS.public, power(1), stream=OPEN, sequence=sequence, gaps=(gap,))


def put(store: Store, *batches: bytes, hand: Hand = HAND) -> list[Verdict]:
    group = [Taken(judge(hand.topic, data, DESK), data, NOW_MS) for data in batches]
    return [one.verdict for one in store.put(group)]


def release(store: Store) -> int:
    """As the subscriber does after a commit."""
    due = store.waiting.due(100)
    for one in due:
        accepted = judge(up_topic(one.mailbox), one.data, DESK)
        assert isinstance(accepted, Accepted)
        store.release(one, accepted)
    return len(due)


def instants(store: Store) -> list[int]:
    """When what was held was, as the data say."""
    rows = store.readings.rows(FLOW, 1_000)
    return sorted(row.time_ms for row in rows if row.time_ms < START_MS)


def placed(count: int) -> list[int]:
    """Whole seconds, from the boot's beginning on."""
    wanted = [
        BEGAN_MS + 20_000 + n * 10_000 + row * 1_000 for n in range(count) for row in range(3)
    ]
    return [-(-ms // 1_000) * 1_000 for ms in wanted]


@pytest.mark.parametrize("order", ["before", "after", "with"])
def test_a_held_batch_is_in_the_data_when_the_word_about_its_boot_came(
    store: Store, order: str
) -> None:
    if order == "before":
        assert put(store, word()) == [Verdict.STORED]
        assert put(store, held()) == [Verdict.HELD]
    elif order == "after":
        assert put(store, held()) == [Verdict.HELD]
        assert (release(store), instants(store)) == (0, [])
        assert put(store, word()) == [Verdict.STORED]
    else:
        assert put(store, word(), held()) == [Verdict.STORED, Verdict.HELD]
    assert release(store) == 1
    assert instants(store) == placed(1)
    assert (release(store), instants(store)) == (0, placed(1))
    assert store.custody.counters() == {"held": 1, "stored": 2}


def test_it_is_acknowledged_while_it_waits_and_known_when_it_comes_again(store: Store) -> None:
    key = SigningKey.generate()
    acknowledger = Acknowledger(
        key, lambda *at: (store.custody.position(*at) or ("", Position()))[1]
    )
    data = held()
    acknowledger.note(store.put([Taken(judge(HAND.topic, data, DESK), data, NOW_MS)]))
    (letter,) = acknowledger.letters(0.0)
    (ack,) = HAND.acknowledgement(letter.data, key.public).streams
    assert (ack.stream, ack.watermark) == (HELD, 1)
    assert put(store, data) == [Verdict.DUPLICATE]
    put(store, word())
    release(store)
    assert put(store, data) == [Verdict.DUPLICATE]
    assert instants(store) == placed(1)


def test_another_batch_under_its_number_is_a_fork_while_it_waits(store: Store) -> None:
    put(store, held())
    assert put(store, held(first_ms=30_000)) == [Verdict.REFUSED]


def test_a_boot_between_bounds_is_told_with_them(store: Store) -> None:
    put(store, held(), word(BEGAN_MS, BEGAN_MS + 3_600_000))
    release(store)
    assert instants(store) == placed(1)
    within = {row.time_ms < START_MS: row.within_ms for row in store.readings.rows(FLOW, 100)}
    assert within == {True: 3_600_000, False: 0}
    lines = [json.loads(line) for line in json_lines(store.readings, FLOW)]
    assert sorted(line["within_ms"] for line in lines) == [0, 3_600_000, 3_600_000, 3_600_000]
    shown = data_report(store, FLOW, 10)
    assert {row[shown.head.index("within_ms")] for row in shown.rows} == {0, 3_600_000}


def test_the_first_word_about_a_stream_counts(store: Store) -> None:
    put(store, held(), word(), word(BEGAN_MS - 60_000, sequence=1))
    release(store)
    assert instants(store) == placed(1)


def test_the_word_of_another_gateway_says_nothing(store: Store) -> None:
    put(store, held())
    put(store, word(hand=OTHER), hand=OTHER)
    assert (release(store), instants(store)) == (0, [])
    put(store, held(hand=OTHER), hand=OTHER)
    assert release(store) == 1


def test_a_word_that_leads_out_of_the_calendar_leaves_it_where_it_is(store: Store) -> None:
    put(store, held(), word(253_402_300_799_999))
    release(store)
    assert instants(store) == []
    assert store.waiting.counted(None) == [(HAND.mailbox, FLOW, 1, 3, NOW_MS)]


@pytest.mark.parametrize(
    "decayed",
    ["boots SET low_ms = x'00'", "boots SET high_ms = 'x'", "waiting SET data = 7"],
)
def test_a_row_that_has_decayed_leaves_it_where_it_is_and_holds_nobody_up(
    store: Store, decayed: str
) -> None:
    """Red where it is given out: no other is released any more, and the connection ends."""
    put(store, held(), word())
    with store.changing():
        assert store._custody_db.execute(f"UPDATE {decayed}").rowcount == 1
    theirs = [held(hand=OTHER), word(hand=OTHER)]
    assert put(store, *theirs, hand=OTHER) == [Verdict.HELD, Verdict.STORED]
    assert release(store) == 1
    assert store.custody.counters() == {"held": 2, "stored": 3}
    assert [row[:3] for row in held_report(store, None, 50).rows] == [(HAND.mailbox, FLOW, 1)]


def test_what_waits_is_counted_and_shown(store: Store) -> None:
    put(store, held(0), held(1))
    assert held_report(store, None, 1).json() == [
        {
            "mailbox": HAND.mailbox,
            "flow": FLOW,
            "batches": 2,
            "readings": 6,
            "since": held_report(store, FLOW, 1).rows[0][4],
        }
    ]
    put(store, word())
    release(store)
    assert held_report(store, None, 1).rows == []


def test_a_stream_that_was_held_is_placed_in_custody_too(store: Store) -> None:
    put(store, held(0), held(1))
    spans = "SELECT first_ms, last_ms FROM custody WHERE stream = ? ORDER BY sequence"
    key = (HELD.to_bytes(8, "big"),)
    assert store._custody_db.execute(spans, key).fetchall() == [(None, None)] * 2
    put(store, word())
    release(store)
    first, second = placed(2)[:3], placed(2)[3:]
    assert store._custody_db.execute(spans, key).fetchall() == [
        (first[0], first[-1]),
        (second[0], second[-1]),
    ]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from assent.backend.store import Store, files
    from tests.backend import test_held as t

    COMMITS = 0

    class Killed(files.sqlite3.Connection):
        def execute(self, sql, *parameters):
            global COMMITS
            if sql == "COMMIT" and COMMITS is not None:
                if COMMITS == int(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
                COMMITS += 1
            return super().execute(sql, *parameters)

    root = Path(sys.argv[1])
    real = files.sqlite3.connect
    files.sqlite3.connect = lambda *a, **k: real(*a, factory=Killed, **k)
    COMMITS = None
    store = Store(root)
    store.put([
        t.Taken(t.judge(t.HAND.topic, data, t.DESK), data, t.NOW_MS) for data in (t.held(), t.word())
    ])
    COMMITS = 0
    (due,) = store.waiting.due(9)
    (root / "due").write_bytes(due.data)
    store.release(due, t.judge(t.HAND.topic, due.data, t.DESK))
"""


@pytest.mark.parametrize("commit", [0, 1], ids=["before the readings", "between the two commits"])
def test_a_kill_while_it_is_released_leaves_it_waiting_and_nothing_twice(
    tmp_path: Path, commit: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(commit)],
        capture_output=True,
    )
    assert done.returncode == -9, done.stderr.decode()
    raw = sqlite3.connect(tmp_path / "store.db")
    assert raw.execute("SELECT count(*) FROM reading").fetchone() == (1 + 3 * commit,)
    raw.close()
    store = Store(tmp_path)
    assert [row[2] for row in store.waiting.counted(None)] == [1]
    assert store.readings.flows() == [(FLOW, 1, 1)]
    (due,) = store.waiting.due(9)
    # The keys of the process that was killed are gone: the same readings, signed by another hand.
    accepted = judge(HAND.topic, held(), DESK)
    assert isinstance(accepted, Accepted)
    assert store.release(due, accepted)
    assert store.readings.flows() == [(FLOW, 1, 4)]
    assert store.waiting.counted(None) == []
    store.close()
