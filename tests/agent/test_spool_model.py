# SPDX-License-Identifier: Apache-2.0
"""The spool against a model made of dictionaries: whatever is called in whatever order, they agree."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from agent.path import Sealed
from agent.spool import LaneState, Spool
from agent.spool import gaps as declared
from agent.spool.choice import KEPT_BACK
from agent.spool.order import RESEND_MAX_MS, RESEND_MS
from agent.spool.retention import OVERHEAD
from agent.spool.streams import unsigned
from assent.errors import SpoolError
from assent.header import GapCause
from assent.messages import StreamAck
from tests.agent.machines import SEEDS, Machine, chosen, drop, finds, lives, new_directory, too_few
from tests.agent.sealed import NOW, sealed

FLOWS = ("core", "advice", "trial")


@dataclasses.dataclass
class ModelLane:
    state: LaneState
    not_after: int | None
    stream: int | None
    following: int = 0


@dataclasses.dataclass
class ModelBatch:
    batch: Sealed
    due: int = 0
    attempts: int = 0
    past: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    """What due and attempts were since all was synced: a power cut may bring it back."""
    carries: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    """The lost batches of which it tells."""


class SpoolMachine(Machine):
    """One collecting and one uplink connection; the model knows what must be where."""

    def __init__(self) -> None:
        super().__init__()
        self.lay({})
        self.lanes: dict[str, ModelLane] = {}
        self.waiting: dict[tuple[int, int], ModelBatch] = {}  # (stream, sequence), in put order
        self.leased: dict[int, tuple[int, int]] = {}
        self.streams = 0
        self.now = NOW
        self.lost: dict[str, set[tuple[int, int]]] = {flow: set() for flow in FLOWS}

    def lay(self, files: dict[str, bytes]) -> None:
        """Opens what lies in a directory of its own."""
        self.directory = new_directory()
        self.path = self.directory / "spool.db"
        for name, data in files.items():
            self.path.with_name(name).write_bytes(data)
        self.watch()
        self.spool = Spool.open(self.path)
        self.carrier = Spool.open(self.path, create=False)

    def watch(self) -> None:
        """Before anything is opened in a directory."""

    def teardown(self) -> None:
        self.spool.close()
        self.carrier.close()
        drop(self.directory)

    @initialize(count=st.integers(1, 4))
    def begin_with(self, count: int) -> None:
        """Every life has seen it all, whatever is chosen later."""
        self.begin(count)
        self.enforce_quota(count)
        self.expire(waits=True)
        for flow in FLOWS:
            self.put(flow, count, 10**12, carry=True)
        self.lease(8)
        self.delivered()
        for stream, number in list(self.waiting)[-1 : -2 * count : -count]:
            self.acknowledged(stream, number + 1, 1)

    def begin(self, count: int) -> None:
        for flow in FLOWS:
            self.open_lane(flow, None)
            self.put(flow, count, 10**12, carry=True)

    def fill(self, flow: str = "advice", life: int = 10**12) -> None:
        """Sees to it that there is something to do things to."""
        of = [one for one in self.waiting.values() if one.batch.flow == flow]
        if not any((one.batch.expires_ms < self.now + 10**9) == (life < 10**9) for one in of):
            self.put(flow, 3, life, carry=True)

    # --- the collecting side

    @rule(flow=st.sampled_from(FLOWS), end=st.sampled_from([None, 5, 10**9]))
    def open_lane(self, flow: str, end: int | None) -> None:
        self.streams += 1
        stream = 2**64 - self.streams
        not_after = None if end is None else self.now + end
        assert self.spool.open_lane(flow, "maker", stream, not_after, core=flow == "core") == 0
        old = self.lanes.get(flow)
        if old is not None and old.state is LaneState.CLOSED:
            self.forget(flow)
        self.lanes[flow] = ModelLane(LaneState.OPEN, not_after, stream)

    @rule(
        flow=st.sampled_from(FLOWS),
        count=st.integers(1, 5),
        life=st.sampled_from([50, 10**12]),
        carry=st.booleans(),
    )
    def put(self, flow: str, count: int, life: int, carry: bool) -> None:
        lane = self.lane_of(flow)
        assert lane.stream is not None
        gaps = self.spool.gaps_for(flow) if carry else ()
        carries = {
            (gap.stream, number)
            for gap in gaps
            if gap.cause is not GapCause.ENDED
            for number in range(gap.begin, gap.end)
        }
        batches = [
            sealed(
                lane.following + i,
                flow=flow,
                stream=lane.stream,
                size=20,
                expires_ms=self.now + life,
            )
            for i in range(count)
        ]
        self.spool.put(batches, gaps)
        lane.following += count
        for batch in batches:
            self.waiting[lane.stream, batch.sequence] = ModelBatch(batch, carries=carries)
        self.count("put", count)

    def lane_of(self, flow: str) -> ModelLane:
        """A lane that batches may enter: a shut one is opened."""
        lane = self.lanes.get(flow)
        if lane is None or lane.state is not LaneState.OPEN or lane.stream is None:
            self.open_lane(flow, None)
        return self.lanes[flow]

    @rule(flow=st.sampled_from(FLOWS))
    def put_into_a_shut_lane(self, flow: str) -> None:
        lane = self.lanes[flow]
        if lane.state is not LaneState.OPEN or lane.stream is None:
            with pytest.raises(SpoolError):
                self.spool.put([sealed(lane.following, flow=flow, stream=lane.stream or 1)])
            self.count("refused")

    @rule(flow=st.sampled_from(FLOWS))
    def put_out_of_order(self, flow: str) -> None:
        lane = self.lanes.get(flow)
        if lane is not None and lane.stream is not None:
            with pytest.raises(SpoolError):
                self.spool.put([sealed(lane.following + 1, flow=flow, stream=lane.stream)])

    @rule(flow=st.sampled_from(FLOWS))
    def close_lane(self, flow: str) -> None:
        self.spool.close_lane(flow)
        self.lanes.setdefault(flow, ModelLane(LaneState.CLOSED, None, None))
        self.lanes[flow].state = LaneState.CLOSED

    @rule(flow=st.sampled_from(FLOWS))
    def pause_lane(self, flow: str) -> None:
        self.spool.pause_lane(flow)
        if flow in self.lanes and self.lanes[flow].state is LaneState.OPEN:
            self.lanes[flow].state = LaneState.PAUSED

    @rule(flow=st.sampled_from(FLOWS))
    def purge(self, flow: str) -> None:
        self.fill(flow)
        gone = self.forget(flow)
        assert self.spool.purge(flow).batches == len(gone)
        self.count("purged", len(gone))
        if flow in self.lanes:
            self.lanes[flow].stream, self.lanes[flow].following = None, 0
        told = self.spool.gaps_for(flow)  # the ends of streams of which nothing was deleted
        assert {gap.cause for gap in told} <= {GapCause.ENDED}

    def forget(self, flow: str) -> list[tuple[int, int]]:
        gone = [key for key, one in self.waiting.items() if one.batch.flow == flow]
        for key in gone:
            del self.waiting[key]
        self.lost[flow].clear()
        return gone

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.fill()
        stream, sequence = data.draw(st.sampled_from(sorted(self.waiting)))
        self.acknowledged(stream, sequence, data.draw(st.integers(1, 4)))

    def acknowledged(self, stream: int, sequence: int, more: int) -> None:
        # No backend knows of more than was given: that would be another life of this stream.
        top = max(number for of, number in self.waiting if of == stream)
        last = min(top, sequence + more)
        ranges = ((sequence + 1, last),) if sequence < last else ()
        ack = StreamAck(stream, sequence, ranges=ranges)
        named = [*range(sequence), *range(sequence + 1, last + 1)]
        gone = [(stream, one) for one in named if (stream, one) in self.waiting]
        assert self.spool.acknowledge("maker", [ack]).batches == len(gone)
        for key in gone:
            one = self.waiting.pop(key)
            self.lost[one.batch.flow] -= one.carries
            self.count("gap told", bool(one.carries))
        self.count("acknowledged", len(gone))

    @rule(waits=st.booleans())
    def expire(self, waits: bool) -> None:
        if waits:
            self.fill(life=50)
            soonest = min(one.batch.expires_ms for one in self.waiting.values())
            self.now = max(self.now, soonest)
        dropped = self.spool.expire(self.now)
        gone = [k for k, one in self.waiting.items() if one.batch.expires_ms <= self.now]
        assert sum(one.batches for one in dropped) == len(gone)
        for key in gone:
            self.lost[self.waiting.pop(key).batch.flow].add(key)
        self.count("expired", len(gone))

    @rule(over=st.integers(0, 5))
    def enforce_quota(self, over: int) -> None:
        self.fill()
        batches = max(0, len(self.waiting) - over)
        self.count("dropped", min(over, len(self.waiting)))
        each = 20 + OVERHEAD
        sizes = {
            flow: sum(one.batch.flow == flow for one in self.waiting.values()) for flow in FLOWS
        }
        self.spool.enforce_quota(batches * each)
        while sum(sizes.values()) > batches:
            optional = {flow: sizes[flow] for flow in FLOWS if sizes[flow] and flow != "core"}
            top = max(optional.values(), default=0)
            # Among equals the model does not say which; the spool's choice is checked for size.
            left = {flow: one.batches for flow, one in self.spool.waiting().items()}
            ties = [flow for flow, size in optional.items() if size == top] or ["core"]
            flow = next((one for one in ties if left[one] < sizes[one]), ties[0])
            sizes[flow] -= 1
            oldest = next(key for key, one in self.waiting.items() if one.batch.flow == flow)
            del self.waiting[oldest]
            self.lost[flow].add(oldest)

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool.open(self.path)
        assert self.spool.moved_aside is None

    # --- the uplink

    @rule(limit=st.integers(1, 8))
    def lease(self, limit: int) -> None:
        self.fill()
        may = {key for key, one in self.waiting.items() if self.may_leave(key, one)}
        leases = self.carrier.lease("maker", limit, self.now)
        assert len(leases) == min(limit, len(may))
        for lease in leases:
            key = self.key_of(lease.data)
            assert key in may
            assert self.waiting[key].batch.flow == lease.flow
            may.remove(key)
            self.leased[lease.id] = key
        self.count("leased", len(leases))
        for flow in FLOWS:  # within a flow the freshest put never goes before an older one
            mine = [self.key_of(one.data) for one in leases if one.flow == flow]
            order = [self.waiting[key].due for key in mine]
            assert order == sorted(order)

    def key_of(self, data: bytes) -> tuple[int, int]:
        return next(key for key, one in self.waiting.items() if one.batch.data == data)

    def may_leave(self, key: tuple[int, int], one: ModelBatch) -> bool:
        lane = self.lanes[one.batch.flow]
        return (
            lane.state is LaneState.OPEN
            and (lane.not_after is None or lane.not_after > self.now)
            and key not in self.leased.values()
            and one.due <= self.now
        )

    @rule()
    def delivered(self) -> None:
        if not self.leased:
            self.lease(4)
        self.count("delivered", len(self.leased))
        self.carrier.delivered(list(self.leased), self.now)
        for key in self.leased.values():
            if key in self.waiting:
                one = self.waiting[key]
                one.past.add((one.due, one.attempts))
                one.due = self.now + min(RESEND_MAX_MS, RESEND_MS << one.attempts)
                one.attempts += 1
        self.leased.clear()

    @precondition(lambda self: self.leased)
    @rule()
    def returned(self) -> None:
        self.carrier.returned(list(self.leased))
        self.leased.clear()

    @rule()
    def restart_uplink(self) -> None:
        self.carrier.close()
        self.carrier = Spool.open(self.path, create=False)
        self.leased.clear()

    @rule(by=st.sampled_from([1, 100, RESEND_MS, RESEND_MAX_MS]))
    def time_passes(self, by: int) -> None:
        self.now += by

    # --- what always holds

    @invariant()
    def counts_agree(self) -> None:
        counted = self.spool.waiting()
        for flow, lane in self.lanes.items():
            mine = [one.batch for one in self.waiting.values() if one.batch.flow == flow]
            assert counted[flow].batches == len(mine)
            assert counted[flow].readings == sum(one.readings for one in mine)
            assert counted[flow].bytes == sum(len(one.data) for one in mine)
            assert counted[flow].oldest_ms == (mine[0].first_ms if mine else None)
            seen = self.spool.lanes()[flow]
            assert (seen.state, seen.stream) == (lane.state, lane.stream)
            assert seen.next_sequence == lane.following

    @invariant()
    def every_loss_is_declared(self) -> None:
        for flow in FLOWS:
            gaps = self.declared(flow)
            numbers = [
                (unsigned(stream), number)
                for stream, cause, _, low, high in gaps
                if cause != GapCause.ENDED
                for number in range(low, high)
            ]
            assert len(numbers) == len(set(numbers))
            assert set(numbers) == self.lost[flow]
            assert sum(readings for _, _, readings, _, _ in gaps) == 10 * len(numbers)

    def declared(self, flow: str) -> list[tuple[int, int, int, int, int]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute(
                "SELECT stream, cause, readings, low, high FROM gap WHERE flow=? AND carried!=?",
                (flow, KEPT_BACK),
            ).fetchall()


SpoolMachine.TestCase.settings = chosen(25, 40)
TestSpoolModel = SpoolMachine.TestCase

LEAST = {
    "put": 500,
    "acknowledged": 100,
    "gap told": 20,
    "expired": 80,
    "dropped": 100,
    "purged": 50,
    "leased": 200,
    "delivered": 100,
    "refused": 10,
}
"""Batches, or times, in thirty lives."""


def test_the_machine_lives() -> None:
    lives(SpoolMachine, 30, 40)
    assert too_few(SpoolMachine, LEAST) == {}


def forget_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the quota drops is not declared."""
    declare = declared.declare

    def forgetful(db: sqlite3.Connection, same: tuple[str, int, GapCause], *told: object) -> None:
        if same[2] is not GapCause.QUOTA:
            declare(db, same, *told)  # type: ignore[arg-type]

    monkeypatch.setattr(declared, "declare", forgetful)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quota_drop_that_is_not_counted_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_quota(monkeypatch)
    assert finds(SpoolMachine, 30, 40, seed)
