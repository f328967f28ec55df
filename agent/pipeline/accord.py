# SPDX-License-Identifier: Apache-2.0
"""What a lane has in common with the verdict of now: all, enough to go on, a pause, or too little.

Law:
  - what waits rests on a basis: terms, attributes and the start of the unbroken yes. On another
    basis nothing of it may leave;
  - on the same basis and the same record a lane goes on in its stream, whatever the policy now says
    of batches, of its own end, or in prose; an epoch or an end that has come ends it;
  - a lane that counts from the boot knows no epoch and no end;
  - a pause is a refusal by which nobody took anything back.
"""

from __future__ import annotations

import hashlib
from typing import Final

from agent.lane import Lane
from agent.lane.seconds import SECOND_MS
from agent.path import Permit, Reason, Refusal, Verdict
from firmware_bridge.sample import Instant

PAUSES: Final = frozenset(
    {
        Reason.FORM_BROKEN,
        Reason.POLICY_UNUSABLE,
        Reason.NOT_ENROLLED,
        Reason.KEY_UNREADABLE,
    }
)
"""Reasons for which nobody took anything back: what waits is kept, and none of it leaves."""


def basis(permit: Permit) -> bytes:
    """What a waiting batch rests on; another one means that it was narrowed or broken off."""
    # The start of the unbroken yes is part of it: after a no, an end or a lost ledger that no agent
    # lived to carry out, what was taken before must not leave under the yes that came since.
    parts = [*sorted(carried.name for carried in permit.carried), str(permit.not_before_ms)]
    return hashlib.sha256(permit.terms_hash + "\0".join(parts).encode()).digest()


def reach(permit: Permit) -> int:
    """How long after its instant, in ms, a value that a permit carries may still tell of something.

    An instant leaves as a whole second, a window is stamped at its start.
    """
    windows = [int(carried.transform.duration or 0) for carried in permit.carried]
    return max([SECOND_MS, *windows])


def is_the_same(lane: Lane, permit: Permit, now: Instant) -> bool:
    """Whether a lane goes on as it is."""
    return lane.permit == permit and _is_in_time(lane, permit, now)


def is_amended(lane: Lane, permit: Permit, now: Instant) -> bool:
    """Whether a lane goes on in its stream under a permit that is another one."""
    is_of_it = lane.permit.record == permit.record and basis(lane.permit) == basis(permit)
    return is_of_it and lane.permit != permit and _is_in_time(lane, permit, now)


def _is_in_time(lane: Lane, permit: Permit, now: Instant) -> bool:
    if lane.is_by_boot:
        return True
    end_ms = permit.not_after_ms
    return lane.epoch_of(now.wall_ms) == lane.epoch and (end_ms is None or now.wall_ms < end_ms)


def has_ended(permit: Permit, past_ms: int) -> bool:
    """Whether the end of a permit has come, by the latest instant that is known to be past."""
    return permit.not_after_ms is not None and permit.not_after_ms <= past_ms


def is_pause(verdict: Verdict | None) -> bool:
    """Whether a flow is off and nobody took anything back."""
    return isinstance(verdict, Refusal) and verdict.reason in PAUSES


def is_unreadable(verdict: Verdict) -> bool:
    """Whether a flow is off for a key file, which may be read again a moment later."""
    return isinstance(verdict, Refusal) and verdict.reason is Reason.KEY_UNREADABLE


def is_no(verdict: Verdict) -> bool:
    """Whether the gate itself says no for good, so that its reason can be told."""
    return isinstance(verdict, Refusal) and not is_pause(verdict)
