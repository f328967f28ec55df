# SPDX-License-Identifier: Apache-2.0
"""What the wire is compared with: xz, plain planes, JSON."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import lzma
from array import array
from collections.abc import Sequence
from operator import sub
from typing import Final, cast

import cbor2

from assent.columns import Table

Batch = tuple[Table, ...]

# The dictionary of preset 9 is 64 MiB and takes most of the time to clear; batches are smaller
# than 1 MiB, so that a smaller one finds the same matches. Lengths are the same.
_XZ: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 20}]


def xz(plain: bytes) -> int:
    """Bytes of `xz -9e`."""
    return len(lzma.compress(plain, format=lzma.FORMAT_XZ, filters=_XZ))


def plain_planes(batch: Batch) -> bytes:
    """Columns without a choice of ours: steps in the narrowest width, byte by byte."""
    head = []
    planes = []
    for table in batch:
        names = [
            (column.attribute, column.kind, quantum.numerator, quantum.denominator)
            for column in table.columns
            if (quantum := column.quantum)
        ]
        head.append((table.device, len(table.times), names))
    seen: list[Sequence[int]] = []
    for table in batch:
        if table.times not in seen:  # our columns write equal times once, too
            seen.append(table.times)
            first, *steps = _steps(table.times)
            planes += [first.to_bytes(8, "little"), _planes(steps)]
        for column in table.columns:
            planes.append(_planes(cast("Sequence[int]", column.values)))
    return cbor2.dumps(head) + b"".join(planes)


def _steps(values: Sequence[int]) -> list[int]:
    """The first value and the steps from each to the next."""
    return [*values[:1], *map(sub, values[1:], values)]


def _planes(values: Sequence[int]) -> bytes:
    """Start, then steps as planes of the narrowest signed width."""
    first, *steps = _steps(values)
    for code in "bhiq":
        with contextlib.suppress(OverflowError):
            data = array(code, steps)
            break
    planes = [data.tobytes()[byte :: data.itemsize] for byte in range(data.itemsize)]
    return first.to_bytes(8, "little", signed=True) + b"".join(planes)


def json_rows(batch: Batch) -> bytes:
    """The batch as JSON, an object for each reading."""
    rows = []
    for table in batch:
        device = table.device.hex()
        stamps = [
            dt.datetime.fromtimestamp(instant / 1_000, dt.UTC).isoformat(timespec="milliseconds")
            for instant in table.times
        ]
        for column in table.columns:
            values = cast("Sequence[int]", column.values)
            numbers = column.quantum.values_of(values) if column.quantum else values
            rows += [
                {"device": device, "attribute": column.attribute, "time": stamp, "value": number}
                for stamp, number in zip(stamps, numbers, strict=True)
            ]
    return json.dumps(rows, separators=(",", ":")).encode()
