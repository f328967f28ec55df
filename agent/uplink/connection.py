# SPDX-License-Identifier: Apache-2.0
"""One connection to one broker, from dialling to its end, and no decision.

Law:
  - a client lives for one connection: what it still holds when that ends is forgotten, so that
    it never sends anything again by itself, behind the second gate's back;
  - what happened is noted, and `pump` hands it on;
  - dialling happens in a thread of its own, because name resolution cannot be interrupted; from
    then on one thread uses the client;
  - a PUBACK goes out when `acknowledge` is called, not before.

Standards: MQTT 5.0, MQTT 3.1.1.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from agent.spool import Target
from agent.uplink import tls
from agent.uplink.client import Client
from agent.uplink.events import Came, Ended, Event
from agent.uplink.protocol import Version, address
from assent.errors import UplinkError
from assent.messages import down_topic, up_topic

log = logging.getLogger("agent.uplink")


class Connection:
    """One attempt, and what comes of it.

    Args:
        target: whose broker, and who we are there.
        version: of MQTT.
        keepalive_s: seconds of silence after which the broker is asked whether it is there.
        wall_ms: wall time in ms since 1970.
        wake: called from the dialling thread when there is something to pump.
    """

    def __init__(
        self,
        target: Target,
        version: Version,
        *,
        keepalive_s: int,
        wall_ms: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._target = target
        self._wall_ms = wall_ms
        self._wake = wake
        self._undialled: list[Event] = []
        self._topic = up_topic(target.mailbox)
        self._down = down_topic(target.mailbox)
        self._client = Client(version, target.mailbox, keepalive_s)
        self._abandoned = False
        self._dialled = threading.Event()
        self._dialler = threading.Thread(target=self._dial, name="dial", daemon=True)

    def dial(self) -> None:
        """Begins to connect; `pump` tells what came of it."""
        self._dialler.start()

    @property
    def is_dialling(self) -> bool:
        """Whether the dialling thread still owns the client."""
        return not self._dialled.is_set()

    def socket(self) -> socket.socket | None:
        """Gives the socket to wait on, or None while there is none."""
        if self.is_dialling:
            return None
        return self._client.socket()

    def wants_write(self) -> bool:
        """Says whether bytes wait for the socket to take them."""
        return not self.is_dialling and self._client.wants_write

    def pump(self, *, readable: bool, writable: bool) -> list[Event]:
        """Moves bytes and tells what happened.

        Args:
            readable: the socket has bytes.
            writable: the socket takes bytes.

        Returns:
            What happened, in order.
        """
        if self.is_dialling:
            return []
        if readable or self.has_unread:
            self._client.read()
        if writable:
            self._client.write()
        events, self._undialled = self._undialled, []
        return events + self._client.take()

    @property
    def has_unread(self) -> bool:
        """Whether TLS holds bytes that `select` does not see any more."""
        return not self.is_dialling and self._client.has_unread

    @property
    def heard_s(self) -> float:
        """When the last byte came, or the connection was made; in monotonic seconds."""
        return self._client.heard_s

    def ping_after(self, silence_s: int) -> None:
        """Sets after which silence the broker is asked whether it is there."""
        self._client.ping_after(silence_s)

    def tick(self) -> None:
        """Looks after the keepalive; to be called about once a second."""
        if not self.is_dialling:
            self._client.tick()

    def listen(self) -> None:
        """Subscribes to our own mailbox."""
        self._client.listen(self._down)

    def publish(self, data: bytes) -> int | None:
        """Publishes a message with QoS 1.

        Args:
            data: the message.

        Returns:
            Its packet id, or None when the connection has just ended.
        """
        return self._client.publish(self._topic, data)

    def acknowledge(self, came: Came) -> None:
        """Sends the PUBACK of a message that is stored, or must not come again."""
        if came.qos:
            self._client.acknowledge(came.mid)

    def leave(self) -> None:
        """Ends the connection politely; the broker keeps the session."""
        if not self.is_dialling:
            self._client.leave()
        self.abort()

    def abort(self) -> None:
        """Ends the connection at once; what the kernel still held does not leave any more."""
        self._abandoned = True
        if self.is_dialling:
            return  # the dialling thread closes what it makes
        self._client.close()

    def _dial(self) -> None:
        try:
            host, port = address(self._target.broker)
            self._client.dial(host, port, tls.context(self._target))
        except (OSError, ValueError, UplinkError) as exc:
            self._undialled.append(self._why(exc))
        except Exception as exc:
            log.exception("dialling failed")
            self._undialled.append(self._why(exc))
        finally:
            self._dialled.set()
            if self._abandoned:
                self.abort()
            self._wake()

    def _why(self, exc: Exception) -> Ended:
        said = tls.sentence(exc, self._target, self._wall_ms())
        return Ended(said, None, dialled=False, refused=tls.needs_a_person(exc))
