# SPDX-License-Identifier: Apache-2.0
"""A backend that only listens: plain paho over mutual TLS, every payload in order of arrival."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.simulators.certificates import Authority


def end(client: mqtt.Client) -> None:
    """Disconnects a client that has a thread, and closes the sockets by which paho wakes that.

    Left to the garbage collector they may be told as unclosed, and some other test fails of it.
    """
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


class Subscriber:
    """Subscribes to every mailbox; its session survives the broker's restarts.

    Attributes:
        came: (topic, payload) of everything that arrived.
    """

    def __init__(self, port: int, authority: Authority, name: str = "backend-maker") -> None:
        self.came: list[tuple[str, bytes]] = []
        self._listening = threading.Event()
        self._name = name
        self._port = port
        pair = authority.client(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.pem)
        context.load_cert_chain(pair.certificate, pair.key)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5
        )
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._listening.set()
        self._client.on_message = lambda _c, _u, message: self.came.append(
            (message.topic, bytes(message.payload))
        )

    @property
    def payloads(self) -> list[bytes]:
        """The payloads alone."""
        return [payload for _, payload in list(self.came)]

    def start(self) -> None:
        """Connects; returns when it is subscribed."""
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("localhost", self._port, clean_start=False, properties=session)
        self._client.loop_start()
        assert self._listening.wait(10)

    def send(self, mailbox: str, payload: bytes) -> None:
        """Publishes to a gateway; returns when the broker has it."""
        self.post(mailbox, payload).wait_for_publish(10)

    def say(self, payload: bytes) -> None:
        """Publishes as a gateway does whose mailbox is our name; returns when the broker has it."""
        self._client.publish(f"assent/1/{self._name}/up", payload, qos=1).wait_for_publish(10)

    def post(self, mailbox: str, payload: bytes) -> mqtt.MQTTMessageInfo:
        """Publishes to a gateway without waiting for the broker."""
        return self._client.publish(f"assent/1/{mailbox}/down", payload, qos=1)

    def stop(self) -> None:
        """Disconnects; the broker keeps the session."""
        end(self._client)

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe("assent/1/+/up", qos=1)


@contextlib.contextmanager
def listening(port: int, authority: Authority, name: str = "backend-maker") -> Iterator[Subscriber]:
    """A subscriber that listens for as long as the block."""
    subscriber = Subscriber(port, authority, name)
    subscriber.start()
    try:
        yield subscriber
    finally:
        subscriber.stop()
