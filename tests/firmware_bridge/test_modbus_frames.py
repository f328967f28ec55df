# SPDX-License-Identifier: Apache-2.0
"""Frames of elsewhere are read as others read them; anything else is no answer, by name."""

from __future__ import annotations

import json
import logging
import lzma
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.decode.requests import Request
from firmware_bridge.profile.fields import Table
from firmware_bridge.sources.modbus import frames
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
from tests.firmware_bridge.modbus_vectors import Json, inverters

TABLES: dict[int, Table] = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
SEED = 20261122


def question(code: int, address: int, count: int, unit: int = 1, number: int = 0) -> Question:
    return Question(Request(TABLES[code], address, count, ()), unit, number)


# Serial lines: what inverters answered, with two bytes of their radio stick before each frame.


def recorded(shared_data: Path) -> Iterator[tuple[Question, bytes, bytes, bytes]]:
    for device in inverters(shared_data):
        for exchange in device["exchanges"]:
            request, answer = (bytes.fromhex(exchange[key]) for key in ("request", "response"))
            if request[:4] == b"\0\1\0\0":
                continue  # this one came over TCP
            address, count = int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
            asked = question(request[1], address, count, request[0])
            yield asked, request, answer, answer.removeprefix(b"\xaa\x55")


def test_recorded_questions_are_built_to_the_byte(shared_data: Path) -> None:
    pairs = [(rtu_frame(asked), request) for asked, request, _, _ in recorded(shared_data)]
    assert len(pairs) > 20
    assert all(built == request for built, request in pairs)


def test_recorded_answers_are_found_behind_what_comes_before_them(shared_data: Path) -> None:
    for asked, _, answer, frame in recorded(shared_data):
        size = frame[2]
        found = rtu_answer(asked, answer)
        assert found is not None
        words = [int.from_bytes(frame[at : at + 2]) for at in range(3, 3 + size, 2)]
        assert list(found.registers) == words
        assert found.refusal == 0


def test_an_answer_is_found_whichever_pieces_it_comes_in(shared_data: Path) -> None:
    chance = random.Random(SEED)
    for asked, _, _, answer in recorded(shared_data):
        frame = answer[: answer[2] + 5]  # one recording has two frames
        whole = rtu_answer(asked, frame)
        noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 20)))
        for before in (b"", noise, frame[:-1]):
            heard = b""
            for byte in before + frame[:-1]:
                heard += bytes([byte])
                assert rtu_answer(asked, heard) is None, f"seed {SEED}"
            assert rtu_answer(asked, heard + frame[-1:]) == whole, f"seed {SEED}"
            assert rtu_answer(asked, heard + frame[-1:] + noise) == whole, f"seed {SEED}"


def test_a_changed_bit_is_no_answer(shared_data: Path) -> None:
    asked, _, _, frame = next(recorded(shared_data))
    for place in range(len(frame)):
        for bit in range(8):
            bad = frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :]
            assert rtu_answer(asked, bad) is None


def adus(shared_data: Path, framer: str) -> list[bytes]:
    lines = (shared_data / "modbus" / "pymodbus_adus.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [bytes.fromhex(row["adu"]) for row in rows if row["framer"] == framer]


def test_the_frames_of_another_test_suite_are_built_and_read(shared_data: Path) -> None:
    # One request (function 3, address 0x7c, two registers), its answer and a refusal.
    for unit in (0, 0x11, 0xFF):
        asked = question(3, 0x7C, 2, unit)
        known = adus(shared_data, "rtu")
        assert rtu_frame(asked) in known
        found = [rtu_answer(asked, frame) for frame in known]
        assert found.count(Answer(registers=(0x8D, 0x8E))) == 1
        assert found.count(Answer(refusal=2)) == 1
        for number in (0, 0xC05):
            asked = question(3, 0x7C, 2, unit, number)
            known = [one for one in adus(shared_data, "socket") if one[:2] == number.to_bytes(2)]
            assert tcp_frame(asked) in known
            read = [outcome(asked, frame) for frame in known]
            assert read.count(Answer(registers=(0x8D, 0x8E))) == 1
            assert read.count(Answer(refusal=2)) == 1


def pdus(shared_data: Path) -> Iterator[tuple[str, Json, bytes]]:
    for line in (shared_data / "modbus" / "pymodbus_pdus.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield row["kind"] + row["type"], row["fields"], bytes.fromhex(row["pdu"])


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "Coils"), (2, "DiscreteInputs"), (3, "HoldingRegisters"), (4, "InputRegisters")],
)
def test_the_four_reads_of_another_test_suite_are_understood(
    shared_data: Path, code: int, name: str
) -> None:
    rows = list(pdus(shared_data))
    asked = [(f, p) for kind, f, p in rows if kind == f"requestRead{name}Request"]
    said = [(f, p) for kind, f, p in rows if kind == f"responseRead{name}Response"]
    assert asked
    assert said
    for fields, pdu in asked:
        made = question(code, fields["address"], fields["count"])
        assert rtu_frame(made)[1:-2] == pdu
        assert tcp_frame(made)[7:] == pdu
    for fields, pdu in said:
        values = fields.get("registers") or fields.get("bits")
        made = question(code, 0, len(values))
        if pdu[1] != made.size:
            continue  # the suite builds some answers that no question has
        head = b"\0\0\0\0" + (len(pdu) + 1).to_bytes(2) + b"\1"
        found = tcp_answer(made, head + pdu)
        assert found is not None
        assert list(found.registers or found.bits)[: len(values)] == values


