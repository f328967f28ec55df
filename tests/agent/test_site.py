# SPDX-License-Identifier: Apache-2.0
"""What is installed: a policy that cannot be used is a reason and a sentence, never a crash."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.enrol import enrol
from agent.path import Permit, Reason, Refusal
from agent.settings import load_settings
from agent.site import POLICY, SIGNATURE, SPOOL, Site, make_state, open_site, with_policy
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import sign_detached
from assent.errors import AssentError, KeyStoreError
from assent.policy import signing
from tests.agent.installed import (
    FLOWS,
    MAKER,
    SERIAL,
    YES,
    copied,
    fresh,
    living,
    newer,
    no_room,
    replaced,
)
from tests.simulators.clock import ManualClock

CLOCK = ManualClock()


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


def opened(directory: Path) -> Site:
    return open_site(load_settings(directory), CLOCK)


def lay(directory: Path, text: bytes, signature: bytes) -> None:
    (directory / POLICY).write_bytes(text)
    (directory / SIGNATURE).write_bytes(signature)


def test_a_signed_policy_is_in_force_and_remembered(gateway: Path) -> None:
    site = opened(gateway)
    assert site.trouble is None
    assert site.policy is not None
    assert site.policy.serial == site.ledger.highest_serial == SERIAL
    digest = hashlib.sha256((gateway / POLICY).read_bytes()).digest()
    assert site.policy.hash == site.ledger.policy_hash == digest


def test_a_lost_ledger_hears_the_time_from_a_trusted_clock_only(gateway: Path) -> None:
    (gateway / "state" / "ledger.json").write_bytes(b"torn")
    settings, now = load_settings(gateway), CLOCK.now()
    site = open_site(settings, ManualClock(3_000, trusted=False))
    assert not site.ledger.is_dated
    site = with_policy(site, now)
    assert site.ledger.is_dated
    assert site.ledger.unknown_since_ms == now.wall_ms


def test_its_keys_are_those_of_the_recipients(gateway: Path) -> None:
    policy = opened(gateway).policy
    assert policy is not None
    for name, recipient in MAKER.recipients.items():
        assert policy.keys[name].encode() == recipient.seal.public.encode()
        assert policy.ack_keys[name].encode() == recipient.ack.public.encode()
        assert policy.cas[name] == recipient.ca


def test_a_newer_policy_comes_into_force_and_raises_the_serial(gateway: Path) -> None:
    lay(gateway, *MAKER.policy(newer))
    site = opened(gateway)
    assert site.trouble is None
    assert site.ledger.highest_serial == SERIAL + 1


def nobody_is_trusted(directory: Path) -> None:
    (directory / "state/keys/policy.key").unlink()


def missing(directory: Path) -> None:
    (directory / POLICY).unlink()


def without_signature(directory: Path) -> None:
    (directory / SIGNATURE).unlink()


def with_an_empty_signature(directory: Path) -> None:
    (directory / SIGNATURE).write_bytes(b"")


def with_garbage_for_a_signature(directory: Path) -> None:
    (directory / SIGNATURE).write_bytes(b"\xff" * 80)


def changed_by_one_byte(directory: Path) -> None:
    text = (directory / POLICY).read_bytes()
    assert b'"90d"' in text
    (directory / POLICY).write_bytes(text.replace(b'"90d"', b'"91d"', 1))


def signed_by_another(directory: Path) -> None:
    lay(directory, *MAKER.policy(newer, key=SigningKey.generate()))


def of_an_older_serial(directory: Path) -> None:
    before = (directory / POLICY).read_bytes(), (directory / SIGNATURE).read_bytes()
    enrol(directory, MAKER.bundle(newer))
    lay(directory, *before)


def of_the_same_serial_with_another_text(directory: Path) -> None:
    lay(directory, *MAKER.policy(replaced('"90d"', '"30d"', then=str)))


def with_another_authority(directory: Path) -> None:
    keys = directory / "keys"
    shutil.copy(keys / "energy-advice-ca.pem", keys / "maker-ca.pem")


def with_another_sealing_key(directory: Path) -> None:
    other = SealPrivateKey.generate().public.encode()
    (directory / "keys/maker-2026.cose").write_bytes(other)


def with_another_acknowledging_key(directory: Path) -> None:
    other = SigningKey.generate().public.encode()
    (directory / "keys/energy-advice-sign.cose").write_bytes(other)


def without_one_of_its_keys(directory: Path) -> None:
    (directory / "keys/maker-2026.cose").unlink()


def in_the_shape_of_a_directory(directory: Path) -> None:
    (directory / POLICY).unlink()
    (directory / POLICY).mkdir()


def in_the_shape_of_a_pipe(directory: Path) -> None:
    (directory / POLICY).unlink()
    os.mkfifo(directory / POLICY)


def larger_than_any_policy(directory: Path) -> None:
    (directory / POLICY).write_bytes(b"#" * 1_048_577)


def signed_but_no_toml(directory: Path) -> None:
    text = b"[policy\n"
    lay(directory, text, _signed_anyway(text))


def signed_but_no_text(directory: Path) -> None:
    text = b"\xff\xfe\x00"
    lay(directory, text, _signed_anyway(text))


def signed_with_an_error_in_it(directory: Path) -> None:
    text = (directory / POLICY).read_bytes().replace(b"mqtts://", b"mqtt://", 1)
    lay(directory, text, _signed_anyway(text))


def _signed_anyway(text: bytes) -> bytes:
    """What a maker's broken tool would sign; ours refuses to."""
    return sign_detached(text, MAKER.key, signing._AAD)


