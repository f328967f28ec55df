# SPDX-License-Identifier: Apache-2.0
"""`consent.toml`: a form with one decision per flow, and which of its lines act now.

Path: consent.toml → **Form** → **judge** → ledger. The form is paper; the ledger is the truth.

Law:
  - a form acts once: bytes whose hash the ledger knows as done say nothing any more, and a line
    that has acted does not act again;
  - a no always acts, whoever says it, whatever else is wrong with the form or its date;
  - a yes acts only when all of this holds: the owner said it; the form names the policy in force;
    nothing in the form is an error; the clock is trusted and neither `recorded_at` nor `on` lies
    in the future; after a no the line has an `on` of its own that is later than the no; and it is
    not older than the newest yes, nor as old and wider; and nobody said no since it was first
    read, by the order of the ledger, whatever the clock says;
  - a form recorded before the ledger became unknown never acts, in no line: its flows are off;
  - there is no word that decides more than one flow.

A line is *later* when it may still act by itself (the clock, the date, the policy in force);
until then the form is not done, and is judged again when one of these changes.

Security: nothing here proves who the owner is: whoever records a form is trusted with that.
Findings show flow ids and dates, never who decided.
Limits: a yes that was read on a clock that is not trusted waits, because its date cannot be judged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent.form.errors import error_of
from agent.form.paper import MAX_FORM, Answer, Form, Said, load_form, parse_form
from agent.records import OWNER, Decision, Record, State, state_of_no
from assent.errors import Finding, Severity
from assent.policy.model import Policy
from assent.policy.terms import covers, terms_of

__all__ = [
    "MAX_FORM",
    "Act",
    "Form",
    "LedgerView",
    "Said",
    "is_broken",
    "is_final",
    "judge",
    "load_form",
    "parse_form",
]


class Act(msgspec.Struct, frozen=True):
    """What comes of one line of a form.

    Attributes:
        flow: the flow it names.
        answer: the word it says.
        decision: what the ledger is to record now; None when the line does not act.
        finding: why it does not act, or what is wrong with it; ERROR when the form is broken.
        later: whether it may act by itself at another time.
        due_ms: from when it may act, if it is only its date that it waits for.
        strange: whether it names another policy than the one in force: it acts under that alone.
    """

    flow: str
    answer: Answer
    decision: Decision | None = None
    finding: Finding | None = None
    later: bool = False
    due_ms: int | None = None
    strange: bool = False


class LedgerView(Protocol):
    """What judging asks of a ledger."""

    @property
    def unknown_since_ms(self) -> int | None:
        """Since when earlier decisions are unknown."""

    def form_seen(self, form_hash: bytes) -> bool:
        """Whether a form is done."""

    def is_overtaken(self, form_hash: bytes, flow: str) -> bool:
        """Whether a no to a flow came after a form was first read."""

    def history(self, flow: str) -> Sequence[Record]:
        """Every record of a flow, oldest first."""


def judge(
    form: Form,
    form_hash: bytes,
    policy: Policy,
    ledger: LedgerView,
    now_ms: int,
    *,
    clock_trusted: bool,
) -> tuple[Act, ...]:
    """Says which lines of a form act now; pure.

    Args:
        form: the form.
        form_hash: SHA-256 of its bytes.
        policy: the policy in force.
        ledger: what was decided so far.
        now_ms: now, not before the clock's floor.
        clock_trusted: whether now can be compared with what people wrote.

    Returns:
        An act for every line that has not acted yet, in the order of the file; none when the form
        is done. Record them with `Ledger.append_form`, final as `is_final` says.
    """
    if ledger.form_seen(form_hash):
        return ()
    bench = _Bench(form, form_hash, policy, ledger, now_ms, clock_trusted=clock_trusted)
    since = ledger.unknown_since_ms
    if since is not None and form.recorded_ms < since:
        return tuple(bench.of_before(flow) for flow in form.decisions)
    return tuple(act for flow in form.decisions if (act := bench.act(flow)) is not None)


def is_final(acts: Sequence[Act]) -> bool:
    """Whether a form with these acts has nothing left that could act at another time."""
    return not any(act.later for act in acts) and not is_broken(acts)


def is_broken(acts: Sequence[Act]) -> bool:
    """Whether a form with these acts does not validate, so that the optional flows pause."""
    found = (act.finding for act in acts)
    return any(finding is not None and finding.severity is Severity.ERROR for finding in found)


class _Bench:
    """One judging: the form, what it is held against, and the time."""

    def __init__(
        self,
        form: Form,
        form_hash: bytes,
        policy: Policy,
        ledger: LedgerView,
        now_ms: int,
        *,
        clock_trusted: bool,
    ) -> None:
        self._form = form
        self._hash = form_hash
        self._policy = policy
        self._ledger = ledger
        self._now_ms = now_ms
        self._clock_trusted = clock_trusted
        self._errors = {
            flow: error
            for flow, said in form.decisions.items()
            if (error := error_of(form, flow, policy)) is not None
            # a no to a flow that the policy no longer has is understood all the same
            and not (said.is_no and flow not in policy.flows and ledger.history(flow))
        }

    def of_before(self, flow: str) -> Act:
        """What comes of a line that was written before the ledger became unknown."""
        act = Act(flow, self._form.decisions[flow].decision)
        message = "the ledger was lost after this form was recorded; it never acts"
        return self._stays(act, message, "say it again in a new form")

    def act(self, flow: str) -> Act | None:
        """What comes of one line; None when it has acted before and nothing is wrong with it."""
        said, history = self._form.decisions[flow], self._ledger.history(flow)
        act = Act(flow, said.decision, finding=self._errors.get(flow))
        if any(record.form_hash == self._hash for record in history):
            return act if act.finding is not None else None
        newest = history[-1] if history else None
        if said.is_no:
            return self._no(act, said, newest)
        return act if act.finding is not None else self._yes(act, said, newest)

    def _no(self, act: Act, said: Said, newest: Record | None) -> Act:
        if act.flow not in self._policy.flows and newest is None:
            return act if act.finding is not None else self._of_another_policy(act)
        decided_ms = self._form.decided_ms(said)
        if self._clock_trusted:
            # A no takes effect when it is read; a later date on it would hold back every later yes.
            decided_ms = min(decided_ms, self._now_ms)
        decision = self._decision(act.flow, state_of_no(newest), decided_ms)
        if decision.terms is None and newest is not None:
            decision = msgspec.structs.replace(decision, terms=newest.terms)
        return msgspec.structs.replace(act, decision=decision)

    def _yes(self, act: Act, said: Said, newest: Record | None) -> Act:
        if self._form.policy != self._policy.policy.version:
            return self._of_another_policy(act)
        if self._form.decided_by != OWNER:
            message = f"a yes is for the owner to say; {act.flow!r} stays as it is"
            return self._stays(act, message, f'decided_by = "{OWNER}"')
        if self._ledger.is_overtaken(self._hash, act.flow):
            message = f"there was a no to {act.flow!r} while this yes waited"
            return self._stays(act, message, "say it again in a new form")
        if (reason := self._waits_for(said)) is not None:
            hint = None if self._errors or self._clock_trusted else "see: assent doctor"
            waits = self._stays(act, f"this yes to {act.flow!r} waits: {reason}", hint, later=True)
            return msgspec.structs.replace(waits, due_ms=self._due_ms(said))
        if newest is not None and (stale := self._stale(act, said, newest)) is not None:
            return stale
        renewed = newest is not None and newest.state.is_yes
        state = State.RENEWED if renewed else State.GIVEN
        if said.decision == "accepted":
            state = State.ACCEPTED
        decision = msgspec.structs.replace(
            self._decision(act.flow, state, self._form.decided_ms(said)),
            until_ms=self._form.until_ms(said),
            without=tuple(sorted(set(said.without))),
        )
        return msgspec.structs.replace(act, decision=decision)

    def _waits_for(self, said: Said) -> str | None:
        if self._errors:
            return "the form has errors"
        if not self._clock_trusted:
            return "the clock is not trusted, its date cannot be judged"
        if self._form.recorded_ms > self._now_ms:
            return "the form is recorded in the future"
        if self._form.decided_ms(said) > self._now_ms:
            return "its 'on' is in the future"
        return None

    def _due_ms(self, said: Said) -> int | None:
        if self._errors or not self._clock_trusted:
            return None
        return max(self._form.recorded_ms, self._form.decided_ms(said))

    def _stale(self, act: Act, said: Said, newest: Record) -> Act | None:
        decided_ms = self._form.decided_ms(said)
        if not newest.state.is_yes:
            no_ms = self._no_ms(act.flow, newest)
            if said.on is not None and decided_ms > no_ms:
                return None
            message = f"there was a no to {act.flow!r}, and this yes has no later 'on'"
            return self._stays(act, message, f"give it an 'on' later than {_utc(no_ms)}")
        if decided_ms > newest.decided_ms:
            return None
        if decided_ms == newest.decided_ms and not self._is_more(act.flow, said, newest):
            return None
        message = f"a yes to {act.flow!r} that is as late or later is recorded"
        hint = f"to change it, give this one an 'on' later than {_utc(newest.decided_ms)}"
        return self._stays(act, message, hint)

    def _no_ms(self, flow: str, newest: Record) -> int:
        """When the no was said; not before anything earlier, should the clock have gone back."""
        earlier = [at for r in self._ledger.history(flow) for at in (r.at_ms, r.decided_ms)]
        credible = [at for at in earlier if at <= self._now_ms]
        return max([newest.at_ms, newest.decided_ms, *credible])

    def _is_more(self, flow: str, said: Said, newest: Record) -> bool:
        until_ms, before_ms = self._form.until_ms(said), newest.until_ms
        return (
            (before_ms is not None and (until_ms is None or until_ms > before_ms))
            or not set(newest.without) <= set(said.without)
            or newest.terms is None
            or not covers(newest.terms, terms_of(self._policy, flow))
        )

    def _decision(self, flow: str, state: State, decided_ms: int) -> Decision:
        return Decision(
            flow=flow,
            state=state,
            terms=terms_of(self._policy, flow) if flow in self._policy.flows else None,
            policy_version=self._policy.policy.version,
            decided_by=self._form.decided_by,
            recorded_by=self._form.recorded_by,
            method=self._form.method,
            decided_ms=decided_ms,
        )

    def _of_another_policy(self, act: Act) -> Act:
        named, in_force = self._form.policy, self._policy.policy.version
        message = f"{act.flow!r} waits: the form names policy {named}, in force is {in_force}"
        hint = f"unless {named} is yet to come, say it again in a form for {in_force}"
        finding = self._form.document.finding(("policy",), message, hint, Severity.WARNING)
        return msgspec.structs.replace(act, finding=finding, later=True, strange=True)

    def _stays(
        self, act: Act, message: str, hint: str | None = None, *, later: bool = False
    ) -> Act:
        path = ("decisions", act.flow)
        finding = self._form.document.finding(path, message, hint, Severity.WARNING)
        return msgspec.structs.replace(act, finding=finding, later=later)


def _utc(ms: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(ms / 1000, tz=dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return "the year 9999"  # a ledger of before forms were bounded, or a clock out of its mind
