# SPDX-License-Identifier: Apache-2.0
"""What is exported is what was stored, value for value, and nothing of custody."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.backend.export import HEAD, csv_lines, json_lines
from assent.backend.ingest import judge
from assent.backend.store import Store, Taken
from assent.columns import Column, Kind, Quantum, Table
from assent.cosekey import SealPrivateKey
from tests.backend.parts import NOW_MS, PSEUDONYM, START_MS, Hand, desk, offers, power

OURS = SealPrivateKey.generate(classical=True)
HAND = Hand.make()
FLOW = "remote-diagnosis"
OTHER = bytes(range(16, 32))

TABLES = [
    Table(
        PSEUDONYM,
        [START_MS + 1000, START_MS + 2000],
        (
            Column("appliance.power", Kind.NUMBER, [-31, 2**53 + 1], Quantum(1, 10)),
            Column("appliance.fault", Kind.TEXT, ["E01", "E02"]),
            Column("appliance.heating", Kind.BOOLEAN, [True, False]),
            Column("device.serial", Kind.BYTES, [bytes(16), b"\xff" * 16]),
            Column("location.area", Kind.POSITION, [(-90, 180), (0, -17)], Quantum(1, 100)),
        ),
    ),
    Table(OTHER, [START_MS], (Column("appliance.power", Kind.NUMBER, [5], Quantum(1, 10)),)),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    data = HAND.batch(OURS.public, TABLES)
    terms = offers()[FLOW].terms
    opened.readings.publish(FLOW, terms.hash, terms.encode(), "2026-11-01", 17)
    opened.put([Taken(judge(HAND.topic, data, desk([HAND], OURS)), data, NOW_MS)])
    yield opened
    opened.close()


def test_every_reading_is_one_line_of_json(store: Store) -> None:
    rows = [json.loads(line) for line in json_lines(store.readings, FLOW)]
    assert all(tuple(row) == HEAD for row in rows)
    found = [(row["time"], row["pseudonym"], row["attribute"], row["value"]) for row in rows]
    first, second = "2026-11-22T00:00:01.000Z", "2026-11-22T00:00:02.000Z"
    ours = PSEUDONYM.hex()
    assert found == [
        (first, ours, "appliance.fault", "E01"),
        (second, ours, "appliance.fault", "E02"),
        (first, ours, "appliance.heating", True),
        (second, ours, "appliance.heating", False),
        (first, ours, "appliance.power", -3.1),
        (second, ours, "appliance.power", Quantum(1, 10).value(2**53 + 1)),
        (first, ours, "device.serial", "00" * 16),
        (second, ours, "device.serial", "ff" * 16),
        (first, ours, "location.area", [-0.9, 1.8]),
        (second, ours, "location.area", [0.0, -0.17]),
        ("2026-11-22T00:00:00.000Z", OTHER.hex(), "appliance.power", 0.5),
    ]
    assert {row["attribute"]: row["unit"] for row in rows}["appliance.power"] == "W"


def test_csv_says_the_same_as_json(store: Store) -> None:
    text = "".join(csv_lines(store.readings, FLOW))
    head, *rows = csv.reader(io.StringIO(text))
    assert tuple(head) == HEAD
    as_json = [json.loads(line) for line in json_lines(store.readings, FLOW)]
    assert len(rows) == len(as_json)
    for row, said in zip(rows, as_json, strict=True):
        flat = {
            list: lambda value: " ".join(map(str, value)),
            bool: lambda value: str(value).lower(),
        }.get(type(said["value"]), str)(said["value"])
        assert row[:4] == [said["time"], said["pseudonym"], said["attribute"], flat]
        assert row[4] == (said["unit"] or "")


def test_nothing_of_custody_is_exported(store: Store) -> None:
    text = "".join([*json_lines(store.readings, FLOW), *csv_lines(store.readings, FLOW)])
    (kept,) = store.custody.batches(None, 10)
    assert kept.mailbox == HAND.mailbox
    hidden = [HAND.mailbox, HAND.sign.public.raw.hex(), HAND.sign.public.thumbprint.hex()]
    assert [one for one in hidden if one in text] == []


def test_a_flow_is_exported_by_a_command_and_another_is_refused(
    sites: dict[str, Directory], capsys: pytest.CaptureFixture[str]
) -> None:
    maker = sites["maker"]
    (key,) = maker.seal_keys().values()
    hand = Hand.make()
    opened = Store(maker.root)
    data = hand.batch(key.public, power(3))
    opened.put([Taken(judge(hand.topic, data, desk([hand], key)), data, NOW_MS)])
    opened.close()
    assert main(["export", str(maker.root), FLOW]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["export", str(maker.root), FLOW, "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["export", str(maker.root), "remote-diagnosys"]) == 2
    said = capsys.readouterr()
    assert (said.out, "did you mean remote-diagnosis?" in said.err) == ("", True)
