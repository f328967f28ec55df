# SPDX-License-Identifier: Apache-2.0
"""The stage's ports are its own from its beginning to its end."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from demo.stage import RECIPIENTS, Stage


def bind(port: int) -> None:
    """As the kernel looks for a port to give away: without SO_REUSEADDR."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_a_port_is_given_to_nobody_else_before_its_broker_listens(
    tmp_path: Path, recipient: str
) -> None:
    """Red when it was free once, a while ago: two tests at a time then share a broker."""
    stage = Stage(tmp_path / "stage")
    with pytest.raises(OSError, match="in use") as caught:
        bind(stage.ports[recipient])
    assert caught.value.errno == errno.EADDRINUSE
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", stage.ports[recipient])) == errno.ECONNREFUSED
    with socket.create_server(("127.0.0.1", stage.ports[recipient])):
        pass  # as a server does it
    stage.close()
    bind(stage.ports[recipient])  # the twin: it is free again
