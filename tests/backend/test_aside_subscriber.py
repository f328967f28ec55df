# SPDX-License-Identifier: Apache-2.0
"""What is laid aside stops no other gateway and no other stream, whatever comes and how often."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from assent.backend import ingest
from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.backend.store.readings import Bundle
from assent.backend.subscriber import connection
from assent.envelope import ClockQuality, Gap, GapCause
from assent.envelope import Kind as MessageKind
from assent.messages import Request, StreamAck, Verb
from tests.backend.parts import START_MS, power
from tests.backend.post import posting, public_key, subscribed, until
from tests.backend.test_subscriber import counters, values
from tests.simulators.broker import Broker

pytestmark = pytest.mark.journey

Sites = dict[str, Directory]


def changed(directory: Directory, ranges: str) -> None:
    """The row of stream 1, beside a subscriber that runs."""
    with contextlib.closing(sqlite3.connect(directory.root / "custody.db")) as db, db:
        query = "UPDATE streams SET ranges = ? WHERE stream = ?"
        assert db.execute(query, (ranges, (1).to_bytes(8, "big"))).rowcount == 1


def test_a_decayed_stream_of_more_batches_than_the_broker_has_under_way_stops_nobody(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when each ends the connection, and when the broker is never told of any of them."""
    caplog.set_level(logging.INFO)
    maker = sites["maker"]
    key = public_key(maker)
    many = connection._RECEIVE_MAXIMUM + 10
    with (
        posting(maker, broker.port, tmp_path) as bad,
        posting(maker, broker.port, tmp_path) as good,
    ):

        def batch(number: int) -> bytes:
            return bad.hand.batch(key, power(1, first_ms=START_MS + number * 1000), sequence=number)

        with subscribed(maker, broker.port):
            bad.send(batch(0))
            assert bad.told() == StreamAck(1, 1)
            changed(maker, "[[")
            for number in range(1, many + 1):
                bad.send(batch(number))
            good.send(good.hand.batch(key, power(1), stream=5))
            assert good.told() == StreamAck(5, 1)
            until(lambda: counters(maker).get("aside") == many, "all of them are laid aside")
            # Another stream of the same gateway goes on, and what it asks of both is answered.
            bad.send(bad.hand.batch(key, power(1), stream=2))
            assert bad.all_told() == (StreamAck(2, 1),)
            asked = Request(bytes(16), Verb.ACKNOWLEDGE, (1, 2))
            bad.send(bad.hand.control(key, MessageKind.REQUEST, asked.encode()))
            assert bad.all_told() == (StreamAck(2, 1),)
        assert caplog.text.count("event=subscribed") == 1
        assert "event=laid-aside lack=unreadable-record" in caplog.text
        assert f"stream {1:016x}" in caplog.text
        for planted in (bad.hand.mailbox, good.hand.mailbox):
            assert planted not in caplog.text
        with subscribed(maker, broker.port):  # a start finds it as it was
            good.send(good.hand.batch(key, power(1), stream=5, sequence=1))
            assert good.told() == StreamAck(5, 2)
        assert counters(maker) == {"aside": many, "stored": 4}
        assert bad.inbox.empty()
        changed(maker, "[]")
        with subscribed(maker, broker.port):  # nobody sends: what lies here is enough
            assert bad.told_until(many + 1) == StreamAck(1, many + 1)
    assert len(values(maker)) == many + 4
    with contextlib.closing(Store(maker.root)) as store:
        assert store.asides.counted(None) == []
        assert store.custody.quarantined(10) == []


