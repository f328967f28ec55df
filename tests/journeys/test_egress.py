# SPDX-License-Identifier: Apache-2.0
"""One way out: every packet of the gateway's programs is between them and a broker of the policy.

The gateway's programs run in a network namespace of their own, the recipients' in another. What is
at the other end of the wire: two brokers, a resolver, a decoy that listens where a broker would,
and any other address, which nobody has. `tests/simulators/netns.py` says why no packet is noise.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from assent.backend.broker import render
from demo.stage import RECIPIENTS, Stage, wait_until
from tests.journeys.parts import DEVICES, NO, YES, Doorbell, fast, moved
from tests.simulators import netns
from tests.simulators.netns import NEAR, WIRE, Capture, Endpoint, Namespace, Packet, Resolver

pytestmark = pytest.mark.journey

MAKER, ADVICE = (Endpoint(f"192.0.2.{host}", 8883) for host in (11, 12))
BROKERS = dict(zip(RECIPIENTS, (MAKER, ADVICE), strict=True))
NAMES = dict(zip(RECIPIENTS, ("ingest.example.com", "ingest.example.net"), strict=True))
DECOY = Endpoint("192.0.2.66", 8883)
RESOLVER = Endpoint("192.0.2.53", 53)

# Several turns of the owner and several looks of the uplink, each at least once a second.
_WATCH_S = 1.5
# After the last withdrawal; batches were made each second before it.
_SILENCE_S = 3.0
# The uplink stays for 2 s to hear the answer to what it said last, although no flow is open.
_ANSWER_S = 15.0
# Bytes: no sealed message is smaller than the key it begins with (draft-ietf-hpke-pq, 1,120).
_SMALLEST = 1_120


class Household(Stage):
    """A stage whose two sides are at the two ends of a wire.

    Args:
        root: where everything is made; emptied first.
        near: where the gateway's programs run, but for those that collect when `inner` is set.
        far: where the brokers and the recipients' programs run.
    """

    def __init__(self, root: Path, near: Namespace, far: Namespace) -> None:
        super().__init__(root)
        self.ends = self.near, self.far = near, far
        self.inner = near
        self.hosts = {recipient: BROKERS[recipient].address for recipient in RECIPIENTS}

    def make_recipients(self) -> None:
        for recipient in RECIPIENTS:
            words = ["keygen", str(self.backend_directory(recipient)), "--recipient", recipient]
            words += ["--host", BROKERS[recipient].address, "--host", NAMES[recipient]]
            self.backend(*words, *(["--policy-key"] if recipient == RECIPIENTS[0] else []))

    def publish_next(self, edit: Callable[[str], str] = str) -> None:
        """Publishes another policy with the next serial, and has the gateway take it in."""
        bundle = self.publish(lambda text: edit(fast(text)).replace("serial = 17", "serial = 18"))
        self.assent("enrol", str(bundle))

    def choose(self, recipient: str, broker: Endpoint) -> None:
        """The technician writes a broker into agent.toml."""
        agent = self.gateway / "agent.toml"
        table = f'\n[uplink.{recipient}]\nbroker = "mqtts://{broker}"\n'
        agent.write_text(agent.read_text() + table)

    def broker_url(self, recipient: str) -> str:
        return f"mqtts://{self.hosts[recipient]}:{BROKERS[recipient].port}"

    def start_broker(self, recipient: str) -> None:
        place = self.root / "brokers" / recipient
        place.mkdir(parents=True, exist_ok=True)
        tls = self.backend_directory(recipient) / "tls"
        at = BROKERS[recipient]
        conf = render(
            place,
            port=at.port or 0,
            host=at.address,
            ca=tls / "ca.pem",
            certificate=tls / "broker.pem",
            key=tls / "broker.key",
            recipients=[recipient],
            user="root",
        )
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert program is not None, "there is no mosquitto; type: sudo apt-get install mosquitto"
        self._start(f"broker-{recipient}", [program, "-c", str(conf)])
        wait_until(lambda: at in listening(self.far), f"the broker of {recipient} listens")

    def start_all(self) -> None:
        """Starts brokers, backends and the agent."""
        for recipient in RECIPIENTS:
            self.start_broker(recipient)
            self.start_backend(recipient)
        self.start_agent()

    def stored(self) -> set[str]:
        """The flows of which the recipients have stored something."""
        return {row["flow"] for recipient in RECIPIENTS for row in self.show(recipient, "flows")}

    def deliver(self) -> None:
        """Returns when something of each flow that was agreed to is stored."""
        wait_until(lambda: self.stored() == set(YES), "something of every flow is stored")

    def start_apart(self) -> None:
        """Starts the collecting program and the uplink, and waits until the first answers."""
        program = str(Path(sys.executable).with_name("assent"))
        for name in ("collect", "uplink"):
            self._start(name, [program, name, "--config", str(self.gateway)])
        wait_until(lambda: self.status()["running"], "the collecting program answers")

    def _start(self, name: str, words: list[str]) -> None:
        sides = {"agent": self.near, "uplink": self.near, "collect": self.inner}
        super()._start(name, sides.get(name, self.far).inside(words))

    def _run(self, program: str, words: tuple[str, ...]) -> str:
        side = self.inner if Path(program).name == "assent" else self.far
        entering, *rest = side.inside([program, *words])
        return super()._run(entering, tuple(rest))


def listening(namespace: Namespace) -> set[Endpoint]:
    return {one.local for one in namespace.connections() if one.listens}


def named(household: Household) -> set[Endpoint]:
    """The brokers of the signed policy that the gateway holds, by address."""
    policy = tomllib.loads((household.gateway / "policy.toml").read_text())
    addresses = {NAMES[recipient]: BROKERS[recipient].address for recipient in RECIPIENTS}
    found = set()
    for recipient in policy["recipients"].values():
        for url in recipient["brokers"]:
            host, port = url.removeprefix("mqtts://").split(":")
            found.add(Endpoint(addresses.get(host, host), int(port)))
    return found


def strays(packets: Iterable[Packet], allowed: set[Endpoint]) -> list[Packet]:
    """The packets that are not TCP over the wire between the gateway and a place allowed."""
    return [
        packet
        for packet in packets
        if packet.interface != WIRE
        or packet.protocol != "tcp"
        or packet.near.address != NEAR
        or packet.far not in allowed
    ]


def reasons(household: Household) -> set[str]:
    """Why flows are off; empty when one is on."""
    flows = household.status()["flows"]
    return set() if any(flow["on"] for flow in flows) else {flow["reason"] for flow in flows}


def batches_to(packets: Iterable[Packet]) -> set[Endpoint]:
    """Who is sent more than the smallest sealed message."""
    sent: Counter[Endpoint] = Counter()
    for packet in packets:
        sent[packet.far] += packet.payload if packet.is_outgoing else 0
    return {far for far, size in sent.items() if size >= _SMALLEST}


def until_sent(capture: Capture, fars: set[Endpoint]) -> list[Packet]:
    """The packets until each of some has been sent a batch."""
    packets: list[Packet] = []

    def sent() -> bool:
        packets.extend(capture.fresh())
        return batches_to(packets) >= fars

    wait_until(sent, "each is sent a batch")
    return packets


def to_resolver(packets: Iterable[Packet]) -> list[Packet]:
    return [one for one in packets if one.protocol == "udp" and one.far == RESOLVER]


def met(packets: Iterable[Packet]) -> set[Endpoint]:
    return {packet.far for packet in packets}


@contextmanager
def two_ends(directory: Path) -> Iterator[tuple[Namespace, Namespace]]:
    """The gateway's namespace and the world's. In CI root must be able to make them."""
    reason = netns.why_not()
    if reason is not None:
        is_due = os.environ.get("CI") == "true" and os.geteuid() == 0
        (pytest.fail if is_due else pytest.skip)(reason)
    order = "hosts: files dns\n"
    lines = [f"{BROKERS[recipient].address} {NAMES[recipient]}\n" for recipient in RECIPIENTS]
    near_etc = {
        "resolv.conf": f"nameserver {RESOLVER.address}\noptions timeout:1 attempts:2\n",
        "hosts": "127.0.0.1 localhost\n",
        "nsswitch.conf": order,
    }
    far_etc = {"hosts": "127.0.0.1 localhost\n" + "".join(lines), "nsswitch.conf": order}
    far = [one.address for one in (MAKER, ADVICE, DECOY, RESOLVER)]
    with netns.wired(directory, near_etc=near_etc, far_etc=far_etc, far=far) as ends:
        yield ends


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, Namespace]]:
    with two_ends(tmp_path_factory.mktemp("egress") / "ends") as ends:
        yield ends


@pytest.fixture(scope="module")
def enrolled(
    ends: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Household:
    """A household that is enrolled with both recipients and has decided nothing."""
    household = Household(tmp_path_factory.mktemp("egress") / "stage", *ends)
    household.make_recipients()
    bundle = household.publish(fast)
    household.make_gateway(DEVICES)
    household.enrol(bundle)
    return household


@pytest.fixture
def household(enrolled: Household, tmp_path: Path) -> Iterator[Household]:
    """A household that has decided nothing."""
    wait_until(lambda: enrolled.near.connections() == [], "the last one's connections are closed")
    with closing(moved(enrolled, Household(tmp_path / "stage", *enrolled.ends))) as copy:
        yield copy


@pytest.fixture
def capture(ends: tuple[Namespace, Namespace]) -> Iterator[Capture]:
    """Every packet of the gateway's namespace from before the first program of the test."""
    with closing(Capture(ends[0])) as capture:
        yield capture


