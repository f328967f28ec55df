# SPDX-License-Identifier: Apache-2.0
"""Bytes that a day writes to the card, by commit interval and readings a second, and whose.

The gateway's state lies on an ext4 of its own on a loop device, and what is counted are the sectors
which that device wrote (/sys/block/*/stat): what a process is said to write (/proc/self/io) counts
whole folios and lies. The file system's own log lies on a second loop device (`mkfs.ext4 -J
device=`), so that its part is known; it writes there what it would write inside. `journal` counts
what the journal of open batches wrote, to whole sectors; `rest` is SQLite's, the small files' and
the inodes' at last.

The real path runs at 1, 10 and 100 readings a second in three flows with batches of 10,000 readings
or ten minutes, and what it sealed is leased, taken, and acknowledged by a message that the
recipient signed, as it would be beside a live broker. An hour is lived first, as fast as it goes,
and not counted: files are made, and the first log of the spool grows. Then follow some times ten
minutes at the real pace, for all rows side by side, each on a card of its own, scaled to a day.

The real pace matters: whoever writes to a file changes its time, and five seconds later ext4
commits that, three blocks in its log. An hour that is lived in seconds has none of these commits,
and its figure is less than half of a day's. The row of the promise is 10 readings a second with the
default interval. Beside it stands the same on a card that is mounted with `commit=60`, which
commits those blocks once a minute and takes no sync away.

Needs root, mkfs.ext4 and loop devices; says so and measures nothing elsewhere.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.keys import Gateway
from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import JOURNAL, SPOOL, open_site
from agent.spool import Health, LinkState, Spool
from assent.backend.directory import Directory
from assent.envelope import Kind, seal, sign_message
from assent.messages import Acknowledgement, StreamAck
from benchmarks.path import ATTRIBUTES, policy_of
from benchmarks.report import Figure, write
from benchmarks.week import SpanClock
from demo.stage import REPO, Stage
from firmware_bridge.sample import Device, Instant, Sample

if TYPE_CHECKING:
    from typing_extensions import Buffer

RATES = (1, 10, 100)
COMMITS_S = (1, 5, 30)
TARGET_MB = 150
_MOUNTED = {"": "noatime", ".commit60": "noatime,commit=60"}
"""Suffix of a row, and how the card is mounted for it."""
FLOWS = 3
_BATCH = 10_000
_TENS = 2
_TEN_S = 600
_WARM_S = 3_600
_DAY_S = 86_400
_IMAGE_MB = 128
_LOG_MB = 32
_SECTOR = 512
_WRITTEN = 6  # field of /sys/block/*/stat, from 0 (Documentation/block/stat.rst)
# How a rate is made up: samples a second, and series of each meter.
_MADE_OF = {1: (1, (1,)), 10: (1, (ATTRIBUTES, 2)), 100: (10, (ATTRIBUTES, 2))}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What a figure is of: readings a second, commit interval, how the card is mounted."""

    rate: int
    commit_s: int
    mounted: str


PROMISED = Row(10, 5, "")


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """How a gateway lives.

    Attributes:
        rate: readings a second.
        seconds: for how long.
        device: name of the block device that its state lies on.
        log: and of the one that the file system's log lies on.
        warm_s: seconds that are lived before, as fast as it goes.
    """

    rate: int
    seconds: int
    device: str
    log: str
    warm_s: int


class Card:
    """An ext4 on a loop device with its log on another, mounted; ends with `close`.

    Args:
        place: where the images and the mount point are made.
        options: how it is mounted.
    """

    def __init__(self, place: Path, options: str) -> None:
        self.mount = place / "card"
        self.mount.mkdir()
        self._stack = contextlib.ExitStack()
        try:
            log = self._loop(place / "log.img", _LOG_MB)
            _do("mkfs.ext4", "-q", "-b", "4096", "-O", "journal_dev", log)
            device = self._loop(place / "card.img", _IMAGE_MB)
            lazy = "lazy_itable_init=0"
            _do("mkfs.ext4", "-q", "-b", "4096", "-E", lazy, "-J", f"device={log}", device)
            _do("mount", "-o", options, device, str(self.mount))
            self._stack.callback(_do, "umount", str(self.mount))
        except BaseException:
            self.close()
            raise
        self.name, self.log = Path(device).name, Path(log).name

    def close(self) -> None:
        """Takes it away."""
        self._stack.close()

    def _loop(self, image: Path, megabytes: int) -> str:
        image.write_bytes(bytes(megabytes << 20))  # no holes: they would be filled meanwhile
        device = _do("losetup", "--find", "--show", str(image)).strip()
        self._stack.callback(_do, "losetup", "--detach", device)
        return device


