# SPDX-License-Identifier: Apache-2.0
"""`assent`: the command line of the gateway.

Law:
  - stdout is the result, stderr is talk; exit 0 done, 1 failed, 2 usage, 3 refused; `--json`
    everywhere;
  - a verb is imported only when it is asked for, so that `status` on a small board is quick;
  - the programs that stay do not load argparse when they are typed as their units type them: with
    what it brings along it is most of a megabyte, for ever.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from agent.cli.say import complain
from agent.cli.verbs import STAYING, VERBS, Program, Verb
from agent.cli.words import DEFAULT_CONFIG, same_place
from assent.errors import AssentError, UsageError
from assent.nearest import nearest

# What agent/settings.py says of a place where there was no `assent init`.
_ABSENT: Final = "agent.toml:1:1: expected a readable file, got: no such file"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code says how it went."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in VERBS:
        return _without_verb(words)
    module = importlib.import_module(VERBS[words[0]][0])
    directory = directory_of(words[1:]) if words[0] in STAYING else None
    if directory is not None:
        program = cast("Program", module)
        return _done(lambda: program.stay(directory), directory)
    from agent.cli.grammar import parser_of  # noqa: PLC0415  # see the law

    verb = cast("Verb", module)
    # Options may stand anywhere, also between the words of `consent apply FILE`.
    arguments = parser_of(words[0], verb).parse_intermixed_args(words[1:])
    return _done(lambda: verb.run(arguments), arguments.config)


def directory_of(words: Sequence[str]) -> Path | None:
    """The configuration directory, where the words say that and nothing else; None else."""
    match words:
        case []:
            return DEFAULT_CONFIG
        case ["--config", place] if not place.startswith("-"):
            return Path(place)
    return None


def _done(act: Callable[[], int], config: Path) -> int:
    try:
        return act()
    except AssentError as exc:
        complain(exc)
        for line in same_place(config, [exc.hint or ""]):
            print(f"  {line}", file=sys.stderr)
        if config == DEFAULT_CONFIG and _ABSENT in exc.message:
            print("  did you forget --config DIR? to begin there: assent init", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        complain(AssentError("ended from the keyboard before it was done"))
        return AssentError.exit_code
    except PermissionError as exc:
        from agent.owner import foreign  # noqa: PLC0415  # loaded when it is needed, as a verb is

        error = foreign(Path(exc.filename or config))
        complain(error)
        return error.exit_code


def _without_verb(words: list[str]) -> int:
    from agent.cli.grammar import overview  # noqa: PLC0415  # see the law

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
