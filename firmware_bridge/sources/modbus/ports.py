# SPDX-License-Identifier: Apache-2.0
"""The two ways to a Modbus device, serial line and TCP, as a port that is written and read.

Law:
  - a serial port is opened exclusively, or not at all;
  - a read blocks until bytes come or the time has passed, and never spins;
  - whatever the operating system says leaves as a SourceError without the port's name, which may
    hold a serial number.

A serial port is a device node, or `rfc2217://host:port` for one behind a network (RFC 2217); TCP is
`tcp://host:port`.
Limits: a port behind a network cannot be locked against others.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import re
import select
import socket
import termios
import time
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import serial

from firmware_bridge.profile.fields import Serial
from firmware_bridge.sample import SourceError

_TCP: Final = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_RFC2217: Final = "rfc2217://"
_CONNECT_S: Final = 3.0
_MOST: Final = 4_096
# A port without a file descriptor to wait on is looked at so often.
_SLICE_S: Final = 0.05
_LINE_BITS: Final = 11  # start, eight of data, parity or a second stop, stop: V1.02 §2.5.1


class UnfitLineError(SourceError):
    """A serial port does not have the speed, parity or stop bits that are asked of it."""

    code: ClassVar[str] = "source-line"


class Port(Protocol):
    """What a bus needs of a port."""

    is_serial: bool
    line: str

    def open(self) -> None:
        """Opens it; raises SourceError when it cannot."""

    def write(self, data: bytes) -> None:
        """Sends bytes; raises SourceError when the port has gone."""

    def read(self, wait_s: float) -> bytes:
        """What came, or nothing when nothing came in time; raises SourceError."""

    def seconds(self, count: int) -> float:
        """How long so many bytes take on the line."""

    def close(self) -> None:
        """Closes it; never raises."""


def make(name: str, line: Serial) -> Port:
    """Makes the port that a name stands for; opens nothing.

    Raises:
        SourceError: the name is none of the three forms.
    """
    if name.startswith("tcp:"):
        found = _TCP.fullmatch(name)
        if found is None or not 0 < int(found[2]) < 1 << 16:
            raise SourceError("expected a port of the form tcp://host:port")
        return TcpPort(found[1].strip("[]"), int(found[2]))
    return SerialPort(name, line)


class SerialPort:
    """A serial line, set as the profile says."""

    is_serial = True

    def __init__(self, name: str, line: Serial) -> None:
        self.line = str(line)
        self._name = name
        self._is_remote = name.startswith(_RFC2217)
        self._setting = line
        self._port: Any = None  # pyserial has no types

    def open(self) -> None:
        """Opens and locks the node.

        Raises:
            SourceError: it is not there, is taken, or cannot be set so.
        """
        remote = self._is_remote
        local: dict[str, Any] = {"exclusive": True, "write_timeout": _CONNECT_S}
        try:
            self._port = serial.serial_for_url(
                self._name,
                baudrate=self._setting.baudrate,
                parity=self._setting.parity,
                stopbits=self._setting.stopbits,
                timeout=_SLICE_S if remote else 0,
                **({} if remote else local),
            )
            is_set = remote or self._is_set()
        except (OSError, ValueError, termios.error) as exc:
            raise _refused(exc, self.line, self._name) from exc
        if not is_set:
            self.close()
            raise UnfitLineError(f"the serial port cannot be set to {self.line}")

    def _is_set(self) -> bool:
        """Whether the driver took the parity and stop bits; some drop what they do not have."""
        flags = termios.tcgetattr(self._port.fileno())[2]
        parity = {0: "N", termios.PARENB: "E", termios.PARENB | termios.PARODD: "O"}
        stopbits = 2 if flags & termios.CSTOPB else 1
        found = parity.get(flags & (termios.PARENB | termios.PARODD), "N")
        return (found, stopbits) == (self._setting.parity, self._setting.stopbits)

    def write(self, data: bytes) -> None:
        """Sends bytes and waits until they have left.

        Raises:
            SourceError: the port has gone, or takes nothing.
        """
        try:
            sent = 0 if self._is_remote else self._taken(data)
            if sent < len(data):
                self._port.write(data[sent:])
        except (OSError, ValueError, termios.error) as exc:
            raise SourceError("the serial port cannot be written to any more") from exc

    def _taken(self, data: bytes) -> int:
        """How many of some bytes the node takes at once: all of a question, unless it is stuck."""
        with contextlib.suppress(BlockingIOError):
            return os.write(self._port.fileno(), data)
        return 0

    def read(self, wait_s: float) -> bytes:
        """What came.

        Raises:
            SourceError: the port has gone.
        """
        try:
            return self._waited(wait_s)
        except (OSError, ValueError, termios.error) as exc:
            raise SourceError("the serial port has gone") from exc

    def _waited(self, wait_s: float) -> bytes:
        if not self._is_remote:
            node = self._port.fileno()
            ready, _, _ = select.select([node], [], [], max(0.0, wait_s))
            if not ready:
                return b""
            try:
                data = os.read(node, _MOST)
            except BlockingIOError:  # whatever made it readable is gone
                return b""
            if not data:  # as the node of an unplugged adapter is
                raise OSError(errno.EIO, "readable and empty")
            return data
        end = time.monotonic() + wait_s
        while True:
            waiting = self._port.in_waiting
            if waiting:
                return bytes(self._port.read(waiting))
            data = bytes(self._port.read(1)) if wait_s > 0 else b""
            if data or time.monotonic() >= end:
                return data

    def seconds(self, count: int) -> float:
        """How long so many bytes take at this baud rate."""
        return count * _LINE_BITS / self._setting.baudrate

    def close(self) -> None:
        """Closes the node, if it is open."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError, termios.error):
                port.close()


