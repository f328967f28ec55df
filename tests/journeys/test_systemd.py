# SPDX-License-Identifier: Apache-2.0
"""A gateway under a real systemd: its readings arrive, whatever is stopped, hung or killed there."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from agent.path import Reason
from agent.uplink.protocol import BACKOFF_MAX_S
from demo.stage import PATIENCE_S, Stage, wait_until
from firmware_bridge.evidence import Doubt, Witness
from tests.journeys.gateway import COLLECTOR, Gateway, delivering
from tests.journeys.parts import Batch, spooled
from tests.journeys.test_meter import DEVICE, PROFILE
from tests.simulators.machine import REPO, UNITS, Machine
from tests.simulators.meter import rows as meter_rows
from tests.systemd.test_units import TIME_DROP_IN, WAIT

pytestmark = pytest.mark.journey

COLLECT, UPLINK = UNITS
FLOW, OTHER = "remote-diagnosis", "service"
# What tests/journeys/test_meter.py reads through faults, on a serial port and a TCP port at once.
PORT = "/dev/serial/by-id/usb-TEST_meter-if00-port0"
METER = f"""
import os, signal
from pathlib import Path
from tests.simulators.meter import Meters, TcpMeters, Washer
port = Path("{PORT}")
port.parent.mkdir(parents=True, exist_ok=True)
with Meters(port, [Washer(1, start=600)]), TcpMeters([Washer(1, start=600)], port=5020):
    os.chmod(port, 0o600)
    print("there", flush=True)
    signal.pause()
"""
# Seconds; the units have 60 and 30, which nobody waits for in a test.
HURRIED = "[Service]\nWatchdogSec=3s\nRestartSec=200ms\n"


@pytest.fixture(scope="module")
def gateway(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with delivering(tmp_path_factory.mktemp("systemd"), recipients) as gateway:
        for unit in UNITS:
            gateway.machine.adds(unit, "hurried", HURRIED)
            gateway.machine.types("systemctl", "restart", unit)
            gateway.machine.until_active(unit)
        yield gateway


@pytest.fixture
def machine(gateway: Gateway) -> Machine:
    return gateway.machine


@contextmanager
def struck(machine: Machine, unit: str, said: str) -> Iterator[None]:
    """What the block does to a unit ends it as systemd says; then systemd has it back."""
    pid, restarts = machine.pid(unit), machine.restarts(unit)
    reports = machine.log(unit).count(said)
    yield
    wait_until(lambda: machine.restarts(unit) > restarts, f"{unit} is started again")
    machine.until_active(unit)
    assert machine.pid(unit) != pid
    wait_until(lambda: machine.log(unit).count(said) > reports, "the journal has it")


def agree_again(gateway: Gateway) -> None:
    """The household's yes to a flow that it had taken back."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    gateway.decide({FLOW: f'{{ decision = "given", on = {now} }}'})
    gateway.more_arrives(FLOW)


def nothing_more_of_it(gateway: Gateway) -> None:
    """What the broker had is stored; then the other flow goes on alone."""
    gateway.newer_arrives(OTHER)
    reached = gateway.stored(FLOW)
    gateway.newer_arrives(OTHER)
    assert gateway.stored(FLOW) == reached


def has_ended(machine: Machine, unit: str) -> bool:
    """Whether nothing of a unit runs: on its way there it is deactivating, and still writes."""
    return machine.shows(unit, "ActiveState") in {"inactive", "failed"}


def what_waited_is_stored(gateway: Gateway, waiting: set[Batch]) -> None:
    """Each of some batches arrives, with the next attempt that the uplink makes.

    The broker ended in order, with a snapshot: one that was killed and still knows the session from
    an older one gets what it had confirmed since after 15 minutes.
    """
    patience_s = BACKOFF_MAX_S + PATIENCE_S
    wait_until(lambda: waiting <= set(gateway.custody()), "what waited is stored", patience_s)


def test_neither_starts_before_there_is_a_configuration(machine: Machine) -> None:
    for unit in UNITS:
        first, *_, last = machine.log(unit).splitlines()
        assert "skipped because of an unmet condition" in first
        assert "skipped" not in last  # the twin: it runs


