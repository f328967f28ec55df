# SPDX-License-Identifier: Apache-2.0
"""An uplink at work under a test: a spool, one flow, one recipient, a thread."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agent.path import Sealed
from agent.spool import Health, LinkState, Spool, Target
from agent.spool.voucher import Voucher
from agent.uplink import Uplink
from assent.messages import new_mailbox
from tests.agent.sealed import sealed
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.stub import Script, Stub

STREAM = 7
NOT_TAKEN = ("does not take our certificate", "hung up before it answered; has it admitted us?")
"""With TLS 1.3 the alert and the end of the connection may overtake each other: what is said when a
broker refuses our certificate, whichever of them comes first."""


class Impatient(random.Random):
    """Chance that makes every wait a fiftieth of its ceiling: 20 ms, 40 ms, …"""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 50


class Gateway:
    """The collecting side of one gateway, with one lane to "maker", and its uplink.

    Args:
        directory: for its files; made when it is missing.
        authority: admits it.
        url: the broker.
        mailbox: who it is there; a new one when none is given.
        keepalive_s: seconds.
    """

    def __init__(
        self,
        directory: Path,
        authority: Authority,
        url: str,
        *,
        mailbox: str | None = None,
        keepalive_s: int = 60,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "spool.db"
        self.mailbox = mailbox or new_mailbox()
        self.spool = Spool.open(self.path)
        pair = authority.client(self.mailbox)
        self.target = Target(
            recipient="maker",
            broker=url,
            mailbox=self.mailbox,
            ca_pem=authority.pem,
            cert_path=str(pair.certificate),
            key_path=str(pair.key),
        )
        self.spool.set_targets([self.target])
        self.keepalive_s = keepalive_s
        self.rng: random.Random = Impatient()
        self.ahead_ms = 0
        self.voucher: Voucher | None = None
        self.uplink = Uplink(self.path, voucher=None)
        self.sent: list[Sealed] = []
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def open_lane(self, stream: int = STREAM) -> None:
        """Opens the lane of the flow."""
        self.sent = [] if self.spool.open_lane("service", "maker", stream, None) == 0 else self.sent
        self.stream = stream

    def put(self, count: int, *, size: int = 300) -> list[bytes]:
        """Puts batches into the open lane; gives their bytes."""
        first = self.spool.lanes()["service"].next_sequence
        batches = [sealed(first + i, stream=self.stream, size=size) for i in range(count)]
        self.spool.put(batches)
        self.sent += batches
        return [batch.data for batch in batches]

    def start(self) -> None:
        """Starts the uplink in a thread."""
        self._stop = threading.Event()
        self.uplink = Uplink(
            self.path,
            voucher=self.voucher,
            wall_ms=lambda: time.time_ns() // 1_000_000 + self.ahead_ms,
            rng=self.rng,
            keepalive_s=self.keepalive_s,
        )
        self._thread = threading.Thread(target=self.uplink.run, args=(self._stop,), name="uplink")
        self._thread.start()

    def end(self) -> None:
        """Tells the uplink to stop, and does not wait for it."""
        self._stop.set()
        self.uplink.wake()

    def stop(self) -> None:
        """Stops the uplink; the spool stays open."""
        self.end()
        if self._thread is not None:
            self._thread.join(15)
            assert not self._thread.is_alive()
            self._thread = None

    def close(self) -> None:
        """Stops everything."""
        self.stop()
        self.spool.close()

    @property
    def health(self) -> Health:
        """What the uplink last said of the recipient."""
        found = self.spool.health().get("maker")
        return found or Health(LinkState.IDLE, 0, "nothing was said yet")

    def counted(self, what: str) -> int:
        """How often the uplink counted something."""
        return self.uplink.counted().get("maker", {}).get(what, 0)

    def reaches(self, state: LinkState, *words: str) -> Health:
        """Waits until the uplink says that it is in a state, and one of some words with it."""
        found = self.health

        def is_reached() -> bool:
            nonlocal found
            found = self.health
            said = not words or any(one in found.detail for one in words)
            return found.state is state and said

        eventually(is_reached)
        return found


@contextlib.contextmanager
def carrying(
    directory: Path, authority: Authority, url: str, **options: object
) -> Iterator[Gateway]:
    """A gateway with an open lane and a running uplink for as long as the block."""
    gateway = Gateway(directory, authority, url, **options)  # type: ignore[arg-type]
    try:
        gateway.open_lane()
        gateway.start()
        yield gateway
    finally:
        gateway.close()


@contextlib.contextmanager
def scripted(
    tmp_path: Path, authority: Authority, script: Script, *, keepalive_s: int = 60
) -> Iterator[tuple[Stub, Gateway]]:
    """A broker that follows a script, and a gateway that talks to it."""
    with (
        Stub(authority, script) as broker,
        carrying(tmp_path / "g", authority, broker.url, keepalive_s=keepalive_s) as running,
    ):
        yield broker, running


def payloads(stub: Stub) -> list[bytes]:
    """What a broker was given, in order; copies too."""
    return [payload for payload, _ in list(stub.published)]
