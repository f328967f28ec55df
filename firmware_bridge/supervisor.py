# SPDX-License-Identifier: Apache-2.0
"""Opens sources, watches that they speak, opens them again with backoff, reports their health.

Path: Source → **supervisor** → deliver (the pipeline).
Law:
  - one thread per source opens, reads and closes it; a source that fails, hangs or raises whatever
    it likes stops no other;
  - a source that gives nothing for longer than its `fresh_ms` is closed, reported and opened again;
  - between two attempts lie 1 to 60 s, twice as many after each failure, at random within them; the
    first sample ends the series;
  - the end of a recording is no failure: it is not opened again;
  - what is not wanted is closed, and stays closed; a source that can is told what is wanted of it
    before it reads on, by its own thread;
  - what goes and what returns is logged once each way.

Security: a foreign exception is reported by its kind only, because its text may hold a value, an
identifier or a path; a house error by its message, which by rule holds none.
Limits: a thread cannot be taken out of a call that never returns. Such a source shows as silent,
and `stop` leaves its thread behind; nothing it still brings is delivered.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from assent.errors import AssentError
from assent.units import Duration
from firmware_bridge.clock import Clock, WakingClock
from firmware_bridge.health import Health, State
from firmware_bridge.sample import (
    ChoosySource,
    EndOfSource,
    Sample,
    SilentSourceError,
    Source,
    trouble_of,
)

Deliver = Callable[[list[Sample]], None]
"""Takes what one source read; called from the threads of all sources, so it must bear that."""

_SHORTEST_BACKOFF_MS: Final = 1_000
_LONGEST_BACKOFF_MS: Final = 60_000
# A source that returns at once with nothing must not eat the processor.
_PAUSE_MS: Final = 20
_STOP_S: Final = 1.0
_IDLE_MS: Final = 3_600_000  # looked at again when wanted, or after an hour for nothing

_RANDOM: Final = secrets.SystemRandom()

log = logging.getLogger(__name__)


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """One source to look after.

    Attributes:
        device_id: the installation's name for the device.
        kind: what sort of appliance it is.
        make: makes the source, once, with a clock whose waits end when it is to be closed.
        fresh_ms: silent for longer than this, it is opened again and reported; None for a source
            that may be silent as long as it likes.
    """

    device_id: str
    kind: str
    make: Callable[[Clock], Source]
    fresh_ms: int | None


_BAD: Final = frozenset({State.SILENT, State.FAILED})


class Supervisor:
    """Looks after all sources of this gateway; owned by the pipeline.

    Args:
        configured: the sources; their device ids are unique.
        deliver: what to do with samples; what it raises is counted and stops nothing.
        clock: gives freshness and backoff their time.
        between: picks a number from a range, for the jitter of the backoff.
    """

    def __init__(
        self,
        configured: Sequence[Configured],
        deliver: Deliver,
        clock: Clock,
        *,
        between: Callable[[float, float], float] = _RANDOM.uniform,
    ) -> None:
        self._keepers = tuple(_Keeper(one, deliver, clock, between) for one in configured)

    def start(self, wanted: Collection[str] | None = None) -> None:
        """Starts a thread per source.

        Args:
            wanted: device ids to open, or None for all of them.
        """
        for keeper in self._keepers:
            if wanted is not None:
                keeper.want(wanted=keeper.configured.device_id in wanted)
            keeper.thread.start()

    def want(
        self, device_ids: Collection[str], only: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        """Says which devices are wanted from now on: the others are closed, these are opened.

        Returns at once. A delivery that is under way may still finish; what an unwanted source
        reads afterwards is dropped.

        Args:
            device_ids: the devices that are wanted.
            only: the attributes that are wanted of a device, from its next read on; of one that is
                not named, all.
        """
        for keeper in self._keepers:
            keeper.choose((only or {}).get(keeper.configured.device_id))
            keeper.want(wanted=keeper.configured.device_id in device_ids)

    def stop(self) -> tuple[str, ...]:
        """Stops all sources for good; returns within about a second.

        Returns:
            Device ids whose thread hangs in its source and is left behind; empty when all is well.
        """
        for keeper in self._keepers:
            keeper.stop()
        end_s = time.monotonic() + _STOP_S  # threads are joined in real time, whatever the clock
        for keeper in self._keepers:
            if keeper.thread.ident is not None:
                keeper.thread.join(max(0.0, end_s - time.monotonic()))
        left = tuple(k.configured.device_id for k in self._keepers if k.thread.is_alive())
        for device_id in left:
            log.error("event=source-left-behind device=%s", device_id)
        return left

    def health(self) -> list[Health]:
        """How each source is, in the order they were configured."""
        return [keeper.health() for keeper in self._keepers]


class _Keeper:
    """One source and its thread. Only the thread writes; `want` and `stop` set flags for it."""

    def __init__(
        self,
        configured: Configured,
        deliver: Deliver,
        clock: Clock,
        between: Callable[[float, float], float],
    ) -> None:
        self.configured = configured
        self.thread = threading.Thread(
            target=self._run, name=f"source-{configured.device_id}", daemon=True
        )
        self._deliver = deliver
        self._clock = clock
        self._between = between
        self._source: Source | None = None
        self._trouble: Callable[[], str | None] = lambda: None
        self._wanted = True
        self._chosen: frozenset[str] | None = None
        self._told: frozenset[str] | None = None  # what the source was told is wanted of it
        self._stopping = False
        self._wake = threading.Event()
        self._health = Health(
            device_id=configured.device_id,
            kind=configured.kind,
            state=State.STARTING,
            since_ms=clock.now().wall_ms,
        )
        self._series = 0  # failures since the last sample
        self._heard_ms = 0  # monotonic: when it last gave something, or was opened
        self._called_ms: int | None = None  # monotonic: since when a call into the source lasts
        self._delivers = True

    def want(self, *, wanted: bool) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    def choose(self, names: frozenset[str] | None) -> None:
        self._chosen = names

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def health(self) -> Health:
        health, called_ms, fresh_ms = self._health, self._called_ms, self.configured.fresh_ms
        if called_ms is None or fresh_ms is None:
            return health
        if self._clock.now().mono_ms - called_ms <= fresh_ms:
            return health
        error = f"a call into the source has lasted for more than {Duration(fresh_ms)}"
        return msgspec.structs.replace(health, state=State.SILENT, error=error)

    def _is_on(self) -> bool:
        return self._wanted and not self._stopping

    def _run(self) -> None:
        while not self._stopping and self._health.state is not State.ENDED:
            if not self._wanted:
                self._enter(State.IDLE)
                self._rest(_IDLE_MS)
                continue
            if self._health.state is State.IDLE:
                self._enter(State.STARTING)
            self._attempt()
            if self._series and self._is_on():
                self._rest(self._backoff_ms())
        if self._health.state is not State.ENDED:
            self._enter(State.STOPPED)

    def _attempt(self) -> None:
        """Opens, reads and closes the source once; nothing that it raises leaves here."""
        try:
            try:
                self._listen(self._opened())
            finally:
                self._close()
        except EndOfSource:
            self._enter(State.ENDED)
            log.info("event=source-ended device=%s", self._health.device_id)
        except SilentSourceError as exc:
            self._fail(State.SILENT, exc.message)
        except AssentError as exc:
            self._fail(State.FAILED, exc.message)
        except BaseException as exc:  # noqa: BLE001 - one source must not take the others with it
            self._fail(State.FAILED, f"{type(exc).__name__} in the source")
        finally:
            self._called_ms = None

    def _opened(self) -> Source:
        self._heard_ms = self._called_ms = self._clock.now().mono_ms
        if self._source is None:
            self._source = self.configured.make(WakingClock(self._clock, self._wake))
            self._trouble = trouble_of(self._source)
        self._source.open()
        return self._source

    def _close(self) -> None:
        if self._source is None:
            return
        self._called_ms = self._clock.now().mono_ms
        try:
            self._source.close()
        except BaseException as exc:  # noqa: BLE001 - what was wrong before matters more
            kind = type(exc).__name__
            log.warning("event=close-failed device=%s kind=%s", self._health.device_id, kind)

    def _listen(self, source: Source) -> None:
        while self._is_on():
            called_ms = self._called_ms = self._clock.now().mono_ms
            self._tell_chosen(source)
            samples = source.read()
            self._called_ms = None
            if not self._is_on():
                return
            if samples:
                self._hand_over(samples)
                continue
            now_ms = self._clock.now().mono_ms
            fresh_ms = self.configured.fresh_ms
            if fresh_ms is not None and now_ms - self._heard_ms > fresh_ms:
                raise SilentSourceError(f"nothing came for more than {Duration(fresh_ms)}")
            self._rest(called_ms + _PAUSE_MS - now_ms)

    def _tell_chosen(self, source: Source) -> None:
        chosen = self._chosen
        if chosen != self._told and isinstance(source, ChoosySource):
            source.choose(chosen)
            self._told = chosen

    def _hand_over(self, samples: list[Sample]) -> None:
        self._series = 0
        self._enter(State.RUNNING, self._trouble())
        try:
            self._deliver(samples)
        except BaseException as exc:  # noqa: BLE001 - a fault of the pipeline is not the source's
            self._note(undelivered=self._health.undelivered + len(samples))
            if self._delivers:
                kind = type(exc).__name__
                log.error("event=delivery-failed device=%s kind=%s", self._health.device_id, kind)
            self._delivers = False
        else:
            if not self._delivers:
                log.info("event=delivery-returned device=%s", self._health.device_id)
            self._delivers = True
        now = self._clock.now()
        self._heard_ms = now.mono_ms
        self._note(last_sample_ms=now.wall_ms, samples=self._health.samples + len(samples))

    def _fail(self, state: State, error: str) -> None:
        self._series += 1
        if self._health.state not in _BAD:
            log.warning('event=source-failed device=%s error="%s"', self._health.device_id, error)
        self._enter(state, error)
        self._note(failures=self._health.failures + 1)

    def _enter(self, state: State, error: str | None = None) -> None:
        was = self._health
        if (was.state, was.error) == (state, error):
            return
        if was.state in _BAD and state is State.RUNNING:
            log.info("event=source-returned device=%s", was.device_id)
        since_ms = was.since_ms if was.state is state else self._clock.now().wall_ms
        self._note(state=state, error=error, since_ms=since_ms)

    def _note(self, **changes: object) -> None:
        self._health = msgspec.structs.replace(self._health, **changes)

    def _backoff_ms(self) -> int:
        longest = min(_LONGEST_BACKOFF_MS, _SHORTEST_BACKOFF_MS << min(self._series, 6))
        return round(self._between(_SHORTEST_BACKOFF_MS, longest))

    def _rest(self, duration_ms: int) -> None:
        # Flags are set before the event and read again after this clear, so no call is lost.
        if self._clock.wait(duration_ms, self._wake):
            self._wake.clear()
