# SPDX-License-Identifier: Apache-2.0
"""`assent status`: each flow's state, what waits, what was acknowledged."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from agent.answers import DeviceStatus, FlowStatus, Status, UplinkStatus, Waits, read
from agent.cli.office import office
from agent.cli.say import counted, emphasised, result, table
from agent.cli.words import same_place
from agent.path import Reason


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments: it has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Asks the running agent, or reads the stores when none runs."""
    status = office(arguments.config, "status")
    lines = _lines(read(status, Status))
    lines += same_place(arguments.config, lines)
    result(status, lines, as_json=arguments.json)
    return 0


def _lines(status: Status) -> list[str]:
    running = f"running (process {status.pid})" if status.running else "not running"
    lines = [f"agent     {running}"]
    policy = status.policy
    if policy is None:
        lines.append(f"policy    none: {status.policy_trouble}")
    else:
        lines.append(f"policy    {policy.id} {policy.version} serial {policy.serial}")
    lines.append(f"clock     {status.clock}")
    lines += [f"notice    {line}" for line in status.notices]
    if status.rejected:
        counts = (f"{count} {reason}" for reason, count in sorted(status.rejected.items()))
        lines.append(f"refused   from below: {', '.join(counts)}")
    if status.flows:
        lines += ["", *_flows(status.flows)]
    if status.devices:
        lines += ["", *_devices(status.devices)]
    if status.uplinks:
        lines += ["", *_uplinks(status.uplinks)]
    return lines


def _flows(flows: list[FlowStatus]) -> list[str]:
    rows = [["FLOW", "TO", "STATE", "WAITING", "LAST ACKNOWLEDGED"]]
    for flow in flows:
        waiting = flow.waiting
        state = "on" if flow.reason is None else _state(flow.reason)
        rows.append(
            [
                flow.flow,
                flow.recipient,
                state,
                _waiting(waiting),
                flow.last_acknowledged or "never",
            ]
        )
    head, *body = table(rows)
    return [
        emphasised(head),
        *body,
        *_details((one.flow, one.detail) for one in flows),
        *_stayed(flows),
    ]


def _state(reason: str) -> str:
    return reason if reason == Reason.HELD.value else f"off: {reason}"


def _waiting(waiting: Waits) -> str:
    if not waiting.batches:
        return "nothing"
    readings = counted(waiting.readings, "reading")
    batches = "1 batch" if waiting.batches == 1 else f"{waiting.batches} batches"
    return f"{readings} in {batches}, {waiting.bytes} B"


def _stayed(flows: list[FlowStatus]) -> list[str]:
    """What came in since the agent began and did not leave, by reason."""
    lines = []
    for flow in flows:
        reasons = [f"{count} {reason}" for reason, count in flow.dropped.items() if count]
        if flow.lost:
            reasons.append(f"{flow.lost} lost")
        if reasons:
            lines.append(f"stayed    {flow.flow}: {', '.join(reasons)}")
    return lines


def _devices(devices: list[DeviceStatus]) -> list[str]:
    rows = [["DEVICE", "KIND", "STATE", "LAST SAMPLE"]]
    for device in devices:
        age = device.age_s
        rows.append(
            [
                device.id,
                device.kind,
                device.state,
                "never" if age is None else f"{age:.0f} s ago",
            ]
        )
    head, *body = table(rows)
    return [emphasised(head), *body, *_details((one.id, one.detail) for one in devices)]


def _uplinks(uplinks: list[UplinkStatus]) -> list[str]:
    rows = [["RECIPIENT", "UPLINK", "SINCE"]]
    rows += [
        [
            uplink.recipient,
            uplink.state,
            uplink.since or "",
        ]
        for uplink in uplinks
    ]
    head, *body = table(rows)
    return [emphasised(head), *body, *_details((one.recipient, one.detail) for one in uplinks)]


def _details(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences below a table: in a column they would push the next one off a narrow screen."""
    return [f"  {name}: {detail}" for name, detail in rows if detail]
