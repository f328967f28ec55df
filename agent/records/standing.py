# SPDX-License-Identifier: Apache-2.0
"""What the entries of a ledger add up to: who said what, which forms were read; no I/O.

Law:
  - the newest record of a flow decides, whoever made it;
  - what is unknown is unknown until a trusted clock spoke for the first time after the loss;
  - a no that a wrong clock dated later than a trusted one counts as said when that one spoke.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agent.records import (
    HASH_BYTES,
    ClockTrusted,
    Decided,
    Entry,
    FormRead,
    PolicyInForce,
    Record,
    Start,
)
from agent.records.unbroken import ended_before, unbroken_since
from assent.policy.terms import Terms


class Standing:
    """The sum of entries that were taken in their order.

    Attributes:
        unknown_since_ms: since when earlier decisions are unknown, or None. By the clock of the
            loss, until a trusted one has spoken.
        is_dated: whether that instant is by a trusted clock; True where nothing is unknown.
        trusted_ms: the latest instant that a trusted clock has told this ledger; 0 where none has.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._records: dict[str, list[Record]] = {}
        self._forms: dict[bytes, tuple[int, bool]] = {}  # place of the first reading, done
        self._policy = PolicyInForce(0, bytes(HASH_BYTES))
        self.unknown_since_ms: int | None = None
        self.is_dated = True
        self.trusted_ms = 0

    @staticmethod
    def of(entries: Iterable[Entry]) -> Standing:
        """What some entries add up to, oldest first."""
        standing = Standing()
        for entry in entries:
            standing.take(entry)
        return standing

    @property
    def head(self) -> bytes:
        """Hash of the newest entry, 32 bytes."""
        return self._entries[-1].hash if self._entries else bytes(HASH_BYTES)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry, oldest first."""
        return tuple(self._entries)

    @property
    def policy(self) -> PolicyInForce:
        """The policy of the highest serial that ever was in force; serial 0 before the first."""
        return self._policy

    @property
    def highest_serial(self) -> int:
        """The highest policy serial that ever was in force; 0 before the first."""
        return self._policy.serial

    @property
    def policy_hash(self) -> bytes | None:
        """SHA-256 of the policy that had the highest serial; None before the first."""
        return self._policy.hash if self._policy.serial else None

    @property
    def policy_versions(self) -> frozenset[str]:
        """Versions of the policy under which anything was ever decided."""
        return frozenset(r.policy_version for records in self._records.values() for r in records)

    @property
    def ends(self) -> frozenset[int]:
        """When the yeses end that stand and have an end, ms since 1970 UTC."""
        newest = (records[-1] for records in self._records.values())
        return frozenset(
            record.until_ms
            for record in newest
            if record.state.is_yes and record.until_ms is not None
        )

    def newest(self, flow: str) -> Record | None:
        """The record that decides a flow, or None where nobody has decided."""
        records = self._records.get(flow)
        return records[-1] if records else None

    def history(self, flow: str) -> tuple[Record, ...]:
        """Every record of a flow, oldest first."""
        return tuple(self._records.get(flow, ()))

    def form_seen(self, form_hash: bytes) -> bool:
        """Whether a form has said all it had to say; its bytes never act again."""
        return self._forms.get(form_hash, (0, False))[1]

    def is_overtaken(self, form_hash: bytes, flow: str) -> bool:
        """Whether a no to a flow came after a form was first read.

        The order of the chain tells it, not the clock: a yes that waited for a trusted clock does
        not outlive a no that was said meanwhile.
        """
        first = self._forms.get(form_hash, (len(self._entries), False))[0]
        return any(
            not body.decision.state.is_yes and body.decision.flow == flow
            for body in (entry.body for entry in self._entries[first:])
            if isinstance(body, Decided)
        )

    def unbroken_since(self, flow: str, terms: Terms) -> int | None:
        """Start of the unbroken yes that covers some terms.

        Args:
            flow: id of the flow.
            terms: the terms in force.

        Returns:
            ms since 1970 UTC, or None when the newest record is no yes that covers them.
        """
        return unbroken_since(self._records.get(flow, ()), terms)

    def ended_before(self, flow: str, since_ms: int) -> int | None:
        """When the yes ended that came before an unbroken one; None where there was none.

        Args:
            flow: id of the flow.
            since_ms: start of the unbroken yes, ms since 1970 UTC.
        """
        return ended_before(self._records.get(flow, ()), since_ms)

    def is_in_doubt(self, now_ms: int) -> bool:
        """Whether something was dated by a clock that a trusted one can put right."""
        newest = (records[-1] for records in self._records.values())
        return not self.is_dated or any(_is_ahead(record, now_ms) for record in newest)

    def take(self, entry: Entry) -> None:
        """Adds the next entry."""
        self._entries.append(entry)
        if _is_dated(entry):
            self.trusted_ms = max(self.trusted_ms, entry.at_ms)
        match entry.body:
            case Start(unknown_since_ms):
                self.unknown_since_ms = unknown_since_ms
                self.is_dated = unknown_since_ms is None
            case ClockTrusted():
                self._date(entry.at_ms)
            case PolicyInForce():
                self._policy = entry.body
            case FormRead(form_hash, done):
                first, _ = self._forms.get(form_hash, (len(self._entries), False))
                self._forms[form_hash] = (first, done)
            case Decided():
                if record := entry.record:
                    self._records.setdefault(record.flow, []).append(record)

    def _date(self, at_ms: int) -> None:
        if not self.is_dated:
            self.unknown_since_ms = at_ms
            self.is_dated = True
        for records in self._records.values():
            records[:] = [
                msgspec.structs.replace(
                    record,
                    at_ms=min(record.at_ms, at_ms),
                    decided_ms=min(record.decided_ms, at_ms),
                )
                if _is_ahead(record, at_ms)
                else record
                for record in records
            ]


def _is_dated(entry: Entry) -> bool:
    """Whether an entry is made on a trusted clock only."""
    match entry.body:
        case ClockTrusted():
            return True
        case Decided(decision):
            return decision.state.is_yes
    return False


def _is_ahead(record: Record, now_ms: int) -> bool:
    """Whether a no is dated later than now, so that no yes could ever be later."""
    return not record.state.is_yes and max(record.at_ms, record.decided_ms) > now_ms
