# SPDX-License-Identifier: Apache-2.0
"""Keys as COSE_Key: signing and sealing pairs, their bytes, their thumbprints.

Law:
  - four kinds of key and no other: Ed25519 signing and verifying, sealing private and public;
  - the type of a sealing key decides the suite, so that nobody negotiates: OKP X25519 is HPKE-4,
    AKP with the algorithm MLKEM768-X25519 is HPKE-9;
  - a key is read only in its own form: exactly the members below, deterministic CBOR; a `kid`
    (2) that another tool wrote is allowed and ignored;
  - a private key carries its public half, and the two must agree;
  - a private key shows its thumbprint in its repr, never itself.

Standards: RFC 9052 §7 (COSE_Key), RFC 9053 §7.2 (OKP), RFC 9864 and draft-ietf-cose-dilithium
(AKP), draft-ietf-cose-hpke (algorithm numbers), RFC 9679 (thumbprint, SHA-256).

Security: the bytes of a private key are plaintext; whoever stores them wraps them.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assent import cbor, hpke, kem
from assent.errors import BadSignatureError, MalformedError, UnknownSuiteError

SIGNATURE_BYTES: Final = 64  # RFC 8032 §5.1.6
KID_BYTES: Final = 8
"""A key id is the first bytes of the thumbprint: it names a key, the seal proves it."""
MAX_KEY_BYTES: Final = 2_048
"""Longest COSE_Key read; the hybrid pair has 1,264 bytes."""

_KTY, _KID, _ALG = 1, 2, 3  # RFC 9052 table 4
_OKP, _AKP = 1, 7  # key types
_CRV, _X, _D = -1, -2, -4  # OKP, RFC 9053 table 19
_PUB, _PRIV = -1, -2  # AKP
_ED25519, _X25519 = 6, 4  # curves, RFC 9053 table 18


class Algorithm(enum.IntEnum):
    """COSE algorithm numbers used here; those of HPKE are still the drafts' assumed ones."""

    EDDSA = -8
    """Ed25519 (RFC 9053 §2.2)."""
    HPKE_4 = 42
    """X25519, HKDF-SHA256, ChaCha20-Poly1305 (draft-ietf-cose-hpke)."""
    HPKE_9 = 56
    """MLKEM768-X25519, SHAKE256, AES-256-GCM (draft-ietf-cose-hpke-pq-pqt)."""

    @property
    def suite(self) -> hpke.Suite:
        """The HPKE suite behind the number; EDDSA has none (KeyError)."""
        return _SUITES[self]


_SUITES: Final = {Algorithm.HPKE_4: hpke.HPKE_4, Algorithm.HPKE_9: hpke.HPKE_9}

_Members: TypeAlias = dict[int, int | bytes]
# The members that are the same in every key of a type.
_SIGNING: Final[_Members] = {_KTY: _OKP, _ALG: -8, _CRV: _ED25519}
_CLASSICAL: Final[_Members] = {_KTY: _OKP, _ALG: 42, _CRV: _X25519}
_HYBRID: Final[_Members] = {_KTY: _AKP, _ALG: 56}


def _thumbprint(required: _Members) -> bytes:
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

    @property
    def kid(self) -> bytes:
        """The first 8 bytes of the thumbprint; a seal shows its recipient's to the broker."""
        return self.thumbprint[:KID_BYTES]


class _Pair:
    __slots__ = ()
    public: _Public

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


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyingKey(_Public):
    """The public half of an Ed25519 signing key.

    Attributes:
        raw: the 32 bytes of RFC 8032 §5.1.5.
        thumbprint: RFC 9679, SHA-256, 32 bytes.
    """

    raw: bytes
    thumbprint: bytes
    _key: Ed25519PublicKey = dataclasses.field(repr=False, compare=False)

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
        return cls(raw, _thumbprint({_KTY: _OKP, _CRV: _ED25519, _X: raw}), key)

    def encode(self) -> bytes:
        """Writes the COSE_Key."""
        return cbor.encode(_SIGNING | {_X: self.raw})

    def verify(self, signature: bytes, data: bytes) -> None:
        """Returns when the signature over the data is this key's.

        Raises:
            BadSignatureError: it is not.
        """
        try:
            self._key.verify(signature, data)
        except (InvalidSignature, ValueError) as exc:
            raise BadSignatureError("the signature is not by the key that belongs here") from exc


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class SigningKey(_Pair):
    """An Ed25519 key pair."""

    public: VerifyingKey
    _key: Ed25519PrivateKey = dataclasses.field(compare=False)

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
        return cbor.encode(_SIGNING | {_X: self.public.raw, _D: self._key.private_bytes_raw()})

    def sign(self, data: bytes) -> bytes:
        """Signs (RFC 8032, deterministic); 64 bytes."""
        return self._key.sign(data)


