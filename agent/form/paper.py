# SPDX-License-Identifier: Apache-2.0
"""`consent.toml` as read: one decision per flow, nothing judged yet.

Law:
  - an unknown key, a word outside the closed set, an instant without its offset is an error, with
    its place; what validates here may still be wrong for the policy (`agent.form.errors`);
  - there is no word that decides more than one flow.

Security: written by a technician for the household; whatever the bytes, a Form comes out or a
ConfigError. What is printed later has no control characters.
Limits: those of `assent.located`; instants from 2020 to 9998.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from assent import located
from assent.errors import ConfigError
from assent.located import Document
from assent.policy.model import Name, Version

Answer = Literal["accepted", "given", "refused", "withdrawn"]

MAX_FORM: Final = 1_048_576
"""Bytes of a form at most: one of a thousand flows is some 100 kB."""

_NO: Final = ("refused", "withdrawn")
# Before this no gateway ran: a date such as 1970 is a clock that was not set, not a decision.
_EARLIEST: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
# After this an offset can carry an instant out of the calendar, where nothing can print it.
_LATEST: Final = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)

_Line = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,200}\Z",  # it is printed on terminals
        description="a text in quotes of 1 to 200 characters on one line",
    ),
]
_Moment = Annotated[
    dt.datetime,
    Meta(
        tz=True,
        description="a date and time with its offset such as 2026-11-22T10:15:00+08:00",
    ),
]


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `[decisions]`.

    Attributes:
        decision: accepted or refused for a core flow; given, refused or withdrawn for others.
        until: the day as which begins the yes ends.
        without: attributes of the flow that the yes leaves out.
        on: when it was decided, where that differs from `recorded_at`.
    """

    decision: Answer
    until: dt.date | None = None
    without: tuple[Name, ...] = ()
    on: _Moment | None = None

    @property
    def is_no(self) -> bool:
        """Whether it says no."""
        return self.decision in _NO


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policy: Version
    decided_by: _Line
    recorded_by: _Line
    recorded_at: _Moment
    method: _Line
    decisions: dict[str, Answer | Said]


class Form(msgspec.Struct, frozen=True):
    """A consent form as read; whether a line acts is for `judge`.

    Attributes:
        policy: version of the policy it was shown with.
        decided_by: `owner`, or who else was present.
        recorded_by: who wrote it down.
        recorded_at: when.
        method: how.
        decisions: what was said, by flow.
        document: the file, for findings that point into it.
    """

    policy: str
    decided_by: str
    recorded_by: str
    recorded_at: dt.datetime
    method: str
    decisions: Mapping[str, Said]
    document: Document

    def decided_ms(self, said: Said) -> int:
        """When one of its lines was decided, ms since 1970 UTC."""
        return _ms(said.on or self.recorded_at)

    def until_ms(self, said: Said) -> int | None:
        """When the yes of one of its lines ends: as the day begins, by `recorded_at`'s offset."""
        if said.until is None:
            return None
        return _ms(dt.datetime.combine(said.until, dt.time(), self.recorded_at.tzinfo))

    @property
    def recorded_ms(self) -> int:
        """`recorded_at` in ms since 1970 UTC."""
        return _ms(self.recorded_at)


def load_form(path: Path) -> Form | None:
    """Reads `consent.toml`.

    Args:
        path: the file.

    Returns:
        The form, or None when there is no file.

    Raises:
        ConfigError: it cannot be read or does not validate; carries every finding.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # located says what it is
    return _form(located.open_document(path))


def parse_form(text: str | bytes, file_name: str = "consent.toml") -> Form:
    """Reads the text of a form.

    Args:
        text: the document.
        file_name: what findings call it.

    Returns:
        The form.

    Raises:
        ConfigError: it does not validate; carries every finding.
    """
    return _form(located.parse_document(text, file_name))


def _form(document: Document) -> Form:
    file = located.read(document, _File)
    said = {
        flow: line if isinstance(line, Said) else Said(line)
        for flow, line in file.decisions.items()
    }
    moments: list[tuple[tuple[str, ...], dt.datetime | None]] = [
        (("recorded_at",), file.recorded_at),
        *((("decisions", flow, "on"), line.on) for flow, line in said.items()),
    ]
    findings = [
        document.finding(path, message)
        for path, moment in moments
        if moment is not None and (message := _strangeness(moment)) is not None
    ]
    if findings:
        raise ConfigError(tuple(findings))
    return Form(
        policy=file.policy,
        decided_by=file.decided_by,
        recorded_by=file.recorded_by,
        recorded_at=file.recorded_at,
        method=file.method,
        decisions=said,
        document=document,
    )


def _strangeness(moment: dt.datetime) -> str | None:
    if moment < _EARLIEST:
        return f"expected an instant after {_EARLIEST:%Y-%m-%d}, before which no gateway ran"
    if moment >= _LATEST:
        return f"expected an instant before {_LATEST:%Y-%m-%d}"
    return None


def _ms(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
