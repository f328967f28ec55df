# SPDX-License-Identifier: Apache-2.0
"""assent.columns: what goes in comes out, and whatever comes is tables or a named refusal."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assent import columns
from assent.columns import Column, Kind, Limits, Quantum, Table, decode, encode
from assent.errors import (
    MalformedError,
    NotCanonicalError,
    TooLargeError,
    WireError,
)
from benchmarks import series as recordings
from tests.assent import columns_reader
from tests.vectors import columns as vectors

INT64 = st.integers(-(2**63), 2**63 - 1)
DEVICE = bytes(range(16))

SHAPES_OF_NUMBERS = st.one_of(
    st.lists(INT64, max_size=40),
    st.lists(st.integers(-3, 3), max_size=300),
    st.lists(st.integers(-200, 200), max_size=300),
    st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 7, -1, 40_000, 2**40]), max_size=300),
    st.lists(st.sampled_from([-(2**63), 2**63 - 1, 0, -1]), max_size=20),
    st.builds(
        lambda start, step, count: [start + step * index for index in range(count)],
        st.integers(-(2**40), 2**40),
        st.integers(-(10**6), 10**6),
        st.integers(0, 300),
    ),
)


def numbers(length: int) -> st.SearchStrategy[list[int]]:
    """Lists of one length and of many shapes, so that every form of plane occurs."""
    return SHAPES_OF_NUMBERS.map(lambda some: (some * length)[:length] if some else [0] * length)


def values(kind: Kind, length: int) -> st.SearchStrategy[list[Any]]:
    def many(one: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        few = st.lists(one, min_size=1, max_size=3).flatmap(
            lambda some: st.lists(st.sampled_from(some), min_size=length, max_size=length)
        )
        return few | st.lists(one, min_size=length, max_size=length)

    match kind:
        case Kind.NUMBER:
            return numbers(length)
        case Kind.FLOAT:
            return many(st.floats(allow_nan=False, allow_infinity=False))
        case Kind.TEXT:
            return many(st.text(max_size=20))
        case Kind.BYTES:
            return many(st.binary(max_size=20))
        case Kind.BOOLEAN:
            return many(st.booleans())
        case Kind.POSITION:
            return st.tuples(numbers(length), numbers(length)).map(
                lambda pair: list(zip(*pair, strict=True))
            )


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, ...]:
    """Batches of up to four tables, some of which share shape or times."""
    made: list[Table] = []
    for _ in range(draw(st.integers(0, 4))):
        same_times = draw(st.booleans())
        before = made[-1] if made and same_times else None
        times: Sequence[int] = (
            before.times if before else draw(st.one_of(SHAPES_OF_NUMBERS, st.just([])))
        )
        names = draw(st.lists(st.text(max_size=8), max_size=4, unique=True))
        cells = []
        for name in names:
            kind = draw(st.sampled_from(Kind))
            quantum = draw(st.none() | st.just(Quantum.of(0.1)) | st.just(Quantum(2, 20)))
            cells.append(Column(name, kind, draw(values(kind, len(times))), quantum))
        made.append(Table(draw(st.binary(min_size=16, max_size=16)), times, tuple(cells)))
    return tuple(made)


def bits(batch: Sequence[Table]) -> list[Any]:
    """A batch with its floats as bytes, so that -0.0 is not 0.0, and with the types of values."""
    return [
        (
            table.device,
            list(table.times),
            [
                (
                    column.attribute,
                    column.kind,
                    column.quantum,
                    [type(value) for value in column.values],
                    [struct.pack(">d", value) for value in column.values]
                    if column.kind is Kind.FLOAT
                    else list(column.values),
                )
                for column in table.columns
            ],
        )
        for table in batch
    ]


def one(kind: Kind, cells: list[Any], quantum: Quantum | None = None) -> tuple[Table, ...]:
    """A batch of one column."""
    return (Table(DEVICE, list(range(len(cells))), (Column("a", kind, cells, quantum),)),)


# What goes in comes out.


@given(tables())
@settings(max_examples=200)
def test_every_batch_comes_back(batch: tuple[Table, ...]) -> None:
    payload = encode(batch)
    back = decode(payload)
    assert bits(back) == bits(batch)
    assert encode(back) == payload


@given(tables())
@settings(max_examples=200)
def test_a_second_reader_reads_the_same(batch: tuple[Table, ...]) -> None:
    read = columns_reader.read(encode(batch))
    assert read == [
        (
            table.device,
            list(table.times),
            [
                (
                    column.attribute,
                    int(column.kind),
                    column.quantum and (column.quantum.numerator, column.quantum.denominator),
                    list(column.values),
                )
                for column in table.columns
            ],
        )
        for table in batch
    ]


@given(st.sampled_from([1, 2, 127, 128, 129, 1_000, 3_001]).flatmap(numbers))
@example([-(2**63), 2**63 - 1] * 3)
@example([2**63 - 1, -(2**63)] * 3)
@example([-(2**63)] * 5)
@example([2**62, -(2**62), 2**62, -(2**62), 0])
@example([2**63 - 1, -(2**63), -1])
def test_numbers_of_every_length_and_size_come_back(cells: list[int]) -> None:
    batch = (Table(DEVICE, cells, (Column("a", Kind.NUMBER, cells[::-1]),)),)
    assert decode(encode(batch)) == batch
    assert columns_reader.read(encode(batch))[0][1] == cells


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((), id="no table"),
        pytest.param((Table(DEVICE, [], ()),), id="a table of nothing"),
        pytest.param((Table(DEVICE, [5], ()),), id="an instant without columns"),
        pytest.param(
            (Table(DEVICE, [], tuple(Column(kind.name, kind, []) for kind in Kind)),),
            id="every kind without rows",
        ),
        pytest.param(one(Kind.NUMBER, [7], Quantum.of(0.5)), id="a single number"),
        pytest.param(one(Kind.TEXT, [""]), id="a single empty text"),
        pytest.param(
            one(Kind.TEXT, ["加热", "é", "🔌", "e\u0301", "加热", "\0"]), id="text of the world"
        ),
        pytest.param(one(Kind.BYTES, [b"", b"\0" * 16, b"", DEVICE]), id="byte strings"),
        pytest.param(one(Kind.FLOAT, [-0.0, 0.0, 5e-324, -1.7e308, -0.0]), id="odd floats"),
        pytest.param(one(Kind.FLOAT, [0.1, 0.2] * 50), id="floats that come again"),
        pytest.param(one(Kind.POSITION, [(31_2304, 121_4737), (-90, -180)]), id="positions"),
        pytest.param(
            (Table(DEVICE, [9, 9, 8, 2**62, -1, 8], (Column("a", Kind.BOOLEAN, [True] * 6),)),),
            id="times that repeat and run backwards",
        ),
        pytest.param(
            (*one(Kind.NUMBER, [1, 2]), *one(Kind.FLOAT, [1.0, 2.0])), id="one name, two kinds"
        ),
    ],
)
def test_comes_back(batch: tuple[Table, ...]) -> None:
    assert bits(decode(encode(batch))) == bits(batch)
    assert decode(encode(batch)) == batch


def test_tuples_ranges_and_slices_are_written_like_lists() -> None:
    times = range(0, 5_000, 10)
    cells = tuple(index % 7 for index in range(500))
    batch = (Table(DEVICE, times, (Column("a", Kind.NUMBER, cells),)),)
    as_lists = (Table(DEVICE, list(times), (Column("a", Kind.NUMBER, list(cells)),)),)
    assert encode(batch) == encode(as_lists)


def test_readings_are_rows_times_columns() -> None:
    assert columns.readings((*one(Kind.NUMBER, [1, 2, 3]), *one(Kind.TEXT, ["a"]))) == 4
    assert columns.readings(()) == 0


def test_regular_times_and_constant_values_cost_nothing_per_row() -> None:
    def size(rows: int) -> int:
        times = [1_700_000_000_000 + 1_000 * index for index in range(rows)]
        return len(encode((Table(DEVICE, times, (Column("a", Kind.NUMBER, [5] * rows),)),)))

    assert size(100_000) <= size(100) + 4


def test_tables_of_the_same_instants_write_them_once() -> None:
    rng = random.Random(4)
    times = [rng.randrange(10**12) for _ in range(500)]

    others = [rng.randrange(10**12) for _ in range(500)]
    once = len(encode([Table(DEVICE, times, ())]))
    assert len(encode([Table(DEVICE, list(times), ())] * 3)) < once + 20
    assert len(encode([Table(DEVICE, times, ()), Table(DEVICE, others, ())])) > once + 1_000


def test_a_batch_of_random_bytes_grows_by_no_more_than_its_head() -> None:
    cells = random.Random(5).choices(range(256), k=10_000)
    assert len(encode(one(Kind.NUMBER, cells))) < 10_000 + 120


# Vectors and recordings.

VECTORS = {vector["name"]: vector for vector in json.loads(vectors.PATH.read_text())}


@pytest.mark.parametrize("name", VECTORS)
def test_both_readers_read_the_vector(name: str) -> None:
    vector = VECTORS[name]
    payload = bytes.fromhex(vector["payload"])
    batch = decode(payload)
    assert vectors.as_json(batch) == vector["tables"]
    second = [
        Table(
            device,
            times,
            tuple(
                Column(name, Kind(kind), values, Quantum(*quantum) if quantum else None)
                for name, kind, quantum, values in cells
            ),
        )
        for device, times, cells in columns_reader.read(payload)
    ]
    assert vectors.as_json(second) == vector["tables"]


@pytest.mark.parametrize("name", VECTORS)
def test_the_writer_makes_the_bytes_of_the_vector(name: str) -> None:
    """Before deflate, whose bytes differ between versions of zlib."""
    plain = zlib.decompress(encode(vectors.BATCHES[name]), -15)
    assert plain.hex() == VECTORS[name]["inflated"]


def test_the_vectors_have_every_form_of_plane() -> None:
    codes = set()
    for vector in VECTORS.values():
        for _, _, *streams in cbor2.loads(bytes.fromhex(vector["inflated"]))[3]:
            codes |= {code & 7 for stream in streams if stream for code in as_stream(stream)[3:]}
    assert codes == set(range(7))


def as_stream(item: Any) -> list[int]:
    """The last stream of a column."""
    return as_stream(item[-1]) if isinstance(item[-1], list) else item


def test_equal_batches_give_equal_bytes_in_every_process() -> None:
    """Sets and dicts are ordered by a seed that differs between processes."""
    script = (
        "from tests.vectors import columns; from assent.columns import encode; import hashlib;"
        "print(hashlib.sha256(b''.join(map(encode, columns.BATCHES.values()))).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(digests) == 1


def test_every_recorded_series_comes_back(shared_data: Path) -> None:
    """At its quantum and as recorded; a second reader agrees on one batch of each."""
    seen = set()
    for series in recordings.load(shared_data / "timeseries"):
        seen.add(series.family)
        for form in (recordings.at_quantum, recordings.as_recorded):
            short = recordings.Series(series.name, series.family, (first_rows(series, 3_000),))
            for run in form(short):
                for batch in recordings.batches(run, 1_000):
                    assert decode(encode(batch)) == batch
                read = columns_reader.read(encode(batch))
                assert [table[1] for table in read] == [table.times for table in batch]
                assert [[column[3] for column in table[2]] for table in read] == [
                    [column.values for column in table.columns] for table in batch
                ]
    assert len(seen) == 6


def first_rows(series: recordings.Series, readings: int) -> tuple[recordings.Device, ...]:
    rows = readings // sum(len(device.attributes) for device in series.runs[0])
    return tuple(
        recordings.Device(
            device.name,
            device.times[:rows],
            tuple(
                recordings.Recorded(recorded.attribute, recorded.texts[:rows])
                for recorded in device.attributes
            ),
        )
        for device in series.runs[0]
    )


# What is not written.


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        pytest.param(one(Kind.NUMBER, [2**63]), MalformedError, id="a number of 65 bits"),
        pytest.param(one(Kind.NUMBER, [0, -(2**63) - 1]), MalformedError, id="and a negative one"),
        pytest.param(one(Kind.NUMBER, [1, 2.0]), MalformedError, id="a float among numbers"),
        pytest.param(one(Kind.NUMBER, [1, None]), MalformedError, id="nothing among numbers"),
        pytest.param(one(Kind.FLOAT, [1.0, math.nan]), MalformedError, id="NaN"),
        pytest.param(one(Kind.FLOAT, [math.inf]), MalformedError, id="infinity"),
        pytest.param(one(Kind.FLOAT, [1.0, 2]), MalformedError, id="a whole number among floats"),
        pytest.param(one(Kind.TEXT, ["a", b"a"]), MalformedError, id="bytes among texts"),
        pytest.param(one(Kind.TEXT, ["\ud800"]), MalformedError, id="a lone surrogate"),
        pytest.param(one(Kind.BYTES, [b"a", "a"]), MalformedError, id="text among byte strings"),
        pytest.param(one(Kind.BOOLEAN, [True, 1]), MalformedError, id="a number among booleans"),
        pytest.param(one(Kind.POSITION, [(1, 2), (1,)]), MalformedError, id="half a position"),
        pytest.param(one(Kind.POSITION, [1]), MalformedError, id="a number among positions"),
        pytest.param(one(Kind.TEXT, ["x" * 4_097]), TooLargeError, id="a long text"),
        pytest.param(one(Kind.BYTES, [b"x" * 4_097]), TooLargeError, id="a long byte string"),
        pytest.param((Table(DEVICE[:15], [], ()),), MalformedError, id="a pseudonym of 15 bytes"),
        pytest.param(
            (Table(DEVICE, [1], (Column("a", Kind.NUMBER, [1, 2]),)),),
            MalformedError,
            id="more values than times",
        ),
        pytest.param(
            (Table(DEVICE, [1], (Column("a", Kind.NUMBER, []),)),),
            MalformedError,
            id="fewer values than times",
        ),
        pytest.param(
            (Table(DEVICE, [], (Column("a", Kind.NUMBER, []), Column("a", Kind.TEXT, []))),),
            MalformedError,
            id="an attribute twice",
        ),
        pytest.param((Table(DEVICE, [2**63], ()),), MalformedError, id="a time of 65 bits"),
        pytest.param((Table(DEVICE, range(250_001), ()),), TooLargeError, id="too many rows"),
        pytest.param((Table(DEVICE, [], ()),) * 4_097, TooLargeError, id="too many tables"),
    ],
)
def test_does_not_write(batch: tuple[Table, ...], error: type[WireError]) -> None:
    with pytest.raises(error):
        encode(batch)


def test_does_not_write_more_readings_or_bytes_than_a_reader_takes() -> None:
    names = tuple(Column(str(index), Kind.NUMBER, range(70_000)) for index in range(4))
    with pytest.raises(TooLargeError, match="readings"):
        encode([Table(DEVICE, range(70_000), names)])
    decode(encode([Table(DEVICE, range(70_000), names[:3])]))
    texts = [f"{index:4096}" for index in range(2_100)]
    with pytest.raises(TooLargeError, match="bytes"):
        encode(one(Kind.TEXT, texts))
    decode(encode(one(Kind.TEXT, texts[:2_000])))


# What is not read. The parts below are put together by hand, from docs/columns.md.

PARTS: dict[str, Any] = {
    "format": 1,
    "shapes": [[["power", 0, 1, 10], ["on", 4]]],
    "devices": DEVICE,
    "tables": [[0, 4, [1, 1000, 50, 16], [0, 1, 7, 4], [0, 1, 0, 1]]],
    "text": b"",
    "bits": b"\x0a",
    "nibbles": b"",
    "peaked": b"\x00\x01\xff\x64",
    "flat": b"",
}
TABLE = Table(
    DEVICE,
    [50, 1050, 2050, 3050],
    (
        Column("power", Kind.NUMBER, [7, 8, 6, 107], Quantum(1, 10)),
        Column("on", Kind.BOOLEAN, [False, True, False, True]),
    ),
)


def raw(plain: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(plain) + deflate.flush()


def payload(change: Callable[[dict[str, Any]], None] = lambda _: None) -> bytes:
    parts = copy.deepcopy(PARTS)
    change(parts)
    return raw(cbor2.dumps(list(parts.values()), canonical=True))


def put(part: str, *path: int | slice, to: object) -> Callable[[dict[str, Any]], None]:
    """A change of one place of the parts."""

    def change(parts: dict[str, Any]) -> None:
        if not path:
            parts[part] = to
            return
        inner = parts[part]
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to

    return change


def test_what_the_page_describes_is_read() -> None:
    assert decode(payload()) == (TABLE,)
    assert columns_reader.read(payload())[0][2][0][3] == [7, 8, 6, 107]


NUMBERS = ("tables", 0, 3)
TRUTHS = ("tables", 0, 4)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(put("format", to=2), id="another format"),
        pytest.param(put("format", to=True), id="a format that is true"),
        pytest.param(put("shapes", to={}), id="shapes that are no list"),
        pytest.param(put("shapes", 0, to=1), id="a shape that is no list"),
        pytest.param(put("shapes", 0, 0, to=["power", 0, 1]), id="half a quantum"),
        pytest.param(put("shapes", 0, 0, to=["power"]), id="a column without a kind"),
        pytest.param(put("shapes", 0, 0, 0, to=b"power"), id="a name that is no text"),
        pytest.param(put("shapes", 0, 0, 1, to=6), id="a kind that is not known"),
        pytest.param(put("shapes", 0, 0, 1, to=False), id="a kind that is false"),
        pytest.param(put("shapes", 0, 0, 2, to=0), id="a quantum of nothing"),
        pytest.param(put("shapes", 0, 0, 3, to=-10), id="a negative quantum"),
        pytest.param(put("shapes", 0, 0, 3, to=2**53 + 1), id="a quantum too fine"),
        pytest.param(put("shapes", 0, 0, 3, to=True), id="a quantum over true"),
        pytest.param(put("shapes", 0, 1, 0, to="power"), id="a name twice"),
        pytest.param(put("devices", to=DEVICE + b"x"), id="a byte more than the pseudonyms"),
        pytest.param(put("devices", to=DEVICE * 2), id="a pseudonym without a table"),
        pytest.param(put("devices", to="x" * 16), id="pseudonyms that are text"),
        pytest.param(put("tables", to=b""), id="tables that are no list"),
        pytest.param(put("tables", 0, to=0), id="a table that is no list"),
        pytest.param(put("tables", 0, to=[0, 4]), id="a table without times"),
        pytest.param(put("tables", 0, 0, to=1), id="a shape that is not there"),
        pytest.param(put("tables", 0, 0, to=-1), id="a negative shape"),
        pytest.param(put("tables", 0, 0, to=False), id="a shape that is false"),
        pytest.param(put("tables", 0, 1, to=-4), id="negative rows"),
        pytest.param(put("tables", 0, 1, to=4.0), id="rows that are no whole number"),
        pytest.param(put("tables", 0, 1, to=5), id="a row more than there is"),
        pytest.param(put("tables", 0, 1, to=3), id="a row less than there is"),
        pytest.param(put("tables", 0, slice(4, 5), to=[]), id="a column less than the shape"),
        pytest.param(put("tables", 0, slice(4, 4), to=[[0, 1, 0]]), id="a column more"),
        pytest.param(put("tables", 0, 2, to=0), id="times of the table itself"),
        pytest.param(put("tables", 0, 2, to=-1), id="times of a table before the first"),
        pytest.param(put("tables", 0, 2, to=True), id="times that are true"),
        pytest.param(put(*NUMBERS, to=7), id="a stream that is no list"),
        pytest.param(put(*NUMBERS, to=[]), id="an empty stream for four rows"),
        pytest.param(put(*NUMBERS, to=[0, 1]), id="a stream without a start"),
        pytest.param(put(*NUMBERS, 0, to=2), id="order 2"),
        pytest.param(put(*NUMBERS, 0, to=-1), id="a negative order"),
        pytest.param(put(*NUMBERS, 0, to=False), id="an order that is false"),
        pytest.param(put(*NUMBERS, 1, to=0), id="scale 0"),
        pytest.param(put(*NUMBERS, 1, to=-1), id="a negative scale"),
        pytest.param(put(*NUMBERS, 1, to=2**63), id="a scale that leads out of 64 bits"),
        pytest.param(put(*NUMBERS, 2, to=2**63 - 100), id="a number that leads out of 64 bits"),
        pytest.param(put(*NUMBERS, 2, to=2**63), id="a start out of 64 bits"),
        pytest.param(put(*NUMBERS, 2, to=-(2**63)), id="a number below 64 bits"),
        pytest.param(put(*NUMBERS, 3, to=7), id="form 7"),
        pytest.param(put("tables", 0, 2, 3, to=2_048), id="a code over the largest"),
        pytest.param(put("tables", 0, 2, 3, to=-8), id="a negative code"),
        pytest.param(put(*NUMBERS, 3, to=12), id="a base for whole bytes"),
        pytest.param(put(*NUMBERS, 3, to=6), id="bytes in the other lot"),
        pytest.param(put(*NUMBERS, slice(3, 4), to=[4, 0, 0]), id="three planes"),
        pytest.param(put(*NUMBERS, slice(3, 4), to=[4] + [0] * 8), id="nine planes"),
        pytest.param(put("bits", to=b"\x1a"), id="a bit beyond the last value"),
        pytest.param(put("bits", to=b""), id="bits that are missing"),
        pytest.param(put("bits", to=b"\x0a\x00"), id="a byte of bits too many"),
        pytest.param(put("bits", to="\x0a"), id="a lot that is text"),
        pytest.param(put("peaked", to=b"\x00\x01\xff"), id="a byte that is missing"),
        pytest.param(put("flat", to=b"\x00"), id="a byte that no value claims"),
        pytest.param(put(*TRUTHS, to=[0, 1, 0, 2]), id="planes of another width"),
        pytest.param(put(*TRUTHS, 2, to=1), id="a boolean that is 2"),
        pytest.param(put(*TRUTHS, 2, to=-1), id="a boolean that is -1"),
    ],
)
def test_refuses(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises((MalformedError, NotCanonicalError)):
        decode(payload(change))


def column_payload(kind: Kind, data: object, rows: int, **lots: bytes) -> bytes:
    """A payload of one column."""

    def change(parts: dict[str, Any]) -> None:
        parts.update(bits=b"", peaked=b"")
        parts.update(lots, shapes=[[["a", int(kind)]]])
        times = [1, 1, 0, 16] if rows > 1 else [0, 1, 0] if rows else []
        parts["tables"] = [[0, rows, times, data]]

    return payload(change)


def test_columns_of_every_kind_are_read_from_parts() -> None:
    """The twins of the refusals below."""

    def cells(kind: Kind, data: object, rows: int, **lots: bytes) -> object:
        return decode(column_payload(kind, data, rows, **lots))[0].columns[0].values

    text = [2, [0, 1, 1], [0, 1, 0, 1]]
    assert cells(Kind.TEXT, text, 3, text=b"ab", bits=b"\x02") == ["a", "b", "a"]
    assert cells(Kind.BYTES, text, 3, flat=b"ab", bits=b"\x02") == [b"a", b"b", b"a"]
    half = struct.unpack(">q", struct.pack(">d", 0.5))[0]
    assert cells(Kind.FLOAT, [0, 1, half], 2) == [0.5, 0.5]
    assert cells(Kind.FLOAT, [1, [0, 1, half], [0, 1, 0]], 2) == [0.5, 0.5]
    assert cells(Kind.POSITION, [[0, 1, 3], [0, 1, 4]], 2) == [(3, 4), (3, 4)]
    assert cells(Kind.NUMBER, [0, 1, 0, 5], 9, bits=b"\x01\x01", peaked=b"\xff\x02") == [
        *(-1, 0, 0, 0, 0, 0, 0, 0),
        2,
    ]
    assert cells(Kind.NUMBER, [0, 2, -1, 8 * 3 + 3], 3, nibbles=b"\x0f\x02") == [25, -5, -1]


@pytest.mark.parametrize(
    ("kind", "data", "rows", "lots"),
    [
        pytest.param(Kind.TEXT, [0, 1, 0], 3, {}, id="a text that is a stream"),
        pytest.param(Kind.TEXT, 1, 3, {}, id="a text that is a number"),
        pytest.param(Kind.TEXT, [1, [0, 1, 1]], 3, {"text": b"a"}, id="texts without places"),
        pytest.param(Kind.TEXT, [4, [0, 1, 0], [0, 1, 0]], 3, {}, id="more texts than rows"),
        pytest.param(Kind.TEXT, [-1, [], [0, 1, 0]], 3, {}, id="a negative count of texts"),
        pytest.param(Kind.TEXT, [True, [0, 1, 0], [0, 1, 0]], 3, {}, id="a count that is true"),
        pytest.param(Kind.TEXT, [0, [], [0, 1, 0]], 3, {}, id="places without texts"),
        pytest.param(Kind.TEXT, [1, [0, 1, 0], [0, 1, 1]], 3, {}, id="a place beyond the last"),
        pytest.param(Kind.TEXT, [1, [0, 1, 0], [0, 1, -1]], 3, {}, id="a place before the first"),
        pytest.param(Kind.TEXT, [1, [0, 1, -1], [0, 1, 0]], 3, {}, id="a negative length"),
        pytest.param(Kind.TEXT, [1, [0, 1, 2], [0, 1, 0]], 3, {"text": b"a"}, id="a long length"),
        pytest.param(
            Kind.TEXT, [1, [0, 1, 1], [0, 1, 0]], 3, {"text": b"\xff"}, id="text that is no UTF-8"
        ),
        pytest.param(Kind.BYTES, [1, [0, 1, 1], [0, 1, 0]], 3, {"text": b"a"}, id="the wrong lot"),
        pytest.param(Kind.FLOAT, [0, 1, 0x7FF << 52], 2, {}, id="infinity"),
        pytest.param(Kind.FLOAT, [0, 1, 0x7FF8 << 48], 2, {}, id="NaN"),
        pytest.param(Kind.FLOAT, [1, [0, 1, 0x7FF8 << 48], [0, 1, 0]], 2, {}, id="NaN by place"),
        pytest.param(Kind.FLOAT, [1, [0, 1, 0], [0, 1, 1]], 2, {}, id="a float that is not there"),
        pytest.param(Kind.POSITION, [0, 1, 0], 2, {}, id="a position that is a stream"),
        pytest.param(Kind.POSITION, [[0, 1, 0]], 2, {}, id="half a position"),
        pytest.param(Kind.NUMBER, [0, 1, 0], 0, {}, id="a stream for no rows"),
        pytest.param(Kind.NUMBER, [1, 1, 0, 0], 1, {}, id="a plane without residuals"),
        pytest.param(
            Kind.NUMBER, [0, 1, 0, 5], 9, {"bits": b"\x01\x00", "peaked": b"\0"}, id="a placed zero"
        ),
        pytest.param(
            Kind.NUMBER, [0, 1, 0, 5], 9, {"bits": b"\x01\x02"}, id="a bit beyond the bitmap"
        ),
        pytest.param(
            Kind.NUMBER, [0, 1, 0, 3], 3, {"nibbles": b"\x00\x10"}, id="a nibble beyond the last"
        ),
    ],
)
def test_refuses_data(kind: Kind, data: object, rows: int, lots: dict[str, bytes]) -> None:
    with pytest.raises(MalformedError):
        decode(column_payload(kind, data, rows, **lots))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(payload()[:-1], id="a stream that does not end"),
        pytest.param(payload() + b"\0", id="a byte after the stream"),
        pytest.param(zlib.compress(zlib.decompress(payload(), -15)), id="a zlib header"),
        pytest.param(b"\xff" * 50, id="no deflate at all"),
        pytest.param(raw(b""), id="a stream of nothing"),
        pytest.param(raw(b"\x81"), id="CBOR that ends early"),
        pytest.param(raw(cbor2.dumps([1] * 9)), id="nine numbers"),
        pytest.param(raw(cbor2.dumps([1] * 8)), id="eight parts"),
        pytest.param(raw(cbor2.dumps({1: 2})), id="a map"),
        pytest.param(raw(b"\x89\x18\x01" + zlib.decompress(payload(), -15)[2:]), id="a long head"),
    ],
)
def test_refuses_bytes(data: bytes) -> None:
    with pytest.raises((MalformedError, NotCanonicalError)):
        decode(data)


# Limits.


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        pytest.param({"max_tables": 1}, "tables", id="tables"),
        pytest.param({"max_columns": 3}, "columns", id="columns"),
        pytest.param({"max_rows": 7}, "rows", id="rows"),
        pytest.param({"max_readings": 15}, "readings", id="readings"),
        pytest.param({"max_entry": 4}, "longer", id="the bytes of a text"),
        pytest.param({"max_inflated": 100}, "inflate", id="inflated bytes"),
    ],
)
def test_each_limit_holds_at_one_less_than_came(limits: dict[str, int], what: str) -> None:
    cells = (Column("a", Kind.TEXT, ["12345"] * 4), Column("b", Kind.NUMBER, [1, 2, 3, 4]))
    batch = [Table(DEVICE, [1, 2, 3, 4], cells)] * 2
    with pytest.raises(TooLargeError, match=what):
        decode(encode(batch), limits=Limits(**limits))
    if what != "inflate":
        enough = Limits(**{name: most + 1 for name, most in limits.items()})
        assert decode(encode(batch), limits=enough) == tuple(batch)


def bomb(size: int) -> bytes:
    """A deflate stream of so many MiB of zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * size + deflate.flush()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bomb(1_024), id="a gigabyte of zeros"),
        pytest.param(column_payload(Kind.NUMBER, [0, 1, 0], 10**9), id="a billion equal numbers"),
        pytest.param(column_payload(Kind.NUMBER, [0, 1, 0, 0], 2**63), id="2^63 numbers"),
        pytest.param(
            column_payload(Kind.TEXT, [10**9, [0, 1, 0], [0, 1, 0]], 10**9), id="a billion texts"
        ),
        pytest.param(
            payload(put("tables", to=[[0, 250_000, [0, 1, 0], [0, 1, 0], [0, 1, 0]]])),
            id="half a million readings",
        ),
    ],
)
def test_a_small_message_for_a_giant_batch_is_refused_cheaply(data: bytes) -> None:
    assert len(data) < 1_100_000
    tracemalloc.start()
    before = time.process_time()
    try:
        with pytest.raises(TooLargeError):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30 * 2**20
    assert time.process_time() - before < 2


