# SPDX-License-Identifier: Apache-2.0
"""The local socket that the command line talks to; who may ask for what.

Path: command line → **control** → the owner thread (agent/pipeline) → back.
Law:
  - only the user the agent runs as, or root, is answered; the kernel says who asks (SO_PEERCRED);
  - a request is one line of JSON, an answer is one line of JSON; nothing else is spoken;
  - the answer is sent after the act is done: a withdrawal that was answered has happened.
Security: reads from local users; hands the owner thread a verb and strings, nothing executable.
Limits: one request a connection, 1 MiB a line, 5 s to send it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from assent.errors import AssentError, ControlError, UsageError

FILE_NAME = "control.sock"

# A consent form of a thousand flows is some 100 kB.
MAX_LINE = 1_048_576
_PATIENCE_S = 5.0
# A withdrawal with a million readings waiting takes well under a second; purging may take longer.
_ANSWER_S = 60.0
_BACKLOG = 8

Message = Mapping[str, Any]
Answer = Callable[[Message], Message]

log = logging.getLogger(__name__)


class Control:
    """The listening end; one thread, one request at a time.

    Args:
        state: the state directory, in which the socket is made.
        answer: does what a request asks and returns its result; called on the thread of control.
        patience_s: how long a request may take to come, and its answer to be read.
    """

    def __init__(self, state: Path, answer: Answer, patience_s: float = _PATIENCE_S) -> None:
        self._path = state / FILE_NAME
        self._answer = answer
        self._patience_s = patience_s
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to listen; the caller holds the instance lock, so a left-over socket is dead."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with _short(self._path) as address:
            listener.bind(address)
        self._path.chmod(0o600)
        listener.listen(_BACKLOG)
        self._listener = listener
        self._thread = threading.Thread(
            target=self._serve, args=(listener,), name="control", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening; a request that is under way can still be answered."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None

    def stop(self) -> None:
        """Stops listening, waits for the answer to a request under way, removes the socket.

        Whoever answers must be able to do so meanwhile: the owner calls `close` before its last
        acts, and this after them.
        """
        self.close()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
            self._thread = None
            self._path.unlink(missing_ok=True)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._converse(connection)
                except OSError as exc:
                    log.info("control connection lost reason=%s", type(exc).__name__)
                except Exception as exc:  # noqa: BLE001  # a mistake of ours silences nobody's no
                    log.error("control failed reason=%s", type(exc).__name__)

    def _converse(self, connection: socket.socket) -> None:
        reply: Message
        try:
            request = _parse(_receive(connection, self._patience_s))
            if not _may_ask(connection):
                raise ControlError("only the agent's own user may ask")
            reply = {"ok": True, "result": self._answer(request)}
        except AssentError as exc:
            reply = _refusal(exc)
        connection.settimeout(self._patience_s)
        connection.sendall(_line(reply))


def ask(
    state: Path,
    verb: str,
    *,
    patience_s: float = _ANSWER_S,
    **arguments: Any,  # noqa: ANN401 (JSON values)
) -> dict[str, Any]:
    """Asks the running agent and waits for its answer.

    Args:
        state: the state directory of the agent.
        verb: what is asked for.
        patience_s: how long to wait for the answer.
        **arguments: JSON values that go with it.

    Returns:
        The result as the agent gave it.

    Raises:
        UsageError: an argument is no Unicode text.
        NotRunningError: nobody listens.
        AnsweredError: an error of the agent's own, with its sentence, hint and exit code.
        ControlError: somebody listens and does not answer, or not with an answer.
    """
    try:
        line = _line({"verb": verb, **arguments})
    except UnicodeEncodeError as exc:
        raise UsageError("what was typed is no Unicode text") from exc
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(patience_s)
        try:
            with _short(state / FILE_NAME) as address:
                connection.connect(address)
        except OSError as exc:
            raise NotRunningError("no agent runs here", hint="start it with: assent run") from exc
        try:
            connection.sendall(line)
            reply = _parse(_receive(connection, patience_s))
        except OSError as exc:
            raise ControlError("the agent does not answer") from exc
    if reply.get("ok") is True and isinstance(result := reply.get("result"), dict):
        return result
    raise AnsweredError(
        str(reply.get("error", "the agent answered with no result")),
        hint=reply.get("hint"),
        exit_code=int(reply.get("exit_code", 1)),
    )


class NotRunningError(ControlError):
    """Nobody listens on the socket."""


class AnsweredError(ControlError):
    """The agent answered, and the answer is an error of its own."""

    def __init__(self, message: str, *, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]  # the agent's own code, not the class's


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Names a socket by way of its open directory: a path in unix(7) has at most 107 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _may_ask(connection: socket.socket) -> bool:
    # unix(7): struct ucred is pid, uid, gid as three C ints.
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.getuid())


def _refusal(error: AssentError) -> Message:
    return {
        "ok": False,
        "error": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def _line(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


def _receive(connection: socket.socket, patience_s: float) -> bytes:
    received = bytearray()
    end = time.monotonic() + patience_s
    while not received.endswith(b"\n"):
        # For all of it, not for each part: whoever sends byte by byte holds up everybody else.
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(65_536)
        if not chunk:
            break
        received += chunk
        if len(received) > MAX_LINE:
            raise ControlError(f"the message is over {MAX_LINE} bytes")
    return bytes(received)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ControlError("expected one line of JSON, got something else") from exc
    if not isinstance(message, dict):
        raise ControlError("expected a JSON object, got something else")
    return message
