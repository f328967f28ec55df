# SPDX-License-Identifier: Apache-2.0
"""What the spool costs while nothing, 10^4 and 10^6 batches wait: put, drain, start.

Batches have 1,000 bytes, of three flows in turns. `put` is one batch in one durable transaction, as
the path puts it; `drain` is the way out by two connections: leased twenty at a time, noted as taken
by a broker, deleted by an acknowledgement. CPU per batch is what a promise is about, because the
rest is the disk's; batches per second stand beside it. `start` is the opening of the file with all
that is looked at, the file out of the page cache where the machine lets us (root).

The promise is that nothing grows with what waits: the dearest of the three may cost half as much
again as the cheapest, which is the noise of a shared machine. Steps of SQLite's machine, which have
no noise, are counted in tests/agent/test_spool.py.

A batch of 100 kB costs more than one of 1 kB, whatever waits: it is measured while nothing waits,
and `--large` adds the same while 10 GB wait, in 100,000 batches, with the growth from one to the
other. It takes 25 GB of disk for some minutes, and is not part of `make bench`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent.path import Sealed
from agent.spool import Spool
from assent.messages import StreamAck
from benchmarks.report import Figure, write

LEVELS = (0, 10_000, 1_000_000)
LARGE_BYTES = 100_000
"""Of a large batch."""
LARGE = 100_000
"""Of them: 10 GB."""
_SIZE = 1_000
_FLOWS = 3
_LOTS = 999  # batches in one transaction while it is filled
_WORK = 900  # batches that are put and drained for a figure
_WINDOW = 20
_ROUNDS = 5
_STARTS = 5
_GROWTH = 1.5
"""How much dearer the dearest may be."""
_BEGAN_MS = 1_800_000_000_000
_DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What something cost per batch: CPU in microseconds, and batches per second."""

    cpu_us: float
    per_second: float


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """What was measured while so many batches waited."""

    batches: int
    put: Sequence[Cost]
    drain: Sequence[Cost]
    start_ms: Sequence[float]
    file_bytes: int


