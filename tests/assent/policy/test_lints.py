# SPDX-License-Identifier: Apache-2.0
"""Each lint fires where it should, at the right line, and not beside it."""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

import pytest

from assent.errors import Severity
from assent.policy.expressions import parse
from assent.policy.lints import LINTS
from assent.policy.lints.measure import SENML, is_unit
from tests.assent.policy.drafts import BASE, TODAY, edited, findings, pin

ERROR, WARNING = Severity.ERROR, Severity.WARNING


class Case(NamedTuple):
    """One spoilt draft, and one beside it that is right.

    Attributes:
        lint: which must fire, and must not.
        at: a piece of the line it points at.
        wrong: edits that make it fire.
        right: edits that look alike and are right.
    """

    lint: str
    at: str
    wrong: list[tuple[str, str]]
    right: list[tuple[str, str]]


SERVICE = '[flows.service.attributes]\nfault = "keep"'
CORE = 'function = "core"'
TO_MAKER = [('recipient = "advice"', 'recipient = "maker"')]
PUBLIC = [('role = "partner"', 'role = "public"')]
NOBODY = [('area = "grid(10)"\nip = "prefix(24)"\nserial = "pseudonym"\n', "")]


def renamed(name: str) -> list[tuple[str, str]]:
    return [("[attributes.boot]", f'[attributes."{name}"]'), ('boot = "keep"\n', "")]


def carrying(name: str, transform: str) -> list[tuple[str, str]]:
    return [(SERVICE, f'{SERVICE}\n{name} = "{transform}"')]


