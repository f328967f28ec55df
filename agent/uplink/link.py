# SPDX-License-Identifier: Apache-2.0
"""The uplink's dealings with one recipient's broker: whether, when and how to be connected.

Law:
  - no connection while none is wanted, and none before its time;
  - every connection starts from nothing: what an earlier one had on its way went back to the spool;
  - every connection begins with version 5; 3.1.1 is for a broker that does not answer that, and
    comes first for a day only where it said in words that it does not speak 5;
  - nothing is sent to a broker that is not wanted any more, not even a CONNECT;
  - a broker is not judged by a silence in which we stood still: what it said may lie unread, and
    it may not have been asked.
"""

from __future__ import annotations

import logging
import math
import socket
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Final, assert_never

from agent.spool import Health, LinkState, Spool, Target
from agent.spool.order import RESEND_MS
from agent.uplink.connection import Connection
from agent.uplink.events import Answered, Came, Confirmed, Ended, Event, Subscribed
from agent.uplink.flight import Flight, Taking
from agent.uplink.mailbox import Mailbox
from agent.uplink.protocol import (
    Backoff,
    Reason,
    Version,
    keepalive,
    largest_message,
    needs_a_person,
    next_version,
    ping_after_s,
    silence_s,
    window,
)
from agent.uplink.tls import certificate_state, outlived
from agent.uplink.world import World
from assent.messages import up_topic
from assent.wire import MAX_MESSAGE

# Keepalives without a PUBACK while messages are on their way: the broker is there, and not working.
_PATIENCE: Final = 2
# Seconds a message is on its way, while others are confirmed, before it is sent again: as long as
# one waits that a broker took and no backend confirmed.
_LONGEST_S: Final = RESEND_MS / 1000
# Seconds we stay for the answer to a control message when no lane is open, from its PUBACK on: a
# round trip. Whoever watches the broker sees us that much longer after the last no.
_ANSWER_S: Final = 2.0
# Seconds after which a broker that does not speak version 5 is asked again whether it does.
_DAY_S: Final = 86_400.0
# Seconds between two looks after which it is us who stood still; there should be one a second.
_STILL_S: Final = 2.0
_UNANSWERED: Final = "the broker hung up before it answered; has it admitted us?"
_NO_QOS_1: Final = "the broker confirms no messages: it takes QoS 0 only"
_STOPPED: Final = "the uplink has stopped"
_DEAF: Final = "the broker does not let us read our mailbox"

log = logging.getLogger("agent.uplink")


