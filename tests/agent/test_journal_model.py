# SPDX-License-Identifier: Apache-2.0
"""The journal against a plain list, with a crash between any two steps and within any of them.

Readings are numbers; each is open, stored, or lost because it was never committed. Before every
crash something was committed that is not stored. The process dies, or the power goes, between any
two writes and syncs of a commit, of an erasure, of the recovery, and of the recovery after that.
"""

from __future__ import annotations

import copy
import random
import zlib
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from agent.journal import Journal, News, areas
from tests.agent.machines import (
    SEEDS,
    Machine,
    chosen,
    drop,
    is_found,
    lives,
    new_directory,
    too_few,
)
from tests.agent.test_journal import AT, counter, head, key, numbers_of, opened, rows
from tests.simulators.noted_disk import SECTOR, NotedDisk, Power, either, moments

FLOWS = ("service", "remote-diagnosis", "counted")
SMALL = 16 * 1_024
STEPS = ("commit", "put", "erase")
_MODEL = ("lanes", "next", "stored", "committed", "forgotten")


class Lane:
    """What is open, in the mind of a process; with a counter or without."""

    def __init__(self, flow: str, stream: int, *, counts: bool) -> None:
        self.flow = flow
        self.stream = stream
        self.counts = counts
        self.open: list[int] = []
        self.told = 0
        self.last = 0

    @property
    def memory(self) -> tuple[Any, ...]:
        return (counter(self.last),) if self.counts else ()


