# SPDX-License-Identifier: Apache-2.0
"""Since when a household's yes stands without a break, and when the one before it ended; no I/O.

Law:
  - goes back from the newest record as long as each is a yes that covers the terms, leaves out no
    attribute that the newest carries, and had not ended when the next one came;
  - a yes to wider terms that came before a narrower one does not count across it: in between, the
    household had agreed to the narrower terms only.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.records import Record
from assent.policy.terms import Terms, covers


def unbroken_since(records: Sequence[Record], terms: Terms) -> int | None:
    """Start of the unbroken yes that covers some terms.

    Args:
        records: every record of one flow, oldest first.
        terms: the terms in force.

    Returns:
        ms since 1970 UTC, or None when the newest record is no yes that covers them.
    """
    since: Record | None = None
    for record in reversed(records):
        if not record.state.is_yes or record.terms is None:
            break
        if since is not None and not _reaches(record, since):
            break
        if not covers(record.terms, terms):
            break
        since = record
    return since.at_ms if since is not None else None


def ended_before(records: Sequence[Record], since_ms: int) -> int | None:
    """When the yes ended that came before an unbroken one.

    Args:
        records: every record of one flow, oldest first.
        since_ms: start of the unbroken yes, in ms since 1970 UTC.

    Returns:
        ms since 1970 UTC, at most `since_ms`, or None where no yes came before.
    """
    end_ms = since_ms
    for record in reversed([one for one in records if one.at_ms < since_ms]):
        if record.state.is_yes:
            return end_ms if record.until_ms is None else min(end_ms, record.until_ms)
        end_ms = record.at_ms
    return None


def _reaches(older: Record, newer: Record) -> bool:
    """Whether a yes still stood, for everything the newer one carries, when the newer one came."""
    return (
        older.at_ms <= newer.at_ms  # else a clock was wrong: the later word counts by itself
        and (older.until_ms is None or older.until_ms >= newer.at_ms)
        and set(older.without) <= set(newer.without)
    )
