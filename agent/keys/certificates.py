# SPDX-License-Identifier: Apache-2.0
"""The TLS key of a gateway: made, asked a certificate for, matched with the one that came.

Law: a certificate is kept only when it is for this very key, for this mailbox, and not over.

Standards: RFC 2986 (certificate request), RFC 5958 (private key), NIST P-256 with SHA-256: what
every broker's TLS stack takes.

Security: reads a certificate from whoever brings the admission; whether the issuer may be trusted
is for the broker, which pins its own CA. The key is plain PEM, because the uplink's TLS stack
reads it as a file.
Limits: x509 costs a running agent 2 MiB of memory, so that it is imported in here, and this room
only by who enrols.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from assent.errors import KeyStoreError

_SPKI: Final = (
    serialization.Encoding.DER,
    serialization.PublicFormat.SubjectPublicKeyInfo,
)


def new_key() -> bytes:
    """Makes a P-256 key.

    Returns:
        PEM (RFC 5958), not encrypted.
    """
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def request(key: bytes, mailbox: str) -> bytes:
    """Writes a certificate request.

    Args:
        key: PEM of the TLS key.
        mailbox: common name of the subject, and nothing else stands in it.

    Returns:
        PEM (RFC 2986).

    Raises:
        KeyStoreError: the key is none.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, mailbox)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(_load(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def checked(chain: bytes, key: bytes, mailbox: str, now_ms: int | None) -> bytes:
    """Returns the chain when its first certificate is for this key and this mailbox.

    Args:
        chain: PEM, the gateway's certificate first.
        key: PEM of the TLS key.
        mailbox: the common name it must have.
        now_ms: the present in ms since 1970 UTC, or None where it is not known. A certificate may
            begin later: the clock of a new gateway is behind.

    Returns:
        PEM of its certificates, and of nothing else that stood between them.

    Raises:
        KeyStoreError: it is no certificate, for another key, for another name, or has ended.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain)
        leaf = certificates[0]
        names = [name.value for name in leaf.subject]
        public = leaf.public_key().public_bytes(*_SPKI)
        end = leaf.not_valid_after_utc
    except Exception as exc:  # the parser raises what it meets, UnsupportedAlgorithm among it
        raise KeyStoreError("the admission holds no certificate that can be read") from exc
    if public != _load(key).public_key().public_bytes(*_SPKI):
        raise KeyStoreError(
            "the certificate is for another TLS key than the one it was asked for",
            hint="it answers an older request; give the recipient the newest one",
        )
    if names != [mailbox]:
        raise KeyStoreError("the certificate is for another mailbox than this gateway's")
    if now_ms is not None and end < dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC):
        raise KeyStoreError(
            f"the certificate has ended on {end:%Y-%m-%d}",
            hint="ask the recipient to admit the request again",
        )
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _load(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        loaded = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as exc:
        raise KeyStoreError("the TLS key cannot be read") from exc
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise KeyStoreError("the TLS key is of another type than P-256")
    return loaded
