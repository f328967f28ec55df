# SPDX-License-Identifier: Apache-2.0
"""Lints of the data dictionary: what an entry may be about, and whether it says enough."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from typing import Final

from assent.policy.expressions import MAX_CHOICES, is_choice
from assent.policy.lints.measure import is_unit
from assent.policy.lints.nits import Lint, Nit, error, warning
from assent.policy.model import Attribute, Policy

# policy C35: what people give for accounts, recruitment, exhibitions, feedback, cookies,
# advertising, searches. The long ones are looked for at the start of a word, too (`username`).
_FORBIDDEN: Final = (
    "mail sms name surname user login pin token url uri ad ads adid idfa gaid aaid tel cv gender "
    "sex age birthday street postal postcode zip contact query pixel"
)
_FORBIDDEN_WORDS: Final = frozenset(_FORBIDDEN.split())
_STARTS: Final = (
    "email phone telephone cellphone account password username nickname firstname lastname "
    "fullname cookie browser browsing clickstream advert recruit resume exhibition feedback "
    "complaint comment search"
)
_FORBIDDEN_STARTS: Final = tuple(_STARTS.split())
# policy C06: what is heard of other people's access points and radios
_SCAN_STARTS: Final = ("neighbour", "neighbor", "nearby", "scan", "bssid", "ssid", "accesspoint")
_LIKE_A_PERSONS: Final = re.compile(r"@|://|\+?\d[\d \-]{7,}\d")

_COUNTED: Final = frozenset(("number", "integer", "position"))


def _words(name: str) -> list[str]:
    return re.split(r"[.-]", name)


def category_is_device_data(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Refuses names of what people give about themselves: it is not device data (policy C35)."""
    for name in policy.attributes:
        for word in _words(name):
            if word in _FORBIDDEN_WORDS or word.startswith(_FORBIDDEN_STARTS):
                message = f"expected data of a device, {word!r} is what people give of themselves"
                yield Nit(("attributes", name), message, "the dictionary has no place for it")


