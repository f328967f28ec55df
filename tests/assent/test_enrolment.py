# SPDX-License-Identifier: Apache-2.0
"""Bundle, request, admission: three files, and what each proves."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import subprocess
import sys
from typing import Any

import cbor2
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import cbor
from assent.cosekey import SealPrivateKey, SigningKey
from assent.enrolment import (
    MAX_BUNDLE,
    MAX_ENROLMENT,
    MAX_FILES,
    Admission,
    Bundle,
    EnrolRequest,
    decode_admission,
    decode_bundle,
    decode_request,
    encode_admission,
    encode_bundle,
    encode_request,
    sniff,
)
from assent.envelope import Kind, sign_message
from assent.envelope.cose import sign1
from assent.errors import (
    BadSignatureError,
    MalformedError,
    NotCanonicalError,
    TooLargeError,
    UnknownSuiteError,
    WireError,
)

MAILBOX = "00112233445566778899aabbccddeeff"
OTHER_MAILBOX = "ff112233445566778899aabbccddeeff"
GATEWAY, ACK, POLICY = (SigningKey.generate() for _ in range(3))
SEAL = SealPrivateKey.generate()
TLS = ec.generate_private_key(ec.SECP256R1())


def name(*common: str, **more: Any) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, text) for text in common]
    parts += [x509.NameAttribute(getattr(NameOID, key), text) for key, text in more.items()]
    return x509.Name(parts)


def csr_for(subject: x509.Name) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(TLS, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def certificate_for(subject: x509.Name) -> bytes:
    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(name("authority"))
        .public_key(TLS.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3_650))
    )
    return builder.sign(TLS, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


CSR = csr_for(name(MAILBOX))
CHAIN = certificate_for(name(MAILBOX)) + certificate_for(name("authority"))
BUNDLE = Bundle(
    b'[policy]\nid = "example"\n',
    b"signature",
    POLICY.public.encode(),
    {"keys/maker-2026.cose": SEAL.public.encode(), "keys/maker-ca.pem": CHAIN},
)
REQUEST = EnrolRequest("maker", MAILBOX, CSR, GATEWAY.public.encode(), SEAL.public.encode())
ADMISSION = Admission("maker", MAILBOX, CHAIN)


def test_the_three_files_read_back_and_tell_themselves_apart() -> None:
    bundle = encode_bundle(BUNDLE)
    request = encode_request(REQUEST, GATEWAY)
    admission = encode_admission(ADMISSION, ACK)
    assert decode_bundle(bundle) == BUNDLE
    assert decode_request(request) == REQUEST
    assert decode_admission(admission, ACK.public) == ADMISSION
    assert [sniff(data) for data in (bundle, request, admission)] == [
        "bundle",
        "request",
        "admission",
    ]


def test_a_file_is_no_other_file() -> None:
    request, admission = encode_request(REQUEST, GATEWAY), encode_admission(ADMISSION, ACK)
    for read, data in (
        (decode_bundle, request),
        (decode_request, admission),
        (decode_request, encode_bundle(BUNDLE)),
        (lambda d: decode_admission(d, GATEWAY.public), request),
    ):
        with pytest.raises(WireError):
            read(data)


def test_a_classical_gateway_key_is_as_good() -> None:
    seal = SealPrivateKey.generate(classical=True).public.encode()
    request = msgspec.structs.replace(REQUEST, seal_key=seal)
    assert decode_request(encode_request(request, GATEWAY)) == request


def test_a_request_signed_with_another_key_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        decode_request(encode_request(REQUEST, SigningKey.generate()))


def resigned(payload: list[Any], key: SigningKey, purpose: str = "request", **header: Any) -> bytes:
    parameters = {int(label[1:]): value for label, value in header.items()}
    return sign1(parameters, cbor.encode(payload), key, cbor.encode([1, purpose]))


def request_fields(**changes: Any) -> list[Any]:
    fields = ["assent-request", 1, "maker", MAILBOX, CSR, REQUEST.sign_key, REQUEST.seal_key]
    for place, value in changes.items():
        fields[int(place[1:])] = value
    return fields


def ssl_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def broken(pem: bytes) -> bytes:
    """A certificate request whose signature is of other bytes."""
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-5] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


def oddly_typed(pem: bytes) -> bytes:
    """A certificate request whose name is of no string type; the library answers KeyError."""
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[der.index(MAILBOX.encode()) - 2] = 0
    return ssl_pem(bytes(der))


BAD_REQUESTS: list[tuple[str, dict[str, Any], type[WireError]]] = [
    ("another name", {"f0": "assent-admission"}, MalformedError),
    ("another version", {"f1": 2}, UnknownSuiteError),
    ("true as version", {"f1": True}, MalformedError),
    ("a recipient in capitals", {"f2": "Maker"}, MalformedError),
    ("a short mailbox", {"f3": MAILBOX[:-1]}, MalformedError),
    ("another mailbox than the certificate request", {"f3": OTHER_MAILBOX}, MalformedError),
    ("a certificate request of another mailbox", {"f4": csr_for(name(OTHER_MAILBOX))}, MalformedError),
    ("two common names", {"f4": csr_for(name(MAILBOX, MAILBOX))}, MalformedError),
    ("a subject that says more", {"f4": csr_for(name(MAILBOX, LOCALITY_NAME="Kitchen"))}, MalformedError),
    ("an empty subject", {"f4": csr_for(name())}, MalformedError),
    ("a certificate request not signed by its key", {"f4": broken(CSR)}, BadSignatureError),
    ("a name of no string type", {"f4": oddly_typed(CSR)}, MalformedError),
    ("a certificate as request", {"f4": CHAIN}, MalformedError),
    ("no PEM", {"f4": b"PEM"}, MalformedError),
    ("a long certificate request", {"f4": CSR + bytes(8_192)}, TooLargeError),
    ("a secret as signing key", {"f5": GATEWAY.encode()}, MalformedError),
    ("a sealing key to sign", {"f5": SEAL.public.encode()}, UnknownSuiteError),
    ("a secret as sealing key", {"f6": SEAL.encode()}, MalformedError),
    ("a signing key to seal", {"f6": GATEWAY.public.encode()}, UnknownSuiteError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"), [row[1:] for row in BAD_REQUESTS], ids=[row[0] for row in BAD_REQUESTS]
)
def test_a_request_of_another_shape_is_refused(
    changes: dict[str, Any], error: type[WireError]
) -> None:
    with pytest.raises(WireError) as caught:
        decode_request(resigned(request_fields(**changes), GATEWAY))
    assert type(caught.value) is error


def test_the_twin_of_the_changed_requests_is_read() -> None:
    assert decode_request(resigned(request_fields(), GATEWAY)) == REQUEST


def test_a_request_for_another_purpose_or_with_another_header_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        decode_request(resigned(request_fields(), GATEWAY, "admission"))
    with pytest.raises(MalformedError):
        decode_request(resigned(request_fields(), GATEWAY, _4=b"kid"))
    for short in ([], ["assent-request"], request_fields()[:-1], [*request_fields(), 1]):
        with pytest.raises(MalformedError):
            decode_request(resigned(short, GATEWAY))


def test_an_admission_by_another_recipient_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        decode_admission(encode_admission(ADMISSION, GATEWAY), ACK.public)


def admission_fields(**changes: Any) -> list[Any]:
    fields = ["assent-admission", 1, "maker", MAILBOX, CHAIN]
    for place, value in changes.items():
        fields[int(place[1:])] = value
    return fields


BAD_ADMISSIONS: list[tuple[str, dict[str, Any], type[WireError]]] = [
    ("another version", {"f1": 0}, UnknownSuiteError),
    ("an empty recipient", {"f2": ""}, MalformedError),
    ("a mailbox in capitals", {"f3": MAILBOX.upper()}, MalformedError),
    ("another mailbox than the certificate", {"f3": OTHER_MAILBOX}, MalformedError),
    ("the authority first", {"f4": certificate_for(name("authority")) + CHAIN}, MalformedError),
    ("a certificate that says more", {"f4": certificate_for(name(MAILBOX, COUNTRY_NAME="CN"))}, MalformedError),
    ("no certificate", {"f4": b""}, MalformedError),
    ("a certificate request as certificate", {"f4": CSR}, MalformedError),
    ("a text as certificate", {"f4": CHAIN.decode()}, MalformedError),
    ("a long chain", {"f4": CHAIN * 40}, TooLargeError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"),
    [row[1:] for row in BAD_ADMISSIONS],
    ids=[row[0] for row in BAD_ADMISSIONS],
)
def test_an_admission_of_another_shape_is_refused(
    changes: dict[str, Any], error: type[WireError]
) -> None:
    with pytest.raises(WireError) as caught:
        decode_admission(resigned(admission_fields(**changes), ACK, "admission"), ACK.public)
    assert type(caught.value) is error


def test_the_twin_of_the_changed_admissions_is_read() -> None:
    data = resigned(admission_fields(), ACK, "admission")
    assert decode_admission(data, ACK.public) == ADMISSION


def test_an_admission_for_another_purpose_or_with_another_header_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        decode_admission(resigned(admission_fields(), ACK, "request"), ACK.public)
    with pytest.raises(MalformedError):
        decode_admission(resigned(admission_fields(), ACK, "admission", _4=b"kid"), ACK.public)
    detached = sign1({}, b"", ACK, cbor.encode([1, "admission"]), detached=True)
    for read in (decode_request, lambda data: decode_admission(data, ACK.public), sniff):
        with pytest.raises(WireError):
            read(detached)


@pytest.mark.parametrize(
    "path",
    ["keys/maker-2026.cose", "maker.cose", "keys/ca/maker.pem", "keys/Maker_2.v1.pem", "-.pem"],
)
def test_a_plain_relative_path_is_taken(path: str) -> None:
    bundle = msgspec.structs.replace(BUNDLE, files={path: b"bytes"})
    assert decode_bundle(encode_bundle(bundle)).files == {path: b"bytes"}


BAD_NAMES = {
    "an absolute path": "/etc/keys.pem",
    "the folder above": "../keys.pem",
    "the folder above, further in": "keys/../../keys.pem",
    "this folder": "./keys.pem",
    "an empty part": "keys//maker.pem",
    "a folder": "keys/",
    "a backslash": "keys\\maker.pem",
    "a drive": "C:maker.pem",
    "a hidden file": ".keys.pem",
    "a hidden folder": ".ssh/keys.pem",
    "a newline": "keys\n.pem",
    "a zero byte": "keys\x00.pem",
    "a space": "my keys.pem",
    "another script": "ключ.pem",
    "no suffix": "keys/maker",
    "a program": "keys/maker.py",
    "the policy": "policy.toml",
    "the policy's signature": "policy.toml.cose",
    "its signature in capitals": "policy.TOML.cose",
    "the household's decisions": "consent.toml",
    "the settings": "agent.toml",
    "an empty name": "",
    "a long name": "k" * 124 + ".cose",
}


@pytest.mark.parametrize("path", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_any_other_name_is_refused_both_ways(path: str) -> None:
    files = {path: b"bytes"}
    with pytest.raises(WireError):
        encode_bundle(msgspec.structs.replace(BUNDLE, files=files))
    fields = ["assent-bundle", 1, b"policy", b"signature", BUNDLE.policy_key, files]
    with pytest.raises(WireError):
        decode_bundle(cbor.encode(fields))


def bundle_fields(**changes: Any) -> list[Any]:
    fields = ["assent-bundle", 1, b"policy", b"signature", BUNDLE.policy_key, {"a.pem": b""}]
    for place, value in changes.items():
        fields[int(place[1:])] = value
    return fields


BAD_BUNDLES: list[tuple[str, dict[str, Any], type[WireError]]] = [
    ("another name", {"f0": "bundle"}, MalformedError),
    ("another version", {"f1": 2}, UnknownSuiteError),
    ("a text as policy", {"f2": "policy"}, MalformedError),
    ("a long policy", {"f2": bytes(2**20 + 1)}, TooLargeError),
    ("a long signature", {"f3": bytes(129)}, TooLargeError),
    ("a secret as policy key", {"f4": POLICY.encode()}, MalformedError),
    ("a sealing key as policy key", {"f4": SEAL.public.encode()}, UnknownSuiteError),
    ("an array of files", {"f5": []}, MalformedError),
    ("numbers as names", {"f5": {1: b""}}, MalformedError),
    ("a text as content", {"f5": {"a.pem": ""}}, MalformedError),
    ("a long file", {"f5": {"a.pem": bytes(65_537)}}, TooLargeError),
    ("too many files", {"f5": {f"{i:03}.pem": b"" for i in range(MAX_FILES + 1)}}, TooLargeError),
]


@pytest.mark.parametrize(
    ("changes", "error"), [row[1:] for row in BAD_BUNDLES], ids=[row[0] for row in BAD_BUNDLES]
)
def test_a_bundle_of_another_shape_is_refused(
    changes: dict[str, Any], error: type[WireError]
) -> None:
    with pytest.raises(WireError) as caught:
        decode_bundle(cbor.encode(bundle_fields(**changes)))
    assert type(caught.value) is error


def test_the_twin_of_the_changed_bundles_is_read() -> None:
    assert decode_bundle(cbor.encode(bundle_fields())).files == {"a.pem": b""}


def test_a_bundle_over_the_limit_is_not_made() -> None:
    files = {f"{i:02}.pem": bytes(60_000) for i in range(40)}
    with pytest.raises(TooLargeError):
        encode_bundle(msgspec.structs.replace(BUNDLE, files=files))
    with pytest.raises(TooLargeError):
        decode_bundle(bytes(MAX_BUNDLE + 1))
    with pytest.raises(TooLargeError):
        decode_request(b"\xd2" + bytes(MAX_ENROLMENT))


READERS = (decode_bundle, decode_request, lambda data: decode_admission(data, ACK.public), sniff)


def refusals(data: bytes) -> int:
    """How many of the readers answer with a wire error; any other error is raised."""
    count = 0
    for read in READERS:
        with contextlib.suppress(WireError):
            read(data)
            continue
        count += 1
    return count


@given(
    st.binary(max_size=120)
    | st.lists(st.binary(max_size=9) | st.integers() | st.text(max_size=9), max_size=8).map(
        cbor2.dumps
    )
)
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_a_wire_error(data: bytes) -> None:
    assert refusals(data) == len(READERS)
    assert refusals(b"\xd2" + data) == len(READERS)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_flipped_bit_of_a_signed_file_is_a_wire_error(data: st.DataObject) -> None:
    request = bytearray(data.draw(st.sampled_from([REQUEST_FILE, ADMISSION_FILE])))
    at = data.draw(st.integers(0, len(request) * 8 - 1))
    request[at // 8] ^= 1 << at % 8
    for read in (decode_request, lambda given: decode_admission(given, ACK.public)):
        with pytest.raises(WireError):
            read(bytes(request))


@given(pem=st.binary(max_size=300))
@settings(max_examples=80, deadline=None)
def test_any_bytes_as_pem_are_a_wire_error(pem: bytes) -> None:
    armour = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + pem + b"\n-----END CERTIFICATE REQUEST-----\n"
    )
    for csr in (pem, armour):
        with pytest.raises(WireError):
            decode_request(resigned(request_fields(f4=csr), GATEWAY))


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_changed_byte_of_a_certificate_request_is_a_wire_error_or_harmless(
    data: st.DataObject,
) -> None:
    der = bytearray(x509.load_pem_x509_csr(CSR).public_bytes(serialization.Encoding.DER))
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    pem = ssl_pem(bytes(der))
    try:
        request = decode_request(resigned(request_fields(f4=pem), GATEWAY))
    except WireError:
        return
    assert request.mailbox == MAILBOX


def test_a_message_is_no_file() -> None:
    assert refusals(sign_message(Kind.STATUS, b"", GATEWAY, MAILBOX)) == len(READERS)


def test_another_encoding_is_refused() -> None:
    data = encode_bundle(BUNDLE)
    with pytest.raises(NotCanonicalError):
        decode_bundle(data + b"\x00")
    with pytest.raises(NotCanonicalError):
        decode_bundle(b"\x98\x06" + data[1:])


def test_x509_is_loaded_only_to_enrol() -> None:
    script = "import sys, assent.enrolment; sys.exit('cryptography.x509' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


REQUEST_FILE = encode_request(REQUEST, GATEWAY)
ADMISSION_FILE = encode_admission(ADMISSION, ACK)
