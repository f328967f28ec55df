# SPDX-License-Identifier: Apache-2.0
"""Recordings played back: every value as it stands there, stamped from now on."""

from __future__ import annotations

import calendar
import logging
import lzma
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assent.units import Duration
from firmware_bridge.profile import Profile, parse_profile
from firmware_bridge.sample import EndOfSource, Sample, Source, SourceError, Value
from firmware_bridge.sources import registry
from firmware_bridge.sources.registry import SourceConfig
from tests.simulators.clock import START_MS, ManualClock

PLUG = """
[profile]
source = "replay"
about = "a plug"
facts = "made for this test"
csv = { time = "time" }
[[field]]
attribute = "appliance.power"
column = "power"
"""
WITH_DOOR = (
    PLUG
    + """
[[field]]
attribute = "appliance.door"
column = "door"
type = "boolean"
[[field]]
attribute = "device.serial"
column = "serial"
type = "text"
"""
)


def config_of(path: Path, profile: Profile | str, speed: float = 1.0) -> SourceConfig:
    parsed = parse_profile(profile) if isinstance(profile, str) else profile
    return SourceConfig(
        device_id="plug",
        kind="plug",
        port=str(path),
        profile=parsed,
        every=Duration.parse("1s"),
        speed=speed,
    )


@contextmanager
def playing(
    path: Path,
    profile: Profile | str = PLUG,
    speed: float = 1.0,
    clock: ManualClock | None = None,
) -> Iterator[Source]:
    source = registry.make(
        "replay", config_of(path, profile, speed), clock or ManualClock(flowing=True)
    )
    source.open()
    yield source
    source.close()


def read_all(source: Source) -> list[Sample]:
    samples: list[Sample] = []
    while True:
        try:
            samples += source.read()
        except EndOfSource:
            return samples


def recording(tmp_path: Path, *lines: str, header: str = "time,power") -> Path:
    path = tmp_path / "recording.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def at(second: int, *cells: str) -> str:
    return ",".join([f"2020-01-01T00:00:{second:02}Z", *cells])


def offsets(samples: list[Sample]) -> list[int]:
    return [sample.at.wall_ms - START_MS for sample in samples]


# Speed and stamps.


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (1.0, [0, 1_000, 3_000, 10_000]),
        (10.0, [0, 100, 300, 1_000]),
        (0.5, [0, 2_000, 6_000, 20_000]),
    ],
    ids=["its own speed", "ten times faster", "half as fast"],
)
def test_rows_keep_their_spacing_divided_by_the_speed(
    tmp_path: Path, speed: float, expected: list[int]
) -> None:
    path = recording(tmp_path, at(10, "1"), at(11, "2"), at(13, "3"), at(20, "4"))
    clock = ManualClock(flowing=True)
    mono = clock.now().mono_ms
    with playing(path, speed=speed, clock=clock) as source:
        samples = read_all(source)
    assert offsets(samples) == expected
    assert [sample.at.mono_ms - mono for sample in samples] == expected
    assert [sample.values for sample in samples] == [(1.0,), (2.0,), (3.0,), (4.0,)]


def test_no_sample_comes_before_its_time(tmp_path: Path) -> None:
    path = recording(tmp_path, at(0, "1"), at(1, "2"), at(5, "3"))
    clock = ManualClock(flowing=True)
    came: list[int] = []
    with playing(path, clock=clock) as source:
        while len(came) < 3:
            for sample in source.read():
                assert sample.at.mono_ms <= clock.now().mono_ms
                came.append(clock.now().wall_ms - START_MS)
    assert came == [0, 1_000, 5_000]


def test_at_speed_zero_rows_come_at_once_with_the_instant_of_their_read(tmp_path: Path) -> None:
    path = recording(tmp_path, *[at(second, str(second)) for second in range(60)])
    clock = ManualClock()
    with playing(path, speed=0, clock=clock) as source:
        samples = source.read()
        assert [sample.values[0] for sample in samples] == list(range(60))
        assert {sample.at for sample in samples} == {clock.now()}
        with pytest.raises(EndOfSource):
            source.read()
    assert list(clock.waits) == []


def test_a_step_of_the_wall_clock_moves_the_stamps_and_not_the_pace(tmp_path: Path) -> None:
    path = recording(tmp_path, at(0, "1"), at(1, "2"), at(2, "3"))
    clock = ManualClock(flowing=True)
    with playing(path, clock=clock) as source:
        samples = source.read()
        clock.step(3_600_000)
        clock.trusted = False
        samples += read_all(source)
    assert offsets(samples) == [0, 3_601_000, 3_602_000]
    assert [sample.at.trusted for sample in samples] == [True, False, False]


