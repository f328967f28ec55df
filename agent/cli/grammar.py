# SPDX-License-Identifier: Apache-2.0
"""The command line of `assent` as argparse reads it, whose help begins with examples (clig.dev)."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final, NoReturn

from agent.cli.say import complain
from agent.cli.verbs import VERBS, Verb
from agent.cli.words import DEFAULT_CONFIG
from assent.errors import UsageError

# What argparse says of a value that it takes for another option.
_LACKS: Final = re.compile(r"argument (--[a-z-]+): expected one argument")

_EXAMPLES = """\
  assent init                               write a commented configuration; trusts nobody yet
  assent enrol maker.bundle --thumbprint …  take the maker's policy and keys, write the requests
  assent check                              every finding of every file, with line and column
  assent preview                            what would leave of what is read now; sends nothing
  assent consent ask                        ask the household, flow by flow
  assent run                                collect and deliver until SIGTERM
  assent status                             each flow: on, or off and why
  assent consent withdraw remote-diagnosis  a no, at once
  assent doctor                             what is wrong here, and what to do"""


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with examples (clig.dev) and whose errors exit with 2."""

    examples = ""

    def format_help(self) -> str:
        """Examples first, then what argparse knows."""
        return f"Examples:\n{self.examples}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """Says what is off and how to see more, on stderr."""
        hint = f"see: {self.prog} --help"
        if (flag := _LACKS.match(message)) is not None:
            hint = f"a value that begins with - is joined to it: {flag[1]}=-…; {hint}"
        complain(UsageError(message, hint=hint))
        sys.exit(UsageError.exit_code)


def overview() -> Parser:
    """The command line without a verb: what verbs there are."""
    # As the verbs, loaded when it is asked for: it brings e-mail and zip archives along.
    from importlib.metadata import version  # noqa: PLC0415

    parser = Parser(
        prog="assent",
        usage="assent VERB [--config DIR] [--json] ...",
        description="What leaves this gateway, and what does not.",
        epilog="\n".join(["verbs:", *(f"  {name:9} {verb[1]}" for name, verb in VERBS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.examples = _EXAMPLES
    parser.add_argument("--version", action="version", version=version("assent"))
    return parser


def parser_of(name: str, verb: Verb) -> Parser:
    """The command line of one verb."""
    _, summary, examples = VERBS[name]
    parser = Parser(prog=f"assent {name}", description=summary, allow_abbrev=False)
    parser.examples = examples
    add_common(parser)
    verb.add(parser)
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds what every verb takes."""
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="DIR",
        help=f"configuration directory (default {DEFAULT_CONFIG})",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
