# SPDX-License-Identifier: Apache-2.0
"""Words of the command line that several verbs take."""

from __future__ import annotations

import argparse

from assent.units import Duration


def duration(text: str) -> Duration:
    """Reads an argument such as `10s`.

    Raises:
        argparse.ArgumentTypeError: with a sentence.
    """
    try:
        return Duration.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
