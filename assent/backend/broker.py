# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration of a mosquitto for gateways, from the templates beside this file.

Law:
  - whoever connects has a certificate of the recipient's own authority; a gateway writes its own
    mailbox up and reads its own mailbox down, the backend reads all up and writes all down;
  - no limit of the broker drops a message silently.

Security: sealed messages pass it; it sees mailboxes, sizes and times. Several recipients on one
broker see each other's sealed messages: give each its own.
"""

from __future__ import annotations

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
        UsageError: a value that would not stay on its line.
        OSError: the directory cannot be written.
    """
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
