# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces, a wire between them, and a capture of every packet at the near end.

Programs started in a namespace have no other network, and their own files of /etc for names.

Law:
  - every packet that is captured was caused by a program. The kernel has nothing to say by itself:
    all addresses are reached over one next hop whose hardware address is pinned, so that neither
    ARP nor neighbour discovery is needed; there is no link-local address, so that no router is
    looked for; what IPv6 tells about multicast when an address is set is waited for by `wired`.
    Nothing is filtered out: should any of it appear later, it counts;
  - an address that nobody has is reached over the wire like any other, so that an attempt shows;
  - a capture that lost a packet fails;
  - a namespace has no name. It ends with the process that holds it, which ends with the test's.

Standards: packet(7), network_namespaces(7), RFC 791, RFC 8200, RFC 1035.
Limits: Linux, root, iproute2, util-linux.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import shlex
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NEAR = "192.0.2.1"
NEAR_V6 = "2001:db8::1"
WIRE = "wire0"

_ROUTER, _ROUTER_V6 = "192.0.2.254", "2001:db8::254"
# RFC 7042 §2.1.1: for documentation.
_NEAR_MAC, _FAR_MAC = "00:00:5e:00:53:01", "00:00:5e:00:53:02"
_PATIENCE_S = 10.0

# Values of Linux that Python 3.11 does not name.
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_PACKET_STATISTICS = 6
_SOL_PACKET = 263
_SO_RCVBUFFORCE = 33
_IPV4, _IPV6 = 0x0800, 0x86DD
_TIME_WAIT, _LISTEN = 6, 10

_PROTOCOLS = ("tcp", "udp", "udplite", "raw", "icmp")

# Bytes; a journey makes some hundred packets.
_BUFFER = 32 << 20
# Enough for the headers; IPv6 extension headers are not followed, and such a packet has no port.
_SNAP = 128


def why_not() -> str | None:
    """Says why there can be no namespaces here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            return f"there is no {program}; type: sudo apt-get install {package}"
    if not Path("/proc/sys/net/ipv6").is_dir():
        return "the kernel has no IPv6, so that a way out over it could not be seen"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


class Endpoint(NamedTuple):
    """An address and a port; None where the protocol has none."""

    address: str
    port: int | None

    def __str__(self) -> str:
        return self.address if self.port is None else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet on one interface of the near namespace.

    Attributes:
        interface: its name; `lo` shows each packet twice, going out and coming in.
        is_outgoing: whether the near side sent it.
        protocol: `tcp`, `udp`, or a number of IP or Ethernet.
        source: where it says that it is from.
        target: where it goes.
        payload: bytes of a TCP segment.
        closes: whether it is a TCP segment with FIN or RST.
    """

    interface: str
    is_outgoing: bool
    protocol: str
    source: Endpoint
    target: Endpoint
    payload: int = 0
    closes: bool = False

    @property
    def near(self) -> Endpoint:
        """The end on this side."""
        return self.source if self.is_outgoing else self.target

    @property
    def far(self) -> Endpoint:
        """The end on the other side."""
        return self.target if self.is_outgoing else self.source


class Connection(NamedTuple):
    """A TCP socket of a namespace, as the kernel lists it."""

    local: Endpoint
    remote: Endpoint
    listens: bool


