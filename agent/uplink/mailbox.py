# SPDX-License-Identifier: Apache-2.0
"""Messages from a recipient: into the inbox first, PUBACK afterwards.

Law:
  - a message is acknowledged when it is durable in the inbox;
  - one for which there is no room waits here, unacknowledged, within the Receive Maximum we
    announced, so that the broker sends no more; it goes into the inbox when there is room;
  - one that is larger than the wire allows is acknowledged, counted and dropped: it would come
    again for ever.

Security: the bytes come from the network and are not read.
"""

from __future__ import annotations

import logging
from collections import Counter

from agent.spool import Spool
from agent.uplink.connection import Connection
from agent.uplink.events import Came
from agent.uplink.protocol import WINDOW
from agent.uplink.world import World
from assent.errors import SpoolError
from assent.wire import MAX_MESSAGE

log = logging.getLogger("agent.uplink")


class Mailbox:
    """What came and is not in the inbox yet.

    Args:
        recipient: id of the recipient.
        spool: the uplink's end of the spool.
        world: time.
        counted: what to count in.
    """

    def __init__(self, recipient: str, spool: Spool, world: World, counted: Counter[str]) -> None:
        self._recipient = recipient
        self._spool = spool
        self._world = world
        self._counted = counted
        self._waiting: list[Came] = []
        self._refusal: str | None = None

    def take(self, connection: Connection, came: Came) -> None:
        """Takes a message that came.

        Args:
            connection: to acknowledge it on.
            came: the message.
        """
        if len(came.data) > MAX_MESSAGE:
            self._counted["inbound dropped"] += 1
            connection.acknowledge(came)
        elif self._waiting or not self._store(connection, came):
            # A 3.1.1 broker does not know our Receive Maximum. What is over it is forgotten here
            # and comes again with the next connection.
            self._counted["inbound held"] += 1
            if len(self._waiting) < WINDOW:
                self._waiting.append(came)

    def retry(self, connection: Connection) -> None:
        """Stores what waited for room.

        Args:
            connection: the one the messages came on.
        """
        while self._waiting and self._store(connection, self._waiting[0]):
            del self._waiting[0]

    def forget(self) -> None:
        """Forgets what waits: the connection has ended, the broker gives it again."""
        self._waiting.clear()

    def _store(self, connection: Connection, came: Came) -> bool:
        try:
            stored = self._spool.receive(self._recipient, came.data, self._world.wall_ms())
        except SpoolError as exc:
            if exc.message != self._refusal:  # it is tried again every second
                log.warning("inbox refused recipient=%s why=%r", self._recipient, exc.message)
            self._refusal = exc.message
            return False
        if self._refusal is not None:
            log.info("inbox takes again recipient=%s", self._recipient)
            self._refusal = None
        if stored:
            self._counted["received"] += 1
            connection.acknowledge(came)
        return stored
