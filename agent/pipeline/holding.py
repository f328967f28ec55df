# SPDX-License-Identifier: Apache-2.0
"""What the path does while nobody knows the time, and with what it held once somebody does.

Law:
  - what bears a date meanwhile bears the earliest it can have: it ends no yes and begins none;
  - what was held leaves as far as the permit of now covers its whole span, and no further; the
    spool declares the rest.
"""

from __future__ import annotations

import logging

from agent.path import Permit
from agent.pipeline.accord import reach
from agent.spool import Boot, Purged, Spool
from firmware_bridge.sample import Instant

log = logging.getLogger(__name__)


def dated(now: Instant, boot: Boot) -> Instant:
    """Dates what has to bear a date: the wall clock, or while that is not trusted the earliest.

    Args:
        now: the present.
        boot: the present one, and when it began at the earliest.
    """
    return now if now.trusted else Instant(boot.low_ms + now.mono_ms, now.mono_ms, now.trusted)


def release(spool: Spool, permit: Permit) -> Purged:
    """Lets what was held of a flow leave as far as its permit covers it; the rest is purged.

    Returns:
        What was purged, and declared.
    """
    purged = Purged(0, 0, 0)
    for one in spool.judge(
        permit.flow,
        not_before_ms=permit.not_before_ms,
        not_after_ms=permit.not_after_ms,
        reach_ms=reach(permit),
    ):
        purged = Purged(
            purged.batches + one.batches, purged.readings + one.readings, purged.bytes + one.bytes
        )
        log.info("held purged flow=%s batches=%d", one.flow, one.batches)
    return purged
