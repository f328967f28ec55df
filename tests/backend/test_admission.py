# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from assent.backend import directory
from assent.backend.admission import admit
from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.cosekey import SigningKey
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
    mailbox, data = admit(here, store, hand.request(TLS), NOW)
    assert mailbox == hand.mailbox
    admission = decode_admission(data, here.ack_key().public)
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


def test_the_same_request_again_gets_a_new_certificate(here: Directory) -> None:
    hand, store = Hand.make(), Store(here.root)
    first = admit(here, store, hand.request(TLS), NOW)
    again = admit(here, store, hand.request(TLS), NOW)
    assert first[0] == again[0]
    assert first[1] != again[1]
    assert len(store.custody.gateways()) == 1
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


def test_a_known_mailbox_with_other_keys_is_refused(here: Directory) -> None:
    hand, store = Hand.make(), Store(here.root)
    admit(here, store, hand.request(TLS), NOW)
    thief = dataclasses.replace(hand, sign=SigningKey.generate())
    with pytest.raises(RefusedError, match="already belongs"):
        admit(here, store, thief.request(TLS), NOW)
    store.close()