TROUBLES = {
    "it is missing": (missing, "policy.toml cannot be read: No such file"),
    "it has no signature": (without_signature, "policy.toml.cose cannot be read"),
    "its signature is empty": (with_an_empty_signature, "expected a signature beside the policy"),
    "its signature is garbage": (with_garbage_for_a_signature, "is not by the trusted policy key"),
    "it was changed by one byte": (changed_by_one_byte, "is not by the trusted policy key"),
    "it is signed by another": (signed_by_another, "is not by the trusted policy key"),
    "it is older than one that was in force": (of_an_older_serial, "expected a policy of serial"),
    "its serial had another text": (
        of_the_same_serial_with_another_text,
        "another policy of serial 17 has been in force here",
    ),
    "the authority is another": (with_another_authority, "maker-ca.pem: expected the file with"),
    "a sealing key is another": (with_another_sealing_key, "maker-2026.cose: expected the file"),
    "an acknowledging key is another": (
        with_another_acknowledging_key,
        "energy-advice-sign.cose: expected the file with",
    ),
    "a key is missing": (without_one_of_its_keys, "maker-2026.cose: expected a readable file"),
    "it is a directory": (in_the_shape_of_a_directory, "policy.toml cannot be read"),
    "it is a pipe": (in_the_shape_of_a_pipe, "policy.toml cannot be read: not a regular file"),
    "it is too large": (larger_than_any_policy, "policy.toml cannot be read: larger than"),
    "it is signed and no TOML": (signed_but_no_toml, "policy.toml:1:"),
    "it is signed and no text": (signed_but_no_text, "policy.toml:1:"),
    "it is signed with an error": (signed_with_an_error_in_it, "mqtt:// is not encrypted"),
}


