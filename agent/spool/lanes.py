# SPDX-License-Identifier: Apache-2.0
"""The second gate: which flow's batches may leave now.

Law:
  - closing is one durable row, written before anything else happens; it needs no instance lock, so
    that anybody present can say no while nothing runs;
  - what waited when a lane was closed never leaves: it is purged, at the latest when the lane is
    opened again;
  - nothing leaves that began before the unbroken yes the lane is opened for, whatever happened to
    the lane, the form or the file in between. `not_before` of a lane bounds what waits in it, so
    that a lane that is opened for the same again is not read through; what is put below the bound
    lowers it, what is held is bounded by nothing;
  - a pause keeps what waits;
  - the last lane of a recipient to be shut takes the courtesies with it that wait for that one;
  - after a lane was closed, paused or purged, `fence_passed` tells when the uplink has let go of
    everything it had leased before.
"""

from __future__ import annotations

import sqlite3

from agent.spool.absence import begin
from agent.spool.boots import drop_unjudged
from agent.spool.choice import keep_back_before, tell_choice
from agent.spool.erasure import delete_before, empty, empty_in_part, fits
from agent.spool.records import Boot, LaneState, LaneView, Purged
from agent.spool.schema import forget_damaged
from agent.spool.store import Store
from agent.spool.streams import enter_stream, signed, unsigned
from assent.errors import SpoolError
from assent.header import GapCause


