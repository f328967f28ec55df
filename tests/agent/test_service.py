# SPDX-License-Identifier: Apache-2.0
"""The process: signals, readiness, watchdog, and what a death at any moment leaves behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.control import FILE_NAME, NotRunningError, ask
from agent.leash import Leash
from agent.offline import at_the_desk
from agent.service.life import Life
from agent.settings import load_settings
from agent.site import SPOOL
from agent.spool import Spool
from demo.ports import free_port
from demo.stage import wait_until
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    MAKER,
    POWER,
    REPO,
    YES,
    House,
    Json,
    copied,
    form,
    install,
    newer,
    values,
)
from tests.simulators.clock import ManualClock
from tests.simulators.conditions import eventually

# From documentation ranges, or invented.
CANARIES = ("TEST-WM-CANARY-0001", "canary.resident@example.com", "washer-canary-room-9")

# An hour of an appliance that says more than it should, so that no test sees its end; no two rows
# draw alike.
ROWS = [
    f"2026-11-01T08:{second // 60:02}:{second % 60:02}Z,{second}.0,412345,21.0,1,{CANARIES[1]},,"
    f"{CANARIES[0]}"
    for second in range(3_600)
]
DEVICE = f"""
[[device]]
id = "{CANARIES[2]}"
kind = "washing-machine"
source = "replay"
port = "recording.csv"
profile = "replay-washing-machine"
every = "20ms"
speed = 100.0
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def local(text: str) -> str:
    """The policy with brokers on the loopback, where nobody listens."""
    for host in ("ingest.example.com", "ingest.example.net"):
        assert f"mqtts://{host}:8883" in text
        text = text.replace(f"mqtts://{host}:8883", f"mqtts://localhost:{free_port()}")
    return text


class Agent:
    """A program of the agent's as a process, with a service manager that listens."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.heard: list[str] = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(directory / "notify"))
        self._manager.setblocking(False)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.running: subprocess.Popen[bytes] | None = None
        self.knocking: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, program: str = "run", **environment: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "agent.cli.main", program, "--config", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=REPO,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(self.directory / "notify")} | environment,
            )
        self._processes.append(process)
        return process

    def start(self, program: str = "run", **environment: str) -> subprocess.Popen[bytes]:
        """Starts it and waits until it says that it is ready."""
        self.heard.clear()
        process = self.spawn(program, **environment)
        eventually(lambda: "READY=1" in self.listen() or process.poll() is not None)
        assert process.poll() is None, self.log
        return process

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard.append(self._manager.recv(100).decode())
            except BlockingIOError:
                return self.heard

    def is_silent_for(self, seconds: float) -> int:
        """How often the watchdog was fed until now, or 0 when it is fed meanwhile."""
        heard = self.listen().count("WATCHDOG=1")
        time.sleep(seconds)
        return heard if self.listen().count("WATCHDOG=1") == heard else 0

    def status(self) -> Json:
        return ask(self.state, "status")

    def flow(self, name: str) -> Json:
        return next(one for one in self.status()["flows"] if one["flow"] == name)

    def reads(self, rows: int = 20) -> None:
        """Waits until the device has said something."""
        wait_until(lambda: self.status()["devices"][0]["samples"] >= rows, f"{rows} rows are read")

    @property
    def spool(self) -> Path:
        return self.state / SPOOL

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def in_spool(self) -> list[Any]:
        """The power readings that the maker would read now, while no agent runs."""
        house = House(self.directory, ManualClock(now_ms()))
        try:
            assert house.spool.moved_aside is None
            assert house.site.ledger.moved_aside is None
            return values(house.batches(DIAGNOSIS), POWER)
        finally:
            house.spool.close()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._manager.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every flow is agreed to, a device is there, nothing has run."""
    directory = install(tmp_path_factory.mktemp("i") / "g", edit=local)
    (directory / "recording.csv").write_text(
        "\n".join(["time,power,energy,water,door,program,fault,serial", *ROWS]) + "\n"
    )
    with (directory / "agent.toml").open("a") as file:
        file.write(DEVICE)
    with at_the_desk(load_settings(directory)) as desk:
        desk.apply(form(YES, now_ms()), "consent.toml")
    return directory


