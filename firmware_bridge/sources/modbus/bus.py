# SPDX-License-Identifier: Apache-2.0
"""One port and the units behind it: one question at a time, whoever asks.

Path: source → **bus** → port.
Law:
  - devices of agent.toml with one port share one bus; the port is opened by the first that asks and
    closed when the last leaves;
  - a question is asked once; what came before it is thrown away, and on a serial line the silence
    between two frames is kept;
  - after an unanswered question its answer may still come: a question whose answer would look the
    same is held back until it cannot, so that no value is taken for another;
  - a line that is never silent is not asked on: after a second it is given up, and closed;
  - after bytes that make no sense the port is closed, and opened again by the next question.

Standards: Modbus over serial line V1.02 §2.5.1.1 (3.5 characters of silence between frames).
Security: what comes is bounded in bytes and time, however a line babbles.
Limits: a lock is not fair; units wait at most as long as the questions of the others last.
"""

from __future__ import annotations

import threading
import time
from typing import ClassVar, Final

from firmware_bridge.profile.fields import Serial
from firmware_bridge.sample import SourceError
from firmware_bridge.sources.modbus.frames import (
    Answer,
    AnswerError,
    Question,
    rtu_answer,
    rtu_frame,
    rtu_trouble,
    tcp_answer,
    tcp_frame,
)
from firmware_bridge.sources.modbus.ports import Port, make

# Bytes of one frame come in pieces: a USB adapter holds them for 16 ms, a radio link for longer.
_PIECES_S: Final = 0.2
_LONGEST: Final = 4_096  # bytes that may come before an answer
# Another master on the line is silent between its turns; what is not for so long is no bus.
_BABBLE_S: Final = 1.0
_FRAME_SILENCE: Final = 4  # characters; the standard asks for 3.5
_SHORTEST_SILENCE_S: Final = 0.002  # above 19200 baud the standard fixes it at 1.75 ms
_MOST_NUMBERS: Final = 1 << 16


class SilentUnitError(SourceError):
    """A unit did not answer in time."""

    code: ClassVar[str] = "source-unanswered"


class BabbleError(AnswerError):
    """A line is never silent, so that nothing can be asked on it."""

    code: ClassVar[str] = "source-babble"