@pytest.mark.clause("C21")
@pytest.mark.parametrize(("break_it", "said"), TROUBLES.values(), ids=TROUBLES)
def test_a_policy_that_cannot_be_used_is_a_reason_and_a_sentence(
    gateway: Path,
    break_it: Callable[[Path], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_it(gateway)
    with caplog.at_level(logging.INFO):
        site = opened(gateway)
    assert site.policy is None
    assert site.trouble is not None
    assert site.trouble.reason is Reason.POLICY_UNUSABLE
    assert said in site.trouble.sentence
    assert "\n" not in site.trouble.sentence
    assert site.verdicts(CLOCK.now()) == {}
    assert site.broker_of("maker") is None
    assert "every flow is off" in caplog.text


def test_the_twin_an_unbroken_copy_has_a_verdict_for_every_flow(gateway: Path) -> None:
    verdicts = opened(gateway).verdicts(CLOCK.now())
    assert set(verdicts) == set(FLOWS)
    assert all(isinstance(one, Refusal) for one in verdicts.values())
    assert {one.reason for one in verdicts.values() if isinstance(one, Refusal)} == {
        Reason.NOT_DECIDED
    }


def test_a_policy_that_was_edited_is_found_before_it_is_read_again(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with living(gateway) as house:
        assert house.desk.answer({"verb": "files"}) == {"policy_trouble": None}
        assert house.desk.status()["notices"] == []
        changed_by_one_byte(gateway)
        trouble = house.desk.answer({"verb": "files"})["policy_trouble"]
        assert "is not by the trusted policy key over these bytes; stop the agent" in trouble
        (notice,) = house.desk.status()["notices"]
        assert notice.startswith("the policy on disk is not the one in force, and is not usable: ")
        assert house.site.policy is not None
    assert main(["check", "--config", str(gateway)]) == 1
    said = capsys.readouterr().out
    assert f"{gateway / POLICY}:1:1: the signature beside the policy" in said
    assert "take in the maker's newest bundle with assent enrol" in said


@pytest.mark.parametrize(
    "break_it",
    [missing, without_signature, changed_by_one_byte, with_another_authority],
    ids=["missing", "unsigned", "changed", "another authority"],
)
def test_a_policy_that_was_mended_is_in_force_again(
    gateway: Path, installed: Path, break_it: Callable[[Path], None]
) -> None:
    break_it(gateway)
    broken = opened(gateway)
    assert broken.policy is None
    for name in (POLICY, SIGNATURE, "keys/maker-ca.pem"):
        shutil.copy(installed / name, gateway / name)
    mended = with_policy(broken, CLOCK.now())
    assert mended.trouble is None
    assert mended.policy is not None


@pytest.mark.clause("C01")
def test_without_a_trusted_key_nothing_is_enrolled(gateway: Path) -> None:
    nobody_is_trusted(gateway)
    site = opened(gateway)
    assert site.policy is None
    assert site.trouble is not None
    assert site.trouble.reason is Reason.NOT_ENROLLED
    assert "type: assent enrol MAKER.bundle --thumbprint TEXT" in str(site.trouble)


def test_an_older_policy_is_refused_after_a_restart_too(gateway: Path) -> None:
    of_an_older_serial(gateway)
    for _ in range(2):
        site = opened(gateway)
        assert site.trouble is not None
        assert "expected a policy of serial 18 or later, got 17" in site.trouble.sentence


def test_a_policy_that_the_ledger_cannot_remember_is_not_run(gateway: Path) -> None:
    site = opened(gateway)
    lay(gateway, *MAKER.policy(newer))
    with no_room():
        after = with_policy(site, CLOCK.now())
    assert after.policy is None
    assert after.trouble is not None
    assert "cannot be recorded" in after.trouble.sentence
    assert with_policy(site, CLOCK.now()).trouble is None


def test_nothing_runs_with_keys_that_others_may_read(gateway: Path) -> None:
    (gateway / "state/keys/wrapping.key").chmod(0o644)
    with pytest.raises(KeyStoreError):
        opened(gateway)


TWO = replaced(
    'brokers = ["mqtts://ingest.example.com:8883"]',
    'brokers = ["mqtts://ingest.example.com:8883", "mqtts://second.example.com:8883"]',
)


@pytest.mark.clause("C14")
@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        (None, "mqtts://ingest.example.com:8883"),
        ("mqtts://second.example.com:8883", "mqtts://second.example.com:8883"),
        ("mqtts://elsewhere.example.com:8883", None),
        ("mqtts://ingest.example.com:8884", None),
    ],
    ids=[
        "no choice takes the policy's first",
        "the policy's second can be chosen",
        "a broker that the policy does not name is not used",
        "another port is another broker",
    ],
)
def test_only_the_policys_brokers_are_used(
    gateway: Path, chosen: str | None, used: str | None
) -> None:
    lay(gateway, *MAKER.policy(TWO))
    if chosen:
        with (gateway / "agent.toml").open("a") as file:
            file.write(f'[uplink.maker]\nbroker = "{chosen}"\n')
    assert opened(gateway).broker_of("maker") == used


@pytest.mark.clause("C14")
def test_a_recipient_without_its_certificate_and_key_has_not_admitted_us(gateway: Path) -> None:
    with living(gateway) as house:
        house.decide(YES)
    before = opened(gateway).verdicts(CLOCK.now())
    assert all(isinstance(one, Permit) for one in before.values())
    (gateway / "state/keys/tls/energy-advice.pem").unlink()
    after = opened(gateway).verdicts(CLOCK.now())
    reasons = {flow: None if isinstance(one, Permit) else one.reason for flow, one in after.items()}
    assert reasons == dict.fromkeys(FLOWS[:2]) | {FLOWS[2]: Reason.NOT_ENROLLED}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_group_passes_through_the_state_directory_to_the_spool_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        make_state(tmp_path / "var" / "state")
    finally:
        os.umask(before)
    state = tmp_path / "var" / "state"
    assert state.stat().st_mode & 0o7777 == 0o710
    assert (state / SPOOL).parent.stat().st_mode & 0o7777 == 0o2770


def test_a_state_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o750)
    (tmp_path / "state").chmod(0o750)
    make_state(tmp_path / "state")
    make_state(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o7777 == 0o750


def test_a_file_in_the_way_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(AssentError) as caught:
        make_state(tmp_path / "state")
    assert str(tmp_path / "state") in caught.value.message
    assert caught.value.hint is not None
    assert "gateway.state" in caught.value.hint


def test_opening_makes_nothing_readable_to_others(tmp_path: Path) -> None:
    opened(fresh(tmp_path / "gateway"))
    state = tmp_path / "gateway" / "state"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"ledger.json", "wrapping.key", "ledger.key"}
    assert all(path.stat().st_mode & 0o007 == 0 for path in files)
