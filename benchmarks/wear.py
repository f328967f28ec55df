# SPDX-License-Identifier: Apache-2.0
"""Bytes that a day writes to the card, by commit interval and readings a second.

The gateway's state lies on an ext4 of its own on a loop device, and what is counted are the
sectors which that device wrote (/sys/block/*/stat), spool, journal, floor and the file system's own
log together; what a process is said to write (/proc/self/io) counts whole folios and lies. The real
path runs at 1, 10 and 100 readings a second in three flows with batches of 10,000 readings or ten
minutes, and what it sealed is leased, taken, and acknowledged by a message that the recipient
signed, as it would be beside a live broker.

Scaling: two simulated hours, after one that is not counted, as fast as they can be lived, times
twelve. Every sync that a day has is done, so that all of our own bytes count. What the kernel
writes by the wall clock is left out where an hour passes in seconds: whoever writes to a file
changes its time, and five seconds later ext4 commits that, three blocks in its own log (with
`lazytime` too, for files that are written directly). `real` is therefore measured at the real pace
over some minutes after the hour that is not counted (`--real MINUTES`), at 10 readings a second
with the default interval; it is the figure of the promise. Beside it stands the same on a card that
is mounted with `commit=60`, which commits those blocks once a minute and takes no sync away.

Needs root, mkfs.ext4 and a loop device; says so and measures nothing elsewhere.
"""

from __future__ import annotations

import argparse
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

from agent.keys import Gateway
from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Health, LinkState, Spool
from assent.backend.directory import Directory
from assent.envelope import Kind, seal, sign_message
from assent.messages import Acknowledgement, StreamAck
from benchmarks.path import ATTRIBUTES, policy_of
from benchmarks.report import Figure, write
from benchmarks.week import SpanClock
from demo.stage import REPO, Stage
from firmware_bridge.sample import Device, Instant, Sample

RATES = (1, 10, 100)
COMMITS_S = (1, 5, 30)
DEFAULT = (10, 5)
"""Rate and commit interval of the promise."""
TARGET_MB = 150
MOUNTED = {"": "noatime", ".commit60": "noatime,commit=60"}
"""Suffix of a row, and how the card is mounted for it."""
FLOWS = 3
_BATCH = 10_000
_HOURS = 2
_WARM_S = 3_600
_DAY_S = 86_400
_IMAGE_MB = 256
_SECTOR = 512
_WRITTEN = 6  # field of /sys/block/*/stat, from 0 (Documentation/block/stat.rst)
# How a rate is made up: samples a second, and series of each meter.
_MADE_OF = {1: (1, (1,)), 10: (1, (ATTRIBUTES, 2)), 100: (10, (ATTRIBUTES, 2))}


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """How a gateway lives.

    Attributes:
        rate: readings a second.
        seconds: for how long.
        device: name of the block device that its state lies on.
        is_real: at the pace of the machine's clock.
        warm_s: seconds that are lived before: files are made, and the first log of the spool grows.
    """

    rate: int
    seconds: int
    device: str
    is_real: bool
    warm_s: int


class Card:
    """An ext4 on a loop device, mounted; ends with `close`.

    Args:
        place: where its image and its mount point are made.
        options: how it is mounted.
    """

    def __init__(self, place: Path, options: str) -> None:
        self.mount = place / "card"
        self.mount.mkdir()
        image = place / "card.img"
        image.write_bytes(bytes(_IMAGE_MB << 20))  # no holes: they would be filled meanwhile
        _do(
            "mkfs.ext4",
            "-q",
            "-b",
            "4096",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            str(image),
        )
        device = _do("losetup", "--find", "--show", str(image)).strip()
        self.name = Path(device).name
        try:
            _do("mount", "-o", options, device, str(self.mount))
        except BaseException:
            _do("losetup", "--detach", device)
            raise

    def close(self) -> None:
        """Takes it away."""
        _do("umount", str(self.mount))
        _do("losetup", "--detach", f"/dev/{self.name}")


