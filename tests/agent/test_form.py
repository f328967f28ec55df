# SPDX-License-Identifier: Apache-2.0
"""A form acts once; a no always acts; a yes only when nothing speaks against it."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.form import (
    Act,
    Form,
    is_broken,
    is_final,
    judge,
    load_form,
    parse_form,
)
from agent.ledger import Ledger
from agent.records import Decision, Record, State
from assent import located
from assent.errors import ConfigError, Severity
from assent.policy.model import Policy
from tests.agent.household import (
    DAY,
    HOUR,
    LEDGER_KEY,
    MINUTE,
    NOON,
    changed,
    decision,
    ledger_in_memory,
    policy,
    terms,
)
from tests.agent.installed import filled_in

ROOT = Path(__file__).resolve().parents[2]
POLICY = policy()
# Forms are read at noon UTC; this one was recorded an hour before.
EARLIER = NOON - HOUR


@pytest.fixture
def ledger() -> Ledger:
    return ledger_in_memory(NOON - 30 * DAY)


def moment(ms: int) -> str:
    at = dt.datetime.fromtimestamp(ms / 1000, tz=dt.timezone(dt.timedelta(hours=8)))
    return at.isoformat()


def text(
    *lines: str,
    version: str = "2026-11-01",
    by: str = "owner",
    at: int = EARLIER,
    more: str = "",
) -> str:
    decided = "\n".join(lines)
    return f"""\
