# SPDX-License-Identifier: Apache-2.0
"""COSE_Key bytes read into the four kinds of key, and the thumbprints of the policy's files.

Law: see `assent.cosekey`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from assent import cbor
from assent.cosekey.pairs import (
    CLASSICAL,
    HYBRID,
    SIGNING,
    Members,
    SealPrivateKey,
    SealPublicKey,
    SigningKey,
    VerifyingKey,
)
from assent.errors import MalformedError, UnknownSuiteError
from assent.wire import (
    AKP_PRIV,
    AKP_PUB,
    KEY_ALG,
    KEY_KID,
    KEY_KTY,
    KTY_AKP,
    OKP_D,
    OKP_X,
    Algorithm,
)

MAX_KEY_BYTES: Final = 2_048
"""Longest COSE_Key read; the hybrid pair has 1,261 bytes."""


def decode_verifying_key(data: bytes) -> VerifyingKey:
    """Reads an Ed25519 public key.

    Args:
        data: COSE_Key.

    Returns:
        The key.

    Raises:
        WireError: not deterministic, too long, another type, or no such key.
    """
    (raw,) = _values(_read(data), SIGNING, (OKP_X,))
    return VerifyingKey.of(raw)


def decode_signing_key(data: bytes) -> SigningKey:
    """Reads an Ed25519 key pair.

    Args:
        data: COSE_Key with its secret.

    Returns:
        The pair.

    Raises:
        WireError: not deterministic, too long, another type, or halves that do not agree.
    """
    raw, secret = _values(_read(data), SIGNING, (OKP_X, OKP_D))
    key = SigningKey.of(secret)
    _agree(key.public.raw, raw)
    return key


def decode_seal_public_key(data: bytes) -> SealPublicKey:
    """Reads a public key to seal to.

    Args:
        data: COSE_Key.

    Returns:
        The key, its suite decided by its type.

    Raises:
        WireError: not deterministic, too long, another type, or no such key.
    """
    members = _read(data)
    if members.get(KEY_KTY) == KTY_AKP:
        return SealPublicKey.of(Algorithm.HPKE_9, *_values(members, HYBRID, (AKP_PUB,)))
    return SealPublicKey.of(Algorithm.HPKE_4, *_values(members, CLASSICAL, (OKP_X,)))


def decode_seal_private_key(data: bytes) -> SealPrivateKey:
    """Reads a key pair that opens seals.

    Args:
        data: COSE_Key with its secret.

    Returns:
        The pair.

    Raises:
        WireError: not deterministic, too long, another type, or halves that do not agree.
    """
    members = _read(data)
    if members.get(KEY_KTY) == KTY_AKP:
        raw, secret = _values(members, HYBRID, (AKP_PUB, AKP_PRIV))
        key = SealPrivateKey.of(Algorithm.HPKE_9, secret)
    else:
        raw, secret = _values(members, CLASSICAL, (OKP_X, OKP_D))
        key = SealPrivateKey.of(Algorithm.HPKE_4, secret)
    _agree(key.public.key.raw, raw)
    return key


def decode_public_key(data: bytes) -> VerifyingKey | SealPublicKey:
    """Reads a public key of either use, told apart by its algorithm.

    Args:
        data: COSE_Key.

    Returns:
        The key.

    Raises:
        WireError: not deterministic, too long, another type, or no such key.
    """
    if _read(data).get(KEY_ALG) == Algorithm.EDDSA:
        return decode_verifying_key(data)
    return decode_seal_public_key(data)


def file_thumbprint(name: str, data: bytes) -> bytes:
    """Computes the thumbprint a policy names a file by.

    Args:
        name: the file's name; one that ends in `.cose` holds a public COSE_Key.
        data: the file's bytes.

    Returns:
        32 bytes: of the key (RFC 9679), or SHA-256 of the bytes for any other file.

    Raises:
        WireError: the name ends in `.cose` and the bytes are no public key.
    """
    if name.endswith(".cose"):
        return decode_public_key(data).thumbprint
    return hashlib.sha256(data).digest()


def _read(data: bytes) -> dict[int | str, cbor.CborValue]:
    members = cbor.decode(data, max_bytes=MAX_KEY_BYTES, max_depth=1)
    if not isinstance(members, dict) or not isinstance(members.pop(KEY_KID, b""), bytes):
        raise MalformedError("expected a COSE_Key, a map")
    return members


def _values(
    members: dict[int | str, cbor.CborValue],
    fixed: Members,
    names: tuple[int, ...],
) -> list[bytes]:
    """Checks the members that are fixed and returns the byte strings that are not."""
    for label, number in fixed.items():
        came = members.get(label)
        if type(came) is not int or came != number:
            raise UnknownSuiteError(f"expected {number!s} as member {label} of a COSE_Key")
    values = [members.get(label) for label in names]
    if members.keys() != fixed.keys() | set(names):
        raise MalformedError("the members of the COSE_Key are not those of its type")
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(names):
        raise MalformedError("expected byte strings in a COSE_Key")
    return found


def _agree(derived: bytes, stated: bytes) -> None:
    if derived != stated:
        raise MalformedError("the public half of the key is not the one of its secret")
