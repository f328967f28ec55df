# SPDX-License-Identifier: Apache-2.0
"""A connection ended under its owner: what the kernel held does not leave any more."""

from __future__ import annotations

import contextlib
import socket

import pytest

from agent.uplink.cut import dissolve
from tests.agent.test_fence import unsent


def filled(listener: socket.socket) -> tuple[socket.socket, socket.socket, int]:
    """A connection whose queues are full: ours, the peer's end, and how many bytes went in."""
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    ours.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += ours.send(bytes(65_536))
    return ours, theirs, sent


def read(theirs: socket.socket) -> int:
    """Everything that the peer can still read."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := theirs.recv(1 << 20):
            count += len(data)
    return count


def test_what_the_kernel_held_does_not_leave() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, theirs, sent = filled(listener)
        with ours, theirs:
            held = sum(unsent(listener.getsockname()[1]).values())
            assert held > 0
            assert dissolve(ours)
            assert unsent(listener.getsockname()[1]) == {}
            # Some of it had arrived, and its confirmation was on the way.
            assert read(theirs) < sent - held // 2
            with pytest.raises(OSError, match=r"reset|Broken|not connected"):
                ours.send(b"more")


def test_the_twin_that_is_shut_down_still_sends_it_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, theirs, sent = filled(listener)
        with ours, theirs:
            ours.shutdown(socket.SHUT_WR)
            assert read(theirs) == sent


def test_a_closed_one_is_gone_already() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, theirs, _ = filled(listener)
        theirs.close()
        ours.close()
        assert dissolve(ours)