@pytest.fixture
def decoy(ends: tuple[Namespace, Namespace]) -> Iterator[Doorbell]:
    """Listens beside the brokers, on their port, and counts who comes."""
    with ends[1].socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(tuple(DECOY))
        listener.listen()
        bell = Doorbell([listener])
        thread = threading.Thread(target=bell.listen, daemon=True)
        thread.start()
        yield bell
        bell.leave()
        thread.join()


@pytest.fixture
def resolver(ends: tuple[Namespace, Namespace]) -> Iterator[Resolver]:
    listener = ends[1].socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(tuple(RESOLVER))
    addresses = {NAMES[recipient]: BROKERS[recipient].address for recipient in RECIPIENTS}
    with closing(Resolver(listener, addresses)) as resolver:
        yield resolver


@pytest.mark.clause("C01")
@pytest.mark.clause("C32")
def test_without_a_yes_there_is_no_packet_at_all(household: Household, capture: Capture) -> None:
    for recipient in RECIPIENTS:
        household.start_broker(recipient)
    household.start_agent()
    time.sleep(_WATCH_S)
    assert reasons(household) == {"not decided"}
    household.decide(NO)
    time.sleep(_WATCH_S)
    assert reasons(household) == {"refused"}
    assert household.end("agent") == 0
    assert capture.fresh() == []


