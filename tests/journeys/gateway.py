# SPDX-License-Identifier: Apache-2.0
"""An enrolled gateway under systemd, with its broker and its recipient on the same loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.stage import RECIPIENTS, Stage, StageError, wait_until
from tests.journeys.parts import YES, Batch, custody, fast, newer_arrives, spooled
from tests.simulators.machine import OURS, UNITS, Machine, booted

DEVICES = f"""\
[[device]]
id = "gateway"
kind = "gateway"
source = "host"
every = "500ms"

[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "{OURS}/demo/recording/washing-machine.csv"
profile = "replay-washing-machine"
every = "200ms"
speed = 60.0
"""
COLLECTOR = ("setpriv", "--reuid=assent-collect", "--regid=assent", "--init-groups")
"""What `sudo -u assent-collect -g assent` does."""

_LISTENS = "0A"  # proc(5), /proc/net/tcp: TCP_LISTEN


class Gateway(Stage):
    """A stage whose gateway is a machine with systemd.

    Everything of the stage lies below the machine's root, so that a path of the stage is a path of
    the machine once the root is cut off.

    Args:
        machine: booted; its units wait for a configuration.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.root / "srv" / "stage")
        (machine.root / "srv").chmod(0o700)
        self.machine = machine
        self.gateway = machine.root / "etc" / "assent"
        self.state = machine.root / "var" / "lib" / "assent"

    def make_gateway(self, devices: str) -> None:
        """As README.md says, but for the clock and the devices."""
        self.assent("init")
        text = (self.gateway / "agent.toml").read_text()
        head = text[: text.index("# One table for each device.")]
        head = head.replace('trust = "synchronised"', 'trust = "system"')
        (self.gateway / "agent.toml").write_text(f"{head}{devices}")

    def enrol(self, bundle: Path) -> None:
        """As README.md says; the files are handed over, as those of a technician are."""
        (self.machine.root / "srv").chmod(0o755)
        super().enrol(bundle)
        (self.machine.root / "srv").chmod(0o700)

    def assent(self, verb: str, *words: str) -> str:
        """Runs `assent` inside, as the collecting side's user; its stdout."""
        told = self._tell([*COLLECTOR, "assent", verb, *words])
        if told.returncode != 0:
            raise StageError(f"assent {verb} ended with {told.returncode}: {told.stderr.strip()}")
        return told.stdout

    def tells(self, *words: str) -> tuple[int, dict[str, Any]]:
        """The same with `--json`: exit code and result."""
        told = self._tell([*COLLECTOR, "assent", *words, "--json"])
        return told.returncode, json.loads(told.stdout) if told.stdout else {"said": told.stderr}

    def _tell(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return self.machine.runs(*(word.removeprefix(str(self.machine.root)) for word in words))

    def start(self) -> None:
        """Starts both programs and waits until they are ready."""
        self.machine.types("systemctl", "start", "assent.target")
        for unit in UNITS:
            self.machine.until_active(unit)

    def stored(self, flow: str) -> int:
        """How many batches of a flow the maker has in custody."""
        return len(custody(self.backend_directory("maker"), flow))

    def custody(self) -> Counter[Batch]:
        """How often each batch is in the maker's custody."""
        return custody(self.backend_directory("maker"))

    def unstored(self) -> set[Batch]:
        """Those of the waiting batches that the maker has not stored."""
        return spooled(self.state) - set(self.custody())

    def newer_arrives(self, flow: str) -> None:
        """Waits until the maker has stored a batch of a flow that was sealed after the call."""
        newer_arrives(self.state, self.backend_directory("maker"), flow)

    def more_arrives(self, flow: str) -> None:
        """Waits until the maker has stored more of a flow than now."""
        before = self.stored(flow)
        wait_until(lambda: self.stored(flow) > before, f"more of {flow} arrives")

    def _start(self, name: str, words: list[str]) -> None:
        super()._start(name, self.machine.wired(*words))

    def _wait_for_port(self, name: str, port: int) -> None:
        def listens() -> bool:
            if self.programs[name].poll() is not None:
                raise StageError(f"{name} ended: {self.log(name)[-800:]}")
            table = Path(f"/proc/{self.machine.leader}/net/tcp").read_text()
            rows = [line.split() for line in table.splitlines()[1:]]
            return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTENS for row in rows)

        wait_until(listens, f"{name} listens")


@contextmanager
def delivering(directory: Path, recipients: Stage) -> Iterator[Gateway]:
    """A gateway whose household agreed, whose programs run, and whose batches arrive.

    Args:
        directory: an empty place.
        recipients: with keys; they are copied.
    """
    with booted(directory) as machine:
        gateway = Gateway(machine)
        try:
            for recipient in RECIPIENTS:
                shutil.copytree(
                    recipients.backend_directory(recipient), gateway.backend_directory(recipient)
                )
            bundle = gateway.publish(fast)
            gateway.make_gateway(DEVICES)
            gateway.enrol(bundle)
            gateway.decide(YES | {"partner-energy-advice": '"refused"'})
            gateway.start_broker("maker")
            gateway.start_backend("maker")
            gateway.start()
            yield gateway
        finally:
            gateway.close()
