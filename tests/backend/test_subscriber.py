# SPDX-License-Identifier: Apache-2.0
"""Against a real mosquitto, over mutual TLS."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from assent.backend import adoption, publishing
from assent.backend.directory import Directory
from assent.backend.offers import Offer
from assent.backend.store import Settled, Store, Taken
from assent.backend.subscriber import Subscriber
from assent.backend.subscriber.connection import Connection, Message
from assent.columns import Column, Kind, Table
from assent.envelope import ClockQuality, Gap, GapCause
from assent.envelope import Kind as MessageKind
from assent.errors import StoreError, UplinkError
from assent.messages import (
    RefusalReason,
    Refused,
    Request,
    Status,
    StreamAck,
    Verb,
    up_topic,
)
from tests.backend.parts import NOW, POLICY, PSEUDONYM, START_MS, TENTH, offers, power
from tests.backend.post import address, broker_for, posting, public_key, subscribed, until
from tests.simulators.broker import Broker

pytestmark = pytest.mark.journey

Sites = dict[str, Directory]


def look(directory: Directory) -> Store:
    return Store(directory.root, writable=False)


def values(directory: Directory) -> list[object]:
    store = look(directory)
    try:
        return [one.value for one in store.readings.rows("remote-diagnosis", 100_000)]
    finally:
        store.close()


def counters(directory: Directory) -> dict[str, int]:
    store = look(directory)
    try:
        return store.custody.counters()
    finally:
        store.close()


def test_a_batch_is_stored_and_its_gateway_can_open_the_acknowledgement(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        post.send(post.hand.batch(key, power(3), stream=2**64 - 1))
        assert post.told() == StreamAck(2**64 - 1, 1)
        assert values(maker) == [100.2, 100.1, 100.0]


def test_two_gateways_are_acknowledged_each_its_own(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with (
        subscribed(maker, broker.port),
        posting(maker, broker.port, tmp_path) as one,
        posting(maker, broker.port, tmp_path) as two,
    ):
        one.send(one.hand.batch(key, power(1), stream=1))
        assert one.told() == StreamAck(1, 1)
        two.send(two.hand.batch(key, power(1), stream=2, sequence=1))
        assert two.told() == StreamAck(2, 0, ((1, 1),))
        assert one.inbox.empty()


def test_what_is_bad_is_refused_and_the_next_good_batch_is_stored(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    caplog.set_level(logging.DEBUG)
    canary = Column("appliance.fault", Kind.TEXT, ["CANARY-ALICE"])
    with (
        subscribed(maker, broker.port),
        posting(maker, broker.port, tmp_path) as post,
        posting(maker, broker.port, tmp_path) as other,
    ):
        good = post.hand.batch(key, power(1))
        post.send(good[:-7])
        post.send(bytes([*good[:200], good[200] ^ 1, *good[201:]]))
        post.send(b"")
        post.send(public_key(sites["advice"]).encode())
        other.send(good)
        undeclared = Table(PSEUDONYM, [START_MS], (Column("x.y", Kind.NUMBER, [1], TENTH),))
        post.send(post.hand.batch(key, [undeclared], sequence=1))
        post.send(post.hand.batch(key, [Table(PSEUDONYM, [START_MS], (canary,))], sequence=2))
        post.send(good)
        told: dict[int, RefusalReason] = {}
        stored = 0
        while len(told) < 2 or not stored:
            ack = post.told()
            stored = max(stored, ack.watermark)
            told |= {no.sequence: no.reason for no in ack.refused}
        assert told == {1: RefusalReason.COLUMNS, 2: RefusalReason.COLUMNS}
        assert other.inbox.empty()
    assert values(maker) == [100.0]
    assert {name: n for name, n in counters(maker).items() if name.startswith("refused")} == {
        "refused cannot-open": 2,
        "refused malformed": 2,
        "refused not-canonical": 1,
        "refused undeclared-attribute": 1,
        "refused value-not-allowed": 1,
    }
    for planted in ("CANARY", post.hand.mailbox, other.hand.mailbox, "appliance.fault"):
        assert planted not in caplog.text
    assert "reason=cannot-open" in caplog.text


def test_a_gateway_nobody_admitted_is_quarantined_under_its_reason(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        batch = post.hand.batch(key, power(1))
        store = Store(maker.root)
        row = store.custody.gateway(post.hand.mailbox)
        assert row is not None
        with store.changing():
            store._custody_db.execute("DELETE FROM gateways")
        post.send(batch)
        until(lambda: counters(maker).get("refused unknown-mailbox") == 1, "counted")
        # Admitted while the subscriber runs: the same bytes are then welcome.
        with store.changing() as custody:
            custody.admit(row)
        store.close()
        post.send(batch)
        assert post.told() == StreamAck(1, 1)


def test_a_gateway_cannot_write_into_anothers_mailbox(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with (
        subscribed(maker, broker.port),
        posting(maker, broker.port, tmp_path) as post,
        posting(maker, broker.port, tmp_path) as other,
    ):
        post.send(post.hand.batch(key, power(1)), to=up_topic(other.hand.mailbox))
        post.send(post.hand.batch(key, power(1)))
        assert post.told() == StreamAck(1, 1)
    assert counters(maker) == {"stored": 1}


def test_duplicates_are_acknowledged_again_and_stored_once(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        batch = post.hand.batch(public_key(maker), power(2))
        for _ in range(3):
            post.send(batch)
            assert post.told() == StreamAck(1, 1)
    assert counters(maker) == {"duplicate": 2, "stored": 1}
    assert len(values(maker)) == 2


def test_a_fork_is_quarantined_and_told(tmp_path: Path, sites: Sites, broker: Broker) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        post.send(post.hand.batch(key, power(1)))
        assert post.told() == StreamAck(1, 1)
        post.send(post.hand.batch(key, power(2)))
        fork = Refused(0, RefusalReason.FORK, retry=False)
        assert post.told() == StreamAck(1, 0, (), (fork,))
    assert counters(maker) == {"refused fork": 1, "stored": 1}
    assert values(maker) == [100.0]


def test_a_request_is_answered_and_a_status_recorded(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        for stream in (1, 2, 3):
            post.send(post.hand.batch(key, power(1), stream=stream))
        told: set[int] = set()
        while told != {1, 2, 3}:
            told |= {ack.stream for ack in post.all_told()}
        request = Request(bytes(16), Verb.ACKNOWLEDGE, (2, 9))
        post.send(post.hand.control(key, MessageKind.REQUEST, request.encode()))
        assert post.all_told() == (StreamAck(2, 1), StreamAck(9, 0))
        status = Status("example-appliances", 17)
        post.send(post.hand.control(key, MessageKind.STATUS, status.encode()))
        until(lambda: serial_of(maker, post.hand.mailbox) == 17, "status recorded")


def newer_bundle(directory: Directory, root: Path, text: str = POLICY) -> Path:
    """Signs a newer policy and bundles it; nothing is published."""
    policy, bundle = root / "newer.toml", root / "newer.bundle"
    policy.write_text(text.replace("serial = 17", "serial = 18"))
    publishing.sign_policy(policy, directory.key("policy.key.cose"), root, NOW.date())
    bundle.write_bytes(publishing.bundle(policy, directory.key("policy.pub.cose"), root))
    return bundle


def test_who_asks_for_the_time_is_told_it_at_once(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        before_ms = time.time_ns() // 1_000_000
        asked = Request(bytes(range(16)), Verb.TIME, ())
        post.send(post.hand.control(key, MessageKind.REQUEST, asked.encode()))
        told = post.told_time()
        assert told.nonce == asked.id
        assert before_ms <= told.at_ms <= time.time_ns() // 1_000_000


def test_what_was_held_is_stored_when_a_later_batch_tells_when_it_was(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    clock = ClockQuality.UNTRUSTED
    boot = Gap(1, 7, GapCause.BOOT, START_MS - 60_000, START_MS - 60_000, 0)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        for sequence in range(20):
            tables = power(1, first_ms=1_000 * sequence)
            batch = post.hand.batch(key, tables, stream=7, sequence=sequence, clock=clock)
            post.send(batch)
        post.told_until(20)
        assert values(maker) == []
        post.send(post.hand.batch(key, power(1), stream=8, gaps=(boot,)))
        until(lambda: len(values(maker)) == 21, "what was held is in the data")
    assert counters(maker) == {"held": 20, "stored": 21}


def test_a_policy_is_sent_to_who_says_it_runs_an_older_one(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key, bundle = public_key(maker), newer_bundle(maker, tmp_path)
    adoption.publish(bundle, [maker])
    with (
        subscribed(maker, broker.port),
        posting(maker, broker.port, tmp_path) as older,
        posting(maker, broker.port, tmp_path) as newest,
    ):
        for post, serial in ((newest, 18), (older, 17), (older, 17)):
            status = Status("example-appliances", serial).encode()
            post.send(post.hand.control(key, MessageKind.STATUS, status))
        assert older.sent_policy() == bundle.read_bytes()
        # Whatever else would be sent to either comes before what is asked for now.
        for post in (older, newest):
            post.send(post.hand.batch(key, power(1)))
            assert post.told() == StreamAck(1, 1)


def test_a_policy_that_is_published_reaches_who_is_connected(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key, bundle = public_key(maker), newer_bundle(maker, tmp_path)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        status = Status("example-appliances", 17).encode()
        post.send(post.hand.control(key, MessageKind.STATUS, status))
        until(lambda: serial_of(maker, post.hand.mailbox) == 17, "status recorded")
        assert post.inbox.empty()
        adoption.publish(bundle, [maker])  # nothing comes up meanwhile
        assert post.sent_policy() == bundle.read_bytes()


def serial_of(directory: Directory, mailbox: str) -> int | None:
    store = look(directory)
    try:
        row = store.custody.gateway(mailbox)
        return row.policy_serial if row else None
    finally:
        store.close()


def test_many_messages_share_commits_and_letters(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    caplog.set_level(logging.INFO, logger="assent.backend.subscriber")
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        batches = [post.hand.batch(key, power(1), sequence=n) for n in range(200)]
        for batch in batches:
            post.send(batch)
        post.told_until(200)
    commits = [int(n) for n in re.findall(r"event=committed stored=(\d+)", caplog.text)]
    assert sum(commits) == 200
    assert len(commits) < 100
    assert len(values(maker)) == 200


def test_a_policy_that_appears_is_published_without_a_restart(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    text = POLICY.replace("serial = 17", "serial = 18").replace("round(0.5)", "round(1)")
    newer = tmp_path / "newer.toml"
    newer.write_text(text)
    publishing.sign_policy(newer, maker.key("policy.key.cose"), tmp_path, NOW.date())
    terms = offers(newer.read_text())["remote-diagnosis"].terms.hash
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        batch = post.hand.batch(key, power(1), terms=terms)
        post.send(batch)
        wait = Refused(0, RefusalReason.TERMS, retry=True)
        assert post.told() == StreamAck(1, 0, (), (wait,))
        for name in ("newer.toml.cose", "newer.toml"):
            (maker.root / "policies" / name).write_bytes((tmp_path / name).read_bytes())
        post.send(batch)
        assert post.told() == StreamAck(1, 1)


def test_a_policy_that_could_not_be_kept_at_first_is_published_all_the_same(
    tmp_path: Path, sites: Sites, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when it is taken for published as soon as it is seen: its terms are then refused."""
    maker = sites["maker"]
    key, text = public_key(maker), POLICY.replace("round(0.5)", "round(1)")
    bundle = newer_bundle(maker, tmp_path, text)
    terms = offers(text)["remote-diagnosis"].terms.hash
    refused: list[None] = []
    real = Store.publish

    def publish(self: Store, found: Iterable[Offer]) -> None:
        if any(one.serial == 18 for one in found) and not refused:
            refused.append(None)
            raise StoreError("the disk is full")
        real(self, found)

    monkeypatch.setattr(Store, "publish", publish)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        adoption.publish(bundle, [maker])
        until(lambda: bool(refused), "the disk is full")
        post.send(post.hand.batch(key, power(1), terms=terms))
        assert post.told() == StreamAck(1, 1)


