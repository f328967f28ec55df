# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from assent.backend import directory
from assent.backend.admission import admit
from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.cosekey import SealPrivateKey, SigningKey
from assent.enrolment import decode_admission
from assent.errors import BadSignatureError, RefusedError, WireError
from tests.backend.parts import NOW, NOW_MS, Hand

TLS = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def here(tmp_path: Path) -> Directory:
    return directory.create(tmp_path / "maker", "maker", classical=True, now=NOW)


def test_an_admitted_gateway_is_known_and_has_a_certificate(here: Directory) -> None:
    hand = Hand.make()
    store = Store(here.root)
    admitted = admit(here, store, hand.request(TLS), NOW)
    assert (admitted.mailbox, admitted.is_renewal) == (hand.mailbox, False)
    admission = decode_admission(admitted.data, here.ack_key().public)
    assert (admission.recipient, admission.mailbox) == ("maker", hand.mailbox)
    leaf, root = x509.load_pem_x509_certificates(admission.certificate)
    leaf.verify_directly_issued_by(root)
    assert leaf.public_key() == TLS.public_key()
    row = store.custody.gateway(hand.mailbox)
    assert row is not None
    assert row.sign_key == hand.sign.public.encode()
    assert row.seal_key == hand.seal.public.encode()
    assert row.admitted_ms == NOW_MS
    store.close()


@pytest.mark.parametrize("key", ["the same", "a new one"])
def test_a_known_gateway_gets_a_new_certificate_for_the_tls_key_it_brings(
    here: Directory, key: str
) -> None:
    hand, store = Hand.make(), Store(here.root)
    first = admit(here, store, hand.request(TLS), NOW)
    row = store.custody.gateway(hand.mailbox)
    tls = TLS if key == "the same" else ec.generate_private_key(ec.SECP256R1())
    later = NOW + dt.timedelta(days=7300)
    again = admit(here, store, hand.request(tls), later)
    assert (again.mailbox, again.is_renewal) == (first.mailbox, True)
    admission = decode_admission(again.data, here.ack_key().public)
    leaf, root = x509.load_pem_x509_certificates(admission.certificate)
    leaf.verify_directly_issued_by(root)
    assert leaf.public_key() == tls.public_key()
    assert leaf.not_valid_after_utc > later
    assert store.custody.gateways() == [row], "when it was first admitted stays"
    store.close()


def test_a_request_for_another_recipient_is_refused(here: Directory) -> None:
    store = Store(here.root)
    with pytest.raises(RefusedError, match="for advice, this is maker"):
        admit(here, store, Hand.make().request(TLS, "advice"), NOW)
    assert store.custody.gateways() == []
    store.close()


def test_a_request_signed_by_another_key_than_it_names_is_refused(here: Directory) -> None:
    hand, store = Hand.make(), Store(here.root)
    good = bytearray(hand.request(TLS))
    good[-1] ^= 1
    with pytest.raises(BadSignatureError):
        admit(here, store, bytes(good), NOW)
    with pytest.raises(WireError):
        admit(here, store, b"hello", NOW)
    assert store.custody.gateways() == []
    store.close()


@pytest.mark.parametrize("other", ["sign", "seal"])
def test_a_known_mailbox_with_another_signing_or_sealing_key_is_no_renewal(
    here: Directory, other: str
) -> None:
    hand, store = Hand.make(), Store(here.root)
    admit(here, store, hand.request(TLS), NOW)
    keys = {"sign": SigningKey.generate(), "seal": SealPrivateKey.generate(classical=True)}
    thief = dataclasses.replace(hand, **{other: keys[other]})
    with pytest.raises(RefusedError, match="already belongs"):
        admit(here, store, thief.request(TLS), NOW)
    assert admit(here, store, hand.request(TLS), NOW).is_renewal
    store.close()
