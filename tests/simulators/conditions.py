# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(claim: Callable[[], T], patience_s: float = 15.0) -> T:
    """Waits until a claim holds, and fails when it does not.

    Args:
        claim: what must become true; looked at every 5 ms.
        patience_s: seconds.

    Returns:
        What the claim gave.
    """
    deadline = time.monotonic() + patience_s
    while True:
        found = claim()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience_s} s: {found!r}"
        time.sleep(0.005)
