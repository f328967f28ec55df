# SPDX-License-Identifier: Apache-2.0
"""The closed set of transforms, compiled for one flow and epoch; pseudonyms among them.

Path: Sample → router → lane (asks here how each attribute is read) → Batch.

Law:
  - what an attribute may become is decided here once, when its lane is built; a combination that
    this room does not know is a PolicyError, so that the flow has no lane;
  - identifiers leave only as keyed pseudonyms (policy C05), positions only on a grid (C06),
    counters only as increases, texts only from a closed set (C08, C09);
  - numbers become whole numbers of the coarser of quantum and transform, half to even.

Rooms: `reasons` why a value stays, `readers` values to cells, `places` grid and prefix, `series`
what remembers, `pseudonyms`, `personal` shapes that are refused. All of them pure.
Standards: see `pseudonyms` and `places`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

import msgspec

from agent.path import Carried
from agent.transform.places import grid, prefix
from agent.transform.pseudonyms import (
    DEVICE_KIND,
    canonical,
    device_owner,
    device_pseudonym,
    identifier_kind,
    pseudonym,
    pseudonym_key,
)
from agent.transform.readers import (
    Reader,
    booleans,
    identifiers,
    instants,
    integers,
    numbers,
    texts,
)
from agent.transform.reasons import DropReason
from agent.transform.series import Delta, Window
from assent.columns import Kind, Quantum
from assent.errors import PolicyError
from assent.policy.expressions import Op
from assent.policy.model import Attribute

__all__ = [
    "DEVICE_KIND",
    "Compiled",
    "DropReason",
    "canonical",
    "compile_transform",
    "device_owner",
    "device_pseudonym",
    "identifier_kind",
    "pseudonym",
    "pseudonym_key",
]

_MEASURED: Final = frozenset({"number", "integer"})


class Compiled(msgspec.Struct, frozen=True):
    """One attribute of one flow, ready to be read.

    Attributes:
        name: of the attribute.
        reader: raw values → cells.
        kind: of the column that leaves.
        quantum: of the column that leaves.
        carried: what it was compiled from.
    """

    name: str
    reader: Reader
    kind: Kind
    quantum: Quantum | None
    carried: Carried

    @property
    def is_delta(self) -> bool:
        """Whether increases leave instead of readings."""
        return self.carried.transform.op is Op.DELTA

    @property
    def is_window(self) -> bool:
        """Whether windows leave instead of readings."""
        return self.carried.transform.op is Op.WINDOW

    def delta(self) -> Delta:
        """Makes the memory of one counter."""
        return Delta()

    def window(self, begin_ms: int, end_ms: int | None) -> Window:
        """Makes the memory of one window.

        Args:
            begin_ms: windows that start earlier are cut.
            end_ms: windows that end later are cut; None for no end.

        Returns:
            An empty window.
        """
        transform = self.carried.transform
        assert transform.duration is not None
        assert transform.aggregate is not None
        return Window(int(transform.duration), transform.aggregate, begin_ms, end_ms)


def compile_transform(carried: Carried, secret: bytes, epoch: int) -> Compiled:
    """Decides how one attribute of a flow is read.

    Args:
        carried: its dictionary entry and its transform.
        secret: of this recipient and flow, for pseudonyms.
        epoch: pseudonym epoch.

    Returns:
        The compiled attribute.

    Raises:
        PolicyError: the transform does not fit the attribute.
    """
    attribute, transform = carried.attribute, carried.transform
    reader = None
    if not _must_not(attribute, transform.op):
        reader = _READERS[transform.op](carried, secret, epoch)
    if reader is None:
        raise PolicyError(
            f"{carried.name}: {transform.op.value} does not fit "
            f"{attribute.kind} of type {attribute.type}",
            hint="the flow does not run; correct the policy and sign it again",
        )
    counts = transform.aggregate == "count"
    kind, quantum = (Kind.NUMBER, None) if counts else (reader.kind, reader.quantum)
    return Compiled(carried.name, reader, kind, quantum, carried)


def _must_not(attribute: Attribute, op: Op) -> bool:
    # A counter that is kept undoes the rotation of pseudonyms. Policy C05: identifiers.
    counter, identifier = attribute.monotonic, attribute.kind == "identifier"
    return (counter and op is not Op.DELTA) or (identifier and op is not Op.PSEUDONYM)


def _pseudonymous(carried: Carried, secret: bytes, epoch: int) -> Reader | None:
    attribute, kind = carried.attribute, identifier_kind(carried.name)
    if attribute.kind != "identifier" or attribute.type != "text":
        return None  # a reading under a pseudonym would be a secret join key
    return identifiers(pseudonym_key(secret, kind, epoch), kind)


def _gridded(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    kilometres = carried.transform.amount
    fits = carried.attribute.type == "position" and kilometres
    return grid(kilometres) if fits and kilometres else None


def _prefixed(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    bits = int(carried.transform.amount or 0)
    return prefix(bits) if carried.attribute.type == "text" and bits > 0 else None


def _rounded(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    return _kept(carried.attribute, carried.transform.amount)


def _counted(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    attribute = carried.attribute
    return _kept(attribute, None) if attribute.monotonic and attribute.type in _MEASURED else None


def _kept(attribute: Attribute, amount: float | None) -> Reader | None:
    match attribute.type:
        case "number":
            quantum = _coarser(attribute.quantum, amount)
            return numbers(quantum) if quantum is not None else None
        case "integer":
            return integers(_coarser(attribute.quantum, amount))
        case "time":
            return instants(_coarser(attribute.quantum, amount))
        case "boolean" if amount is None:
            return booleans()
        case "text" if amount is None and attribute.choices:
            return texts(attribute.choices)
    return None


def _windowed(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    attribute, aggregate = carried.attribute, carried.transform.aggregate
    fits = aggregate in {"last", "count"} or attribute.type in _MEASURED
    return _kept(attribute, None) if fits else None


def _chosen(carried: Carried, _secret: bytes, _epoch: int) -> Reader | None:
    closed = carried.attribute.choices
    choices = [text for text in carried.transform.choices if not closed or text in closed]
    return texts(choices) if carried.attribute.type == "text" else None


def _coarser(quantum: float | None, amount: float | None) -> Quantum | None:
    steps = [step for step in (quantum, amount) if step is not None]
    return Quantum.of(max(steps, key=lambda step: Fraction(repr(step)))) if steps else None


_READERS: Final[dict[Op, Callable[[Carried, bytes, int], Reader | None]]] = {
    Op.KEEP: _rounded,
    Op.PSEUDONYM: _pseudonymous,
    Op.ROUND: _rounded,
    Op.WINDOW: _windowed,
    Op.GRID: _gridded,
    Op.PREFIX: _prefixed,
    Op.DELTA: _counted,
    Op.ENUM: _chosen,
}
