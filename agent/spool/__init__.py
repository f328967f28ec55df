# SPDX-License-Identifier: Apache-2.0
"""The durable queue between the two processes: put, lease, acknowledge, purge, quota, lanes, gaps.

Path: seal → **spool** → uplink, and uplink → **inbox** → collect. One SQLite file; each side opens
its own `Spool`, nothing is shared in memory.

Law:
  - what `put` returned from is on the disk, and leaves it only as `agent/spool/queue.py` says;
  - what a closed lane held never leaves (`agent/spool/lanes.py`);
  - a file that is not sound is moved aside at `open`, and a fresh one takes its place.

Security: it holds sealed bytes only, and tells its readers flow ids, sizes and times. Both users of
the group can write it: the uplink could delete or replay what waits, not read it.
Limits: one collecting and one uplink process. `Spool.id` tells a spool from the one before it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agent.spool.absence import Absences
from agent.spool.count import Counted
from agent.spool.gaps import Gaps
from agent.spool.held import HeldStreams
from agent.spool.log import SentLog
from agent.spool.queue import Queue
from agent.spool.records import (
    Acknowledged,
    Boot,
    ClockTrust,
    Dropped,
    Health,
    Held,
    Inbound,
    LaneState,
    LaneView,
    Lease,
    LinkState,
    Purged,
    Sent,
    Target,
    Waiting,
)
from agent.spool.refusals import Refusals
from agent.spool.rest import Resting
from agent.spool.schema import HeldError

__all__ = [
    "Acknowledged",
    "Boot",
    "ClockTrust",
    "Dropped",
    "Health",
    "Held",
    "HeldError",
    "Inbound",
    "LaneState",
    "LaneView",
    "Lease",
    "LinkState",
    "Purged",
    "Sent",
    "Spool",
    "Target",
    "Waiting",
]


class Spool(Queue, HeldStreams, Gaps, Absences, Counted, SentLog, Refusals, Resting):
    """The spool through one connection; one thread uses it at a time.

    The collecting side calls what `Lanes`, `Queue`, `HeldStreams`, `Gaps`, `Absences`, `Counted`,
    `SentLog`, `Refusals` and `Mail` offer, the uplink what `Resting` and `Carrier` offer.

    Attributes:
        path: the file.
        id: 16 random bytes, new for every file.
        moved_aside: where a damaged spool was put when this one was opened, or None.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, moved_aside: Path | None) -> None:
        super().__init__(path, db, moved_aside)
        self._leased = {}
        self._arrears = {}
