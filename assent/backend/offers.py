# SPDX-License-Identifier: Apache-2.0
"""What the recipient published, and whether a batch stays within it (policy C03, C06, C08).

Law:
  - a batch holds no more readings than its flow's batches may, in the version that allows most: a
    few bytes inflate to very many equal readings, and each of them is a row of the store;
  - an attribute that the terms do not have is refused; one that is absent is fine, because the
    household may have said `without`;
  - numbers count a quantum no finer than the sensor's and the transform's; windows start at
    multiples of their length; positions lie on a grid's scale, addresses end at their prefix;
  - texts come from the closed set, pseudonyms have 128 bits, nothing else is a byte string.

So that a gateway which tells more than its household agreed to is found out where it could do
harm. What a lane gives (agent/transform) always passes; the reverse is not promised: a mean is not
told from a reading by looking at it.

Limits: how many batches an admitted gateway sends is not bounded here. A batch of 10,000 equal
readings is 1.4 kB sealed and 0.6 MB stored; who sends many shows in `show DIR batches`.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, assert_never, cast

from assent.backend.outcomes import Reason
from assent.columns import Column, Kind, Table, readings
from assent.policy.expressions import Op
from assent.policy.terms import AttributeTerms, Terms

_PSEUDONYM_BYTES: Final = 16  # 128 bits, as docs/columns.md
_LATEST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last a calendar here knows
_KM_PER_DEGREE: Final = Fraction("111.195")  # of the mean sphere, as in the gateway's grid
# The gateway writes a cell's centre in a power of ten between 1/20 and 1/200 of the cell.
_GRID_PARTS: Final = 200
_FINEST_DEGREE: Final = Fraction(1, 10**9)
# The host's own part of an address never leaves, as in the gateway's prefix.
_MAX_BITS_V4: Final = 24
_MAX_BITS_V6: Final = 64
# Prefixes whose networks carry an IPv4 host: 6to4 (RFC 3056), Teredo (RFC 4380).
_CARRIERS: Final = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))


@dataclasses.dataclass(frozen=True)
class Offer:
    """Terms of one flow that are published.

    Attributes:
        flow: id of the flow.
        terms: the terms.
        version: of the first policy that has them.
        serial: of that policy.
        readings: at most so many in a batch, over all policies that have these terms.
        age_ms: for how long a batch stays open at most, over all of them.
    """

    flow: str
    terms: Terms
    version: str
    serial: int
    readings: int
    age_ms: int = 0

    def objection(self, tables: Sequence[Table]) -> tuple[Reason, str] | None:
        """Looks for something in a batch that these terms do not allow.

        Args:
            tables: the readings.

        Returns:
            The reason and a sentence, or None when all of it is allowed.
        """
        # One row always goes, however wide (agent/lane).
        most = max(self.readings, len(self.terms.attributes))
        if readings(tables) > most:
            return Reason.TOO_MANY_READINGS, f"more than {most} readings in a batch"
        for table in tables:
            times = table.times
            if times and not 0 <= min(times) <= max(times) <= _LATEST_MS:
                return Reason.VALUE_NOT_ALLOWED, "an instant is outside 1970 to 9999"
            for column in table.columns:
                rule = self._rules.get(column.attribute)
                if rule is None:
                    return Reason.UNDECLARED_ATTRIBUTE, "an attribute is not in the terms"
                reason = rule.objection(column, times)
                if reason is not None:
                    # The rule's name is the policy's, not what the gateway wrote.
                    return reason, f"in the column of {rule.attribute}"
        return None

    def beside(self, other: Offer | None) -> Offer:
        """Joins two publications of the same terms: the first names them, the larger batch holds.

        Args:
            other: the same flow and terms of another policy, or None.
        """
        if other is None:
            return self
        first = min(self, other, key=lambda offer: offer.serial)
        return dataclasses.replace(
            first,
            readings=max(self.readings, other.readings),
            age_ms=max(self.age_ms, other.age_ms),
        )

    @functools.cached_property
    def _rules(self) -> Mapping[str, _Rule]:
        return {attribute.name: _rule(attribute) for attribute in self.terms.attributes}


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    """What one attribute's column may be."""

    attribute: str
    kind: Kind | None
    finest: Fraction | None = None
    every_ms: int = 0
    allows: Callable[[Sequence[object]], bool] | None = None

    def objection(self, column: Column, times: Sequence[int]) -> Reason | None:
        if column.kind is not self.kind:
            return Reason.WRONG_KIND
        if self.finest is not None and _step(column) < self.finest:
            return Reason.TOO_FINE
        if self.every_ms and any(time % self.every_ms for time in times):
            return Reason.TOO_FINE
        if self.allows is not None and not self.allows(cast("Sequence[object]", column.values)):
            return Reason.VALUE_NOT_ALLOWED
        return None


