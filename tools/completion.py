# SPDX-License-Identifier: Apache-2.0
"""Writes the shells' completions of both command lines into config/completion/.

`make completion` does it, and a test fails when what lies there is not what the parsers say.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Final, cast

import shtab

from agent.cli.grammar import add_common
from agent.cli.verbs import VERBS, Verb
from assent.backend.grammar import parser as backend_parser

PLACE: Final = Path(__file__).resolve().parents[1] / "config" / "completion"
_SPDX: Final = "# SPDX-License-Identifier: Apache-2.0\n"


def gateway_parser() -> argparse.ArgumentParser:
    """All verbs of `assent` under one parser; each is a parser of its own when it is typed."""
    top = argparse.ArgumentParser(prog="assent")
    under = top.add_subparsers()
    for name, (module, summary, _) in VERBS.items():
        parser = under.add_parser(name, help=summary)
        add_common(parser)
        cast("Verb", importlib.import_module(module)).add(parser)
    return top


def scripts() -> dict[str, str]:
    """Every file by its name."""
    made = {}
    for name, parser in (("assent", gateway_parser()), ("assent-backend", backend_parser())):
        parser.prog = name
        made[name] = _headed(shtab.complete(parser, "bash"))
        made[f"_{name}"] = _headed(shtab.complete(parser, "zsh"))
    return made


def _headed(script: str) -> str:
    """With the licence; zsh wants its own first line to stay the first."""
    if script.startswith("#compdef"):
        first, _, rest = script.partition("\n")
        return f"{first}\n{_SPDX}{rest}"
    return _SPDX + script


if __name__ == "__main__":
    PLACE.mkdir(exist_ok=True)
    for name, text in scripts().items():
        (PLACE / name).write_text(text)