class Link:
    """One recipient's link; owned by the uplink's thread.

    Args:
        target: the recipient's broker.
        spool: the uplink's end of the spool.
        world: time, chance and settings.
    """

    def __init__(self, target: Target, spool: Spool, world: World) -> None:
        self.target = target
        self.counted: Counter[str] = Counter()
        self._spool = spool
        self._world = world
        self._flight = Flight(target.recipient, spool, world, self.counted)
        self._mailbox = Mailbox(target.recipient, spool, world, self.counted)
        self._connection: Connection | None = None
        self._answered = False
        self._deaf = False
        self._since = 0.0
        self._not_before = 0.0
        self._keepalive_s = world.keepalive_s
        self._dialled_with = certificate_state(target)
        self._is_refused = False
        self._backoff = Backoff(world.rng)
        self._version = Version.V5
        self._proven: set[Version] = set()
        self._ask_5_s = 0.0
        self._unanswered = 0
        self._looked_s = world.monotonic()
        self._is_excused = False
        self._told: tuple[LinkState, str] | None = None

    def socket(self) -> socket.socket | None:
        """Gives the socket to wait on, or None."""
        connection = self._connection  # `cut` asks from another thread
        return None if connection is None else connection.socket()

    def wants_write(self) -> bool:
        """Says whether bytes wait for the socket."""
        return self._connection is not None and self._connection.wants_write()

    def holds(self, ids: AbstractSet[int]) -> bool:
        """Says whether any of some leases is on its way without a PUBACK."""
        return self._flight.holds(ids)

    def note(self) -> None:
        """Writes down what was delivered."""
        self._flight.note()

    def due_s(self, now: float) -> float:
        """Says in how many seconds it has something to do by itself, at most."""
        if self._connection is None:
            wait_s = self._not_before - now if self.target.wanted else math.inf
        elif self._connection.has_unread:
            wait_s = 0.0
        else:
            wait_s = self._flight.due_s(now) if self._answered else math.inf
        return max(0.0, wait_s)

    def turn(self, *, readable: bool, writable: bool, more: bool) -> None:
        """One turn of the loop.

        Args:
            readable: the socket has bytes.
            writable: the socket takes bytes.
            more: the spool may hold more than it did.

        Raises:
            SpoolError: the spool failed; the link is sound.
        """
        now = self._world.monotonic()
        if self._connection is not None:
            for event in self._connection.pump(readable=readable, writable=writable):
                self._meet(event, now)
        if self._connection is None:
            self._begin(now)
        elif not self._is_wanted(now):
            self._finish()
        elif self._answered:
            if more:
                self._mailbox.retry(self._connection)
            self._flight.send(self._connection, now, more=more)
            self._tell_flow()
        else:
            self._connection.greet()
        self._flight.note_if_due(now)

    def tick(self) -> None:
        """Looks after what only time brings; to be called about once a second."""
        now = self._world.monotonic()
        # Once: a machine that is slow for good judges as well.
        self._is_excused = now - self._looked_s > _STILL_S and not self._is_excused
        self._looked_s = now
        if self._connection is None:
            self._see_new_certificate(now)
        elif self._connection.socket() is not None:
            self._connection.tick()
            self._mailbox.retry(self._connection)
            if not self._is_excused:
                self._lose_patience(self._connection, now)

    def _see_new_certificate(self, now: float) -> None:
        if self._is_refused and self._dialled_with != certificate_state(self.target):
            self._is_refused = False
            self._not_before = now

    def _lose_patience(self, connection: Connection, now: float) -> None:
        if now - connection.heard_s > silence_s(self._keepalive_s):
            said = "has fallen silent" if self._answered else "does not answer"
            self._fail(Ended(f"the broker {said}", None, dialled=True), now)
        elif self._flight.unconfirmed_s(now) > _PATIENCE * self._keepalive_s:
            self._fail(Ended("the broker confirms nothing", None, dialled=True), now)
        elif self._flight.oldest_s(now) > _LONGEST_S:
            self._fail(Ended("the broker leaves a message unconfirmed", None, dialled=True), now)

    def abort(self, why: str) -> None:
        """Ends the connection at once; nothing that was on its way leaves any more.

        Args:
            why: for the log.
        """
        if self._connection is not None:
            log.info("aborted recipient=%s why=%s", self.target.recipient, why)
            self._drop()

    def fail(self, why: str) -> None:
        """Ends the connection at once, and waits before the next.

        Args:
            why: a sentence for a person.
        """
        self._fail(Ended(why, None, dialled=False), self._world.monotonic())

    def close(self) -> None:
        """Ends the connection when the uplink stops, and says that it has."""
        self._part("stopped")
        self._tell(LinkState.IDLE, _STOPPED)

    def _is_wanted(self, now: float) -> bool:
        last_s = self._flight.control_s if self._answered else None
        return self.target.wanted or (last_s is not None and now - last_s < _ANSWER_S)

    def _begin(self, now: float) -> None:
        if not self.target.wanted:
            self._tell(LinkState.IDLE)
            return
        if now < self._not_before:
            return
        if self._told is None or self._told[0] is not LinkState.WAITING:
            self._tell(LinkState.CONNECTING)  # not at every attempt: each report is a write
        self._since = now
        self._keepalive_s = self._world.keepalive_s
        self._dialled_with = certificate_state(self.target)
        self._connection = Connection(
            self.target,
            self._version,
            keepalive_s=self._keepalive_s,
            wall_ms=self._world.wall_ms,
            past_ms=self._world.past_ms,
            wake=self._world.wake,
        )
        self._connection.dial()

    def _finish(self) -> None:
        self._part("unwanted")
        self._tell(LinkState.IDLE)

    def _part(self, why: str) -> None:
        """Ends the connection politely, but for one that still holds what nobody confirmed."""
        if len(self._flight):
            self.abort(why)
            return
        if self._connection is not None:
            self._connection.leave()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort()  # before it is forgotten: `cut` looks for it
        self._connection = None
        if self._answered and self._world.monotonic() >= self._ask_5_s:
            self._version = Version.V5
        self._answered = self._deaf = False
        self._mailbox.forget()
        self._flight.land()

    def _meet(self, event: Event, now: float) -> None:
        if self._connection is None:
            return  # ended by an event before this one
        match event:
            case Confirmed():
                self._flight.confirmed(event, now)
            case Came():
                self._mailbox.take(self._connection, event)
            case Answered():
                self._connected(self._connection, event, now)
            case Subscribed():
                self._deaf = not event.granted
            case Ended():
                self._fail(event, now)
            case _:
                assert_never(event)

    def _connected(self, connection: Connection, event: Answered, now: float) -> None:
        unsupported = event.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION
        if not unsupported:
            self._proven.add(self._version)
            self._unanswered = 0
        if event.reason != Reason.SUCCESS:
            said = "the broker does not speak this MQTT" if unsupported else "the broker refuses us"
            refused = needs_a_person(event.reason)
            self._fail(Ended(said, event.reason, dialled=True, refused=refused), now)
            return
        if event.maximum_qos == 0:
            self._fail(Ended(_NO_QOS_1, None, dialled=True, refused=True), now)
            return
        self._answered = True
        self._since = now
        room = window(event.receive_maximum)
        largest = largest_message(event.maximum_packet, up_topic(self.target.mailbox))
        self._flight.begin(room, largest, resumed=event.resumed)
        self._spool.reconsider(self.target.recipient, MAX_MESSAGE if largest is None else largest)
        self._keepalive_s = keepalive(self._world.keepalive_s, event.keepalive_s)
        connection.ping_after(ping_after_s(self._keepalive_s))
        connection.listen()
        log.info(
            "connected recipient=%s version=%s window=%d resumed=%s",
            self.target.recipient,
            self._version.value,
            room,
            event.resumed,
        )

    def _fail(self, event: Ended, now: float) -> None:
        lived_s = now - self._since if self._answered else 0.0
        taken_over = self._answered and event.reason == Reason.SESSION_TAKEN_OVER
        wait_s = self._backoff.failed(lived_s, taken_over=taken_over, refused=event.refused)
        self._is_refused = event.refused
        if not self._answered and event.dialled:
            wait_s = self._change_version(event, now, wait_s)
        if event.hung_up or event.reason == Reason.PACKET_TOO_LARGE:
            self._flight.suspect(could_say=event.hung_up and self._version is Version.V5)
        # TLS 1.3 tells a client only now that its certificate is not liked.
        why = event.sentence
        if not self._answered:
            why = _UNANSWERED if event.hung_up else why
            why += outlived(self.target, self._world.wall_ms())
        self._drop()
        self._not_before = now + wait_s
        log.info("disconnected recipient=%s why=%r wait_s=%.1f", self.target.recipient, why, wait_s)
        self._tell(LinkState.WAITING, why)

    def _change_version(self, event: Ended, now: float, wait_s: float) -> float:
        refused = event.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION
        if not refused and (event.refused or event.reason is not None):
            return wait_s  # it said what is wrong, and that was something else
        self._unanswered += 1
        if refused and self._version is Version.V5:
            self._ask_5_s = now + _DAY_S
        tried = self._version
        self._version = next_version(
            tried, proven=tried in self._proven, refused=refused, failures=self._unanswered
        )
        # It answered, and said what is wrong, or answered the other before: no need to wait, once.
        is_known = self._version is not tried and (refused or self._version in self._proven)
        return 0.0 if is_known and self._unanswered == 1 else wait_s

    def _tell_flow(self) -> None:
        if self._flight.taking is not Taking.FREE:
            self._tell(LinkState.HOLDING, self._flight.taking.value)
        else:
            self._tell(LinkState.CONNECTED, _DEAF if self._deaf else "")

    def _tell(self, state: LinkState, detail: str = "") -> None:
        if self._told == (state, detail):
            return
        self._told = (state, detail)
        log.info("link recipient=%s state=%s detail=%r", self.target.recipient, state.value, detail)
        # The log names no host; the household may read which of its policy's brokers is meant.
        broker = self.target.broker.removeprefix("mqtts://")
        if state not in {LinkState.IDLE, LinkState.CONNECTED}:
            detail = f"{broker}: {detail}" if detail else broker
        self._spool.report(self.target.recipient, Health(state, self._world.wall_ms(), detail))
