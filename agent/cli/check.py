# SPDX-License-Identifier: Apache-2.0
"""`assent check`: every finding of every file, with file, line and column."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

from agent.cli.office import office, status
from agent.cli.say import counted, result
from agent.inspection import inspect, read_files
from agent.settings import FILE_NAME, load_settings
from agent.site import POLICY
from assent.errors import Finding, Severity


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Reads what is there; asks the stores whether the policy may run, once the files are right."""
    directory: Path = arguments.config
    findings = inspect(directory, dt.datetime.now(dt.UTC))
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        findings += _installed(directory)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    value = {"ok": not errors, "findings": [_json(finding) for finding in findings]}
    lines = [*map(str, findings), _sum(directory, findings, errors)]
    result(value, lines, as_json=arguments.json)
    return 1 if errors else 0


def _installed(directory: Path) -> list[Finding]:
    """Why the policy that lies there may not run, and which certificates end, once enrolled."""
    keys = load_settings(directory).state / "keys"
    if not keys.is_dir():
        return []
    agent = status(directory)
    if not agent.enrolled:
        return []
    found = [
        Finding(
            str(keys / "tls" / f"{one.recipient}.pem"),
            1,
            1,
            one.due,
            severity=Severity.WARNING,
        )
        for one in agent.certificates
        if one.due is not None
    ]
    # Of the file as it lies there now: a running agent has read it before.
    trouble = office(directory, "files")["policy_trouble"]
    if trouble is not None:
        found.append(Finding(str(directory / POLICY), 1, 1, trouble))
    return found


def _json(finding: Finding) -> dict[str, str | int | None]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity.value,
        "message": finding.message,
        "hint": finding.hint,
    }


def _sum(directory: Path, findings: list[Finding], errors: list[Finding]) -> str:
    if not findings:
        return f"no mistakes in {', '.join(read_files(directory))} and the profiles in use"
    warnings = len(findings) - len(errors)
    line = f"{counted(len(errors), 'error')}, {counted(warnings, 'warning')}"
    if any(
        finding.file.endswith(FILE_NAME) and "no such file" in finding.message for finding in errors
    ):
        line += "; write a first configuration with: assent init --config DIR"
    return line