def test_duplicate_and_backward_stamps_stay_as_they_stand(tmp_path: Path) -> None:
    path = recording(tmp_path, at(10, "1"), at(12, "2"), at(12, "3"), at(9, "4"), at(13, "5"))
    with playing(path) as source:
        samples = read_all(source)
    assert offsets(samples) == [0, 2_000, 2_000, -1_000, 3_000]
    assert [sample.values[0] for sample in samples] == [1, 2, 3, 4, 5]


def test_a_fast_replay_is_not_held_up_by_its_period(tmp_path: Path) -> None:
    lines = [f"{stamp},{stamp}" for stamp in range(20_000)]
    path = recording(tmp_path, *lines)
    clock = ManualClock(flowing=True)
    profile = PLUG.replace('time = "time"', 'time = "time", time_format = "unix"')
    with playing(path, profile, speed=10_000, clock=clock) as source:
        samples = read_all(source)
    assert [sample.values[0] for sample in samples] == list(range(20_000))
    assert clock.now().wall_ms - START_MS <= 3_000


def test_a_closed_recording_stands_still(tmp_path: Path) -> None:
    path = recording(tmp_path, *[at(second, str(second)) for second in range(20)])
    clock = ManualClock(flowing=True)
    with playing(path, clock=clock) as source:
        samples = source.read()
        while len(samples) < 5:
            samples += source.read()
        source.close()
        clock.advance(3_600_000)
        source.open()
        samples += read_all(source)
    assert [sample.values[0] for sample in samples] == list(range(20))
    expected = [1_000 * second + (0 if second < 5 else 3_600_000) for second in range(20)]
    assert offsets(samples) == expected


def test_a_long_recording_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = recording(tmp_path, *[f"{stamp},{stamp}" for stamp in range(7_000)])
    profile = PLUG.replace('time = "time"', 'time = "time", time_format = "unix"')
    clock = ManualClock(flowing=True)
    with playing(path, profile, speed=0, clock=clock) as source:
        samples = source.read()
        while len(samples) < 3_000:
            samples += source.read()
        source.close()
        source.open()
        samples += read_all(source)
    assert [sample.values[0] for sample in samples] == list(range(7_000))


# What stands in the file.


def test_a_row_with_missing_values_has_fewer_names(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        at(0, "1", "0", "TEST-1"),
        at(1, "2", "", ""),
        at(2, "", "yes", ""),
        at(3, "", "", ""),
        at(4, "3"),
        header="time,power,door,serial",
    )
    with playing(path, WITH_DOOR) as source:
        samples = read_all(source)
    assert [(sample.names, sample.values) for sample in samples] == [
        (("appliance.power", "appliance.door", "device.serial"), (1.0, False, "TEST-1")),
        (("appliance.power",), (2.0,)),
        (("appliance.door",), (True,)),
        (("appliance.power",), (3.0,)),
    ]
    assert samples[1].names is samples[3].names
    assert offsets(samples) == [0, 1_000, 2_000, 4_000]


def test_the_serial_of_the_first_row_names_the_device(tmp_path: Path) -> None:
    header = "time,power,door,serial"
    path = recording(tmp_path, at(0, "1", "", "TEST-1"), at(1, "2", "", "TEST-2"), header=header)
    with playing(path, WITH_DOOR) as source:
        samples = read_all(source)
    assert {(sample.device.id, sample.device.serial) for sample in samples} == {("plug", "TEST-1")}
    path = recording(tmp_path, at(0, "1", "", ""), at(1, "2", "", "TEST-2"), header=header)
    with playing(path, WITH_DOOR) as source:
        assert {sample.device.serial for sample in read_all(source)} == {None}


def test_a_row_without_a_readable_time_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = recording(
        tmp_path, "soon,1", at(10, "2"), ",3", "\n", at(11, "4"), "2020-01-01T00:00:99Z,5"
    )
    with playing(path) as source:
        samples = read_all(source)
    assert [sample.values for sample in samples] == [(2.0,), (4.0,)]
    assert offsets(samples) == [0, 1_000]
    assert "event=recording-closed device=plug rows=5 left_out=3" in caplog.text


def test_spreadsheets_habits_are_borne(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"time";" power "\r\n'
        b'"2020-01-01 00:00:00";"  1.5"\r\n'
        b'2020-01-01 00:00:01;"2.5";"more";"cells"\r\n'
        b"2020-01-01 00:00:02;3.5"
    )
    profile = PLUG.replace('time = "time"', 'time = "time", delimiter = ";"')
    with playing(path, profile) as source:
        assert [sample.values for sample in read_all(source)] == [(1.5,), (2.5,), (3.5,)]


