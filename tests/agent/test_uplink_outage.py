# SPDX-License-Identifier: Apache-2.0
"""The uplink after an outage, and beside brokers that say how they want to be treated."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from agent.spool import LinkState
from agent.spool.order import RECALL_MS
from agent.uplink.protocol import WINDOW
from assent.messages import StreamAck
from tests.agent.carrying import Gateway, carrying, payloads, scripted
from tests.simulators.broker import running
from tests.simulators.certificates import DAY, Authority
from tests.simulators.conditions import eventually
from tests.simulators.proxy import Fault, Proxy
from tests.simulators.stub import Refusal, Script, Stub
from tests.simulators.subscriber import listening

PINGREQ = 12


# --- a broker that lost what it took -------------------------------------------------------------


@pytest.mark.parametrize("refusal", [None, Refusal.CONNACK_3], ids=["5", "3.1.1"])
@pytest.mark.parametrize("kept", [False, True], ids=["session lost", "session kept"])
def test_what_was_taken_comes_again_after_a_lost_session_and_only_then(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal | None,
    kept: bool,
) -> None:
    """Red without `recall`: it comes after 15 minutes. The twin: a reconnect alone resends nothing."""
    monkeypatch.setattr("agent.uplink._TICK_S", 0.1)
    script = Script(refusal=refusal, keeps_sessions=kept)
    with scripted(tmp_path, authority, script) as (stub, gateway):
        sent = gateway.put(5)
        eventually(lambda: gateway.counted("delivered") == 5)
        connections = len(stub.versions)
        stub.hang_up()
        eventually(lambda: len(stub.versions) > connections)
        more = gateway.put(3)
        eventually(lambda: gateway.counted("delivered") == 8)
        gateway.ahead_ms = RECALL_MS + 1_000
        last = gateway.put(1)
        eventually(lambda: gateway.counted("delivered") >= (9 if kept else 14))
        time.sleep(0.3)  # some looks: nothing else is due
        expected = Counter([*sent, *more, *last])
        assert Counter(payloads(stub)) == (expected if kept else expected + Counter(sent))


@pytest.mark.journey
@pytest.mark.parametrize("lost", [True, False], ids=["with its store", "and keeps its store"])
def test_a_broker_that_is_killed_gives_way_to_what_it_lost(
    tmp_path: Path, authority: Authority, lost: bool
) -> None:
    """A real mosquitto, killed after it confirmed everything, while no backend was connected."""
    with running(tmp_path / "broker", authority) as broker:
        with listening(broker.port, authority):
            pass  # the broker keeps for it what comes meanwhile
        with carrying(tmp_path / "g", authority, broker.url) as gateway:
            sent = gateway.put(30)
            eventually(lambda: gateway.counted("delivered") == 30)
            if lost:
                broker.kill()
                shutil.rmtree(tmp_path / "broker" / "mosquitto.db", ignore_errors=True)
            else:
                broker.stop()
            gateway.reaches(LinkState.WAITING)
            broker.start()
            with listening(broker.port, authority) as backend:
                gateway.reaches(LinkState.CONNECTED)
                gateway.ahead_ms = RECALL_MS + 1_000
                eventually(lambda: set(sent) <= set(backend.payloads))
                last = gateway.put(1)
                eventually(lambda: set(last) <= set(backend.payloads))
                assert Counter(backend.payloads) == Counter([*sent, *last])
                eventually(lambda: gateway.counted("delivered") == (61 if lost else 31))


# --- a drain that is paced -----------------------------------------------------------------------


def test_a_week_of_arrears_leaves_room_and_makes_no_storm(
    tmp_path: Path, authority: Authority
) -> None:
    """Red without the pace: all 200 at once; red without the mark: the new ones come last."""
    with Stub(authority) as stub:
        gateway = Gateway(tmp_path / "g", authority, stub.url)
        gateway.open_lane()
        old = gateway.put(200)
        began = time.monotonic()
        gateway.start()
        try:
            gateway.reaches(LinkState.CONNECTED)
            eventually(lambda: len(stub.published) >= 40)
            new = gateway.put(40)
            before = len(stub.published)
            eventually(lambda: len(stub.published) == 240)
            took_s = time.monotonic() - began
            came = payloads(stub)
            overtaken = [one for one in came[before : came.index(new[-1])] if one not in set(new)]
            assert len(overtaken) < 3 * WINDOW, len(overtaken)
            assert 2 * WINDOW + 100 * took_s >= 200, took_s
            assert [one for one in came if one in set(old)] == old
        finally:
            gateway.close()


def test_what_is_new_is_not_paced(tmp_path: Path, authority: Authority) -> None:
    """The twin: as many that came after the connection."""
    with scripted(tmp_path, authority, Script()) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        began = time.monotonic()
        gateway.put(400)
        eventually(lambda: len(stub.published) == 400)
        took_s = time.monotonic() - began
        assert 2 * WINDOW + 100 * took_s < 400, took_s


def test_few_large_messages_are_on_their_way_at_once(tmp_path: Path, authority: Authority) -> None:
    """Red without the bound of bytes: twenty, which is 2 MB of memory and of a lost connection."""
    with scripted(tmp_path, authority, Script(puback=lambda _: None)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        gateway.put(30, size=100_000)
        eventually(lambda: stub.published)
        time.sleep(0.5)
        assert gateway.counted("published") == len(stub.published) == 1
    (tmp_path / "twin").mkdir()
    with scripted(tmp_path / "twin", authority, Script(puback=lambda _: None)) as (stub, gateway):
        gateway.reaches(LinkState.CONNECTED)
        gateway.put(30, size=6_000)
        eventually(lambda: len(stub.published) == WINDOW)


@pytest.mark.journey
def test_large_messages_pass_a_line_that_is_slow(tmp_path: Path, authority: Authority) -> None:
    """Red without the bound of bytes when patience counts from the sending, too: the connection is
    given up and begun again for ever."""
    with (
        running(tmp_path / "broker", authority) as broker,
        listening(broker.port, authority) as backend,
        Proxy(broker.port) as proxy,
        carrying(
            tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}", keepalive_s=2
        ) as gateway,
    ):
        gateway.reaches(LinkState.CONNECTED)
        proxy.bytes_per_s = 100_000
        sent = gateway.put(10, size=50_000)
        eventually(lambda: set(sent) <= set(backend.payloads), 30)
        assert Counter(backend.payloads) == Counter(sent)
        assert proxy.accepted == 1


# --- what a broker says of itself ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "properties", "pinged"),
    [
        (60, b"\x13\x00\x01", True),
        (2, b"\x13\x00\x00", True),
        (2, b"\x13\x0e\x10", True),
        (60, b"", False),
    ],
    ids=["it wants one second", "it wants none", "it wants an hour", "the twin: it says nothing"],
)
def test_a_broker_is_asked_as_often_as_it_wants_and_never_less_than_we_need(
    tmp_path: Path, authority: Authority, ours: int, properties: bytes, pinged: bool
) -> None:
    """Red without `ping_after`: a broker that wants none is never asked, and a half-open link to it
    is never found."""
    with scripted(tmp_path, authority, Script(properties=properties), keepalive_s=ours) as (
        stub,
        gateway,
    ):
        gateway.reaches(LinkState.CONNECTED)
        if pinged:
            eventually(lambda: PINGREQ in stub.packets)
        else:
            time.sleep(2.2)
            assert PINGREQ not in stub.packets
        assert len(stub.versions) == 1


def test_a_broker_that_takes_qos_0_only_gets_nothing(tmp_path: Path, authority: Authority) -> None:
    """It would confirm nothing; red when it is published to all the same."""
    with scripted(tmp_path, authority, Script(properties=b"\x24\x00")) as (stub, gateway):
        sent = gateway.put(3)
        gateway.reaches(LinkState.WAITING, "QoS 0 only")
        assert stub.published == []
        stub.script = Script(properties=b"\x24\x01")
        eventually(lambda: payloads(stub) == sent)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (0x8B, "server shutting down"),
        (0x8E, "session taken over"),
        (0x97, "quota exceeded"),
        (0x98, "administrative action"),
        (0x9C, "use another server"),
        (0x9D, "server moved"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_broker_that_sends_us_away_is_named_and_asked_again_and_no_other(
    tmp_path: Path, authority: Authority, reason: int, said: str
) -> None:
    """Whoever it names instead (Server Reference) is not one of the signed policy's."""
    with (
        Stub(authority) as elsewhere,
        scripted(tmp_path, authority, Script()) as (stub, gateway),
    ):
        reference = f"localhost:{elsewhere.port}".encode()
        body = b"\x1c" + len(reference).to_bytes(2, "big") + reference
        stub.script.farewell = bytes([reason, len(body)]) + body
        if reason == 0x8E:  # begins its waits at a minute
            gateway.rng.uniform = lambda _a, _b: 0.3  # type: ignore[method-assign]
        sent = gateway.put(3)
        gateway.reaches(LinkState.WAITING, said)
        assert gateway.counted("delivered") == 0
        stub.script = Script()
        eventually(lambda: set(sent) <= set(payloads(stub)))
        assert elsewhere.versions == []


