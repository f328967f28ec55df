# SPDX-License-Identifier: Apache-2.0
"""Rounds of the gateway's clock: it is set while everything runs, or nobody knows it at a boot.

  - `clock`: the wall clock is stepped, and believed; after some steps the program crashes;
  - `held`: the machine boots in 1970 with a new boot id and a small time since boot, collects, and
    learns the time later; sometimes the program crashes before, or the power goes again.

Instants are judged as elsewhere: the oracle moves those of a stepped clock by what the world knows
of it, and those of a boot in 1970 have to come out right.
"""

from __future__ import annotations

import random

from tests.faults.household import FLOWS
from tests.faults.kinds import pause, strikes
from tests.faults.rounds import Outcome, outside
from tests.faults.world import World

_DAY_MS = 86_400_000
# The household agreed two days ago: what is stamped before its yes is nobody's to keep.
_RIGHT_MS = 2 * _DAY_MS
STEPS_MS = {
    "clock an hour back": _RIGHT_MS - 3_600_000,
    "clock a day on": _RIGHT_MS + _DAY_MS,
    "clock right again": _RIGHT_MS,
}
_1970 = "clock starts in 1970"
BOOTS = (_1970, f"{_1970}, crash before the time is known", f"{_1970}, power cut before as well")


def clock(world: World, name: str, rng: random.Random, count: int) -> Outcome:
    """The wall clock is set while everything runs.

    Args:
        world: settled, with clocks that can be set.
        name: of the round.
        rng: chance.
        count: how often.
    """
    outcome = Outcome(name)
    assert world.timepiece is not None
    world.timepiece.set(_RIGHT_MS)
    world.start_all()
    outcome.recovers(world, "the start", list(FLOWS))
    names = [*STEPS_MS]
    for at in range(count):
        kind = names[at % len(names)]
        world.timepiece.set(STEPS_MS[kind])
        pause(rng.uniform(0.5, 2.0))
        outcome.recovers(world, kind, list(FLOWS) if at % 4 == 3 else ())
        # What arrived may have been stamped before.
        struck = strikes(lambda kind=kind: world.has_stamped_near(STEPS_MS[kind]))  # type: ignore[misc]
        outcome.count(kind, struck=struck)
        if at % 2 == 1:
            outcome.count(f"{kind}, crash after it", struck=world.kill("collect"))
            world.start_collect()
            outcome.recovers(world, f"crash after {kind}")
    return outcome.close(world)


def held(
    world: World,
    name: str,
    rng: random.Random,
    count: int,
    *,
    often: float = 0.4,
    patience_s: float = 0.0,
) -> Outcome:
    """The machine boots without knowing the time, again and again.

    Args:
        world: settled, with clocks that can be set.
        name: of the round.
        rng: chance.
        count: how often.
        often: how often something is broken outside while nobody knows the time.
        patience_s: how long a boot is waited for that has nothing held when chance goes on.
    """
    outcome = Outcome(name)
    assert world.timepiece is not None
    world.needs_evidence()
    world.timepiece.learn()
    world.start_all()
    outcome.recovers(world, "the start", list(FLOWS))
    for at in range(count):
        kind = BOOTS[at % len(BOOTS)]
        with outside(world, rng, outcome, often):
            is_held = _boots(world, rng, patience_s, polite=rng.random() < 0.5)
            if kind != _1970:
                is_held &= world.kill("collect")
            if kind == BOOTS[2]:
                world.lives[-1].lose_boot()
                is_held &= _boots(world, rng, patience_s, polite=False)
            elif kind == BOOTS[1]:
                world.start_collect()
                pause(rng.uniform(0.5, 1.5))
        world.timepiece.learn()
        outcome.recovers(world, "the time is learnt", list(FLOWS) if at % 4 == 3 else ())
        outcome.count(kind, struck=is_held)
    return outcome.close(world)


def _boots(world: World, rng: random.Random, patience_s: float, *, polite: bool) -> bool:
    """The machine goes down and comes up in 1970; whether it collects without the time."""
    assert world.timepiece is not None
    for name in [one for one in world.gateway_programs if one in world.programs]:
        world.stop(name) if polite else world.kill(name)
    world.timepiece.reboot()
    world.start_gateway()
    pause(rng.uniform(0.5, 2.5))
    boot_id = world.timepiece.boot_id

    def is_held() -> bool:
        with world.spool() as db:
            boots = {boot for (boot,) in db.execute("SELECT boot FROM held").fetchall()}
        return boot_id in boots and not world.ask("status")["clock_trusted"]

    return strikes(is_held, patience_s)
