# SPDX-License-Identifier: Apache-2.0
"""Secrets as wrapped files: one durable file each, shut under one wrapping key that can change.

Law:
  - a file is ChaCha20-Poly1305 under the wrapping key, its name is associated data: no file can
    stand in for another, none can be altered;
  - the wrapping key is made with the first secret only: where there is anything and no wrapping
    key, the store stays shut;
  - `destroy` removes a file and changes the wrapping key: first both keys are kept, then every
    file is wrapped under the new one, then the old one goes; a crash between is finished by the
    next opening;
  - where the unit has a credential, the wrapping key is shut under it (`agent.keys.ring`); a store
    that was made without one moves to it, under a new wrapping key, because the old one lay open;
  - fail closed: a wrong owner, mode, length or tag is a KeyStoreError, never a value.

Standards: RFC 8439 (ChaCha20-Poly1305).

Security: the directory is its user's; nobody else may write in it. Its group may pass through it
(the uplink reads a TLS key below), not list it.
Limits: flash keeps old blocks until it needs them. What was destroyed is safe from what the store
and the copies of its secrets hold, not from a laboratory that finds an old wrapping key on the
chip, nor from a copy of the whole directory made before, wrapping key included: that opens by
itself, or, where there is a credential, with that credential.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent.keys import ring
from agent.keys.ring import KEY_BYTES, LOST, NONCE_BYTES
from assent import cbor, durable
from assent.errors import KeyStoreError

_FORMAT: Final = b"\x01"
_MAX_BYTES: Final = 65_536  # a chain of certificates is some 4 kB, a wrapped pair 2 kB
_WRAPPING: Final = "wrapping.key"
_SUFFIX: Final = ".key"
_PRIVATE: Final = 0o077  # bits a secret must not have
_SHARED: Final = 0o137  # bits a file for our group must not have
_DIRECTORY: Final = 0o027  # bits the directory must not have


class ShutError(KeyStoreError):
    """A wrapped file does not open with the wrapping key, or is gone."""


class WrappedStore:
    """The files of one directory. Made by `open`; one owner, under the instance lock.

    Args:
        directory: where it lies.
        credential: what the wrapping key is shut under, or None.
    """

    def __init__(self, directory: Path, credential: bytes | None) -> None:
        self._directory = directory
        self._credential = credential
        self._owners = {os.geteuid()}
        self._wrapping: tuple[bytes, ...] = ()

    @classmethod
    def open(cls, directory: Path, credential: bytes | None = None) -> WrappedStore:
        """Opens the store, makes it where there is nothing yet, finishes what a crash left.

        Args:
            directory: made with mode 0710 when missing.
            credential: what the wrapping key is shut under, or None to leave it plain.

        Raises:
            KeyStoreError: unreadable, of a wrong owner or mode, or without its wrapping key.
        """
        store = cls(directory, credential)
        with ours("the key store cannot be opened"):
            durable.make_dirs(directory, 0o710)
            store._inspect_directory()
            for place in (directory, *(p for p in directory.rglob("*") if p.is_dir())):
                durable.sweep(place)
            store._open_wrapping()
        return store

    def read(self, name: str) -> bytes | None:
        """Unwraps a secret.

        Args:
            name: of the secret, a relative path without its ending.

        Returns:
            The secret, or None when there is no file of that name.

        Raises:
            KeyStoreError: it is there and cannot be read or unwrapped.
        """
        path = self._path(name)
        with ours(f"{path.name} cannot be read"):
            if _is_missing(path):
                return None
            self._inspect(path, _PRIVATE)
            return self._unwrap(name, durable.read(path, _MAX_BYTES))

    def write(self, name: str, secret: bytes) -> None:
        """Wraps a secret into its file; durable when this returns.

        Args:
            name: of the secret, a relative path without its ending.
            secret: its bytes.

        Raises:
            KeyStoreError: the disk refused; the old file is untouched.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = ChaCha20Poly1305(self._wrapping[0]).encrypt(nonce, secret, _bound(name))
        path = self._path(name)
        with ours(f"{path.name} cannot be written"):
            durable.make_dirs(path.parent)
            durable.write(path, _FORMAT + nonce + sealed)

    def destroy(self, name: str) -> None:
        """Removes a secret and makes every copy of its file worthless; durable when this returns.

        Args:
            name: of the secret; where there is none only the wrapping key changes.

        Raises:
            KeyStoreError: the disk refused; to be called again.
        """
        with ours("the secret cannot be destroyed"):
            durable.remove(self._path(name))
            self._change()

    def remove(self, name: str) -> None:
        """Removes a secret that is kept elsewhere, or worth nothing; copies of it still open.

        Args:
            name: of the secret, there or not.

        Raises:
            KeyStoreError: the disk refused.
        """
        with ours(f"{self._path(name).name} cannot be removed"):
            durable.remove(self._path(name))

    def holds(self, name: str) -> bool:
        """Whether there is a file for a secret, readable or not.

        Raises:
            OSError: that cannot be looked at.
        """
        return not _is_missing(self._path(name))

    def is_empty(self) -> bool:
        """Whether no secret is held; the wrapping key is none."""
        return not self._names()

    def read_plain(self, path: Path) -> bytes:
        """Reads a file that the directory's group may read too, such as a TLS key.

        Args:
            path: a file below the directory.

        Raises:
            OSError: it is missing or cannot be read.
            KeyStoreError: of a wrong owner or mode.
        """
        self._inspect(path, _SHARED)
        return durable.read(path, _MAX_BYTES)

    def _open_wrapping(self) -> None:
        path = self._directory / _WRAPPING
        if _is_missing(path):
            if any(not found.is_dir() for found in self._directory.rglob("*")):
                raise KeyStoreError("the wrapping key is lost, the secrets stay shut", hint=LOST)
            self._keep((secrets.token_bytes(KEY_BYTES),))
            return
        self._inspect(path, _PRIVATE)
        raw = durable.read(path, _MAX_BYTES)
        self._wrapping = ring.decoded(raw, self._credential)
        if self._credential is not None and not ring.is_shut(raw):
            self._expect_ours()
            self._change()
        elif len(self._wrapping) > 1:
            self._wrap_anew()

    def _keep(self, wrapping: tuple[bytes, ...]) -> None:
        path = self._directory / _WRAPPING
        durable.write(path, ring.encoded(wrapping, self._credential))
        self._wrapping = wrapping

    def _expect_ours(self) -> None:
        # A wrapping key of another time, put back by mistake, must not take the right one's place.
        names = self._names()
        if names and not any(self._opens(name) for name in names):
            raise ShutError("the wrapping key opens none of the secrets", hint=LOST)

    def _opens(self, name: str) -> bool:
        try:
            self._unwrap(name, durable.read(self._path(name), _MAX_BYTES))
        except ShutError:
            return False
        return True

    def _change(self) -> None:
        self._keep((secrets.token_bytes(KEY_BYTES), *self._wrapping))
        self._wrap_anew()

    def _wrap_anew(self) -> None:
        for name in self._names():
            data = durable.read(self._path(name), _MAX_BYTES)
            with contextlib.suppress(ShutError):  # opens with no key: changing it loses nothing
                self.write(name, self._unwrap(name, data))
        self._keep(self._wrapping[:1])

    def _names(self) -> list[str]:
        below = (path.relative_to(self._directory) for path in self._directory.rglob("*.key"))
        return [
            path.as_posix().removesuffix(_SUFFIX)
            for path in sorted(below)
            if path.name != _WRAPPING or len(path.parts) > 1
        ]

    def _unwrap(self, name: str, data: bytes) -> bytes:
        nonce, sealed = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        if data[:1] == _FORMAT and len(nonce) == NONCE_BYTES:
            for key in self._wrapping:
                with contextlib.suppress(InvalidTag):
                    return ChaCha20Poly1305(key).decrypt(nonce, sealed, _bound(name))
        raise ShutError(f"{self._path(name).name} does not open with the wrapping key", hint=LOST)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"

    def _inspect_directory(self) -> None:
        status = self._directory.lstat()
        if os.geteuid() == 0:
            self._owners.add(status.st_uid)  # root looks at the store of the agent's own user
        self._judge(self._directory, status, _DIRECTORY)

    def _inspect(self, path: Path, forbidden: int) -> None:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise KeyStoreError(f"{path.name} is not a regular file")
        self._judge(path, status, forbidden)

    def _judge(self, path: Path, status: os.stat_result, forbidden: int) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in self._owners:
            raise KeyStoreError(f"{path.name} belongs to another user than the key store")
        if mode & forbidden:
            raise KeyStoreError(
                f"{path.name} has mode {mode:04o}, which lets others at it",
                hint=f"chmod {mode & ~forbidden:04o} {path}",
            )


@contextlib.contextmanager
def ours(what: str) -> Iterator[None]:
    """Turns an error of the operating system into one of the key store.

    Args:
        what: what could not be done; the system's reason follows it.

    Raises:
        KeyStoreError: instead of OSError.
    """
    try:
        yield
    except OSError as exc:
        raise KeyStoreError(f"{what}: {exc.strerror or type(exc).__name__}") from exc


def _is_missing(path: Path) -> bool:
    # Not Path.exists: what may not be looked at is not missing.
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    return False


def _bound(name: str) -> bytes:
    return cbor.encode([1, name])
