# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from assent.backend import directory, publishing
from assent.backend.directory import Directory
from assent.cosekey import SealPrivateKey, SigningKey
from assent.errors import KeyStoreError, MalformedError, RefusedError
from assent.wire import Algorithm
from tests.backend.parts import NOW, POLICY, offers


def test_a_new_directory_has_everything_a_backend_needs(tmp_path: Path) -> None:
    made = directory.create(tmp_path / "maker", "maker", hosts=["broker.example.com"], now=NOW)
    opened = Directory.open(tmp_path / "maker")
    assert opened == made
    assert opened.user == "backend-maker"
    assert len(opened.seal_keys()) == 1
    assert opened.ack_key().public.encode() == opened.key("ack.pub.cose").read_bytes()
    opened.authority()
    names = x509.load_pem_x509_certificate(opened.tls("broker.pem").read_bytes())
    san = names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost", "broker.example.com"]
    assert not opened.key("policy.key.cose").exists()


@pytest.mark.parametrize(
    ("classical", "algorithm"),
    [(False, Algorithm.HPKE_9), (True, Algorithm.HPKE_4)],
    ids=["the post-quantum hybrid by default", "X25519 alone when asked"],
)
def test_the_sealing_key_is(tmp_path: Path, algorithm: Algorithm, *, classical: bool) -> None:
    made = directory.create(tmp_path, "maker", classical=classical, now=NOW)
    (key,) = made.seal_keys().values()
    assert key.algorithm is algorithm


def test_secrets_are_closed_to_others(tmp_path: Path) -> None:
    made = directory.create(tmp_path / "maker", "maker", policy_key=True, now=NOW)
    for path in made.root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        secret = path.name.endswith((".key", ".key.cose"))
        public = path.name.endswith((".pem", ".pub.cose")) or path.name == "recipient"
        public = public or path.parent.name == "public"
        assert path.is_dir() or secret != public
        assert not (mode & 0o077 and (secret or path.is_dir())), path


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    made = directory.create(tmp_path, "maker", now=NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RefusedError):
        directory.create(tmp_path, "maker", now=NOW)
    (made.root / "recipient").unlink()
    with pytest.raises(RefusedError):
        directory.create(tmp_path, "maker", now=NOW)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == {path: data for path, data in before.items() if path.name != "recipient"}


def test_a_name_that_cannot_stand_in_a_certificate_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        directory.create(tmp_path / "x", "The Maker", now=NOW)
    assert not (tmp_path / "x").exists()


def test_a_directory_without_a_recipient_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="no backend directory"):
        Directory.open(tmp_path)


@pytest.mark.parametrize("name", ["seal.key.cose", "ack.key.cose"])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, name: str) -> None:
    made = directory.create(tmp_path, "maker", now=NOW)
    made.key(name).chmod(0o644)
    with pytest.raises(KeyStoreError, match="open to others") as caught:
        made.ack_key() if name.startswith("ack") else made.seal_keys()
    assert caught.value.hint == f"chmod 600 {made.key(name)}"


def test_a_key_file_with_another_key_is_said_so(tmp_path: Path) -> None:
    made = directory.create(tmp_path, "maker", now=NOW)
    made.key("seal.key.cose").write_bytes(SigningKey.generate().encode())
    with pytest.raises(KeyStoreError, match="does not hold the key"):
        made.seal_keys()
    made.key("seal.key.cose").unlink()
    with pytest.raises(KeyStoreError, match="cannot be read"):
        made.seal_keys()


def test_further_sealing_keys_open_too(tmp_path: Path) -> None:
    made = directory.create(tmp_path, "maker", policy_key=True, now=NOW)
    older = SealPrivateKey.generate(classical=True)
    path = made.key("remote-diagnosis.key.cose")
    path.touch(mode=0o600)
    path.write_bytes(older.encode())
    assert older.kid in made.seal_keys()
    assert len(made.seal_keys()) == 2


@pytest.mark.clause("C03")
def test_published_are_the_terms_of_our_own_flows_in_signed_policies(
    sites: dict[str, Directory],
) -> None:
    made = sites
    flows = {name: offer.terms.hash for name, offer in offers().items()}
    assert {key[0] for key in made["maker"].published().offers} == {
        "remote-diagnosis",
        "product-improvement",
    }
    assert set(made["advice"].published().offers) == {("energy-advice", flows["energy-advice"])}


def test_two_versions_overlap_and_the_first_names_the_terms(
    tmp_path: Path, sites: dict[str, Directory]
) -> None:
    maker = sites["maker"]
    text = POLICY.replace("serial = 17", "serial = 18").replace("round(0.5)", "round(1)")
    flow = "[flows.product-improvement]\n"
    text = text.replace(flow, f"{flow}batch = {{ readings = 500 }}\n")
    unchanged = offers()["product-improvement"].terms.hash
    later = maker.root / "policies" / "2026-12-01.toml"
    later.write_text(text)
    for name in ("maker", "advice"):
        (later.parent / name).symlink_to(tmp_path / name)
    publishing.sign_policy(later, maker.key("policy.key.cose"), tmp_path, NOW.date())
    found = maker.published()
    assert found.troubles == ()
    # The same terms with batches of two sizes: a gateway may run either version.
    assert found.offers["product-improvement", unchanged].readings == 10_000
    assert sorted((flow, offer.serial) for (flow, _), offer in found.offers.items()) == [
        ("product-improvement", 17),
        ("remote-diagnosis", 17),
        ("remote-diagnosis", 18),
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.with_name("policy.toml.cose").unlink(),
        lambda path: path.with_name("policy.toml.cose").write_bytes(b"\x80"),
    ],
    ids=["edited after signing", "without its signature", "with a signature that is none"],
)
def test_a_policy_publishes_nothing(sites: dict[str, Directory], spoil: object) -> None:
    maker = sites["maker"]
    before = maker.fingerprint()
    spoil(maker.root / "policies" / "policy.toml")  # type: ignore[operator]
    found = maker.published()
    assert found.offers == {}
    assert found.troubles[0].startswith("policy.toml: ")
    assert maker.fingerprint() != before


def test_a_policy_signed_by_another_key_publishes_nothing(sites: dict[str, Directory]) -> None:
    maker = sites["maker"]
    maker.key("policy.pub.cose").write_bytes(SigningKey.generate().public.encode())
    assert maker.published().offers == {}
