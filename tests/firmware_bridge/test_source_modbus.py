# SPDX-License-Identifier: Apache-2.0
"""A bus of Modbus units is read, whatever happens on its wire; it is never written to."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest
import serial
from pymodbus.constants import ExcCodes
from pymodbus.simulator import DataType, SimData, SimDevice

from assent.units import Duration
from firmware_bridge.clock import Clock
from firmware_bridge.decode.requests import Request
from firmware_bridge.health import Health, State
from firmware_bridge.profile import Profile, parse_profile
from firmware_bridge.profile.fields import Requests
from firmware_bridge.sample import Sample, SilentSourceError, Source, SourceError, Value
from firmware_bridge.sources import registry
from firmware_bridge.sources.modbus import ModbusSource
from firmware_bridge.sources.modbus.frames import Question, rtu_frame, tcp_frame
from firmware_bridge.sources.registry import SourceConfig
from firmware_bridge.supervisor import Configured, Supervisor
from tests.simulators import meter
from tests.simulators.conditions import eventually
from tests.simulators.meter import Meters, RemoteMeters, TcpMeters, Washer

REPO = Path(__file__).resolve().parents[2]
TIMEOUT_S = 0.2

HEAD = """\
[profile]
source = "modbus"
about = "a washing machine with a bus"
facts = "tests/simulators/meter.py"
requests = { timeout = "200ms" }
"""
POWER = """
[[field]]
attribute = "appliance.power"
table = "input"
address = 12
type = "float32"
"""
ENERGY = """
[[field]]
attribute = "appliance.energy"
table = "input"
address = 342
type = "float32"
scale = 1000
"""
REST = """
[[field]]
attribute = "appliance.temperature"
table = "input"
address = 20
type = "int16"
scale = 0.1
absent = [0x8000]

[[field]]
attribute = "appliance.fault"
table = "input"
address = 31
type = "bits"
events = { 0 = "drain-blocked" }

[[field]]
attribute = "device.serial"
table = "holding"
address = 0
type = "text"
length = 8

[[field]]
attribute = "appliance.door"
table = "discrete"
address = 1
type = "bits"

