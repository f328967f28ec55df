# SPDX-License-Identifier: Apache-2.0
"""What the demo shows while readings travel: painted in place, where a person looks.

Each figure is read anew for each painting: from the agent's status and the recipients' stores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.live import Painting
from agent.cli.say import table
from demo.stage import RECIPIENTS, Stage

_REST_S = 0.5

Json = Mapping[str, Any]


def watch(stage: Stage, for_s: float) -> None:
    """Paints the stage for a while."""
    painting = Painting()
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        # The stores first: what is stored by then was sealed before.
        stored = {
            (recipient, row["flow"]): row["readings"]
            for recipient in RECIPIENTS
            for row in stage.show(recipient, "flows")
        }
        status = stage.status()
        painting.paint(lines(status, stored))
        time.sleep(_REST_S)


def lines(status: Json, stored: Mapping[tuple[str, str], int]) -> list[str]:
    """The whole view: what is read, what is held back and why, what left, what arrived."""
    return [
        *_section(("READ", "KIND", "SAMPLES", "STATE"), _devices(status["devices"])),
        *_section(("HELD BACK", "OF", "BECAUSE"), _held_back(status["devices"])),
        *_section(
            ("LEFT SEALED", "TO", "READINGS", "BYTES", "STORED"), _flows(status["flows"], stored)
        ),
    ]


def _section(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in table([head, *rows])] + [""] if rows else []


def _devices(devices: Sequence[Json]) -> list[list[str]]:
    return [
        [device["id"], device["kind"], str(device["samples"]), device["state"]]
        for device in devices
    ]


def _held_back(devices: Sequence[Json]) -> list[list[str]]:
    return [
        [name, device["id"], why] for device in devices for name, why in device["held_back"].items()
    ]


def _flows(flows: Sequence[Json], stored: Mapping[tuple[str, str], int]) -> list[list[str]]:
    return [
        [
            flow["flow"],
            flow["recipient"],
            str(flow["sealed"]["readings"]),
            str(flow["sealed"]["bytes"]),
            str(stored.get((flow["recipient"], flow["flow"]), 0)),
        ]
        for flow in flows
    ]
