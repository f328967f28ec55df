# SPDX-License-Identifier: Apache-2.0
"""The ledger keeps what was decided, notices every change to it, and never believes half of it."""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tinydb import TinyDB

from agent import ledger as ledger_room
from agent import storage
from agent.chain import document_of
from agent.keys import Keys
from agent.ledger import Ledger
from agent.records import Decided, Decision, FormRead, Start, State
from agent.records.wire import encode_entry
from agent.storage import DurableStorage
from assent import durable
from assent.cosekey import SigningKey
from assent.errors import KeyStoreError, LedgerError
from assent.policy.expressions import parse as transform
from tests.agent.household import DAY, HOUR, NOON, changed, decision, policy, terms

KEY = SigningKey.of(bytes(32))
FLOWS = ("service", "remote-diagnosis", "partner-energy-advice")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


def opened(path: Path, now_ms: int = NOON, key: SigningKey = KEY) -> Ledger:
    return Ledger.open(path, key, now_ms)


def filled(path: Path) -> Ledger:
    ledger = opened(path)
    ledger.append_policy(17, b"p" * 32, NOON)
    ledger.append_form(
        b"f" * 32, [decision("service", State.ACCEPTED), decision()], NOON, final=True
    )
    ledger.append_decision(decision(state=State.WITHDRAWN), NOON + HOUR)
    return ledger