def test_the_largest_batch_of_few_bytes_stays_within_memory() -> None:
    """The twin: just within the limits a batch is read, at some 250 bytes for each reading."""
    step = [1, 10**12, 0, 16]
    data = column_payload(Kind.POSITION, [step, step], 250_000)
    assert len(data) < 100
    tracemalloc.start()
    try:
        (table,) = decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table.columns[0].values) == 250_000
    assert peak < 64 * 2**20


# Whatever the bytes.


def some_batch(seed: int) -> list[Table]:
    """A batch that uses every kind, form and reference."""
    rng = random.Random(seed)
    times = [1_700_000_000_000 + 1_000 * index + rng.randrange(3) for index in range(60)]
    cells = (
        Column("steady", Kind.NUMBER, [rng.randrange(2) for _ in times], Quantum.of(0.1)),
        Column("noisy", Kind.NUMBER, [rng.randrange(900) for _ in times], Quantum.of(0.1)),
        Column("rare", Kind.NUMBER, [rng.choice([0] * 9 + [70_000]) for _ in times]),
        Column("walk", Kind.NUMBER, [index * 3 + rng.randrange(5) for index in range(60)]),
        Column("float", Kind.FLOAT, [rng.random() for _ in times]),
        Column("again", Kind.FLOAT, [rng.choice([0.5, 0.1]) for _ in times]),
        Column("text", Kind.TEXT, [rng.choice(["on", "off", "错误"]) for _ in times]),
        Column("who", Kind.BYTES, [rng.choice([DEVICE, b""]) for _ in times]),
        Column("open", Kind.BOOLEAN, [rng.random() < 0.1 for _ in times]),
        Column("place", Kind.POSITION, [(rng.randrange(9), 5) for _ in times]),
    )
    return [Table(DEVICE, times, cells), Table(DEVICE[::-1], times, cells[:2])]


