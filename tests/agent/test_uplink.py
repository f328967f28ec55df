# SPDX-License-Identifier: Apache-2.0
"""The uplink against a broker made of a script: what a real one does rarely, on demand."""

from __future__ import annotations

import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.spool import LinkState, Spool
from agent.spool.mail import INBOX_MESSAGES
from agent.uplink.client import LARGEST_PACKET
from agent.uplink.flight import Flight
from agent.uplink.protocol import WINDOW
from assent.errors import SpoolError
from assent.wire import MAX_MESSAGE
from tests.agent.carrying import Gateway, carrying, payloads, scripted
from tests.agent.sealed import NOW, run_of
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.stub import Refusal, Script, Stub


@pytest.fixture
def stub(authority: Authority) -> Iterator[Stub]:
    with Stub(authority) as broker:
        yield broker


@pytest.fixture
def gateway(tmp_path: Path, authority: Authority, stub: Stub) -> Iterator[Gateway]:
    with carrying(tmp_path / "gateway", authority, stub.url) as running:
        yield running


# --- whether to be connected at all --------------------------------------------------------------


class Door:
    """A listening socket that counts who comes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.02)
        self.came = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.count)
        self.thread.start()

    def count(self) -> None:
        while not self.stop.is_set():
            try:
                self.listener.accept()[0].close()
                self.came += 1
            except TimeoutError:
                pass

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.listener.close()


@pytest.mark.clause("C01")
@pytest.mark.parametrize(
    ("wish", "comes"),
    [
        ("nothing", False),
        ("a closed lane", False),
        ("a paused lane", False),
        ("a lane that has ended", False),
        ("a lane that ended by the floor, on a clock that was set back", False),
        ("an open lane", True),
        ("control", True),
        ("a courtesy beside a lane that has ended", False),
    ],
)
def test_it_connects_only_while_a_lane_is_open_or_control_waits_that_was_asked_for(
    tmp_path: Path, authority: Authority, wish: str, comes: bool
) -> None:
    door = Door()
    gateway = Gateway(
        tmp_path / "g", authority, f"mqtts://localhost:{door.listener.getsockname()[1]}"
    )
    try:
        if wish not in {"nothing", "control"}:
            end = NOW - 10**12 if wish.endswith("a lane that has ended") else None
            gateway.spool.open_lane("service", "maker", 7, end)
        if wish == "a courtesy beside a lane that has ended":
            gateway.spool.put_control("maker", b"status", courtesy=True)
        if "floor" in wish:
            boot_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
            gateway.spool.open_lane("service", "maker", 7, 2 * NOW)
            gateway.spool.set_floor(2 * NOW - 1_000, boot_ms - 5_000)
        if wish == "a closed lane":
            gateway.spool.close_lane("service")
        if wish == "a paused lane":
            gateway.spool.pause_lane("service")
        if wish == "control":
            gateway.spool.put_control("maker", b"status")
        gateway.start()
        if comes:
            eventually(lambda: door.came)
        else:
            eventually(lambda: "maker" in gateway.spool.health())  # it has looked
            assert gateway.health.state is LinkState.IDLE
            time.sleep(0.5)  # five looks at the spool: nothing may come of them
            assert door.came == 0
    finally:
        gateway.close()
        door.close()


def test_it_leaves_when_the_last_lane_closes_and_returns_when_one_opens(
    gateway: Gateway, stub: Stub
) -> None:
    gateway.reaches(LinkState.CONNECTED)
    gateway.spool.close_lane("service")
    gateway.reaches(LinkState.IDLE)
    eventually(lambda: stub.ends == ["disconnect"])
    gateway.open_lane(8)
    gateway.reaches(LinkState.CONNECTED)
    assert len(stub.versions) == 2


def test_after_control_it_stays_for_the_answer(
    tmp_path: Path, authority: Authority, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.uplink.link._ANSWER_S", 1.0)
    gateway = Gateway(tmp_path / "g", authority, stub.url)
    gateway.spool.put_control("maker", b"request")
    gateway.start()
    try:
        assert eventually(lambda: payloads(stub) == [b"request"])
        stub.send(gateway.mailbox, b"answer", 1)
        assert eventually(lambda: gateway.spool.take_inbox(1))
        gateway.reaches(LinkState.IDLE)
        assert eventually(lambda: stub.ends == ["disconnect"])
    finally:
        gateway.close()


def test_it_stops_politely(gateway: Gateway, stub: Stub) -> None:
    gateway.reaches(LinkState.CONNECTED)
    gateway.stop()
    assert eventually(lambda: stub.ends == ["disconnect"])


# --- traps that clients of MQTT fall into ---------------------------------------------------------


def test_trap_2_nothing_is_published_before_the_broker_has_answered(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when `Link.turn` sends without asking `_answered`: the socket takes it all."""
    may_answer = threading.Event()
    script = Script(before_connack=lambda: may_answer.wait(20))
    with scripted(tmp_path, authority, script) as (stub, gateway):
        sent = gateway.put(30)
        eventually(lambda: stub.versions)
        time.sleep(0.3)
        assert gateway.counted("published") == 0
        may_answer.set()
        eventually(lambda: len(payloads(stub)) == 30)
        assert payloads(stub) == sent
        assert stub.packets[0] == 1


