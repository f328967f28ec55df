# SPDX-License-Identifier: Apache-2.0
"""A batch as columns: lossless, compact, bounded; no I/O.

The rooms behind this door: `model` (what a batch consists of), `quantum` (floats as whole numbers
of a resolution), `planes` (bytes of one position of all numbers), `streams` (whole numbers as
planes), `values` (each kind of value as streams), `payload` (tables as bytes).

Path: Batch (lane) → **encode** → envelope → … → envelope → **decode** → Opened (backend).

Law:
  - what `encode` takes comes back from `decode` unchanged: order, duplicates and times that run
    backwards included; what it cannot carry, it refuses;
  - a number is a whole number of its quantum, within 64 bits; a float is finite;
  - what `encode` writes is within `DEFAULT`, so that every reader takes it;
  - the same tables give the same bytes with the same zlib; a reader checks structure, lengths,
    ranges and padding, not whether the writer chose what a better one would have chosen;
  - whatever the bytes, `decode` gives tables or a WireError.

Standards: RFC 1951 (deflate), RFC 8949 §4.2.1 (CBOR), docs/columns.md (this format).

Security: reads bytes from anybody who has the recipient's public key. Every count is checked
against `Limits` before it costs memory, and the inflated size while inflating.
"""

from assent.columns.model import DEFAULT, Column, Kind, Limits, Table, Values, readings
from assent.columns.payload import decode, encode
from assent.columns.quantum import Quantum

__all__ = [
    "DEFAULT",
    "Column",
    "Kind",
    "Limits",
    "Quantum",
    "Table",
    "Values",
    "decode",
    "encode",
    "readings",
]
