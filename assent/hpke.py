# SPDX-License-Identifier: Apache-2.0
"""HPKE base mode, single shot, with associated data, from public primitives.

`cryptography` offers HPKE too, but without associated data, which integrated COSE needs
(docs/decisions/0002-integrated-hpke.md). Only the key schedule is written here; the ciphers and
hashes are the library's. What is sealed here with empty associated data opens in
`cryptography.hazmat.primitives.hpke.Suite`, and the reverse.

Law:
  - one shared secret seals one message: sequence number 0, no context object that could live on;
  - lengths are checked before a primitive sees the bytes;
  - whatever goes wrong in opening is one error, `CannotOpenError`, whichever step failed.

Standards: RFC 9180 §5.1 (two-stage key schedule, HKDF-SHA256) and §6.1 (single shot);
draft-ietf-hpke-pq (one-stage key schedule, SHAKE256).

Limits: base mode only. No PSK, no sender authentication (the signature inside does that), no
export, no second message under one encapsulation.
"""

from __future__ import annotations

import enum
import hashlib
import logging
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from assent.errors import CannotOpenError, MalformedError, TooLargeError
from assent.kem import Kem, PrivateKey, PublicKey, labeled_expand, labeled_extract
from assent.wire import Algorithm

_log = logging.getLogger(__name__)

_NONCE_BYTES = 12  # Nn of every cipher here (RFC 9180 §7.3)
_TAG_BYTES = 16  # Nt of every cipher here
_SHAKE256_NH = 64  # length of the exporter secret, draft-ietf-hpke-pq; derived, not used
_MODE_BASE = b"\x00"
# Lengths go into two bytes of the one-stage schedule; nothing of ours comes near.
_MAX_INFO_BYTES = 65_535


class Kdf(enum.IntEnum):
    """Key derivation; the value is the IANA number of RFC 9180 §7.2."""

    HKDF_SHA256 = 0x0001
    SHAKE256 = 0x0011


class Aead(enum.IntEnum):
    """Cipher; the value is the IANA number of RFC 9180 §7.3."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003

    @property
    def key_bytes(self) -> int:
        """Length of its key in bytes."""
        return 16 if self is Aead.AES_128_GCM else 32


class Suite(msgspec.Struct, frozen=True):
    """One choice of the three algorithms."""

    kem: Kem
    kdf: Kdf
    aead: Aead

    @property
    def id(self) -> bytes:
        """`suite_id` of RFC 9180 §5.1."""
        numbers = (self.kem, self.kdf, self.aead)
        return b"HPKE" + b"".join(number.to_bytes(2, "big") for number in numbers)


HPKE_4 = Suite(Kem.X25519, Kdf.HKDF_SHA256, Aead.CHACHA20_POLY1305)
"""HPKE-4 of draft-ietf-cose-hpke, the classical suite."""
HPKE_9 = Suite(Kem.MLKEM768_X25519, Kdf.SHAKE256, Aead.AES_256_GCM)
"""HPKE-9 of draft-ietf-cose-hpke-pq-pqt, the post-quantum hybrid."""
SUITES: Final = {Algorithm.HPKE_4: HPKE_4, Algorithm.HPKE_9: HPKE_9}
"""The suite behind each COSE algorithm that seals."""


def _prefixed(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _schedule(suite: Suite, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and base nonce of mode base, PSK and its id empty."""
    key_bytes, suite_id = suite.aead.key_bytes, suite.id
    if suite.kdf is Kdf.SHAKE256:
        # draft-ietf-hpke-pq, CombineSecrets_OneStage and LabeledDerive
        length = key_bytes + _NONCE_BYTES + _SHAKE256_NH
        secrets_in = _prefixed(b"") + _prefixed(shared)
        labeled = secrets_in + b"HPKE-v1" + suite_id + _prefixed(b"secret")
        context = _MODE_BASE + _prefixed(b"") + _prefixed(info)
        out = hashlib.shake_256(labeled + length.to_bytes(2, "big") + context).digest(length)
        return out[:key_bytes], out[key_bytes : key_bytes + _NONCE_BYTES]
    # RFC 9180 §5.1, KeySchedule
    psk_id_hash = labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    context = _MODE_BASE + psk_id_hash + labeled_extract(suite_id, b"", b"info_hash", info)
    secret = labeled_extract(suite_id, shared, b"secret", b"")
    return (
        labeled_expand(suite_id, secret, b"key", context, key_bytes),
        labeled_expand(suite_id, secret, b"base_nonce", context, _NONCE_BYTES),
    )


def _cipher(suite: Suite, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if suite.aead is Aead.CHACHA20_POLY1305 else AESGCM(key)


def seal(
    suite: Suite,
    public: PublicKey,
    info: bytes,
    aad: bytes,
    plaintext: bytes,
    *,
    unsafe_ephemeral: X25519PrivateKey | None = None,
) -> tuple[bytes, bytes]:
    """Seals one message to a public key.

    Args:
        suite: algorithms; its KEM must be the key's.
        public: the recipient's key.
        info: application context, mixed into the key; at most 65,535 bytes.
        aad: associated data, authenticated and not sent.
        plaintext: what is sealed.
        unsafe_ephemeral: the curve's ephemeral key, for test vectors only: used twice, it gives
            two messages under one key and nonce. Its use is logged.

    Returns:
        (encapsulation, ciphertext with its 16-byte tag).

    Raises:
        MalformedError: the public key is a point of low order.
        TooLargeError: info is too long.
    """
    if len(info) > _MAX_INFO_BYTES:
        raise TooLargeError(f"expected at most {_MAX_INFO_BYTES} bytes of info, got {len(info)}")
    if unsafe_ephemeral is not None:
        _log.warning("event=unsafe-ephemeral suite=%s", suite.id.hex())
    try:
        shared, enc = public.encapsulate(unsafe_ephemeral)
    except ValueError as exc:
        raise MalformedError("the public key is a point of low order") from exc
    key, nonce = _schedule(suite, shared, info)
    return enc, _cipher(suite, key).encrypt(nonce, plaintext, aad)


def open(  # noqa: A001, PLR0917 - name and order are those of RFC 9180 §6.1
    suite: Suite, private: PrivateKey, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes
) -> bytes:
    """Opens one message.

    Args:
        suite: algorithms; its KEM must be the key's.
        private: the recipient's key.
        enc: the encapsulation.
        info: as in sealing.
        aad: as in sealing.
        ciphertext: with its 16-byte tag.

    Returns:
        The plaintext.

    Raises:
        CannotOpenError: sealed to another key, under other data, or changed.
        TooLargeError: info is too long.
    """
    if len(info) > _MAX_INFO_BYTES:
        raise TooLargeError(f"expected at most {_MAX_INFO_BYTES} bytes of info, got {len(info)}")
    if len(enc) != suite.kem.enc_bytes or len(ciphertext) < _TAG_BYTES:
        raise CannotOpenError("the seal does not open: wrong length of key or ciphertext")
    try:
        key, nonce = _schedule(suite, private.decapsulate(enc), info)
        return _cipher(suite, key).decrypt(nonce, ciphertext, aad)
    except (ValueError, InvalidTag) as exc:
        raise CannotOpenError("the seal does not open with this key and this mailbox") from exc
