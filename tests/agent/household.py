# SPDX-License-Identifier: Apache-2.0
"""One household's policy, decisions and instants, for the tests of keys, ledger, form and gate."""

from __future__ import annotations

from typing import Any

import msgspec
from tinydb import TinyDB
from tinydb.storages import MemoryStorage

from agent.ledger import Ledger
from agent.records import Decision, Start, State
from assent import located
from assent.cosekey import SigningKey
from assent.policy.model import Policy
from assent.policy.signing import SignedPolicy
from assent.policy.terms import Terms, terms_of

NOON = 1_795_348_800_000  # 2026-11-22T12:00:00Z
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

LEDGER_KEY = SigningKey.of(bytes(32))

PIN = 'thumbprint = "sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"'


def _recipient(name: str, role: str, region: str) -> str:
    return f"""
[recipients.{name}]
role = "{role}"
region = "{region}"
key = {{ file = "keys/{name}.cose", {PIN} }}
ack_key = {{ file = "keys/{name}-sign.cose", {PIN} }}
brokers = ["mqtts://{name}.example.com:8883"]
ca = {{ file = "keys/{name}-ca.pem", {PIN} }}
"""


def _attribute(name: str, kind: str, type_: str, more: str = "") -> str:
    return f"""
[attributes."{name}"]
kind = "{kind}"
type = "{type_}"
about = "For a test."
owner = "test team"
review = "2027-11-30"
{more}
"""


POLICY = f"""
[policy]
id = "example-appliances"
version = "2026-11-01"
serial = 17
controller = "Example Appliances Co."
{_recipient("maker", "controller", "CN")}
{_recipient("adviser", "partner", "DE")}
{_attribute("appliance.power", "sensor", "number", 'unit = "W"' + chr(10) + "quantum = 0.1")}
{_attribute("appliance.fault", "event", "text", 'choices = ["none", "pump"]')}
{_attribute("device.serial", "identifier", "text")}
{_attribute("location.area", "location", "position", 'unit = "deg"' + chr(10) + "quantum = 0.0001")}

[flows.service]
function = "core"
purpose = "service"
notice = {{ en = "Keep the appliance running." }}
basis = "contract"
recipient = "maker"
attributes = {{ "appliance.fault" = "keep", "device.serial" = "pseudonym" }}
keep = {{ gateway = "7d", recipient = "30d", then = "delete" }}

[flows.remote-diagnosis]
function = "optional"
purpose = "fault-diagnosis"
notice = {{ en = "Find faults before they become failures." }}
basis = "consent"
recipient = "maker"
attributes = {{ "appliance.power" = "window(15m, mean)", "device.serial" = "pseudonym", "appliance.fault" = "keep" }}
keep = {{ gateway = "7d", recipient = "90d", then = "delete" }}
batch = {{ readings = 500, age = "5m", urgent = ["appliance.fault"] }}

[flows.partner-energy-advice]
function = "optional"
purpose = "energy-advice"
notice = {{ en = "Advice on using less energy." }}
basis = "consent"
recipient = "adviser"
attributes = {{ "appliance.power" = "window(1h, mean)", "location.area" = "grid(10)" }}
keep = {{ gateway = "3d", recipient = "30d", then = "anonymise" }}
epoch = "7d"
separate = true
"""


def policy(text: str = POLICY) -> Policy:
    return located.parse(text, "policy.toml", Policy)


def changed(flow: str, base: Policy | None = None, **changes: Any) -> Policy:
    """The policy with some fields of one flow changed, under the next version."""
    base = base or policy()
    head = msgspec.structs.replace(base.policy, version="2026-12-01", serial=base.policy.serial + 1)
    flows = {**base.flows, flow: msgspec.structs.replace(base.flows[flow], **changes)}
    return msgspec.structs.replace(base, policy=head, flows=flows)


def signed(of: Policy | None = None) -> SignedPolicy:
    """As if opened; the gate reads nothing but what the policy says."""
    of = of or policy()
    return SignedPolicy(of, {}, {}, {}, {}, of.policy.serial, bytes(32))


def terms(flow: str = "remote-diagnosis", of: Policy | None = None) -> Terms:
    return terms_of(of or policy(), flow)


def ledger_in_memory(began_ms: int, *, unknown_since_ms: int | None = None) -> Ledger:
    """A real ledger that is not on a disk."""
    ledger = Ledger(TinyDB(storage=MemoryStorage).table("entries"), LEDGER_KEY)
    ledger._append(began_ms, [Start(unknown_since_ms)])
    if unknown_since_ms is not None:
        ledger.tell_time(unknown_since_ms)
    return ledger


def decision(flow: str = "remote-diagnosis", state: State = State.GIVEN, **more: Any) -> Decision:
    fields: dict[str, Any] = {
        "flow": flow,
        "state": state,
        "terms": terms(flow),
        "policy_version": "2026-11-01",
        "decided_by": "owner",
        "recorded_by": "installer 4711",
        "method": "signed form 2026-0042",
        "decided_ms": NOON,
    }
    return Decision(**{**fields, **more})
