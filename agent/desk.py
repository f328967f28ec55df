# SPDX-License-Identifier: Apache-2.0
"""Where the household's acts and questions arrive, from the socket or from a command.

Law:
  - a no is recorded first and takes effect before the answer: lane closed, open batch forgotten,
    what waited purged, the uplink past the fence; anyone present may say it;
  - a yes comes only in a form, and a form acts once;
  - a form that cannot be read pauses the optional flows and says why, an absent one does nothing;
  - a reload closes the open batches into the spool first, and so does a policy that came down; a
    bad agent.toml keeps the old one.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent import answers
from agent.admission import attend
from agent.answers import Applied, SaidNo
from agent.form import Act
from agent.letterbox import Letterbox
from agent.meanwhile import hear_refusals
from agent.pipeline import Pipeline
from agent.questions import status_told, tell
from agent.records import Decision, State, state_of_no
from agent.settings import load_settings
from agent.site import with_policy
from agent.spool import Purged
from assent.errors import (
    AssentError,
    ConfigError,
    ControlError,
    SpoolError,
    UsageError,
)
from assent.nearest import nearest
from assent.policy.terms import Terms, terms_of

Json = dict[str, Any]

log = logging.getLogger(__name__)


class Desk:
    """Answers what the household and the technician ask; the owner's thread calls it.

    Args:
        pipeline: the path, running or, under the lock of a command, standing still.
        running: whether hardware and uplink are at work.
    """

    def __init__(self, pipeline: Pipeline, *, running: bool) -> None:
        self._pipeline = pipeline
        self._running = running
        self._letterbox = Letterbox(pipeline)
        pipeline.on_policy = self.take_policy

    def answer(self, request: Mapping[str, Any]) -> Json:
        """Does what a request asks.

        Args:
            request: a JSON object with `verb` and what goes with it.

        Raises:
            AssentError: the request is not one, or is refused.
        """
        try:
            json.dumps(request, ensure_ascii=False).encode()
        except UnicodeEncodeError as exc:
            raise UsageError("a request is Unicode text, and this is none") from exc
        except RecursionError as exc:  # reading it took fewer frames than this
            raise UsageError("a request nests no deeper than a few levels") from exc
        told = tell(self._pipeline, request, is_running=self._running)
        if told is not None:
            return told
        match request:
            case {"verb": "apply", "text": str(text), "file": str(file)}:
                return answers.told(self.apply(text, file))
            case {"verb": "refuse" | "withdraw", "flow": str(flow)}:
                return answers.told(self.say_no(flow))
            case {"verb": "reload"}:
                return self.reload()
            case {"verb": "flush"}:
                return self.flush()
            case {"verb": "renew" | "admission"}:
                return attend(self._pipeline, request)
        raise ControlError("the request is not one this agent knows")

    def status(self) -> Json:
        """Everything `assent status` prints."""
        return status_told(self._pipeline, is_running=self._running)

    def say_no(self, flow: str, said_ms: int | None = None) -> SaidNo:
        """Records a no to one flow; when this returns nothing of it leaves any more.

        Args:
            flow: id of the flow.
            said_ms: when it was said, or None for now.
        """
        pipeline = self._pipeline
        ledger = pipeline.site.ledger
        now = pipeline.clock.now()
        self._expect_flow(flow)
        state = state_of_no(ledger.newest(flow))
        policy = pipeline.site.policy
        decision = Decision(
            flow=flow,
            state=state,
            terms=self._terms_of(flow),
            policy_version=policy.policy.policy.version if policy else "unknown",
            decided_by="somebody present",
            recorded_by="assent consent",
            method="command",
            decided_ms=pipeline.site.moment_ms(now) if said_ms is None else said_ms,
        )
        with self._settling(), self._letterbox.heard([decision]):
            ledger.append_decision(decision, now.wall_ms)
        purged, outcome = pipeline.shut(flow)
        word = "withdrawn" if state is State.WITHDRAWN else "refused"
        return SaidNo(
            flow=flow,
            decision=word,
            purged=purged,
            uplink=outcome.value,
            certain=outcome.is_certain,
            told=[
                f"{flow}: {word}; {outcome.sentence}",
                *_deleted(purged),
                *_unconfirmed(purged),
            ],
        )

    def apply(self, text: str, file: str) -> Applied:
        """Records what a form decides.

        Raises:
            ConfigError: the form does not validate; no yes of it was recorded.
            LedgerError: it cannot be recorded; a no of it is in force until the agent ends.
            RefusedError: there is no policy to decide about.
        """
        self._pipeline.site.policy_for("to decide about")
        with self._settling():
            acts = self._letterbox.record(text.encode(), file)
        outcome = self._pipeline.settle()
        told = [_told(act) for act in acts] or ["this form has acted before; nothing changed"]
        waiting = [act for act in acts if act.later]
        if waiting and Path(file) != self._letterbox.path:
            strange = any(act.strange for act in waiting)
            what = "what waits for a policy that is yet to come" if strange else "what waits"
            told.append(
                f"{what} acts by itself only as {self._letterbox.path}; else apply it again"
            )
        told += [] if outcome.is_certain else [outcome.sentence]
        acted = [act.flow for act in acts if act.decision is not None]
        stayed = [act.flow for act in acts if act.decision is None]
        return Applied(acted, stayed, told, certain=outcome.is_certain)

    def read_form(self) -> None:
        """Applies `consent.toml` of the configuration directory; a broken one pauses.

        A yes in it acts by `look_again`, when it has not changed for a while.
        """
        self._letterbox.read()

    def look_at_form(self) -> None:
        """As `read_form`, but a yes waits for the agent: a question agrees to nothing."""
        self._letterbox.glance()

    def look_again(self) -> None:
        """Looks once more at a form that has lain for a while; to be called every turn."""
        if self._letterbox.is_due():
            self._letterbox.read()
            self._pipeline.settle()

    def flush(self) -> Json:
        """Closes the open batches into the spool, so that nothing waits for a batch's age."""
        before = self._sealed()
        self._pipeline.flush()
        messages, readings = (now - then for then, now in zip(before, self._sealed(), strict=True))
        return {"running": self._running, "messages": messages, "readings": readings}

    def reload(self) -> Json:
        """Reads settings, profiles, policy and form anew; closes the open batches first."""
        pipeline = self._pipeline
        pipeline.flush()
        told = ["files read again"]
        try:
            settings = load_settings(pipeline.site.settings.directory)
        except ConfigError as exc:
            log.error("agent.toml is bad, the old one is kept finding=%s", exc.findings[0])
            told = [f"agent.toml is bad, the old one is kept: {exc.findings[0]}"]
            settings = pipeline.site.settings
        before = pipeline.site.settings
        changed = {
            "gateway.state": settings.state != before.state,
            "clock.trust": settings.trust != before.trust,
        }
        restart = tuple(key for key, is_other in changed.items() if is_other)
        told += [f"{key} takes effect at the next start" for key in restart]
        settings = msgspec.structs.replace(settings, state=before.state, trust=before.trust)
        site = msgspec.structs.replace(pipeline.site, settings=settings, restart=restart)
        pipeline.site = with_policy(site, pipeline.clock.now())
        self.read_form()
        pipeline.reread()
        outcome = pipeline.settle()
        log.info("files read again restart_needed_for=%s", ",".join(restart) or "nothing")
        return {"told": told if outcome.is_certain else [*told, outcome.sentence]}

    def take_policy(self) -> bool:
        """Puts the policy that came down in force; closes the open batches first.

        Returns:
            False when the ledger cannot remember it; then the old one stays in force.
        """
        pipeline = self._pipeline
        # A lane that goes on is opened anew: a no that was said past us comes first.
        hear_refusals(pipeline, self.say_no)
        pipeline.flush()
        site = with_policy(pipeline.site, pipeline.clock.now())
        if site.policy is None:
            return False
        pipeline.site = site
        self.read_form()
        pipeline.settle()
        return True

    def _sealed(self) -> tuple[int, int]:
        tallies = self._pipeline.running.tallies.values()
        return sum(one.messages for one in tallies), sum(one.readings for one in tallies)

    @contextlib.contextmanager
    def _settling(self) -> Iterator[None]:
        """Has a no take effect also when the act around it fails."""
        try:
            yield
        except AssentError:
            with contextlib.suppress(SpoolError):  # then the next turn tries again
                self._pipeline.settle()
            raise

    def _terms_of(self, flow: str) -> Terms | None:
        """What a no is said to: the terms in force, else those of the last word."""
        site = self._pipeline.site
        if site.policy is None or flow in site.policy.policy.flows:
            return terms_of(site.policy.policy, flow) if site.policy else None
        newest = site.ledger.newest(flow)
        return newest.terms if newest else None

    def _expect_flow(self, flow: str) -> None:
        site = self._pipeline.site
        known = set(site.policy.policy.flows) if site.policy else set()
        if flow in known or site.ledger.history(flow) or flow in self._pipeline.spool.lanes():
            return
        raise UsageError(
            f"the policy has no flow {flow!r}", hint=nearest(flow, known, quoted=False)
        )


def _deleted(purged: Purged) -> list[str]:
    """What was deleted; a batch waits here, sent or not, until its recipient signed for it."""
    readings = "1 reading" if purged.readings == 1 else f"{purged.readings} readings"
    batches = "1 sealed batch" if purged.batches == 1 else f"{purged.batches} sealed batches"
    left = purged.batches > purged.unconfirmed
    more = "; what of it had left before, if anything: assent sent" if left else ""
    return [f"deleted here: {readings}, {batches}{more}"]


def _unconfirmed(purged: Purged) -> list[str]:
    match purged.unconfirmed:
        case 0:
            return []
        case 1:
            told = "1 of the batches was handed to the network and not confirmed; it may"
        case many:
            told = f"{many} of the batches were handed to the network and not confirmed; they may"
    return [f"{told} still arrive; see: assent sent"]


def _told(act: Act) -> str:
    if act.finding is not None:
        return str(act.finding)
    if act.decision is None:
        return f"{act.flow}: {act.answer}, but not yet"
    until = " until its end date" if act.decision.until_ms is not None else ""
    left = f" without {', '.join(act.decision.without)}" if act.decision.without else ""
    return f"{act.flow}: {act.answer}{until}{left}"
