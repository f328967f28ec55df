# SPDX-License-Identifier: Apache-2.0
"""The path, wired; the only room that opens hardware.

Path: source → door (lists of samples) → **owner thread**: router → lane → seal → spool; and
inbox → spool on the way back.
Law:
  - one thread owns lanes, router and sealer; sources hand it whole lists and acts are done between
    two of them, so that an act and a reading never meet half-way;
  - a source that is faster than the owner waits at the door; nothing piles up in memory; an act
    waits for no source, and is heard while the disk refuses and the door is shut;
  - a decision that could not be carried out is taken up again, and ends the agent when it still
    cannot: what should be off does not go on;
  - ends of consent, ages and epochs are looked at several times a second, not per reading.
Limits: a crash loses what came since the last commit of the journal (`keeping`).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Collection
from typing import Final

from agent.fence import Carrier, Outcome, pass_fence, unhindered
from agent.floor import Mark
from agent.journal import Journal
from agent.path import Verdict
from agent.pipeline.accord import is_no
from agent.pipeline.courtesy import Courtesy
from agent.pipeline.door import Door
from agent.pipeline.hardware import Hardware
from agent.pipeline.keeping import Keeping
from agent.pipeline.mailroom import Mailroom
from agent.pipeline.running import Running
from agent.pipeline.telling import Telling
from agent.site import JOURNAL, Site
from agent.spool import Purged, Spool
from agent.spool.schema import DamagedError
from agent.watch import Seen, Watch
from assent.errors import SpoolError
from firmware_bridge.clock import Clock
from firmware_bridge.health import Health
from firmware_bridge.sample import Instant, Sample

# Withdrawals come through the door; ages, ends and epochs may be this late, or as late as a turn
# is long when nothing stands there.
_LOOK_AROUND_MS: Final = 250
# While the disk refuses nobody stands at the door who could end the wait, and an act must not wait.
_STUCK_MS: Final = 100

Act = Callable[[], None]

log = logging.getLogger(__name__)


class Pipeline:
    """Owner of the path; every method but `deliver` and `act` belongs to the owner's thread.

    Args:
        site: what is installed, opened and verified.
        spool: the collecting side's end of the spool.
        clock: where time comes from.
        carrier: the uplink, to be ended when it does not answer; None where nobody knows it.
    """

    def __init__(
        self, site: Site, spool: Spool, clock: Clock, carrier: Carrier | None = None
    ) -> None:
        self.site = site
        self.spool = spool
        self.clock = clock
        self.verdicts: dict[str, Verdict] = {}
        self._mailroom = Mailroom(spool, clock)
        self.rejected = self._mailroom.rejected
        """Messages from below that were not believed, by reason."""
        self.denied: set[str] = set()
        """Flows to which a no was said that is in no record: off until a later word or the end."""
        self.on_policy: Callable[[], bool] = lambda: False
        """Puts the policy that was kept in force; set by who judges forms. False: it could not."""
        journal = Journal(site.settings.state / JOURNAL, site.keys.journal_key, spool.id)
        telling = Telling(spool, site.settings.state)
        keeping = Keeping(journal, site.settings.commit_ms, clock.boot_id)
        self.running = Running(spool, keeping, telling)
        self._courtesy = Courtesy(spool)
        self._door = Door()
        self._acts: queue.SimpleQueue[Act] = queue.SimpleQueue()
        self._hardware = Hardware(clock, self.deliver)
        self._watch = Watch()
        self._started = False
        self._is_decided = False
        self.carrier = carrier
        self._answered = 0
        self._look_again_ms = 0
        self._trouble: str | None = None
        self._tended: tuple[tuple[int, int], Mark | None] | None = None
        self._tended_site: Site | None = None

    def deliver(self, samples: list[Sample], ended: threading.Event | None = None) -> None:
        """Hands samples to the owner; called by the sources' threads, waits while it is behind.

        Args:
            samples: what one read of a source gave.
            ended: set when the source is to be closed: then nothing is waited for any more.
        """
        self._door.hand_over(samples, ended)

    def act(self, work: Act) -> None:
        """Has the owner do something between two lists of samples; called by other threads."""
        self._acts.put(work)
        self._door.knock()

    def turn(self, timeout_s: float) -> None:
        """One turn of the owner: what stands at the door, then what time asks for.

        Args:
            timeout_s: how long to wait at the door.
        """
        if self.running.is_stuck():
            # The disk refuses: the door stays shut, so that memory stays bounded.
            self.clock.wait(min(int(timeout_s * 1000), _STUCK_MS))
            self.running.store_again()
        else:
            due_s = self.running.keeping.due_in_ms(self.clock.now().mono_ms) / 1000
            patience_s = min(timeout_s, due_s) if due_s else timeout_s
            self._open_door(0 if self.running.purging.is_due else patience_s)
        self._hear()
        now = self.clock.now()
        if now.mono_ms >= self._look_again_ms:
            self._look_again_ms = now.mono_ms + _LOOK_AROUND_MS
            self._look_around(now)
        if self.running.purging.is_due:
            self._tend(self.running.purging.part)

    def decide(self) -> None:
        """Asks the gate; ends lanes that lost their permit, opens those that got one.

        Durable when this returns: a flow without a permit has no open lane in the spool, and what
        waited of a flow that was narrowed is gone. What waited of one that was taken back never
        leaves, and is deleted in the next turns; before `start`, when there are none, at once, and
        nothing is opened.
        """
        now = self.clock.now()
        self._is_decided = False
        self.site.floor.note(now, self.site.ends())
        self.verdicts = self._verdicts(now)
        if not self._started:
            self.running.end_refused(self.site, self.verdicts, now)
            self.running.purging.all()
        else:
            self.running.follow(self.site, self.verdicts, now)
            if not self._door.is_closing:
                self._follow()
        self.site.drop_unreadable(self.verdicts)
        self._tell_floor()
        self._is_decided = True

    def settle(self) -> Outcome:
        """Decides after an act: nothing of a flow that it shut leaves once this has returned.

        The rows are closed first, then the uplink has said that it holds nothing of them, is not
        there, or was ended; only then is anything deleted.

        Returns:
            How the uplink took it; only after `SILENT` something may still leave.
        """
        self._is_decided = False
        doomed = self.running.doomed(self.site, self._verdicts(self.clock.now()))
        for flow in doomed:
            self._close_row(flow)
        outcome = self._pass_fence() if doomed else Outcome.ANSWERED
        self.decide()
        if self.spool.fence() != self._answered:
            later = self._pass_fence()
            return later if outcome.is_certain else outcome
        return outcome

    def shut(self, flow: str) -> tuple[Purged, Outcome]:
        """Ends one flow after a no: the lane row is closed, then as `settle`; it is purged after.

        Returns:
            What goes unsent, with the readings of the open batch; how the uplink took it.
        """
        self._is_decided = False
        self._close_row(flow)
        outcome = self._pass_fence()
        purged = self.running.end(flow)
        if outcome is not Outcome.ANSWERED:
            self._answered = self.spool.fence()  # nobody there to wait for a second time
        later = self.settle()
        return purged, outcome if later is Outcome.ANSWERED or not outcome.is_certain else later

    def start(self) -> None:
        """Begins to work: makes the first decision and opens what a running flow wants.

        What an earlier life recorded and did not carry out is carried out as by `settle`.
        """
        self._started = True
        self._answered = self.spool.fence()
        self.settle()

    def look(self, viewer: str, devices: Collection[str], *, is_waiting: bool = False) -> Seen:
        """What some devices said since a viewer looked last; opens those that are shut."""
        while not (self._started or self._door.empty()):  # no lane is there that could take it
            self._watch.see(self._door.get_nowait())
        before = self._watch.devices
        now_ms = self.clock.now().mono_ms
        seen = self._watch.look(viewer, devices, now_ms, is_waiting=is_waiting)
        if not self._door.is_closing and self._watch.devices != before:
            self._follow()
        return seen

    def reread(self) -> None:
        """Looks at the devices' profiles again; the next decision opens what is another now."""
        self._hardware.reread(self.site.settings)

    def flush(self) -> None:
        """Closes the open batches into the spool; the lanes go on."""
        self.running.flush()

    def stop(self) -> None:
        """Closes the hardware, takes what still stands at the door, closes the open batches.

        What was to be deleted is deleted, or by the next start where the disk refuses.
        """
        self._door.is_closing = True
        self._hardware.stop()
        while not self._door.empty():
            self._open_door(0)
        self._hear()
        self.running.finish(self.clock.now())
        with contextlib.suppress(SpoolError):
            self.running.purging.all()

    def health(self) -> list[Health]:
        """How each opened device does."""
        return self._hardware.health()

    def delivered(self) -> dict[str, frozenset[str]]:
        """What each usable device can deliver, wanted or not, by device id."""
        return self._hardware.delivered(self.site.settings)

    def _follow(self) -> None:
        self._hardware.follow(self.site.settings, self.running.wanted(), self._watch.devices)

    def _verdicts(self, now: Instant) -> dict[str, Verdict]:
        verdicts = self.site.verdicts(now)
        return {
            flow: verdict
            for flow, verdict in verdicts.items()
            if flow not in self.denied or is_no(verdict)
        }

    def _close_row(self, flow: str) -> None:
        unhindered(self.spool, self.carrier, lambda: self.spool.close_lane(flow))

    def _pass_fence(self) -> Outcome:
        self._answered = self.spool.fence()
        if self.carrier is None and not self._started:
            return Outcome.ABSENT
        return pass_fence(self.spool, self.carrier, self.clock)

    def _open_door(self, timeout_s: float) -> None:
        with contextlib.suppress(queue.Empty):
            samples = self._door.get(timeout=timeout_s)
            now = self.clock.now()
            if self.running.reckoning.differs(now):
                self._turn_over(samples, now)
            elif samples:
                self._watch.see(samples)
                self.running.take(samples)

    def _turn_over(self, samples: list[Sample], now: Instant) -> None:
        """Takes what came by the clock of before; then decides by the one of now, and goes on."""
        samples = samples + self._door.all()
        self._watch.see(samples)
        before, after = self.running.reckoning.parted(samples, now)
        self.running.take(before)
        self.settle()
        self.running.take(after)

    def _hear(self) -> None:
        while not self._acts.empty():
            self._acts.get_nowait()()

    def _look_around(self, now: Instant) -> None:
        shut = self.running.shut_by_others
        site = self.site
        site.floor.note(now, site.ends())
        is_outdated = self.running.is_outdated(now, site.floor.past_ms(now))
        if shut or not self._is_decided or is_outdated:
            self.denied |= shut
            shut.clear()
            self.settle()
        if self.running.reckoning.differs(now):
            self._turn_over([], now)
        if self._watch.end_old(now.mono_ms):
            self._follow()
        self.running.close_due(now)
        self.running.keeping.every_ms = site.settings.commit_ms
        if not self.running.keeping.due_in_ms(now.mono_ms):
            self.running.keep(now)
        self.running.purging.again()
        self._tend(lambda: self._keep_house(now))

    def _tend(self, work: Act) -> None:
        try:
            work()
        except DamagedError:
            raise  # the next start moves the file aside
        except SpoolError as exc:
            if exc.message != self._trouble:
                log.error("spool not tended, tried again reason=%s", exc.message)
            self._trouble = exc.message
        else:
            self._trouble = None

    def _tell_floor(self) -> None:
        """Tells the second gate what floor stands on the disk."""
        kept = self.site.floor.kept
        if kept is not None:
            self.spool.set_floor(kept.at_ms, kept.boot_ms)

    def _keep_house(self, now: Instant) -> None:
        running = self.running
        if not now.trusted:
            self.spool.expire_held(self.clock.boot_id, now.mono_ms)
        elif not running.reckoning.is_in_doubt(now):
            self.spool.expire(now.wall_ms)
        running.telling.pay()
        self._mailroom.timekeeper.look(self.site, self.verdicts, now)
        self._see_to_spool(now)
        if now.trusted:
            running.telling.look(now, running.lanes(), self._hardware, self.site)

    def _see_to_spool(self, now: Instant) -> None:
        """Reads the mail, greets and trims, where anything is another than it was left."""
        running, site, kept = self.running, self.site, self.site.floor.kept
        state = self.spool.state()  # before the work: what is written meanwhile is another
        if (state, kept) == self._tended and site is self._tended_site:
            return
        self._tell_floor()
        running.renew(self._mailroom.read(lambda: self.site, now, self.on_policy), now)
        self._courtesy.greet(self.site)
        self.spool.enforce_quota(self.site.settings.quota_bytes)
        self.spool.trim_sent()
        if running.telling.vouch():
            self._tended, self._tended_site = (state, kept), site
