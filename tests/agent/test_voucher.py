# SPDX-License-Identifier: Apache-2.0
"""The word for a spool: an older copy that is put back has none, whoever starts the uplink first."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.meanwhile import hear_refusals
from agent.site import SPOOL
from agent.spool import LaneState, Spool
from agent.spool.voucher import Voucher
from tests.agent.carrying import STREAM, Gateway, payloads
from tests.agent.installed import DIAGNOSIS, MINUTE, YES, House, copied, living, read_only
from tests.simulators.certificates import Authority
from tests.simulators.conditions import eventually
from tests.simulators.stub import Stub

WORD = Path("keys") / "tls" / "spool"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@contextlib.contextmanager
def gateway_of(state: Path, authority: Authority) -> Iterator[tuple[Stub, Gateway]]:
    """An open lane, vouched for, with three batches in it; the uplink is not started."""
    with Stub(authority) as stub:
        gateway = Gateway(state / "spool", authority, stub.url)
        gateway.voucher = Voucher(state)
        gateway.open_lane()
        gateway.voucher.give(gateway.spool)
        gateway.put(3)
        try:
            yield stub, gateway
        finally:
            gateway.close()


def put_back(kept: Path, directory: Path) -> None:
    shutil.rmtree(directory)
    shutil.copytree(kept, directory)


def test_an_old_copy_put_back_after_a_no_leaves_nothing_until_it_is_decided_about(
    state: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Red where the uplink does not ask for the word: the first three leave at once."""
    with gateway_of(state, authority) as (stub, gateway):
        assert gateway.voucher is not None
        gateway.spool.close()
        kept = copied(state / "spool", state / "kept")
        gateway.spool = Spool.open(gateway.path)
        gateway.spool.close_lane("service")
        gateway.voucher.give(gateway.spool)
        gateway.spool.close()
        put_back(kept, state / "spool")
        gateway.spool = Spool.open(gateway.path)
        assert gateway.spool.lanes()["service"].state is LaneState.OPEN
        gateway.start()
        eventually(lambda: "nobody has vouched" in caplog.text)
        gateway.spool.close_lane("service")
        gateway.voucher.give(gateway.spool)
        gateway.open_lane(STREAM + 1)
        later = gateway.put(2)
        eventually(lambda: gateway.counted("delivered") == 2)
        assert payloads(stub) == later


def test_the_twin_the_spool_itself_drains_while_nobody_collects(
    state: Path, authority: Authority
) -> None:
    """After a reboot, too: another uplink finds the word where it was."""
    with gateway_of(state, authority) as (stub, gateway):
        gateway.spool.close()
        gateway.start()
        eventually(lambda: gateway.counted("delivered") == 3)
        gateway.stop()
        gateway.spool = Spool.open(gateway.path)
        gateway.put(2)
        gateway.spool.close()
        gateway.start()
        eventually(lambda: gateway.counted("delivered") == 2)
        assert len(payloads(stub)) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\x00 7\n"),
        lambda path: path.write_bytes(bytes(9_999)),
        lambda path: path.write_bytes(b"00" * 16 + b" 0\n"),
    ],
    ids=["gone", "empty", "no text", "too long", "of another spool"],
)
def test_without_a_word_that_can_be_read_nothing_is_vouched_for(
    state: Path, spoil: Callable[[Path], None]
) -> None:
    (state / "spool").mkdir()
    with contextlib.closing(Spool.open(state / SPOOL)) as spool:
        voucher = Voucher(state)
        voucher.give(spool)
        assert voucher.vouches_for(spool)
        spoil(state / WORD)
        assert not voucher.vouches_for(spool)
        voucher.give(spool)  # the next decision mends it
        assert voucher.vouches_for(spool)


def test_a_disk_that_refuses_the_word_ends_nothing_and_the_old_one_holds(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "spool").mkdir()
    (state / "keys").write_text("in the way")
    with contextlib.closing(Spool.open(state / SPOOL)) as spool:
        voucher = Voucher(state)
        voucher.give(spool)
        voucher.give(spool)
        assert not voucher.vouches_for(spool)
        assert caplog.text.count("not written") == 1
        (state / "keys").unlink()
        voucher.give(spool)
        assert voucher.vouches_for(spool)


