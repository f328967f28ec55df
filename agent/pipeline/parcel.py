# SPDX-License-Identifier: Apache-2.0
"""A sealed message on its way into the spool, with the gaps that it declares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.path import Sealed
from assent.envelope import Gap


class Parcel(NamedTuple):
    """A sealed message, and the gaps that it declares."""

    sealed: Sealed
    gaps: tuple[Gap, ...]


def carried_by_all(parcels: Iterable[Parcel]) -> list[Gap]:
    """Gives the gaps that every message of their flow carries.

    An acknowledged one of them has told of them.

    Args:
        parcels: of any flows.

    Returns:
        The gaps, each once.
    """
    by_flow: dict[str, set[Gap]] = {}
    for parcel in parcels:
        by_flow.setdefault(parcel.sealed.flow, set(parcel.gaps)).intersection_update(parcel.gaps)
    return [gap for gaps in by_flow.values() for gap in gaps]
