# SPDX-License-Identifier: Apache-2.0
"""What goes into the store, and what is durable about it when it comes out.

Path: **Taken** (subscriber) → store → **Settled** → acknowledge.
Law:
  - a message that cannot be stored for what it holds is refused, and so is one over which we make a
    mistake;
  - one for which this machine has not the memory is laid aside: nothing is wrong with it.
"""

from __future__ import annotations

import dataclasses
import enum

from assent.backend.outcomes import Accepted, Aside, Lack, Outcome, Reason, Rejected
from assent.backend.store.files import CONTENT


class Verdict(enum.Enum):
    """What became of one message."""

    STORED = "stored"
    """Its readings are durable."""
    HELD = "held"
    """It is durable, and waits for its gateway to tell when it was."""
    DUPLICATE = "duplicate"
    """They were before; it is acknowledged again."""
    REFUSED = "refused"
    """It is in quarantine."""
    ASIDE = "aside"
    """It can be neither stored nor refused now, and is kept apart; its gateway is told nothing."""
    NOTED = "noted"
    """It was no batch; what it said is taken note of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """One message with its judgement.

    Attributes:
        outcome: what ingest made of it.
        data: the bytes as they came.
        received_ms: when they came.
    """

    outcome: Outcome
    data: bytes
    received_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What is durable about one message.

    Attributes:
        verdict: what became of it.
        outcome: what ingest, or the store after it, made of it.
    """

    verdict: Verdict
    outcome: Outcome


def instead(taken: Taken, exc: Exception) -> Taken:
    """What is stored of a message that the store does not take."""
    outcome = taken.outcome
    if isinstance(exc, MemoryError):
        header = outcome.header if isinstance(outcome, Accepted) else None
        return dataclasses.replace(taken, outcome=Aside(outcome.mailbox, Lack.MEMORY, header))
    reason = Reason.UNSTORABLE if isinstance(exc, CONTENT) else Reason.INTERNAL
    detail = f"the store refused it: {type(exc).__name__}"
    if isinstance(outcome, Accepted):
        rejected = outcome.rejected(reason, detail)
    else:
        rejected = Rejected(outcome.mailbox, reason, detail)
    return dataclasses.replace(taken, outcome=rejected)