def _step(column: Column) -> Fraction:
    # Whole numbers without a quantum count ones.
    quantum = column.quantum
    return Fraction(quantum.numerator, quantum.denominator) if quantum else Fraction(1)


def _rule(attribute: AttributeTerms) -> _Rule:
    transform, name = attribute.transform, attribute.name
    amount = None if transform.amount is None else _written(transform.amount)
    match transform.op:
        case Op.PSEUDONYM:
            rule = _Rule(name, Kind.BYTES, allows=_are_pseudonyms)
        case Op.ENUM:
            rule = _Rule(name, Kind.TEXT, allows=frozenset(transform.choices).issuperset)
        case Op.PREFIX:
            bits = int(transform.amount or 0)
            rule = _Rule(name, Kind.TEXT, allows=functools.partial(_are_networks, bits))
        case Op.GRID:
            finest = max((amount or Fraction(0)) / _KM_PER_DEGREE / _GRID_PARTS, _FINEST_DEGREE)
            rule = _Rule(name, Kind.POSITION, finest)
        case Op.WINDOW if transform.aggregate == "count":
            rule = _Rule(name, Kind.NUMBER, Fraction(1), int(transform.duration or 0))
        case Op.WINDOW:
            every_ms = int(transform.duration or 0)
            rule = dataclasses.replace(_plain(attribute, None), every_ms=every_ms)
        case Op.KEEP | Op.ROUND | Op.DELTA:
            rule = _plain(attribute, amount)
        case _:
            assert_never(transform.op)
    return rule


def _plain(attribute: AttributeTerms, amount: Fraction | None) -> _Rule:
    name = attribute.name
    match attribute.type:
        case "number" | "integer" | "time":
            steps = [amount, None if attribute.quantum is None else _written(attribute.quantum)]
            declared = [step for step in steps if step is not None]
            if attribute.type == "number" and not declared:
                return _Rule(name, Kind.FLOAT)
            return _Rule(name, Kind.NUMBER, max(declared, default=Fraction(1)))
        case "boolean":
            return _Rule(name, Kind.BOOLEAN)
        case "text":
            return _Rule(name, Kind.TEXT, allows=frozenset(attribute.choices).issuperset)
        case "position":
            return _Rule(name, None)  # leaves on a grid only (policy C06): no kind fits


def _written(number: float) -> Fraction:
    return Fraction(repr(number))


def _are_pseudonyms(values: Sequence[object]) -> bool:
    return {len(value) for value in values if isinstance(value, bytes)} <= {_PSEUDONYM_BYTES}


def _are_networks(bits: int, values: Sequence[object]) -> bool:
    return all(_is_network(str(value), bits) for value in set(values))


def _is_network(text: str, bits: int) -> bool:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    if isinstance(network, ipaddress.IPv4Network):
        return network.prefixlen <= min(bits, _MAX_BITS_V4)
    if any(network.subnet_of(carrier) for carrier in _CARRIERS):
        return False  # the gateway writes the IPv4 network that is in it
    return network.prefixlen <= min(bits, _MAX_BITS_V6)
