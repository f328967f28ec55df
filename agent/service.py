# SPDX-License-Identifier: Apache-2.0
"""The process: signals, readiness, watchdog.

Law:
  - SIGTERM and SIGINT close the open batches into the spool, then end; SIGHUP reads the files anew
    and keeps the old settings when agent.toml is bad;
  - READY=1 is told once the first decision is made; WATCHDOG=1 only while the owner turns.

Security: one process here holds keys and network together; the two-process form comes with the
units.
Limits: one instance a state directory, by its lock.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from types import FrameType
from typing import Any

from agent.control import Control
from agent.desk import Desk
from agent.lock import instance_lock
from agent.notify import notify, watchdog_interval_s
from agent.pipeline import Pipeline
from agent.settings import Settings, load_settings
from agent.site import SPOOL, make_state, open_site
from agent.spool import Spool
from agent.uplink import Uplink
from assent.errors import AssentError, ControlError
from firmware_bridge.clock import Clock

# A turn of the owner ends at least this often, so that signals and the watchdog are served.
_TURN_S = 0.1
# Longer than the longest act: a purge of a full spool.
_ACT_S = 30.0

# A command that looks into the stores holds the lock for less than a second.
_PATIENCE_S = 3.0

log = logging.getLogger(__name__)


def serve(directory: Path) -> int:
    """Runs the agent of a configuration directory until it is told to stop.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: agent.toml is bad; at start there is no old one to keep.
        RefusedError: another instance runs.
        KeyStoreError: secrets cannot be read.
    """
    logging.basicConfig(level=logging.INFO, format="level=%(levelname)s room=%(name)s %(message)s")
    settings = load_settings(directory)
    make_state(settings.state)
    with instance_lock(settings.state, patience_s=_PATIENCE_S):
        _Process(settings).run()
    return 0


class _Process:
    """Everything that lives while the agent runs; built and ended by its own thread."""

    def __init__(self, settings: Settings) -> None:
        self._stop = threading.Event()
        self._reload = threading.Event()
        clock = Clock(trust="system" if settings.clock_is_system else "synchronised")
        site = open_site(settings, clock.now())
        path = settings.state / SPOOL
        self._spool = Spool.open(path)
        self._trusted = clock.now().trusted
        self._pipeline = Pipeline(site, self._spool, clock)
        self._desk = Desk(self._pipeline, running=True)
        self._control = Control(settings.state, self._answer)
        self._uplink = Uplink(path)
        self._uplink_thread = threading.Thread(
            target=self._uplink.run, args=(self._stop,), name="uplink"
        )

    def run(self) -> None:
        """Starts, turns, and ends in the reverse order."""
        self._hear_signals()
        self._desk.read_form()
        self._pipeline.start()
        self._control.start()
        self._uplink_thread.start()
        notify("READY=1")
        log.info("running state=%s", self._pipeline.site.settings.state)
        try:
            self._turn_until_told()
        finally:
            notify("STOPPING=1")
            self._end()

    def _turn_until_told(self) -> None:
        interval = watchdog_interval_s()
        fed = time.monotonic()
        while not self._stop.is_set():
            self._pipeline.turn(_TURN_S)
            if self._reload.is_set() or self._clock_flipped():
                self._reload.clear()
                self._desk.reload()
            if interval is not None and time.monotonic() - fed >= interval:
                fed = time.monotonic()
                notify("WATCHDOG=1")

    def _clock_flipped(self) -> bool:
        """Whether the clock was trusted a moment ago and is not now, or the other way round."""
        before, self._trusted = self._trusted, self._pipeline.clock.now().trusted
        return before != self._trusted

    def _end(self) -> None:
        self._stop.set()
        self._control.stop()
        self._pipeline.stop()
        self._uplink_thread.join()
        self._spool.close()
        log.info("stopped")

    def _hear_signals(self) -> None:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._stop.set()

        def reload(_signal: int, _frame: FrameType | None) -> None:
            self._reload.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload)

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Has the owner thread answer, so that an act never meets a reading half-way."""
        promise: Future[Mapping[str, Any]] = Future()

        def work() -> None:
            try:
                promise.set_result(self._desk.answer(request))
            except AssentError as exc:
                promise.set_exception(exc)
            except BaseException:
                # A half-done act: better to end, and to decide everything anew at the next start.
                promise.set_exception(ControlError("the agent failed inside; see its log"))
                raise

        self._pipeline.act(work)
        try:
            return promise.result(_ACT_S)
        except FutureTimeoutError as exc:
            raise ControlError("the agent is busy and did not get to it in time") from exc
