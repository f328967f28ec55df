# SPDX-License-Identifier: Apache-2.0
"""The wrapping key that the service manager hands to the unit, where it hands one.

Law: there is one, or there is none; one that is there and is not as it must be is an error, never
none, so that no store is made or read without what it was meant to be shut under.

Standards: systemd.exec(5), LoadCredentialEncrypted= and $CREDENTIALS_DIRECTORY; systemd-creds(1).

Security: the manager decrypts it with the machine's TPM, or with its own key where there is none,
into memory that only the unit's user can read. It is read once, when the store is opened.
Limits: who is root on the running machine can read it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from assent import durable
from assent.errors import KeyStoreError

NAME: Final = "assent-wrapping-key"
"""What systemd/assent-collect.service calls it."""
BY_HAND: Final = (
    "start the unit, or type by hand: systemd-run --pipe --wait --same-dir --uid=assent-collect"
    f" --gid=assent -p LoadCredentialEncrypted={NAME} assent …"
)
"""Hint of how a command gets at the credential while no agent runs."""

_BYTES: Final = 32
_MAX_BYTES: Final = 4_096  # of a wrong one, to say how long it is
_MADE_WITH: Final = (
    f"mkdir -p -m 700 /etc/credstore.encrypted; head -c 32 /dev/urandom | systemd-creds encrypt"
    f" --name={NAME} -"
    f" /etc/credstore.encrypted/{NAME}"
)
_OTHERS: Final = 0o077  # bits a file of ours must not have
# On a file of root's the bits of the group are the mask of the access list that lets our user
# read it (acl(5)): systemd makes it so.
_BESIDE_US: Final = 0o037


def unit_credential() -> bytes | None:
    """Reads the wrapping key of this unit.

    Returns:
        32 bytes, or None where the manager gave none.

    Raises:
        KeyStoreError: it is there, and unreadable, of a wrong owner, mode or length.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = Path(directory) / NAME
    try:
        _judge(path.lstat())
        data = durable.read(path, _MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise KeyStoreError(f"the credential {NAME} cannot be read: {exc.strerror}") from exc
    if len(data) != _BYTES:
        raise KeyStoreError(
            f"expected 32 bytes as the credential {NAME}, got {len(data)}",
            hint=f"make one with: {_MADE_WITH}",
        )
    return data


def _judge(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyStoreError(f"the credential {NAME} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyStoreError(f"the credential {NAME} belongs to another user")
    mode = stat.S_IMODE(status.st_mode)
    if mode & (_OTHERS if status.st_uid == os.geteuid() else _BESIDE_US):
        raise KeyStoreError(
            f"the credential {NAME} has mode {mode:04o}, which lets others at it",
            hint="let the service manager hand it over: LoadCredentialEncrypted= makes it private",
        )
