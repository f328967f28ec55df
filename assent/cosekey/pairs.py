# SPDX-License-Identifier: Apache-2.0
"""The four kinds of key: two of Ed25519 to sign and verify, two of a KEM to open and seal.

Law: see `assent.cosekey`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assent import cbor, kem
from assent.errors import BadSignatureError, MalformedError
from assent.wire import (
    AKP_PRIV,
    AKP_PUB,
    CRV_ED25519,
    CRV_X25519,
    KEY_ALG,
    KEY_KTY,
    KTY_AKP,
    KTY_OKP,
    OKP_CRV,
    OKP_D,
    OKP_X,
    Algorithm,
)

SIGNATURE_BYTES: Final = 64  # RFC 8032 §5.1.6
KID_BYTES: Final = 8
"""A key id is the first bytes of the thumbprint: it names a key, the seal proves it."""
Members: TypeAlias = dict[int, int | bytes]
# The members that are the same in every key of a type.
SIGNING: Final[Members] = {KEY_KTY: KTY_OKP, KEY_ALG: Algorithm.EDDSA, OKP_CRV: CRV_ED25519}
CLASSICAL: Final[Members] = {KEY_KTY: KTY_OKP, KEY_ALG: Algorithm.HPKE_4, OKP_CRV: CRV_X25519}
HYBRID: Final[Members] = {KEY_KTY: KTY_AKP, KEY_ALG: Algorithm.HPKE_9}
_KEMS: Final = {
    Algorithm.HPKE_4: kem.Kem.X25519,
    Algorithm.HPKE_9: kem.Kem.MLKEM768_X25519,
}


def _thumbprint(required: Members) -> bytes:
    # RFC 9679 §3: only the members a key of this type must have, deterministically encoded
    return hashlib.sha256(cbor.encode(required)).digest()


def thumbprint_text(thumbprint: bytes) -> str:
    """Writes a SHA-256 thumbprint as the policy does.

    Args:
        thumbprint: 32 bytes.

    Returns:
        `sha-256:` and unpadded base64url.
    """
    return "sha-256:" + base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode("ascii")


class _Public:
    __slots__ = ()
    thumbprint: bytes

    # Two objects of cryptography may be one key.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.thumbprint == self.thumbprint

    def __hash__(self) -> int:
        return hash(self.thumbprint)

    @property
    def kid(self) -> bytes:
        """The first 8 bytes of the thumbprint; a seal shows its recipient's to the broker."""
        return self.thumbprint[:KID_BYTES]


class _Pair:
    __slots__ = ()
    public: _Public

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.thumbprint == self.thumbprint

    def __hash__(self) -> int:
        return hash(self.thumbprint)

    @property
    def thumbprint(self) -> bytes:
        """RFC 9679 thumbprint of the public half, 32 bytes."""
        return self.public.thumbprint

    @property
    def kid(self) -> bytes:
        """The first 8 bytes of the thumbprint."""
        return self.public.kid

    def __repr__(self) -> str:
        return f"{type(self).__name__}({thumbprint_text(self.thumbprint)})"


