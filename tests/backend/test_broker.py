# SPDX-License-Identifier: Apache-2.0
"""The broker we ship: who may do what on it, and that it drops nothing."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from assent.backend.broker import render
from assent.errors import MalformedError, UsageError
from assent.messages import new_mailbox
from assent.wire import MAX_MESSAGE
from tests.agent.carrying import carrying
from tests.simulators.broker import Broker, running
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.subscriber import Subscriber, listening

NOT_AUTHORIZED = 0x87


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    with running(tmp_path / "broker", authority) as one:
        yield one


class Client:
    """A client of MQTT 5 with a certificate; what it hears and what the broker answers."""

    def __init__(self, broker: Broker, authority: Authority, name: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.pem)
        context.load_cert_chain(*authority.client(name))
        self.heard: list[tuple[str, bytes]] = []
        self.answers: list[int] = []
        self._ready = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5
        )
        self._client.tls_set_context(context)
        self._client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self._client.on_publish = lambda _c, _u, _m, reason, _p: self.answers.append(reason.value)
        self._client.on_connect = lambda *_: self._ready.set()
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("localhost", broker.port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def publish(self, topic: str, payload: bytes = b"x") -> int:
        """Publishes; gives the broker's reason code."""
        count = len(self.answers)
        self._client.publish(topic, payload, qos=1)
        eventually(lambda: len(self.answers) > count)
        return self.answers[-1]

    def subscribe(self, topic: str) -> None:
        """Subscribes; returns when the broker has answered."""
        self._ready.clear()
        self._client.subscribe(topic, qos=1)
        assert self._ready.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.journey
def test_a_gateway_reaches_its_own_mailbox_and_no_other(
    broker: Broker, authority: Authority
) -> None:
    mine, other = new_mailbox(), new_mailbox()
    one = Client(broker, authority, mine)
    two = Client(broker, authority, other)
    backend = Client(broker, authority, "backend-maker")
    stranger = Client(broker, authority, "backend-another")
    try:
        backend.subscribe("assent/1/+/up")
        for client in (one, two, stranger):
            client.subscribe("#")
            client.subscribe("$SYS/#")
        assert one.publish(f"assent/1/{mine}/up", b"mine") == 0
        assert backend.publish(f"assent/1/{mine}/down", b"for one") in {0, 0x10}
        assert backend.publish(f"assent/1/{other}/down", b"for two") in {0, 0x10}
        for client, topic in (
            (one, f"assent/1/{other}/up"),
            (one, f"assent/1/{mine}/down"),
            (one, f"assent/1/{other}/down"),
            (one, "elsewhere"),
            (backend, f"assent/1/{mine}/up"),
            (stranger, f"assent/1/{mine}/down"),
        ):
            assert client.publish(topic) == NOT_AUTHORIZED, topic
        eventually(lambda: one.heard and two.heard and backend.heard)
        assert one.heard == [(f"assent/1/{mine}/down", b"for one")]
        assert two.heard == [(f"assent/1/{other}/down", b"for two")]
        assert backend.heard == [(f"assent/1/{mine}/up", b"mine")]
        assert stranger.heard == []
    finally:
        for client in (one, two, backend, stranger):
            client.close()


@pytest.mark.journey
def test_a_backend_that_was_away_gets_more_than_the_brokers_own_limit_of_a_thousand(
    tmp_path: Path, authority: Authority, broker: Broker
) -> None:
    """Red with mosquitto's default: it keeps 1,000 a client and drops the rest without a word."""
    with listening(broker.port, authority):
        pass
    with carrying(tmp_path / "g", authority, broker.url) as gateway:
        sent = gateway.put(1_500, size=50)
        eventually(lambda: gateway.counted("delivered") == 1_500)
    broker.stop()  # as a service manager does: what waits is written down
    broker.start()
    backend = Subscriber(broker.port, authority)
    backend.start()
    eventually(lambda: len(backend.came) >= 1_500)
    assert backend.payloads == sent
    backend.stop()


@pytest.mark.journey
def test_the_largest_message_of_the_wire_passes(broker: Broker, authority: Authority) -> None:
    mailbox = new_mailbox()
    gateway = Client(broker, authority, mailbox)
    with listening(broker.port, authority) as backend:
        assert gateway.publish(f"assent/1/{mailbox}/up", bytes(MAX_MESSAGE)) == 0
        eventually(lambda: backend.payloads == [bytes(MAX_MESSAGE)])
    gateway.close()


def paths(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}


def test_the_files_name_what_they_were_given_and_nothing_is_left_open(tmp_path: Path) -> None:
    conf = render(
        tmp_path,
        port=8883,
        recipients=["maker", "energy-advice"],
        user="mosquitto",
        **paths(tmp_path),
    )
    text, rules = conf.read_text(), (tmp_path / "mosquitto.acl").read_text()
    assert "$" not in text + rules
    for line in (
        "listener 8883 0.0.0.0",
        "require_certificate true",
        "allow_anonymous false",
        f"acl_file {tmp_path}/mosquitto.acl",
        "user mosquitto",
    ):
        assert f"\n{line}\n" in text
    assert "user backend-maker\ntopic read assent/1/+/up\ntopic write assent/1/+/down\n" in rules
    assert "user backend-energy-advice\n" in rules
    assert (
        "user"
        not in render(tmp_path, port=8883, recipients=["maker"], **paths(tmp_path))
        .read_text()
        .rpartition("log_type notice")[2]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipients": ["maker\ntopic readwrite #"]},
        {"recipients": ["#"]},
        {"recipients": ["Maker"]},
        {"recipients": [""]},
        {"recipients": ["m" * 57]},
        {"host": "0.0.0.0\nallow_anonymous true"},
        {"user": "root\nallow_anonymous true"},
        {"key": Path("/a\nb")},
    ],
    ids=[
        "a rule in a recipient",
        "a wildcard",
        "upper case",
        "nothing",
        "too long for a certificate",
        "a line in the host",
        "a line in the user",
        "a line in a path",
    ],
)
def test_a_value_that_would_not_stay_on_its_line_is_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    values: dict[str, object] = {"port": 8883, "recipients": ["maker"], **paths(tmp_path), **wrong}
    with pytest.raises((MalformedError, UsageError)):
        render(tmp_path / "made", **values)  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()
