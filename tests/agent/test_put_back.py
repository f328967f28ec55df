# SPDX-License-Identifier: Apache-2.0
"""A spool or a whole state that is lost or put back, as the backend's own rooms see it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.site import SPOOL
from assent.backend.acknowledge import Acknowledger
from assent.backend.ingest import Desk, judge
from assent.backend.offers import Offer
from assent.backend.outcomes import Gateway
from assent.backend.store import Store, Taken
from assent.backend.store.completeness import holes
from assent.backend.store.positions import Position
from assent.header import GapCause
from assent.messages import StreamAck, up_topic
from assent.policy.terms import terms_of
from tests.agent.installed import (
    DIAGNOSIS,
    MINUTE,
    POWER,
    SECOND,
    YES,
    House,
    copied,
)


class Backend:
    """The maker's ingest, store and acknowledger; a broker between them loses and doubles nothing."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.store = Store(root)

    def hear(self, house: House) -> None:
        """Takes everything that may leave, and acknowledges it."""
        keys, recipient = house.site.keys.gateway("maker"), house.maker.recipients["maker"]
        gateway = Gateway(keys.mailbox, keys.sign.public, keys.seal.public)
        policy = house.site.policy
        assert policy is not None
        offers = {
            (name, terms_of(policy.policy, name).hash): Offer(
                name, terms_of(policy.policy, name), "1", 1, flow.batch.readings
            )
            for name, flow in policy.policy.flows.items()
        }
        desk = Desk("maker", {recipient.seal.kid: recipient.seal}, offers, lambda _: gateway)
        acknowledger = Acknowledger(recipient.ack, self._position)
        now_ms = house.clock.now().wall_ms
        with house.carrier() as carrier:
            leases = carrier.lease("maker", 10_000, now_ms)
            topic = up_topic(keys.mailbox)
            group = [Taken(judge(topic, one.data, desk), one.data, now_ms) for one in leases]
            carrier.delivered([one.id for one in leases], now_ms)
        acknowledger.note(self.store.put(group))
        for letter in acknowledger.letters(0.0):
            house.receive("maker", letter.data)
        house.connect("maker")
        house.turn()

    def _position(self, signer: bytes, stream: int) -> Position:
        found = self.store.custody.position(signer, stream)
        return found[1] if found else Position()

    def values(self) -> list[float]:
        """Every reading of the flow, in order."""
        rows = self.store.readings.rows(DIAGNOSIS, 10_000)
        return sorted(float(row.value) for row in rows if row.attribute == POWER)  # type: ignore[arg-type]

    def causes(self) -> Counter[str | None]:
        """Why anything of the flow is missing; None where nothing explains it."""
        return Counter(
            None if hole.cause is None else hole.cause.name.lower()
            for chain in self.store.chains.all(DIAGNOSIS)
            for hole in holes(chain)
        )

    def reasons(self) -> set[str]:
        """Why anything is in quarantine."""
        return {one.reason for one in self.store.custody.quarantined(99)}


@pytest.fixture
def house(house: House) -> House:
    """Every flow is on."""
    house.decide(YES)
    return house


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    opened = Backend(tmp_path / "backend")
    yield opened
    opened.store.close()


def measure(house: House, *watts: float) -> None:
    """One batch with these readings."""
    house.powers(*watts)
    house.pipeline.flush()
    house.turn(2 * SECOND)


def copy_of(house: House) -> Path:
    """The state as it is now, of a gateway that goes on."""
    return copied(house.directory / "state", house.directory.parent / "kept")


def restart(house: House, happens: Callable[[Path], None]) -> House:
    """The gateway stops in order, something happens to its state, and it starts again."""
    house.close()
    happens(house.directory / "state")
    house.clock.advance(MINUTE)
    return House(house.directory, house.clock).start()


def finish(house: House, backend: Backend, *watts: float) -> None:
    """More is measured, and everything that waits is heard, with what it has to tell."""
    for one in watts:
        backend.hear(house)
        measure(house, one)
    backend.hear(house)
    house.close()


def _nothing(_: Path) -> None:
    """What usually happens to a state: nothing."""


def _no_spool(state: Path) -> None:
    shutil.rmtree((state / SPOOL).parent)


def test_the_twin_a_restart_alone_is_complete(house: House, backend: Backend) -> None:
    measure(house, 1, 2)
    backend.hear(house)
    measure(house, 3)
    again = restart(house, _nothing)
    finish(again, backend, 4, 5)
    assert backend.values() == [1, 2, 3, 4, 5]
    assert set(backend.causes()) <= {"outage"}
    assert backend.reasons() == set()


