# SPDX-License-Identifier: Apache-2.0
"""The recorded series: real sensors, with their gaps, duplicates and number texts as they are.

Law:
  - nothing is cleaned: times repeat, run backwards and miss where the recording does;
  - a row without values ("?" in UCI 235) has no readings and is left out, its instant with it;
  - a device is what a household would have: one meter, one node, one weather station, with a
    pseudonym of 16 bytes of its own;
  - local times are read as UTC, as no set says otherwise.

Limits: reads `../shared/data/timeseries` beside a checkout; its README names origins and licences.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import functools
import hashlib
import lzma
import re
import tomllib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from assent.columns import Column, Kind, Quantum, Table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "timeseries"
QUANTA = Path(__file__).parent / "quanta.toml"

# Decimals beyond this come from averaging, not from a sensor; such a column stays float64.
_MOST_DECIMALS = 9


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """One attribute as it was recorded.

    Attributes:
        attribute: its name in quanta.toml.
        texts: the numbers as the file has them.
    """

    attribute: str
    texts: list[str]

    def floats(self) -> list[float]:
        """The numbers as a source would hand them over."""
        return list(map(float, self.texts))

    def as_recorded(self) -> tuple[Kind, Quantum | None, list[int] | list[float]]:
        """The column that keeps the texts' values: exact decimals, or float64 of averaged ones."""
        places = max(len(text.partition(".")[2]) for text in self.texts)
        if places > _MOST_DECIMALS or any("e" in text.lower() for text in self.texts):
            return Kind.FLOAT, None, self.floats()
        units = [int(Fraction(text) * 10**places) for text in self.texts]
        return Kind.NUMBER, Quantum(1, 10**places), units


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One device of a recording: shared instants and its attributes."""

    name: str
    times: list[int]
    attributes: tuple[Recorded, ...]

    @property
    def pseudonym(self) -> bytes:
        """16 bytes as good as random."""
        return hashlib.sha256(self.name.encode()).digest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One data set, or one appliance of tracebase.

    Attributes:
        name: as in the figures.
        family: its table in quanta.toml.
        runs: recordings that are batched apart; the devices of a run share its rows.
    """

    name: str
    family: str
    runs: tuple[tuple[Device, ...], ...]

    def quanta(self) -> dict[str, Quantum]:
        """The committed resolution of each attribute."""
        return {
            attribute: Quantum.of(entry["quantum"])
            for attribute, entry in _table()[self.family].items()
        }


@functools.cache
def _table() -> dict[str, dict[str, dict[str, float]]]:
    """The committed quantum table."""
    return tomllib.loads(QUANTA.read_text())


def at_quantum(series: Series) -> list[list[Table]]:
    """Each run as one large table for each device, in whole quanta."""
    quanta = series.quanta()
    return [
        [
            Table(
                device.pseudonym,
                device.times,
                tuple(
                    Column(
                        recorded.attribute,
                        Kind.NUMBER,
                        quanta[recorded.attribute].units_of(recorded.floats()),
                        quanta[recorded.attribute],
                    )
                    for recorded in device.attributes
                ),
            )
            for device in run
        ]
        for run in series.runs
    ]


def as_recorded(series: Series) -> list[list[Table]]:
    """Each run as one large table for each device, with the numbers as recorded."""
    runs = []
    for run in series.runs:
        tables = []
        for device in run:
            columns = []
            for recorded in device.attributes:
                kind, quantum, values = recorded.as_recorded()
                columns.append(Column(recorded.attribute, kind, values, quantum))
            tables.append(Table(device.pseudonym, device.times, tuple(columns)))
        runs.append(tables)
    return runs


