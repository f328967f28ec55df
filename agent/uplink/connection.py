# SPDX-License-Identifier: Apache-2.0
"""One connection to one broker, from dialling to its end: paho-mqtt, and no decision.

Law:
  - a paho client lives for one connection: what it still holds when that ends is forgotten, so that
    it never sends anything again by itself, behind the second gate's back;
  - callbacks only note what happened; `pump` hands it on afterwards, so that no error of ours is
    raised inside paho;
  - dialling happens in a thread of its own, because name resolution cannot be interrupted; it ends
    with TLS, and no byte of MQTT leaves before `greet`: a connection that is not wanted any more
    when the line is there never asks the broker for anything;
  - while that thread works nothing is pumped, so that what it notes last is not lost;
  - a PUBACK goes out when `acknowledge` is called, not before.

Standards: MQTT 5.0, MQTT 3.1.1.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.spool import ClockTrust, Target
from agent.uplink import tls
from agent.uplink.client import LARGEST_PACKET, Client
from agent.uplink.events import Answered, Came, Confirmed, Ended, Event, Subscribed
from agent.uplink.protocol import WINDOW, Reason, Version, address
from assent.errors import UplinkError
from assent.messages import down_topic, up_topic

# Seconds the broker keeps our session: what a backend sends down waits for a week.
_SESSION_S: Final = 7 * 86_400
_LINGER_DEFAULT: Final = struct.pack("ii", 0, 0)
# Packets read in one turn: a broker that never stops sending must not keep the others waiting.
_TURN: Final = 2 * WINDOW
# A silence that is longer than any connection waits for its answer.
_NEVER_S: Final = 86_400
_OVERSIZED: Final = "the broker sends a packet that is larger than we said we take"

log = logging.getLogger("agent.uplink")


class Connection:
    """One attempt, and what comes of it.

    Args:
        target: whose broker, and who we are there.
        version: of MQTT.
        keepalive_s: seconds of silence after which the broker is asked whether it is there.
        wall_ms: wall time in ms since 1970.
        past_ms: the latest instant that is surely past.
        wake: called from the dialling thread when there is something to pump.
    """

    def __init__(
        self,
        target: Target,
        version: Version,
        *,
        keepalive_s: int,
        wall_ms: Callable[[], int],
        past_ms: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._target = target
        self._version = version
        self._keepalive_s = keepalive_s
        self._wall_ms = wall_ms
        self._past_ms = past_ms
        self._wake = wake
        self._events: list[Event] = []
        self._topic = up_topic(target.mailbox)
        self._down = down_topic(target.mailbox)
        self._client = self._make()
        self._is_greeted = False
        self._abandoned = False
        self._is_dialling = True
        """Whether the dialling thread still owns the line."""
        self._dialler = threading.Thread(target=self._dial, name="dial", daemon=True)

    def dial(self) -> None:
        """Begins to make the line; `pump` tells where there is none, `greet` goes on."""
        self._dialler.start()

    def greet(self) -> None:
        """Says CONNECT as soon as there is a line, and that once; nothing else calls the broker."""
        if self._is_dialling or self._is_greeted or not self._client.has_line:
            return
        self._is_greeted = True
        host, port = address(self._target.broker)
        if self._version is Version.V5:
            self._client.connect(
                host, port, self._keepalive_s, clean_start=False, properties=_properties()
            )
        else:
            self._client.connect(host, port, self._keepalive_s)
        # Until the broker has answered paho would end the connection by itself.
        self._client.ping_after(_NEVER_S)

    def socket(self) -> socket.socket | None:
        """Gives the socket to wait on, or None before `greet`."""
        found = self._client.socket()
        return found if isinstance(found, socket.socket) else None

    def wants_write(self) -> bool:
        """Says whether bytes wait for the socket to take them."""
        return self._client.want_write()

    def pump(self, *, readable: bool, writable: bool) -> list[Event]:
        """Moves bytes and tells what happened.

        Args:
            readable: the socket has bytes.
            writable: the socket takes bytes.

        Returns:
            What happened, in order.
        """
        if self._is_dialling:
            return []
        if readable or self.has_unread:
            self._read()
        if writable:
            self._client.loop_write()
        events, self._events = self._events, []
        return events

    @property
    def has_unread(self) -> bool:
        """Whether TLS holds bytes that `select` does not see any more."""
        found = self.socket()
        return isinstance(found, ssl.SSLSocket) and found.pending() > 0

    def _read(self) -> None:
        for _ in range(_TURN):
            self._client.loop_read()
            if not self.has_unread:
                return

    @property
    def heard_s(self) -> float:
        """When the last byte came, or the connection was made; in monotonic seconds."""
        return self._client.heard_s

    def ping_after(self, silence_s: int) -> None:
        """Sets after which silence the broker is asked whether it is there."""
        self._client.ping_after(silence_s)

    def tick(self) -> None:
        """Looks after the keepalive; to be called about once a second while there is a socket."""
        self._client.loop_misc()

    def listen(self) -> None:
        """Subscribes to our own mailbox."""
        self._client.subscribe(self._down, qos=1)

    def publish(self, data: bytes) -> int | None:
        """Publishes a message with QoS 1.

        Args:
            data: the message.

        Returns:
            Its packet id, or None when the connection has just ended.
        """
        info = self._client.publish(self._topic, data, qos=1)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def acknowledge(self, came: Came) -> None:
        """Sends the PUBACK of a message that is stored, or must not come again."""
        self._client.ack(came.mid, came.qos)

    def leave(self) -> None:
        """Ends the connection politely; the broker keeps the session."""
        found = self.socket()
        if found is not None:
            with contextlib.suppress(OSError):  # gone already
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_DEFAULT)
            with contextlib.suppress(OSError, ValueError):
                self._client.disconnect()
        self.abort()

    def abort(self) -> None:
        """Ends the connection at once; what the kernel still held does not leave any more."""
        self._abandoned = True
        if self._is_dialling:
            self._client.give_up()  # the dialling thread closes what it makes
        else:
            self._client.close()

    def _make(self) -> Client:
        five = self._version is Version.V5
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._target.mailbox,
            clean_session=None if five else False,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _dial(self) -> None:
        try:
            host, port = address(self._target.broker)
            self._client.secure(tls.context(self._target), self._check)
            self._client.dial(host, port)
        except (OSError, ValueError, UplinkError) as exc:
            self._events.append(self._undialled(exc))
        except Exception as exc:
            log.exception("dialling failed")
            self._events.append(self._undialled(exc))
        finally:
            self._is_dialling = False
            if self._abandoned:
                self.abort()
            self._wake()

    def _check(self, secured: ssl.SSLSocket) -> UplinkError | None:
        if self._target.clock is ClockTrust.MACHINE:
            return None  # the handshake held the dates against it
        return tls.expired(secured, self._target, self._past_ms())

    def _undialled(self, exc: Exception) -> Ended:
        said = tls.sentence(exc, self._target, self._wall_ms())
        return Ended(said, None, dialled=False, refused=tls.needs_a_person(exc))

    def _on_connect(
        self,
        _client: object,
        _data: object,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        found: Properties | None,
    ) -> None:
        self._events.append(
            Answered(
                reason=int(reason.value),
                receive_maximum=getattr(found, "ReceiveMaximum", None),
                maximum_packet=getattr(found, "MaximumPacketSize", None),
                maximum_qos=getattr(found, "MaximumQoS", None),
                keepalive_s=getattr(found, "ServerKeepAlive", None),
                resumed=bool(flags.session_present),
            )
        )

    def _on_subscribe(
        self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _more: object
    ) -> None:
        granted = all(reason.value < Reason.ERROR for reason in reasons)
        self._events.append(Subscribed(granted))

    def _on_publish(
        self, _client: object, _data: object, mid: int, reason: ReasonCode, _more: object
    ) -> None:
        self._events.append(Confirmed(mid, int(reason.value)))

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._events.append(Came(message.mid, message.qos, bytes(message.payload)))

    def _on_disconnect(
        self,
        _client: object,
        _data: object,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _more: object,
    ) -> None:
        if self._client.is_oversized:
            self._events.append(Ended(_OVERSIZED, None, dialled=True))
            return
        alert = tls.alerted(self._client.alert)
        if alert:
            self._events.append(Ended(alert, None, dialled=True, refused=True))
            return
        name = reason.getName().lower()
        if flags.is_disconnect_packet_from_server:
            self._events.append(Ended(f"the broker: {name}", int(reason.value), dialled=True))
            return
        silent = name == "keep alive timeout"
        said = "the broker has fallen silent" if silent else "the connection was lost"
        self._events.append(Ended(said, None, dialled=True, hung_up=not silent))


def _properties() -> Properties:
    made = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    made.SessionExpiryInterval = _SESSION_S
    made.ReceiveMaximum = WINDOW
    made.MaximumPacketSize = LARGEST_PACKET
    return made