class Filled:
    """A spool that is filled to a level, through a connection of each side.

    Args:
        path: its file.
        size: bytes of a batch.
    """

    def __init__(self, path: Path, size: int = _SIZE) -> None:
        self.path = path
        self._chance = random.Random(1)
        self._size = size
        self._next = [0] * _FLOWS
        self._stored = [0] * _FLOWS
        self.spool = Spool.open(path)
        self.carrier = Spool.open(path, create=False)
        for flow in range(_FLOWS):
            self.spool.open_lane(f"flow{flow}", "maker", flow + 1, None)

    def close(self) -> None:
        """Closes both connections."""
        self.carrier.close()
        self.spool.close()

    def fill(self, batches: int) -> None:
        """Lets so many wait."""
        done = sum(one.batches for one in self.spool.waiting().values())
        while done < batches:
            part = list(self._some(min(_LOTS, batches - done)))
            self.spool.put(part)
            done += len(part)

    def put(self) -> Cost:
        """Puts one after the other."""
        batches = list(self._some(_WORK))

        def work() -> None:
            for batch in batches:
                self.spool.put([batch])
            self.spool.enforce_quota(1 << 60)
            self.spool.expire(_BEGAN_MS)

        return _cost(work)

    def drain(self) -> Cost:
        """Takes as many out as `put` brought in."""

        def work() -> None:
            for _ in range(_WORK // _WINDOW):
                leases = self.carrier.lease("maker", _WINDOW, _BEGAN_MS)
                if len(leases) != _WINDOW:
                    raise RuntimeError(f"{len(leases)} were leased")
                self.carrier.delivered([one.id for one in leases], _BEGAN_MS)
                for one in leases:
                    self._stored[int(str(one.flow)[-1])] += 1
                acks = [StreamAck(flow + 1, stored) for flow, stored in enumerate(self._stored)]
                done = self.spool.acknowledge("maker", acks, _BEGAN_MS)
                if done.batches != _WINDOW:
                    raise RuntimeError(f"{done.batches} were deleted")

        return _cost(work)

    def _some(self, count: int) -> Iterator[Sealed]:
        for number in range(count):
            flow = number % _FLOWS
            sequence = self._next[flow]
            self._next[flow] += 1
            data = self._chance.randbytes(self._size)
            at = _BEGAN_MS + sequence * 1_000
            yield Sealed(
                flow=f"flow{flow}",
                recipient="maker",
                stream=flow + 1,
                sequence=sequence,
                data=data,
                digest=hashlib.sha256(data).digest(),
                readings=100,
                first_ms=at,
                last_ms=at + 999,
                expires_ms=at + 7 * _DAY_MS,
            )


def _cost(work: Callable[[], None]) -> Cost:
    began, began_s = time.process_time(), time.monotonic()
    work()
    took, took_s = time.process_time() - began, time.monotonic() - began_s
    return Cost(took / _WORK * 1e6, _WORK / took_s)


def starts(path: Path) -> list[float]:
    """Milliseconds of some starts."""
    took = []
    for _ in range(_STARTS):
        forget_pages(path)
        began = time.monotonic()
        spool = Spool.open(path)
        took.append((time.monotonic() - began) * 1e3)
        if spool.moved_aside is not None:
            raise RuntimeError("the spool was found damaged")
        spool.close()
    return took


def forget_pages(path: Path) -> None:
    """Takes a file out of the page cache, so that a start reads it from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def level(place: Path, batches: int, size: int = _SIZE) -> Level:
    """What everything costs while so many wait."""
    path = place / "spool.db"
    for file in place.glob("spool.db*"):
        file.unlink()
    filled = Filled(path, size)
    try:
        filled.fill(batches)
        rounds = [(filled.put(), filled.drain()) for _ in range(_ROUNDS)]
    finally:
        filled.close()
    put, drain = zip(*rounds, strict=True)
    return Level(batches, put, drain, starts(path), path.stat().st_size)


def measure(*, large: bool) -> list[Figure]:
    """Every level by itself, then the dearest beside the cheapest."""
    with tempfile.TemporaryDirectory() as place:
        levels = [level(Path(place), batches) for batches in LEVELS]
        figures = [figure for one in levels for figure in _figures(one, f"{one.batches}")]
        figures += _growth(levels, "growth")
        larges = [level(Path(place), 0, LARGE_BYTES)]
        figures += _figures(larges[0], "0.of_100_kb")
        if large:
            larges.append(level(Path(place), LARGE, LARGE_BYTES))
            figures += _figures(larges[1], "10gb")
            figures += _growth(larges, "growth.10gb")
    return figures


def _growth(levels: Sequence[Level], name: str) -> Iterator[Figure]:
    """The dearest beside the cheapest."""
    for what in ("put", "drain"):
        costs = [_middle(getattr(one, what)) for one in levels]
        grew = max(costs) / min(costs)
        yield Figure(
            name=f"spool.{what}.{name}",
            value=round(grew, 2),
            unit="times",
            target=f"<= {_GROWTH}",
            holds=grew <= _GROWTH,
            detail={
                "cpu_us_per_batch": [round(cost) for cost in costs],
                "waiting": [one.batches for one in levels],
            },
        )


def _figures(one: Level, name: str) -> list[Figure]:
    figures = [
        Figure(
            name=f"spool.{what}.batches_per_second.{name}",
            value=round(statistics.median(cost.per_second for cost in costs)),
            unit="batches/s",
            detail={
                "cpu_us_per_batch": round(_middle(costs)),
                "runs": [round(cost.per_second) for cost in costs],
            },
        )
        for what, costs in (("put", one.put), ("drain", one.drain))
    ]
    figures.append(
        Figure(
            name=f"spool.start_ms.{name}",
            value=round(statistics.median(one.start_ms), 1),
            unit="ms",
            detail={
                "runs": [round(took, 1) for took in one.start_ms],
                "file_mb": round(one.file_bytes / 1e6),
            },
        )
    )
    return figures


def _middle(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.cpu_us for cost in costs)


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="10 GB too")
    figures = measure(large=parser.parse_args().large)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
