# SPDX-License-Identifier: Apache-2.0
"""What a crash finds done already: the urgent on the disk, nothing raw; the refused erased first."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.journal import Journal, areas
from agent.lane import Lane
from agent.pipeline.hardware import Hardware
from agent.site import JOURNAL
from agent.spool import Spool
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    FAULT,
    POWER,
    SECOND,
    YES,
    House,
    form,
    living,
    values,
)

COMMIT = 5 * SECOND
RAW = (1234.4, 2471.3)
"""What `round(1)` and the mean of a minute change."""


def told(house: House) -> list[bytes]:
    """What the journal's file shows to who has its key."""
    found = areas.Areas(house.directory / "state" / JOURNAL, house.site.keys.journal_key)
    return list(map(zlib.decompress, found.read()))


# The urgent.


@pytest.mark.parametrize("is_urgent", [True, False], ids=["a fault is kept", "a power is not"])
def test_what_is_urgent_is_in_the_next_life_though_nothing_was_committed(
    agreed: House, *, is_urgent: bool
) -> None:
    agreed.powers(1)
    agreed.turn(COMMIT)
    agreed.bring({FAULT: "leak"} if is_urgent else {POWER: 7.0})
    agreed.vanish()
    with living(agreed.directory, agreed.clock) as again:
        again.pipeline.flush()
        assert values(again.batches(CORE), FAULT) == (["leak"] if is_urgent else [])
        assert values(again.batches(DIAGNOSIS), FAULT) == (["leak"] if is_urgent else [])
        assert values(again.batches(DIAGNOSIS), POWER) == [1]


# The raw.


def numbers(house: House) -> Iterator[float]:
    """Every number in the journal: as it lies there, and in its unit."""
    path = house.directory / "state" / JOURNAL
    parts = Journal(path, house.site.keys.journal_key, house.spool.id).parts()
    for state in (state for part in parts for state in part.states.values()):
        for column in (column for table in state.tables() for column in table.columns):
            for value in column.values:
                if isinstance(value, int | float):
                    yield value
                    if column.quantum is not None:
                        yield column.quantum.value(int(value))
        for one in state.memory.values():
            yield from flat(one.state)


def flat(state: Any) -> Iterator[float]:
    if isinstance(state, list | tuple):
        for one in state:
            yield from flat(one)
    elif isinstance(state, int | float) or state.isdecimal():
        yield float(state)  # a sum is a text


def test_no_value_that_a_transform_changes_is_in_the_journal_as_it_was_read(agreed: House) -> None:
    agreed.powers(*RAW)
    agreed.turn(COMMIT)
    found = set(numbers(agreed))
    assert {1234, 2471} <= found  # the twin: what `round` made of it is there
    assert any(is_near(one, sum(RAW)) for one in found)  # and what the mean is made of
    for raw in RAW:
        assert not any(is_near(one, raw) for one in found)
        for shape in ("<d", ">d", "<f", ">f"):
            assert not any(struct.pack(shape, raw) in plain for plain in told(agreed))


def is_near(number: float, value: float) -> bool:
    """Whether a number is a value, in its unit or in tenths, hundredths, thousandths of it."""
    return any(abs(number - value * 10**places) < 0.2 * 10**places for places in range(4))


# The refused.


@pytest.mark.parametrize("how", ["closed past the agent", "refused in a form", "agreed to still"])
def test_what_was_refused_is_erased_before_a_lane_or_a_device_is_opened(
    agreed: House, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(COMMIT)
    stream = agreed.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    agreed.vanish()
    if how == "closed past the agent":
        with contextlib.closing(Spool.open(agreed.path)) as spool:
            spool.close_lane(DIAGNOSIS)
    elif how == "refused in a form":
        text = form({**YES, DIAGNOSIS: '"refused"'}, agreed.clock.now().wall_ms)
        (agreed.directory / "consent.toml").write_text(text)
    seen: dict[str, list[bool]] = {}

    def looked(original: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            there = streams_of(agreed.directory / "state" / JOURNAL, agreed)
            seen.setdefault(what, []).append(stream in there)
            return original(*args, **named)

        return call

    for owner, name in ((Lane, "__init__"), (Spool, "open_lane"), (Hardware, "follow")):
        monkeypatch.setattr(owner, name, looked(getattr(owner, name), f"{owner.__name__}.{name}"))
    with living(agreed.directory, agreed.clock) as again:
        again.powers(4)
        assert again.on()[ADVICE] is None
    assert {"Lane.__init__", "Hardware.follow"} <= seen.keys()  # something was opened
    is_there = [one for moments in seen.values() for one in moments]
    # The twin: the search finds what is there.
    assert any(is_there) == (how == "agreed to still")


def streams_of(path: Path, house: House) -> set[int]:
    return set(Journal(path, house.site.keys.journal_key, b"").streams)
