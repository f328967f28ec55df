# SPDX-License-Identifier: Apache-2.0
"""A million inputs for each decoder of the bridge: every one a value, none, or a named refusal.

Inputs are sound ones with bytes changed, cut out, doubled or strewn in, and bytes of nobody. What
comes back is held against what the decoder promises: its type, finite numbers, texts of printable
characters within their length. The first input that breaks a promise is printed with the seed, and
ends the run with exit code 1. The everyday tests do the same with a few hundred inputs each.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from firmware_bridge.decode import host, modbus, raspberry, recording
from firmware_bridge.decode.requests import Request, plan
from firmware_bridge.profile.fields import Field, Requests
from firmware_bridge.sources.modbus import frames

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
_INPUTS = 1_000_000
_LONGEST = 300
_LONGEST_TEXT = 256

Decode = Callable[[bytes], Any]

CELLS = [
    recording.Cell("a.number", 0, "number", 0.1, (-1,)),
    recording.Cell("a.integer", 1, "integer"),
    recording.Cell("a.boolean", 2, "boolean"),
    recording.Cell("a.text", 3, "text"),
    recording.Cell("a.position", 4, "position"),
]
FIELDS = [
    Field("a.i16", "int16", scale=0.1, absent=[0x8000], table="input", address=0),
    Field("a.u32", "uint32", table="input", address=1, word_order="little"),
    Field("a.u64", "uint64", table="input", address=3),
    Field("a.f32", "float32", scale=1000, table="input", address=7, fault=["nan"]),
    Field("a.f64", "float64", scale=1e300, table="input", address=9, byte_order="little"),
    Field("a.bcd", "bcd", table="input", address=13, length=2),
    Field("a.text", "text", table="input", address=15, length=8),
    Field("a.bit", "bits", table="input", address=23, bit=3),
    Field("a.event", "bits", table="input", address=24, events={"0": "on", "15": "off"}),
    Field("a.name", "uint16", table="input", address=25, names={"0": "none", "1": "one"}),
    Field("a.power", "uint64", table="input", address=26, exponent=30),
]


def _registers() -> Decode:
    (request,) = plan(FIELDS, Requests())
    block = modbus.Block(request)
    size = 2 * request.count

    def decode(data: bytes) -> object:
        padded = data[:size].ljust(size, b"\xff")
        words = [int.from_bytes(padded[at : at + 2]) for at in range(0, size, 2)]
        found = block.registers(words)
        assert len(found.names) == len(found.values)
        assert all(text in {"on", "off"} for _, text in found.events)
        return found.values

    return decode


def _recording() -> Decode:
    block = recording.Block(CELLS)

    def decode(data: bytes) -> object:
        (row,) = block.decode([data.decode("utf-8", "replace").split(",")])
        assert len(row[0]) == len(row[1])
        return row[1]

    return decode


def _frames(find: Callable[[frames.Question, bytes], frames.Answer | None]) -> Decode:
    request = Request("holding", 0, 2, ())

    def decode(data: bytes) -> object:
        question = frames.Question(request, 1, 7)
        try:
            answer = find(question, data)
        except frames.AnswerError as exc:
            return exc.message
        if answer is None or answer.refusal:
            return None
        assert len(answer.registers) == request.count
        return answer.registers

    return decode


def _trouble(data: bytes) -> object:
    question = frames.Question(Request("holding", 0, 2, ()), 1)
    return frames.rtu_trouble(question, data or b"\0", "9600 8N1").message


# Name of the decoder, what decodes, and sound inputs.
DECODERS: dict[str, tuple[Decode, Sequence[bytes]]] = {
    "host.cpu_info": (
        lambda data: host.model_of(host.cpu_info(data)),
        [b"processor\t: 0\nHardware\t: BCM2835\nRevision\t: a020d3\nSerial\t: 00000000TEST0001\n"],
    ),
    "host.device_tree_text": (host.device_tree_text, [b"Raspberry Pi 4 Model B Rev 1.5\0"]),
    "host.os_release": (
        lambda data: host.os_name(host.os_release(data)),
        [b'ID=debian\nVERSION_ID="12"\n', b"ID='ubuntu'\nVERSION_ID=24.04\n"],
    ),
    "host.kernel_release": (host.kernel_release, [b"Linux version 6.12.25 (gcc) #1 SMP\n"]),
    "host.mac_address": (lambda data: host.mac_address(data, b"0\n"), [b"00:00:5e:00:53:01\n"]),
    "host.interface_index": (host.interface_index, [b"2\n"]),
    "host.machine_id": (host.machine_id, [b"0123456789abcdef0123456789abcdef\n"]),
    "host.language": (host.language, [b"LANG=de_DE.UTF-8\n", b'LANG="C"\n']),
    "host.temperature_celsius": (host.temperature_celsius, [b"48312\n"]),
    "host.is_throttled": (host.is_throttled, [b"throttled=0x50005\n", b"50005\n"]),
    "host.uptime_seconds": (host.uptime_seconds, [b"12345.67 54321.00\n"]),
    "raspberry.board": (
        lambda data: str(raspberry.board(data.decode("latin-1"))),
        [b"c03115", b"a020d3", b"0010"],
    ),
    "recording.block": (_recording(), [b"1.5,17,true,cotton,31.2 121.4", b"-1,,0,,"]),
    "modbus.registers": (
        _registers(),
        [bytes(range(60)) + b"\0\x0a", b"\x7f\xc0" * 26, b"TEST-001" * 7 + b"\xff\xf6\0\0\xff\xf6"],
    ),
    "modbus.rtu_answer": (
        _frames(frames.rtu_answer),
        [bytes.fromhex("010304000100022a32"), bytes.fromhex("018302c0f1")],
    ),
    "modbus.rtu_trouble": (_trouble, [bytes.fromhex("01030400010002"), bytes.fromhex("0283")]),
    "modbus.tcp_answer": (
        _frames(frames.tcp_answer),
        [bytes.fromhex("00070000000701030400010002"), bytes.fromhex("000700000003018302")],
    ),
}


def changed(sound: bytes, chance: random.Random) -> bytes:
    """A sound input with something wrong, or bytes of nobody."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(_LONGEST))
    data = bytearray(sound)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[place : place + 1] = chance.randbytes(1)
            case 1:
                data[place : place + chance.randrange(8)] = b""
            case 2:
                data[place:place] = chance.randbytes(chance.randrange(8))
            case 3:
                data[place:place] = data[place : place + 8]
            case _:
                data[place : place + 1] = chance.choice([b"\0", b"\xff", b"9", b"-", b'"', b"\n"])
    return bytes(data[:_LONGEST])


def is_sound(value: object) -> bool:
    """Whether a decoder may say this."""
    match value:
        case None | bool():
            return True
        case int():
            return abs(value) < 1 << 63
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= _LONGEST_TEXT and value.isprintable()
        case tuple() | list():
            return all(map(is_sound, value))
        case _:
            return False


def fuzz(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Feeds one decoder; what came of it.

    Raises:
        RuntimeError: it broke its promise; carries the input.
    """
    decode, sound = DECODERS[name]
    chance = random.Random(f"{seed} {name}")
    values = 0
    began = time.process_time()
    for _ in range(inputs):
        data = changed(chance.choice(sound), chance)
        try:
            value = decode(data)
            assert is_sound(value)
        except Exception as exc:
            raise RuntimeError(f"{name} seed={seed} input={data.hex()}") from exc
        values += value is not None and value != ()
    spent = time.process_time() - began
    return {"inputs": inputs, "values": values, "seed": seed, "cpu_s": round(spent, 1)}


def main() -> int:
    """Feeds every decoder and keeps the result; exit code 1 when one broke its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=_INPUTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    results = {}
    for name in DECODERS:
        results[name] = fuzz(name, arguments.inputs, arguments.seed)
        sys.stderr.write(f"{name:<28} {results[name]}\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
