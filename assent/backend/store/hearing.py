# SPDX-License-Identifier: Apache-2.0
"""Up to when a flow is proven, and what is to be said of the time since: open, unknown or ended.

Path: what custody holds, terms → **Rhythm, tail** → completeness, report.
Law:
  - nothing is proven past the newest instant that is stored, nor past the moment it arrived; where
    windows are carried, not even that far, because one that ended earlier may come later;
  - what follows is *open* while the flow was heard within its longest interval between two batches,
    else *unknown*; it is never complete;
  - it is *ended* where the gateway told the end of every stream of the flow. While a flow is off by
    choice nothing is told, so that a no looks like a gateway that has died: unknown;
  - an instant after its own arrival, or older than a gateway keeps anything, is no date.

Standards: docs/wire.md, *Gaps*; docs/terms.md.
Limits: a source that hands over what it had buffered for longer than `LATE_MS` is not foreseen.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Final

from assent.policy.terms import Terms, decode_terms

LATE_MS: Final = 3_600_000
"""So long a gateway waits at most for a reading after the end of a window."""
AHEAD_MS: Final = 600_000
"""A gateway's clock and ours may differ by so much: more than any time service leaves."""
# From a full batch to its commit here: sealing, a connection that has to be made anew, a queue.
_TRAVEL_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
# Longer than anything is old; SQLite still holds an instant less than it.
_EVER_MS: Final = 2**62


class State(enum.Enum):
    """What is said of a stretch of time."""

    COMPLETE = "complete"
    """Everything that was to come came, and is here."""
    DECLARED = "declared"
    """Something is missing, and its gateway said why."""
    UNEXPLAINED = "unexplained"
    """Something is missing, and nothing says why."""
    GONE = "gone"
    """It came, and is no longer here."""
    UNREADABLE = "unreadable"
    """What is stored of one of its streams cannot be read any more: nothing of it is proven."""
    UNDATED = "undated"
    """It is here, and nobody knows of which day it is."""
    OPEN = "open"
    """Heard of lately; more is due."""
    UNKNOWN = "unknown"
    """Not heard of since; whether anything was to come is not known."""
    ENDED = "ended"
    """Its gateway has told that nothing follows."""
    NEVER = "never"
    """Nothing ever came; whether anything was agreed to is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rhythm:
    """What is known of a flow's times before any of it came; durations in ms.

    Attributes:
        interval_ms: at most so long between two batches while there is something to read, or None
            where no policy that is published here tells.
        late_ms: so much earlier than the newest instant something may be that is still to come.
        gateway_ms: so long a gateway keeps what it cannot send, or None where no terms tell.
        recipient_ms: so long it is kept here, or None where no terms tell.
    """

    interval_ms: int | None = None
    late_ms: int = 0
    gateway_ms: int | None = None
    recipient_ms: int | None = None

    @property
    def oldest_ms(self) -> int:
        """So old a reading may be when it arrives: a day for the way, too."""
        return _EVER_MS if self.gateway_ms is None else self.gateway_ms + LATE_MS + _DAY_MS


def rhythm(encoded: Iterable[bytes], age_ms: int | None) -> Rhythm:
    """Finds a flow's times.

    Args:
        encoded: all terms its rows may stand under.
        age_ms: the longest that a batch of it stays open, or None where that is not known.

    Returns:
        The longest of each.
    """
    terms = [decode_terms(one) for one in encoded]
    if not terms:
        return Rhythm(None if age_ms is None else age_ms + _TRAVEL_MS)
    windows = [_windows(one) for one in terms]
    longest, shortest = max(map(max, windows)), min(map(min, windows))
    return Rhythm(
        interval_ms=None if age_ms is None else age_ms + longest + _TRAVEL_MS,
        late_ms=longest - shortest + LATE_MS if longest else 0,
        gateway_ms=max(int(one.keep.gateway) for one in terms),
        recipient_ms=max(int(one.keep.recipient) for one in terms),
    )


def _windows(terms: Terms) -> list[int]:
    """For how long each attribute is gathered before it leaves; 0 for those that are not."""
    return [int(one.transform.duration or 0) for one in terms.attributes] or [0]


def since_then(
    rhythm: Rhythm, known_ms: int | None, heard_ms: int | None, now_ms: int
) -> tuple[State, tuple[int | None, int]]:
    """Says how the time since a flow's last proven instant is to be taken.

    Args:
        rhythm: of the flow.
        known_ms: up to when it is proven; None where no instant of it is known.
        heard_ms: when something of it arrived last; None where nothing is in custody.
        now_ms: now, by the clock of this machine.

    Returns:
        Open or unknown; since when and until when.
    """
    interval_ms = rhythm.interval_ms
    # Before now, too: a clock here that was set back by more than that cannot judge.
    is_heard = (
        interval_ms is not None and heard_ms is not None and abs(now_ms - heard_ms) <= interval_ms
    )
    until_ms = now_ms if known_ms is None else max(now_ms, known_ms)
    return (State.OPEN if is_heard else State.UNKNOWN), (known_ms, until_ms)
