# SPDX-License-Identifier: Apache-2.0
"""A ledger that is older than its witness is not believed; one that goes on from it is."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.keys import Keys
from agent.ledger import Ledger
from agent.records import State
from agent.witness import witness_of
from assent import durable
from assent.cosekey import SigningKey
from assent.errors import LedgerError
from tests.agent.household import DAY, HOUR, NOON, decision
from tests.simulators.power import PowerCut, power_cut

FLOW = "remote-diagnosis"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.json"


def opened(path: Path, now_ms: int = NOON) -> Ledger:
    """Opens the ledger as a start of the agent does, with the keys that lie beside it."""
    path.parent.mkdir(exist_ok=True)
    return Ledger.open(path, Keys.open(path.parent / "keys").ledger_key, now_ms)


def agreed(path: Path) -> Ledger:
    ledger = opened(path)
    ledger.append_policy(17, b"p" * 32, NOON)
    ledger.append_decision(decision(), NOON)
    return ledger


def copied(path: Path, name: str = "image") -> Path:
    return Path(shutil.copytree(path.parent, path.parent.with_name(name)))


def word(ledger: Ledger) -> State | None:
    newest = ledger.newest(FLOW)
    return newest.state if newest else None


def the_file(image: Path, path: Path) -> None:
    shutil.copy(image / path.name, path)


def the_file_and_the_one_before(image: Path, path: Path) -> None:
    the_file(image, path)
    shutil.copy(image / f"{path.name}.bak", path.with_name(f"{path.name}.bak"))


def nothing_but_what_is_gone(image: Path, path: Path) -> None:
    for file in path.parent.glob("ledger.json*"):
        file.unlink()


def without_its_witness(image: Path, path: Path) -> None:
    the_file(image, path)
    witness_of(path).unlink()


def with_a_damaged_witness(image: Path, path: Path) -> None:
    the_file(image, path)
    data = witness_of(path).read_bytes()
    witness_of(path).write_bytes(data.replace(b'"entries": 4', b'"entries": 3'))


def with_the_witness_of_another_key(image: Path, path: Path) -> None:
    other = path.with_name("other")
    other.mkdir()
    Ledger.open(other / path.name, SigningKey.generate(), NOON)
    the_file(image, path)
    shutil.copy(witness_of(other / path.name), witness_of(path))


@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    "restore",
    [
        the_file,
        the_file_and_the_one_before,
        nothing_but_what_is_gone,
        without_its_witness,
        with_a_damaged_witness,
        with_the_witness_of_another_key,
    ],
    ids=[
        "the file of before",
        "the file of before with its generations",
        "a ledger that is gone whole",
        "the file of before, its witness removed",
        "the file of before, its witness altered",
        "the file of before, with a witness of another key",
    ],
)
def test_what_was_taken_back_does_not_come_back_with(
    path: Path, restore: Callable[[Path, Path], None]
) -> None:
    ledger = agreed(path)
    image = copied(path)
    ledger.append_decision(decision(state=State.WITHDRAWN), NOON + HOUR)
    assert word(opened(path)) is State.WITHDRAWN  # the twin: nothing was restored
    restore(image, path)
    ledger = opened(path, NOON + DAY)
    assert word(ledger) is None
    assert ledger.unknown_since_ms == NOON + DAY
    assert ledger.moved_aside is not None
    assert ledger.objection
    with pytest.raises(LedgerError, match="not been trusted since"):
        ledger.append_decision(decision(), NOON + DAY)
    ledger.tell_time(NOON + 2 * DAY)
    ledger.append_decision(decision(), NOON + 2 * DAY)
    again = opened(path, NOON + 3 * DAY)  # and a new act is believed for good
    assert word(again) is State.GIVEN
    assert again.moved_aside is None


def test_a_whole_state_that_was_restored_is_believed_as_the_docstring_says(path: Path) -> None:
    ledger = agreed(path)
    image = copied(path)
    ledger.append_decision(decision(state=State.WITHDRAWN), NOON + HOUR)
    shutil.rmtree(path.parent)
    shutil.copytree(image, path.parent)
    assert word(opened(path)) is State.GIVEN


def test_the_highest_serial_outlives_a_ledger_that_is_gone_whole_twice(path: Path) -> None:
    agreed(path)
    for now_ms in (NOON + DAY, NOON + 2 * DAY):
        for file in path.parent.glob("ledger.json*"):
            file.unlink()
        ledger = opened(path, now_ms)
        assert (ledger.highest_serial, ledger.policy_hash) == (17, b"p" * 32)
        with pytest.raises(LedgerError, match="serial 16 came after 17"):
            ledger.append_policy(16, b"o" * 32, now_ms)


def test_a_second_loss_on_a_clock_that_is_behind_forgets_no_earlier_one(path: Path) -> None:
    agreed(path)
    path.write_bytes(b"{")
    assert opened(path, NOON + DAY).unknown_since_ms == NOON + DAY
    for file in path.parent.glob("ledger.json*"):
        file.unlink()
    assert opened(path, 1_000).unknown_since_ms == NOON + DAY


# --- the power goes --------------------------------------------------------------------------


def cuts(act: Callable[[], object], undo: Callable[[], object]) -> list[int]:
    """How many writes an act has: the numbers at which a power cut ends it."""
    struck = []
    for after in range(40):
        undo()
        try:
            with power_cut(after):
                act()
        except PowerCut:
            struck.append(after)
        else:
            return struck
    raise AssertionError("it never ends")


@pytest.mark.clause("C28")
@pytest.mark.parametrize("state", [State.WITHDRAWN, State.RENEWED], ids=["a no", "a yes"])
def test_a_power_cut_at_any_write_of_a_word_locks_nobody_out(path: Path, state: State) -> None:
    ledger = agreed(path)
    before = copied(path)
    shutil.rmtree(path.parent)
    found: list[State | None] = []

    def say() -> None:
        ledger.append_decision(decision(state=state), NOON + HOUR)

    def undo() -> None:
        nonlocal ledger
        if path.parent.exists():
            after = opened(path, NOON + DAY)
            assert after.moved_aside is None, after.objection
            found.append(word(after))
            shutil.rmtree(path.parent)
        shutil.copytree(before, path.parent)
        ledger = opened(path)

    struck = cuts(say, undo)
    assert len(struck) >= 7  # .bak, ledger and witness: each a sync, a rename, a sync at least
    assert found == sorted(found, key=lambda one: one is state)  # not heard, then heard
    assert {State.GIVEN, state} == set(found)


@pytest.mark.parametrize("lost", [b"{", None], ids=["a torn ledger", "a ledger that is gone"])
def test_a_power_cut_at_any_write_of_a_new_beginning_leaves_a_loss(
    path: Path, lost: bytes | None
) -> None:
    agreed(path)
    before = copied(path)
    shutil.rmtree(path.parent)
    began: list[int | None] = []

    def undo() -> None:
        if path.parent.exists():
            after = opened(path, NOON + DAY)
            began.append(after.unknown_since_ms)
            assert word(after) is None
            assert after.highest_serial == 17
            shutil.rmtree(path.parent)
        shutil.copytree(before, path.parent)
        if lost is None:
            for file in path.parent.glob("ledger.json*"):
                file.unlink()
        else:
            path.write_bytes(lost)

    struck = cuts(lambda: opened(path, NOON + HOUR), undo)
    assert len(struck) >= 4
    assert set(began) == {NOON + HOUR, NOON + DAY}


def test_what_was_lost_cannot_be_put_back_once_a_new_ledger_stands(path: Path) -> None:
    agreed(path)
    before = copied(path)
    shutil.rmtree(path.parent)
    seen = 0

    def undo() -> None:
        nonlocal seen
        if path.parent.exists():
            if path.exists() and path.read_bytes() != b"{":
                seen += 1
                the_file(before, path)
                assert word(opened(path, NOON + DAY)) is None
            shutil.rmtree(path.parent)
        shutil.copytree(before, path.parent)
        path.write_bytes(b"{")

    cuts(lambda: opened(path, NOON + HOUR), undo)
    assert seen > 0


def test_a_power_cut_at_any_write_of_a_first_start_leaves_a_first_start(path: Path) -> None:
    def undo() -> None:
        if path.parent.exists():
            assert opened(path, NOON + DAY).unknown_since_ms is None
            shutil.rmtree(path.parent)

    struck = cuts(lambda: opened(path), undo)
    assert len(struck) >= 10
    assert opened(path, NOON + DAY).unknown_since_ms is None


def test_what_was_cut_off_from_its_witness_is_witnessed_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, real = agreed(path), durable.write
    image = copied(path)

    def full(target: Path, data: bytes, **more: int) -> None:
        if target == witness_of(path):
            raise OSError(28, "No space left on device")
        real(target, data, **more)

    monkeypatch.setattr(durable, "write", full)
    with caplog.at_level(logging.ERROR):
        ledger.append_decision(decision(state=State.WITHDRAWN), NOON + HOUR)
    assert word(ledger) is State.WITHDRAWN  # a no stands, witnessed or not
    assert caplog.text.count("ledger not witnessed") == 1
    assert word(opened(path)) is State.WITHDRAWN
    monkeypatch.undo()
    assert word(opened(path)) is State.WITHDRAWN
    the_file(image, path)
    assert opened(path).moved_aside is not None


def test_a_first_start_does_not_go_on_without_a_witness(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.write

    def full(target: Path, data: bytes, **more: int) -> None:
        if target == witness_of(path):
            raise OSError(28, "No space left on device")
        real(target, data, **more)

    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(LedgerError, match=r"ledger-witness\.json cannot be written"):
        opened(path)
    monkeypatch.undo()
    assert opened(path, NOON + DAY).unknown_since_ms is None


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"[" * 4_000, b"1" * 5_000, b'{"entries": 0}']
)
def test_whatever_lies_there_is_a_witness_or_a_loss(path: Path, data: bytes) -> None:
    agreed(path)
    witness_of(path).write_bytes(data)
    assert opened(path, NOON + DAY).objection == "its witness is damaged"
    with contextlib.suppress(FileNotFoundError):
        assert opened(path, NOON + 2 * DAY).objection is None