@pytest.mark.parametrize(
    ("announced", "flying"),
    [(3, 3), (1, 1), (None, WINDOW), (65_535, WINDOW)],
    ids=["three", "one", "nothing", "more than we would"],
)
def test_trap_3_no_more_is_in_flight_than_the_broker_takes(
    tmp_path: Path, authority: Authority, announced: int | None, flying: int
) -> None:
    """Red with a fixed window of 20 (three, one), and with none at all (the other two)."""
    script = Script(receive_maximum=announced, puback=lambda _: None)
    with scripted(tmp_path, authority, script) as (stub, gateway):
        gateway.put(60)
        eventually(lambda: len(stub.published) == flying)
        time.sleep(0.3)
        assert len(stub.published) == flying
        assert gateway.counted("published") == flying


def test_trap_4_an_oversize_message_is_set_aside_and_the_others_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without `_without_too_large`: a real broker throws us out, again and again."""
    with scripted(tmp_path, authority, Script(maximum_packet=1_000)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        small = gateway.put(3)
        large = gateway.put(2, size=1_000)
        small += gateway.put(3)
        eventually(lambda: payloads(stub) == small)
        assert gateway.spool.waiting()["service"].too_large == 2
        assert gateway.counted("too large") == 2
        assert stub.ends == []
        # What has no PUBACK yet when the uplink stops is sent again, before the large ones.
        eventually(lambda: gateway.counted("delivered") == 6)
        gateway.stop()
        stub.script = Script(maximum_packet=2_000)  # the broker's owner raised the limit
        gateway.start()
        eventually(lambda: payloads(stub) == small + large)


@pytest.mark.parametrize(
    ("reason", "words"),
    [(0x10, "no backend is subscribed"), (0x87, "does not take"), (0x97, "does not take")],
    ids=["no matching subscribers", "not authorised", "quota exceeded"],
)
def test_trap_5_a_puback_that_is_no_success_delivers_nothing_and_starts_no_storm(
    tmp_path: Path, authority: Authority, reason: int, words: str
) -> None:
    """Red when `judge` calls 0x10 a success: the batch is waited for 15 minutes. Red without the
    hold: thousands are sent."""
    with scripted(tmp_path, authority, Script(puback=lambda _: reason)) as (stub, gateway):
        sent = gateway.put(50)
        gateway.reaches(LinkState.HOLDING, words)
        time.sleep(0.5)
        assert gateway.counted("delivered") == 0
        assert len(stub.published) < WINDOW + 10
        stub.script.puback = lambda _: 0
        eventually(lambda: set(payloads(stub)) == set(sent))
        eventually(lambda: gateway.counted("delivered") == 50)
        gateway.reaches(LinkState.CONNECTED)
        assert len(stub.versions) == 1


def test_trap_6_an_exception_of_ours_ends_a_connection_and_not_the_uplink(
    gateway: Gateway,
    stub: Stub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Red without the guard around a link's turn: the thread ends, and nobody hears of it."""
    gateway.reaches(LinkState.CONNECTED)
    whole = Flight.confirmed
    struck = []

    def broken(self: Flight, *args: object) -> None:
        if not struck:
            struck.append(1)
            raise ZeroDivisionError
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Flight, "confirmed", broken)
    sent = gateway.put(40)
    eventually(lambda: set(payloads(stub)) == set(sent))
    eventually(lambda: gateway.counted("delivered") == 40)
    assert struck
    assert len(stub.versions) == 2
    assert "link failed recipient=maker" in caplog.text