# --- half-open -----------------------------------------------------------------------------------


@pytest.mark.journey
def test_a_link_that_swallows_everything_ends_within_one_and_a_half_keepalives(
    tmp_path: Path, authority: Authority
) -> None:
    """Red with paho's own rule, which takes two. One gateway is idle, the other has messages on
    their way; those are sent again."""
    keepalive_s = 4
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(running(tmp_path / "broker", authority))
        backend = stack.enter_context(listening(broker.port, authority))
        proxy = stack.enter_context(Proxy(broker.port))
        url = f"mqtts://localhost:{proxy.port}"
        idle, busy = (
            stack.enter_context(carrying(tmp_path / name, authority, url, keepalive_s=keepalive_s))
            for name in ("idle", "busy")
        )
        for gateway in (idle, busy):
            gateway.put(1)
            eventually(lambda gateway=gateway: gateway.counted("delivered") == 1)
        proxy.fault = Fault.BLACK_HOLE
        began = time.monotonic()
        swallowed = busy.put(10, size=400)
        eventually(lambda: busy.counted("published") == 11)
        for gateway in (idle, busy):
            gateway.reaches(LinkState.WAITING, "silent")
        took_s = time.monotonic() - began
        assert proxy.struck[Fault.BLACK_HOLE] > 0
        assert took_s < 1.5 * keepalive_s + 0.5, took_s
        assert not set(swallowed) & set(backend.payloads)
        proxy.fault = Fault.NONE
        proxy.cut_all()  # a handshake may have been swallowed, too
        more = idle.put(2, size=500)
        eventually(lambda: {*swallowed, *more} <= set(backend.payloads))
        busy.spool.acknowledge("maker", [StreamAck(busy.stream, 11)])
        assert busy.spool.waiting()["service"].batches == 0