# TCP: captured conversations with another program's reading of them.

CAPTURES = [
    "fuzz-1011", "icsnpp", "modbus-and-non-modbus-p502", "modbusBig", "modbusSmall",
    "modbus_test_data_part1",
]  # fmt: skip


def segments(shared_data: Path, name: str) -> list[Json]:
    packed = (shared_data / "modbus" / f"tcp_{name}.jsonl.xz").read_bytes()
    return [json.loads(line) for line in lzma.decompress(packed).splitlines()]


def outcome(asked: Question, data: bytes) -> Answer | str | None:
    """The answer, None for "not yet", or the sentence of the error."""
    try:
        return tcp_answer(asked, data)
    except AnswerError as exc:
        return exc.message


def decoded_by_wireshark(modbus: Json, asked: Question) -> list[int]:
    rows = [value for value in modbus.values() if isinstance(value, dict)]
    if asked.function <= 2:
        bits = {
            int(r["modbus.bitnum"]): int(r["modbus.bitval"]) for r in rows if "modbus.bitnum" in r
        }
        return [bits[at] for at in sorted(bits)]
    words = {
        int(r["modbus.regnum16"]): int(r["modbus.regval_uint16"])
        for r in rows
        if "modbus.regnum16" in r
    }
    return [words[at] for at in sorted(words)]


@pytest.mark.parametrize("name", CAPTURES)
def test_captured_answers_are_read_as_wireshark_reads_them(shared_data: Path, name: str) -> None:
    read = 0
    open_questions: dict[tuple[Any, ...], Question] = {}
    for row in segments(shared_data, name):
        data, mbap, modbus = bytes.fromhex(row["tcp_payload"]), row["mbtcp"], row["modbus"]
        if row["malformed"] or not isinstance(modbus, dict) or not isinstance(mbap, dict):
            continue
        code = int(modbus["modbus.func_code"])
        number, unit = int(mbap["mbtcp.trans_id"]), int(mbap["mbtcp.unit_id"])
        key = (row["stream"], number, unit, code)
        if code not in TABLES:
            continue
        if row["to_server"] and "modbus.reference_num" in modbus:
            count = int(modbus.get("modbus.bit_cnt") or modbus["modbus.word_cnt"])
            made = question(code, int(modbus["modbus.reference_num"]), count, unit, number)
            open_questions[key] = made
            if 1 <= count <= (2000 if code <= 2 else 125):
                assert tcp_frame(made) == data
        elif key in open_questions:
            made = open_questions.pop(key)
            found = outcome(made, data)
            if "modbus.exception_code" in modbus:
                assert found == Answer(refusal=int(modbus["modbus.exception_code"]))
            elif int(modbus["modbus.byte_cnt"]) == made.size:
                assert isinstance(found, Answer)
                stated = decoded_by_wireshark(modbus, made)
                given = list(found.registers) or [int(bit) for bit in found.bits]
                assert given[: len(stated)] == stated
                read += 1
            else:
                assert isinstance(found, str), "an answer of another length is refused"
    assert read or name in {"fuzz-1011", "modbus_test_data_part1"}


@pytest.mark.parametrize("name", CAPTURES)
def test_any_segment_is_an_answer_or_refused_by_name(shared_data: Path, name: str) -> None:
    chance = random.Random(SEED)
    rows = segments(shared_data, name)
    for row in chance.sample(rows, min(len(rows), 200)):
        data = bytes.fromhex(row["tcp_payload"])
        for code, count in ((1, 8), (2, 8), (3, 2), (4, 100)):
            asked = question(
                code, 0, count, data[6] if len(data) > 6 else 1, int.from_bytes(data[:2])
            )
            parts = [data[:end] for end in range(len(data) + 1)]
            for _ in range(4):
                place = chance.randrange(len(data))
                parts.append(data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :])
            for part in parts:
                # Nothing else is raised; a refusal says something.
                assert outcome(asked, part) != ""


