# SPDX-License-Identifier: Apache-2.0
"""Messages on their way to one broker: leased, published, and what became of each.

Law:
  - a message is published within the window and the broker's packet size, never into a connection
    that has not answered;
  - it counts as delivered on a PUBACK that says yes; in every other case the spool has it back;
  - what had no PUBACK when a connection ended is noted as handed over: it may arrive;
  - what waited before the connection, and what nobody confirmed, is paced; what is new is not;
  - what the broker does not take, or nobody would get, is not poured out: one message is tried,
    after waits that grow;
  - a broker may hang up on a message it does not want, one of 3.1.1 can do nothing else: what was
    on its way at several such ends is sent alone, and postponed when it was that, so that the
    others go on: for 15 minutes, doubling to 6 hours. It does not count as delivered, whatever the
    broker's word is worth otherwise. One that could have said why is asked more often: it is more
    likely the line.

Limits: on 3.1.1 a topic that is refused, or that nobody reads, looks like success. The backend's
acknowledgement covers that: what it did not confirm is sent again.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from agent.spool import Lease, Spool
from agent.spool.order import RESEND_MAX_MS, RESEND_MS
from agent.uplink.connection import Connection
from agent.uplink.events import Confirmed
from agent.uplink.protocol import BYTES_IN_FLIGHT, WINDOW, Backoff, Pace, Receipt, receipt_of
from agent.uplink.world import World

# Seconds a note of deliveries may wait to share a transaction with the next ones.
_NOTE_S: Final = 0.2
# Ends with the same message on its way after which it is sent alone, and is postponed: with the
# waits between them some ten seconds, and five minutes of a broker that could have said why
# (docs/decisions/0017).
_SUSPECT: Final = 3
_POSTPONE: Final = 5
_POSTPONE_UNSAID: Final = 12

# Messages a second that are sent again because no backend confirmed them: a full spool of them is
# spread over an hour or more, and a fleet whose backend was away does not drown it.
_AGAIN_PER_S: Final = 10
# Messages a second that waited before the connection. A week of the example policy, three flows in
# batches of ten minutes, is 3,000 of them and takes half a minute; a fleet that comes back after an
# outage brings the broker no more than this each (docs/decisions/0017).
_LATE_PER_S: Final = 100
# Seconds between two looks while only the pace holds messages back.
_PACE_S: Final = 0.1

log = logging.getLogger("agent.uplink")


class Taking(enum.Enum):
    """Whether the broker takes messages."""

    FREE = ""
    NOBODY = "no backend is subscribed"
    REFUSED = "the broker does not take our messages"


class _Flying(NamedTuple):
    """A lease that was published: which, when, how large, and whether it is control."""

    id: int
    sent_s: float
    size: int
    is_control: bool


class Flight:
    """The window of one link; it outlives connections.

    Args:
        recipient: id of the recipient.
        spool: the uplink's end of the spool.
        world: time and chance.
        counted: what to count in.

    Attributes:
        taking: whether the broker takes messages now.
        control_s: when control was published or confirmed last, in monotonic seconds, or None.
    """

    def __init__(self, recipient: str, spool: Spool, world: World, counted: Counter[str]) -> None:
        self.taking = Taking.FREE
        self.control_s: float | None = None
        self._recipient = recipient
        self._spool = spool
        self._world = world
        self._counted = counted
        self._window = WINDOW
        self._largest: int | None = None
        self._flying: dict[int, _Flying] = {}
        self._bytes = 0
        self._confirmed_s = 0.0
        self._done: list[int] = []
        self._done_since = 0.0
        self._hold = Backoff(world.rng)
        self._hold_until = 0.0
        self._struck: Counter[int] = Counter()
        self._postponed: Counter[int] = Counter()
        self._dry = False
        self._late = Pace(_LATE_PER_S)
        self._again = Pace(_AGAIN_PER_S)
        self._paced_until = 0.0
        self._recalling = False

    def __len__(self) -> int:
        return len(self._flying)

    def due_s(self, now: float) -> float:
        """Says in how many seconds it has something to do by itself, or infinity."""
        held = self.taking is not Taking.FREE and not self._flying and not self._dry
        hold_s = self._hold_until - now if held else math.inf
        note_s = self._done_since + _NOTE_S - now if self._done else math.inf
        pace_s = self._paced_until - now if now < self._paced_until else math.inf
        return 0.0 if self._recalling else min(hold_s, note_s, pace_s)

    def begin(self, window: int, largest: int | None, *, resumed: bool) -> None:
        """Takes the limits of a new connection.

        Args:
            window: messages that may be without PUBACK.
            largest: bytes a message may have, or None.
            resumed: the broker still knew our session. One that does not has most likely lost what
                it took, too.
        """
        self._window, self._largest, self._dry = window, largest, False
        self._recalling = not resumed
        self._spool.note_arrears(self._recipient)

    def holds(self, ids: AbstractSet[int]) -> bool:
        """Says whether any of some leases is on its way without a PUBACK."""
        return any(one.id in ids for one in self._flying.values())

    def unconfirmed_s(self, now: float) -> float:
        """Says for how long messages are on their way and none was confirmed, in seconds."""
        return min(self.oldest_s(now), now - self._confirmed_s)

    def oldest_s(self, now: float) -> float:
        """Says for how long the oldest message is on its way, in seconds."""
        return now - min((one.sent_s for one in self._flying.values()), default=now)

    def send(self, connection: Connection, now: float, *, more: bool) -> None:
        """Publishes what may go now.

        Args:
            connection: one that has answered.
            now: monotonic seconds.
            more: the spool may hold more than it did.
        """
        if self._recalling:
            self._recalling = self._spool.recall(self._recipient, self._world.wall_ms())
        self._dry = self._dry and not more
        free = 0 if self._dry or now < self._paced_until else self._free(now)
        if free > 0:
            self._publish(connection, now, self._lease(free, now))

    def _lease(self, free: int, now: float) -> list[Lease]:
        late, again = self._late.allows(now), self._again.allows(now)
        leases = self._spool.lease(
            self._recipient,
            free,
            self._world.wall_ms(),
            late=late,
            resends=again,
            max_bytes=BYTES_IN_FLIGHT - self._bytes,
            boot_ms=self._world.boot_ms(),
        )
        self._late.spend(sum(lease.late for lease in leases))
        self._again.spend(sum(lease.again for lease in leases))
        if not leases and min(late, again) < free:
            self._paced_until = now + _PACE_S  # there may be some that have to wait
        elif not leases:
            self._dry = True
            if not self._flying:
                self._struck.clear()  # whatever was suspected is gone
        return leases

    def _publish(self, connection: Connection, now: float, leases: list[Lease]) -> None:
        left = self._without_too_large(leases)
        try:
            while left and (mid := connection.publish(left[0].data)) is not None:
                lease = left.pop(0)
                self._flying[mid] = _Flying(lease.id, now, len(lease.data), lease.flow is None)
                self._bytes += len(lease.data)
                self._counted["published"] += 1
                if lease.flow is None:
                    self.control_s = now
        finally:
            self._spool.returned([one.id for one in left])

    def _free(self, now: float) -> int:
        if self.taking is not Taking.FREE:
            return 1 if now >= self._hold_until and not self._flying else 0
        if any(count >= _SUSPECT for count in self._struck.values()):
            return 0 if self._flying else 1
        free = self._window - len(self._flying)
        # One query for half a window, not one for each PUBACK.
        is_half_empty = free * 2 >= self._window and self._bytes * 2 <= BYTES_IN_FLIGHT
        return free if is_half_empty else 0

    def _without_too_large(self, leases: list[Lease]) -> list[Lease]:
        largest = self._largest
        if largest is None:
            return leases
        large = [one.id for one in leases if len(one.data) > largest]
        if not large:
            return leases
        log.warning("too large recipient=%s count=%d", self._recipient, len(large))
        self._counted["too large"] += len(large)
        self._spool.set_aside(large)
        leases[:] = [one for one in leases if len(one.data) <= largest]
        return leases

    def confirmed(self, event: Confirmed, now: float) -> None:
        """Takes a PUBACK.

        Args:
            event: of a message of this connection.
            now: monotonic seconds.
        """
        flown = self._flying.pop(event.mid, None)
        if flown is None:
            return
        key, self._confirmed_s = flown.id, now
        self._bytes -= flown.size
        self._struck.pop(key, None)
        if flown.is_control:
            self.control_s = now
        receipt = receipt_of(event.reason)
        if receipt is Receipt.ARRIVED:
            if not self._done:
                self._done_since = now
            self._done.append(key)
            self._counted["delivered"] += 1
            self.taking = Taking.FREE
            self._hold.worked()
            return
        self._counted["not delivered"] += 1
        self._spool.returned([key])
        self._dry = False
        if self.taking is Taking.FREE or now >= self._hold_until:
            self._hold_until = now + self._hold.failed()
        self.taking = Taking.NOBODY if receipt is Receipt.NOBODY else Taking.REFUSED

    def note_if_due(self, now: float) -> None:
        """Writes deliveries down when there is nothing to wait for any more."""
        if self._done and (not self._flying or now - self._done_since > _NOTE_S):
            self.note()

    def note(self) -> None:
        """Writes deliveries down."""
        if self._done:
            done, self._done = self._done, []
            self._spool.delivered(done, self._world.wall_ms())

    def suspect(self, *, could_say: bool = False) -> None:
        """Notes that the broker hung up on what was on its way.

        Args:
            could_say: it speaks version 5 and might have said what it has against it.
        """
        most = _POSTPONE_UNSAID if could_say else _POSTPONE
        for mid, (key, _, size, _) in list(self._flying.items()):
            self._struck[key] += 1
            if self._struck[key] >= most and len(self._flying) == 1:
                log.warning("postponed recipient=%s why=suspect", self._recipient)
                self._counted["postponed"] += 1
                del self._struck[key], self._flying[mid]
                self._bytes -= size
                self._postponed[key] += 1
                wait_ms = min(RESEND_MAX_MS, RESEND_MS << min(self._postponed[key] - 1, 8))
                self._spool.postpone([key], self._world.wall_ms() + wait_ms)

    def land(self) -> None:
        """Gives back what is on its way when a connection has ended, and notes that it was."""
        flying = [one.id for one in self._flying.values()]
        self._spool.returned(flying)
        self._flying.clear()
        self._bytes = 0
        self._dry = self._recalling = False
        self.note()
        self._spool.handed_over(flying, self._world.wall_ms())
