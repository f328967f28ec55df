# SPDX-License-Identifier: Apache-2.0
"""The consent form that lies in the configuration directory: read, read again, then believed.

Path: consent.toml → **letterbox** → form → ledger.

Law:
  - a no acts at the first look; so does what is wrong with a form, which pauses the optional flows;
  - a yes, and the end of such a pause, wait for a second look that finds the same bytes, written at
    the same time, SETTLE_MS later: whoever writes in place may have written the half of it that
    says more, an end or an attribute left out still missing;
  - as long as the bytes change they are looked at again, and when the date comes that a yes in
    them waits for;
  - a form that a command hands over is whole: it acts at once.

Limits: who stops for longer than SETTLE_MS in the middle of writing is taken at his word. A form
that has lain for long is looked at twice as well after a start: that costs SETTLE_MS.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.form import MAX_FORM, Act, is_broken, is_final, judge, parse_form
from agent.pipeline import Pipeline
from agent.records import Decision
from agent.site import FORM
from assent import durable
from assent.errors import ConfigError, Finding, LedgerError, Severity

SETTLE_MS: Final = 2_000
"""Milliseconds a form lies unchanged before a yes in it acts; to save one takes a few."""

log = logging.getLogger(__name__)


class _Look(msgspec.Struct, frozen=True):
    """What a look found: the bytes, or why there are none, and when they were written."""

    data: bytes | None
    refusal: str | None = None
    written_ns: int = 0


class Letterbox:
    """Reads forms and records what they say; the owner's thread calls it.

    Args:
        pipeline: whose household it is.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._seen: tuple[_Look, int] | None = None
        self._is_settled = False
        self._due_ms: int | None = None

    @property
    def path(self) -> Path:
        """Where the form lies."""
        return self._pipeline.site.settings.directory / FORM

    def is_due(self) -> bool:
        """Whether a form has lain long enough for its second look, or a date in it has come."""
        if self._seen is None:
            return False
        now = self._pipeline.clock.now()
        if self._is_settled:
            return self._due_ms is not None and now.wall_ms >= self._due_ms
        return now.mono_ms - self._seen[1] >= SETTLE_MS

    def read(self) -> None:
        """Looks at the form; a yes in it acts when it was the same a while ago."""
        look, now_ms = self._look(), self._pipeline.clock.now().mono_ms
        if self._seen is None or self._seen[0] != look:
            self._seen = (look, now_ms)
        self._is_settled = now_ms - self._seen[1] >= SETTLE_MS
        self._take(look, is_settled=self._is_settled)

    def glance(self) -> None:
        """Looks at the form for a question: a yes waits for the agent."""
        self._take(self._look(), is_settled=False)

    def record(self, data: bytes, file: str) -> tuple[Act, ...]:
        """Records what a form decides.

        Args:
            data: the form.
            file: what findings call it.

        Returns:
            What came of each of its lines.

        Raises:
            ConfigError: the form does not validate; no yes of it was recorded.
            LedgerError: it cannot be recorded; a no of it is in force until the agent ends.
        """
        digest, acts = self._judge(data, file)
        # A no acts even in a form that is broken otherwise.
        self._write(digest, _decisions(acts), final=is_final(acts))
        if is_broken(acts):
            raise ConfigError(_errors(acts))
        return acts

    @contextlib.contextmanager
    def heard(self, decisions: Sequence[Decision]) -> Iterator[None]:
        """Has a no that the ledger does not take be in force all the same, until the agent ends.

        Args:
            decisions: what the block records.
        """
        denied = self._pipeline.denied
        try:
            yield
        except LedgerError:
            denied |= {decision.flow for decision in decisions if not decision.state.is_yes}
            raise
        denied -= {decision.flow for decision in decisions}

    def _look(self) -> _Look:
        path = self.path
        try:
            return _Look(durable.read(path, MAX_FORM), None, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return _Look(None)
        except OSError as exc:
            return _Look(None, f"{path} cannot be read: {exc.strerror}")

    def _take(self, look: _Look, *, is_settled: bool) -> None:
        pipeline = self._pipeline
        self._due_ms = None
        trouble, waits = look.refusal, False
        if pipeline.site.policy is None:
            trouble = None  # every flow is off, and says why
        elif look.data is not None:
            reading = self.record if is_settled else self._record_noes
            trouble, waits = self._read(look.data, reading)
        before = pipeline.site.form_trouble
        if trouble is None and before is not None and not is_settled:
            trouble, waits = before, True
        if trouble is not None:
            log.error("consent form not usable, optional flows pause")
        pipeline.site = msgspec.structs.replace(
            pipeline.site, form_trouble=trouble, form_waits=waits and not is_settled
        )

    def _read(
        self, data: bytes, reading: Callable[[bytes, str], tuple[Act, ...]]
    ) -> tuple[str | None, bool]:
        """What is wrong with a form, and whether a yes in it could act."""
        try:
            acts = reading(data, str(self.path))
        except ConfigError as exc:
            return str(exc.findings[0]), False
        except LedgerError as exc:
            return exc.message, False
        self._due_ms = min((act.due_ms for act in acts if act.due_ms is not None), default=None)
        return None, any(decision.state.is_yes for decision in _decisions(acts))

    def _record_noes(self, data: bytes, file: str) -> tuple[Act, ...]:
        digest, acts = self._judge(data, file)
        noes = [decision for decision in _decisions(acts) if not decision.state.is_yes]
        self._write(digest, noes, final=False)
        if is_broken(acts):
            raise ConfigError(_errors(acts))
        return acts

    def _judge(self, data: bytes, file: str) -> tuple[bytes, tuple[Act, ...]]:
        site = self._pipeline.site
        assert site.policy is not None
        digest = hashlib.sha256(data).digest()
        now = self._pipeline.clock.now()
        acts = judge(
            parse_form(data, file),
            digest,
            site.policy.policy,
            site.ledger,
            site.moment_ms(now),
            clock_trusted=now.trusted,
        )
        return digest, acts

    def _write(self, digest: bytes, decisions: Sequence[Decision], *, final: bool) -> None:
        ledger, now_ms = self._pipeline.site.ledger, self._pipeline.clock.now().wall_ms
        try:
            with self.heard(decisions):
                ledger.append_form(digest, decisions, now_ms, final=final)
        except LedgerError:
            noes = [decision for decision in decisions if not decision.state.is_yes]
            if 0 < len(noes) < len(decisions):  # a full ledger takes a no by itself
                with self.heard(noes):
                    ledger.append_form(digest, noes, now_ms, final=False)
            raise


def _decisions(acts: Sequence[Act]) -> list[Decision]:
    return [act.decision for act in acts if act.decision is not None]


def _errors(acts: Sequence[Act]) -> tuple[Finding, ...]:
    findings = [act.finding for act in acts if act.finding is not None]
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)