ASKED = question(3, 0, 2, 1, 7)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0007000000070103040001000 2", Answer(registers=(1, 2))),
        ("000700000003018302", Answer(refusal=2)),
        ("00060000000701030409090909 00070000000701030400010002", Answer(registers=(1, 2))),
        ("0007000000070103", None),
        ("00060000000701030400010002", None),
        ("0007000100070103040001000 2", "unit 1: what came is no Modbus over TCP"),
        ("000700000001", "unit 1: what came is no Modbus over TCP"),
        ("0007000000ff", "unit 1: what came is no Modbus over TCP"),
        ("00070000000702030400010002", "unit 1: another unit answered, number 2"),
        ("00070000000701040400010002", "unit 1: the answer has another function or length than was asked for"),
        ("000700000005010302000 1", "unit 1: the answer has another function or length than was asked for"),
        ("00070000000501030400 01", "unit 1: the answer has another function or length than was asked for"),
        ("0007000000020183", "unit 1: the answer has another function or length than was asked for"),
        ("00070000000701100001000 2", None),
        ("000700000003018300", "unit 1: the answer cannot be read"),
        ("47455420 2f20485454502f312e31", "unit 1: what came is no Modbus over TCP"),
    ],
    ids=[
        "the answer",
        "a refusal",
        "an answer to an earlier question comes first",
        "the beginning of the answer",
        "only an answer to an earlier question",
        "another protocol",
        "a frame of nothing",
        "a frame longer than any",
        "an answer of another unit",
        "an answer to another function",
        "an answer of another length",
        "an answer shorter than it says",
        "a refusal without a reason",
        "the beginning of an answer that claims to be longer",
        "a refusal for the reason zero",
        "a web server",
    ],
)  # fmt: skip
def test_a_segment_is_read_or_refused_by_name(data: str, expected: Answer | str | None) -> None:
    assert outcome(ASKED, bytes.fromhex(data.replace(" ", ""))) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("010304000a", "unit 1: the answer was cut after 5 of 9 bytes"),
        ("ff00010304000a000b0000", "unit 1: the checksum of the answer is wrong"),
        ("020304000100021932", "unit 1: another unit answered, number 2"),
        ("010300000002c40b", "unit 1 does not answer; only the question came back"),
        ("0f10ff80f0", "unit 1: 5 bytes came and no frame; is the line right at 9600 8N1?"),
    ],
    ids=[
        "an answer that stops",
        "a wrong checksum",
        "another unit",
        "an echo",
        "bytes at another speed",
    ],
)
def test_what_is_no_answer_is_named(data: str, expected: str) -> None:
    heard = bytes.fromhex(data)
    asked = question(3, 0, 2)
    assert rtu_answer(asked, heard) is None
    assert rtu_trouble(asked, heard, "9600 8N1").message == expected


def checksum(data: bytes) -> bytes:
    """The checksum of V1.02 §6.2.2, bit by bit as the standard writes it."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0xA001 if register & 1 else register >> 1
    return register.to_bytes(2, "little")


@given(
    st.sampled_from([1, 2, 3, 4]),
    st.integers(1, 125),
    st.binary(max_size=300),
    st.integers(0, 247),
)
@settings(deadline=None, max_examples=300)
def test_no_bytes_are_anything_but_an_answer_or_none(
    code: int, count: int, data: bytes, unit: int
) -> None:
    asked = question(code, 0, count, unit)
    found = rtu_answer(asked, data)
    if found is None:
        if data:
            assert rtu_trouble(asked, data, "9600 8N1").code == "source-answer"
        return
    given_values = found.registers or found.bits
    assert found.refusal or len(given_values) >= count


@given(st.binary(max_size=80), st.integers(1, 20), st.lists(st.integers(0, 0xFFFF), min_size=20))
@settings(deadline=None, max_examples=200)
def test_an_answer_behind_any_noise_is_found(noise: bytes, count: int, words: list[int]) -> None:
    asked = question(4, 0, count, 17)
    body = bytes([17, 4, 2 * count]) + b"".join(word.to_bytes(2) for word in words[:count])
    found = rtu_answer(asked, noise + body + checksum(body))
    assert found is not None
    # A sound frame in the noise itself would be an answer, too; none is drawn.
    assert list(found.registers) == words[:count]


def test_frames_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = question(3, 0, 2)
    rtu_frame(asked)
    for data in ("01030400010002", "0103040001000200ff", "018302c0f1", "010383"):
        rtu_answer(asked, bytes.fromhex(data))
    assert caplog.records == []


def test_a_refusal_for_the_reason_zero_is_no_answer() -> None:
    assert rtu_answer(question(3, 0, 2), bytes.fromhex("0183004130")) is None
    assert rtu_answer(question(3, 0, 2), bytes.fromhex("018302c0f1")) == Answer(refusal=2)


def test_only_reads_can_be_asked() -> None:
    assert set(frames._FUNCTIONS.values()) == {1, 2, 3, 4}
