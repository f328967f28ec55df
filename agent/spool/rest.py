# SPDX-License-Identifier: Apache-2.0
"""Whether the uplink may leave the spool alone: a look would find what the last one found.

Law:
  - it is at rest while nobody writes, nothing is leased, no no lies beside it, no end passes,
    nothing comes due, and no clock goes back; in every other case it is worth a look;
  - after a write it is looked at once more than is needed, so that nothing falls in between.

Limits: while batches wait that may leave, it is never at rest, whether or not a broker is there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.spool.carrier import Carrier
from agent.spool.floor import PAST
from agent.spool.order import RESEND_MAX_MS
from agent.spool.records import LaneState
from agent.spool.schema import NEVER

# The first time something ends, and comes due; whether a clock that was set back made it due.
_SOONEST: Final = (
    f"SELECT min(not_after - {PAST}),"  # noqa: S608 - no input
    " min((SELECT min(due) FROM batch WHERE lane=lane.id)) - :now,"
    " max(EXISTS (SELECT 1 FROM batch WHERE lane=lane.id AND due > :far AND due < :never))"
    " FROM lane WHERE state=:open"
)


class _Rest(NamedTuple):
    """What stood in the spool when it was reckoned, and how long it may be left alone."""

    state: tuple[int, int]
    wall_ms: int
    boot_ms: int
    lasts_ms: int

    def holds(self, state: tuple[int, int], now_ms: int, boot_ms: int) -> bool:
        passed = (now_ms - self.wall_ms, boot_ms - self.boot_ms)
        return state == self.state and min(passed) >= 0 and max(passed) < self.lasts_ms


class Resting(Carrier):
    """Telling whether there is anything to look for."""

    _rest: _Rest | None = None

    def at_rest(self, now_ms: int, *, boot_ms: int) -> bool:
        """Says whether nothing is to be done; cheap. To be called after `changed`.

        Args:
            now_ms: wall time.
            boot_ms: time since boot.

        Returns:
            False where it is worth looking; who is told so looks.

        Raises:
            SpoolError: the file cannot be read.
        """
        if self._leased or self._noes.left():
            self._rest = None
            return False
        state = (self._seen, self._db.total_changes)
        if self._rest is not None and self._rest.holds(state, now_ms, boot_ms):
            return True
        self._rest = _Rest(state, now_ms, boot_ms, self._lasting_ms(now_ms, boot_ms))
        return False

    def _lasting_ms(self, now_ms: int, boot_ms: int) -> int:
        values = {
            "now": now_ms,
            "boot": boot_ms,
            "far": now_ms + RESEND_MAX_MS,
            "never": NEVER,
            "open": LaneState.OPEN,
        }
        with self._reading() as db:
            *spans, is_far = db.execute(_SOONEST, values).fetchone()
        return 0 if is_far else min((span for span in spans if span is not None), default=NEVER)
