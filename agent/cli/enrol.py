# SPDX-License-Identifier: Apache-2.0
"""`assent enrol`: take in a bundle or an admission, or ask a recipient to be let in again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from agent.cli.say import result
from agent.cli.words import same_place
from agent.enrol import Taken, enrol, renew
from assent import durable
from assent.enrolment import MAX_BUNDLE
from assent.enrolment.kinds import FileKind, claimed, wrong_file
from assent.errors import (
    AssentError,
    BadSignatureError,
    UnknownSuiteError,
    UsageError,
    WireError,
)

_EXPECTED: Final[tuple[FileKind, ...]] = ("bundle", "admission")


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument("file", type=Path, nargs="?", help="the bundle or admission")
    parser.add_argument(
        "--renew",
        metavar="RECIPIENT",
        help="write a request for a new certificate, for a new TLS key; beside a running agent too",
    )
    parser.add_argument(
        "--thumbprint",
        metavar="TEXT",
        help="the policy key's thumbprint as the maker told it by another way; "
        "a bundle with another key is refused; without it the first key that comes is trusted",
    )


def run(arguments: argparse.Namespace) -> int:
    """Takes the file in, or writes a request; says what it was and what to do next."""
    if (arguments.file is None) == (arguments.renew is None):
        raise UsageError(
            "expected a file, or --renew with a recipient",
            hint="assent enrol maker.bundle --thumbprint TEXT, assent enrol maker.admission,"
            " assent enrol --renew maker",
        )
    if arguments.renew is not None:
        return _tell(renew(arguments.config, arguments.renew), arguments)
    try:
        data = durable.read(arguments.file, MAX_BUNDLE)
    except OSError as exc:
        raise AssentError(f"{arguments.file} cannot be read: {exc.strerror}") from exc
    if claimed(data) == "request":
        raise wrong_file(arguments.file, data, _EXPECTED)
    try:
        taken = enrol(arguments.config, data, expected=arguments.thumbprint)
    except (BadSignatureError, UnknownSuiteError):
        raise  # whole, and what is wrong with it is its own sentence
    except WireError as exc:
        raise wrong_file(arguments.file, data, _EXPECTED, exc) from exc
    return _tell(taken, arguments)


def _tell(taken: Taken, arguments: argparse.Namespace) -> int:
    value = {
        "kind": taken.kind,
        "written": [str(path) for path in taken.written],
        "told": taken.told,
    }
    result(value, [*taken.told, *same_place(arguments.config, taken.told)], as_json=arguments.json)
    return 0
