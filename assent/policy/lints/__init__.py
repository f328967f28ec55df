# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a policy that reads well: a table from name to small check.

Path: policy.toml → located → Policy → **lint** → findings.

Law:
  - a lint is an error, and the policy does not load, or a warning, and it loads but is not signed;
  - no error depends on the day, so that a date never silences a fleet;
  - a lint looks at one thing, says what was expected and what came, and points at its place.

The name of the lint stands in brackets behind its message.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from assent.errors import Finding
from assent.located import Document
from assent.policy.lints import dictionary, flows, recipients, transforms
from assent.policy.lints.nits import Lint
from assent.policy.model import Policy

LINTS: Final[dict[str, Lint]] = {
    **recipients.LINTS,
    **dictionary.LINTS,
    **flows.LINTS,
    **transforms.LINTS,
}
"""Every lint by its name."""


def lint(policy: Policy, document: Document, today: dt.date) -> list[Finding]:
    """Runs every lint.

    Args:
        policy: the policy.
        document: the file it was read from.
        today: the day on which a review or an end counts as past.

    Returns:
        What was found, in the order of the file.
    """
    return sorted(
        document.finding(nit.path, f"{nit.message} [{name}]", nit.hint, rule.severity)
        for name, rule in LINTS.items()
        for nit in rule.check(policy, today)
    )
