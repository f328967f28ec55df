# SPDX-License-Identifier: Apache-2.0
"""The backend's store: outcomes of ingest become durable rows, each batch once.

Path: Outcome (ingest) → **Settled** → acknowledge.
Law:
  - a group of messages becomes durable together; what `put` returned may be acknowledged;
  - two files have to agree, and SQLite cannot commit both at once: readings are committed first and
    named unsettled, then custody; readings that custody does not know are deleted before anything
    else happens. So a batch is in both or in neither, and nothing is stored twice;
  - a batch that counts from a boot is in custody at once, sealed, and in the readings when its
    gateway has told when that boot began (`assent.backend.store.waiting`);
  - a message that cannot be stored goes to quarantine and takes no other with it, and its gateway
    gives it up only for what it holds; a disk that cannot be written raises, and nothing of the
    group is stored;
  - a message that rests on a row that has decayed, or takes more memory than there is, is laid
    aside and takes no other with it (`assent.backend.store.aside`).

The two files and who may read them: `assent.backend.store.readings` and `…custody`; why two:
docs/decisions/0004-two-files-at-the-backend.md.
Limits: one writer (the running subscriber) beside short ones (`admit`). On one machine SQLite; a
fleet's backend keeps the same tables in PostgreSQL, where the grants are real.
"""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from assent.backend.offers import Offer
from assent.backend.outcomes import Accepted, Aside, DecayedError, Lack, Reason, Rejected, Told
from assent.backend.store.aside import Asides
from assent.backend.store.chains import Chains
from assent.backend.store.custody import Custody, Kept, Quarantined
from assent.backend.store.files import (
    POISON,
    check_both,
    connect,
    is_outage,
    legible,
    look,
    outwrite,
    refused,
    transaction,
    unopened,
)
from assent.backend.store.positions import MAX_RANGES, Position
from assent.backend.store.readings import Bundle, Readings
from assent.backend.store.verdicts import Settled, Taken, Verdict, instead
from assent.backend.store.waiting import Due, Waiting
from assent.columns import Table
from assent.envelope import ClockQuality
from assent.errors import StoreError

__all__ = ["Settled", "Store", "Taken", "Verdict"]


