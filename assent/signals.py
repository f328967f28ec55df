# SPDX-License-Identifier: Apache-2.0
"""Signals of a service manager, heard in a thread.

A handler runs in the middle of what its thread does, where the lock of an event that it wants to
set may be held: it would wait for itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection


def hear(signals: Collection[signal.Signals], obey: Callable[[int], None]) -> None:
    """Takes signals from now on; called on the main thread, before any other is made.

    Args:
        signals: which.
        obey: called with the number of each, by a thread of its own.
    """

    def listen() -> None:
        while True:
            obey(signal.sigwait(signals))

    # Threads inherit the mask: only the one below gets these signals (signal(7)).
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=listen, name="signals", daemon=True).start()
