# SPDX-License-Identifier: Apache-2.0
"""What nobody agreed to is readable nowhere outside the gateway's own input."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import RECIPIENTS, Stage, wait_until
from tests.journeys.parts import YES, Enrolled, fast, moved

pytestmark = pytest.mark.journey

# From documentation ranges, or invented.
SERIAL = "TESTSER1A2B3C4D5"
APPLIANCE = "TEST-WM-CANARY-77"
MAC = "00:00:5e:00:53:af"
MACHINE_ID = "c0ffee00c0ffee00c0ffee00deadbeef"
IMEI = "004999010640000"
EMAIL = "canary.resident@example.com"
PHONE = "+15555550123"
DEVICE_ID = "canary-kitchen-of-room-9"
CANARIES = (SERIAL, APPLIANCE, MAC, MACHINE_ID, IMEI, EMAIL, PHONE, DEVICE_ID)

# A flow keeps this one: when it is not found, the search is broken.
KEPT = "debian 12"


def spellings(canary: str) -> set[bytes]:
    """How a value may hide: as text, without separators, hex, base64, BCD, reversed."""
    bare = "".join(one for one in canary if one.isalnum())
    forms = {canary, bare, canary.upper(), canary.lower(), bare.upper(), bare.lower()}
    found = set()
    for form in forms:
        text = form.encode()
        found |= {text, text[::-1], text.hex().encode(), text.hex().upper().encode()}
        # base64 of a longer text holds one of three shifts of this one.
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + text)
            found.add(coded[4 if shift else 0 : -4])
    if bare.isdigit():
        even = bare if len(bare) % 2 == 0 else bare + "f"
        found |= {bytes.fromhex(even), bytes.fromhex(even)[::-1]}
    if all(one in "0123456789abcdef" for one in bare.lower()) and len(bare) % 2 == 0:
        found |= {bytes.fromhex(bare), bytes.fromhex(bare)[::-1]}
    return {form for form in found if len(form) >= 6}


def host(root: Path) -> Path:
    """A gateway's file system in which every identifier is a canary."""
    files = {
        "etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "etc/machine-id": f"{MACHINE_ID}\n",
        "etc/hostname": f"{DEVICE_ID}\n",
        "proc/cpuinfo": f"processor\t: 0\nModel\t\t: Raspberry Pi 4\nSerial\t\t: {SERIAL}\n",
        "proc/version": "Linux version 6.1.0-18-arm64 (someone@example.com) #1\n",
        "proc/uptime": "46901.13 46856.66\n",
        "sys/class/net/eth0/address": f"{MAC}\n",
        "sys/class/net/eth0/addr_assign_type": "0\n",
        "sys/class/net/eth0/type": "1\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "sys/class/net/eth0/device").mkdir()
    return root


def recording(path: Path) -> Path:
    """An appliance that says more than it should, in every text column it has."""
    lines = ["time,power,energy,water,door,program,fault,serial"]
    for second in range(600):
        program = [EMAIL, PHONE, "eco", f"eco {IMEI}"][second % 4]
        fault = [EMAIL, "", IMEI, "heater"][second % 4] if second % 60 < 4 else ""
        moment = f"2026-11-01T08:{second // 60:02}:{second % 60:02}Z"
        lines.append(f"{moment},{second % 50},{second},20.0,0,{program},{fault},{APPLIANCE}")
    path.write_text("\n".join(lines) + "\n")
    return path


def with_program(text: str) -> str:
    """The fast policy whose diagnosis also carries the programme, a text of a closed set."""
    before = '"appliance.power" = "round(1)", "device.serial"'
    assert before in text
    after = '"appliance.power" = "round(1)", "appliance.program" = "keep", "device.serial"'
    return fast(text.replace(before, after))


@pytest.fixture
def household(enrolled: Enrolled, tmp_path: Path) -> Iterator[Stage]:
    stage = moved(enrolled(with_program), Stage(tmp_path / "stage"))
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    devices = f"""\
[[device]]
id = "gateway-{DEVICE_ID}"
kind = "gateway"
source = "host"
port = "{host(inputs / "root")}"
every = "500ms"

[[device]]
id = "{DEVICE_ID}"
kind = "washing-machine"
source = "replay"
port = "{recording(inputs / "recording.csv")}"
profile = "replay-washing-machine"
every = "100ms"
speed = 100.0
"""
    stage.add_devices(devices)
    stage.decide(YES)
    for recipient in RECIPIENTS:
        stage.start_broker(recipient)
        stage.start_backend(recipient)
    stage.start_agent()
    yield stage
    stage.close()


def outside(stage: Stage) -> list[Path]:
    """Every file that is not the gateway's own input or configuration."""
    places = [*RECIPIENTS, "brokers", "logs", "published", "gateway/state", "gateway/requests"]
    files = [path for place in places for path in (stage.root / place).rglob("*")]
    files += list(stage.root.glob("*.admission")) + list(stage.root.glob("*.bundle"))
    return [path for path in files if path.is_file()]


def readable_in(files: list[Path], canary: str) -> list[str]:
    forms = spellings(canary)
    return [
        f"{path.name} holds {canary!r}"
        for path in files
        if any(form in path.read_bytes() for form in forms)
    ]


@pytest.mark.clause("C05")
@pytest.mark.clause("C08")
@pytest.mark.clause("C35")
def test_canaries_are_readable_nowhere_and_the_kept_one_is(household: Stage) -> None:
    def arrived() -> bool:
        flows = {
            row["flow"] for recipient in RECIPIENTS for row in household.show(recipient, "flows")
        }
        return flows == set(YES)

    wait_until(arrived, "something of every flow has arrived")
    wait_until(lambda: "heater" in values(household), "the fault that is agreed to has arrived")
    files = outside(household)
    stored = [path for path in files if path.name.startswith("store.db")]
    assert readable_in(stored, KEPT) != []
    assert [line for canary in CANARIES for line in readable_in(files, canary)] == []


@pytest.mark.clause("C35")
@pytest.mark.clause("C09")
def test_texts_outside_the_closed_set_stay_and_those_inside_leave(household: Stage) -> None:
    wait_until(lambda: {"eco", "heater"} <= values(household), "the agreed texts have arrived")
    assert values(household) == {"eco", "heater"}


def values(stage: Stage) -> set[str]:
    """Every text of the diagnosis flow in the maker's store but pseudonyms and numbers."""
    path = stage.backend_directory("maker") / "store.db"
    if not path.exists():
        return set()
    rows = stage.show("maker", "data", "--flow", "remote-diagnosis", "--limit", "100000")
    names = {"appliance.program", "appliance.fault"}
    return {row["value"] for row in rows if row["attribute"] in names}


def test_the_store_holds_only_pseudonyms_of_the_serial(household: Stage) -> None:
    def serials() -> set[str]:
        rows = household.show("maker", "data", "--flow", "remote-diagnosis", "--limit", "100000")
        return {row["value"] for row in rows if row["attribute"] == "device.serial"}

    wait_until(lambda: bool(serials()), "the pseudonym of the serial has arrived")
    (pseudonym,) = serials()
    assert len(bytes.fromhex(pseudonym)) == 16
