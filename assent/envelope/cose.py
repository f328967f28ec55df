# SPDX-License-Identifier: Apache-2.0
"""The two COSE structures of the wire, strictly: COSE_Sign1 with EdDSA, COSE_Encrypt0 with HPKE.

Law:
  - outermost is exactly one tag: 18 for Sign1, 16 for Encrypt0; inside no tag at all;
  - every byte is deterministic CBOR; nothing follows;
  - the header parameters are exactly those written here: no `crit`, nothing unprotected but the
    two of the seal, nothing that a reader would have to skip;
  - a signature is verified before anybody looks at what it covers.

Standards: RFC 9052 §4.2, §4.4 (COSE_Sign1), §5.2, §5.3 (COSE_Encrypt0); draft-ietf-cose-hpke,
integrated mode: HPKE aad = Enc_structure, info empty, `ek` unprotected.

Limits: one signer, one recipient, no countersignature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assent import cbor, hpke, shapes
from assent.cosekey import SIGNATURE_BYTES, SealPrivateKey, SealPublicKey, SigningKey, VerifyingKey
from assent.errors import CannotOpenError, MalformedError, TooLargeError, UnknownSuiteError
from assent.wire import (
    HEADER_ALG,
    HEADER_EK,
    HEADER_KID,
    TAG_ENCRYPT0,
    TAG_SIGN1,
    Algorithm,
)

MAX_PROTECTED: Final = 8_192
"""Longest protected header in bytes: a batch header with all its gaps has at most 5 kB."""
MAX_DETACHED: Final = 128
"""Longest detached signature in bytes; one has 74."""
_MAX_KID: Final = 64

Header: TypeAlias = dict[int | str, cbor.CborValue]
"""Protected header parameters but for the algorithm."""


class Sign1(msgspec.Struct, frozen=True):
    """A COSE_Sign1 as it was read; nothing of it is verified yet.

    Attributes:
        protected: the protected header, encoded.
        payload: what is signed, or None when it is detached.
        signature: 64 bytes.
    """

    protected: bytes
    payload: bytes | None
    signature: bytes


class Encrypt0(msgspec.Struct, frozen=True):
    """A COSE_Encrypt0 as it was read; nothing of it is opened yet.

    Attributes:
        protected: the protected header, encoded.
        algorithm: HPKE_4 or HPKE_9.
        kid: key id of the recipient, in clear.
        enc: encapsulated key.
        ciphertext: with its tag.
    """

    protected: bytes
    algorithm: Algorithm
    kid: bytes
    enc: bytes
    ciphertext: bytes


def sign1(
    header: Mapping[int, cbor.Encodable],
    payload: bytes,
    key: SigningKey,
    external_aad: bytes,
    *,
    detached: bool = False,
) -> bytes:
    """Signs.

    Args:
        header: protected parameters besides the algorithm.
        payload: what is signed.
        key: the signer's.
        external_aad: signed and not sent.
        detached: leaves the payload out of the result.

    Returns:
        The COSE_Sign1, tagged.
    """
    protected = cbor.encode({HEADER_ALG: int(Algorithm.EDDSA), **header})
    signature = key.sign(_to_be_signed(protected, external_aad, payload))
    return TAG_SIGN1 + cbor.encode([protected, {}, None if detached else payload, signature])


def read_sign1(data: bytes, max_bytes: int) -> Sign1:
    """Reads the structure of a COSE_Sign1; verifies nothing.

    Args:
        data: the bytes.
        max_bytes: longest accepted.

    Returns:
        Its parts.

    Raises:
        WireError: not the structure of this page.
    """
    parts = _parts(data, TAG_SIGN1, 4, max_bytes)
    protected = shapes.octets(parts[0], "protected header", most=MAX_PROTECTED)
    if parts[1] != {}:
        raise MalformedError("expected nothing unprotected in the signature")
    payload = None if parts[2] is None else shapes.octets(parts[2], "payload")
    signature = shapes.octets(parts[3], "signature", size=SIGNATURE_BYTES)
    return Sign1(protected, payload, signature)


def verify1(read: Sign1, payload: bytes, key: VerifyingKey, external_aad: bytes) -> Header:
    """Verifies a COSE_Sign1 that was read.

    Args:
        read: its parts.
        payload: its payload, from inside or detached.
        key: the signer's, known beforehand.
        external_aad: as in signing.

    Returns:
        The protected parameters besides the algorithm.

    Raises:
        UnknownSuiteError: another algorithm.
        BadSignatureError: not signed by this key, under this external data.
        WireError: the protected header is no map.
    """
    algorithm, header = _header(read.protected)
    if algorithm is not Algorithm.EDDSA:
        raise UnknownSuiteError("expected EdDSA as the algorithm of the signature")
    key.verify(read.signature, _to_be_signed(read.protected, external_aad, payload))
    return header


def sign_detached(payload: bytes, key: SigningKey, external_aad: bytes) -> bytes:
    """Signs bytes that stay where they are, as the policy's signature file does.

    Args:
        payload: what is signed.
        key: the signer's.
        external_aad: says what the signature is for; signed and not sent.

    Returns:
        A COSE_Sign1 with nil as payload.
    """
    return sign1({}, payload, key, external_aad, detached=True)


def verify_detached(
    payload: bytes, signature: bytes, key: VerifyingKey, external_aad: bytes
) -> None:
    """Returns when the detached signature over the payload is this key's.

    Args:
        payload: what was signed.
        signature: the COSE_Sign1 with nil as payload.
        key: the signer's, known beforehand.
        external_aad: as in signing.

    Raises:
        BadSignatureError: it is not.
        WireError: it is no detached COSE_Sign1 with EdDSA and nothing more.
    """
    read = read_sign1(signature, MAX_DETACHED)
    if read.payload is not None:
        raise MalformedError("expected a detached signature, a payload is inside")
    if verify1(read, payload, key, external_aad):
        raise MalformedError("unknown parameters in the header of a detached signature")


def encrypt0(
    plaintext: bytes,
    to: SealPublicKey,
    external_aad: bytes,
    *,
    unsafe_ephemeral: X25519PrivateKey | None = None,
) -> bytes:
    """Seals.

    Args:
        plaintext: what is sealed.
        to: the recipient's key; its type decides the suite.
        external_aad: authenticated and not sent.
        unsafe_ephemeral: see `assent.hpke.seal`; for test vectors only.

    Returns:
        The COSE_Encrypt0, tagged.
    """
    protected = cbor.encode({HEADER_ALG: int(to.algorithm)})
    aad = _enc_structure(protected, external_aad)
    suite = hpke.SUITES[to.algorithm]
    enc, ciphertext = hpke.seal(
        suite, to.key, b"", aad, plaintext, unsafe_ephemeral=unsafe_ephemeral
    )
    return TAG_ENCRYPT0 + cbor.encode([protected, {HEADER_KID: to.kid, HEADER_EK: enc}, ciphertext])


def read_encrypt0(data: bytes, max_bytes: int) -> Encrypt0:
    """Reads the structure of a COSE_Encrypt0; opens nothing.

    Args:
        data: the bytes.
        max_bytes: longest accepted.

    Returns:
        Its parts.

    Raises:
        UnknownSuiteError: an algorithm that is not in the table.
        WireError: not the structure of this page.
    """
    parts = _parts(data, TAG_ENCRYPT0, 3, max_bytes)
    protected = shapes.octets(parts[0], "protected header", most=MAX_PROTECTED)
    algorithm, header = _header(protected)
    suite = hpke.SUITES.get(algorithm)
    if suite is None:
        raise UnknownSuiteError("expected HPKE-4 or HPKE-9 as the algorithm of the seal")
    clear = parts[1]
    if header or not isinstance(clear, dict) or clear.keys() != {HEADER_KID, HEADER_EK}:
        raise MalformedError("expected alg protected, kid and ek unprotected, and nothing else")
    kid = shapes.octets(clear[HEADER_KID], "kid", most=_MAX_KID)
    enc = shapes.octets(clear[HEADER_EK], "ek", size=suite.kem.enc_bytes)
    return Encrypt0(protected, algorithm, kid, enc, shapes.octets(parts[2], "ciphertext"))


def decrypt0(read: Encrypt0, key: SealPrivateKey, external_aad: bytes) -> bytes:
    """Opens a COSE_Encrypt0 that was read.

    Args:
        read: its parts.
        key: the recipient's.
        external_aad: as in sealing.

    Returns:
        The plaintext.

    Raises:
        CannotOpenError: for another key, under other external data, or changed.
    """
    if read.algorithm is not key.algorithm:
        raise CannotOpenError("the seal is of another suite than the key")
    aad = _enc_structure(read.protected, external_aad)
    return hpke.open(hpke.SUITES[read.algorithm], key.key, read.enc, b"", aad, read.ciphertext)


def _to_be_signed(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    return cbor.encode(["Signature1", protected, external_aad, payload])  # RFC 9052 §4.4


def _enc_structure(protected: bytes, external_aad: bytes) -> bytes:
    return cbor.encode(["Encrypt0", protected, external_aad])  # RFC 9052 §5.3


def _parts(data: bytes, tag: bytes, count: int, max_bytes: int) -> list[cbor.CborValue]:
    """Takes the tag off and reads the array under it."""
    if len(data) > max_bytes:
        raise TooLargeError(f"expected at most {max_bytes} bytes, got {len(data)}")
    if data[:1] != tag:
        raise MalformedError(f"expected CBOR tag {tag[0] & 31} first")
    value = cbor.decode(data[1:], max_bytes=max_bytes, max_items=16, max_depth=2)
    return shapes.array(value, "a COSE message", count=count)


def _header(protected: bytes) -> tuple[Algorithm, Header]:
    """Reads a protected header into its algorithm and the other parameters."""
    header = cbor.decode(protected, max_bytes=MAX_PROTECTED)
    if not isinstance(header, dict) or HEADER_ALG not in header:
        raise MalformedError("expected a map with an algorithm as protected header")
    number = shapes.integer(header.pop(HEADER_ALG), "alg", low=-(2**63))
    try:
        return Algorithm(number), header
    except ValueError as exc:
        raise UnknownSuiteError("an algorithm came that is not in the table") from exc
