# SPDX-License-Identifier: Apache-2.0
"""What a doctor finds: one sentence for each thing looked at, and what to do about it.

Law: nothing in it names a device, a port, a gateway, a person or a value: a technician reads it to
a helpdesk over the telephone.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from agent import path

ENROL: Final = f"type: {path.ENROL}"
"""What to do where no policy key is trusted."""


class Health(enum.Enum):
    """How one thing is."""

    GOOD = "good"
    """As it should be."""
    ODD = "odd"
    """It works, and somebody should look at it."""
    BAD = "bad"
    """It does not work."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        subject: what it is, such as `clock` or `device 2`.
        health: how it is.
        told: the sentence.
        help: what to do about it; empty where there is nothing to do.
    """

    subject: str
    health: Health
    told: str
    help: str = ""


def good(subject: str, told: str) -> Check:
    """Notes that something is as it should be."""
    return Check(subject, Health.GOOD, told)


def odd(subject: str, told: str, help: str = "") -> Check:  # noqa: A002  # the field's name
    """Notes that somebody should look at something."""
    return Check(subject, Health.ODD, told, help)


def bad(subject: str, told: str, help: str = "") -> Check:  # noqa: A002  # the field's name
    """Notes that something does not work."""
    return Check(subject, Health.BAD, told, help)
