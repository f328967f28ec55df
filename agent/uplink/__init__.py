# SPDX-License-Identifier: Apache-2.0
"""Carries sealed bytes to the brokers and brings bytes back to the inbox.

Path: spool → **uplink** → broker, and broker → **uplink** → inbox.

Law:
  - it connects to the targets the spool names and to nothing else, and only while a lane is open or
    control waits that was asked for;
  - it leases from the spool that the collecting side vouched for, and from no older copy of it;
  - after a lane was shut it lets go of what it held of it, then answers the fence;
  - it never ends by itself: an error of one link ends that connection, an error of the spool is
    waited out.

Security: it sees sealed bytes, reads no key but its TLS keys, and hands inbound bytes on unread.
Limits: one thread for all targets; dialling has a short one of its own, which is not waited for:
it makes the line and says nothing on it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from agent.spool import Spool, Target
from agent.spool.voucher import Voucher
from agent.uplink.cut import dissolve
from agent.uplink.link import Link
from agent.uplink.protocol import Backoff
from agent.uplink.world import World
from assent.errors import SpoolError

# Seconds between two looks at the spool when nobody rings its bell, and where there is no bell: so
# that a withdrawal returns within 100 ms.
_TICK_S: Final = 1.0
_LOOK_S: Final = 0.04
# Seconds of silence after which the broker is asked whether it is there; it has as long to answer.
KEEPALIVE_S: Final = 60

_Sockets: TypeAlias = AbstractSet[socket.socket]

log = logging.getLogger(__name__)


class Uplink:
    """The uplink of one gateway.

    Args:
        spool_path: the spool; the collecting side makes it.
        voucher: knows which spool may be leased from; None where there is one only.
        wall_ms: wall time in ms since 1970.
        boot_ms: time since boot in ms, counting sleep.
        monotonic: seconds that never go back.
        rng: for waits; no secret.
        keepalive_s: seconds.
        turned: called after every turn, about once a second at least; for a watchdog.
    """

    def __init__(
        self,
        spool_path: Path,
        *,
        voucher: Voucher | None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        boot_ms: Callable[[], int] = lambda: (
            time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        ),
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        keepalive_s: int = KEEPALIVE_S,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        chance = rng or random.Random()  # noqa: S311 - waits, no secrets
        self._path = spool_path
        self._voucher = voucher
        self._is_vouched = True
        self._wall_ms = wall_ms
        self._world = World(
            self._now_ms, self._past_ms, boot_ms, monotonic, chance, keepalive_s, self.wake
        )
        self._began_ms = 0
        """When this boot began at the earliest, by the floor, in ms since 1970."""
        self._turned = turned
        self._bell: socket.socket | None = None
        self._links: dict[str, Link] = {}
        self._next_tick = 0.0

    def run(self, stop: threading.Event) -> None:
        """Carries until told to stop; then leaves politely.

        Args:
            stop: ends it; `wake` makes it notice at once.
        """
        ear, self._bell = socket.socketpair()
        patience = Backoff(self._world.rng)
        with ear, self._bell:
            ear.setblocking(False)  # noqa: FBT003 - the library's signature
            self._bell.setblocking(False)  # noqa: FBT003 - same
            while not stop.is_set():
                began = self._world.monotonic()
                try:
                    self._serve(stop, ear)
                except SpoolError as exc:
                    log.warning("spool why=%r", exc.message)
                except Exception:
                    # A thread that dies silently stops everything for ever (trap 6 of test_uplink).
                    log.exception("uplink failed; it goes on")
                # A disk that stays full must not make us send the same again and again.
                self._rest(stop, patience.failed(self._world.monotonic() - began))

    def wake(self) -> None:
        """Interrupts the wait; any thread may call it."""
        if self._bell is not None:
            with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it has ended
                self._bell.send(b"\0")

    def cut(self) -> bool:
        """Ends every connection, however the uplink's thread is; any thread may call it.

        Returns:
            Whether nothing that they held leaves any more.
        """
        sockets = [one for link in list(self._links.values()) if (one := link.socket())]
        done = [dissolve(one) for one in sockets]  # every one, also after one that failed
        return all(done)

    def counted(self) -> dict[str, dict[str, int]]:
        """Counts per recipient what was published, delivered, received, set aside."""
        return {recipient: dict(link.counted) for recipient, link in list(self._links.items())}

    def _serve(self, stop: threading.Event, ear: socket.socket) -> None:
        spool = Spool.open(self._path, create=False)
        try:
            spool.bell.listen()  # before the first look, so that nothing is missed in between
            self._look(spool)
            while not stop.is_set():
                readable, writable = self._wait(spool, ear)
                more = spool.changed()
                now = self._world.monotonic()
                tick = now >= self._next_tick
                if tick:
                    self._next_tick = now + _TICK_S
                    more = not (self._is_vouched and self._at_rest(spool)) or more
                if more:
                    self._look(spool)
                for link in list(self._links.values()):
                    self._turn(link, readable, writable, more=more, tick=tick)
                self._turned()
        finally:
            self._close(spool)

    def _rest(self, stop: threading.Event, rest_s: float) -> None:
        while rest_s > 0 and not stop.wait(min(rest_s, _TICK_S)):
            self._turned()
            rest_s -= _TICK_S

    def _wait(self, spool: Spool, ear: socket.socket) -> tuple[_Sockets, _Sockets]:
        sockets = {one: link for link in self._links.values() if (one := link.socket())}
        writers = [one for one, link in sockets.items() if link.wants_write()]
        bell = spool.bell.listen()
        heard: list[socket.socket | int] = (
            [ear, *sockets] if bell is None else [ear, bell, *sockets]
        )
        now = self._world.monotonic()
        patience_s = max(0.0, self._next_tick - now)
        due = [link.due_s(now) for link in self._links.values()]
        patience_s = min([patience_s, *due, *([_LOOK_S] if bell is None else [])])
        try:
            readable, writable, _ = select.select(heard, writers, [], patience_s)
        except (OSError, ValueError):  # a socket was closed under us; its link will notice
            return set(sockets), set()
        if bell in readable:
            spool.bell.hush()
        if ear in readable:
            with contextlib.suppress(OSError):
                ear.recv(4096)
        return {one for one in sockets if one in readable}, set(writable)

    def _at_rest(self, spool: Spool) -> bool:
        return spool.at_rest(self._world.wall_ms(), boot_ms=self._world.boot_ms())

    def _now_ms(self) -> int:
        """The wall clock, or the floor where the clock stands before it."""
        return max(self._wall_ms(), self._past_ms())

    def _past_ms(self) -> int:
        return self._began_ms + self._world.boot_ms()

    def _look(self, spool: Spool) -> None:
        # The order is the law: what must stop is read first, let go of, and only then answered.
        fence = spool.fence()
        boot_ms = self._world.boot_ms()
        self._began_ms = spool.floor_ms(boot_ms) - boot_ms
        now_ms = self._world.wall_ms()
        for link in self._links.values():
            link.note()
        if not self._is_the_one(spool):
            self._settle_targets({}, spool)
            spool.answer_fence(fence)
            return
        revoked = spool.revoked(now_ms, boot_ms=boot_ms)
        for link in self._links.values():
            if link.holds(revoked):
                link.abort("withdrawn")
        spool.answer_fence(fence)
        targets = spool.targets(now_ms, boot_ms=boot_ms)
        self._settle_targets({target.recipient: target for target in targets}, spool)

    def _is_the_one(self, spool: Spool) -> bool:
        """Whether this is the spool that was decided about, and no old copy of it."""
        before = self._is_vouched
        self._is_vouched = self._voucher is None or self._voucher.vouches_for(spool)
        if before and not self._is_vouched:
            log.warning("nobody has vouched for this spool yet; the collecting side does")
        return self._is_vouched

    def _settle_targets(self, targets: Mapping[str, Target], spool: Spool) -> None:
        for recipient, link in list(self._links.items()):
            target = targets.get(recipient)
            if target is None or not _same(target, link):
                link.abort("target changed")
                del self._links[recipient]
        for recipient, target in targets.items():
            if recipient in self._links:
                self._links[recipient].target = target
            else:
                self._links[recipient] = Link(target, spool, self._world)

    def _turn(
        self,
        link: Link,
        readable: _Sockets,
        writable: _Sockets,
        *,
        more: bool,
        tick: bool,
    ) -> None:
        found = link.socket()
        try:
            link.turn(readable=found in readable, writable=found in writable, more=more)
            if tick:
                link.tick()
        except SpoolError:
            raise
        except Exception:
            log.exception("link failed recipient=%s", link.target.recipient)
            link.fail("an error of ours; the log has it")

    def _close(self, spool: Spool) -> None:
        # Each is known until all are closed: `cut` must find one whose turn has not come.
        try:
            for link in self._links.values():
                try:
                    link.close()
                except SpoolError as exc:
                    log.warning("closing recipient=%s why=%r", link.target.recipient, exc.message)
        finally:
            self._links = {}
            spool.close()


def _same(target: Target, link: Link) -> bool:
    return msgspec.structs.replace(target, wanted=link.target.wanted) == link.target