def test_both_run_as_their_users_and_say_that_they_work(gateway: Gateway) -> None:
    machine = gateway.machine
    for unit in UNITS:
        assert machine.types("ps", "-o", "euser:20=", "-p", str(machine.pid(unit))) == unit
    modes = machine.types("stat", "-c", "%a %U:%G", "/var/lib/assent", "/var/lib/assent/spool")
    assert modes.splitlines() == ["710 assent-collect:assent", "2770 assent-collect:assent"]
    wait_until(lambda: machine.shows(UPLINK, "StatusText") == "carries", "the uplink carries")


def test_what_the_appliance_says_is_stored_by_its_recipient(gateway: Gateway) -> None:
    gateway.more_arrives(FLOW)
    rows = gateway.show("maker", "data", "--flow", FLOW, "--limit", "1000")
    assert {"appliance.power"} <= {row["attribute"] for row in rows}
    assert gateway.status()["running"] is True


@pytest.mark.clause("C28")
def test_a_withdrawal_bites_and_a_later_yes_works(gateway: Gateway) -> None:
    gateway.more_arrives(FLOW)
    code, told = gateway.tells("consent", "withdraw", FLOW)
    assert (code, told["uplink"], told["certain"]) == (0, "answered", True)
    nothing_more_of_it(gateway)
    agree_again(gateway)


@pytest.mark.clause("C28")
def test_a_withdrawal_ends_an_uplink_that_stands_still_and_systemd_starts_the_next(
    gateway: Gateway,
) -> None:
    machine = gateway.machine
    gateway.more_arrives(FLOW)
    with struck(machine, UPLINK, "status=9/KILL"):
        uplink = str(machine.pid(UPLINK))
        machine.types("kill", "-STOP", uplink)
        # It is another user's process: only the leash ends it.
        assert "not permitted" in machine.types(*COLLECTOR, "kill", "-KILL", uplink)
        code, told = gateway.tells("consent", "withdraw", FLOW)
    assert (code, told["uplink"], told["certain"]) == (0, "ended", True)
    nothing_more_of_it(gateway)
    agree_again(gateway)


@pytest.mark.parametrize("unit", UNITS)
def test_a_program_that_stands_still_is_ended_and_started_again_and_data_goes_on(
    gateway: Gateway, unit: str
) -> None:
    machine = gateway.machine
    pid = machine.pid(unit)
    with struck(machine, unit, "Watchdog timeout"):
        machine.types("kill", "-STOP", str(pid))
    gateway.more_arrives(OTHER)
    assert machine.pid(unit) != pid