CASES: dict[str, Case] = {
    "a controller without a name": Case(
        "controller-is-named",
        "controller =",
        [('"Example Appliances Co."', '" "')],
        [('"Example Appliances Co."', '"E"')],
    ),
    "no recipient is a controller": Case(
        "controller-receives",
        "[recipients.maker]",
        [('role = "controller"', 'role = "processor"')],
        [('role = "partner"', 'role = "processor"')],
    ),
    "the end date has passed": Case(
        "policy-is-not-over",
        "not_after",
        [("serial = 17", "serial = 17\nnot_after = 2026-11-21")],
        [("serial = 17", "serial = 17\nnot_after = 2026-11-22")],
    ),
    "a broker without TLS": Case(
        "broker-is-encrypted",
        "mqtt://ingest",
        [("mqtts://ingest", "mqtt://ingest")],
        [("mqtts://ingest", "mqtts://other-2")],
    ),
    "no broker": Case(
        "broker-is-encrypted",
        "brokers = []",
        [('["mqtts://192.0.2.7"]', "[]")],
        [('["mqtts://192.0.2.7"]', '["mqtts://[::1]"]')],
    ),
    "the same broker twice": Case(
        "broker-is-encrypted",
        "brokers =",
        [('["mqtts://192.0.2.7"]', '["mqtts://192.0.2.7", "mqtts://192.0.2.7"]')],
        [('["mqtts://192.0.2.7"]', '["mqtts://192.0.2.7", "mqtts://192.0.2.8"]')],
    ),
    "a broker with a password in its address": Case(
        "broker-is-encrypted",
        "mqtts://me:secret@",
        [("mqtts://ingest", "mqtts://me:secret@ingest")],
        [("mqtts://ingest", "mqtts://me.ingest")],
    ),
    "a broker at a port that is none": Case(
        "broker-is-encrypted", ":65536", [(":8883", ":65536")], [(":8883", ":65535")]
    ),
    "a broker with a path": Case(
        "broker-is-encrypted", ":8883/x", [(":8883", ":8883/x")], [(":8883", ":1")]
    ),
    "a file outside the policy's directory": Case(
        "file-is-beside",
        "../maker.cose",
        [("keys/maker.cose", "../maker.cose")],
        [("keys/maker.cose", "maker.cose")],
    ),
    "a file of the whole machine": Case(
        "file-is-beside",
        "/etc/maker.cose",
        [("keys/maker.cose", "/etc/maker.cose")],
        [("keys/maker.cose", "etc/maker.cose")],
    ),
    "a file with backslashes": Case(
        "file-is-beside",
        "keys\\\\maker.cose",
        [("keys/maker.cose", "keys\\\\maker.cose")],
        [("keys/maker.cose", "keys/2/maker.cose")],
    ),
    "a hidden file": Case(
        "file-is-beside",
        "keys/.maker.cose",
        [("keys/maker.cose", "keys/.maker.cose")],
        [("keys/maker.cose", "keys/m.aker.cose")],
    ),
    "a key in a file of certificates": Case(
        "file-is-beside",
        "keys/maker.pem",
        [("keys/maker.cose", "keys/maker.pem")],
        [("keys/maker.cose", "keys/maker.pem.cose")],
    ),
    "certificates in a file of keys": Case(
        "file-is-beside",
        "keys/maker-ca.cose",
        [("keys/maker-ca.pem", "keys/maker-ca.cose")],
        [("keys/maker-ca.pem", "keys/ca.pem")],
    ),
    "a thumbprint of another length": Case(
        "thumbprint-is-one",
        "sha-256:" + "A" * 42,
        [("A" * 43, "A" * 42)],
        [("A" * 43, "B0_-" + "A" * 39)],
    ),
    "a thumbprint in hexadecimal": Case(
        "thumbprint-is-one",
        "sha-256:0a",
        [("A" * 43, "0a" * 32)],
        [("A" * 43, "0a" * 21 + "0")],
    ),
    "a thumbprint of another hash": Case(
        "thumbprint-is-one",
        "sha-1:",
        [("sha-256:" + "A" * 43, "sha-1:" + "A" * 43)],
        [("A" * 43, "a" * 43)],
    ),
    "one file with two thumbprints": Case(
        "file-is-pinned-once",
        '"keys/maker-ca.pem", thumbprint = "sha-256:F',
        [("keys/advice-ca.pem", "keys/maker-ca.pem")],
        [("keys/advice-ca.pem", "keys/maker-ca.pem"), ("F" * 43, "C" * 43)],
    ),
    "two recipients with one key": Case(
        "key-is-its-own",
        "keys/advice.cose",
        [("D" * 43, "A" * 43)],
        [("F" * 43, "C" * 43)],  # certificates may be the same
    ),
    "one key for two uses": Case(
        "key-is-its-own",
        "keys/maker-sign.cose",
        [("B" * 43, "A" * 43)],
        [("B" * 43, "b" * 43)],
    ),
    "a flow with another recipient's key": Case(
        "key-is-its-own",
        "own.cose",
        [(CORE, f'{CORE}\nkey = {{ file = "own.cose", {pin("D")} }}')],
        [(CORE, f'{CORE}\nkey = {{ file = "own.cose", {pin("G")} }}')],
    ),
    "a flow's own key is its recipient's": Case(
        "flow-key-differs",
        "own.cose",
        [(CORE, f'{CORE}\nkey = {{ file = "own.cose", {pin("A")} }}')],
        [(CORE, f'{CORE}\nkey = {{ file = "own.cose", {pin("G")} }}')],
    ),
    **{
        f"{name} is no device data": Case(
            "category-is-device-data", name, renamed(name), renamed(twin)
        )
        for name, twin in {
            "owner.e-mail": "owner.e-meter",
            "owner.email": "meter.emission",
            "contact.phone": "audio.microphone",
            "phone-number": "port-number",
            "account.id": "accuracy.id",
            "owner.name": "model.code",
            "username": "usage",
            "web.cookie": "oven.cooking",
            "browser.type": "brownout.type",
            "advertising-id": "adapter-id",
            "ad.id": "adc.id",
            "idfa": "idle",
            "search.terms": "seal.terms",
            "feedback": "feed",
            "recruitment": "recirculation",
            "password": "pass-count",
            "page.url": "page.curl",
            "access.token": "access.count",
        }.items()
    },
    "a scan of other people's access points": Case(
        "no-neighbour-scan", "wifi.bssids", renamed("wifi.bssids"), renamed("wifi.rssi")
    ),
    "the neighbours' radios": Case(
        "no-neighbour-scan", "ble.neighbors", renamed("ble.neighbors"), renamed("ble.connected")
    ),
    "a raw scan": Case("no-neighbour-scan", "wifi-scan", renamed("wifi-scan"), renamed("wifi-can")),
    "access points in two words": Case(
        "no-neighbour-scan",
        "near.access-points",
        renamed("near.access-points"),
        renamed("near.access-door"),
    ),
    "free text": Case(
        "text-needs-choices",
        "[attributes.fault]",
        [('choices = ["heater", "leak", "motor"]\n', "")],
        [('choices = ["heater", "leak", "motor"]', 'choices = ["any"]')],
    ),
    "choices of a number": Case(
        "choices-fit",
        "choices =",
        [('unit = "W"', 'unit = "W"\nchoices = ["1"]')],
        [('unit = "W"', 'unit = "W"\nchoices = []')],
    ),
    "choices of an identifier": Case(
        "choices-fit",
        'choices = ["TEST',
        [('sensitivity = "personal"', 'choices = ["TEST-1"]')],
        [('sensitivity = "personal"', "choices = []")],
    ),
    "a choice twice": Case("choices-fit", '"leak", "leak"', [('"motor"', '"leak"')], [('"motor"', '"moto"')]),
    "a choice with a comma": Case("choices-fit", "mo,tor", [("motor", "mo,tor")], [("motor", "mo tor")]),
    "a blank choice": Case("choices-fit", '""', [('"motor"', '""')], [('"motor"', '"m"')]),
    "a choice with a line break": Case("choices-fit", "motor\\n", [("motor", "motor\\n")], [("motor", "motör")]),
    "more choices than a byte counts": Case(
        "choices-fit",
        "choices =",
        [('["heater", "leak", "motor"]', str([f"c{n}" for n in range(257)]))],
        [('["heater", "leak", "motor"]', str([f"c{n}" for n in range(256)]))],
    ),
    "a choice like an e-mail address": Case(
        "choices-name-nobody", "a@example.com", [("motor", "a@example.com")], [("motor", "a.example")]
    ),
    "a choice like a URL": Case(
        "choices-name-nobody", "https://", [("motor", "https://a")], [("motor", "https")]
    ),
    "a choice like a phone number": Case(
        "choices-name-nobody", "+49 30", [("motor", "+49 30 1234567")], [("motor", "E49 30")]
    ),
    "a number without its resolution": Case(
        "quantum-fits", "[attributes.power]", [("quantum = 0.1\n", "")], [("quantum = 0.1", "quantum = 1")]
    ),
    "a resolution of nothing": Case(
        "quantum-fits", "quantum = 0", [("quantum = 0.1", "quantum = 0")], [("quantum = 0.1", "quantum = 0.001")]
    ),
    "a resolution below nothing": Case(
        "quantum-fits", "quantum = -1", [("quantum = 0.1", "quantum = -1")], [("quantum = 0.1", "quantum = 5")]
    ),
    "a resolution of a text": Case(
        "quantum-fits",
        "quantum = 2",
        [('choices = ["heater"', 'quantum = 2\nchoices = ["heater"')],
        [("monotonic = true", "monotonic = true\nquantum = 2")],
    ),
    "half an integer": Case(
        "quantum-fits",
        "quantum = 0.5",
        [("monotonic = true", "monotonic = true\nquantum = 0.5")],
        [("monotonic = true", "monotonic = true\nquantum = 10")],
    ),
    "a number without its unit": Case(
        "unit-is-known", "[attributes.power]", [('unit = "W"\n', "")], [('unit = "Wh"\n', "")]
    ),
    "a unit in words": Case("unit-is-known", "Watts", [('"W"', '"Watts"')], [('"W"', '"kW"')]),
    "a text that counts up": Case(
        "monotonic-is-number",
        "monotonic = true",
        [('choices = ["heater"', 'monotonic = true\nchoices = ["heater"')],
        [('choices = ["heater"', 'monotonic = false\nchoices = ["heater"')],
    ),
    "an identifier that is a number": Case(
        "kind-fits-type",
        'type = "integer"',
        [('kind = "identifier"\ntype = "text"', 'kind = "identifier"\ntype = "integer"')],
        [('kind = "identifier"', 'kind = "connection"')],
    ),
    "a position that is no location": Case(
        "kind-fits-type",
        'type = "position"',
        [('kind = "location"', 'kind = "sensor"')],
        [('type = "position"', 'type = "text"\nchoices = ["north"]')],
    ),
    "an identifier that tells of nobody": Case(
        "identity-is-personal",
        'sensitivity = "none"',
        [('sensitivity = "personal"', 'sensitivity = "none"')],
        [('sensitivity = "personal"', 'sensitivity = "sensitive"')],
    ),
    "a place that tells of nobody": Case(
        "identity-is-personal",
        'sensitivity = "none"',
        [('sensitivity = "sensitive"', 'sensitivity = "none"')],
        [('sensitivity = "sensitive"', 'sensitivity = "personal"')],
    ),
    "an entry without an explanation": Case(
        "entry-is-explained", "about =", [('"Code of a fault."', '""')], [('"Code of a fault."', '"F"')]
    ),
    "an entry nobody answers for": Case(
        "entry-is-explained", "owner =", [('"fault team"', '"\\t"')], [('"fault team"', '"f"')]
    ),
    "an overdue review": Case(
        "review-is-due-later",
        "review = 2026-11-21",
        [("review = 2027-11-30", "review = 2026-11-21")],
        [("review = 2027-11-30", "review = 2026-11-22")],
    ),
    "no flow": Case(
        "policy-has-flows",
        "[flows]",
        [(BASE[BASE.index("[flows.service]") :], "[flows]")],
        [("[flows.service]", "[flows.other]")] + [
            (f"[flows.service.{table}]", f"[flows.other.{table}]") for table in ("attributes", "batch")
        ],
    ),
    "a flow that carries nothing": Case(
        "flow-carries",
        "[flows.service.attributes]",
        [('fault = "keep"\nenergy = "delta"\nboot = "keep"\n', ""), ('urgent = ["fault"]', "")],
        [('energy = "delta"\nboot = "keep"\n', "")],
    ),
    "a recipient that is misspelt": Case(
        "recipient-is-known",
        'recipient = "makr"',
        [('recipient = "maker"', 'recipient = "makr"')],
        [('recipient = "advice"', 'recipient = "maker"')],
    ),
    "a notice in no language": Case(
        "notice-is-given",
        "notice = {}",
        [('{ en = "Keep it working.", zh = "保持运行。" }', "{}")],
        [(', zh = "保持运行。"', "")],
    ),
    "a notice that says nothing": Case(
        "notice-is-given",
        'en = " "',
        [('"Keep it working."', '" "')],
        [('"Keep it working."', '"K"')],
    ),
    "two flows with one notice": Case(
        "notice-is-its-own",
        'notice = { en = "Keep it working.", zh = "节',
        [("Advice on energy.", "Keep it working.")],
        [("Advice on energy.", "Keep it working, too.")],
    ),
    "a notice that lacks a language": Case(
        "notice-has-every-language",
        'notice = { en = "Advice',
        [(', zh = "节能建议。"', "")],
        [(', zh = "节能建议。"', ""), (', zh = "保持运行。"', "")],
    ),
    "a core flow that needs consent": Case(
        "core-has-its-basis",
        'basis = "consent"',
        [('basis = "contract"', 'basis = "consent"')],
        [('basis = "contract"', 'basis = "legal_obligation"')],
    ),
    "a core flow to a partner": Case(
        "core-has-its-basis",
        'recipient = "advice"',
        [('recipient = "maker"', 'recipient = "advice"')],
        [('recipient = "maker"', 'recipient = "advice"'), ('role = "partner"', 'role = "processor"')],
    ),
    "an option that the contract demands": Case(
        "optional-is-no-contract",
        'basis = "contract"',
        [('basis = "consent"', 'basis = "contract"')],
        [('basis = "consent"', 'basis = "public_interest"')],
    ),
    "sharing because faults are looked for": Case(
        "sharing-has-its-basis",
        'basis = "safe_operation"',
        [('basis = "consent"', 'basis = "safe_operation"')],
        [('basis = "consent"', 'basis = "safe_operation"'), *TO_MAKER],
    ),
    "sharing that is not asked for by itself": Case(
        "separate-where-due",
        "separate = false",
        [("separate = true", "separate = false"), ('region = "DE"', 'region = "CN"')],
        [
            ("separate = true", "separate = false"),
            ('region = "DE"', 'region = "CN"'),
            ('role = "partner"', 'role = "processor"'),
            ('sensitivity = "sensitive"', 'sensitivity = "personal"'),
        ],
    ),
    "going abroad that is not asked for by itself": Case(
        "separate-where-due",
        "separate = false",
        [("separate = true", "separate = false"), ('role = "partner"', 'role = "processor"'), *NOBODY],
        [
            ("separate = true", "separate = false"),
            ('role = "partner"', 'role = "processor"'),
            ('region = "DE"', 'region = "CN-GD"'),
            *NOBODY,
        ],
    ),
    "two homes are both abroad": Case(
        "separate-where-due",
        "[flows.service]",
        [('role = "partner"', 'role = "controller"')],
        [('role = "partner"', 'role = "controller"'), (CORE, f"{CORE}\nseparate = true")],
    ),
    "sensitive data that is not asked for by itself": Case(
        "separate-where-due",
        "separate = false",
        [("separate = true", "separate = false"), *TO_MAKER],
        [("separate = true", "separate = false"), *TO_MAKER, ('area = "grid(10)"\n', "")],
    ),
    **{
        f"{transform} for the public": Case(
            "public-is-anonymous",
            f'= "{transform}"',
            [*PUBLIC, *NOBODY, (old, new)],
            [*PUBLIC, *NOBODY],
        )
        for transform, old, new in (
            ("keep", "window(15m, mean)", "keep"),
            ("pseudonym", 'power = "window(15m, mean)"', 'serial = "pseudonym"'),
            ("delta", 'power = "window(15m, mean)"', 'energy = "delta"'),
        )
    },
    "a link inside a core flow": Case(
        "links-are-optional",
        "links =",
        [(CORE, f'{CORE}\nlinks = ["account"]')],
        [('links = ["devices"]', 'links = ["account", "devices"]')],
    ),
    "a withdrawal that erases": Case(
        "withdrawal-only-stops",
        "stop+erase",
        [('on_withdraw = "stop"', 'on_withdraw = "stop+erase"')],
        [('on_withdraw = "stop"\n', "")],
    ),
    "a recipient that keeps for no time": Case(
        "retention-is-positive",
        "keep =",
        [('recipient = "90d"', 'recipient = "0s"')],
        [('recipient = "90d"', 'recipient = "7d"')],
    ),
    "a gateway that forgets before a batch is full": Case(
        "retention-is-positive",
        "keep =",
        [('gateway = "7d"', 'gateway = "5m"')],
        [('gateway = "7d"', 'gateway = "6m"')],
    ),
    "a recipient that keeps shorter than the gateway": Case(
        "recipient-keeps-longer",
        "keep =",
        [('recipient = "90d"', 'recipient = "6d"')],
        [('recipient = "90d"', 'recipient = "7d"')],
    ),
    "pseudonyms that rotate with every batch": Case(
        "epoch-is-possible", "epoch =", [('"10d"', '"30m"')], [('"10d"', '"1h"')]
    ),
    "pseudonyms that never rotate": Case(
        "epoch-is-possible", "epoch =", [('"10d"', '"367d"')], [('"10d"', '"366d"')]
    ),
    "pseudonyms that rotate oddly often": Case(
        "epoch-is-usual", "epoch =", [('"10d"', '"23h"')], [('"10d"', '"1d"')]
    ),
    "pseudonyms that rotate oddly seldom": Case(
        "epoch-is-usual", "epoch =", [('"10d"', '"91d"')], [('"10d"', '"90d"')]
    ),
    "a batch of too many readings": Case(
        "batch-is-bounded", "readings =", [("= 1000", "= 10001")], [("= 1000", "= 10000")]
    ),
    "a batch of no readings": Case(
        "batch-is-bounded", "readings =", [("= 1000", "= 0")], [("= 1000", "= 1")]
    ),
    "a batch that never leaves": Case("batch-is-bounded", "age =", [('"5m"', '"25h"')], [('"5m"', '"24h"')]),
    "a batch that leaves at once": Case(
        "batch-is-bounded", "age =", [('"5m"', '"999ms"')], [('"5m"', '"1s"')]
    ),
    "something urgent that is not carried": Case(
        "urgent-is-carried",
        "urgent =",
        [('urgent = ["fault"]', 'urgent = ["power"]')],
        [('urgent = ["fault"]', 'urgent = ["energy"]')],
    ),
    "an attribute that is misspelt": Case(
        "attribute-is-known",
        'falt = "keep"',
        [('fault = "keep"', 'falt = "keep"')],
        [('fault = "keep"', 'power = "keep"')],
    ),
    **{
        f"{transform} of {name}": Case(
            "transform-fits-type",
            f'{name} = "{transform}"',
            carrying(name, transform),
            carrying(name, twin),
        )
        for name, transform, twin in (
            ("ip", "window(1h, last)", "prefix(16)"),
            ("ip", "round(1)", "enum(a, b)"),
            ("power", "grid(10)", "round(1)"),
            ("power", "prefix(24)", "keep"),
            ("power", "enum(on)", "window(1h, max)"),
            ("power", "pseudonym", "round(0.5)"),
            ("ip", "delta", "prefix(8)"),
            ("ip", "grid(10)", "prefix(1)"),
            ("area", "round(1)", "grid(1)"),
            ("area", "window(1h, last)", "grid(2)"),
        )
    },
    "a window over events": Case(
        "transform-fits-type",
        'fault = "window',
        [('fault = "keep"', 'fault = "window(1h, count)"')],
        [('fault = "keep"', 'fault = "enum(leak)"')],
    ),
    "a serial number in the clear": Case(
        "identifier-needs-pseudonym",
        'serial = "keep"',
        [('serial = "pseudonym"', 'serial = "keep"')],
        [('serial = "pseudonym"', 'power = "keep"'), ('power = "window(15m, mean)"\n', "")],
    ),
    "half a serial number": Case(
        "identifier-needs-pseudonym",
        'serial = "prefix(24)"',
        [('serial = "pseudonym"', 'serial = "prefix(24)"')],
        [('ip = "prefix(24)"', 'ip = "prefix(23)"')],
    ),
    "a reading under a pseudonym": Case(
        "pseudonym-needs-identifier",
        'ip = "pseudonym"',
        [('ip = "prefix(24)"', 'ip = "pseudonym"')],
        [
            ('ip = "prefix(24)"', 'ip = "pseudonym"'),
            ('kind = "connection"', 'kind = "identifier"'),
        ],
    ),
    "a counter that is kept": Case(
        "counter-needs-delta",
        'energy = "keep"',
        [('energy = "delta"', 'energy = "keep"')],
        [('energy = "delta"', 'energy = "keep"'), ("monotonic = true", "monotonic = false")],
    ),
    "a counter that is rounded": Case(
        "counter-needs-delta",
        'energy = "round(1000)"',
        [('energy = "delta"', 'energy = "round(1000)"')],
        [('power = "window(15m, mean)"', 'power = "round(1000)"')],
    ),
    "the last of a counter in a window": Case(
        "counter-needs-delta",
        'energy = "window(1h, last)"',
        [('energy = "delta"', 'energy = "window(1h, last)"')],
        [('power = "window(15m, mean)"', 'power = "window(1h, last)"')],
    ),
    "the increase of what goes up and down": Case(
        "delta-needs-counter",
        'power = "delta"',
        carrying("power", "delta"),
        [*carrying("power", "delta"), ("quantum = 0.1", "quantum = 0.1\nmonotonic = true")],
    ),
    "where somebody lives": Case(
        "position-needs-grid",
        'area = "keep"',
        [('area = "grid(10)"', 'area = "keep"')],
        [('area = "grid(10)"', 'area = "grid(1)"')],
    ),
    "an instant that is no event": Case(
        "instant-joins-epochs",
        'boot = "keep"',
        [('kind = "event"\ntype = "time"', 'kind = "sensor"\ntype = "time"')],
        [('kind = "event"\ntype = "time"', 'kind = "sensor"\ntype = "boolean"')],
    ),
    "an address as it is": Case(
        "address-is-cut",
        'ip = "keep"',
        [('ip = "prefix(24)"', 'ip = "keep"')],
        [('ip = "prefix(24)"', 'ip = "enum(192.0.2.1)"')],
    ),
    "the beginning of a word": Case(
        "prefix-needs-address",
        'fault = "prefix(8)"',
        [('fault = "keep"', 'fault = "prefix(8)"')],
        [*carrying("ip", "prefix(8)")],
    ),
    "a choice the dictionary does not have": Case(
        "enum-is-within",
        'fault = "enum(leak, lake)"',
        [('fault = "keep"', 'fault = "enum(leak, lake)"')],
        [('fault = "keep"', 'fault = "enum(leak, motor)"')],
    ),
    "a step off the sensor's steps": Case(
        "round-is-on-quantum",
        'power = "round(0.25)"',
        carrying("power", "round(0.25)"),
        carrying("power", "round(0.3)"),
    ),
    "a step below the sensor's": Case(
        "round-is-on-quantum",
        'power = "round(0.05)"',
        carrying("power", "round(0.05)"),
        carrying("power", "round(0.1)"),
    ),
    "a window over two epochs": Case(
        "window-divides-epoch",
        'power = "window(7d, mean)"',
        [("window(15m, mean)", "window(7d, mean)")],
        [("window(15m, mean)", "window(5d, mean)")],
    ),
    "a grid of a few houses": Case(
        "position-is-coarse", 'area = "grid(0.5)"', [("grid(10)", "grid(0.5)")], [("grid(10)", "grid(1)")]
    ),
    "a prefix of one host": Case(
        "position-is-coarse", 'ip = "prefix(65)"', [("prefix(24)", "prefix(65)")], [("prefix(24)", "prefix(64)")]
    ),
}  # fmt: skip

