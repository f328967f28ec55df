# SPDX-License-Identifier: Apache-2.0
"""Where a verb gets its answer: from the running agent, or from the stores under the lock."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from agent.cli.say import complain
from agent.control import NotRunningError, ask
from agent.lock import BusyError
from agent.settings import Settings, load_settings, salvage
from assent.errors import ConfigError

# An agent starts or ends within this on a slow board.
_PATIENCE_S = 15.0
_STEP_S = 0.1


def office(directory: Path, verb: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Asks the agent of a configuration directory; opens its stores when none runs.

    A bad agent.toml is told and keeps nobody from asking or from saying no.

    Raises:
        ConfigError: agent.toml is so bad that it does not even say where the state is.
        AssentError: whatever the agent or the stores refuse.
    """
    settings = _settings(directory)
    end = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(NotRunningError):
            return ask(settings.state, verb, **arguments)
        # Imported here: asking a running agent needs neither keys nor ledger.
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
