# SPDX-License-Identifier: Apache-2.0
"""Key encapsulation: X25519 and the hybrid MLKEM768-X25519, keys and shared secrets.

Law:
  - lengths are checked before a primitive sees the bytes;
  - a private key shows nothing in its repr; the hybrid's is its 32-byte seed and nothing else.

Standards:
  - RFC 9180 §4.1: DHKEM(X25519, HKDF-SHA256);
  - draft-ietf-hpke-pq: MLKEM768-X25519 (0x647a), equal to X-Wing of
    draft-connolly-cfrg-xwing-kem, whose combiner and seed expansion are the only parts written
    here; the curve, the lattice and the hashes are the library's.

Limits: an all-zero Diffie-Hellman result is refused for both, which X-Wing alone would not ask.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from typing import Protocol

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from assent.errors import MalformedError, UnknownSuiteError

_X25519_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184  # FIPS 203 table 3, ML-KEM-768
_MLKEM_CIPHERTEXT_BYTES = 1088  # the same
_MLKEM_SEED_BYTES = 64  # d and z of FIPS 203 §7.1
_XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")  # \\.//^\\ of draft-connolly-cfrg-xwing-kem §5.3


class Kem(enum.IntEnum):
    """Key encapsulation; the value is the IANA number of RFC 9180 §7.1."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A

    @property
    def public_bytes(self) -> int:
        """Length of a public key in bytes."""
        return _X25519_BYTES if self is Kem.X25519 else _MLKEM_PUBLIC_BYTES + _X25519_BYTES

    @property
    def private_bytes(self) -> int:
        """Length of a private key in bytes: the scalar, or the seed of both parts."""
        return 32

    @property
    def enc_bytes(self) -> int:
        """Length of an encapsulation in bytes."""
        return _X25519_BYTES if self is Kem.X25519 else _MLKEM_CIPHERTEXT_BYTES + _X25519_BYTES


class PublicKey(Protocol):
    """What a sender holds of a recipient."""

    @property
    def raw(self) -> bytes:
        """The key as the KEM serialises it."""

    def encapsulate(self, ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, bytes]:
        """Returns (shared secret, encapsulation)."""


class PrivateKey(Protocol):
    """What a recipient holds; its repr shows nothing."""

    @property
    def raw(self) -> bytes:
        """The secret: scalar or seed."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def decapsulate(self, enc: bytes) -> bytes:
        """Returns the shared secret; ValueError when there is none."""


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract of RFC 9180 §4 with HKDF-SHA256."""
    return HKDF.extract(SHA256(), salt, b"HPKE-v1" + suite_id + label + ikm)


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand of RFC 9180 §4 with HKDF-SHA256."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    return HKDFExpand(SHA256(), length, labeled).derive(prk)


def _dhkem_secret(dh: bytes, enc: bytes, public: bytes) -> bytes:
    # ExtractAndExpand of RFC 9180 §4.1
    suite_id = b"KEM" + Kem.X25519.to_bytes(2, "big")
    return labeled_expand(
        suite_id, labeled_extract(suite_id, b"", b"eae_prk", dh), b"shared_secret", enc + public, 32
    )


class _Key:
    """Its bytes are the key; what is printed shows none of them."""

    __slots__ = ()
    raw: bytes

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _X25519Public(_Key, msgspec.Struct, frozen=True):
    raw: bytes
    key: X25519PublicKey

    def encapsulate(self, ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, bytes]:
        secret = ephemeral or X25519PrivateKey.generate()
        enc = secret.public_key().public_bytes_raw()
        return _dhkem_secret(secret.exchange(self.key), enc, self.raw), enc


class _X25519Private(_Key, msgspec.Struct, frozen=True):
    raw: bytes
    public: _X25519Public
    key: X25519PrivateKey

    def decapsulate(self, enc: bytes) -> bytes:
        # exchange refuses an all-zero result (RFC 9180 §7.1.4)
        dh = self.key.exchange(X25519PublicKey.from_public_bytes(enc))
        return _dhkem_secret(dh, enc, self.public.raw)