def read(data: bytes) -> Sequence[Table] | None:
    """The tables that `decode` gives, or None where it refuses."""
    try:
        return decode(data, limits=Limits(max_rows=20_000, max_readings=20_000))
    except WireError:
        return None


def is_stable(batch: Sequence[Table]) -> bool:
    """Whether it can be written and read again."""
    return bits(decode(encode(batch))) == bits(batch)


def read_or_refused(data: bytes) -> bool:
    """Whether `decode` gave tables; whatever it gave can be written and read again."""
    batch = read(data)
    assert batch is None or is_stable(batch)
    return batch is not None


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_random_bytes_are_tables_or_refused(data: bytes) -> None:
    for batch in (read(data), read(raw(data))):
        assert batch is None or is_stable(batch)


def test_every_truncation_is_refused() -> None:
    data = encode(some_batch(1))
    plain = zlib.decompress(data, -15)
    assert not any(read_or_refused(data[:length]) for length in range(len(data)))
    assert not any(read_or_refused(raw(plain[:length])) for length in range(len(plain)))


def test_changed_messages_are_tables_or_refused() -> None:
    """Flipped bits, before and after deflate; most hit a length or a code, some only a value."""
    outcomes = []
    for seed in range(600):
        rng = random.Random(seed)
        data = encode(some_batch(seed % 7))
        plain = bytearray(zlib.decompress(data, -15))
        changed = bytearray(data)
        for target in (plain, changed):
            for _ in range(rng.choice([1, 1, 1, 2, 8])):
                target[rng.randrange(len(target))] ^= 1 << rng.randrange(8)
        read_or_refused(bytes(changed))
        outcomes.append(read_or_refused(raw(bytes(plain))))
    assert 0.2 < sum(outcomes) / len(outcomes) < 0.95


def test_changed_structure_is_tables_or_refused() -> None:
    """Any item of the CBOR exchanged for another, so that the change survives its reading."""
    others: list[Any] = [
        0,
        1,
        -1,
        7,
        2**31,
        2**63,
        2**64 - 1,
        True,
        None,
        1.5,
        "",
        b"",
        b"\0" * 16,
        [],
    ]
    others += [[0, 1, 0], [1, 1, 0, 16], [[0, 1, 0]], {}, {0: 1}]
    refused = 0
    for seed in range(600):
        rng = random.Random(seed)
        parts = cbor2.loads(zlib.decompress(encode(some_batch(0)), -15))
        at: Any = parts
        while True:
            index = rng.randrange(len(at))
            if not isinstance(at[index], list) or not at[index] or rng.random() < 0.15:
                break
            at = at[index]
        at[index] = rng.choice(others)
        refused += not read_or_refused(raw(cbor2.dumps(parts, canonical=True)))
    assert refused > 400
