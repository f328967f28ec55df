# SPDX-License-Identifier: Apache-2.0
"""The desk of an agent that does not run: the stores opened for one command, under the lock.

Law: a question decides nothing; what the gate refuses by now is ended before the first answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent.desk import Desk
from agent.leash import Leash
from agent.lock import instance_lock
from agent.meanwhile import hear_refusals
from agent.pipeline import Pipeline
from agent.settings import Settings
from agent.site import SPOOL, make_state, open_site
from agent.spool import Spool
from firmware_bridge.clock import Clock


@contextlib.contextmanager
def at_the_desk(settings: Settings) -> Iterator[Desk]:
    """Opens the stores and holds the instance lock while the block runs.

    Raises:
        BusyError: an agent starts or ends, and does not listen.
        KeyStoreError: secrets cannot be read.
    """
    make_state(settings.state)
    with instance_lock(settings.state):
        clock = Clock(trust=settings.trust)
        site = open_site(settings, clock)
        with contextlib.closing(Spool.open(settings.state / SPOOL)) as spool:
            pipeline = Pipeline(site, spool, clock, Leash(spool.path))
            desk = Desk(pipeline, running=False)
            hear_refusals(pipeline, desk.say_no)
            desk.look_at_form()
            pipeline.settle()
            try:
                yield desk
            finally:
                pipeline.stop()  # what somebody looked at is closed
