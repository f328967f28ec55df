# SPDX-License-Identifier: Apache-2.0
"""The broker we ship: who may do what on it, and that it drops nothing."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import pwd
import shlex
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from assent.backend import directory
from assent.backend.broker import render
from assent.backend.cli import main
from assent.errors import MalformedError, UsageError
from assent.messages import new_mailbox
from assent.wire import MAX_MESSAGE
from demo.ports import free_port
from tests.agent.carrying import carrying
from tests.simulators.broker import Broker, mosquitto, running
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.subscriber import Subscriber, end, listening

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
        end(self._client)


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
        {"port": 0},
        {"port": 65_536},
        {"host": "0.0.0.0 8884"},
        {"host": "-"},
        {"user": "two words"},
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
        "no port",
        "a port beyond the last",
        "two addresses",
        "an address that is none",
        "an account that is none",
    ],
)
def test_a_value_that_would_not_stay_on_its_line_is_refused(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    values: dict[str, object] = {"port": 8883, "recipients": ["maker"], **paths(tmp_path), **wrong}
    with pytest.raises((MalformedError, UsageError)):
        render(tmp_path / "made", **values)  # type: ignore[arg-type]
    assert not (tmp_path / "made").exists()


def account() -> str:
    """Whom the broker runs as: mosquitto's own account where a test may choose it."""
    if os.geteuid() != 0:
        return getpass.getuser()
    try:
        return pwd.getpwnam("mosquitto").pw_name
    except KeyError:
        pytest.skip("this machine has no account mosquitto")


@pytest.fixture
def closed(outside: Path) -> Path:
    """A backend's directory as keygen leaves it: nobody but its owner may enter."""
    now = dt.datetime.now(dt.UTC)
    made = directory.create(outside / "private" / "maker", "maker", now=now).root
    (outside / "private").chmod(0o700)
    return made


@pytest.mark.journey
def test_the_printed_command_starts_a_broker_that_keeps_what_waits(
    outside: Path, closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red while the files stay in the backend's directory and `state` is root's."""
    mosquitto()
    user, port, out = account(), free_port(), outside / "broker"
    words = ["broker", str(closed), "--out", str(out), "--port", str(port)]
    assert main([*words, "--address", "127.0.0.1", "--user", user]) == 0
    (command,) = [
        line.removeprefix("next: ")
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("next: ")
    ]
    with (outside / "log").open("wb") as log:
        broker = subprocess.Popen(shlex.split(command), stdout=log, stderr=log)
    try:
        eventually(lambda: answers(port, closed))
        assert Path(f"/proc/{broker.pid}").stat().st_uid == pwd.getpwnam(user).pw_uid
    finally:
        broker.terminate()
        broker.wait(10)
    assert (out / "state" / "mosquitto.db").stat().st_size > 0
    assert "ermission denied" not in (outside / "log").read_text()


def answers(port: int, root: Path) -> bool:
    """Whether the backend's certificate opens a connection that the authority vouches for."""
    context = ssl.create_default_context(cafile=str(root / "tls/ca.pem"))
    context.load_cert_chain(root / "tls/backend.pem", root / "tls/backend.key")
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as plain:
            context.wrap_socket(plain, server_hostname="localhost").close()
    except OSError:
        return False
    return True


def test_what_the_broker_gets_is_its_own_and_closed_to_others(outside: Path, closed: Path) -> None:
    out, user = outside / "broker", account()
    assert main(["broker", str(closed), "--out", str(out), "--user", user]) == 0
    uid = pwd.getpwnam(user).pw_uid
    modes = {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid == uid)
        for path in out.iterdir()
    }
    assert modes["broker.key"] == (0o600, True)
    assert modes["mosquitto.acl"] == (0o600, True)
    assert modes["state"] == (0o700, True)
    assert {modes[name][0] for name in ("ca.pem", "broker.pem", "mosquitto.conf")} == {0o644}
    for name in ("ca.pem", "broker.pem", "broker.key"):
        assert (out / name).read_bytes() == (closed / "tls" / name).read_bytes()
    assert str(closed) not in (out / "mosquitto.conf").read_text()
    # Again, as after a new certificate: what is there is replaced, what waits stays.
    (out / "state" / "mosquitto.db").write_bytes(b"waiting")
    assert main(["broker", str(closed), "--out", str(out), "--user", user]) == 0
    assert (out / "state" / "mosquitto.db").read_bytes() == b"waiting"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "0"], "port"),
        (["--port", "70000"], "port"),
        (["--address", "not an address"], "address"),
        (["--user", "nobody-of-that-name"], "no account nobody-of-that-name"),
    ],
    ids=["no port", "a port beyond the last", "no address", "an account that is not there"],
)
def test_broker_refuses_what_mosquitto_could_not_use(
    closed: Path, outside: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["broker", str(closed), "--out", str(outside / "broker"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (outside / "broker").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_broker_refuses_a_place_that_the_account_cannot_enter(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = closed.parent / "broker"
    assert main(["broker", str(closed), "--out", str(out), "--user", account()]) == 2
    assert f"{closed.parent} cannot be entered by" in capsys.readouterr().err
    assert not out.exists()
