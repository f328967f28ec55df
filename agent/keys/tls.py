# SPDX-License-Identifier: Apache-2.0
"""The TLS keys of a gateway, one a recipient: asked for, then in use with their certificate.

Law:
  - key and certificate in use are one file, so that they change together or not at all, and
    whoever reads it while it changes has the old pair or the new one;
  - every request is for a new key, which waits wrapped until its certificate comes; a request that
    waits is repeated, not replaced;
  - while a request waits, a certificate for the key in use is refused: it answers an older one.

Files: `tls/<recipient>.pem`, mode 0640, chain first; `requests/<recipient>.key`, wrapped.

Security: the pair in use is plain, because the uplink's TLS stack reads it as a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.keys.wrapped import ShutError, WrappedStore, ours
from assent import durable
from assent.errors import KeyStoreError, WireError
from assent.validity import ends_ms

_KEY_BEGINS: Final = b"-----BEGIN PRIVATE KEY-----"


class TlsKeys:
    """The TLS keys in one store.

    Args:
        directory: the store's.
        store: wraps the keys that wait.
    """

    def __init__(self, directory: Path, store: WrappedStore) -> None:
        self._directory = directory / "tls"
        self._store = store

    def pair(self, recipient: str) -> Path:
        """Where the certificate and the key in use lie, there or not."""
        return self._directory / f"{recipient}.pem"

    def is_known(self, recipient: str) -> bool:
        """Whether there is a TLS key for a recipient, in use or waiting.

        Raises:
            KeyStoreError: it cannot be looked at.
        """
        with ours("the TLS keys cannot be looked at"):
            return self._store.holds(_waiting(recipient)) or self.pair(recipient).exists()

    def is_in_use(self, recipient: str) -> bool:
        """Whether a pair is in use and can be read."""
        try:
            return bool(self._store.read_plain(self.pair(recipient)))
        except (OSError, KeyStoreError):
            return False

    def ends_ms(self, recipient: str) -> int | None:
        """When the certificate in use ends, in ms since 1970 UTC; None where none can be read."""
        try:
            return ends_ms(self._store.read_plain(self.pair(recipient)))
        except (OSError, KeyStoreError, WireError):
            return None

    def request(self, recipient: str, mailbox: str) -> bytes:
        """Asks for a certificate for a new key; durable when this returns.

        Args:
            recipient: id of the recipient.
            mailbox: this gateway's there.

        Returns:
            PEM (RFC 2986); for the same key until a certificate for it is kept.

        Raises:
            KeyStoreError: the key cannot be read or written.
        """
        # x509 costs memory: only who enrols pays for it
        from agent.keys import certificates  # noqa: PLC0415 (loaded lazily)

        try:
            key = self._store.read(_waiting(recipient))
        except ShutError:
            key = None  # nobody has a certificate for it
        if key is None:
            key = certificates.new_key()
            self._store.write(_waiting(recipient), key)
        return certificates.request(key, mailbox)

    def forget(self, recipient: str) -> None:
        """Removes what there is for a recipient, in use or waiting.

        Raises:
            KeyStoreError: the disk refused; to be called again.
        """
        with ours("the TLS keys cannot be removed"):
            self._store.remove(_waiting(recipient))
            durable.remove(self.pair(recipient))

    def keep(self, recipient: str, mailbox: str, chain: bytes, now_ms: int | None) -> None:
        """Puts a certificate and its key in use, both at once; durable when this returns.

        Args:
            recipient: id of the recipient.
            mailbox: this gateway's there.
            chain: PEM, this gateway's certificate first.
            now_ms: the present, or None where it is not known.

        Raises:
            KeyStoreError: it is for another key or mailbox, or has ended, or cannot be written.
        """
        from agent.keys import certificates  # noqa: PLC0415 (as in request)

        with ours("the certificate cannot be kept"):
            key = self._store.read(_waiting(recipient)) or self._key_in_use(recipient)
            checked = certificates.checked(chain, key, mailbox, now_ms)
            durable.make_dirs(self._directory, 0o2750)  # files take the directory's group
            durable.write(self.pair(recipient), checked + key, mode=0o640)
            self._store.remove(_waiting(recipient))

    def _key_in_use(self, recipient: str) -> bytes:
        try:
            pair = self._store.read_plain(self.pair(recipient))
        except FileNotFoundError as exc:
            raise KeyStoreError("no certificate was asked for") from exc
        return pair[max(0, pair.find(_KEY_BEGINS)) :]


def _waiting(recipient: str) -> str:
    return f"requests/{recipient}"