def test_a_spool_that_is_lost_is_told_and_doubles_nothing(house: House, backend: Backend) -> None:
    measure(house, 1, 2)
    backend.hear(house)
    measure(house, 3)  # waits, and is lost
    again = restart(house, _no_spool)
    finish(again, backend, 4, 5)
    assert backend.values() == [1, 2, 4, 5]
    assert backend.causes()["lost"] == 1
    assert set(backend.causes()) <= {"lost", "outage"}
    assert backend.reasons() == set()


def test_an_old_spool_alone_is_told_and_what_it_sends_again_is_known(
    house: House, backend: Backend
) -> None:
    """Red without the count: the end it tells of is that of the copy."""
    measure(house, 1)
    measure(house, 2)
    kept = copy_of(house)  # 1 and 2 wait in it
    backend.hear(house)
    measure(house, 3)
    backend.hear(house)
    measure(house, 4)  # waits, and is lost

    def put_back(state: Path) -> None:
        _no_spool(state)
        shutil.copytree(kept / "spool", state / "spool")

    again = restart(house, put_back)
    finish(again, backend, 5, 6)
    assert backend.values() == [1, 2, 3, 5, 6]
    assert backend.store.custody.counters()["duplicate"] >= 2  # they were sent again
    assert backend.causes()["lost"] == 1
    assert set(backend.causes()) <= {"lost", "outage", "crash"}
    assert backend.reasons() == set()


def test_a_whole_state_of_a_running_gateway_forks_is_refused_and_begins_anew(
    house: House, backend: Backend
) -> None:
    """It goes on in its stream, under a number that was used up; nobody here can know that."""
    measure(house, 1)
    backend.hear(house)
    house.powers(2)
    house.turn(10 * SECOND)  # the journal has it
    kept = copy_of(house)
    measure(house, 3)
    backend.hear(house)
    again = restart(house, lambda state: _replace(state, kept))
    measure(again, 4)
    finish(again, backend, 5, 6)
    assert backend.reasons() == {"fork"}
    assert backend.values() == [1, 2, 3, 5, 6]  # 4 stood with 2 under the number of 2 and 3
    told = backend.causes()
    assert told["refused"] >= 1
    assert {"crash", "outage"} & set(told)


@pytest.mark.parametrize("connected_first", [True, False], ids=["told at once", "told later"])
def test_what_was_acknowledged_to_the_life_before_takes_nothing_silently_from_this_one(
    house: House, backend: Backend, connected_first: bool
) -> None:
    """Red where it is taken as it stands: what waits under used numbers is deleted, and not told."""
    measure(house, 1)
    backend.hear(house)
    house.powers(2)
    house.turn(10 * SECOND)
    kept = copy_of(house)
    for watts in (3, 30):
        measure(house, watts)
        backend.hear(house)
    again = restart(house, lambda state: _replace(state, kept))
    stream = again.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    measure(again, 4)  # under a number that was used up
    began_ms = again.clock.now().wall_ms - 3 * SECOND
    assert again.waiting(DIAGNOSIS) == 1
    if connected_first:
        again.connect("maker")
    again.receive("maker", again.acknowledgement("maker", [StreamAck(stream, 3)]))
    again.turn()
    assert again.waiting(DIAGNOSIS) == 0
    assert again.spool.lanes()[DIAGNOSIS].stream != stream
    (gap,) = (one for one in again.spool.gaps_for(DIAGNOSIS) if one.cause is GapCause.REFUSED)
    assert gap.first_ms <= began_ms <= gap.last_ms
    finish(again, backend, 5, 6)
    assert backend.values() == [1, 2, 3, 5, 6, 30]
    assert backend.causes()["refused"] == 1
    assert backend.reasons() == set()


def test_the_twin_an_acknowledgement_of_all_that_was_given_leaves_the_stream_as_it_is(
    house: House, backend: Backend
) -> None:
    measure(house, 1)
    measure(house, 2)
    stream = house.spool.lanes()[DIAGNOSIS].stream
    assert stream is not None
    house.receive("maker", house.acknowledgement("maker", [StreamAck(stream, 2)]))
    house.turn()
    assert house.waiting(DIAGNOSIS) == 0
    assert house.spool.lanes()[DIAGNOSIS].stream == stream
    assert house.spool.gaps_for(DIAGNOSIS) == ()


def test_a_whole_state_of_a_gateway_at_rest_leaves_a_stream_whose_end_nobody_tells(
    house: House, backend: Backend
) -> None:
    measure(house, 1)
    backend.hear(house)
    house.close()
    kept = copy_of(house)
    middle = restart(house, _nothing)
    finish(middle, backend, 2)
    between = House(house.directory, house.clock).start()
    measure(between, 3)  # waits, and is lost
    again = restart(between, lambda state: _replace(state, kept))
    finish(again, backend, 4, 5)
    assert backend.values() == [1, 2, 4, 5]
    assert backend.causes()[None] == 1
    assert backend.reasons() == set()


def _replace(state: Path, kept: Path) -> None:
    shutil.rmtree(state)
    shutil.copytree(kept, state)
