# SPDX-License-Identifier: Apache-2.0
"""The rule of the privacy policy, case by case and against a second reading of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.gate import decide
from agent.ledger import Ledger
from agent.path import Pending, Permit, Reason, Refusal, Verdict
from agent.records import Decision, State
from assent.policy.expressions import parse as transform
from assent.policy.model import Policy
from assent.policy.terms import terms_of
from assent.units import Duration
from tests.agent.household import (
    DAY,
    HOUR,
    NOON,
    changed,
    decision,
    ledger_in_memory,
    policy,
    signed,
    terms,
)

POLICY = policy()
DIAGNOSIS = "remote-diagnosis"
PARTNER = "partner-energy-advice"
EVERYBODY = frozenset({"maker", "adviser"})


Word = tuple[Decision, int]
"""What was decided, and when the ledger took it in."""


def ledger_of(*words: Word, unknown_since_ms: int | None = None) -> Ledger:
    ledger = ledger_in_memory(NOON - 100 * DAY, unknown_since_ms=unknown_since_ms)
    for word, at_ms in words:
        ledger.append_decision(word, at_ms)
    return ledger


def record(
    flow: str = DIAGNOSIS, state: State = State.GIVEN, *, at_ms: int = NOON - DAY, **more: Any
) -> Word:
    return decision(flow, state, **more), at_ms


def judged(
    *words: Word,
    of: Policy | None = POLICY,
    unknown_since_ms: int | None = None,
    ledger: Ledger | None = None,
    **more: Any,
) -> dict[str, Verdict]:
    circumstances: dict[str, Any] = {
        "form_broken": False,
        "admitted": EVERYBODY,
        "shut": {},
        "now_ms": NOON,
        "clock_trusted": True,
        "floor_ms": 0,
        **more,
    }
    trouble = circumstances.pop("trouble", None)
    ledger = ledger or ledger_of(*words, unknown_since_ms=unknown_since_ms)
    return decide(signed(of) if of else None, trouble, ledger, **circumstances)


def verdict(*words: Word, flow: str = DIAGNOSIS, **more: Any) -> Verdict:
    return judged(*words, **more)[flow]


def reason(*words: Word, flow: str = DIAGNOSIS, **more: Any) -> Reason | None:
    found = verdict(*words, flow=flow, **more)
    if isinstance(found, Pending):
        return Reason.HELD
    return found.reason if isinstance(found, Refusal) else None


YES = record()
CORE = record("service", State.ACCEPTED)
NO = record(state=State.WITHDRAWN, at_ms=NOON - HOUR)
SAID_YES = {DIAGNOSIS: YES, "service": CORE, PARTNER: record(PARTNER)}


def test_a_permit_says_what_the_policy_and_the_record_say() -> None:
    ledger = ledger_of(record(until_ms=NOON + DAY))
    permit, newest = judged(ledger=ledger)[DIAGNOSIS], ledger.newest(DIAGNOSIS)
    flow = POLICY.flows[DIAGNOSIS]
    assert isinstance(permit, Permit)
    assert (permit.flow, permit.recipient) == (DIAGNOSIS, "maker")
    assert permit.terms_hash == terms_of(POLICY, DIAGNOSIS).hash
    assert newest is not None
    assert permit.record == newest.id
    assert {c.name: c.transform for c in permit.carried} == flow.attributes
    assert {c.name: c.attribute for c in permit.carried} == {
        name: POLICY.attributes[name] for name in flow.attributes
    }
    assert (permit.not_before_ms, permit.not_after_ms) == (NOON - DAY, NOON + DAY)
    assert (permit.epoch_ms, permit.keep_ms) == (30 * DAY, 7 * DAY)
    assert (permit.max_readings, permit.max_age_ms) == (500, 300_000)
    assert permit.urgent == {"appliance.fault"}
    assert not permit.core


def test_an_attribute_that_was_left_out_is_not_carried() -> None:
    whole, less = verdict(YES), verdict(record(without=("device.serial",)))
    assert isinstance(whole, Permit)
    assert isinstance(less, Permit)
    assert {c.name for c in whole.carried} - {c.name for c in less.carried} == {"device.serial"}
    assert less.terms_hash == whole.terms_hash  # a batch names the terms in force


@pytest.mark.clause("C02")
def test_a_core_flow_runs_on_an_acceptance() -> None:
    permit = verdict(CORE, flow="service")
    assert isinstance(permit, Permit)
    assert permit.core


@pytest.mark.clause("C01")
def test_a_fresh_install_permits_nothing_and_says_so_of_every_flow() -> None:
    verdicts = judged()
    assert verdicts == {flow: Refusal(flow, Reason.NOT_DECIDED) for flow in POLICY.flows}
    yes = judged(*SAID_YES.values())
    assert all(isinstance(found, Permit) for found in yes.values())
    assert list(yes) == list(POLICY.flows)


def test_without_a_policy_there_is_no_flow_to_permit() -> None:
    assert judged(*SAID_YES.values(), of=None) == {}
    assert judged(*SAID_YES.values(), of=None, trouble=Reason.NOT_ENROLLED) == {}


@pytest.mark.clause("C02")
def test_withdrawing_every_optional_flow_leaves_the_core_flows_permit_the_same() -> None:
    before = judged(*SAID_YES.values())
    noes = [record(flow, State.WITHDRAWN, at_ms=NOON) for flow in (DIAGNOSIS, PARTNER)]
    after = judged(*SAID_YES.values(), *noes)
    assert after["service"] == before["service"]
    assert isinstance(after["service"], Permit)
    assert {after[flow] for flow in (DIAGNOSIS, PARTNER)} == {
        Refusal(flow, Reason.WITHDRAWN) for flow in (DIAGNOSIS, PARTNER)
    }


@pytest.mark.clause("C03")
def test_a_yes_to_one_flow_permits_no_other() -> None:
    for flow, yes in SAID_YES.items():
        verdicts = judged(yes)
        assert [name for name, found in verdicts.items() if isinstance(found, Permit)] == [flow]


def flows(**changes: Any) -> Policy:
    """The policy with one field of the diagnosis flow changed; the yes is to the one before."""
    return changed(DIAGNOSIS, **changes)


def of_service(**changes: Any) -> tuple[Policy, Word]:
    """The policy with the core flow changed, and an acceptance of just that."""
    new = changed("service", **changes)
    return new, record("service", State.ACCEPTED, terms=terms("service", new))


def attributes(**changes: str | None) -> dict[str, Any]:
    found = dict(POLICY.flows[DIAGNOSIS].attributes)
    for name, written in changes.items():
        found.pop(name.replace("_", "."), None)
        if written is not None:
            found[name.replace("_", ".")] = transform(written)
    return found


def recipient(**changes: Any) -> Policy:
    maker = msgspec.structs.replace(POLICY.recipients["maker"], **changes)
    return msgspec.structs.replace(POLICY, recipients={**POLICY.recipients, "maker": maker})


def head(**changes: Any) -> Policy:
    return msgspec.structs.replace(POLICY, policy=msgspec.structs.replace(POLICY.policy, **changes))


def keep(**changes: str) -> Any:
    written = {k: v if k == "then" else Duration.parse(v) for k, v in changes.items()}
    return msgspec.structs.replace(POLICY.flows[DIAGNOSIS].keep, **written)


CASES: list[tuple[str, dict[str, Any], Reason | None]] = [
    ("a yes of the owner runs", {"records": [YES]}, None),
    ("a renewed yes runs", {"records": [YES, record(state=State.RENEWED)]}, None),
    ("silence is no", {"records": []}, Reason.NOT_DECIDED),
    ("a yes to another flow is silence", {"records": [CORE]}, Reason.NOT_DECIDED),
    ("a refusal is no", {"records": [record(state=State.REFUSED)]}, Reason.REFUSED),
    ("a withdrawal is no", {"records": [YES, NO]}, Reason.WITHDRAWN),
    ("the newest record decides", {"records": [NO, YES]}, None),
    ("not the owner's yes is no yes", {"records": [record(decided_by="resident")]}, Reason.REQUESTED),
    ("an acceptance is no consent", {"records": [record(state=State.ACCEPTED)]}, Reason.REQUESTED),
    ("a lost ledger leaves it unknown", {"records": [], "unknown_since_ms": NOON}, Reason.CONSENT_UNKNOWN),
    ("a new yes after the loss runs", {"records": [YES], "unknown_since_ms": NOON - DAY}, None),
    ("a new no after the loss is a no", {"records": [NO], "unknown_since_ms": NOON}, Reason.WITHDRAWN),
    # time
    ("an end in the future runs", {"records": [record(until_ms=NOON + 1)]}, None),
    ("an end that is now has come", {"records": [record(until_ms=NOON)]}, Reason.EXPIRED),
    ("an untrusted clock permits nothing: the flow is held", {"records": [YES], "clock_trusted": False}, Reason.HELD),
    (
        "an end before the floor has come on an untrusted clock, too",
        {"records": [record(until_ms=HOUR)], "clock_trusted": False, "floor_ms": HOUR},
        Reason.EXPIRED,
    ),
    (
        "an end after the floor cannot be judged on an untrusted clock",
        {"records": [record(until_ms=HOUR + 1)], "clock_trusted": False, "floor_ms": HOUR},
        Reason.HELD,
    ),
    (
        "an untrusted clock that is ahead ends nothing",
        {"records": [record(until_ms=NOON - 1)], "clock_trusted": False},
        Reason.HELD,
    ),
    (
        "an end before the floor has come when the clock goes back",
        {"records": [record(until_ms=NOON)], "now_ms": NOON - DAY, "floor_ms": NOON},
        Reason.EXPIRED,
    ),
    # what is installed
    ("not admitted by its recipient", {"records": [YES], "admitted": frozenset({"adviser"})}, Reason.NOT_ENROLLED),
    ("admitted by nobody", {"records": [YES], "admitted": frozenset()}, Reason.NOT_ENROLLED),
    ("admitted by its recipient alone", {"records": [YES], "admitted": frozenset({"maker"})}, None),
    ("a broken form pauses it", {"records": [YES], "form_broken": True}, Reason.FORM_BROKEN),
    ("trouble with the policy stops it", {"records": [YES], "trouble": Reason.POLICY_UNUSABLE}, Reason.POLICY_UNUSABLE),
    ("not enrolled at all stops it", {"records": [YES], "trouble": Reason.NOT_ENROLLED}, Reason.NOT_ENROLLED),
    ("the policy's last day is a day", {"records": [YES], "of": head(not_after=dt.date(2026, 11, 22))}, None),
    (
        "a policy past its end runs nothing",
        {"records": [YES], "of": head(not_after=dt.date(2026, 11, 21))},
        Reason.POLICY_UNUSABLE,
    ),
    (
        "a policy that ended before the floor runs nothing on an untrusted clock",
        {
            "records": [YES],
            "of": head(not_after=dt.date(2026, 11, 21)),
            "clock_trusted": False,
            "floor_ms": NOON,
        },
        Reason.POLICY_UNUSABLE,
    ),
    ("a policy without end", {"records": [YES], "of": head(not_after=dt.date.max)}, None),
    # terms
    ("the same terms under a new version", {"records": [YES], "of": head(version="2027-01-01")}, None),
    ("fewer attributes", {"records": [YES], "of": flows(attributes=attributes(device_serial=None))}, None),
    ("a coarser transform", {"records": [YES], "of": flows(attributes=attributes(appliance_power="window(1h, mean)"))}, None),
    ("shorter retention", {"records": [YES], "of": flows(keep=keep(recipient="30d"))}, None),
    ("a purpose of another name", {"records": [YES], "of": flows(purpose="advertising")}, Reason.REQUESTED),
    ("a new attribute", {"records": [YES], "of": flows(attributes=attributes(location_area="grid(10)"))}, Reason.REQUESTED),
    ("a finer transform", {"records": [YES], "of": flows(attributes=attributes(appliance_power="keep"))}, Reason.REQUESTED),
    ("longer retention", {"records": [YES], "of": flows(keep=keep(recipient="365d"))}, Reason.REQUESTED),
    ("kept after its time", {"records": [YES], "of": flows(keep=keep(then="anonymise"))}, Reason.REQUESTED),
    ("linked to an account", {"records": [YES], "of": flows(links=("account",))}, Reason.REQUESTED),
    ("an optional flow that became core", {"records": [YES], "of": flows(function="core")}, Reason.REQUESTED),
    ("on another basis", {"records": [YES], "of": flows(basis="contract")}, Reason.REQUESTED),
    ("to another recipient", {"records": [YES], "of": flows(recipient="adviser")}, Reason.REQUESTED),
    ("abroad", {"records": [YES], "of": recipient(region="US")}, Reason.REQUESTED),
    ("to an affiliate", {"records": [YES], "of": recipient(role="affiliate")}, Reason.REQUESTED),
    ("to another controller", {"records": [YES], "of": head(controller="Buyer of Appliances Ltd")}, Reason.REQUESTED),
    ("less than nothing left", {"records": [record(without=tuple(sorted(POLICY.flows[DIAGNOSIS].attributes)))]}, Reason.REQUESTED),
    (
        "a cell the dictionary does not have",
        {"records": [YES], "of": msgspec.structs.replace(POLICY, attributes={})},
        Reason.POLICY_UNUSABLE,
    ),
    ("a recipient the policy does not have", {"records": [YES], "of": msgspec.structs.replace(POLICY, recipients={})}, Reason.POLICY_UNUSABLE),
]  # fmt: skip

CLAUSES = {
    "silence is no": "C01",
    "a refusal is no": "C01",
    "a withdrawal is no": "C28",
    "a policy past its end runs nothing": "C19",
    "linked to an account": "C10",
    "a purpose of another name": "C03",
    "a new attribute": "C04",
    "to an affiliate": "C15",
    "to another recipient": "C15",
    "abroad": "C17",
    "to another controller": "C18",
    "a finer transform": "C33",
    "longer retention": "C33",
    "fewer attributes": "C33",
    "a coarser transform": "C33",
    "shorter retention": "C33",
}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            case,
            expected,
            id=sentence,
            marks=[pytest.mark.clause(CLAUSES[sentence])] if sentence in CLAUSES else [],
        )
        for sentence, case, expected in CASES
    ],
)
def test_an_optional_flow(case: dict[str, Any], expected: Reason | None) -> None:
    case = dict(case)
    assert reason(*case.pop("records"), **case) is expected


@pytest.mark.clause("C02")
@pytest.mark.parametrize(
    ("of", "accepted", "expected"),
    [
        (POLICY, CORE, None),
        (POLICY, None, Reason.NOT_DECIDED),
        (POLICY, record("service", State.REFUSED), Reason.REFUSED),
        (POLICY, record("service", State.GIVEN), Reason.REQUESTED),
        (POLICY, record("service", State.ACCEPTED, decided_by="installer"), Reason.REQUESTED),
        (*of_service(basis="legal_obligation"), None),
        (*of_service(basis="consent"), Reason.BASIS_UNFIT),
        (*of_service(basis="safe_operation"), Reason.BASIS_UNFIT),
        (*of_service(recipient="adviser"), Reason.BASIS_UNFIT),
        (changed("service", basis="legal_obligation"), CORE, Reason.REQUESTED),
    ],
    ids=[
        "accepted",
        "silence is no",
        "refused",
        "a consent is no acceptance",
        "not accepted by the owner",
        "by legal obligation",
        "on consent it would have to be optional",
        "on another basis",
        "to a partner",
        "accepted on another basis",
    ],
)
def test_a_core_flow(of: Policy, accepted: Word | None, expected: Reason | None) -> None:
    records = [accepted] if accepted else []
    assert reason(*records, flow="service", of=of) is expected


@pytest.mark.clause("C02")
@pytest.mark.parametrize("role", ["controller", "processor", "affiliate", "partner", "authority"])
def test_a_core_flow_goes_to_the_controller_or_its_processor(role: str) -> None:
    of = recipient(role=role)
    accepted = record("service", State.ACCEPTED, terms=terms("service", of))
    expected = None if role in {"controller", "processor"} else Reason.BASIS_UNFIT
    assert reason(accepted, flow="service", of=of) is expected


def test_a_broken_form_pauses_optional_flows_and_no_accepted_core_flow() -> None:
    verdicts = judged(*SAID_YES.values(), form_broken=True)
    assert isinstance(verdicts["service"], Permit)
    assert verdicts[DIAGNOSIS] == Refusal(DIAGNOSIS, Reason.FORM_BROKEN)
    assert verdicts[PARTNER] == Refusal(PARTNER, Reason.FORM_BROKEN)
    assert judged(form_broken=True)["service"] == Refusal("service", Reason.NOT_DECIDED)


@pytest.mark.parametrize("trouble", [Reason.POLICY_UNUSABLE, Reason.NOT_ENROLLED])
def test_trouble_with_the_policy_stops_every_flow(trouble: Reason) -> None:
    verdicts = judged(*SAID_YES.values(), trouble=trouble)
    assert verdicts == {flow: Refusal(flow, trouble) for flow in POLICY.flows}


@pytest.mark.clause("C04")
def test_a_flow_that_is_new_in_the_policy_is_requested() -> None:
    """It was decided about the policy before; this flow has not been explained yet."""
    flow = msgspec.structs.replace(POLICY.flows[DIAGNOSIS], purpose="usage-statistics")
    more = msgspec.structs.replace(
        head(version="2026-12-01"), flows={**POLICY.flows, "usage-statistics": flow}
    )
    verdicts = judged(*SAID_YES.values(), of=more)
    found = verdicts["usage-statistics"]
    assert isinstance(found, Refusal)
    assert found.reason is Reason.REQUESTED
    assert isinstance(verdicts[DIAGNOSIS], Permit)
    # decided about under this version, in silence: not decided
    asked = record(PARTNER, policy_version="2026-12-01")
    assert reason(*SAID_YES.values(), asked, flow="usage-statistics", of=more) is Reason.NOT_DECIDED


@pytest.mark.clause("C33")
def test_a_refusal_names_each_term_that_is_wider() -> None:
    wider = flows(
        purpose="advertising",
        attributes=attributes(appliance_power="keep", device_serial=None),
        keep=keep(recipient="365d", gateway="1d"),
    )
    found = verdict(YES, of=wider)
    assert isinstance(found, Refusal)
    assert "purpose: fault-diagnosis → advertising" in found.detail
    assert "appliance.power transform: window(15m, mean) → keep" in found.detail
    assert "keep recipient: 90d → 365d" in found.detail
    assert "device.serial" not in found.detail  # less is no reason
    assert "keep gateway" not in found.detail


@pytest.mark.clause("C18")
def test_another_controller_voids_every_consent() -> None:
    verdicts = judged(*SAID_YES.values(), of=head(controller="Buyer of Appliances Ltd"))
    assert {found.reason for found in verdicts.values() if isinstance(found, Refusal)} == {
        Reason.REQUESTED
    }
    assert not any(isinstance(found, Permit) for found in verdicts.values())


def test_nothing_older_than_the_unbroken_yes_is_permitted() -> None:
    first = record(at_ms=NOON - 3 * DAY)
    again = record(state=State.RENEWED, at_ms=NOON - DAY)
    permit = verdict(first, again)
    assert isinstance(permit, Permit)
    assert permit.not_before_ms == NOON - 3 * DAY
    broken = verdict(first, record(state=State.WITHDRAWN, at_ms=NOON - 2 * DAY), again)
    assert isinstance(broken, Permit)
    assert broken.not_before_ms == NOON - DAY


@pytest.mark.parametrize(
    ("until_ms", "last_day", "not_after_ms"),
    [
        (None, None, None),
        (NOON + HOUR, None, NOON + HOUR),
        (None, dt.date(2026, 11, 22), NOON + 12 * HOUR),
        (NOON + HOUR, dt.date(2026, 11, 22), NOON + HOUR),
        (NOON + DAY, dt.date(2026, 11, 22), NOON + 12 * HOUR),
    ],
)
def test_a_permit_ends_with_the_yes_or_the_policy_whichever_is_first(
    until_ms: int | None, last_day: dt.date | None, not_after_ms: int | None
) -> None:
    permit = verdict(record(until_ms=until_ms), of=head(not_after=last_day))
    assert isinstance(permit, Permit)
    assert permit.not_after_ms == not_after_ms


NARROW = flows(attributes=attributes(appliance_power="window(1h, mean)"))
WIDE = flows(attributes=attributes(appliance_power="keep"))
POLICIES = {"same": POLICY, "narrower": NARROW, "wider": WIDE}
# Which agreed terms (row) are the same as or wider than those in force (column): by hand.
COVERED = {
    ("same", "same"), ("same", "narrower"), ("narrower", "narrower"),
    ("wider", "wider"), ("wider", "same"), ("wider", "narrower"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """Everything that the rule looks at, in plain words."""

    flow: str
    said: tuple[tuple[State, str, str, int | None, tuple[str, ...]], ...]
    in_force: str
    trouble: Reason | None
    unknown: bool
    form_broken: bool
    admitted: frozenset[str]
    now: int
    trusted: bool
    floor: int

    @property
    def ledger(self) -> Ledger:
        words = [
            record(
                self.flow,
                state,
                terms=terms(self.flow, POLICIES[agreed]),
                decided_by=by,
                until_ms=None if until is None else NOON + until * HOUR,
                without=without,
                at_ms=NOON - 100 * HOUR + number,
            )
            for number, (state, agreed, by, until, without) in enumerate(self.said)
        ]
        return ledger_of(*words, unknown_since_ms=NOON if self.unknown else None)

    def verdict(self) -> Verdict:
        return verdict(
            ledger=self.ledger,
            flow=self.flow,
            of=POLICIES[self.in_force],
            trouble=self.trouble,
            form_broken=self.form_broken,
            admitted=self.admitted,
            now_ms=NOON + self.now * HOUR,
            clock_trusted=self.trusted,
            floor_ms=NOON + self.floor * HOUR,
        )

    def may_run(self) -> bool:
        """The rule of the privacy policy, read a second time."""
        if not self.said or self.trouble or not self.trusted:
            return False
        state, agreed, by, until, _ = self.said[-1]
        core = self.flow == "service"
        # terms differ for the diagnosis flow only
        covered = self.flow != DIAGNOSIS or (agreed, self.in_force) in COVERED
        words = {State.ACCEPTED} if core else {State.GIVEN, State.RENEWED}
        unexpired = until is None or (until > self.now and until > self.floor)
        recipient_of = {"service": "maker", DIAGNOSIS: "maker", PARTNER: "adviser"}
        return (
            state in words
            and by == "owner"
            and covered
            and unexpired
            and recipient_of[self.flow] in self.admitted
            and (core or not self.form_broken)
        )


said = st.tuples(
    st.sampled_from(State),
    st.sampled_from(sorted(POLICIES)),
    st.sampled_from(["owner", "owner", "owner", "resident"]),
    st.sampled_from([None, None, -2, 0, 2]),
    st.sampled_from([(), ("appliance.power",)]),
)
cases = st.builds(
    Case,
    flow=st.sampled_from(sorted(POLICY.flows)),
    said=st.lists(said, max_size=3).map(tuple),
    in_force=st.sampled_from(sorted(POLICIES)),
    trouble=st.sampled_from([None, None, None, Reason.POLICY_UNUSABLE]),
    unknown=st.booleans(),
    form_broken=st.sampled_from([False, False, True]),
    admitted=st.sampled_from([EVERYBODY, EVERYBODY, frozenset({"maker"}), frozenset()]),
    now=st.integers(-3, 3),
    trusted=st.sampled_from([True, True, True, False]),
    floor=st.integers(-3, 3),
)


@given(cases)
@settings(max_examples=400, deadline=None)
def test_the_gate_agrees_with_a_second_reading_of_the_rule(case: Case) -> None:
    found = case.verdict()
    assert isinstance(found, Permit) == case.may_run(), found
    if isinstance(found, Permit):
        _, _, _, until, without = case.said[-1]
        assert found.flow == case.flow
        newest = case.ledger.newest(case.flow)
        assert newest is not None
        assert found.record == newest.id
        assert {c.name for c in found.carried}.isdisjoint(without)
        assert found.not_after_ms == (None if until is None else NOON + until * HOUR)
        assert found.not_before_ms <= NOON


def test_both_readings_permit_something_and_refuse_something() -> None:
    """The comparison above would also hold if both always refused."""
    yes = (State.GIVEN, "same", "owner", None, ())
    case = Case(DIAGNOSIS, (yes,), "same", None, False, False, EVERYBODY, 0, True, 0)
    assert case.may_run()
    assert isinstance(case.verdict(), Permit)
    assert not dataclasses.replace(case, said=()).may_run()


WORSE: dict[str, Callable[[Case], Case]] = {
    "the newest yes is taken away": lambda c: dataclasses.replace(
        c,
        said=tuple(s for n, s in enumerate(c.said) if n != len(c.said) - 1 or not s[0].is_yes),
    ),
    "every yes is taken away": lambda c: dataclasses.replace(
        c, said=tuple(s for s in c.said if not s[0].is_yes)
    ),
    "a no is added": lambda c: dataclasses.replace(
        c, said=(*c.said, (State.REFUSED, "same", "resident", None, ()))
    ),
    "a withdrawal is added": lambda c: dataclasses.replace(
        c, said=(*c.said, (State.WITHDRAWN, "same", "owner", None, ()))
    ),
    "the form breaks": lambda c: dataclasses.replace(c, form_broken=True),
    "the policy breaks": lambda c: dataclasses.replace(c, trouble=Reason.POLICY_UNUSABLE),
    "the clock is no longer trusted": lambda c: dataclasses.replace(c, trusted=False),
    "the ledger is lost": lambda c: dataclasses.replace(c, said=(), unknown=True),
    "an admission is lost": lambda c: dataclasses.replace(c, admitted=frozenset()),
    "time goes on": lambda c: dataclasses.replace(c, now=c.now + 2),
    "the floor rises": lambda c: dataclasses.replace(c, floor=c.floor + 2),
    "the policy asks for more": lambda c: dataclasses.replace(c, in_force="wider"),
}


@pytest.mark.parametrize("worsen", WORSE.values(), ids=WORSE.keys())
@given(case=cases)
@settings(max_examples=60, deadline=None)
def test_no_permit_is_added_when(worsen: Callable[[Case], Case], case: Case) -> None:
    worse = worsen(case)
    if worse.said and case.said and worse.said[-1] != case.said[-1] and worse.said[-1][0].is_yes:
        return  # the yes before it decides now: less was said, another yes stands
    if isinstance(worse.verdict(), Permit):
        assert isinstance(case.verdict(), Permit)


def test_every_flow_of_any_policy_has_a_verdict_and_no_other() -> None:
    for of in (POLICY, NARROW, WIDE, msgspec.structs.replace(POLICY, flows={})):
        for trusted in (True, False):
            assert (
                judged(*SAID_YES.values(), of=of, clock_trusted=trusted).keys() == of.flows.keys()
            )