def test_bytes_that_are_no_text_cost_their_cell_only(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"time,power,door,serial\n2020-01-01,1,0,\xff\xfe\n2020-01-01,2\x00,1,ok\n2020-01-01,3,1,ok\n"
    )
    with playing(path, WITH_DOOR) as source:
        samples = read_all(source)
    assert [sample.values for sample in samples] == [(1.0, False), (True, "ok"), (3.0, True, "ok")]


def test_a_field_beyond_all_measure_costs_its_row_only(tmp_path: Path) -> None:
    swallowed = "\n".join(["x" * 60_000] * 3)
    path = recording(tmp_path, at(0, "1"), f'"{swallowed}"', at(2, "2"), at(3, "3"))
    with playing(path) as source:
        samples = read_all(source)
    # csv gives up inside the field; what is left of it closes with a quote that opens another.
    assert samples[0].values == (1.0,)
    assert all(sample.values[0] in {1.0, 2.0, 3.0} for sample in samples)


@pytest.mark.parametrize("length", [65_535, 65_536, 200_000])
def test_a_line_beyond_all_measure_costs_itself_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    caplog.set_level(logging.INFO)
    path = recording(tmp_path, at(0, "1"), "0" * length, at(2, "2"))
    with playing(path) as source:
        samples = read_all(source)
    assert [sample.values for sample in samples] == [(1.0,), (2.0,)]
    assert "left_out=1" in caplog.text


def test_a_last_line_without_end_is_read_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"time,power\n" + b"0" * 200_000)
    with playing(path) as source:
        assert read_all(source) == []


def test_an_empty_recording_ends_at_once(tmp_path: Path) -> None:
    with playing(recording(tmp_path)) as source, pytest.raises(EndOfSource):
        source.read()


@pytest.mark.parametrize(
    "what", ["a directory", "a pipe", "nothing", "a name with a NUL", "a name too long"]
)
def test_what_is_no_recording_is_an_error_without_its_path(tmp_path: Path, what: str) -> None:
    path = tmp_path / "TEST-CANARY"
    if what == "a directory":
        path.mkdir()
    if what == "a pipe":
        os.mkfifo(path)
    odd = {"a name with a NUL": Path("TEST\0CANARY"), "a name too long": tmp_path / ("CANARY" * 50)}
    name = odd.get(what, path)
    with pytest.raises(SourceError) as caught, playing(name):
        pass
    assert "recording" in caught.value.message
    assert "CANARY" not in caught.value.message + str(caught.value.hint)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = recording(tmp_path, at(0, "1"), header="time,watts")
    with (
        pytest.raises(SourceError, match="has no column 'power', which its profile names"),
        playing(path),
    ):
        pass


def test_a_replay_needs_a_path_and_a_profile(tmp_path: Path) -> None:
    clock = ManualClock()
    config = config_of(tmp_path, PLUG)
    meter = (
        PLUG.replace("replay", "modbus")
        .replace('csv = { time = "time" }', "")
        .replace('column = "power"', 'table = "input"\naddress = 1\ntype = "int16"')
    )
    for wrong, expected in (
        (SourceConfig(device_id="d", kind="k", profile=config.profile), "needs a port"),
        (SourceConfig(device_id="d", kind="k", port="r.csv"), "needs a profile"),
        (config_of(tmp_path, meter), "needs a profile"),
    ):
        with pytest.raises(SourceError, match=expected):
            registry.make("replay", wrong, clock)
    source = registry.make("replay", config, clock)
    with pytest.raises(SourceError, match="before it is opened"):
        source.read()
    source.close()


# Real recordings.


def fields(*names: str | int, absent: str = "[]") -> str:
    return "".join(
        f'[[field]]\nattribute = "a.{index}"\ncolumn = {name!r}\nabsent = {absent}\n'.replace(
            "'", '"'
        )
        for index, name in enumerate(names)
    )


def layout(csv_table: str) -> str:
    return f'[profile]\nsource = "replay"\nabout = "series"\nfacts = "shared/data"\ncsv = {{ {csv_table} }}\n'


PUMP = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)
HOUSEHOLD = (
    "Global_active_power",
    "Global_reactive_power",
    "Voltage",
    "Global_intensity",
    "Sub_metering_1",
    "Sub_metering_2",
    "Sub_metering_3",
)
ENERGY = (
    "Appliances",
    "lights",
    *(f"{kind}{room}" for room in range(1, 10) for kind in ("T", "RH_")),
    "T_out",
    "Press_mm_hg",
    "RH_out",
    "Windspeed",
    "Visibility",
    "Tdewpoint",
    "rv1",
    "rv2",
)
TRACE_TIME = '"%d/%m/%Y %H:%M:%S"'

