# SPDX-License-Identifier: Apache-2.0
"""The key of the ledger, which remembers whether a ledger was ever begun with it.

Law:
  - a key is kept as new until the first ledger stands on the disk, and never again afterwards: a
    ledger that is gone beside a key that is not new was lost, also when no other trace is left;
  - the note is a part of the key's own wrapped file: whoever removes it removes the key.

A crash between the key and the first ledger leaves the key new, one between the first ledger and
the note is made good at the next opening: neither looks like a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from assent.cosekey import SigningKey, decode_signing_key

_NEW: Final = b"new "  # before the COSE_Key, which begins with the head of a map


def _nothing() -> None:
    pass


class LedgerKey:
    """Signs the entries of one ledger. Made by agent/keys; owned by its Keys.

    Args:
        signing: the key pair.
        is_new: whether no ledger was ever begun with it.
        keep: writes that it is not new any more; durable when it returns.
    """

    def __init__(
        self, signing: SigningKey, *, is_new: bool, keep: Callable[[], None] = _nothing
    ) -> None:
        self.signing = signing
        self.is_new = is_new
        self._keep = keep

    def __repr__(self) -> str:
        return f"LedgerKey(is_new={self.is_new})"

    def encode(self) -> bytes:
        """Writes the COSE_Key with its secret, for a store that wraps it."""
        return self.signing.encode()

    def begin(self) -> None:
        """Remembers that a ledger stands on the disk; durable when this returns.

        Raises:
            KeyStoreError: it cannot be written; to be called again.
        """
        if self.is_new:
            self._keep()
            self.is_new = False


def encoded_new(key: SigningKey) -> bytes:
    """Writes a key with which no ledger was begun yet."""
    return _NEW + key.encode()


def decoded(raw: bytes) -> tuple[SigningKey, bool]:
    """Reads what `encoded_new` wrote, or the COSE_Key alone.

    Args:
        raw: the secret as it was wrapped.

    Returns:
        The key, and whether it is new.

    Raises:
        MalformedError: it is neither.
    """
    is_new = raw.startswith(_NEW)
    return decode_signing_key(raw.removeprefix(_NEW)), is_new
