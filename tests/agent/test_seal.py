# SPDX-License-Identifier: Apache-2.0
"""Sealing: only the recipient opens it, nothing is too long, nothing is lost on the way."""

from __future__ import annotations

import bisect
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from agent.keys import Keys
from agent.lane import Lane
from agent.path import Batch, Sealed
from agent.seal import Sealer
from assent import columns
from assent.columns import Column, Kind, Quantum, Table
from assent.cosekey import SealPrivateKey
from assent.envelope import (
    MAX_GAPS,
    MAX_MESSAGE,
    ClockQuality,
    Gap,
    GapCause,
    Opened,
    open_batch,
    recipient_kid,
)
from assent.errors import CannotOpenError, PolicyError
from assent.policy.signing import SignedPolicy
from tests.agent.flow_parts import DAY, EPOCH, METER, NOW, SECRET, cells, permit

STREAM = 2**63 + 5


class Bench:
    """Two recipients with keys, one flow with a key of its own, one gateway."""

    def __init__(self, place: Path) -> None:
        self.maker = SealPrivateKey.generate()
        self.partner = SealPrivateKey.generate()
        self.own = SealPrivateKey.generate()
        self.keys = Keys.open(place / "keys")
        self.policy = SignedPolicy(
            policy=None,  # type: ignore[arg-type]  # sealing looks at keys only
            keys={"maker": self.maker.public, "partner": self.partner.public},
            ack_keys={},
            flow_keys={"own-key": self.own.public},
            cas={},
            serial=1,
            hash=bytes(32),
        )
        self.sealer = Sealer(self.keys, self.policy)

    def open(self, sealed: Sealed, key: SealPrivateKey) -> Opened:
        gateway = self.keys.gateway(sealed.recipient)
        return open_batch(
            sealed.data,
            key=key,
            signer=gateway.sign.public,
            mailbox=gateway.mailbox,
            recipient=sealed.recipient,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def batch_of(tables: tuple[Table, ...], *, gaps: tuple[Gap, ...] = (), **fields: Any) -> Batch:
    times = [ms for table in tables for ms in table.times]
    return Batch(
        permit=permit(terms_hash=b"t" * 32, record=b"r" * 16, **fields),
        stream=STREAM,
        epoch=NOW // EPOCH,
        tables=tables,
        readings=sum(len(table.times) * len(table.columns) for table in tables),
        first_ms=min(times),
        last_ms=max(times),
        clock=ClockQuality.TRUSTED,
        gaps=gaps,
    )


def noise(device: bytes, rows: int, first: int = 0) -> Table:
    """A table that no compression makes small."""
    draw = random.Random(first)
    values = [draw.randrange(2**60) for _ in range(rows)]
    times = [NOW + first + at for at in range(rows)]
    return Table(device, times, (Column("appliance.power", Kind.NUMBER, values, Quantum(1, 10)),))


def plain(tables: tuple[Table, ...]) -> list[tuple[bytes, int, str, Any]]:
    return sorted(
        (table.device, ms, column.attribute, value)
        for table in tables
        for column in table.columns
        for ms, value in zip(table.times, column.values, strict=True)
    )


def test_a_sealed_batch_opens_with_the_recipients_key_and_says_what_the_batch_said(
    bench: Bench,
) -> None:
    lane = Lane(permit(terms_hash=b"t" * 32, record=b"r" * 16), SECRET, STREAM, NOW // EPOCH)
    take = lane.compile(METER, ("appliance.power",))
    assert take is not None
    for at in range(100):
        take(NOW + at, (at / 10,))
    gap = Gap(3, STREAM, GapCause.OUTAGE, NOW - 9, NOW - 1, 4)
    batch = lane.close((gap,))
    assert batch is not None
    (sealed,) = bench.sealer.seal(batch, 41)
    opened = bench.open(sealed, bench.maker)
    header = opened.header
    assert (header.recipient, header.flow) == ("maker", "remote-diagnosis")
    assert (header.terms, header.record) == (b"t" * 32, b"r" * 16)
    assert (header.stream, header.sequence, header.epoch) == (STREAM, 41, NOW // EPOCH)
    assert (header.clock, header.gaps) == (ClockQuality.TRUSTED, (gap,))
    assert plain(opened.tables) == sorted(cells([batch]))
    assert len(plain(opened.tables)) == 100


def test_what_the_spool_needs_to_know_stands_beside_the_bytes(bench: Bench) -> None:
    batch = batch_of((noise(b"d" * 16, 5),), keep_ms=DAY)
    (sealed,) = bench.sealer.seal(batch, 0)
    assert (sealed.flow, sealed.recipient) == ("remote-diagnosis", "maker")
    assert (sealed.stream, sealed.sequence, sealed.readings) == (STREAM, 0, 5)
    assert (sealed.first_ms, sealed.last_ms) == (NOW, NOW + 4)
    assert sealed.expires_ms == NOW + 4 + DAY
    assert sealed.digest == hashlib.sha256(sealed.data).digest()


@pytest.mark.clause("C21")
def test_the_gateway_cannot_open_what_it_sealed(bench: Bench) -> None:
    (sealed,) = bench.sealer.seal(batch_of((noise(b"d" * 16, 5),)), 0)
    with pytest.raises(CannotOpenError):
        bench.open(sealed, bench.keys.gateway("maker").seal)
    assert bench.open(sealed, bench.maker).header.sequence == 0


@pytest.mark.clause("C03")
@pytest.mark.clause("C15")
def test_each_recipient_and_each_flow_with_a_key_opens_its_own_only(bench: Bench) -> None:
    tables = (noise(b"d" * 16, 5),)
    keys = {"maker": bench.maker, "partner": bench.partner, "own": bench.own}
    for name, fields in {
        "maker": {"recipient": "maker"},
        "partner": {"recipient": "partner"},
        "own": {"recipient": "maker", "flow": "own-key"},
    }.items():
        (sealed,) = bench.sealer.seal(batch_of(tables, **fields), 0)
        assert recipient_kid(sealed.data) == keys[name].public.kid
        for other, key in keys.items():
            if other == name:
                assert bench.open(sealed, key).header.flow == sealed.flow
            else:
                with pytest.raises(CannotOpenError):
                    bench.open(sealed, key)


@pytest.mark.clause("C14")
def test_a_recipient_without_a_pinned_key_gets_nothing(bench: Bench) -> None:
    with pytest.raises(PolicyError, match="has no key for recipient stranger"):
        bench.sealer.seal(batch_of((noise(b"d" * 16, 5),), recipient="stranger"), 0)


def test_a_batch_that_is_too_long_is_split_and_numbered_without_holes(bench: Bench) -> None:
    tables = (
        noise(b"a" * 16, 9_000),
        noise(b"b" * 16, 41_000, 20_000),
        noise(b"c" * 16, 1, 90_000),
    )
    parts = bench.sealer.seal(batch_of(tables), 7)
    assert len(parts) > 3
    assert [part.sequence for part in parts] == list(range(7, 7 + len(parts)))
    assert max(len(part.data) for part in parts) <= MAX_MESSAGE
    opened = [bench.open(part, bench.maker) for part in parts]
    assert [o.header.sequence for o in opened] == [part.sequence for part in parts]
    found = [value for o in opened for value in plain(o.tables)]
    assert found == plain(tables)  # each value once, rows in their order
    assert sum(part.readings for part in parts) == 50_001
    assert [(p.first_ms, p.last_ms) for p in parts] == [
        (min(ms for t in o.tables for ms in t.times), max(ms for t in o.tables for ms in t.times))
        for o in opened
    ]
    assert bench.sealer.left_out == 0


def test_a_payload_that_fits_only_without_its_envelope_is_split(bench: Bench) -> None:
    rows = bisect.bisect_right(range(30_000), MAX_MESSAGE, key=lambda n: encoded_bytes(n + 1))
    assert MAX_MESSAGE - 100 < encoded_bytes(rows) <= MAX_MESSAGE
    parts = bench.sealer.seal(batch_of((noise(b"a" * 16, rows),)), 0)
    assert [part.readings for part in parts] == [rows // 2, rows - rows // 2]
    assert len(bench.sealer.seal(batch_of((noise(b"a" * 16, rows - 300),)), 0)) == 1


def encoded_bytes(rows: int) -> int:
    return len(columns.encode((noise(b"a" * 16, rows),)))


def wide(device: bytes, first: int, columns_: int, size: int = 1_300) -> Table:
    """A row of so many texts that no compression makes short."""
    draw = random.Random(first)
    texts = [
        "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(size)) for _ in range(columns_)
    ]
    return Table(
        device,
        [NOW + first],
        tuple(Column(f"appliance.fault-{n}", Kind.TEXT, [text]) for n, text in enumerate(texts)),
    )


@pytest.mark.parametrize(
    "bad",
    [wide(b"b" * 16, 100, 50), wide(b"b" * 16, 100, 1, 2_000)],
    ids=["a row over 120 kB", "a text over 4 kB"],
)
def test_a_row_that_fits_into_no_message_is_left_out_alone_and_counted(
    bench: Bench, bad: Table
) -> None:
    tables = (noise(b"a" * 16, 5), bad, noise(b"c" * 16, 5, 200))
    parts = bench.sealer.seal(batch_of(tables), 0)
    assert bench.sealer.left_out == len(bad.columns)
    assert [part.sequence for part in parts] == list(range(len(parts)))
    found = [value for part in parts for value in plain(bench.open(part, bench.maker).tables)]
    assert sorted(found) == sorted(plain((tables[0], tables[2])))


def test_a_row_just_short_enough_travels(bench: Bench) -> None:
    (part,) = bench.sealer.seal(batch_of((wide(b"b" * 16, 100, 40),)), 0)
    assert 100_000 < len(part.data) <= MAX_MESSAGE
    assert bench.sealer.left_out == 0


def test_more_tables_than_a_message_holds_travel_in_two(bench: Bench) -> None:
    count = columns.DEFAULT.max_tables + 1
    tables = tuple(noise(number.to_bytes(16, "big"), 1, number) for number in range(count))
    parts = bench.sealer.seal(batch_of(tables), 0)
    assert [part.sequence for part in parts] == [0, 1]
    found = [value for part in parts for value in plain(bench.open(part, bench.maker).tables)]
    assert found == plain(tables)


def test_more_gaps_than_a_header_holds_wait_for_the_next_batch(bench: Bench) -> None:
    gaps = tuple(Gap(n, STREAM, GapCause.SILENT, NOW, NOW, 0) for n in range(MAX_GAPS + 10))
    (sealed,) = bench.sealer.seal(batch_of((noise(b"d" * 16, 5),), gaps=gaps), 0)
    assert bench.open(sealed, bench.maker).header.gaps == gaps[:MAX_GAPS]


@pytest.mark.clause("C21")
def test_no_flow_device_or_record_is_readable_in_the_sealed_bytes(bench: Bench) -> None:
    (sealed,) = bench.sealer.seal(batch_of((noise(b"CANARY-DEVICE-01", 5),)), 0)
    for canary in (b"CANARY", b"remote-diagnosis", b"r" * 16, b"t" * 32, b"maker"):
        assert canary not in sealed.data
    gateway = bench.keys.gateway("maker")
    assert gateway.mailbox.encode() not in sealed.data
    assert bench.maker.public.kid in sealed.data  # what is readable, is found
