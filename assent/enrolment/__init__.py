# SPDX-License-Identifier: Apache-2.0
"""Enrolment by three single files: a bundle in, a request out, an admission in.

Path: recipient → **Bundle** → technician → gateway → **EnrolRequest** → recipient →
**Admission** → gateway.

Law:
  - each file is deterministic CBOR that begins with its own name and format version;
  - a request is signed with the key it brings (COSE_Sign1), its certificate request with the TLS
    key it brings and made out to its mailbox: whoever asks holds both keys;
  - an admission is signed by the recipient's ack key, which the policy names;
  - to a gateway that is enrolled a newer bundle may also come as a message: the same bytes.

Standards: docs/wire.md, CDDL `bundle`, `enrol-request`, `admission`; RFC 2986 (CSR).

Security: bundle and request come from strangers. The sealing key of a request is signed, not
proven: whoever puts another's there can only make his own acknowledgements unreadable.

Limits: 64 files, 2 MiB a bundle, 64 kB a request or an admission.
"""

from __future__ import annotations

from typing import Final

import msgspec

from assent import cbor, shapes
from assent.cbor import CborValue
from assent.cosekey import (
    MAX_KEY_BYTES,
    SigningKey,
    VerifyingKey,
    decode_seal_public_key,
    decode_verifying_key,
)
from assent.enrolment.bundle import (
    MAX_BUNDLE,
    MAX_FILE,
    MAX_FILES,
    MAX_POLICY,
    Bundle,
    decode_bundle,
    encode_bundle,
)
from assent.enrolment.frame import fields_of, purpose, written
from assent.enrolment.kinds import FileKind
from assent.envelope.cose import read_sign1, sign1, verify1
from assent.errors import MalformedError
from assent.wire import TAG_SIGN1

__all__ = [
    "MAX_BUNDLE",
    "MAX_ENROLMENT",
    "MAX_FILE",
    "MAX_FILES",
    "MAX_POLICY",
    "Admission",
    "Bundle",
    "EnrolRequest",
    "decode_admission",
    "decode_bundle",
    "decode_request",
    "encode_admission",
    "encode_bundle",
    "encode_request",
    "sniff",
]

MAX_ENROLMENT: Final = 65_536
"""Longest request or admission in bytes; a chain of three certificates has some 3 kB."""
_MAX_CSR: Final = 8_192
_MAX_CHAIN: Final = 32_768


class EnrolRequest(msgspec.Struct, frozen=True):
    """A gateway asks one recipient to be let in.

    Attributes:
        recipient: whom.
        mailbox: the gateway's at this recipient.
        csr: certificate signing request, PEM; its subject is the mailbox alone.
        sign_key: COSE_Key that verifies what the gateway signs for this recipient.
        seal_key: COSE_Key to seal to the gateway.
    """

    recipient: str
    mailbox: str
    csr: bytes
    sign_key: bytes
    seal_key: bytes


class Admission(msgspec.Struct, frozen=True):
    """A recipient's answer to a request.

    Attributes:
        recipient: who answers.
        mailbox: whom.
        certificate: the gateway's certificate and its chain, PEM, leaf first.
    """

    recipient: str
    mailbox: str
    certificate: bytes


def encode_request(request: EnrolRequest, key: SigningKey) -> bytes:
    """Writes a request, signed with its own key.

    Args:
        request: what to write.
        key: the gateway's signing key for this recipient, whose public half is in the request.

    Returns:
        The file's bytes.

    Raises:
        WireError: something a reader would refuse.
    """
    fields: list[CborValue] = [
        request.recipient,
        request.mailbox,
        request.csr,
        request.sign_key,
        request.seal_key,
    ]
    _request(fields)
    payload = written("request", fields, MAX_ENROLMENT)
    return sign1({}, payload, key, purpose("request"))


