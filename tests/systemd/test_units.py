# SPDX-License-Identifier: Apache-2.0
"""The units as systemd reads them: nothing misspelt, little exposed, no family too many."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

REPO = Path(__file__).resolve().parents[2]
PLACE = REPO / "systemd"
SERVICES = sorted(path.name for path in PLACE.glob("*.service"))
DROP_INS = sorted(path.name for path in (PLACE / "drop-ins").iterdir())
TIME_DROP_IN = PLACE / "time-drop-ins" / "assent-clock.conf"
# Of Debian's chrony-wait.service what stands in a drop-in's way.
WAIT = """\
[Unit]
Description=Wait for assent's test to say that the clock is set
Wants=time-sync.target
Before=time-sync.target

[Service]
Type=oneshot
ExecStart={program}
TimeoutStartSec=180
RemainAfterExit=yes
CapabilityBoundingSet=
DynamicUser=yes
PrivateDevices=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0777
"""
# Exposure times ten (systemd-analyze security); its own words call up to 20 OK.
THRESHOLD = 15


@pytest.fixture(scope="module")
def analyze() -> str:
    """systemd-analyze; where CI could install it, its absence is a failure."""
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("CI") == "true" and shutil.which("apt-get"):
            pytest.fail("systemd-analyze is missing; type as root: apt-get install systemd")
        pytest.skip("systemd-analyze is not on this machine")
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units that starts a program which is there."""
    program = shutil.which("true")
    assert program
    for unit in PLACE.iterdir():
        if unit.is_file():
            text = unit.read_text()
            (tmp_path / unit.name).write_text(
                re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE)
            )
    return tmp_path


def findings(analyze: str, units: Path) -> list[str]:
    """What systemd says of the units themselves; its exit code forgives an unknown key."""
    names = sorted(str(path) for path in units.iterdir() if path.is_file())
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", *names],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTEMD_LOG_LEVEL": "info", "LC_ALL": "C"},
    )
    said = (done.stdout + done.stderr).splitlines()
    ours = [line for line in said if "assent" in line]
    return ours if done.returncode == 0 else [*ours, f"ended with {done.returncode}", *said]


def exposure(analyze: str, unit: Path) -> subprocess.CompletedProcess[str]:
    words = ["security", "--offline=true", f"--threshold={THRESHOLD}", "--no-pager", str(unit)]
    return subprocess.run([analyze, *words], capture_output=True, text=True)


def setting(unit: str, key: str) -> list[str]:
    found = re.findall(rf"^{key}=(.*)$", (PLACE / unit).read_text(), re.MULTILINE)
    return [word for line in found for word in line.split()]


def test_systemd_finds_nothing_wrong_in_the_units(analyze: str, units: Path) -> None:
    assert findings(analyze, units) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [("RestrictAdressFamilies=AF_UNIX", "Unknown key"), ("WatchdogSec=soon", "Failed to parse")],
    ids=["a misspelt key", "a value that is none"],
)
def test_a_planted_mistake_is_found(analyze: str, units: Path, line: str, said: str) -> None:
    unit = units / "assent-uplink.service"
    unit.write_text(unit.read_text().replace("[Service]\n", f"[Service]\n{line}\n"))
    assert any(said in finding for finding in findings(analyze, units))


@pytest.mark.parametrize("name", DROP_INS)
def test_systemd_finds_nothing_wrong_in_a_drop_in_and_it_exposes_little(
    analyze: str, units: Path, name: str
) -> None:
    place = units / "assent-collect.service.d"
    place.mkdir()
    text = (PLACE / "drop-ins" / name).read_text()
    (place / name).write_text(text)
    assert findings(analyze, units) == []
    done = exposure(analyze, units / "assent-collect.service")
    print(done.stdout.splitlines()[-1:])
    assert done.returncode == 0, done.stdout + done.stderr
    # The twin: it is read, and a mistake in it is found.
    (place / name).write_text(text + "RestrictAdressFamilies=AF_UNIX\n")
    assert any("Unknown key" in finding for finding in findings(analyze, units))


def test_systemd_finds_nothing_wrong_in_the_word_of_a_time_service(
    analyze: str, tmp_path: Path
) -> None:
    unit, place = tmp_path / "assent-wait.service", tmp_path / "assent-wait.service.d"
    place.mkdir()
    unit.write_text(WAIT.format(program=shutil.which("true")))
    text = TIME_DROP_IN.read_text()
    (place / TIME_DROP_IN.name).write_text(text)
    assert findings(analyze, tmp_path) == []
    # The twin: it is read, and a mistake in it is found.
    (place / TIME_DROP_IN.name).write_text(text.replace("Restart=on-failure", "Restart=maybe"))
    assert any("maybe" in finding for finding in findings(analyze, tmp_path))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_exposed_no_more_than_the_threshold(
    analyze: str, units: Path, service: str
) -> None:
    done = exposure(analyze, units / service)
    print(done.stdout.splitlines()[-1:])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_without_its_sandbox_is_over_the_threshold(analyze: str, units: Path) -> None:
    unit = units / "assent-uplink.service"
    kept = [line for line in unit.read_text().splitlines() if not line.startswith("Restrict")]
    unit.write_text("\n".join(kept) + "\n")
    assert exposure(analyze, unit).returncode != 0