# Which columns, as they are numbered in the rows (from 0), and how the day is written.
SERIES: dict[str, tuple[str, list[int], int, str]] = {
    "skab_pump_1s": (layout('time = "datetime", delimiter = ";"') + fields(*PUMP), list(range(1, 9)), 1, "%Y-%m-%d"),
    "tracebase": (layout(f'time = 1, time_format = {TRACE_TIME}, delimiter = ";", header = false') + fields(2, 3), [1, 2], 0, "%d/%m/%Y"),
    "occupancy": (layout("time = 2") + fields(3, 4, 5, 6, 7, 8), list(range(2, 8)), 1, "%Y-%m-%d"),
    "nab": (layout('time = "timestamp"') + fields("value"), [1], 1, "%Y-%m-%d"),
    "appliances": (layout('time = "date"') + fields(*ENERGY), list(range(1, 29)), 1, "%Y-%m-%d"),
    "uci": (layout(f'time = ["Date", "Time"], time_format = {TRACE_TIME}, delimiter = ";"') + fields(*HOUSEHOLD, absent='["?"]'), list(range(2, 9)), 1, "%d/%m/%Y"),
}  # fmt: skip


Plain = tuple[int, tuple[str, ...], tuple[float, ...]]


def plainly(text: str, delimiter: str, kind: str) -> Iterator[Plain]:
    """The same file read another way: split, time.strptime, float."""
    _, columns, head, pattern = SERIES[kind]
    names = tuple(f"a.{place}" for place in range(len(columns)))
    known: dict[str, int] = {}
    for line in text.replace('"', "").splitlines()[head:]:
        row = line.split(delimiter)
        stamp = {"occupancy": row[1], "uci": f"{row[0]} {row[1]}"}.get(kind, row[0])
        day, _, clock = stamp.partition(" ")
        if day not in known:
            known[day] = calendar.timegm(time.strptime(day, pattern))
        hours, minutes, seconds = clock.split(":")
        at_ms = (known[day] + int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1000
        cells = [row[column] for column in columns if column < len(row)]
        if len(cells) == len(columns) and "?" not in cells and "" not in cells:
            yield at_ms, names, tuple(map(float, cells))
            continue
        there = [
            (n, float(cell)) for n, cell in zip(names, cells, strict=False) if cell not in {"", "?"}
        ]
        yield at_ms, tuple(n for n, _ in there), tuple(value for _, value in there)


def kind_of(path: Path) -> str:
    return next(kind for kind in SERIES if kind in (path.parent.name, path.name.split("_")[0]))


def test_every_value_of_every_recording_arrives_as_it_stands(
    shared_data: Path, tmp_path: Path
) -> None:
    paths = sorted((shared_data / "timeseries").rglob("*.csv.xz"))
    total = rows = without = 0
    for path in paths:
        profile = SERIES[kind_of(path)][0]
        text = lzma.decompress(path.read_bytes()).decode()
        plain = tmp_path / "plain.csv"
        plain.write_text(text, newline="")
        delimiter = ";" if 'delimiter = ";"' in profile else ","
        everything = list(plainly(text, delimiter, kind_of(path)))
        first = everything[0][0]
        expected = [row for row in everything if row[1]]
        with playing(plain, profile, speed=1e6) as source:
            samples = read_all(source)
        assert len(samples) == len(expected), path.name
        for sample, (stamp, names, values) in zip(samples, expected, strict=True):
            assert (sample.names, sample.values) == (names, values), path.name
            assert sample.at.wall_ms - START_MS == int((stamp - first) / 1e6), path.name
            total += len(values)
        rows += len(samples)
        without += len(everything) - len(expected)
    assert len(paths) == 35
    assert rows > 1_100_000
    assert total > 2_500_000
    assert without > 0, "the series with rows of question marks is not among them"


def test_a_quarter_of_a_million_values_are_read_in_a_cpu_second(
    shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "timeseries/skab_pump_1s/anomaly-free_anomaly-free.csv.xz"
    plain = tmp_path / "plain.csv"
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    best = 0.0
    for _ in range(3):
        with playing(plain, SERIES["skab_pump_1s"][0], speed=0) as source:
            begun = time.process_time()
            values = sum(len(sample.values) for sample in read_all(source))
            best = max(best, values / (time.process_time() - begun))
    # 2.4 million on the development machine; this bound finds a conversion gone per reading.
    assert best > 250_000


def test_a_boolean_or_text_column_of_a_recording_keeps_its_type(tmp_path: Path) -> None:
    path = recording(tmp_path, at(0, "1", "1", "TEST-1"), header="time,power,door,serial")
    with playing(path, WITH_DOOR) as source:
        (sample,) = read_all(source)
    kinds: list[type[Value]] = [type(value) for value in sample.values]
    assert kinds == [float, bool, str]
