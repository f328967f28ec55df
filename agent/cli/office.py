# SPDX-License-Identifier: Apache-2.0
"""Where a verb gets its answer: from the running agent, or from the stores under the lock."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from agent.answers import SaidNo, Status, read, told
from agent.cli.say import complain
from agent.control import AnsweredError, NotRunningError, ask
from agent.fence import refuse
from agent.leash import Leash
from agent.lock import BusyError
from agent.settings import Settings, load_settings, salvage
from assent.errors import AssentError, ConfigError, SpoolError, UsageError
from firmware_bridge.clock import Clock

# As in agent/site.py, which loads keys and ledger; asking a running agent needs neither.
SPOOL = Path("spool") / "spool.db"

# An agent starts or ends within this on a slow board.
_PATIENCE_S = 15.0
_STEP_S = 0.1
# A withdrawal with a million readings waiting takes well under a second; purging takes longer.
_ANSWER_S = 60.0
# A no does not wait that long for an agent that stands still.
_NO_S = 5.0


def office(directory: Path, verb: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Asks the agent of a configuration directory; opens its stores when none runs.

    A bad agent.toml is told and keeps nobody from asking or from saying no.

    Raises:
        ConfigError: agent.toml is so bad that it does not even say where the state is.
        AssentError: whatever the agent or the stores refuse.
    """
    return _answer(_settings(directory), verb, _ANSWER_S, _PATIENCE_S, arguments)


def status(directory: Path) -> Status:
    """How everything is; raises as `office` does."""
    return read(office(directory, "status"), Status)


def is_clock_trusted(directory: Path) -> bool:
    """Whether what is said now can be dated, and what is read now may leave."""
    return status(directory).clock_trusted


def say_no(directory: Path, verb: str, flow: str) -> dict[str, Any]:
    """Says no to a flow, also when no agent answers: then past it, into the spool.

    Raises:
        ConfigError: agent.toml is so bad that it does not even say where the state is.
        AssentError: the agent's own refusal, or that the no could be left nowhere.
    """
    settings = _settings(directory)
    try:
        return _answer(settings, verb, _NO_S, _NO_S, {"flow": flow})
    except (AnsweredError, UsageError):
        raise
    except AssentError as exc:
        path = settings.state / SPOOL
        try:
            outcome = refuse(path, flow, Leash(path), Clock())
        except SpoolError:
            raise exc from None
        complain(exc)
    return told(
        SaidNo(
            flow=flow,
            decision="no",
            uplink=outcome.value,
            certain=outcome.is_certain,
            told=[f"{flow}: no; {outcome.sentence}", "the agent records it when it runs again"],
        )
    )


def _answer(
    settings: Settings, verb: str, answer_s: float, busy_s: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    end = time.monotonic() + busy_s
    while True:
        with contextlib.suppress(NotRunningError):
            return ask(settings.state, verb, patience_s=answer_s, **arguments)
        # Imported here: it loads keys and ledger, which a running agent is asked without.
        from agent.offline import at_the_desk  # noqa: PLC0415

        try:
            with at_the_desk(settings) as desk:
                return dict(desk.answer({"verb": verb, **arguments}))
        except BusyError:
            # An agent that starts or ends: it holds the lock and does not listen.
            if time.monotonic() >= end:
                raise
            time.sleep(_STEP_S)


def _settings(directory: Path) -> Settings:
    try:
        return load_settings(directory)
    except ConfigError as exc:
        salvaged = salvage(directory)
        if salvaged is None:
            raise
        complain(exc)
        return salvaged
