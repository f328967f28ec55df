# SPDX-License-Identifier: Apache-2.0
"""A no against the real uplink program and a real broker: nothing leaves once the call returned."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from agent.fence import PATIENCE_MS, Outcome, pass_fence, refuse, unhindered
from agent.leash import Leash
from agent.spool import HeldError, LaneState, Spool
from agent.spool.voucher import Voucher
from agent.uplink.protocol import WINDOW
from firmware_bridge.clock import Clock
from tests.agent.carrying import Gateway
from tests.agent.sealed import sealed
from tests.simulators.broker import Broker
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.subscriber import Subscriber, listening
from tests.simulators.tap import Tap

pytestmark = pytest.mark.journey
REPO = Path(__file__).resolve().parents[2]
CLOCK = Clock(trust="system")

# Some seconds of transfer at the pace of what waited, so that a no strikes in the middle of it.
MESSAGES = {"service": 300, "other": 100}
SIZE = 30_000
# Bytes of five small messages, so that there are some of each flow: of a window of twenty eleven are
# on their way at least, and the tap's kernel takes one or two.
SMALL = 6_000
MANY = 5 * SMALL
# The mailbox of another gateway, which has the last word.
LAST = 32 * "e"

# Of a connection that its owner has not closed: ESTABLISHED, CLOSE_WAIT (proc(5)).
_OPEN = {"01", "08"}
# Of one that has ended: the kernel remembers its ports for a minute, also when another has them.
_TIME_WAIT = "06"

# Wears the leash, stands in the middle of a write, and says so.
HOLDER = """
import pathlib, sqlite3, sys, time
from agent.leash import worn
path = pathlib.Path(sys.argv[1])
with worn(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    time.sleep(60)
"""


class House:
    """The collecting side, two flows with much waiting, and the uplink as a program."""

    def __init__(self, root: Path, authority: Authority, url: str, size: int = SIZE) -> None:
        (root / "state" / "spool").mkdir(parents=True)
        (root / "agent.toml").write_text(f'[gateway]\nstate = "{root / "state"}"\n')
        self.root = root
        self.gateway = Gateway(root / "state" / "spool", authority, url)
        self.spool = self.gateway.spool
        self.leash = Leash(self.gateway.path)
        self.programs: list[subprocess.Popen[bytes]] = []
        self.sent: dict[str, set[bytes]] = {}
        for flow, stream in (("service", 7), ("other", 8)):
            self.spool.open_lane(flow, "maker", stream, None)
            batches = [
                sealed(number, flow=flow, stream=stream, size=size)
                for number in range(MESSAGES[flow])
            ]
            self.spool.put(batches)
            self.sent[flow] = {batch.data for batch in batches}
        Voucher(self.gateway.path.parent.parent).give(self.spool)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.root / "log").open("ab") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "agent.cli.main", "uplink", "--config", str(self.root)],
                cwd=REPO,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.programs.append(program)
        return program

    def came(self, backend: Subscriber, flow: str) -> int:
        return len(self.sent[flow] & set(backend.payloads))

    def in_mid_transfer(self, backend: Subscriber) -> None:
        eventually(lambda: min(self.came(backend, flow) for flow in self.sent) > 20)
        assert self.came(backend, "service") < MESSAGES["service"]

    def all_came(self, backend: Subscriber) -> bool:
        return all(self.came(backend, flow) == count for flow, count in MESSAGES.items())

    def says_no(self) -> Outcome:
        """As the pipeline does it."""
        unhindered(self.spool, self.leash, lambda: self.spool.close_lane("service"))
        return pass_fence(self.spool, self.leash, CLOCK)

    def close(self) -> None:
        for program in self.programs:
            if program.poll() is None:
                program.kill()
            program.wait()
        self.gateway.close()


def connections() -> Iterator[tuple[int, int, str, int, int]]:
    """Local and remote port, state, and bytes not yet sent and not yet read (proc(5))."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            local, remote = (int(word.rsplit(":", 1)[1], 16) for word in words[1:3])
            held, waits = (int(word, 16) for word in words[4].split(":"))
            yield local, remote, words[3], held, waits


def unsent(port: int) -> dict[int, int]:
    """Local port to bytes that the kernel still holds for a connection to this port."""
    return {
        local: held
        for local, remote, state, held, _ in connections()
        if remote == port and state != _TIME_WAIT
    }


def served(port: int) -> set[int]:
    """The ports of those who are, for the server on this port, still connected."""
    return {
        remote for local, remote, state, *_ in connections() if local == port and state in _OPEN
    }


@pytest.fixture
def house(tmp_path: Path, authority: Authority, broker: Broker) -> Iterator[House]:
    house = House(tmp_path / "g", authority, broker.url)
    yield house
    house.close()


def nothing_more_of_it(house: House, backend: Subscriber) -> None:
    """What the broker had when the call returned is delivered; the other flow goes on to its end."""
    eventually(lambda: house.came(backend, "other") == MESSAGES["other"], 60)
    assert house.came(backend, "service") < MESSAGES["service"]
    before = len(backend.came)
    time.sleep(0.5)
    assert len(backend.came) == before


def what_it_took_came(
    broker: Broker, backend: Subscriber, authority: Authority, others: Collection[int]
) -> None:
    """Waits until the broker has read all that an uplink left behind, and has passed it on.

    It passes on in order: what another gateway says after the end comes last.
    """
    eventually(lambda: served(broker.port) <= set(others))
    with listening(broker.port, authority, LAST) as another:
        another.say(LAST.encode())
        eventually(lambda: LAST.encode() in backend.payloads)


@pytest.mark.clause("C28")
def test_an_uplink_at_work_answers_and_drops_what_it_held(
    house: House, broker: Broker, backend: Subscriber
) -> None:
    house.start()
    house.in_mid_transfer(backend)
    began = time.monotonic()
    assert house.says_no() is Outcome.ANSWERED
    took = time.monotonic() - began
    print(f"returned after {took * 1000:.0f} ms")
    assert took < 1.0
    told = {
        one.digest: one.confirmed for one in house.spool.sent(sum(MESSAGES.values()), "service")
    }
    nothing_more_of_it(house, backend)
    # What the broker's machine had received when the call returned is all that still shows.
    arrived = house.sent["service"] & set(backend.payloads)
    assert {hashlib.sha256(one).digest() for one in arrived} <= told.keys()
    assert len(arrived) <= sum(told.values()) + WINDOW


def test_the_twin_without_a_no_goes_on(house: House, backend: Subscriber) -> None:
    house.start()
    assert eventually(lambda: house.all_came(backend), 60)


@pytest.mark.clause("C28")
def test_an_uplink_that_is_stopped_is_ended_and_the_next_one_sends_nothing_of_it(
    house: House, broker: Broker, backend: Subscriber, authority: Authority
) -> None:
    others = unsent(broker.port).keys()
    program = house.start()
    house.in_mid_transfer(backend)
    program.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert house.says_no() is Outcome.ENDED
    assert time.monotonic() - began < 3.0
    assert unsent(broker.port).keys() == others
    assert program.wait() == -signal.SIGKILL
    what_it_took_came(broker, backend, authority, others)
    reached = house.came(backend, "service")
    house.start()
    nothing_more_of_it(house, backend)
    assert house.came(backend, "service") == reached


def test_the_twin_stopped_and_let_go_sends_all_of_it(house: House, backend: Subscriber) -> None:
    program = house.start()
    house.in_mid_transfer(backend)
    program.send_signal(signal.SIGSTOP)
    assert pass_fence(house.spool, None, CLOCK) in {Outcome.ANSWERED, Outcome.SILENT}
    program.send_signal(signal.SIGCONT)
    eventually(lambda: house.all_came(backend), 60)


@pytest.mark.clause("C28")
def test_an_uplink_that_was_killed_is_not_waited_for(
    house: House, broker: Broker, backend: Subscriber, authority: Authority
) -> None:
    others = unsent(broker.port).keys()
    program = house.start()
    house.in_mid_transfer(backend)
    program.kill()
    program.wait()
    began = time.monotonic()
    assert house.says_no() is Outcome.ABSENT
    assert time.monotonic() - began < PATIENCE_MS / 1000
    what_it_took_came(broker, backend, authority, others)
    reached = house.came(backend, "service")
    house.start()
    nothing_more_of_it(house, backend)
    assert house.came(backend, "service") == reached


@pytest.mark.clause("C28")
def test_bytes_that_the_kernel_holds_for_a_stopped_broker_are_dropped(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    with Tap(0, broker.port) as tap:
        url = f"mqtts://localhost:{tap.port}"
        house = House(tmp_path / "large", authority, url, size=SMALL)

        def held() -> dict[int, int]:
            return unsent(tap.port)

        def is_full() -> dict[int, int]:
            found = held()
            return found if max(found.values(), default=0) > MANY else {}

        try:
            house.start()
            eventually(lambda: house.came(backend, "service") > 5)
            tap.hold_after = 0
            before = eventually(is_full)
            assert house.says_no() is Outcome.ANSWERED
            assert not before.keys() & held().keys()
            told = {one.digest for one in house.spool.sent(sum(MESSAGES.values()), "service")}
            assert house.spool.unconfirmed("service") > 0
            tap.pass_on()
            nothing_more_of_it(house, backend)
            arrived = house.sent["service"] & set(backend.payloads)
            assert {hashlib.sha256(one).digest() for one in arrived} <= told
        finally:
            house.close()


def test_an_uplink_nobody_can_end_is_told(house: House) -> None:
    house.spool.close_lane("service")
    outcome = pass_fence(house.spool, None, CLOCK)
    assert outcome is Outcome.SILENT
    assert not outcome.is_certain
    assert "may still leave" in outcome.sentence


@pytest.mark.clause("C28")
def test_an_uplink_stopped_in_the_middle_of_a_write_does_not_hold_a_no_up(house: House) -> None:
    words = [sys.executable, "-c", HOLDER, str(house.gateway.path)]
    with subprocess.Popen(words, cwd=REPO, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        house.says_no()
        assert time.monotonic() - began < 4.0
        assert holder.wait() == -signal.SIGKILL
    assert house.spool.lanes()["service"].state is LaneState.CLOSED


def test_a_spool_that_somebody_else_holds_is_an_error(house: House) -> None:
    other = sqlite3.connect(house.gateway.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with house.spool.patience(50), pytest.raises(HeldError):
            house.spool.close_lane("service")
    finally:
        other.close()


@pytest.mark.clause("C28")
def test_a_no_past_the_collecting_side_closes_the_row_and_waits_to_be_recorded(
    house: House,
) -> None:
    assert refuse(house.gateway.path, "service", house.leash, CLOCK) is Outcome.ABSENT
    assert house.spool.lanes()["service"].state is LaneState.CLOSED
    assert house.spool.lanes()["other"].state is LaneState.OPEN
    (said_ms,) = house.spool.refusals().values()
    reopened = Spool.open(house.gateway.path)
    assert list(reopened.refusals()) == ["service"]
    reopened.drop_refusal("service", said_ms - 1)
    assert list(reopened.refusals()) == ["service"]
    reopened.drop_refusal("service", said_ms)
    assert reopened.refusals() == {}
    reopened.close()


# Stands in the middle of a write like a collecting side that was stopped there: on no leash.
STOPPED = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
print("ready", flush=True)
sys.stdin.readline()
while not db.in_transaction:  # SQLite's own waits would let the whole transfer pass
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        time.sleep(0.0005)
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def stopped_in_a_write(house: House, broker: Broker, backend: Subscriber) -> Iterator[None]:
    """From the middle of a transfer on, somebody who stands still holds the spool.

    The broker stands still with them: the uplink goes on reading, and would be through too soon.
    """
    words = [sys.executable, "-c", STOPPED, str(house.gateway.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=REPO, stdin=pipe, stdout=pipe, text=True) as holder:
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            house.start()
            house.in_mid_transfer(backend)
            broker.freeze()
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "held\n"
            holder.send_signal(signal.SIGSTOP)
            yield
        finally:
            holder.kill()
            broker.thaw()


@pytest.mark.clause("C28")
def test_a_no_past_a_collecting_side_that_stands_in_a_write_holds_for_the_next_uplink(
    house: House, broker: Broker, backend: Subscriber, authority: Authority
) -> None:
    others = unsent(broker.port).keys()
    with stopped_in_a_write(house, broker, backend):
        began = time.monotonic()
        outcome = refuse(house.gateway.path, "service", house.leash, CLOCK)
        assert time.monotonic() - began < 5.0
        assert outcome is Outcome.ENDED
        assert house.spool.lanes()["service"].state is LaneState.OPEN  # it could not be written
        broker.thaw()
        what_it_took_came(broker, backend, authority, others)
        reached = house.came(backend, "service")
        assert reached < MESSAGES["service"]
        house.start()
        eventually(house.leash.is_there)
    nothing_more_of_it(house, backend)
    assert house.came(backend, "service") == reached
    (said_ms,) = house.spool.refusals().values()
    house.spool.drop_refusal("service", said_ms - 1)
    assert list(house.spool.refusals()) == ["service"]
    house.spool.drop_refusal("service", said_ms)
    assert house.spool.refusals() == {}


def test_the_twin_without_a_no_goes_on_after_the_write(
    house: House, broker: Broker, backend: Subscriber
) -> None:
    with stopped_in_a_write(house, broker, backend):
        time.sleep(0.3)
    assert eventually(lambda: house.all_came(backend), 60)


def test_what_lies_beside_a_spool_and_is_no_no_is_passed_over(house: House) -> None:
    path = house.gateway.path
    house.spool.refuse_beside("service", 1_000)
    (no,) = path.parent.glob("spool.db.no-*")
    no.with_name("spool.db.no-cafe").write_bytes(no.read_bytes())
    no.with_name("spool.db.no-babe").write_bytes(b"\xff")
    assert house.spool.refusals() == {"service": 1_000}


def test_the_uplink_program_ends_at_sigterm_and_says_nothing_of_keys(house: House) -> None:
    program = house.start()
    eventually(house.leash.is_there)
    program.terminate()
    assert program.wait(10) == 0
    assert not house.leash.is_there()


def test_the_uplink_program_loads_nothing_of_the_collecting_side() -> None:
    code = "import sys, agent.cli.main, agent.cli.uplink; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "agent.uplink" in loaded
    strange = {"keys", "ledger", "gate", "lane", "seal", "pipeline", "site", "desk", "journal"}
    assert loaded & {f"agent.{room}" for room in strange} == set()
    assert not {one for one in loaded if one.split(".")[0] in {"cryptography", "tinydb", "serial"}}


def test_the_collecting_program_loads_nothing_of_the_network() -> None:
    code = "import sys, agent.cli.main, agent.cli.collect; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "agent.pipeline" in loaded
    assert loaded & {"agent.uplink", "paho", "ssl", "http", "urllib.request"} == set()