class JournalBytes:
    """What the journal of open batches writes, by os.pwrite."""

    def __init__(self) -> None:
        self.written = 0
        self._write = os.pwrite
        os.pwrite = self._counted

    def _counted(self, file: int, data: Buffer, at: int, /) -> int:
        done = self._write(file, data, at)
        if Path(f"/proc/self/fd/{file}").readlink().name == JOURNAL:
            self.written += -(-done // _SECTOR) * _SECTOR
        return done


def written(path: Path, device: str, log: str) -> tuple[int, int]:
    """Bytes that a card has written, and its log, after the file system of a path was synced."""
    _do("sync", "--file-system", str(path))
    stats = [Path("/sys/block", name, "stat").read_text() for name in (device, log)]
    data, logged = (int(stat.split()[_WRITTEN]) * _SECTOR for stat in stats)
    return data, logged


def is_possible() -> bool:
    """Whether there are loop devices to be had."""
    parts = (shutil.which("mkfs.ext4"), Path("/dev/loop-control").exists(), os.getuid() == 0)
    return all(parts)


def _do(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class Meters:
    """Meters whose series wander like a household's load; deterministic.

    Args:
        rate: readings a second of all of them.
    """

    def __init__(self, rate: int) -> None:
        self._times, series = _MADE_OF[rate]
        self._chance = random.Random(1)
        self._devices = [
            (Device(f"bench{number}", "meter"), tuple(f"meter.s{index}" for index in range(count)))
            for number, count in enumerate(series)
        ]
        self._values = [[2_300.0 + 100 * index for index in range(count)] for count in series]

    def second(self, start_ms: int) -> list[Sample]:
        """What they say within one second."""
        made = []
        for number in range(self._times):
            at_ms = start_ms + number * 1000 // self._times
            at = Instant(at_ms, at_ms, trusted=True)
            for (device, names), values in zip(self._devices, self._values, strict=True):
                for index in range(len(values)):
                    values[index] += self._chance.randrange(-3, 4) * 0.1
                made.append(Sample(device, at, names, tuple(values)))
        return made


class Recipient:
    """The broker and the backend of a gateway, without a network: takes and acknowledges.

    Args:
        path: the spool.
        directory: the backend's.
        gateway: its keys of this recipient.
    """

    def __init__(self, path: Path, directory: Path, gateway: Gateway) -> None:
        self._spool = Spool.open(path, create=False)
        self._key = Directory.open(directory).ack_key()
        self._gateway = gateway
        self._stored: dict[int, int] = {}

    def connect(self, now_ms: int) -> None:
        """Says that it is reached."""
        self._spool.report("maker", Health(LinkState.CONNECTED, now_ms, ""))

    def take(self, pipeline: Pipeline, now_ms: int) -> None:
        """Takes what waits, and acknowledges it."""
        leases = self._spool.lease("maker", 20, now_ms) if self._spool.changed() else []
        if not leases:
            return
        self._spool.delivered([lease.id for lease in leases], now_ms)
        for lease in leases:
            view = pipeline.spool.lanes().get(lease.flow or "")
            if view is not None and view.stream is not None:
                self._stored[view.stream] = view.next_sequence
        acks = [StreamAck(stream, upto) for stream, upto in sorted(self._stored.items())]
        body = Acknowledgement(tuple(acks)).encode()
        mailbox = self._gateway.mailbox
        signed = sign_message(Kind.ACKNOWLEDGEMENT, body, self._key, mailbox)
        self._spool.receive("maker", seal(signed, self._gateway.seal.public, mailbox), now_ms)

    def close(self) -> None:
        """Closes its end of the spool."""
        self._spool.close()


def live(gateway: Path, backend: Path, pace: Pace) -> dict[str, int]:
    """The gateway's part, in a process of its own."""
    logging.disable()
    settings = load_settings(gateway)
    begun_ms = (time.time_ns() // 1_000_000_000 + 2) * 1000
    clock = SpanClock(begun_ms)
    with instance_lock(settings.state), contextlib.ExitStack() as stack:
        site = open_site(settings, clock)
        path = settings.state / SPOOL
        spool = stack.enter_context(contextlib.closing(Spool.open(path)))
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        recipient = Recipient(path, backend, site.keys.gateway("maker"))
        stack.callback(recipient.close)
        recipient.connect(clock.now().wall_ms)
        meters = Meters(pace.rate)
        journal = JournalBytes()
        before, sealed = (0, 0), 0
        for second in range(-pace.warm_s, pace.seconds):
            if second == 0:
                before, sealed = written(gateway, pace.device, pace.log), _sealed(pipeline)
                journal.written = 0
                clock.go_on()
            at_ms = begun_ms + (second + pace.warm_s) * 1000
            _reach(clock, at_ms, pipeline)
            pipeline.deliver(meters.second(at_ms))
            pipeline.turn(0)
            recipient.take(pipeline, at_ms)
        after = written(gateway, pace.device, pace.log)
        told = {
            "card": after[0] - before[0],
            "log": after[1] - before[1],
            "journal": journal.written,
            "sealed_bytes": _sealed(pipeline) - sealed,
            "waiting": sum(one.batches for one in spool.waiting().values()),
        }
        pipeline.stop()
    return told


def _sealed(pipeline: Pipeline) -> int:
    return sum(one.bytes for one in pipeline.running.tallies.values())


def _reach(clock: SpanClock, at_ms: int, pipeline: Pipeline) -> None:
    if not clock.goes_on:
        clock.at_ms = at_ms
    while (left_ms := at_ms - clock.now().wall_ms) > 0:
        pipeline.turn(min(left_ms, 100) / 1000)


def one_day(row: Row, seconds: int) -> dict[str, int]:
    """A fresh gateway on a fresh card; what it wrote."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        card = Card(Path(place), _MOUNTED[row.mounted])
        stack.callback(card.close)
        stage = Stage(card.mount / "stage")
        stage.make_recipients()
        bundle = stage.publish(lambda text: policy_of(text, _BATCH, FLOWS))
        stage.make_gateway("")
        stage.enrol(bundle)
        stage.decide({f"diagnosis{index}": '"given"' for index in range(FLOWS)})
        settings = stage.gateway / "agent.toml"
        settings.write_text(
            settings.read_text().replace('commit = "5s"', f'commit = "{row.commit_s}s"')
        )
        pace = Pace(row.rate, seconds, card.name, card.log, _WARM_S)
        words = [sys.executable, "-m", "benchmarks.wear", "--live", str(stage.gateway)]
        words += [str(stage.backend_directory("maker")), json.dumps(dataclasses.astuple(pace))]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPO)
        if done.returncode:
            raise RuntimeError(done.stderr)
        told: dict[str, int] = json.loads(done.stdout)
    return told


def figure(row: Row, seconds: int) -> Figure:
    """One row."""
    told = one_day(row, seconds)
    by_day = {
        name: told[name] * _DAY_S / seconds / 1e6
        for name in ("card", "log", "journal", "sealed_bytes")
    }
    value = by_day["card"] + by_day["log"]
    is_promised = row == PROMISED
    return Figure(
        name=f"wear.mb_per_day.{row.rate}_per_second.{row.commit_s}s{row.mounted}",
        value=round(value, 1),
        unit="MB/day",
        target=f"<= {TARGET_MB}" if is_promised else None,
        holds=value <= TARGET_MB if is_promised else None,
        detail={
            "ext4_log": round(by_day["log"], 1),
            "journal": round(by_day["journal"], 1),
            "rest": round(by_day["card"] - by_day["journal"], 1),
            "sealed": round(by_day["sealed_bytes"], 2),
            "flows": FLOWS,
            "measured_s": seconds,
            "pace": "real",
            "ext4": _MOUNTED[row.mounted],
            "left_waiting": told["waiting"],
        },
    )


def measure(tens: int) -> list[Figure]:
    """Every row; none where there is no loop device to be had."""
    if not is_possible():
        sys.stderr.write("wear: needs root, mkfs.ext4 and a loop device; nothing was measured\n")
        return []
    rows = [Row(rate, commit_s, "") for rate in RATES for commit_s in COMMITS_S]
    rows.append(dataclasses.replace(PROMISED, mounted=".commit60"))
    with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(lambda row: figure(row, tens * _TEN_S), rows))


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tens", type=int, default=_TENS, help="times ten minutes that are lived")
    parser.add_argument("--live", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.live:
        gateway, backend, pace = arguments.live
        print(json.dumps(live(Path(gateway), Path(backend), Pace(*json.loads(pace)))))
        return 0
    figures = measure(arguments.tens)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