CLAUSES = {
    "category-is-device-data": "C35",
    "choices-name-nobody": "C35",
    "text-needs-choices": "C09",
    "no-neighbour-scan": "C06",
    "position-needs-grid": "C06",
    "identifier-needs-pseudonym": "C05",
    "address-is-cut": "C07",
    "notice-is-given": "C04",
    "core-has-its-basis": "C02",
    "sharing-has-its-basis": "C13",
    "separate-where-due": "C17",
    "public-is-anonymous": "C16",
    "links-are-optional": "C10",
    "key-is-its-own": "C15",
    "flow-key-differs": "C03",
    "broker-is-encrypted": "C21",
    "withdrawal-only-stops": "C28",
}


def fired(text: str, today: dt.date = TODAY) -> set[str]:
    names = [re.search(r"\[([a-z-]+)\]$", finding.message) for finding in findings(text, today)]
    assert all(names)
    return {name[1] for name in names if name}


def marked() -> list[object]:
    return [
        pytest.param(
            case,
            id=sentence,
            marks=[pytest.mark.clause(CLAUSES[case.lint])] if case.lint in CLAUSES else [],
        )
        for sentence, case in CASES.items()
    ]


def test_the_draft_has_nothing_wrong_with_it() -> None:
    assert findings(BASE) == []