class VerifyingKey(_Public, msgspec.Struct, frozen=True):
    """The public half of an Ed25519 signing key.

    Attributes:
        raw: the 32 bytes of RFC 8032 §5.1.5.
        thumbprint: RFC 9679, SHA-256, 32 bytes.
    """

    raw: bytes
    thumbprint: bytes
    _key: Ed25519PublicKey

    @classmethod
    def of(cls, raw: bytes) -> VerifyingKey:
        """Makes the key from its 32 bytes (RFC 8032 §5.1.5).

        Raises:
            MalformedError: wrong length.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError as exc:
            raise MalformedError(f"expected an Ed25519 key of 32 bytes, got {len(raw)}") from exc
        return cls(raw, _thumbprint({KEY_KTY: KTY_OKP, OKP_CRV: CRV_ED25519, OKP_X: raw}), key)

    def encode(self) -> bytes:
        """Writes the COSE_Key."""
        return cbor.encode(SIGNING | {OKP_X: self.raw})

    def verify(self, signature: bytes, data: bytes) -> None:
        """Returns when the signature over the data is this key's.

        Raises:
            BadSignatureError: it is not.
        """
        try:
            self._key.verify(signature, data)
        except (InvalidSignature, ValueError) as exc:
            raise BadSignatureError("the signature is not by the key that belongs here") from exc


class SigningKey(_Pair, msgspec.Struct, frozen=True):
    """An Ed25519 key pair."""

    public: VerifyingKey
    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        """Makes a new pair from the system's randomness."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, raw: bytes) -> SigningKey:
        """Makes the pair from its 32-byte seed (RFC 8032 §5.1.5).

        Raises:
            MalformedError: wrong length.
        """
        try:
            return cls._of(Ed25519PrivateKey.from_private_bytes(raw))
        except ValueError as exc:
            raise MalformedError(f"expected an Ed25519 seed of 32 bytes, got {len(raw)}") from exc

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> SigningKey:
        return cls(VerifyingKey.of(key.public_key().public_bytes_raw()), key)

    def encode(self) -> bytes:
        """Writes the COSE_Key with its secret, for a store that wraps it."""
        return cbor.encode(SIGNING | {OKP_X: self.public.raw, OKP_D: self._key.private_bytes_raw()})

    def sign(self, data: bytes) -> bytes:
        """Signs (RFC 8032, deterministic); 64 bytes."""
        return self._key.sign(data)


class SealPublicKey(_Public, msgspec.Struct, frozen=True):
    """What is needed to seal to somebody; its algorithm decides the suite.

    Attributes:
        algorithm: HPKE_4 or HPKE_9.
        key: the KEM's key.
        thumbprint: RFC 9679, SHA-256, 32 bytes.
    """

    algorithm: Algorithm
    key: kem.PublicKey
    thumbprint: bytes

    @classmethod
    def of(cls, algorithm: Algorithm, raw: bytes) -> SealPublicKey:
        """Makes the key from the KEM's serialisation.

        Raises:
            MalformedError: wrong length, or no such key.
        """
        return _seal_public(algorithm, kem.load_public(_KEMS[algorithm], raw))

    def encode(self) -> bytes:
        """Writes the COSE_Key."""
        return cbor.encode(_seal_members(self))


class SealPrivateKey(_Pair, msgspec.Struct, frozen=True):
    """What is needed to open what was sealed to somebody."""

    public: SealPublicKey
    key: kem.PrivateKey

    @classmethod
    def generate(cls, *, classical: bool = False) -> SealPrivateKey:
        """Makes a new pair: the post-quantum hybrid, or X25519 alone when classical."""
        algorithm = Algorithm.HPKE_4 if classical else Algorithm.HPKE_9
        return cls._of(algorithm, kem.generate(_KEMS[algorithm]))

    @classmethod
    def of(cls, algorithm: Algorithm, raw: bytes) -> SealPrivateKey:
        """Makes the pair from the scalar or the seed, 32 bytes.

        Raises:
            MalformedError: wrong length.
        """
        return cls._of(algorithm, kem.load_private(_KEMS[algorithm], raw))

    @classmethod
    def _of(cls, algorithm: Algorithm, key: kem.PrivateKey) -> SealPrivateKey:
        return cls(_seal_public(algorithm, key.public), key)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of both halves."""
        return self.public.algorithm

    def encode(self) -> bytes:
        """Writes the COSE_Key with its secret, for a store that wraps it."""
        secret = OKP_D if self.algorithm is Algorithm.HPKE_4 else AKP_PRIV
        return cbor.encode(_seal_members(self.public) | {secret: self.key.raw})


def _seal_public(algorithm: Algorithm, key: kem.PublicKey) -> SealPublicKey:
    if algorithm is Algorithm.HPKE_4:
        return SealPublicKey(
            algorithm, key, _thumbprint({KEY_KTY: KTY_OKP, OKP_CRV: CRV_X25519, OKP_X: key.raw})
        )
    return SealPublicKey(algorithm, key, _thumbprint(HYBRID | {AKP_PUB: key.raw}))


def _seal_members(key: SealPublicKey) -> Members:
    if key.algorithm is Algorithm.HPKE_4:
        return CLASSICAL | {OKP_X: key.key.raw}
    return HYBRID | {AKP_PUB: key.key.raw}