def test_a_gateway_whose_keys_have_decayed_stops_no_other(
    tmp_path: Path, sites: Sites, broker: Broker
) -> None:
    maker = sites["maker"]
    key = public_key(maker)

    def signs(mailbox: str, sign_key: bytes) -> None:
        with contextlib.closing(sqlite3.connect(maker.root / "custody.db")) as db, db:
            db.execute("UPDATE gateways SET sign_key = ? WHERE mailbox = ?", (sign_key, mailbox))

    with (
        posting(maker, broker.port, tmp_path) as bad,
        posting(maker, broker.port, tmp_path) as good,
    ):
        signs(bad.hand.mailbox, b"\xa1")
        with subscribed(maker, broker.port):
            bad.send(bad.hand.batch(key, power(1)))
            good.send(good.hand.batch(key, power(1)))
            assert good.told() == StreamAck(1, 1)
            until(lambda: counters(maker).get("aside") == 1, "laid aside")
        signs(bad.hand.mailbox, bad.hand.sign.public.encode())
        with subscribed(maker, broker.port):
            assert bad.told() == StreamAck(1, 1)
    assert counters(maker) == {"aside": 1, "stored": 2}


@pytest.mark.parametrize("place", ["judging", "storing"])
def test_a_batch_for_which_memory_always_runs_out_holds_up_nobody(
    tmp_path: Path, sites: Sites, broker: Broker, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Red when its group is given up each time, and when it goes to quarantine unread."""
    maker = sites["maker"]
    key = public_key(maker)
    struck: list[str] = []
    with posting(maker, broker.port, tmp_path) as post:
        large = post.hand.batch(key, power(5), sequence=0)
        with monkeypatch.context() as patch:
            if place == "judging":
                real_open = ingest.open_up

                def open_up(data: bytes, **more: object) -> object:
                    if data == large:
                        struck.append(place)
                        raise MemoryError
                    return real_open(data, **more)  # type: ignore[arg-type]

                patch.setattr(ingest, "open_up", open_up)

            def scarce(store: Store) -> None:
                real = store.readings.put

                def put(bundle: Bundle) -> None:
                    if place == "storing" and len(bundle.tables[0].times) == 5:
                        struck.append(place)
                        raise MemoryError
                    real(bundle)

                store.readings.put = put  # type: ignore[method-assign]

            with subscribed(maker, broker.port, prepare=scarce):
                post.send(large)
                for number in (1, 2, 3):
                    post.send(post.hand.batch(key, power(1), sequence=number))
                while post.told() != StreamAck(1, 0, ((1, 3),)):
                    pass
        assert struck
        assert counters(maker) == {"aside": 1, "stored": 3}
        with subscribed(maker, broker.port):  # with more memory
            assert post.told_until(4) == StreamAck(1, 4)
    assert len(values(maker)) == 8


def test_a_held_batch_for_which_memory_runs_out_goes_on_waiting(
    tmp_path: Path, sites: Sites, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Red when it ends the connection, each time anew."""
    caplog.set_level(logging.INFO)
    maker = sites["maker"]
    key = public_key(maker)
    boot = Gap(1, 7, GapCause.BOOT, START_MS - 60_000, START_MS - 60_000, 0)

    def scarce(store: Store) -> None:
        real = store.readings.put

        def put(bundle: Bundle) -> None:
            if len(bundle.tables[0].times) == 5:
                raise MemoryError
            real(bundle)

        store.readings.put = put  # type: ignore[method-assign]

    with posting(maker, broker.port, tmp_path) as post:
        with subscribed(maker, broker.port, prepare=scarce):
            for sequence, rows in enumerate((5, 1)):
                clock = ClockQuality.UNTRUSTED
                tables = power(rows, first_ms=1_000 + 10_000 * sequence)
                held = post.hand.batch(key, tables, stream=7, sequence=sequence, clock=clock)
                post.send(held)
            post.told_until(2)
            post.send(post.hand.batch(key, power(1), stream=8, gaps=(boot,)))
            until(lambda: len(values(maker)) == 2, "the other held batch is in the data")
            until(lambda: "event=held-batch-stays" in caplog.text, "and this one is not")
            post.send(post.hand.batch(key, power(1), stream=8, sequence=1))
            until(lambda: len(values(maker)) == 3, "it goes on")
        assert caplog.text.count("event=subscribed") == 1
        with subscribed(maker, broker.port):
            until(lambda: len(values(maker)) == 8, "with more memory it is stored")