@dataclasses.dataclass(frozen=True, slots=True)
class SealPublicKey(_Public):
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
        return _seal_public(algorithm, kem.load_public(algorithm.suite.kem, raw))

    def encode(self) -> bytes:
        """Writes the COSE_Key."""
        return cbor.encode(_seal_members(self))


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class SealPrivateKey(_Pair):
    """What is needed to open what was sealed to somebody."""

    public: SealPublicKey
    key: kem.PrivateKey

    @classmethod
    def generate(cls, *, classical: bool = False) -> SealPrivateKey:
        """Makes a new pair: the post-quantum hybrid, or X25519 alone when classical."""
        algorithm = Algorithm.HPKE_4 if classical else Algorithm.HPKE_9
        return cls._of(algorithm, kem.generate(algorithm.suite.kem))

    @classmethod
    def of(cls, algorithm: Algorithm, raw: bytes) -> SealPrivateKey:
        """Makes the pair from the scalar or the seed, 32 bytes.

        Raises:
            MalformedError: wrong length.
        """
        return cls._of(algorithm, kem.load_private(algorithm.suite.kem, raw))

    @classmethod
    def _of(cls, algorithm: Algorithm, key: kem.PrivateKey) -> SealPrivateKey:
        return cls(_seal_public(algorithm, key.public), key)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of both halves."""
        return self.public.algorithm

    def encode(self) -> bytes:
        """Writes the COSE_Key with its secret, for a store that wraps it."""
        secret = _D if self.algorithm is Algorithm.HPKE_4 else _PRIV
        return cbor.encode(_seal_members(self.public) | {secret: self.key.raw})


def _seal_public(algorithm: Algorithm, key: kem.PublicKey) -> SealPublicKey:
    if algorithm is Algorithm.HPKE_4:
        return SealPublicKey(algorithm, key, _thumbprint({_KTY: _OKP, _CRV: _X25519, _X: key.raw}))
    return SealPublicKey(algorithm, key, _thumbprint(_HYBRID | {_PUB: key.raw}))


def _seal_members(key: SealPublicKey) -> _Members:
    if key.algorithm is Algorithm.HPKE_4:
        return _CLASSICAL | {_X: key.key.raw}
    return _HYBRID | {_PUB: key.key.raw}


def decode_verifying_key(data: bytes) -> VerifyingKey:
    """Reads an Ed25519 public key.

    Args:
        data: COSE_Key.

    Returns:
        The key.

    Raises:
        WireError: not deterministic, too long, another type, or no such key.
    """
    (raw,) = _values(_read(data), _SIGNING, (_X,))
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
    raw, secret = _values(_read(data), _SIGNING, (_X, _D))
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
    if members.get(_KTY) == _AKP:
        return SealPublicKey.of(Algorithm.HPKE_9, *_values(members, _HYBRID, (_PUB,)))
    return SealPublicKey.of(Algorithm.HPKE_4, *_values(members, _CLASSICAL, (_X,)))


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
    if members.get(_KTY) == _AKP:
        raw, secret = _values(members, _HYBRID, (_PUB, _PRIV))
        key = SealPrivateKey.of(Algorithm.HPKE_9, secret)
    else:
        raw, secret = _values(members, _CLASSICAL, (_X, _D))
        key = SealPrivateKey.of(Algorithm.HPKE_4, secret)
    _agree(key.public.key.raw, raw)
    return key


def _read(data: bytes) -> dict[int | str, cbor.CborValue]:
    members = cbor.decode(data, max_bytes=MAX_KEY_BYTES, max_depth=1)
    if not isinstance(members, dict) or not isinstance(members.pop(_KID, b""), bytes):
        raise MalformedError("expected a COSE_Key, a map")
    return members


def _values(
    members: dict[int | str, cbor.CborValue],
    fixed: _Members,
    names: tuple[int, ...],
) -> list[bytes]:
    """Checks the members that are fixed and returns the byte strings that are not."""
    for label, number in fixed.items():
        came = members.get(label)
        if type(came) is not int or came != number:
            raise UnknownSuiteError(f"expected {number!r} as member {label} of a COSE_Key")
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