class Bus:
    """One port, shared; each method may be called from any thread."""

    def __init__(self, name: str, line: Serial) -> None:
        self.line = line
        self._port: Port = make(name, line)
        self._lock = threading.Lock()
        self._is_open = False
        self._number = 0
        self._quiet_s = 0.0  # monotonic: the line has been silent since
        self._late: Question | None = None  # whose answer may still come, until then
        self._late_s = 0.0
        self.users = 0  # guarded by the lock of the table below

    def open(self) -> None:
        """Opens the port, unless it is.

        Raises:
            SourceError: it cannot be opened.
        """
        with self._lock:
            self._ready()

    def ask(self, question: Question, timeout_s: float) -> Answer:
        """Asks a unit and waits for its answer.

        Args:
            question: its number is chosen here.
            timeout_s: until the answer begins.

        Returns:
            What it said; a refusal is an answer, too.

        Raises:
            SilentUnitError: nothing came.
            AnswerError: what came is no answer; BabbleError when nobody could be asked.
            SourceError: the port has gone.
        """
        with self._lock:
            self._ready()
            try:
                self._settle(question)
            except BabbleError:
                self._close()
                raise
            except SourceError:
                # A connection that the device closed in the meantime, a node that has come back.
                self._close()
                self._ready()
            try:
                return self._asked(question, timeout_s)
            except SilentUnitError:
                raise
            except SourceError:
                self._close()
                raise

    def close(self) -> None:
        """Closes the port."""
        with self._lock:
            self._close()

    def _ready(self) -> None:
        if not self._is_open:
            self._port.open()
            self._is_open = True

    def _close(self) -> None:
        self._is_open = False
        self._port.close()

    def _asked(self, question: Question, timeout_s: float) -> Answer:
        if self._port.is_serial:
            frame, find = rtu_frame(question), rtu_answer
        else:
            self._number = (self._number + 1) % _MOST_NUMBERS
            question = Question(question.request, question.unit, self._number)
            frame, find = tcp_frame(question), tcp_answer
        self._port.write(frame)
        if self._late is not None and self._late.request == question.request:
            # Two answers may come now, the second when this one is given up.
            self._late_s = time.monotonic() + 2 * timeout_s
        end_s = time.monotonic() + timeout_s + self._port.seconds(len(frame))
        # An answer that begins at the last moment is heard to its end, a babbling line is not.
        last_s = end_s + self._port.seconds(question.length) + _PIECES_S
        data = b""
        while (now_s := time.monotonic()) < end_s and len(data) < _LONGEST:
            piece = self._port.read(end_s - now_s)
            self._quiet_s = time.monotonic()
            data += piece
            answer = find(question, data)
            if answer is not None:
                return answer
            if piece:
                end_s = min(last_s, max(end_s, self._quiet_s + _PIECES_S))
        self._late, self._late_s = question, time.monotonic() + timeout_s
        if data and self._port.is_serial:
            raise rtu_trouble(question, data, self._port.line)
        if data:
            raise AnswerError(f"unit {question.unit}: the answer was cut")
        checks = "wiring, unit_id, baud rate and parity" if self._port.is_serial else "unit_id"
        raise SilentUnitError(f"unit {question.unit} does not answer; check power, {checks}")

    def _settle(self, question: Question) -> None:
        """Waits for the silence before a frame, and throws away what came since the last one.

        Raises:
            BabbleError: there is none in time.
        """
        held_s = self._late_s if _looks_like(self._late, question) else 0.0
        silence_s = max(_SHORTEST_SILENCE_S, self._port.seconds(_FRAME_SILENCE))
        if not self._port.is_serial:
            silence_s = held_s = 0.0
        last_s = max(time.monotonic(), held_s) + _BABBLE_S
        wait_s, came = 0.0, True
        while came or wait_s > 0:
            came = bool(self._port.read(max(0.0, wait_s)))
            now_s = time.monotonic()
            if came and now_s > last_s:
                raise _babble(question, self._port)
            self._quiet_s = now_s if came else self._quiet_s
            wait_s = max(self._quiet_s + silence_s, held_s) - now_s
        self._late = None if now_s >= self._late_s else self._late


def _babble(question: Question, port: Port) -> BabbleError:
    if not port.is_serial:
        return BabbleError(f"unit {question.unit} is not asked: the device never stops talking")
    message = f"unit {question.unit} is not asked: the line is never silent at {port.line}"
    hint = "look for another program that asks on it, a wrong speed, or A and B swapped"
    return BabbleError(message, hint=hint)


def _looks_like(late: Question | None, question: Question) -> bool:
    """Whether the answer to one question could be taken for the answer to another."""
    return (
        late is not None
        and late.request != question.request
        and (late.unit, late.function, late.size)
        == (question.unit, question.function, question.size)
    )


_buses: dict[str, Bus] = {}
_buses_lock = threading.Lock()


def join(name: str, line: Serial) -> Bus:
    """The bus of a port, for one more device.

    Args:
        name: of the port, as agent.toml has it.
        line: how it is set.

    Raises:
        SourceError: the port's name is of no form, or another device sets the line otherwise.
    """
    with _buses_lock:
        bus = _buses.get(name) or Bus(name, line)
        if bus.line != line:
            message = f"two devices of one port set its line apart: {bus.line} and {line}"
            raise SourceError(message)
        _buses[name] = bus
        bus.users += 1
        return bus


def leave(name: str, bus: Bus) -> None:
    """Gives a bus back; the last to leave closes the port."""
    with _buses_lock:
        bus.users -= 1
        if not bus.users:
            del _buses[name]
            bus.close()
