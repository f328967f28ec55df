# SPDX-License-Identifier: Apache-2.0
"""One MQTT 5 session with the broker: paho, driven by our own loop.

Law:
  - paho's callbacks take note and nothing else; `step` returns what they noted, or raises;
  - a message is acknowledged by whoever stored it, and only on the connection it came on: packet
    numbers of another connection mean other messages;
  - the session outlives the process, so that the broker keeps what comes meanwhile.

Standards: MQTT 5.0; TLS 1.2 or later, mutual, one pinned authority and no other.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import select
import ssl
import time
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from assent.errors import KeyStoreError, UplinkError, UsageError
from assent.messages import UP_FILTER

_KEEPALIVE_S: Final = 30
_SESSION_S: Final = 30 * 86_400  # the broker keeps what comes for so long, then gives up on us
_RECEIVE_MAXIMUM: Final = 128  # two groups of a commit
_MAX_PACKET: Final = 262_144  # twice a message: whatever is larger is no batch
_LETTERS_IN_FLIGHT: Final = 10  # below the receive maximum of every broker seen (mosquitto: 20)
_LETTERS_WAITING: Final = 10_000  # of some 300 bytes, while the broker is slow
_GONE_S: Final = 10.0  # from the connection to the subscription; a broker answers in milliseconds
_BROKER = re.compile(r"mqtts://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?/?")


@dataclasses.dataclass(frozen=True, slots=True)
class Broker:
    """Where to subscribe.

    Attributes:
        host: name or address.
        port: TCP port.
        ca: PEM file of the authority its certificate is judged by; no other is trusted.
        certificate: PEM file of our own certificate.
        key: PEM file of its key.
    """

    host: str
    port: int
    ca: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path

    def __str__(self) -> str:
        """`host:port`, as a person knows it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message as it came.

    Attributes:
        topic: empty when it is no UTF-8.
        data: the bytes.
        receipt: what `Connection.acknowledge` wants back.
    """

    topic: str
    data: bytes
    receipt: tuple[int, int]


def address(url: str) -> tuple[str, int]:
    """Reads `mqtts://host:port`; the port is 8883 when it is left out.

    Raises:
        UsageError: anything else; there is no way in without TLS.
    """
    match = _BROKER.fullmatch(url)
    port = int(match[2] or 8883) if match else 0
    if match is None or not 0 < port < 65_536:
        raise UsageError(f"expected a broker such as mqtts://localhost:8883, got {url!r}")
    return match[1].strip("[]"), port


class Connection:
    """A session that is connected, or can be; owned by one thread."""

    def __init__(self, broker: Broker, user: str) -> None:
        """Loads the certificates; connects to nothing yet.

        Args:
            broker: where to.
            user: our name there; also names the session.

        Raises:
            KeyStoreError: a certificate or its key is missing or unusable.
        """
        self.broker = broker
        self._inbox: list[Message] = []
        self._failed: str | None = None
        self._since = 0.0
        self.is_ready = False
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=user, protocol=mqtt.MQTTv5, manual_ack=True
        )
        client.tls_set_context(_tls(broker))
        client.max_inflight_messages_set(_LETTERS_IN_FLIGHT)
        client.max_queued_messages_set(_LETTERS_WAITING)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._client = client

    def connect(self) -> None:
        """Connects and asks for the subscription; `is_ready` tells when it stands.

        Raises:
            OSError: nobody answers, or TLS fails.
        """
        self._inbox.clear()
        self._failed, self._since, self.is_ready = None, time.monotonic(), False
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        properties.SessionExpiryInterval = _SESSION_S
        properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        properties.MaximumPacketSize = _MAX_PACKET
        self._client.connect(
            self.broker.host,
            self.broker.port,
            _KEEPALIVE_S,
            clean_start=False,
            properties=properties,
        )

    def step(self, timeout_s: float) -> list[Message]:
        """Carries bytes both ways for a while; returns what has come.

        Raises:
            UplinkError: the connection is no more; what came on it is not acknowledged any more.
        """
        code = self._turn(timeout_s)
        if not self.is_ready and time.monotonic() - self._since > _GONE_S:
            self._failed = self._failed or "the broker does not answer"
        if self._failed or code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise UplinkError(self._failed or f"the connection ended: {code.name}")
        inbox, self._inbox = self._inbox, []
        return inbox

    def _turn(self, timeout_s: float) -> MQTTErrorCode:
        """Reads and writes what can be; paho's own loop has two more sockets, and leaves them."""
        found = self._client.socket()
        if not isinstance(found, ssl.SSLSocket):
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        writers = [found] if self._client.want_write() else []
        unread = found.pending() > 0  # TLS holds bytes that `select` does not see any more
        readable, writable, _ = select.select([found], writers, [], 0.0 if unread else timeout_s)
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        if readable or unread:
            code = self._client.loop_read()
        if writable and code is MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = self._client.loop_write()
        return code or self._client.loop_misc()

    def acknowledge(self, message: Message) -> None:
        """Lets the broker forget a message of this connection."""
        number, quality = message.receipt
        if quality:
            self._client.ack(number, quality)

    def publish(self, topic: str, data: bytes, expires_s: int | None = None) -> None:
        """Sends with QoS 1; what waits when the connection ends is sent on the next.

        Args:
            topic: where to.
            data: the bytes.
            expires_s: for how many seconds the broker keeps it for one who is away.
        """
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if expires_s is not None:
            properties.MessageExpiryInterval = expires_s
        self._client.publish(topic, data, qos=1, properties=properties)

    def drop(self) -> None:
        """Ends the connection; what was not acknowledged comes again on the next."""
        self._client.disconnect()
        socket = self._client.socket()
        if socket is not None:
            socket.close()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if reason.is_failure:
            self._failed = f"the broker refused the connection: {reason}"
        else:
            client.subscribe(UP_FILTER, qos=1)

    def _on_subscribe(
        self, _client: object, _data: object, _mid: int, reasons: list[ReasonCode], _more: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._failed = "the broker refused the subscription"
        else:
            self.is_ready = True

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        receipt = (message.mid, message.qos)
        self._inbox.append(Message(topic, bytes(message.payload), receipt))

    def _on_disconnect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        self._failed = self._failed or f"the connection ended: {reason}"


def _tls(broker: Broker) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=str(broker.ca))
        context.load_cert_chain(str(broker.certificate), str(broker.key))
    except OSError as exc:  # of which ssl.SSLError is one
        raise KeyStoreError(f"the certificates for TLS cannot be used: {exc}") from exc
    return context
