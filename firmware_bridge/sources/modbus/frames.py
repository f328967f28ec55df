# SPDX-License-Identifier: Apache-2.0
"""Requests into frames, and what came back into an answer; no I/O.

Path: Request → **question** → bus → bytes → **Answer** → decode.modbus.
Law:
  - only functions 1 to 4 are built, so that nothing here can change a device;
  - an answer is what fits the question: unit, function, length, and checksum or number;
  - on a serial line what does not fit is stepped over, since noise and late answers come before the
    right one; a TCP stream that does not fit is broken, since nothing gets lost in it;
  - whatever the bytes, what leaves is an Answer, None for "not all of it yet", or an AnswerError.

Standards: Modbus application protocol V1.1b3 §4.1, §6.1-6.4, §7; Modbus over serial line V1.02
§2.5, §6.2.2; Modbus messaging on TCP/IP V1.0b §3.1.
Security: frames hold values; none is logged.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

import msgspec

from firmware_bridge.decode.requests import Request
from firmware_bridge.profile.fields import Table
from firmware_bridge.sample import SourceError

_FUNCTIONS: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_REGISTERS: Final = ("holding", "input")
_ERROR: Final = 0x80  # set in the function code of an exception, V1.1b3 §7
_POLYNOMIAL: Final = 0xA001  # V1.02 §6.2.2

_RTU_AROUND: Final = 5  # unit, function, byte count and two bytes of checksum
_RTU_REFUSAL: Final = 5  # unit, function, exception code and two bytes of checksum
_MBAP: Final = 6  # number, protocol and length; the unit is counted in the length
_MOST_MBAP: Final = 254  # a PDU of 253 bytes and the unit, V1.0b §3.1.3

_REASONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, still at work",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not answer",
}


class AnswerError(SourceError):
    """What came back is no answer to what was asked."""

    code: ClassVar[str] = "source-answer"


class Question(msgspec.Struct, frozen=True):
    """One request to one unit.

    Attributes:
        request: what is read.
        unit: of whom; 0 to 255.
        number: of the request, which a TCP answer repeats; 0 on a serial line.
    """

    request: Request
    unit: int
    number: int = 0

    @property
    def function(self) -> int:
        """The function code, 1 to 4."""
        return _FUNCTIONS[self.request.table]

    @property
    def size(self) -> int:
        """How many bytes of data the answer holds."""
        count = self.request.count
        return 2 * count if self.request.table in _REGISTERS else -(-count // 8)

    @property
    def length(self) -> int:
        """How long the frame of the answer is on a serial line."""
        return self.size + _RTU_AROUND


class Answer(msgspec.Struct, frozen=True):
    """What a unit said.

    Attributes:
        registers: as many as were asked for, when registers were.
        bits: at least as many as were asked for, when bits were.
        refusal: the exception code of a unit that refused, or 0.
    """

    registers: tuple[int, ...] = ()
    bits: tuple[bool, ...] = ()
    refusal: int = 0

    @property
    def reason(self) -> str:
        """What the exception code stands for."""
        return _REASONS.get(self.refusal, f"exception {self.refusal}")


def rtu_frame(question: Question) -> bytes:
    """The bytes that ask on a serial line."""
    frame = bytes([question.unit]) + _pdu(question)
    return frame + _checksum(frame)


def tcp_frame(question: Question) -> bytes:
    """The bytes that ask over TCP."""
    pdu = _pdu(question)
    return struct.pack(">HHHB", question.number, 0, 1 + len(pdu), question.unit) + pdu


def rtu_answer(question: Question, data: bytes) -> Answer | None:
    """Looks for the answer in what came over a serial line since the question was sent.

    Args:
        question: what was asked.
        data: everything that came, noise and all.

    Returns:
        The answer, or None while there is none in it.
    """
    for place in range(len(data) - _RTU_REFUSAL + 1):
        length = _rtu_length(question, data, place)
        if length and place + length <= len(data):
            frame = data[place : place + length]
            answer = _decoded(question, frame[1:-2]) if _is_sound(frame) else None
            if answer is not None:
                return answer
    return None


def rtu_trouble(question: Question, data: bytes, line: str) -> AnswerError:
    """Names what is wrong with bytes that hold no answer.

    Args:
        question: what was asked.
        data: what came instead; not empty.
        line: how the line is set, such as 9600 8N1.
    """
    unit, length = question.unit, question.length
    if data == rtu_frame(question):  # adapters that hear themselves
        return AnswerError(f"unit {unit} does not answer; only the question came back")
    for place in range(len(data)):
        if data[place : place + 3] == bytes([unit, question.function, question.size]):
            if len(data) - place < length:
                had = len(data) - place
                return AnswerError(f"unit {unit}: the answer was cut after {had} of {length} bytes")
            return AnswerError(f"unit {unit}: the checksum of the answer is wrong")
        other = _stranger(data[place:])
        if other is not None and other != unit:
            hint = "two units may have one address, or another program asks on the same line"
            message = f"unit {unit}: another unit answered, number {other}"
            return AnswerError(message, hint=hint)
        if other is not None:
            return AnswerError(f"unit {unit}: the answer is to another question")
    hint = "compare baud rate, parity and stop bits with the settings of the device"
    message = f"unit {unit}: {len(data)} bytes came and no frame; is the line right at {line}?"
    return AnswerError(message, hint=hint)


def tcp_answer(question: Question, data: bytes) -> Answer | None:
    """Looks for the answer in what came over TCP since the question was sent.

    Args:
        question: what was asked.
        data: everything that came; answers to earlier questions are stepped over.

    Returns:
        The answer, or None while it is not complete.

    Raises:
        AnswerError: the stream holds something else, and must be opened anew.
    """
    while len(data) >= _MBAP:
        number, protocol, length = (int.from_bytes(data[at : at + 2]) for at in (0, 2, 4))
        if protocol or not 2 <= length <= _MOST_MBAP:
            raise AnswerError(f"unit {question.unit}: what came is no Modbus over TCP")
        if len(data) < _MBAP + length:
            return None
        frame, data = data[: _MBAP + length], data[_MBAP + length :]
        if number == question.number:
            return _tcp_decoded(question, frame)
    return None


def _tcp_decoded(question: Question, frame: bytes) -> Answer:
    unit, body = frame[_MBAP], frame[_MBAP + 1 :]
    if unit != question.unit:
        raise AnswerError(f"unit {question.unit}: another unit answered, number {unit}")
    refused = body[:1] == bytes([question.function | _ERROR]) and len(body) == 2
    fits = body[:2] == bytes([question.function, question.size])
    if not refused and not (fits and len(body) == 2 + question.size):
        message = f"unit {unit}: the answer has another function or length than was asked for"
        raise AnswerError(message)
    answer = _decoded(question, body)
    if answer is None:
        raise AnswerError(f"unit {unit}: the answer cannot be read")
    return answer


def _pdu(question: Question) -> bytes:
    request = question.request
    return struct.pack(">BHH", question.function, request.address, request.count)


def _rtu_length(question: Question, data: bytes, place: int) -> int:
    """How long the answer is that may begin at a place; 0 when none can."""
    if data[place] != question.unit:
        return 0
    if data[place + 1] == question.function and data[place + 2] == question.size:
        return question.length
    return _RTU_REFUSAL if data[place + 1] == question.function | _ERROR else 0


def _decoded(question: Question, pdu: bytes) -> Answer | None:
    """Reads what fits the question; None for a refusal that says nothing."""
    if pdu[0] & _ERROR:
        # No exception has the code 0, V1.1b3 §7.
        return Answer(refusal=pdu[1]) if pdu[1] else None
    data = pdu[2:]  # behind the function and the byte count
    if question.request.table in _REGISTERS:
        return Answer(registers=struct.unpack(f">{question.request.count}H", data))
    # The first is the lowest bit of the first byte, V1.1b3 §6.1.
    return Answer(bits=tuple(bool(byte >> bit & 1) for byte in data for bit in range(8)))


def _is_sound(frame: bytes) -> bool:
    """Whether a frame of a serial line ends with its own checksum."""
    return frame[-2:] == _checksum(frame[:-2])


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_REMAINDERS: Final = tuple(_remainder(byte) for byte in range(256))


def _checksum(data: bytes) -> bytes:
    """The CRC of V1.02 §6.2.2, low byte first."""
    register = 0xFFFF
    for byte in data:
        register = register >> 8 ^ _REMAINDERS[(register ^ byte) & 0xFF]
    return register.to_bytes(2, "little")


def _stranger(data: bytes) -> int | None:
    """The unit of a sound frame that stands at the beginning, whatever it answers."""
    if len(data) < _RTU_REFUSAL:
        return None
    length = _RTU_REFUSAL if data[1] & _ERROR else _RTU_AROUND + data[2]
    frame = data[:length]
    if len(frame) < length or not 1 <= data[1] & ~_ERROR <= 4:
        return None
    return frame[0] if _is_sound(frame) else None