class Store:
    """Both files, open; owned by one thread."""

    def __init__(self, root: pathlib.Path, *, writable: bool = True) -> None:
        """Opens the store in a backend directory.

        Args:
            root: the directory.
            writable: makes what is missing, and settles what a crash left; otherwise only looks,
                also while a subscriber writes.

        Raises:
            StoreError: a file cannot be opened, is no store, or lacks the other.
        """
        opened = connect if writable else look
        self._torn = False
        with contextlib.ExitStack() as half_made:
            try:
                for path in () if writable else (root / "store.db", root / "custody.db"):
                    if path.exists():
                        path.open("rb").close()  # SQLite does not say which is closed to us
                self._readings_db = half_made.enter_context(closing(opened(root / "store.db")))
                self._custody_db = half_made.enter_context(closing(opened(root / "custody.db")))
                check_both(root, self._readings_db, self._custody_db, begins=writable)
                self._custody_db.text_factory = legible
                self.readings = Readings(self._readings_db)
                self.custody = Custody(self._custody_db)
                self.chains = Chains(self._custody_db)
                self.waiting = Waiting(self._custody_db)
                self.asides = Asides(self._custody_db)
                if writable:
                    self.readings.prepare()
                    self.custody.prepare()
                    self._settle()
            except (OSError, sqlite3.Error) as exc:
                raise unopened(root, exc, writable=writable) from exc
            half_made.pop_all()  # whole: `close` has to

    def close(self) -> None:
        """Closes both files."""
        self._readings_db.close()
        self._custody_db.close()

    def put(self, group: Sequence[Taken]) -> list[Settled]:
        """Stores a group of messages; all of it is durable when this returns.

        Args:
            group: messages in the order they came.

        Returns:
            One verdict for each, in the same order.

        Raises:
            StoreError: the disk refuses; nothing of the group is stored.
        """
        try:
            return self._put(group)
        except Exception as exc:
            if is_outage(exc) or all(isinstance(one.outcome, Aside | Rejected) for one in group):
                raise StoreError(f"the store cannot be written: {exc}") from exc
            if len(group) == 1:
                return self.put([instead(group[0], exc)])
            return [settled for taken in group for settled in self.put([taken])]

    def publish(self, offers: Iterable[Offer]) -> None:
        """Keeps published terms beside the rows that stand under them.

        Raises:
            StoreError: the disk refuses.
        """
        with self.ours(), transaction(self._readings_db):
            for offer in offers:
                terms = offer.terms
                self.readings.publish(
                    offer.flow, terms.hash, terms.encode(), offer.version, offer.serial
                )

    def release(self, due: Due, accepted: Accepted) -> bool:
        """Puts a batch that waited into the data; durable when this returns.

        Args:
            due: of `waiting.due`.
            accepted: what its bytes say.

        Returns:
            False when the store does not take it, for what it holds or for want of memory: it
            goes on waiting.

        Raises:
            StoreError: the disk refuses; it goes on waiting.
        """
        tables = due.bounds.place(accepted.opened.tables)
        if tables is None:
            return False
        header = accepted.header
        within_ms = due.bounds.high_ms - due.bounds.low_ms
        bundle = Bundle(due.reference, header.flow, header.terms, tables, within_ms)
        try:
            with self._both():
                if self.waiting.release(due.reference, *_span(tables)):
                    self.readings.put(bundle)
                    self.custody.count("stored")
        except (*POISON, MemoryError):
            return False
        except sqlite3.Error as exc:
            raise StoreError(f"the store cannot be written: {exc}") from exc
        return True

    def rest(self) -> None:
        """Forgets which batches the newest commit held; called when nothing is coming in.

        Raises:
            StoreError: the disk refuses.
        """
        with self.ours():
            if self.readings.unsettled():
                self._settle()

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Tells trouble of SQLite within the block as the store's.

        Raises:
            StoreError: the disk refuses, also to be read.
        """
        try:
            yield
        except sqlite3.Error as exc:
            raise refused(exc) from exc

    @contextlib.contextmanager
    def changing(self) -> Iterator[Custody]:
        """Opens custody for a change; durable when the block ends well.

        Raises:
            StoreError: the disk refuses.
        """
        with self.ours(), transaction(self._custody_db):
            yield self.custody

    def _put(self, group: Sequence[Taken]) -> list[Settled]:
        with self._both():
            settled = [self._take(taken) for taken in group]
            if any(one.verdict is Verdict.REFUSED for one in settled):
                self.custody.trim()
        return settled

    @contextlib.contextmanager
    def _both(self) -> Iterator[None]:
        """Writes both files; what a crash between their commits leaves is settled before."""
        if self._torn:
            self._settle()
        try:
            # Custody first: its lock keeps every other writer out until both are committed.
            with transaction(self._custody_db), transaction(self._readings_db):
                self.readings.settle(())
                yield
        except BaseException:
            self.readings.forget_known()
            self._torn = True
            raise

    def _take(self, taken: Taken) -> Settled:
        outcome = taken.outcome
        try:
            settled = self._settled(taken)
        except DecayedError as exc:  # nothing of this message is written by then
            header = outcome.header if isinstance(outcome, Accepted) else None
            settled = self._lay(Aside(outcome.mailbox, Lack.RECORD, header, exc.message), taken)
        if settled.verdict is not Verdict.ASIDE:
            self.asides.forget(outcome.mailbox, taken.data)
        return settled

    def _settled(self, taken: Taken) -> Settled:
        outcome = taken.outcome
        if isinstance(outcome, Accepted):
            return self._accept(outcome, taken)
        if isinstance(outcome, Aside):
            return self._lay(outcome, taken)
        if isinstance(outcome, Rejected):
            return self._refuse(outcome, taken)
        if isinstance(outcome, Told):
            status = outcome.status
            self.custody.told(
                outcome.mailbox,
                status.policy_id,
                status.policy_serial,
                status.format,
                taken.received_ms,
            )
        return Settled(Verdict.NOTED, outcome)

    def _accept(self, accepted: Accepted, taken: Taken) -> Settled:
        header, signer = accepted.header, accepted.gateway.sign.thumbprint
        stored = self.custody.digest(signer, header.stream, header.sequence)
        if stored == accepted.opened.digest:
            return self._again(accepted)
        flow, position = self.custody.position(signer, header.stream) or (header.flow, Position())
        if stored is None and position.holds(header.sequence):
            return self._again(accepted)
        after = position.having(header.sequence)
        reason = _objection(stored, is_another=flow != header.flow, after=after)
        if reason is not None:
            return self._refuse(accepted.rejected(reason), taken)
        self.waiting.learn(signer, header.gaps)
        reference = secrets.token_bytes(16)
        is_held = header.clock is ClockQuality.UNTRUSTED
        kept = Kept(
            signer=signer,
            mailbox=accepted.mailbox,
            header=header,
            digest=accepted.opened.digest,
            reference=reference,
            readings=accepted.readings,
            size=len(taken.data),
            received_ms=taken.received_ms,
            span=None if is_held else _span(accepted.opened.tables),
        )
        self.custody.keep(kept, after)
        if is_held:
            self.waiting.keep(reference, signer, header.stream, taken.data)
            self.custody.count("held")
            return Settled(Verdict.HELD, accepted)
        self.readings.put(Bundle(reference, header.flow, header.terms, accepted.opened.tables))
        self.custody.count("stored")
        return Settled(Verdict.STORED, accepted)

    def _again(self, accepted: Accepted) -> Settled:
        self.custody.count("duplicate")
        return Settled(Verdict.DUPLICATE, accepted)

    def _lay(self, aside: Aside, taken: Taken) -> Settled:
        is_new = self.asides.lay(aside, taken.data, taken.received_ms)
        if is_new is None:
            self.custody.count("aside without room")
        elif is_new:
            self.custody.count("aside")
        return Settled(Verdict.ASIDE, aside)

    def _refuse(self, rejected: Rejected, taken: Taken) -> Settled:
        entry = Quarantined(
            taken.received_ms,
            rejected.mailbox,
            rejected.reason.value,
            rejected.detail,
            len(taken.data),
        )
        self.custody.quarantine(entry, taken.data)
        return Settled(Verdict.REFUSED, rejected)

    def _settle(self) -> None:
        """Deletes readings whose batch never came into custody: a crash between two commits."""
        outwrite(self._custody_db)  # or a commit that failed comes back with the next crash
        # Under custody's lock: another process may be between its two commits right now.
        with transaction(self._custody_db), transaction(self._readings_db):
            unsettled = self.readings.unsettled()
            self.readings.settle([one for one in unsettled if not self.custody.knows(one)])
        self._torn = False


def _objection(stored: bytes | None, *, is_another: bool, after: Position) -> Reason | None:
    if stored is not None:
        return Reason.FORK
    if is_another:
        return Reason.STREAM_OF_ANOTHER_FLOW
    return Reason.TOO_MANY_HOLES if len(after.ranges) > MAX_RANGES else None


def _span(tables: Sequence[Table]) -> tuple[int, int]:
    first_ms = min(min(table.times) for table in tables)
    return first_ms, max(max(table.times) for table in tables)
