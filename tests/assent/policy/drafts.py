# SPDX-License-Identifier: Apache-2.0
"""A policy nothing is wrong with, to be spoilt one line at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from assent import located
from assent.errors import Finding
from assent.policy.lints import lint
from assent.policy.model import Policy

TODAY = dt.date(2026, 11, 22)

Edits = Iterable[tuple[str, str]]


def pin(letter: str) -> str:
    """A thumbprint of the right shape."""
    return f'thumbprint = "sha-256:{letter * 43}"'


BASE = f"""\
[policy]
id = "example-appliances"
version = "2026-11-01"
serial = 17
controller = "Example Appliances Co."

[recipients.maker]
role = "controller"
region = "CN"
key = {{ file = "keys/maker.cose", {pin("A")} }}
ack_key = {{ file = "keys/maker-sign.cose", {pin("B")} }}
brokers = ["mqtts://ingest.example.com:8883"]
ca = {{ file = "keys/maker-ca.pem", {pin("C")} }}

[recipients.advice]
role = "partner"
region = "DE"
key = {{ file = "keys/advice.cose", {pin("D")} }}
ack_key = {{ file = "keys/advice-sign.cose", {pin("E")} }}
brokers = ["mqtts://192.0.2.7"]
ca = {{ file = "keys/advice-ca.pem", {pin("F")} }}

[attributes.power]
kind = "sensor"
type = "number"
unit = "W"
quantum = 0.1
about = "Electric power drawn by the appliance."
owner = "energy team"
review = "2027-11-30"

[attributes.energy]
kind = "sensor"
type = "integer"
unit = "Wh"
monotonic = true
about = "Electric energy used."
owner = "counter team"
review = 2027-11-30

[attributes.fault]
kind = "event"
type = "text"
choices = ["heater", "leak", "motor"]
about = "Code of a fault."
owner = "fault team"
review = 2027-11-30

[attributes.serial]
kind = "identifier"
type = "text"
sensitivity = "personal"
about = "Serial number of the appliance."
owner = "serial team"
review = 2027-11-30

[attributes.area]
kind = "location"
type = "position"
sensitivity = "sensitive"
about = "Where the appliance stands."
owner = "area team"
review = 2027-11-30

[attributes.ip]
kind = "connection"
type = "text"
about = "Address the household has on the internet."
owner = "network team"
review = 2027-11-30

[attributes.boot]
kind = "event"
type = "time"
about = "When the gateway started."
owner = "gateway team"
review = 2027-11-30

[flows.service]
function = "core"
purpose = "service-operation"
notice = {{ en = "Keep it working.", zh = "保持运行。" }}
basis = "contract"
recipient = "maker"
keep = {{ gateway = "7d", recipient = "90d", then = "delete" }}
[flows.service.attributes]
fault = "keep"
energy = "delta"
boot = "keep"
[flows.service.batch]
readings = 1000
age = "5m"
urgent = ["fault"]

[flows.advice]
function = "optional"
purpose = "energy-advice"
notice = {{ en = "Advice on energy.", zh = "节能建议。" }}
basis = "consent"
recipient = "advice"
keep = {{ gateway = "7d", recipient = "30d", then = "anonymise" }}
epoch = "10d"
links = ["devices"]
separate = true
on_withdraw = "stop"
[flows.advice.attributes]
power = "window(15m, mean)"
area = "grid(10)"
ip = "prefix(24)"
serial = "pseudonym"
"""


def edited(edits: Edits, text: str = BASE) -> str:
    """The text with each first occurrence replaced."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def policy(edits: Edits = (), text: str = BASE) -> Policy:
    """The policy of a text, whatever its lints say."""
    return located.parse(edited(edits, text), "policy.toml", Policy)


def findings(text: str, today: dt.date = TODAY) -> list[Finding]:
    """What the lints say of a text."""
    document = located.parse_document(text, "policy.toml")
    return lint(located.read(document, Policy), document, today)
