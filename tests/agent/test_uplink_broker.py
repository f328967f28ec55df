# SPDX-License-Identifier: Apache-2.0
"""The uplink against a real mosquitto over mutual TLS: everything arrives, whatever breaks."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.spool import LinkState, Spool
from assent.messages import StreamAck
from tests.agent.carrying import NOT_TAKEN, Gateway, carrying
from tests.agent.test_fence import connections
from tests.simulators.broker import Broker, running
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.proxy import Fault, Proxy
from tests.simulators.subscriber import Subscriber, listening

pytestmark = pytest.mark.journey
REPO = Path(__file__).resolve().parents[2]


def arrived(backend: Subscriber, sent: list[bytes]) -> bool:
    return set(sent) <= set(backend.payloads)


def everything(gateway: Gateway) -> list[bytes]:
    return [batch.data for batch in gateway.sent]


# --- the whole road ------------------------------------------------------------------------------


def test_every_message_arrives_with_equal_bytes_and_only_in_its_mailbox(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    with carrying(tmp_path / "g", authority, broker.url) as gateway:
        gateway.reaches(LinkState.CONNECTED)  # what waits at that moment would have another order
        sent = [*gateway.put(300), *gateway.put(5, size=100_000), *gateway.put(100)]
        eventually(lambda: len(backend.came) == 405)
        assert backend.payloads == sent
        assert {topic for topic, _ in backend.came} == {f"assent/1/{gateway.mailbox}/up"}
        eventually(lambda: gateway.counted("delivered") == 405)
        assert gateway.spool.waiting()["service"].batches == 405  # until the backend confirms
        gateway.spool.acknowledge("maker", [StreamAck(gateway.stream, 405)])
        assert gateway.spool.waiting()["service"].batches == 0
        assert gateway.health.state is LinkState.CONNECTED


def test_nothing_is_lost_whatever_the_network_does(
    tmp_path: Path,
    authority: Authority,
    broker: Broker,
    backend: Subscriber,
    chance: random.Random,
) -> None:
    faults = [fault for fault in Fault if fault is not Fault.NONE]
    chance.shuffle(faults)
    with (
        Proxy(broker.port, seed=chance.randrange(1 << 32)) as proxy,
        carrying(
            tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}", keepalive_s=1
        ) as gateway,
    ):
        gateway.reaches(LinkState.CONNECTED)
        for fault in faults:
            gateway.put(40, size=2_000)
            eventually(lambda: gateway.counted("published") > 0)
            proxy.fault = fault
            if fault is Fault.REFUSE:
                proxy.cut_all()
            gateway.put(10, size=2_000)
            eventually(lambda fault=fault: proxy.struck[fault])
            proxy.fault = Fault.NONE
            eventually(lambda: arrived(backend, everything(gateway)), 30)
        assert set(proxy.struck) == set(faults)
        assert set(backend.payloads) == set(everything(gateway))
        assert proxy.accepted > 3


def test_trap_1_a_broker_that_is_killed_and_a_restarted_uplink_lose_nothing(
    tmp_path: Path, authority: Authority, broker: Broker
) -> None:
    """What the broker confirmed and lost with its memory is sent again when it is due."""
    with listening(broker.port, authority) as backend:
        gateway = Gateway(tmp_path / "g", authority, broker.url)
        gateway.open_lane()
        sent = gateway.put(200, size=3_000)
        gateway.start()
        try:
            eventually(lambda: len(backend.came) > 50)
            broker.kill()  # in mid-transfer
            assert gateway.counted("delivered") < 200
            gateway.reaches(LinkState.WAITING)
            broker.start()
            eventually(lambda: gateway.counted("delivered") >= 200)
            gateway.stop()
            missing = set(sent) - set(backend.payloads)
            eventually(backend._client.is_connected)
            later = Spool.open(gateway.path, create=False)
            again = later.lease("maker", 999, 10**15)  # long after: everything is due again
            assert {lease.data for lease in again} == set(sent)
            assert missing <= {lease.data for lease in again}
            later.close()
        finally:
            gateway.close()


def unread(port: int) -> int:
    """Bytes that lie in this machine's kernel and that the server on this port has not read."""
    return sum(waits for local, _, _, _, waits in connections() if local == port)


