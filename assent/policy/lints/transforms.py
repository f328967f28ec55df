# SPDX-License-Identifier: Apache-2.0
"""Lints of what a flow does to each attribute: the transform has to fit, and to protect."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final

from assent.nearest import nearest
from assent.policy.expressions import Op, is_multiple
from assent.policy.lints.nits import Lint, Nit, carried, error, warning
from assent.policy.model import Attribute, Policy

_FITS: Final[dict[Op, frozenset[str]]] = {
    Op.KEEP: frozenset(("number", "integer", "boolean", "text", "position", "time")),
    Op.PSEUDONYM: frozenset(("text",)),
    Op.ROUND: frozenset(("number", "integer")),
    Op.WINDOW: frozenset(("number", "integer")),
    Op.GRID: frozenset(("position",)),
    Op.PREFIX: frozenset(("text",)),
    Op.DELTA: frozenset(("number", "integer")),
    Op.ENUM: frozenset(("text",)),
}

MIN_GRID_KM: Final = 1.0  # below it a cell of the grid is a few houses
MAX_PREFIX_BITS: Final = 64  # one link of IPv6 (RFC 4291 §2.5.4); the gateway cuts IPv4 at 24


def attribute_is_known(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A flow carries what the dictionary has."""
    for flow_id, flow in policy.flows.items():
        for name in flow.attributes:
            if name not in policy.attributes:
                path = ("flows", flow_id, "attributes", name)
                message = f"expected an attribute of the dictionary, got {name!r}"
                yield Nit(path, message, nearest(name, policy.attributes))


def transform_fits_type(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """No window over texts, no grid but on positions, no rounding of words."""
    for c in carried(policy):
        if c.attribute.type not in _FITS[c.transform.op]:
            fit = " or ".join(sorted(_FITS[c.transform.op]))
            message = f"expected a {fit} for {c.transform}, {c.name} is a {c.attribute.type}"
            yield Nit(c.path, message)


def identifier_needs_pseudonym(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Identifiers leave only as keyed pseudonyms (policy C05)."""
    for c in carried(policy):
        if c.attribute.kind == "identifier" and c.transform.op is not Op.PSEUDONYM:
            message = f"expected pseudonym for the identifier {c.name}, got {c.transform}"
            yield Nit(c.path, message, "an identifier never leaves in the clear")


def pseudonym_needs_identifier(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Only identifiers become pseudonyms; a reading under one would be a secret join key."""
    for c in carried(policy):
        if c.transform.op is Op.PSEUDONYM and c.attribute.kind != "identifier":
            message = f"expected an identifier for pseudonym, {c.name} is a {c.attribute.kind}"
            yield Nit(c.path, message)


def counter_needs_delta(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A counter's own value would join two pseudonym epochs; its increases do not."""
    for c in carried(policy):
        if c.attribute.monotonic and c.transform.op is not Op.DELTA:
            message = f"expected delta for the counter {c.name}, got {c.transform}"
            yield Nit(c.path, message, "a counter's value undoes the rotation of pseudonyms")


def delta_needs_counter(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """The increase of what goes up and down adds up to its value again."""
    for c in carried(policy):
        if c.transform.op is Op.DELTA and not c.attribute.monotonic:
            message = f"expected a counter for delta, {c.name} is not monotonic"
            yield Nit(c.path, message)


def position_needs_grid(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A position leaves only on a grid (policy C06)."""
    for c in carried(policy):
        if c.attribute.type == "position" and c.transform.op is not Op.GRID:
            message = f"expected grid for the position {c.name}, got {c.transform}"
            yield Nit(c.path, message, "such as grid(10), in kilometres")


def instant_joins_epochs(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A kept instant, such as the last boot, joins two pseudonym epochs."""
    for c in carried(policy):
        if c.attribute.type == "time" and c.attribute.kind != "event":
            message = f"expected no instant to be carried, {c.name} joins two pseudonym epochs"
            yield Nit(c.path, message)


def address_is_cut(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A text without a closed set leaves cut, chosen from a set, or not at all (policy C07)."""
    for c in carried(policy):
        is_open = c.attribute.type == "text" and not c.attribute.choices
        if is_open and c.attribute.kind != "identifier" and c.transform.op is Op.KEEP:
            message = f"expected prefix or enum for the open text {c.name}, got {c.transform}"
            yield Nit(c.path, message, "free text never leaves")


def prefix_needs_address(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Only an address has a prefix that means something."""
    for c in carried(policy):
        if c.transform.op is Op.PREFIX and not _is_address(c.attribute):
            message = f"expected an address for {c.transform}, {c.name} is none"
            yield Nit(c.path, message, "an address is a text of kind 'connection' without choices")


def enum_is_within(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """What an enum lets through is in the dictionary's closed set."""
    for c in carried(policy):
        strange = set(c.transform.choices) - set(c.attribute.choices)
        if c.transform.op is Op.ENUM and c.attribute.choices and strange:
            first = min(strange)
            message = f"expected choices of {c.name}, got {first!r}"
            yield Nit(c.path, message, nearest(first, c.attribute.choices))


def round_is_on_quantum(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A rounding finer than the sensor, or off its steps, does not do what it says."""
    for c in carried(policy):
        quantum, step = c.attribute.quantum or 0.0, c.transform.amount or 0.0
        if c.transform.op is Op.ROUND and quantum > 0 and not is_multiple(step, quantum):
            message = f"expected a multiple of the quantum {quantum}, got {c.transform}"
            yield Nit(c.path, message)


def window_divides_epoch(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """No window reaches over two pseudonym epochs."""
    for c in carried(policy):
        window = c.transform.duration
        if window is not None and not is_multiple(c.flow.epoch, window):
            message = f"expected a window that divides the epoch {c.flow.epoch}, got {window}"
            yield Nit(c.path, message)


def position_is_coarse(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A grid's cell and an address's prefix hold more than one household."""
    for c in carried(policy):
        amount = c.transform.amount or 0.0
        if c.transform.op is Op.GRID and amount < MIN_GRID_KM:
            message = f"expected a grid of {MIN_GRID_KM:g} km or more, got {c.transform}"
            yield Nit(c.path, message)
        if c.transform.op is Op.PREFIX and amount > MAX_PREFIX_BITS:
            message = f"expected a prefix of {MAX_PREFIX_BITS} bits or fewer, got {c.transform}"
            yield Nit(c.path, message)


def _is_address(attribute: Attribute) -> bool:
    return attribute.type == "text" and attribute.kind == "connection" and not attribute.choices


LINTS: Final[dict[str, Lint]] = {
    "attribute-is-known": error(attribute_is_known),
    "transform-fits-type": error(transform_fits_type),
    "identifier-needs-pseudonym": error(identifier_needs_pseudonym),
    "pseudonym-needs-identifier": error(pseudonym_needs_identifier),
    "counter-needs-delta": error(counter_needs_delta),
    "delta-needs-counter": error(delta_needs_counter),
    "position-needs-grid": error(position_needs_grid),
    "instant-joins-epochs": warning(instant_joins_epochs),
    "address-is-cut": error(address_is_cut),
    "prefix-needs-address": error(prefix_needs_address),
    "enum-is-within": error(enum_is_within),
    "round-is-on-quantum": warning(round_is_on_quantum),
    "window-divides-epoch": error(window_divides_epoch),
    "position-is-coarse": warning(position_is_coarse),
}