def test_trap_9_a_new_connection_sends_only_what_the_spool_gives_it(
    tmp_path: Path, authority: Authority
) -> None:
    """Red when a client outlives its connection: what waited in it is sent again, first of all what
    was withdrawn meanwhile."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None)) as (stub, gateway):
        withdrawn = gateway.put(10)
        eventually(lambda: len(stub.published) == 10)
        gateway.spool.close_lane("service")
        stub.script.puback = lambda _: 0
        gateway.open_lane(8)
        kept = gateway.put(10)
        eventually(lambda: payloads(stub)[10:] == kept)
        eventually(lambda: gateway.counted("delivered") == 10)
        assert not set(payloads(stub)[10:]) & set(withdrawn)
        assert not any(duplicate for _, duplicate in stub.published)


def test_what_nobody_acknowledged_is_sent_again_when_due_and_in_no_storm(
    gateway: Gateway, stub: Stub
) -> None:
    """Red without the pace: all hundred at once, and so for every gateway of a fleet."""
    sent = gateway.put(100)
    eventually(lambda: gateway.counted("delivered") == 100)
    time.sleep(1.2)  # a tick and more: nothing is due
    assert len(stub.published) == 100
    gateway.ahead_ms = 16 * 60_000
    began = time.monotonic()
    eventually(lambda: len(stub.published) > 100)
    fresh = gateway.put(5)
    eventually(lambda: set(fresh) <= set(payloads(stub)))
    eventually(lambda: len(stub.published) >= 125 + 5)
    most = 20 + 10 * (time.monotonic() - began + 1)
    assert len(stub.published) - 105 <= most
    assert set(payloads(stub)[100:]) <= set(sent + fresh)


# --- withdrawal ----------------------------------------------------------------------------------


@pytest.mark.clause("C03")
@pytest.mark.clause("C28")
def test_a_closed_lane_cuts_the_connection_that_still_holds_its_messages(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without SO_LINGER 0 (the end is a polite close) and without `revoked` (no end at all)."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None)) as (stub, gateway):
        gateway.put(50)
        eventually(lambda: len(stub.published) == WINDOW)
        began = time.monotonic()
        gateway.spool.close_lane("service")
        fence = gateway.spool.fence()
        eventually(lambda: gateway.spool.fence_passed(fence), 2.0)
        took_s = time.monotonic() - began
        eventually(lambda: stub.ends)
        assert stub.ends == ["reset"]
        time.sleep(0.3)
        assert len(stub.published) == WINDOW  # and nothing after
        assert took_s < 1.0, took_s


@pytest.mark.clause("C03")
def test_a_closed_lane_takes_its_messages_out_of_a_connection_that_goes_on(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without `revoked`: the connection stays, and a message of the flow may still leave."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None)) as (stub, gateway):
        gateway.spool.open_lane("advice", "maker", 99, None)
        kept = run_of(6, flow="advice", stream=99)
        gateway.spool.put(kept)
        withdrawn = gateway.put(6)
        eventually(lambda: len(stub.published) == 12)
        gateway.spool.close_lane("service")
        stub.script.puback = lambda _: 0
        eventually(lambda: stub.ends == ["reset"])
        eventually(lambda: gateway.counted("delivered") == 6)
        again = payloads(stub)[12:]
        assert set(again) == {batch.data for batch in kept}
        assert not set(again) & set(withdrawn)


def test_the_fence_is_answered_though_nothing_is_connected(
    tmp_path: Path, authority: Authority
) -> None:
    gateway = Gateway(tmp_path / "g", authority, "mqtts://localhost:1")
    gateway.open_lane()
    gateway.spool.close_lane("service")
    gateway.start()
    try:
        assert eventually(lambda: gateway.spool.fence_passed(gateway.spool.fence()))
    finally:
        gateway.close()


# --- inbound -------------------------------------------------------------------------------------


def test_an_inbound_message_is_in_the_inbox_before_its_puback(gateway: Gateway, stub: Stub) -> None:
    """Red with an acknowledgement that goes out as soon as the message is read, stored or
    not: the disk that refuses is the difference."""
    gateway.reaches(LinkState.CONNECTED)
    there: list[list[bytes]] = []
    reader = Spool.open(gateway.path, create=False)
    reader._db.close()

    def look(_mid: int) -> None:
        mine = Spool.open(gateway.path, create=False)
        there.append([one.data for one in mine.take_inbox(9)])
        mine.close()

    stub.on_puback = look
    stub.send(gateway.mailbox, b"acknowledgement", 11)
    eventually(lambda: stub.pubacks == [11])
    assert there == [[b"acknowledgement"]]


def test_a_message_the_disk_refuses_is_not_acknowledged(
    gateway: Gateway, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.reaches(LinkState.CONNECTED)
    with monkeypatch.context() as patch:
        patch.setattr("agent.spool.carrier.INBOX_BYTES", 3)
        stub.send(gateway.mailbox, b"four", 11)
        eventually(lambda: gateway.counted("inbound held"))
        time.sleep(0.2)
        assert stub.pubacks == []
        assert stub.ends == []
    gateway.spool.put_control("maker", b"anything that wakes it")
    eventually(lambda: stub.pubacks == [11])
    assert [one.data for one in gateway.spool.take_inbox(9)] == [b"four"]


def test_a_full_inbox_leaves_the_rest_with_the_broker_until_there_is_room(
    gateway: Gateway, stub: Stub
) -> None:
    gateway.reaches(LinkState.CONNECTED)
    for number in range(INBOX_MESSAGES + 5):
        stub.send(gateway.mailbox, b"%d" % number, number + 1)
    eventually(lambda: gateway.counted("inbound held") == 5)
    eventually(lambda: len(stub.pubacks) >= INBOX_MESSAGES)
    assert len(stub.pubacks) == INBOX_MESSAGES
    first = gateway.spool.take_inbox(INBOX_MESSAGES)
    gateway.spool.drop_inbox([one.id for one in first])
    eventually(lambda: len(stub.pubacks) == INBOX_MESSAGES + 5)
    rest = gateway.spool.take_inbox(INBOX_MESSAGES)
    assert [one.data for one in first + rest] == [
        b"%d" % number for number in range(INBOX_MESSAGES + 5)
    ]


def test_an_inbound_message_no_one_may_send_is_dropped_counted_and_does_not_come_again(
    gateway: Gateway, stub: Stub
) -> None:
    gateway.reaches(LinkState.CONNECTED)
    stub.send(gateway.mailbox, bytes(MAX_MESSAGE + 1), 1)
    stub.send(gateway.mailbox, bytes(MAX_MESSAGE), 2)
    eventually(lambda: stub.pubacks == [1, 2])
    assert gateway.counted("inbound dropped") == 1
    assert [len(one.data) for one in gateway.spool.take_inbox(9)] == [MAX_MESSAGE]


@pytest.mark.parametrize("refusal", [None, Refusal.CONNACK_3], ids=["5", "3.1.1"])
def test_a_packet_larger_than_announced_is_not_gathered_in_memory(
    tmp_path: Path, authority: Authority, refusal: Refusal | None
) -> None:
    """Red without `TooLargeError` in `packets`: what the broker likes to send is gathered."""
    with scripted(tmp_path, authority, Script(refusal=refusal)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        connections = len(stub.versions)
        tracemalloc.start()
        try:
            taken = stub.promise(200_000_000, 30_000_000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken < 30_000_000
        assert peak < 5_000_000
        eventually(lambda: len(stub.versions) > connections)  # after a wait, as after any failure
        sent = gateway.put(3)
        eventually(lambda: payloads(stub) == sent)


def test_the_largest_packet_we_announced_is_read(gateway: Gateway, stub: Stub) -> None:
    gateway.reaches(LinkState.CONNECTED)
    more = 2 + len(f"assent/1/{gateway.mailbox}/down") + 2 + 1
    stub.send(gateway.mailbox, bytes(LARGEST_PACKET - more), 1)
    eventually(lambda: stub.pubacks == [1])
    assert stub.ends == []


# --- brokers that only speak 3.1.1 ---------------------------------------------------------------


@pytest.mark.parametrize("refusal", list(Refusal), ids=lambda refusal: refusal.value)
def test_a_broker_without_version_5_gets_3_1_1(
    tmp_path: Path, authority: Authority, refusal: Refusal
) -> None:
    with scripted(tmp_path, authority, Script(refusal=refusal)) as (stub, gateway):
        sent = gateway.put(50)
        eventually(lambda: payloads(stub) == sent)
        assert stub.versions == [5, 4]
        stub.send(gateway.mailbox, b"down", 3)
        eventually(lambda: stub.pubacks == [3])
        assert gateway.spool.take_inbox(1)[0].data == b"down"


def test_on_3_1_1_a_message_the_broker_hangs_up_on_is_postponed_and_the_others_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without `suspect`: the same window is sent and lost for ever."""
    with scripted(tmp_path, authority, Script(refusal=Refusal.CONNACK_3, hang_up_over=1_000)) as (
        stub,
        gateway,
    ):
        small = gateway.put(8)
        gateway.put(1, size=1_001)
        small += gateway.put(30)
        eventually(lambda: set(small) <= set(payloads(stub)))
        eventually(lambda: gateway.counted("postponed") == 1)
        eventually(lambda: gateway.counted("delivered") >= len(small))
        assert gateway.spool.waiting()["service"].batches == 39
        time.sleep(0.2)
        ends = len(stub.ends)
        assert ends < 10
        more = gateway.put(5)
        eventually(lambda: set(more) <= set(payloads(stub)))
        assert len(stub.ends) == ends


