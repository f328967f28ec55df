# SPDX-License-Identifier: Apache-2.0
"""What a program that was taken over could do: tried from inside each unit's sandbox.

A copy of each unit, with its settings and a program that tries, runs beside the unit itself; root
outside every sandbox tries the same and gets it: the twin of every refusal.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.stage import Stage, wait_until
from tests.journeys.gateway import Gateway, delivering
from tests.simulators import bluez
from tests.simulators.machine import OURS, REPO, UNITS, Machine
from tests.simulators.probe import PLACES, rights, view

pytestmark = pytest.mark.journey

COLLECT, UPLINK = UNITS
TOLD = "/run/assent-clock/synchronised"
# Beside /sys/class/rtc, which a machine without a hardware clock does not have.
SHOWN = "/sys/class/net/lo/address"
# Ends the name of a copy of a unit.
TRIES = "-tries"
STATE, CONFIG = "/var/lib/assent", "/etc/assent"
SPOOL, TLS = f"{STATE}/spool", f"{STATE}/keys/tls"
# linux/miscdevice.h and devices.txt: what opens for whoever may, on every kernel of Debian.
NODES = {"/dev/probe-fuse": ("c", 10, 229), "/dev/probe-disk": ("b", 7, 0)}
# A second serial port of the machine, there or not: who may not open it hears EPERM either way.
PORT = ("/dev/probe-serial", ("c", 4, 65))
METER, SERIAL = f"{OURS}/tests/simulators/loopback_port.py", "/dev/ttyUSB0"
# What a kernel says that was built without it, or has its module not at hand.
LACKING = {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENODEV", "ENXIO"}
FAMILY, REFUSED, HIDDEN, READ_ONLY = "EAFNOSUPPORT", "EPERM", "ENOENT", "EROFS"
YES = "yes"

# Exchanges bytes over a serial port as a source does, and says whether a second one got it too.
TALK = """
import errno, json, serial, sys
from os import strerror
def refused(exc):
    return errno.errorcode[exc.errno] if exc.errno else "locked"
try:
    with serial.Serial(sys.argv[1], 9600, timeout=5, exclusive=True) as port:
        port.write(b"abc\\n")
        told = port.readline().decode()
        try:
            serial.Serial(sys.argv[1], 9600, exclusive=True).close()
            second = "yes"
        except serial.SerialException as exc:
            second = refused(exc)
    print(json.dumps({"told": told, "second": second}))
except serial.SerialException as exc:
    print(json.dumps({"told": refused(exc)}))
"""
# Listens for the radio as bleak does, then asks others on the bus for a favour.
LISTEN = """
import asyncio, json
from bleak import BleakScanner
from dbus_fast import BusType, Message
from dbus_fast.aio import MessageBus

async def asks(name, path, interface, member):
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    call = Message(destination=name, path=path, interface=interface, member=member)
    answer = await bus.call(call)
    return answer.error_name or "yes"

