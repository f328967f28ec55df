# SPDX-License-Identifier: Apache-2.0
"""Writes what a mosquitto for gateways needs, from the templates beside this file.

Law:
  - `install` leaves a directory that needs nothing else: a copy of the certificates and the key
    lies in it, and what mosquitto reads or writes belongs to the account it runs as;
  - whoever connects has a certificate of the recipient's own authority; a gateway writes its own
    mailbox up and reads its own mailbox down, the backend reads all up and writes all down;
  - no limit of the broker drops a message silently.

Security: sealed messages pass it; it sees mailboxes, sizes and times. Several recipients on one
broker see each other's sealed messages: give each its own.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pwd
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

from assent import durable, shapes
from assent.errors import UsageError
from assent.wire import MAX_MESSAGE

BACKEND: Final = "backend-"
"""What the name in a backend's certificate begins with; the recipient's id follows."""
HEADROOM: Final = 2_880
"""Bytes of a packet besides the message: topic, header, properties; rounded up generously."""
INFLIGHT: Final = 20
"""Messages on their way to one client; the gateways' uplink has no larger window."""

ACCOUNT: Final = "mosquitto"
"""What mosquitto runs as when root starts it and no account is named."""
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63}){0,9}(?<!-)")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}\$?")
_LARGEST: Final = 65_536  # a PEM chain has some kilobytes


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """The files of a backend's directory that its broker needs.

    Attributes:
        ca: the authority whose certificates may connect (PEM).
        certificate: the broker's certificate chain (PEM).
        key: the broker's key (PEM).
    """

    ca: Path
    certificate: Path
    key: Path


def install(
    out: Path,
    sources: Sources,
    *,
    port: int,
    host: str,
    recipients: Sequence[str],
    user: str | None,
) -> Path:
    """Makes a directory from which mosquitto starts; durable when this returns.

    Args:
        out: the directory, absolute; what waits in an older broker's `state` there is kept.
        sources: copied into it.
        port: TCP port.
        host: address to listen on.
        recipients: ids of the recipients whose backends connect.
        user: the account mosquitto runs as; None for its own when root starts it, else for ours.

    Returns:
        The path of `mosquitto.conf`.

    Raises:
        MalformedError: a recipient's id that is none.
        UsageError: a port, an address or an account that mosquitto could not use.
        OSError: a file cannot be read or written.
    """
    account = _account(user)
    _check(port, host, user)
    _check_way(out, account)
    # Read first: whoever may not read the backend's directory leaves nothing half made.
    copies = {
        "ca.pem": durable.read(sources.ca, _LARGEST),
        "broker.pem": durable.read(sources.certificate, _LARGEST),
        "broker.key": durable.read(sources.key, _LARGEST),
    }
    durable.make_dirs(out, mode=0o755)
    for name, data in copies.items():
        durable.write(out / name, data, mode=0o600 if name.endswith(".key") else 0o644)
    conf = render(
        out,
        port=port,
        host=host,
        ca=out / "ca.pem",
        certificate=out / "broker.pem",
        key=out / "broker.key",
        recipients=recipients,
        user=account.pw_name if os.geteuid() == 0 else None,
    )
    (out / "mosquitto.acl").chmod(0o600)  # later mosquittos refuse rules that others may read
    for name in ("broker.key", "mosquitto.acl", "state"):
        os.chown(out / name, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return conf


def _account(user: str | None) -> pwd.struct_passwd:
    is_root = os.geteuid() == 0
    if user is None and not is_root:
        return pwd.getpwuid(os.geteuid())
    name = user or ACCOUNT
    try:
        account = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise UsageError(
            f"there is no account {name} on this machine",
            hint="install mosquitto first, or name its account with --user",
        ) from None
    if not is_root and account.pw_uid != os.geteuid():
        raise UsageError(
            f"only root can give files to the account {name}",
            hint="run this with sudo, or leave --user out and start mosquitto yourself",
        )
    return account


def _check_way(out: Path, account: pwd.struct_passwd) -> None:
    """Refuses a place that the account cannot reach, before anything is written there."""
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    for place in out.parents if account.pw_uid else ():
        try:
            found = place.stat()
        except FileNotFoundError:
            continue  # made with 0755
        if found.st_uid == account.pw_uid:
            may = found.st_mode & 0o100
        elif found.st_gid in groups:
            may = found.st_mode & 0o010
        else:
            may = found.st_mode & 0o001
        if not may:
            raise UsageError(
                f"{place} cannot be entered by the account {account.pw_name}",
                hint="choose another place with --out, such as /etc/assent-broker",
            )


def _check(port: int, host: str, user: str | None) -> None:
    if not 0 < port < 65_536:
        raise UsageError(f"expected a port from 1 to 65535, got {port}")
    if user is not None and not _USER.fullmatch(user):
        raise UsageError(f"expected the name of an account, got {user!r}")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host):
            raise UsageError(f"expected an address to listen on, got {host!r}") from None


def render(
    directory: Path,
    *,
    port: int,
    ca: Path,
    certificate: Path,
    key: Path,
    recipients: Sequence[str],
    host: str = "0.0.0.0",  # noqa: S104 - a broker is there to be reached
    user: str | None = None,
) -> Path:
    """Writes `mosquitto.conf` and `mosquitto.acl`.

    Args:
        directory: where to; what waits in the broker is kept in `state` below it. Absolute.
        port: TCP port.
        ca: the authority whose certificates may connect (PEM).
        certificate: the broker's certificate chain (PEM).
        key: the broker's key (PEM).
        recipients: ids of the recipients whose backends connect.
        host: address to listen on.
        user: the account mosquitto changes to when root starts it; None leaves its default.

    Returns:
        The path of `mosquitto.conf`.

    Raises:
        MalformedError: a recipient's id that is none.
        UsageError: a port, an address, an account or a path that mosquitto could not use.
        OSError: the directory cannot be written.
    """
    _check(port, host, user)
    acl, state = directory / "mosquitto.acl", directory / "state"
    backends = "\n\n".join(_backend(recipient) for recipient in recipients)
    values = {
        "port": str(port),
        "host": host,
        "ca": str(ca),
        "certificate": str(certificate),
        "key": str(key),
        "acl": str(acl),
        "state": str(state),
        "inflight": str(INFLIGHT),
        "packet": str(MAX_MESSAGE + HEADROOM),
        "user": f"user {user}" if user else "",
    }
    for name, value in values.items():
        if not value.isprintable():
            raise UsageError(f"{name} has characters that cannot stand in a configuration")
    durable.make_dirs(state)
    durable.write(acl, _filled("mosquitto.acl", {"backends": backends}), mode=0o644)
    conf = directory / "mosquitto.conf"
    durable.write(conf, _filled("mosquitto.conf", values), mode=0o644)
    return conf


def _backend(recipient: str) -> str:
    user = shapes.identifier(f"{BACKEND}{recipient}", "the backend's name")
    return f"user {user}\ntopic read assent/1/+/up\ntopic write assent/1/+/down"


def _filled(name: str, values: dict[str, str]) -> bytes:
    template = resources.files("assent.backend").joinpath(name).read_text("utf-8")
    return Template(template).substitute(values).encode()