def decode_request(data: bytes) -> EnrolRequest:
    """Reads a request and verifies that whoever made it holds its keys.

    Args:
        data: the file's bytes.

    Returns:
        The request; its certificate request is signed and made out to the mailbox.

    Raises:
        BadSignatureError: not signed with its own key, or its certificate request is not.
        WireError: not the CDDL of docs/wire.md, or over a limit.
    """
    read = read_sign1(data, MAX_ENROLMENT)
    if read.payload is None:
        raise MalformedError("expected the request inside its signature")
    request = _request(fields_of("request", read.payload, MAX_ENROLMENT))
    key = decode_verifying_key(request.sign_key)
    if verify1(read, read.payload, key, purpose("request")):
        raise MalformedError("unknown parameters in the signed header of a request")
    return request


def encode_admission(admission: Admission, key: SigningKey) -> bytes:
    """Writes an admission.

    Args:
        admission: what to write.
        key: the recipient's ack key.

    Returns:
        The file's bytes.

    Raises:
        WireError: something a reader would refuse.
    """
    fields: list[CborValue] = [admission.recipient, admission.mailbox, admission.certificate]
    _admission(fields)
    payload = written("admission", fields, MAX_ENROLMENT)
    return sign1({}, payload, key, purpose("admission"))


def decode_admission(data: bytes, ack_key: VerifyingKey) -> Admission:
    """Reads an admission and verifies that the recipient made it.

    Args:
        data: the file's bytes.
        ack_key: the recipient's, as the policy names it.

    Returns:
        The admission; its first certificate is made out to the mailbox.

    Raises:
        BadSignatureError: not signed by this key.
        WireError: not the CDDL of docs/wire.md, or over a limit.
    """
    read = read_sign1(data, MAX_ENROLMENT)
    if read.payload is None:
        raise MalformedError("expected the admission inside its signature")
    if verify1(read, read.payload, ack_key, purpose("admission")):
        raise MalformedError("unknown parameters in the signed header of an admission")
    return _admission(fields_of("admission", read.payload, MAX_ENROLMENT))


def sniff(data: bytes) -> FileKind:
    """Tells which of the three files this says it is; verifies nothing.

    Args:
        data: the file's bytes.

    Returns:
        Its kind.

    Raises:
        WireError: none of the three.
    """
    if data[:1] == TAG_SIGN1:
        data = read_sign1(data, MAX_ENROLMENT).payload or b""
        limit, kinds = MAX_ENROLMENT, _SIGNED
    else:
        limit, kinds = MAX_BUNDLE, _PLAIN
    name = shapes.array(cbor.decode(data, max_bytes=limit), "a file")[:1]
    for kind in kinds:
        if name == [f"assent-{kind}"]:
            return kind
    raise MalformedError("expected a bundle, a request or an admission")


_PLAIN: Final[tuple[FileKind, ...]] = ("bundle",)
_SIGNED: Final[tuple[FileKind, ...]] = ("request", "admission")


def _request(fields: list[CborValue]) -> EnrolRequest:
    recipient, mailbox, csr, sign_key, seal_key = shapes.array(fields, "a request", count=5)
    request = EnrolRequest(
        shapes.identifier(recipient, "recipient"),
        shapes.mailbox(mailbox),
        shapes.octets(csr, "certificate request", most=_MAX_CSR),
        shapes.octets(sign_key, "signing key", most=MAX_KEY_BYTES),
        shapes.octets(seal_key, "sealing key", most=MAX_KEY_BYTES),
    )
    decode_verifying_key(request.sign_key)
    decode_seal_public_key(request.seal_key)
    _check_csr(request.csr, request.mailbox)
    return request


def _check_csr(pem: bytes, mailbox: str) -> None:
    from assent import certificates  # noqa: PLC0415 - x509 costs 8 MiB; only enrolling needs it

    certificates.check_request(pem, mailbox)


def _admission(fields: list[CborValue]) -> Admission:
    recipient, mailbox, certificate = shapes.array(fields, "an admission", count=3)
    admission = Admission(
        shapes.identifier(recipient, "recipient"),
        shapes.mailbox(mailbox),
        shapes.octets(certificate, "certificate", most=_MAX_CHAIN),
    )
    _check_chain(admission.certificate, admission.mailbox)
    return admission


def _check_chain(pem: bytes, mailbox: str) -> None:
    from assent import certificates  # noqa: PLC0415 - as above

    certificates.check_chain(pem, mailbox)