async def main():
    found = {}
    try:
        device = await BleakScanner.find_device_by_name("thermometer", timeout=10)
        found["radio"] = device and device.address
        found["systemd"] = await asks("org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                      "org.freedesktop.systemd1.Manager", "ListUnits")
    except Exception as exc:
        found["radio"] = type(exc).__name__
    print(json.dumps(found))
asyncio.run(main())
"""
DOOR = """
import signal, socket
door = socket.create_server(("", 5020))
print("there", flush=True)
signal.pause()
"""
# Of /usr/share/dbus-1/system.d/bluetooth.conf what lets BlueZ have its name.
OWNER = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><policy user="root">
<allow own="org.bluez"/><allow send_destination="org.bluez"/>
</policy></busconfig>
"""


def runs_as(machine: Machine, unit: str, *words: str, also: str = "") -> dict[str, Any]:
    """Runs Python in a copy of a unit's sandbox; the JSON that it says.

    Args:
        machine: where.
        unit: whose settings.
        words: script and arguments.
        also: further settings, as a drop-in has them.
    """
    name = f"{unit}{TRIES}"
    settings = (REPO / "systemd" / f"{unit}.service").read_text()
    machine.writes(
        f"/etc/systemd/system/{name}.service",
        f"{settings}\n{also}\n[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecReload=\n"
        f"ExecStart=\nExecStart=/usr/bin/python3 {' '.join(words)}\n"
        "Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/packages\n"
        f"StandardOutput=truncate:/run/tries/{name}\n",
    )
    machine.types("systemctl", "daemon-reload")
    machine.types("systemctl", "start", name)
    said = machine.types("cat", f"/run/tries/{name}")
    assert said.startswith("{"), machine.log(name)[-3000:]
    return dict(json.loads(said))


def script(machine: Machine, name: str, text: str) -> str:
    """Puts a script where every unit can read it."""
    machine.writes(f"/usr/local/lib/{name}", text)
    return f"/usr/local/lib/{name}"


def trying(machine: Machine, **spec: Any) -> list[str]:
    """The probe and what it is to try; what is not said is nothing."""
    whole = {word: [] for word in PLACES} | {"pids": {}, "setuid": SPOOL} | spec
    return [
        f"{OURS}/tests/simulators/probe.py",
        script(machine, "tries.json", json.dumps(whole)),
    ]


@pytest.fixture(scope="module")
def gateway(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with delivering(tmp_path_factory.mktemp("sandboxes"), recipients) as gateway:
        wait_until(lambda: gateway.stored("service") > 0, "something is stored")
        gateway.machine.types("mkdir", "-p", "/run/tries")
        yield gateway


@pytest.fixture
def machine(gateway: Gateway) -> Machine:
    return gateway.machine


def files_of(gateway: Gateway) -> list[str]:
    """Every file of configuration and state, as it is named inside."""
    root = gateway.machine.root
    return sorted(
        str(path).removeprefix(str(root))
        for place in (gateway.gateway, gateway.state)
        for path in place.rglob("*")
        if path.is_file()
    )


@pytest.fixture(scope="module")
def views(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """What each sandbox let through, and what root outside of them got."""
    machine = gateway.machine
    machine.types("sh", "-c", "mkdir -p /home/someone; echo x > /home/someone/letter")
    machine.types("sh", "-c", "chmod -R a+rwX /home/someone")
    machine.types("touch", TOLD)
    for path, (kind, major, minor) in (*NODES.items(), PORT):
        machine.types("mknod", "-m", "666", path, kind, str(major), str(minor))
    spec = {
        "connect": [f"127.0.0.1:{gateway.ports['maker']}"],
        "read": [*files_of(gateway), "/home/someone/letter", "/etc/shadow", TOLD, SHOWN],
        "write": [
            *("/etc", "/usr", "/home/someone", "/tmp", str(Path(TOLD).parent)),
            *(CONFIG, STATE, SPOOL, TLS),
        ],
        "speak": [f"{STATE}/control.sock", "/run/dbus/system_bus_socket"],
        "device": ["/dev/null", *NODES, PORT[0]],
        "pids": {unit: machine.pid(unit) for unit in UNITS} | {"init": 1},
        "setuid": SPOOL,
    }
    words = trying(machine, **spec)
    found = {unit: runs_as(machine, unit, *words) for unit in UNITS}
    return found | {"outside": json.loads(machine.types("python3", "-B", *words))}


@pytest.mark.parametrize(
    ("what", "collect", "uplink"),
    [
        pytest.param(what, collect, uplink, id=sentence)
        for sentence, what, collect, uplink in (
            ("a local socket", "AF_UNIX", YES, YES),
            ("an IPv4 socket", "AF_INET", FAMILY, YES),
            ("an IPv6 socket", "AF_INET6", FAMILY, YES),
            ("a raw packet socket", "AF_PACKET", FAMILY, FAMILY),
            ("a list of interfaces", "AF_NETLINK", YES, FAMILY),
            ("a Bluetooth socket past BlueZ", "AF_BLUETOOTH", FAMILY, FAMILY),
            ("a socket of the CAN bus", "AF_CAN", FAMILY, FAMILY),
            ("a socket of the kernel's cryptography", "AF_ALG", FAMILY, FAMILY),
            ("a socket to a hypervisor", "AF_VSOCK", FAMILY, FAMILY),
            ("an IPv4 socket made by io_uring", "uring", REFUSED, REFUSED),
            ("a connection to the broker", "connect broker", FAMILY, YES),
            ("the control socket of the agent", f"speak {STATE}/control.sock", YES, HIDDEN),
            ("the system bus", "speak /run/dbus/system_bus_socket", YES, "EACCES"),
            ("a letter in somebody's home", "read /home/someone/letter", "EACCES", "EACCES"),
            ("the passwords of the machine", "read /etc/shadow", "EACCES", "EACCES"),
            ("a file in the configuration", f"write {CONFIG}", READ_ONLY, READ_ONLY),
            ("a file in the state", f"write {STATE}", YES, READ_ONLY),
            ("a file in the spool", f"write {SPOOL}", YES, YES),
            ("a file among the TLS keys", f"write {TLS}", YES, READ_ONLY),
            ("a file of the system's configuration", "write /etc", READ_ONLY, READ_ONLY),
            ("a program of the system", "write /usr", READ_ONLY, READ_ONLY),
            ("when a time service set the clock", f"read {TOLD}", YES, YES),
            ("a word on when it did", f"write {Path(TOLD).parent}", "EACCES", "EACCES"),
            ("what the kernel shows of a device", f"read {SHOWN}", YES, YES),
            ("a file in somebody's home", "write /home/someone", "EACCES", "EACCES"),
            ("a temporary file", "write /tmp", YES, YES),
            ("the null device", "device /dev/null", YES, YES),
            ("a device that no source needs", "device /dev/probe-fuse", REFUSED, HIDDEN),
            ("the disk as a device", "device /dev/probe-disk", REFUSED, HIDDEN),
            ("a device node of its own", "node", REFUSED, REFUSED),
            ("that the first process is there", "see init", HIDDEN, HIDDEN),
            ("a signal to the first process", "signal init", REFUSED, REFUSED),
            ("that the collecting process is there", f"see {COLLECT}", YES, HIDDEN),
            ("a signal to the collecting process", f"signal {COLLECT}", YES, REFUSED),
            ("the memory of the collecting process", f"trace {COLLECT}", REFUSED, REFUSED),
            ("that the uplink's process is there", f"see {UPLINK}", HIDDEN, YES),
            ("a signal to the uplink's process", f"signal {UPLINK}", REFUSED, YES),
            ("the memory of the uplink's process", f"trace {UPLINK}", REFUSED, REFUSED),
            ("another time of day", "clock", REFUSED, REFUSED),
            ("a module for the kernel", "module", REFUSED, REFUSED),
            ("a mount", "mount", REFUSED, REFUSED),
            ("a namespace of its own", "unshare", REFUSED, REFUSED),
            ("code that it wrote itself", "code", REFUSED, REFUSED),
            ("a program with another's rights", "setuid", REFUSED, REFUSED),
        )
    ],
)
@pytest.mark.clause("C21")
def test_each_sandbox_grants(
    gateway: Gateway, views: dict[str, dict[str, Any]], what: str, collect: str, uplink: str
) -> None:
    if what == "connect broker":
        what = f"connect 127.0.0.1:{gateway.ports['maker']}"
    if what in {f"device {path}" for path in NODES} and not gateway.machine.polices():
        pytest.skip("systemd in this container cannot hold a unit to its devices")
    outside = views["outside"]["found"][what]
    if outside in LACKING or (what == "uring" and outside != YES):
        pytest.skip(f"this kernel has nothing of the kind ({outside})")
    found = {unit: views[unit]["found"][what] for unit in UNITS}
    assert found == {COLLECT: collect, UPLINK: uplink}
    assert outside == YES  # the twin


def test_the_serial_ports_of_the_machine_are_open_to_the_collecting_side_alone(
    machine: Machine, views: dict[str, dict[str, Any]]
) -> None:
    if not machine.polices() or " ttyS\n" not in Path("/proc/devices").read_text():
        pytest.skip("systemd in this container cannot hold a unit to serial ports")
    name = f"device {PORT[0]}"
    assert views["outside"]["found"][name] in {YES, "ENXIO", "EIO"}
    assert views[COLLECT]["found"][name] == views["outside"]["found"][name]
    assert views[UPLINK]["found"][name] == HIDDEN
    assert views[COLLECT]["found"]["device /dev/probe-fuse"] == REFUSED  # the twin


@pytest.mark.clause("C21")
def test_the_uplink_reads_its_three_things_and_the_collecting_side_all(
    gateway: Gateway, views: dict[str, dict[str, Any]]
) -> None:
    def read(who: str) -> set[str]:
        found = views[who]["found"]
        return {name.removeprefix("read ") for name, said in found.items() if said == YES}

    files = {name for name in files_of(gateway) if f"read {name}" in views["outside"]["found"]}
    own = {name for name in files if name.startswith((f"{SPOOL}/", f"{TLS}/"))}
    assert len(own) >= 6
    assert read(UPLINK) & files == own | {f"{CONFIG}/agent.toml"}
    assert read(COLLECT) & files == files
    assert read("outside") & files == files
    kept = {Path(name).name for name in files - read(UPLINK)}
    assert kept >= {"consent.toml", "policy.toml", "ledger.json", "ledger.key", "policy.key"}


@pytest.mark.clause("C21")
def test_neither_program_has_a_privilege_or_can_get_one(views: dict[str, dict[str, Any]]) -> None:
    for unit in UNITS:
        found = views[unit]["rights"]
        assert {found[name] for name in found if name.startswith("Cap")} == {"0" * 16}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert "0" not in found["Uid"].split() + found["Gid"].split() + found["Groups"].split()
    outside = views["outside"]["rights"]
    assert int(outside["CapEff"], 16) > 0
    assert (outside["NoNewPrivs"], outside["Seccomp"], outside["Uid"]) == ("0", "0", "0 0 0 0")


def test_what_was_tried_holds_for_the_running_programs(
    machine: Machine, views: dict[str, dict[str, Any]]
) -> None:
    for unit in UNITS:
        running = outside_pid(machine, unit)
        assert rights(running) == views[unit]["rights"]
        seen = sorted(line.replace(TRIES, "") for line in views[unit]["view"])
        assert view(running) == seen
    assert rights() != views[UPLINK]["rights"]
    assert views[COLLECT]["view"] != views[UPLINK]["view"]


@pytest.mark.clause("C21")
def test_the_collecting_process_holds_no_socket_of_a_network_and_the_uplink_one(
    machine: Machine,
) -> None:
    collecting, carrying = (outside_pid(machine, unit) for unit in UNITS)
    wait_until(lambda: bool(network_sockets(carrying)), "the uplink is connected")
    assert network_sockets(collecting) == []


def outside_pid(machine: Machine, unit: str) -> int:
    """The process id of a unit's program as it is numbered out here."""
    inside = machine.pid(unit)
    for line in Path("/proc").glob("[0-9]*/status"):
        try:
            text = line.read_text()
            is_in = (
                line.with_name("ns").joinpath("pid").readlink()
                == Path(f"/proc/{machine.leader}/ns/pid").readlink()
            )
        except OSError:  # it ended while we looked
            continue
        numbers = text.partition("NSpid:")[2].partition("\n")[0].split()
        if is_in and numbers[-1:] == [str(inside)]:
            return int(line.parent.name)
    raise AssertionError(f"{unit} does not run")


def network_sockets(pid: int) -> list[str]:
    """The sockets that a process holds, but local ones and those to the kernel: proc_pid_net(5)."""
    net = Path(f"/proc/{pid}/net")
    names = ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"]
    rows = [
        (name, line.split()[9])
        for name in names
        if (net / name).exists()
        for line in (net / name).read_text().splitlines()[1:]
    ]
    rows += [("packet", line.split()[8]) for line in (net / "packet").read_text().splitlines()[1:]]
    held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    return [name for name, inode in rows if f"socket:[{inode}]" in held]


def test_a_serial_port_is_spoken_to_from_the_collecting_sandbox_and_from_no_other(
    machine: Machine,
) -> None:
    talk = script(machine, "talk.py", TALK)
    with machine.serving(METER, SERIAL):
        found = {unit: runs_as(machine, unit, talk, SERIAL) for unit in UNITS}
        stranger = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        stranger += ["env", "PYTHONPATH=/opt/packages", "python3", "-B", talk, SERIAL]
        assert json.loads(machine.types(*stranger)) == {"told": "EACCES"}
    assert found[COLLECT] == {"told": "cba\n", "second": "EAGAIN"}
    assert found[UPLINK] == {"told": HIDDEN}


def test_the_collecting_sandbox_hears_the_radio_and_asks_nobody_else_on_the_bus(
    machine: Machine,
) -> None:
    pytest.importorskip("bleak", reason="bleak is not here: pip install '.[ble]'")
    machine.writes("/usr/share/dbus-1/system.d/bluetooth.conf", OWNER)
    machine.types("systemctl", "reload", "dbus")
    listen = script(machine, "listen.py", LISTEN)
    with machine.serving(f"{OURS}/tests/simulators/bluez.py"):
        found = {unit: runs_as(machine, unit, listen) for unit in UNITS}
        words = ["env", "PYTHONPATH=/opt/packages", "python3", "-B", listen]
        outside = json.loads(machine.types(*words))
    assert outside == {"radio": bluez.ADDRESS, "systemd": YES}
    refusal = "org.freedesktop.DBus.Error.AccessDenied"
    assert found[COLLECT] == {"radio": bluez.ADDRESS, "systemd": refusal}
    assert found[UPLINK].keys() == {"radio"}  # it has no bus to ask anything on
    assert found[UPLINK]["radio"] != bluez.ADDRESS


@pytest.mark.parametrize(
    ("name", "reached", "closed"),
    [
        ("modbus-tcp", "192.0.2.10", ["192.0.2.11", "127.0.0.1"]),
        ("gpsd", "127.0.0.1", ["192.0.2.10", "192.0.2.11"]),
    ],
    ids=["a meter on the network, by its address", "gpsd on the loopback"],
)
def test_a_drop_in_opens_the_way_to_what_it_names_and_to_nothing_else(
    gateway: Gateway, name: str, reached: str, closed: list[str]
) -> None:
    machine = gateway.machine
    if not machine.polices():
        pytest.skip("systemd in this container cannot hold a unit to its addresses")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip to give the loopback more addresses; it is in iproute2")
    for address in ("192.0.2.10", "192.0.2.11"):
        subprocess.run(
            machine.wired("ip", "address", "replace", f"{address}/32", "dev", "lo"), check=True
        )
    places = [f"{address}:5020" for address in (reached, *closed)]
    words = trying(machine, connect=places)
    drop_in = (REPO / "systemd" / "drop-ins" / f"{name}.conf").read_text()
    with machine.serving("-c", DOOR):
        opened = runs_as(machine, COLLECT, *words, also=drop_in)["found"]
        without = runs_as(machine, COLLECT, *words)["found"]
        outside = json.loads(machine.types("python3", "-B", *words))["found"]
    assert [opened[f"connect {place}"] for place in places] == [YES, *["ETIMEDOUT"] * len(closed)]
    assert {without[f"connect {place}"] for place in places} == {FAMILY}
    assert {outside[f"connect {place}"] for place in places} == {YES}
    assert opened["AF_PACKET"] == FAMILY
    assert opened["uring"] == REFUSED


def test_a_state_elsewhere_is_given_to_both_as_the_documents_say(machine: Machine) -> None:
    collecting, carrying = re.findall(
        r"```ini\n(.*?)```", (REPO / "docs" / "units.md").read_text(), re.DOTALL
    )
    elsewhere = "/srv/assent"
    machine.types("chmod", "755", "/srv")
    tmpfiles = (REPO / "systemd/tmpfiles.d/assent.conf").read_text().replace(STATE, elsewhere)
    machine.writes("/etc/tmpfiles.d/elsewhere.conf", tmpfiles)
    machine.types("systemd-tmpfiles", "--create", "elsewhere.conf")
    machine.types("install", "-m", "644", "/dev/null", f"{elsewhere}/ledger.json")
    spool, ledger = f"write {elsewhere}/spool", f"read {elsewhere}/ledger.json"
    words = trying(machine, write=[f"{elsewhere}/spool"], read=[f"{elsewhere}/ledger.json"])
    for unit, drop_in, expected in (
        (COLLECT, collecting, {spool: YES, ledger: YES}),
        (UPLINK, carrying, {spool: YES, ledger: HIDDEN}),
    ):
        found = runs_as(machine, unit, *words, also=drop_in)["found"]
        assert {name: found[name] for name in expected} == expected
        assert runs_as(machine, unit, *words)["found"][spool] == READ_ONLY
