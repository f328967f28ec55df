# SPDX-License-Identifier: Apache-2.0
"""What journeys have in common: devices, a policy in a hurry, a bell at the door."""

from __future__ import annotations

import re
import select
import socket
import threading

from demo.stage import REPO

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


def fast(text: str) -> str:
    """The example policy with batches and windows of a second."""
    text = re.sub(r'age = "[0-9a-z]+"', 'age = "1s"', text)
    return text.replace("window(1m,", "window(1s,")


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
