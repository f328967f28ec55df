# SPDX-License-Identifier: Apache-2.0
"""A household that reads numbers, with its broker, backend and programs: all real, all breakable.

Two flows go to the maker, one of small batches and one whose batch stays open for long; a third
goes to a partner with a broker and a backend of its own. Between the uplink and each broker stands
a proxy. Every life of the collecting program reads a recording of its own (tests/faults/oracle.py
says what its numbers are), so that the same number is never read twice.

Attributes that campaigns use: `lives` (what the oracle has to know), `wrong` (what does not hold
apart from the numbers). A program that ends by itself is started again, as a service manager does;
that it ended is wrong unless it ran under a tracer, which ends it or makes calls fail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.control import ask
from assent.errors import AssentError
from demo.stage import RECIPIENTS, REPO, Stage, StageError, wait_until
from tests.faults.deaths import Deaths
from tests.faults.history import SPAN, STEP_MS, History, Life
from tests.faults.holdings import CAUSES, read
from tests.faults.household import ATTRIBUTE, FLOWS, Household
from tests.faults.oracle import Judgement, judge
from tests.faults.timepiece import Timepiece
from tests.simulators.lossy import Disk
from tests.simulators.proxy import Proxy

_DRAINED_S = 60.0
_GOES_ON_S = 40.0
_LATE_MS = 3_000  # what is due and not yet read when a busy machine is told to stop
_ROWS = 30_000  # ten minutes of one life


class World(Household):
    """One household and everything around it, until `close`.

    Args:
        recipients: with their keys.
        root: for all files; emptied first.
        together: collect and uplink in one process.
        shifts_clock: the wall clock of the gateway's programs can be set.
        has_disk: the gateway's state lies on a disk whose power can be cut.
    """

    def __init__(
        self,
        recipients: Stage,
        root: Path,
        *,
        together: bool = False,
        shifts_clock: bool = False,
        has_disk: bool = False,
    ) -> None:
        super().__init__(recipients, root)
        self.together = together
        self.lives: list[Life] = []
        self.wrong: list[str] = []
        self.brokers = dict(self.ports)
        self.proxies: dict[str, Proxy] = {}
        self.timepiece = Timepiece(self.root) if shifts_clock else None
        self.disk = Disk(self.state) if has_disk else None
        self._yeses: list[int] = []
        self._deaths = Deaths()
        self._traced: set[int] = set()

    def __enter__(self) -> Self:
        for recipient in RECIPIENTS:
            proxy = Proxy(self.brokers[recipient])
            proxy.__enter__()
            self.proxies[recipient] = proxy
            self.ports[recipient] = proxy.port  # what the policy names
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        for proxy in self.proxies.values():
            proxy.__exit__(None, None, None)
        if self.disk is not None:
            self.disk.unmount()

    def settle(self) -> None:
        """Everything up to the household's yes; nothing runs afterwards."""
        if self.timepiece is not None:
            self.timepiece.begin()
        if self.disk is not None:
            self.disk.mount()
        super().settle()

    def agree(self, under: Sequence[str] | None = None) -> None:
        """The household says yes to every flow, and the oracle is told when."""
        self._yeses.append(_now_ms())
        super().agree(under)

    # Programs.

    def start_all(self) -> None:
        """Starts brokers, backends and the gateway."""
        for recipient in RECIPIENTS:
            self.start_broker(recipient)
            self.start_backend(recipient)
        self.start_gateway()

    def start_gateway(self, under: Sequence[str] = ()) -> None:
        """Starts collect and uplink, or both in one; returns when the former answers."""
        self.start_collect(under)
        if not self.together:
            self.start_uplink()

    def start_collect(self, under: Sequence[str] = (), *, waits: bool = True) -> None:
        """Begins a new life of the collecting program.

        Args:
            under: words before the program's own: a tracer.
            waits: returns when it answers.
        """
        self._record()
        self.lives.append(Life(rows=_ROWS, began_ms=_now_ms()))
        self._launch("collect", "run" if self.together else "collect", under)
        if waits:
            self.wait_for_answer()

    def wait_for_answer(self) -> None:
        """Waits until the collecting program is at work."""
        wait_until(self._is_answering, "the agent answers")
        self.lives[-1].answered_ms = _now_ms()

    def start_uplink(self, under: Sequence[str] = ()) -> None:
        """Starts the uplink."""
        self._launch("uplink", "uplink", under)

    def start_backend(self, recipient: str, under: Sequence[str] = ()) -> None:
        """Starts a recipient's subscriber, which goes to the broker without a proxy."""
        url = f"mqtts://127.0.0.1:{self.brokers[recipient]}"
        words = [str(self.backend_directory(recipient)), "--broker", url]
        self._run_program(f"backend-{recipient}", "run", words, under)

    def start_broker(self, recipient: str) -> None:
        """Starts a recipient's broker behind its proxy."""
        before, self.ports = self.ports, self.brokers
        try:
            super().start_broker(recipient)
        finally:
            self.ports = before

    def death(self, name: str) -> Path:
        """The file at whose sight a backend dies between its commit and its acknowledgement."""
        return self.root / f"{name}.death"

    def broker_store(self, recipient: str) -> Path:
        """Where a broker keeps what nobody has fetched."""
        return self.root / "brokers" / recipient / "state"

    def kill(self, name: str) -> bool:
        """Ends a program as a power cut does; whether it was alive until then."""
        program = self.programs[name]
        was_alive = self._is_alive(name)
        program.kill()
        self.buried(name)
        return was_alive and program.returncode == -signal.SIGKILL

    def excuse(self, name: str) -> None:
        """That a program ends by itself is not wrong: its disk is at fault."""
        self._traced.add(self.programs[name].pid)

    def _is_alive(self, name: str) -> bool:
        """Whether a program runs; that it ended by itself is wrong."""
        program = self.programs[name]
        code = program.poll()
        if code is not None and program.pid not in self._traced:
            self.wrong.append(f"{name} ended by itself with {code}: {self.log(name)[-500:]}")
        return code is None

    def buried(self, name: str) -> int:
        """Waits for a program that is about to end, and notes the end of a life; its exit code."""
        program = self.programs.pop(name)
        try:
            code = program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise StageError(f"{name} did not end: {self.log(name)[-800:]}") from None
        if name == "collect":
            self._end_life(self._deaths.of(program), polite=code == 0)
        return code

    def stop(self, name: str) -> None:
        """Ends a program politely."""
        if self._is_alive(name) and name == "collect":
            self.lives[-1].told_ms = _now_ms()
        self.programs[name].send_signal(signal.SIGCONT)
        self.programs[name].send_signal(signal.SIGTERM)
        code = self.buried(name)
        if code != 0:
            self.wrong.append(f"{name} ended with {code}: {self.log(name)[-500:]}")

    def mend(self) -> None:
        """Starts again what ended by itself, as a service manager does."""
        for name in self.gateway_programs:
            if name in self.programs and not self._is_alive(name):
                self.buried(name)
            if name not in self.programs:
                self.start_collect() if name == "collect" else self.start_uplink()
        for recipient in RECIPIENTS:
            self._mend_recipient(recipient)

    def _mend_recipient(self, recipient: str) -> None:
        for name, start in (
            (f"broker-{recipient}", self.start_broker),
            (f"backend-{recipient}", self.start_backend),
        ):
            if name in self.programs and not self._is_alive(name):
                self.buried(name)
            if name not in self.programs:
                start(recipient)

    @property
    def gateway_programs(self) -> tuple[str, ...]:
        """What runs on the gateway, by the names of `programs`."""
        return ("collect",) if self.together else ("collect", "uplink")

    def needs_evidence(self) -> None:
        """From now on the clock is believed only when a time service vouches for it."""
        agent = self.gateway / "agent.toml"
        text = agent.read_text()
        agent.write_text(text.replace('trust = "system"', 'trust = "synchronised"'))

    # What is there.

    def wait_for_more(self, what: str, flows: Sequence[str] = ()) -> None:
        """Waits until flows arrive again; a stall is a violation, told as such."""
        had = {flow: self.numbers(flow) for flow in flows or ("remote-diagnosis",)}

        def goes_on() -> bool:
            if "service" in had:  # its batch stays open for long
                with contextlib.suppress(AssentError):
                    self.ask("flush")
            return all(self.numbers(flow) > count for flow, count in had.items())

        try:
            wait_until(goes_on, "it goes on", _GOES_ON_S)
        except StageError:
            waits = [flow for flow, count in had.items() if self.numbers(flow) <= count]
            self.wrong.append(f"{what}: {waits} do not go on within {_GOES_ON_S} s")

    # The end.

    def drain(self) -> None:
        """Lets everything arrive: what is open, what waits, what is declared."""
        for proxy in self.proxies.values():
            proxy.fault = proxy.fault.__class__.NONE
        self.mend()
        self._reaches("what is open arrives", self._is_declared)
        self.stop("collect")
        agent = self.gateway / "agent.toml"
        text = agent.read_text()
        agent.write_text(text.split("[[device]]")[0])
        self._launch("collect", "run" if self.together else "collect", ())
        self._reaches("nothing waits any more", self.is_drained)
        for name in self.programs:
            self._is_alive(name)
        self.programs["collect"].send_signal(signal.SIGTERM)
        if (code := self.programs.pop("collect").wait(30)) != 0:
            self.wrong.append(f"collect ended with {code}: {self.log('collect')[-500:]}")
        agent.write_text(text)

    def judge(self) -> dict[str, Judgement]:
        """Asks the oracle about each flow, and each backend whether it says the same."""
        steps = tuple(self.timepiece.steps) if self.timepiece else ()
        history = History(self.lives, self._yeses, self.commit_s * 1_000, steps)
        found = {}
        for flow, recipient in FLOWS.items():
            stored = read(self.backend_directory(recipient), flow, ATTRIBUTE)
            found[flow] = judge(stored, history)
            if stored.refused:
                found[flow].complain(f"{stored.refused} messages in quarantine")
            for sentence in self._shown(recipient, flow, history):
                found[flow].complain(sentence)
        return found

    def _shown(self, recipient: str, flow: str, history: History) -> list[str]:
        """What a recipient's own report of gaps says that it must not."""
        try:
            rows = self.show(recipient, "gaps", "--flow", flow)
        except StageError as exc:
            return [f"show gaps: {exc}"]
        causes = {None, *(CAUSES[cause] for cause in history.causes)}
        states = {
            "complete",
            "declared",
            "open",
            "unknown",
            *(["undated"] if history.steps else []),
        }
        never = [row for row in rows if row["state"] == "never"][: self.begun - 1]
        return [
            f"show gaps: {row}"
            for row in rows
            if row not in never and (row["cause"] not in causes or row["state"] not in states)
        ]

    def _reaches(self, what: str, claim: Callable[[], bool]) -> None:
        try:
            wait_until(claim, what, _DRAINED_S)
        except StageError as exc:
            self.wrong.append(f"{exc}; {self.waiting()}")

    def _is_declared(self) -> bool:
        """Every gap is told, and every flow has had a batch since the last life began."""
        with contextlib.suppress(AssentError):
            self.ask("flush")
        newest = (len(self.lives) - 1) * SPAN
        time.sleep(0.2)
        with contextlib.suppress(sqlite3.Error), self.spool() as db:
            if db.execute("SELECT count(*) FROM gap WHERE carried<>2").fetchone() != (0,):
                return False  # 2: told to nobody before a later yes
            return all(self.has_from(flow, newest) for flow in FLOWS)
        return False

    def _record(self) -> None:
        """Writes the recording of the next life."""
        first = len(self.lives) * SPAN
        rows = (f"{1_700_000_000_000 + at * STEP_MS},{first + at}" for at in range(_ROWS))
        (self.root / "numbers.csv").write_text("\n".join(("time,number", *rows)) + "\n")

    def _end_life(self, ended_ms: int, *, polite: bool) -> None:
        life = self.lives[-1]
        at_work_ms = ended_ms - life.answered_ms if life.answered_ms else 0
        life.least = max(0, (at_work_ms - _LATE_MS) // STEP_MS)
        life.ended_ms, life.polite = ended_ms, polite

    def explain(self, end: str, *causes: int) -> None:
        """Notes what ended the present life, and of which causes gaps may be because of it."""
        self.lives[-1].end = end
        self.lives[-1].explains |= frozenset(causes)

    def ask(self, verb: str) -> dict[str, Any]:
        """Asks the running agent."""
        return dict(ask(self.state, verb, patience_s=20))

    def _is_answering(self) -> bool:
        program = self.programs["collect"]
        if program.poll() is not None:
            raise StageError(f"the agent ended: {self.log('collect')[-800:]}")
        with contextlib.suppress(AssentError):
            return bool(self.ask("status"))
        return False

    def _launch(self, name: str, verb: str, under: Sequence[str]) -> None:
        self._run_program(name, verb, ["--config", str(self.gateway)], under)

    def _run_program(self, name: str, verb: str, words: list[str], under: Sequence[str]) -> None:
        side = "backend" if name.startswith("backend") else "gateway"
        environment = os.environ | {"FAULTS_DEATH": str(self.death(name))}
        if self.timepiece is not None and side == "gateway":
            environment["FAULTS_CLOCK"] = str(self.timepiece.shift)
            environment["FAULTS_ROOT"] = str(self.timepiece.machine)
        line = [*under, sys.executable, "-m", "tests.faults.launch", side, verb, *words]
        logs = self.root / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPO, env=environment
            )
        self._deaths.watch(self.programs[name])
        if under:
            self._traced.add(self.programs[name].pid)


def _now_ms() -> int:
    return int(time.time() * 1000)
