# SPDX-License-Identifier: Apache-2.0
"""A source is found by name, and loaded only when a device needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assent.units import Duration
from firmware_bridge.profile import parse_profile
from firmware_bridge.sample import SourceError
from firmware_bridge.sources import registry
from firmware_bridge.sources.registry import SourceConfig
from tests.simulators.clock import ManualClock

REPO = Path(__file__).resolve().parents[2]
GATEWAY = SourceConfig(device_id="gateway", kind="gateway")
PLUG = parse_profile("""
[profile]
source = "replay"
about = "a plug"
facts = "made for this test"
csv = { time = "t" }
[[field]]
attribute = "appliance.power"
column = "p"
""")

METER = parse_profile("""
[profile]
source = "modbus"
about = "a meter"
facts = "made for this test"
[[field]]
attribute = "appliance.power"
table = "input"
address = 12
type = "float32"
""")
PROFILES = {"replay": PLUG, "modbus": METER}


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_name_leads_to_a_source(name: str, tmp_path: Path) -> None:
    config = SourceConfig(
        device_id="d",
        kind="k",
        port=str(tmp_path),
        profile=PROFILES.get(name),
        every=Duration(1_000),
    )
    source = registry.make(name, config, ManualClock())
    source.close()
    assert registry.attributes(name, config)


def test_a_device_delivers_what_its_source_and_profile_say() -> None:
    assert "host.mac" in registry.attributes("host", GATEWAY)
    config = SourceConfig(device_id="plug", kind="plug", profile=PLUG)
    assert registry.attributes("replay", config) == {"appliance.power"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("hots", "did you mean 'host'?"), ("replya", "did you mean 'replay'?"), ("zigbee", None)],
    ids=["a slip", "another slip", "a language we do not speak"],
)
def test_an_unknown_source_is_named_with_the_nearest(name: str, hint: str | None) -> None:
    message = f"unknown source {name!r}, expected one of host, modbus, replay"
    assert registry.unknown(name) == (message, hint)
    for ask in (
        lambda: registry.make(name, GATEWAY, ManualClock()),
        lambda: registry.attributes(name, GATEWAY),
    ):
        with pytest.raises(SourceError) as caught:
            ask()
        assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._MODULES, "host", "no_such_package_of_ours.host")
    with pytest.raises(SourceError) as caught:
        registry.make("host", GATEWAY, ManualClock())
    assert caught.value.message == "source 'host' needs the package 'no_such_package_of_ours'"
    assert caught.value.hint == "install assent[host]"


def test_a_source_that_no_device_needs_is_not_loaded() -> None:
    code = (
        "import sys\n"
        "from firmware_bridge.sources import registry\n"
        "from firmware_bridge.clock import Clock\n"
        "loaded = lambda: sorted(m for m in sys.modules if m.startswith('firmware_bridge.sources.'))\n"
        "print(loaded())\n"
        "registry.make('host', registry.SourceConfig(device_id='g', kind='g'), Clock())\n"
        "print(loaded())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "['firmware_bridge.sources.registry']",
        "['firmware_bridge.sources.host', 'firmware_bridge.sources.registry']",
    ], done.stderr