def batches(run: Sequence[Table], readings: int) -> Iterator[tuple[Table, ...]]:
    """Cuts a run into batches of consecutive rows of all its devices.

    Args:
        run: tables of the same instants.
        readings: most values in a batch; the rest at the end that fills no batch is left out.
    """
    rows = max(1, readings // sum(len(table.columns) for table in run))
    for begin in range(0, len(run[0].times) - rows + 1, rows):
        yield tuple(_rows(table, begin, begin + rows) for table in run)


def _rows(table: Table, begin: int, end: int) -> Table:
    """The rows of a table from `begin` to before `end`."""
    return Table(
        table.device,
        table.times[begin:end],
        tuple(
            Column(column.attribute, column.kind, column.values[begin:end], column.quantum)
            for column in table.columns
        ),
    )


def load(data: Path = DATA) -> Iterator[Series]:
    """Reads the recordings one after the other.

    Args:
        data: the directory `timeseries` of the shared data.
    """
    yield _uci_household(data)
    yield _occupancy(data)
    yield _appliances(data)
    yield _nab(data)
    yield _skab(data)
    for path in sorted((data / "tracebase").glob("*.csv.xz")):
        yield _tracebase(path)


def names(data: Path = DATA) -> list[str]:
    """The names of all series."""
    return [series.name for series in load(data)]


def _lines(path: Path, delimiter: str, *, head: bool = True) -> list[list[str]]:
    """The rows of a compressed CSV file, without its head."""
    with lzma.open(path, "rt") as file:
        rows = list(csv.reader(file, delimiter=delimiter))
    return rows[1:] if head else rows


@functools.lru_cache(maxsize=4_096)
def _midnight(day: str, form: str) -> int:
    """A day as ms since 1970 UTC."""
    return int(dt.datetime.strptime(day, form).replace(tzinfo=dt.UTC).timestamp()) * 1_000


def _instants(days: Sequence[str], clocks: Sequence[str], form: str) -> list[int]:
    """Days and times of day (HH:MM:SS) as ms since 1970 UTC."""
    return [
        _midnight(day, form)
        + (int(clock[:2]) * 3_600 + int(clock[3:5]) * 60 + int(clock[6:8])) * 1_000
        for day, clock in zip(days, clocks, strict=True)
    ]


def _stamped(stamps: Sequence[str], form: str = "%Y-%m-%d") -> list[int]:
    """Stamps "day HH:MM:SS" as ms since 1970 UTC."""
    return _instants([stamp[:-9] for stamp in stamps], [stamp[-8:] for stamp in stamps], form)


def _device(
    name: str, times: list[int], rows: list[list[str]], attributes: dict[str, int]
) -> Device:
    """A device whose attributes stand in these columns of the rows."""
    return Device(
        name,
        times,
        tuple(
            Recorded(attribute, [row[place].strip() for row in rows])
            for attribute, place in attributes.items()
        ),
    )


def _places(attributes: Sequence[str], first: int) -> dict[str, int]:
    """Neighbouring columns, by attribute."""
    return {attribute: first + index for index, attribute in enumerate(attributes)}


def _uci_household(data: Path) -> Series:
    rows = _lines(data / "uci_household_power_1min_2006-12.csv.xz", ";")
    rows = [row for row in rows if row[2] != "?"]
    times = _instants([row[0] for row in rows], [row[1] for row in rows], "%d/%m/%Y")
    return _single("uci-household", "meter", [(times, rows)], first=2)


def _occupancy(data: Path) -> Series:
    recordings = []
    for part in ("datatest", "datatraining"):
        rows = _lines(data / f"occupancy_1min_{part}.csv.xz", ",")
        recordings.append((_stamped([row[1] for row in rows]), rows))
    return _single("occupancy", "office", recordings, first=2)


def _nab(data: Path) -> Series:
    rows = _lines(data / "nab_machine_temperature_system_failure.csv.xz", ",")
    return _single("nab-machine", "machine", [(_stamped([row[0] for row in rows]), rows)], first=1)


def _skab(data: Path) -> Series:
    recordings = []
    for path in sorted((data / "skab_pump_1s").glob("*.csv.xz")):
        rows = _lines(path, ";")
        recordings.append((_stamped([row[0] for row in rows]), rows))
    return _single("skab-pump", "pump", recordings, first=1)


def _single(
    name: str, device: str, recordings: list[tuple[list[int], list[list[str]]]], *, first: int
) -> Series:
    """A series of one device whose columns stand in the order of the quantum table."""
    places = _places(list(_table()[name]), first)
    runs = tuple((_device(device, times, rows, places),) for times, rows in recordings)
    return Series(name, name, runs)


def _appliances(data: Path) -> Series:
    rows = _lines(data / "appliances_energy_10min_part1.csv.xz", ",")
    times = _stamped([row[0] for row in rows])

    def made(name: str, places: dict[str, int]) -> Device:
        return _device(name, times, rows, places)

    weather = [name for name in _table()["appliances-energy"] if name.startswith("weather.")]
    nodes = [
        made(f"node {node}", _places(("room.temperature", "room.humidity"), 3 + 2 * node))
        for node in range(9)
    ]
    run = (
        made("meter", _places(("energy.appliances", "energy.lights"), 1)),
        *nodes,
        made("weather", _places(weather, 21)),
    )
    return Series("appliances-energy", "appliances-energy", (run,))


def _tracebase(path: Path) -> Series:
    rows = _lines(path, ";", head=False)
    times = _stamped([row[0] for row in rows], "%d/%m/%Y")
    found = re.fullmatch(r"(incomplete__)?([^_]+)__.*?(\d{4})\.(\d\d)\.(\d\d).*", path.name)
    assert found, path.name
    incomplete, appliance, *day = found.groups()
    name = f"tracebase-{appliance.lower()}-{''.join(day)}{'-incomplete' if incomplete else ''}"
    plug = _device("plug", times, rows, _places(("power.1s", "power.8s"), 1))
    return Series(name, "tracebase", ((plug,),))
