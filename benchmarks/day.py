# SPDX-License-Identifier: Apache-2.0
"""Bytes of one household-day of the example policy, signed and sealed, hybrid keys.

The day is made, not recorded: the gateway's own sensors every ten seconds, and an appliance read
once a second that runs two cycles of the demo's recording and idles between them. Every flow of
config/policy.toml is agreed to. Batches close by the policy's own ages; the day is simulated, so
nothing waits. Each message is counted as it stands in the spool.
"""

from __future__ import annotations

import contextlib
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from benchmarks.report import Figure, write
from demo.stage import REPO, Stage
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Device, Instant, Sample

_DAY_S = 86_400
_MINUTE_S = 60
_CYCLES_AT_S = (8 * 3600, 19 * 3600)
_HOST_EVERY_S = 10
_IDLE_W = 1.2


class DayClock(Clock):
    """A clock that the benchmark moves."""

    def __init__(self, start_ms: int) -> None:
        super().__init__(trust="system")
        self.at_ms = start_ms

    def now(self) -> Instant:
        """The simulated moment."""
        return Instant(self.at_ms, self.at_ms, trusted=True)


def appliance(start_ms: int) -> Iterator[list[Sample]]:
    """A day of the appliance, a minute at a time."""
    device = Device("washer", "washing-machine", "TEST-WM-0001")
    names = ("appliance.power", "appliance.energy")
    with (REPO / "demo/recording/washing-machine.csv").open(newline="") as file:
        cycle = [(float(row["power"]), row["fault"]) for row in csv.DictReader(file)]
    energy = 412_345.0
    for minute in range(0, _DAY_S, _MINUTE_S):
        samples = []
        for second in range(minute, minute + _MINUTE_S):
            power, fault = _IDLE_W, ""
            for began in _CYCLES_AT_S:
                if began <= second < began + len(cycle):
                    power, fault = cycle[second - began]
            energy += power / 3600
            at = Instant(start_ms + second * 1000, second * 1000, trusted=True)
            samples.append(Sample(device, at, names, (power, float(int(energy)))))
            if fault:
                samples.append(Sample(device, at, ("appliance.fault",), (fault,)))
        yield samples


def gateway(start_ms: int) -> Iterator[list[Sample]]:
    """A day of the gateway itself, a minute at a time."""
    device = Device("gateway", "gateway")
    names = ("host.temperature", "host.throttled", "host.uptime")
    for minute in range(0, _DAY_S, _MINUTE_S):
        samples = []
        for second in range(minute, minute + _MINUTE_S, _HOST_EVERY_S):
            at = Instant(start_ms + second * 1000, second * 1000, trusted=True)
            warmth = 48.0 + (second % 3600) / 1200
            samples.append(Sample(device, at, names, (warmth, False, 46_901.0 + second)))
        yield samples


def simulate(config: Path) -> dict[str, tuple[int, int, int]]:
    """Runs the day; messages, readings and bytes of each flow."""
    settings = load_settings(config)
    clock = DayClock(time.time_ns() // 1_000_000)
    start_ms = clock.at_ms
    site = open_site(settings, clock)
    with contextlib.closing(Spool.open(settings.state / SPOOL)) as spool:
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        for samples, own in zip(appliance(start_ms), gateway(start_ms), strict=True):
            clock.at_ms = max(sample.at.wall_ms for sample in samples)
            pipeline.running.take([*samples, *own])
            pipeline.running.close_due(clock.now())
        pipeline.stop()
        return {
            flow: (tally.messages, tally.readings, tally.bytes)
            for flow, tally in pipeline.running.tallies.items()
        }


def measure() -> list[Figure]:
    """One day of each flow, and of all."""
    with tempfile.TemporaryDirectory() as place:
        stage = Stage(Path(place) / "stage")
        stage.make_recipients()
        bundle = stage.publish()
        stage.make_gateway("")
        stage.enrol(bundle)
        stage.decide(
            {
                "service": '"accepted"',
                "remote-diagnosis": '"given"',
                "partner-energy-advice": '"given"',
            }
        )
        flows = simulate(stage.gateway)
    return [
        Figure(
            name="wire.household_day_bytes",
            value=sum(size for _, _, size in flows.values()),
            unit="bytes",
            detail={
                flow: f"{messages} messages, {readings} readings, {size} bytes"
                for flow, (messages, readings, size) in sorted(flows.items())
            },
        )
    ]


def main() -> int:
    """Prints the figure and keeps it."""
    write(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