@pytest.mark.parametrize("case", marked())
def test_it_is_found_at_its_line_and_its_twin_is_not(case: Case) -> None:
    text = edited(case.wrong)
    found = [one for one in findings(text) if one.message.endswith(f"[{case.lint}]")]
    assert found
    assert case.at in text.split("\n")[found[0].line - 1]
    assert {one.severity for one in found} == {LINTS[case.lint].severity}
    assert case.lint not in fired(edited(case.right))


def test_every_lint_has_a_case() -> None:
    assert {case.lint for case in CASES.values()} == LINTS.keys()


def test_every_lint_says_in_its_docstring_what_it_is_for() -> None:
    assert all(rule.check.__doc__ for rule in LINTS.values())


@pytest.mark.parametrize("today", [dt.date.min, TODAY, dt.date.max])
def test_no_error_depends_on_the_day(today: dt.date) -> None:
    # A running fleet is not silenced by a date: past dates are warnings.
    texts = [BASE, *(edited(case.wrong) for case in CASES.values())]
    for text in texts:
        then, now = findings(text, today), findings(text, TODAY)
        assert [f for f in then if f.severity is ERROR] == [f for f in now if f.severity is ERROR]


def test_on_the_last_day_of_review_nothing_is_overdue_and_the_day_after_everything_is() -> None:
    assert fired(BASE, dt.date(2027, 11, 30)) == set()
    assert fired(BASE, dt.date(2027, 12, 1)) == {"review-is-due-later"}


