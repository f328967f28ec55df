# SPDX-License-Identifier: Apache-2.0
"""What every program of ours has: signals, readiness, a watchdog that only turns feed.

Law:
  - SIGTERM and SIGINT set `stop`, SIGHUP sets `reload`, in a thread (`assent/signals.py`);
  - WATCHDOG=1 is told from `turned` only, so that a program whose work stands still is ended by its
    manager, however alive its other threads are.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from agent.notify import is_managed, notify, watchdog_interval_s
from assent.signals import hear

# A manager waits 90 s for a start before it ends it itself.
_LINGER_S: Final = 60.0
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Life:
    """One program from its start to its end; made on the main thread.

    Attributes:
        stop: set when it is to end.
        reload: set when it is to read its files again; cleared by who does.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self._interval_s = watchdog_interval_s()
        self._fed = time.monotonic()
        self._is_ready = False
        logging.basicConfig(
            level=logging.INFO, format="level=%(levelname)s room=%(name)s %(message)s"
        )

    def hear_signals(self, wake: Callable[[], None] = lambda: None) -> None:
        """Takes the signals of a service manager from now on; called before any other thread is.

        Args:
            wake: wakes the work after a signal; called by a thread of its own.
        """

        def obey(number: int) -> None:
            (self.reload if number == signal.SIGHUP else self.stop).set()
            wake()

        hear(_SIGNALS, obey)

    def patience_s(self, longest_s: float) -> float:
        """How long a turn may wait, so that the watchdog is fed in time.

        Args:
            longest_s: how long it waits where nobody watches.
        """
        return longest_s if self._interval_s is None else min(longest_s, self._interval_s / 2)

    def ready(self) -> None:
        """Tells the manager that the work has begun."""
        self._is_ready = True
        notify("READY=1")

    def tell(self, sentence: str) -> None:
        """Tells the manager in words what the work is now; `systemctl status` shows it."""
        notify(f"STATUS={sentence}")

    def turned(self) -> None:
        """Notes that one turn of the work is done; feeds the watchdog."""
        now = time.monotonic()
        if self._interval_s is not None and now - self._fed >= self._interval_s:
            self._fed = now
            notify("WATCHDOG=1")

    def linger(self, why: str) -> None:
        """Waits before a start that failed is given up, where a manager would begin it again.

        What keeps it from starting is for a person to mend: to look once a minute is enough.

        Args:
            why: what the manager is told meanwhile; `systemctl status` shows it.
        """
        if not self._is_ready and is_managed():
            self.tell(f"cannot start: {why}")
            self.stop.wait(_LINGER_S)

    def ending(self) -> None:
        """Tells the manager that the end has begun, whoever began it."""
        self.stop.set()
        notify("STOPPING=1")
