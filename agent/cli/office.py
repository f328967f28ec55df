# SPDX-License-Identifier: Apache-2.0
"""Where a verb gets its answer: from the running agent, or from the stores under the lock."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from agent.control import NotRunningError, ask
from agent.lock import BusyError
from agent.settings import load_settings

# An agent starts or ends within this on a slow board.
_PATIENCE_S = 15.0
_STEP_S = 0.1


def office(directory: Path, verb: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Asks the agent of a configuration directory; opens its stores when none runs.

    Raises:
        ConfigError: agent.toml is bad.
        AssentError: whatever the agent or the stores refuse.
    """
    settings = load_settings(directory)
    end = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(NotRunningError):
            return ask(settings.state, verb, **arguments)
        # Imported here: asking a running agent needs neither keys nor ledger.
        from agent.desk import at_the_desk  # noqa: PLC0415

        try:
            with at_the_desk(settings) as desk:
                return dict(desk.answer({"verb": verb, **arguments}))
        except BusyError:
            # An agent that starts or ends: it holds the lock and does not listen.
            if time.monotonic() >= end:
                raise
            time.sleep(_STEP_S)
