# SPDX-License-Identifier: Apache-2.0
"""`assent consent`: show, record or take back the household's decisions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from agent.answers import Applied, Consent, FlowConsent, History, SaidNo, read
from agent.cli.ask import ask_household
from agent.cli.office import office, say_no
from agent.cli.say import emphasised, result, table
from agent.cli.words import same_place
from agent.form import MAX_FORM
from assent import durable
from assent.errors import AssentError, RefusedError, UsageError

# The words of DPV, as a person says them; --json keeps DPV's.
_WORDS = {
    "ConsentGiven": "yes",
    "RenewedConsentGiven": "yes, said again",
    "ConsentRefused": "no",
    "ConsentWithdrawn": "no, a yes taken back",
    "accepted": "accepted",
}


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's own arguments."""
    parser.add_argument(
        "act",
        choices=["show", "history", "ask", "apply", "refuse", "withdraw"],
        metavar="ACT",
        help="show, history, ask, apply FILE, refuse FLOW, or withdraw FLOW",
    )
    parser.add_argument(
        "subject",
        nargs="?",
        metavar="FILE|FLOW",
        help="the form to apply, or the flow to say no to",
    )


def run(arguments: argparse.Namespace) -> int:
    """Shows, applies a form, or records a no."""
    if arguments.act == "show":
        shown = office(arguments.config, "consent")
        lines = _show(read(shown, Consent))
        lines += same_place(arguments.config, lines)
        result(shown, lines, as_json=arguments.json)
        return 0
    if arguments.act == "history":
        past = office(arguments.config, "history")
        result(past, _history(read(past, History)), as_json=arguments.json)
        return 0
    if arguments.act == "ask":
        told = ask_household(arguments.config)
        return _recorded(arguments, told, read(told, Applied))
    if arguments.subject is None:
        wanted = "FILE" if arguments.act == "apply" else "FLOW"
        raise UsageError(f"assent consent {arguments.act} needs a {wanted}")
    if arguments.act == "apply":
        path = Path(arguments.subject)
        told = office(arguments.config, "apply", file=str(path), text=_read(path))
        return _recorded(arguments, told, read(told, Applied))
    told = say_no(arguments.config, arguments.act, arguments.subject)
    return _recorded(arguments, told, read(told, SaidNo))


def _recorded(arguments: argparse.Namespace, told: dict[str, Any], came: Applied | SaidNo) -> int:
    lines = [*came.told, *same_place(arguments.config, came.told)]
    result(told, lines, as_json=arguments.json)
    if not came.certain:
        return AssentError.exit_code
    # A line of the form that does not act is a refusal, also beside lines that do.
    return RefusedError.exit_code if isinstance(came, Applied) and came.stayed else 0


def _read(path: Path) -> str:
    try:
        return durable.read(path, MAX_FORM).decode()
    except OSError as exc:
        raise AssentError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise AssentError(f"{path} is not UTF-8") from exc


def _history(past: History) -> list[str]:
    if not past.decisions:
        return ["nobody has decided anything yet"]
    body = [
        [one.at, "", f"policy of serial {one.serial} in force", "", "", ""] for one in past.policies
    ]
    body += [
        [
            one.at,
            one.flow,
            _WORDS.get(one.decision, one.decision),
            one.decided_by,
            one.method,
            one.record[:8],
        ]
        for one in past.decisions
    ]
    body.sort(key=lambda row: row[0])
    head, *lines = table([["RECORDED", "FLOW", "DECISION", "BY", "HOW", "RECORD"], *body])
    return [emphasised(head), *lines]


def _show(shown: Consent) -> list[str]:
    if shown.policy_trouble:
        return [f"there is no policy to decide about: {shown.policy_trouble}"]
    lines = []
    for flow in shown.flows:
        lines += [emphasised(f"{flow.flow}  ({flow.function})"), *_flow(flow), ""]
    return lines[:-1]


def _flow(flow: FlowConsent) -> list[str]:
    decided = _WORDS.get(flow.decision or "", "nothing yet")
    if flow.decided_at:
        decided += f", {flow.decided_at}"
    if flow.until:
        decided += f", until {flow.until}"
    if flow.without:
        decided += f", without {', '.join(flow.without)}"
    state = "on" if flow.on else f"off: {flow.reason}"
    if flow.detail and not flow.differences:
        state += f" ({flow.detail})"
    changed = [
        f"{one.what}: {one.agreed or 'nothing'} → {one.current or 'nothing'}"
        + ("" if one.wider else ", which is less")
        for one in flow.differences
    ]
    carried = (f"{name} as {transform}" for name, transform in flow.attributes.items())
    keep = flow.keep
    return [
        f"  why       {flow.notice}",
        f"  to        {flow.recipient} ({flow.role}, {flow.region}), {flow.basis}",
        *(f"  {'what' if index == 0 else '':9} {line}" for index, line in enumerate(carried)),
        f"  kept      here {keep.gateway}, there {keep.recipient}, then {keep.then}",
        f"  decided   {decided}",
        *(f"  {'changed' if index == 0 else '':9} {line}" for index, line in enumerate(changed)),
        f"  now       {state}",
    ]