def _combine(lattice: bytes, curve: bytes, enc: bytes, public: bytes) -> bytes:
    # Combiner of draft-connolly-cfrg-xwing-kem §5.3; only the curve's parts are hashed in.
    return hashlib.sha3_256(lattice + curve + enc + public + _XWING_LABEL).digest()


class _HybridPublic(_Key, msgspec.Struct, frozen=True):
    raw: bytes
    lattice: MLKEM768PublicKey
    curve: X25519PublicKey

    def encapsulate(self, ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, bytes]:
        shared, ciphertext = self.lattice.encapsulate()
        secret = ephemeral or X25519PrivateKey.generate()
        enc = secret.public_key().public_bytes_raw()
        mixed = _combine(shared, secret.exchange(self.curve), enc, self.raw[_MLKEM_PUBLIC_BYTES:])
        return mixed, ciphertext + enc


class _HybridPrivate(_Key, msgspec.Struct, frozen=True):
    raw: bytes
    public: _HybridPublic
    lattice: MLKEM768PrivateKey
    curve: X25519PrivateKey

    def decapsulate(self, enc: bytes) -> bytes:
        ciphertext, point = enc[:_MLKEM_CIPHERTEXT_BYTES], enc[_MLKEM_CIPHERTEXT_BYTES:]
        dh = self.curve.exchange(X25519PublicKey.from_public_bytes(point))
        shared = self.lattice.decapsulate(ciphertext)
        return _combine(shared, dh, point, self.public.raw[_MLKEM_PUBLIC_BYTES:])


def load_public(kem: Kem, raw: bytes) -> PublicKey:
    """Reads a public key of a KEM.

    Args:
        kem: which one.
        raw: its serialisation: 32 bytes for X25519, 1184 + 32 for the hybrid.

    Returns:
        The key, ready to encapsulate.

    Raises:
        MalformedError: wrong length, or no key at all.
        UnknownSuiteError: the library at hand was built without ML-KEM.
    """
    if len(raw) != kem.public_bytes:
        raise MalformedError(f"expected a public key of {kem.public_bytes} bytes, got {len(raw)}")
    try:
        curve = X25519PublicKey.from_public_bytes(raw[-_X25519_BYTES:])
        if kem is Kem.X25519:
            return _X25519Public(raw, curve)
        lattice = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES])
    except ValueError as exc:
        raise MalformedError("expected a public key, the bytes are none") from exc
    except UnsupportedAlgorithm as exc:
        raise UnknownSuiteError("the crypto library here has no ML-KEM-768") from exc
    return _HybridPublic(raw, lattice, curve)


def load_private(kem: Kem, raw: bytes) -> PrivateKey:
    """Reads a private key of a KEM.

    Args:
        kem: which one.
        raw: 32 bytes: the X25519 scalar, or the seed of both parts of the hybrid.

    Returns:
        The key with its public half.

    Raises:
        MalformedError: wrong length.
        UnknownSuiteError: the library at hand was built without ML-KEM.
    """
    if len(raw) != kem.private_bytes:
        raise MalformedError(f"expected a private key of {kem.private_bytes} bytes, got {len(raw)}")
    if kem is Kem.X25519:
        scalar = X25519PrivateKey.from_private_bytes(raw)
        point = scalar.public_key()
        return _X25519Private(raw, _X25519Public(point.public_bytes_raw(), point), scalar)
    expanded = hashlib.shake_256(raw).digest(_MLKEM_SEED_BYTES + _X25519_BYTES)
    try:
        lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
    except UnsupportedAlgorithm as exc:
        raise UnknownSuiteError("the crypto library here has no ML-KEM-768") from exc
    curve = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
    lattice_public, curve_public = lattice.public_key(), curve.public_key()
    both = lattice_public.public_bytes_raw() + curve_public.public_bytes_raw()
    return _HybridPrivate(raw, _HybridPublic(both, lattice_public, curve_public), lattice, curve)


def generate(kem: Kem) -> PrivateKey:
    """Makes a private key from the system's randomness.

    Args:
        kem: which one.

    Returns:
        The new key.
    """
    return load_private(kem, secrets.token_bytes(kem.private_bytes))
