# SPDX-License-Identifier: Apache-2.0
"""The collecting side's word for a spool, kept away from it: which one it is, and what it has shut.

Path: decision → **voucher**, beside the TLS keys → uplink, which leases from no other spool.
Law:
  - a spool is vouched for when it is the one that is named and its fence stands where the word has
    it, or further on: an older copy does not know of what was shut since;
  - without a word, or one that can be read, nothing is leased;
  - the word is given after the lanes are as the gate says, so that an old spool that is put back
    gets it only when what must not leave is shut in it.

Security: it lies in the one directory besides the spool's that the uplink can read, and where it
cannot write. A fence rises with every lane that is shut and every purge, and with nothing else: in
normal life the uplink drains whether anybody collects or not.
Limits: a copy of the whole state has the word that belongs to it. While the disk refuses the new
word the old one holds.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple

from agent.spool.lanes import Lanes
from assent import durable

_PLACE: Final = Path("keys") / "tls"
_NAME: Final = "spool"
_DIRECTORY_MODE: Final = 0o2750  # as agent/keys/tls.py makes it
_MODE: Final = 0o640
_MAX_BYTES: Final = 128

log = logging.getLogger(__name__)


class _Word(NamedTuple):
    spool: str
    fence: int


class Voucher:
    """The word for the spool of one state.

    Args:
        state: the state directory.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / _PLACE / _NAME
        self._refusal: str | None = None

    def vouches_for(self, spool: Lanes) -> bool:
        """Whether the collecting side has decided about this spool, and it is no older copy.

        Raises:
            SpoolError: the spool cannot be read.
        """
        word = self._read()
        return word is not None and word.spool == spool.id.hex() and spool.fence() >= word.fence

    def give(self, spool: Lanes) -> bool:
        """Vouches for a spool whose lanes are as the gate says; costs little while it has.

        An older copy is led past the fence of the one that it took the place of, so that no copy
        of a time between the two is ever taken for it.

        Returns:
            Whether the word stands; else the disk refused it, and it is to be given again.

        Raises:
            SpoolError: the spool refuses.
        """
        word, fence = self._read(), spool.fence()
        if word is not None and word.spool == spool.id.hex() and word.fence > fence:
            log.error("an older copy of the spool was put back")
            spool.raise_fence(word.fence)
            fence = word.fence
        given = _Word(spool.id.hex(), fence)
        if word == given:
            return True
        try:
            durable.make_dirs(self._path.parent, _DIRECTORY_MODE)
            durable.write(self._path, f"{given.spool} {fence}\n".encode(), mode=_MODE)
        except OSError as exc:
            if exc.strerror != self._refusal:
                log.error("the word for the spool not written reason=%s", exc.strerror)
            self._refusal = exc.strerror
            return False
        self._refusal = None
        return True

    def _read(self) -> _Word | None:
        try:
            spool, fence = durable.read(self._path, _MAX_BYTES).decode("ascii").split()
            return _Word(spool, int(fence))
        except (OSError, ValueError):
            return None
