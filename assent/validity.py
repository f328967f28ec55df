# SPDX-License-Identifier: Apache-2.0
"""When a certificate ends, read from its PEM with nothing but the rules of DER.

A parser of certificates costs a process memory that one date does not need, and the uplink, which
has to say why a broker hangs up, may not load the rooms that have one.

Standards: RFC 5280 §4.1 (where the date stands), X.690 §8.1 and §10.1 (tags and lengths), RFC 7468.

Security: reads certificates that were checked when they were kept; verifies nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from typing import Final

from assent.errors import MalformedError

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----"
)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0  # [0] EXPLICIT, absent in version 1
_YEAR: Final = {0x17: 2, 0x18: 4}  # UTCTime, GeneralizedTime: digits of the year, ten follow
_PIVOT: Final = 50  # RFC 5280 §4.1.2.5.1: years of two digits from 50 are of the last century


def ends_ms(pem: bytes) -> int:
    """Reads when the first certificate of a file ends.

    Args:
        pem: the file's bytes; what is no certificate is passed over.

    Returns:
        The last second it is valid, in ms since 1970 UTC; before 1970 below zero.

    Raises:
        MalformedError: there is no certificate, or none that can be read.
    """
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise MalformedError("expected a certificate in PEM")
    try:
        return _not_after(base64.b64decode(found[1]))
    except (ValueError, IndexError) as exc:
        raise MalformedError("expected a certificate in PEM") from exc


def _not_after(der: bytes) -> int:
    certificate = _of(_SEQUENCE, *_element(der, 0)[:2])
    fields = _of(_SEQUENCE, *_element(certificate, 0)[:2])
    tag, _, at = _element(fields, 0)
    if tag == _VERSION:
        _, _, at = _element(fields, at)  # the serial number
    _, _, at = _element(fields, at)  # the algorithm of the signature
    _, _, at = _element(fields, at)  # the issuer
    validity = _of(_SEQUENCE, *_element(fields, at)[:2])
    _, _, at = _element(validity, 0)
    tag, value, _ = _element(validity, at)
    return _instant(tag, value.decode("ascii"))


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Reads one element: its tag, its contents, where the next one begins."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:
        count = length - 0x80
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise ValueError("longer than what holds it")
    return tag, data[start : start + length], start + length


def _of(expected: int, tag: int, value: bytes) -> bytes:
    if tag != expected:
        raise ValueError("another element than expected")
    return value


def _instant(tag: int, text: str) -> int:
    width = _YEAR.get(tag, 0)
    if not width or not re.fullmatch(rf"[0-9]{{{width + 10}}}Z", text):
        raise ValueError("no time")
    year = int(text[:width])
    if tag == 0x17:
        year += 1900 if year >= _PIVOT else 2000
    # Not strptime: its calendar and locale cost 0.4 MiB.
    moment = dt.datetime.fromisoformat(f"{year:04}{text[width:-7]}T{text[-7:]}")
    return int(moment.timestamp()) * 1000
