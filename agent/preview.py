# SPDX-License-Identifier: Apache-2.0
"""What would leave of some samples, flow by flow, and what would not and why; for a screen.

Law:
  - values are shaped by the code that shapes a lane's (`agent.lane.shaper`), and nothing of it can
    leave: no permit, no lane, no batch is made here;
  - pseudonyms are of a secret that is thrown away with the preview: they are nobody's;
  - a flow that is off is shown as a yes would have it, and it is said that it is off.

Limits: windows end at their own time, so that a short look shows how many readings they hold and
no value of them yet.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

import msgspec

from agent.lane.shaper import Shaper
from agent.path import Carried, Pending, Permit, Rehearsal, Verdict, permit_of
from agent.reasons import held_back, why_off
from assent.columns import Column, Kind, Table
from assent.errors import PolicyError
from assent.policy.model import Flow, Policy
from firmware_bridge.sample import Sample

# One epoch that begins in 1970 and does not end: the pseudonyms are thrown away anyhow.
_EPOCH_MS: Final = 2**60
_SECRET_BYTES: Final = 32
# Rows of one flow that are shown: the newest; an answer is one line of at most 1 MiB.
_ROWS: Final = 200

Cell = int | float | str | bool | tuple[float, float]


class Row(msgspec.Struct, frozen=True):
    """One reading as it would leave.

    Attributes:
        time_ms: its instant, ms since 1970 UTC.
        device: the pseudonym, hexadecimal; thrown away after the preview.
        attribute: its name.
        value: as the recipient would read it; a pseudonym is hexadecimal.
        unit: of the value, or None.
    """

    time_ms: int
    device: str
    attribute: str
    value: Cell
    unit: str | None


class FlowPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What one flow makes of the samples.

    Attributes:
        flow: its id.
        function: `core` or `optional`.
        recipient: whom it goes to.
        region: where that is.
        notice: why, in words for a person.
        on: whether it leaves now.
        reason: why not; empty when it is on.
        rows: the newest readings, the oldest first.
        readings: how many there are in all.
        in_windows: readings in windows that have not ended.
        stayed: values that do not leave, by reason.
    """

    flow: str
    function: str
    recipient: str
    region: str
    notice: str
    on: bool
    reason: str
    rows: tuple[Row, ...]
    readings: int
    in_windows: int
    stayed: dict[str, int]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `assent preview` prints.

    Attributes:
        flows: each flow of the policy.
        held_back: attributes that came and leave in no flow that is on, and why.
        samples: how many came.
        missed: how many came and were not looked at.
    """

    flows: tuple[FlowPreview, ...]
    held_back: dict[str, str]
    samples: int
    missed: int


def preview(
    policy: Policy,
    verdicts: Mapping[str, Verdict],
    samples: Iterable[Sample],
    missed: int = 0,
) -> Preview:
    """Shapes samples as every flow of a policy would.

    Args:
        policy: in force.
        verdicts: what the gate says of each flow now.
        samples: as the devices gave them.
        missed: how many are not among them.
    """
    came = list(samples)
    return Preview(
        flows=tuple(
            _flow(policy, name, flow, verdicts.get(name), came)
            for name, flow in policy.flows.items()
        ),
        held_back=held_back({name for one in came for name in one.names}, policy.flows, verdicts),
        samples=len(came),
        missed=missed,
    )


def _flow(
    policy: Policy,
    name: str,
    flow: Flow,
    verdict: Verdict | None,
    samples: Iterable[Sample],
) -> FlowPreview:
    rehearsal = _rehearsal(policy, name, flow, verdict)
    units = {one.name: one.attribute.unit for one in rehearsal.carried}
    try:
        shaper = _shaped(rehearsal, samples)
        rows = sorted(_rows(shaper.take(2**31), units), key=lambda row: row.time_ms)
        in_windows, stayed = shaper.memory.absorbed, shaper.dropped
    except PolicyError:  # the gate says so, too
        rows, in_windows, stayed = [], 0, Counter()
    return FlowPreview(
        flow=name,
        function=flow.function,
        recipient=flow.recipient,
        region=policy.recipients[flow.recipient].region,
        notice=flow.notice.get("en") or next(iter(flow.notice.values())),
        on=isinstance(verdict, Permit),
        reason=why_off(verdict),
        rows=tuple(rows[-_ROWS:]),
        readings=len(rows),
        in_windows=in_windows,
        stayed={reason.value: count for reason, count in stayed.items()},
    )


def _rehearsal(policy: Policy, name: str, flow: Flow, verdict: Verdict | None) -> Rehearsal:
    carried = tuple(
        Carried(attribute, policy.attributes[attribute], transform)
        for attribute, transform in flow.attributes.items()
    )
    if isinstance(verdict, Permit | Pending):
        carried = permit_of(verdict).carried
    return Rehearsal(
        flow=name,
        carried=carried,
        not_before_ms=0,
        not_after_ms=None,
        epoch_ms=_EPOCH_MS,
        max_readings=flow.batch.readings,
        urgent=frozenset(),
    )


def _shaped(rehearsal: Rehearsal, samples: Iterable[Sample]) -> Shaper:
    shaper = Shaper(rehearsal, secrets.token_bytes(_SECRET_BYTES), 0)
    for sample in samples:
        take = shaper.compile(sample.device, sample.names)
        if take is not None and len(sample.values) == len(sample.names):
            take(sample.at.wall_ms, sample.values)
    shaper.settle()
    return shaper


def _rows(tables: Iterable[Table], units: Mapping[str, str | None]) -> Iterable[Row]:
    for table in tables:
        for column in table.columns:
            for ms, value in zip(table.times, _cells(column), strict=True):
                unit = units[column.attribute]
                yield Row(ms, table.device.hex(), column.attribute, value, unit)


def _cells(column: Column) -> list[Cell]:
    """The values of a column as the recipient reads them."""
    quantum = column.quantum
    if column.kind is Kind.NUMBER and quantum is not None:
        return list(quantum.values_of(cast("Sequence[int]", column.values)))
    if column.kind is Kind.POSITION and quantum is not None:
        pairs = cast("Sequence[tuple[int, int]]", column.values)
        return [
            (quantum.value(latitude), quantum.value(longitude)) for latitude, longitude in pairs
        ]
    if column.kind is Kind.BYTES:
        return [value.hex() for value in cast("Sequence[bytes]", column.values)]
    return list(cast("Sequence[Cell]", column.values))
