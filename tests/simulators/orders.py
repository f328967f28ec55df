# SPDX-License-Identifier: Apache-2.0
"""What a breakable disk is told to do, and when: at the N-th of a call on paths of some kind.

A call is `open` (of a file that is made), `write`, `truncate`, `fsync`, `rename` or `unlink`; a
sync is one of every path whose bytes or name it would bring to the disk. Calls are counted from the
order on. A sync that an order strikes is not done; what another call changes is on its way to the
disk when the power goes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

Deed: TypeAlias = Literal["count", "cut", "refuse"]

EVER = 1_000_000
CALLS = ("open", "write", "truncate", "fsync", "rename", "unlink")


class Order(NamedTuple):
    """One order.

    Attributes:
        paths: a pattern of the paths, as they are called below the mount; where it has named
            groups, each is counted by itself, and nothing is struck.
        deed: only to count, to cut the power, to refuse the call.
        call: of CALLS.
        number: the first call that it strikes.
        last: how many calls it strikes; more than one only where the deed is to refuse.
        way: in which a cut loses what was on its way.
        seed: of the chance in it.
        error: what is said to a call that is refused.
    """

    paths: str
    deed: Deed = "count"
    call: str = ""
    number: int = 1
    last: int = 1
    way: str = "drop"
    seed: int = 0
    error: int = 0


class Overseer:
    """Counts what is called, and says when a deed is due."""

    def __init__(self) -> None:
        self._order: Order | None = None
        self._paths = re.compile("")
        self.counted: Counter[str] = Counter()
        self.struck: list[str] = []

    def take(self, order: Order) -> None:
        """From now on this is the order; all counts begin anew."""
        self._order = order
        self._paths = re.compile(order.paths)
        self.counted = Counter()
        self.struck = []

    def end(self) -> None:
        """No order holds any more; what it counted stays."""
        self._order = None

    @property
    def paths(self) -> re.Pattern[str]:
        """Those of the last order."""
        return self._paths

    def due(self, call: str, paths: Iterable[str]) -> Order | None:
        """Counts a call; the order, where its deed falls now."""
        order = self._order
        meant = [found for path in paths if (found := self._paths.search(path))] if order else []
        if order is None or not meant:
            return None
        for group in {found.lastgroup for found in meant}:
            self.counted[f"{group} {call}" if group else call] += 1
        number = self.counted[call]
        if order.deed == "count" or call != order.call:
            return None
        if not order.number <= number < order.number + order.last:
            return None
        self.struck.append(meant[0].string)
        return order
