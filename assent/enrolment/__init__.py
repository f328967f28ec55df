# SPDX-License-Identifier: Apache-2.0
"""Enrolment by three single files: a bundle in, a request out, an admission in.

Path: recipient → **Bundle** → technician → gateway → **EnrolRequest** → recipient →
**Admission** → gateway.

Law:
  - each file is deterministic CBOR that begins with its own name and format version;
  - a request is signed with the key it brings (COSE_Sign1), its certificate request with the TLS
    key it brings and made out to its mailbox: whoever asks holds both keys;
  - an admission is signed by the recipient's ack key, which the policy names;
  - a bundle names files by relative paths of its own, keys and certificates only, so that no
    policy, form or setting can be written by bringing one;
  - to a gateway that is enrolled a newer bundle may also come as a message: the same bytes;
  - a bundle proves nothing by itself: `assent.policy.signing.open_policy` does, with the policy
    key that the technician compares.

Standards: docs/wire.md, CDDL `bundle`, `enrol-request`, `admission`; RFC 2986 (CSR).

Security: bundle and request come from strangers. The sealing key of a request is signed, not
proven: whoever puts another's there can only make his own acknowledgements unreadable.

Limits: 64 files, 2 MiB a bundle, 64 kB a request or an admission.
"""

from __future__ import annotations

import re
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
from assent.enrolment.kinds import FileKind
from assent.envelope.cose import read_sign1, sign1, verify1
from assent.errors import MalformedError, TooLargeError, UnknownSuiteError
from assent.wire import FORMAT, TAG_SIGN1

MAX_BUNDLE: Final = 2 * 2**20
"""Longest bundle in bytes."""
MAX_ENROLMENT: Final = 65_536
"""Longest request or admission in bytes; a chain of three certificates has some 3 kB."""
MAX_FILES: Final = 64
MAX_FILE: Final = 65_536
"""Longest file that a policy names, in bytes."""
MAX_POLICY: Final = 2**20
"""Longest policy in bytes."""
_MAX_NAME: Final = 128
_MAX_SIGNATURE: Final = 128
_MAX_CSR: Final = 8_192
_MAX_CHAIN: Final = 32_768
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SUFFIXES: Final = (".cose", ".pem")
# What a policy, a form or a setting of this gateway ends in, with a signature or without.
_NEVER: Final = (".toml", ".toml.cose")


class Bundle(msgspec.Struct, frozen=True):
    """A recipient's policy with everything it names.

    Attributes:
        policy: bytes of `policy.toml`.
        signature: bytes of `policy.toml.cose`.
        policy_key: COSE_Key that verifies it.
        files: bytes of each file, by its path as the policy names it.
    """

    policy: bytes
    signature: bytes
    policy_key: bytes
    files: dict[str, bytes]


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


def encode_bundle(bundle: Bundle) -> bytes:
    """Writes a bundle.

    Args:
        bundle: what to write.

    Returns:
        The file's bytes.

    Raises:
        WireError: something a reader would refuse.
    """
    files: dict[int | str, CborValue] = {name: bundle.files[name] for name in bundle.files}
    fields: list[CborValue] = [bundle.policy, bundle.signature, bundle.policy_key, files]
    _bundle(fields)
    return _written("bundle", fields, MAX_BUNDLE)


def decode_bundle(data: bytes) -> Bundle:
    """Reads a bundle; verifies nothing of the policy inside.

    Args:
        data: the file's bytes.

    Returns:
        The bundle.

    Raises:
        WireError: not the CDDL of docs/wire.md, over a limit, or a name that is no plain
            relative path of a key or certificate.
    """
    return _bundle(_read("bundle", data, MAX_BUNDLE))


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
    payload = _written("request", fields, MAX_ENROLMENT)
    return sign1({}, payload, key, _purpose("request"))


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
    request = _request(_read("request", read.payload, MAX_ENROLMENT))
    key = decode_verifying_key(request.sign_key)
    if verify1(read, read.payload, key, _purpose("request")):
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
    payload = _written("admission", fields, MAX_ENROLMENT)
    return sign1({}, payload, key, _purpose("admission"))


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
    if verify1(read, read.payload, ack_key, _purpose("admission")):
        raise MalformedError("unknown parameters in the signed header of an admission")
    return _admission(_read("admission", read.payload, MAX_ENROLMENT))


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


def _purpose(kind: FileKind) -> bytes:
    """External data of a signature over a file: never that of a message, which has a mailbox."""
    return cbor.encode([FORMAT, kind])


def _written(kind: FileKind, fields: list[CborValue], most: int) -> bytes:
    data = cbor.encode([f"assent-{kind}", FORMAT, *fields])
    if len(data) > most:
        raise TooLargeError(f"expected a {kind} of at most {most} bytes, got {len(data)}")
    return data


def _read(kind: FileKind, data: bytes, most: int) -> list[CborValue]:
    fields = shapes.array(cbor.decode(data, max_bytes=most, max_items=1_024, max_depth=4), kind)
    if fields[:1] != [f"assent-{kind}"]:
        raise MalformedError(f"expected a file that begins with assent-{kind}")
    if shapes.integer(fields[1] if len(fields) > 1 else None, "format") != FORMAT:
        raise UnknownSuiteError(f"expected format version {FORMAT} in the {kind}")
    return fields[2:]


def _bundle(fields: list[CborValue]) -> Bundle:
    policy, signature, key, files = shapes.array(fields, "a bundle", count=4)
    if not isinstance(files, dict):
        raise MalformedError("expected a map of names as the files of a bundle")
    if len(files) > MAX_FILES:
        raise TooLargeError(f"expected at most {MAX_FILES} files in a bundle, got {len(files)}")
    policy_key = shapes.octets(key, "policy key", most=MAX_KEY_BYTES)
    decode_verifying_key(policy_key)
    return Bundle(
        shapes.octets(policy, "policy", most=MAX_POLICY),
        shapes.octets(signature, "policy signature", most=_MAX_SIGNATURE),
        policy_key,
        {
            _path(name): shapes.octets(content, "a file of a bundle", most=MAX_FILE)
            for name, content in files.items()
        },
    )


def _path(value: CborValue) -> str:
    """Takes a relative path that cannot leave its folder or name a file a person edits."""
    name = shapes.text(value, "a file name of a bundle", most=_MAX_NAME)
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise MalformedError("expected a plain relative path as the name of a file of a bundle")
    if not name.endswith(_SUFFIXES) or name.lower().endswith(_NEVER):
        raise MalformedError("expected a name ending in .cose or .pem in a bundle")
    return name


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
