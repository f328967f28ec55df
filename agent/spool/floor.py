# SPDX-License-Identifier: Apache-2.0
"""The floor of time as the second gate knows it: before it no clock is believed.

Law:
  - a lane is open for the uplink while its row says so and its end lies after the wall clock and
    after the floor: a clock that was set back does not open again what had ended;
  - while a no waits for the ledger its lane is not open, whoever opens the row again meanwhile;
  - the floor is an instant that a trusted clock told, with the time since boot at which it did. In
    that boot it rises as time passes, in a later one by all the time since that boot.

Limits: the collecting side writes it; what it knows better (`agent/floor.py`) counts there.
"""

from __future__ import annotations

from typing import Final

from agent.spool.records import LaneState
from agent.spool.store import Store

_FLOOR: Final = "ifnull((SELECT max(at + iif(:boot >= boot, :boot - boot, :boot)) FROM floor), 0)"
PAST: Final = f"max(:now, {_FLOOR})"
"""The latest instant that is past, as SQL with the parameters of `IS_OPEN`."""
IS_OPEN: Final = (
    f"state={LaneState.OPEN.value} AND (not_after IS NULL OR not_after > {PAST})"  # noqa: S608 - no input
    " AND flow NOT IN (SELECT flow FROM refusal)"
)
"""Whether a lane is open, as SQL; `:now` is wall time and `:boot` time since boot, both in ms."""


class Floors(Store):
    """Writing and reading the floor."""

    def set_floor(self, at_ms: int, boot_ms: int) -> None:
        """Says what the floor is; durable when this returns, and cheap where it was said before.

        Args:
            at_ms: what a trusted clock told, in ms since 1970.
            boot_ms: how long after boot it did.

        Raises:
            SpoolError: the disk refuses; the old one stays.
        """
        with self._reading() as db:
            if db.execute("SELECT at, boot FROM floor").fetchall() == [(at_ms, boot_ms)]:
                return
        with self._writing() as db:
            db.execute("DELETE FROM floor")
            db.execute("INSERT INTO floor VALUES (?, ?)", (at_ms, boot_ms))

    def floor_ms(self, boot_ms: int) -> int:
        """Gives the floor, in ms since 1970.

        Args:
            boot_ms: time since boot, now.

        Returns:
            The floor; 0 where none was ever said.
        """
        with self._reading() as db:
            return int(db.execute(f"SELECT {_FLOOR}", {"boot": boot_ms}).fetchone()[0])
