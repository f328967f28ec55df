# SPDX-License-Identifier: Apache-2.0
"""A second reader of columns, written from docs/columns.md alone.

It shares no code with `assent.columns` and reads one number at a time, as the page says it, so
that a slip common to our writer and our reader does not pass for the format.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import cbor2

NUMBER, FLOAT, TEXT, BYTES, BOOLEAN, POSITION = range(6)
BITS, NIBBLES, PEAKED, FLAT = "bits", "nibbles", "peaked", "flat"


class RefusedError(Exception):
    """The bytes are not what the page describes."""


def need(claim: bool) -> None:
    if not claim:
        raise RefusedError


class Lots:
    def __init__(self, **lots: bytes) -> None:
        self.lots = lots
        self.at = dict.fromkeys(lots, 0)

    def take(self, lot: str, count: int) -> bytes:
        start = self.at[lot]
        self.at[lot] += count
        need(self.at[lot] <= len(self.lots[lot]))
        return self.lots[lot][start : self.at[lot]]


def fields(data: bytes, width: int, count: int) -> list[int]:
    number = int.from_bytes(data, "little")
    values = [number >> width * index & (1 << width) - 1 for index in range(count)]
    need(number >> width * count == 0)
    return values


def plane(code: int, m: int, lots: Lots) -> list[int]:
    form, folded = code % 8, code // 8
    base = folded // 2 if folded % 2 == 0 else -(folded // 2) - 1
    if form == 0:
        return [base % 256] * m
    if form in (1, 2, 3):
        width = {1: 1, 2: 2, 3: 4}[form]
        data = lots.take(NIBBLES if form == 3 else BITS, math.ceil(m * width / 8))
        return [(base + value) % 256 for value in fields(data, width, m)]
    need(folded == 0)
    if form == 4:
        return list(lots.take(PEAKED, m))
    if form == 6:
        return list(lots.take(FLAT, m))
    need(form == 5)
    is_set = fields(lots.take(BITS, math.ceil(m / 8)), 1, m)
    rest = list(lots.take(PEAKED, sum(is_set)))
    need(0 not in rest)
    return [rest.pop(0) if bit else 0 for bit in is_set]


def stream(item: Any, n: int, lots: Lots) -> list[int]:
    if n == 0:
        need(item == [])
        return []
    order, scale, start, *codes = item
    need(order in (0, 1) and 1 <= scale < 2**64)
    k, m = len(codes), n - order
    need(k in (0, 1, 2, 4, 8) and not (m == 0 and k))
    planes = [plane(code, m, lots) for code in codes]
    c = sum(128 * 256**j for j in range(k - 1))
    residuals = []
    for index in range(m):
        u = sum(planes[j][index] * 256**j for j in range(k))
        r = (u - c) % 256**k
        residuals.append(r - 256**k if k and r >= 256**k // 2 else r)
    values = [start] if order else []
    for r in residuals:
        values.append((values[-1] if order else start) + scale * r)
    need(all(-(2**63) <= value < 2**63 for value in values))
    return values


def column(kind: int, data: Any, n: int, lots: Lots) -> list[Any]:
    if kind == POSITION:
        first = stream(data[0], n, lots)
        return list(zip(first, stream(data[1], n, lots), strict=True))
    if kind in (NUMBER, BOOLEAN) or (kind == FLOAT and not (n and isinstance(data[1], list))):
        values = stream(data, n, lots)
        if kind == BOOLEAN:
            need(set(values) <= {0, 1})
            return [value == 1 for value in values]
        return [as_float(value) for value in values] if kind == FLOAT else values
    count, sizes, places = data
    need(0 <= count <= n)
    entries: list[Any] = stream(sizes, count, lots)
    if kind == FLOAT:
        entries = [as_float(entry) for entry in entries]
    else:
        entries = [lots.take("text" if kind == TEXT else FLAT, size) for size in entries]
    if kind == TEXT:
        entries = [entry.decode("utf-8") for entry in entries]
    return [entries[place] for place in stream(places, n, lots)]


def as_float(bits: int) -> float:
    (value,) = struct.unpack(">d", struct.pack(">q", bits))
    need(math.isfinite(value))
    return float(value)


def read(payload: bytes) -> list[tuple[bytes, list[int], list[tuple[Any, ...]]]]:
    """Gives (device, times, [(name, kind, quantum or None, values)]) for each table."""
    inflate = zlib.decompressobj(-15)
    plain = inflate.decompress(payload)
    need(inflate.eof and not inflate.unused_data)
    form, shapes, devices, heads, text, bits, nibbles, peaked, flat = cbor2.loads(plain)
    need(form == 1)
    lots = Lots(text=text, bits=bits, nibbles=nibbles, peaked=peaked, flat=flat)
    tables: list[tuple[bytes, list[int], list[tuple[Any, ...]]]] = []
    for index, (shape, rows, times, *data) in enumerate(heads):
        instants = tables[times][1] if isinstance(times, int) else stream(times, rows, lots)
        columns = []
        for (name, kind, *quantum), item in zip(shapes[shape], data, strict=True):
            values = column(kind, item, rows, lots)
            columns.append((name, kind, tuple(quantum) or None, values))
        tables.append((devices[16 * index : 16 * index + 16], instants, columns))
    need(all(lots.at[lot] == len(lots.lots[lot]) for lot in lots.lots))
    return tables