CHILD = """
import pathlib, sys, threading
from agent.uplink import Uplink
from tests.agent.carrying import Impatient
Uplink(pathlib.Path(sys.argv[1]), voucher=None, rng=Impatient()).run(threading.Event())
"""


@contextlib.contextmanager
def killed(path: Path) -> Iterator[None]:
    """An uplink of its own, which is killed at the end."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=REPO)
    try:
        yield
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_trap_1_an_uplink_that_is_killed_again_and_again_loses_nothing(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    """Red when a lease is written to the disk as sent; duplicates show that the kills struck.

    One that came when all of it was confirmed struck nothing. The last cannot: the broker stands
    still, and reads what the dead one had sent.
    """
    gateway = Gateway(tmp_path / "g", authority, broker.url)
    gateway.open_lane()
    sent: list[bytes] = []

    def doubled() -> int:
        return sum(count - 1 for count in Counter(backend.payloads).values())

    try:
        for is_last in (False, False, False, False, True):
            mine = set(gateway.put(20, size=5_000))
            sent += mine
            with killed(gateway.path):
                # What the one before had sent may come yet: only of these it is known whose they are.
                eventually(lambda mine=mine: not mine.isdisjoint(backend.payloads))
                if is_last:
                    broker.freeze()
                # What is new is not paced: a window is on its way.
                before = len(backend.came)
                sent += gateway.put(30 if is_last else 120, size=5_000)
                if is_last:
                    eventually(lambda: unread(broker.port) > 3 * 5_000)
                else:
                    eventually(lambda before=before: len(backend.came) > before + 60)
            broker.thaw()
        gateway.start()
        eventually(lambda: arrived(backend, sent), 30)
        assert set(backend.payloads) == set(sent)
        assert doubled() > 0
    finally:
        gateway.close()


def test_trap_8_a_broker_that_is_down_at_start_is_waited_for(
    tmp_path: Path, authority: Authority
) -> None:
    broker = Broker(tmp_path / "broker", authority)
    with carrying(tmp_path / "g", authority, broker.url) as gateway:
        sent = gateway.put(10)
        gateway.reaches(LinkState.WAITING, "refuses connections")
        broker.start()
        try:
            with listening(broker.port, authority) as backend:
                assert eventually(lambda: arrived(backend, sent))
        finally:
            broker.stop()


# --- the same traps with a real broker -----------------------------------------------------------


def test_trap_3_mosquittos_receive_maximum_is_kept(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with (
        running(tmp_path / "broker", authority, extra="max_inflight_messages 4") as broker,
        listening(broker.port, authority) as backend,
        carrying(tmp_path / "g", authority, broker.url) as gateway,
    ):
        sent = gateway.put(50)
        eventually(lambda: arrived(backend, sent))
        assert "window=4 " in caplog.text


def test_trap_4_mosquittos_packet_size_is_kept(tmp_path: Path, authority: Authority) -> None:
    """Red without the size check: "Packet too large", a reconnect, the same message, for ever."""
    small_packets = "max_packet_size 4000"
    with (
        running(tmp_path / "broker", authority, extra=small_packets) as broker,
        listening(broker.port, authority) as backend,
        Proxy(broker.port) as proxy,
        carrying(tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}") as gateway,
    ):
        large = gateway.put(1, size=4_000)
        small = gateway.put(20)
        eventually(lambda: arrived(backend, small))
        assert not arrived(backend, large)
        assert gateway.spool.waiting()["service"].too_large == 1
        assert proxy.accepted == 1
        broker.stop()
        broker.configure("")
        broker.start()
        eventually(lambda: arrived(backend, large))


def test_trap_4_the_largest_message_the_packet_size_allows_is_sent(
    tmp_path: Path, authority: Authority
) -> None:
    """The twin: the check is not stricter than the broker, to a few bytes."""
    with (
        running(tmp_path / "broker", authority, extra="max_packet_size 4000") as broker,
        listening(broker.port, authority) as backend,
        carrying(tmp_path / "g", authority, broker.url) as gateway,
    ):
        sent = gateway.put(1, size=4_000 - 60)
        eventually(lambda: arrived(backend, sent))
        assert gateway.spool.waiting()["service"].too_large == 0


def test_trap_5_mosquitto_without_a_subscriber_delivers_nothing_and_hears_no_storm(
    tmp_path: Path, authority: Authority, broker: Broker
) -> None:
    """mosquitto throws away what nobody reads, and says so with reason 0x10."""
    with carrying(tmp_path / "g", authority, broker.url) as gateway:
        sent = gateway.put(100)
        gateway.reaches(LinkState.HOLDING, "no backend is subscribed")
        assert gateway.counted("delivered") == 0
        with listening(broker.port, authority) as backend:
            eventually(lambda: arrived(backend, sent))
            assert Counter(backend.payloads).most_common(1)[0][1] == 1
        gateway.reaches(LinkState.CONNECTED)
        assert gateway.counted("published") < 160


def test_a_mailbox_that_is_not_ours_is_refused_and_nothing_counts_as_delivered(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    """The certificate is of another mailbox than the one we write to."""
    gateway = Gateway(tmp_path / "g", authority, broker.url)
    other = authority.client("0" * 32)
    gateway.spool.set_targets(
        [msgspec.structs.replace(gateway.target, cert_path=str(other[0]), key_path=str(other[1]))]
    )
    gateway.open_lane()
    gateway.put(5)
    gateway.start()
    try:
        gateway.reaches(LinkState.HOLDING, "does not take our messages")
        assert gateway.counted("delivered") == 0
        assert backend.came == []
    finally:
        gateway.close()


def test_trap_9_what_came_down_while_we_were_away_comes_when_we_are_back(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    """Red with clean_start, which throws the session away."""
    with carrying(tmp_path / "g", authority, broker.url) as gateway:
        gateway.reaches(LinkState.CONNECTED)
        backend.send(gateway.mailbox, b"first")
        eventually(lambda: gateway.spool.take_inbox(1))
        gateway.stop()
        backend.send(gateway.mailbox, b"second")
        gateway.start()
        eventually(lambda: len(gateway.spool.take_inbox(9)) == 2)
        assert [one.data for one in gateway.spool.take_inbox(9)] == [b"first", b"second"]


def test_two_clients_of_one_mailbox_do_not_fight_for_ever(
    tmp_path: Path, authority: Authority, broker: Broker
) -> None:
    """Red when a connection that was answered ends the growth of the waits."""
    with Proxy(broker.port) as proxy:
        url = f"mqtts://localhost:{proxy.port}"
        one = Gateway(tmp_path / "one", authority, url)
        two = Gateway(tmp_path / "two", authority, url, mailbox=one.mailbox)
        try:
            for gateway in (one, two):
                gateway.open_lane()
                gateway.start()
            eventually(lambda: proxy.accepted >= 6)
            before = proxy.accepted
            # With waits of 20 ms and more, doubling: in two seconds some six a side, not hundreds.
            with pytest.raises(AssertionError, match="not within"):
                eventually(lambda: proxy.accepted > before + 14, 2.0)
        finally:
            one.close()
            two.close()


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "with messages on their way"])
def test_a_half_open_link_is_noticed(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber, idle: bool
) -> None:
    """Red without the tick that looks after the keepalive (idle) and the PUBACKs (the other)."""
    with carrying(tmp_path / "g", authority, broker.url, keepalive_s=1) as gateway:
        first = gateway.put(1)
        eventually(lambda: arrived(backend, first))
        broker.freeze()
        try:
            if not idle:
                gateway.put(3)
            health = gateway.reaches(LinkState.WAITING)
            assert idle <= ("silent" in health.detail)
        finally:
            broker.thaw()
        gateway.put(3)
        eventually(lambda: arrived(backend, everything(gateway)))


def test_a_name_that_does_not_resolve_is_a_sentence(tmp_path: Path, authority: Authority) -> None:
    with carrying(tmp_path / "g", authority, "mqtts://broker.invalid:8883") as gateway:
        gateway.put(1)
        gateway.reaches(LinkState.WAITING, "cannot be resolved")
        assert gateway.counted("published") == 0


# --- TLS -----------------------------------------------------------------------------------------


@pytest.mark.clause("C14")
def test_a_broker_of_another_authority_is_not_spoken_to(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when the system's authorities are loaded instead of the pinned one, or none is needed."""
    strangers = Authority(tmp_path / "strangers")
    with (
        running(tmp_path / "broker", strangers) as broker,
        carrying(tmp_path / "g", authority, broker.url) as gateway,
    ):
        gateway.put(1)
        gateway.reaches(LinkState.WAITING, "not issued by the pinned authority")
        assert gateway.counted("published") == 0


