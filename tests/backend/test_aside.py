# SPDX-License-Identifier: Apache-2.0
"""What can be neither stored nor refused, for a lack of ours, is laid aside and stops nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.backend.acknowledge import Acknowledger
from assent.backend.ingest import Desk, judge
from assent.backend.outcomes import DecayedError, Gateway
from assent.backend.proof import gaps
from assent.backend.report import aside as shown_aside
from assent.backend.store import Store, Taken, Verdict, aside
from assent.backend.store.positions import Position
from assent.backend.store.readings import Bundle
from assent.cosekey import SigningKey
from tests.backend.parts import NOW_MS, START_MS, power
from tests.backend.test_store import DESK, HAND, OTHER, OURS, position, put, taken, values

FLOW = "remote-diagnosis"
DECAYS = {
    "nothing": "ranges = ''",
    "half a row": "ranges = '[[5, 6'",
    "no list": "ranges = '{}'",
    "none": "ranges = 'null'",
    "a number": "ranges = 7",
    "no ranges": "ranges = '[1, 2]'",
    "words": """ranges = '["ab"]'""",
    "a range backwards": "ranges = '[[6, 5]]'",
    "ranges that touch": "ranges = '[[3, 4], [5, 6]]'",
    "a range at the watermark": "ranges = '[[1, 4]]'",
    "bytes that are no text": "ranges = CAST(x'5b5bff5d' AS TEXT)",
    "a negative watermark": "watermark = -1",
    "no watermark": "watermark = 'x'",
    "another flow": "flow = 'product-improvement'",
    "a flow that is no text": "flow = CAST(x'72ff' AS TEXT)",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def batch(sequence: int, *, stream: int = 1, rows: int = 1) -> bytes:
    first_ms = START_MS + sequence * 100_000
    tables = power(rows, first_ms=first_ms)
    return HAND.batch(OURS.public, tables, stream=stream, sequence=sequence)


def decay(store: Store, how: str = "ranges = ''", stream: int = 1) -> None:
    with store.changing():
        changed = store._custody_db.execute(
            f"UPDATE streams SET {how} WHERE stream = ?", (stream.to_bytes(8, "big"),)
        )
    assert changed.rowcount == 1


def mend(store: Store, watermark: int = 1) -> None:
    decay(store, f"watermark = {watermark}, ranges = '[]', flow = '{FLOW}'")


def laid(store: Store) -> list[tuple[object, ...]]:
    """What `show DIR aside` says, without mailbox and time."""
    return [row[1:5] for row in shown_aside(store, None, 50).rows]


@pytest.mark.parametrize("how", DECAYS.values(), ids=DECAYS.keys())
def test_a_stream_whose_row_has_decayed_waits_and_takes_no_other_with_it(
    store: Store, how: str
) -> None:
    """Red when its batches are judged by that row: refused for good, or the whole group fails."""
    put(store, taken(batch(0)))
    decay(store, how)
    new = taken(batch(1))
    verdicts = put(store, taken(batch(0, stream=2)), new, taken(batch(1, stream=2)))
    assert verdicts == [Verdict.STORED, Verdict.ASIDE, Verdict.STORED]
    assert laid(store) == [(FLOW, f"{1:016x}", "unreadable-record", 1)]
    assert put(store, new) == [Verdict.ASIDE]  # it comes again, and lies here once
    assert store.custody.counters() == {"aside": 1, "stored": 3}
    assert store.custody.quarantined(10) == []
    mend(store)
    assert put(store, new) == [Verdict.STORED]
    assert laid(store) == []
    assert position(store) == Position(2)
    assert len(values(store)) == 4


def test_what_is_stored_of_a_decayed_stream_is_known_and_nothing_is_told_of_it(
    store: Store,
) -> None:
    key = SigningKey.generate()

    def found(signer: bytes, stream: int) -> Position:
        return (store.custody.position(signer, stream) or ("", Position()))[1]

    acknowledger = Acknowledger(key, found)
    old, new = taken(batch(0)), taken(batch(1))
    put(store, old)
    decay(store)
    acknowledger.note(store.put([old, new, taken(batch(0, stream=2))]))
    assert store.custody.counters() == {"aside": 1, "duplicate": 1, "stored": 2}
    (letter,) = acknowledger.letters(0.0)
    (ack,) = HAND.acknowledgement(letter.data, key.public).streams
    assert (ack.stream, ack.watermark, ack.refused) == (2, 1, ())
    mend(store)
    acknowledger.note(store.put([old, new]))
    (letter,) = acknowledger.letters(10.0)
    (ack,) = HAND.acknowledgement(letter.data, key.public).streams
    assert (ack.stream, ack.watermark) == (1, 2)


@pytest.mark.parametrize("value", ["'text'", "7"])
def test_what_decays_here_too_is_left_to_its_gateway(store: Store, value: str) -> None:
    """Red where it is given out: the connection ends at every start."""
    put(store, taken(batch(0)), taken(batch(0, stream=2)))
    decay(store)
    decay(store, stream=2)
    new = taken(batch(1, stream=2))
    put(store, taken(batch(1)), new)
    with store.changing():
        store._custody_db.execute(f"UPDATE aside SET data = {value} WHERE id = 1")
    assert [one.data for one in store.asides.after(0, 64)] == [new.data]


def test_a_gateway_whose_keys_have_decayed_is_not_refused(store: Store) -> None:
    """Red when it is: its good batches go to quarantine as malformed."""

    def unreadable(_mailbox: str) -> Gateway | None:
        raise DecayedError("an unreadable key")

    data = batch(0)
    desk = Desk("maker", {OURS.kid: OURS}, DESK.offers, unreadable)
    (settled,) = store.put([Taken(judge(HAND.topic, data, desk), data, NOW_MS)])
    assert settled.verdict is Verdict.ASIDE
    assert laid(store) == [(None, None, "unreadable-record", 1)]
    assert put(store, taken(data)) == [Verdict.STORED]
    assert laid(store) == []


def test_a_batch_for_which_memory_runs_out_takes_no_other_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when it is the disk's trouble: the group comes again, and again, for ever."""
    large = taken(batch(1, rows=5))
    real = store.readings.put

    def scarce(bundle: Bundle) -> None:
        if len(bundle.tables[0].times) == 5:
            raise MemoryError
        real(bundle)

    with monkeypatch.context() as patch:
        patch.setattr(store.readings, "put", scarce)
        group = [taken(batch(0)), large, taken(batch(2))]
        assert put(store, *group) == [Verdict.STORED, Verdict.ASIDE, Verdict.STORED]
        assert put(store, *group) == [Verdict.DUPLICATE, Verdict.ASIDE, Verdict.DUPLICATE]
    assert laid(store) == [(FLOW, f"{1:016x}", "no-memory", 1)]
    assert position(store) == Position(1, ((2, 2),))
    assert put(store, large) == [Verdict.STORED]
    assert laid(store) == []
    assert position(store) == Position(3)