def test_a_broker_of_version_5_that_hangs_up_without_a_word_gets_the_others_all_the_same(
    tmp_path: Path, authority: Authority
) -> None:
    """MQTT 5.0 §4.13.1: it may say why, and need not. Red where that is asked of 3.1.1 alone."""
    with scripted(tmp_path, authority, Script(hang_up_over=1_000)) as (stub, gateway):
        gateway.rng.uniform = lambda a, b: min(b, 0.02)  # type: ignore[method-assign]
        small = gateway.put(8)
        gateway.put(1, size=1_001)
        small += gateway.put(30)
        eventually(lambda: gateway.counted("postponed") == 1)
        eventually(lambda: gateway.counted("delivered") >= len(small))
        assert set(small) <= set(payloads(stub))
        assert gateway.spool.waiting()["service"].batches == 39
        assert set(stub.versions) == {5}
        assert len(stub.ends) >= 12  # a line that is cut a few times postpones nothing


# --- brokers that are ill ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", [0x87, 0x88, 0x97], ids=["not authorised", "unavailable", "quota"]
)
def test_a_broker_that_refuses_us_is_asked_again_with_growing_waits(
    tmp_path: Path, authority: Authority, reason: int
) -> None:
    with scripted(tmp_path, authority, Script(connack_reason=reason)) as (stub, gateway):
        sent = gateway.put(3)
        gateway.reaches(LinkState.WAITING, "refuses us")
        eventually(lambda: len(stub.versions) >= 3)
        assert stub.published == []
        stub.script = Script()
        eventually(lambda: payloads(stub) == sent)


