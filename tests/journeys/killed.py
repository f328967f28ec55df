# SPDX-License-Identifier: Apache-2.0
"""A household whose programs are killed in the middle of an act, and what must hold afterwards.

The gateway's spool holds known readings of three flows for one recipient. Its uplink has some of
each in flight towards a broker that has stopped reading. Then somebody or something ends one flow
(`agent` programs and the broker are real), and one program is killed before one of its steps.

What must hold (`Point.outcome`):
  - once the act's call has returned, or the killed program was started again and the act is
    recorded or repeated, no byte of what was in flight arrives any more, and no batch of the flow
    reaches the backend;
  - every batch of the other flows is stored exactly once, with the values that were measured;
  - the flow is off in ledger and spool alike, or on in both: then nothing of it is lost either;
  - nothing was moved aside, no file is left over, and no sealed byte of an ended flow is on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from agent.control import ask
from agent.ledger import Ledger
from agent.path import Reason
from agent.pipeline import Pipeline
from agent.pipeline.accord import PAUSES
from agent.records import Decision, State
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import LaneState, Spool
from assent import durable
from assent.backend.directory import Directory
from assent.backend.outcomes import Accepted
from assent.backend.store import Settled, Store, Taken, Verdict
from assent.backend.subscriber import Subscriber
from assent.backend.subscriber.connection import Broker as Address
from assent.errors import AssentError
from demo.ports import kept_port
from demo.stage import Stage, StageError, wait_until
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Device, Instant, Sample
from tests.agent.installed import NOBODY
from tests.agent.test_fence import unsent
from tests.simulators.steps import Step, Watch
from tests.simulators.tap import Line, Tap, steady

RECIPIENT = "maker"
ENDED = "remote-diagnosis"
OTHERS = ("service", "comfort")
FLOWS = (ENDED, *OTHERS)
ATTRIBUTES = {
    ENDED: "appliance.power",
    "service": "host.temperature",
    "comfort": "appliance.temperature",
}
# Of each flow. The window of the uplink holds twenty, in turns.
BATCHES = 8
READINGS = 20
# Samples that the owner is handed in one go; it takes them before the next.
_AT_ONCE = 100
# Bytes up after which a line is held: a handshake, CONNECT and SUBSCRIBE, a batch or two.
HOLD = 4_000
# Bytes that a held line has received when its window is full.
FULL = HOLD + 2_000
# After the rows are gone the file is cut; a loop of the owner later nothing of it is under way.
_SETTLE_S = 0.15
# A step that is known to come is waited for, however slow the machine.
_STRIKES_S = 5.0
# After the end of a permit the uplink sees it at its next look, within a second.
EXPIRY_S = 1.3

_FLOWS = """
[flows.service]
function = "core"
purpose = "service-operation"
notice = { en = "Keep the gateway working.", zh = "保持网关正常运行。" }
basis = "contract"
recipient = "maker"
attributes = { "host.temperature" = "keep" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }

[flows.remote-diagnosis]
function = "optional"
purpose = "fault-diagnosis"
notice = { en = "Find faults before they become failures.", zh = "在故障发生之前发现它。" }
basis = "consent"
recipient = "maker"
attributes = { "appliance.power" = "keep" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }

[flows.comfort]
function = "optional"
purpose = "comfort"
notice = { en = "Keep the appliance at a pleasant temperature.", zh = "让电器保持舒适的温度。" }
basis = "consent"
recipient = "maker"
attributes = { "appliance.temperature" = "keep" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }

