# SPDX-License-Identifier: Apache-2.0
"""One dead device never stops another; what is silent is opened again and reported."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assent.errors import KeyStoreError
from assent.units import Duration
from firmware_bridge.clock import Clock
from firmware_bridge.health import Health, State
from firmware_bridge.sample import Device, EndOfSource, Sample, Source, SourceError
from firmware_bridge.sources.registry import SourceConfig, make
from firmware_bridge.supervisor import Configured, Supervisor
from tests.simulators.clock import ManualClock

CANARY = "TEST-SERIAL-0815"
Step = list[int] | BaseException


def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.001)


def sample(clock: Clock, device_id: str, value: int) -> Sample:
    return Sample(Device(device_id, "washer"), clock.now(), ("appliance.power",), (value,))


class Scripted:
    """A source that reads what the test wrote down, then goes on as its last step did."""

    def __init__(
        self, clock: Clock, device_id: str, *steps: Step, opens: tuple[Step, ...] = ()
    ) -> None:
        self.clock, self.device_id = clock, device_id
        self.steps, self.opens = list(steps), list(opens)
        self.opened = self.closed = self.reads = self.made = 0

    def make(self) -> Source:
        self.made += 1
        return self

    def open(self) -> None:
        self.opened += 1
        step = self.opens.pop(0) if self.opens else []
        if isinstance(step, BaseException):
            raise step

    def read(self) -> list[Sample]:
        self.reads += 1
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return [sample(self.clock, self.device_id, value) for value in step]

    def close(self) -> None:
        self.closed += 1


class PipeSource:
    """Reads one number a line from a real file descriptor, as a serial source would."""

    def __init__(self, clock: Clock, device_id: str, fd: int) -> None:
        self.clock, self.device_id, self.fd = clock, device_id, fd

    def open(self) -> None:
        if self.fd < 0:
            raise SourceError("the pipe is gone")

    def read(self) -> list[Sample]:
        if not select.select([self.fd], [], [], 0.05)[0]:
            return []
        lines = os.read(self.fd, 4096).split()
        if not lines:
            raise SourceError("the other end has hung up")
        return [sample(self.clock, self.device_id, int(line)) for line in lines]

    def close(self) -> None:
        pass


class Tray:
    """Where the samples arrive."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def __call__(self, samples: list[Sample]) -> None:
        self.samples += samples

    def of(self, device_id: str) -> list[object]:
        return [one.values[0] for one in self.samples if one.device.id == device_id]


Starter = Callable[..., Supervisor]


@pytest.fixture
def start() -> Iterator[Starter]:
    started: list[Supervisor] = []

    def begin(*configured: Configured, **rest: object) -> Supervisor:
        wanted = rest.pop("wanted", None)
        supervisor = Supervisor(configured, **rest)  # type: ignore[arg-type]
        started.append(supervisor)
        supervisor.start(wanted)  # type: ignore[arg-type]
        return supervisor

    yield begin
    for supervisor in started:
        supervisor.stop()


def configured(source: Scripted, *, fresh_ms: int | None = 30_000) -> Configured:
    return Configured(
        device_id=source.device_id, kind="washer", make=lambda _: source.make(), fresh_ms=fresh_ms
    )


def health_of(supervisor: Supervisor, device_id: str) -> Health:
    return next(one for one in supervisor.health() if one.device_id == device_id)


def test_what_a_device_says_arrives(start: Starter) -> None:
    clock, tray = Clock(), Tray()
    reader, writer = os.pipe()
    source = PipeSource(clock, "meter", reader)
    supervisor = start(
        Configured(device_id="meter", kind="meter", make=lambda _: source, fresh_ms=30_000),
        deliver=tray,
        clock=clock,
    )
    assert health_of(supervisor, "meter").state is State.STARTING
    os.write(writer, b"1 2\n")
    until(lambda: tray.of("meter") == [1, 2])
    os.write(writer, b"3\n")
    until(lambda: tray.of("meter") == [1, 2, 3])
    health = health_of(supervisor, "meter")
    assert (health.state, health.failures, health.error) == (State.RUNNING, 0, None)
    assert health.last_sample_ms is not None
    assert abs(health.last_sample_ms - time.time() * 1000) < 5000
    os.close(writer)
    until(lambda: health_of(supervisor, "meter").state is State.FAILED)
    assert health_of(supervisor, "meter").error == "the other end has hung up"
    assert supervisor.stop() == ()
    assert health_of(supervisor, "meter").state is State.STOPPED
    os.close(reader)


