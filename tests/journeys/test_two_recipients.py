# SPDX-License-Identifier: Apache-2.0
"""Two recipients of one household have nothing in common to join it by."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from assent.cosekey import SealPrivateKey, decode_seal_private_key, decode_verifying_key
from assent.enrolment import EnrolRequest, decode_request
from assent.envelope import open_batch
from assent.errors import WireError
from demo.stage import RECIPIENTS, Stage, wait_until
from tests.journeys.parts import YES

pytestmark = pytest.mark.journey

# Shorter common strings are format, not identity: PEM and DER heads, COSE labels.
_JOINS = 12


def request_of(stage: Stage, recipient: str) -> EnrolRequest:
    path = stage.gateway / "requests" / f"{recipient}.request"
    return decode_request(path.read_bytes())


def identities(request: EnrolRequest) -> dict[str, bytes]:
    """Everything in a request that could name the gateway."""
    csr = x509.load_pem_x509_csr(request.csr)
    public = csr.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return {
        "mailbox": request.mailbox.encode(),
        "signing key": request.sign_key,
        "sealing key": request.seal_key,
        "TLS key": public,
        "signature": csr.signature,
    }


def longest_common(one: bytes, other: bytes) -> int:
    spans = {one[at : at + _JOINS] for at in range(len(one) - _JOINS + 1)}
    return sum(other[at : at + _JOINS] in spans for at in range(len(other) - _JOINS + 1))


def key_of(stage: Stage, recipient: str) -> SealPrivateKey:
    data = (stage.backend_directory(recipient) / "keys/seal.key.cose").read_bytes()
    return decode_seal_private_key(data)


def spooled(stage: Stage) -> dict[str, bytes]:
    """One sealed batch for each recipient, from the gateway's spool."""
    path = stage.gateway / "state" / "spool" / "spool.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT lane.recipient, data FROM batch JOIN payload USING (id)"
            " JOIN lane ON lane.id = batch.lane"
        ).fetchall()
    db.close()
    return dict(rows)


@pytest.fixture
def filled(stage: Stage) -> Stage:
    """A gateway that ran without a broker until each recipient has a batch waiting."""
    stage.decide(YES)
    stage.start_agent()
    wait_until(lambda: set(spooled(stage)) == set(RECIPIENTS), "a batch waits for each")
    stage.end("agent")
    return stage


@pytest.mark.clause("C15")
def test_the_enrolments_of_two_recipients_share_nothing(stage: Stage) -> None:
    maker, partner = (identities(request_of(stage, recipient)) for recipient in RECIPIENTS)
    shared = [
        f"{mine} ~ {theirs}"
        for (mine, one), (theirs, other) in itertools.product(maker.items(), partner.items())
        if longest_common(one, other)
    ]
    assert shared == []


def test_the_search_for_common_bytes_finds_them(stage: Stage) -> None:
    request = identities(request_of(stage, RECIPIENTS[0]))
    assert all(longest_common(value, value) for value in request.values())


@pytest.mark.clause("C15")
def test_certificates_name_the_mailbox_and_nothing_else(stage: Stage) -> None:
    for recipient in RECIPIENTS:
        pair = stage.gateway / "state" / "keys" / "tls" / f"{recipient}.pem"
        certificate = x509.load_pem_x509_certificate(pair.read_bytes())
        names = [attribute.value for attribute in certificate.subject]
        assert names == [request_of(stage, recipient).mailbox]


@pytest.mark.clause("C03")
@pytest.mark.clause("C15")
def test_only_the_recipients_own_key_opens_its_batch(filled: Stage) -> None:
    batches = spooled(filled)
    for owner, reader in itertools.product(RECIPIENTS, RECIPIENTS):
        request = request_of(filled, owner)
        signer = decode_verifying_key(request.sign_key)
        key = key_of(filled, reader)
        arguments = {"key": key, "signer": signer, "mailbox": request.mailbox, "recipient": owner}
        if owner == reader:
            assert open_batch(batches[owner], **arguments).tables
        else:
            with pytest.raises(WireError):
                open_batch(batches[owner], **arguments)


@pytest.mark.clause("C03")
def test_a_batch_moved_to_another_mailbox_does_not_open(filled: Stage) -> None:
    data = spooled(filled)["maker"]
    own, other = (request_of(filled, recipient) for recipient in RECIPIENTS)
    signer = decode_verifying_key(own.sign_key)
    key = key_of(filled, "maker")
    opened = open_batch(data, key=key, signer=signer, mailbox=own.mailbox, recipient="maker")
    assert opened.header.recipient == "maker"
    with pytest.raises(WireError):
        open_batch(data, key=key, signer=signer, mailbox=other.mailbox, recipient="maker")


@pytest.mark.clause("C10")
@pytest.mark.clause("C15")
def test_one_appliance_has_unrelated_pseudonyms_at_two_recipients(stage: Stage) -> None:
    stage.decide(YES)
    for recipient in RECIPIENTS:
        stage.start_broker(recipient)
        stage.start_backend(recipient)
    stage.start_agent()

    def pseudonyms(recipient: str, flow: str) -> set[str]:
        rows = stage.show(recipient, "data", "--flow", flow, "--limit", "1000")
        return {row["pseudonym"] for row in rows}

    flows = {"remote-diagnosis": "maker", "partner-energy-advice": "energy-advice"}
    wait_until(
        lambda: all(pseudonyms(recipient, flow) for flow, recipient in flows.items()),
        "both have stored something of the appliance",
    )
    at_maker, at_partner = (pseudonyms(recipient, flow) for flow, recipient in flows.items())
    assert len(at_maker) == len(at_partner) == 1
    assert not at_maker & at_partner
