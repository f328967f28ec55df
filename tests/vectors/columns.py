# SPDX-License-Identifier: Apache-2.0
"""Makes the test vectors of docs/columns.md: `python -m tests.vectors.columns`.

Law:
  - a vector has the payload, the bytes it inflates to, and the tables they stand for; the payload
    is kept as it stands while it inflates to the same, because deflate differs between versions;
  - each kind and each form of a plane occurs; a vector is small enough to follow by hand;
  - `assent.columns` makes the bytes, and the second reader of the tests must read the same from
    them, or nothing is written.

Bytes are lower-case hexadecimal; floats are their shortest decimal text; positions are pairs.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assent.columns import Column, Kind, Quantum, Table, decode, encode
from tests.assent import columns_reader

PATH = Path(__file__).parent / "columns.json"
DEVICE = bytes(range(16))
OTHER = bytes(range(16, 32))
START = 1_700_000_000_000
TENTH = Quantum(1, 10)


def _noise(count: int, span: int) -> list[int]:
    """Numbers without a pattern; a linear congruence, so that any language can make them."""
    state, numbers = 12_345, []
    for _ in range(count):
        state = (1_103_515_245 * state + 12_345) % 2**31
        numbers.append((state >> 8) % span)
    return numbers


def _one(kind: Kind, values: Sequence[Any], quantum: Quantum | None = None) -> list[Table]:
    times = [START + 1_000 * index for index in range(len(values))]
    return [Table(DEVICE, times, (Column("a", kind, values, quantum),))]


BATCHES: dict[str, list[Table]] = {
    "no table": [],
    "a table without rows": [Table(DEVICE, [], (Column("a", Kind.NUMBER, [], TENTH),))],
    "one row": _one(Kind.NUMBER, [-7], TENTH),
    "a constant": _one(Kind.NUMBER, [5] * 9),
    "a regular counter": _one(Kind.NUMBER, [100 - 25 * index for index in range(9)]),
    "bits": _one(Kind.NUMBER, _noise(20, 2)),
    "pairs of bits": _one(Kind.NUMBER, _noise(20, 4)),
    "nibbles": _one(Kind.NUMBER, _noise(20, 16)),
    "a scale of 7": _one(Kind.NUMBER, [3 + 7 * number for number in _noise(20, 16)]),
    "peaked bytes": _one(Kind.NUMBER, _noise(60, 40)),
    "flat bytes": _one(Kind.NUMBER, _noise(300, 256)),
    "sparse bytes": _one(Kind.NUMBER, [number // 90 * number for number in _noise(60, 100)]),
    "two planes": _one(Kind.NUMBER, _noise(60, 700)),
    "four planes": _one(Kind.NUMBER, [number**3 for number in _noise(20, 1_200)]),
    "eight planes": _one(Kind.NUMBER, [(-1) ** number * number**6 for number in _noise(20, 900)]),
    "the ends of 64 bits": _one(Kind.NUMBER, [2**63 - 1, -(2**63), 0, -1, 1]),
    "a walk": _one(Kind.NUMBER, [sum(_noise(30, 5)[:index]) for index in range(30)]),
    "floats": _one(Kind.FLOAT, [0.1, -0.0, 5e-324, 1.5, -273.15]),
    "floats that come again": _one(Kind.FLOAT, [0.1, 0.25, 0.1, 0.25, 0.25]),
    "texts": _one(Kind.TEXT, ["on", "", "加热", "on", "on"]),
    "byte strings": _one(Kind.BYTES, [OTHER, b"", OTHER]),
    "booleans": _one(Kind.BOOLEAN, [number == 0 for number in _noise(20, 3)]),
    "positions": _one(Kind.POSITION, [(312, 1214), (312, 1215), (-900, -1800)], TENTH),
    "times that repeat and run backwards": [
        Table(DEVICE, [START, START, START - 5, START + 9, START + 9], ())
    ],
    "two devices, one shape, the same times": [
        *_one(Kind.NUMBER, [1, 2, 3], TENTH),
        Table(OTHER, _one(Kind.NUMBER, [1, 2, 3])[0].times, _one(Kind.NUMBER, [6, 6, 9], TENTH)[0].columns),
    ],
}  # fmt: skip


def as_json(batch: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables of a batch, as the file has them."""

    def value(item: Any) -> Any:
        match item:
            case bytes():
                return item.hex()
            case float():
                return repr(item)
            case tuple():
                return list(item)
            case _:
                return item

    return [
        {
            "device": table.device.hex(),
            "times": list(table.times),
            "columns": [
                {
                    "attribute": column.attribute,
                    "kind": column.kind.name.lower(),
                    "quantum": [column.quantum.numerator, column.quantum.denominator]
                    if column.quantum
                    else None,
                    "values": [value(item) for item in column.values],
                }
                for column in table.columns
            ],
        }
        for table in batch
    ]


def main() -> int:
    """Writes the file."""
    kept = {}
    if PATH.exists():
        kept = {vector["name"]: vector["payload"] for vector in json.loads(PATH.read_text())}
    vectors = []
    for name, batch in BATCHES.items():
        payload = encode(batch)
        plain = zlib.decompress(payload, -15)
        before = bytes.fromhex(kept.get(name, ""))
        if before and zlib.decompress(before, -15) == plain:
            payload = before
        second = columns_reader.read(payload)
        assert as_json(decode(payload)) == as_json(batch), name
        assert [table[1] for table in second] == [list(table.times) for table in batch], name
        assert [[column[3] for column in table[2]] for table in second] == [
            [list(column.values) for column in table.columns] for table in batch
        ], name
        vectors.append(
            {
                "name": name,
                "payload": payload.hex(),
                "inflated": plain.hex(),
                "tables": as_json(batch),
            }
        )
    rows = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors)
    PATH.write_text(f"[\n{rows}\n]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
