# SPDX-License-Identifier: Apache-2.0
"""The model of the spool, with a crash between any two steps and within any of them.

What SQLite writes is noted step by step (`tests.simulators.noted_disk`). Between two of its writes,
cuts and syncs the process dies, or the power goes and takes any sectors that were not synced; while
a step is done, while the spool is opened after a crash, and while it is opened after that. Then the
spool is as before the step or as after it, never between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from agent.spool import Acknowledged, Spool
from agent.spool.streams import unsigned
from assent.messages import StreamAck
from tests.agent.machines import SEEDS, chosen, drop, is_found, lives, too_few
from tests.agent.test_spool_model import FLOWS, ModelBatch, SpoolMachine, forget_quota
from tests.simulators import sqlite_calls
from tests.simulators.noted_disk import SECTOR, NotedDisk, Power, either, moments

pytestmark = pytest.mark.skipif(
    not sqlite_calls.IS_THERE, reason="this Python's SQLite is no library of its own"
)

WRITING = ("put", "acknowledge", "enforce_quota", "expire", "purge", "delivered", "open_lane")
WRITING += ("pause_lane", "close_lane")
_MODEL = ("lanes", "waiting", "lost", "streams", "now")


class CrashMachine(SpoolMachine):
    """Everything that `SpoolMachine` does, and what ends a process."""

    def watch(self) -> None:
        self.disk = NotedDisk(self.directory)

    def teardown(self) -> None:
        self.disk.close()
        super().teardown()

    @initialize(seed=st.integers(0, 2**32))
    def begin_by_dying(self, seed: int) -> None:
        """Every life has seen it all, whatever is chosen later."""
        chance = random.Random(seed)
        self.begin(chance.randint(1, 4))
        for name in chance.sample(WRITING, len(WRITING)):
            self.killed_within(name, chance.choice(FLOWS), chance)

    @rule(seed=st.integers(0, 2**32))
    def killed(self, seed: int) -> None:
        chance = random.Random(seed)
        self.fill()
        self.is_synced()
        self.disk.mark()
        self.die(self.disk, 0, either(chance), chance)
        assert self.agrees(), "what was there before the crash is not what is there after it"

    @rule(
        names=st.lists(st.sampled_from(WRITING), min_size=2, max_size=4, unique=True),
        seed=st.integers(0, 2**32),
    )
    def killed_within_steps(self, names: list[str], seed: int) -> None:
        chance = random.Random(seed)
        for name in names:
            self.killed_within(name, chance.choice(FLOWS), chance)

    def killed_within(self, name: str, flow: str, chance: random.Random) -> None:
        """Dies at a few moments of a step, and goes on from the last of them."""
        for one, life in ((flow, 10**12), ("advice", 50), ("advice", 10**12), ("advice", 50)):
            self.fill(one, life)  # opens a shut lane, which may empty it of what was filled in
        if name == "put":
            self.lane_of(flow)
        if name == "acknowledge":
            self.put(flow, 4, 10**12, carry=True)
            stream, last = list(self.waiting)[-1]
            self.middle = stream, last - chance.randint(1, 2)
        self.is_synced()
        before = self.remembered()
        self.disk.mark()
        self.step(name, flow, chance)
        after, disk = self.remembered(), self.disk
        for at, power in moments(disk, chance):
            self.recall(after)
            self.die(disk, at, power, chance)
            happened = self.agrees()
            if not happened:
                assert at < len(disk.steps), "it returned, and is not there"
                self.recall(before)
                assert self.agrees(), "it is neither as before the step nor as after it"
            self.count(f"{name} torn", 0 < at < len(disk.steps))
            if disk.steps:
                self.count(f"{name} {'happened' if happened else 'did not happen'}")

    @rule(seed=st.integers(0, 2**32), is_rare=st.sampled_from([False] * 9 + [True]))
    def file_lost(self, seed: int, is_rare: bool) -> None:
        if not is_rare:
            return
        known = self.spool.id
        self.go_on_from({})
        chance = random.Random(seed)
        at = chance.randint(0, len(self.disk.steps))
        self.go_on_from(self.disk.left_at(at, either(chance)))
        self.count("making torn")
        assert self.spool.id != known
        self.lanes, self.waiting = {}, {}
        self.lost = {flow: set() for flow in FLOWS}
        self.begin(1)

    def step(self, name: str, flow: str, chance: random.Random) -> None:
        match name:
            case "open_lane":
                self.open_lane(flow, None)
            case "put":
                self.put(flow, chance.randint(1, 5), 50, carry=True)
            case "expire":
                self.expire(waits=True)
            case "enforce_quota":
                self.enforce_quota(chance.randint(1, 4))
            case "acknowledge":
                self.acknowledged(*self.middle, chance.randint(1, 4))
            case "delivered":
                self.delivered()
            case _:
                getattr(self, name)(flow)

    def die(self, disk: NotedDisk, at: int, power: Power, chance: random.Random) -> None:
        """Ends the process before a step since the mark; the next one may die while it opens."""
        self.count("crashes")
        self.count("crashes with batches waiting", bool(self.waiting))
        self.go_on_from(disk.left_at(at, power))
        while chance.random() < 0.3:
            many = len(self.disk.steps)
            at = chance.randint(0, many)
            self.count("openings torn", bool(self.waiting) and 0 < at < many)
            self.go_on_from(self.disk.left_at(at, either(chance)))

    def go_on_from(self, files: dict[str, bytes]) -> None:
        """Opens other files, as the process that comes after a crash."""
        self.disk.close()
        self.spool.close()
        self.carrier.close()
        drop(self.directory)
        self.lay(files)
        assert self.spool.moved_aside is None
        self.leased.clear()

    def is_synced(self) -> None:
        """What is synced does not come back as it was before."""
        if self.disk.is_synced:
            for one in self.waiting.values():
                one.past.clear()

    def remembered(self) -> dict[str, Any]:
        return copied({part: getattr(self, part) for part in _MODEL})

    def recall(self, model: dict[str, Any]) -> None:
        for part, value in copied(model).items():
            setattr(self, part, value)

    def agrees(self) -> bool:
        try:
            self.counts_agree()
            self.every_loss_is_declared()
        except (AssertionError, KeyError):  # a lane that the other one does not know
            return False
        return set(self.spool.lanes()) == set(self.lanes) and self.what_waits_agrees()

    def what_waits_agrees(self) -> bool:
        """Each batch is there with its bytes; when it is due may be forgotten, as far as allowed."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            rows = db.execute(
                "SELECT stream.id, batch.id & 0xffffffff, data, due, attempts FROM batch"
                " JOIN payload USING (id) JOIN stream ON stream.number = batch.id >> 32"
            ).fetchall()
        found = {(unsigned(stream), number): rest for stream, number, *rest in rows}
        if found.keys() != self.waiting.keys():
            return False
        for key, (data, due, attempts) in found.items():
            one = self.waiting[key]
            if data != one.batch.data or not self.may_be(one, (due, attempts)):
                return False
            one.due, one.attempts = due, attempts
        return True

    def may_be(self, one: ModelBatch, told: tuple[int, int]) -> bool:
        return told in {(one.due, one.attempts), *one.past}