def test_an_owner_that_is_stuck_in_a_write_is_ended_though_its_other_threads_live(
    gateway: Gateway,
) -> None:
    machine = gateway.machine
    pid, spool = machine.pid(COLLECT), gateway.state / "spool" / "spool.db"
    with (
        struck(machine, COLLECT, "Watchdog timeout"),
        closing(sqlite3.connect(spool, isolation_level=None, timeout=20)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")  # as a disk that does not come back
        wait_until(lambda: machine.pid(COLLECT) != pid, "it is ended")
        other.execute("ROLLBACK")
    machine.until_active(UPLINK)
    gateway.more_arrives(OTHER)
    assert machine.pid(COLLECT) != pid


def test_a_kill_of_either_loses_nothing_that_was_in_the_spool(gateway: Gateway) -> None:
    machine = gateway.machine
    gateway.end("broker-maker")
    wait_until(lambda: len(gateway.unstored()) >= 5, "batches wait for the broker")
    waiting = gateway.unstored()
    for unit in UNITS:
        with struck(machine, unit, "status=9/KILL"):
            machine.types("kill", "-KILL", str(machine.pid(unit)))
    assert waiting <= gateway.unstored()
    gateway.start_broker("maker")
    what_waited_is_stored(gateway, waiting)
    assert set(gateway.custody().values()) == {1}
    # In mid-transfer too.
    with struck(machine, UPLINK, "status=9/KILL"):
        machine.types("kill", "-KILL", str(machine.pid(UPLINK)))
    wait_until(lambda: not waiting & spooled(gateway.state), "the gateway hears that it is stored")
    gateway.more_arrives(OTHER)
    assert set(gateway.custody().values()) == {1}


def test_a_reload_takes_a_good_file_and_keeps_the_old_one_instead_of_a_bad_one(
    gateway: Gateway,
) -> None:
    machine, agent = gateway.machine, gateway.gateway / "agent.toml"
    pid, good = machine.pid(COLLECT), agent.read_text()

    def devices() -> set[str]:
        return {device["id"] for device in gateway.status()["devices"]}

    assert devices() == {"gateway", "washer"}
    try:
        agent.write_text(good.replace('id = "gateway"', 'id = "cellar"'))
        machine.types("systemctl", "reload", COLLECT)
        wait_until(lambda: devices() == {"cellar", "washer"}, "the file is taken")
        agent.write_text("[gateway]\nstat = 3\n")
        machine.types("systemctl", "reload", COLLECT)
        kept = "agent.toml is bad, the old one is kept"
        wait_until(lambda: kept in machine.log(COLLECT), "the mistake is told")
        gateway.more_arrives(OTHER)
    finally:
        agent.write_text(good)
    assert devices() == {"cellar", "washer"}
    machine.types("systemctl", "reload", COLLECT)
    wait_until(lambda: devices() == {"gateway", "washer"}, "the first file is taken again")
    assert machine.pid(COLLECT) == pid
    gateway.more_arrives(OTHER)


def test_a_stop_of_the_target_ends_both_with_success_and_the_uplink_may_start_first(
    gateway: Gateway,
) -> None:
    machine = gateway.machine
    machine.types("systemctl", "stop", "assent.target")
    for unit in UNITS:
        wait_until(lambda unit=unit: has_ended(machine, unit), f"{unit} has ended")
        assert machine.shows(unit, "Result") == "success"
    for path in (gateway.state / "spool").iterdir():
        path.unlink()
    machine.types("systemctl", "start", UPLINK)
    assert machine.is_active(UPLINK)
    waits = "waits for the spool"
    wait_until(lambda: machine.shows(UPLINK, "StatusText") == waits, f"the uplink {waits}")
    assert not machine.is_active(COLLECT)
    uplink = machine.pid(UPLINK)
    machine.types("systemctl", "start", "assent.target")
    machine.until_active(COLLECT)
    gateway.more_arrives(OTHER)
    assert (machine.pid(UPLINK), machine.shows(UPLINK, "StatusText")) == (uplink, "carries")


@contextmanager
def meter_at(gateway: Gateway, port: str) -> Iterator[None]:
    """A meter on a serial port and on a TCP port; the gateway is told of one of the two."""
    machine, agent = gateway.machine, gateway.gateway / "agent.toml"
    before = agent.read_text()
    machine.writes("/etc/assent/profiles/washer-bus.toml", PROFILE)
    device = DEVICE.format(port=port).replace("100ms", "500ms")
    try:
        with machine.serving("-c", METER):
            agent.write_text(before[: before.index("[[device]]")] + device)
            machine.types("systemctl", "restart", COLLECT)
            machine.until_active(COLLECT)
            yield
    finally:
        agent.write_text(before)
        machine.types("systemctl", "restart", COLLECT)
        machine.until_active(COLLECT)


def is_read(gateway: Gateway) -> bool:
    (device,) = gateway.status()["devices"]
    return bool(device["state"] == "running" and device["samples"])


def is_out_of_reach(gateway: Gateway) -> bool:
    (device,) = gateway.status()["devices"]
    return bool(device["state"] == "failed" and not device["samples"])


RECORDED = {round(float(row["power"])) for row in meter_rows()[600:] if row["power"]}
"""What the meter says: the recording from its 600th row on."""


def new_powers(gateway: Gateway) -> set[float]:
    """What is stored from now on, of the meter's power; three values at least."""

    def powers() -> list[float]:
        rows = gateway.show("maker", "data", "--flow", FLOW, "--limit", "100000")
        return [row["value"] for row in rows if row["attribute"] == "appliance.power"]

    before = Counter(powers())
    wait_until(lambda: (Counter(powers()) - before).total() >= 3, "its power is stored")
    return set(Counter(powers()) - before)


def test_a_meter_on_a_serial_port_is_read_from_inside_the_sandbox(gateway: Gateway) -> None:
    machine = gateway.machine
    with meter_at(gateway, PORT):
        wait_until(lambda: is_out_of_reach(gateway), "root's own port is not read")  # the twin
        machine.types("sh", "-c", f"chgrp dialout {PORT}; chmod 660 {PORT}")
        wait_until(lambda: is_read(gateway), "the meter is read")
        assert new_powers(gateway) <= RECORDED


def test_a_meter_on_the_network_is_read_with_the_drop_in_and_not_without(gateway: Gateway) -> None:
    machine = gateway.machine
    drop_in = (REPO / "systemd/drop-ins/modbus-tcp.conf").read_text()
    try:
        with meter_at(gateway, "tcp://127.0.0.1:5020"):
            wait_until(lambda: is_out_of_reach(gateway), "it is out of reach")  # the twin
            machine.adds(COLLECT, "modbus-tcp", drop_in.replace("192.0.2.10", "127.0.0.1"))
            machine.types("systemctl", "restart", COLLECT)
            wait_until(lambda: is_read(gateway), "the meter is read")
            assert new_powers(gateway) <= RECORDED
    finally:
        machine.removes(COLLECT, "modbus-tcp")


def test_what_is_read_is_held_until_the_wait_for_a_time_service_has_an_end(
    gateway: Gateway,
) -> None:
    machine, agent = gateway.machine, gateway.gateway / "agent.toml"
    before = agent.read_text()
    machine.writes(
        "/etc/systemd/system/chrony-wait.service",
        WAIT.format(program="/usr/bin/test -e /run/reached"),
    )
    machine.adds("chrony-wait", TIME_DROP_IN.stem, TIME_DROP_IN.read_text())
    machine.adds("chrony-wait", "hurried", "[Service]\nRestartSec=200ms\n")

    def clock() -> str:
        return str(gateway.status()["clock"])

    try:
        agent.write_text(before.replace('trust = "system"', 'trust = "synchronised"'))
        machine.types("systemctl", "restart", COLLECT)
        machine.until_active(COLLECT)
        assert Doubt.NOBODY.value in clock()
        machine.types("systemctl", "start", "chrony-wait")
        wait_until(lambda: machine.restarts("chrony-wait") >= 2, "it waits again and again")
        assert Doubt.NOBODY.value in clock()
        reason = next(one["reason"] for one in gateway.status()["flows"] if one["flow"] == FLOW)
        assert reason == Reason.HELD.value
        machine.types("touch", "/run/reached")
        wait_until(lambda: Witness.SERVICE.value in clock(), "the clock is trusted")
        assert machine.is_active("chrony-wait")
        held = gateway.unstored()
        wait_until(lambda: held <= set(gateway.custody()), "what was held is stored")
    finally:
        agent.write_text(before)
        machine.types("systemctl", "restart", COLLECT)
        machine.until_active(COLLECT)


def test_after_a_boot_without_a_shutdown_both_start_by_themselves_and_what_waited_arrives(
    gateway: Gateway,
) -> None:
    gateway.end("broker-maker")
    wait_until(lambda: len(gateway.unstored()) >= 4, "batches wait for the broker")
    waiting = gateway.unstored()
    gateway.end("backend-maker")
    gateway.machine.restarts_hard()
    for unit in UNITS:
        gateway.machine.until_active(unit)
        assert gateway.machine.restarts(unit) == 0
    gateway.start_broker("maker")
    gateway.start_backend("maker")
    what_waited_is_stored(gateway, waiting)
    assert set(gateway.custody().values()) == {1}
