# SPDX-License-Identifier: Apache-2.0
"""Raspberry Pi revision codes into the model they stand for.

Standards: "Raspberry Pi revision codes" of the Raspberry Pi documentation. New style, 32 bits:
`NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR`; F (bit 23) marks the new style, M memory, C manufacturer,
P processor, T type, R board revision; W (bit 25) warranty, N O Q overvoltage and OTP. Old style:
a small number with no layout, 2 to 0x15; bit 24 set after overclocking.
Law: a field whose code is not published is None; a code whose type is not published is no board.
Limits: a tablefull of facts; a model that is newer than this file is left out, not guessed.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_CODE: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{1,8})")
_NEW_STYLE: Final = 1 << 23
_WITHOUT_FLAGS: Final = 0xFFFFFF

_TYPES: Final = {
    0x00: "Model A",
    0x01: "Model B",
    0x02: "Model A Plus",
    0x03: "Model B Plus",
    0x04: "2 Model B",
    0x06: "Compute Module",
    0x08: "3 Model B",
    0x09: "Zero",
    0x0A: "Compute Module 3",
    0x0C: "Zero W",
    0x0D: "3 Model B Plus",
    0x0E: "3 Model A Plus",
    0x10: "Compute Module 3 Plus",
    0x11: "4 Model B",
    0x12: "Zero 2 W",
    0x13: "400",
    0x14: "Compute Module 4",
    0x15: "Compute Module 4S",
    0x17: "5 Model B",
    0x18: "Compute Module 5",
    0x19: "500",
    0x1A: "Compute Module 5 Lite",
}
# The 500 and the 500 Plus share a type; only the Plus has 16 GB.
_TYPE_500, _MEMORY_500_PLUS = 0x19, 16_384
_MANUFACTURERS: Final = ("Sony UK", "Egoman", "Embest", "Sony Japan", "Embest", "Stadium")
_PROCESSORS: Final = ("BCM2835", "BCM2836", "BCM2837", "BCM2711", "BCM2712")
_LARGEST_MEMORY: Final = 6  # 256 MB << 6 = 16 GB

# Old style: last code of a run of codes, model, board revision.
_OLD: Final = (
    (0x03, "Model B", "1.0"),
    (0x06, "Model B", "2.0"),
    (0x09, "Model A", "2.0"),
    (0x0F, "Model B", "2.0"),
    (0x10, "Model B Plus", "1.2"),
    (0x11, "Compute Module", "1.0"),
    (0x12, "Model A Plus", "1.1"),
    (0x13, "Model B Plus", "1.2"),
    (0x14, "Compute Module", "1.0"),
    (0x15, "Model A Plus", "1.1"),
)
_FIRST_OLD: Final = 0x02
_UNUSED_OLD: Final = frozenset({0x0A, 0x0B, 0x0C})


class Board(msgspec.Struct, frozen=True):
    """What a revision code says.

    Attributes:
        model: as the device tree writes it, without "Raspberry Pi" and revision.
        revision: of the board, such as 1.2.
        memory_mb: in MB of 1024 kB, or None where the code does not say.
        manufacturer: who made the board, or None where the code does not say.
        processor: or None where the code does not say.
    """

    model: str
    revision: str
    memory_mb: int | None = None
    manufacturer: str | None = None
    processor: str | None = None

    def __str__(self) -> str:
        """The model as newer kernels print it themselves."""
        return f"Raspberry Pi {self.model} Rev {self.revision}"


def board(code: str) -> Board | None:
    """Decodes a revision code.

    Args:
        code: hexadecimal, as in the line `Revision` of /proc/cpuinfo.

    Returns:
        The board, or None when the code is malformed or not published.
    """
    match = _CODE.fullmatch(code.strip())
    if match is None:
        return None
    number = int(match[1], 16) & _WITHOUT_FLAGS
    return _new_style(number) if number & _NEW_STYLE else _old_style(number)


def _new_style(number: int) -> Board | None:
    kind = number >> 4 & 0xFF
    model = _TYPES.get(kind)
    if model is None:
        return None
    memory = number >> 20 & 0x7
    memory_mb = 256 << memory if memory <= _LARGEST_MEMORY else None
    if kind == _TYPE_500 and memory_mb == _MEMORY_500_PLUS:
        model = "500 Plus"
    return Board(
        model=model,
        revision=f"1.{number & 0xF}",
        memory_mb=memory_mb,
        manufacturer=_published(_MANUFACTURERS, number >> 16 & 0xF),
        processor=_published(_PROCESSORS, number >> 12 & 0xF),
    )


def _old_style(number: int) -> Board | None:
    if number < _FIRST_OLD or number in _UNUSED_OLD:
        return None
    for last, model, revision in _OLD:
        if number <= last:
            return Board(model=model, revision=revision)
    return None


def _published(names: tuple[str, ...], index: int) -> str | None:
    return names[index] if index < len(names) else None
