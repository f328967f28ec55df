# SPDX-License-Identifier: Apache-2.0
"""A throw-away certificate authority: real certificates, valid for a day, keys of P-256."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its key, as files of PEM."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a directory.

    Args:
        directory: where to.
        name: of the authority.
        lasts: one that lasts less than 0 is over.
        begins: how long after yesterday it is valid.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "test authority",
        *,
        lasts: dt.timedelta = DAY,
        begins: dt.timedelta = dt.timedelta(),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.server_lasts = DAY
        self.server_begins = dt.timedelta()
        """The same of the certificates of servers that are issued from now on."""
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(self._name, self._key.public_key(), lasts, begins)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.path = directory / "ca.pem"
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.path.write_text(self.pem)

    def server(self, *names: str) -> Pair:
        """Issues a server's certificate; without names for localhost and 127.0.0.1."""
        alternatives = [_alternative(name) for name in names or ("localhost", "127.0.0.1")]
        return self._issue(
            "server",
            ExtendedKeyUsageOID.SERVER_AUTH,
            x509.SubjectAlternativeName(alternatives),
            self.server_lasts,
            self.server_begins,
        )

    def client(self, name: str, lasts: dt.timedelta = DAY) -> Pair:
        """Issues a client's certificate with a common name; one that lasts less than 0 is over."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, None, lasts)

    def revoke(self, certificate: bytes) -> Path:
        """Writes a list of revoked certificates (RFC 5280 §5) with this one in it."""
        now = dt.datetime.now(dt.UTC)
        serial = x509.load_pem_x509_certificate(certificate).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY)
        revoked = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - DAY)
            .next_update(now + DAY)
            .add_revoked_certificate(entry.build())
            .sign(self._key, hashes.SHA256())
        )
        path = self._directory / "crl.pem"
        path.write_bytes(revoked.public_bytes(serialization.Encoding.PEM))
        return path

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
        lasts: dt.timedelta = DAY,
        begins: dt.timedelta = dt.timedelta(),
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            self._builder(subject, key.public_key(), lasts, begins)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair

    def _builder(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        lasts: dt.timedelta = DAY,
        begins: dt.timedelta = dt.timedelta(),
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY + begins)
            .not_valid_after(now + lasts)
        )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
