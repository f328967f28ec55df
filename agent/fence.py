# SPDX-License-Identifier: Apache-2.0
"""A no across two processes: the row closed, the uplink past the fence or ended, then the answer.

Path: no → lane row closed (durable) → the uplink lets go of what it held of the lane and answers
the fence → the call returns. Rows are deleted after.
Law:
  - an uplink that does not answer within a second is ended; it is started again by whoever keeps it
    alive, and finds the row closed;
  - an uplink that holds the spool's file, stopped in the middle of a write, is ended at once when
    a second has passed: nothing else may keep a no from being written;
  - where the collecting side is what holds it, a no that is said past it lies beside the spool;
  - whoever calls is told which of these it was. `Outcome.SILENT` is the only one after which
    something may still leave.

Limits: what the broker's own machine had received is not ours to call back. In the instant in which
an uplink dies by itself the kernel may still send what its sockets held.
"""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, assert_never

from agent.spool import HeldError, Spool
from firmware_bridge.clock import Clock

PATIENCE_MS: Final = 1_000
"""Milliseconds an uplink has to answer, before it is ended."""
_STEP_MS: Final = 5

log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """What came of the uplink."""

    ANSWERED = "answered"
    """It holds nothing any more of what had to stop."""
    ABSENT = "absent"
    """None is there."""
    ENDED = "ended"
    """It did not answer, and was ended."""
    SILENT = "silent"
    """It did not answer and could not be ended: what it held may still leave."""

    @property
    def is_certain(self) -> bool:
        """Whether nothing of what was shut leaves any more."""
        return self is not Outcome.SILENT

    @property
    def sentence(self) -> str:
        """What a person is told after a no."""
        match self:
            case Outcome.ANSWERED | Outcome.ABSENT:
                return "nothing of it leaves any more"
            case Outcome.ENDED:
                return (
                    "nothing of it leaves any more; the uplink did not answer and was ended;"
                    " what it had just handed to the network may still arrive"
                )
            case Outcome.SILENT:
                return "the uplink does not answer: what it holds may still leave until it is ended"
            case _:
                assert_never(self)


class Carrier(Protocol):
    """The uplink as the collecting side sees it: in another process, or beside it in its own."""

    def is_there(self) -> bool:
        """Whether one runs."""

    def cut(self) -> bool:
        """Ends its connections, however it is; whether that was done."""


def unhindered(spool: Spool, carrier: Carrier | None, write: Callable[[], None]) -> None:
    """Writes into the spool, also when a stopped uplink holds it.

    Args:
        spool: the collecting side's end.
        carrier: the uplink, or None where nobody knows it.
        write: one transaction; called again when the first was held up.

    Raises:
        SpoolError: the disk refuses, or somebody else than the uplink holds the file.
    """
    try:
        with spool.patience(PATIENCE_MS):
            write()
    except HeldError:
        if carrier is None or not carrier.cut():
            raise
        write()


def pass_fence(spool: Spool, carrier: Carrier | None, clock: Clock) -> Outcome:
    """Waits until nothing that was shut can leave any more.

    Args:
        spool: the collecting side's end; lanes were shut through it, durably.
        carrier: the uplink, or None where nobody knows it.
        clock: measures how long it is waited for.

    Returns:
        How the uplink took it.

    Raises:
        SpoolError: the spool cannot be read.
    """
    fence = spool.fence()
    end_ms = clock.now().mono_ms + PATIENCE_MS
    while not spool.fence_passed(fence):
        if carrier is not None and not carrier.is_there():
            return Outcome.ABSENT
        if clock.now().mono_ms > end_ms:
            return _ended(carrier)
        clock.wait(_STEP_MS)
    return Outcome.ANSWERED


def refuse(path: Path, flow: str, carrier: Carrier, clock: Clock) -> Outcome:
    """Says no past a collecting side that does not answer; it records this when it runs again.

    Where it stands still in the middle of a write, the no is left beside the spool and the uplink
    ended: the next one leases nothing of the flow.

    Args:
        path: the spool.
        flow: id of the flow.
        carrier: the uplink.
        clock: of the wall.

    Returns:
        How the uplink took it.

    Raises:
        SpoolError: there is no spool, or the disk refuses.
    """

    def write() -> None:
        spool.refuse(flow, clock.now().wall_ms)

    with contextlib.closing(Spool.open(path, create=False)) as spool:
        try:
            with spool.patience(PATIENCE_MS):
                write()
        except HeldError:
            spool.refuse_beside(flow, clock.now().wall_ms)
            outcome = _ended(carrier) if carrier.is_there() else Outcome.ABSENT
            with contextlib.suppress(HeldError), spool.patience(PATIENCE_MS):
                write()  # it may have been the uplink that held it
            return outcome
        return pass_fence(spool, carrier, clock)


def _ended(carrier: Carrier | None) -> Outcome:
    is_ended = carrier is not None and carrier.cut()
    log.log(
        logging.WARNING if is_ended else logging.ERROR,
        "uplink did not answer in time waited_ms=%d ended=%s",
        PATIENCE_MS,
        is_ended,
    )
    return Outcome.ENDED if is_ended else Outcome.SILENT
