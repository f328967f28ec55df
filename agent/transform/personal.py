# SPDX-License-Identifier: Apache-2.0
"""Tells texts that are shaped like a person's: e-mail, phone, URL, token, name field.

Law:
  - such a text is refused wherever a flow would carry text, even if a policy lists it (policy C35);
  - shapes only: nothing is looked up, nothing is remembered.

Limits: a shape is a guess in both directions. The closed set of the attribute is the first guard,
this one is the second; a bare name ("Alice") has no shape and is stopped by the first.
"""

from __future__ import annotations

import re
from typing import Final

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]*://|\bwww\.|\b(?:mailto|tel|sms|data|javascript):", re.IGNORECASE
)
# ITU-T E.164: at most 15 digits; fewer than 7 are short codes and ordinary numbers. Dots only
# where a number is certain, because versions have them too.
_PHONE = re.compile(
    r"(?:\+|00)[(\d](?:[\s().\-/]{0,2}\d){6,14}"
    r"|[(\d](?:[\s()\-/]{0,2}\d){6,14}"
    r"|\d{3}\.\d{3}\.\d{4}"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME_FIELD = re.compile(
    r"(?:\b|_)(?:name|surname|given|family|user|login|owner|contact|email|phone|password|passwd)"
    r"(?:[ _-]?name)?[\"']?\s*[:=]|(?:姓名|姓|名字|电话|手机|邮箱|密码)\s*[::=]",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+"  # JWT, RFC 7519
    r"|\b(?:bearer|basic)\s+[\w+/=.~-]{8,}"  # RFC 6750, RFC 7617
    r"|\b(?:gh[opsu]|xox[abpr]|sk|pk|AKIA|glpat)[_-]?[A-Za-z0-9_-]{12,}"
    r"|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"  # UUID, RFC 9562
    r"|-----BEGIN ",  # PEM, RFC 7468
    re.IGNORECASE,
)
_RUN = re.compile(r"[A-Za-z0-9+/_=]{20,}")

# Looking takes the square of the length: of 100,000 characters most of a minute.
_LONGEST: Final = 1_000
# A run of 20 characters with this many digits, or with a digit and this many changes from small to
# capital letters, is no word of a closed set.
_DIGITS_OF_A_TOKEN: Final = 4
_CHANGES_OF_A_TOKEN: Final = 3
_CHANGE = re.compile(r"[a-z](?=[A-Z])")


def is_personal(text: str) -> bool:
    """Says whether a text is shaped like something that names or reaches a person.

    Args:
        text: any text.

    Returns:
        True for e-mail addresses, phone numbers, URLs, tokens and `name: …` fields, and for
        whatever is longer than any word of a closed set.
    """
    if len(text) > _LONGEST:
        return True
    shaped = any(shape.search(text) for shape in (_EMAIL, _URL, _NAME_FIELD, _TOKEN))
    return shaped or _is_phone(text.strip()) or any(map(_is_random, _RUN.findall(text)))


def _is_phone(text: str) -> bool:
    return _PHONE.fullmatch(text) is not None and _DATE.fullmatch(text) is None


def _is_random(run: str) -> bool:
    digits = sum(map(str.isdigit, run))
    mixed = len(_CHANGE.findall(run)) >= _CHANGES_OF_A_TOKEN and digits > 0
    return mixed or (digits >= _DIGITS_OF_A_TOKEN and any(map(str.isalpha, run)))
