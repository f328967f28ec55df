# SPDX-License-Identifier: Apache-2.0
"""The types of a policy take what the design shows, and no other words."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from assent import located
from assent.errors import ConfigError
from assent.policy.expressions import parse
from assent.policy.lints import lint
from assent.policy.model import (
    Attribute,
    BatchRule,
    Flow,
    Keep,
    KeyRef,
    Policy,
    PolicyHead,
    Recipient,
)
from assent.policy.signing import load_policy
from assent.units import Duration
from tests.assent.policy.drafts import TODAY, edited, pin, policy

EXAMPLE = Path(__file__).resolve().parents[3] / "config" / "policy.toml"


def refused(*edits: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        policy(edits)
    (finding,) = caught.value.findings
    return str(finding)


def test_what_is_left_out_has_its_safe_default() -> None:
    service = policy().flows["service"]
    assert service.epoch == Duration.parse("30d")
    assert (service.links, service.separate, service.on_withdraw) == ((), False, "stop")
    assert service.key is None
    assert policy().flows["advice"].batch == BatchRule(10_000, Duration.parse("10m"), ())
    power = policy().attributes["power"]
    assert (power.sensitivity, power.monotonic, power.choices) == ("personal", False, ())


def test_what_is_written_is_there() -> None:
    edits = [
        ("serial = 17", "serial = 17\nnot_after = 2030-12-31"),
        ('function = "core"', f'function = "core"\nkey = {{ file = "k.cose", {pin("G")} }}'),
    ]
    made = policy(edits)
    assert made.policy.not_after == dt.date(2030, 12, 31)
    assert made.flows["service"].attributes["energy"] == parse("delta")
    assert made.flows["service"].batch.urgent == ("fault",)
    assert made.flows["service"].key is not None
    assert made.flows["service"].key.file == "k.cose"
    assert made.recipients["advice"].brokers == ("mqtts://192.0.2.7",)
    assert made.attributes["power"].review == dt.date(2027, 11, 30)


CLOSED = {
    "role": ('role = "partner"', 'role = "{}"', "friend"),
    "kind": ('kind = "sensor"', 'kind = "{}"', "reading"),
    "type": ('type = "number"', 'type = "{}"', "float"),
    "sensitivity": ('sensitivity = "personal"', 'sensitivity = "{}"', "low"),
    "function": ('function = "core"', 'function = "{}"', "basic"),
    "basis": ('basis = "consent"', 'basis = "{}"', "legitimate_interest"),
    "then": ('then = "delete"', 'then = "{}"', "archive"),
    "links": ('links = ["devices"]', 'links = ["{}"]', "phone"),
    "on_withdraw": ('on_withdraw = "stop"', 'on_withdraw = "{}"', "pause"),
}


@pytest.mark.parametrize(("old", "shape", "word"), CLOSED.values(), ids=CLOSED.keys())
def test_a_word_outside_its_closed_set_is_refused(old: str, shape: str, word: str) -> None:
    assert f"got the text '{word}'" in refused((old, shape.format(word)))


@pytest.mark.parametrize(
    ("key", "words"),
    {
        "role": "controller processor affiliate partner authority household public",
        "kind": "attribute identifier sensor event location connection",
        "type": "number integer boolean text position time",
        "sensitivity": "none personal sensitive",
        "function": "core optional",
        "basis": "consent contract legal_obligation public_interest official_authority "
        "vital_interest safe_operation",
        "then": "delete anonymise",
        "links": "devices account",
        "on_withdraw": "stop stop+erase",
    }.items(),
)
def test_every_word_of_the_design_is_taken(key: str, words: str) -> None:
    old, shape, _ = CLOSED[key]
    told = [policy([(old, shape.format(word))]) for word in words.split()]
    assert len({repr(one) for one in told}) == len(told)  # each is another policy


NAMES = {
    "capitals": "Advice",
    "a space": "ad vice",
    "a slash": "ad/vice",
    "two dots": "ad..vice",
    "a dot at the start": ".advice",
    "a hyphen at the end": "advice-",
    "an underscore": "ad_vice",
    "a digit at the start": "2advice",
    "another script": "устройство",
    "a line break": "advice\\n",
    "65 characters": "a" * 65,
    "nothing": "",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_name_that_travels_has_a_strict_shape(name: str) -> None:
    for table in ("[flows.advice", "[recipients.advice", "[attributes.ip"):
        kind, old = table[1:].split(".")
        text = edited([]).replace(table, f'[{kind}."{name}"')
        if kind == "recipients":
            text = text.replace('recipient = "advice"', 'recipient = "maker"')
        with pytest.raises(ConfigError) as caught:
            located.parse(text, "policy.toml", Policy)
        assert "expected a name of lower-case letters" in str(caught.value), old
    assert "expected a name" in refused(('purpose = "energy-advice"', f'purpose = "{name}"'))
    policy([('purpose = "energy-advice"', f'purpose = "{"a" * 64}"')])
    policy([('purpose = "energy-advice"', 'purpose = "a1.b-2.c"')])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("serial = 17", "serial = 0", "expected a whole number from 1, got the number 0"),
        ("serial = 17", "serial = 1.5", "expected a whole number from 1"),
        ('"2026-11-01"', "2026-11-01", 'expected a version such as "2026-11-01" in quotes'),
        ('"2026-11-01"', '"../1"', "expected a version"),
        ('"2026-11-01"', '"1\\n"', "expected a version"),
        ('"DE"', '"de"', "expected an ISO 3166 code"),
        ('"DE"', '"EU1"', "expected an ISO 3166 code"),
        ("en = ", "EN = ", "expected a language tag"),
        (
            'gateway = "7d"',
            "gateway = 7",
            "expected a duration in quotes such as '15m', got the number 7",
        ),
        ('"delta"', '"detla"', "expected a transform"),
        ("quantum = 0.1", "quantum = nan", "expected a number, got the number nan"),
        ("quantum = 0.1", "quantum = 0.1\nscale = 2", "unknown key 'scale'"),
        ('purpose = "energy-advice"', "", "missing key 'purpose'"),
        ('basis = "consent"', "", "missing key 'basis'"),
        ('about = "Code of a fault."', "", "missing key 'about'"),
        ('owner = "fault team"', "", "missing key 'owner'"),
        ('review = "2027-11-30"', "", "missing key 'review'"),
        ('region = "DE"', "", "missing key 'region'"),
        ('brokers = ["mqtts://192.0.2.7"]', "", "missing key 'brokers'"),
        (f'key = {{ file = "keys/advice.cose", {pin("D")} }}', "", "missing key 'key'"),
        (
            f'ack_key = {{ file = "keys/advice-sign.cose", {pin("E")} }}',
            "",
            "missing key 'ack_key'",
        ),
        (f'ca = {{ file = "keys/advice-ca.pem", {pin("F")} }}', "", "missing key 'ca'"),
        (f", {pin('F')}", "", "missing key 'thumbprint'"),
        (', then = "anonymise"', "", "missing key 'then'"),
    ],
)
def test_a_key_that_is_missing_unknown_or_odd_keeps_the_policy_from_loading(
    old: str, new: str, sentence: str
) -> None:
    assert sentence in refused((old, new))


@pytest.mark.clause("C04")
def test_a_flow_without_a_notice_does_not_load() -> None:
    edit = ('notice = { en = "Advice on energy.", zh = "节能建议。" }', "")
    assert "missing key 'notice'" in refused(edit)


def test_the_example_loads_and_nothing_is_wrong_with_it() -> None:
    document = located.open_document(EXAMPLE)
    example = located.read(document, Policy)
    assert lint(example, document, TODAY) == []
    assert load_policy(EXAMPLE.read_bytes()) == example
    assert example.flows.keys() == {"service", "remote-diagnosis", "partner-energy-advice"}


def test_the_example_shows_every_key_there_is() -> None:
    text = EXAMPLE.read_text()
    keys = [
        field
        for table in (PolicyHead, Recipient, KeyRef, Attribute, Flow, Keep, BatchRule)
        for field in table.__struct_fields__
    ]
    assert [key for key in keys if f"{key} =" not in text] == []