class Partly(Scripted):
    """As `Scripted`, with a part that fails while the rest goes on."""

    failing: str | None = None

    def trouble(self) -> str | None:
        return self.failing


def test_a_part_that_fails_is_told_while_the_rest_goes_on(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Partly(clock, "meter", [1])
    supervisor = start(configured(source), deliver=tray, clock=clock)
    until(lambda: health_of(supervisor, "meter").samples > 0)
    since_ms = health_of(supervisor, "meter").since_ms
    assert health_of(supervisor, "meter").error is None
    for told in ("1 of 2 fields fails", None):
        source.failing = told
        until(lambda told=told: health_of(supervisor, "meter").error == told)
        health = health_of(supervisor, "meter")
        assert (health.state, health.failures, health.since_ms) == (State.RUNNING, 0, since_ms)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (SourceError("the port is busy"), "the port is busy"),
        (KeyStoreError("no such thing here"), "no such thing here"),
        (ValueError(f"bad value {CANARY}"), "ValueError in the source"),
        (OSError(5, "I/O error", f"/dev/serial/by-id/{CANARY}"), "OSError in the source"),
        (SystemExit(CANARY), "SystemExit in the source"),
        (RecursionError(CANARY), "RecursionError in the source"),
    ],
    ids=[
        "an error of a source",
        "an error of the house from elsewhere",
        "a foreign error",
        "an error that names a port",
        "a library that wants to leave",
        "a stack that overflowed",
    ],
)
def test_one_dead_device_never_stops_another(
    start: Starter, caplog: pytest.LogCaptureFixture, failure: BaseException, told: str
) -> None:
    caplog.set_level(logging.DEBUG)
    clock, tray = ManualClock(flowing=True), Tray()
    dead = Scripted(clock, "dead", failure)
    alive = Scripted(clock, "alive", [1], [])
    both = configured(dead, fresh_ms=None), configured(alive, fresh_ms=None)
    supervisor = start(*both, deliver=tray, clock=clock)
    until(lambda: dead.opened >= 3 and tray.of("alive") == [1])
    assert health_of(supervisor, "alive").state is State.RUNNING
    health = health_of(supervisor, "dead")
    assert (health.state, health.error) == (State.FAILED, told)
    assert health.failures >= 2
    assert supervisor.stop() == ()
    assert dead.closed == dead.opened
    assert CANARY not in caplog.text + repr(supervisor.health())
    assert caplog.text.count("event=source-failed device=dead") == 1


@pytest.mark.parametrize("where", ["make", "open"])
def test_a_source_that_cannot_be_opened_is_tried_again(start: Starter, where: str) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", [7], [])
    troubles = [ImportError("no module"), SourceError("not yet")]
    if where == "open":
        source.opens = list(troubles)
        troubles = []

    def made(_: Clock) -> Source:
        if troubles:
            raise troubles.pop(0)
        return source.make()

    supervisor = start(
        Configured(device_id="meter", kind="meter", make=made, fresh_ms=None),
        deliver=tray,
        clock=clock,
    )
    until(lambda: tray.of("meter") == [7])
    health = health_of(supervisor, "meter")
    assert (health.state, health.failures, health.error) == (State.RUNNING, 2, None)
    assert source.made == 1