def test_a_broker_that_confirms_nothing_is_left(tmp_path: Path, authority: Authority) -> None:
    """It answers pings, so that the keepalive does not tell."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None), keepalive_s=1) as (
        stub,
        gateway,
    ):
        sent = gateway.put(3)
        gateway.reaches(LinkState.WAITING, "confirms nothing")
        stub.script = Script()
        eventually(lambda: gateway.counted("delivered") == 3)
        assert payloads(stub)[-3:] == sent


def test_a_broker_that_never_answers_is_left(tmp_path: Path, authority: Authority) -> None:
    may_end = threading.Event()
    script = Script(before_connack=lambda: may_end.wait(30))
    with scripted(tmp_path, authority, script, keepalive_s=1) as (stub, gateway):
        gateway.put(1)
        try:
            gateway.reaches(LinkState.WAITING, "does not answer")
            assert stub.published == []
        finally:
            may_end.set()


def test_one_broker_that_hangs_does_not_stop_another(
    tmp_path: Path, authority: Authority, stub: Stub
) -> None:
    """Red when dialling happens in the uplink's own thread."""
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    try:
        with carrying(tmp_path / "g", authority, stub.url) as gateway:
            deaf = msgspec.structs.replace(
                gateway.target,
                recipient="deaf",
                broker=f"mqtts://localhost:{silent.getsockname()[1]}",
            )
            gateway.spool.set_targets([gateway.target, deaf])
            gateway.spool.open_lane("advice", "deaf", 99, None)
            eventually(lambda: "deaf" in gateway.spool.health())
            began = time.monotonic()
            sent = gateway.put(20)
            eventually(lambda: payloads(stub) == sent)
            assert time.monotonic() - began < 5
    finally:
        silent.close()


