# SPDX-License-Identifier: Apache-2.0
"""The household's acts: a no takes effect before the answer, a yes comes only in a form."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from agent.desk import Desk
from agent.lock import BusyError, instance_lock
from agent.offline import at_the_desk
from agent.records import State
from agent.settings import load_settings
from agent.spool import LaneState, Purged, Spool
from agent.uplink import Uplink
from assent.errors import (
    AssentError,
    ConfigError,
    ControlError,
    LedgerError,
    RefusedError,
    SpoolError,
    UsageError,
)
from tests.agent.installed import (
    ADVICE,
    CORE,
    DAY,
    DIAGNOSIS,
    FAULT,
    FLOWS,
    HOUR,
    MINUTE,
    NO,
    NOBODY,
    POWER,
    WASHER,
    WASHER_SERIAL,
    YES,
    House,
    Json,
    copied,
    form,
    full_disk,
    living,
    newer,
    no_room,
    read_only,
    replaced,
)
from tests.simulators.clock import ManualClock

BROKEN = NO | {"remote-diagnosys": '"given"', DIAGNOSIS: '"given"'}


@pytest.fixture
def agreed(house: House) -> House:
    """Every flow is on."""
    house.decide(YES)
    assert house.on() == dict.fromkeys(FLOWS)
    return house


def lay(house: House, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    (house.directory / "consent.toml").write_bytes(data)


def states(house: House) -> dict[str, LaneState]:
    return {flow: lane.state for flow, lane in house.spool.lanes().items()}


def recorded(house: House, flow: str) -> list[State]:
    return [record.state for record in house.site.ledger.history(flow)]


@pytest.mark.clause("C28")
@pytest.mark.parametrize("verb", ["refuse", "withdraw"])
def test_a_no_before_any_yes_is_a_refusal_and_after_one_a_withdrawal(
    house: House, verb: str
) -> None:
    house.decide({CORE: '"accepted"'})
    told = [house.desk.answer({"verb": verb, "flow": flow}) for flow in (CORE, DIAGNOSIS)]
    assert [one["decision"] for one in told] == ["withdrawn", "refused"]
    assert recorded(house, CORE) == [State.ACCEPTED, State.WITHDRAWN]
    assert recorded(house, DIAGNOSIS) == [State.REFUSED]
    assert house.on() == {CORE: "withdrawn", DIAGNOSIS: "refused", ADVICE: "not decided"}


@pytest.mark.parametrize("yes_first", [False, True], ids=["never agreed", "agreed once"])
def test_a_no_said_twice_stays_what_it_was(house: House, yes_first: bool) -> None:
    if yes_first:
        house.decide(YES)
    told = [house.desk.say_no(DIAGNOSIS) for _ in range(2)]
    assert {one.decision for one in told} == {"withdrawn" if yes_first else "refused"}
    no = State.WITHDRAWN if yes_first else State.REFUSED
    assert recorded(house, DIAGNOSIS)[-2:] == [no, no]
    assert states(house)[DIAGNOSIS] is LaneState.CLOSED


def test_anyone_present_may_say_no_and_is_written_down_as_that(agreed: House) -> None:
    agreed.desk.say_no(DIAGNOSIS)
    record = agreed.site.ledger.newest(DIAGNOSIS)
    assert record is not None
    assert record.decided_by == "somebody present"
    assert record.terms is not None


@pytest.mark.clause("C28")
def test_when_a_no_returns_nothing_of_the_flow_is_left_and_the_others_go_on(
    agreed: House,
) -> None:
    agreed.bring(*({POWER: watts, FAULT: "heater"} for watts in range(5)))
    agreed.turn(2 * MINUTE)
    agreed.powers(7, 8)
    assert len(agreed.batches(DIAGNOSIS)) > 0
    assert agreed.pipeline.running.lanes()[DIAGNOSIS].readings == 2
    others = len(agreed.batches(CORE)), len(agreed.batches(ADVICE))
    assert others[0] > 0
    agreed.desk.say_no(DIAGNOSIS)
    assert agreed.batches(DIAGNOSIS) == []
    assert agreed.waiting(DIAGNOSIS) > 0  # nobody waits for the rows to be deleted
    agreed.turn()
    assert agreed.waiting(DIAGNOSIS) == 0
    assert DIAGNOSIS not in agreed.pipeline.running.lanes()
    assert states(agreed)[DIAGNOSIS] is LaneState.CLOSED
    assert (len(agreed.batches(CORE)), len(agreed.batches(ADVICE))) == others
    agreed.powers(9)
    agreed.turn(2 * MINUTE)
    assert agreed.batches(DIAGNOSIS) == []


def test_what_was_purged_is_counted_as_it_was(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.turn(2 * MINUTE)
    agreed.powers(4, 5)
    sealed = agreed.spool.waiting()[DIAGNOSIS]
    assert (sealed.batches, sealed.readings) == (1, 3)
    told = agreed.desk.say_no(DIAGNOSIS)
    assert told.purged == Purged(1, 5, sealed.bytes)
    assert told.told[1] == (
        "deleted here: 5 readings, 1 sealed batch;"
        " what of it had left before, if anything: assent sent"
    )
    assert agreed.desk.say_no(DIAGNOSIS).purged == Purged(0, 0, 0)
    tallied = agreed.pipeline.running.tallies[DIAGNOSIS].purged
    assert tallied == Purged(1, 5, sealed.bytes)


def test_readings_in_open_windows_are_counted_among_the_purged(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    agreed.pipeline.flush()
    assert agreed.waiting(ADVICE) == 0
    assert agreed.desk.say_no(ADVICE).purged.readings == 3


def test_a_no_to_an_unknown_flow_is_a_usage_error_with_the_nearest_one(house: House) -> None:
    with pytest.raises(UsageError) as caught:
        house.desk.say_no("remote-diagnosys")
    assert caught.value.exit_code == 2
    assert "remote-diagnosys" in caught.value.message
    assert caught.value.hint == "did you mean remote-diagnosis?"
    with pytest.raises(UsageError) as caught:
        house.desk.say_no("xyzzy")
    assert caught.value.hint is None
    assert house.site.ledger.newest("xyzzy") is None


def unusable(house: House) -> None:
    (house.directory / "policy.toml.cose").unlink()
    house.reload()
    assert house.site.policy is None


def mended(house: House, installed: Path) -> None:
    shutil.copy(installed / "policy.toml.cose", house.directory)
    house.reload()
    assert house.site.policy is not None


@pytest.mark.clause("C28")
def test_a_no_is_heard_while_there_is_no_policy_in_force(agreed: House, installed: Path) -> None:
    agreed.powers(1, 2)
    unusable(agreed)
    assert agreed.waiting(DIAGNOSIS) == 1
    told = agreed.desk.say_no(DIAGNOSIS)
    assert told.decision == "withdrawn"
    assert told.purged.batches == 1
    record = agreed.site.ledger.newest(DIAGNOSIS)
    assert record is not None
    assert (record.terms, record.policy_version) == (None, "unknown")
    mended(agreed, installed)
    assert agreed.on() == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: None}


def test_a_no_without_a_policy_to_a_flow_nobody_decided_about_is_heard_where_it_has_a_lane(
    agreed: House,
) -> None:
    unusable(agreed)
    ledger = agreed.directory / "state/ledger.json"
    ledger.write_bytes(b"{")
    ledger.with_name("ledger.json.bak").unlink(missing_ok=True)
    agreed.close()
    with living(agreed.directory, agreed.clock) as again:
        assert again.site.ledger.moved_aside is not None
        assert again.desk.say_no(DIAGNOSIS).decision == "refused"
        assert states(again)[DIAGNOSIS] is LaneState.CLOSED
        with pytest.raises(UsageError):
            again.desk.say_no("no-such-flow")


@pytest.mark.clause("C28")
def test_a_no_to_a_flow_that_the_policy_no_longer_has_is_heard(agreed: House) -> None:
    def without_advice(text: str) -> str:
        return newer(text[: text.index(f"[flows.{ADVICE}]")])

    agreed.publish(without_advice)
    agreed.reload()
    assert set(agreed.on()) == {CORE, DIAGNOSIS}
    assert agreed.desk.say_no(ADVICE).decision == "withdrawn"
    assert recorded(agreed, ADVICE) == [State.GIVEN, State.WITHDRAWN]


@contextlib.contextmanager
def uplink_at(path: Path) -> Iterator[None]:
    """The real uplink at work; its brokers are not there."""
    stop = threading.Event()
    uplink = Uplink(path, voucher=None)
    thread = threading.Thread(target=uplink.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        uplink.wake()
        thread.join(10)
        assert not thread.is_alive()


class Holding:
    """An uplink that has leased everything, and lets go of it only when it is told to."""

    def __init__(self, house: House) -> None:
        self._spool = Spool.open(house.path, create=False)
        self._now_ms = house.clock.now().wall_ms
        self.held = self._spool.lease("maker", 1_000, self._now_ms)
        self.let_go: set[int] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.wait(0.005):
            fence = self._spool.fence()
            revoked = self._spool.revoked(self._now_ms)
            self._spool.returned(revoked)
            self.let_go |= revoked
            self._spool.answer_fence(fence)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)
        self._spool.close()


class RealWaits(ManualClock):
    """Stands still, but for waits, which last as long as they say."""

    def wait(self, duration_ms: int, event: threading.Event | None = None) -> bool:
        threading.Event().wait(duration_ms / 1000)
        self.advance(duration_ms)
        return event is not None and event.is_set()


@pytest.mark.clause("C28")
@pytest.mark.parametrize("way", ["by word", "in a form"])
def test_when_a_no_returns_the_uplink_holds_nothing_of_the_flow(
    installed: Path, tmp_path: Path, way: str
) -> None:
    with living(copied(installed, tmp_path / "gateway"), RealWaits(), None) as house:
        house.decide(YES)
        house.bring(*({POWER: watts, FAULT: "heater"} for watts in range(3)))
        house.turn(2 * MINUTE)
        with Holding(house) as uplink:
            mine = {lease.id for lease in uplink.held if lease.flow == DIAGNOSIS}
            others = {lease.id for lease in uplink.held} - mine
            assert mine
            assert others
            if way == "by word":
                house.desk.say_no(DIAGNOSIS)
            else:
                house.decide({DIAGNOSIS: '"withdrawn"'})
            assert uplink.let_go == mine
            assert house.spool.fence_passed(house.spool.fence())


@pytest.mark.clause("C28")
def test_an_uplink_that_does_not_answer_holds_a_no_up_for_a_second_and_that_is_told(
    installed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(flowing=True)
    with living(copied(installed, tmp_path / "gateway"), clock, None) as house:
        house.decide(YES)
        house.powers(1, 2)
        house.pipeline.flush()
        before = clock.now().mono_ms
        with caplog.at_level(logging.WARNING):
            told = house.desk.say_no(DIAGNOSIS)
        assert 1_000 <= clock.now().mono_ms - before <= 2_100
        assert "uplink did not answer in time" in caplog.text
        assert (told.uplink, told.certain) == ("silent", False)
        assert "what it holds may still leave" in told.told[0]
        assert house.batches(DIAGNOSIS) == []


@pytest.mark.parametrize("is_known", [False, True], ids=["nobody can end", "is not there"])
def test_a_reload_tells_when_an_uplink_may_still_send_of_a_flow_that_it_ends(
    installed: Path, tmp_path: Path, is_known: bool
) -> None:
    clock, carrier = ManualClock(flowing=True), NOBODY if is_known else None
    with living(copied(installed, tmp_path / "gateway"), clock, carrier) as house:
        house.decide(YES)
        house.powers(1, 2)
        house.publish(replaced('"appliance.power" = "round(1)"', '"appliance.power" = "keep"'))
        told = house.desk.reload()["told"]
        assert house.on()[DIAGNOSIS] == "requested"
        assert any("may still leave" in line for line in told) is not is_known


def test_the_twin_where_nobody_is_there_a_no_is_certain_at_once(agreed: House) -> None:
    before = agreed.clock.now().mono_ms
    told = agreed.desk.say_no(DIAGNOSIS)
    assert agreed.clock.now().mono_ms == before
    assert (told.uplink, told.certain) == ("absent", True)
    assert told.told[0] == "remote-diagnosis: withdrawn; nothing of it leaves any more"


def test_the_real_uplink_lets_a_no_return_at_once(installed: Path, tmp_path: Path) -> None:
    clock = RealWaits()
    with living(copied(installed, tmp_path / "gateway"), clock, None) as house:
        house.decide({CORE: '"accepted"', DIAGNOSIS: '"refused"'})
        house.spool.set_targets([])  # nobody is dialled
        with uplink_at(house.path):
            before = clock.now().mono_ms
            house.desk.say_no(CORE)
            assert clock.now().mono_ms - before < 900


@pytest.mark.clause("C28")
def test_a_no_that_was_recorded_and_could_not_take_effect_is_tried_again_or_ends_the_agent(
    agreed: House,
) -> None:
    agreed.powers(1, 2)
    agreed.pipeline.flush()
    with read_only(agreed.spool):
        with pytest.raises(SpoolError):
            agreed.desk.say_no(DIAGNOSIS)
        assert recorded(agreed, DIAGNOSIS)[-1] is State.WITHDRAWN
        with pytest.raises(SpoolError):
            agreed.turn()
    agreed.turn()
    assert states(agreed)[DIAGNOSIS] is LaneState.CLOSED
    assert agreed.batches(DIAGNOSIS) == []


@pytest.mark.clause("C28")
@pytest.mark.parametrize("way", ["by word", "in a form"])
def test_a_no_that_the_ledger_does_not_take_is_told_and_in_force_until_the_agent_ends(
    agreed: House, way: str
) -> None:
    agreed.powers(1, 2)
    agreed.turn(2 * MINUTE)
    requests = {
        "by word": {"verb": "withdraw", "flow": DIAGNOSIS},
        "in a form": {
            "verb": "apply",
            "text": form({DIAGNOSIS: '"withdrawn"'}),
            "file": "consent.toml",
        },
    }
    with no_room(), pytest.raises(LedgerError, match="cannot be recorded"):
        agreed.desk.answer(requests[way])
    agreed.turn()
    assert recorded(agreed, DIAGNOSIS) == [State.GIVEN]
    assert agreed.batches(DIAGNOSIS) == []
    assert agreed.waiting(DIAGNOSIS) == 0
    assert states(agreed) == {
        CORE: LaneState.OPEN,
        DIAGNOSIS: LaneState.CLOSED,
        ADVICE: LaneState.OPEN,
    }
    agreed.reload()
    assert DIAGNOSIS not in agreed.pipeline.running.lanes()
    assert agreed.on() == {CORE: None, DIAGNOSIS: "refused", ADVICE: None}
    # The twin: when the ledger takes a later word, that counts.
    agreed.decide({DIAGNOSIS: '{ decision = "given", until = 2027-11-22 }'})
    assert agreed.on() == dict.fromkeys(FLOWS)
    agreed.desk.say_no(DIAGNOSIS)
    assert agreed.on()[DIAGNOSIS] == "withdrawn"


def test_a_full_ledger_takes_the_no_of_a_form_and_not_its_yes(
    agreed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ledger.MAX_ENTRIES", len(agreed.site.ledger.entries))
    with pytest.raises(LedgerError, match="takes only a no"):
        agreed.decide(
            {DIAGNOSIS: '"withdrawn"', ADVICE: '{ decision = "given", until = 2027-11-22 }'}
        )
    assert recorded(agreed, DIAGNOSIS) == [State.GIVEN, State.WITHDRAWN]
    assert recorded(agreed, ADVICE) == [State.GIVEN]
    assert agreed.on() == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: None}


def test_a_form_says_yes_to_what_it_names_and_to_nothing_else(house: House) -> None:
    told = house.decide({CORE: '"accepted"', DIAGNOSIS: '"refused"'})
    assert told.acted == [CORE, DIAGNOSIS]
    assert house.on() == {CORE: None, DIAGNOSIS: "refused", ADVICE: "not decided"}
    assert states(house) == {CORE: LaneState.OPEN}


def test_what_a_form_did_is_told_flow_by_flow(house: House) -> None:
    told = house.decide(
        {
            CORE: '"accepted"',
            DIAGNOSIS: f'{{ decision = "given", until = 2027-11-22, without = ["{FAULT}"] }}',
        }
    )
    assert told.told == [
        "service: accepted",
        f"remote-diagnosis: given until its end date without {FAULT}",
    ]


@pytest.mark.clause("C28")
def test_the_same_form_twice_acts_once(house: House) -> None:
    paper = form(YES)
    assert house.desk.apply(paper, "consent.toml").acted == list(FLOWS)
    house.desk.say_no(DIAGNOSIS)
    again = house.desk.apply(paper, "consent.toml")
    assert again.acted == again.stayed == []
    assert again.told == ["this form has acted before; nothing changed"]
    assert house.on()[DIAGNOSIS] == "withdrawn"


def test_a_line_that_does_not_act_is_told_apart_from_one_that_does(house: House) -> None:
    paper = form(YES).replace('decided_by = "owner"', 'decided_by = "a guest"')
    assert paper != form(YES)
    told = house.desk.apply(paper, "consent.toml")
    assert told.acted == []
    assert told.stayed == list(FLOWS)


@pytest.mark.clause("C33")
def test_a_broken_form_says_no_where_it_says_no_and_yes_nowhere(house: House) -> None:
    house.decide({CORE: '"accepted"', ADVICE: '"given"'})
    with pytest.raises(ConfigError) as caught:
        house.decide(BROKEN)
    (finding,) = caught.value.findings
    assert "remote-diagnosys" in finding.message
    assert finding.hint == "did you mean 'remote-diagnosis'?"
    assert finding.file == "consent.toml"
    assert (finding.line, finding.column) == (10, 1)
    assert recorded(house, CORE)[-1] is State.WITHDRAWN
    assert recorded(house, ADVICE)[-1] is State.WITHDRAWN
    assert recorded(house, DIAGNOSIS) == []
    assert house.on() == {CORE: "withdrawn", DIAGNOSIS: "not decided", ADVICE: "withdrawn"}
    assert states(house) == {CORE: LaneState.CLOSED, ADVICE: LaneState.CLOSED}


def test_a_form_that_is_no_form_records_nothing(agreed: House) -> None:
    entries = len(agreed.site.ledger.entries)
    for text in ("", "policy = ", "[decisions]\n", form(NO).replace("decided_by", "decider")):
        with pytest.raises(ConfigError) as caught:
            agreed.desk.apply(text, "consent.toml")
        assert all(finding.file == "consent.toml" for finding in caught.value.findings)
    assert len(agreed.site.ledger.entries) == entries
    assert agreed.on() == dict.fromkeys(FLOWS)


def test_a_form_for_another_version_waits_with_its_yes_and_not_with_its_no(house: House) -> None:
    house.decide({CORE: '"accepted"'})
    told = house.decide({CORE: '"refused"', DIAGNOSIS: '"given"'}, policy="2026-12-01")
    assert told.acted == [CORE]
    assert "names policy 2026-12-01, in force is 2026-11-01" in told.told[1]
    assert "unless 2026-12-01 is yet to come, say it again in a form for 2026-11-01" in told.told[1]
    assert told.told[2].startswith("what waits for a policy that is yet to come acts by itself")
    assert house.on() == {CORE: "withdrawn", DIAGNOSIS: "not decided", ADVICE: "not decided"}


def test_the_twin_a_form_that_waits_for_its_date_acts_by_itself_where_it_lies(house: House) -> None:
    told = house.decide({DIAGNOSIS: '{ decision = "given", on = 2996-11-22T10:15:00+08:00 }'})
    assert told.acted == []
    assert told.told[1].startswith("what waits acts by itself only as")


@pytest.mark.clause("C33")
def test_a_yes_that_waited_for_its_policy_acts_when_that_comes_into_force(house: House) -> None:
    lay(house, form({DIAGNOSIS: '"given"'}, policy="2026-12-01"))
    house.reload()
    assert house.on()[DIAGNOSIS] == "not decided"
    house.publish()
    house.reload()
    assert house.on()[DIAGNOSIS] is None


def test_without_a_policy_a_form_is_refused_with_the_reason(agreed: House) -> None:
    unusable(agreed)
    with pytest.raises(RefusedError) as caught:
        agreed.decide(YES)
    assert caught.value.exit_code == 3
    assert "policy.toml.cose cannot be read" in caught.value.message


def test_a_yes_of_somebody_else_than_the_owner_is_told_and_does_not_act(house: House) -> None:
    told = house.decide(YES, decided_by="tenant")
    assert told.acted == []
    assert all("a yes is for the owner to say" in line for line in told.told)
    assert set(house.on().values()) == {"not decided"}


@pytest.mark.clause("C33")
def test_a_broken_form_pauses_the_optional_flows_and_the_core_goes_on(agreed: House) -> None:
    agreed.bring({POWER: 1.0, FAULT: "heater"})
    agreed.turn(2 * MINUTE)
    assert len(agreed.batches(DIAGNOSIS)) == 1
    lay(agreed, "policy = ")
    agreed.reload()
    assert agreed.on() == {
        CORE: None,
        DIAGNOSIS: "consent form broken",
        ADVICE: "consent form broken",
    }
    trouble = agreed.desk.status()["form_trouble"]
    assert trouble.startswith(f"{agreed.directory}/consent.toml:1:")
    assert agreed.batches(DIAGNOSIS) == []
    assert agreed.waiting(DIAGNOSIS) == 1
    assert states(agreed)[DIAGNOSIS] is LaneState.PAUSED
    assert len(agreed.batches(CORE)) == 1
    agreed.bring({POWER: 2.0, FAULT: "heater"})
    assert len(agreed.batches(CORE)) == 2
    # The twin: a form that can be read lets what waited leave.
    lay(agreed, form({}))
    agreed.reload()
    assert agreed.desk.status()["form_trouble"] is None
    assert len(agreed.batches(DIAGNOSIS)) == 1


def test_a_no_in_a_broken_form_that_lies_there_acts_all_the_same(agreed: House) -> None:
    agreed.powers(1)
    agreed.turn(2 * MINUTE)
    lay(agreed, form({DIAGNOSIS: '"withdrawn"', "no-such-flow": '"given"'}))
    agreed.reload()
    assert agreed.on() == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: "consent form broken"}
    agreed.turn()
    assert agreed.waiting(DIAGNOSIS) == 0


@pytest.mark.parametrize("made", ["absent", "empty of decisions"])
def test_a_form_that_says_nothing_changes_nothing(agreed: House, made: str) -> None:
    if made != "absent":
        lay(agreed, form({}))
    agreed.reload()
    assert agreed.on() == dict.fromkeys(FLOWS)
    assert agreed.desk.status()["form_trouble"] is None


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("a directory", "cannot be read"),
        ("too large", "cannot be read"),
        ("no text", "consent.toml:1:"),
    ],
)
def test_a_form_that_cannot_be_read_pauses_and_says_why(
    agreed: House, shape: str, said: str
) -> None:
    if shape == "a directory":
        (agreed.directory / "consent.toml").mkdir()
    else:
        lay(agreed, b"#" * 1_048_577 if shape == "too large" else b"\xff\xfe")
    agreed.reload()
    assert said in agreed.desk.status()["form_trouble"]
    assert agreed.on()[DIAGNOSIS] == "consent form broken"
    assert agreed.on()[CORE] is None


def test_a_form_that_cannot_be_recorded_pauses_and_a_no_is_still_heard(
    agreed: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A full ledger takes only a no.
    monkeypatch.setattr("agent.ledger.MAX_ENTRIES", len(agreed.site.ledger.entries))
    lay(agreed, form({DIAGNOSIS: '{ decision = "given", until = 2027-11-22 }'}))
    agreed.reload()
    assert "takes only a no" in agreed.desk.status()["form_trouble"]
    assert agreed.on()[CORE] is None
    assert agreed.desk.say_no(CORE).decision == "withdrawn"
    agreed.close()
    with at_the_desk(load_settings(agreed.directory)) as desk:
        assert desk.say_no(ADVICE).decision == "withdrawn"


def test_a_reload_closes_the_open_batches_into_the_spool_first(agreed: House) -> None:
    agreed.powers(1, 2, 3)
    assert agreed.waiting(DIAGNOSIS) == 0
    assert agreed.desk.answer({"verb": "reload"}) == {"told": ["files read again"]}
    assert agreed.waiting(DIAGNOSIS) == 1
    assert agreed.on() == dict.fromkeys(FLOWS)


def test_a_bad_agent_toml_keeps_the_old_one_and_tells_where_it_is_bad(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    before = agreed.site.settings
    (agreed.directory / "agent.toml").write_text('[gateway]\nstate = "state"\nquot = 3\n')
    with caplog.at_level(logging.ERROR):
        (told,) = agreed.reload()["told"]
    place = f"{agreed.directory}/agent.toml:3:1"
    assert told.startswith("agent.toml is bad, the old one is kept: ")
    assert place in told
    assert place in caplog.text
    assert agreed.site.settings == before
    assert agreed.on() == dict.fromkeys(FLOWS)


def settings_with(house: House, text: str) -> None:
    (house.directory / "agent.toml").write_text(text)


def test_a_good_agent_toml_is_in_force_after_a_reload(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    text = (agreed.directory / "agent.toml").read_text()
    settings_with(agreed, text.replace('state = "state"', 'state = "state"\nquota = "2 MB"'))
    with caplog.at_level(logging.INFO):
        assert agreed.reload()["told"] == ["files read again"]
    assert "files read again restart_needed_for=nothing" in caplog.text
    assert agreed.desk.status()["notices"] == []
    assert agreed.site.settings.quota_bytes == 2_000_000


def test_another_state_directory_waits_for_the_next_start(agreed: House) -> None:
    text = (agreed.directory / "agent.toml").read_text()
    settings_with(agreed, text.replace('state = "state"', 'state = "elsewhere"'))
    told = agreed.reload()["told"]
    assert told == ["files read again", "gateway.state takes effect at the next start"]
    assert agreed.site.settings.state == agreed.directory / "state"
    assert not (agreed.directory / "elsewhere").exists()


@pytest.mark.parametrize("was", ["system", "synchronised"])
def test_another_trust_in_the_clock_waits_for_the_next_start(
    installed: Path, tmp_path: Path, was: str
) -> None:
    directory = copied(installed, tmp_path / "gateway")
    agent = directory / "agent.toml"
    agent.write_text(agent.read_text().replace('"system"', f'"{was}"'))
    other = "synchronised" if was == "system" else "system"
    with living(directory) as house:
        before = house.desk.status()["clock"]
        settings_with(house, agent.read_text().replace(f'"{was}"', f'"{other}"'))
        told = house.reload()["told"]
        assert told == ["files read again", "clock.trust takes effect at the next start"]
        assert house.desk.status()["notices"] == [
            "restart needed: clock.trust of agent.toml was changed and takes effect at the next start"
        ]
        assert house.desk.status()["clock"] == before


RECORDING = """\
time,power,energy,water,door,program,fault,serial
2026-11-01T08:00:00Z,1.2,412345,21.0,1,idle,,TEST-WM-CANARY-0001
"""


def device(name: str, recording: Path) -> str:
    return f"""