# A machine with less memory than a batch takes that is within every limit of the wire; it is made
# in another process, which leaves no memory behind.
SMALL = """
import os, resource, sys
from pathlib import Path
from assent.backend.store import Store
from tests.backend import test_aside as t

ours, theirs = os.pipe()
if not os.fork():
    os.write(theirs, t.HAND.batch(t.OURS.public, t.power(240_000), sequence=1))
    os._exit(0)
large, store = os.read(ours, 100_000), Store(Path(sys.argv[1]))
told = t.put(store, t.taken(t.batch(0)))
pages = int(Path("/proc/self/statm").read_text().split()[0])
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4_000_000, hard))
told += t.put(store, t.taken(large), t.taken(t.batch(2)))
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(t.laid(store), store.custody.quarantined(9))
told += t.put(store, t.taken(large))
print(*(one.value for one in told), t.laid(store))
store.close()
"""


def test_a_batch_that_is_too_large_for_this_machine_is_judged_by_a_larger_one(
    tmp_path: Path,
) -> None:
    """Red when it is refused by a machine that cannot read it."""
    words = [sys.executable, "-c", SMALL, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[(None, None, 'no-memory', 1)] []",
        "stored aside stored refused []",  # of its flow, a batch has 10,000 readings at most
    ], done.stderr


def test_what_is_laid_aside_is_bounded_and_what_finds_no_room_is_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, taken(batch(0)), taken(batch(0, stream=2)))
    decay(store)
    monkeypatch.setattr(aside, "MAX_ROWS", 2)
    batches = [taken(batch(number)) for number in (1, 2, 3)]
    assert put(store, *batches) == [Verdict.ASIDE] * 3
    assert put(store, batches[0]) == [Verdict.ASIDE]
    assert laid(store) == [(FLOW, f"{1:016x}", "unreadable-record", 2)]
    assert store.custody.counters()["aside without room"] == 1
    assert store.custody.quarantined(10) == []


@pytest.mark.parametrize("text", ["[[", "[[1]]", "[[1, 2, 99, 0, 0, 0, 0, 0]]", "[7]"])
def test_gaps_that_cannot_be_read_are_a_sentence(store: Store, text: str) -> None:
    put(store, taken(batch(0)))
    with store.changing():
        store._custody_db.execute("UPDATE custody SET gaps = ?", (text,))
    with pytest.raises(DecayedError, match=f"unreadable gaps in custody: {FLOW}"):
        gaps(store, None, NOW_MS, {})
    assert gaps(store, "product-improvement", NOW_MS, {}).json() == []


@pytest.mark.parametrize("how", ["ranges = ''", "watermark = -1", "flow = 'x'"])
def test_a_flow_with_a_stream_that_cannot_be_read_is_proven_on_no_day(
    store: Store, how: str
) -> None:
    """Red as a fault of the report, and where such a stream counts as one without holes."""
    put(store, taken(batch(0)), taken(batch(1)), taken(OTHER.batch(OURS.public, power(1)), OTHER))
    day_after = START_MS + 2 * 86_400_000
    last = HAND.batch(OURS.public, power(1, first_ms=day_after), sequence=2)
    put(store, taken(last, at_ms=day_after))

    def told() -> tuple[bool, dict[object, set[object]]]:
        report = gaps(store, FLOW, day_after + 1_000, {})
        states: dict[object, set[object]] = {}
        for row in report.json():
            assert isinstance(row, dict)
            states.setdefault(row["mailbox"], set()).add(row["state"])
        assert any("unreadable" in line for line in report.lines()) == report.doubtful
        return report.doubtful, states

    doubtful, states = told()
    assert not doubtful
    assert "complete" in states[HAND.mailbox]
    before = states[OTHER.mailbox]
    with store.changing():
        store._custody_db.execute(
            f"UPDATE streams SET {how} WHERE signer = ?", (HAND.sign.public.thumbprint,)
        )
    doubtful, states = told()
    assert doubtful
    assert states == {HAND.mailbox: {"unreadable"}, OTHER.mailbox: before}