def test_the_subscriber_outlives_the_broker(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    maker = sites["maker"]
    caplog.set_level(logging.INFO, logger="assent.backend.subscriber")
    key = public_key(maker)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        post.send(post.hand.batch(key, power(1)))
        post.told_until(1)
        broker.kill()
        broker.start()
        # A broker that lost its memory confirms what nobody is subscribed to; a gateway knows that.
        until(lambda: caplog.text.count("event=subscribed") == 2, "subscribed again")
        post.send(post.hand.batch(key, power(1), sequence=1))
        post.told_until(2)
    assert len(values(maker)) == 2


def test_what_cannot_be_stored_now_comes_again(
    tmp_path: Path,
    sites: Sites,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk, then a mistake of ours, then all is well: nothing is lost, nothing twice."""
    maker = sites["maker"]
    key = public_key(maker)
    troubles: list[Exception] = [StoreError("the disk is full"), RuntimeError("a mistake")]
    real = Store.put

    def put(self: Store, group: list[Taken]) -> list[Settled]:
        if troubles:
            raise troubles.pop()
        return real(self, group)

    monkeypatch.setattr(Store, "put", put)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        post.send(post.hand.batch(key, power(2)))
        assert post.told() == StreamAck(1, 1)
    assert troubles == []
    assert "event=not-serving code=store" in caplog.text
    assert "event=broker-lost" not in caplog.text
    assert counters(maker) == {"stored": 1}
    assert len(values(maker)) == 2


def test_what_cannot_be_judged_now_comes_again(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that cannot be read for a moment says nothing about a batch."""
    maker = sites["maker"]
    key = public_key(maker)
    unreadable: list[str] = []

    def judged(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and table in unreadable:
            unreadable.clear()
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def prepare(store: Store) -> None:
        store._custody_db.set_authorizer(judged)

    with (
        subscribed(maker, broker.port, prepare=prepare),
        posting(maker, broker.port, tmp_path) as post,
    ):
        unreadable.append("gateways")
        post.send(post.hand.batch(key, power(2)))
        assert post.told() == StreamAck(1, 1)
    assert unreadable == []
    assert "event=not-serving code=store" in caplog.text
    assert counters(maker) == {"stored": 1}


def test_what_came_on_a_lost_connection_is_left_to_the_next(
    tmp_path: Path, sites: Sites, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packet numbers would confirm other messages there."""
    maker = sites["maker"]
    real = Connection.step
    lost: list[None] = []

    def step(self: Connection, timeout_s: float) -> list[Message]:
        if len(lost) == 1:
            lost.append(None)
            raise UplinkError("the connection ended before the commit")
        came = real(self, timeout_s)
        if came and not lost:
            lost.append(None)
        return came

    monkeypatch.setattr(Connection, "step", step)
    with subscribed(maker, broker.port), posting(maker, broker.port, tmp_path) as post:
        post.send(post.hand.batch(public_key(maker), power(1)))
        assert post.told() == StreamAck(1, 1)
    assert len(lost) == 2
    assert counters(maker) == {"stored": 1}


def test_what_comes_while_the_backend_is_away_waits_at_the_broker(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    with posting(maker, broker.port, tmp_path) as post:
        with subscribed(maker, broker.port):
            pass
        post.send(post.hand.batch(key, power(1)))
        with subscribed(maker, broker.port):
            assert post.told() == StreamAck(1, 1)


# paho leaves the socket of a failed handshake to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_of_another_authority_is_not_spoken_to(
    tmp_path: Path, sites: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    maker = sites["maker"]
    stop = threading.Event()
    with broker_for(sites["advice"], tmp_path) as other:
        store = Store(maker.root)
        subscriber = Subscriber(maker, store, address(maker, other.port))
        thread = threading.Thread(target=subscriber.run, args=(stop,))
        thread.start()
        until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, "refused")
        stop.set()
        thread.join()
        store.close()
    assert "event=subscribed" not in caplog.text


def command(directory: Directory, port: int) -> list[str]:
    url = f"mqtts://localhost:{port}"
    return [sys.executable, "-m", "assent.backend.cli", "run", str(directory.root), "--broker", url]


def started(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as err:
        process = subprocess.Popen(words, stderr=err)
    until(
        lambda: b"event=subscribed" in log.read_bytes() or process.poll() is not None,
        "the process subscribed",
    )
    return process


# `run`, but it is killed after the commit and before the broker is told.
KILLED = textwrap.dedent("""
    import os, signal, sys
    from assent.backend import cli
    from assent.backend.subscriber.connection import Connection
    Connection.acknowledge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(cli.main(sys.argv[1:]))
""")


def test_a_kill_between_commit_and_puback_stores_nothing_twice(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    words = command(maker, broker.port)
    with posting(maker, broker.port, tmp_path) as post:
        process = started([words[0], "-c", KILLED, *words[3:]], tmp_path / "killed")
        post.send(post.hand.batch(key, power(3)))
        assert process.wait(15) == -signal.SIGKILL
        # The fault did strike there: stored, and neither broker nor gateway knows.
        assert len(values(maker)) == 3
        assert post.inbox.empty()
        process = started(words, tmp_path / "log")
        try:
            assert post.told() == StreamAck(1, 1)
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
    assert counters(maker) == {"duplicate": 1, "stored": 1}
    assert values(maker) == [100.2, 100.1, 100.0]


def has_stored(directory: Directory, count: int) -> bool:
    return counters(directory).get("stored", 0) >= count


def test_kills_at_any_time_lose_nothing_and_store_nothing_twice(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)
    words = command(maker, broker.port)
    count = 120
    with posting(maker, broker.port, tmp_path) as post:
        batches = [
            post.hand.batch(key, power(2, first_ms=START_MS + n * 10_000), sequence=n)
            for n in range(count)
        ]
        process = started(words, tmp_path / "log0")
        for round_, at in enumerate((30, 60, 90)):
            for batch in batches[at - 30 : at]:
                post.send(batch)
            until(functools.partial(has_stored, maker, round_ * 30 + 1), "some stored")
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            process = started(words, tmp_path / f"log{round_ + 1}")
        for batch in batches[90:]:
            post.send(batch)
        try:
            post.told_until(count)
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
    assert counters(maker)["stored"] == count
    store = look(maker)
    rows = list(store.readings.rows("remote-diagnosis", 10_000))
    store.close()
    expected = {
        (START_MS + n * 10_000 + row * 1000, 100.0 + row / 10)
        for n in range(count)
        for row in (0, 1)
    }
    assert len(rows) == 2 * count
    assert {(row.time_ms, row.value) for row in rows} == expected


def test_a_broker_that_comes_late_is_found(tmp_path: Path, sites: Sites, broker: Broker) -> None:
    maker = sites["maker"]
    broker.stop()
    log = tmp_path / "log"
    with log.open("ab") as err:
        process = subprocess.Popen(command(maker, broker.port), stderr=err)
    until(lambda: b"event=broker-lost" in log.read_bytes(), "nobody is there")
    broker.start()
    until(lambda: b"event=subscribed" in log.read_bytes(), "subscribed")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(15) == 0


def test_a_stop_while_there_is_no_broker_is_heeded(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    broker.stop()
    log = tmp_path / "log"
    with log.open("ab") as err:
        process = subprocess.Popen(command(sites["maker"], broker.port), stderr=err)
    until(lambda: b"event=broker-lost" in log.read_bytes(), "nobody is there")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(5) == 0


def test_a_stop_that_comes_while_it_is_asked_for_is_heeded() -> None:
    """Red with a handler that sets the event: it waits for a lock that its own thread holds."""
    code = (
        "import os, signal\n"
        "from assent.backend.cli import ended_by_signal\n"
        "stop = ended_by_signal()\n"
        "with stop._cond:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert not stop.is_set()\n"
        "assert stop.wait(10)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_broker_that_is_away_is_named_once_and_not_at_every_try(
    sites: Sites,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Red while each try is a line, and no line says which broker."""
    broker.stop()
    monkeypatch.setattr("assent.backend.subscriber._BACKOFF_S", (0.11, 0.12))
    tries: list[None] = []
    real = Connection.connect

    def connect(self: Connection) -> None:
        tries.append(None)
        real(self)

    monkeypatch.setattr(Connection, "connect", connect)
    maker, stop = sites["maker"], threading.Event()
    with contextlib.closing(Store(maker.root)):
        pass

    def run() -> None:
        with contextlib.closing(Store(maker.root)) as store:
            Subscriber(maker, store, address(maker, broker.port)).run(stop)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: len(tries) > 4, "it tries again and again")
    stop.set()
    thread.join(10)
    lost = [line for line in caplog.messages if "event=broker-lost" in line]
    assert len(lost) == 1
    assert f"broker=localhost:{broker.port} tries=1 " in lost[0]


def sockets() -> set[str]:
    """What is open in this process, as the kernel names it."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(str(one.readlink()))
    return {one for one in found if one.startswith("socket:")}


def test_a_subscriber_that_has_ended_has_left_no_socket_open(sites: Sites, broker: Broker) -> None:
    """Red with paho's own loop: two of its sockets are open until the collector comes to them."""
    before = sockets()
    gc.disable()
    try:
        with subscribed(sites["maker"], broker.port):
            assert sockets() - before != set()
        assert sockets() - before == set()
    finally:
        gc.enable()


def test_two_subscribers_of_one_name_do_not_fight_for_ever(
    tmp_path: Path,
    sites: Sites,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on two machines. Red when a subscription that stood for a moment ends the growth."""
    caplog.set_level(logging.INFO, logger="assent.backend.subscriber")
    monkeypatch.setattr("assent.backend.subscriber._BACKOFF_S", (0.11, 60.0))
    maker, stop = sites["maker"], threading.Event()
    with contextlib.closing(Store(maker.root)):
        pass
    other = Directory.open(shutil.copytree(maker.root, tmp_path / "other"))

    def run(one: Directory) -> None:
        with contextlib.closing(Store(one.root)) as store:
            Subscriber(one, store, address(maker, broker.port)).run(stop)

    threads = [threading.Thread(target=run, args=(one,)) for one in (maker, other)]
    for thread in threads:
        thread.start()
    until(lambda: caplog.text.count("event=subscribed") >= 6, "they take it from each other")
    before = caplog.text.count("event=subscribed")
    time.sleep(3)
    after = caplog.text.count("event=subscribed")
    stop.set()
    for thread in threads:
        thread.join(70)
    assert after - before < 12  # every tenth of a second it would be some thirty


def test_a_second_subscriber_on_one_directory_is_refused(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    words = command(maker, broker.port)
    process = started(words, tmp_path / "log")
    try:
        second = subprocess.run(words, capture_output=True, timeout=15)
        assert second.returncode == 3
        assert b"another subscriber runs" in second.stderr
    finally:
        os.kill(process.pid, signal.SIGTERM)
    assert process.wait(15) == 0
