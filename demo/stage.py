# SPDX-License-Identifier: Apache-2.0
"""A household and two recipients with a broker each on the loopback, from the real programs.

Everything is set up as README.md says, with `assent` and `assent-backend` as separate processes and
a mosquitto on a free port. The demo, the journeys in tests/ and the benchmarks stand on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.control import ask
from assent.backend.broker import render
from assent.cosekey import file_thumbprint, thumbprint_text
from assent.errors import AssentError
from assent.policy.signing import fill_thumbprints
from demo.ports import kept_port

REPO = Path(__file__).resolve().parents[1]
RECIPIENTS = ("maker", "energy-advice")

# Starting a Python program with its imports takes some 0.3 s here, ten times that on a slow board.
PATIENCE_S = 30.0
_STEP_S = 0.05

Json = dict[str, Any]


class StageError(Exception):
    """Something that the stage was asked to do did not happen."""


def wait_until(claim: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits until a claim holds.

    Raises:
        StageError: it did not within the time.
    """
    end = time.monotonic() + patience_s
    while not claim():
        if time.monotonic() > end:
            raise StageError(f"waited {patience_s:.0f} s in vain until {what}")
        time.sleep(_STEP_S)


class Stage:
    """The loopback world below one directory.

    Args:
        root: where everything is made; emptied first.
        classical: keys without the post-quantum part.
    """

    def __init__(self, root: Path, *, classical: bool = False) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self.root = root
        self.gateway = root / "gateway"
        self.published = root / "published"
        kept = {recipient: kept_port() for recipient in RECIPIENTS}
        self.ports = {recipient: port for recipient, (port, _) in kept.items()}
        self._keepers = [keeper for _, keeper in kept.values()]
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self._classical = classical

    def copied(self, root: Path) -> Stage:
        """Another stage with the same recipients on ports of its own; nothing published yet."""
        other = Stage(root, classical=self._classical)
        for recipient in RECIPIENTS:
            shutil.copytree(self.backend_directory(recipient), other.backend_directory(recipient))
        return other

    # The recipients' side.

    def backend_directory(self, recipient: str) -> Path:
        """Where a recipient keeps its keys and its store."""
        return self.root / recipient

    def make_recipients(self) -> None:
        """Keys and certificates of each recipient; the first one signs the policy."""
        for recipient in RECIPIENTS:
            words = ["keygen", str(self.backend_directory(recipient)), "--recipient", recipient]
            if recipient == RECIPIENTS[0]:
                words.append("--policy-key")
            if self._classical:
                words.append("--classical")
            self.backend(*words)

    def publish(self, edit: Callable[[str], str] = str) -> Path:
        """Writes, signs and publishes the example policy; returns the bundle.

        Args:
            edit: changes the text of the example policy first.
        """
        keys = self.published / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        for recipient in RECIPIENTS:
            directory = self.backend_directory(recipient)
            shutil.copy(directory / "keys/seal.pub.cose", keys / f"{recipient}-2026.cose")
            shutil.copy(directory / "keys/ack.pub.cose", keys / f"{recipient}-sign.cose")
            shutil.copy(directory / "tls/ca.pem", keys / f"{recipient}-ca.pem")
        text = edit(self._with_broker((REPO / "config/policy.toml").read_text()))
        files = {f"keys/{path.name}": path.read_bytes() for path in keys.iterdir()}
        policy = self.published / "policy.toml"
        policy.write_text(fill_thumbprints(text, files))
        maker = self.backend_directory(RECIPIENTS[0])
        self.backend("sign-policy", str(policy), "--key", str(maker / "keys/policy.key.cose"))
        self._publish_to_backends(policy)
        bundle = self.root / "maker.bundle"
        bundle.unlink(missing_ok=True)
        key = str(maker / "keys/policy.pub.cose")
        self.backend("bundle", str(policy), "--policy-key", key, "--out", str(bundle))
        return bundle

    def _publish_to_backends(self, policy: Path) -> None:
        key = self.backend_directory(RECIPIENTS[0]) / "keys/policy.pub.cose"
        for recipient in RECIPIENTS:
            directory = self.backend_directory(recipient)
            count = len(list((directory / "policies").glob("*.toml")))
            name = directory / "policies" / f"policy-{count}.toml"
            name.parent.mkdir(exist_ok=True)
            shutil.copy(policy, name)
            shutil.copy(f"{policy}.cose", f"{name}.cose")
            if recipient != RECIPIENTS[0]:
                shutil.copy(key, directory / "keys/policy.pub.cose")

    def _with_broker(self, text: str) -> str:
        """The policy's brokers become those of this stage."""
        lines = []
        recipient = ""
        for line in text.splitlines():
            if line.startswith("[recipients."):
                recipient = line.strip("[]").removeprefix("recipients.")
            if line.startswith("brokers ="):
                line = f'brokers = ["{self.broker_url(recipient)}"]'  # noqa: PLW2901
            lines.append(line)
        return "\n".join(lines) + "\n"

    def policy_pin(self) -> str:
        """The thumbprint of the key that signs the policy, as a maker would tell it."""
        key = self.backend_directory(RECIPIENTS[0]) / "keys/policy.pub.cose"
        return thumbprint_text(file_thumbprint(key.name, key.read_bytes()))

    def broker_url(self, recipient: str) -> str:
        """Where a recipient's broker listens."""
        return f"mqtts://127.0.0.1:{self.ports[recipient]}"

    def start_broker(self, recipient: str) -> None:
        """Starts the shipped configuration of mosquitto for a recipient and waits for it."""
        place = self.root / "brokers" / recipient
        place.mkdir(parents=True, exist_ok=True)
        tls = self.backend_directory(recipient) / "tls"
        render(
            place,
            port=self.ports[recipient],
            host="127.0.0.1",
            ca=tls / "ca.pem",
            certificate=tls / "broker.pem",
            key=tls / "broker.key",
            recipients=[recipient],
            user="root" if os.getuid() == 0 else None,
        )
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise StageError("there is no mosquitto; type: sudo apt-get install mosquitto")
        self._start(f"broker-{recipient}", [program, "-c", str(place / "mosquitto.conf")])
        self._wait_for_port(f"broker-{recipient}", self.ports[recipient])

    def start_backend(self, recipient: str) -> None:
        """Starts a recipient's subscriber."""
        words = ["run", str(self.backend_directory(recipient))]
        words += ["--broker", self.broker_url(recipient)]
        self._start(f"backend-{recipient}", [_program("assent-backend"), *words])

    def show(self, recipient: str, what: str, *words: str) -> Any:  # noqa: ANN401 (JSON)
        """What a recipient's store says, read by its own program."""
        directory = str(self.backend_directory(recipient))
        return json.loads(self.backend("show", directory, what, "--json", *words))

    def backend(self, *words: str) -> str:
        """Runs `assent-backend`; its stdout.

        Raises:
            StageError: it ended with another exit code than 0; carries what it said.
        """
        return self._run(_program("assent-backend"), words)

    # The household's side.

    def make_gateway(self, devices: str) -> None:
        """Initialises a gateway whose devices are these TOML tables."""
        state = self.gateway / "state"
        self.assent("init", "--state", str(state))
        text = (self.gateway / "agent.toml").read_text()
        head = text[: text.index("# One table for each device.")]
        head = head.replace('trust = "synchronised"', 'trust = "system"')
        (self.gateway / "agent.toml").write_text(f"{head}{devices}")

    def add_devices(self, devices: str) -> None:
        """Gives the gateway devices more: TOML tables."""
        with (self.gateway / "agent.toml").open("a") as file:
            file.write(devices)

    def enrol(self, bundle: Path) -> None:
        """Takes the bundle in, has each recipient admit the gateway, takes the answers in."""
        self.assent("enrol", str(bundle))
        for recipient in RECIPIENTS:
            request = self.gateway / "requests" / f"{recipient}.request"
            admission = self.root / f"{recipient}.admission"
            admission.unlink(missing_ok=True)
            directory = str(self.backend_directory(recipient))
            self.backend("admit", directory, str(request), "--out", str(admission))
            self.assent("enrol", str(admission))

    def decide(self, decisions: Mapping[str, str], *, version: str = "2026-11-01") -> str:
        """Writes the household's form and applies it; what was told."""
        lines = [
            f'policy = "{version}"',
            'decided_by = "owner"',
            'recorded_by = "installer 4711"',
            f"recorded_at = {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
            f'method = "signed form {time.monotonic_ns()}"',
            "[decisions]",
            *(f"{flow} = {decision}" for flow, decision in decisions.items()),
        ]
        form = self.gateway / "consent.toml"
        form.write_text("\n".join(lines) + "\n")
        return self.assent("consent", "apply", str(form))

    def start_agent(self) -> None:
        """Starts `assent run` and waits until it answers."""
        self._start("agent", [_program("assent"), "run", "--config", str(self.gateway)])
        wait_until(self._agent_answers, "the agent answers")

    def start_two(self) -> None:
        """Starts `assent collect` and `assent uplink`, and waits until the first answers."""
        config = ("--config", str(self.gateway))
        self._start("agent", [_program("assent"), "collect", *config])
        self._start("uplink", [_program("assent"), "uplink", *config])
        wait_until(self._agent_answers, "the agent answers")

    def reload(self) -> None:
        """Has the agent read its files again."""
        self.send("agent", signal.SIGHUP)

    def status(self) -> Json:
        """`assent status --json`."""
        return dict(json.loads(self.assent("status", "--json")))

    def asked(self) -> Json:
        """The same of an agent that runs, asked from here: no program has to start for it."""
        return ask(self.gateway / "state", "status")

    def consent(self) -> Json:
        """`assent consent show --json`."""
        return dict(json.loads(self.assent("consent", "show", "--json")))

    def assent(self, verb: str, *words: str) -> str:
        """Runs `assent` for this gateway; its stdout.

        Raises:
            StageError: it ended with another exit code than 0; carries what it said.
        """
        return self._run(_program("assent"), (verb, *words, "--config", str(self.gateway)))

    # Programs.

    def send(self, name: str, number: int) -> None:
        """Sends a signal to a program that this stage started."""
        self.programs[name].send_signal(number)

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """Ends a program and waits for it; its exit code."""
        program = self.programs.pop(name)
        if program.poll() is None:
            program.send_signal(signal.SIGCONT)
            program.send_signal(number)
        try:
            return program.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            program.kill()
            return program.wait()

    def close(self) -> None:
        """Ends everything this stage started, newest first."""
        for name in reversed(list(self.programs)):
            self.end(name)
        while self._keepers:
            os.close(self._keepers.pop())

    def log(self, name: str) -> str:
        """What a program said on stderr and stdout."""
        path = self.root / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _agent_answers(self) -> bool:
        if self.programs["agent"].poll() is not None:
            raise StageError(f"the agent ended: {self.log('agent')[-800:]}")
        with contextlib.suppress(AssentError):
            return bool(self.asked()["running"])
        return False

    def _start(self, name: str, words: list[str]) -> None:
        logs = self.root / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def _run(self, program: str, words: tuple[str, ...]) -> str:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise StageError(
                f"{Path(program).name} {words[0]} ended with {done.returncode}: {said}"
            )
        return done.stdout

    def _wait_for_port(self, name: str, port: int) -> None:
        def listens() -> bool:
            if self.programs[name].poll() is not None:
                raise StageError(f"{name} ended: {self.log(name)[-800:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, f"{name} listens")


def _program(name: str) -> str:
    """One of our commands, from the environment this Python runs in."""
    return str(Path(sys.executable).with_name(name))