# --- the spool under it --------------------------------------------------------------------------


def test_it_waits_for_a_spool_that_is_not_there_and_finds_one_that_was_replaced(
    tmp_path: Path, authority: Authority, stub: Stub
) -> None:
    gateway = Gateway(tmp_path / "g", authority, stub.url)
    gateway.spool.close()
    for entry in gateway.path.parent.glob("spool.db*"):
        entry.unlink()
    gateway.start()
    try:
        for stream in (1, 2):  # made, then moved aside and made anew
            gateway.spool = Spool.open(gateway.path)
            gateway.spool.set_targets([gateway.target])
            gateway.open_lane(stream)
            sent = gateway.put(5)
            assert eventually(lambda sent=sent: set(sent) <= set(payloads(stub)))
            gateway.spool.close()
            gateway.path.rename(gateway.path.with_name(f"aside-{stream}"))
        gateway.spool = Spool.open(gateway.path)
    finally:
        gateway.close()


def test_a_disk_that_stays_full_does_not_make_it_send_the_same_again_and_again(
    gateway: Gateway, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SpoolError("the disk is full")

    gateway.reaches(LinkState.CONNECTED)
    gateway.rng.uniform = lambda a, b: b  # type: ignore[method-assign]
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "delivered", full)
        sent = gateway.put(5)
        eventually(lambda: set(payloads(stub)) == set(sent))
        time.sleep(1.5)
        assert len(stub.versions) <= 3
    eventually(lambda: gateway.counted("delivered") == 5)


# --- what it says --------------------------------------------------------------------------------


def test_its_health_names_the_broker_and_says_that_it_has_stopped(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without `_STOPPED`: status shows the last words of a process that is gone."""
    with scripted(tmp_path, authority, Script(connack_reason=0x87)) as (stub, gateway):
        refused = gateway.reaches(LinkState.WAITING, "refuses us")
        assert refused.detail == f"localhost:{stub.port}: the broker refuses us"
        gateway.stop()
        assert gateway.health.state is LinkState.IDLE
        assert gateway.health.detail == "the uplink has stopped"
        stub.script = Script()
        gateway.start()
        gateway.reaches(LinkState.CONNECTED)


def test_its_log_names_no_mailbox_no_address_and_no_byte_of_a_message(
    tmp_path: Path, authority: Authority, stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with carrying(tmp_path / "g", authority, stub.url) as gateway:
        sent = gateway.put(5)
        eventually(lambda: payloads(stub) == sent)
        stub.send(gateway.mailbox, b"canary-from-the-backend", 1)
        eventually(lambda: stub.pubacks)
        gateway.put(1, size=MAX_MESSAGE + 1)
    text = caplog.text
    assert "connected recipient=maker version=5 window=20" in text  # it does say something
    for canary in (
        gateway.mailbox,
        str(stub.port),
        "127.0.0.1",
        "canary-from-the-backend",
        sent[0].hex()[:16],
        str(tmp_path),
    ):
        assert canary not in text