[[field]]
attribute = "appliance.heater"
table = "coil"
address = 1
type = "bits"
"""


def profile(fields: str = POWER, line: str = "") -> Profile:
    return parse_profile(f"{HEAD}{line}\n{fields}")


def made(port: str | Path, of: Profile, unit: int = 1, *, every_ms: int = 1) -> ModbusSource:
    config = SourceConfig(
        device_id=f"washer-{unit}",
        kind="washing-machine",
        port=str(port),
        unit_id=unit,
        profile=of,
        every=Duration(every_ms),
    )
    source = registry.make("modbus", config, Clock(trust="system"))
    assert isinstance(source, ModbusSource)
    return source


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-Example_RS485-if00-port0"


@pytest.fixture
def opened() -> Iterator[Callable[..., ModbusSource]]:
    sources = []

    def open_one(*words: object, **keys: object) -> ModbusSource:
        source = made(*words, **keys)  # type: ignore[arg-type]
        source.open()
        sources.append(source)
        return source

    yield open_one
    for source in sources:
        source.close()


def until_samples(source: ModbusSource) -> list[Sample]:
    return eventually(source.read)


def merged(samples: list[Sample]) -> dict[str, Value]:
    return {
        name: value
        for sample in samples
        for name, value in zip(sample.names, sample.values, strict=True)
    }


def as_float32(text: str) -> float:
    number: float = struct.unpack(">f", struct.pack(">f", float(text)))[0]
    return number


Open = Callable[..., ModbusSource]


def test_every_table_and_type_is_read(link: Path, opened: Open) -> None:
    washer = Washer(1)
    with Meters(link, [washer]) as line:
        found = merged(until_samples(opened(link, profile(POWER + ENERGY + REST))))
        (row,) = washer.served
        assert found == {
            "appliance.power": as_float32(row["power"]),
            "appliance.energy": as_float32(str(float(row["energy"]) / 1000)) * 1000,
            "appliance.temperature": float(row["water"]),
            "device.serial": "TEST-WM-0001",
            "appliance.door": True,
            "appliance.heater": False,
        }
        assert line.functions == {1, 2, 3, 4}


def test_a_recording_is_read_row_by_row(link: Path, opened: Open) -> None:
    washer = Washer(1, start=600)
    with Meters(link, [washer]):
        source = opened(link, profile())
        values = [merged(until_samples(source))["appliance.power"] for _ in range(30)]
    assert values == [as_float32(row["power"]) for row in washer.served]
    assert len(set(values)) > 20


def test_the_serial_number_names_the_device_from_the_first_sample(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]):
        samples = until_samples(opened(link, profile(POWER + REST)))
    assert {sample.device.serial for sample in samples} == {"TEST-WM-0001"}


def test_a_fault_of_the_machine_is_an_event_each_time_it_comes(link: Path, opened: Open) -> None:
    washer = Washer(1)
    events: list[Value] = []
    with Meters(link, [washer]):
        source = opened(link, profile(POWER + REST))
        for alarm in (False, True, True, True, False, True, True):
            washer.alarm = alarm
            events += [
                value
                for sample in until_samples(source)
                for name, value in zip(sample.names, sample.values, strict=True)
                if name == "appliance.fault"
            ]
    assert events == ["drain-blocked"] * 2


# What nobody wants.


def asked(line: Meters) -> set[tuple[int, int, int]]:
    """(function, address, count) of every request since the last look."""
    frames, line.asked = line.asked, []
    return {(frame[1], *struct.unpack(">HH", frame[2:6])) for frame in frames}


def test_a_register_that_nobody_wants_is_not_asked_for(link: Path, opened: Open) -> None:
    everything = {(4, 12, 2), (4, 20, 1), (4, 31, 1), (4, 342, 2), (3, 0, 8), (2, 1, 1), (1, 1, 1)}
    with Meters(link, [Washer(1)]) as line:
        source = opened(link, profile(POWER + ENERGY + REST))
        assert len(merged(until_samples(source))) == 6
        assert asked(line) == everything
        source.choose(frozenset({"appliance.power", "appliance.door"}))
        names = {"device.serial", "appliance.power", "appliance.door"}
        assert merged(until_samples(source)).keys() == names
        assert asked(line) == {(3, 0, 8), (4, 12, 2), (2, 1, 1)}
        source.choose(None)
        assert len(merged(until_samples(source))) == 6
        assert asked(line) == everything


def test_a_register_between_two_that_are_wanted_is_thrown_away(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]) as line:
        near = profile(POWER + ENERGY + REST)
        near = msgspec.structs.replace(near, requests=Requests(gap=20, timeout=Duration(200)))
        source = opened(link, near)
        source.choose(frozenset({"appliance.power", "appliance.fault"}))
        assert merged(until_samples(source)).keys() == {"device.serial", "appliance.power"}
        assert asked(line) == {(3, 0, 8), (4, 12, 20)}


def test_an_event_that_was_left_out_is_given_when_it_is_wanted(link: Path, opened: Open) -> None:
    washer = Washer(1)
    washer.alarm = True
    found = []
    with Meters(link, [washer]):
        source = opened(link, profile(POWER + REST))
        for wanted in (None, frozenset({"appliance.power"}), None, None):
            source.choose(wanted)
            found.append(merged(until_samples(source)).get("appliance.fault"))
    assert found == ["drain-blocked", None, "drain-blocked", None]


# Faults on the wire.

SPOILT: list[tuple[str, meter.Fault, str]] = [
    ("a lost answer", meter.silence, "unit 1 does not answer"),
    ("a wrong checksum", meter.bad_checksum, "unit 1: the checksum of the answer is wrong"),
    ("an answer that stops", meter.cut(6), "unit 1: the answer was cut after 6 of 9 bytes"),
    ("another unit", meter.another_unit(9), "unit 1: another unit answered, number 9"),
    ("noise instead", lambda answer: [(0.0, b"\xff\0U")], "unit 1: 3 bytes came and no frame"),
]


@pytest.mark.parametrize(
    ("fault", "said"), [row[1:] for row in SPOILT], ids=[row[0] for row in SPOILT]
)
def test_a_spoilt_answer_is_asked_for_once_more(
    link: Path, opened: Open, fault: meter.Fault, said: str
) -> None:
    with Meters(link, [Washer(1)]) as line:
        source = opened(link, profile())
        line.faults.append(fault)
        assert source.read() == []
        assert source.read() != []
        assert line.struck == 1
        # Twice in a row is a failure, and it has a name.
        line.faults.extend([fault, fault])
        assert source.read() == []
        with pytest.raises(SourceError) as caught:
            source.read()
        assert caught.value.message.startswith(said)
        assert isinstance(caught.value, SilentSourceError) == (fault is meter.silence)
        assert line.struck == 3
        source.open()
        assert source.read() != []
        # What was wrong before makes no silence anything else.
        line.faults.extend([meter.silence, meter.silence])
        assert source.read() == []
        with pytest.raises(SilentSourceError):
            source.read()


@pytest.mark.parametrize(
    "fault",
    [
        meter.noise(b"\xff\0U"),
        meter.noise(b"\x01\x04\x04\x00"),
        meter.noise(b"", b"\x01\x03"),
        meter.byte_by_byte,
        meter.in_pieces(20261122),
        meter.late(TIMEOUT_S / 2),
    ],
    ids=[
        "noise before",
        "the beginning of a frame before",
        "noise after",
        "byte by byte",
        "in pieces (seed 20261122)",
        "slow, but in time",
    ],
)
def test_an_answer_is_heard_at_once(link: Path, opened: Open, fault: meter.Fault) -> None:
    washer = Washer(1)
    with Meters(link, [washer]) as line:
        source = opened(link, profile())
        line.faults.extend([fault] * 5)
        for _ in range(6):
            assert merged(source.read())["appliance.power"] == as_float32(
                washer.served[-1]["power"]
            )
        assert line.struck == 5
        assert len(line.asked) == 6


def test_a_late_answer_is_never_taken_for_another(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]) as line:
        source = opened(link, profile(POWER + ENERGY))
        line.faults.extend([meter.late(TIMEOUT_S * 1.3)] * 6)
        found: dict[str, set[bool]] = {"appliance.power": set(), "appliance.energy": set()}
        for _ in range(12):
            for name, value in merged(source.read()).items():
                assert isinstance(value, float)
                found[name].add(value > 10_000)
        assert line.struck == 6
    # The machine draws a few watts here, and its counter stands above 400 kWh.
    assert found == {"appliance.power": {False}, "appliance.energy": {True}}


def test_a_line_that_babbles_is_left_in_time(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]) as line:
        source = opened(link, profile())
        line.faults.extend([lambda answer: [(0.01 * n, b"\xff\0U") for n in range(100)]] * 2)
        began = time.monotonic()
        assert source.read() == []
        assert time.monotonic() - began < 4 * TIMEOUT_S
        assert line.struck == 1


@contextlib.contextmanager
def babble(line: Meters) -> Iterator[None]:
    """Somebody on the line never stops talking while the block runs."""
    ended, talks = threading.Event(), threading.Event()

    def talk() -> None:
        while not ended.wait(0.002):
            with contextlib.suppress(BlockingIOError):
                line.say(b"\xff\0U")
                talks.set()

    thread = threading.Thread(target=talk)
    thread.start()
    talks.wait(10)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_line_that_never_stops_talking_is_given_up_in_time_and_read_again(
    link: Path, opened: Open
) -> None:
    # At 300 baud a thread that has to wait for its turn is no silence.
    with Meters(link, [Washer(1)], baudrate=300) as line:
        source = opened(link, profile(line="serial = { baudrate = 300 }"))
        with babble(line):
            began = time.monotonic()
            assert source.read() == []
            with pytest.raises(SourceError, match="the line is never silent at 300 8N1") as caught:
                source.read()
            took_s = time.monotonic() - began
            assert line.asked == []
        assert 2 <= took_s < 4
        assert caught.value.hint is None  # the path's own error; the hint is for `devices find`
        source.open()
        assert "appliance.power" in merged(until_samples(source))


def test_a_device_that_never_stops_talking_over_tcp_is_given_up_in_time(opened: Open) -> None:
    ended, talks = threading.Event(), threading.Event()

    def talk() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    while not ended.is_set():
                        connection.sendall(b"\0" * 4096)
                        talks.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        source = opened(f"tcp://127.0.0.1:{listener.getsockname()[1]}", profile())
        assert talks.wait(10)
        began = time.monotonic()
        assert source.read() == []
        with pytest.raises(SourceError, match=r"never stops talking|no Modbus over TCP"):
            source.read()
        took_s = time.monotonic() - began
        ended.set()
        source.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert took_s < 4


# What a unit refuses.


def test_what_a_unit_refuses_is_named_and_the_rest_goes_on(
    link: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    washer = Washer(1)
    washer.refusals[342] = ExcCodes.ILLEGAL_ADDRESS
    with Meters(link, [washer]):
        source = opened(link, profile(POWER + ENERGY))
        for _ in range(3):
            assert merged(until_samples(source)).keys() == {"appliance.power"}
        partly = source.trouble()
        washer.refusals.clear()
        assert merged(until_samples(source)).keys() == {"appliance.power", "appliance.energy"}
        assert source.trouble() is None
    told = [record.getMessage() for record in caplog.records if "request" in record.getMessage()]
    refused = "unit 1 refuses input registers 342 to 343 (appliance.energy): illegal data address"
    assert partly == f"1 of 2 fields fails: {refused}"
    assert told == [
        f'event=request-failed device=washer-1 error="{refused}"',
        "event=request-returned device=washer-1",
    ]


def test_a_unit_that_refuses_everything_fails(link: Path, opened: Open) -> None:
    washer = Washer(1)
    washer.refusals[12] = ExcCodes.DEVICE_BUSY
    with Meters(link, [washer]), pytest.raises(SourceError) as caught:
        opened(link, profile()).read()
    assert caught.value.message.endswith("(appliance.power): device busy")
    assert not isinstance(caught.value, SilentSourceError)


def test_a_broken_sensor_is_told_once_each_way(
    link: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sensed = iter([100, 0x7FFF, 0x7FFF, 101, 102])

    async def act(
        code: int, start: int, address: int, count: int, registers: list[int], wrote: object
    ) -> None:
        registers[0] = next(sensed)

    device = SimDevice(1, [SimData(0, values=0, datatype=DataType.REGISTERS)], action=act)
    field = (
        '[[field]]\nattribute = "appliance.temperature"\ntable = "input"\naddress = 0\n'
        'type = "int16"\nscale = 0.1\nfault = [0x7FFF]\n'
    )
    with Meters(link, [device]):
        source = opened(link, profile(field))
        found, troubles = [], []
        for _ in range(5):
            found.append(merged(source.read()).get("appliance.temperature"))
            troubles.append(source.trouble())
    assert found == [10.0, None, None, 10.1, 10.2]
    broken = "1 of 1 fields fails: the device calls the sensor of appliance.temperature broken"
    assert troubles == [None, broken, broken, None, None]
    told = [record.getMessage() for record in caplog.records if "sensor" in record.getMessage()]
    assert told == [
        "event=sensor-fault device=washer-1 attribute=appliance.temperature",
        "event=sensor-returned device=washer-1 attribute=appliance.temperature",
    ]


# Several units on one bus.


def _maker(port: str | Path, of: Profile, unit: int) -> Callable[[Clock], Source]:
    return lambda _: made(port, of, unit, every_ms=10)


class Watched:
    """Sources under a supervisor that hardly rests between two attempts."""

    def __init__(self, *sources: tuple[str | Path, Profile, int]) -> None:
        self.samples: list[Sample] = []
        self.supervisor = Supervisor(
            [
                Configured(
                    device_id=f"washer-{unit}",
                    kind="washing-machine",
                    make=_maker(port, of, unit),
                    fresh_ms=30_000,
                )
                for port, of, unit in sources
            ],
            self.samples.extend,
            Clock(trust="system"),
            between=lambda low, high: 10,
        )

    def __enter__(self) -> Self:
        self.supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.supervisor.stop() == ()

    def of(self, unit: int) -> list[Sample]:
        return [sample for sample in self.samples if sample.device.id == f"washer-{unit}"]

    def health(self, unit: int) -> Health:
        return next(h for h in self.supervisor.health() if h.device_id == f"washer-{unit}")


def test_units_share_their_bus(link: Path) -> None:
    washers = [Washer(unit, serial=f"TEST-WM-000{unit}", start=600 * unit) for unit in (1, 2, 3)]
    of = profile(POWER + REST)
    with Meters(link, washers), Watched(*((link, of, unit) for unit in (1, 2, 3))) as watched:
        eventually(lambda: all(len(watched.of(unit)) >= 30 for unit in (1, 2, 3)))
    for washer in washers:
        found = [
            sample.values[sample.names.index("appliance.power")]
            for sample in watched.of(washer.unit)
            if "appliance.power" in sample.names
        ]
        assert found == [as_float32(row["power"]) for row in washer.served][: len(found)]
        serials = {sample.device.serial for sample in watched.of(washer.unit)}
        assert serials == {f"TEST-WM-000{washer.unit}"}


def test_a_silent_unit_stops_no_other(link: Path) -> None:
    with (
        Meters(link, [Washer(1), Washer(2)]) as line,
        Watched((link, profile(), 1), (link, profile(), 2)) as watched,
    ):
        eventually(lambda: watched.of(1) and watched.of(2))
        line.unplugged.add(2)
        eventually(lambda: watched.health(2).state is State.SILENT)
        assert (watched.health(2).error or "").startswith("unit 2 does not answer")
        before = len(watched.of(1))
        eventually(lambda: len(watched.of(1)) > before + 20)
        assert watched.health(1).state is State.RUNNING
        line.unplugged.clear()
        eventually(lambda: watched.health(2).state is State.RUNNING)


def test_devices_that_set_one_line_apart_are_told(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1), Washer(2)]):
        opened(link, profile(), 1)
        other = made(link, profile(line="serial = { baudrate = 19200 }"), 2)
        with pytest.raises(SourceError) as caught:
            other.open()
    message = "two devices of one port set its line apart: 9600 8N1 and 19200 8N1"
    assert caught.value.message == message


# Ports.


def test_a_port_is_opened_exclusively(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]):
        source = opened(link, profile())
        with pytest.raises(serial.SerialException, match="exclusively lock"):
            serial.Serial(str(link), exclusive=True)
        source.close()
        serial.Serial(str(link), exclusive=True).close()


def test_a_port_that_another_program_has_is_named(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)]):
        with serial.Serial(str(link), exclusive=True):
            source = made(link, profile())
            with pytest.raises(SourceError) as caught:
                source.open()
            source.close()
        assert caught.value.message == "the serial port is in use"
        assert opened(link, profile()).read() != []


def test_a_node_that_vanishes_and_returns_under_another_number_is_read_again(link: Path) -> None:
    with Meters(link, [Washer(1)]) as line, Watched((link, profile(), 1)) as watched:
        eventually(lambda: watched.of(1))
        node = link.readlink()
        keeper = os.open(node, os.O_RDWR | os.O_NOCTTY)  # so that the number is not given again
        line.vanish()
        eventually(lambda: watched.health(1).state is State.FAILED)
        eventually(lambda: "no such serial port" in (watched.health(1).error or ""))
        before = len(watched.of(1))
        line.appear()
        os.close(keeper)
        eventually(lambda: len(watched.of(1)) > before)
        assert watched.health(1).state is State.RUNNING


def test_a_wrong_baud_rate_is_named(link: Path, opened: Open) -> None:
    with Meters(link, [Washer(1)], baudrate=19200):
        source = opened(link, profile())
        assert source.read() == []
        with pytest.raises(SourceError) as caught:
            source.read()
        assert "check power, wiring, unit_id, baud rate and parity" in caught.value.message
        source.close()
        right = profile(line="serial = { baudrate = 19200 }")
        assert opened(link, right).read() != []


def test_a_parity_that_the_port_cannot_have_is_named(link: Path) -> None:
    with Meters(link, [Washer(1)]):
        source = made(link, profile(line='serial = { parity = "E" }'))
        with pytest.raises(SourceError) as caught:
            source.open()
        source.close()
    assert caught.value.message == "the serial port cannot be set to 9600 8E1"


# pyserial 3.5 starts the thread of its network port in a way that Python has deprecated.
@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")
def test_a_line_with_parity_is_read_and_a_wrong_parity_is_named(opened: Open) -> None:
    even, none = profile(line='serial = { parity = "E" }'), profile()
    with RemoteMeters([Washer(1)], parity="E") as line:
        source = opened(line.name, even)
        assert merged(until_samples(source)) != {}
        assert line.seen == (9600, "E")
        source.close()
        source = opened(line.name, none)
        assert source.read() == []
        with pytest.raises(SourceError) as caught:
            source.read()
        assert line.seen == (9600, "N")
    assert "9 bytes came and no frame; is the line right at 9600 8N1?" in caught.value.message


# TCP.


def test_units_are_read_over_tcp(opened: Open) -> None:
    washer = Washer(7)
    with TcpMeters([washer]) as line:
        source = opened(line.name, profile(POWER + REST), 7)
        found = merged(until_samples(source))
    assert found["appliance.power"] == as_float32(washer.served[0]["power"])
    assert found["device.serial"] == "TEST-WM-0001"


def test_a_connection_that_was_closed_in_the_meantime_is_opened_again(opened: Open) -> None:
    with TcpMeters([Washer(1)]) as line:
        source = opened(line.name, profile())
        assert until_samples(source) != []
        port = line.port
    with TcpMeters([Washer(1)], port=port):
        assert until_samples(source) != []


def test_nobody_there_is_named() -> None:
    with TcpMeters([Washer(1)]) as line:
        name = line.name
    source = made(name, profile())
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    assert caught.value.message == "the device cannot be connected to: connection refused"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "unit 3 does not answer; check power, unit_id"),
        (b"\0\1\0\0\0\7\3", "unit 3: the answer was cut"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unit 3: what came is no Modbus over TCP"),
    ],
    ids=["silence", "the beginning of an answer", "a web server"],
)
def test_who_does_not_answer_over_tcp_is_named(opened: Open, reply: bytes, said: str) -> None:
    def serve() -> None:
        for _ in range(2):
            # Ends with the listener, goes on when who asked resets the connection.
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(100):
                        connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        source = opened(f"tcp://127.0.0.1:{listener.getsockname()[1]}", profile(), 3)
        assert source.read() == []
        with pytest.raises(SourceError) as caught:
            source.read()
        source.close()
    assert caught.value.message == said


# What cannot be.


@pytest.mark.parametrize(
    ("port", "of", "said"),
    [
        (None, profile(), "a Modbus device needs a port"),
        ("/dev/null", None, "a Modbus device needs a profile"),
        ("tcp://host", profile(), "expected a port of the form tcp://host:port"),
        ("tcp://host:99999", profile(), "expected a port of the form tcp://host:port"),
        ("/nonexistent", profile(), "there is no such serial port; is it plugged in?"),
        ("/dev/null", profile(), "the serial port cannot be"),
    ],
    ids=["no port", "no profile", "no TCP port", "a port beyond all", "no node", "no serial node"],
)
def test_what_cannot_be_opened_is_named(port: str | None, of: Profile | None, said: str) -> None:
    config = SourceConfig(device_id="d", kind="k", port=port, profile=of)
    with pytest.raises(SourceError) as caught:
        registry.make("modbus", config, Clock(trust="system")).open()
    assert caught.value.message.startswith(said)


def test_the_room_can_only_read() -> None:
    for path in (REPO / "firmware_bridge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("pymodbus") for name in names)
    asked = [
        frame(Question(Request(table, 1, 1, ()), 1, 7))[place]
        for table in ("coil", "discrete", "holding", "input")
        for frame, place in ((rtu_frame, 1), (tcp_frame, 7))
    ]
    assert asked == [1, 1, 2, 2, 3, 3, 4, 4]


def test_no_log_line_holds_a_value_a_port_or_a_serial_number(
    link: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    washer = Washer(1, serial="TEST-CANARY-4711")
    with Meters(link, [washer]) as line:
        source = opened(link, profile(POWER + REST))
        line.faults.extend([meter.bad_checksum, meter.another_unit(9), meter.cut(6)])
        messages = []
        for _ in range(8):
            try:
                source.read()
            except SourceError as exc:
                messages.append(exc.message)
                source.open()
        assert line.struck == 3
        line.vanish()
        with pytest.raises(SourceError) as caught:
            source.read()
        line.appear()
        assert str(link) not in caught.value.message
    said = "\n".join(
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("asyncio", "pymodbus")) or record.levelno > logging.CRITICAL
    )
    assert "event=" in said
    canary = "TEST-CANARY-4711"
    for strange in (canary, canary.encode().hex(), str(link), link.name):
        assert strange not in said