[[device]]
id = "{name}"
kind = "washing-machine"
source = "replay"
port = "{recording}"
profile = "replay-washing-machine"
speed = 0.0
"""


def test_devices_are_those_of_the_last_good_agent_toml(agreed: House, tmp_path: Path) -> None:
    recording = tmp_path / "recording.csv"
    recording.write_text(RECORDING)
    text = (agreed.directory / "agent.toml").read_text()
    for names in (["one"], ["one", "two"], ["two"], []):
        devices = "".join(device(name, recording) for name in names)
        settings_with(agreed, text + devices)
        agreed.reload()
        assert [one["id"] for one in agreed.desk.status()["devices"]] == names


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"verb": "dance"},
        {"verb": None},
        {"verb": ["status"]},
        {"verb": "withdraw"},
        {"verb": "withdraw", "flow": 3},
        {"verb": "withdraw", "flow": None},
        {"verb": "refuse", "flow": ["service"]},
        {"verb": "apply"},
        {"verb": "apply", "text": "x"},
        {"verb": "apply", "text": 3, "file": "x"},
        {"verb": "STATUS"},
    ],
    ids=str,
)
def test_a_request_that_is_none_is_refused_and_changes_nothing(
    agreed: House, request_: dict[str, Any]
) -> None:
    entries = len(agreed.site.ledger.entries)
    with pytest.raises(ControlError):
        agreed.desk.answer(request_)
    assert len(agreed.site.ledger.entries) == entries
    assert agreed.on() == dict.fromkeys(FLOWS)


@pytest.mark.parametrize(
    "request_",
    [
        {"verb": "apply", "text": "\ud800", "file": "consent.toml"},
        {"verb": "apply", "text": "policy = ", "file": "\ud800"},
        {"verb": "withdraw", "flow": "\ud800"},
        {"verb": "apply", "text": "\x00" * 100, "file": ""},
        {"verb": "withdraw", "flow": "x" * 100_000},
        {"verb": "sent", "flow": "\ud800", "limit": 3},
    ],
    ids=[
        "no Unicode in a form",
        "nor in its name",
        "nor in a flow",
        "NULs",
        "a long name",
        "nor in a question",
    ],
)
def test_strange_text_is_an_error_of_ours_that_can_be_told(
    agreed: House, request_: dict[str, Any]
) -> None:
    with pytest.raises(AssentError) as caught:
        agreed.desk.answer(request_)
    assert json.dumps(caught.value.message, ensure_ascii=False).encode()
    assert agreed.on() == dict.fromkeys(FLOWS)


@pytest.mark.parametrize("limit", [-1, 0, 10**30, True], ids=str)
def test_a_strange_limit_is_no_end_of_the_agent(agreed: House, limit: int) -> None:
    answer = agreed.desk.answer({"verb": "sent", "flow": None, "limit": limit})
    assert answer == {"sent": []}


def every_answer(house: House) -> dict[str, Json]:
    return {
        "status": house.desk.answer({"verb": "status"}),
        "consent": house.desk.answer({"verb": "consent"}),
        "history": house.desk.answer({"verb": "history"}),
        "sent": house.desk.answer({"verb": "sent", "flow": None, "limit": 100}),
        "apply": house.desk.answer({"verb": "apply", "text": form(YES), "file": "consent.toml"}),
        "withdraw": house.desk.answer({"verb": "withdraw", "flow": DIAGNOSIS}),
        "refuse": house.desk.answer({"verb": "refuse", "flow": DIAGNOSIS}),
        "reload": house.desk.answer({"verb": "reload"}),
        "status after": house.desk.answer({"verb": "status"}),
    }


@pytest.mark.parametrize("policy", [True, False], ids=["with a policy", "without one"])
def test_every_answer_is_json(agreed: House, policy: bool) -> None:
    agreed.bring({POWER: 1.0, FAULT: "heater"})
    agreed.connect("maker")
    if not policy:
        unusable(agreed)
        for verb in ("status", "consent", "reload"):
            answer = agreed.desk.answer({"verb": verb})
            assert json.loads(json.dumps(answer, allow_nan=False)) == answer
        return
    for answer in every_answer(agreed).values():
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer


@pytest.mark.clause("C35")
def test_no_answer_and_no_log_line_holds_a_value_or_an_identifier(
    agreed: House, caplog: pytest.LogCaptureFixture
) -> None:
    kept, power = "motor", "4321567"  # longer than what chance puts into an id
    with caplog.at_level(logging.DEBUG):
        agreed.bring(
            {POWER: 43_215_678.5, FAULT: kept, "device.serial": WASHER_SERIAL},
            {POWER: 43_215_678.5, FAULT: "canary.resident@example.com"},
        )
        agreed.turn(2 * MINUTE)
        found = [repr(batch.tables) for batch in agreed.batches(DIAGNOSIS)]
        said = json.dumps(every_answer(agreed)) + caplog.text
    for one in (kept, power):
        assert one in "".join(found), "the search is broken: what the flow keeps is not found"
    secrets = [WASHER_SERIAL, WASHER.id, power, kept, "canary.resident"]
    secrets += [agreed.site.keys.gateway(name).mailbox for name in ("maker", "energy-advice")]
    assert [secret for secret in secrets if secret in said] == []


@pytest.fixture
def asleep(agreed: House) -> House:
    """Every flow was on, batches wait, and the agent has ended."""
    agreed.bring({POWER: 1.0, FAULT: "heater"}, {POWER: 2.0})
    agreed.close()
    return agreed


def lanes(directory: Path) -> dict[str, tuple[LaneState, int]]:
    with contextlib.closing(Spool.open(directory / "state/spool/spool.db")) as spool:
        waiting = spool.waiting()
        return {flow: (lane.state, waiting[flow].batches) for flow, lane in spool.lanes().items()}


@contextlib.contextmanager
def desk_of(house: House) -> Iterator[Desk]:
    with at_the_desk(load_settings(house.directory)) as desk:
        yield desk


def test_looking_changes_nothing_while_no_agent_runs(asleep: House) -> None:
    before = lanes(asleep.directory)
    assert before[DIAGNOSIS] == (LaneState.OPEN, 2)
    with desk_of(asleep) as desk:
        status = desk.status()
        desk.answer({"verb": "consent"})
    assert status["running"] is False
    assert status["uplinks"] == []
    assert lanes(asleep.directory) == before


@pytest.mark.clause("C28")
def test_a_no_while_no_agent_runs_closes_the_lane_and_purges_it(asleep: House) -> None:
    before = lanes(asleep.directory)
    with desk_of(asleep) as desk:
        told = desk.say_no(DIAGNOSIS)
    assert (told.decision, told.purged.batches) == ("withdrawn", 2)
    after = lanes(asleep.directory)
    assert after[DIAGNOSIS] == (LaneState.CLOSED, 0)
    assert {flow: after[flow] for flow in (CORE, ADVICE)} == {
        flow: before[flow] for flow in (CORE, ADVICE)
    }
    with living(asleep.directory, asleep.clock) as house:
        assert house.on() == {CORE: None, DIAGNOSIS: "withdrawn", ADVICE: None}


@pytest.mark.clause("C28")
def test_a_no_in_a_form_that_was_laid_there_acts_while_no_agent_runs(asleep: House) -> None:
    lay(asleep, form({DIAGNOSIS: '"withdrawn"'}))
    with desk_of(asleep) as desk:
        assert desk.status()["running"] is False
    assert lanes(asleep.directory)[DIAGNOSIS] == (LaneState.CLOSED, 0)


def test_a_no_applied_in_a_form_while_no_agent_runs_closes_its_lane(asleep: House) -> None:
    with desk_of(asleep) as desk:
        desk.apply(form({DIAGNOSIS: '"withdrawn"'}), "consent.toml")
    assert lanes(asleep.directory)[DIAGNOSIS] == (LaneState.CLOSED, 0)


def test_a_pause_while_no_agent_runs_keeps_what_waits(asleep: House) -> None:
    (asleep.directory / "policy.toml.cose").unlink()
    before = lanes(asleep.directory)
    with desk_of(asleep) as desk:
        assert desk.status()["policy"] is None
    assert {flow: count for flow, (_, count) in lanes(asleep.directory).items()} == {
        flow: count for flow, (_, count) in before.items()
    }


def test_a_yes_while_no_agent_runs_opens_nothing(installed: Path, tmp_path: Path) -> None:
    directory = copied(installed, tmp_path / "gateway")
    now_ms = time.time_ns() // 1_000_000  # a command has the machine's clock
    with at_the_desk(load_settings(directory)) as desk:
        desk.apply(form(YES, now_ms), "consent.toml")
        assert all(flow["on"] for flow in desk.status()["flows"])
    assert lanes(directory) == {}
    with living(directory, ManualClock(now_ms + HOUR)) as house:
        assert set(states(house).values()) == {LaneState.OPEN}


def test_the_desk_is_taken_while_another_holds_the_lock(asleep: House) -> None:
    with (
        instance_lock(asleep.directory / "state"),
        pytest.raises(BusyError),
        desk_of(asleep),
    ):
        pass
    with desk_of(asleep) as desk:
        assert desk.status()["running"] is False


def test_a_no_lasts_through_full_disks_restarts_and_old_papers(asleep: House) -> None:
    paper = form(YES, asleep.clock.now().wall_ms - DAY)
    with desk_of(asleep) as desk:
        desk.say_no(DIAGNOSIS)
    lay(asleep, paper)
    for _ in range(2):
        asleep.clock.advance(HOUR)
        with living(asleep.directory, asleep.clock) as house:
            assert house.on()[DIAGNOSIS] == "withdrawn"
            with full_disk(house.spool):
                house.powers(1)
            assert house.batches(DIAGNOSIS) == []
