# SPDX-License-Identifier: Apache-2.0
"""What the uplink brought: read, believed or counted, and done.

Path: broker → uplink → spool's inbox → **mailroom** → spool, or a policy in force.
Law:
  - an acknowledgement deletes what was stored; what is not believed changes nothing and is counted,
    and told once an hour at most for each reason: whoever may write to our topic fills no log;
  - a turn reads a part of it, whatever a recipient sends: whoever says a no waits no longer;
  - a fork is told to who owns the lanes: an old copy of this gateway goes on where it was, and the
    numbers of its streams were used up by the one that came before;
  - a policy is on the disk before it is in force, and is put back when it cannot be recorded: a
    crash in between is made good by the start.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from agent.arrival import Arrival, NotKeptError, keep, put_back
from agent.inbox import Rejected, read_inbound
from agent.pipeline.timekeeper import Timekeeper
from agent.site import Site
from agent.spool import Spool
from assent.messages import Acknowledgement, StreamAck, Time
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Instant

# Messages read in one turn, and the ranges that may be in them: a turn takes some 0.1 s here.
_INBOX: Final = 256
_RANGES: Final = 4_096
# To open a message, or to judge a policy, takes as long as so many ranges.
_OPENING: Final = 64
_JUDGING: Final = 512
# Milliseconds from one word about a reason to the next, which says how many came in between.
_TELL_MS: Final = 3_600_000

log = logging.getLogger(__name__)


class _Heard:
    """What a recipient acknowledged, and the messages it said so in."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.streams: list[StreamAck] = []


class _Told(NamedTuple):
    """How many of a reason were told, and when, in monotonic milliseconds."""

    total: int
    at_ms: int


class Mailroom:
    """Reads the inbox; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
        clock: which is told the time.
    """

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self.timekeeper = Timekeeper(spool, clock)
        """Asks for the time; its answers are read here."""
        self.rejected: Counter[str] = Counter()
        """Messages from below that were not believed, by reason."""
        self._spool = spool
        self._forked: set[str] = set()
        self._told: dict[str, _Told] = {}

    def read(
        self, site: Callable[[], Site], now: Instant, on_policy: Callable[[], bool]
    ) -> frozenset[str]:
        """Reads what the uplink brought, and does it.

        Args:
            site: tells what is installed, which a policy that comes down changes.
            now: now.
            on_policy: puts a policy that was kept in force; whether it is recorded.

        Returns:
            Flows whose present stream has forked.

        Raises:
            SpoolError: the disk refuses; what was not done is read again.
        """
        done: list[int] = []
        acks: dict[str, _Heard] = {}
        room = _RANGES
        for inbound in self._spool.take_inbox(_INBOX):
            if room <= 0:
                break
            room -= _OPENING
            match read_inbound(inbound, site().keys, site().policy):
                case Acknowledgement(streams=streams):
                    heard = acks.setdefault(inbound.recipient, _Heard())
                    heard.ids.append(inbound.id)
                    heard.streams += streams
                    room -= sum(len(one.ranges) + len(one.refused) for one in streams)
                case Arrival() as arrival:
                    self._acknowledge(acks, now)
                    self._take_policy(site().settings.state, arrival, on_policy)
                    done.append(inbound.id)
                    room -= _JUDGING
                case Time() as told:
                    if not self.timekeeper.hear(inbound.recipient, told, site(), now):
                        self._reject("time-not-asked")
                    done.append(inbound.id)
                case Rejected(reason=reason):
                    self._reject(reason)
                    done.append(inbound.id)
                    room -= _JUDGING
                case None:
                    done.append(inbound.id)
        self._acknowledge(acks, now)
        self._spool.drop_inbox(done)
        self._tell(now)
        forked, self._forked = frozenset(self._forked), set()
        return forked

    def _acknowledge(self, acks: dict[str, _Heard], now: Instant) -> None:
        """Does what was said; what is too much for a turn stays, and is read again."""
        while acks:
            recipient, heard = acks.popitem()
            done = self._spool.acknowledge(recipient, heard.streams, now.wall_ms, heard.ids)
            log.info("acknowledged recipient=%s batches=%d", recipient, done.batches)
            self._forked |= done.forked

    def _take_policy(self, state: Path, arrival: Arrival, on_policy: Callable[[], bool]) -> None:
        try:
            before = keep(state, arrival.data)
        except NotKeptError as exc:
            self._reject(exc.code)
            return
        log.info("policy came down serial=%d", arrival.policy.serial)
        if not on_policy():
            put_back(state, before)
            self._reject("policy-not-recorded")

    def _reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def _tell(self, now: Instant) -> None:
        for reason, count in self.rejected.items():
            told = self._told.get(reason)
            if told is None or (count > told.total and now.mono_ms >= told.at_ms + _TELL_MS):
                more = count if told is None else count - told.total
                log.warning("message from below refused reason=%s count=%d", reason, more)
                self._told[reason] = _Told(count, now.mono_ms)