def test_the_twin_with_one_yes_sends_packets_to_its_recipient_and_no_other(
    household: Household, capture: Capture
) -> None:
    for recipient in RECIPIENTS:
        household.start_broker(recipient)
    household.start_agent()
    household.decide(NO | {"service": '"accepted"'})
    packets = until_sent(capture, {MAKER})
    time.sleep(_WATCH_S)
    packets += capture.fresh()
    assert met(packets) == {MAKER}
    assert strays(packets, {MAKER}) == []


@pytest.mark.clause("C14")
@pytest.mark.clause("C32")
def test_every_packet_is_between_the_gateway_and_a_broker_of_the_signed_policy(
    household: Household, capture: Capture, decoy: Doorbell, resolver: Resolver
) -> None:
    household.decide(YES)
    household.start_all()
    household.deliver()
    assert household.end("agent") == 0
    packets = capture.fresh()
    assert strays(packets, named(household)) == []
    assert met(packets) == named(household) == {MAKER, ADVICE}
    assert {packet.is_outgoing for packet in packets} == {True, False}
    assert (decoy.rung, resolver.asked) == (0, [])


@pytest.mark.clause("C32")
def test_brokers_with_names_are_looked_up_and_nothing_else_is(
    household: Household, capture: Capture, decoy: Doorbell, resolver: Resolver
) -> None:
    household.hosts = dict(NAMES)
    household.publish_next()
    household.decide(YES)
    assert capture.fresh() == []
    household.start_all()
    household.deliver()
    assert household.end("agent") == 0
    packets = capture.fresh()
    questions = to_resolver(packets)
    assert questions != []
    assert strays((one for one in packets if one not in questions), named(household)) == []
    assert met(packets) == {MAKER, ADVICE, RESOLVER}
    assert set(resolver.asked) == set(NAMES.values())
    assert decoy.rung == 0


@pytest.mark.clause("C14")
@pytest.mark.clause("C32")
def test_a_broker_that_only_the_technician_names_is_never_contacted(
    household: Household, capture: Capture, decoy: Doorbell
) -> None:
    household.choose("maker", DECOY)
    household.decide(YES)
    household.start_broker("energy-advice")
    household.start_agent()
    packets = until_sent(capture, {ADVICE})
    time.sleep(_WATCH_S)
    packets += capture.fresh()
    assert strays(packets, {ADVICE}) == []
    assert met(packets) == {ADVICE}
    assert decoy.rung == 0


def test_the_twin_a_broker_that_the_policy_names_too_is_the_one_contacted(
    household: Household, capture: Capture, decoy: Doorbell
) -> None:
    one = f'"mqtts://{MAKER}"'
    household.publish_next(lambda text: text.replace(f"[{one}]", f'[{one}, "mqtts://{DECOY}"]'))
    household.choose("maker", DECOY)
    household.decide(YES)
    household.start_agent()
    wait_until(lambda: decoy.rung > 0, "the uplink rings where it was told to")
    packets = capture.fresh()
    assert named(household) == {MAKER, ADVICE, DECOY}
    assert DECOY in met(packets)
    assert strays(packets, {ADVICE, DECOY}) == []


