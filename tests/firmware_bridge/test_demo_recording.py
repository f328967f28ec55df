# SPDX-License-Identifier: Apache-2.0
"""The washing machine of the demo: made by its script, described by its profile, played whole."""

from __future__ import annotations

import csv
import logging
import time
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from assent.units import Duration
from demo.make_recording import RECORDING, recording
from firmware_bridge.clock import Clock
from firmware_bridge.health import State
from firmware_bridge.profile import load_profile
from firmware_bridge.sample import Sample
from firmware_bridge.sources import registry
from firmware_bridge.sources.registry import SourceConfig
from firmware_bridge.supervisor import Configured, Supervisor
from tests.simulators.clock import ManualClock

REPO = Path(__file__).resolve().parents[2]
PROFILE = load_profile(REPO / "config/profiles/replay-washing-machine.toml")
TYPES = {"number": float, "integer": int, "boolean": bool, "text": str}


def config_of(path: Path, speed: float) -> SourceConfig:
    return SourceConfig(
        device_id="washer",
        kind="washing-machine",
        port=str(path),
        profile=PROFILE,
        every=Duration(1_000),
        speed=speed,
    )


def played(
    path: Path, speed: float, clock: Clock, fresh_ms: int = 30_000
) -> tuple[list[Sample], set[State]]:
    samples: list[Sample] = []
    states: set[State] = set()
    config = config_of(path, speed)
    supervisor = Supervisor(
        [
            Configured(
                device_id="washer",
                kind="washing-machine",
                make=lambda waking: registry.make("replay", config, waking),
                fresh_ms=fresh_ms,
            )
        ],
        samples.extend,
        clock,
    )
    supervisor.start()
    deadline = time.monotonic() + 20
    while State.ENDED not in states:
        states |= {health.state for health in supervisor.health()}
        assert time.monotonic() < deadline, f"the recording never ended: {states}"
        time.sleep(0.001)
    supervisor.stop()
    return samples, states


def test_the_script_makes_the_same_recording_every_time() -> None:
    assert RECORDING.read_text(encoding="ascii") == recording() == recording()
    assert RECORDING.stat().st_size < 200_000


def test_it_is_an_hour_of_a_wash_with_one_fault() -> None:
    rows = list(csv.DictReader(recording().splitlines()))
    assert 3_500 < len(rows) < 3_600
    assert (rows[0]["time"], rows[-1]["time"]) == ("2026-11-01T08:00:00Z", "2026-11-01T08:59:59Z")
    energy = [int(row["energy"]) for row in rows]
    assert energy == sorted(energy)
    assert 500 < energy[-1] - energy[0] < 1_000
    assert max(float(row["power"]) for row in rows) > 2_000
    water = [float(row["water"]) for row in rows if row["water"] != "?"]
    assert (min(water) > 13, max(water)) == (True, 40.0)
    assert 10 < len(rows) - len(water) < 100
    assert Counter(row["fault"] for row in rows) == {"": len(rows) - 1, "drain-blocked": 1}
    assert {row["serial"] for row in rows} == {"", "TEST-WM-0001"}
    assert {row["program"] for row in rows} == {"", "idle", "cotton"}


def test_every_row_of_it_is_played(tmp_path: Path) -> None:
    samples, states = played(RECORDING, 0, Clock())
    rows = list(csv.DictReader(recording().splitlines()))
    assert len(samples) == len(rows)
    assert states <= {State.STARTING, State.RUNNING, State.ENDED}
    for sample, row in zip(samples, rows, strict=True):
        found = dict(zip(sample.names, sample.values, strict=True))
        assert found["appliance.power"] == float(row["power"])
        assert found["appliance.energy"] == float(row["energy"])
        assert found.get("appliance.program", "") == row["program"]
        assert found.get("appliance.fault", "") == row["fault"]
        assert found.get("device.serial", "") == row["serial"]
        assert sample.device.serial == "TEST-WM-0001"


def test_what_it_says_stands_in_the_example_dictionary() -> None:
    policy = tomllib.loads((REPO / "config/policy.toml").read_text(encoding="utf-8"))
    dictionary = policy["attributes"]
    samples, _ = played(RECORDING, 0, Clock())
    seen = set()
    for sample in samples:
        for name, value in zip(sample.names, sample.values, strict=True):
            entry = dictionary[name]
            seen.add(name)
            assert type(value) is TYPES[entry["type"]], name
            assert value in entry.get("choices", [value]), name
    assert seen == PROFILE.attributes


def test_a_gap_longer_than_fresh_shows_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    header, first, *rest = recording().splitlines()
    later = [line.replace("T08:", "T11:", 1) for line in rest[:5]]
    path = tmp_path / "gap.csv"
    path.write_text("\n".join([header, first, *later]) + "\n")
    clock = ManualClock(flowing=True)
    samples, _ = played(path, 60, clock, fresh_ms=30_000)
    assert len(samples) == 6
    assert 'event=source-failed device=washer error="nothing came for more than 30s"' in caplog.text
    assert "event=source-returned device=washer" in caplog.text
    apart_ms = samples[1].at.mono_ms - samples[0].at.mono_ms
    assert apart_ms >= 3 * 3_600_000 / 60