def test_a_broker_with_another_name_is_not_spoken_to(tmp_path: Path, authority: Authority) -> None:
    """Red without check_hostname."""
    with (
        running(tmp_path / "broker", authority, server_names=("ingest.example.com",)) as broker,
        carrying(tmp_path / "g", authority, broker.url) as gateway,
    ):
        gateway.put(1)
        gateway.reaches(LinkState.WAITING, "for another name")
        assert gateway.counted("published") == 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("missing", "our certificate or its key cannot be used"),
        ("no PEM", "our certificate or its key cannot be used"),
        ("another key", "our certificate is for another key"),
        ("not readable text", "our certificate or its key cannot be used"),
    ],
    ids=["missing", "no PEM", "another key", "not readable text"],
)
def test_a_certificate_that_cannot_be_used_is_a_sentence(
    tmp_path: Path, authority: Authority, broken: str, said: str
) -> None:
    gateway = Gateway(tmp_path / "g", authority, "mqtts://localhost:1")
    certificate = Path(gateway.target.cert_path)
    if broken == "missing":
        certificate.unlink()
    if broken == "no PEM":
        certificate.write_text("nothing")
    if broken == "another key":
        certificate.write_bytes(authority.client("another").certificate.read_bytes())
    if broken == "not readable text":
        certificate.write_bytes(os.urandom(500))
    gateway.open_lane()
    gateway.start()
    try:
        gateway.reaches(LinkState.WAITING, said)
        assert gateway.counted("published") == 0
    finally:
        gateway.close()