[flows.partner-energy-advice]
"""


def three_flows(text: str) -> str:
    """The example policy with three flows to the maker."""
    head, rest = text.split("[flows.service]", 1)
    return head + _FLOWS.lstrip("\n") + rest.split("[flows.partner-energy-advice]\n", 1)[1]


def wider(text: str) -> str:
    """The next policy, in which the flow would carry more than was agreed."""
    text = three_flows(text).replace("serial = 17", "serial = 18")
    old = '{ "appliance.power" = "keep" }'
    assert old in text
    return text.replace(old, '{ "appliance.power" = "keep", "appliance.door" = "keep" }')


def measured(flow: str) -> list[float]:
    """The values that were measured for a flow, in order; no two flows share one."""
    first = {"service": 100, "comfort": 500, ENDED: 10_000}[flow]
    return [(first + number) / 10 for number in range(BATCHES * READINGS)]


class Household:
    """A gateway with everything that a point needs, made once and copied for each.

    Args:
        recipients: with their keys.
        root: for its files.
    """

    def __init__(self, recipients: Stage, root: Path) -> None:
        self.stage = stage = recipients.copied(root / "stage")
        bundle = stage.publish(self.policy)
        stage.make_gateway("")
        stage.enrol(bundle)
        stage.decide({"service": '"accepted"', ENDED: '"given"', "comfort": '"given"'})
        (stage.gateway / "consent.toml").unlink()
        self._fill()
        self.bundle = stage.publish(wider)
        self.next_policy = {
            name: (stage.published / name).read_bytes()
            for name in ("policy.toml", "policy.toml.cose")
        }

    @staticmethod
    def policy(text: str) -> str:
        """The policy that is in force."""
        return three_flows(text)

    def _fill(self) -> None:
        """Has the real path take known readings and seal them into the spool."""
        settings = load_settings(self.stage.gateway)
        clock = Clock(trust="system")
        site = open_site(settings, clock)
        gateway, washer = Device("gateway", "gateway"), Device("washer", "washing-machine")
        with contextlib.closing(Spool.open(settings.state / SPOOL)) as spool:
            pipeline = Pipeline(site, spool, clock, NOBODY)
            pipeline.start()
            for values in self.batches():
                now = clock.now()
                for flow, series in values.items():
                    device = gateway if flow == "service" else washer
                    instants = (
                        Instant(now.wall_ms + number, now.mono_ms + number, now.trusted)
                        for number in range(len(series))
                    )
                    names = (ATTRIBUTES[flow],)
                    samples = [
                        Sample(device, at, names, (one,))
                        for at, one in zip(instants, series, strict=True)
                    ]
                    for first in range(0, len(samples), _AT_ONCE):
                        pipeline.deliver(samples[first : first + _AT_ONCE])
                        while not pipeline._door.empty():
                            pipeline.turn(0)
                pipeline.flush()
            pipeline.stop()
            self.sealed: dict[bytes, str] = dict(
                spool._db.execute("SELECT digest, flow FROM batch JOIN lane ON lane.id = lane")
            )
            self.ciphertext = [
                data
                for (data,) in spool._db.execute(
                    "SELECT data FROM payload JOIN batch USING (id) JOIN lane ON lane.id = lane"
                    " WHERE flow=?",
                    (ENDED,),
                )
            ]

    @staticmethod
    def batches() -> Iterator[dict[str, list[float]]]:
        """What is measured for each batch of each flow."""
        for first in range(0, BATCHES * READINGS, READINGS):
            yield {flow: measured(flow)[first : first + READINGS] for flow in FLOWS}


class Seen(Store):
    """The backend's store, which also notes when it stored what."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.came: list[tuple[float, str, bytes, Verdict]] = []

    def put(self, taken: Sequence[Taken]) -> list[Settled]:
        settled = list(super().put(taken))
        now = time.monotonic()
        for one in settled:
            if isinstance(one.outcome, Accepted):
                opened = one.outcome.opened
                self.came.append((now, opened.header.flow, opened.digest, one.verdict))
            elif one.verdict is Verdict.REFUSED:
                self.came.append((now, "refused", b"", one.verdict))
        return settled


class Act(Protocol):
    """What ends a flow.

    Attributes:
        name: for people.
        words: of the command that does it alone, or none.
    """

    name: str
    words: tuple[str, ...]

    def prepare(self, point: Point) -> None:
        """Before any program runs."""

    def perform(self, point: Point) -> bool:
        """Does it; whether the call said that it is done."""


