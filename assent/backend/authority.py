# SPDX-License-Identifier: Apache-2.0
"""The recipient's small certificate authority: who may open a TLS connection to its broker.

Path: `keygen` makes the authority, the broker's and the subscriber's certificate; `admit` signs a
gateway's request. The agent pins the authority by the hash of its file, in the signed policy.
Law:
  - a gateway's certificate holds its mailbox as common name and nothing else of the gateway;
  - what a request asks for besides its key is not copied: the extensions are ours;
  - keys are P-256 or Ed25519; anything else is refused;
  - a certificate opens the transport, no more: what a message is worth is decided by the keys
    inside it (`assent.envelope`), and a gateway is shut out by taking its row from the store.
Standards: RFC 5280; RFC 2986 (requests); RFC 8410 (Ed25519).
Security: reads requests from strangers; writes nothing. Private keys come and go as PEM bytes that
the caller keeps with mode 0600.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from assent import shapes
from assent.certificates import check_request
from assent.errors import KeyStoreError, MalformedError, UnknownSuiteError

# An appliance outlives most things around it; the policy pins the authority, so that replacing it
# means signing a policy. 30 years is beyond the appliance, and says nothing about trust.
_AUTHORITY_YEARS = 30
# The same for a gateway: nobody drives out to renew it. It is shut out by the store, not by a date.
_GATEWAY_YEARS = 20
# The broker and the subscriber are at hand; still, a lapse silences the whole fleet at once.
_SERVICE_YEARS = 10
# Clocks of freshly installed gateways run behind; the certificate is valid a day before it is made.
_BACKDATE = dt.timedelta(days=1)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM.

    Attributes:
        certificate: the certificate.
        key: PKCS 8, not encrypted: the file's mode protects it.
    """

    certificate: bytes
    key: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that is loaded and may sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def load(cls, pair: Pair) -> Authority:
        """Loads an authority from its two PEM files.

        Raises:
            KeyStoreError: a file is not what its name says, or they do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate)
            key = serialization.load_pem_private_key(pair.key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise KeyStoreError("the certificate authority's files cannot be read") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            certificate.public_key() != key.public_key()
        ):
            raise KeyStoreError("the authority's key does not belong to its certificate")
        return cls(certificate=certificate, key=key)

    def admit(self, request_pem: bytes, mailbox: str, now: dt.datetime) -> bytes:
        """Signs a gateway's request for the mailbox it was verified to own.

        Args:
            request_pem: the certificate signing request.
            mailbox: the mailbox of the enrolment request around it.
            now: the present, with a zone.

        Returns:
            The chain for the gateway, PEM: its certificate, then the authority's.

        Raises:
            MalformedError: the request is no request, or names something but the mailbox.
            BadSignatureError: whoever made the request does not hold its key.
            UnknownSuiteError: the key is neither P-256 nor Ed25519.
        """
        public = _verified_key(request_pem, mailbox)
        certificate = self._sign(
            mailbox, public, now, years=_GATEWAY_YEARS, usage=ExtendedKeyUsageOID.CLIENT_AUTH
        )
        return _pem(certificate) + _pem(self.certificate)

    def issue_server(self, hosts: Sequence[str], now: dt.datetime) -> Pair:
        """Makes the broker's certificate for these host names and addresses.

        Raises:
            MalformedError: a name is neither a host name nor an address.
        """
        names = tuple(_general_name(host) for host in hosts)
        return self._issue(hosts[0], now, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def issue_client(self, name: str, now: dt.datetime) -> Pair:
        """Makes the subscriber's certificate; `name` is its user name at the broker.

        Raises:
            MalformedError: the name is not one that travels, or too long.
        """
        return self._issue(
            shapes.identifier(name, "the client's name"), now, ExtendedKeyUsageOID.CLIENT_AUTH, ()
        )

    def _issue(
        self,
        name: str,
        now: dt.datetime,
        usage: x509.ObjectIdentifier,
        names: Sequence[x509.GeneralName],
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            name[:64], key.public_key(), now, years=_SERVICE_YEARS, usage=usage, names=names
        )
        return Pair(certificate=_pem(certificate), key=_key_pem(key))

    def _sign(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
        now: dt.datetime,
        *,
        years: int,
        usage: x509.ObjectIdentifier,
        names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        end = min(_years_after(now, years), self.certificate.not_valid_after_utc)
        builder = (
            _builder(name, public, self.certificate.subject, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.value),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def create(recipient: str, now: dt.datetime) -> Pair:
    """Makes a new authority for a recipient.

    Args:
        recipient: id of the recipient; stands in the authority's name, as it does in the policy.
        now: the present, with a zone.

    Raises:
        MalformedError: the id is none that a policy can have, or too long.
    """
    shapes.identifier(recipient, "recipient")
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"{recipient}-ca"[-64:]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, key.public_key(), subject, now, _years_after(now, _AUTHORITY_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate=_pem(certificate), key=_key_pem(key))


def _verified_key(
    request_pem: bytes, mailbox: str
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    check_request(request_pem, shapes.mailbox(mailbox))
    public = x509.load_pem_x509_csr(request_pem).public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return public
    raise UnknownSuiteError("expected a certificate request with a key of P-256 or Ed25519")


def _builder(
    name: str,
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    issuer: x509.Name,
    now: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.lower().split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise MalformedError(f"expected a host name or an address, got {host!r}")
    return x509.DNSName(host.lower())


def _years_after(now: dt.datetime, years: int) -> dt.datetime:
    return now + dt.timedelta(days=365.25 * years)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
