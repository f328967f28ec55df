# SPDX-License-Identifier: Apache-2.0
"""What it costs to make one sector durable every few seconds, by the way it is written.

On an ext4 of its own with its log on a second loop device (benchmarks/wear.py), one file of 2 MB is
written in place, or longer, as often as the journal of open batches commits, and nothing else
happens. `card` is what the file system wrote, `ext4_log` what its log did: the file's new time of
modification, committed every five seconds. It is what a day of any program costs at least that
keeps data by the commit interval in a file of an ext4 mounted by default; what is left below the
promise is for everything else.

The ways: `direct` is the journal's own (O_DIRECT, fdatasync, blocks that were written before);
`dsync` O_DSYNC instead of the sync; `page` through the page cache; `mmap` with msync; `unwritten`
into blocks that are only allocated; `append` to a file that grows. Four more tell what the log is
written for: `noatime` opens with O_NOATIME, `unsynced` asks for no sync, `fsync` for one that
covers the times, and `lazytime` is the first on a card that is mounted so. All run side by side.

Needs root, mkfs.ext4 and loop devices; says so and measures nothing elsewhere.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import mmap
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, write
from benchmarks.wear import Card, is_possible, written

WAYS = ("direct", "dsync", "page", "mmap", "unwritten", "append")
WHYS = ("noatime", "unsynced", "fsync", "lazytime")
EVERY_S = (1, 5, 30)
"""Of the first way; the others write every five."""
_FILE = 2 << 20
_SECTOR = 512
_PAGE = 4_096
_SETTLES_S = 12.0
_SECONDS = 300
_DAY_S = 86_400


def make(path: Path, way: str) -> None:
    """The file, with its blocks on the disk."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        if way == "unwritten":
            os.posix_fallocate(descriptor, 0, _FILE)
        else:
            os.write(descriptor, bytes(_FILE))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep(path: Path, way: str, at: int) -> None:
    """Makes a sector durable."""
    if way == "mmap":
        with path.open("r+b") as file, mmap.mmap(file.fileno(), _FILE) as pages:
            pages[at : at + _SECTOR] = os.urandom(_SECTOR)
            pages.flush(at, _PAGE)
        return
    how = {"page": 0, "append": os.O_APPEND, "dsync": os.O_DIRECT | os.O_DSYNC}
    how["noatime"] = os.O_DIRECT | os.O_NOATIME
    descriptor = os.open(path, os.O_WRONLY | how.get(way, os.O_DIRECT))
    with mmap.mmap(-1, _SECTOR) as data:  # begins at a page
        data[:] = os.urandom(_SECTOR)
        os.pwrite(descriptor, data, at)
    if way == "fsync":
        os.fsync(descriptor)
    elif way not in {"dsync", "unsynced"}:
        os.fdatasync(descriptor)
    os.close(descriptor)


def one(way: str, every_s: int, seconds: int) -> Figure:
    """One row."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        card = Card(Path(place), "noatime,lazytime" if way == "lazytime" else "noatime")
        stack.callback(card.close)
        path = card.mount / "file"
        make(path, way)
        time.sleep(_SETTLES_S)
        before, began = written(card.mount, card.name, card.log), time.monotonic()
        for number in range(seconds // every_s):
            keep(path, way, number * _PAGE % _FILE)
            time.sleep(max(began + (number + 1) * every_s - time.monotonic(), 0))
        after = written(card.mount, card.name, card.log)
        scale = _DAY_S / (time.monotonic() - began) / 1e6
    data, log = ((last - first) * scale for first, last in zip(before, after, strict=True))
    return Figure(
        name=f"sector.mb_per_day.{way}.{every_s}s",
        value=round(data + log, 1),
        unit="MB/day",
        detail={"ext4_log": round(log, 1), "card": round(data, 1), "measured_s": seconds},
    )


def main() -> int:
    """Prints the figures and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=_SECONDS)
    seconds = parser.parse_args().seconds
    if not is_possible():
        sys.stderr.write("sector: needs root, mkfs.ext4 and loop devices; nothing was measured\n")
        return 0
    rows = [(WAYS[0], every_s) for every_s in EVERY_S] + [(way, 5) for way in (*WAYS[1:], *WHYS)]
    with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
        write(list(pool.map(lambda row: one(row[0], row[1], seconds), rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
