# SPDX-License-Identifier: Apache-2.0
"""The test vectors that are published with docs/wire.md: made again, and read as they say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from assent import columns, enrolment, envelope, errors, messages
from assent.cosekey import (
    SealPrivateKey,
    SigningKey,
    decode_seal_private_key,
    decode_seal_public_key,
    decode_signing_key,
    decode_verifying_key,
    thumbprint_text,
)
from assent.errors import WireError
from assent.header import sealed_data, signed_data
from assent.wire import Direction, Kind
from tests.vectors import generate

hexed = bytes.fromhex
KEYS = {vector["name"]: vector for vector in generate.load("keys.json")}
MESSAGES = generate.load("messages.json")
FILES = {vector["name"]: vector for vector in generate.load("files.json")}
NEGATIVE = generate.load("negative.json")


def signer(name: str) -> SigningKey:
    return decode_signing_key(hexed(KEYS[name]["private"]))


def reader(name: str) -> SealPrivateKey:
    return decode_seal_private_key(hexed(KEYS[name]["private"]))


def open_up(data: bytes, mailbox: str, key: str = "recipient-classical") -> object:
    return envelope.open_up(
        data, key=reader(key), signer=signer("gateway").public, mailbox=mailbox, recipient="maker"
    )


def open_down(data: bytes, mailbox: str) -> object:
    return envelope.open_down(
        data, key=reader("gateway-classical"), signer=signer("ack").public, mailbox=mailbox
    )


READERS: dict[str, Callable[[bytes, str], object]] = {
    "up": open_up,
    "up-hybrid": lambda data, mailbox: open_up(data, mailbox, "recipient-hybrid"),
    "down": open_down,
    "acknowledgement": lambda data, _: messages.decode_acknowledgement(data),
    "request": lambda data, _: messages.decode_request(data),
    "status": lambda data, _: messages.decode_status(data),
    "time": lambda data, _: messages.decode_time(data),
    "bundle": lambda data, _: enrolment.decode_bundle(data),
    "enrol-request": lambda data, _: enrolment.decode_request(data),
    "admission": lambda data, _: enrolment.decode_admission(data, signer("ack").public),
}


@pytest.mark.parametrize("name", ["keys.json", "messages.json", "files.json", "negative.json"])
def test_making_the_vectors_again_gives_the_same_files(name: str) -> None:
    made = generate.make()[name]
    assert generate.text_of(made) == (generate.HERE / name).read_text()


def test_a_hybrid_message_that_does_not_open_is_made_anew() -> None:
    stale = {vector["name"]: vector | {"sealed": "d0"} for vector in MESSAGES}
    fresh = generate.positive(stale)[1]
    assert fresh["sealed"] not in {"d0", MESSAGES[1]["sealed"]}
    assert fresh["signed"] == MESSAGES[1]["signed"]


@pytest.mark.parametrize("vector", KEYS.values(), ids=KEYS.keys())
def test_a_key_reads_as_its_vector_says(vector: dict[str, Any]) -> None:
    private, public = hexed(vector["private"]), hexed(vector["public"])
    if vector["use"] == "sign":
        assert decode_signing_key(private).public == decode_verifying_key(public)
        thumbprint = decode_verifying_key(public).thumbprint
    else:
        assert decode_seal_private_key(private).public == decode_seal_public_key(public)
        thumbprint = decode_seal_public_key(public).thumbprint
    assert thumbprint_text(thumbprint) == vector["thumbprint"]
    assert thumbprint[:8].hex() == vector["kid"]


@pytest.mark.parametrize("vector", MESSAGES, ids=[vector["name"] for vector in MESSAGES])
def test_a_message_opens_as_its_vector_says(vector: dict[str, Any]) -> None:
    data, mailbox = hexed(vector["sealed"]), vector["mailbox"]
    key, kind = reader(vector["reader"]), Kind(vector["kind"])
    assert hashlib.sha256(data).hexdigest() == vector["digest"]
    assert envelope.recipient_kid(data).hex() == KEYS[vector["reader"]]["kid"]
    assert envelope.unseal(data, key, mailbox).hex() == vector["signed"]
    assert signed_data(mailbox, kind.direction).hex() == vector["signed_external_aad"]
    assert sealed_data(mailbox, key.kid).hex() == vector["sealed_external_aad"]
    if kind.direction is Direction.DOWN:
        opened = open_down(data, mailbox)
    else:
        opened = open_up(data, mailbox, vector["reader"])
    if kind is Kind.BATCH:
        assert isinstance(opened, envelope.Opened)
        assert opened.header == generate.HEADER
        assert columns.readings(opened.tables) == vector["readings"]
        assert generate.plain(opened.tables) == generate.plain(generate.TABLES)
    else:
        assert opened == envelope.Control(kind, hexed(vector["body"]))


def test_the_bodies_read_as_they_were_written() -> None:
    bodies = {vector["name"]: hexed(vector["body"]) for vector in MESSAGES if "body" in vector}
    read = messages.decode_acknowledgement(bodies["acknowledgement"])
    assert read == generate.ACKNOWLEDGEMENT
    assert messages.decode_request(bodies["request"]) == generate.REQUEST
    assert messages.decode_status(bodies["status"]) == generate.STATUS
    assert messages.decode_time(bodies["time"]) == generate.TIME
    assert enrolment.decode_bundle(bodies["policy"]) == generate.bundle()


def test_the_files_read_as_they_were_written() -> None:
    data = {name: hexed(vector["data"]) for name, vector in FILES.items()}
    assert enrolment.decode_bundle(data["bundle"]) == generate.bundle()
    assert enrolment.decode_request(data["request"]) == generate.request()
    assert enrolment.decode_admission(data["admission"], signer("ack").public) == (
        generate.admission()
    )
    vector = FILES["policy signature"]
    envelope.verify_detached(
        hexed(vector["payload"]),
        data["policy signature"],
        signer(vector["signer"]).public,
        hexed(vector["external_aad"]),
    )


@pytest.mark.parametrize("vector", NEGATIVE, ids=[vector["name"] for vector in NEGATIVE])
def test_a_negative_vector_is_refused_for_its_one_failure(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        READERS[vector["read"]](hexed(vector["data"]), vector["mailbox"])
    assert caught.value.code == vector["code"]


def test_every_reason_to_refuse_has_a_vector() -> None:
    codes = {vector["code"] for vector in NEGATIVE}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert codes == {k.code for k in kinds if issubclass(k, WireError) and k is not WireError}
    assert len({vector["name"] for vector in NEGATIVE}) == len(NEGATIVE)
