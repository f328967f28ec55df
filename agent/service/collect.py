# SPDX-License-Identifier: Apache-2.0
"""The collecting program: devices, keys, ledger and plaintext; no network.

Law:
  - where the keys forbid a start it is tried once a minute, not as often as the manager would;
  - a no that was said meanwhile is recorded before anything else (agent/meanwhile.py);
  - SIGTERM and SIGINT close the open batches into the spool, then end; SIGHUP reads the files anew
    and keeps the old settings when agent.toml is bad;
  - READY=1 is told once the first decision is made; the watchdog is fed by the owner's turns.

Security: opens no socket but the local one of agent/control.py.
Limits: one instance a state directory, by its lock.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.control import Control
from agent.desk import Desk
from agent.fence import Carrier
from agent.leash import Leash
from agent.lock import instance_lock
from agent.meanwhile import hear_refusals
from agent.path import ENROL, Reason
from agent.pipeline import Pipeline
from agent.service.life import Life
from agent.settings import Settings, load_settings
from agent.site import SPOOL, make_state, open_site
from agent.spool import Spool
from assent.errors import AssentError, ControlError, KeyStoreError
from firmware_bridge.clock import Clock

# A turn of the owner ends at least this often; readings, acts and signals end it at once. Ten turns
# a second cost as much as reading a meter does (benchmarks/modbus.py).
_TURN_S = 1.0
# Longer than the longest act: a purge of a full spool.
_ACT_S = 30.0

# Seconds between two looks for noes that the spool keeps.
_LISTEN_S = 0.25
# The same while the ledger does not take them; they are in force.
_RETRY_S = 60.0

LOCK_S = 3.0
"""Seconds a program waits for a command that looks into the stores; that takes less than one."""

log = logging.getLogger(__name__)


def collect(directory: Path) -> int:
    """Collects for a configuration directory until it is told to stop.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: agent.toml is bad; at start there is no old one to keep.
        RefusedError: another instance runs.
        KeyStoreError: secrets cannot be read.
    """
    life = Life()
    settings = load_settings(directory)
    make_state(settings.state)
    with starting(life), instance_lock(settings.state, patience_s=LOCK_S):
        Collecting(settings, life, Leash(settings.state / SPOOL)).run()
    return 0


@contextlib.contextmanager
def starting(life: Life) -> Iterator[None]:
    """Ends a start that the keys forbid after a while; the block holds the lock, this does not.

    Raises:
        KeyStoreError: that of the block.
    """
    try:
        yield
    except KeyStoreError as exc:
        log.error("nothing may run: %s", exc.message)  # no trace: it is no slip
        life.linger(exc.message)
        raise


class Collecting:
    """Everything that lives while the program collects; built and ended by its own thread.

    Args:
        settings: as agent.toml says.
        life: of the program.
        carrier: the uplink.
    """

    def __init__(self, settings: Settings, life: Life, carrier: Carrier) -> None:
        self._life = life
        clock = Clock(trust=settings.trust)
        site = open_site(settings, clock)
        self._spool = Spool.open(settings.state / SPOOL)
        self._trusted = clock.now().trusted
        self._pipeline = Pipeline(site, self._spool, clock, carrier)
        self._desk = Desk(self._pipeline, running=True)
        self._control = Control(settings.state, self._answer)
        self._listen_again_s = 0.0

    def run(self, beside: threading.Thread | None = None) -> None:
        """Starts, turns, and ends in the reverse order.

        Args:
            beside: the uplink's thread, where it is one of this process; started and waited for.
        """
        self._life.hear_signals(lambda: self._pipeline.act(_nothing))
        hear_refusals(self._pipeline, self._desk.say_no)
        self._desk.read_form()
        self._pipeline.start()
        self._control.start()
        if beside is not None:
            beside.start()
        self._life.ready()
        log.info("running state=%s", self._pipeline.site.settings.state)
        self._tell_what_to_do_first()
        try:
            self._turn_until_told()
        finally:
            self._life.ending()
            self._end(beside)

    def _tell_what_to_do_first(self) -> None:
        site = self._pipeline.site
        if site.trouble is not None and site.trouble.reason is Reason.NOT_ENROLLED:
            log.warning(
                "nothing is collected or delivered, no policy key is trusted; type: %s --config %s",
                ENROL,
                site.settings.directory,
            )

    def _turn_until_told(self) -> None:
        while not self._life.stop.is_set():
            self._pipeline.turn(self._life.patience_s(_TURN_S))
            self._listen()
            self._desk.look_again()
            if self._life.reload.is_set() or self._clock_flipped():
                self._life.reload.clear()
                self._desk.reload()
            self._life.turned()

    def _listen(self) -> None:
        """Hears noes that were said past us, because we stood still for a while."""
        now = time.monotonic()
        if now >= self._listen_again_s:
            recorded = hear_refusals(self._pipeline, self._desk.say_no)
            self._listen_again_s = now + (_LISTEN_S if recorded else _RETRY_S)

    def _clock_flipped(self) -> bool:
        """Whether the clock was trusted a moment ago and is not now, or the other way round."""
        before, self._trusted = self._trusted, self._pipeline.clock.now().trusted
        return before != self._trusted

    def _end(self, beside: threading.Thread | None) -> None:
        self._control.close()
        self._pipeline.stop()  # which does what was asked for by then
        self._control.stop()
        if beside is not None:
            self._spool.bell.ring()  # else it looks up within a second
            beside.join()
        self._spool.close()
        log.info("stopped")

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Has the owner thread answer, so that an act never meets a reading half-way."""
        told: queue.SimpleQueue[Mapping[str, Any] | AssentError] = queue.SimpleQueue()

        def work() -> None:
            try:
                told.put(self._desk.answer(request))
            except AssentError as exc:
                told.put(exc)
            except BaseException:
                # A half-done act: better to end, and to decide everything anew at the next start.
                told.put(ControlError("the agent failed inside; see its log"))
                raise

        self._pipeline.act(work)
        try:
            answer = told.get(timeout=_ACT_S)
        except queue.Empty as exc:
            raise ControlError("the agent is busy and did not get to it in time") from exc
        if isinstance(answer, AssentError):
            raise answer
        return answer


def _nothing() -> None:
    """An act that only ends the owner's wait."""
