# SPDX-License-Identifier: Apache-2.0
"""Ports of the loopback for programs that are started and ended beside others."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kept_port() -> tuple[int, int]:
    """A port of the loopback that stays ours: the kernel gives it to nobody else meanwhile.

    Whoever listens there sets SO_REUSEADDR, as every server does (socket(7)).

    Returns:
        The port, and what keeps it until `os.close`.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        return int(keeper.getsockname()[1]), keeper.detach()
