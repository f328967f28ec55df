# SPDX-License-Identifier: Apache-2.0
"""Collect and uplink as two programs, of two users where the test is root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.site import SPOOL
from demo.stage import Stage, wait_until
from tests.journeys.parts import DEVICES, YES, Enrolled, custody, fast, moved, newer_arrives, taken
from tests.simulators.users import GROUP, User

pytestmark = pytest.mark.journey
FLOW = "remote-diagnosis"
OTHER = "service"

# Tries to open every path it is told, for reading and for writing.
PROBE = """
import json, os, sys
found = {"read": [], "write": []}
for path in sys.argv[1:]:
    for word, flags in (("read", os.O_RDONLY), ("write", os.O_WRONLY)):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK))
            found[word].append(path)
        except OSError:
            pass
print(json.dumps(found))
"""
IMPERSONATE = """
import os, socket, sys
state = sys.argv[1]
def tried(what, act):
    try:
        act()
        print(what)
    except OSError:
        pass
tried("asked", lambda: socket.socket(socket.AF_UNIX).connect(state + "/control.sock"))
tried("removed", lambda: os.unlink(state + "/control.sock"))
tried("renamed", lambda: os.rename(state + "/control.sock", state + "/spool/old.sock"))
tried("listened", lambda: socket.socket(socket.AF_UNIX).bind(state + "/other.sock"))
tried("linked", lambda: os.symlink("/tmp", state + "/keys2"))
tried("listed", lambda: os.listdir(state))
"""


class Pair:
    """A gateway whose two programs run by themselves."""

    def __init__(self, stage: Stage, collector: User | None, carrier: User | None) -> None:
        self.stage = stage
        self.state = stage.gateway / "state"
        self._config = ["--config", str(stage.gateway)]
        own = [sys.executable]
        self._collector = collector.prefix if collector else own
        self._carrier = carrier.prefix if carrier else own

    def start(self, name: str) -> None:
        prefix = self._collector if name == "collect" else self._carrier
        words = [*prefix, "-m", "agent.cli.main", name, "--config", str(self.stage.gateway)]
        self.stage._start(name, words)
        if name == "collect":
            wait_until(lambda: self.assent("status")[1].get("running") is True, "collect answers")

    def assent(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Types a command as the collecting side's user; exit code and result."""
        done = subprocess.run(
            [*self._collector, "-m", "agent.cli.main", *words, "--json", *self._config],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}

    @property
    def maker(self) -> Path:
        """The maker's directory."""
        return self.stage.backend_directory("maker")

    def stored(self, flow: str) -> int:
        """How many batches of a flow the maker has stored."""
        return len(custody(self.maker, flow))

    def waiting(self, flow: str) -> int:
        """How many batches of a flow the spool holds, whoever runs."""
        with sqlite3.connect(f"file:{self.state / SPOOL}?mode=ro", uri=True) as db:
            found = db.execute("SELECT batches FROM lane WHERE flow=?", (flow,)).fetchone()[0]
        db.close()
        return int(found)

    def is_in_mid_transfer(self) -> None:
        wait_until(lambda: self.stored(FLOW) > 1 and self.stored(OTHER) > 1, "both flows arrive")

    def state_of(self, flow: str) -> str:
        _, status = self.assent("status")
        found = next(one for one in status["flows"] if one["flow"] == flow)
        return "on" if found["on"] else str(found["reason"])

    def nothing_more_of_it(self) -> None:
        """What the broker had is stored; then the other flow goes on alone."""
        newer_arrives(self.state, self.maker, OTHER)
        reached, other = self.stored(FLOW), self.stored(OTHER)
        wait_until(lambda: self.stored(OTHER) > other + 2, "the other flow goes on")
        assert self.stored(FLOW) == reached


# Who is root shows it with two users, who is not with its own; both is twice the minute.
@pytest.fixture(params=["two users" if os.geteuid() == 0 else "one user"])
def pair(request: pytest.FixtureRequest, enrolled: Enrolled) -> Iterator[Pair]:
    two = request.param == "two users"
    users = (User(61_001), User(61_002)) if two else (None, None)
    # pytest's own directories are shut to other users.
    root = Path(tempfile.mkdtemp(prefix="assent-"))
    root.chmod(0o711)
    stage = moved(enrolled(fast), Stage(root / "stage"))
    try:
        stage.add_devices(DEVICES)
        stage.decide(YES)
        if two:
            for path in [stage.gateway, *stage.gateway.rglob("*")]:
                os.chown(path, 61_001, GROUP)
                if path.is_dir() and {"spool", "tls"} & {path.name, path.parent.name}:
                    path.chmod(path.stat().st_mode | 0o2000)  # a chown takes it away
            (stage.gateway / "consent.toml").chmod(0o600)
        stage.start_broker("maker")
        stage.start_backend("maker")
        pair = Pair(stage, *users)
        pair.start("collect")
        pair.start("uplink")
        yield pair
    finally:
        stage.close()
        shutil.rmtree(root)


def two_users(pair: Pair) -> Pair:
    if pair._collector == pair._carrier:
        pytest.skip("says something of two users only")
    return pair


