# SPDX-License-Identifier: Apache-2.0
"""What breaks a world, one fault a function: it strikes, says that it struck, and heals.

Each is a context manager over a world and a source of chance. Within the block the fault is at
work, and calling what it yields tells whether it has struck. Afterwards whatever it stopped runs
again. Two faults may be at work at once when they break different parts (`Kind.part`).
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from demo.stage import wait_until
from tests.faults.world import World
from tests.simulators.proxy import Fault

Struck: TypeAlias = Callable[[], bool]
Strike: TypeAlias = Callable[[World, random.Random, str], contextlib.AbstractContextManager[Struck]]

RECIPIENT = "maker"
BACKEND = f"backend-{RECIPIENT}"

_STRIKES_S = 15.0


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        part: what it breaks; two of one part do not meet.
        strike: makes it.
        holds_s: how long it lasts at most.
        needs_traffic: strikes only while something is under way between uplink and backend.
        stops_traffic: while it lasts, nothing is.
    """

    part: str
    strike: Strike
    holds_s: float
    needs_traffic: bool = False
    stops_traffic: bool = True

    def takes_in(self, other: Kind) -> bool:
        """Whether another fault can strike while this one lasts."""
        return self.part != other.part and not (self.stops_traffic and other.needs_traffic)


@contextlib.contextmanager
def _collect_killed(world: World, _: random.Random, __: str) -> Iterator[Struck]:
    was_alive = world.kill("collect")
    yield lambda: was_alive
    world.start_collect()


@contextlib.contextmanager
def _collect_killed_twice(world: World, rng: random.Random, _: str) -> Iterator[Struck]:
    """The second time while it starts."""
    was_alive = world.kill("collect")
    world.start_collect(waits=False)
    pause(rng.uniform(0.05, 0.6))
    was_alive &= world.kill("collect")
    yield lambda: was_alive
    world.start_collect()


@contextlib.contextmanager
def _uplink_killed(world: World, _: random.Random, __: str) -> Iterator[Struck]:
    was_alive = world.kill("uplink")
    yield lambda: was_alive
    world.start_uplink()


@contextlib.contextmanager
def _backend_killed(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
    was_alive = world.kill(f"backend-{recipient}")
    yield lambda: was_alive
    world.start_backend(recipient)


@contextlib.contextmanager
def _backend_killed_before_it_acknowledges(
    world: World, _: random.Random, recipient: str
) -> Iterator[Struck]:
    """Between the commit of its store and the acknowledgement: at that very point."""
    order = world.death(f"backend-{recipient}")
    order.touch()
    program = world.programs[f"backend-{recipient}"]
    yield lambda: program.poll() == -signal.SIGKILL
    order.unlink(missing_ok=True)
    if program.poll() is None:
        program.kill()
    world.buried(f"backend-{recipient}")
    world.start_backend(recipient)


@contextlib.contextmanager
def _broker_stopped(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
    program = world.programs[f"broker-{recipient}"]
    was_alive = program.poll() is None
    program.terminate()
    world.buried(f"broker-{recipient}")
    yield lambda: was_alive
    world.start_broker(recipient)


@contextlib.contextmanager
def _broker_frozen(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
    """Half-open: the connection stands and nobody is there; found by keepalive."""
    world.send(f"broker-{recipient}", signal.SIGSTOP)
    yield lambda: not world.is_connected(recipient)
    world.send(f"broker-{recipient}", signal.SIGCONT)


@contextlib.contextmanager
def _broker_killed_with_its_store(
    world: World, _: random.Random, recipient: str
) -> Iterator[Struck]:
    was_alive = world.kill(f"broker-{recipient}")
    _empty(world, recipient)
    yield lambda: was_alive
    world.start_broker(recipient)


@contextlib.contextmanager
def _broker_restarted_empty(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
    program = world.programs[f"broker-{recipient}"]
    was_alive = program.poll() is None
    program.terminate()
    world.buried(f"broker-{recipient}")
    _empty(world, recipient)
    world.start_broker(recipient)
    yield lambda: was_alive


def _empty(world: World, recipient: str) -> None:
    store = world.broker_store(recipient)
    for path in store.iterdir():
        path.unlink()


@contextlib.contextmanager
def _cut(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
    """Every connection of the uplink is reset, once, in the middle of what it carries."""
    proxy = world.proxies[recipient]
    before = proxy.accepted
    proxy.cut_all()
    yield lambda: proxy.accepted > before  # it has come again


def _proxied(fault: Fault) -> Strike:
    @contextlib.contextmanager
    def strike(world: World, _: random.Random, recipient: str) -> Iterator[Struck]:
        proxy = world.proxies[recipient]
        before = proxy.struck[fault]
        proxy.fault = fault
        if fault is Fault.REFUSE:
            proxy.cut_all()
        yield lambda: proxy.struck[fault] > before
        proxy.fault = Fault.NONE

    return strike


KINDS: dict[str, Kind] = {
    "collect killed": Kind("collect", _collect_killed, 1.0),
    "collect killed while it starts": Kind("collect", _collect_killed_twice, 0.5),
    "uplink killed": Kind("uplink", _uplink_killed, 1.5),
    "backend killed": Kind("backend", _backend_killed, 1.5),
    "backend killed between commit and acknowledgement": Kind(
        "backend", _backend_killed_before_it_acknowledges, 0.2, needs_traffic=True
    ),
    "broker stopped": Kind("broker", _broker_stopped, 2.0),
    "broker frozen": Kind("broker", _broker_frozen, 3.0),
    "broker killed with its store": Kind("broker", _broker_killed_with_its_store, 1.0),
    "broker restarted empty": Kind("broker", _broker_restarted_empty, 0.2),
    "connections cut": Kind("network", _cut, 0.2, needs_traffic=True, stops_traffic=False),
    **{
        f"network: {fault.value}": Kind("network", _proxied(fault), 1.5, needs_traffic=True)
        for fault in Fault
        if fault is not Fault.NONE
    },
}
"""Every fault that strikes a running world from outside."""


def strikes(struck: Struck, patience_s: float = _STRIKES_S) -> bool:
    """Waits until a fault has struck; whether it has."""
    with contextlib.suppress(Exception):
        wait_until(struck, "it strikes", patience_s)
        return True
    return False


def pause(duration_s: float) -> None:
    """Lets the world go on for a while: chance decides where the next fault falls."""
    time.sleep(duration_s)
