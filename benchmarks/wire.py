# SPDX-License-Identifier: Apache-2.0
"""Bytes per reading on the wire, over every recorded series: `python -m benchmarks.wire`.

A reading is one value of one attribute at one instant. A batch is consecutive rows of all devices
of a recording; every whole batch of a recording counts, with pseudonyms, names, quanta and times.

    columns        the payload, 1,000 readings in a batch; `.10000` of 10,000
    xz             `xz -9e` of the very bytes the payload deflates, as an .xz file: heads, names
                   and planes as they stand before deflate
    sealed         the whole message at 1,000: signed, sealed to an X25519 key
    sealed_pq      the whole message at 10,000: signed, sealed to an MLKEM768-X25519 key
    lossless       columns with the numbers as recorded: decimals of up to nine places as whole
                   numbers, longer ones as float64
    json           a JSON object for each reading, with names and ISO times; json_deflate: that,
                   zlib level 6, batch by batch

Targets: columns at most 1.10 times xz; sealed and sealed_pq at most 0.25 bytes more than columns
at their size. xz of bytes that were packed well is small, and of bytes that were packed badly
large; so that packing cannot make the ratio look better than it is, `detail` has a second ratio,
to xz of plain planes: every column as steps (times as steps of steps) in the narrowest of 1, 2, 4
or 8 bytes, byte by byte, after the same head without plane codes. It is no promise.

Every batch is decoded, and its values compared, before its bytes are counted. `rounding_error` is
the largest difference between a recorded number and the one that arrives, in quanta.

CPU: `wire.encode_cpu` is user and system time of `columns.encode` from lists of whole numbers at
10,000, the median of five rounds over one series of each data set.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from operator import sub
from pathlib import Path
from typing import Final, cast

from assent import columns, envelope
from assent.columns import Table
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import BatchHeader, ClockQuality
from benchmarks import series as recordings
from benchmarks.baselines import Batch, json_rows, plain_planes, xz
from benchmarks.report import Figure, write
from benchmarks.series import Series

SIZES: Final = (1_000, 10_000)
RATIO: Final = 1.10
ENVELOPE: Final = 0.25
ENCODE_US: Final = 0.25
ROUNDS: Final = 5
# JSON is 250 times as large as what is measured here; a sample of so many batches tells the same.
JSON_BATCHES: Final = 20
# One of each data set; five rounds of all would take minutes and say the same.
TIMED: Final = (
    "uci-household",
    "occupancy",
    "appliances-energy",
    "nab-machine",
    "skab-pump",
    "tracebase-pc-desktop-20120105",
)

_MAILBOX: Final = "0123456789abcdef" * 2
_HEADER: Final = BatchHeader(
    recipient="maker",
    flow="remote-diagnosis",
    terms=bytes(range(32)),
    record=bytes(range(16)),
    stream=0x0123456789ABCDEF,
    sequence=1_234,
    epoch=20_000,
    clock=ClockQuality.TRUSTED,
)


@dataclasses.dataclass(slots=True)
class Count:
    """Bytes and readings, added up over batches."""

    readings: int = 0
    size: int = 0

    def add(self, readings: int, size: int) -> None:
        """Counts one batch."""
        self.readings, self.size = self.readings + readings, self.size + size

    @property
    def each(self) -> float:
        """Bytes per reading."""
        return self.size / self.readings


def checked(batch: Batch) -> bytes:
    """Encodes a batch and compares every value that comes back."""
    payload = columns.encode(batch)
    if columns.decode(payload) != batch:
        raise AssertionError("a batch did not come back as it was")
    return payload


def all_batches(runs: Sequence[Sequence[Table]], size: int) -> Iterator[Batch]:
    """Every whole batch of every run; a run shorter than a batch is one batch."""
    for run in runs:
        found = False
        for batch in recordings.batches(run, size):
            found = True
            yield batch
        if not found:
            yield tuple(run)


class Sealing:
    """A gateway and a recipient of one suite."""

    def __init__(self, *, classical: bool) -> None:
        self._signer = SigningKey.generate()
        self._reader = SealPrivateKey.generate(classical=classical)

    def size(self, batch: Batch, payload: bytes) -> int:
        """Signs, seals, opens and compares; gives the bytes of the message."""
        signed = envelope.sign_batch(_HEADER, payload, self._signer, _MAILBOX)
        message = envelope.seal(signed, self._reader.public, _MAILBOX)
        opened = envelope.open_batch(
            message,
            key=self._reader,
            signer=self._signer.public,
            mailbox=_MAILBOX,
            recipient=_HEADER.recipient,
        )
        if opened.tables != batch:
            raise AssertionError("a batch did not come out of its seal as it went in")
        return len(message)


def measure(series: Series) -> Iterator[Figure]:
    """All figures of one series."""
    runs = recordings.at_quantum(series)
    for size in SIZES:
        yield from _columns(series.name, runs, size)
    yield _rounding(series, runs)
    for size in SIZES:
        yield from _others(series, runs, size)


def _columns(name: str, runs: Sequence[Sequence[Table]], size: int) -> Iterator[Figure]:
    """Columns against xz, and the sealed message against columns."""
    ours, theirs, plain, message = Count(), Count(), Count(), Count()
    sealing = Sealing(classical=size == SIZES[0])
    worst = 0.0
    for batch in all_batches(runs, size):
        payload = checked(batch)
        baseline = xz(zlib.decompress(payload, -15))
        count = columns.readings(batch)
        ours.add(count, len(payload))
        theirs.add(count, baseline)
        plain.add(count, xz(plain_planes(batch)))
        message.add(count, sealing.size(batch, payload))
        worst = max(worst, len(payload) / baseline)
    at = "" if size == SIZES[0] else f".{size}"
    prefix = f"wire.bytes_per_reading.{name}"
    yield Figure(
        f"{prefix}.columns{at}",
        round(ours.each, 4),
        "B",
        f"<= {RATIO * theirs.each:.4f}",
        ours.size <= RATIO * theirs.size,
        {
            "readings": ours.readings,
            "of_xz": round(ours.size / theirs.size, 3),
            "of_xz_worst_batch": round(worst, 3),
            "of_xz_of_plain_planes": round(ours.size / plain.size, 3),
        },
    )
    yield Figure(f"{prefix}.xz{at}", round(theirs.each, 4), "B")
    yield Figure(
        f"{prefix}.{'sealed' if size == SIZES[0] else 'sealed_pq'}",
        round(message.each, 4),
        "B",
        f"<= {ours.each + ENVELOPE:.4f}",
        message.size - ours.size <= ENVELOPE * ours.readings,
        {"batch": size, "added": round(message.each - ours.each, 4)},
    )


def _rounding(series: Series, runs: Sequence[Sequence[Table]]) -> Figure:
    """How far the values that arrive are from the ones recorded."""
    worst = dict.fromkeys(series.quanta(), 0.0)
    for run, tables in zip(series.runs, runs, strict=True):
        for device, table in zip(run, tables, strict=True):
            for recorded, column in zip(device.attributes, table.columns, strict=True):
                assert column.quantum
                step = column.quantum.value(1)
                arrived = column.quantum.values_of(cast("Sequence[int]", column.values))
                error = max(map(abs, map(sub, arrived, recorded.floats()))) / step
                worst[column.attribute] = max(worst[column.attribute], error)
    detail = {name: f"{error:.2f}" for name, error in worst.items() if error > 1e-6}
    return Figure(
        f"wire.rounding_error.{series.name}", round(max(worst.values()), 4), "quanta", detail=detail
    )


def _others(series: Series, runs: Sequence[Sequence[Table]], size: int) -> Iterator[Figure]:
    """The numbers as recorded, and what JSON would cost."""
    at = "" if size == SIZES[0] else f".{size}"
    prefix = f"wire.bytes_per_reading.{series.name}"
    recorded = recordings.as_recorded(series)
    exact = Count()
    for batch in all_batches(recorded, size):
        exact.add(columns.readings(batch), len(checked(batch)))
    kinds = {
        column.attribute: column.quantum.value(1) if column.quantum else "float64"
        for table in recorded[0]
        for column in table.columns
    }
    yield Figure(f"{prefix}.lossless{at}", round(exact.each, 4), "B", detail=kinds)
    every = list(all_batches(runs, size))
    text, packed = Count(), Count()
    for batch in every[:: -(-len(every) // JSON_BATCHES)]:
        rows = json_rows(batch)
        text.add(columns.readings(batch), len(rows))
        packed.add(columns.readings(batch), len(zlib.compress(rows, 6)))
    yield Figure(f"{prefix}.json{at}", round(text.each, 2), "B")
    yield Figure(f"{prefix}.json_deflate{at}", round(packed.each, 3), "B")


def encode_cpu(found: Sequence[Series]) -> Iterator[Figure]:
    """CPU of encoding, median of several rounds; beside it what one bare subtraction costs."""
    numbers = list(range(0, 3_000_000, 300))
    for series in found:
        if series.name not in TIMED:
            continue
        batches = list(all_batches(recordings.at_quantum(series), SIZES[1]))[:20]
        count = sum(map(columns.readings, batches))
        rounds, bare = [], []
        for _ in range(ROUNDS):
            started = time.process_time()
            for batch in batches:
                columns.encode(batch)
            encoded = time.process_time()
            for _ in range(50):
                list(map(sub, numbers, numbers))
            rounds.append((encoded - started) / count * 1e6)
            bare.append((time.process_time() - encoded) / len(numbers) / 50 * 1e6)
        middle = statistics.median(rounds)
        detail = {
            "rounds": [round(figure, 3) for figure in sorted(rounds)],
            "in_subtractions": round(middle / statistics.median(bare), 1),
            "columns_per_time_column": len(batches[0][0].columns),
        }
        yield Figure(
            f"wire.encode_cpu.{series.name}",
            round(middle, 3),
            "us/reading",
            f"<= {ENCODE_US}",
            middle <= ENCODE_US,
            detail,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; exit code 1 when a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=recordings.DATA, help="timeseries directory")
    parser.add_argument("--series", action="append", help="only this one (repeatable)")
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        sys.stderr.write(f"wire: no series in {options.data}; their figures stay as kept\n")
        return 0
    found = [
        series
        for series in recordings.load(options.data)
        if not options.series or series.name in options.series
    ]
    figures = [figure for series in found for figure in measure(series)]
    figures += encode_cpu(found)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