class Lanes(Store):
    """Opening, pausing, closing and purging the lanes of flows."""

    def open_lane(
        self,
        flow: str,
        recipient: str,
        stream: int,
        not_after_ms: int | None,
        *,
        core: bool = False,
        basis: bytes = b"",
        not_before_ms: int = 0,
        off: tuple[int, int] | None = None,
        boot: Boot | None = None,
    ) -> int:
        """Opens the lane of a flow, or goes on in it; durable when this returns.

        A lane that was closed, or stood on another basis, is emptied first; of any other lane what
        begins before `not_before_ms` is deleted, both also from the log. A stream other than the
        present one ends that: nothing is put into the old one any more, what waits of it still
        leaves.

        Args:
            flow: id of the flow.
            recipient: id of the recipient.
            stream: random unsigned 64-bit id of the stream.
            not_after_ms: end of the permission in ms since 1970, or None.
            core: whether the quota spares the flow until the last.
            basis: what a batch of this lane rests on, as a digest; after a narrowing it is
                another, and what waits under the wider one must not leave.
            not_before_ms: start of the unbroken yes in ms since 1970; nothing older may leave.
            off: since when and until when nothing was collected by choice, in ms since 1970, where
                that is still to be told.
            boot: from which the stream counts, while nobody knows the time: then what enters is
                held, and nothing leaves. A lane that opens is rid of what `judge` did not release.

        Returns:
            The sequence the next batch must have.

        Raises:
            SpoolError: the stream ended earlier, or belongs to another lane.
        """
        with self._writing(rings=True) as db:
            lane, is_rid = _rid_of_the_rest(db, flow, (recipient, basis), not_before_ms)
            db.execute(
                "UPDATE lane SET recipient=?, state=?, core=?, not_after=?, basis=?, not_before=?"
                " WHERE id=?",
                (recipient, LaneState.OPEN, core, not_after_ms, basis, not_before_ms, lane),
            )
            if boot is None:
                drop_unjudged(db, lane)
            else:
                shut(db, flow, LaneState.HELD)
            following = enter_stream(db, lane, flow, signed(stream), boot)
            if off is not None:
                tell_choice(db, flow, signed(stream), off)
        if is_rid:
            self._shrink(at_once=True)
        return following

    def trim_lane(
        self, flow: str, *, basis: bytes, not_before_ms: int, since_ms: int | None
    ) -> Purged:
        """Deletes what a permit does not cover, and opens nothing; durable when this returns.

        For a lane that nobody runs: it keeps its state, and a permit that comes and goes before the
        next start leaves its mark.

        Args:
            flow: id of the flow. One without a lane, or closed, stays as it is.
            basis: as in `open_lane`.
            not_before_ms: as in `open_lane`.
            since_ms: since when, in ms since 1970, that is missing by choice, to be told when the
                lane is opened; None where nobody is to be told.

        Returns:
            What was deleted.

        Raises:
            SpoolError: the disk refuses; nothing was deleted.
        """
        wanted = (basis, not_before_ms)
        with self._reading() as db:
            if _covered_by(db, flow) in {None, wanted}:
                return Purged(0, 0, 0)
        with self._writing(rings=True) as db:
            lane, old_basis = db.execute(
                "SELECT id, basis FROM lane WHERE flow=?", (flow,)
            ).fetchone()
            if old_basis != basis:
                purged = empty(db, lane, flow)
            else:
                purged = delete_before(db, lane, not_before_ms)
            if since_ms is not None and (old_basis != basis or purged.batches):
                begin(db, flow, GapCause.PURGE, since_ms)
            db.execute("UPDATE lane SET basis=?, not_before=? WHERE id=?", (*wanted, lane))
        self._shrink(at_once=True)
        return purged

    def pause_lane(self, flow: str) -> None:
        """Lets nothing in or out of a lane, and keeps what waits; durable when this returns.

        Args:
            flow: id of the flow. One without a lane, or closed, stays as it is.
        """
        self._shut(flow, LaneState.PAUSED)

    def close_lane(self, flow: str) -> None:
        """Ends a lane; durable when this returns, and none of what waits is leased afterwards.

        Args:
            flow: id of the flow. One without a lane gets a closed one.
        """
        self._shut(flow, LaneState.CLOSED)

    def _shut(self, flow: str, state: LaneState) -> None:
        with self._writing(rings=True) as db:
            shut(db, flow, state)

    def purge(self, flow: str) -> Purged:
        """Deletes what waits of a flow, unopened, with its gaps; its stream ends.

        The bytes are zeroed in the file and cut out of the log. A spool that was moved aside goes
        too, because it may hold more of the flow.

        Args:
            flow: id of the flow.

        Returns:
            What was deleted.

        Raises:
            SpoolError: the disk refuses; nothing was deleted, a closed lane stays closed.
        """
        with self._writing(rings=True) as db:
            row = db.execute("SELECT id FROM lane WHERE flow=?", (flow,)).fetchone()
            purged = empty(db, row[0], flow) if row else Purged(0, 0, 0)
        self._shrink(at_once=True)
        try:
            forget_damaged(self.path)
        except OSError as exc:
            raise SpoolError("the spool that was set aside cannot be deleted") from exc
        return purged

    def purge_in_part(self, flow: str) -> bool:
        """Does a part of what `purge` does to a closed lane, so that nobody waits long for it.

        A power cut may undo the parts before the last: the lane stays closed.

        Args:
            flow: id of the flow. A lane that is open again was emptied then.

        Returns:
            Whether there is more to do.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing(durable=False) as db:
            row = db.execute(
                "SELECT id, batches, bytes FROM lane WHERE flow=? AND state=?",
                (flow, LaneState.CLOSED),
            ).fetchone()
            if row is None:
                return False
            # The last ones go with the rest of it: till then a start goes on.
            if not fits(batches=row[1], size=row[2]):
                empty_in_part(db, row[0])
                return True
        if self._shrink_in_part():
            return True
        self.purge(flow)
        return False

    def lanes(self) -> dict[str, LaneView]:
        """Tells how the lanes stand.

        Returns:
            Every lane ever opened, by flow.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT flow, recipient, state, core, not_after, generation, stream.id, next,"
                " not_before FROM lane LEFT JOIN stream ON stream.number = lane.stream"
                " ORDER BY flow"
            ).fetchall()
            return {
                flow: LaneView(
                    flow=flow,
                    recipient=recipient,
                    state=LaneState(state),
                    core=bool(core),
                    not_after_ms=end,
                    generation=generation,
                    stream=None if stream is None else unsigned(stream),
                    next_sequence=following,
                    not_before_ms=begin,
                )
                for flow, recipient, state, core, end, generation, stream, following, begin in rows
            }

    def fence(self) -> int:
        """Names the newest moment at which something had to stop.

        Returns:
            A number for `fence_passed`.

        Raises:
            ReplacedError: it has fallen: an older copy lies there.
        """
        with self._reading() as db:
            fence = int(db.execute("SELECT fence FROM spool").fetchone()[0])
        self._place.note(fence)
        return fence

    def raise_fence(self, fence: int) -> None:
        """Lets the fence rise to one of another life of this spool; durable when this returns.

        Args:
            fence: it never falls.

        Raises:
            SpoolError: the disk refuses.
        """
        with self._writing() as db:
            db.execute("UPDATE spool SET fence=max(fence, ?)", (fence,))

    def fence_passed(self, fence: int) -> bool:
        """Says whether the uplink holds nothing any more that had to stop at a fence.

        Args:
            fence: from `fence`, after the lane was shut.

        Returns:
            Whether nothing of it can leave from now on. Stays false while no uplink runs.
        """
        with self._reading() as db:
            return bool(db.execute("SELECT answered >= ? FROM spool", (fence,)).fetchone()[0])


