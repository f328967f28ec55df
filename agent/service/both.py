# SPDX-License-Identifier: Apache-2.0
"""Both programs in one process, for development and small boards.

Security: this process holds keys and network together; what keeps them apart is then our code and
not the kernel.
"""

from __future__ import annotations

import threading
from pathlib import Path

from agent.leash import worn
from agent.lock import instance_lock
from agent.service.collect import LOCK_S, Collecting, starting
from agent.service.life import Life
from agent.settings import load_settings
from agent.site import SPOOL, make_state
from agent.spool.voucher import Voucher
from agent.uplink import Uplink


def serve(directory: Path) -> int:
    """Collects and carries for a configuration directory until it is told to stop.

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
    path = settings.state / SPOOL
    with (
        starting(life),
        instance_lock(settings.state, patience_s=LOCK_S),
        worn(path, patience_s=LOCK_S),
    ):
        uplink = Uplink(path, voucher=Voucher(settings.state))
        thread = threading.Thread(target=uplink.run, args=(life.stop,), name="uplink")
        Collecting(settings, life, _Beside(uplink, thread)).run(thread)
    return 0


class _Beside:
    """The uplink as the collecting side sees it, where it is a thread of the same process."""

    def __init__(self, uplink: Uplink, thread: threading.Thread) -> None:
        self._uplink = uplink
        self._thread = thread

    def is_there(self) -> bool:
        return self._thread.is_alive()

    def cut(self) -> bool:
        return self._uplink.cut()
