# SPDX-License-Identifier: Apache-2.0
"""A map as the text of a profile, and as lines for a person."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Final

from tools.profiles.maps import Fact, Map
from tools.profiles.vocabulary import UNITS, RefusedError

MADE: Final = "# Written by `make profiles`: do not edit. docs/profiles.md tells how to write one."
"""The line by which a profile is known that this program made."""

_SPDX: Final = "# SPDX-License-Identifier: Apache-2.0"
_NAMED: Final = 6  # of what was left out for one reason, so many are named


def profile(one: Map) -> str:
    """The text of a profile's file."""
    lines = [_SPDX, MADE, "", "[profile]", 'source = "modbus"']
    lines += [f"{key} = {_text(getattr(one, key))}" for key in ("about", "facts")]
    lines += [f"{key} = {value}" for key in ("serial", "requests") if (value := getattr(one, key))]
    for fact in one.fields:
        lines += ["", "[[field]]", *_field(fact)]
    return "\n".join(lines) + "\n"


def _field(fact: Fact) -> Iterator[str]:
    yield f'attribute = "{fact.attribute}"'
    yield f'table = "{fact.table}"'
    yield f"address = {fact.address}"
    yield f'type = "{fact.type}"'
    if fact.length is not None:
        yield f"length = {fact.length}"
    if fact.word_order is not None:
        yield f'word_order = "{fact.word_order}"'
    if fact.scale != 1:
        yield f"scale = {decimal(fact.scale)}"
    if fact.offset != 0:
        yield f"offset = {decimal(fact.offset)}"
    if fact.absent:
        yield f"absent = {list(fact.absent)}"
    unit = UNITS[fact.attribute]
    if unit is not None:
        yield f'unit = "{unit}"'


def decimal(value: Fraction) -> str:
    """A number as TOML writes it, exactly.

    Raises:
        RefusedError: no decimal number is it.
    """
    written = Decimal(value.numerator) / Decimal(value.denominator)
    if Fraction(written) != value:
        raise RefusedError(f"{value} is no decimal number")
    return f"{written.normalize():f}"


def told(one: Map) -> Iterator[str]:
    """What a person reads of a map: what became of it, and what was left out for which reason."""
    if one.refused is not None:
        yield f"refused  {one.name}: {one.refused}"
        return
    yield f"written  {one.name}: {len(one.fields)} fields, {len(one.left)} left out"
    reasons: dict[str, list[str]] = defaultdict(list)
    for left in one.left:
        reasons[left.reason].append(left.label)
    for reason, labels in sorted(reasons.items()):
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        yield f"           {reason}: {', '.join(labels[:_NAMED])}{more}"


def _text(value: str) -> str:
    # JSON's escapes are among those of TOML.
    return json.dumps(value, ensure_ascii=False)
