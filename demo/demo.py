# SPDX-License-Identifier: Apache-2.0
"""`make demo`: one household's readings travel, sealed, and a withdrawal bites.

Everything it says it has read: from the agent's status, from the recipients' stores, from the files
on the disk. What should hold and does not ends it with exit code 1 and the reason.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from agent.cli.live import is_watched
from agent.cli.say import table
from assent.backend.store import Store
from assent.errors import AssentError
from assent.policy.signing import load_policy
from demo.meter import Meter
from demo.stage import RECIPIENTS, REPO, Stage, StageError, wait_until
from demo.view import watch

RECORDING = REPO / "demo" / "recording" / "washing-machine.csv"
PLACE = REPO / "demo" / "run"
METER = PLACE / "meter.port"
SPEED = 60.0  # an hour of the appliance in a minute
DEVICES = f"""\
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "{METER}"
unit_id = 1
profile = "eastron-sdm120"
every = "500ms"

[[device]]
id = "gateway"
kind = "gateway"
source = "host"
every = "1s"

[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "{RECORDING}"
profile = "replay-washing-machine"
every = "1s"
speed = {SPEED}
"""

WITHDRAWN = "remote-diagnosis"
DECISIONS = {
    "service": '"accepted"',
    "remote-diagnosis": '"given"',
    "partner-energy-advice": '"given"',
}

# What the household watches after the withdrawal, while the other flows go on.
_WATCH_S = 5.0

Json = dict[str, Any]


def say(line: str = "") -> None:
    """One line of the story."""
    print(line, flush=True)


def head(line: str) -> None:
    """A heading of the story."""
    say()
    say(line)


def require(claim: bool, otherwise: str) -> None:  # noqa: FBT001 (a claim reads best in place)
    """Ends the demo when something that should hold does not."""
    if not claim:
        raise StageError(otherwise)


def hurried(text: str) -> str:
    """The example policy with batches and windows of two seconds, for somebody who waits."""
    text = re.sub(r'age = "[0-9a-z]+"', 'age = "2s"', text)
    return text.replace("window(1m,", "window(2s,")


def set_up(stage: Stage) -> None:
    """Recipients, policy, brokers, backends, and a gateway that nobody agreed to yet."""
    head("Setting up: two recipients with a broker each, and a gateway")
    stage.make_recipients()
    bundle = stage.publish(hurried)
    for recipient in RECIPIENTS:
        stage.start_broker(recipient)
        stage.start_backend(recipient)
    stage.make_gateway(DEVICES)
    stage.enrol(bundle)
    policy = stage.status()["policy"]
    say(
        f"  policy {policy['version']} of {policy['controller']}, signed, serial {policy['serial']}"
    )
    for recipient in RECIPIENTS:
        say(
            f"  {recipient}: keys, broker with mutual TLS on port {stage.ports[recipient]}, backend"
        )


def nothing_before_a_yes(stage: Stage) -> None:
    """The twin of everything after it: enrolled, running, and nothing leaves."""
    head("Before anybody agreed")
    stage.start_agent()
    time.sleep(1.0)
    status = stage.status()
    for flow in status["flows"]:
        require(not flow["on"], f"{flow['flow']} runs, and nobody agreed to it")
        say(f"  {flow['flow']}: off, {flow['reason']}")
    for uplink in status["uplinks"]:
        require(uplink["state"] == "idle", f"the uplink to {uplink['recipient']} is not idle")
    for recipient in RECIPIENTS:
        require(stored(stage, recipient) == {}, f"{recipient} stored something")
    say("  no connection was opened; both stores are empty")


def decide(stage: Stage) -> None:
    """The household decides, on a form."""
    head("The household decides")
    for line in stage.decide(DECISIONS).splitlines():
        say(f"  {line}")


def travel(stage: Stage) -> None:
    """Readings travel until every flow has arrived."""
    expected = {flow["flow"]: flow["recipient"] for flow in stage.status()["flows"]}

    def all_arrived() -> bool:
        have = {recipient: stored(stage, recipient) for recipient in RECIPIENTS}
        return all(have[recipient].get(flow) for flow, recipient in expected.items())

    if is_watched():
        head("Readings travel, as they are read, held back, sealed and stored")
        watch(stage, _WATCH_S)
    wait_until(all_arrived, "something of every flow has arrived", patience_s=30.0)
    wait_until(lambda: meter_samples(stage) > 0, "the meter is read")
    status, have = agreed(stage)
    head("What was read, and what was held back")
    for device in status["devices"]:
        say(f"  {device['id']} ({device['kind']}): {device['samples']} samples, {device['state']}")
        for name, why in device["held_back"].items():
            say(f"    held back  {name}: {why}")
    head("What left, signed and sealed")
    for flow in status["flows"]:
        sealed = flow["sealed"]
        say(
            f"  {flow['flow']} to {flow['recipient']}: {counted(sealed['readings'], 'reading')} in "
            f"{counted(sealed['messages'], 'message')}, {sealed['bytes']} bytes"
        )
    head("The gateway's own log of what left (assent sent)")
    for line in sent_lines(json.loads(stage.assent("sent", "--limit", "3", "--json"))["sent"]):
        say(f"  {line}")
    head("What each recipient stored")
    for recipient in RECIPIENTS:
        tell_stored(stage, recipient, have[recipient])


def sent_lines(sent: Sequence[Json]) -> list[str]:
    """The newest of what left, without the digests, so that it fits into eighty columns."""
    columns = ("at", "flow", "recipient", "readings", "bytes")
    head = ["WHEN", "FLOW", "TO", "READINGS", "BYTES"]
    return table([head, *[[str(one[column]) for column in columns] for one in sent]])


def meter_samples(stage: Stage) -> int:
    """How often the meter on its serial port was read."""
    return next(int(one["samples"]) for one in stage.asked()["devices"] if one["id"] == "meter")


def agreed(stage: Stage) -> tuple[Json, dict[str, dict[str, int]]]:
    """The agent's status and the stores at an instant when all that left had arrived.

    Read here and not by the programs: these take longer to start than a batch is open.
    """
    seen: tuple[Json, dict[str, dict[str, int]]] = ({}, {})

    def all_of_it_arrived() -> bool:
        nonlocal seen
        status = stage.asked()
        have = {recipient: stored(stage, recipient) for recipient in RECIPIENTS}
        seen = status, have
        return all(
            have[flow["recipient"]].get(flow["flow"], 0) == flow["sealed"]["readings"]
            for flow in status["flows"]
        )

    wait_until(all_of_it_arrived, "what left is what is stored", patience_s=60.0)
    return seen


def stored(stage: Stage, recipient: str) -> dict[str, int]:
    """How many readings of each flow a recipient's store holds, read at once."""
    with contextlib.closing(Store(stage.backend_directory(recipient), writable=False)) as store:
        return {flow: count for flow, _, count in store.readings.flows()}


def counted(number: int, what: str) -> str:
    """A number with its word."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def tell_stored(stage: Stage, recipient: str, counts: dict[str, int]) -> None:
    """A recipient's rows, read by its own program, held against the policy."""
    terms, units = stage_terms(stage), stage_units(stage)
    for flow, count in counts.items():
        rows = stage.show(recipient, "data", "--flow", flow, "--limit", "2000")
        names = {row["attribute"] for row in rows}
        strange = names - terms[flow]
        require(not strange, f"{recipient} stored {strange}, which {flow} does not list")
        say(f"  {recipient}: {counted(count, 'reading')} of {flow}")
        for name in sorted(names):
            row = next(row for row in rows if row["attribute"] == name)
            unit = f" {units[name]}" if name in units else ""
            say(f"    {name} = {row['value']}{unit}   (pseudonym {row['pseudonym'][:8]}…)")


def no_identifier_left(stage: Stage) -> None:
    """The appliance's serial, in clear, is in no file outside the gateway's own input."""
    with RECORDING.open(newline="") as file:
        serial = next(csv.DictReader(file))["serial"]
    readable = [
        path
        for place in (*RECIPIENTS, "brokers", "gateway/state/spool", "logs")
        for path in (stage.root / place).rglob("*")
        if path.is_file() and serial.encode() in path.read_bytes()
    ]
    require(serial.encode() in RECORDING.read_bytes(), "the search for the serial finds nothing")
    require(not readable, f"the serial number stands in {readable[:1]}")
    head("The appliance's serial number stands in no store, spool, broker or log")


def withdraw(stage: Stage) -> None:
    """One flow is taken back; the others go on."""
    head(f"The household withdraws {WITHDRAWN}")
    recipient = next(
        flow["recipient"] for flow in stage.status()["flows"] if flow["flow"] == WITHDRAWN
    )
    began = time.monotonic()
    told = stage.assent("consent", "withdraw", WITHDRAWN)
    took_ms = (time.monotonic() - began) * 1000
    for line in told.splitlines():
        say(f"  {line}")
    say(f"  the whole command took {took_ms:.0f} ms")
    # What the broker already had may still be on its way to the store.
    all_before_now_arrives(stage, recipient)
    before = stored(stage, recipient)
    time.sleep(_WATCH_S)
    all_before_now_arrives(stage, recipient)
    after = stored(stage, recipient)
    require(
        after[WITHDRAWN] == before[WITHDRAWN],
        f"{after[WITHDRAWN] - before[WITHDRAWN]} readings of {WITHDRAWN} arrived after the no",
    )
    for flow, count in after.items():
        say(f"  {recipient}: {flow} {before.get(flow, 0)} then, {count} now")
    status = {flow["flow"]: flow for flow in stage.status()["flows"]}
    require(not status[WITHDRAWN]["on"], f"{WITHDRAWN} still runs")
    say(f"  {WITHDRAWN}: off, {status[WITHDRAWN]['reason']}")


def all_before_now_arrives(stage: Stage, recipient: str) -> None:
    """Waits until a recipient has stored what another flow seals after this: its line is in order.

    Whatever left for the same recipient before is stored by then.
    """
    others = {
        flow["flow"]: flow["sealed"]["readings"]
        for flow in stage.asked()["flows"]
        if flow["recipient"] == recipient and flow["flow"] != WITHDRAWN
    }

    def one_went_on() -> bool:
        now = stored(stage, recipient)
        return any(now.get(flow, 0) > count for flow, count in others.items())

    wait_until(one_went_on, f"another flow to {recipient} goes on")


def stage_terms(stage: Stage) -> dict[str, set[str]]:
    """What each flow may carry, as the agent shows it to the household."""
    shown = stage.consent()
    return {flow["flow"]: set(flow["attributes"]) for flow in shown["flows"]}


def stage_units(stage: Stage) -> dict[str, str]:
    """The unit of each attribute that has one, from the published policy."""
    policy = load_policy((stage.published / "policy.toml").read_bytes())
    return {name: one.unit for name, one in policy.attributes.items() if one.unit}


def tell(stage: Stage) -> None:
    """The story, from an empty directory to a withdrawal."""
    set_up(stage)
    nothing_before_a_yes(stage)
    decide(stage)
    travel(stage)
    no_identifier_left(stage)
    withdraw(stage)


def main() -> int:
    """Tells the story; the exit code says whether it held."""
    began = time.monotonic()
    stage = Stage(PLACE)
    try:
        with Meter(METER, SPEED):
            tell(stage)
    except (StageError, AssentError, OSError) as exc:
        say()
        say(f"The demo failed: {exc}")
        say(f"Logs: {stage.root / 'logs'}")
        return 1
    finally:
        stage.close()
    head(f"All of it held; everything was stopped after {time.monotonic() - began:.0f} s.")
    place = stage.root.relative_to(REPO)
    say(f"  {place}/maker/store.db           what the maker stored; custody.db beside it")
    say(f"  {place}/gateway/agent.toml       the technician's file")
    say(f"  {place}/gateway/consent.toml     the household's form")
    say(f"  {place}/published/policy.toml    the maker's policy, signed beside it")
    say(f"  {place}/logs/                    what each program said")
    say("To look further:")
    say(f"  .venv/bin/assent-backend show {place}/maker")
    say(f"  .venv/bin/assent status --config {place}/gateway")
    return 0


if __name__ == "__main__":
    sys.exit(main())