@pytest.mark.journey
def test_a_link_that_is_only_idle_stays(tmp_path: Path, authority: Authority) -> None:
    """The twin: the same silence, and pings that are answered."""
    with (
        running(tmp_path / "broker", authority) as broker,
        Proxy(broker.port) as proxy,
        carrying(
            tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}", keepalive_s=2
        ) as gateway,
    ):
        gateway.reaches(LinkState.CONNECTED)
        time.sleep(3.5)
        assert gateway.health.state is LinkState.CONNECTED
        assert proxy.accepted == 1


# --- certificates --------------------------------------------------------------------------------


@pytest.mark.journey
@pytest.mark.parametrize(
    ("lasts", "begins", "said"),
    [
        (-DAY / 24, DAY * 0, "the pinned authority has expired"),
        (DAY * 3, DAY * 2, "not valid yet; is the clock right?"),
    ],
    ids=["it is over", "it has not begun"],
)
def test_an_authority_that_is_not_valid_now_is_named(
    tmp_path: Path, lasts: object, begins: object, said: str
) -> None:
    strangers = Authority(tmp_path / "authority", lasts=lasts, begins=begins)  # type: ignore[arg-type]
    with Stub(strangers) as stub, carrying(tmp_path / "g", strangers, stub.url) as gateway:
        gateway.reaches(LinkState.WAITING, said)
        assert stub.versions == []


@pytest.mark.journey
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "the twin: not replaced"])
def test_a_certificate_that_was_refused_is_tried_again_at_once_when_another_lies_there(
    tmp_path: Path, authority: Authority, replaced: bool
) -> None:
    """Red without the look at the files: ten minutes may pass."""
    strangers = Authority(tmp_path / "strangers")
    with running(tmp_path / "broker", authority) as broker, Proxy(broker.port) as proxy:
        gateway = Gateway(tmp_path / "g", authority, f"mqtts://localhost:{proxy.port}")
        waits = []
        gateway.rng.uniform = lambda _a, b: waits.append(b) or (600.0 if b > 1 else 0.02)  # type: ignore[method-assign]
        mine = [Path(gateway.target.cert_path), Path(gateway.target.key_path)]
        good = [path.read_bytes() for path in mine]
        mine[1].write_bytes(strangers.client("another").key.read_bytes())
        gateway.open_lane()
        gateway.start()
        try:
            gateway.reaches(LinkState.WAITING, "for another key")
            eventually(lambda: 2.0 in waits)  # the next attempt is ten minutes away
            if replaced:
                mine[1].write_bytes(good[1])
                gateway.reaches(LinkState.CONNECTED)
            else:
                time.sleep(2)
                assert proxy.accepted == 0
        finally:
            gateway.close()