@pytest.mark.clause("C32")
def test_the_collecting_program_has_no_socket_and_sends_no_packet_while_the_uplink_delivers(
    household: Household, capture: Capture, tmp_path: Path
) -> None:
    with two_ends(tmp_path / "inner") as (inner, _), closing(Capture(inner)) as inside:
        household.inner = inner
        household.decide(YES)
        for recipient in RECIPIENTS:
            household.start_broker(recipient)
            household.start_backend(recipient)
        household.start_apart()
        household.deliver()
        assert inner.sockets() == []
        assert household.near.sockets() != []
        assert [household.end(name) for name in ("collect", "uplink")] == [0, 0]
        assert inside.fresh() == []
    packets = capture.fresh()
    assert strays(packets, named(household)) == []
    assert met(packets) == {MAKER, ADVICE}


@pytest.mark.clause("C28")
@pytest.mark.clause("C32")
def test_after_the_last_withdrawal_every_connection_closes_and_then_all_is_silent(
    household: Household, capture: Capture
) -> None:
    household.decide(YES)
    household.start_all()
    household.deliver()
    assert strays(capture.fresh(), named(household)) == []
    until_sent(capture, {MAKER, ADVICE})
    opened = {one.local for one in household.near.connections()}
    for flow in YES:
        household.assent("consent", "withdraw", flow)
    before = capture.fresh()
    wait_until(lambda: household.near.connections() == [], "none is connected", _ANSWER_S)
    after = capture.fresh()
    assert strays([*before, *after], named(household)) == []
    assert batches_to(after) == set()
    assert {packet.near for packet in [*before, *after] if packet.closes} >= opened != set()
    time.sleep(_SILENCE_S)
    assert capture.fresh() == []
    assert household.end("agent") == 0
    assert capture.fresh() == []


UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("family", "kind", "target"),
    [
        (socket.AF_INET, UDP, tuple(RESOLVER)),
        (socket.AF_INET, UDP, tuple(MAKER)),
        (socket.AF_INET, UDP, ("198.51.100.7", 123)),
        (socket.AF_INET, UDP, ("127.0.0.53", 53)),
        (socket.AF_INET, UDP, ("224.0.0.251", 5353)),
        (socket.AF_INET6, UDP, ("2001:db8::77", 443)),
        (socket.AF_INET6, UDP, ("ff02::fb", 5353, 0, 0)),
        (socket.AF_INET, TCP, (MAKER.address, 1883)),
        (socket.AF_INET, TCP, tuple(DECOY)),
        (socket.AF_INET, TCP, ("127.0.0.1", 8883)),
        (socket.AF_INET6, TCP, ("2001:db8::11", 8883)),
    ],
    ids=[
        "a question to the resolver",
        "a datagram to a broker's address and port",
        "a datagram to an address that nobody has",
        "a datagram to a resolver on the machine",
        "a datagram to a group",
        "a datagram over IPv6",
        "a datagram to a group over IPv6",
        "a connection to another port of a broker",
        "a connection to the decoy",
        "a connection on the machine",
        "a connection over IPv6",
    ],
)
def test_the_watch_finds(
    capture: Capture,
    ends: tuple[Namespace, Namespace],
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    target: tuple[str, int],
) -> None:
    with ends[0].socket(family, kind) as side_door:
        side_door.setblocking(False)
        if family == socket.AF_INET6 and target[0].startswith("ff"):
            index = int(Path(f"/proc/{ends[0].pid}/net/dev_mcast").read_text().split()[0])
            side_door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        side_door.connect_ex(target)
        if kind == UDP:
            side_door.send(b"hello")
        found = strays(capture.fresh(), {MAKER, ADVICE})
        assert Endpoint(*target[:2]) in {packet.target for packet in found if packet.is_outgoing}


def test_a_connection_to_a_broker_is_no_finding_and_ends_as_one_that_closes(
    capture: Capture, ends: tuple[Namespace, Namespace]
) -> None:
    near, far = ends
    with far.socket(socket.AF_INET, TCP) as listener, near.socket(socket.AF_INET, TCP) as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(tuple(MAKER))
        listener.listen()
        caller.connect(tuple(MAKER))
        packets = capture.fresh()
        assert len(packets) >= 3
        assert strays(packets, {MAKER}) == []
        assert not any(packet.closes for packet in packets)
    assert any(packet.closes for packet in capture.fresh())