@pytest.mark.clause("C17")
@pytest.mark.clause("C21")
def test_a_gateway_the_broker_did_not_admit_sends_nothing_until_it_is_admitted(
    tmp_path: Path, authority: Authority, broker: Broker, backend: Subscriber
) -> None:
    """The second half: the certificate is read at each connect, so that a new one is used."""
    strangers = Authority(tmp_path / "strangers")
    gateway = Gateway(tmp_path / "g", authority, broker.url)
    mine = [Path(gateway.target.cert_path), Path(gateway.target.key_path)]
    good = [path.read_bytes() for path in mine]
    for path, other in zip(mine, strangers.client(gateway.mailbox), strict=True):
        path.write_bytes(other.read_bytes())
    gateway.open_lane()
    sent = gateway.put(3)
    gateway.start()
    try:
        gateway.reaches(LinkState.WAITING, *NOT_TAKEN)
        assert gateway.counted("published") == 0
        for path, data in zip(mine, good, strict=True):
            path.write_bytes(data)
        eventually(lambda: arrived(backend, sent))
    finally:
        gateway.close()


@pytest.mark.clause("C21")
def test_the_broker_we_ship_takes_no_client_without_a_certificate(broker: Broker) -> None:
    """TLS 1.3 lets the handshake pass and hangs up afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
    with (
        socket.create_connection(("127.0.0.1", broker.port)) as plain,
        context.wrap_socket(plain) as client,
    ):
        answer = b""
        with contextlib.suppress(OSError):
            client.sendall(connect)
            answer = client.recv(4)
    assert answer == b""


def test_the_broker_we_ship_answers_a_client_with_one(authority: Authority, broker: Broker) -> None:
    """The twin: the same bytes with a certificate are answered with a CONNACK."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.pem)
    context.load_cert_chain(*authority.client("a"))
    with (
        socket.create_connection(("127.0.0.1", broker.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a")
        assert client.recv(4) == b"\x20\x02\x00\x00"
