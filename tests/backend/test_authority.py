# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from assent.backend import authority
from assent.backend.authority import Authority, Pair
from assent.errors import (
    AssentError,
    BadSignatureError,
    KeyStoreError,
    MalformedError,
    UnknownSuiteError,
)
from tests.backend.parts import NOW, csr

MAILBOX = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def pair() -> Pair:
    return authority.create("maker", NOW)


@pytest.fixture(scope="module")
def ours(pair: Pair) -> Authority:
    return Authority.load(pair)


def verified(leaf: x509.Certificate, root: x509.Certificate) -> None:
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)


def csr_of(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    *names: tuple[x509.ObjectIdentifier, str],
) -> bytes:
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "make",
    [lambda: ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate],
    ids=["a key of P-256", "a key of Ed25519"],
)
def test_an_admitted_gateway_gets_a_certificate_that_names_its_mailbox_only(
    ours: Authority, make: Callable[[], ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]
) -> None:
    key = make()
    chain = x509.load_pem_x509_certificates(
        ours.admit(csr_of(key, (NameOID.COMMON_NAME, MAILBOX)), MAILBOX, NOW)
    )
    leaf, root = chain
    verified(leaf, root)
    assert leaf.subject.rfc4514_string() == f"CN={MAILBOX}"
    assert leaf.public_key() == key.public_key()
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.not_valid_before_utc < NOW < leaf.not_valid_after_utc
    assert leaf.not_valid_after_utc - NOW > dt.timedelta(days=15 * 365)
    assert leaf.not_valid_after_utc <= root.not_valid_after_utc


def test_what_a_request_asks_for_besides_its_key_is_not_copied(ours: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, MAILBOX)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("backend-maker")]), critical=False)
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    leaf = x509.load_pem_x509_certificates(ours.admit(pem, MAILBOX, NOW))[0]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def forged() -> bytes:
    """A request whose signature is by another key than it names."""
    key = ec.generate_private_key(ec.SECP256R1())
    honest = x509.load_pem_x509_csr(csr(key, MAILBOX)).public_bytes(serialization.Encoding.DER)
    broken = honest[:-1] + bytes([honest[-1] ^ 1])
    return x509.load_der_x509_csr(broken).public_bytes(serialization.Encoding.PEM)


NAMED = (NameOID.COMMON_NAME, MAILBOX)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: csr(ec.generate_private_key(ec.SECP256R1()), "backend-maker"), MalformedError),
        (
            lambda: csr_of(
                ec.generate_private_key(ec.SECP256R1()),
                NAMED,
                (NameOID.ORGANIZATION_NAME, "Household TEST-1"),
            ),
            MalformedError,
        ),
        (lambda: csr_of(ec.generate_private_key(ec.SECP256R1()), NAMED, NAMED), MalformedError),
        (lambda: csr_of(ec.generate_private_key(ec.SECP384R1()), NAMED), UnknownSuiteError),
        (lambda: csr_of(rsa.generate_private_key(65537, 2048), NAMED), UnknownSuiteError),
        (forged, BadSignatureError),
        (lambda: b"", MalformedError),
        (lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", MalformedError),
        (lambda: b"x" * 5000, MalformedError),
    ],
    ids=[
        "another name than the mailbox is refused",
        "a name beside the mailbox is refused",
        "the mailbox twice is refused",
        "a key of P-384 is refused",
        "a key of RSA is refused",
        "a request that its key did not sign is refused",
        "nothing is no request",
        "half a request is none",
        "a request that is too long is not parsed",
    ],
)
def test_a_request_that_is_off_is_not_signed(
    ours: Authority, make: Callable[[], bytes], error: type[AssentError]
) -> None:
    with pytest.raises(error):
        ours.admit(make(), MAILBOX, NOW)


@pytest.mark.parametrize("mailbox", ["backend-maker", MAILBOX.upper(), MAILBOX + "0", "+"])
def test_a_mailbox_that_is_none_is_not_signed(ours: Authority, mailbox: str) -> None:
    request = csr(ec.generate_private_key(ec.SECP256R1()), mailbox)
    with pytest.raises(MalformedError):
        ours.admit(request, mailbox, NOW)


def test_the_brokers_certificate_is_for_its_names_and_addresses(ours: Authority) -> None:
    made = ours.issue_server(["localhost", "127.0.0.1", "Ingest.Example.com"], NOW)
    leaf = x509.load_pem_x509_certificate(made.certificate)
    verified(leaf, ours.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "ingest.example.com"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_subscribers_certificate_cannot_serve(ours: Authority) -> None:
    leaf = x509.load_pem_x509_certificate(ours.issue_client("backend-maker", NOW).certificate)
    verified(leaf, ours.certificate)
    assert leaf.subject.rfc4514_string() == "CN=backend-maker"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("host", ["*.example.com", "exa mple", "", "a" * 300, "192.0.2.0/24"])
def test_a_host_that_is_none_is_refused(ours: Authority, host: str) -> None:
    with pytest.raises(MalformedError):
        ours.issue_server([host], NOW)


@pytest.mark.parametrize(
    "name", ["", "Maker", "maker co", "-maker", "9maker", "maker--co", "m" * 65]
)
def test_a_name_that_no_policy_can_have_is_refused(ours: Authority, name: str) -> None:
    with pytest.raises(MalformedError):
        ours.issue_client(name, NOW)
    with pytest.raises(MalformedError):
        authority.create(name, NOW)


def test_an_authority_with_anothers_key_is_not_loaded(pair: Pair) -> None:
    other = authority.create("maker", NOW)
    with pytest.raises(KeyStoreError):
        Authority.load(Pair(pair.certificate, other.key))
    with pytest.raises(KeyStoreError):
        Authority.load(Pair(pair.certificate, b"no key"))


def test_no_key_shows_in_a_repr(pair: Pair, ours: Authority) -> None:
    assert "PRIVATE" not in repr(pair)
    assert "PrivateKey" not in repr(ours)
