# SPDX-License-Identifier: Apache-2.0
"""`assent preview`: what would leave of what the devices say now, and what would not, and why."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from agent.cli.office import is_clock_trusted
from agent.cli.say import counted, emphasised, in_unit, is_painted, result, shown_value
from agent.cli.words import duration, same_place
from agent.preview import FlowPreview, Preview
from agent.settings import load_settings
from agent.sight import long_enough_s, read_rarely, sight
from assent.errors import UsageError

_LEAST_S = 5.0
_SHOWN = 3  # rows of one attribute of one device


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument(
        "--for",
        dest="for_ms",
        type=duration,
        metavar="TIME",
        help="read for so long (default: until each device was read once, 5s to 15s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Reads for a while, sends nothing, prints what would leave."""
    settings = load_settings(arguments.config)
    devices = [device.id for device in settings.devices]
    if not devices:
        raise UsageError("agent.toml has no [[device]]", hint="see: assent devices find")
    for_s = arguments.for_ms / 1000 if arguments.for_ms else long_enough_s(settings, _LEAST_S)
    with sight(settings, devices) as eyes:
        preview = eyes.preview(for_s, _tick)
    _tick(0)
    told = lines(preview)
    told += [
        f"{name} is read every {every}: look longer with --for"
        for name, every in read_rarely(settings, for_s).items()
    ]
    if not is_clock_trusted(arguments.config):
        told += ["", "the clock is not trusted: nothing leaves before it is; see: assent doctor"]
    told += same_place(arguments.config, told)
    result(msgspec.to_builtins(preview), told, as_json=arguments.json)
    return 0


def _tick(left_s: float) -> None:
    """Tells on a terminal how long it still takes."""
    if is_painted(sys.stderr):
        text = f"reading, {left_s:.0f} s left; nothing is sent" if left_s else ""
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def lines(preview: Preview) -> list[str]:
    """The preview for a person."""
    told = [f"{counted(preview.samples, 'sample')} read, nothing sent; the pseudonyms are invented"]
    if preview.missed:
        told.append(f"{counted(preview.missed, 'sample')} came too fast to be shown")
    for flow in preview.flows:
        told += ["", emphasised(f"{flow.flow}  ({flow.function}, to {flow.recipient})")]
        told += of_flow(flow)
    if preview.held_back:
        width = max(map(len, preview.held_back))
        told += ["", emphasised("held back")]
        told += [f"  {name:{width}}  {why}" for name, why in preview.held_back.items()]
    return told


def of_flow(flow: FlowPreview) -> list[str]:
    """What one flow would carry, for a person."""
    state = "leaves now" if flow.on else f"off: {flow.reason}; with a yes it would be"
    told = [f"  {state}"]
    series: dict[tuple[str, str], list[str]] = {}
    for row in flow.rows:
        unit = in_unit(row.unit)
        moment = time.strftime("%H:%M:%S", time.localtime(row.time_ms / 1000))
        series.setdefault((row.device, row.attribute), []).append(
            f"  {moment}  {row.device[:8]}…  {row.attribute}  {shown_value(row.value)}{unit}"
        )
    for found in series.values():
        told += found[-_SHOWN:]
        if len(found) > _SHOWN:
            told.append(f"  {'':8}  and {len(found) - _SHOWN} like it before")
    if flow.in_windows:
        told.append(f"  {counted(flow.in_windows, 'reading')} in windows that have not ended")
    told += [f"  {counted(count, 'value')} stayed: {why}" for why, count in flow.stayed.items()]
    if not flow.rows and not flow.in_windows:
        told.append("  nothing that it carries came")
    return told
