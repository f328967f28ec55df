# SPDX-License-Identifier: Apache-2.0
"""`assent consent ask`: walks the owner through each flow, and records what they say.

Law:
  - no answer is pre-set, an empty line is none, and an end of input decides nothing;
  - one question for each flow; there is no word that answers several;
  - a yes is the owner's; whoever else is present can only say no;
  - nothing is recorded before the whole of it was read back and confirmed;
  - nobody is asked while a yes could not be dated: a clock that is not trusted ends it at once.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.answers import Consent, FlowConsent, read
from agent.cli.office import is_clock_trusted, office
from agent.cli.preview import of_flow
from agent.cli.say import emphasised
from agent.preview import FlowPreview
from agent.settings import Settings, load_settings
from agent.sight import long_enough_s, sight
from assent.errors import AssentError, RefusedError, UsageError

_LOOK_S: Final = 4.0
_OWNER: Final = "owner"
_YES: Final = {"core": "accepted", "optional": "given"}
_WORDS: Final = {"yes": True, "y": True, "no": False, "n": False, "later": None, "l": None}
_DECIDED: Final = {
    "accepted": "yes",
    "ConsentGiven": "yes",
    "RenewedConsentGiven": "yes",
    "ConsentRefused": "no",
    "ConsentWithdrawn": "no",
}

Ask = Callable[[str], str]
"""Asks one question on the terminal and gives the line that was typed."""


class _Who(msgspec.Struct, frozen=True):
    """Who decides, and who writes it down."""

    decided_by: str
    recorded_by: str


def ask_household(directory: Path, ask: Ask = input) -> dict[str, Any]:
    """Asks, reads back, records.

    Args:
        directory: the configuration directory.
        ask: asks one question; raises EOFError when nobody answers any more.

    Returns:
        What `assent consent apply` gives for the form that was filled in.

    Raises:
        UsageError: there is no terminal.
        RefusedError: nobody answered, or it was not confirmed, or the clock is not trusted; nothing
            was recorded.
    """
    if ask is input and not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = "at a desk: fill in consent.toml, then assent consent apply"
        raise UsageError("questions are asked on a terminal, and this is none", hint=hint)
    settings = load_settings(directory)
    shown = read(office(directory, "consent"), Consent)
    if shown.version is None:
        raise RefusedError(f"there is nothing to decide about: {shown.policy_trouble}")
    _expect_a_clock(directory)
    samples = _samples(settings)
    try:
        who = _who(ask)
        said = _walk(shown.flows, samples, who, ask)
        if not said or not _confirmed(shown.flows, said, who, ask):
            raise RefusedError("nothing was recorded")
    except (EOFError, KeyboardInterrupt) as exc:
        print()
        raise RefusedError("nobody answered, so nothing was recorded") from exc
    form = _form(shown.version, said, shown.flows, who, dt.datetime.now().astimezone())
    return office(directory, "apply", file="assent consent ask", text=form)


def _expect_a_clock(directory: Path) -> None:
    if not is_clock_trusted(directory):
        raise RefusedError(
            "the clock is not trusted, and a yes needs a date; nobody was asked",
            hint="let a time service set it (timedatectl set-ntp true), or see: assent doctor;"
            " a no needs none: assent consent refuse FLOW",
        )


def _samples(settings: Settings) -> dict[str, FlowPreview]:
    """A look at what the devices say now, so that people see their own data; none is no reason."""
    devices = [device.id for device in settings.devices]
    if not devices:
        return {}
    for_s = long_enough_s(settings, _LOOK_S)
    print(f"Reading the devices for {for_s:.0f} seconds; nothing is sent.")
    try:
        with sight(settings, devices) as eyes:
            return {flow.flow: flow for flow in eyes.preview(for_s).flows}
    except AssentError as exc:
        print(f"They cannot be read now: {exc.message}")
        return {}


def _who(ask: Ask) -> _Who:
    print("\nWho decides? A yes is for the owner to say, for everybody who lives here;")
    print("anyone who is present can say no.")
    is_owner = _agreed(ask, "Are you the owner, and do the others know? yes / no: ")
    decided_by = _OWNER if is_owner else _line(ask, "Who are you, such as 'a resident'? ")
    return _Who(decided_by, _line(ask, "Who writes this down, such as 'installer 4711'? "))


def _walk(
    flows: Sequence[FlowConsent],
    samples: Mapping[str, FlowPreview],
    who: _Who,
    ask: Ask,
) -> dict[str, bool]:
    said: dict[str, bool] = {}
    print("\nyes or no decides; later leaves a flow as it is now.")
    for number, flow in enumerate(flows, 1):
        print(f"\n{number} of {len(flows)}  " + emphasised(f"{flow.flow}  ({flow.function})"))
        for line in [*_words(flow), f"now      {_now(flow)}"]:
            print(f"  {line}")
        if (sample := samples.get(flow.flow)) is not None:
            print("  your own data, as it would leave:")
            for line in of_flow(sample)[1:]:
                print(f"  {line}")
        answer = _answer(flow, who, ask)
        if answer is not None:
            said[flow.flow] = answer
    return said


def _words(flow: FlowConsent) -> list[str]:
    keep = flow.keep
    lines = [
        flow.notice,
        f"goes to  {flow.recipient}, {flow.role}, in {flow.region}",
        f"kept     here at most {keep.gateway}, there {keep.recipient}, then {keep.then}",
    ]
    lines += [
        f"{'what' if index == 0 else '':8} {about} It goes {how}."
        for index, (about, how) in enumerate(flow.about.values())
    ]
    if flow.function == "core":
        lines.append("Without it the service does not run; you can still say no.")
    if flow.separate:
        lines.append("This is a question of its own: no other yes includes it.")
    wider = [one for one in flow.differences if one.wider]
    return [*lines, *(f"new      {one.what}: {one.current or 'nothing'}" for one in wider)]


def _now(flow: FlowConsent) -> str:
    """What is in force before the question."""
    state = "on" if flow.on else f"off: {flow.reason}"
    if flow.decision is None:
        return state
    return f"{state}; {_DECIDED.get(flow.decision, flow.decision)} since {flow.decided_at}"


def _answer(flow: FlowConsent, who: _Who, ask: Ask) -> bool | None:
    words = "yes / no / later" if who.decided_by == _OWNER else "no / later"
    while True:
        typed = ask(f"  Do you agree? {words}: ").strip().lower()
        if typed not in _WORDS:
            print(f"  Please type one of {words}; there is no answer that is taken for you.")
        elif _WORDS[typed] and who.decided_by != _OWNER:
            print(f"  A yes to {flow.flow} is for the owner to say; type no or later.")
        else:
            return _WORDS[typed]


def _confirmed(flows: Sequence[FlowConsent], said: Mapping[str, bool], who: _Who, ask: Ask) -> bool:
    print(f"\nTo be recorded, decided by {who.decided_by}, written down by {who.recorded_by}:")
    for flow in flows:
        answer = said.get(flow.flow)
        later = f"later, stays as it is: {_now(flow)}"
        print(f"  {flow.flow}: {later if answer is None else 'yes' if answer else 'no'}")
    return _agreed(ask, "Is that right? yes / no: ")


def _agreed(ask: Ask, question: str) -> bool:
    while (answer := _WORDS.get(ask(question).strip().lower())) is None:
        print("Please type yes or no.")
    return answer


def _line(ask: Ask, question: str) -> str:
    while not (typed := ask(question).strip()[:200]):
        print("Please type a few words; it is part of the record.")
    return typed


def _form(
    version: str,
    said: Mapping[str, bool],
    flows: Sequence[FlowConsent],
    who: _Who,
    now: dt.datetime,
) -> str:
    """The form as a technician would have filled it in; each yes carries its own instant."""
    moment = now.isoformat(timespec="milliseconds")
    words = {flow.flow: _YES[flow.function] for flow in flows}
    lines = [
        f"policy = {json.dumps(version)}",
        f"decided_by = {_text(who.decided_by)}",
        f"recorded_by = {_text(who.recorded_by)}",
        f"recorded_at = {moment}",
        'method = "asked at the gateway"',
        "[decisions]",
    ]
    for flow, answer in said.items():
        yes = f'{{ decision = "{words[flow]}", on = {moment} }}'
        lines.append(f"{json.dumps(flow)} = {yes if answer else json.dumps('refused')}")
    return "\n".join(lines) + "\n"


def _text(said: str) -> str:
    """A TOML string: what cannot stand in one is left out."""
    return json.dumps("".join(c for c in said if c.isprintable()), ensure_ascii=False)
