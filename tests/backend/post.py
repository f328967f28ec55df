# SPDX-License-Identifier: Apache-2.0
"""A gateway's end of the broker, in a few lines of paho; and a broker of our own authority."""

from __future__ import annotations

import contextlib
import datetime as dt
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

from assent.backend.admission import admit
from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.backend.subscriber import Subscriber
from assent.backend.subscriber.connection import Broker as Address
from assent.cosekey import SealPublicKey
from assent.enrolment import decode_admission
from assent.envelope import Kind, open_down
from assent.messages import StreamAck, Time, decode_time, down_topic
from tests.backend.parts import Hand
from tests.simulators import broker as simulated
from tests.simulators.certificates import Pair
from tests.simulators.subscriber import end

PATIENCE_S = 15.0


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.005)


class OurAuthority:
    """The authority of a backend directory, as the simulated broker wants one."""

    def __init__(self, directory: Directory) -> None:
        self.path = directory.tls("ca.pem")
        self._pair = Pair(directory.tls("broker.pem"), directory.tls("broker.key"))

    def server(self, *_names: str) -> Pair:
        return self._pair


def broker_for(
    directory: Directory, root: Path
) -> contextlib.AbstractContextManager[simulated.Broker]:
    """A mosquitto that the gateways and the subscriber of a directory can connect to."""
    return simulated.running(root / "broker", OurAuthority(directory))  # type: ignore[arg-type]


def address(directory: Directory, port: int) -> Address:
    return Address(
        "localhost",
        port,
        directory.tls("ca.pem"),
        directory.tls("backend.pem"),
        directory.tls("backend.key"),
    )


class Post:
    """An admitted gateway, connected: sends, and opens what comes down."""

    def __init__(self, directory: Directory, port: int, root: Path) -> None:
        self.hand = Hand.make()
        self._ack_key = directory.ack_key().public
        self.inbox: queue.Queue[bytes] = queue.Queue()
        self._subscribed = threading.Event()
        files = self._enrol(directory, root)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory.tls("ca.pem"))
        context.load_cert_chain(*files)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self.hand.mailbox, protocol=mqtt.MQTTv5
        )
        self._client.tls_set_context(context)
        self._client.on_connect = lambda c, *_: c.subscribe(down_topic(self.hand.mailbox), qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, message: self.inbox.put(bytes(message.payload))
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self._client.connect("localhost", port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def _enrol(self, directory: Directory, root: Path) -> tuple[Path, Path]:
        tls = ec.generate_private_key(ec.SECP256R1())
        store = Store(directory.root)
        now = dt.datetime.now(dt.UTC)
        data = admit(directory, store, self.hand.request(tls), now).data
        store.close()
        chain, key = root / f"{self.hand.mailbox}.pem", root / f"{self.hand.mailbox}.key"
        chain.write_bytes(decode_admission(data, self._ack_key).certificate)
        key.write_bytes(
            tls.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return chain, key

    def send(self, data: bytes, *, to: str | None = None) -> None:
        self._client.publish(to or self.hand.topic, data, qos=1)

    def told(self) -> StreamAck:
        """Waits for an acknowledgement of one stream; opens and verifies it."""
        return self.all_told()[0]

    def all_told(self) -> tuple[StreamAck, ...]:
        return self.opened(self.inbox.get(timeout=PATIENCE_S))

    def opened(self, data: bytes) -> tuple[StreamAck, ...]:
        """Opens and verifies an acknowledgement."""
        return self.hand.acknowledgement(data, self._ack_key).streams

    def told_until(self, watermark: int) -> StreamAck:
        """Waits until everything below a number is acknowledged."""
        while True:
            ack = self.told()
            if ack.watermark >= watermark:
                return ack

    def sent_policy(self) -> bytes:
        """Waits for a policy; opens and verifies the message, not what is in it."""
        return self._sent(Kind.POLICY)

    def told_time(self) -> Time:
        """Waits for the answer to a question for the time; opens and verifies it."""
        return decode_time(self._sent(Kind.TIME))

    def _sent(self, kind: Kind) -> bytes:
        data = self.inbox.get(timeout=PATIENCE_S)
        box, key = self.hand.mailbox, self.hand.seal
        control = open_down(data, key=key, signer=self._ack_key, mailbox=box)
        assert control.kind is kind
        return control.body

    def close(self) -> None:
        end(self._client)


@contextlib.contextmanager
def posting(directory: Directory, port: int, root: Path) -> Iterator[Post]:
    post = Post(directory, port, root)
    try:
        yield post
    finally:
        post.close()


@contextlib.contextmanager
def subscribed(
    directory: Directory, port: int, *, prepare: Callable[[Store], None] = lambda _store: None
) -> Iterator[None]:
    """A subscriber in a thread of its own, with its store."""
    stop, ready = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def life() -> None:
        try:
            with contextlib.closing(Store(directory.root)) as store:
                prepare(store)
                Subscriber(directory, store, address(directory, port)).run(stop, ready.set)
        except BaseException as exc:  # noqa: BLE001  # the test hears of it when the thread has ended
            failed.append(exc)

    thread = threading.Thread(target=life)
    thread.start()
    try:
        until(lambda: ready.is_set() or bool(failed), "subscribed")
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert failed == []
        assert not thread.is_alive()


def public_key(directory: Directory) -> SealPublicKey:
    (key,) = directory.seal_keys().values()
    return key.public
