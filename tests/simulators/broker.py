# SPDX-License-Identifier: Apache-2.0
"""A real mosquitto under a test: started on a free port, stopped, killed and frozen by its pid.

Its configuration is the one we ship, rendered by `assent.backend.broker`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.backend import broker as configuration
from demo.ports import kept_port
from tests.simulators.certificates import Authority

PATIENCE_S = 10.0


def mosquitto() -> str:
    """Finds the broker; skips the test where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed")
    return found


class Broker:
    """One mosquitto with mutual TLS.

    Args:
        directory: for its files.
        authority: issues its certificate, and those that may connect.
        recipients: whose backends may connect.
        extra: further lines of configuration; they stand last and win.
        server_names: what its certificate is for.
    """

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        *,
        recipients: tuple[str, ...] = ("maker",),
        extra: str = "",
        server_names: tuple[str, ...] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port, self._keeper = kept_port()
        self.log = directory / "log"
        server = authority.server(*server_names)
        self._conf = configuration.render(
            directory,
            port=self.port,
            host="127.0.0.1",
            ca=authority.path,
            certificate=server.certificate,
            key=server.key,
            recipients=recipients,
            user="root" if os.geteuid() == 0 else None,
        )
        text = self._conf.read_text()
        self._plain = text
        self.configure(extra)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a target finds it."""
        return f"mqtts://localhost:{self.port}"

    def configure(self, extra: str) -> None:
        """Sets further lines for the next start; an option of ours they name gives way."""
        named = {line.split()[0] for line in extra.splitlines() if line.strip()}
        kept = [line for line in self._plain.splitlines() if not set(line.split()[:1]) & named]
        self._conf.write_text("\n".join([*kept, extra]) + "\n")

    def start(self) -> Broker:
        """Starts it; returns when it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [mosquitto(), "-c", str(self._conf)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 0.2),
            ):
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.005)

    def freeze(self) -> None:
        """Stops it from running, connections open: what a half-open link looks like."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it run again."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self._signal(signal.SIGKILL)
        self._ended()

    def stop(self) -> None:
        """Ends it as a service manager does."""
        if self._process is not None:
            self.thaw()
            self._signal(signal.SIGTERM)
            self._ended()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _ended(self) -> None:
        if self._process is not None:
            self._process.wait(PATIENCE_S)
            self._process = None


@contextlib.contextmanager
def running(directory: Path, authority: Authority, **options: object) -> Iterator[Broker]:
    """A broker that runs for as long as the block."""
    broker = Broker(directory, authority, **options)  # type: ignore[arg-type]
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
        os.close(broker._keeper)
