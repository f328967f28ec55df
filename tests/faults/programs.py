# SPDX-License-Identifier: Apache-2.0
"""The programs of a household: started, killed, stopped, and started again.

Every life of the collecting program reads a recording of its own (tests/faults/oracle.py says what
its numbers are), so that the same number is never read twice. A program that ends by itself is
started again, as a service manager does; that it ended is wrong, unless it ran under a tracer,
which ends it or makes calls fail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.control import ask
from assent.errors import AssentError
from demo.stage import RECIPIENTS, REPO, Stage, StageError, wait_until
from tests.faults.deaths import Deaths
from tests.faults.history import LOOK_MS, SPAN, STEP_MS, Life
from tests.faults.household import Household
from tests.faults.timepiece import Timepiece

_LATE_MS = 3_000  # what is due and not yet read when a busy machine is told to stop
_ROWS = 30_000  # ten minutes of one life


class Programs(Household):
    """A household and its programs.

    Args:
        recipients: with their keys.
        root: for all files; emptied first.
        together: collect and uplink in one process.
        shifts_clock: the clocks of the gateway's programs can be set.

    Attributes:
        lives: of the collecting program.
        wrong: what does not hold, in words.
        yeses: when the household said yes.
        brokers: the ports of the brokers; `ports` are those that the policy names.
        timepiece: the clocks of the gateway, where they can be set.
    """

    def __init__(
        self, recipients: Stage, root: Path, *, together: bool = False, shifts_clock: bool = False
    ) -> None:
        super().__init__(recipients, root)
        self.together = together
        self.lives: list[Life] = []
        self.wrong: list[str] = []
        self.yeses: list[int] = []
        self.brokers = dict(self.ports)
        self.timepiece = Timepiece(self.root) if shifts_clock else None
        self._deaths = Deaths()
        self._traced: set[int] = set()

    def agree(self, under: Sequence[str] | None = None) -> None:
        """The household says yes to every flow, and the oracle is told when."""
        self.yeses.append(_now_ms())
        super().agree(under)

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
        self.launch("collect", "run" if self.together else "collect", under)
        if waits:
            self.wait_for_answer()

    def wait_for_answer(self) -> None:
        """Waits until the collecting program is at work."""
        wait_until(self._is_answering, "the agent answers")
        self.lives[-1].answered_ms = _now_ms()

    def start_uplink(self, under: Sequence[str] = ()) -> None:
        """Starts the uplink."""
        self.launch("uplink", "uplink", under)

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
        was_alive = self.is_alive(name)
        program.kill()
        self.buried(name)
        return was_alive and program.returncode == -signal.SIGKILL

    def excuse(self, name: str) -> None:
        """That a program ends by itself is not wrong: its disk is at fault."""
        self._traced.add(self.programs[name].pid)

    def is_alive(self, name: str) -> bool:
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
            within_ms = 2 * (self.commit_s * 1_000 + LOOK_MS)
            self.lives[-1].starved_ms = self._deaths.starved_ms(program, within_ms)
            self._end_life(
                self._deaths.of(program), polite=code == 0 and self.lives[-1].told_ms > 0
            )
        return code

    def stop(self, name: str) -> None:
        """Ends a program politely."""
        if self.is_alive(name) and name == "collect":
            self.lives[-1].told_ms = _now_ms()
        self.programs[name].send_signal(signal.SIGCONT)
        self.programs[name].send_signal(signal.SIGTERM)
        code = self.buried(name)
        if code != 0:
            self.wrong.append(f"{name} ended with {code}: {self.log(name)[-500:]}")

    def mend(self) -> None:
        """Starts again what ended by itself, as a service manager does."""
        for name in self.gateway_programs:
            if name in self.programs and not self.is_alive(name):
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
            if name in self.programs and not self.is_alive(name):
                self.buried(name)
            if name not in self.programs:
                start(recipient)

    @property
    def gateway_programs(self) -> tuple[str, ...]:
        """What runs on the gateway, by the names of `programs`."""
        return ("collect",) if self.together else ("collect", "uplink")

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

    def launch(self, name: str, verb: str, under: Sequence[str] = ()) -> None:
        """Starts a program of the gateway with one of its verbs."""
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