def no_neighbour_scan(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Refuses raw scans of other people's radios (policy C06)."""
    for name in policy.attributes:
        joined = "".join(_words(name))
        if any(word.startswith(_SCAN_STARTS) for word in [*_words(name), joined]) or (
            "accesspoint" in joined
        ):
            message = "expected data of this device, a scan tells of other people's"
            yield Nit(("attributes", name), message)


def text_needs_choices(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A text has a closed set, but for identifiers and addresses, which never leave as they are."""
    for name, attribute in policy.attributes.items():
        open_kind = attribute.kind in {"identifier", "connection"}
        if attribute.type == "text" and not open_kind and not attribute.choices:
            message = "expected the closed set of this text, got none: free text never leaves"
            hint = 'add choices = ["…"]'
            yield Nit(("attributes", name), message, hint)


def choices_fit(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A closed set belongs to a text, and has different, short, plain values."""
    for name, attribute in policy.attributes.items():
        path = ("attributes", name, "choices")
        choices = attribute.choices
        if choices and (attribute.type != "text" or attribute.kind == "identifier"):
            yield Nit(path, f"expected no choices of {_a(attribute)}, got {len(choices)}")
        if len(set(choices)) != len(choices) or len(choices) > MAX_CHOICES:
            message = f"expected at most {MAX_CHOICES} different choices, got {len(choices)}"
            yield Nit(path, message)
        for index, choice in enumerate(choices):
            if not is_choice(choice):
                message = "expected 1 to 64 characters without comma or control character"
                yield Nit((*path, index), f"{message}, got {choice[:40]!r}")


def choices_name_nobody(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """No value of a closed set looks like an e-mail address, a URL or a phone number (C35)."""
    for name, attribute in policy.attributes.items():
        for index, choice in enumerate(attribute.choices):
            if _LIKE_A_PERSONS.search(choice):
                message = "expected a word of the device, this looks like an address or a number"
                yield Nit(("attributes", name, "choices", index), message)


def quantum_fits(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Numbers have a quantum over 0; integers and positions may; nothing else has one."""
    for name, attribute in policy.attributes.items():
        path, quantum = ("attributes", name, "quantum"), attribute.quantum
        if quantum is None:
            if attribute.type == "number":
                message = "expected the sensor's own resolution as quantum, got none"
                yield Nit(path, message, "such as quantum = 0.1")
        elif attribute.type not in _COUNTED:
            yield Nit(path, f"expected no quantum of {_a(attribute)}, got {quantum}")
        elif not 0 < quantum < math.inf:
            yield Nit(path, f"expected a quantum over 0, got {quantum}")
        elif attribute.type == "integer" and not float(quantum).is_integer():
            yield Nit(path, f"expected a whole quantum of an integer, got {quantum}")


def unit_is_known(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A number has a unit, and units are SenML's or UCUM's."""
    for name, attribute in policy.attributes.items():
        path, unit = ("attributes", name, "unit"), attribute.unit
        if unit is None and attribute.type == "number":
            message = "expected the unit of this number, got none"
            yield Nit(path, message, 'a ratio has unit = "/"')
        elif unit is not None and not is_unit(unit):
            message = f"expected a unit of SenML (RFC 8428) or UCUM, got {unit[:40]!r}"
            yield Nit(path, message, "such as W, Cel, kW.h, m3/h")


def monotonic_is_number(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Only numbers count up."""
    for name, attribute in policy.attributes.items():
        if attribute.monotonic and attribute.type not in {"number", "integer"}:
            message = f"expected a number or an integer to be monotonic, got {_a(attribute)}"
            yield Nit(("attributes", name, "monotonic"), message)


def kind_fits_type(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """An identifier is a text; a position is a location."""
    for name, attribute in policy.attributes.items():
        path = ("attributes", name, "type")
        if attribute.kind == "identifier" and attribute.type != "text":
            yield Nit(path, f"expected an identifier to be a text, got {attribute.type!r}")
        if attribute.type == "position" and attribute.kind != "location":
            yield Nit(path, f"expected a position to be of kind 'location', got {_a(attribute)}")


def identity_is_personal(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Identifiers and positions are at least personal."""
    for name, attribute in policy.attributes.items():
        telling = attribute.kind in {"identifier", "location"}
        if telling and attribute.sensitivity == "none":
            message = f"expected 'personal' or 'sensitive' of {_a(attribute)}, got 'none'"
            yield Nit(("attributes", name, "sensitivity"), message)


def entry_is_explained(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """About and owner are not blank: somebody can read what it is and whom to ask (C04)."""
    for name, attribute in policy.attributes.items():
        for key in ("about", "owner"):
            if not getattr(attribute, key).strip():
                yield Nit(("attributes", name, key), f"expected a text for {key!r}, got a blank")


def review_is_due_later(policy: Policy, today: dt.date) -> Iterator[Nit]:
    """Somebody has looked at the entry again in time; a running fleet is not silenced by it."""
    for name, attribute in policy.attributes.items():
        if attribute.review < today:
            message = f"expected a review by {attribute.review}, it is overdue"
            yield Nit(("attributes", name, "review"), message, f"ask the {attribute.owner}")


def _a(attribute: Attribute) -> str:
    return f"kind {attribute.kind!r}, type {attribute.type!r}"


LINTS: Final[dict[str, Lint]] = {
    "category-is-device-data": error(category_is_device_data),
    "no-neighbour-scan": error(no_neighbour_scan),
    "text-needs-choices": error(text_needs_choices),
    "choices-fit": error(choices_fit),
    "choices-name-nobody": error(choices_name_nobody),
    "quantum-fits": error(quantum_fits),
    "unit-is-known": warning(unit_is_known),
    "monotonic-is-number": error(monotonic_is_number),
    "kind-fits-type": error(kind_fits_type),
    "identity-is-personal": warning(identity_is_personal),
    "entry-is-explained": error(entry_is_explained),
    "review-is-due-later": warning(review_is_due_later),
}
