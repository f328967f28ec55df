# SPDX-License-Identifier: Apache-2.0
"""What journeys have in common: devices, a policy in a hurry, a bell at the door."""

from __future__ import annotations

import re
import select
import socket
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from agent.site import SPOOL
from demo.stage import REPO, Stage, wait_until

Batch: TypeAlias = tuple[bytes, int]
"""Its stream and its sequence."""
Enrolled: TypeAlias = Callable[[Callable[[str], str]], Stage]
"""Gives, for an edit of the policy, an enrolled gateway that can be moved."""
_Place = TypeVar("_Place", bound=Stage)

RECORDING = REPO / "demo" / "recording" / "washing-machine.csv"

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
port = "{RECORDING}"
profile = "replay-washing-machine"
every = "200ms"
speed = 60.0
"""

YES = {
    "service": '"accepted"',
    "remote-diagnosis": '"given"',
    "partner-energy-advice": '"given"',
}
NO = dict.fromkeys(YES, '"refused"')


def moved(stage: Stage, other: _Place) -> _Place:
    """Lays a household and its recipients, of whom nothing has run yet, into another stage.

    They have the same ports there: of all that were moved from one, one runs at a time.
    """
    subprocess.run(["cp", "-a", f"{stage.root}/.", str(other.root)], check=True)
    agent = other.gateway / "agent.toml"
    agent.write_text(agent.read_text().replace(str(stage.root), str(other.root)))
    other.ports = dict(stage.ports)
    return other


def fast(text: str) -> str:
    """The example policy with batches and windows of a second."""
    text = re.sub(r'age = "[0-9a-z]+"', 'age = "1s"', text)
    return text.replace("window(1m,", "window(1s,")


def custody(directory: Path, flow: str = "%") -> Counter[Batch]:
    """How often each batch of a flow, or of all, is in a backend's custody."""
    query = "SELECT stream, sequence FROM custody WHERE flow LIKE ?"
    return Counter(_rows(directory / "custody.db", query, flow))


_SPOOLED = (
    "SELECT stream.id, batch.id & 0xffffffff FROM batch"
    " JOIN stream ON stream.number = batch.id >> 32"
)


def spooled(state: Path) -> set[Batch]:
    """Every batch that waits on the gateway's disk, read without the agent."""
    return _batches(state, _SPOOLED)


def taken(state: Path, directory: Path, flow: str) -> set[Batch]:
    """Every batch of a flow that the uplink says it has given to the broker, or that is stored."""
    query = (
        f"{_SPOOLED} JOIN lane ON lane.id = batch.lane WHERE lane.flow=?"
        " AND (attempts > 0 OR batch.id IN (SELECT batch FROM handed))"
    )
    return _batches(state, query, flow) | custody(directory, flow).keys()


def _batches(state: Path, query: str, *values: str) -> set[Batch]:
    rows = _rows(state / SPOOL, query, *values)
    return {((stream % 2**64).to_bytes(8, "big"), sequence) for stream, sequence in rows}


def _rows(path: Path, query: str, *values: str) -> list[tuple[bytes, int]]:
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute(query, values).fetchall()
    finally:
        db.close()


def newer_arrives(state: Path, directory: Path, flow: str) -> None:
    """Waits until a batch of a flow is stored that was sealed after the call.

    One connection keeps its order: what left the gateway before the call is stored by then.
    """
    known = spooled(state) | custody(directory).keys()
    wait_until(
        lambda: not custody(directory, flow).keys() <= known, f"a newer batch of {flow} arrives"
    )


class Doorbell:
    """Counts the connections that arrive where brokers are expected; answers none."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self.rung = 0
        self._listeners = listeners
        self._end = threading.Event()

    def listen(self) -> None:
        """Accepts until closed."""
        while not self._end.is_set():
            ready, _, _ = select.select(self._listeners, [], [], 0.05)
            for listener in ready:
                connection, _ = listener.accept()
                connection.close()
                self.rung += 1

    def leave(self) -> None:
        """Has `listen` return."""
        self._end.set()