class TcpPort:
    """A connection to a device or a gateway of devices."""

    is_serial = False
    line = "TCP"

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connects.

        Raises:
            SourceError: nobody is there.
        """
        try:
            self._socket = socket.create_connection(self._address, _CONNECT_S)
        except OSError as exc:
            reason = (exc.strerror or "no answer").lower()
            raise SourceError(f"the device cannot be connected to: {reason}") from exc
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        """Sends bytes.

        Raises:
            SourceError: the connection has gone.
        """
        assert self._socket is not None
        try:
            self._socket.sendall(data)
        except OSError as exc:
            raise SourceError("the device has closed the connection") from exc

    def read(self, wait_s: float) -> bytes:
        """What came.

        Raises:
            SourceError: the connection has gone.
        """
        assert self._socket is not None
        try:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, wait_s))
            if not ready:
                return b""
            data = self._socket.recv(_MOST)
        except OSError as exc:
            raise SourceError("the connection to the device broke") from exc
        if not data:
            raise SourceError("the device has closed the connection")
        return data

    def seconds(self, count: int) -> float:
        """Nothing: a network is fast beside a serial line."""
        del count
        return 0.0

    def close(self) -> None:
        """Ends the connection, if there is one."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def _refused(exc: Exception, line: str, name: str) -> SourceError:
    number = getattr(exc, "errno", None)
    if isinstance(exc, termios.error) or number == errno.EINVAL:
        return UnfitLineError(f"the serial port cannot be set to {line}")
    if number in {errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK}:
        hint = "another program or another device of agent.toml with other words for it has it"
        return SourceError("the serial port is in use", hint=hint)
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return SourceError("there is no such serial port; is it plugged in?")
    if number in {errno.EACCES, errno.EPERM}:
        user, group = _names(name)
        hint = f"type as root: usermod -aG {group} {user}; then log in again, or restart the agent"
        return SourceError(
            f"the serial port may not be opened; it belongs to group {group}", hint=hint
        )
    return SourceError("the serial port cannot be opened")


def _names(port: str) -> tuple[str, str]:
    """Who we are, and whose the node is."""
    user, group = f"user {os.geteuid()}", "dialout"
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    with contextlib.suppress(KeyError, OSError):
        group = grp.getgrgid(Path(port).stat().st_gid).gr_name
    return user, group
