# SPDX-License-Identifier: Apache-2.0
"""`assent`: the command line of the gateway.

Law: stdout is the result, stderr is talk; exit 0 done, 1 failed, 2 usage, 3 refused; `--json`
everywhere; a verb is imported only when it is asked for, so that `status` on a small board is
quick.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, Protocol, cast

from agent.cli.say import complain
from agent.cli.words import DEFAULT_CONFIG, same_place
from assent.errors import AssentError, UsageError
from assent.nearest import nearest

# What agent/settings.py says of a place where there was no `assent init`.
_ABSENT: Final = "agent.toml:1:1: expected a readable file, got: no such file"

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


class Verb(Protocol):
    """What each module of this folder gives."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Adds the verb's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit code."""


VERBS: Final[dict[str, tuple[str, str, str]]] = {
    "init": (
        "agent.cli.init",
        "write a commented configuration; it trusts nobody and collects nothing",
        "  assent init\n  assent init --config ./gateway --state ./gateway/state",
    ),
    "enrol": (
        "agent.cli.enrol",
        "take in a maker's bundle or a recipient's admission; renew a certificate",
        (
            "  assent enrol maker.bundle --thumbprint sha-256:…\n"
            "                                   as the maker told it; writes the requests\n"
            "  assent enrol maker.admission     the recipient's answer to such a request\n"
            "  assent enrol --renew maker       writes one again, before a certificate ends"
        ),
    ),
    "check": (
        "agent.cli.check",
        "read every file and name each finding with file, line and column",
        "  assent check\n  assent check --config ./gateway --json",
    ),
    "devices": (
        "agent.cli.devices",
        "find devices, see what one says now, check a profile",
        (
            "  assent devices find\n"
            "  assent devices find --port /dev/ttyUSB0 --units 1-247\n"
            "  assent devices watch meter-kitchen\n"
            "  assent devices watch meter-kitchen --for 10s --json\n"
            "  assent devices profile check profiles/eastron-sdm120.toml"
        ),
    ),
    "preview": (
        "agent.cli.preview",
        "read for some seconds and show what would leave, and what would not; sends nothing",
        "  assent preview\n  assent preview --for 30s --json",
    ),
    "consent": (
        "agent.cli.consent",
        "show, record or take back the household's decisions",
        (
            "  assent consent show\n"
            "  assent consent ask                 one question for each flow, on the terminal\n"
            "  assent consent history\n"
            "  assent consent apply consent.toml\n"
            "  assent consent refuse partner-energy-advice\n"
            "  assent consent withdraw remote-diagnosis"
        ),
    ),
    "explain": (
        "agent.cli.explain",
        "tell of an attribute which flows carry it, how, to whom and why, or why not",
        "  assent explain appliance.power\n  assent explain device.serial --json",
    ),
    "run": (
        "agent.cli.run",
        "collect and deliver until SIGTERM; SIGHUP reads the files again",
        "  assent run\n  assent run --config ./gateway",
    ),
    "collect": (
        "agent.cli.collect",
        "collect until SIGTERM, in a process that opens no network socket",
        "  assent collect\n  systemctl start assent-collect        the same, as its own user",
    ),
    "uplink": (
        "agent.cli.uplink",
        "deliver what waits until SIGTERM, in a process that reads no key but its TLS keys",
        "  assent uplink\n  systemctl start assent-uplink         the same, as its own user",
    ),
    "status": (
        "agent.cli.status",
        "tell each flow's state: on, or off and why; what waits; what was acknowledged",
        "  assent status\n  assent status --json",
    ),
    "sent": (
        "agent.cli.sent",
        "tell what left: when, of which flow, to whom, how much",
        "  assent sent\n  assent sent --flow remote-diagnosis --limit 100 --json",
    ),
    "flush": (
        "agent.cli.flush",
        "seal the open batches now, without waiting for their age",
        "  assent flush\n  assent flush --json",
    ),
    "doctor": (
        "agent.cli.doctor",
        "look at everything and say what to do; names nothing private, fit for a helpdesk",
        "  assent doctor\n  assent doctor --json",
    ),
}
"""Verb → (module, one line for the list, examples), in the order of a technician's day."""


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with examples (clig.dev) and whose errors exit with 2."""

    examples = ""

    def format_help(self) -> str:
        """Examples first, then what argparse knows."""
        return f"Examples:\n{self.examples}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        """Says what is off and how to see more, on stderr."""
        complain(UsageError(message, hint=f"see: {self.prog} --help"))
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code says how it went."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in VERBS:
        return _without_verb(words)
    verb = cast("Verb", importlib.import_module(VERBS[words[0]][0]))
    arguments = parser_of(words[0], verb).parse_args(words[1:])
    try:
        return verb.run(arguments)
    except AssentError as exc:
        complain(exc)
        for line in same_place(arguments.config, [exc.hint or ""]):
            print(f"  {line}", file=sys.stderr)
        if arguments.config == DEFAULT_CONFIG and _ABSENT in exc.message:
            print("  did you forget --config DIR? to begin there: assent init", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return 1
    except PermissionError as exc:
        from agent.owner import foreign  # noqa: PLC0415  # loaded when it is needed, as a verb is

        error = foreign(Path(exc.filename or arguments.config))
        complain(error)
        return error.exit_code


def _without_verb(words: list[str]) -> int:
    parser = overview()
    if not words:
        parser.print_help()
        return UsageError.exit_code
    if not words[0].startswith("-"):
        hint = nearest(words[0], VERBS, quoted=False) or "see: assent --help"
        complain(UsageError(f"there is no verb {words[0]!r}", hint=hint))
        return UsageError.exit_code
    parser.parse_args(words)
    return UsageError.exit_code


if __name__ == "__main__":
    sys.exit(main())
