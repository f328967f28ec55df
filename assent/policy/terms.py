# SPDX-License-Identifier: Apache-2.0
"""What a person agrees to when they say yes to a flow, and whether it still is the same.

Law:
  - terms are controller, function, purpose, basis, recipient id, role and region, for each
    attribute its kind, type, closed set, unit, quantum, sensitivity and transform, retention,
    epoch, links, separate and on_withdraw; no prose, no keys, no limits of a batch;
  - they are written as deterministic CBOR and named by its SHA-256, so that equal terms have equal
    names at both ends;
  - a change is NARROWER only where this room can prove that no more is told; everything else is
    WIDER, and a person is asked again (policy C33).

Standards: RFC 8949 §4.2.1; docs/terms.md gives the array as CDDL.
Security: `decode_terms` reads bytes of a ledger or a message; whatever they are, it gives terms or
a WireError.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from assent.errors import MalformedError, PolicyError
from assent.policy import wire
from assent.policy.expressions import Transform, coarser_or_equal, is_multiple
from assent.policy.model import (
    Attribute,
    AttributeKind,
    AttributeType,
    Basis,
    Function,
    Keep,
    Link,
    OnWithdraw,
    Policy,
    Role,
    Sensitivity,
)
from assent.policy.wire import FORMAT, Row, TermsArray
from assent.units import Duration

_Text = TypeVar("_Text", bound=str)


class AttributeTerms(msgspec.Struct, frozen=True):
    """What is agreed about one attribute."""

    name: str
    kind: AttributeKind
    type: AttributeType
    choices: tuple[str, ...]
    unit: str | None
    quantum: float | None
    sensitivity: Sensitivity
    transform: Transform


class Terms(msgspec.Struct, frozen=True):
    """What is agreed about one flow. `attributes`, `choices` and `links` are sorted."""

    controller: str
    function: Function
    purpose: str
    basis: Basis
    recipient: str
    role: Role
    region: str
    attributes: tuple[AttributeTerms, ...]
    keep: Keep
    epoch: Duration
    links: tuple[Link, ...]
    separate: bool
    on_withdraw: OnWithdraw

    def encode(self) -> bytes:
        """Writes them as deterministic CBOR.

        Returns:
            The bytes that are stored, shown to a backend, and hashed.
        """
        return TermsArray(
            format=FORMAT,
            controller=self.controller,
            function=self.function,
            purpose=self.purpose,
            basis=self.basis,
            recipient=(self.recipient, self.role, self.region),
            attributes=tuple(_row(attribute) for attribute in self.attributes),
            keep=(int(self.keep.gateway), int(self.keep.recipient), self.keep.then),
            epoch=int(self.epoch),
            links=self.links,
            separate=self.separate,
            on_withdraw=self.on_withdraw,
        ).encode()

    @property
    def hash(self) -> bytes:
        """SHA-256 of the encoding, 32 bytes: the name of these terms on the wire."""
        return hashlib.sha256(self.encode()).digest()


class Relation(enum.Enum):
    """How the terms in force stand to the ones that were agreed."""

    SAME = "same"
    """Nothing differs."""
    NARROWER = "narrower"
    """Every difference tells less; the yes still covers them."""
    WIDER = "wider"
    """Something differs that is not provably less; a person is asked again."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that differs, in words a person can be shown.

    Attributes:
        what: which term, such as `appliance.power transform`.
        agreed: what was agreed; empty where there was nothing.
        current: what the policy says now; empty where it says nothing.
        wider: whether it is more, or not provably less.
    """

    what: str
    agreed: str
    current: str
    wider: bool


class Comparison(msgspec.Struct, frozen=True):
    """The relation and every difference it rests on."""

    relation: Relation
    differences: tuple[Difference, ...]


def terms_of(policy: Policy, flow_id: str) -> Terms:
    """Gathers the terms of a flow from its policy.

    Args:
        policy: a policy without errors.
        flow_id: id of the flow.

    Returns:
        The terms in force.

    Raises:
        PolicyError: the policy has no such flow, or the flow names what the policy does not have.
    """
    try:
        flow = policy.flows[flow_id]
        recipient = policy.recipients[flow.recipient]
        attributes = tuple(
            _attribute_terms(name, policy.attributes[name], transform)
            for name, transform in sorted(flow.attributes.items())
        )
    except KeyError as exc:
        raise PolicyError(f"the policy has no {exc.args[0]!r}, which {flow_id!r} needs") from exc
    return Terms(
        controller=policy.policy.controller,
        function=flow.function,
        purpose=flow.purpose,
        basis=flow.basis,
        recipient=flow.recipient,
        role=recipient.role,
        region=recipient.region,
        attributes=attributes,
        keep=flow.keep,
        epoch=flow.epoch,
        links=_each_once(flow.links),
        separate=flow.separate,
        on_withdraw=flow.on_withdraw,
    )


def decode_terms(data: bytes) -> Terms:
    """Reads terms.

    Args:
        data: what `Terms.encode` wrote.

    Returns:
        The terms; their encoding is `data` again.

    Raises:
        WireError: the bytes are not deterministic CBOR, or not terms.
    """
    try:
        terms = _of_array(wire.decode(data))
    except ValueError as exc:
        raise MalformedError("expected transforms of the closed set in a flow's terms") from exc
    if terms.encode() != data:  # something out of order or twice, a transform spelt otherwise
        raise MalformedError("expected terms in their one spelling and order")
    return terms


def compare(agreed: Terms, current: Terms) -> Comparison:
    """Holds the terms in force against the ones that were agreed.

    Args:
        agreed: what the household said yes to.
        current: what the policy says now.

    Returns:
        SAME, NARROWER or WIDER, seen from what was agreed, with every difference.
    """
    found = (*_flow_differences(agreed, current), *_attribute_differences(agreed, current))
    if any(difference.wider for difference in found):
        return Comparison(Relation.WIDER, found)
    return Comparison(Relation.NARROWER if found else Relation.SAME, found)


def covers(agreed: Terms, current: Terms) -> bool:
    """Says whether a yes to the one is a yes to the other.

    Args:
        agreed: what the household said yes to.
        current: what the policy says now.

    Returns:
        True when the terms in force are the same or narrower.
    """
    return compare(agreed, current).relation is not Relation.WIDER


def _flow_differences(agreed: Terms, current: Terms) -> Iterator[Difference]:
    # None of these has an order in which one is provably less than another.
    for name in (
        "controller", "function", "purpose", "basis", "recipient", "role", "region", "separate",
    ):  # fmt: skip
        yield from _unequal(name, getattr(agreed, name), getattr(current, name))
    a, c = agreed.keep, current.keep
    yield from _unequal("keep gateway", a.gateway, c.gateway, less=c.gateway < a.gateway)
    yield from _unequal("keep recipient", a.recipient, c.recipient, less=c.recipient < a.recipient)
    yield from _unequal("keep then", a.then, c.then, less=c.then == "delete")
    # A shorter epoch tells less only when each old epoch is cut into whole new ones: otherwise two
    # readings that had two pseudonyms could now share one.
    shorter = is_multiple(agreed.epoch, current.epoch)
    yield from _unequal("epoch", agreed.epoch, current.epoch, less=shorter)
    fewer = set(current.links) <= set(agreed.links)
    yield from _unequal("links", agreed.links, current.links, less=fewer)
    erases = current.on_withdraw == "stop+erase"
    yield from _unequal("on_withdraw", agreed.on_withdraw, current.on_withdraw, less=erases)


def _attribute_differences(agreed: Terms, current: Terms) -> Iterator[Difference]:
    before = {attribute.name: attribute for attribute in agreed.attributes}
    now = {attribute.name: attribute for attribute in current.attributes}
    for name in sorted(before.keys() | now.keys()):
        a, c = before.get(name), now.get(name)
        if a is None or c is None:
            was, is_now = (str(side.transform) if side else "" for side in (a, c))
            yield Difference(name, was, is_now, wider=c is not None)
        else:
            yield from _one_attribute(a, c)


def _one_attribute(a: AttributeTerms, c: AttributeTerms) -> Iterator[Difference]:
    for name in ("kind", "type", "unit", "sensitivity"):
        yield from _unequal(f"{a.name} {name}", getattr(a, name), getattr(c, name))
    coarser = is_multiple(c.quantum or 0.0, a.quantum or 0.0)
    yield from _unequal(f"{a.name} quantum", a.quantum, c.quantum, less=coarser)
    # no closed set is an open one: any set is fewer
    fewer = not a.choices or (bool(c.choices) and set(c.choices) <= set(a.choices))
    yield from _unequal(f"{a.name} choices", a.choices, c.choices, less=fewer)
    less = coarser_or_equal(c.transform, a.transform)
    yield from _unequal(f"{a.name} transform", a.transform, c.transform, less=less)


def _unequal(
    what: str, agreed: object, current: object, *, less: bool = False
) -> Iterator[Difference]:
    if agreed != current:
        yield Difference(what, _words(agreed), _words(current), wider=not less)


def _words(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)


def _attribute_terms(name: str, attribute: Attribute, transform: Transform) -> AttributeTerms:
    return AttributeTerms(
        name=name,
        kind=attribute.kind,
        type=attribute.type,
        choices=_each_once(attribute.choices),
        unit=attribute.unit,
        quantum=None if attribute.quantum is None else float(attribute.quantum),
        sensitivity=attribute.sensitivity,
        transform=transform,
    )


def _each_once(texts: tuple[_Text, ...]) -> tuple[_Text, ...]:
    return tuple(sorted(set(texts)))


def _row(a: AttributeTerms) -> Row:
    return Row(
        a.name, a.kind, a.type, a.choices, a.unit, a.quantum, a.sensitivity, str(a.transform)
    )


def _of_array(array: TermsArray) -> Terms:
    recipient, role, region = array.recipient
    gateway_ms, recipient_ms, then = array.keep
    rows = [msgspec.structs.asdict(row) for row in array.attributes]
    by_name = {
        row["name"]: AttributeTerms(
            **{
                **row,
                "choices": _each_once(row["choices"]),
                "transform": Transform.parse(row["transform"]),
            }
        )
        for row in rows
    }
    return Terms(
        controller=array.controller,
        function=array.function,
        purpose=array.purpose,
        basis=array.basis,
        recipient=recipient,
        role=role,
        region=region,
        attributes=tuple(by_name[name] for name in sorted(by_name)),
        keep=Keep(Duration(gateway_ms), Duration(recipient_ms), then),
        epoch=Duration(array.epoch),
        links=_each_once(array.links),
        separate=array.separate,
        on_withdraw=array.on_withdraw,
    )
