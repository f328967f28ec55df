# SPDX-License-Identifier: Apache-2.0
"""The wrapping keys of a store as bytes: plain, or shut under a credential of the unit.

Law:
  - newest first; there is more than one only while files are wrapped anew;
  - a ring that is shut opens with its credential and with nothing else;
  - a ring that is plain is read also beside a credential, so that the store can move to it.

Standards: RFC 8439 (ChaCha20-Poly1305).
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent.keys.credential import BY_HAND, NAME
from assent import cbor
from assent.errors import KeyStoreError

LOST: Final = (
    "only the files it was made with help: put them back; or remove the directory keys of the state"
    " and enrol again, and the household decides again"
)
"""Hint of what to do when a part of the store is gone."""
KEY_BYTES: Final = 32
"""Length of a wrapping key and of every secret drawn at random."""
NONCE_BYTES: Final = 12
"""RFC 8439 §2.3; random, because one key sees some hundred files at most."""

_SHUT: Final = b"\x02"
_HEAD: Final = len(_SHUT) + NONCE_BYTES
_TAG_BYTES: Final = 16
_BOUND: Final = cbor.encode([2, "ring"])  # associated data; that of a secret begins with 1


def is_shut(raw: bytes) -> bool:
    """Says whether a ring is shut under a credential; by its length it cannot be plain then."""
    return raw[:1] == _SHUT and (len(raw) - _HEAD - _TAG_BYTES) % KEY_BYTES == 0


def encoded(keys: tuple[bytes, ...], credential: bytes | None) -> bytes:
    """Writes a ring.

    Args:
        keys: newest first.
        credential: what to shut it under, or None to leave it plain.

    Returns:
        The bytes of its file.
    """
    plain = b"".join(keys)
    if credential is None:
        return plain
    nonce = secrets.token_bytes(NONCE_BYTES)
    return _SHUT + nonce + ChaCha20Poly1305(credential).encrypt(nonce, plain, _BOUND)


def decoded(raw: bytes, credential: bytes | None) -> tuple[bytes, ...]:
    """Reads a ring.

    Args:
        raw: the bytes of its file.
        credential: of this unit, or None.

    Returns:
        The keys, newest first; one at least.

    Raises:
        KeyStoreError: it is shut and there is no credential, or another; or it is no ring.
    """
    plain = _opened(raw, credential) if is_shut(raw) else raw
    if not plain or len(plain) % KEY_BYTES:
        raise KeyStoreError(f"expected a wrapping key of 32 bytes, got {len(plain)}", hint=LOST)
    return tuple(plain[at : at + KEY_BYTES] for at in range(0, len(plain), KEY_BYTES))


def _opened(raw: bytes, credential: bytes | None) -> bytes:
    if credential is None:
        raise KeyStoreError(
            f"the secrets are shut under the unit's credential {NAME}, which is not here",
            hint=BY_HAND,
        )
    try:
        return ChaCha20Poly1305(credential).decrypt(raw[1:_HEAD], raw[_HEAD:], _BOUND)
    except InvalidTag as exc:
        raise KeyStoreError(
            f"the unit's credential {NAME} is another than the secrets were shut under",
            hint="bring the old one back; without it the store can only be emptied and enrolled"
            " again",
        ) from exc