def copied(model: dict[str, Any]) -> dict[str, Any]:
    return {
        **model,
        "lanes": {flow: dataclasses.replace(lane) for flow, lane in model["lanes"].items()},
        "waiting": {
            key: dataclasses.replace(one, past=set(one.past))
            for key, one in model["waiting"].items()
        },
        "lost": {flow: set(lost) for flow, lost in model["lost"].items()},
    }


CrashMachine.TestCase.settings = chosen(6, 20)
TestCrashModel = CrashMachine.TestCase

LEAST = {
    "crashes with batches waiting": 150,
    "openings torn": 30,
    **{f"{name} torn": 10 for name in WRITING},
    **{f"{name} happened": 3 for name in WRITING},
    **{f"{name} did not happen": 5 for name in WRITING if name != "delivered"},
    "put": 150,
    "acknowledged": 25,
    "dropped": 25,
    "expired": 25,
    "purged": 25,
    "leased": 50,
    "delivered": 50,
}
"""Times, or batches, in fourteen lives."""


def test_the_machine_lives_and_dies() -> None:
    lives(CrashMachine, 14, 15)
    assert too_few(CrashMachine, LEAST) == {}


# What must be found, in the first moments of any life.


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_where_nothing_is_wrong(seed: int) -> None:
    assert not is_found(CrashMachine(), seed)


