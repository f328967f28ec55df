# SPDX-License-Identifier: Apache-2.0
"""What is known of a device: the fields that can be written, and what was left out and why."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction

from firmware_bridge.profile.fields import MOST_REGISTERS, Order, Table, WireType

WORDS: dict[WireType, int] = {
    "int16": 1,
    "uint16": 1,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}
"""How many registers a number takes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One register that can be written into a profile.

    Attributes:
        label: what its source calls it.
        attribute: its name in the vocabulary.
        table: which table of the device.
        address: zero-based.
        type: what the registers hold.
        scale: what was read times this is in the vocabulary's unit.
        offset: added after the scale.
        length: registers of a text.
        word_order: when it is not big-endian.
        absent: readings that mean there is none.
    """

    label: str
    attribute: str
    table: Table
    address: int
    type: WireType
    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    length: int | None = None
    word_order: Order | None = None
    absent: tuple[int, ...] = ()

    @property
    def words(self) -> int:
        """How many registers it takes."""
        return self.length or WORDS[self.type]


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """A register that is in the facts and not in the profile."""

    label: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """One device model.

    Attributes:
        name: of its profile's file, without the ending.
        about: the model, for a person.
        facts: where they come from: project, commit, licence.
        fields: what is written.
        left: what is not.
        serial: the line's settings as TOML, where they are known.
        requests: what the device bears of a request as TOML, where it is known.
        refused: why there is no profile, or None.
    """

    name: str
    about: str
    facts: str
    fields: tuple[Fact, ...] = ()
    left: tuple[Left, ...] = ()
    serial: str | None = None
    requests: str | None = None
    refused: str | None = None


def settle(facts: Iterable[Fact], left: Iterable[Left]) -> tuple[tuple[Fact, ...], list[Left]]:
    """Leaves one register for each attribute.

    Of two that say the same the wider one is taken: it overflows later. Of two that are alike and
    stand at different places none is: the facts do not say which is meant.

    Returns:
        The facts by table and address, and what was left out.
    """
    claims: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        if not any(_is_same(fact, other) for other in claims[fact.attribute]):
            claims[fact.attribute].append(fact)
    kept, dropped = [], list(left)
    for attribute, claimed in claims.items():
        widest = [one for one in claimed if one.words == max(other.words for other in claimed)]
        narrower = [one for one in claimed if one not in widest]
        dropped += [Left(one.label, "a wider register says the same") for one in narrower]
        if len(widest) == 1:
            kept += widest
        else:
            dropped += [Left(one.label, f"several registers claim {attribute}") for one in widest]
    return tuple(sorted(kept, key=lambda one: (one.table, one.address, one.attribute))), dropped


def _is_same(one: Fact, other: Fact) -> bool:
    return dataclasses.replace(one, label=other.label) == other


def limits(fields: Sequence[Fact], ranges: Iterable[tuple[Table, int, int]]) -> str | None:
    """What a device bears of a request, from requests that it is known to answer.

    Args:
        fields: what is read, each inside one of the ranges.
        ranges: table, first register and count of each request.

    Returns:
        A `requests` table: no longer than the longest of them, and no hole bridged but inside one;
        None without fields.
    """
    if not fields:
        return None
    known = list(ranges)
    inside, between = [0], [MOST_REGISTERS + 1]
    ordered = sorted(fields, key=lambda one: (one.table, one.address))
    for one, after in itertools.pairwise(ordered):
        if one.table == after.table:
            hole = after.address - one.address - one.words
            together = any(_holds(place, one) and _holds(place, after) for place in known)
            (inside if together else between).append(hole)
    gap = min(max(inside), min(between) - 1, MOST_REGISTERS)
    longest = min(max(count for _, _, count in known), MOST_REGISTERS)
    return f"{{ registers = {longest}, gap = {max(gap, 0)} }}"


def _holds(place: tuple[Table, int, int], fact: Fact) -> bool:
    table, first, count = place
    return fact.table == table and first <= fact.address <= first + count - fact.words
