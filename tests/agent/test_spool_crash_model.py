# SPDX-License-Identifier: Apache-2.0
"""The model of the spool, with a crash between any two steps and within any of them.

Between two steps the process dies: another one opens what lies on the disk. Within a step the power
goes while its transaction is written: what the next start finds is the file as it was, and a log
whose last part is torn anywhere. Then the spool is as before the step or as after it, never between.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from agent.spool import Spool
from tests.agent.test_spool_model import FLOWS, SpoolMachine

_MODEL = ("lanes", "waiting", "lost", "streams", "now")


class CrashMachine(SpoolMachine):
    """Everything that `SpoolMachine` does, and what ends a process."""

    @rule()
    def killed(self) -> None:
        self.go_on_from(self.files())

    @rule(data=st.data())
    def killed_within_a_step(self, data: st.DataObject) -> None:
        before, model = self.files(), self.remembered()
        name = self.step(data)
        torn = tear(before, self.files(), data.draw(st.floats(0, 1), label="torn at"))
        self.go_on_from(torn)
        happened = self.agrees()
        if not happened:
            for part, value in model.items():
                setattr(self, part, value)
            assert self.agrees(), "it is neither as before the step nor as after it"
        event(f"{name} {'happened' if happened else 'did not happen'}")

    @rule()
    def file_lost(self) -> None:
        known = self.spool.id
        self.go_on_from({})
        assert self.spool.id != known
        self.lanes, self.waiting = {}, {}
        self.lost = {flow: set() for flow in FLOWS}

    def step(self, data: st.DataObject) -> str:
        steps = ["open_lane", "put", "close_lane", "purge", "expire", "enforce_quota"]
        name = data.draw(st.sampled_from([*steps, "acknowledge"] if self.waiting else steps))
        flow = data.draw(st.sampled_from(FLOWS))
        arguments: dict[str, dict[str, Any]] = {
            "open_lane": {"flow": flow, "end": None},
            "put": {"flow": flow, "count": data.draw(st.integers(1, 5)), "life": 50},
            "close_lane": {"flow": flow},
            "purge": {"flow": flow},
            "expire": {},
            "enforce_quota": {"batches": data.draw(st.integers(0, 6))},
            "acknowledge": {"data": data},
        }
        getattr(self, name)(**arguments[name])
        return str(name)

    def files(self) -> dict[str, bytes]:
        """What is on the disk now; the index of the log is made anew by whoever opens it."""
        return {
            file.name: file.read_bytes()
            for file in self.path.parent.iterdir()
            if file.is_file() and not file.name.endswith("-shm")
        }

    def go_on_from(self, files: dict[str, bytes]) -> None:
        """Opens other files, as the process that comes after a crash."""
        gone = self.directory
        self.spool.close()
        self.carrier.close()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "spool.db"
        for name, data in files.items():
            self.path.with_name(name).write_bytes(data)
        self.spool = Spool.open(self.path)
        assert self.spool.moved_aside is None
        self.carrier = Spool.open(self.path, create=False)
        self.leased.clear()
        gone.cleanup()

    def remembered(self) -> dict[str, Any]:
        return {part: copy.deepcopy(getattr(self, part)) for part in _MODEL}

    def agrees(self) -> bool:
        try:
            self.counts_agree()
            self.every_loss_is_declared()
        except (AssertionError, KeyError):  # a lane that the other one does not know
            return False
        return set(self.spool.lanes()) == set(self.lanes)


def tear(before: dict[str, bytes], after: dict[str, bytes], at: float) -> dict[str, bytes]:
    """What a disk may hold when the power goes while the log is written.

    Where the file itself was written too, the log was whole by then.
    """
    old, new = before.get("spool.db-wal", b""), after.get("spool.db-wal", b"")
    if before.get("spool.db") != after.get("spool.db") or len(new) < len(old):
        return after
    pairs = enumerate(zip(old, new, strict=False))
    same = next((number for number, (one, other) in pairs if one != other), len(old))
    cut = same + round(at * (len(new) - same))
    return {**after, "spool.db-wal": new[:cut] + old[cut:]}


CrashMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCrashModel = CrashMachine.TestCase


@pytest.mark.parametrize(
    ("at", "stored"),
    [(0.0, 0), (0.5, 0), (0.99, 0), (1.0, 3)],
    ids=["nothing of it", "half of it", "nearly all of it", "all of it"],
)
def test_what_is_torn_did_not_happen_and_what_is_whole_did(at: float, stored: int) -> None:
    """Or the model's tears would tear nothing."""
    machine = CrashMachine()
    machine.open_lane(flow="core", end=None)
    before = machine.files()
    machine.put(flow="core", count=3, life=50)
    machine.go_on_from(tear(before, machine.files(), at))
    assert machine.spool.waiting()["core"].batches == stored
    machine.teardown()