class EveryCrashDeletes(CrashMachine):
    """Every crash deletes all that waits, and says nothing."""

    def go_on_from(self, files: dict[str, bytes]) -> None:
        super().go_on_from(files)
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("DELETE FROM batch")
            db.execute("DELETE FROM payload")
            db.execute("UPDATE lane SET batches=0, readings=0, bytes=0")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_that_deletes_what_waits_is_found(seed: int) -> None:
    assert is_found(EveryCrashDeletes(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_acknowledge_that_comes_undone_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns before it is synced: a power cut brings back what it deleted."""
    unsynced(monkeypatch, "acknowledge")
    assert is_found(CrashMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quota_drop_that_is_not_counted_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_quota(monkeypatch)
    assert is_found(CrashMachine(), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_put_that_comes_undone_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, "put")
    assert is_found(CrashMachine(), seed)


def unsynced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    writing, original = Spool._writing, getattr(Spool, name)

    def call(self: Spool, *args: Any, **named: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(
                Spool, "_writing", lambda me, **how: writing(me, **{**how, "durable": False})
            )
            return original(self, *args, **named)

    monkeypatch.setattr(Spool, name, call)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_acknowledge_that_brings_a_batch_back_when_torn_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deletes what it is told one after the other, each by itself."""
    original = Spool.acknowledge

    def one_by_one(self: Spool, recipient: str, acks: list[StreamAck]) -> Acknowledged:
        (ack,) = acks
        below = original(self, recipient, [StreamAck(ack.stream, ack.watermark)])
        others = original(self, recipient, [StreamAck(ack.stream, 0, ranges=ack.ranges)])
        return msgspec.structs.replace(below, batches=below.batches + others.batches)

    monkeypatch.setattr(Spool, "acknowledge", one_by_one)
    assert is_found(CrashMachine(), seed)


@pytest.mark.parametrize(
    ("at", "stored"),
    [(0.0, 0), (0.5, 0), (0.99, 0), (1.0, 3)],
    ids=["nothing of it", "half of it", "nearly all of it", "all of it"],
)
def test_what_is_torn_did_not_happen_and_what_is_whole_did(at: float, stored: int) -> None:
    """Or the model's tears would tear nothing."""
    machine = CrashMachine()
    machine.open_lane(flow="core", end=None)
    machine.disk.mark()
    machine.put(flow="core", count=3, life=50, carry=False)
    many = len(machine.disk.steps)
    machine.go_on_from(machine.disk.left_at(int(many * at) - (0 < at < 1)))
    assert machine.spool.waiting()["core"].batches == stored
    machine.teardown()


def test_what_is_noted_is_all_that_was_done() -> None:
    """Or a crash would be laid out from half of what happened."""
    machine = CrashMachine()
    machine.begin_by_dying(7)
    machine.put("core", 3, 50, carry=True)
    there = {
        file.name: file.read_bytes()
        for file in machine.directory.iterdir()
        if file.is_file() and not file.name.endswith("-shm")
    }
    assert machine.disk.left_at(len(machine.disk.steps)) == there
    assert len(there["spool.db-wal"]) > SECTOR
    machine.teardown()
