# SPDX-License-Identifier: Apache-2.0
"""The wrapping key as a credential that a real systemd hands to the collecting unit, and to no other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from agent.keys.credential import BY_HAND, NAME
from demo.stage import Stage, wait_until
from tests.journeys.gateway import COLLECTOR, Gateway, delivering

pytestmark = pytest.mark.journey

FLOW = "remote-diagnosis"
COLLECT = "assent-collect"
SEALED = f"/etc/credstore.encrypted/{NAME}"
MAKE = (
    f"mkdir -p -m 700 {SEALED.rpartition('/')[0]} && head -c 32 /dev/urandom"
    f" | systemd-creds encrypt --with-key=host --name={NAME} - {SEALED}"
)
PLAIN_BYTES, SHUT_BYTES = 32, 61


@pytest.fixture(scope="module")
def gateway(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with delivering(tmp_path_factory.mktemp("machine"), recipients) as gateway:
        yield gateway


def ring(gateway: Gateway) -> int:
    """Bytes of the file of the wrapping key."""
    return (gateway.state / "keys" / "wrapping.key").stat().st_size


def restart(gateway: Gateway) -> None:
    gateway.machine.types("systemctl", "restart", COLLECT)
    gateway.machine.until_active(COLLECT)


@pytest.fixture
def shut(gateway: Gateway) -> Gateway:
    """A gateway whose store has moved to a credential; made once."""
    if not (gateway.machine.root / SEALED[1:]).exists():
        assert ring(gateway) == PLAIN_BYTES
        made = gateway.machine.runs("sh", "-c", MAKE)
        assert made.returncode == 0, made.stderr
        restart(gateway)
    return gateway


def test_without_a_credential_the_unit_runs_on_a_key_in_a_file(gateway: Gateway) -> None:
    gateway.more_arrives(FLOW)
    assert ring(gateway) == PLAIN_BYTES


@pytest.mark.clause("C21")
def test_once_there_is_a_credential_the_store_moves_to_it_and_readings_go_on(
    shut: Gateway,
) -> None:
    assert ring(shut) == SHUT_BYTES
    shut.more_arrives(FLOW)
    restart(shut)
    shut.more_arrives(FLOW)


@pytest.mark.clause("C21")
def test_only_the_collecting_unit_is_handed_the_credential(shut: Gateway) -> None:
    place = f"/run/credentials/{COLLECT}.service/{NAME}"
    assert shut.machine.runs(*COLLECTOR, "head", "-c", "0", place).returncode == 0
    other = ("setpriv", "--reuid=assent-uplink", "--regid=assent", "--init-groups")
    assert shut.machine.runs(*other, "head", "-c", "0", place).returncode != 0
    seen = shut.machine.types("systemctl", "show", "assent-uplink", "-p", "LoadCredentialEncrypted")
    assert NAME not in seen


def test_a_certificate_is_renewed_through_the_unit_while_it_runs(shut: Gateway) -> None:
    """From inside the sandbox; a command of its own has no credential."""
    before = (shut.state / "keys/tls/maker.pem").read_bytes()
    shut.assent("enrol", "--renew", "maker")
    admission = shut.root / "renewed.admission"
    request = shut.gateway / "requests" / "maker.request"
    words = ["admit", str(shut.backend_directory("maker")), str(request), "--out", str(admission)]
    shut.backend(*words)
    (shut.machine.root / "srv").chmod(0o755)
    shut.assent("enrol", str(admission))
    pair = shut.state / "keys/tls/maker.pem"
    assert pair.read_bytes() != before
    assert pair.stat().st_mode & 0o777 == 0o640
    shut.machine.types("systemctl", "restart", "assent-uplink")
    shut.machine.until_active("assent-uplink")
    shut.more_arrives(FLOW)


def test_by_hand_the_store_opens_the_way_the_hint_says_and_no_other(shut: Gateway) -> None:
    machine = shut.machine
    machine.types("systemctl", "stop", COLLECT)
    try:
        alone = machine.runs(*COLLECTOR, "assent", "status")
        assert alone.returncode != 0
        assert f"shut under the unit's credential {NAME}, which is not here" in alone.stderr
        command = BY_HAND.partition(": ")[2].removesuffix(" assent …")
        assert command in alone.stderr
        helped = machine.runs(*shlex.split(command), "assent", "status")
        assert helped.returncode == 0, helped.stderr
        assert "agent     not running" in helped.stdout
    finally:
        machine.types("systemctl", "start", COLLECT)
        machine.until_active(COLLECT)


def test_without_its_credential_the_unit_does_not_open_the_store_and_says_why(
    shut: Gateway,
) -> None:
    machine = shut.machine
    away = machine.root / "root" / "away"
    sealed = machine.root / SEALED[1:]
    keys = {path: path.read_bytes() for path in (shut.state / "keys").rglob("*.key")}
    assert shut.state / "keys" / "journal.key" in keys
    machine.types("systemctl", "stop", COLLECT)
    sealed.rename(away)
    machine.types("systemctl", "start", "--no-block", COLLECT)
    wait_until(
        lambda: f"{NAME}, which is not here" in machine.log(COLLECT),
        "the unit says what is missing",
    )
    assert not machine.is_active(COLLECT)
    assert {path: path.read_bytes() for path in (shut.state / "keys").rglob("*.key")} == keys
    away.rename(sealed)
    restart(shut)  # by itself it looks again after a minute
    shut.more_arrives(FLOW)


def test_a_credential_of_another_machine_is_no_start(shut: Gateway) -> None:
    """systemd itself refuses it; nothing of ours is run."""
    machine = shut.machine
    sealed = machine.root / SEALED[1:]
    good = sealed.read_bytes()
    machine.types("systemctl", "stop", COLLECT)
    sealed.write_bytes(good[:-8] + bytes(8))
    machine.types("systemctl", "start", "--no-block", COLLECT)
    wait_until(
        lambda: machine.shows(COLLECT, "ExecMainStatus") == "243", "systemd says CREDENTIALS"
    )
    assert not machine.is_active(COLLECT)
    sealed.write_bytes(good)
    machine.until_active(COLLECT)
    shut.more_arrives(FLOW)
