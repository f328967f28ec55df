# SPDX-License-Identifier: Apache-2.0
"""`assent devices`: what is there, what it says now, and whether a profile is right."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Self

from agent.cli.live import Painting, is_watched, sparkline
from agent.cli.say import emphasised, result, shown_value, table, unit_of
from agent.cli.words import duration
from agent.inspection import inspect_profile
from agent.settings import Settings, load_settings
from agent.sight import sight
from assent.errors import AssentError, ConfigError, Severity, UsageError
from assent.nearest import nearest
from firmware_bridge.health import State
from firmware_bridge.profile import load_profile
from firmware_bridge.sample import Sample, Value

_KEPT = 240  # values of an attribute that are remembered for the plot
_LAST_UNIT = 247
_ASK_S = 2.0
_FOREVER_S = 10 * 365 * 86_400.0


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument(
        "words", nargs="+", metavar="ACT", help="find, watch NAME, or profile check FILE"
    )
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="PORT",
        help="find: only here; may be given again",
    )
    parser.add_argument(
        "--units",
        type=_units,
        default=range(1, 11),
        metavar="N-M",
        help="find: these units (default 1-10)",
    )
    parser.add_argument(
        "--for", dest="for_ms", type=duration, metavar="TIME", help="watch: end after, such as 10s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Does one of the acts."""
    match arguments.words:
        case ["find"]:
            from agent.cli.find import find  # noqa: PLC0415  # the serial port is needed by it alone

            return find(arguments)
        case ["watch", name]:
            return _watch(arguments, name)
        case ["profile", "check", file]:
            return _check(arguments, Path(file))
    raise UsageError(
        "expected: find, watch NAME, or profile check FILE", hint="see: assent devices --help"
    )


def _units(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal()):
        raise argparse.ArgumentTypeError(f"expected units such as 1-10, got {text!r}")
    low, high = int(first), int(last or first)
    if low > high:
        message = f"expected the lower unit first, such as {high}-{low}, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    if not 1 <= low <= high <= _LAST_UNIT:
        raise argparse.ArgumentTypeError(f"expected units from 1 to {_LAST_UNIT}, got {text!r}")
    return range(low, high + 1)


def _watch(arguments: argparse.Namespace, name: str) -> int:
    settings = load_settings(arguments.config)
    _expect(settings, name)
    for_s = arguments.for_ms / 1000 if arguments.for_ms else _FOREVER_S
    units = _units_of(settings, name)
    with sight(settings, [name]) as eyes:
        looks = _Counted(eyes.looks(for_s))
        with contextlib.suppress(KeyboardInterrupt):  # how a person ends it
            if arguments.json:
                _stream(looks)
            elif is_watched():
                _paint(looks, units, lambda: eyes.trouble_of(name))
            else:
                _print(looks, units)
        if not looks.count:
            told = eyes.trouble_of(name)
            raise AssentError(f"{name} gave no sample: {told}", hint="see: assent doctor")
    return 0


class _Counted:
    """Looks that know how many samples they gave."""

    def __init__(self, looks: Iterator[tuple[Sample, ...]]) -> None:
        self._looks = looks
        self.count = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Sample, ...]:
        samples = next(self._looks)
        self.count += len(samples)
        return samples


def _units_of(settings: Settings, name: str) -> dict[str, str]:
    """The units of a device's attributes, as its profile has them."""
    (device,) = (one for one in settings.devices if one.id == name)
    if device.profile is not None:
        with contextlib.suppress(ConfigError):  # the source tells what is wrong with it
            return load_profile(device.profile).units
    return {}


def _expect(settings: Settings, name: str) -> None:
    known = [device.id for device in settings.devices]
    if name not in known:
        raise UsageError(
            f"agent.toml has no device {name!r}",
            hint=nearest(name, known, quoted=False) or f"it has {', '.join(known) or 'none'}",
        )


def _stream(looks: Iterable[tuple[Sample, ...]]) -> None:
    for sample in chain.from_iterable(looks):
        values = dict(zip(sample.names, sample.values, strict=True))
        print(json.dumps({"time_ms": sample.at.wall_ms, "values": values}), flush=True)


def _print(looks: Iterable[tuple[Sample, ...]], units: Mapping[str, str]) -> None:
    for sample in chain.from_iterable(looks):
        for name, value in zip(sample.names, sample.values, strict=True):
            shown = f"{shown_value(value)}{unit_of(units, name)}"
            print(f"{_clock(sample.at.wall_ms)}  {name}  {shown}", flush=True)


def _paint(
    looks: Iterable[tuple[Sample, ...]], units: Mapping[str, str], trouble: Callable[[], str]
) -> None:
    """Paints at each look, so that ages grow where nothing comes; asks now and then what fails."""
    # What the devices' own log would say is painted; its lines would be written across.
    logging.getLogger().addHandler(logging.NullHandler())
    painting, board = Painting(), _Board(units)
    asked_s, told = time.monotonic(), State.RUNNING.value
    for samples in looks:
        for sample in samples:
            board.take(sample)
        if time.monotonic() - asked_s >= _ASK_S:
            asked_s, told = time.monotonic(), trouble()
        lines = board.lines(time.time())
        painting.paint(lines if told == State.RUNNING.value else [*lines, told])


class _Board:
    """The newest value of each attribute, and the numbers before it."""

    def __init__(self, units: Mapping[str, str]) -> None:
        self._units = units
        self._newest: dict[str, tuple[int, Value]] = {}
        self._numbers: dict[str, deque[float]] = {}

    def take(self, sample: Sample) -> None:
        for name, value in zip(sample.names, sample.values, strict=True):
            self._newest[name] = (sample.at.wall_ms, value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._numbers.setdefault(name, deque(maxlen=_KEPT)).append(value)

    def lines(self, now_s: float) -> list[str]:
        rows = [["ATTRIBUTE", "VALUE", "AGE", ""]]
        for name, (ms, value) in sorted(self._newest.items()):
            plot = sparkline(list(self._numbers.get(name, ())))
            shown = f"{shown_value(value)}{unit_of(self._units, name)}"
            rows.append([name, shown, f"{max(0.0, now_s - ms / 1000):.0f} s", plot])
        head, *body = table(rows)
        return [emphasised(head), *body]


def _clock(ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def _check(arguments: argparse.Namespace, file: Path) -> int:
    findings = inspect_profile(file, arguments.config)
    wrong = any(one.severity is Severity.ERROR for one in findings)
    value = {"ok": not wrong, "findings": [str(one) for one in findings]}
    lines = [str(one) for one in findings] or [f"no mistakes in {file}"]
    result(value, lines, as_json=arguments.json)
    return ConfigError.exit_code if wrong else 0
