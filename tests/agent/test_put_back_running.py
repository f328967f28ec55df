# SPDX-License-Identifier: Apache-2.0
"""A spool or a whole state that is put back under a running agent: it ends, and begins anew."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.meanwhile import hear_refusals
from agent.spool import LaneState
from agent.spool.place import ReplacedError
from agent.spool.schema import DamagedError
from tests.agent.installed import (
    ADVICE,
    DIAGNOSIS,
    MINUTE,
    POWER,
    SECOND,
    YES,
    House,
    copied,
    values,
)

Back = Callable[[Path, Path], None]


def over(kept: Path, place: Path) -> None:
    """As `cp -a` does: into the files that are there."""
    subprocess.run(["cp", "-a", f"{kept}/.", str(place)], check=True)


def anew(kept: Path, place: Path) -> None:
    """As an archive is unpacked: other files of the same names."""
    shutil.rmtree(place)
    shutil.copytree(kept, place)


@pytest.fixture
def house(house: House) -> House:
    """Every flow is on."""
    house.decide(YES)
    return house


def keep(house: House, what: str) -> tuple[Path, Path]:
    """A copy of the files of a running agent, and where they lie."""
    place = house.directory / what
    return copied(place, house.directory.parent / "kept"), place


def measure(house: House, *watts: float) -> None:
    house.powers(*watts)
    house.pipeline.flush()
    house.turn(SECOND)


def goes_on(house: House) -> None:
    """For three seconds, with a batch in each."""
    for watts in (5, 5, 5):
        measure(house, watts)


def after(house: House) -> House:
    """The next start, as the manager makes it."""
    house.vanish()
    again = House(house.directory, house.clock)
    hear_refusals(again.pipeline, again.desk.say_no)
    return again.start()


@pytest.mark.parametrize("back", [over, anew])
@pytest.mark.parametrize("what", ["state/spool", "state"])
def test_an_older_copy_put_back_under_a_running_agent_ends_it(
    house: House, back: Back, what: str
) -> None:
    """Red without `Place`: it writes into a file that nobody will ever find, or takes it for a no."""
    measure(house, 1, 2)
    kept, place = keep(house, what)
    measure(house, 3, 4)
    house.clock.advance(MINUTE)
    house.desk.answer({"verb": "withdraw", "flow": ADVICE})
    back(kept, place)
    with pytest.raises(ReplacedError):
        goes_on(house)
    with pytest.raises(ReplacedError):
        house.pipeline.stop()
    again = after(house)
    try:
        assert again.on()[DIAGNOSIS] is None
        assert again.spool.moved_aside is None
        if what == "state/spool":
            assert again.spool.lanes()[ADVICE].state is LaneState.CLOSED
            lost = [gap for gap in again.spool.gaps_for(DIAGNOSIS) if gap.cause.name == "LOST"]
            assert lost[0].first_ms <= again.clock.now().wall_ms - MINUTE - 5 * SECOND
        measure(again, 6, 7)
        assert values(again.batches(DIAGNOSIS), POWER)[-2:] == [6, 7]
    finally:
        again.close()


@pytest.mark.parametrize("back", [over, anew])
def test_an_older_copy_of_the_same_fence_is_met_by_its_numbers_and_is_no_no(
    house: House, back: Back
) -> None:
    measure(house, 1, 2)
    kept, place = keep(house, "state/spool")
    measure(house, 3, 4)
    back(kept, place)
    with pytest.raises(ReplacedError):
        goes_on(house)
    assert house.pipeline.denied == set()
    again = after(house)
    assert again.on()[DIAGNOSIS] is None
    again.close()


def test_damage_that_the_uplink_found_ends_who_collects(house: House) -> None:
    """Red where nobody looks for the mark: nothing would leave until somebody starts it again."""
    measure(house, 1, 2)
    house.spool.path.with_name("spool.db.fault").touch()
    with pytest.raises(DamagedError):
        house.turn(SECOND)
    again = after(house)
    assert again.spool.moved_aside is not None
    assert again.on()[DIAGNOSIS] is None
    again.close()


def test_the_twin_a_copy_that_is_only_taken_ends_nothing(house: House) -> None:
    measure(house, 1, 2)
    keep(house, "state")
    measure(house, 3, 4)
    assert values(house.batches(DIAGNOSIS), POWER) == [1, 2, 3, 4]


def test_a_spool_that_is_taken_away_ends_it_and_is_made_anew(house: House) -> None:
    measure(house, 1, 2)
    shutil.rmtree(house.directory / "state" / "spool")
    with pytest.raises(ReplacedError, match="gone"):
        house.turn(SECOND)
    again = after(house)
    assert again.on()[DIAGNOSIS] is None
    again.close()


@pytest.mark.parametrize("back", [over, anew])
def test_an_older_journal_put_back_under_a_running_agent_is_written_anew(
    house: House, back: Back, caplog: pytest.LogCaptureFixture
) -> None:
    """Red without `Journal._is_in`: news of a lane that the old file does not know ends the agent."""
    place, kept = house.directory / "state" / "journal", house.directory.parent / "kept"
    measure(house, 1, 2)
    house.turn(MINUTE // 2)
    shutil.copy2(place, kept)
    measure(house, 3, 4)
    house.turn(MINUTE // 2)
    house.powers(5)
    house.turn(MINUTE // 2)
    if back is over:
        subprocess.run(["cp", "-a", str(kept), str(place)], check=True)
    else:
        place.unlink()
        shutil.copy2(kept, place)
    for watts in (6, 7, 8):
        house.powers(watts)
        house.turn(MINUTE // 2)
        house.pipeline.flush()
    assert "journal not written" in caplog.text
    assert house.pipeline.running.keeping.trouble is None
    assert values(house.batches(DIAGNOSIS), POWER) == [1, 2, 3, 4, 5, 6, 7, 8]