def written(path: Path, device: str) -> int:
    """Bytes a device has written, after the file system of a path was synced."""
    _do("sync", "--file-system", str(path))
    stat = Path("/sys/block", device, "stat").read_text()
    return int(stat.split()[_WRITTEN]) * _SECTOR


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
        site = open_site(settings, clock.now())
        path = settings.state / SPOOL
        spool = stack.enter_context(contextlib.closing(Spool.open(path)))
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        recipient = Recipient(path, backend, site.keys.gateway("maker"))
        stack.callback(recipient.close)
        recipient.connect(clock.now().wall_ms)
        meters = Meters(pace.rate)
        before = sealed = 0
        for second in range(-pace.warm_s, pace.seconds):
            if second == 0:
                before = written(gateway, pace.device)
                sealed = _sealed(pipeline)
                if pace.is_real:
                    clock.go_on()
            at_ms = begun_ms + (second + pace.warm_s) * 1000
            _reach(clock, at_ms, pipeline)
            pipeline.deliver(meters.second(at_ms))
            pipeline.turn(0)
            recipient.take(pipeline, at_ms)
        wrote = written(gateway, pace.device) - before
        told = {
            "wrote": wrote,
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


def one_day(
    rate: int, commit_s: int, *, seconds: int, is_real: bool, options: str
) -> dict[str, int]:
    """A fresh gateway on a fresh card; what it wrote, scaled to a day."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        card = Card(Path(place), options)
        stack.callback(card.close)
        stage = Stage(card.mount / "stage")
        stage.make_recipients()
        bundle = stage.publish(lambda text: policy_of(text, _BATCH, FLOWS))
        stage.make_gateway("")
        stage.enrol(bundle)
        stage.decide({f"diagnosis{index}": '"given"' for index in range(FLOWS)})
        settings = stage.gateway / "agent.toml"
        settings.write_text(
            settings.read_text().replace('commit = "5s"', f'commit = "{commit_s}s"')
        )
        pace = Pace(rate, seconds, card.name, is_real, _WARM_S)
        words = [sys.executable, "-m", "benchmarks.wear", "--live", str(stage.gateway)]
        words += [str(stage.backend_directory("maker")), json.dumps(dataclasses.astuple(pace))]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPO)
        if done.returncode:
            raise RuntimeError(done.stderr)
        told: dict[str, int] = json.loads(done.stdout)
    return told


def figure(
    rate: int, commit_s: int, *, seconds: int, is_real: bool = False, mounted: str = ""
) -> Figure:
    """One row."""
    options = MOUNTED[mounted]
    told = one_day(rate, commit_s, seconds=seconds, is_real=is_real, options=options)
    by_day = told["wrote"] * _DAY_S / seconds / 1e6
    name = f"real{mounted}" if is_real else f"{rate}_per_second.{commit_s}s"
    return Figure(
        name=f"wear.mb_per_day.{name}",
        value=round(by_day, 1),
        unit="MB/day",
        target=f"<= {TARGET_MB}" if is_real else None,
        holds=by_day <= TARGET_MB if is_real else None,
        detail={
            "readings_per_second": rate,
            "flows": FLOWS,
            "commit_s": commit_s,
            "measured_s": seconds,
            "pace": "real" if is_real else "as fast as it goes",
            "ext4": options,
            "sealed_mb_per_day": round(told["sealed_bytes"] * _DAY_S / seconds / 1e6, 1),
            "left_waiting": told["waiting"],
        },
    )


def measure(real_minutes: int) -> list[Figure]:
    """Every row; none where there is no loop device to be had."""
    parts = (shutil.which("mkfs.ext4"), Path("/dev/loop-control").exists(), os.getuid() == 0)
    if not all(parts):
        sys.stderr.write("wear: needs root, mkfs.ext4 and a loop device; nothing was measured\n")
        return []
    if real_minutes:
        seconds = real_minutes * 60
        return [figure(*DEFAULT, seconds=seconds, is_real=True, mounted=one) for one in MOUNTED]
    return [
        figure(rate, commit_s, seconds=_HOURS * 3600) for rate in RATES for commit_s in COMMITS_S
    ]


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=int, metavar="MINUTES", default=0, help="at the real pace")
    parser.add_argument("--live", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.live:
        gateway, backend, pace = arguments.live
        print(json.dumps(live(Path(gateway), Path(backend), Pace(*json.loads(pace)))))
        return 0
    figures = measure(arguments.real)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
