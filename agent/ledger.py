# SPDX-License-Identifier: Apache-2.0
"""Consent records: append-only, hash-chained, signed.

Path: form, control → **ledger** → gate.

Law:
  - an entry is appended, never altered; it names the hash of the one before and is signed with the
    ledger key; everything is verified at every opening;
  - what does not verify (altered, torn, re-ordered, something missing anywhere, another gateway's,
    gone), or is older than its witness (agent/witness.py), is moved aside as a whole, and a fresh
    ledger begins with an entry that says since when decisions are unknown: half a ledger could be
    the half before a withdrawal;
  - a first start is one with a key that never began a ledger; any other without a ledger is a loss;
  - a fresh ledger takes no yes before a trusted clock has told it the time: decisions are unknown
    until that instant, so that a clock which was behind, or ahead, at the loss makes no old form
    look new;
  - a no that a wrong clock dated later than a trusted one counts as said when that one spoke;
  - the newest record of a flow decides, whoever made it;
  - a write is durable when the call returns; decisions of one form stand in one write.

Standards: SHA-256, Ed25519 (RFC 8032); the bytes are those of agent/records and chain.py.

Security: whoever holds the ledger key can write a ledger. An older copy that is put back with its
witness verifies: nothing on this machine knows better.
Limits: documents few and small; beyond MAX_ENTRIES or its share of the file only a no is taken,
and there is room for the no to every yes. One writer, under the
instance lock. Instants come from the caller, who passes the wall clock, or the floor when the
clock is behind it, takes a yes on a trusted clock only, and calls `tell_time` when it has one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from tinydb import TinyDB
from tinydb.table import Document, Table

from agent.chain import BrokenChainError, document_of, entry_of, verified
from agent.keys.ledger_key import LedgerKey
from agent.records import (
    Body,
    ClockTrusted,
    Decided,
    Decision,
    Entry,
    FormRead,
    PolicyInForce,
    Record,
    Start,
)
from agent.records.standing import Standing
from agent.records.wire import encode_entry
from agent.storage import (
    MAX_BYTES,
    CorruptError,
    DurableStorage,
    StorageError,
    move_aside,
    remains,
)
from agent.witness import Witness, witness_of
from assent.cosekey import SigningKey, VerifyingKey
from assent.errors import LedgerError

MAX_ENTRIES: Final = 2_000
"""Entries before a yes is refused: a decision a day for five years, some 4 MB to write for each."""

ROOM_FOR_NOES: Final = 4_000_000
"""Bytes of the file that no yes takes: there a no does without its terms and has some 1 kB."""
ROOM_FOR_LAST_NOES: Final = 2_000_000
"""Bytes of these for the one no that ends the yes of each flow: hundreds with the longest lines."""

_TABLE: Final = "entries"

log = logging.getLogger(__name__)


class Ledger(Standing):
    """The household's records. Made by `open`; one owner, under the instance lock.

    Attributes:
        moved_aside: where a ledger that did not verify lies now, or None.
        objection: why it was not believed, or None.
    """

    def __init__(self, table: Table, key: SigningKey, witness: Witness | None = None) -> None:
        super().__init__()
        self._table = table
        self._key = key
        self._witness = witness or Witness(None, key)
        self._bytes = 0
        self.moved_aside: Path | None = None
        self.objection: str | None = None

    @classmethod
    def open(cls, path: Path, key: LedgerKey | SigningKey, now_ms: int) -> Ledger:
        """Opens and verifies the ledger; begins one where there never was any.

        Args:
            path: its file; the directory exists.
            key: the ledger key; a bare SigningKey counts as one that never began a ledger.
            now_ms: now, not before the clock's floor.

        Returns:
            The ledger; with `moved_aside` set when the one that was there did not verify.

        Raises:
            LedgerError: the file may not be read or cannot be written.
            KeyStoreError: that it was begun cannot be kept with the key.
        """
        owner = key if isinstance(key, LedgerKey) else LedgerKey(key, is_new=True)
        ledger = cls._found(path, owner, now_ms)
        owner.begin()
        return ledger

    @classmethod
    def _found(cls, path: Path, key: LedgerKey, now_ms: int) -> Ledger:
        try:
            witness = Witness(witness_of(path), key.signing)
            try:
                return cls._opened(path, key.signing, witness, now_ms, is_new=key.is_new)
            except (CorruptError, BrokenChainError) as exc:
                reason = exc.message
            return cls._begun_anew(path, key.signing, witness, now_ms, reason)
        except StorageError as exc:
            raise LedgerError(f"the ledger cannot be used: {exc.message}", hint=exc.hint) from exc

    @classmethod
    def _opened(
        cls, path: Path, key: SigningKey, witness: Witness, now_ms: int, *, is_new: bool
    ) -> Ledger:
        ledger = cls(_open_table(path), key, witness)
        for entry in verified(_documents(ledger._table), key.public):
            ledger.take(entry)
        if not ledger.entries and path.exists():
            raise BrokenChainError("it has no entries")
        objection = witness.objection(ledger.entries, is_new=is_new)
        if objection is not None:
            raise BrokenChainError(objection)
        if not ledger.entries:
            ledger._append(now_ms, [Start(None)])
        if is_new:
            witness.tell(ledger)  # without it the next start would be a loss
        witness.try_to_tell(ledger)
        return ledger

    @classmethod
    def _begun_anew(
        cls, path: Path, key: SigningKey, witness: Witness, now_ms: int, reason: str
    ) -> Ledger:
        left, said = _left(path, key.public), witness.said
        # A clock that is behind must not make forms that once acted look like new ones, and an
        # older policy must not pass for a new one.
        since = max([now_ms, *(entry.at_ms for entry in left), said.since_ms if said else 0])
        policies = [entry.body for entry in left if isinstance(entry.body, PolicyInForce)]
        policies += [said.policy] if said and said.policy.serial else []
        newest = sorted(policies, key=lambda policy: policy.serial)[-1:]
        bodies: list[Body] = [Start(since), *newest]
        aside = move_aside(path, now_ms)
        log.error("ledger moved aside reason=%s to=%s", reason, aside)
        ledger = cls(_open_table(path, fresh=True), key, witness)
        ledger.moved_aside, ledger.objection = aside, reason
        witness.tell(Standing.of(ledger._made(now_ms, bodies)))
        ledger._append(now_ms, bodies)
        return ledger

    def tell_time(self, now_ms: int) -> None:
        """Takes the time from a trusted clock; writes only where something was dated in doubt.

        Args:
            now_ms: now, by a clock that is trusted.

        Raises:
            LedgerError: it cannot be written; the doubt stays.
        """
        if self.is_in_doubt(now_ms):
            self._append(now_ms, [ClockTrusted()])

    def append_decision(self, decision: Decision, now_ms: int) -> Record:
        """Records one decision that came from no form; durable when this returns.

        Args:
            decision: what was decided.
            now_ms: now, not before the clock's floor.

        Returns:
            The record.

        Raises:
            LedgerError: it cannot be written; nothing was recorded.
        """
        return self._records_of(self._append(now_ms, [Decided(decision, None)]))[0]

    def append_form(
        self, form_hash: bytes, decisions: Sequence[Decision], now_ms: int, *, final: bool
    ) -> tuple[Record, ...]:
        """Records that a form was read and what it decided; durable when this returns.

        All of it stands in one write, or nothing; but where the yeses find no room the noes are
        recorded alone. What a form has said about a flow before is not recorded again.

        Args:
            form_hash: SHA-256 of the form's bytes.
            decisions: those of it that act now.
            now_ms: now, not before the clock's floor.
            final: True when it has nothing left that could act later.

        Returns:
            The records, in order.

        Raises:
            LedgerError: it cannot be written, or not all of it; no yes was recorded.
        """
        new = [decision for decision in decisions if not self._has_said(form_hash, decision.flow)]
        noes = [decision for decision in new if not decision.state.is_yes]
        try:
            return self._append_form(form_hash, new, now_ms, final=final)
        except LedgerError:
            if 0 < len(noes) < len(new):
                with contextlib.suppress(LedgerError):  # the first one says why
                    self._append_form(form_hash, noes, now_ms, final=False)
            raise

    def _append_form(
        self, form_hash: bytes, decisions: Sequence[Decision], now_ms: int, *, final: bool
    ) -> tuple[Record, ...]:
        bodies: list[Body] = [Decided(decision, form_hash) for decision in decisions]
        if form_hash not in self._forms or (final and not self.form_seen(form_hash)):
            bodies.append(FormRead(form_hash, final))
        return self._records_of(self._append(now_ms, bodies))

    def _has_said(self, form_hash: bytes, flow: str) -> bool:
        return any(record.form_hash == form_hash for record in self.history(flow))

    def append_policy(self, serial: int, policy_hash: bytes, now_ms: int) -> None:
        """Remembers that a policy is in force; nothing is written when it already was.

        Args:
            serial: its serial, which only rises.
            policy_hash: SHA-256 of its bytes.
            now_ms: now.

        Raises:
            LedgerError: an older serial, another policy of the same serial, or no write.
        """
        policy = PolicyInForce(serial, policy_hash)
        if policy == self._policy:
            return
        if serial <= self._policy.serial:
            raise LedgerError(f"policy serial {serial} came after {self._policy.serial}")
        self._append(now_ms, [policy])

    def _append(self, now_ms: int, bodies: Sequence[Body]) -> list[Entry]:
        if not bodies:
            return []
        if not self.is_dated and any(_is_yes(body) for body in bodies):
            raise LedgerError(
                "the ledger was lost, and the clock has not been trusted since",
                hint="a yes is taken as soon as it is",
            )
        made = self._fitted(now_ms, bodies)
        try:
            self._table.insert_multiple(
                Document(document_of(entry, self._key), doc_id=number)
                for number, entry in enumerate(made, len(self.entries) + 1)
            )
        except StorageError as exc:
            raise LedgerError(f"the decision cannot be recorded: {exc.message}") from exc
        for entry in made:
            self.take(entry)
        self._witness.try_to_tell(self)
        return made

    def _fitted(self, now_ms: int, bodies: Sequence[Body]) -> list[Entry]:
        made = self._made(now_ms, bodies)
        is_full = self._size_with(made) > MAX_BYTES - ROOM_FOR_NOES
        if (is_full or len(self.entries) >= MAX_ENTRIES) and any(map(_is_yes, bodies)):
            raise LedgerError(f"the ledger has {len(self.entries)} entries and takes only a no")
        if is_full:
            made = self._made(now_ms, [_brief(body) for body in bodies])
            is_last = self._size_with(made) > MAX_BYTES - ROOM_FOR_LAST_NOES
            if is_last and not any(self._ends(body) for body in bodies):
                raise LedgerError("the ledger is full and takes only a no to what runs")
        return made

    def _made(self, now_ms: int, bodies: Sequence[Body]) -> list[Entry]:
        made: list[Entry] = []
        for body in bodies:
            made.append(encode_entry(made[-1].hash if made else self.head, now_ms, body))
        return made

    def _size_with(self, entries: Sequence[Entry]) -> int:
        return self._bytes + sum(map(_written_bytes, entries))

    def _ends(self, body: Body) -> bool:
        if not isinstance(body, Decided) or _is_yes(body):
            return False
        newest = self.newest(body.decision.flow)
        return newest is not None and newest.state.is_yes

    def take(self, entry: Entry) -> None:
        """Adds the next entry."""
        super().take(entry)
        self._bytes += _written_bytes(entry)

    def _records_of(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        return tuple(record for entry in entries if (record := entry.record) is not None)


def _open_table(path: Path, *, fresh: bool = False) -> Table:
    return TinyDB(path, storage=DurableStorage, fresh=fresh).table(_TABLE)


def _documents(table: Table) -> dict[int, Document]:
    try:
        return {document.doc_id: document for document in table.all()}
    except (ValueError, TypeError) as exc:  # an id that is no number, a document that is none
        raise BrokenChainError("something else stands among the entries") from exc


def _left(path: Path, key: VerifyingKey) -> list[Entry]:
    """The entries that verify by themselves, in a broken file and the one before it."""
    left = []
    for document in remains(path, _TABLE):
        with contextlib.suppress(BrokenChainError, TypeError, ValueError):
            left.append(entry_of(document, key))
    return left


def _is_yes(body: Body) -> bool:
    return isinstance(body, Decided) and body.decision.state.is_yes


def _brief(body: Body) -> Body:
    """A no without its terms, which are those of the yes before it; anything else as it is."""
    if not isinstance(body, Decided) or _is_yes(body):
        return body
    return msgspec.structs.replace(
        body, decision=msgspec.structs.replace(body.decision, terms=None)
    )


def _written_bytes(entry: Entry) -> int:
    """At most what an entry takes in the file: base64, 88 characters of signature, its frame."""
    return (len(entry.raw) + 2) // 3 * 4 + 256
