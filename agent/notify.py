# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager how we are: ready, stopping, alive (sd_notify(3)).

Limits: does nothing where NOTIFY_SOCKET is not set; never raises, since a deaf manager must not
stop the agent.
"""

from __future__ import annotations

import contextlib
import os
import socket

# A manager that does not read fills the socket's queue after some ten datagrams (unix(7)).
_PATIENCE_S = 0.1


def notify(state: str) -> None:
    """Sends one state, such as `READY=1` or `WATCHDOG=1`, if a manager listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        # unix(7): a leading NUL names the abstract namespace.
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.settimeout(_PATIENCE_S)
        channel.sendto(state.encode(), address)


def is_managed() -> bool:
    """Whether a manager waits to be told."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_interval_s() -> float | None:
    """Half of the manager's watchdog time in seconds, or None when it watches nobody or another."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000
