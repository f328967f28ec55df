# SPDX-License-Identifier: Apache-2.0
"""The end of a certificate, read twice: by us, and by a parser of certificates."""

from __future__ import annotations

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from assent.errors import MalformedError
from assent.validity import ends_ms

KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN = dt.datetime(1951, 1, 1, tzinfo=dt.UTC)


def certificate(end: dt.datetime, name: str = "example", serial: int = 1) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(BEGIN)
        .not_valid_after(end)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@given(
    st.datetimes(timezones=st.just(dt.UTC)),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16),
    st.integers(1, 2**159 - 1),
)
@settings(max_examples=60, deadline=None)
def test_the_end_is_what_a_parser_of_certificates_reads(
    end: dt.datetime, name: str, serial: int
) -> None:
    assume(end > BEGIN)
    pem = certificate(end, name, serial)
    read = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    assert ends_ms(pem) == int(read.timestamp()) * 1000


@pytest.mark.parametrize("year", [1952, 1999, 2026, 2049, 2050, 9999])
def test_the_end_is_read_in_years_of_two_digits_and_of_four(year: int) -> None:
    end = dt.datetime(year, 3, 1, 12, 30, 59, tzinfo=dt.UTC)
    assert ends_ms(certificate(end)) == int(end.timestamp()) * 1000


def test_the_first_certificate_of_a_chain_counts_and_words_before_it_do_not() -> None:
    first, second = (dt.datetime(2026 + at, 1, 1, tzinfo=dt.UTC) for at in (0, 1))
    pem = b"a note\n" + certificate(first) + certificate(second)
    assert ends_ms(pem) == int(first.timestamp()) * 1000


def damaged(pem: bytes, at: int) -> bytes:
    body = bytearray(pem)
    body[at] = ord("A") if body[at] != ord("A") else ord("B")
    return bytes(body)


GOOD = certificate(dt.datetime(2046, 11, 22, tzinfo=dt.UTC))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff" * 500,
        GOOD[:-30],
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMP////////8=\n-----END CERTIFICATE-----\n",
    ],
    ids=[
        "nothing",
        "no text",
        "a certificate without its end",
        "an empty certificate",
        "no base64",
        "a head alone",
        "a length beyond the file",
    ],
)
def test_what_is_no_certificate_is_an_error_of_ours(pem: bytes) -> None:
    with pytest.raises(MalformedError):
        ends_ms(pem)


def test_a_certificate_that_is_cut_after_its_date_is_an_error_of_ours() -> None:
    der = x509.load_pem_x509_certificate(GOOD).public_bytes(serialization.Encoding.DER)
    at = der.index(b"461122000000Z") + 13
    body = base64.encodebytes(der[:at])
    with pytest.raises(MalformedError):
        ends_ms(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")


def test_whatever_byte_is_altered_it_is_a_date_or_an_error_of_ours() -> None:
    errors = 0
    for at in range(30, len(GOOD) - 30):
        try:
            assert isinstance(ends_ms(damaged(GOOD, at)), int)
        except MalformedError:
            errors += 1
    assert errors > 10
