# SPDX-License-Identifier: Apache-2.0
"""A recording (CSV) read as if its appliance were there, at its own speed or any other.

Path: CSV file → decode.recording → **Sample**.
Law:
  - a replay stamps from now on: the first row is now, and a row recorded t later comes t / speed
    later; so values keep their order and spacing, and no sample lies in the future;
  - rows come in the order of the file; duplicate and backward stamps are kept as they stand;
  - with speed 0 rows come as fast as they can be read, and the rows of one read share its instant;
  - while it is closed a recording stands still: opened again it goes on where it was, so that no
    row is stamped into a time in which nobody was allowed to look;
  - a gap longer than the device's `fresh` shows as silence, as it did in life;
  - a row whose time cannot be read, or that is no CSV, is left out and counted; a cell without a
    value leaves out its attribute.

A column mapped to `device.serial` names the device, too: the first row's value is its serial.

Security: reads one file, which the technician named; a file that is not CSV costs bounded memory.
Limits: 65,536 characters a line, 256 rows a read; plays once and ends.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from firmware_bridge import stamps
from firmware_bridge.clock import Clock, Pace
from firmware_bridge.decode.recording import Block, Cell, Row
from firmware_bridge.profile import Profile
from firmware_bridge.profile.fields import ColumnName, Csv, Field
from firmware_bridge.sample import Device, EndOfSource, Instant, Sample, Source, SourceError
from firmware_bridge.sources.registry import SourceConfig

SERIAL: Final = "device.serial"

# Rows decoded at a time. Eight columns of 2,048 rows held 2.6 MB more, and were no faster: 330 ns a
# value, against 280 with 256 (benchmarks/memory.py).
_BLOCK_ROWS: Final = 256
_MOST_LINE: Final = 65_536

log = logging.getLogger(__name__)


def attributes(config: SourceConfig) -> frozenset[str]:
    """What the recording can deliver: what its profile maps."""
    return frozenset() if config.profile is None else config.profile.attributes


def make(config: SourceConfig, clock: Clock) -> Source:
    """Makes the source of a recording; `config.port` is its path.

    Raises:
        SourceError: no path, no profile, or a profile that does not describe a recording.
    """
    profile = config.profile
    if config.port is None:
        raise SourceError("a replay needs a port: the path of its recording")
    if profile is None or profile.csv is None:
        raise SourceError("a replay needs a profile that names the columns of its recording")
    return ReplaySource(config, Path(config.port), profile, profile.csv, clock)


class ReplaySource:
    """Plays one recording once."""

    def __init__(
        self, config: SourceConfig, path: Path, profile: Profile, layout: Csv, clock: Clock
    ) -> None:
        self._speed = config.speed
        self._every_ms = int(config.every)
        self._path = path
        self._profile = profile
        self._layout = layout
        self._clock = clock
        self._device = Device(config.device_id, config.kind)
        self._recording: _Recording | None = None
        self._pace = Pace(clock, self._every_ms)
        self._rows_read = 0
        # Rows that are decoded and not yet due: ms by the recording, and what stands there.
        self._ready: list[tuple[int, Row]] = []
        self._next = 0
        self._first_ms: int | None = None
        # Where the first row lies on this machine's monotonic clock, and how long it has played.
        self._began_ms = 0
        self._played_ms = 0

    def open(self) -> None:
        """Opens the recording and goes to where it was left.

        Raises:
            SourceError: it cannot be read, or lacks a column that the profile names.
        """
        self.close()
        self._recording = _Recording(self._path, self._profile, self._layout, self._rows_read)
        self._pace = Pace(self._clock, self._every_ms)
        self._began_ms = self._clock.now().mono_ms - self._played_ms

    def read(self) -> list[Sample]:
        """Gives the rows that became due since the last read, at most a block of them.

        Raises:
            SourceError: the recording cannot be read on.
            EndOfSource: it has been read to its end.
        """
        if self._recording is None:
            raise SourceError("the recording is read before it is opened")
        # Behind, and always at speed 0, the next block is not waited for.
        if self._next < len(self._ready) and not self._pace.is_due():
            return []
        if self._next >= len(self._ready) and not self._fill(self._recording):
            raise EndOfSource("the recording has been read to its end")
        return self._take_due()

    def close(self) -> None:
        """Closes the file and remembers the place."""
        if self._recording is None:
            return
        self._rows_read = self._recording.rows_read
        self._played_ms = self._clock.now().mono_ms - self._began_ms
        log.info(
            "event=recording-closed device=%s rows=%d left_out=%d",
            self._device.id,
            self._rows_read,
            self._recording.left_out,
        )
        self._recording.close()
        self._recording = None

    def _fill(self, recording: _Recording) -> bool:
        self._ready, self._next = [], 0
        while not self._ready:
            block = recording.block()
            if block is None:
                return False
            self._ready = block
        if self._first_ms is None:
            self._first_ms, first = self._ready[0]
            serial = dict(zip(*first, strict=True)).get(SERIAL)
            if isinstance(serial, str):
                self._device = Device(self._device.id, self._device.kind, serial)
        return True

    def _take_due(self) -> list[Sample]:
        now = self._clock.now()
        device = self._device
        rows = islice(self._ready, self._next, None)
        if self._speed == 0:
            self._next = len(self._ready)
            return [Sample(device, now, names, values) for _, (names, values) in rows if names]
        first_ms = self._first_ms or 0
        played_ms = now.mono_ms - self._began_ms
        samples = []
        for stamp, (names, values) in rows:
            ago_ms = played_ms - int((stamp - first_ms) / self._speed)
            if ago_ms < 0:
                break
            self._next += 1
            if names:
                at = Instant(now.wall_ms - ago_ms, now.mono_ms - ago_ms, now.trusted)
                samples.append(Sample(device, at, names, values))
        return samples


class _Recording:
    """An open file as blocks of decoded rows.

    Attributes:
        rows_read: data rows taken from the file, from its first; blank lines are no rows.
        left_out: since it was opened, rows without a readable time and what was no row at all.
    """

    def __init__(self, path: Path, profile: Profile, layout: Csv, skip: int) -> None:
        self._file = _open(path)
        self.rows_read = self.left_out = 0
        try:
            self._rows = csv.reader(self._lines(), delimiter=layout.delimiter)
            names = _names(self._take(1)) if layout.header else {}
            columns = layout.time if isinstance(layout.time, list) else [layout.time]
            self._times = tuple(_index(names, column) for column in columns)
            self._parse_time = stamps.parser(layout.time_format)
            self._block = Block([_cell(names, field) for field in profile.fields])
            self.rows_read = self.left_out = 0
            while self.rows_read < skip and self._take(min(skip - self.rows_read, _BLOCK_ROWS)):
                pass
        except BaseException:
            self._file.close()
            raise

    def block(self) -> list[tuple[int, Row]] | None:
        """The next rows that have a time, with it; None at the end of the file."""
        rows = self._take(_BLOCK_ROWS)
        if not rows:
            return None
        timed = [
            (stamp, row)
            for stamp, row in zip(map(self._time, rows), self._block.decode(rows), strict=True)
            if stamp is not None
        ]
        self.left_out += len(rows) - len(timed)
        return timed

    def close(self) -> None:
        self._file.close()

    def _lines(self) -> Iterator[str]:
        while line := self._file.readline(_MOST_LINE):
            if len(line) < _MOST_LINE or line.endswith("\n"):
                yield line
                continue
            self.left_out += 1
            while len(line) == _MOST_LINE and not line.endswith("\n"):
                line = self._file.readline(_MOST_LINE)

    def _take(self, count: int) -> list[list[str]]:
        """At most so many rows; none only at the end."""
        rows: list[list[str]] = []
        while len(rows) < count:
            try:
                for row in self._rows:
                    if row:
                        rows.append(row)
                        if len(rows) == count:
                            break
                else:
                    break
            except csv.Error:  # a field over csv's own limit; the reader starts anew after it
                self.left_out += 1
            except OSError as exc:
                raise SourceError(f"the recording cannot be read on: {_reason(exc)}") from exc
        self.rows_read += len(rows)
        return rows

    def _time(self, row: list[str]) -> int | None:
        try:
            if len(self._times) == 1:
                return self._parse_time(row[self._times[0]])
            return self._parse_time(" ".join(row[index] for index in self._times))
        except IndexError:
            return None


def _open(path: Path) -> io.TextIOWrapper:
    try:
        if not path.is_file():
            raise SourceError("expected the path of a recording, got no file there")
        # utf-8-sig: spreadsheets put a byte-order mark before the first name.
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except (OSError, ValueError) as exc:
        raise SourceError(f"the recording cannot be opened: {_reason(exc)}") from exc


def _names(rows: list[list[str]]) -> dict[str, int]:
    """Column names to their places; of a name that stands twice the first counts."""
    header = rows[0] if rows else []
    return {name.strip(): index for index, name in reversed(list(enumerate(header)))}


def _index(names: dict[str, int], column: ColumnName) -> int:
    if isinstance(column, int):
        return column - 1
    if column not in names:
        raise SourceError(f"the recording has no column {column!r}, which its profile names")
    return names[column]


def _cell(names: dict[str, int], field: Field) -> Cell:
    return Cell(
        attribute=field.attribute,
        index=_index(names, field.column if field.column is not None else 1),
        type=field.type,
        scale=field.scale,
        absent=tuple(field.absent),
    )


def _reason(exc: Exception) -> str:
    """What the system said, without the path, which may hold a serial number."""
    return (exc.strerror or "unknown").lower() if isinstance(exc, OSError) else "not a path"
