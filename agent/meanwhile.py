# SPDX-License-Identifier: Apache-2.0
"""Noes that were said while nobody answered: recorded and acted on before anything else.

Law:
  - a no that the spool keeps (agent/spool/refusals.py) is recorded and its flow ended before a form
    is read and before a lane is opened; it is forgotten there when the ledger has it;
  - a no that the ledger refuses is in force all the same, and stays where it is;
  - a no to what no policy, record or lane knows is forgotten: it keeps no other one waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.pipeline import Pipeline
from assent.errors import AssentError, SpoolError, UsageError

log = logging.getLogger(__name__)


def hear_refusals(pipeline: Pipeline, say_no: Callable[[str, int], object]) -> bool:
    """Records the noes that were said while nobody answered, and acts on them.

    Args:
        pipeline: whose spool keeps them.
        say_no: records a no of a flow with its instant, and ends the flow.

    Returns:
        Whether the ledger has them all; else it is worth trying again after a while.

    Raises:
        SpoolError: the spool cannot be read.
    """
    recorded = True
    for flow, said_ms in pipeline.spool.refusals().items():
        newest = pipeline.site.ledger.newest(flow)
        if newest is None or newest.state.is_yes or newest.decided_ms < said_ms:
            try:
                say_no(flow, said_ms)
            except SpoolError:
                raise
            except AssentError as exc:
                if _is_to_nothing(pipeline, exc):
                    log.warning("a no was said to a flow that nobody knows flow=%r", flow)
                else:
                    log.error("a no is in force and not recorded flow=%r why=%r", flow, exc.message)
                    recorded = False
                    continue
            else:
                log.info("a no was said meanwhile flow=%r", flow)
        pipeline.spool.drop_refusal(flow, said_ms)
    return recorded


def _is_to_nothing(pipeline: Pipeline, exc: AssentError) -> bool:
    return isinstance(exc, UsageError) and pipeline.site.policy is not None