class Namespace:
    """One network namespace, held by a process that waits.

    Args:
        directory: for its files.
        etc: name of a file of /etc → the text that programs in here find in it.
    """

    def __init__(self, directory: Path, etc: Mapping[str, str]) -> None:
        directory.mkdir(parents=True)
        lines = ["set -e"]
        for name, text in etc.items():
            (directory / name).write_text(text)
            lines.append(f"mount --bind {shlex.quote(str(directory / name))} /etc/{name}")
        # A name service of the machine would look names up outside; programs must not find it.
        lines.append("if [ -d /run/nscd ]; then mount -t tmpfs none /run/nscd; fi")
        lines.append("echo held; exec cat")
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", "\n".join(lines)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if said != "held\n":
            self.close()
            raise RuntimeError(f"no namespace: {said}")

    @property
    def pid(self) -> int:
        """The process that holds it."""
        return self._holder.pid

    def inside(self, words: Sequence[str]) -> list[str]:
        """The same command, run in here; its process id is that of the command."""
        proc = f"/proc/{self.pid}/ns"
        entering = ["nsenter", f"--net={proc}/net", f"--mount={proc}/mnt", f"--wd={Path.cwd()}"]
        return [*entering, *words]

    def run(self, *words: str, said: str = "") -> None:
        """Runs a command in here, with a text on its standard input."""
        done = subprocess.run(
            self.inside(words), input=said, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()}")

    def socket(
        self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
    ) -> socket.socket:
        """A socket of ours that belongs to this namespace."""

        def make() -> socket.socket:
            # network_namespaces(7): of this thread alone; it ends here.
            with Path(f"/proc/{self.pid}/ns/net").open() as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return socket.socket(family, kind, protocol)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(make).result()

    def connections(self) -> list[Connection]:
        """The TCP sockets in here but those that only wait for late packets."""
        found = []
        for _, local, remote, state, *_ in [*self._rows("tcp"), *self._rows("tcp6")]:
            if int(state, 16) != _TIME_WAIT:
                listens = int(state, 16) == _LISTEN
                found.append(Connection(_listed(local), _listed(remote), listens))
        return found

    def sockets(self) -> list[str]:
        """The sockets of every internet protocol in here: its name, and where they are bound."""
        names = [f"{name}{six}" for name in _PROTOCOLS for six in ("", "6")]
        return [f"{name} {_listed(row[1])}" for name in names for row in self._rows(name)]

    def _rows(self, name: str) -> list[list[str]]:
        """What the kernel lists of a protocol, in words; proc(5)."""
        table = Path(f"/proc/{self.pid}/net/{name}")
        if not table.exists():  # UDP-Lite is an option of the kernel
            return []
        return [line.split() for line in table.read_text().splitlines()[1:]]

    def close(self) -> None:
        """Lets go of it; it ends with the last program in it."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(_PATIENCE_S)
        finally:
            self._holder.kill()
            self._holder.stdout.close()


def _listed(text: str) -> Endpoint:
    """An endpoint of /proc/net/tcp: words of four bytes in the machine's order, in hex."""
    address, port = text.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return Endpoint(socket.inet_ntop(family, packed), int(port, 16))


class Capture:
    """Every packet of a namespace from now on, on all its interfaces.

    Args:
        namespace: whose.
    """

    def __init__(self, namespace: Namespace) -> None:
        protocol = socket.htons(_ETH_P_ALL)
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setblocking(False)

    def fresh(self) -> list[Packet]:
        """The packets since it was last asked, in order."""
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (interface, ethertype, direction, *_) = self._socket.recvfrom(_SNAP)
                is_outgoing = direction == socket.PACKET_OUTGOING
                packets.append(_packet(interface, ethertype, data, is_outgoing=is_outgoing))
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        _, lost = struct.unpack("=II", counted)
        assert lost == 0, f"the capture lost {lost} packets"
        return packets

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


def _packet(interface: str, ethertype: int, data: bytes, *, is_outgoing: bool) -> Packet:
    if ethertype == _IPV4:
        start, number, family = (data[0] & 15) * 4, data[9], socket.AF_INET
        source, target = data[12:16], data[16:20]
        size = int.from_bytes(data[2:4], "big") - start
        is_whole = int.from_bytes(data[6:8], "big") & 0x1FFF == 0
    elif ethertype == _IPV6:
        start, number, family = 40, data[6], socket.AF_INET6
        source, target = data[8:24], data[24:40]
        size = int.from_bytes(data[4:6], "big")
        is_whole = True
    else:
        nowhere = Endpoint("", None)
        return Packet(interface, is_outgoing, f"ethernet {ethertype:#06x}", nowhere, nowhere)
    name = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}.get(number, f"ip {number}")
    ports: tuple[int | None, int | None] = (None, None)
    payload, flags = 0, 0
    if is_whole and name in {"tcp", "udp"}:
        ports = struct.unpack_from("!HH", data, start)
    if is_whole and name == "tcp":
        # RFC 9293 §3.1: the length of the header in words, then the flags.
        words, flags = data[start + 12] >> 4, data[start + 13]
        payload = size - words * 4
    return Packet(
        interface,
        is_outgoing,
        name,
        Endpoint(socket.inet_ntop(family, source), ports[0]),
        Endpoint(socket.inet_ntop(family, target), ports[1]),
        payload,
        closes=flags & 0b101 != 0,  # RST, FIN
    )