def test_the_uplinks_user_does_its_work_and_reads_nothing_else(pair: Pair) -> None:
    two_users(pair)
    pair.is_in_mid_transfer()
    files = [str(path) for path in pair.state.rglob("*") if not path.is_dir()]
    found = {user: json.loads(User(user).runs(PROBE, *files).stdout) for user in (61_001, 61_002)}
    assert {one for one in files if one.endswith((".key", ".json", ".lock"))}
    private = [
        one
        for one in files
        if "/spool/" not in one and "/keys/tls/" not in one and not one.endswith(".sock")
    ]
    assert set(private) <= set(found[61_001]["read"])
    assert not set(private) & set(found[61_002]["read"])
    assert {Path(one).name for one in private} >= {"wrapping.key", "ledger.json", "ledger.key"}
    tls = {one for one in files if "/keys/tls/" in one}
    assert tls
    assert tls <= set(found[61_002]["read"])
    assert not tls & set(found[61_002]["write"])
    outside = [one for one in found[61_002]["write"] if "/spool/" not in one]
    assert outside == []


def test_nobody_stands_in_for_the_collecting_side(pair: Pair) -> None:
    two_users(pair)
    assert User(61_002).runs(IMPERSONATE, str(pair.state)).stdout == ""
    with socket.socket(socket.AF_UNIX) as twin:  # root may ask, so that the refusal is of the user
        twin.connect(str(pair.state / "control.sock"))


def test_an_outsider_gets_nowhere(pair: Pair) -> None:
    two_users(pair)
    stranger = User(61_009)
    stranger.prefix[2] = "--regid=61009"
    files = [str(path) for path in pair.state.rglob("*") if not path.is_dir()]
    assert json.loads(stranger.runs(PROBE, *files).stdout) == {"read": [], "write": []}


@pytest.mark.clause("C28")
def test_a_no_while_both_run(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    code, told = pair.assent("consent", "withdraw", FLOW)
    assert (code, told["uplink"], told["certain"]) == (0, "answered", True)
    pair.nothing_more_of_it()


def test_the_twin_without_a_no_goes_on(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    before = pair.stored(FLOW)
    wait_until(lambda: pair.stored(FLOW) > before + 2, "more of it arrives")
    assert pair.stage.programs["uplink"].poll() is None


@pytest.mark.clause("C28")
def test_a_no_while_the_uplink_is_stopped_ends_it(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    pair.stage.send("uplink", signal.SIGSTOP)
    code, told = pair.assent("consent", "withdraw", FLOW)
    assert (code, told["certain"]) == (0, True)
    # One that was stopped while it wrote is ended for the write: it is absent when it is asked.
    assert told["uplink"] in {"ended", "absent"}
    assert pair.stage.programs["uplink"].wait(5) == -signal.SIGKILL
    pair.start("uplink")  # as a service manager does
    pair.nothing_more_of_it()


@pytest.mark.clause("C28")
def test_a_no_while_the_uplink_is_gone(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    pair.stage.end("uplink", signal.SIGKILL)
    code, told = pair.assent("consent", "withdraw", FLOW)
    assert (code, told["uplink"]) == (0, "absent")
    pair.start("uplink")
    pair.nothing_more_of_it()


@pytest.mark.clause("C28")
def test_a_no_while_collect_is_stopped_acts_at_once_and_is_recorded_later(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    pair.stage.send("collect", signal.SIGSTOP)
    code, told = pair.assent("consent", "withdraw", FLOW)
    assert (code, told["certain"]) == (0, True), told
    left = taken(pair.state, pair.maker, FLOW)  # what the broker has by now is still stored
    time.sleep(2.0)
    assert custody(pair.maker, FLOW).keys() <= left
    pair.stage.send("collect", signal.SIGCONT)
    wait_until(lambda: pair.state_of(FLOW) == "withdrawn", "the no is recorded", 45)
    pair.nothing_more_of_it()
    assert custody(pair.maker, FLOW).keys() <= left


@pytest.mark.clause("C28")
def test_a_no_while_collect_is_gone_is_recorded_and_the_uplink_obeys(pair: Pair) -> None:
    pair.is_in_mid_transfer()
    pair.stage.end("collect", signal.SIGKILL)
    code, told = pair.assent("consent", "withdraw", FLOW)
    assert (code, told["uplink"], told["certain"]) == (0, "answered", True)
    pair.start("collect")
    assert pair.state_of(FLOW) == "withdrawn"
    pair.nothing_more_of_it()


@pytest.mark.clause("C28")
def test_an_old_spool_that_is_put_back_alone_after_a_no_leaves_nothing(pair: Pair) -> None:
    """Though its uplink is started first. Its twin is in tests/agent/test_voucher.py."""
    pair.is_in_mid_transfer()
    assert pair.stage.end("uplink") == 0
    wait_until(lambda: pair.waiting(FLOW) > 2, "something waits")
    assert pair.stage.end("collect") == 0
    spool, kept = pair.state / "spool", pair.state.parent / "kept"
    subprocess.run(["cp", "-a", spool, kept], check=True)
    pair.start("collect")
    assert pair.assent("consent", "withdraw", FLOW)[0] == 0
    assert pair.stage.end("collect") == 0
    shutil.rmtree(spool)
    kept.rename(spool)
    reached = pair.stored(FLOW)  # what the broker had when the uplink ended, long ago
    pair.start("uplink")
    wait_until(lambda: "nobody has vouched" in pair.stage.log("uplink"), "it is known for old")
    assert (pair.waiting(FLOW) > 2, pair.stored(FLOW)) == (True, reached)
    pair.start("collect")
    pair.nothing_more_of_it()
    assert pair.stored(FLOW) == reached
