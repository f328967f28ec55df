# SPDX-License-Identifier: Apache-2.0
"""What a profile is made of: the head's tables, and a field with the keys of every source.

Which keys belong to which source is said by the lints beside this room; a key that does not belong
stays None or at its default.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from assent.units import Duration

ColumnName = str | Annotated[int, msgspec.Meta(ge=1)]
"""A column of a recording: its name in the header row, or its number, counted from 1."""

CellType = Literal["number", "integer", "boolean", "text", "position"]
"""What a cell of a recording holds; a position is `latitude longitude` in degrees."""

WireType = Literal[
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "bcd",
    "bits",
    "text",
]
"""What registers hold."""

Table = Literal["input", "holding", "coil", "discrete"]
"""The four tables of a Modbus device (Modbus application protocol V1.1b3 §4.3)."""

CELL_TYPES: Final = get_args(CellType)
WIRE_TYPES: Final = get_args(WireType)

MOST_REGISTERS: Final = 125  # of one answer, Modbus application protocol V1.1b3 §6.3
MOST_BITS: Final = 2_000  # of one answer, V1.1b3 §6.1

# A slave of 1979 answers within a second; a bus that waits longer starves the units beside it.
_TIMEOUT: Final = Duration(1_000)

Order = Literal["big", "little"]


class Serial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the serial line is set; 8 data bits always (Modbus over serial line V1.02 §2.5.1)."""

    baudrate: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1

    def __str__(self) -> str:
        """The usual short form, such as 9600 8N1."""
        return f"{self.baudrate} 8{self.parity}{self.stopbits}"


class Requests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device bears of one request.

    Attributes:
        registers: at most so many registers.
        bits: at most so many coils or discrete inputs.
        gap: how many registers or bits that no field names may be read with their neighbours, so
            that fewer requests do; 0 for a device that refuses what it does not have.
        timeout: an answer that has not begun by then is given up.
    """

    registers: Annotated[int, msgspec.Meta(ge=1, le=MOST_REGISTERS)] = MOST_REGISTERS
    bits: Annotated[int, msgspec.Meta(ge=1, le=MOST_BITS)] = MOST_BITS
    gap: Annotated[int, msgspec.Meta(ge=0, le=MOST_REGISTERS)] = 0
    timeout: Duration = _TIMEOUT


class Csv(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a recording is written.

    Attributes:
        time: the column of the time; a list of two is joined by a space (date, time of day).
        time_format: see `firmware_bridge.stamps`.
        delimiter: one character between cells.
        header: whether the first row names the columns.
    """

    time: ColumnName | list[ColumnName]
    time_format: str = "iso"
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    header: bool = True


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attribute and where its value stands; what does not belong to the source is None.

    Attributes:
        attribute: its name in the data dictionary.
        type: a CellType for replay, a WireType for modbus.
        scale: the reading times this is the value.
        absent: readings that mean there is none.
        unit: of the value; for people, the dictionary's counts.
        column: replay: the column.
        table: modbus: which of the four tables.
        address: modbus: zero-based.
        length: modbus: how many registers a text, a bcd number or bits take.
        word_order: modbus: of values longer than a register.
        byte_order: modbus: within a register.
        offset: modbus: added after the scale.
        exponent: modbus: the register, zero-based and of the same table, that holds the power of
            ten with which the reading is multiplied besides (SunSpec's scale factor).
        fault: modbus: readings that mean the sensor is broken; no value, and told once.
        bit: modbus: the first of the bits that count, 0 is the least significant.
        width: modbus: how many of them; one is a boolean, several are a number.
        events: modbus: number of a bit to the text that is given once when the bit comes on.
        names: modbus: number to the text that stands for it; another number is no reading.
    """

    attribute: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    type: Literal[CellType, WireType] = "number"
    scale: float = 1.0
    absent: list[str | int | float] = []
    unit: str | None = None
    column: ColumnName | None = None
    table: Table | None = None
    address: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    length: Annotated[int, msgspec.Meta(ge=1, le=MOST_REGISTERS)] | None = None
    word_order: Order | None = None
    byte_order: Order | None = None
    offset: float = 0.0
    exponent: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    fault: list[str | int | float] = []
    bit: Annotated[int, msgspec.Meta(ge=0, le=63)] | None = None
    width: Annotated[int, msgspec.Meta(ge=1, le=63)] = 1
    events: dict[str, str] = {}
    names: dict[str, str] = {}
