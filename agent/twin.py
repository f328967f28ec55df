# SPDX-License-Identifier: Apache-2.0
"""The twin of the spool: a small file elsewhere in the state that knows which spool there was.

Path: spool's count → **twin** → the next start, which is told what is lost.

Law:
  - the spool counts first, then the twin: a spool that is behind its twin, or another one, means
    that what waited is gone, and each flow that had a lane declares it;
  - what is still to be declared stays in the twin until the gap is on the disk; a gap that lies in
    the spool and was not told yet is lost with it, and counts as what waits;
  - a spool that was replaced while the agent ran is noted at its end, however young the copy is;
  - it is written at a start and an end, when a lane is opened, and every ten minutes between, in
    place (`agent/halves.py`).

Limits: a copy of the spool that is younger than the last writing is taken for the spool itself
where no agent ran, and a copy of the whole state for the state. The backend sees both: streams
whose end nobody tells. A twin that is gone itself proves nothing, and begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from agent.halves import Halves
from agent.spool import Spool

NAME: Final = "spool-twin.json"

log = logging.getLogger(__name__)


class Twin:
    """The twin of one spool; owned by the lanes' thread, under the instance lock.

    Args:
        path: its file; the directory exists.
        spool: the spool there is now.
    """

    def __init__(self, path: Path, spool: Spool) -> None:
        self._file = Halves(path)
        self._spool = spool
        self._refusal: str | None = None
        said = _read(self._file)
        self._lost: dict[str, int] = dict(said.lost)
        if said.spool is not None and not said.is_of(spool):
            log.error("the spool was lost or put back; what waited in it is declared as lost")
            for flow, since_ms in said.since.items():
                self._lost[flow] = min(since_ms, self._lost.get(flow, since_ms))

    @property
    def lost(self) -> Mapping[str, int]:
        """Since when waiting batches of a flow may be gone, until that is settled."""
        return MappingProxyType(self._lost)

    def settle(self, flow: str) -> None:
        """Forgets what is lost of a flow: it is declared, or nobody is to be told of it."""
        self._lost.pop(flow, None)

    def disown(self) -> None:
        """Notes that another spool lies there, or an older copy: what waited is lost with ours."""
        said = _read(self._file)
        self._write({"spool": "", "count": 0, "since": dict(said.since), "lost": dict(said.lost)})

    def note(self, now_ms: int, opened: Mapping[str, int] | None = None) -> None:
        """Takes note of the spool as it is; where the disk refuses, the old note stays.

        Args:
            now_ms: wall time.
            opened: by flow, since when what its lane puts from now on may be; else since now.

        Raises:
            SpoolError: the spool cannot be written.
        """
        since, untold = {}, self._spool.untold()
        for flow, one in self._spool.waiting().items():
            known = (now_ms, one.oldest_ms, (opened or {}).get(flow), untold.get(flow))
            since[flow] = max(0, min(ms for ms in known if ms is not None))
        self._write(
            {
                "spool": self._spool.id.hex(),
                "count": self._spool.count_up(),
                "since": since,
                "lost": self._lost,
            }
        )

    def _write(self, told: Mapping[str, object]) -> None:
        try:
            self._file.write(told)
        except OSError as exc:
            if exc.strerror != self._refusal:
                log.error("twin of the spool not written reason=%s", exc.strerror)
            self._refusal = exc.strerror
        else:
            self._refusal = None


class _Said(msgspec.Struct, frozen=True):
    """What the file says."""

    spool: str | None = None
    count: int = 0
    since: Mapping[str, int] = {}
    lost: Mapping[str, int] = {}

    def is_of(self, spool: Spool) -> bool:
        return self.spool == spool.id.hex() and spool.count() >= self.count


def _read(file: Halves) -> _Said:
    try:
        told: Any = file.read()
        since = {str(flow): int(ms) for flow, ms in told["since"].items()}
        lost = {str(flow): int(ms) for flow, ms in told["lost"].items()}
        return _Said(str(told["spool"]), int(told["count"]), since, lost)
    except FileNotFoundError:
        return _Said()
    except (
        OSError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        AttributeError,
    ) as exc:
        log.error("twin of the spool cannot be read error=%s", type(exc).__name__)
        return _Said()
