# SPDX-License-Identifier: Apache-2.0
"""Reads the key files of a backend, and says truly what is wrong with one.

Law: a private key that others may read is not used; what is said of a file is what it holds, not
what its name or mode suggests.
"""

from __future__ import annotations

import pathlib
import pwd
import stat
from collections.abc import Callable
from typing import Final, TypeVar

from assent import durable
from assent.cosekey import (
    decode_seal_private_key,
    decode_seal_public_key,
    decode_signing_key,
    decode_verifying_key,
)
from assent.errors import AssentError, KeyStoreError

_MAX_KEY_BYTES: Final = 16_384  # a PEM chain is the largest
_EVERYBODY: Final = stat.S_IRWXG | stat.S_IRWXO

_T = TypeVar("_T")


def read_key(path: pathlib.Path, decode: Callable[[bytes], _T], *, secret: bool = False) -> _T:
    """Reads one key file.

    Raises:
        KeyStoreError: it is missing, no such key, or (when secret) open to others.
    """
    data = read(path)
    try:
        key = decode(data)
    except AssentError as exc:
        is_half = any(_decodes(data, one) for one in (_PUBLIC if secret else _PRIVATE))
        raise (
            _other_half(path, secret=secret)
            if is_half
            else KeyStoreError(f"{path} does not hold the key it should: {exc.message}")
        ) from exc
    if secret:
        _check_closed(path)
    return key


def read_secret(path: pathlib.Path) -> bytes:
    """Reads a file whose bytes are a secret.

    Raises:
        KeyStoreError: it is missing or open to others.
    """
    data = read(path)
    _check_closed(path)
    return data


def read(path: pathlib.Path) -> bytes:
    """Reads a small file.

    Raises:
        KeyStoreError: it is missing, unreadable or no key by its size.
    """
    try:
        return durable.read(path, _MAX_KEY_BYTES)
    except OSError as exc:
        raise KeyStoreError(
            f"{path} cannot be read: {exc.strerror}", hint=owner_hint(path, exc)
        ) from exc


def owner_hint(path: pathlib.Path, error: OSError | None = None) -> str | None:
    """Says whose a path is, for somebody to whom it is closed.

    Args:
        path: what was to be opened.
        error: what came of it; anything but a missing permission needs no such hint.
    """
    if error is not None and not isinstance(error, PermissionError):
        return None
    for place in (path, *path.absolute().parents):
        try:
            uid = place.stat().st_uid
        except OSError:
            continue
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = f"#{uid}"
        return f"{place} belongs to {name}: put 'sudo -u {name}' before the command"
    return None


_PUBLIC: Final[tuple[Callable[[bytes], object], ...]] = (
    decode_verifying_key,
    decode_seal_public_key,
)
_PRIVATE: Final[tuple[Callable[[bytes], object], ...]] = (
    decode_signing_key,
    decode_seal_private_key,
)


def _decodes(data: bytes, decode: Callable[[bytes], object]) -> bool:
    try:
        decode(data)
    except AssentError:
        return False
    return True


def _other_half(path: pathlib.Path, *, secret: bool) -> KeyStoreError:
    if secret:
        return KeyStoreError(
            f"{path} is a public key, expected a private one",
            hint="the name of a private key ends in .key.cose",
        )
    return KeyStoreError(
        f"{path} is a private key, expected a public one",
        hint="the name of a public key ends in .pub.cose; a private one is given to nobody",
    )


def _check_closed(path: pathlib.Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise KeyStoreError(f"{path} cannot be read: {exc.strerror}") from exc
    if mode & _EVERYBODY:
        raise KeyStoreError(
            f"{path} holds a secret and is open to others", hint=f"chmod 600 {path}"
        )