def _rid_of_the_rest(
    db: sqlite3.Connection, flow: str, wanted: tuple[str, bytes], not_before_ms: int
) -> tuple[int, bool]:
    """The lane of a flow, less what may not leave by it any more, and whether anything went."""
    row = db.execute(
        "SELECT id, recipient, state, basis, not_before,"
        " EXISTS (SELECT 1 FROM held WHERE held.lane=lane.id) FROM lane WHERE flow=?",
        (flow,),
    ).fetchone()
    if row is None:
        return _new_lane(db, flow, wanted[0]), False
    lane, recipient, state, basis, bound_ms, is_held = row
    if state == LaneState.CLOSED or (recipient, basis) != wanted:
        empty(db, lane, flow)
        return lane, True
    if bound_ms == not_before_ms and not is_held:
        keep_back_before(db, lane, not_before_ms, batches=False)
        return lane, False
    return lane, delete_before(db, lane, not_before_ms).batches > 0


def shut(db: sqlite3.Connection, flow: str, state: LaneState) -> None:
    """Pauses or closes a lane; one that is shut as much already stays as it is.

    Args:
        db: inside a transaction.
        flow: id of the flow.
        state: what it is to be.
    """
    row = db.execute("SELECT state FROM lane WHERE flow=?", (flow,)).fetchone()
    if row is None:
        if state is LaneState.CLOSED:
            _new_lane(db, flow, "")
        return
    if row[0] in {state, LaneState.CLOSED}:
        return
    db.execute("UPDATE lane SET state=?, generation=generation+1 WHERE flow=?", (state, flow))
    db.execute("UPDATE spool SET fence=fence+1")
    db.execute(
        "DELETE FROM control WHERE courtesy"
        " AND recipient NOT IN (SELECT recipient FROM lane WHERE state=?)",
        (LaneState.OPEN,),
    )


def _covered_by(db: sqlite3.Connection, flow: str) -> tuple[bytes, int] | None:
    row = db.execute(
        "SELECT basis, not_before FROM lane WHERE flow=? AND state!=?", (flow, LaneState.CLOSED)
    ).fetchone()
    return None if row is None else (row[0], row[1])


def _new_lane(db: sqlite3.Connection, flow: str, recipient: str) -> int:
    found = db.execute(
        "INSERT INTO lane VALUES (NULL, ?, ?, ?, 0, NULL, 0, NULL, 0, 0, 0, 0, NULL, x'', 0)"
        " RETURNING id",
        (flow, recipient, LaneState.CLOSED),
    ).fetchall()
    return int(found[0][0])
