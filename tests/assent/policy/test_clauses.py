# SPDX-License-Identifier: Apache-2.0
"""Clauses of the privacy policy that a `policy.toml` keeps by not loading otherwise."""

from __future__ import annotations

import re

import pytest

from assent.errors import ConfigError
from assent.policy.model import Policy
from assent.policy.signing import load_policy
from tests.assent.policy.drafts import BASE, Edits, edited, pin

PUBLIC = f"""
[recipients.everybody]
role = "public"
region = "CN"
key = {{ file = "keys/public.cose", {pin("P")} }}
ack_key = {{ file = "keys/public-sign.cose", {pin("Q")} }}
brokers = ["mqtts://open.example.org"]
ca = {{ file = "keys/public-ca.pem", {pin("R")} }}

[flows.statistics]
function = "optional"
purpose = "public-statistics"
notice = {{ en = "Figures for everybody.", zh = "公开统计。" }}
basis = "consent"
recipient = "everybody"
attributes = {{ power = "window(1d, mean)" }}
keep = {{ gateway = "7d", recipient = "90d", then = "delete" }}
separate = true
"""


def loaded(edits: Edits = (), text: str = BASE) -> Policy:
    return load_policy(edited(edits, text).encode(), "policy.toml")


def refused(edits: Edits, text: str = BASE) -> set[str]:
    """The lints by which a text does not load."""
    with pytest.raises(ConfigError) as caught:
        loaded(edits, text)
    names = [re.search(r"\[([a-z-]+)\]$", finding.message) for finding in caught.value.findings]
    return {name[1] if name else "it does not read" for name in names}


def attribute(name: str, *, kind: str = "attribute", choices: str = '["a", "b"]') -> str:
    """The draft with one more entry in its dictionary: a text of a closed set."""
    return f"""{BASE}
[attributes."{name}"]
kind = "{kind}"
type = "text"
choices = {choices}
about = "For a test."
owner = "test team"
review = 2027-11-30
"""


@pytest.mark.clause("C05")
@pytest.mark.parametrize("name", ["advertising-id", "host.ad-id", "host.idfa", "aaid", "gaid"])
def test_an_advertising_id_is_no_attribute_of_a_device(name: str) -> None:
    assert refused((), attribute(name)) == {"category-is-device-data"}


@pytest.mark.clause("C05")
@pytest.mark.parametrize("name", ["adapter-id", "host.model", "host.os"])
def test_what_a_device_is_may_stand_in_the_dictionary(name: str) -> None:
    assert name in loaded((), attribute(name)).attributes


@pytest.mark.clause("C07")
@pytest.mark.parametrize("name", ["browser", "browser.version", "host.browser", "browsing.history"])
def test_nothing_of_a_browser_is_an_attribute_of_a_device(name: str) -> None:
    assert refused((), attribute(name, kind="connection")) == {"category-is-device-data"}


@pytest.mark.clause("C07")
@pytest.mark.parametrize("name", ["network.operator", "host.language"])
def test_operator_and_language_may_be_words_of_a_closed_set(name: str) -> None:
    assert name in loaded((), attribute(name, kind="connection")).attributes


@pytest.mark.clause("C08")
def test_applications_have_an_allow_list_or_no_place() -> None:
    listed = attribute("host.application", choices='["timer", "thermostat"]')
    assert loaded((), listed).attributes["host.application"].choices == ("timer", "thermostat")
    assert refused([('choices = ["timer", "thermostat"]\n', "")], listed) == {"text-needs-choices"}


SHARING = ["affiliate", "partner", "authority", "public"]


@pytest.mark.clause("C13")
@pytest.mark.parametrize("role", SHARING)
@pytest.mark.parametrize("basis", ["contract", "safe_operation"])
def test_contract_and_fault_finding_never_carry_sharing(role: str, basis: str) -> None:
    found = refused(
        [('"partner"', f'"{role}"'), ('"consent"', f'"{basis}"'), ('serial = "pseudonym"\n', "")]
    )
    assert found == {"sharing-has-its-basis"}


@pytest.mark.clause("C13")
@pytest.mark.parametrize("role", SHARING)
def test_consent_carries_sharing(role: str) -> None:
    policy = loaded([('"partner"', f'"{role}"'), ('serial = "pseudonym"\n', "")])
    assert policy.recipients["advice"].role == role


@pytest.mark.clause("C13")
@pytest.mark.parametrize("basis", ["legitimate_interest", "research", "news", "public_information"])
def test_news_research_and_interest_are_no_words_of_a_policy(basis: str) -> None:
    assert refused([('basis = "consent"', f'basis = "{basis}"')]) == {"it does not read"}


@pytest.mark.clause("C16")
@pytest.mark.parametrize(
    "attributes",
    [
        'power = "window(1d, mean)"',
        'power = "round(100)"',
        'area = "grid(50)"',
        'ip = "prefix(16)"',
        'fault = "enum(heater, leak)"',
    ],
)
def test_what_is_coarse_may_be_public(attributes: str) -> None:
    policy = loaded([('power = "window(1d, mean)"', attributes)], BASE + PUBLIC)
    assert policy.recipients[policy.flows["statistics"].recipient].role == "public"


@pytest.mark.clause("C16")
@pytest.mark.parametrize(
    "attributes", ['power = "keep"', 'serial = "pseudonym"', 'energy = "delta"', 'fault = "keep"']
)
def test_no_single_value_and_no_device_becomes_public(attributes: str) -> None:
    edits = [('power = "window(1d, mean)"', attributes)]
    assert refused(edits, BASE + PUBLIC) == {"public-is-anonymous"}


@pytest.mark.clause("C16")
def test_publishing_is_a_yes_of_its_own() -> None:
    last = "separate = true\n"
    assert PUBLIC.endswith(last)
    assert refused((), BASE + PUBLIC.removesuffix(last)) == {"separate-where-due"}


@pytest.mark.clause("C17")
def test_leaving_the_controllers_country_is_a_yes_of_its_own() -> None:
    abroad = [('"partner"', '"processor"'), ('"sensitive"', '"personal"')]
    assert refused([*abroad, ("separate = true\n", "")]) == {"separate-where-due"}
    assert loaded(abroad).flows["advice"].separate


@pytest.mark.clause("C17")
def test_at_home_a_processor_needs_no_question_of_its_own() -> None:
    home = [('"partner"', '"processor"'), ('"DE"', '"CN-31"'), ('"sensitive"', '"personal"')]
    assert not loaded([*home, ("separate = true\n", "")]).flows["advice"].separate
