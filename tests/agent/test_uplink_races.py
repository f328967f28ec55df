# SPDX-License-Identifier: Apache-2.0
"""Two things at once in the uplink: a dial and a no, an event and a judgement, an end and a cut."""

from __future__ import annotations

import contextlib
import select
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent.spool import LinkState, Spool
from agent.uplink.connection import Connection
from agent.uplink.link import Link
from agent.uplink.world import World
from assent.errors import SpoolError
from demo.ports import kept_port
from tests.agent.carrying import Gateway, Impatient, carrying, payloads, scripted
from tests.agent.sealed import run_of
from tests.agent.test_fence import connections
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.stub import Refusal, Script, Stub

CONNECT = b"\x10"


class Hand:
    """A link whose turns the test makes.

    Attributes:
        woken: set when the link wants a turn.
        link: the link.

    Args:
        gateway: whose recipient it is; not started.
        wall_ms: asked by the link and by whoever dials for it.
        keepalive_s: seconds.
    """

    def __init__(
        self,
        gateway: Gateway,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        keepalive_s: int = 60,
    ) -> None:
        self.woken = threading.Event()
        self.link = Link(
            msgspec.structs.replace(gateway.target, wanted=True),
            gateway.spool,
            World(
                wall_ms=wall_ms,
                past_ms=lambda: 0,
                boot_ms=lambda: time.monotonic_ns() // 1_000_000,
                monotonic=time.monotonic,
                rng=Impatient(),
                keepalive_s=keepalive_s,
                wake=self.woken.set,
            ),
        )

    def turn(self) -> None:
        """One turn, with whatever the socket has."""
        found = self.link.socket()
        is_readable = found is not None and bool(select.select([found], [], [], 0)[0])
        self.link.turn(readable=is_readable, writable=found is not None, more=False)

    def turns_until(self, condition: Callable[[], object]) -> None:
        """Turns until something is so."""

        def so() -> object:
            self.turn()
            return condition()

        eventually(so)


@contextlib.contextmanager
def by_hand(
    directory: Path, authority: Authority, url: str, **options: object
) -> Iterator[tuple[Gateway, Hand]]:
    """A gateway with an open lane, and its link."""
    with contextlib.closing(Gateway(directory, authority, url)) as gateway:
        gateway.open_lane()
        hand = Hand(gateway, **options)  # type: ignore[arg-type]
        with contextlib.closing(hand.link):
            yield gateway, hand


# --- dialling ------------------------------------------------------------------------------------