@pytest.fixture(scope="module")
def shared(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One that runs for all tests that only look; others knock meanwhile."""
    agent = Agent(copied(installed, tmp_path_factory.mktemp("s") / "g"))
    agent.running = agent.start(WATCHDOG_USEC="200000")
    agent.knocking = {
        program: agent.spawn(program, NOTIFY_SOCKET="") for program in ("run", "collect", "uplink")
    }
    yield agent
    agent.close()


@pytest.fixture
def agent(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    # unix(7): the name of a socket has at most 108 bytes.
    agent = Agent(copied(installed, tmp_path_factory.mktemp("a") / "g"))
    yield agent
    agent.close()


def test_the_manager_hears_that_it_is_ready_and_then_that_it_turns(shared: Agent) -> None:
    assert shared.heard[0] == "READY=1"
    heard = shared.listen().count("WATCHDOG=1")
    eventually(lambda: shared.listen().count("WATCHDOG=1") >= heard + 3)


def test_an_owner_that_does_not_turn_feeds_no_watchdog(shared: Agent) -> None:
    assert shared.running is not None
    shared.running.send_signal(signal.SIGSTOP)
    try:
        while shared.listen() != shared.heard or _is_running(shared.running.pid):
            time.sleep(0.01)
        heard = len(shared.listen())
        time.sleep(0.3)
        assert len(shared.listen()) == heard
    finally:
        shared.running.send_signal(signal.SIGCONT)
    eventually(lambda: len(shared.listen()) > heard)


def _is_running(pid: int) -> bool:
    # proc(5): the third field is the state; T is stopped by a signal.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"


def test_an_owner_that_is_stuck_feeds_no_watchdog_though_its_other_threads_live(
    agent: Agent,
) -> None:
    process = agent.start("collect", WATCHDOG_USEC="200000")
    agent.reads()
    eventually(lambda: agent.listen().count("WATCHDOG=1") >= 3)
    with contextlib.closing(sqlite3.connect(agent.spool, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # as a disk that does not come back from a write
        process.send_signal(signal.SIGHUP)  # what is open goes into the spool, and waits for it
        heard = eventually(lambda: agent.is_silent_for(0.6))
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(agent.state / FILE_NAME))  # the thread of control takes it
            asking.sendall(b'{"verb": "status"}\n')
            assert agent.is_silent_for(0.6) == heard
            assert process.poll() is None
            other.execute("ROLLBACK")
            assert b'"ok": true' in asking.recv(65_536)
    eventually(lambda: agent.listen().count("WATCHDOG=1") >= heard + 3)


def test_many_signals_at_once_are_one(shared: Agent) -> None:
    assert shared.running is not None
    for _ in range(5_000):
        shared.running.send_signal(signal.SIGHUP)
    assert shared.status()["running"] is True
    assert "Traceback" not in shared.log


def test_a_manager_that_does_not_read_stops_nothing(shared: Agent) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"noise", str(shared.directory / "notify"))
    began = time.monotonic()
    while time.monotonic() - began < 0.5:  # several times the watchdog's half
        assert shared.status()["running"] is True
    shared.listen()
    heard = shared.listen().count("WATCHDOG=1")
    eventually(lambda: shared.listen().count("WATCHDOG=1") > heard)


def test_strange_requests_are_answered_and_end_nothing(shared: Agent) -> None:
    # Where reading stops is a few frames beyond where writing does.
    deep = [b'{"verb": [' + b"[" * depth + b"]" * depth + b"]}" for depth in range(960, 1_000)]
    text = b'{"verb": "apply", "text": "\\ud800", "file": "x"}'
    for request in (text, b'{"verb": 3}', b"[]", *deep):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect(str(shared.state / FILE_NAME))
            connection.sendall(request + b"\n")
            assert b'"ok": false' in connection.recv(65_536)
    assert shared.status()["running"] is True


def test_sighup_reads_the_files_anew_and_a_bad_agent_toml_changes_nothing(shared: Agent) -> None:
    assert shared.running is not None
    assert shared.status()["policy"]["serial"] == 17
    text, signature = MAKER.policy(newer)
    (shared.directory / "policy.toml").write_bytes(text)
    (shared.directory / "policy.toml.cose").write_bytes(signature)
    shared.running.send_signal(signal.SIGHUP)
    wait_until(lambda: shared.status()["policy"]["serial"] == 18, "the newer policy is in force")
    assert all(flow["on"] for flow in shared.status()["flows"])
    for other in shared.knocking.values():
        other.wait(30)  # it reads these files, too
    (shared.directory / "agent.toml").write_text("[gateway]\nstat = 3\n")
    shared.running.send_signal(signal.SIGHUP)
    eventually(lambda: "agent.toml is bad, the old one is kept" in shared.log)
    assert f"{shared.directory}/agent.toml:" in shared.log
    assert len(shared.status()["devices"]) == 1


@pytest.mark.parametrize(("program", "told"), [("run", signal.SIGINT), ("collect", signal.SIGTERM)])
def test_a_signal_to_end_closes_the_open_batch_into_the_spool_and_exits_with_0_soon(
    agent: Agent, program: str, told: signal.Signals
) -> None:
    process = agent.start(program, WATCHDOG_USEC="200000", WATCHDOG_PID="1")
    agent.reads()
    assert agent.flow(DIAGNOSIS)["waiting"]["batches"] == 0
    began = time.monotonic()
    process.send_signal(told)
    assert process.wait(20) == 0
    took = time.monotonic() - began
    assert took < 3, f"took {took:.2f} s"
    # The manager watches another process.
    assert agent.listen() == ["READY=1", "STOPPING=1"]
    found = agent.in_spool()
    assert len(found) >= 20
    assert found == list(range(len(found)))
    assert not (agent.state / FILE_NAME).exists()
    with pytest.raises(NotRunningError):
        agent.status()


def test_a_stop_does_not_wait_for_a_question_that_waits_for_it(agent: Agent) -> None:
    """Red when the last acts come after the wait for their answers: five seconds, and no answer."""
    process = agent.start("collect", WATCHDOG_USEC="200000")
    agent.reads()
    eventually(lambda: agent.listen().count("WATCHDOG=1") >= 3)
    with contextlib.closing(sqlite3.connect(agent.spool, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the owner does not get to either of the two meanwhile
        process.send_signal(signal.SIGHUP)
        eventually(lambda: agent.is_silent_for(0.4))
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(agent.state / FILE_NAME))
            asking.sendall(b'{"verb": "status"}\n')
            process.terminate()
            time.sleep(0.3)
            other.execute("ROLLBACK")
            began = time.monotonic()
            assert b'"ok": true' in asking.recv(65_536)
    assert process.wait(20) == 0
    took = time.monotonic() - began
    assert took < 3, f"took {took:.2f} s"


def test_the_twin_a_kill_loses_the_open_batch_and_nothing_that_was_spooled(agent: Agent) -> None:
    process = agent.start()
    agent.reads()
    ask(agent.state, "reload")
    spooled = agent.flow(DIAGNOSIS)["waiting"]
    assert spooled["batches"] == 1
    agent.reads(agent.status()["devices"][0]["samples"] + 20)
    process.kill()
    process.wait()
    # Each sample is a power and a pseudonym.
    assert agent.in_spool() == list(range(spooled["readings"] // 2))
    # And it starts again, in spite of the socket that was left behind.
    assert (agent.state / FILE_NAME).exists()
    agent.start()
    assert all(flow["on"] for flow in agent.status()["flows"])
    assert agent.flow(DIAGNOSIS)["waiting"]["readings"] >= spooled["readings"]


def test_killed_at_any_moment_it_starts_again_with_everything_it_knew(
    agent: Agent, chance: random.Random
) -> None:
    for _ in range(4):
        process = agent.spawn()
        time.sleep(chance.uniform(0.05, 0.8))  # any moment, also before it is ready
        assert process.poll() is None, agent.log
        process.kill()
        process.wait()
        agent.in_spool()
    with at_the_desk(load_settings(agent.directory)) as desk:
        assert all(flow["on"] for flow in desk.status()["flows"])
        assert desk.status()["notices"] == []


def test_the_uplink_alone_is_ready_feeds_its_watchdog_and_ends_with_0(agent: Agent) -> None:
    process = agent.start("uplink", WATCHDOG_USEC="200000")
    eventually(lambda: "WATCHDOG=1" in agent.listen())
    process.terminate()
    assert process.wait(20) == 0
    assert agent.listen()[-1] == "STOPPING=1"


def test_the_uplink_that_starts_first_is_ready_on_the_leash_and_waits_for_its_spool(
    agent: Agent,
) -> None:
    for path in agent.spool.parent.iterdir():
        path.unlink()
    process = agent.start("uplink", WATCHDOG_USEC="200000")
    assert Leash(agent.spool).holder() == process.pid
    eventually(lambda: agent.listen()[:2] == ["READY=1", "STATUS=waits for the spool"])
    eventually(lambda: agent.listen().count("WATCHDOG=1") >= 3)
    assert "STATUS=carries" not in agent.heard
    Spool.open(agent.spool).close()
    eventually(lambda: "STATUS=carries" in agent.listen())


def test_who_is_not_enrolled_is_told_once_what_to_type(agent: Agent) -> None:
    told = f"type: assent enrol MAKER.bundle --thumbprint TEXT --config {agent.directory}"
    running = agent.start()
    running.terminate()
    assert running.wait(20) == 0
    assert told not in agent.log  # the twin: it is enrolled
    (agent.state / "keys" / "policy.key").unlink()
    running = agent.start()
    running.terminate()
    assert running.wait(20) == 0
    (line,) = [line for line in agent.log.splitlines() if told in line]
    assert "WARNING" in line


def test_an_uplink_that_finds_another_is_never_ready(agent: Agent) -> None:
    first = agent.start("uplink")
    eventually(lambda: "STATUS=carries" in agent.listen())
    assert agent.spawn("uplink").wait(20) == 3
    assert agent.listen().count("READY=1") == 1
    assert first.poll() is None


def test_a_bad_agent_toml_at_the_start_exits_with_1_and_its_place(agent: Agent) -> None:
    (agent.directory / "agent.toml").write_text('[gateway]\nstate = "state"\nquot = 3\n')
    assert agent.spawn().wait(20) == 1
    assert f"{agent.directory}/agent.toml:3:1" in agent.log
    assert "Traceback" not in agent.log
    assert agent.listen() == []


@pytest.mark.parametrize("program", ["run", "collect"])
def test_an_older_spool_put_back_under_it_ends_it_and_the_next_start_goes_on(
    agent: Agent, program: str
) -> None:
    agent.start(program).terminate()
    agent.running = agent.start(program)
    agent.reads()
    kept = copied(agent.spool.parent, agent.directory / "kept")
    ask(agent.state, "flush")
    ask(agent.state, "withdraw", flow=ADVICE)
    for file in (agent.spool, *kept.iterdir()):  # as an archive is unpacked: other files
        (agent.spool.parent / file.name).unlink(missing_ok=True)
    shutil.copytree(kept, agent.spool.parent, dirs_exist_ok=True)
    assert agent.running.wait(20) not in {0, None}
    agent.start(program)
    eventually(lambda: agent.flow(DIAGNOSIS)["on"])
    assert agent.flow(ADVICE)["reason"] == "withdrawn"


@pytest.mark.parametrize("program", ["run", "collect"])
def test_a_damaged_key_of_one_recipient_keeps_no_agent_from_starting(
    agent: Agent, program: str
) -> None:
    """Red without `Keys.trouble`; the twin is every other start of this file."""
    (agent.state / "keys" / "gateways" / "maker.key").write_bytes(b"")
    agent.start(program)
    agent.reads()
    assert "keys/gateways/maker.key" in agent.flow(DIAGNOSIS)["detail"]
    assert agent.flow(ADVICE)["on"]
    assert ask(agent.state, "withdraw", flow=DIAGNOSIS)["decision"] == "withdrawn"
    assert agent.flow(DIAGNOSIS)["reason"] == "withdrawn"


@pytest.mark.parametrize("program", ["run", "collect"])
def test_a_start_that_the_keys_forbid_is_told_and_not_tried_again_at_once(
    agent: Agent, program: str
) -> None:
    """Red without `linger`: it ends at once, and its manager begins it again every two seconds."""
    (agent.state / "keys" / "ledger.key").write_bytes(b"")
    process = agent.spawn(program)
    why = "STATUS=cannot start: ledger.key does not open with the wrapping key"
    eventually(lambda: why in agent.listen())
    assert process.poll() is None
    command = [sys.executable, "-m", "agent.cli.main", "status", "--config", str(agent.directory)]
    told = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert told.returncode == 1
    assert "ledger.key does not open" in told.stderr
    process.terminate()
    assert process.wait(10) != 0
    # The twin: typed by hand it says so and ends.
    assert agent.spawn(program, NOTIFY_SOCKET="").wait(20) == 1


@pytest.mark.clause("C28")
@pytest.mark.clause("C35")
def test_a_no_over_the_socket_has_happened_when_it_is_answered(agent: Agent) -> None:
    process = agent.start()
    agent.reads()
    told = ask(agent.state, "withdraw", flow=DIAGNOSIS)
    assert told["decision"] == "withdrawn"
    assert told["purged"]["readings"] >= 20
    agent.reads(agent.status()["devices"][0]["samples"] + 20)
    process.kill()
    process.wait()
    assert agent.in_spool() == []
    with at_the_desk(load_settings(agent.directory)) as desk:
        on = {flow["flow"]: flow["reason"] for flow in desk.status()["flows"]}
    assert on == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: None}
    assert "lane closed flow=remote-diagnosis" in agent.log
    assert canaries_in([agent.directory / "log"], CANARIES[:2]) == []
    files = [path for path in agent.state.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert canaries_in(files, CANARIES) == []
    # The twin: where they come from they are found.
    assert len(canaries_in([agent.directory / "recording.csv"], CANARIES[:2])) == 2


def canaries_in(files: list[Path], canaries: tuple[str, ...]) -> list[str]:
    return [
        f"{path.name} holds {canary}"
        for path in files
        for canary in canaries
        if canary.encode() in path.read_bytes()
    ]


# What a program that stays can do without: a module is memory for as long as it runs.
NEEDLESS = {
    "_strptime",
    "argparse",
    "asyncio",
    "concurrent.futures",
    "cryptography.x509",
    "ctypes",
    "dataclasses",
    "difflib",
    "gettext",
    "importlib.metadata",
    "stringprep",
    "unittest",
    "zipfile",
}
# What comes with paho only, and with what speaks to a network.
NETWORK = {"bz2", "email", "http", "locale", "shutil", "ssl", "tempfile", "urllib.request"}


def loaded(agent: Agent) -> set[str]:
    lines = [line for line in agent.log.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    ("program", "needless"), [("run", NEEDLESS), ("collect", NEEDLESS | NETWORK)]
)
def test_a_program_that_works_has_loaded_nothing_it_can_do_without(
    agent: Agent, program: str, needless: set[str]
) -> None:
    process = agent.start(program, PYTHONPROFILEIMPORTTIME="1")
    agent.reads()
    assert agent.status()["flows"]
    if program == "run":
        eventually(lambda: "state=waiting" in agent.log)  # it has looked a broker up
    process.terminate()
    assert process.wait(10) == 0
    assert {"sqlite3", "csv"} <= loaded(agent)  # when it began, and with its device
    assert loaded(agent) & needless == set()


def test_a_second_instance_exits_with_3_and_the_first_goes_on(shared: Agent) -> None:
    assert shared.running is not None
    assert shared.status()["pid"] == shared.running.pid
    assert {name: one.wait(30) for name, one in shared.knocking.items()} == {
        "run": 3,
        "collect": 3,
        "uplink": 3,
    }
    assert shared.log.count("another assent works in") == 2
    assert "another uplink carries from this spool" in shared.log
    assert shared.status()["running"] is True


def test_a_signal_wakes_the_work() -> None:
    code = (
        "import os, signal, threading\n"
        "from agent.service.life import Life\n"
        "woken, life = threading.Event(), Life()\n"
        "life.hear_signals(woken.set)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print(woken.wait(10), life.reload.is_set(), life.stop.is_set())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


@pytest.mark.parametrize(
    ("usec", "expected"),
    [("", 1.0), ("60000000", 1.0), ("1000000", 0.25)],
    ids=["nobody watches", "somebody watches at leisure", "somebody watches closely"],
)
def test_a_turn_is_short_enough_for_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, usec: str, expected: float
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert Life().patience_s(1.0) == expected
