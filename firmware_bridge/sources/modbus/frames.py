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
§2.5; Modbus messaging on TCP/IP V1.0b §3.1. Frames, checksums and answers are pymodbus's work.
Security: pymodbus logs frames, and they hold values: it is silenced.
"""

from __future__ import annotations

import functools
import logging
from typing import ClassVar, Final

import msgspec
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from firmware_bridge.decode.modbus import Request
from firmware_bridge.sample import SourceError

logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)

_QUESTIONS: Final[dict[str, type[ModbusPDU]]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
_ERROR: Final = 0x80  # set in the function code of an exception, V1.1b3 §7
_RTU: Final = FramerRTU(DecodePDU(False))  # noqa: FBT003 - pymodbus names it is_server
_TCP: Final = FramerSocket(DecodePDU(False))  # noqa: FBT003

_RTU_AROUND: Final = 5  # unit, function, byte count and two bytes of checksum
_RTU_REFUSAL: Final = 5  # unit, function, exception code and two bytes of checksum
_MBAP: Final = 6  # number, protocol and length; the unit is counted in the length
_REMEMBERED: Final = 256  # frames of questions; a gateway asks the same ones over and over
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
        return int(_QUESTIONS[self.request.table].function_code)

    @property
    def size(self) -> int:
        """How many bytes of data the answer holds."""
        count = self.request.count
        return 2 * count if self.request.table in {"holding", "input"} else -(-count // 8)

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
    request = question.request
    return _rtu_frame(request.table, request.address, request.count, question.unit)


@functools.lru_cache(_REMEMBERED)
def _rtu_frame(table: str, address: int, count: int, unit: int) -> bytes:
    pdu = _QUESTIONS[table](dev_id=unit, address=address, count=count)
    return bytes(_RTU.buildFrame(pdu))


def tcp_frame(question: Question) -> bytes:
    """The bytes that ask over TCP."""
    return bytes(_TCP.buildFrame(_pdu(question)))


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
            answer = _decoded(_RTU, question, data[place : place + length])
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
    answer = _decoded(_TCP, question, frame)
    if answer is None:
        raise AnswerError(f"unit {unit}: the answer cannot be read")
    return answer


def _pdu(question: Question) -> ModbusPDU:
    request = question.request
    return _QUESTIONS[request.table](
        dev_id=question.unit,
        transaction_id=question.number,
        address=request.address,
        count=request.count,
    )


def _rtu_length(question: Question, data: bytes, place: int) -> int:
    """How long the answer is that may begin at a place; 0 when none can."""
    if data[place] != question.unit:
        return 0
    if data[place + 1] == question.function and data[place + 2] == question.size:
        return question.length
    return _RTU_REFUSAL if data[place + 1] == question.function | _ERROR else 0


def _decoded(framer: FramerRTU | FramerSocket, question: Question, frame: bytes) -> Answer | None:
    """Reads one whole frame; None when its checksum is wrong or it says nothing."""
    try:
        _, pdu = framer.handleFrame(frame, question.unit, question.number)
    except ModbusException:
        return None
    if pdu is None:
        return None
    if pdu.function_code & _ERROR:
        # No exception has the code 0, V1.1b3 §7.
        return Answer(refusal=pdu.exception_code) if pdu.exception_code else None
    return Answer(registers=tuple(pdu.registers), bits=tuple(pdu.bits))


def _stranger(data: bytes) -> int | None:
    """The unit of a sound frame that stands at the beginning, whatever it answers."""
    if len(data) < _RTU_REFUSAL:
        return None
    length = _RTU_REFUSAL if data[1] & _ERROR else _RTU_AROUND + data[2]
    frame = data[:length]
    if len(frame) < length or not 1 <= data[1] & ~_ERROR <= 4:
        return None
    sound = FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:]))
    return frame[0] if sound else None