class Resolver:
    """A DNS server that knows some names, and remembers what it was asked.

    Args:
        listener: a bound UDP socket.
        names: name → IPv4 address.
    """

    def __init__(self, listener: socket.socket, names: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        self._names = names
        self._listener = listener
        self._listener.settimeout(0.05)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="resolver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._end.set()
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                question, sender = self._listener.recvfrom(512)
                self._listener.sendto(self._answer(question), sender)

    def _answer(self, message: bytes) -> bytes:
        """RFC 1035 §4: the question again, and one address if it is of a name we know."""
        at, labels = 12, []
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
            at += 1 + length
        name = ".".join(labels).lower()
        self.asked.append(name)
        question, of_ipv4 = message[12 : at + 5], message[at + 1 : at + 5] == b"\0\1\0\1"
        known = self._names.get(name)
        records = b""
        if known is not None and of_ipv4:
            records = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(known)
        flags = 0x8183 if known is None else 0x8180
        head = struct.pack("!HHHHH", flags, 1, 1 if records else 0, 0, 0)
        return message[:2] + head + question + records


@contextlib.contextmanager
def wired(
    directory: Path,
    *,
    near_etc: Mapping[str, str],
    far_etc: Mapping[str, str],
    far: Sequence[str],
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces on one wire for as long as the block: `NEAR`, and one of some addresses.

    Args:
        directory: for their files.
        near_etc: files of /etc at the near end.
        far_etc: files of /etc at the far end.
        far: IPv4 addresses at the far end.
    """
    with contextlib.ExitStack() as ends:
        spaces = []
        for name, etc in (("near", near_etc), ("far", far_etc)):
            space = Namespace(directory / name, etc)
            ends.callback(space.close)
            spaces.append(space)
        near, other = spaces
        with contextlib.closing(Capture(near)) as capture:
            _connect(near, other, far)
            _until_quiet(capture)
        yield near, other


def _connect(near: Namespace, far: Namespace, addresses: Sequence[str]) -> None:
    words = ["ip", "link", "add", WIRE, "address", _NEAR_MAC, "netns", str(near.pid)]
    words += ["type", "veth", "peer", WIRE, "address", _FAR_MAC, "netns", str(far.pid)]
    subprocess.run(words, check=True, capture_output=True)
    for space, own, hops, neighbour in (
        (near, [NEAR, NEAR_V6], [_ROUTER, _ROUTER_V6], _FAR_MAC),
        (far, addresses, [_ROUTER], _NEAR_MAC),
    ):
        # Milliseconds between the two reports of RFC 3810 §6.1 instead of up to a second.
        settings = f"/proc/sys/net/ipv6/conf/{WIRE}"
        space.run("sh", "-c", f"echo 0 > {settings}/disable_ipv6")
        space.run("sh", "-c", f"echo 10 > {settings}/mldv2_unsolicited_report_interval")
        lines = ["link set lo up", f"link set {WIRE} addrgenmode none", f"link set {WIRE} up"]
        for address in own:
            is_v6 = ":" in address
            lines.append(f"address add {address}/{'128 nodad' if is_v6 else '32'} dev {WIRE}")
        for hop in hops:
            lines.append(f"neigh replace {hop} lladdr {neighbour} dev {WIRE} nud permanent")
            lines.append(f"route add default via {hop} dev {WIRE} onlink")
        space.run("ip", "-batch", "-", said="\n".join(lines) + "\n")


def _until_quiet(capture: Capture) -> None:
    """Waits until the kernel has said what it says of new addresses."""
    _wait(lambda: len(capture.fresh()) > 0)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.3:
        time.sleep(0.02)
        if capture.fresh():
            quiet_since = time.monotonic()


def _wait(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not claim():
        assert time.monotonic() < end, "the wire is silent; was an address set?"
        time.sleep(0.01)