# --- a gateway that gives it -----------------------------------------------------------------------


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    with living(copied(installed, tmp_path / "gateway")) as house:
        house.decide(YES)
        house.powers(1, 2)
        house.pipeline.flush()
        yield house


def is_vouched_for(house: House, path: Path) -> bool:
    """Whether the gateway's uplink would lease from a spool."""
    with contextlib.closing(Spool.open(path, create=False)) as spool:
        return Voucher(house.directory / "state").vouches_for(spool)


def copy_of(house: House) -> Path:
    """The spool as it is now, of a gateway that goes on; as one file."""
    kept = house.directory.parent / f"kept-{len(list(house.directory.parent.iterdir()))}.db"
    with house.carrier() as spool:
        spool._db.execute("VACUUM INTO ?", (str(kept),))
        kept.chmod(0o660)
    with contextlib.closing(Spool.open(kept)):  # as a log again, as every spool is
        pass
    return kept


@pytest.mark.parametrize("act", ["a no", "a narrower yes", "a no while nobody answered"])
def test_when_an_act_returns_no_older_copy_is_vouched_for(house: House, act: str) -> None:
    kept = copy_of(house)
    assert is_vouched_for(house, kept)
    house.clock.advance(MINUTE)
    match act:
        case "a no":
            house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
        case "a narrower yes":
            less = '{ decision = "given", without = ["appliance.power"] }'
            house.decide({**YES, DIAGNOSIS: less})
        case _:
            house.close()
            with house.carrier() as spool:
                spool.refuse(DIAGNOSIS, house.clock.now().wall_ms)
            again = House(house.directory, house.clock)
            hear_refusals(again.pipeline, again.desk.say_no)
            again.close()
    assert not is_vouched_for(house, kept)
    assert is_vouched_for(house, house.path)


def test_the_twin_what_shuts_nothing_leaves_a_copy_its_word(house: House) -> None:
    kept = copy_of(house)
    house.powers(3, 4)
    house.pipeline.flush()
    house.turn(MINUTE)
    assert is_vouched_for(house, kept)


def test_a_copy_that_was_decided_about_lets_no_other_copy_pass(house: House) -> None:
    """Red without `raise_fence`: the one of a time between the two stands further on than it."""
    kept = copy_of(house)
    house.spool.raise_fence(9)  # as other flows do that stop and go
    between = copy_of(house)
    house.clock.advance(MINUTE)
    house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS})
    house.close()
    for path in house.path.parent.glob("spool.db-*"):
        path.unlink()
    house.path.write_bytes(kept.read_bytes())
    again = House(house.directory, house.clock).start()
    assert is_vouched_for(again, again.path)
    assert again.spool.lanes()[DIAGNOSIS].state is LaneState.CLOSED
    again.close()
    assert not is_vouched_for(again, between)


def test_a_spool_that_refuses_the_fence_of_an_old_copy_ends_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Red where the word is given with each commit: the refusal ends the agent."""
    word = house.directory / "state" / WORD
    spool, fence = word.read_text().split()
    word.write_text(f"{spool} {int(fence) + 5}\n")
    with read_only(house.spool):
        house.connect("maker")
        house.powers(3, 4)
        house.turn(MINUTE // 2)
        assert "spool not tended" in caplog.text
        assert not is_vouched_for(house, house.path)
    house.turn(MINUTE // 2)
    assert house.spool.fence() == int(fence) + 5
    assert is_vouched_for(house, house.path)


def test_a_word_that_the_disk_refused_is_given_again(house: House) -> None:
    """Red where the spool counts as tended all the same."""
    place = (house.directory / "state" / WORD).parent
    place.rename(place.with_name("aside"))
    place.write_text("in the way")
    house.connect("maker")
    house.turn()
    place.unlink()
    place.with_name("aside").rename(place)
    (place / "spool").unlink()
    house.turn()
    assert is_vouched_for(house, house.path)