def test_several_lints_speak_at_once_in_the_order_of_the_file() -> None:
    text = edited(
        [("mqtts://ingest", "mqtt://ingest"), ('"fault team"', '""'), ('fault = "keep"', 'fault = "delta"')]
    )  # fmt: skip
    lines = [finding.line for finding in findings(text)]
    assert lines == sorted(lines)
    assert fired(text) == {
        "broker-is-encrypted", "entry-is-explained", "transform-fits-type", "delta-needs-counter",
    }  # fmt: skip


def test_a_misspelt_name_comes_with_the_nearest_known_one() -> None:
    (found,) = findings(edited([('fault = "keep"', 'falt = "keep"'), ('urgent = ["fault"]', "")]))
    assert found.hint == "did you mean 'fault'?"


@pytest.mark.parametrize(
    "unit", ["W", "Cel", "%RH", "m3/h", "kW.h", "L/min", "/min", "m/s2", "[degF]", "mm[Hg]", "By", "1"]
)  # fmt: skip
def test_a_unit_of_senml_or_ucum_is_known(unit: str) -> None:
    assert is_unit(unit)


@pytest.mark.parametrize(
    "unit", ["", "Watts", "degrees", "°C", "w", "kW h", "W\n", "m//s", "kwh", "percent", "W/", "xyz"]
)  # fmt: skip
def test_a_unit_in_other_words_is_not(unit: str) -> None:
    assert not is_unit(unit)


def test_all_of_senml_is_known() -> None:
    assert all(is_unit(unit) for unit in SENML)


def test_a_lint_says_which_transform_it_means_in_its_one_spelling() -> None:
    (found,) = findings(edited([("window(15m, mean)", "window( 10080m ,mean )")]))
    assert str(parse("window(7d,mean)")) in found.message or "7d" in found.message
