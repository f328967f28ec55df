# SPDX-License-Identifier: Apache-2.0
"""What is in the store, as tables a person can read and as JSON.

Law: keys and raw bytes are never shown; times are UTC; what is counted in custody and what lies in
the data are shown apart, as they are kept.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from assent.backend.store import Store
from assent.backend.store.custody import Received

Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
"""What a report is as JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Rows under a head.

    Attributes:
        head: names of the columns; also the keys in JSON.
        rows: the values.
        doubtful: whether they hold something that a script should stop at.
        text: what a person reads instead of a table.
    """

    head: tuple[str, ...]
    rows: Sequence[tuple[Json, ...]]
    doubtful: bool = False
    text: tuple[str, ...] | None = None

    def json(self) -> list[Json]:
        """The rows as objects."""
        return [dict(zip(self.head, row, strict=True)) for row in self.rows]

    def lines(self) -> list[str]:
        """The rows as a table, two spaces between columns, or as their text."""
        if self.text is not None:
            return list(self.text)
        cells = [self.head, *(tuple(_shown(value) for value in row) for row in self.rows)]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.head))]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]


def flows(store: Store, _flow: str | None, _limit: int) -> Report:
    """Counts what the data hold, flow by flow."""
    return Report(("flow", "pseudonyms", "readings"), store.readings.flows())


def batches(store: Store, flow: str | None, limit: int) -> Report:
    """Lists the newest batches in custody."""
    head = ("received", "mailbox", "flow", "stream", "sequence", "readings", "bytes", "gaps")
    return Report(head, [_batch(one) for one in store.custody.batches(flow, limit)])


def quarantine(store: Store, _flow: str | None, limit: int) -> Report:
    """Lists the newest refused messages."""
    return Report(
        ("received", "mailbox", "reason", "detail", "bytes"),
        [
            (shown_time(one.received_ms), one.mailbox, one.reason, one.detail, one.size)
            for one in store.custody.quarantined(limit)
        ],
    )


def gateways(store: Store, _flow: str | None, _limit: int) -> Report:
    """Lists the admitted gateways and the policy each says it runs."""
    return Report(
        ("mailbox", "admitted", "policy", "serial", "format", "said"),
        [
            (
                one.mailbox,
                shown_time(one.admitted_ms),
                one.policy_id,
                one.policy_serial,
                one.format,
                None if one.status_ms is None else shown_time(one.status_ms),
            )
            for one in store.custody.gateways()
        ],
    )


def data(store: Store, flow: str | None, limit: int) -> Report:
    """Lists a flow's readings, the latest instants first."""
    rows: list[tuple[Json, ...]] = []
    for one in store.readings.rows(flow or "", limit):
        value: Json
        if isinstance(one.value, bytes):
            value = one.value.hex()
        elif isinstance(one.value, tuple):
            value = list(one.value)
        else:
            value = one.value
        when = shown_time(one.time_ms)
        rows.append((when, one.pseudonym.hex(), one.attribute, value, one.within_ms))
    return Report(("time", "pseudonym", "attribute", "value", "within_ms"), rows)


def held(store: Store, flow: str | None, _limit: int) -> Report:
    """Counts what waits for its gateway to tell when it was."""
    rows = [
        (box, name, batches, readings, shown_time(since_ms))
        for box, name, batches, readings, since_ms in store.waiting.counted(flow)
    ]
    return Report(("mailbox", "flow", "batches", "readings", "since"), rows)


def aside(store: Store, flow: str | None, _limit: int) -> Report:
    """Counts what is neither stored nor refused, and why."""
    rows = [
        (*of_stream, shown_time(since_ms)) for *of_stream, since_ms in store.asides.counted(flow)
    ]
    return Report(("mailbox", "flow", "stream", "lack", "messages", "since"), rows)


def counters(store: Store, _flow: str | None, _limit: int) -> Report:
    """Shows what was counted since the store was made."""
    return Report(("counter", "count"), list(store.custody.counters().items()))


REPORTS: Final[Mapping[str, Callable[[Store, str | None, int], Report]]] = {
    "flows": flows,
    "batches": batches,
    "quarantine": quarantine,
    "gateways": gateways,
    "data": data,
    "held": held,
    "aside": aside,
    "counters": counters,
}
"""What can be shown, by its name on the command line."""


def _batch(one: Received) -> tuple[Json, ...]:
    return (
        shown_time(one.received_ms),
        one.mailbox,
        one.flow,
        one.stream.hex(),
        one.sequence,
        one.readings,
        one.size,
        one.gaps,
    )


def shown_time(ms: int) -> str:
    """An instant as RFC 3339 text in UTC, to the millisecond."""
    moment = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: Json) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.12g}"
        case list():
            return ", ".join(_shown(one) for one in value)
        case _:
            return str(value)