def test_a_silent_source_is_closed_reported_and_opened_again(
    start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", [])
    seen: list[Health] = []
    supervisor = start(configured(source, fresh_ms=5_000), deliver=tray, clock=clock)
    until(lambda: source.opened >= 2)
    seen.append(health_of(supervisor, "meter"))
    assert seen[0].state is State.SILENT
    assert seen[0].error == "nothing came for more than 5s"
    assert seen[0].last_sample_ms is None
    source.steps = [[1], []]
    until(lambda: tray.of("meter") == [1])
    supervisor.stop()
    assert source.closed == source.opened
    assert "event=source-failed device=meter" in caplog.text
    assert "event=source-returned device=meter" in caplog.text


def test_a_source_that_speaks_in_time_is_left_alone(start: Starter) -> None:
    clock, tray = ManualClock(), Tray()
    source = Scripted(clock, "meter", [1], [])
    supervisor = start(configured(source, fresh_ms=5_000), deliver=tray, clock=clock)
    until(lambda: tray.of("meter") == [1])
    for turn in range(2, 12):
        clock.advance(4_000)
        source.steps = [[turn], []]
        until(lambda turn=turn: tray.of("meter")[-1] == turn)  # type: ignore[misc]
        reads = source.reads
        clock.advance(20)
        until(lambda reads=reads: source.reads > reads)  # type: ignore[misc]
    assert (source.opened, health_of(supervisor, "meter").failures) == (1, 0)
    clock.advance(5_001)
    until(lambda: health_of(supervisor, "meter").state is State.SILENT)


def test_a_source_that_may_be_silent_is_never_opened_again(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", [])
    start(configured(source, fresh_ms=None), deliver=tray, clock=clock)
    until(lambda: source.reads > 500)
    assert source.opened == 1


def test_a_slow_pipeline_does_not_make_a_source_silent(start: Starter) -> None:
    clock = ManualClock()
    source = Scripted(clock, "meter", [1], [])

    def slow(_samples: list[Sample]) -> None:
        clock.advance(60_000)

    supervisor = start(configured(source, fresh_ms=5_000), deliver=slow, clock=clock)
    until(lambda: source.reads == 2)
    assert source.opened == 1
    assert health_of(supervisor, "meter").state is State.RUNNING


def test_pauses_double_up_to_a_minute_and_end_with_a_sample(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", SourceError("no answer"))
    asked: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        asked.append((low, high))
        if len(asked) == 8:
            source.steps = [[1], SourceError("no answer")]
        return high

    start(configured(source), deliver=tray, clock=clock, between=longest)
    until(lambda: len(asked) >= 10)
    assert [high for _, high in asked[:10]] == [
        2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000, 2_000, 4_000,
    ]  # fmt: skip
    assert {low for low, _ in asked} == {1_000}
    assert {2_000, 4_000, 8_000, 16_000, 32_000, 60_000} <= set(clock.waits)


def test_pauses_differ_from_gateway_to_gateway(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", SourceError("no answer"))
    start(configured(source), deliver=tray, clock=clock)
    until(lambda: len(clock.waits) >= 12)
    waits = list(clock.waits)
    assert all(1_000 <= wait <= 60_000 for wait in waits)
    assert len(set(waits)) > 6


def test_the_end_of_a_recording_is_not_opened_again(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    ended = Scripted(clock, "ended", [1], EndOfSource("read to its end"))
    failed = Scripted(clock, "failed", [1], SourceError("broken"))
    supervisor = start(configured(ended), configured(failed), deliver=tray, clock=clock)
    until(lambda: failed.opened >= 5)
    until(lambda: health_of(supervisor, "ended").state is State.ENDED)
    assert (ended.opened, ended.closed) == (1, 1)
    assert (tray.of("ended"), health_of(supervisor, "ended").failures) == ([1], 0)
    supervisor.stop()
    assert health_of(supervisor, "ended").state is State.ENDED


def test_a_pipeline_that_fails_is_counted_and_stops_no_source(
    start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", [1], [2, 3], [4], [])

    def sometimes(samples: list[Sample]) -> None:
        if samples[0].values[0] != 4:
            raise RuntimeError(CANARY)
        tray(samples)

    supervisor = start(configured(source, fresh_ms=None), deliver=sometimes, clock=clock)
    until(lambda: tray.of("meter") == [4])
    until(lambda: health_of(supervisor, "meter").samples == 4)
    health = health_of(supervisor, "meter")
    assert (health.undelivered, health.failures, health.state) == (3, 0, State.RUNNING)
    assert caplog.text.count("event=delivery-failed") == 1
    assert caplog.text.count("event=delivery-returned") == 1
    assert CANARY not in caplog.text


def test_a_source_that_cannot_close_is_opened_again_all_the_same(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "meter", SourceError("no answer"), [1], [])

    def refuses() -> None:
        source.closed += 1
        raise OSError("busy")

    source.close = refuses  # type: ignore[method-assign]
    supervisor = start(configured(source, fresh_ms=None), deliver=tray, clock=clock)
    until(lambda: tray.of("meter") == [1])
    assert supervisor.stop() == ()
    assert source.closed == 2


def test_a_recording_that_cannot_close_has_ended_all_the_same(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    source = Scripted(clock, "ended", [1], EndOfSource("read to its end"))

    def refuses() -> None:
        raise OSError("busy")

    source.close = refuses  # type: ignore[method-assign]
    supervisor = start(configured(source), deliver=tray, clock=clock)
    until(lambda: health_of(supervisor, "ended").state is State.ENDED)
    assert health_of(supervisor, "ended").failures == 0


def test_a_source_that_failed_before_is_stopped_without_a_pause(start: Starter) -> None:
    clock, tray = ManualClock(), Tray()
    source = Scripted(clock, "meter", SourceError("no answer"), [])
    pauses = [0.0, 60_000.0]
    supervisor = start(
        configured(source), deliver=tray, clock=clock, between=lambda _low, _high: pauses.pop(0)
    )
    until(lambda: source.opened == 2 and len(clock.waits) == 2)
    assert supervisor.stop() == ()
    assert pauses == [60_000.0]


def test_what_is_not_wanted_is_not_opened_until_it_is(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    one, other = Scripted(clock, "one", [1]), Scripted(clock, "other", [2])
    supervisor = start(
        configured(one), configured(other), deliver=tray, clock=clock, wanted={"other"}
    )
    until(lambda: len(tray.of("other")) > 10)
    until(lambda: health_of(supervisor, "one").state is State.IDLE)
    assert (one.made, one.opened) == (0, 0)
    supervisor.want({"one"})
    until(lambda: len(tray.of("one")) > 10)
    until(lambda: health_of(supervisor, "other").state is State.IDLE)
    assert other.closed == other.opened == 1
    read, delivered = other.reads, len(tray.of("other"))
    so_far = len(tray.of("one"))
    until(lambda: len(tray.of("one")) > so_far + 10)
    assert (other.reads, len(tray.of("other"))) == (read, delivered)


class Choosy(Scripted):
    """A source that can leave unread what nobody wants."""

    chosen: frozenset[str] | None = None

    def choose(self, names: frozenset[str] | None) -> None:
        self.chosen = names

    def read(self) -> list[Sample]:
        read = super().read()
        return [] if self.chosen == frozenset() else read


def test_a_source_that_can_is_told_what_is_wanted_of_it_before_it_reads_on(start: Starter) -> None:
    clock, tray = ManualClock(flowing=True), Tray()
    one, other = Choosy(clock, "one", [1]), Scripted(clock, "other", [2])
    supervisor = start(configured(one), configured(other), deliver=tray, clock=clock)
    until(lambda: len(tray.of("one")) > 1)
    assert one.chosen is None
    only = frozenset({"appliance.power"})
    supervisor.want({"one", "other"}, {"one": only, "other": only})
    until(lambda: one.chosen == only)
    supervisor.want({"other"}, {"other": only})
    until(lambda: health_of(supervisor, "one").state is State.IDLE)
    reads = one.reads
    supervisor.want({"one"}, {"one": frozenset()})
    until(lambda: one.reads > reads)
    so_far = len(tray.of("one"))
    supervisor.want({"one"})
    until(lambda: len(tray.of("one")) > so_far)
    assert one.chosen is None
    assert len(tray.of("other")) > 1


def test_what_is_read_after_it_was_no_longer_wanted_is_dropped(start: Starter) -> None:
    clock, tray = Clock(), Tray()
    reading, may_return = threading.Event(), threading.Event()

    class Slow(Scripted):
        def read(self) -> list[Sample]:
            reading.set()
            may_return.wait(10)
            return super().read()

    source = Slow(clock, "meter", [1], [])
    supervisor = start(configured(source), deliver=tray, clock=clock)
    assert reading.wait(10)
    supervisor.want(())
    may_return.set()
    until(lambda: health_of(supervisor, "meter").state is State.IDLE)
    assert (source.reads, tray.samples) == (1, [])
    source.steps = [[2], []]
    supervisor.want({"meter"})
    until(lambda: tray.of("meter") == [2])


def test_a_source_that_hangs_shows_as_silent_and_is_left_behind(
    start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    clock, tray = ManualClock(), Tray()
    release, reading = threading.Event(), threading.Event()

    class Hanging(Scripted):
        def read(self) -> list[Sample]:
            reading.set()
            release.wait(10)
            return super().read()

    hanging, alive = Hanging(clock, "hanging", [1]), Scripted(clock, "alive", [2], [])
    supervisor = start(configured(hanging), configured(alive), deliver=tray, clock=clock)
    until(lambda: tray.of("alive") == [2])
    assert reading.wait(10)
    assert health_of(supervisor, "hanging").state is State.STARTING
    clock.advance(30_001)
    health = health_of(supervisor, "hanging")
    assert health.state is State.SILENT
    assert health.error == "a call into the source has lasted for more than 30s"
    begun = time.monotonic()
    assert supervisor.stop() == ("hanging",)
    assert time.monotonic() - begun < 2
    assert "event=source-left-behind device=hanging" in caplog.text
    release.set()
    until(lambda: hanging.closed == 1)
    assert tray.of("hanging") == []


def test_stop_is_prompt_whatever_the_sources_wait_for(start: Starter, tmp_path: Path) -> None:
    clock, tray = Clock(trust="system"), Tray()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/uptime").write_text("1.0 1.0\n")
    every_hour = SourceConfig(
        device_id="hourly", kind="gateway", port=str(tmp_path), every=Duration.parse("1h")
    )
    failing = Scripted(clock, "failing", SourceError("no answer"))
    idle = Scripted(clock, "idle", [1])
    supervisor = start(
        Configured(
            device_id="hourly",
            kind="gateway",
            make=lambda waking: make("host", every_hour, waking),
            fresh_ms=None,
        ),
        configured(failing),
        configured(idle),
        deliver=tray,
        clock=clock,
        wanted={"hourly", "failing"},
    )
    until(lambda: supervisor.health()[0].state is State.STARTING and failing.closed == 1)
    begun = time.monotonic()
    assert supervisor.stop() == ()
    assert time.monotonic() - begun < 1
    assert {one.state for one in supervisor.health()} == {State.STOPPED}


class Patient:
    """A source that waits for an hour by the clock that it was made with."""

    def __init__(self, clock: Clock) -> None:
        self.waits, self.closed = threading.Event(), threading.Event()
        self._clock = clock

    def open(self) -> None:
        self.closed.clear()

    def read(self) -> list[Sample]:
        self.waits.set()
        self._clock.wait(3_600_000)
        return []

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("end", ["stop", "not wanted"])
def test_a_source_that_waits_is_woken_when_it_is_to_be_closed(start: Starter, end: str) -> None:
    made: list[Patient] = []

    def make(clock: Clock) -> Source:
        made.append(Patient(clock))
        return made[0]

    one = Configured(device_id="patient", kind="meter", make=make, fresh_ms=None)
    supervisor = start(one, deliver=Tray(), clock=Clock(trust="system"))
    until(lambda: bool(made) and made[0].waits.is_set())
    if end == "stop":
        assert supervisor.stop() == ()
    else:
        supervisor.want(())
    assert made[0].closed.wait(10)


def test_a_source_that_returns_at_once_does_not_eat_the_processor(start: Starter) -> None:
    clock, tray = ManualClock(), Tray()
    source = Scripted(clock, "meter", [])
    start(configured(source), deliver=tray, clock=clock)
    for turn in range(1, 5):
        until(lambda turn=turn: source.reads == turn and len(clock.waits) == turn)  # type: ignore[misc]
        clock.advance(20)
    assert set(clock.waits) == {20}


def test_a_supervisor_that_was_never_started_stops() -> None:
    clock = ManualClock()
    source = Scripted(clock, "meter", [])
    supervisor = Supervisor([configured(source)], Tray(), clock)
    assert supervisor.stop() == ()
    assert source.made == 0