def test_a_turn_in_the_middle_of_a_failing_dial_loses_nothing_of_it(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when the events are taken while somebody dials: the link waits for ever."""
    speaking, go_on = threading.Event(), threading.Event()

    def wall_ms() -> int:
        if threading.current_thread().name == "dial":
            speaking.set()
            assert go_on.wait(10)
        return time.time_ns() // 1_000_000

    port, keeper = kept_port()  # nobody listens there
    url = f"mqtts://localhost:{port}"
    with (
        socket.socket(fileno=keeper),
        by_hand(tmp_path / "g", authority, url, wall_ms=wall_ms) as (gateway, hand),
    ):
        hand.turn()
        assert speaking.wait(10)
        hand.turn()
        go_on.set()
        assert hand.woken.wait(10)
        hand.turn()
        assert gateway.health.state is LinkState.WAITING
        assert "refuses connections" in gateway.health.detail


class Doorman:
    """Takes one connection, does nothing until it is told to, and then says who speaks.

    Attributes:
        accepted: somebody has come.
        go_on: answers the handshake of TLS.
        said: the first byte inside TLS; empty when the other side went without one.
    """

    def __init__(self, authority: Authority) -> None:
        pair = authority.server()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.url = f"mqtts://localhost:{self._listener.getsockname()[1]}"
        self.accepted, self.go_on = threading.Event(), threading.Event()
        self.said: bytes | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Doorman:  # noqa: PYI034 - not subclassed
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._thread.join(20)
        self._listener.close()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        plain.settimeout(10)
        self.accepted.set()
        self.go_on.wait(10)
        with plain:
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    self.said = secured.recv(1)
            except OSError:
                self.said = b""


@pytest.mark.clause("C01")
@pytest.mark.parametrize("asked", [False, True], ids=["nothing asked", "control has just left"])
@pytest.mark.parametrize("withdrawn", [True, False], ids=["withdrawn", "the twin: not withdrawn"])
def test_a_flow_withdrawn_while_the_broker_is_dialled_calls_nobody(
    tmp_path: Path, authority: Authority, withdrawn: bool, asked: bool
) -> None:
    """Red when CONNECT follows the handshake in the dialling thread: it leaves after the no.

    And when an answer is waited for that a connection which has ended cannot bring any more.
    """
    with (
        Doorman(authority) as door,
        by_hand(tmp_path / "g", authority, door.url) as (_, hand),
    ):
        if asked:
            hand.link._flight.control_s = time.monotonic()  # by the connection before this one
        hand.turn()
        assert door.accepted.wait(10)
        if withdrawn:
            hand.link.target = msgspec.structs.replace(hand.link.target, wanted=False)
        door.go_on.set()
        assert hand.woken.wait(10)
        hand.turn()
        eventually(lambda: door.said is not None)
        assert door.said == (b"" if withdrawn else CONNECT)


@pytest.mark.clause("C01")
def test_a_broker_that_never_ends_the_handshake_is_let_go_with_the_flow(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without `give_up`: the line stays for the fifteen seconds a dial may take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"mqtts://localhost:{listener.getsockname()[1]}"
        with carrying(tmp_path / "g", authority, url) as gateway:
            line, _ = listener.accept()
            with line:
                line.settimeout(10)
                assert line.recv(1)  # of the hello
                gateway.spool.close_lane("service")
                began = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    while line.recv(65_536):
                        pass
                assert time.monotonic() - began < 10
            eventually(lambda: "dial" not in {one.name for one in threading.enumerate()})


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.clause("C03")
def test_an_uplink_that_stops_leaves_nothing_in_the_kernel_that_was_not_confirmed(
    tmp_path: Path, authority: Authority
) -> None:
    """Red with a polite end: what the kernel holds leaves after the uplink is gone, and whoever
    says no then is told that nothing leaves any more. The twin is `test_it_stops_politely`."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None)) as (stub, gateway):
        gateway.put(5)
        eventually(lambda: len(stub.published) == 5)
        gateway.stop()
        eventually(lambda: stub.ends)
        assert stub.ends == ["reset"]


def test_a_cut_reaches_a_connection_whose_turn_to_be_closed_has_not_come(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when the links are forgotten before they are closed: the cut finds none, says that it is
    done, and the second goes on for as long as the disk is busy."""
    quiet = Script(puback=lambda _: None)
    with (
        Stub(authority, quiet) as one,
        Stub(authority, quiet) as other,
        carrying(tmp_path / "g", authority, one.url) as gateway,
    ):
        second = msgspec.structs.replace(gateway.target, recipient="partner", broker=other.url)
        gateway.spool.set_targets([gateway.target, second])
        gateway.spool.open_lane("advice", "partner", 99, None)
        gateway.spool.put(run_of(3, flow="advice", stream=99, recipient="partner"))
        gateway.put(3)
        eventually(lambda: len(one.published) == len(other.published) == 3)
        busy = sqlite3.connect(gateway.path, isolation_level=None)
        try:
            busy.execute("BEGIN IMMEDIATE")
            gateway.end()
            eventually(lambda: one.ends or other.ends)
            assert gateway.uplink.cut()
            eventually(lambda: one.ends and other.ends, 2.0)
        finally:
            busy.execute("ROLLBACK")
            busy.close()


# --- judged too early ----------------------------------------------------------------------------


def test_a_refusal_that_comes_between_a_turn_and_a_tick_keeps_its_own_name(
    tmp_path: Path, authority: Authority
) -> None:
    """A dial that failed and was not yet noted looked like a broker that never said a word: red
    then, with "does not answer", and the broker that spoke 5 was spoken to in 3.1.1."""
    port, keeper = kept_port()
    url = f"mqtts://localhost:{port}"
    with (
        socket.socket(fileno=keeper),
        by_hand(tmp_path / "g", authority, url) as (gateway, hand),
    ):
        hand.turn()
        assert hand.woken.wait(10)
        hand.link.tick()
        hand.turn()
        assert "refuses connections" in gateway.health.detail
        with Stub(authority, listener=socket.create_server(("127.0.0.1", port))) as stub:
            hand.turns_until(lambda: stub.versions)
            hand.link.close()
            assert stub.versions == [5]


def test_a_broker_whose_answer_lies_unread_is_not_called_silent(
    tmp_path: Path, authority: Authority
) -> None:
    """We stood still, not the broker: red when the tick judges before what has come was read."""
    with (
        Stub(authority) as stub,
        by_hand(tmp_path / "g", authority, stub.url, keepalive_s=1) as (gateway, hand),
    ):
        hand.turns_until(lambda: stub.versions)
        found = hand.link.socket()
        assert found is not None
        assert select.select([found], [], [], 10)[0]
        time.sleep(3.1)  # longer than the silence a keepalive of a second allows
        hand.link.tick()
        hand.turn()
        assert gateway.health.state is LinkState.CONNECTED
        assert stub.versions == [5]


def test_a_broker_that_was_never_asked_is_not_called_silent(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when the first look after a standstill judges the silence that nobody asked into."""
    with (
        Stub(authority) as stub,
        by_hand(tmp_path / "g", authority, stub.url, keepalive_s=1) as (gateway, hand),
    ):
        hand.turns_until(lambda: 8 in stub.packets)  # the subscription, its last word
        time.sleep(0.2)
        hand.turn()
        hand.link.tick()
        time.sleep(3.1)
        hand.link.tick()
        assert gateway.health.state is LinkState.CONNECTED
        time.sleep(0.9)
        hand.turn()
        hand.link.tick()
        assert gateway.health.state is LinkState.CONNECTED
        assert stub.ends == []


def test_a_machine_that_is_slow_for_good_finds_a_silent_broker_all_the_same(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when every look that comes late is an excuse."""
    monkeypatch.setattr("agent.uplink.link._STILL_S", 0.0)
    with (
        Stub(authority, Script(pings=False)) as stub,
        by_hand(tmp_path / "g", authority, stub.url, keepalive_s=1) as (gateway, hand),
    ):
        hand.turns_until(lambda: gateway.health.state is LinkState.CONNECTED)
        time.sleep(3.1)
        hand.link.tick()
        hand.link.tick()
        assert gateway.health.state is LinkState.WAITING
        assert "fallen silent" in gateway.health.detail


def test_a_link_that_held_back_sleeps_while_it_waits_for_an_answer(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when what is due is asked for before the broker has answered: it spins till it does."""
    with scripted(tmp_path, authority, Script(puback=lambda _: 0x10)) as (stub, gateway):
        gateway.put(1)
        gateway.reaches(LinkState.HOLDING)
        may_answer = threading.Event()
        stub.script = Script(before_connack=lambda: may_answer.wait(20))
        stub.hang_up()
        eventually(lambda: len(stub.versions) == 2)
        began = time.process_time()
        time.sleep(1.0)
        took_s = time.process_time() - began
        may_answer.set()
        assert len(stub.versions) == 2
        assert took_s < 0.1, took_s
        gateway.reaches(LinkState.CONNECTED)


# --- the version ---------------------------------------------------------------------------------


def test_one_bad_connection_does_not_cost_version_5_for_good(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when the next connection begins with what the last one spoke."""
    with scripted(tmp_path, authority, Script(refusal=Refusal.HANG_UP)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        assert stub.versions == [5, 4]
        stub.script = Script()
        stub.hang_up()
        eventually(lambda: len(stub.versions) > 2)
        gateway.reaches(LinkState.CONNECTED)
        assert stub.versions == [5, 4, 5]


def test_a_broker_that_only_hangs_up_on_version_5_is_reached_by_the_other_each_time(
    tmp_path: Path, authority: Authority
) -> None:
    """The twin: one attempt more for each connection. Red when 5 is held for proven by the other:
    five attempts."""
    with scripted(tmp_path, authority, Script(refusal=Refusal.HANG_UP)) as (stub, gateway):
        for times in (1, 2, 3):
            # What it says meanwhile may be gone before anybody looks.
            eventually(lambda times=times: len(stub.versions) >= 2 * times)  # type: ignore[misc]
            gateway.reaches(LinkState.CONNECTED)
            sent = gateway.put(1)
            eventually(lambda expected=sent[0]: expected in payloads(stub))  # type: ignore[misc]
            assert stub.versions == times * [5, 4]
            stub.hang_up()


def test_a_broker_that_said_no_to_version_5_is_not_asked_again_the_same_day(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(tmp_path, authority, Script(refusal=Refusal.CONNACK_3)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        stub.hang_up()
        eventually(lambda: len(stub.versions) >= 3)
        gateway.reaches(LinkState.CONNECTED)
        assert stub.versions == [5, 4, 4]
    monkeypatch.setattr("agent.uplink.link._DAY_S", 0.0)
    (tmp_path / "later").mkdir()
    with scripted(tmp_path / "later", authority, Script(refusal=Refusal.CONNACK_3)) as (stub, _):
        eventually(lambda: stub.versions == [5, 4])
        stub.script = Script()
        eventually(lambda: stub._client)
        stub.hang_up()
        eventually(lambda: len(stub.versions) >= 3)
        assert stub.versions == [5, 4, 5]


def test_a_broker_that_refuses_us_in_version_5_speaks_it(
    tmp_path: Path, authority: Authority
) -> None:
    """A gateway that waits to be admitted: red when every refusal has the version changed."""
    with scripted(tmp_path, authority, Script(connack_reason=0x87)) as (stub, gateway):
        eventually(lambda: len(stub.versions) >= 6)
        stub.script = Script()
        gateway.reaches(LinkState.CONNECTED)
        assert set(stub.versions) == {5}


def is_open(port: int) -> bool:
    """Whether the other side of a connection to this port has not ended it: 01 is ESTABLISHED."""
    return any(remote == port and state == "01" for _, remote, state, *_ in connections())


def test_a_certificate_that_is_refused_says_nothing_of_the_version(
    tmp_path: Path, authority: Authority
) -> None:
    """TLS 1.3 refuses it after the handshake: red when that counts as an answer to version 5, and
    when the write that fails hides the alert that came before."""
    strangers = Authority(tmp_path / "strangers")
    with (
        Stub(authority) as stub,
        by_hand(tmp_path / "g", authority, stub.url) as (gateway, hand),
    ):
        mine = [Path(gateway.target.cert_path), Path(gateway.target.key_path)]
        good = [path.read_bytes() for path in mine]
        for path, other in zip(mine, strangers.client(gateway.mailbox), strict=True):
            path.write_bytes(other.read_bytes())
        hand.turn()
        assert hand.woken.wait(10)
        eventually(lambda: not is_open(stub.port))  # the alert is here, and the end after it
        hand.turns_until(lambda: gateway.health.state is LinkState.WAITING)
        assert "does not take our certificate" in gateway.health.detail
        for path, data in zip(mine, good, strict=True):
            path.write_bytes(data)
        hand.turns_until(lambda: gateway.health.state is LinkState.CONNECTED)
        assert stub.versions == [5]


# --- what nobody confirmed -----------------------------------------------------------------------


def test_what_the_broker_hung_up_on_is_kept_where_its_puback_would_have_been_enough(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when a postponed message is noted as delivered: it is deleted, and no gap tells."""
    script = Script(refusal=Refusal.CONNACK_3, hang_up_over=1_000)
    with Stub(authority, script) as stub:
        gateway = Gateway(tmp_path / "g", authority, stub.url)
        gateway.spool.set_targets([msgspec.structs.replace(gateway.target, briefly=True)])
        gateway.open_lane()
        small = gateway.put(3)
        large = gateway.put(1, size=1_001)
        gateway.start()
        with contextlib.closing(gateway):
            eventually(lambda: gateway.counted("postponed") == 1)
            eventually(lambda: gateway.counted("delivered") >= 3)
            gateway.reaches(LinkState.CONNECTED)
            assert set(small) <= set(payloads(stub))
            assert gateway.spool.waiting()["service"].batches == 1
            assert [one.confirmed for one in gateway.spool.sent(9)].count(False) == 1
            stub.script = Script(refusal=Refusal.CONNACK_3)
            before = payloads(stub).count(large[0])
            gateway.ahead_ms = 16 * 60_000
            gateway.spool.put_control("maker", b"anything that wakes it")
            eventually(lambda: gateway.spool.waiting()["service"].batches == 0)
            assert payloads(stub).count(large[0]) == before + 1
            assert all(one.confirmed for one in gateway.spool.sent(9))


def test_what_was_leased_and_not_published_is_not_held_for_ever(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when an error of ours in the middle of a window leaves the rest of it leased."""
    whole, calls = Connection.publish, []

    def broken(self: Connection, data: bytes) -> int | None:
        calls.append(data)
        if len(calls) == 4:
            raise ZeroDivisionError
        return whole(self, data)

    monkeypatch.setattr(Connection, "publish", broken)
    with scripted(tmp_path, authority, Script()) as (stub, gateway):
        sent = gateway.put(10)
        eventually(lambda: set(sent) <= set(payloads(stub)))
        eventually(lambda: gateway.counted("delivered") >= 10)
        assert len(stub.versions) == 2


def test_a_message_that_alone_is_never_confirmed_is_sent_again(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when patience begins anew with each of the others: it waits for as long as they come."""
    monkeypatch.setattr("agent.uplink.link._LONGEST_S", 1.0)
    script = Script(puback=lambda number: None if number == 1 else 0)
    with scripted(tmp_path, authority, script) as (stub, gateway):
        first = gateway.put(1)[0]
        eventually(lambda: payloads(stub) == [first])
        gateway.put(5)
        eventually(lambda: gateway.counted("delivered") >= 5)
        eventually(lambda: gateway.counted("delivered") == 6)
        assert payloads(stub).count(first) == 2


def test_the_answer_to_control_is_waited_for_from_its_puback_on(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow line: red when the wait begins with the sending, and is over when the PUBACK comes."""
    monkeypatch.setattr("agent.uplink.link._ANSWER_S", 1.5)
    monkeypatch.setattr("agent.uplink._TICK_S", 0.1)

    def slowly(_number: int) -> int:
        time.sleep(1.7)
        return 0

    with Stub(authority, Script(puback=slowly)) as stub:
        gateway = Gateway(tmp_path / "g", authority, stub.url)
        gateway.spool.put_control("maker", b"request")
        gateway.start()
        with contextlib.closing(gateway):
            eventually(lambda: gateway.counted("delivered"))
            time.sleep(0.3)  # some looks, of which none may end the wait
            stub.send(gateway.mailbox, b"answer", 1)
            (taken,) = eventually(lambda: gateway.spool.take_inbox(1))
            assert taken.data == b"answer"
            monkeypatch.setattr("agent.uplink.link._ANSWER_S", 0.0)
            gateway.reaches(LinkState.IDLE)
            assert len(stub.versions) == 1


def test_an_inbox_that_the_disk_refuses_is_told_once_and_once_that_it_takes_again(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Red with a line for each look: a disk that is full for a day fills the journal, too."""

    def full(*_: object) -> bool:
        raise SpoolError("the disk is full")

    caplog.set_level("INFO")
    with scripted(tmp_path, authority, Script()) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "receive", full)
            stub.send(gateway.mailbox, b"answer", 1)
            eventually(lambda: gateway.counted("inbound held"))
            for _ in range(3):
                gateway.put(1)
                eventually(lambda: gateway.counted("delivered") == len(gateway.sent))
        eventually(lambda: stub.pubacks == [1])
    told = [one.message for one in caplog.records if one.message.startswith("inbox")]
    assert told == [
        "inbox refused recipient=maker why='the disk is full'",
        "inbox takes again recipient=maker",
    ]


def test_a_link_that_fails_while_it_is_closed_is_not_taken_up_again(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when it stays known: it leases by a spool that nobody asks any more what must stop."""
    struck: list[str] = []
    kept, ended = Spool.delivered, Link.close

    def full(self: Spool, *args: object) -> None:
        if not struck:
            struck.append("delivered")
            raise SpoolError("the disk is full")
        kept(self, *args)  # type: ignore[arg-type]

    def broken(self: Link) -> None:
        ended(self)
        if len(struck) == 1:
            struck.append("close")
            raise ZeroDivisionError

    monkeypatch.setattr(Spool, "delivered", full)
    monkeypatch.setattr(Link, "close", broken)
    with scripted(tmp_path, authority, Script()) as (stub, gateway):
        gateway.spool.open_lane("advice", "maker", 99, None)  # the link stays wanted
        gateway.put(3)
        eventually(lambda: len(struck) == 2)
        eventually(lambda: gateway.counted("delivered") >= 3)
        stub.script.puback = lambda _: None
        withdrawn = gateway.put(3)
        eventually(lambda: set(withdrawn) <= set(payloads(stub)))
        before, connections = len(stub.ends), len(stub.versions)
        gateway.spool.close_lane("service")
        eventually(lambda: stub.ends[before:])
        assert stub.ends[before:] == ["reset"]
        eventually(lambda: len(stub.versions) > connections)  # or the stub's handshake is cut
