# SPDX-License-Identifier: Apache-2.0
"""A power cut at any write: what was on the disk stays, nothing follows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.spool.store import Store


class PowerCut(BaseException):
    """The process is gone: nothing it would have done afterwards is done."""


@contextlib.contextmanager
def power_cut(after: int | None) -> Iterator[None]:
    """Ends the process before the write number `after` reaches the disk, and lets none follow.

    Counts what changes the disk: a transaction of the spool, a sync, a rename, an unlink.
    """
    if after is None:
        yield
        return
    left = after

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return original(*args, **named)

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "rename", "replace", "unlink"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(Store, "_writing", counted(Store._writing))
        yield
