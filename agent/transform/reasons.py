# SPDX-License-Identifier: Apache-2.0
"""Why a value did not leave: the closed set under which lanes count what they drop."""

from __future__ import annotations

import enum


class DropReason(enum.Enum):
    """Why one value stayed. The value names what is counted."""

    WRONG_TYPE = "wrong type"
    """Not of the type that the dictionary gives the attribute."""
    NOT_FINITE = "not finite"
    """Infinite, or not a number."""
    OUT_OF_RANGE = "out of range"
    """Larger than a column holds, or no place on earth."""
    NOT_LISTED = "not listed"
    """A text outside the closed set of the attribute or of the transform."""
    PERSONAL_TEXT = "personal text"
    """A text shaped like an e-mail, a phone number, a URL, a token or a name field."""
    MALFORMED = "malformed"
    """No identifier or address of its kind, or a sample that contradicts its own shape."""
    FIRST_OF_COUNTER = "first of counter"
    """The first reading of a counter: only increases leave, and there is none yet."""
    COUNTER_RESET = "counter reset"
    """A counter that went back; counting starts again from it."""
    LATE = "late"
    """Older than what a counter has seen, or of a window that has left."""
    CUT_WINDOW = "cut window"
    """Of a window that the begin or end of the yes, or of the epoch, cuts."""
    OPEN_WINDOW = "open window"
    """Of a window that had not ended when the lane closed for good."""
    BEFORE_YES = "before yes"
    """Recorded before the unbroken yes that covers these terms began."""
    AFTER_END = "after end"
    """Recorded after the end of the yes."""
    OTHER_EPOCH = "other epoch"
    """Of a pseudonym epoch that is over, or too far ahead to wait for."""
    CLOCK_UNTRUSTED = "clock untrusted"
    """Its instant cannot be trusted, so that nobody can say whether it was allowed then."""