def test_the_collecting_side_gets_no_internet_family() -> None:
    assert set(setting("assent-collect.service", "RestrictAddressFamilies")) == {
        "AF_UNIX",
        "AF_NETLINK",
    }
    # An empty namespace would hide the MAC addresses as well.
    assert setting("assent-collect.service", "PrivateNetwork") == []


def test_the_uplink_gets_no_device_and_writes_the_spool_only() -> None:
    assert setting("assent-uplink.service", "PrivateDevices") == ["yes"]
    assert setting("assent-uplink.service", "BindPaths") == ["/var/lib/assent/spool"]
    assert setting("assent-uplink.service", "ReadWritePaths") == []
    assert setting("assent-uplink.service", "SupplementaryGroups") == []


def test_the_uplink_sees_of_configuration_and_state_what_it_needs() -> None:
    hidden = {"/etc/assent:ro", "/var/lib/assent:ro"}
    seen = {"/etc/assent/agent.toml", "/var/lib/assent/keys/tls"}
    assert set(setting("assent-uplink.service", "TemporaryFileSystem")) == hidden
    assert set(setting("assent-uplink.service", "BindReadOnlyPaths")) == seen
    # A place that is not there yet ends the start, and the next one finds it.
    assert setting("assent-uplink.service", "Restart") == ["always"]


def test_no_service_makes_sockets_by_io_uring() -> None:
    for service in SERVICES:
        calls = {word.removeprefix("~") for word in setting(service, "SystemCallFilter")}
        assert calls >= {"io_uring_setup", "io_uring_enter", "io_uring_register"}


def test_a_serial_adapter_that_is_plugged_in_later_is_allowed_for() -> None:
    # systemd.resource-control(5): the kernel must know the group when the unit starts.
    loaded = setting("assent-collect.service", "Wants")
    assert loaded == setting("assent-collect.service", "After")
    assert set(loaded) == {"modprobe@usbserial.service", "modprobe@cdc_acm.service"}
    assert {"char-ttyUSB", "char-ttyACM"} <= set(setting("assent-collect.service", "DeviceAllow"))


def test_both_programs_tell_systemd_how_they_are_and_are_watched() -> None:
    for service in ("assent-collect.service", "assent-uplink.service"):
        assert setting(service, "Type") == ["notify"]
        assert setting(service, "WatchdogSec") != []
        assert setting(service, "StartLimitIntervalSec") == ["0"]


def test_on_the_bus_the_collecting_side_may_call_bluez_and_the_uplink_nobody() -> None:
    policies = {
        policy.get("user"): [(rule.tag, dict(rule.attrib)) for rule in policy]
        for policy in ET.parse(PLACE / "dbus-1" / "assent.conf").iter("policy")
    }
    nobody = ("deny", {"send_type": "method_call"})
    assert policies == {
        "assent-collect": [
            nobody,
            ("allow", {"send_destination": "org.freedesktop.DBus"}),
            ("allow", {"send_destination": "org.bluez"}),
        ],
        "assent-uplink": [nobody],
    }


def test_each_service_is_of_a_user_that_sysusers_makes() -> None:
    made = "\n".join(path.read_text() for path in (PLACE / "sysusers.d").iterdir())
    users = set(re.findall(r"^u (\S+)", made, re.MULTILINE))
    assert users == {user for service in SERVICES for user in setting(service, "User")}


def test_sysusers_and_tmpfiles_are_read_by_their_programs(tmp_path: Path) -> None:
    sysusers, tmpfiles = shutil.which("systemd-sysusers"), shutil.which("systemd-tmpfiles")
    if sysusers is None or tmpfiles is None or os.geteuid() != 0:
        pytest.skip("needs root, systemd-sysusers and systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for program, folder, verb in (
        (sysusers, "sysusers.d", []),
        (tmpfiles, "tmpfiles.d", ["--create"]),
    ):
        files = sorted(str(path) for path in (PLACE / folder).iterdir())
        done = subprocess.run(
            [program, f"--root={tmp_path}", *verb, *files], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    groups = (tmp_path / "etc" / "group").read_text()
    assert re.search(r"^assent:x:\d+:assent-collect,assent-uplink$", groups, re.MULTILINE)
    assert (tmp_path / "etc" / "assent").stat().st_mode & 0o7777 == 0o710
    state = tmp_path / "var" / "lib" / "assent"
    assert state.stat().st_mode & 0o7777 == 0o710
    assert (state / "spool").stat().st_mode & 0o7777 == 0o2770
    assert (state / "keys" / "tls").stat().st_mode & 0o7777 == 0o2750
    told = (tmp_path / "run" / "assent-clock").stat()
    assert (told.st_mode & 0o7777, told.st_uid) == (0o755, 0)


def test_the_rule_for_serial_ports_is_read(tmp_path: Path) -> None:
    udevadm = shutil.which("udevadm")
    if udevadm is None:
        pytest.skip("udevadm is not on this machine")
    rule = tmp_path / "60-assent.rules"
    shutil.copy(PLACE / "udev" / rule.name, rule)
    done = subprocess.run([udevadm, "verify", str(rule)], capture_output=True, text=True)
    if "Unknown command" in done.stderr:
        pytest.skip("this udevadm cannot verify rules (it came with systemd 254)")
    assert done.returncode == 0, done.stderr
