# SPDX-License-Identifier: Apache-2.0
"""A household that reads numbers, with its broker, backend and programs: all real, all breakable.

Two flows go to the maker, one of small batches and one whose batch stays open for long; a third
goes to a partner with a broker and a backend of its own. Between the uplink and each broker stands
a proxy. At the end it lets everything arrive, and asks the oracle.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from assent.errors import AssentError
from demo.stage import RECIPIENTS, Stage, StageError, wait_until
from tests.faults.history import SPAN, History
from tests.faults.holdings import CAUSES, read
from tests.faults.household import ATTRIBUTE, FLOWS
from tests.faults.oracle import Judgement, judge
from tests.faults.programs import Programs
from tests.simulators.lossy import Disk
from tests.simulators.proxy import Proxy

_DRAINED_S = 60.0
_GOES_ON_S = 40.0


class World(Programs):
    """One household and everything around it, until `close`.

    Args:
        recipients: with their keys.
        root: for all files; emptied first.
        together: collect and uplink in one process.
        shifts_clock: the wall clock of the gateway's programs can be set.
        disk_of: whose files lie on a disk whose power can be cut: those of the "gateway" (its state),
            of the maker's "backend", or nobody's.
    """

    def __init__(
        self,
        recipients: Stage,
        root: Path,
        *,
        together: bool = False,
        shifts_clock: bool = False,
        disk_of: str = "",
    ) -> None:
        super().__init__(recipients, root, together=together, shifts_clock=shifts_clock)
        self.proxies: dict[str, Proxy] = {}
        places = {"gateway": self.state, "backend": self.backend_directory(RECIPIENTS[0])}
        self.disk = Disk(places[disk_of]) if disk_of else None

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
            self.disk.mount_over()
        super().settle()

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
        self.launch("collect", "run" if self.together else "collect")
        self._reaches("nothing waits any more", self.is_drained)
        for name in self.programs:
            self.is_alive(name)
        self.programs["collect"].send_signal(signal.SIGTERM)
        if (code := self.programs.pop("collect").wait(30)) != 0:
            self.wrong.append(f"collect ended with {code}: {self.log('collect')[-500:]}")
        agent.write_text(text)

    def judge(self) -> dict[str, Judgement]:
        """Asks the oracle about each flow, and each backend whether it says the same."""
        steps = tuple(self.timepiece.steps) if self.timepiece else ()
        history = History(self.lives, self.yeses, self.commit_s * 1_000, steps)
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
        states = {"complete", "declared", "open", "unknown"}
        if history.steps:
            states.add("undated")
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