@functools.cache
def whole_file() -> bytes:
    """The bytes of a filled ledger."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.json"
        filled(path)
        return path.read_bytes()


def wide_and_narrow() -> tuple[Any, Any]:
    """Terms of a flow, and the same with a longer window."""
    wide = terms()
    narrow = {**policy().flows["remote-diagnosis"].attributes}
    narrow["appliance.power"] = transform("window(1h, mean)")
    return wide, terms(of=changed("remote-diagnosis", attributes=narrow))


def test_what_was_appended_is_there_after_a_restart(path: Path) -> None:
    before, after = filled(path), opened(path)
    assert after.entries == before.entries
    assert after.head == before.head
    assert after.highest_serial == 17
    assert after.policy_hash == b"p" * 32
    assert after.form_seen(b"f" * 32)
    assert not after.form_seen(b"g" * 32)
    assert after.moved_aside is None
    assert after.unknown_since_ms is None
    newest = after.newest("remote-diagnosis")
    assert newest is not None
    assert newest.state is State.WITHDRAWN
    assert newest.terms == terms()
    assert newest.at_ms == NOON + HOUR
    states = [record.state for record in after.history("remote-diagnosis")]
    assert states == [State.GIVEN, State.WITHDRAWN]
    assert [record.form_hash for record in after.history("service")] == [b"f" * 32]
    assert after.newest("partner-energy-advice") is None
    assert after.history("partner-energy-advice") == ()
    assert after.policy_versions == {"2026-11-01"}


def test_a_first_start_knows_nothing_and_nothing_is_unknown(path: Path) -> None:
    ledger = opened(path)
    assert ledger.unknown_since_ms is None
    assert ledger.highest_serial == 0
    assert ledger.policy_hash is None
    assert ledger.policy_versions == frozenset()
    assert [entry.body for entry in ledger.entries] == [Start(None)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_append_is_on_the_disk_when_it_returns(path: Path) -> None:
    ledger = opened(path)
    record = ledger.append_decision(decision(), NOON)
    assert opened(path).newest("remote-diagnosis") == record


def of_a_gateway(path: Path, now_ms: int) -> Ledger:
    """Opens the ledger as a start of the agent does, with the keys that lie beside it."""
    return Ledger.open(path, Keys.open(path.parent / "keys").ledger_key, now_ms)


@pytest.mark.clause("C28")
def test_a_ledger_that_is_gone_without_a_trace_is_no_first_start(path: Path) -> None:
    assert of_a_gateway(path, NOON).unknown_since_ms is None
    assert of_a_gateway(path, NOON + HOUR).unknown_since_ms is None
    for file in path.parent.glob("ledger.json*"):
        file.unlink()
    ledger = of_a_gateway(path, NOON + DAY)
    assert ledger.unknown_since_ms == NOON + DAY
    assert ledger.moved_aside is not None
    assert of_a_gateway(path, NOON + 2 * DAY).unknown_since_ms == NOON + DAY


def test_a_crash_before_the_first_entry_leaves_a_first_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Keys.open(path.parent / "keys").ledger_key
    real = durable.write

    def cut(target: Path, data: bytes) -> None:
        if target == path:
            raise OSError(errno.EIO, "power cut")
        real(target, data)

    monkeypatch.setattr(durable, "write", cut)
    with pytest.raises(LedgerError, match="power cut"):
        Ledger.open(path, key, NOON)
    monkeypatch.undo()
    assert of_a_gateway(path, NOON + DAY).unknown_since_ms is None


def test_a_crash_right_after_the_first_entry_is_made_good_at_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Keys.open(path.parent / "keys").ledger_key
    real = durable.write

    def cut(target: Path, data: bytes, **more: int) -> None:
        if target.name == "ledger.key":
            raise OSError(errno.EIO, "power cut")
        real(target, data, **more)

    monkeypatch.setattr(durable, "write", cut)
    with pytest.raises(KeyStoreError, match="cannot be written"):
        Ledger.open(path, key, NOON)
    monkeypatch.undo()
    assert of_a_gateway(path, NOON + HOUR).unknown_since_ms is None
    path.unlink()
    assert of_a_gateway(path, NOON + DAY).unknown_since_ms == NOON + DAY


@pytest.mark.clause("C28")
def test_a_withdrawal_leaves_the_record_of_what_was_lawful_before(path: Path) -> None:
    ledger = filled(path)
    given, withdrawn = ledger.history("remote-diagnosis")
    assert (given.state, given.at_ms, given.terms) == (State.GIVEN, NOON, terms())
    assert (withdrawn.state, withdrawn.at_ms) == (State.WITHDRAWN, NOON + HOUR)
    assert given.id != withdrawn.id


def test_a_policy_that_was_in_force_already_is_not_written_again(path: Path) -> None:
    ledger = filled(path)
    before = path.read_bytes()
    ledger.append_policy(17, b"p" * 32, NOON + DAY)
    assert path.read_bytes() == before
    ledger.append_policy(18, b"q" * 32, NOON + DAY)
    assert path.read_bytes() != before
    assert opened(path).highest_serial == 18


@pytest.mark.parametrize(("serial", "policy_hash"), [(16, b"p" * 32), (17, b"q" * 32)])
def test_a_policy_serial_never_goes_back(path: Path, serial: int, policy_hash: bytes) -> None:
    ledger = filled(path)
    with pytest.raises(LedgerError, match="serial"):
        ledger.append_policy(serial, policy_hash, NOON)
    assert ledger.highest_serial == 17


def test_a_form_is_remembered_when_first_read_and_when_done(path: Path) -> None:
    ledger = filled(path)
    length = len(ledger.entries)
    for final, added in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 2)):
        assert ledger.append_form(b"g" * 32, [], NOON, final=final) == ()
        assert len(ledger.entries) == length + added
        for each in (ledger, opened(path)):
            assert each.form_seen(b"g" * 32) == (added == 2)


@pytest.mark.clause("C28")
def test_a_form_is_overtaken_by_a_no_that_came_after_it_was_read(path: Path) -> None:
    ledger = filled(path)
    assert not ledger.is_overtaken(b"g" * 32, "service")
    ledger.append_form(b"g" * 32, [decision("service", State.REFUSED)], NOON, final=False)
    ledger.append_decision(decision("remote-diagnosis"), NOON)
    for each in (ledger, opened(path)):
        assert not each.is_overtaken(b"g" * 32, "service")  # its own no
        assert not each.is_overtaken(b"g" * 32, "remote-diagnosis")  # a no before it, a yes after
    # the clock may have gone back: the order counts
    ledger.append_decision(decision("remote-diagnosis", State.WITHDRAWN), NOON - DAY)
    for each in (ledger, opened(path)):
        assert each.is_overtaken(b"g" * 32, "remote-diagnosis")
        assert not each.is_overtaken(b"g" * 32, "service")
        assert not each.is_overtaken(b"h" * 32, "remote-diagnosis")  # not read yet


def test_all_of_a_form_stands_in_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, real, writes = filled(path), durable.write, []

    def counted(target: Path, data: bytes) -> None:
        writes.append(target.name)
        real(target, data)

    monkeypatch.setattr(durable, "write", counted)
    three = [decision(flow, State.REFUSED, terms=None) for flow in FLOWS]
    ledger.append_form(b"g" * 32, three, NOON, final=True)
    assert writes == ["ledger.json.bak", "ledger.json", "ledger-witness.json"]


@pytest.mark.parametrize("failing", ["ledger.json.bak", "ledger.json"])
def test_a_full_disk_records_nothing_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    ledger, real = filled(path), durable.write

    def full(target: Path, data: bytes) -> None:
        if target.name == failing:
            raise OSError(errno.ENOSPC, "no space left on device")
        real(target, data)

    monkeypatch.setattr(durable, "write", full)
    head = ledger.head
    with pytest.raises(LedgerError, match="no space left"):
        ledger.append_decision(decision(), NOON + DAY)
    monkeypatch.undo()
    assert ledger.head == head
    assert opened(path).entries == ledger.entries
    ledger.append_decision(decision(), NOON + DAY)
    assert opened(path).entries == ledger.entries


@pytest.mark.clause("C28")
def test_a_full_ledger_takes_a_no_and_no_yes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = filled(path)
    monkeypatch.setattr(ledger_room, "MAX_ENTRIES", len(ledger.entries))
    with pytest.raises(LedgerError, match="only a no"):
        ledger.append_decision(decision(), NOON)
    ledger.append_form(b"h" * 32, [decision("service", State.REFUSED)], NOON, final=True)
    newest = opened(path).newest("service")
    assert newest is not None
    assert newest.state is State.REFUSED


@pytest.mark.clause("C28")
def test_a_form_with_a_no_and_a_yes_loses_only_the_yes_when_the_ledger_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(path)
    ledger.append_decision(decision(), NOON)
    both = [decision(state=State.WITHDRAWN), decision("partner-energy-advice")]
    monkeypatch.setattr(ledger_room, "MAX_ENTRIES", len(ledger.entries))
    with pytest.raises(LedgerError, match="only a no"):
        ledger.append_form(b"h" * 32, both, NOON + HOUR, final=True)
    for each in (ledger, opened(path)):
        newest = each.newest("remote-diagnosis")
        assert newest is not None
        assert newest.state is State.WITHDRAWN
        assert each.newest("partner-energy-advice") is None
        assert not each.form_seen(b"h" * 32)
    # said once more, as by who hears of the mistake, it is not recorded twice
    before = path.read_bytes()
    ledger.append_form(b"h" * 32, both[:1], NOON + 2 * HOUR, final=False)
    assert path.read_bytes() == before
    monkeypatch.undo()
    ledger.append_form(b"h" * 32, both, NOON + 2 * HOUR, final=True)  # the twin: with room
    assert ledger.newest("partner-energy-advice") is not None


def with_file_of(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A small file, its room for noes in the proportion of the real one."""
    monkeypatch.setattr(storage, "MAX_BYTES", most)
    monkeypatch.setattr(ledger_room, "MAX_BYTES", most)
    monkeypatch.setattr(ledger_room, "ROOM_FOR_NOES", most // 2)
    monkeypatch.setattr(ledger_room, "ROOM_FOR_LAST_NOES", most // 4)


@pytest.mark.clause("C28")
def test_a_file_that_is_full_has_room_for_the_no_to_every_yes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_file_of(monkeypatch, 60_000)
    ledger = opened(path)
    for flow in FLOWS:
        ledger.append_decision(decision(flow), NOON)

    def until_refused(append: Callable[[int], object]) -> None:
        for number in range(1_000):
            append(number)

    with pytest.raises(LedgerError, match="only a no"):
        until_refused(lambda _: ledger.append_decision(decision(state=State.RENEWED), NOON))
    assert path.stat().st_size <= 30_000
    no = decision("partner-energy-advice", State.REFUSED)
    with pytest.raises(LedgerError, match="full"):
        until_refused(lambda _: ledger.append_decision(no, NOON))
    with pytest.raises(LedgerError, match="full"):
        until_refused(lambda n: ledger.append_form(bytes([n]) * 32, [], NOON, final=True))
    ledger.append_form(b"g" * 32, [decision("service", State.WITHDRAWN)], NOON, final=True)
    ledger.append_decision(decision(state=State.WITHDRAWN), NOON)
    again = opened(path)
    assert again.entries == ledger.entries
    for flow in FLOWS:
        newest = again.newest(flow)
        assert newest is not None
        assert not newest.state.is_yes
        assert newest.terms is None  # those of the yes before it


def test_the_room_for_noes_takes_one_of_the_longest_lines_for_each_of_a_hundred_flows(
    path: Path,
) -> None:
    line = "\N{CJK UNIFIED IDEOGRAPH-6211}" * 200
    words = {"policy_version": line, "decided_by": line, "recorded_by": line, "method": line}
    said = msgspec.structs.replace(decision(state=State.WITHDRAWN), flow=line, terms=None, **words)
    no = Decided(said, b"h" * 32)
    each = ledger_room._written_bytes(encode_entry(bytes(32), NOON, no))
    assert 100 * each < ledger_room.ROOM_FOR_LAST_NOES


def test_an_entry_takes_no_more_of_the_file_than_is_reckoned(path: Path) -> None:
    ledger = filled(path)
    reckoned = sum(map(ledger_room._written_bytes, ledger.entries))
    assert path.stat().st_size <= reckoned


Damage = Callable[[Path], None]


def entries_of(path: Path) -> dict[str, dict[str, str]]:
    entries: dict[str, dict[str, str]] = json.loads(path.read_bytes())["tables"]["entries"]
    return entries


def rewritten(change: Callable[[dict[str, dict[str, str]]], object]) -> Damage:
    """Changes the entries as somebody would who knows the storage: its digest is right again."""

    def damage(path: Path) -> None:
        entries = entries_of(path)
        change(entries)
        DurableStorage(path, fresh=True).write({"entries": entries})

    return damage


def renumbered(entries: dict[str, dict[str, str]], without: str) -> None:
    kept = [entries[str(n)] for n in range(1, len(entries) + 1) if str(n) != without]
    entries.clear()
    entries.update({str(number): entry for number, entry in enumerate(kept, 1)})


def swapped(entries: dict[str, dict[str, str]]) -> None:
    entries["3"], entries["4"] = entries["4"], entries["3"]


def forged(entries: dict[str, dict[str, str]]) -> None:
    """The withdrawal becomes a yes, well-formed and in its place; only the signature is off."""
    before = base64.b64decode(entries["5"]["entry"])
    yes = encode_entry(hashlib.sha256(before).digest(), NOON, Decided(decision(), None))
    entries["6"]["entry"] = base64.b64encode(yes.raw).decode()


def another_gateways(path: Path) -> None:
    other = path.with_name("other.json")
    ledger = opened(other, key=SigningKey.generate())
    ledger.append_decision(decision(), NOON)
    path.write_bytes(other.read_bytes())


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[tuple[str, Damage]] = [
    ("torn in the middle", torn),
    ("empty", emptied),
    ("gone", Path.unlink),
    ("a directory", a_directory),
    ("another gateway's", another_gateways),
    ("a withdrawal that became a yes", rewritten(forged)),
    ("an entry removed from the middle", rewritten(lambda e: e.pop("3"))),
    ("an entry removed and the rest moved up", rewritten(lambda e: renumbered(e, "3"))),
    ("the first entry removed", rewritten(lambda e: renumbered(e, "1"))),
    ("two entries swapped", rewritten(swapped)),
    ("an entry repeated at the end", rewritten(lambda e: e.update({"7": e["6"]}))),
    ("all entries removed", rewritten(lambda e: e.clear())),
    (
        "a signature of another entry",
        rewritten(lambda e: e["5"].update(signature=e["4"]["signature"])),
    ),
    ("a signature that is no base64", rewritten(lambda e: e["5"].update(signature="?"))),
    ("one member too many", rewritten(lambda e: e["5"].update(note="x"))),
    ("one member too few", rewritten(lambda e: e["5"].pop("signature"))),
    ("an id that is no number", rewritten(lambda e: e.update({"x": e["6"]}))),
    ("a second beginning", rewritten(lambda e: e.update({"7": e["1"]}))),
]


@pytest.mark.parametrize("damage", [d for _, d in DAMAGES], ids=[name for name, _ in DAMAGES])
def test_a_damaged_ledger_is_moved_aside_and_every_decision_is_unknown(
    path: Path, damage: Damage
) -> None:
    filled(path)
    assert opened(path).moved_aside is None  # the twin: before the damage it is believed
    damage(path)
    ledger = opened(path, NOON + DAY)
    assert ledger.moved_aside is not None
    assert ledger.moved_aside.exists()
    assert ledger.unknown_since_ms == NOON + DAY
    assert all(ledger.newest(flow) is None for flow in FLOWS)
    # and it stays so
    again = opened(path, NOON + 2 * DAY)
    assert again.moved_aside is None
    assert again.unknown_since_ms == NOON + DAY
    again.tell_time(NOON + 2 * DAY)
    again.append_decision(decision(), NOON + 2 * DAY)
    assert opened(path).newest("remote-diagnosis") is not None


def test_a_ledger_begins_once_even_when_the_key_signed_otherwise(path: Path) -> None:
    beginning = encode_entry(bytes(32), NOON, Start(None))
    again = encode_entry(beginning.hash, NOON, Start(None))
    late = encode_entry(bytes(32), NOON, FormRead(bytes(32), done=True))
    for chain, believed in (([beginning], True), ([beginning, again], False), ([late], False)):
        entries = {str(n): document_of(entry, KEY) for n, entry in enumerate(chain, 1)}
        DurableStorage(path, fresh=True).write({"entries": entries})
        assert (opened(path).moved_aside is None) == believed


@pytest.mark.parametrize("member", ["entry", "signature"])
def test_another_spelling_of_the_same_base64_is_not_believed(path: Path, member: str) -> None:
    ledger = filled(path)
    while not entries_of(path)[str(len(ledger.entries))][member].endswith("="):
        ledger.append_policy(ledger.highest_serial * 10, bytes(32), NOON)
    entries = entries_of(path)
    text = entries[str(len(entries))][member]
    bare = text.rstrip("=")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spelled = bare[:-1] + letters[letters.index(bare[-1]) + 1] + text[len(bare) :]
    assert base64.b64decode(spelled) == base64.b64decode(text)
    entries[str(len(entries))][member] = spelled
    DurableStorage(path, fresh=True).write({"entries": entries})
    assert opened(path).moved_aside is not None


def test_a_ledger_of_another_key_is_not_believed(path: Path) -> None:
    filled(path)
    assert opened(path, key=SigningKey.generate()).moved_aside is not None


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_altered_byte_is_ever_accepted(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("flip") / "ledger.json"
    whole = whole_file()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[at] ^ data.draw(st.integers(1, 255))
    path.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
    ledger = opened(path, NOON + DAY)
    assert ledger.moved_aside is not None
    assert ledger.newest("service") is None


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_altered_entry_is_accepted_when_the_digest_of_the_file_is_right_again(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "ledger.json"
    path.write_bytes(whole_file())
    before = opened(path)
    entries = entries_of(path)
    entry = entries[str(data.draw(st.integers(1, len(entries))))]
    member = data.draw(st.sampled_from(["entry", "signature"]))
    at = data.draw(st.integers(0, len(entry[member]) - 1))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126))
    same = entry[member][at] == letter
    entry[member] = entry[member][:at] + letter + entry[member][at + 1 :]
    DurableStorage(path, fresh=True).write({"entries": entries})
    ledger = opened(path, NOON + DAY)
    assert (ledger.moved_aside is None) == same
    assert (ledger.entries == before.entries) == same


def test_a_tail_that_was_cut_is_noticed_by_the_witness_alone(path: Path) -> None:
    before = filled(path)
    rewritten(lambda entries: entries.pop("6"))(path)
    cut = path.read_bytes()
    assert opened(path).objection == "it is older than its witness, or another"
    path.write_bytes(cut)
    path.with_name("ledger-witness.json").unlink()
    ledger = opened(path)  # the twin: nothing else on this machine can know it
    assert ledger.moved_aside is None
    assert ledger.entries == before.entries[:-1]


def test_a_crash_between_moving_aside_and_beginning_anew_is_no_first_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    path.write_bytes(b"{")

    def cut(target: Path, data: bytes) -> None:
        raise OSError(errno.EIO, "power cut")

    monkeypatch.setattr(durable, "write", cut)
    with pytest.raises(LedgerError, match="power cut"):
        opened(path, NOON + DAY)
    assert not path.exists()
    monkeypatch.undo()
    assert opened(path, NOON + 2 * DAY).unknown_since_ms == NOON + 2 * DAY


def test_a_clock_that_is_behind_does_not_make_old_forms_new(path: Path) -> None:
    filled(path)
    damaged = json.loads(path.read_bytes())
    damaged["tables"]["entries"]["1"]["entry"] = "A"
    path.write_text(json.dumps(damaged))
    assert opened(path, 1_000).unknown_since_ms == NOON + HOUR


@pytest.mark.clause("C28")
@pytest.mark.parametrize("wrong_ms", [1_000, NOON + 9_000 * DAY], ids=["behind", "ahead"])
def test_a_ledger_that_was_lost_on_a_wrong_clock_takes_no_yes_before_the_time_is_known(
    path: Path, wrong_ms: int
) -> None:
    path.write_bytes(bytes(2000))
    ledger = opened(path, wrong_ms)
    with pytest.raises(LedgerError, match="not been trusted since"):
        ledger.append_decision(decision(), NOON)
    ledger.append_decision(decision(state=State.REFUSED), wrong_ms)  # a no needs no clock
    opened(path, wrong_ms).tell_time(NOON + DAY)
    again = opened(path, wrong_ms)
    assert again.unknown_since_ms == NOON + DAY
    again.tell_time(NOON + 2 * DAY)
    assert again.unknown_since_ms == NOON + DAY  # once known, it stays
    again.append_decision(decision(), NOON + 2 * DAY)
    assert opened(path).newest("remote-diagnosis") == again.newest("remote-diagnosis")


def test_the_time_is_written_only_where_something_is_in_doubt(path: Path) -> None:
    ledger = filled(path)
    before = path.read_bytes()
    ledger.tell_time(NOON + DAY)
    assert path.read_bytes() == before


def test_an_old_policy_stays_refused_after_the_ledger_was_moved_aside(path: Path) -> None:
    filled(path)
    path.write_bytes(b"{")
    assert opened(path, NOON + DAY).highest_serial == 17


def test_the_policy_of_a_ledger_by_another_key_counts_for_nothing(path: Path) -> None:
    ledger = opened(path, key=SigningKey.generate())
    ledger.append_policy(9_000, b"p" * 32, NOON)
    again = opened(path, NOON)
    assert again.moved_aside is not None
    assert again.highest_serial == 0


def test_a_ledger_that_may_not_be_read_is_left_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)

    def refused(target: Path, max_bytes: int) -> bytes:
        raise PermissionError(errno.EACCES, "permission denied")

    monkeypatch.setattr(durable, "read", refused)
    with pytest.raises(LedgerError, match="permission denied"):
        opened(path)
    monkeypatch.undo()
    assert opened(path).newest("service") is not None


def test_the_previous_generation_is_not_fallen_back_to(path: Path) -> None:
    """It may be the one before a withdrawal."""
    filled(path)
    shutil.copy(path.with_name("ledger.json.bak"), path.with_name("saved"))
    path.write_bytes(b"{")
    assert opened(path, NOON + DAY).newest("remote-diagnosis") is None
    # the twin: it would have said yes
    path.with_name("saved").replace(path)
    path.with_name("ledger-witness.json").unlink()
    newest = opened(path).newest("remote-diagnosis")
    assert newest is not None
    assert newest.state is State.GIVEN


WIDE, NARROW = wide_and_narrow()


def said(state: State, hours: int, agreed: Any = WIDE, **more: Any) -> tuple[Decision, int]:
    return decision(state=state, terms=agreed, **more), NOON + hours * HOUR


@pytest.mark.clause("C33")
@pytest.mark.parametrize(
    ("words", "current", "hours"),
    [
        ([], WIDE, None),
        ([said(State.REFUSED, 0)], WIDE, None),
        ([said(State.GIVEN, 0)], WIDE, 0),
        ([said(State.ACCEPTED, 0)], WIDE, 0),
        ([said(State.GIVEN, 0), said(State.WITHDRAWN, 1)], WIDE, None),
        ([said(State.GIVEN, 0), said(State.RENEWED, 1)], WIDE, 0),
        ([said(State.GIVEN, 0), said(State.WITHDRAWN, 1), said(State.GIVEN, 2)], WIDE, 2),
        ([said(State.GIVEN, 0)], NARROW, 0),
        ([said(State.GIVEN, 0, NARROW)], WIDE, None),
        ([said(State.GIVEN, 0, WIDE), said(State.RENEWED, 1, NARROW)], NARROW, 0),
        ([said(State.GIVEN, 0, WIDE), said(State.RENEWED, 1, NARROW)], WIDE, None),
        ([said(State.GIVEN, 0, NARROW), said(State.RENEWED, 1, WIDE)], WIDE, 1),
        ([said(State.GIVEN, 0, NARROW), said(State.RENEWED, 1, WIDE)], NARROW, 0),
        (
            [said(State.GIVEN, 0), said(State.RENEWED, 1, NARROW), said(State.RENEWED, 2)],
            WIDE,
            2,
        ),
        ([said(State.GIVEN, 0, until_ms=NOON + HOUR), said(State.RENEWED, 2)], WIDE, 2),
        ([said(State.GIVEN, 0, until_ms=NOON + 2 * HOUR), said(State.RENEWED, 2)], WIDE, 0),
        ([said(State.GIVEN, 0, without=("a",)), said(State.RENEWED, 1)], WIDE, 1),
        ([said(State.GIVEN, 0), said(State.RENEWED, 1, without=("a",))], WIDE, 0),
        ([said(State.GIVEN, 5), said(State.RENEWED, 1)], WIDE, 1),
    ],
    ids=[
        "nobody said anything",
        "a no is no yes",
        "a yes begins when it was recorded",
        "an acceptance, too",
        "a withdrawal ends it",
        "a renewed yes reaches back to the first",
        "a no in between cuts it",
        "a yes to wider terms covers narrower ones",
        "a yes to narrower terms does not cover wider ones",
        "wide then narrow, narrow in force: from the wide yes on",
        "wide then narrow, wide in force: the newest does not cover it",
        "narrow then wide, wide in force: from the wide yes on",
        "narrow then wide, narrow in force: from the first on",
        "wide, narrow, wide: the narrow yes in between cuts it",
        "a yes that had ended before the next does not count",
        "a yes that ended as the next came does",
        "an attribute given only later is not older than that",
        "an attribute taken out later leaves the rest unbroken",
        "a clock that went back cuts it",
    ],
)
def test_the_unbroken_yes_begins(
    path: Path, words: list[tuple[Decision, int]], current: Any, hours: int | None
) -> None:
    ledger = opened(path)
    for word, at_ms in words:
        ledger.append_decision(word, at_ms)
    since = ledger.unbroken_since("remote-diagnosis", current)
    assert since == (None if hours is None else NOON + hours * HOUR)
    assert opened(path).unbroken_since("remote-diagnosis", current) == since


class LedgerMachine(RuleBasedStateMachine):
    """Random appends and reopenings equal a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ledger.json"
        self.ledger = opened(self.path)
        self.said: list[tuple[Decision, int, bytes | None]] = []
        self.forms: set[bytes] = set()
        self.serial = 0
        self.now = NOON

    def teardown(self) -> None:
        self.directory.cleanup()

    @rule(flow=st.sampled_from(FLOWS), state=st.sampled_from(State), step=st.integers(-5, 1000))
    def decide(self, flow: str, state: State, step: int) -> None:
        self.now += step
        word = decision(flow, state)
        record = self.ledger.append_decision(word, self.now)
        assert self.ledger.newest(flow) == record
        self.said.append((word, self.now, None))

    @rule(flows=st.sets(st.sampled_from(FLOWS)), number=st.integers(0, 3), final=st.booleans())
    def form(self, flows: set[str], number: int, final: bool) -> None:
        form_hash = bytes([number]) * 32
        words = [decision(flow, State.REFUSED) for flow in sorted(flows)]
        self.ledger.append_form(form_hash, words, self.now, final=final)
        before = {word.flow for word, _, of in self.said if of == form_hash}
        self.said += [(word, self.now, form_hash) for word in words if word.flow not in before]
        self.forms |= {form_hash} if final else set()

    @rule(step=st.integers(0, 2))
    def policy(self, step: int) -> None:
        self.serial += step
        if self.serial:
            self.ledger.append_policy(self.serial, bytes([self.serial % 256]) * 32, self.now)

    @rule()
    def reopen(self) -> None:
        self.ledger = opened(self.path, self.now)
        assert self.ledger.moved_aside is None

    @invariant()
    def equals_a_plain_list(self) -> None:
        for flow in FLOWS:
            kept = [
                (record.state, record.terms, record.at_ms, record.form_hash)
                for record in self.ledger.history(flow)
            ]
            assert kept == [(w.state, w.terms, at, f) for w, at, f in self.said if w.flow == flow]
        assert {bytes([n]) * 32 for n in range(4) if self.ledger.form_seen(bytes([n]) * 32)} == (
            self.forms
        )
        assert self.ledger.highest_serial == self.serial
        assert self.ledger.unknown_since_ms is None


LedgerMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestAnySequence = LedgerMachine.TestCase


def test_tinydb_opens_the_file_as_its_own(path: Path) -> None:
    filled(path)
    table = TinyDB(path, storage=DurableStorage).table("entries")
    assert len(table) == 6
    assert set(table.all()[0]) == {"entry", "signature"}