policy = "{version}"
decided_by = "{by}"
recorded_by = "installer 4711"
recorded_at = {moment(at)}
method = "signed form 2026-0042"
{more}
[decisions]
{decided}
"""


def hash_of(form: str) -> bytes:
    return hashlib.sha256(form.encode()).digest()


def judged(
    form: str,
    ledger: Ledger,
    now: int = NOON,
    *,
    of: Policy = POLICY,
    trusted: bool = True,
) -> tuple[Act, ...]:
    return judge(parse_form(form), hash_of(form), of, ledger, now, clock_trusted=trusted)


def applied(
    form: str,
    ledger: Ledger,
    now: int = NOON,
    *,
    of: Policy = POLICY,
    trusted: bool = True,
) -> tuple[Act, ...]:
    """Reads a form as the running agent does."""
    acts = judged(form, ledger, now, of=of, trusted=trusted)
    decisions = [act.decision for act in acts if act.decision is not None]
    ledger.append_form(hash_of(form), decisions, now, final=is_final(acts))
    return acts


def states(acts: tuple[Act, ...]) -> dict[str, State | None]:
    return {act.flow: act.decision.state if act.decision else None for act in acts}


def why(acts: tuple[Act, ...]) -> str:
    return "; ".join(act.finding.message for act in acts if act.finding is not None)


def state_of(ledger: Ledger, flow: str = "remote-diagnosis") -> State | None:
    newest = ledger.newest(flow)
    return newest.state if newest else None


GIVEN = 'remote-diagnosis = "given"'
REFUSED = 'remote-diagnosis = "refused"'


def given_on(ms: int) -> str:
    return f'remote-diagnosis = {{ decision = "given", on = {moment(ms)} }}'


@pytest.mark.clause("C01")
def test_the_example_form_as_it_stands_decides_nothing_and_is_refused() -> None:
    text = (ROOT / "config" / "consent.toml").read_text()
    with pytest.raises(ConfigError) as caught:
        parse_form(text)
    found = {finding.message.split(" ")[0] for finding in caught.value.findings}
    assert len(caught.value.findings) >= 4, found
    for name in ("decided_by", "recorded_by", "method"):
        text = text.replace(f'{name} = ""', f'{name} = "canary"')
    form = parse_form(text.replace("# recorded_at", "recorded_at"))
    assert dict(form.decisions) == {}


def test_the_example_form_filled_in_decides_every_flow_of_the_example_policy(
    ledger: Ledger,
) -> None:
    form = parse_form(filled_in())
    example = located.load(ROOT / "config" / "policy.toml", Policy)
    assert set(form.decisions) == set(example.flows)
    acts = judge(form, bytes(32), example, ledger, NOON, clock_trusted=True)
    assert states(acts) == {
        "service": State.ACCEPTED,
        "remote-diagnosis": State.GIVEN,
        "partner-energy-advice": State.GIVEN,
    }
    assert is_final(acts)


def test_an_absent_form_is_no_form_and_no_error(tmp_path: Path) -> None:
    assert load_form(tmp_path / "consent.toml") is None
    (tmp_path / "consent.toml").write_text(text(GIVEN))
    assert load_form(tmp_path / "consent.toml") is not None


def test_something_else_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "consent.toml").mkdir()
    with pytest.raises(ConfigError, match="readable file"):
        load_form(tmp_path / "consent.toml")
    (tmp_path / "consent.toml").rmdir()
    (tmp_path / "consent.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        load_form(tmp_path / "consent.toml")


def test_what_was_written_is_read(ledger: Ledger) -> None:
    form = parse_form(
        text(
            'service = "accepted"',
            "partner-energy-advice = { decision = 'given', until = 2027-11-22,"
            f" without = ['location.area'], on = {moment(EARLIER + MINUTE)} }}",
        )
    )
    said = form.decisions["partner-energy-advice"]
    assert (form.policy, form.decided_by, form.method) == (
        "2026-11-01",
        "owner",
        "signed form 2026-0042",
    )
    assert form.recorded_by == "installer 4711"
    assert form.recorded_ms == EARLIER
    assert form.decided_ms(form.decisions["service"]) == EARLIER
    assert form.decided_ms(said) == EARLIER + MINUTE
    assert said.without == ("location.area",)


def test_a_yes_ends_as_the_day_begins_where_the_form_was_recorded(ledger: Ledger) -> None:
    """Eight hours before it begins in Greenwich; the narrower reading of `until`."""
    form = parse_form(text("remote-diagnosis = { decision = 'given', until = 2026-11-24 }"))
    midnight = dt.datetime(2026, 11, 23, 16, tzinfo=dt.UTC)
    assert form.until_ms(form.decisions["remote-diagnosis"]) == midnight.timestamp() * 1000


@pytest.mark.parametrize(
    ("form", "finding"),
    [
        ("policy = ", "consent.toml:1:10: expected a value"),
        (text(GIVEN, more="note = 1"), "consent.toml:6:1: unknown key 'note'"),
        (text(GIVEN, more='recorder = ""'), "did you mean 'recorded_by'?"),
        (text(GIVEN).replace("method", "methods"), "did you mean 'method'?"),
        (text(GIVEN).replace('"owner"', '""'), "consent.toml:2:1: expected a text in quotes of 1"),
        (text(GIVEN, by="a\\u001b[2J"), "consent.toml:2:1: expected a text in quotes"),
        (text(GIVEN, by="a\\n"), "consent.toml:2:1: expected a text in quotes"),
        (text(GIVEN).replace("+08:00", ""), "consent.toml:4:1: expected a date and time with"),
        (text(GIVEN).replace('"2026-11-01"', "2026-11-01"), "version such as"),
        (text(GIVEN, at=0), "consent.toml:4:1: expected an instant after 2020-01-01"),
        (text(given_on(0)), "expected an instant after 2020-01-01"),
        (
            text(REFUSED).replace(moment(EARLIER), "9999-12-31T23:59:59-23:59"),
            "consent.toml:4:1: expected an instant before 9999-01-01",
        ),
        (
            text(GIVEN[:-7] + "{ decision = 'given', on = 9999-12-31T23:59:59-23:59 }"),
            "expected an instant before 9999-01-01",
        ),
        (text('service = "acepted"'), "did you mean 'accepted'?"),
        (text("service = true"), "consent.toml:8:1: expected"),
        (text("service = { decision = 'accepted', untill = 2027-11-22 }"), "did you mean 'until'?"),
        (text("service = { until = 2027-11-22 }"), "missing key 'decision'"),
        (text("service = { decision = 'accepted', until = 'never' }"), "expected a date"),
        (text("service = { decision = 'accepted', on = 2026-11-22 }"), "expected a date and time"),
        (text("service = { decision = 'accepted', without = 'x' }"), "expected a list"),
        (text(GIVEN, GIVEN), "consent.toml:"),
        (text(GIVEN).replace("[decisions]", "[decision]"), "did you mean 'decisions'?"),
    ],
    ids=[
        "no TOML",
        "an unknown key",
        "a key that is nearly one",
        "a missing key that is nearly there",
        "nobody decided",
        "a method that clears the screen",
        "a name with a line end",
        "an instant without its offset",
        "a version that became a date",
        "a clock that was not set",
        "an 'on' of a clock that was not set",
        "a no that its offset carries out of the calendar",
        "an 'on' that its offset carries out of the calendar",
        "a word that is nearly one",
        "a truth value",
        "a key of a line that is nearly one",
        "a line without a word",
        "an end that is no date",
        "an 'on' that is no instant",
        "one attribute in place of a list",
        "one flow twice",
        "a table that is nearly there",
    ],
)
def test_a_form_that_does_not_validate_is_refused_with_its_place(form: str, finding: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_form(form)
    assert finding in str(caught.value)
    assert all(found.line > 0 for found in caught.value.findings)


def test_every_mistake_of_a_form_is_named_at_once() -> None:
    form = text("service = 'yes'", "remote-diagnosis = { decision = 'given', til = 1 }", by="")
    with pytest.raises(ConfigError) as caught:
        parse_form(form)
    assert [found.line for found in caught.value.findings] == [2, 8, 9]


@pytest.mark.parametrize(
    ("line", "place", "message", "hint"),
    [
        ('remote-diagnose = "given"', "8:1", "no flow 'remote-diagnose'", "'remote-diagnosis'"),
        ('zzz = "given"', "8:1", "no flow 'zzz'", "the policy has service, remote-"),
        ('all = "given"', "8:1", "no flow 'all'", None),
        ('"*" = "given"', "8:1", "no flow '*'", None),
        ('service = "given"', "8:1", "expected 'accepted' or 'refused'", None),
        ('remote-diagnosis = "accepted"', "8:1", "expected 'given' or 'refused'", None),
        (
            "partner-energy-advice = { decision = 'given', without = ['location.aera'] }",
            "8:47",
            "does not carry 'location.aera'",
            "'location.area'",
        ),
        (
            "remote-diagnosis = { decision = 'given', without = ['location.area'] }",
            "8:42",
            "does not carry 'location.area'",
            "it carries appliance.fault, appliance.power, device.serial",
        ),
        (
            "partner-energy-advice = { decision = 'given', without = ['location.area', 'appliance.power'] }",
            "8:47",
            "nothing is left of this yes",
            "'refused'",
        ),
        (
            "remote-diagnosis = { decision = 'given', until = 2026-11-22 }",
            "8:42",
            "ends before it was said",
            "as the day begins",
        ),
        (
            "remote-diagnosis = { decision = 'refused', until = 2027-11-22 }",
            "8:44",
            "a no has no 'until'",
            None,
        ),
        (
            "remote-diagnosis = { decision = 'refused', without = ['appliance.power'] }",
            "8:44",
            "a no has no 'without'",
            None,
        ),
    ],
    ids=[
        "a flow that is nearly one",
        "a flow that is none",
        "there is no word for all flows",
        "there is no pattern for flows",
        "a core flow is not given",
        "an optional flow is not accepted",
        "an attribute that is nearly one",
        "an attribute of another flow",
        "every attribute left out",
        "an end before its beginning",
        "an end of a no",
        "a no with attributes left out",
    ],
)
def test_a_line_that_cannot_be_right_breaks_the_form(
    ledger: Ledger, line: str, place: str, message: str, hint: str | None
) -> None:
    (act,) = judged(text(line), ledger)
    assert act.finding is not None
    assert act.finding.severity is Severity.ERROR
    assert f"consent.toml:{place}: " in str(act.finding)
    assert message in act.finding.message
    assert hint is None or hint in (act.finding.hint or "")
    assert is_broken((act,))
    assert not is_final((act,))
    assert act.decision is None or not act.decision.state.is_yes


@pytest.mark.clause("C15")
def test_no_line_decides_a_separate_flow_but_its_own(ledger: Ledger) -> None:
    assert POLICY.flows["partner-energy-advice"].separate
    for line in ('all = "given"', '"*" = "given"', GIVEN, 'service = "accepted"'):
        applied(text(line, at=EARLIER), ledger)
        assert ledger.newest("partner-energy-advice") is None
    applied(text('partner-energy-advice = "given"'), ledger)
    assert state_of(ledger, "partner-energy-advice") is State.GIVEN


def test_an_error_in_one_line_holds_back_the_yes_of_every_other_but_no_no(ledger: Ledger) -> None:
    ledger.append_decision(decision("partner-energy-advice"), NOON - DAY)
    good = ('service = "accepted"', GIVEN, 'partner-energy-advice = "refused"')
    acts = applied(text('sevice = "accepted"', *good), ledger)
    assert states(acts) == {
        "sevice": None,
        "service": None,
        "remote-diagnosis": None,
        "partner-energy-advice": State.WITHDRAWN,
    }
    assert is_broken(acts)
    # read again, the no has acted, the rest still waits for a form that is right
    again = applied(text('sevice = "accepted"', *good), ledger)
    assert set(states(again).values()) == {None}
    assert is_broken(again)
    # the twin: without the line all of it acts
    assert states(applied(text(*good), ledger))["remote-diagnosis"] is State.GIVEN


@pytest.mark.clause("C01")
def test_a_yes_of_the_owner_is_recorded_with_all_that_was_said(ledger: Ledger) -> None:
    line = "partner-energy-advice = { decision = 'given', until = 2027-11-22, without = ['location.area'] }"
    form = text('service = "accepted"', line)
    acts = applied(form, ledger)
    assert is_final(acts)
    assert why(acts) == ""
    record = ledger.newest("partner-energy-advice")
    assert record is not None
    assert record.state is State.GIVEN
    assert record.terms == terms("partner-energy-advice")
    assert record.policy_version == "2026-11-01"
    assert (record.decided_by, record.recorded_by) == ("owner", "installer 4711")
    assert record.method == "signed form 2026-0042"
    assert (record.decided_ms, record.at_ms) == (EARLIER, NOON)
    assert record.until_ms == dt.datetime(2027, 11, 21, 16, tzinfo=dt.UTC).timestamp() * 1000
    assert record.without == ("location.area",)
    assert record.form_hash == hash_of(form)
    assert state_of(ledger, "service") is State.ACCEPTED
    assert ledger.newest("remote-diagnosis") is None  # silence decides nothing


@pytest.mark.clause("C01")
@pytest.mark.parametrize("by", ["resident", "Owner", "owner ", "installer 4711"])
def test_nobody_but_the_owner_says_yes(ledger: Ledger, by: str) -> None:
    acts = applied(text('service = "accepted"', GIVEN, by=by), ledger)
    assert set(states(acts).values()) == {None}
    assert "for the owner to say" in why(acts)
    assert is_final(acts)
    assert not is_broken(acts)
    assert ledger.newest("service") is None
    assert states(applied(text('service = "accepted"', GIVEN), ledger))["service"]


@pytest.mark.clause("C28")
@pytest.mark.parametrize("by", ["owner", "resident", "installer 4711"])
def test_anyone_present_says_no(ledger: Ledger, by: str) -> None:
    ledger.append_decision(decision(), NOON - DAY)
    acts = applied(text(REFUSED, 'service = "refused"', by=by), ledger)
    assert states(acts) == {"remote-diagnosis": State.WITHDRAWN, "service": State.REFUSED}


@pytest.mark.parametrize(
    ("before", "word", "after"),
    [
        (None, "refused", State.REFUSED),
        (None, "withdrawn", State.REFUSED),
        (State.GIVEN, "refused", State.WITHDRAWN),
        (State.GIVEN, "withdrawn", State.WITHDRAWN),
        (State.RENEWED, "refused", State.WITHDRAWN),
        (State.ACCEPTED, "refused", State.WITHDRAWN),
        (State.REFUSED, "withdrawn", State.REFUSED),
        (State.WITHDRAWN, "refused", State.WITHDRAWN),
    ],
)
def test_a_no_is_what_it_does_and_not_how_it_was_worded(
    ledger: Ledger, before: State | None, word: str, after: State
) -> None:
    if before is not None:
        ledger.append_decision(decision(state=before), NOON - DAY)
    (act,) = applied(text(f'remote-diagnosis = "{word}"'), ledger)
    assert act.decision is not None
    assert act.decision.state is after
    assert act.decision.terms == terms()


@pytest.mark.parametrize(
    ("at", "now", "trusted", "reason"),
    [
        (NOON + 1, NOON, True, "recorded in the future"),
        (EARLIER, NOON, False, "clock is not trusted"),
        (NOON, NOON, True, None),
    ],
    ids=["recorded in the future", "on a clock that is not trusted", "recorded just now"],
)
def test_a_yes_waits(ledger: Ledger, at: int, now: int, trusted: bool, reason: str | None) -> None:
    form = text(GIVEN, 'service = "refused"', at=at)
    acts = applied(form, ledger, now, trusted=trusted)
    assert state_of(ledger, "service") is State.REFUSED  # the no does not wait
    if reason is None:
        assert state_of(ledger) is State.GIVEN
        return
    assert state_of(ledger) is None
    assert reason in why(acts)
    assert not is_final(acts)
    assert not is_broken(acts)
    # when its time has come it acts, and only it
    assert states(applied(form, ledger, NOON + DAY)) == {"remote-diagnosis": State.GIVEN}
    assert ledger.form_seen(hash_of(form))
    assert len(ledger.history("service")) == 1


def test_a_yes_with_an_on_in_the_future_waits(ledger: Ledger) -> None:
    form = text(given_on(NOON + HOUR))
    assert "'on' is in the future" in why(applied(form, ledger, NOON))
    assert state_of(ledger) is None
    applied(form, ledger, NOON + HOUR)
    assert state_of(ledger) is State.GIVEN


@pytest.mark.clause("C28")
@pytest.mark.parametrize("trusted", [True, False], ids=["future", "clock"])
def test_a_no_overtakes_a_yes_that_waits(ledger: Ledger, trusted: bool) -> None:
    """Whatever the clock says: the no may have been recorded on one that was behind."""
    form = text(given_on(NOON + HOUR if trusted else NOON - HOUR))
    applied(form, ledger, NOON, trusted=trusted)
    no = msgspec.structs.replace(decision(state=State.REFUSED), decided_ms=NOON - 3 * DAY)
    ledger.append_decision(no, NOON - 3 * DAY)
    acts = applied(form, ledger, NOON + 2 * HOUR)
    assert state_of(ledger) is State.REFUSED
    assert "while this yes waited" in why(acts)
    assert is_final(acts)
    # the twin: one that nobody had read before the no
    applied(text(given_on(NOON + HOUR + MINUTE)), ledger, NOON + 2 * HOUR)
    assert state_of(ledger) is State.GIVEN


def test_a_no_dated_in_the_future_does_not_hold_back_a_later_yes(ledger: Ledger) -> None:
    applied(text(REFUSED, at=NOON + 300 * DAY), ledger)
    assert state_of(ledger) is State.REFUSED
    applied(text(given_on(NOON + HOUR)), ledger, NOON + DAY)
    assert state_of(ledger) is State.GIVEN


@pytest.mark.clause("C33")
def test_a_yes_to_another_policy_is_no_yes_to_this_one(ledger: Ledger) -> None:
    form = text(GIVEN, version="2026-10-01")
    acts = applied(form, ledger)
    assert states(acts) == {"remote-diagnosis": None}
    assert "the form names policy 2026-10-01, in force is 2026-11-01" in why(acts)
    assert all(f"{act.flow!r} waits" in why((act,)) for act in acts)
    assert acts[0].finding is not None
    assert (acts[0].finding.line, acts[0].finding.severity) == (1, Severity.WARNING)
    assert not is_broken(acts)
    assert applied(text(GIVEN), ledger)[0].decision is not None


@pytest.mark.clause("C28")
def test_a_no_to_another_policy_is_a_no_to_this_one(ledger: Ledger) -> None:
    ledger.append_decision(decision(), NOON - DAY)
    form = text(REFUSED, 'gone = "refused"', version="2026-10-01")
    acts = applied(form, ledger)
    assert state_of(ledger) is State.WITHDRAWN
    assert states(acts) == {"remote-diagnosis": State.WITHDRAWN, "gone": None}
    assert not is_broken(acts)


def test_a_form_for_the_next_policy_waits_for_it(ledger: Ledger) -> None:
    later = changed("remote-diagnosis")
    form = text(GIVEN, version="2026-12-01")
    assert not is_final(applied(form, ledger))
    assert state_of(ledger) is None
    applied(form, ledger, of=later)
    newest = ledger.newest("remote-diagnosis")
    assert newest is not None
    assert newest.policy_version == "2026-12-01"


def test_a_no_to_a_flow_that_the_policy_has_dropped_is_recorded(ledger: Ledger) -> None:
    ledger.append_decision(decision(), NOON - DAY)
    flows = {name: flow for name, flow in POLICY.flows.items() if name != "remote-diagnosis"}
    without = msgspec.structs.replace(POLICY, flows=flows)
    acts = applied(text(REFUSED), ledger, of=without)
    assert not is_broken(acts)
    newest = ledger.newest("remote-diagnosis")
    assert newest is not None
    assert (newest.state, newest.terms) == (State.WITHDRAWN, terms())


def test_the_same_bytes_act_once(ledger: Ledger) -> None:
    form = text('service = "accepted"', GIVEN, 'partner-energy-advice = "refused"')
    applied(form, ledger)
    length = len(ledger.entries)
    for later in (NOON, NOON + DAY):
        assert applied(form, ledger, later) == ()
    assert len(ledger.entries) == length
    assert is_final(())
    assert not is_broken(())


def test_a_form_that_is_done_says_nothing_any_more(ledger: Ledger) -> None:
    form = text(GIVEN, by="resident")
    assert "for the owner to say" in why(applied(form, ledger))
    assert applied(form, ledger) == ()


@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    "form",
    [
        text(GIVEN),
        text(GIVEN, more="# the same, with a remark"),
        text(GIVEN, at=NOON + 2 * DAY),
        text(given_on(EARLIER)),
        text(given_on(NOON + HOUR)),
        text("remote-diagnosis = { decision = 'given', until = 2030-01-01 }"),
    ],
    ids=[
        "the same bytes",
        "the same decision in other bytes",
        "a later date and no 'on'",
        "an 'on' from before",
        "an 'on' of the very instant of the no",
        "an end date and no 'on'",
    ],
)
def test_a_withdrawn_yes_is_not_brought_back_by(ledger: Ledger, form: str) -> None:
    applied(text(GIVEN), ledger)
    no = msgspec.structs.replace(decision(state=State.WITHDRAWN), decided_ms=NOON + HOUR)
    ledger.append_decision(no, NOON + HOUR)
    acts = applied(form, ledger, NOON + 3 * DAY)
    assert state_of(ledger) is State.WITHDRAWN
    if acts:
        assert "no later 'on'" in why(acts)
        assert acts[0].finding is not None
        assert "2026-11-22T13:00:00Z" in (acts[0].finding.hint or "")
        assert is_final(acts)


def test_a_withdrawn_yes_is_brought_back_by_a_later_on(ledger: Ledger) -> None:
    applied(text(GIVEN), ledger)
    ledger.append_decision(decision(state=State.WITHDRAWN), NOON + HOUR)
    applied(text(given_on(NOON + HOUR + 1)), ledger, NOON + 3 * DAY)
    assert state_of(ledger) is State.GIVEN
    assert ledger.unbroken_since("remote-diagnosis", terms()) == NOON + 3 * DAY


def test_a_no_recorded_on_a_clock_that_was_behind_still_counts_as_later(ledger: Ledger) -> None:
    applied(text(GIVEN), ledger)
    ledger.append_decision(decision(state=State.WITHDRAWN, decided_ms=0), 1_000)
    applied(text(given_on(NOON - MINUTE)), ledger, NOON + DAY)
    assert state_of(ledger) is State.WITHDRAWN
    applied(text(given_on(NOON + HOUR)), ledger, NOON + DAY)
    assert state_of(ledger) is State.GIVEN


def test_a_no_recorded_on_a_clock_that_was_ahead_does_not_shut_a_flow_for_good(
    ledger: Ledger,
) -> None:
    far = NOON + 9_000 * DAY
    ledger.append_decision(decision(state=State.REFUSED, decided_ms=far), far)
    applied(text(given_on(NOON - MINUTE)), ledger)
    assert state_of(ledger) is State.REFUSED
    # said again on the right clock, the no has a date that a yes can be later than
    applied(text(REFUSED), ledger)
    applied(text(given_on(NOON + HOUR)), ledger, NOON + DAY)
    assert state_of(ledger) is State.GIVEN


@pytest.mark.parametrize("behind", [True, False], ids=["clock behind", "clock ahead"])
def test_a_no_dated_far_ahead_on_a_wrong_clock_holds_back_only_what_was_said_before_the_time_was_known(
    ledger: Ledger, behind: bool
) -> None:
    applied(text(GIVEN), ledger)
    no = text(REFUSED, at=NOON + 100_000 * DAY)
    applied(no, ledger, DAY if behind else NOON + 200_000 * DAY, trusted=False)
    applied(text(given_on(NOON + HOUR)), ledger, NOON + DAY)
    assert state_of(ledger) is State.WITHDRAWN
    ledger.tell_time(NOON + DAY)
    applied(text(given_on(NOON + DAY - 1)), ledger, NOON + 2 * DAY)
    assert state_of(ledger) is State.WITHDRAWN
    applied(text(given_on(NOON + DAY + 1)), ledger, NOON + 2 * DAY)
    assert state_of(ledger) is State.GIVEN


def test_a_yes_after_a_no_of_a_year_that_no_calendar_has_is_told_why_it_stays(
    ledger: Ledger,
) -> None:
    applied(text(GIVEN), ledger)
    ledger.append_decision(decision(state=State.WITHDRAWN, decided_ms=253_402_387_139_000), NOON)
    acts = applied(text(given_on(NOON + HOUR)), ledger, NOON + DAY)
    assert "no later 'on'" in why(acts)
    assert state_of(ledger) is State.WITHDRAWN


FULL = "remote-diagnosis = { decision = 'given' }"
LESS = "remote-diagnosis = { decision = 'given', without = ['device.serial'] }"
SHORT = "remote-diagnosis = { decision = 'given', until = 2027-11-22 }"


@pytest.mark.parametrize(
    ("first", "second", "apart", "acts"),
    [
        (FULL, FULL, HOUR, True),
        (FULL, LESS, HOUR, True),
        (FULL, LESS, 0, True),
        (FULL, LESS, -HOUR, False),
        (LESS, FULL, HOUR, True),
        (LESS, FULL, 0, False),
        (LESS, FULL, -HOUR, False),
        (SHORT, FULL, HOUR, True),
        (SHORT, FULL, 0, False),
        (FULL, SHORT, 0, True),
    ],
    ids=[
        "said again later",
        "less, later",
        "less, on the same paper",
        "less, but older",
        "more, later",
        "more, with the same date",
        "more, and older",
        "longer, later",
        "longer, with the same date",
        "shorter, on the same paper",
    ],
)
def test_a_yes_after_a_yes(ledger: Ledger, first: str, second: str, apart: int, acts: bool) -> None:
    applied(text(first, at=EARLIER), ledger)
    applied(text(second, at=EARLIER + apart, more="#"), ledger)
    assert state_of(ledger) is (State.RENEWED if acts else State.GIVEN)


def test_a_restored_form_does_not_widen_what_a_later_one_narrowed(ledger: Ledger) -> None:
    applied(text(FULL), ledger)
    applied(text(LESS, at=EARLIER + MINUTE), ledger)
    applied(text(FULL, more="# restored from a backup"), ledger, NOON + DAY)
    newest = ledger.newest("remote-diagnosis")
    assert newest is not None
    assert newest.without == ("device.serial",)


@pytest.fixture
def unknown(tmp_path: Path) -> Ledger:
    path = tmp_path / "ledger.json"
    path.write_bytes(b"torn")
    ledger = Ledger.open(path, LEDGER_KEY, NOON)
    assert ledger.unknown_since_ms == NOON
    ledger.tell_time(NOON)
    return ledger


@pytest.mark.clause("C01")
@pytest.mark.parametrize(
    "form",
    [
        text('service = "accepted"', GIVEN, at=NOON - 1),
        text(given_on(NOON + HOUR), at=NOON - DAY),
        text(REFUSED, at=NOON - DAY),
        text('nonsense = "given"', at=NOON - DAY),
    ],
    ids=["left over", "with a later 'on'", "a no", "broken"],
)
def test_a_form_from_before_the_ledger_was_lost_never_acts(unknown: Ledger, form: str) -> None:
    acts = applied(form, unknown, NOON + 2 * DAY)
    assert set(states(acts).values()) == {None}
    assert "never acts" in why(acts)
    assert not is_broken(acts)
    assert unknown.form_seen(hash_of(form))
    assert unknown.newest("remote-diagnosis") is None


@pytest.mark.clause("C01")
@pytest.mark.parametrize("wrong_ms", [3 * DAY, NOON + 9_000 * DAY], ids=["behind", "ahead"])
def test_a_form_that_was_there_when_the_ledger_was_lost_on_a_wrong_clock_never_acts(
    tmp_path: Path, wrong_ms: int
) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(b"torn")
    ledger = Ledger.open(path, LEDGER_KEY, wrong_ms)
    form = text(GIVEN, at=NOON - HOUR)
    applied(form, ledger, wrong_ms, trusted=False)  # lies there at the start
    ledger.tell_time(NOON)
    applied(form, ledger, NOON + MINUTE)
    applied(text(GIVEN, at=NOON - MINUTE), ledger, NOON + MINUTE)  # from a drawer
    assert state_of(ledger) is None
    applied(text(GIVEN, at=NOON + 1), ledger, NOON + MINUTE)
    assert state_of(ledger) is State.GIVEN


def test_a_yes_on_a_clock_that_is_not_trusted_says_where_to_look(ledger: Ledger) -> None:
    (act,) = judged(text(GIVEN), ledger, trusted=False)
    assert act.finding is not None
    assert (act.later, act.finding.hint) == (True, "see: assent doctor")
    # The twin: where it waits for its date, the clock is not to blame.
    (act,) = judged(text(GIVEN, at=NOON + DAY), ledger)
    assert act.finding is not None
    assert (act.later, act.finding.hint) == (True, None)


def test_a_form_from_after_the_ledger_was_lost_acts(unknown: Ledger) -> None:
    applied(text('service = "accepted"', GIVEN, at=NOON), unknown, NOON + DAY)
    assert state_of(unknown) is State.GIVEN


lines = st.sampled_from(
    [
        GIVEN,
        REFUSED,
        'remote-diagnosis = "withdrawn"',
        LESS,
        SHORT,
        *(given_on(NOON + n * HOUR) for n in range(6)),
    ]
)
forms = st.builds(
    lambda line, at, remark: text(line, at=NOON + at * HOUR, more="#" * remark),
    lines,
    st.integers(-2, 6),
    st.integers(0, 2),
)
steps = st.lists(
    st.tuples(st.none() | forms, st.integers(0, 3), st.booleans()), min_size=2, max_size=8
)


@given(steps=steps)
@settings(max_examples=80, deadline=None)
def test_after_a_no_nothing_that_was_ever_read_brings_the_yes_back(
    steps: list[tuple[str | None, int, bool]],
) -> None:
    """Forms, noes from the page and an unsteady clock in any order, then a no, then all forms."""
    ledger = ledger_in_memory(NOON)
    now, read = NOON, []
    for form, hours, trusted in steps:
        now += hours * HOUR
        if form is None:
            word = decision(state=State.WITHDRAWN, decided_ms=now if trusted else 0)
            ledger.append_decision(word, word.decided_ms)
        else:
            applied(form, ledger, now, trusted=trusted)
            read.append(form)
    ledger.append_decision(decision(state=State.WITHDRAWN, decided_ms=now), now)
    for later in (now, now + HOUR, now + 100 * DAY):
        for form in read:
            applied(form, ledger, later)
            assert state_of(ledger) is State.WITHDRAWN
    # the twin: one that was not read before and is later
    applied(text(given_on(now + 30 * DAY)), ledger, now + 101 * DAY)
    assert state_of(ledger) is State.GIVEN


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_form_or_a_finding(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_form(data), Form)


def test_a_finding_never_shows_who_decided(ledger: Ledger) -> None:
    form = text(GIVEN, REFUSED.replace("remote", "remoet"), by="Canary Person")
    told = " ".join(str(act.finding) for act in judged(form, ledger))
    assert "remoet-diagnosis" in told
    assert "Canary" not in told


def test_records_of_a_form_are_what_the_gate_reads(ledger: Ledger) -> None:
    applied(text(GIVEN), ledger)
    newest = ledger.newest("remote-diagnosis")
    assert isinstance(newest, Record)
    assert isinstance(newest, Decision)
