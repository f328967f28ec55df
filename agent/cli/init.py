# SPDX-License-Identifier: Apache-2.0
"""`assent init`: a commented configuration that trusts nobody and collects nothing."""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.cli.say import result
from assent import durable
from assent.errors import AssentError, RefusedError

_STATE = "/var/lib/assent"
_STATE_LINE = f'state = "{_STATE}"'


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument(
        "--state",
        default=_STATE,
        metavar="DIR",
        help=f"where keys, ledger and waiting batches go (default {_STATE})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the files; never over a file that is there."""
    directory: Path = arguments.config
    examples = _examples()
    wanted = {
        directory / "agent.toml": _with_state(
            _text(examples / "agent.toml"), Path(arguments.state).absolute()
        ),
        directory / "consent.toml.example": _text(examples / "consent.toml"),
    } | {
        directory / "profiles" / profile.name: _text(profile)
        for profile in sorted((examples / "profiles").glob("*.toml"))
    }
    there = [path for path in wanted if path.exists()]
    if there:
        raise RefusedError(
            f"{there[0]} is already there",
            hint="init never writes over a file; nothing was written",
        )
    try:
        for path, text in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(path, text.encode(), mode=0o644)
    except OSError as exc:
        raise AssentError(
            f"{directory} cannot be written: {exc.strerror}", hint="choose one with --config DIR"
        ) from exc
    result(
        {"written": [str(path) for path in wanted], "enrolled": False},
        [*_told(wanted, directory / "profiles"), *_next(directory)],
        as_json=arguments.json,
    )
    return 0


def _told(written: Iterable[Path], profiles: Path) -> Iterator[str]:
    count = 0
    for path in written:
        if path.parent == profiles:
            count += 1
        else:
            yield f"written: {path}"
    yield f"written: {profiles}, {count} device profiles"


def _examples() -> Path:
    """Where the commented examples lie: in a checkout, else where the wheel put them."""
    checkout = Path(__file__).resolve().parents[2] / "config"
    if (checkout / "agent.toml").is_file():
        return checkout
    return Path(sysconfig.get_path("data")) / "share" / "assent"


def _text(source: Path) -> str:
    return source.read_text(encoding="utf-8")


def _with_state(text: str, state: Path) -> str:
    if _STATE_LINE not in text:
        raise AssertionError("the example lost its state line")
    # A JSON string is a basic string of TOML: a quote in the path does not end it.
    return text.replace(_STATE_LINE, f"state = {json.dumps(str(state), ensure_ascii=False)}")


def _next(directory: Path) -> list[str]:
    return [
        "not enrolled: no key is trusted, nothing is collected, nothing connects",
        f"next: assent enrol --config {directory} MAKER.bundle --thumbprint TEXT",
    ]
