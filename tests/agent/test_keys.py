# SPDX-License-Identifier: Apache-2.0
"""Secrets: made once, read back, unrelated, destroyed for good; whatever is wrong shuts them."""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.keys import Keys, certificates
from assent import cbor, durable
from assent.cosekey import SigningKey
from assent.errors import KeyStoreError, RefusedError

Damage = Callable[[Path], None]

UNTIL = dt.datetime(2036, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def filled(place: Path) -> Keys:
    keys = Keys.open(place)
    keys.flow_secret("maker", "service")
    keys.gateway("maker")
    keys.tls_request("maker")
    keys.trust_policy_key(SigningKey.generate().public)
    return keys


def certify(
    csr_pem: bytes, *, common_name: str | None = None, key: object = None, end: int = 2036
) -> bytes:
    """What a recipient's CA does, by hand; until a new year."""
    csr = x509.load_pem_x509_csr(csr_pem)
    ca = ec.generate_private_key(ec.SECP256R1())
    name = csr.subject
    if common_name is not None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example CA")]))
        .public_key(key or csr.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(end, 1, 1, tzinfo=dt.UTC))
        .sign(ca, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def public(csr_pem: bytes) -> str:
    """The key that a request is for."""
    return pem_of(x509.load_pem_x509_csr(csr_pem).public_key())


def matches(pair: Path) -> str:
    """The key of a pair, which a TLS stack takes as one."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(pair)
    return pem_of(x509.load_pem_x509_certificate(pair.read_bytes()).public_key())


def pem_of(key: Any) -> str:
    text = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_bytes(serialization.Encoding.PEM, text).decode())


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_secret_is_the_same_after_a_restart(place: Path) -> None:
    before = filled(place)
    after = Keys.open(place)
    assert after.ledger_key.encode() == before.ledger_key.encode()
    assert after.flow_secret("maker", "service") == before.flow_secret("maker", "service")
    gateways = before.gateway("maker"), after.gateway("maker")
    assert gateways[0].mailbox == gateways[1].mailbox
    assert gateways[0].sign.encode() == gateways[1].sign.encode()
    assert gateways[0].seal.encode() == gateways[1].seal.encode()
    assert after.tls_request("maker") != b""
    assert after.policy_key == before.policy_key


def test_a_mailbox_is_128_random_bits_in_lower_case_hexadecimal(place: Path) -> None:
    mailbox = Keys.open(place).gateway("maker").mailbox
    assert len(bytes.fromhex(mailbox)) == 16
    assert mailbox == mailbox.lower()


@pytest.mark.clause("C15")
def test_nothing_of_two_recipients_is_related(place: Path) -> None:
    keys = Keys.open(place)
    one, other = keys.gateway("maker"), keys.gateway("adviser")
    assert one.mailbox != other.mailbox
    assert one.sign.public.raw != other.sign.public.raw
    assert one.seal.public.thumbprint != other.seal.public.thumbprint
    requests = [x509.load_pem_x509_csr(keys.tls_request(who)) for who in ("maker", "adviser")]
    assert requests[0].public_key() != requests[1].public_key()
    assert keys.flow_secret("maker", "service") != keys.flow_secret("adviser", "service")


@pytest.mark.clause("C15")
def test_two_flows_of_one_recipient_have_unrelated_secrets(place: Path) -> None:
    keys = Keys.open(place)
    assert keys.flow_secret("maker", "service") != keys.flow_secret("maker", "diagnosis")
    # ids that would collide if they were joined
    assert keys.flow_secret("a.b", "c") != keys.flow_secret("a", "b.c")


def test_nothing_of_two_gateways_is_related(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    assert one.ledger_key.encode() != other.ledger_key.encode()
    assert one.flow_secret("maker", "service") != other.flow_secret("maker", "service")
    assert one.gateway("maker").mailbox != other.gateway("maker").mailbox


@pytest.mark.clause("C21")
def test_no_secret_is_readable_in_the_files(place: Path) -> None:
    keys = filled(place)
    gateway = keys.gateway("maker")
    canaries = [
        keys.flow_secret("maker", "service"),
        keys.ledger_key.encode()[-32:],
        gateway.sign.encode()[-32:],
        gateway.seal.key.raw,
        gateway.mailbox.encode(),
    ]
    files = [p for p in place.rglob("*") if p.is_file() and p.suffix == ".key"]
    held = b"".join(path.read_bytes() for path in files)
    for canary in canaries:
        assert canary not in held
        assert canary.hex().encode() not in held
    # the twin: the wrapping key is there to be found, or the search is broken
    assert (place / "wrapping.key").read_bytes() in held


@pytest.mark.clause("C21")
def test_secrets_are_for_their_owner_alone_and_the_tls_key_for_the_group_too(place: Path) -> None:
    previous = os.umask(0)
    try:
        keys = filled(place)
        keys.admit("maker", certify(keys.tls_request("maker")))
        keys.tls_request("maker")
    finally:
        os.umask(previous)
    modes = {p.relative_to(place).as_posix(): mode_of(p) for p in place.rglob("*")}
    assert modes.pop("tls") == 0o750
    assert modes.pop("tls/maker.pem") == 0o640
    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert {mode for name, mode in modes.items() if not name.endswith(".key")} == {0o700}
    assert mode_of(place) == 0o710


def test_no_secret_shows_in_a_repr_or_a_log(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = filled(place)
    keys.destroy_flow_secret("maker", "service")
    gateway = keys.gateway("maker")
    shown = f"{keys!r} {gateway!r} {gateway} {keys.ledger_key!r} {caplog.text}"
    for secret in (
        gateway.mailbox,
        gateway.seal.key.raw.hex(),
        repr(gateway.seal.key.raw),
        keys.flow_secret("maker", "service").hex(),
        keys.ledger_key.encode()[-32:].hex(),
    ):
        assert secret not in shown
    assert "Gateway" in shown


def test_what_a_crash_left_half_written_is_swept(place: Path) -> None:
    filled(place)
    left = place / "flows" / "maker" / ".tmp-0123456789abcdef"
    left.write_bytes(b"half")
    Keys.open(place)
    assert not left.exists()


def test_a_crash_right_after_the_wrapping_key_does_not_shut_a_new_store(place: Path) -> None:
    durable.make_dirs(place, 0o710)
    durable.write(place / "wrapping.key", bytes(range(32)))
    assert Keys.open(place).ledger_key


def test_the_key_of_the_ledger_is_new_until_a_ledger_was_begun(place: Path) -> None:
    key = Keys.open(place).ledger_key
    assert key.is_new
    again = Keys.open(place).ledger_key
    assert again.is_new
    again.begin()
    assert not again.is_new
    after = Keys.open(place).ledger_key
    assert not after.is_new
    assert after.encode() == key.encode()


@pytest.mark.clause("C26")
def test_a_destroyed_secret_is_followed_by_a_new_one(place: Path) -> None:
    keys = filled(place)
    before = keys.flow_secret("maker", "service")
    keys.destroy_flow_secret("maker", "service")
    assert not (place / "flows/maker/service.key").exists()
    assert keys.flow_secret("maker", "service") != before


@pytest.mark.clause("C26")
def test_a_copy_of_a_destroyed_secret_cannot_be_unwrapped(place: Path, tmp_path: Path) -> None:
    keys = filled(place)
    shutil.copy2(place / "flows/maker/service.key", tmp_path / "copy")
    keys.destroy_flow_secret("maker", "service")
    shutil.copy2(tmp_path / "copy", place / "flows/maker/service.key")
    with pytest.raises(KeyStoreError, match="does not open"):
        Keys.open(place).flow_secret("maker", "service")


def test_a_copy_of_a_secret_that_was_not_destroyed_is_as_good_as_the_file(
    place: Path, tmp_path: Path
) -> None:
    keys = filled(place)
    before = keys.flow_secret("maker", "service")
    shutil.copy2(place / "flows/maker/service.key", tmp_path / "copy")
    (place / "flows/maker/service.key").unlink()
    shutil.copy2(tmp_path / "copy", place / "flows/maker/service.key")
    assert Keys.open(place).flow_secret("maker", "service") == before


def test_destroying_one_secret_leaves_every_other_as_it_was(place: Path) -> None:
    keys = filled(place)
    other, mailbox = keys.flow_secret("maker", "diagnosis"), keys.gateway("maker").mailbox
    keys.destroy_flow_secret("maker", "service")
    for again in (keys, Keys.open(place)):
        assert again.flow_secret("maker", "diagnosis") == other
        assert again.gateway("maker").mailbox == mailbox
        assert again.ledger_key.encode() == keys.ledger_key.encode()
    assert len((place / "wrapping.key").read_bytes()) == 32


def test_destroying_what_is_not_there_is_no_error(place: Path) -> None:
    keys = Keys.open(place)
    kept = keys.flow_secret("maker", "another")
    keys.destroy_flow_secret("maker", "service")
    assert Keys.open(place).flow_secret("maker", "another") == kept


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_crash_while_the_wrapping_key_changes_loses_nothing_else(
    place: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    keys = filled(place)
    other = keys.flow_secret("maker", "diagnosis")
    destroyed = (place / "flows/maker/service.key").read_bytes()
    real, count = durable.write, 0

    def failing(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        nonlocal count
        count += 1
        if count == writes:
            raise OSError(5, "power cut")
        real(path, data, mode=mode)

    monkeypatch.setattr(durable, "write", failing)
    with pytest.raises(KeyStoreError, match="power cut"):
        keys.destroy_flow_secret("maker", "service")
    monkeypatch.undo()
    again = Keys.open(place)
    assert again.flow_secret("maker", "diagnosis") == other
    assert again.ledger_key.encode() == keys.ledger_key.encode()
    assert not (place / "flows/maker/service.key").exists()
    assert len((place / "wrapping.key").read_bytes()) == 32
    if writes > 1:  # before the first write there was no change that could be finished
        (place / "flows/maker/service.key").write_bytes(destroyed)
        (place / "flows/maker/service.key").chmod(0o600)
        with pytest.raises(KeyStoreError, match="does not open"):
            again.flow_secret("maker", "service")


def replace(name: str, data: bytes | None = None) -> Damage:
    def damage(place: Path) -> None:
        path = place / name
        content = path.read_bytes()
        path.unlink()
        if data is not None:
            path.write_bytes(data or content[:-1] + bytes([content[-1] ^ 1]))
            path.chmod(0o600)

    return damage


def expose(name: str, mode: int) -> Damage:
    return lambda place: (place / name).chmod(mode)


def link(place: Path) -> None:
    (place / "ledger.key").rename(place / "elsewhere")
    (place / "ledger.key").symlink_to(place / "elsewhere")


def swap(place: Path) -> None:
    one, other = place / "policy.key", place / "ledger.key"
    one.rename(place / "third")
    other.rename(one)
    (place / "third").rename(other)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (replace("wrapping.key"), "the wrapping key is lost"),
        (replace("wrapping.key", b"\x00" * 32), "does not open"),
        (replace("wrapping.key", b"\x00" * 31), "expected a wrapping key of 32 bytes, got 31"),
        (replace("wrapping.key", b"\n"), "expected a wrapping key of 32 bytes, got 1"),
        (replace("ledger.key"), "the key of the ledger is lost"),
        (replace("ledger.key", b""), "does not open"),
        (replace("ledger.key", b"\x01"), "does not open"),
        (swap, "does not open"),
        (link, "not a regular file"),
        (expose("wrapping.key", 0o640), "mode 0640"),
        (expose("ledger.key", 0o604), "mode 0604"),
        (expose(".", 0o777), "mode 0777"),
        (expose(".", 0o755), "mode 0755"),
    ],
    ids=[
        "no wrapping key",
        "another wrapping key",
        "a short wrapping key",
        "a wrapping key that is one line end",
        "no ledger key",
        "an altered ledger key",
        "a ledger key of one byte",
        "two files that changed places",
        "a link in place of a file",
        "a wrapping key the group reads",
        "a ledger key everyone reads",
        "a directory everyone writes",
        "a directory everyone lists",
    ],
)
def test_the_store_stays_shut_after(place: Path, damage: Damage, sentence: str) -> None:
    filled(place)
    Keys.open(place)  # the twin: before the damage it opens
    damage(place)
    files = {p: p.read_bytes() for p in place.rglob("*.key") if p.is_file()}
    with pytest.raises(KeyStoreError, match=sentence):
        Keys.open(place)
    assert {p: p.read_bytes() for p in place.rglob("*.key") if p.is_file()} == files


@pytest.mark.parametrize(
    ("damage", "use"),
    [
        (replace("flows/maker/service.key", b""), lambda k: k.flow_secret("maker", "service")),
        (replace("policy.key", b""), lambda k: k.policy_key),
        (replace("gateways/maker.key", b""), lambda k: k.gateway("maker")),
        (replace("gateways/maker.key"), lambda k: k.gateway("maker")),
        (expose("flows/maker/service.key", 0o644), lambda k: k.flow_secret("maker", "service")),
        (expose("requests/maker.key", 0o644), lambda k: k.tls_request("maker")),
    ],
    ids=[
        "an altered flow secret",
        "an altered policy key",
        "an altered gateway key",
        "a gateway key lost beside its TLS key",
        "a flow secret everyone reads",
        "a TLS key everyone reads",
    ],
)
def test_a_part_stays_shut_and_is_not_made_anew_after(
    place: Path, damage: Damage, use: Callable[[Keys], object]
) -> None:
    filled(place)
    use(Keys.open(place))
    damage(place)
    keys = Keys.open(place)
    files = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    with pytest.raises(KeyStoreError):
        use(keys)
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == files


def test_a_wrapped_secret_of_another_kind_is_refused(place: Path) -> None:
    keys = filled(place)
    keys._store.write("flows/maker/service", b"short")
    with pytest.raises(KeyStoreError, match="32 bytes, got 5"):
        keys.flow_secret("maker", "service")
    keys._store.write("gateways/adviser", cbor.encode(["only a mailbox"]))
    with pytest.raises(KeyStoreError, match="is none"):
        keys.gateway("adviser")
    keys._store.write("policy", b"\xff")
    with pytest.raises(KeyStoreError, match="policy key"):
        _ = keys.policy_key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_store_of_one_user_with_the_file_of_another_stays_shut(place: Path) -> None:
    filled(place)
    os.chown(place / "ledger.key", 65_534, 65_534)
    with pytest.raises(KeyStoreError, match="another user"):
        Keys.open(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_may_look_at_the_store_of_the_agents_user(place: Path) -> None:
    filled(place)
    for path in (place, *place.rglob("*")):
        os.chown(path, 65_534, 65_534)
    assert Keys.open(place).flow_secret("maker", "service")


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "A", "a\n", "a" * 300])
def test_an_id_that_is_no_name_has_no_key(place: Path, name: str) -> None:
    keys = Keys.open(place)
    for use in (
        lambda: keys.flow_secret(name, "service"),
        lambda: keys.flow_secret("maker", name),
        lambda: keys.destroy_flow_secret("maker", name) if len(name) < 300 else keys.gateway(name),
        lambda: keys.gateway(name),
        lambda: keys.tls_request(name),
    ):
        with pytest.raises(KeyStoreError):
            use()
    assert keys.flow_secret("maker", "service")


def test_a_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KeyStoreError, match="cannot be opened"):
        Keys.open(tmp_path / "file" / "keys")


def test_no_policy_key_is_trusted_before_enrolment(place: Path) -> None:
    keys = Keys.open(place)
    assert keys.policy_key is None
    key = SigningKey.generate().public
    keys.trust_policy_key(key)
    assert keys.policy_key == key


def test_another_policy_key_is_not_trusted_in_silence(place: Path) -> None:
    keys, first, second = Keys.open(place), SigningKey.generate(), SigningKey.generate()
    keys.trust_policy_key(first.public)
    keys.trust_policy_key(first.public)
    with pytest.raises(RefusedError, match="another policy key"):
        keys.trust_policy_key(second.public)
    assert keys.policy_key == first.public
    keys.trust_policy_key(second.public, replace=True)
    assert keys.policy_key == second.public


def test_the_request_names_the_mailbox_and_nothing_else(place: Path) -> None:
    keys = Keys.open(place)
    request = x509.load_pem_x509_csr(keys.tls_request("maker"))
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == f"CN={keys.gateway('maker').mailbox}"
    assert not list(request.extensions)
    assert isinstance(request.public_key(), ec.EllipticCurvePublicKey)
    again = x509.load_pem_x509_csr(keys.tls_request("maker"))
    assert again.public_key() == request.public_key()


def test_openssl_reads_the_request_and_the_key(place: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here: the request was read by one implementation only")
    keys = Keys.open(place)
    done = subprocess.run(
        [openssl, "req", "-verify", "-noout", "-subject"],
        input=keys.tls_request("maker"),
        capture_output=True,
        check=True,
    )
    assert keys.gateway("maker").mailbox.encode() in done.stdout
    keys.admit("maker", certify(keys.tls_request("maker")))
    pair = keys.tls_pair("maker")
    done = subprocess.run([openssl, "pkey", "-in", pair, "-text", "-noout"], capture_output=True)
    assert b"prime256v1" in done.stdout


def test_an_admission_counts_once_its_certificate_is_kept(place: Path) -> None:
    keys = Keys.open(place)
    assert not keys.admitted("maker")
    certificate = certify(keys.tls_request("maker"))
    assert not keys.admitted("maker")
    keys.admit("maker", certificate)
    assert keys.admitted("maker")
    assert Keys.open(place).admitted("maker")
    assert not keys.admitted("adviser")
    assert keys.tls_pair("maker").read_bytes().startswith(certificate)
    assert mode_of(keys.tls_pair("maker")) == 0o640
    assert keys.certificate_ends_ms("maker") == int(UNTIL.timestamp()) * 1000
    assert keys.certificate_ends_ms("adviser") is None


@pytest.mark.parametrize("case", ["another key", "another mailbox", "no certificate"])
def test_a_certificate_is_not_kept_that_is_for(place: Path, case: str) -> None:
    keys = Keys.open(place)
    csr = keys.tls_request("maker")
    certificate = {
        "another key": certify(csr, key=ec.generate_private_key(ec.SECP256R1()).public_key()),
        "another mailbox": certify(csr, common_name="0" * 32),
        "no certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }[case]
    with pytest.raises(KeyStoreError):
        keys.admit("maker", certificate)
    assert not keys.admitted("maker")


def test_an_admission_without_a_request_is_refused(place: Path) -> None:
    keys = Keys.open(place)
    certificate = certify(keys.tls_request("maker"))
    with pytest.raises(KeyStoreError):
        keys.admit("adviser", certificate)


def test_a_renewed_certificate_brings_a_new_key_and_the_old_pair_serves_until_then(
    place: Path,
) -> None:
    keys = Keys.open(place)
    keys.admit("maker", certify(keys.tls_request("maker")))
    pair = keys.tls_pair("maker")
    before, asked = pair.read_bytes(), keys.tls_request("maker")
    assert public(keys.tls_request("maker")) == public(asked), "a request that waits is repeated"
    assert pair.read_bytes() == before
    keys.admit("maker", certify(asked, end=2056))
    assert matches(pair) == public(asked)
    assert keys.certificate_ends_ms("maker") == 2_713_910_400_000
    assert not (place / "requests/maker.key").exists()
    assert public(keys.tls_request("maker")) != public(asked), "and then there is another key"


def test_while_a_request_waits_a_certificate_for_the_key_in_use_is_refused(place: Path) -> None:
    keys = Keys.open(place)
    first = keys.tls_request("maker")
    keys.admit("maker", certify(first))
    keys.admit("maker", certify(first, end=2046))  # the twin: nothing waits
    keys.tls_request("maker")
    before = keys.tls_pair("maker").read_bytes()
    with pytest.raises(KeyStoreError, match="another TLS key") as caught:
        keys.admit("maker", certify(first, end=2056))
    assert caught.value.hint == "it answers an older request; give the recipient the newest one"
    assert keys.tls_pair("maker").read_bytes() == before


def test_a_kill_between_the_new_pair_and_the_end_of_its_request_is_no_matter(place: Path) -> None:
    keys = Keys.open(place)
    asked = keys.tls_request("maker")
    waiting = (place / "requests/maker.key").read_bytes()
    keys.admit("maker", certify(asked))
    durable.write(place / "requests/maker.key", waiting)
    again = Keys.open(place)
    assert again.admitted("maker")
    again.admit("maker", certify(asked))
    assert not (place / "requests/maker.key").exists()


def test_a_certificate_that_is_over_is_not_kept(place: Path) -> None:
    keys = Keys.open(place)
    asked = keys.tls_request("maker")
    after_ms = int(UNTIL.timestamp()) * 1000 + 1000
    with pytest.raises(KeyStoreError, match="has ended on 2036-01-01"):
        keys.admit("maker", certify(asked), after_ms)
    assert not keys.admitted("maker")
    keys.admit("maker", certify(asked), after_ms - 2000)
    assert keys.admitted("maker")


def test_what_stands_between_the_certificates_is_not_kept(place: Path) -> None:
    keys = Keys.open(place)
    asked = keys.tls_request("maker")
    keys.admit("maker", b"a word\n" + certificates.new_key() + certify(asked))
    assert matches(keys.tls_pair("maker")) == public(asked)
    assert b"a word" not in keys.tls_pair("maker").read_bytes()


def test_a_certificate_that_others_may_write_is_no_admission(place: Path) -> None:
    keys = Keys.open(place)
    keys.admit("maker", certify(keys.tls_request("maker")))
    keys.tls_pair("maker").chmod(0o666)
    assert not keys.admitted("maker")


def test_a_running_agent_does_not_load_x509(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.keys import Keys;"
        f"keys = Keys.open(Path({str(place)!r})); keys.gateway('maker'); keys.admitted('maker');"
        "print('cryptography.x509' in sys.modules);"
        "keys.tls_request('maker'); print('cryptography.x509' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