class JournalMachine(Machine):
    """One process after the other on one file."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = new_directory()
        self.path = self.directory / "journal"
        self.sealed: dict[tuple[bytes, int], bytes] = {}
        self._sealed = areas._sealed
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(areas, "_sealed", self.watch)
        self.patch.setattr(areas, "AREA", SMALL)
        self.disk = NotedDisk(self.directory)
        self.count_of_readings = self.streams = 0
        self.journal = opened(self.path)
        self.lanes: dict[str, Lane] = {}
        self.next: dict[int, int] = {}
        self.stored: dict[str, list[int]] = {flow: [] for flow in FLOWS}
        self.committed: dict[str, set[int]] = {flow: set() for flow in FLOWS}
        self.forgotten: set[int] = set()
        for flow in FLOWS:
            self.open_lane(flow)

    def watch(self, live: Any, number: int, record: bytes) -> bytes:
        # A number is used once with a key.
        assert self.sealed.setdefault((live.head, number), record) == record
        return self._sealed(live, number, record)

    def teardown(self) -> None:
        self.disk.close()
        self.patch.undo()
        drop(self.directory)

    @initialize(seed=st.integers(0, 2**32))
    def begin_by_dying(self, seed: int) -> None:
        """Every life has seen it all, whatever is chosen later."""
        chance = random.Random(seed)
        self.killed_within("commit", FLOWS[0], chance)  # while the file is made
        for step in chance.sample(STEPS, len(STEPS)):
            for flow in FLOWS:
                self.killed_within(step, flow, chance)

    # --- what a process does

    @rule(flow=st.sampled_from(FLOWS), many=st.integers(1, 40))
    def take(self, flow: str, many: int) -> None:
        lane = self.lanes[flow]
        if len(lane.open) > 300:
            self.put(flow, len(lane.open))
        first = self.count_of_readings + 1
        self.count_of_readings += many
        lane.open += range(first, first + many)
        lane.last = self.count_of_readings

    @rule()
    def commit(self) -> None:
        self.journal.commit([self.news(lane) for lane in self.lanes.values()])
        for lane in self.lanes.values():
            lane.told = len(lane.open)
            self.committed[lane.flow] |= set(lane.open)

    def news(self, lane: Lane) -> News:
        number = self.next[lane.stream]
        known = self.journal.number(lane.stream)
        told = lane.told if known == number else 0
        first = head(lane.stream, lane.flow) if known is None else None
        return News(lane.stream, number, AT, first, rows(*lane.open[told:]), lane.memory)

    @rule(flow=st.sampled_from(FLOWS), many=st.integers(1, 60))
    def put(self, flow: str, many: int) -> None:
        if self.lanes[flow].open:
            self.tell_of_put(flow, many)
            self.spool_takes(flow)

    def tell_of_put(self, flow: str, many: int) -> None:
        """The first half of a put: what is left of the lane is told under the next number."""
        lane = self.lanes[flow]
        self.taken, lane.open = lane.open[:many], lane.open[many:]
        lane.told = max(0, lane.told - many)
        if self.journal.holds(lane.stream):
            left = lane.open if lane.counts else lane.open[: lane.told]
            number = self.next[lane.stream] + 1
            self.journal.commit([News(lane.stream, number, AT, None, rows(*left), lane.memory)])
            if lane.counts:
                lane.told = len(lane.open)

    def spool_takes(self, flow: str) -> None:
        """The second half: the spool has it, and names the next number."""
        stream = self.lanes[flow].stream
        self.stored[flow] += self.taken
        self.next[stream] += 1
        self.journal.stored(stream, self.next[stream])

    @rule(flow=st.sampled_from(FLOWS))
    def erase(self, flow: str) -> None:
        self.forget(flow)
        self.journal.erase({flow})
        self.expect_erased(flow)
        self.committed[flow] = set()
        self.open_lane(flow)

    def forget(self, flow: str) -> None:
        """A no was said: it is in the ledger before anything is erased."""
        self.forgotten |= set(self.lanes[flow].open)
        self.forgotten |= self.committed[flow] - set(self.stored[flow])

    def open_lane(self, flow: str) -> None:
        self.streams += 1
        self.lanes[flow] = Lane(flow, self.streams, counts=flow == "counted")
        self.next[self.streams] = 0

    def expect_erased(self, flow: str) -> None:
        assert flow not in {part.head.flow for part in opened(self.path).parts()}
        live = areas.Areas(self.path, key).read()
        assert not any(flow.encode() in zlib.decompress(plain) for plain in live)

    # --- what ends it

    @rule(seed=st.integers(0, 2**32))
    def killed(self, seed: int) -> None:
        chance = random.Random(seed)
        self.make_due(chance)
        self.disk.mark()
        self.die(self.disk, 0, either(chance))
        self.recover(chance)

    @rule(step=st.sampled_from(STEPS), flow=st.sampled_from(FLOWS), seed=st.integers(0, 2**32))
    def killed_within_a_step(self, step: str, flow: str, seed: int) -> None:
        self.killed_within(step, flow, random.Random(seed))

    def killed_within(self, step: str, flow: str, chance: random.Random) -> None:
        """Dies at a few moments of a step, and goes on from the last of them."""
        self.make_due(chance)
        self.take(flow, chance.randint(1, 10))
        if step == "erase":
            self.forget(flow)
        before = self.remembered()
        self.disk.mark()
        if step == "commit":
            self.commit()
        elif step == "put":
            self.tell_of_put(flow, chance.randint(1, 2 * len(self.lanes[flow].open)))
        else:
            self.erase(flow)
        told = len(self.disk.steps)
        if step == "put":
            self.spool_takes(flow)
        after, disk = self.remembered(), self.disk
        for at, power in moments(disk, chance):
            # Of a put that was told, only the spool knows whether it happened.
            is_done = at == told and (step != "put" or chance.random() < 0.5)
            self.recall(after if is_done else before)
            self.die(disk, at, power)
            self.recover(chance, closed=flow if step == "erase" and not is_done else None)
            self.count(f"{step} torn", 0 < at < told)
            self.count(f"{step} done", is_done)

    @rule(at=st.integers(0, 2 * SMALL - 1), seed=st.integers(0, 2**32))
    def turn_a_bit(self, at: int, seed: int) -> None:
        self.commit()
        self.disk.mark()
        files = self.disk.left_at(0)
        raw = bytearray(files["journal"])
        raw[at] ^= 1 << (at % 8)
        self.lay({"journal": bytes(raw)})
        self.recover(random.Random(seed), may_lose=True)

    def make_due(self, chance: random.Random) -> None:
        """Something of each flow is committed and not stored."""
        for flow in FLOWS:
            self.take(flow, chance.randint(1, 10))
        self.commit()

    def die(self, disk: NotedDisk, at: int, power: Power) -> None:
        due = sum(len(self.due(flow)) for flow in FLOWS)
        self.count("crashes")
        self.count("crashes with something due", due > 0)
        self.count("readings due", due)
        self.lay(disk.left_at(at, power))

    def due(self, flow: str) -> set[int]:
        return self.committed[flow] - set(self.stored[flow])

    def lay(self, files: dict[str, bytes]) -> None:
        """What the next process finds."""
        self.disk.close()
        for file in self.directory.iterdir():
            file.unlink()
        for name, data in files.items():
            self.path.with_name(name).write_bytes(data)
        self.disk = NotedDisk(self.directory)

    def recover(
        self, chance: random.Random, *, closed: str | None = None, may_lose: bool = False
    ) -> None:
        """Another process takes up what lies there; it may die while it does."""
        before = self.remembered()
        self.take_up(closed=closed, may_lose=may_lose)
        while not may_lose and chance.random() < 0.5:
            at = chance.randint(0, len(self.disk.steps))
            if at < len(self.disk.steps):
                self.recall(before)
                self.count("recoveries torn", at > 0 and any(map(self.due, FLOWS)))
            else:
                closed = None
            self.die(self.disk, at, either(chance))
            before = self.remembered()
            self.take_up(closed=closed)

    def take_up(self, *, closed: str | None, may_lose: bool = False) -> None:
        self.journal = opened(self.path)
        parts = {part.head.stream: part for part in self.journal.parts()}
        states: dict[int, int] = {}
        for flow, lane in list(self.lanes.items()):
            part, number = parts.get(lane.stream), self.next[lane.stream]
            stored, due = set(self.stored[flow]), self.due(flow)
            if flow == closed:
                self.committed[flow] = set()
                self.open_lane(flow)
            elif part is None or number not in part.states:
                assert may_lose or not due, "what was committed is gone"
                self.open_lane(flow)
            else:
                found = numbers_of(part, number)
                assert len(found) == len(set(found)), "it is there twice"
                assert not stored & set(found), "it is stored, and is there still"
                assert not self.forgotten & set(found), "it was erased, and is there still"
                assert may_lose or due <= set(found), "what was committed is gone"
                if lane.counts:
                    (one,) = part.states[number].memory.values()
                    assert one.state[0] >= max(found, default=0)
                    lane.last = one.state[0]
                lane.open, lane.told = found, len(found)
                states[lane.stream] = number
            if may_lose:
                self.committed[flow] = set(self.lanes[flow].open) | stored
        self.journal.choose(states, parts.keys() - states.keys())
        if closed is not None:
            self.expect_erased(closed)
        self.commit()

    def remembered(self) -> dict[str, Any]:
        return copy.deepcopy({part: getattr(self, part) for part in _MODEL})

    def recall(self, model: dict[str, Any]) -> None:
        for part, value in copy.deepcopy(model).items():
            setattr(self, part, value)

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        for flow in FLOWS:
            assert len(self.stored[flow]) == len(set(self.stored[flow]))


JournalMachine.TestCase.settings = chosen(10, 20)
TestJournalModel = JournalMachine.TestCase

LEAST = {
    "crashes with something due": 300,
    "readings due": 4_000,
    "recoveries torn": 50,
    **{f"{step} torn": 30 for step in STEPS},
    **{f"{step} done": 20 for step in STEPS},
}
"""Times, or readings, in twelve lives."""


def test_the_machine_lives_and_dies() -> None:
    lives(JournalMachine, 12, 20)
    assert too_few(JournalMachine, LEAST) == {}


# What must be found, in the first moments of any life.


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_where_nothing_is_wrong(seed: int) -> None:
    assert not is_found(JournalMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_that_loses_the_last_commit_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_live = areas.Areas._find_live

    def careless(self: areas.Areas, file: int) -> bool:
        is_found = find_live(self, file)
        self._count = max(1, self._count - 1)
        return is_found

    monkeypatch.setattr(areas.Areas, "_find_live", careless)
    assert is_found(JournalMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_commit_that_returns_before_it_is_synced_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_to(self: areas.Areas, how: int, data: memoryview, at: int) -> None:
        with data, areas._opened(self._path, areas.os.O_WRONLY | how) as file:
            areas.os.pwrite(file, data, at)

    monkeypatch.setattr(areas.Areas, "_write_to", write_to)
    assert is_found(JournalMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_recovery_that_wipes_before_it_writes_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = Journal.choose

    def hasty(self: Journal, *what: Any) -> None:
        begin = self._areas.begin

        def wiped(record: bytes) -> None:
            live = self._areas._live
            if live is not None:
                self._areas._write(bytes(SECTOR), live.area * SMALL)
            begin(record)

        with monkeypatch.context() as patch:
            patch.setattr(self._areas, "begin", wiped)
            choose(self, *what)

    monkeypatch.setattr(Journal, "choose", hasty)
    assert is_found(JournalMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_erasure_that_ends_nothing_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "erase", lambda _, flows: None)
    assert is_found(JournalMachine(), seed)
