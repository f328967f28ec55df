# SPDX-License-Identifier: Apache-2.0
"""The uplink program: the network and sealed bytes; no devices, no keys, no ledger.

Law:
  - it is on the leash (agent/leash.py) before it says that it is ready or opens the spool; then it
    may still wait for the spool, which the collecting side makes;
  - of agent.toml it takes where the state is, of the state the spool, of the spool the rest;
  - the watchdog is fed by the uplink's own turns.

Security: runs as a user who can read nothing but agent.toml, the spool and its TLS keys.
"""

from __future__ import annotations

import logging
from pathlib import Path

from agent.leash import worn
from agent.service.life import Life
from agent.settings import salvage
from agent.spool.voucher import Voucher
from agent.uplink import Uplink
from assent.errors import AssentError

# As agent/site.py has it for the other side, which this program must not import.
_SPOOL = Path("spool") / "spool.db"
# Seconds to wait for an earlier uplink that ends.
_LEASH_S = 3.0
_WAIT_S = 0.2

log = logging.getLogger(__name__)


def uplink(directory: Path) -> int:
    """Carries for a configuration directory until it is told to stop.

    Returns:
        The exit code, 0.

    Raises:
        AssentError: agent.toml does not say where the state is.
        RefusedError: another uplink carries.
        SpoolError: the spool's directory cannot be used.
    """
    life = Life()
    life.hear_signals()
    settings = salvage(directory)
    if settings is None:
        raise AssentError(f"{directory / 'agent.toml'} does not say where the state is")
    path = settings.state / _SPOOL
    while not path.parent.is_dir():  # nobody has collected yet, and there is no leash to wear
        if life.stop.wait(_WAIT_S):
            return 0
    with worn(path, patience_s=_LEASH_S):
        life.ready()
        _carry(path, Voucher(settings.state), life)
    return 0


def _carry(path: Path, voucher: Voucher, life: Life) -> None:
    life.tell("waits for the spool")
    while not path.exists():
        life.turned()
        if life.stop.wait(_WAIT_S):
            return
    life.tell("carries")
    log.info("running spool=%s", path)
    Uplink(path, voucher=voucher, turned=life.turned).run(life.stop)
    life.ending()
    log.info("stopped")
