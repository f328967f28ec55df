# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from assent.backend import directory, publishing
from assent.backend.directory import Directory
from assent.cosekey import decode_verifying_key
from assent.enrolment import decode_bundle
from assent.errors import AssentError, ConfigError, KeyStoreError, PolicyError, RefusedError
from assent.policy.signing import open_policy, verify
from tests.backend.parts import NOW, POLICY


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Directory]:
    (tmp_path / "policy.toml").write_text(POLICY)
    return {
        name: directory.create(tmp_path / name, name, policy_key=True, now=NOW)
        for name in ("maker", "advice")
    }


def sign(root: Path, text: str | None = None, name: str = "policy.toml") -> publishing.Signed:
    path = root / name
    if text is not None:
        path.write_text(text)
    key = root / "maker" / "keys" / "policy.key.cose"
    return publishing.sign_policy(path, key, root, NOW.date())


def serial(number: int) -> str:
    return POLICY.replace("serial = 17", f"serial = {number}")


def test_signing_fills_in_empty_thumbprints_and_signs_what_it_wrote(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    signed = sign(tmp_path)
    assert signed.path == tmp_path / "policy.toml.cose"
    assert len(signed.filled) == 6
    data = (tmp_path / "policy.toml").read_bytes()
    assert b"filled-in" not in data
    assert data.count(b"\n") == POLICY.count("\n")
    key = decode_verifying_key(made["maker"].key("policy.pub.cose").read_bytes())
    verify(data, signed.path.read_bytes(), key)
    opened = open_policy(
        data, signed.path.read_bytes(), key, lambda name: (tmp_path / name).read_bytes(), 0
    )
    assert opened.serial == 17


def test_a_thumbprint_that_claims_another_key_is_not_corrected(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    sign(tmp_path)
    (tmp_path / "policy.toml.cose").unlink()
    other = made["advice"].key("ack.pub.cose").read_bytes()
    made["maker"].key("ack.pub.cose").write_bytes(other)
    before = (tmp_path / "policy.toml").read_bytes()
    with pytest.raises(ConfigError, match="thumbprint"):
        sign(tmp_path)
    assert (tmp_path / "policy.toml").read_bytes() == before
    assert not (tmp_path / "policy.toml.cose").exists()


def test_signing_the_same_again_changes_nothing(tmp_path: Path, made: dict[str, Directory]) -> None:
    first = sign(tmp_path).path.read_bytes()
    again = sign(tmp_path)
    assert again.path.read_bytes() == first
    assert again.filled == ()


@pytest.mark.parametrize("number", [16, 17], ids=["one that goes back", "one that stays"])
def test_another_policy_needs_a_serial_that_rises(
    tmp_path: Path, made: dict[str, Directory], number: int
) -> None:
    sign(tmp_path)
    changed = serial(number).replace("Find faults", "Find all faults")
    with pytest.raises(ConfigError, match="serial over 17"):
        sign(tmp_path, changed)
    assert sign(tmp_path, serial(18)).policy.policy.serial == 18


def test_a_serial_must_rise_over_a_signed_policy_beside_it(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    sign(tmp_path)
    (tmp_path / "maker" / "keys" / "policy.signed.json").unlink()
    with pytest.raises(ConfigError, match="serial over 17"):
        sign(tmp_path, serial(17), "other.toml")
    assert sign(tmp_path, serial(18), "other.toml").policy.policy.serial == 18


def test_every_finding_is_named_with_its_place(tmp_path: Path, made: dict[str, Directory]) -> None:
    broken = POLICY.replace('recipient = "advice"', 'recipient = "advise"').replace(
        'region = "CN"', 'regoin = "CN"'
    )
    with pytest.raises(ConfigError) as caught:
        sign(tmp_path, broken)
    assert all(finding.file == "policy.toml" and finding.line for finding in caught.value.findings)
    assert "regoin" in str(caught.value)


def test_an_overdue_review_is_not_signed(tmp_path: Path, made: dict[str, Directory]) -> None:
    key = made["maker"].key("policy.key.cose")
    day = dt.date(2029, 1, 1)
    with pytest.raises(ConfigError, match="review"):
        publishing.sign_policy(tmp_path / "policy.toml", key, tmp_path, day)
    assert not (tmp_path / "policy.toml.cose").exists()


def test_a_missing_file_is_named_with_the_place_that_names_it(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    made["advice"].tls("ca.pem").unlink()
    with pytest.raises(ConfigError, match=r"policy\.toml:\d+:\d+: .*advice/tls/ca\.pem"):
        sign(tmp_path)


def test_a_file_outside_the_root_is_not_read(tmp_path: Path, made: dict[str, Directory]) -> None:
    (tmp_path / "maker" / "keys" / "seal.pub.cose").unlink()
    (tmp_path / "maker" / "keys" / "seal.pub.cose").symlink_to("/etc/hostname")
    with pytest.raises(PolicyError, match="not under"):
        sign(tmp_path)


def test_a_note_that_cannot_be_read_stops_signing(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    made["maker"].key("policy.signed.json").write_text("[1]")
    with pytest.raises(KeyStoreError):
        sign(tmp_path)


def test_a_bundle_is_what_a_gateway_takes(tmp_path: Path, made: dict[str, Directory]) -> None:
    sign(tmp_path)
    public = made["maker"].key("policy.pub.cose")
    bundle = decode_bundle(publishing.bundle(tmp_path / "policy.toml", public, tmp_path))
    opened = open_policy(
        bundle.policy,
        bundle.signature,
        decode_verifying_key(bundle.policy_key),
        bundle.files.__getitem__,
        0,
    )
    assert opened.keys.keys() == {"maker", "advice"}
    assert bundle.policy_key == public.read_bytes()


def test_a_policy_that_no_gateway_would_take_is_not_bundled(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    public = made["maker"].key("policy.pub.cose")
    with pytest.raises(AssentError, match="signature"):
        publishing.bundle(tmp_path / "policy.toml", public, tmp_path)
    sign(tmp_path)
    other = made["advice"].key("policy.pub.cose")
    with pytest.raises(AssentError, match="signature"):
        publishing.bundle(tmp_path / "policy.toml", other, tmp_path)
    made["advice"].tls("ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(AssentError, match="thumbprint"):
        publishing.bundle(tmp_path / "policy.toml", public, tmp_path)


@pytest.mark.parametrize("copied", [False, True], ids=["where keygen put it", "copied elsewhere"])
def test_a_policy_is_not_signed_with_the_key_for_acknowledgements(
    tmp_path: Path, made: dict[str, Directory], *, copied: bool
) -> None:
    key = made["maker"].key("ack.key.cose")
    if copied:
        data, key = key.read_bytes(), tmp_path / "signing.key.cose"
        key.touch(mode=0o600)
        key.write_bytes(data)
    with pytest.raises(RefusedError, match=f"{key} signs acknowledgements, not policies"):
        publishing.sign_policy(tmp_path / "policy.toml", key, tmp_path, NOW.date())
    assert not (tmp_path / "policy.toml.cose").exists()


def test_a_policy_is_not_signed_with_a_key_beside_another_policy_key(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    key = made["maker"].key("older.key.cose")
    key.touch(mode=0o600)
    key.write_bytes(made["advice"].key("policy.key.cose").read_bytes())
    with pytest.raises(RefusedError, match=r"is not the private half of .*policy\.pub\.cose"):
        publishing.sign_policy(tmp_path / "policy.toml", key, tmp_path, NOW.date())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("keys/policy.pub.cose", "is a public key, expected a private one"),
        ("keys/seal.pub.cose", "is a public key, expected a private one"),
        ("recipient", "does not hold the key it should"),
    ],
)
def test_another_file_as_the_key_is_told_truly(
    tmp_path: Path, made: dict[str, Directory], name: str, said: str
) -> None:
    path = made["maker"].root / name
    with pytest.raises(KeyStoreError) as caught:
        publishing.sign_policy(tmp_path / "policy.toml", path, tmp_path, NOW.date())
    assert caught.value.message.startswith(f"{path} {said}")
    assert "chmod" not in (caught.value.hint or "")


def test_a_private_key_as_the_public_one_is_told_truly(
    tmp_path: Path, made: dict[str, Directory]
) -> None:
    sign(tmp_path)
    path = made["maker"].key("policy.key.cose")
    with pytest.raises(KeyStoreError, match="is a private key, expected a public one"):
        publishing.bundle(tmp_path / "policy.toml", path, tmp_path)
