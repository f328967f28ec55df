# SPDX-License-Identifier: Apache-2.0
"""A gateway that starts without a network: names that do not resolve, in a namespace of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import LinkState
from agent.uplink.protocol import Version
from tests.agent.carrying import Gateway
from tests.simulators import netns
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.netns import Namespace, Resolver
from tests.simulators.stub import Stub

pytestmark = pytest.mark.journey

REPO = Path(__file__).resolve().parents[2]
NAME = "ingest.example.com"
ASKED = b"\x06ingest"  # RFC 1035 §3.1
CHILD = """
import pathlib, sys, threading
from agent.uplink import Uplink
from tests.agent.carrying import Impatient
Uplink(pathlib.Path(sys.argv[1]), voucher=None, rng=Impatient()).run(threading.Event())
"""
ETC = {
    # A resolver that hangs holds a caller for half a minute.
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:15 attempts:2\n",
    "hosts": "",
    "nsswitch.conf": "hosts: files dns\n",
}


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    reason = netns.why_not()
    if reason is not None:
        pytest.skip(reason)
    one = Namespace(tmp_path / "space", ETC)
    yield one
    one.close()


@contextlib.contextmanager
def uplink_in(space: Namespace, gateway: Gateway) -> Iterator[subprocess.Popen[bytes]]:
    words = space.inside([sys.executable, "-c", CHILD, str(gateway.path)])
    child = subprocess.Popen(words, cwd=REPO)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(10)


def bound(space: Namespace, kind: socket.SocketKind, port: int) -> socket.socket:
    made = space.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def answer_s(gateway: Gateway) -> float:
    """Takes back the flow; says how long it takes until nothing of it can leave any more."""
    began = time.monotonic()
    gateway.spool.close_lane("service")
    fence = gateway.spool.fence()
    eventually(lambda: gateway.spool.fence_passed(fence))
    return time.monotonic() - began


def test_a_network_that_comes_late_is_used_without_a_restart(
    tmp_path: Path, space: Namespace
) -> None:
    """First there is no network at all, then a resolver that hangs, then one that knows no name,
    then the broker. A no is obeyed at once meanwhile: red when names are resolved in the uplink's
    own thread, which then answers nothing for half a minute."""
    authority = Authority(tmp_path / "authority")
    gateway = Gateway(tmp_path / "g", authority, f"mqtts://{NAME}:8883")
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.close)
        gateway.open_lane(1)
        child = stack.enter_context(uplink_in(space, gateway))
        gateway.reaches(LinkState.WAITING, "cannot be resolved")

        silent = bound(space, socket.SOCK_DGRAM, 53)
        silent.settimeout(15)
        space.run("ip", "link", "set", "lo", "up")
        assert ASKED in silent.recv(512)  # the fault struck: it waits
        took_s = answer_s(gateway)
        assert took_s < 1.0, took_s
        gateway.open_lane(2)
        # The lookup that hangs is given up with the lane; the next one asks anew.
        assert ASKED in silent.recv(512)

        names: dict[str, str] = {}
        resolver = Resolver(silent, names)
        stack.callback(resolver.close)
        eventually(lambda: resolver.asked, 40)
        gateway.reaches(LinkState.WAITING, "cannot be resolved")

        listener = bound(space, socket.SOCK_STREAM, 8883)
        listener.listen()
        listener.settimeout(0.05)
        stub = stack.enter_context(Stub(authority, names=(NAME,), listener=listener))
        names[NAME] = "127.0.0.1"
        sent = gateway.put(3)
        eventually(lambda: [payload for payload, _ in list(stub.published)] == sent)
        assert stub.versions == [int(Version.V5.value)]
        assert child.poll() is None