class Point:
    """One copy of the household with its programs, for one kill.

    Args:
        household: what is copied.
        root: for this point's files.
        act: what ends the flow; None for nothing (the twin).
        together: collect and uplink in one process.
    """

    def __init__(
        self, household: Household, root: Path, act: Act | None, *, together: bool = False
    ) -> None:
        self.household = household
        self.root = root
        self.act = act
        self.gateway = root / "gateway"
        self.state = self.gateway / "state"
        self.names = ("run",) if together else ("collect", "uplink")
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.until_ms = 0
        self.wrong: list[str] = []
        self._ends = contextlib.ExitStack()
        self._copy()
        self._serve()
        if act is not None:
            act.prepare(self)

    def __enter__(self) -> Point:  # noqa: PYI034 - not subclassed
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            if program.poll() is None:
                program.kill()
            program.wait()
        self._ends.close()
        shutil.rmtree(self.root)

    # The world around it.

    def _copy(self) -> None:
        stage = self.household.stage
        pipes = shutil.ignore_patterns("*.bell", "*.leash", "*.sock")
        shutil.copytree(stage.gateway, self.gateway, ignore=pipes)
        agent = self.gateway / "agent.toml"
        agent.write_text(agent.read_text().replace(str(stage.gateway), str(self.gateway)))
        with contextlib.closing(sqlite3.connect(self.state / SPOOL)) as db, db:
            for column in ("cert_path", "key_path"):
                db.execute(
                    f"UPDATE target SET {column} = replace({column}, ?, ?)",
                    (str(stage.gateway), str(self.gateway)),
                )
        shutil.copytree(stage.backend_directory(RECIPIENT), self.root / RECIPIENT)

    def _serve(self) -> None:
        """A broker with a tap before it, and the backend."""
        world = _Brokered(self.household.stage, self.root)
        port = world.ports[RECIPIENT]
        self._ends.callback(world.close)
        world.start_broker(RECIPIENT)
        self.tap = self._ends.enter_context(Tap(self.household.stage.ports[RECIPIENT], port))
        self.tap.hold_after = HOLD
        self.backend = self._ends.enter_context(_backend(self.root / RECIPIENT, port))

    # The programs.

    def start(self, *names: str) -> None:
        """Starts programs as a service manager does; returns when all of them are at work."""
        for name in names or self.names:
            with (self.root / f"{name}.log").open("ab") as log:
                words = [sys.executable, "-m", "agent.cli.main", name]
                self.programs[name] = subprocess.Popen(
                    [*words, "--config", str(self.gateway)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        if {"collect", "run"} & set(names or self.names):
            wait_until(lambda: self.status() is not None, "the agent answers")

    def status(self) -> dict[str, Any] | None:
        """What the running agent says of itself, or None."""
        with contextlib.suppress(AssentError):
            return ask(self.state, "status", patience_s=20)
        return None

    def state_of_flow(self) -> str:
        """What the running agent says of the flow: `on`, or why it is off."""
        status = self.status()
        assert status is not None, self.log()
        flow = next((one for one in status["flows"] if one["flow"] == ENDED), None)
        if flow is None:
            return Reason.POLICY_UNUSABLE.value  # no flow is listed then
        return "on" if flow["on"] else str(flow["reason"])

    def starved_s(self) -> float:
        """For how long threads of the programs were ready and had no processor, in all."""
        found = 0
        for program in self.programs.values():
            for task in Path(f"/proc/{program.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # it has ended
                    found += int(task.read_text().split()[1])
        return found / 1e9

    def log(self) -> str:
        """What the programs said."""
        return "".join(path.read_text() for path in sorted(self.root.glob("*.log")))

    def in_flight(self) -> list[Line]:
        """The lines on which some of each flow waits, on the gateway's side as well.

        Raises:
            TooLateError: the permit ended before.
        """
        try:
            lines = steady(self.tap, FULL)
            wait_until(lambda: bool(sum(unsent(self.tap.port).values())), "some waits there", 10)
        except (AssertionError, StageError):
            if self.until_ms and time.time() * 1000 > self.until_ms:
                raise TooLateError from None
            raise
        return lines

    # The kill and what must hold.

    def outcome(self, victim: str | None, strike: Step | None) -> Outcome:
        """Performs the act, kills its victim before one step, and looks at everything.

        Args:
            victim: `collect`, `uplink`, `run`, `command`, or None.
            strike: the step; None to count the steps.
        """
        alone = victim == "command"
        self.start(*(["uplink"] if alone else []))
        before = self.in_flight()
        watch = None
        if victim is not None and not alone:
            log = self.root / "steps"
            watch = Watch(log, pid=self.programs[victim].pid, strike=strike)
            self._ends.callback(watch.leave)  # also when it is too late for the act
        if alone:
            watch, done = self._command(strike)
        else:
            done = self.act.perform(self) if self.act is not None else False
        now = self.tap_now(before) if done else None
        struck = self._after(watch, victim, strike, done=done)
        self._recover(alone=alone)
        if self.act is not None:
            now = self._settle_doubt(now, before, done=done, struck=struck is not None)
        self._deliver(before, now)
        self._examine()
        counted = watch.counted if watch is not None else Counter[str]()
        return Outcome(counted, struck, done, tuple(self.wrong))

    def _command(self, strike: Step | None) -> tuple[Watch, bool]:
        assert self.act is not None
        words = [sys.executable, "-m", "agent.cli.main", *self.act.words]
        words += ["--config", str(self.gateway)]
        watch = Watch(self.root / "steps", words=words, strike=strike)
        code, _ = watch.ends()
        return watch, code == 0

    def _after(
        self, watch: Watch | None, victim: str | None, strike: Step | None, *, done: bool
    ) -> str | None:
        if watch is None:
            return None
        if done and victim != "command":  # the steps of deleting come after the answer
            with contextlib.suppress(StageError):
                wait_until(lambda: self._is_dead(victim) or self._row()[1] == 0, "it is purged", 5)
            with contextlib.suppress(StageError):  # a run may make some fewer
                settles_s = _SETTLE_S if strike is None else _STRIKES_S
                wait_until(lambda: self._is_dead(victim), "it is struck", settles_s)
        watch.leave()
        struck = watch.struck
        program = self.programs.get(victim or "")
        if struck is not None and program is not None:
            assert program.wait(10) == -signal.SIGKILL
        return struck

    def tap_now(self, lines: list[Line]) -> tuple[float, list[int]]:
        """The moment from which nothing of the flow may arrive, and what had arrived."""
        return time.monotonic(), [line.received for line in lines]

    def _recover(self, *, alone: bool) -> None:
        dead = [name for name in self.names if self._is_dead(name)]
        if alone:
            dead = [name for name in self.names if name not in self.programs] + dead
        if dead:
            self.start(*dict.fromkeys(dead))

    def _is_dead(self, name: str | None) -> bool:
        program = self.programs.get(name or "")
        return program is not None and program.poll() is not None

    def _settle_doubt(
        self, now: tuple[float, list[int]] | None, before: list[Line], *, done: bool, struck: bool
    ) -> tuple[float, list[int]]:
        """A call that was killed is repeated where the no was not recorded."""
        assert self.act is not None
        if not done and not struck:
            self.wrong.append("the act failed though nothing was killed")
        first = self.tap_now(before) if now is None else now
        said = self.state_of_flow()
        self._agree(said)
        if said != "on" and not self._is_pause(said):
            return first
        if done:
            self.wrong.append(f"the call said that it is done, and the flow is {said}")
        if said == "on":  # whoever connected since has some of the flow in flight as well
            before += [line for line in steady(self.tap, FULL) if line not in before]
        if not self.act.perform(self):
            self.wrong.append("the act fails when it is repeated")
        again = self.tap_now(before)
        said = self.state_of_flow()
        self._agree(said)
        if said == "on":
            self.wrong.append("the act was repeated, and the flow is on")
        return again

    def _agree(self, said: str) -> None:
        """The spool says what the ledger says, once the agent has decided."""
        if said != "on" and not self._is_pause(said):
            with contextlib.suppress(StageError):  # it is deleted after the answer
                wait_until(lambda: self._row()[1] == 0, "it is purged", 10)
        row, waiting = self._row()
        arrived = len({came for _, flow, came, _ in self.backend.came if flow == ENDED})
        if said == "on":
            fits = row is LaneState.OPEN and waiting + arrived >= BATCHES
        elif self._is_pause(said):
            fits = row is LaneState.PAUSED and waiting + arrived >= BATCHES
        else:
            fits = row is LaneState.CLOSED and waiting == 0
        if not fits:
            self.wrong.append(f"half a state: {said!r}, row {row.name}, {waiting} waiting")

    def _row(self) -> tuple[LaneState, int]:
        with contextlib.closing(Spool.open(self.state / SPOOL, create=False)) as spool:
            return spool.lanes()[ENDED].state, spool.waiting()[ENDED].batches

    @staticmethod
    def _is_pause(said: str) -> bool:
        return said in {reason.value for reason in PAUSES}

    def _deliver(self, before: list[Line], now: tuple[float, list[int]] | None) -> None:
        counts = self.tap.rest(before) if now is not None else []
        if now is not None:
            had = now[1]
            came = [line.taken for line in before]
            late = [b - a for a, b in zip(had, came, strict=True) if b > a]
            if late:
                self.wrong.append(f"{late} bytes of what was in flight arrived after the return")
            if not sum(counts):
                self.wrong.append("nothing was in flight")
        self.tap.pass_on()
        wanted = {digest for digest, flow in self.household.sealed.items() if flow != ENDED}
        if now is None:
            wanted = set(self.household.sealed)

        def have_arrived() -> bool:
            return wanted <= {digest for _, _, digest, _ in self.backend.came}

        try:
            wait_until(have_arrived, "the other flows arrive")
            wait_until(self._is_drained, "they are acknowledged")
        except Exception as exc:  # noqa: BLE001 - one more thing that is wrong
            self.wrong.append(f"lost: {exc}")
        late_ones = [at for at, flow, _, _ in self.backend.came if flow == ENDED]
        if now is not None and any(at > now[0] for at in late_ones):
            self.wrong.append("a batch of the flow arrived after the return")

    def _is_drained(self) -> bool:
        with contextlib.closing(Spool.open(self.state / SPOOL, create=False)) as spool:
            waiting = spool.waiting()
        return all(waiting[flow].batches == 0 for flow in FLOWS)

    def _examine(self) -> None:
        """The stores, once nothing moves any more."""
        stored = Counter(
            digest for _, _, digest, verdict in self.backend.came if verdict is Verdict.STORED
        )
        if any(count != 1 for count in stored.values()):
            self.wrong.append("a batch was stored twice")
        if any(verdict is Verdict.REFUSED for _, _, _, verdict in self.backend.came):
            self.wrong.append("the backend refused a message")
        for flow in OTHERS:
            if sorted(self._values(flow)) != sorted(measured(flow)):
                self.wrong.append(f"the values of {flow} are others")
        if not set(self._values(ENDED)) <= set(measured(ENDED)):
            self.wrong.append("values that nobody measured")
        try:  # whoever runs may be in the middle of a write, whose temporary file passes
            wait_until(lambda: not self._left_over(), "no file is left over", 5)
        except StageError:
            self.wrong.append(f"left over: {self._left_over()}")
        with contextlib.closing(sqlite3.connect(self.state / SPOOL)) as db:
            if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                self.wrong.append("the spool is not sound")
        if self.act is not None:
            self._search_disk()

    def _left_over(self) -> list[str]:
        names = [path.name for path in self.state.rglob("*")]
        return [one for one in names if re.search(r"\.tmp-|damaged|fault|aside", one)]

    def _search_disk(self) -> None:
        """No piece of the flow's sealed bytes is anywhere below the state directory."""
        pieces = [data[at : at + 64] for data in self.household.ciphertext for at in (200, 900)]
        for path in self.state.rglob("*"):
            if path.is_file():
                found = path.read_bytes()
                if any(piece in found for piece in pieces):
                    self.wrong.append(f"sealed bytes of the flow are still in {path.name}")

    def _values(self, flow: str) -> list[float]:
        store = self.root / RECIPIENT / "store.db"
        with contextlib.closing(sqlite3.connect(store)) as db:
            rows = db.execute(
                "SELECT number FROM data WHERE flow=? AND attribute=?", (flow, ATTRIBUTES[flow])
            )
            return [round(number, 1) for (number,) in rows]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one point.

    Attributes:
        counted: the steps of the victim, by call.
        struck: the call the kill fell before; None while nothing was killed.
        done: whether the act's first call said that it is done.
        wrong: what does not hold.
    """

    counted: Counter[str]
    struck: str | None
    done: bool
    wrong: tuple[str, ...]


class _Brokered(Stage):
    """A broker of another stage's recipient, in a place and on a port of its own."""

    def __init__(self, stage: Stage, root: Path) -> None:
        self.root = root
        port, keeper = kept_port()
        self.ports, self._keepers = {RECIPIENT: port}, [keeper]
        self.programs = {}
        self._from = stage

    def backend_directory(self, recipient: str) -> Path:
        return self._from.backend_directory(recipient)


@contextlib.contextmanager
def _backend(directory: Path, port: int) -> Iterator[Seen]:
    """The recipient's subscriber at work, with a store that notes what came."""
    here = Directory.open(directory)
    stop, ready = threading.Event(), threading.Event()
    stores: list[Seen] = []

    def life() -> None:
        with contextlib.closing(Seen(here.root)) as store:
            stores.append(store)
            address = Address(
                "127.0.0.1",
                port,
                here.tls("ca.pem"),
                here.tls("backend.pem"),
                here.tls("backend.key"),
            )
            Subscriber(here, store, address).run(stop, ready.set)

    thread = threading.Thread(target=life, name="backend")
    thread.start()
    try:
        assert ready.wait(20)
        yield stores[0]
    finally:
        stop.set()
        thread.join(20)


# The acts.


class TooLateError(Exception):
    """The permit ended before everything was in place: to be tried again."""


class Withdrawal:
    """`assent consent withdraw FLOW`."""

    name = "withdrawal"
    words: tuple[str, ...] = ("consent", "withdraw", ENDED)

    def prepare(self, point: Point) -> None:
        """Nothing."""

    def perform(self, point: Point) -> bool:
        return _types(point, *self.words)


class FormApplied:
    """`assent consent apply FILE`: a no to the flow, and a yes said again to another."""

    name = "form"

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()

    def prepare(self, point: Point) -> None:
        path = point.root / "form.toml"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        path.write_text(
            'policy = "2026-11-01"\ndecided_by = "owner"\nrecorded_by = "installer 4711"\n'
            f'recorded_at = {at}\nmethod = "signed form 2"\n[decisions]\n'
            f'comfort = "given"\n{ENDED} = "refused"\n'
        )
        self.words = ("consent", "apply", str(path))

    def perform(self, point: Point) -> bool:
        return _types(point, *self.words)


class PolicyByFile:
    """The next policy lies beside the agent's files, and the agent reads them again.

    The command that does it alone is `assent enrol BUNDLE`, while nothing collects.
    """

    name = "policy"

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()

    def prepare(self, point: Point) -> None:
        self.words = ("enrol", str(point.household.bundle))

    def perform(self, point: Point) -> bool:
        for name, data in point.household.next_policy.items():
            durable.write(point.gateway / name, data)
        with contextlib.suppress(AssentError):
            return "files read again" in ask(point.state, "reload")["told"]
        return False


class Expiry:
    """The yes ends at an instant; nobody calls anything."""

    name = "expiry"
    words: tuple[str, ...] = ()
    after_s = 3.0

    def prepare(self, point: Point) -> None:
        settings = load_settings(point.gateway)
        clock = Clock(trust="system")
        site, now = open_site(settings, clock), clock.now()
        ledger: Ledger = site.ledger
        newest = ledger.newest(ENDED)
        assert newest is not None
        point.until_ms = now.wall_ms + int(self.after_s * 1000)
        fields = {name: getattr(newest, name) for name in newest.__struct_fields__}
        for name in ("id", "at_ms", "form_hash"):
            del fields[name]
        changed = {"state": State.RENEWED, "until_ms": point.until_ms, "decided_ms": now.wall_ms}
        ledger.append_decision(Decision(**(fields | changed)), now.wall_ms)

    def perform(self, point: Point) -> bool:
        if time.time() * 1000 > point.until_ms - 200:
            raise TooLateError
        time.sleep(point.until_ms / 1000 - time.time())
        starved_s = point.starved_s()
        time.sleep(EXPIRY_S)
        time.sleep(max(0.0, point.starved_s() - starved_s))  # who had no processor looks later
        return True


def _types(point: Point, *words: str) -> bool:
    """Types a command, and waits for it."""
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli.main", *words, "--config", str(point.gateway)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode == 0


ACTS: dict[str, Callable[[], Act]] = {
    "withdrawal": Withdrawal,
    "form": FormApplied,
    "policy": PolicyByFile,
    "expiry": Expiry,
}
"""Every way in which a flow ends, by name."""
