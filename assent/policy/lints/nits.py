# SPDX-License-Identifier: Apache-2.0
"""What a lint is and what it gives back; the helpers that several of them share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from assent.errors import Severity
from assent.places import Path
from assent.policy.expressions import Transform
from assent.policy.model import Attribute, Flow, Policy


class Nit(msgspec.Struct, frozen=True):
    """One thing a lint found: where, what was expected and came, what to do."""

    path: Path
    message: str
    hint: str | None = None


Check = Callable[[Policy, dt.date], Iterator[Nit]]
"""Takes a policy and today, which only the lints about overdue entries look at."""


class Lint(msgspec.Struct, frozen=True):
    """A check and how much its findings weigh; the check's docstring is its one-line manual."""

    severity: Severity
    check: Check


class Carried(NamedTuple):
    """One attribute in one flow, where both exist."""

    path: Path
    flow: Flow
    name: str
    attribute: Attribute
    transform: Transform


def carried(policy: Policy) -> Iterator[Carried]:
    """Walks every attribute of every flow; names the dictionary does not have are passed over.

    Args:
        policy: the policy.

    Yields:
        Flow, attribute and transform with the path to them.
    """
    for flow_id, flow in policy.flows.items():
        for name, transform in flow.attributes.items():
            attribute = policy.attributes.get(name)
            if attribute is not None:
                path = ("flows", flow_id, "attributes", name)
                yield Carried(path, flow, name, attribute, transform)


def error(check: Check) -> Lint:
    """Makes a lint that keeps the policy from loading."""
    return Lint(Severity.ERROR, check)


def warning(check: Check) -> Lint:
    """Makes a lint that keeps the policy from being signed."""
    return Lint(Severity.WARNING, check)
