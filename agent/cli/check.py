# SPDX-License-Identifier: Apache-2.0
"""`assent check`: every finding of every file, with file, line and column."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
from collections.abc import Callable
from pathlib import Path

from agent.cli.say import result
from agent.form import judge, load_form
from agent.records import Record
from agent.settings import FILE_NAME, load_settings
from agent.site import FORM, POLICY
from assent.errors import ConfigError, Finding, Severity
from assent.located import open_document, read
from assent.policy.lints import lint
from assent.policy.model import Policy
from firmware_bridge.profile import load_profile


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Reads what is there; an absent policy or form is no mistake."""
    directory: Path = arguments.config
    findings = [*_settings(directory), *_policy(directory), *_form(directory)]
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    value = {"ok": not errors, "findings": [_json(finding) for finding in findings]}
    result(value, [*map(str, findings), _sum(findings, errors)], as_json=arguments.json)
    return 1 if errors else 0


def _settings(directory: Path) -> list[Finding]:
    findings = _findings_of(lambda: load_settings(directory))
    if findings:
        return findings
    profiles = {device.profile for device in load_settings(directory).devices if device.profile}
    for path in sorted(profiles):
        findings += _findings_of(functools.partial(load_profile, path))
    return findings


def _policy(directory: Path) -> list[Finding]:
    path = directory / POLICY
    if not path.exists():
        return []

    def inspect() -> list[Finding]:
        document = open_document(path)
        return lint(read(document, Policy), document, dt.datetime.now(dt.UTC).date())

    return _findings_of(inspect)


def _form(directory: Path) -> list[Finding]:
    def inspect() -> list[Finding]:
        form = load_form(directory / FORM)
        policy = _readable_policy(directory)
        if form is None or policy is None:
            return []
        now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        acts = judge(form, b"", policy, _NothingDecided(), now_ms, clock_trusted=True)
        return [act.finding for act in acts if act.finding is not None]

    return _findings_of(inspect)


def _readable_policy(directory: Path) -> Policy | None:
    """The policy that a form is held against; its own findings are told by `_policy`."""
    with contextlib.suppress(ConfigError):
        return read(open_document(directory / POLICY), Policy)
    return None


class _NothingDecided:
    """A ledger in which nothing was ever decided, so that every line of a form is judged."""

    unknown_since_ms: int | None = None

    def form_seen(self, form_hash: bytes) -> bool:
        """No form was ever seen."""
        del form_hash
        return False

    def is_overtaken(self, form_hash: bytes, flow: str) -> bool:
        """Nothing came after it."""
        del form_hash, flow
        return False

    def history(self, flow: str) -> tuple[Record, ...]:
        """Nothing was ever decided."""
        del flow
        return ()


def _findings_of(inspect: Callable[[], object]) -> list[Finding]:
    try:
        found = inspect()
    except ConfigError as exc:
        return list(exc.findings)
    return [one for one in found if isinstance(one, Finding)] if isinstance(found, list) else []


def _json(finding: Finding) -> dict[str, str | int | None]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity.value,
        "message": finding.message,
        "hint": finding.hint,
    }


def _sum(findings: list[Finding], errors: list[Finding]) -> str:
    if not findings:
        return f"no mistakes in {FILE_NAME}, its profiles, {POLICY} and {FORM}"
    warnings = len(findings) - len(errors)
    return f"{_counted(len(errors), 'error')}, {_counted(warnings, 'warning')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
